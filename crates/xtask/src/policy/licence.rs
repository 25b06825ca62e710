//! Licences of dependencies: SPDX expressions against a list of those we accept.

use serde_json::Value;

use super::Findings;

/// What we accept: licences that ask for no more than attribution.
const ACCEPTED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Every package of the lock file, used on this platform or not.
pub fn check(metadata: &Value) -> Findings {
    let mut findings = Findings::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        match package["license"].as_str() {
            None => findings.push(format!("{name} does not say its licence")),
            Some(expression) => match is_accepted(expression) {
                Ok(true) => {}
                Ok(false) => findings.push(format!("{name}: {expression:?} cannot be met with what we accept")),
                Err(why) => findings.push(format!("{name}: {expression:?} is not understood: {why}")),
            },
        }
    }
    findings
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// Whether the expression can be met by accepted licences alone.
///
/// OR leaves the choice to us, AND does not, and binds tighter; WITH belongs to the licence before it. The slash is an
/// old way to write OR.
fn is_accepted(expression: &str) -> Result<bool, String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &tokens[..];
    let accepted = either(&mut rest)?;
    match rest.first() {
        None => Ok(accepted),
        Some(token) => Err(format!("{token:?} is not expected here")),
    }
}

fn either(tokens: &mut &[&str]) -> Result<bool, String> {
    let mut accepted = both(tokens)?;
    while take(tokens, "OR") {
        accepted |= both(tokens)?;
    }
    Ok(accepted)
}

fn both(tokens: &mut &[&str]) -> Result<bool, String> {
    let mut accepted = one(tokens)?;
    while take(tokens, "AND") {
        accepted &= one(tokens)?;
    }
    Ok(accepted)
}

fn one(tokens: &mut &[&str]) -> Result<bool, String> {
    if take(tokens, "(") {
        let accepted = either(tokens)?;
        return if take(tokens, ")") { Ok(accepted) } else { Err("a parenthesis is not closed".into()) };
    }
    let mut licence = name(tokens)?.to_owned();
    if take(tokens, "WITH") {
        licence = format!("{licence} WITH {}", name(tokens)?);
    }
    Ok(ACCEPTED.contains(&licence.as_str()))
}

fn name<'a>(tokens: &mut &[&'a str]) -> Result<&'a str, String> {
    match tokens.split_first() {
        Some((&token, rest)) if !["AND", "OR", "WITH", "(", ")"].contains(&token) => {
            *tokens = rest;
            Ok(token)
        }
        Some((token, _)) => Err(format!("a licence is expected in place of {token:?}")),
        None => Err("it ends where a licence is expected".into()),
    }
}

fn take(tokens: &mut &[&str], word: &str) -> bool {
    match tokens.split_first() {
        Some((token, rest)) if *token == word => {
            *tokens = rest;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_are_met_or_not() {
        for (expression, accepted) in [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("GPL-3.0-only AND MIT", false),
            ("MIT AND (GPL-3.0-only OR ISC)", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("MIT OR GPL-3.0-only AND GPL-2.0-only", true),
            ("(MIT OR GPL-3.0-only) AND GPL-2.0-only", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only", true),
            ("GPL-2.0-only WITH Classpath-exception-2.0", false),
            ("MIT WITH LLVM-exception", false),
        ] {
            assert_eq!(is_accepted(expression), Ok(accepted), "{expression}");
        }
    }

    #[test]
    fn what_is_not_an_expression_is_not_accepted() {
        for expression in ["", "MIT Apache-2.0", "MIT OR", "(MIT", "MIT)", "OR MIT", "Apache-2.0 WITH"] {
            assert!(is_accepted(expression).is_err(), "{expression}");
        }
    }

    #[test]
    fn packages_without_an_accepted_licence_are_named() {
        let metadata = json!({"packages": [
            {"name": "good", "version": "1.0.0", "license": "MIT"},
            {"name": "silent", "version": "2.0.0", "license": null},
            {"name": "strict", "version": "3.0.0", "license": "AGPL-3.0-only"},
        ]});
        let findings = check(&metadata);
        assert_eq!(findings.len(), 2);
        assert!(findings[0].starts_with("silent 2.0.0 "), "{findings:?}");
        assert!(findings[1].starts_with("strict 3.0.0: \"AGPL-3.0-only\""), "{findings:?}");
    }
}
