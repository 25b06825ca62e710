//! Topic Filters as rules use them: matched with Topic Names, compared with each other, completed for one client.

use pantala_proto::TopicFilter;

use crate::Subject;

/// A well-formed Topic Filter, in the form that is cheapest to match.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    /// `#`.
    Everything,
    /// No wildcard.
    Exact(Box<str>),
    /// `a/b/#`, held as `a/b`, which has no wildcard.
    Below(Box<str>),
    /// Any other.
    Levels(Box<str>),
}

impl Filter {
    pub(crate) fn new(text: &str) -> Self {
        if text == "#" {
            return Self::Everything;
        }
        let (front, below) = match text.strip_suffix("/#") {
            Some(front) => (front, true),
            None => (text, false),
        };
        if front.contains(['+', '#']) {
            Self::Levels(text.into())
        } else if below {
            Self::Below(front.into())
        } else {
            Self::Exact(text.into())
        }
    }

    /// Whether the Topic Name is one of those the filter asks for, by the standard's rules (v5 section 4.7).
    #[inline]
    pub(crate) fn matches(&self, topic_name: &str) -> bool {
        match self {
            Self::Everything => !topic_name.starts_with('$'),
            Self::Exact(name) => **name == *topic_name,
            Self::Below(front) => {
                topic_name.strip_prefix(&**front).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Levels(filter) => TopicFilter::Plain(filter).matches(topic_name),
        }
    }
}

/// Whether one rule alone matches every Topic Name that `filter` matches. Of rules of different words with one meaning, as `#`
/// and `+/#`, only the shorter covers the other, as in Mosquitto. Takes no memory.
pub(crate) fn covers(rule: &str, filter: &str) -> bool {
    if filter.starts_with('$') && rule.starts_with(['+', '#']) {
        return false;
    }
    let (mut rule, mut filter) = (rule.split('/'), filter.split('/'));
    loop {
        match (rule.next(), filter.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Whether every Topic Name that `filter` matches is matched by one of `allowed`.
///
/// Exact, though the names are infinitely many: wherever `filter` leaves a level open, a name can have a level there that
/// no rule spells out, so only rules that leave it open too can help, and what they cover is covered for all others.
pub(crate) fn is_contained<'a>(filter: &str, allowed: impl Iterator<Item = &'a str> + Clone) -> bool {
    // Nearly always one rule does it. Without wildcards several can do no more than one.
    if allowed.clone().any(|rule| covers(rule, filter)) {
        return true;
    }
    if !filter.contains(['+', '#']) {
        return false;
    }
    // What is left of each rule that fits as far as `filter` was walked.
    let mut left: Vec<&str> =
        allowed.filter(|rule| !(filter.starts_with('$') && rule.starts_with(['+', '#']))).collect();
    // Whether a name that ends here is covered.
    let mut ends = false;
    for (index, level) in filter.split('/').enumerate() {
        // It covers its parent, and all that is below.
        if left.contains(&"#") {
            return true;
        }
        if level == "#" {
            // The parent is asked for as well, but for `#`, which has none, and `/#`, whose parent would be the empty name.
            ends |= index == 0 || index == 1 && filter.starts_with('/');
            while ends {
                ends = step(&mut left, None);
                if left.contains(&"#") {
                    return true;
                }
            }
            return false;
        }
        ends = step(&mut left, (level != "+").then_some(level));
    }
    ends || left.contains(&"#")
}

/// Takes a level off each rule that allows it: any rule that spells it out or leaves it open, or, without a level, those
/// that leave it open. Returns whether one of them ends there.
fn step(left: &mut Vec<&str>, level: Option<&str>) -> bool {
    let mut ends = false;
    left.retain_mut(|rule| {
        let (first, rest) = match rule.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (*rule, None),
        };
        if first != "+" && Some(first) != level {
            return false;
        }
        match rest {
            Some(rest) => *rule = rest,
            None => ends = true,
        }
        rest.is_some()
    });
    ends
}

/// Whether there is a Topic Name that both filters match.
pub(crate) fn intersect(one: &str, other: &str) -> bool {
    let is_system = |filter: &str| filter.starts_with('$');
    let is_open = |filter: &str| filter.starts_with(['+', '#']);
    if is_system(one) && is_open(other) || is_system(other) && is_open(one) {
        return false;
    }
    // `/#` would match its parent, but a name is not empty.
    if one == "+" && other == "/#" || one == "/#" && other == "+" {
        return false;
    }
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Whether the text has a place for the Client Identifier (`%c`) or the user name (`%u`).
pub(crate) fn is_template(text: &str) -> bool {
    text.contains("%c") || text.contains("%u")
}

/// Puts the Client Identifier and the user name of `subject` into their places, each once: what is put in is not looked
/// at again.
///
/// A client chooses these names, so one that would reach beyond its level (by `/`, `+` or `#`), that is missing or empty,
/// or that would make a rule about `$…` topics of one that is none, is not put in. A rule that allows is then no rule at
/// all. A rule that denies holds for whatever could stand in that level.
pub(crate) fn complete(template: &str, subject: &Subject<'_>, allow: bool) -> Option<String> {
    let mut text = String::with_capacity(template.len() + subject.client_id.len());
    for (index, level) in template.split('/').enumerate() {
        if index > 0 {
            text.push('/');
        }
        let start = text.len();
        if !complete_level(level, subject, &mut text) {
            if allow {
                return None;
            }
            text.truncate(start);
            text.push('+');
        }
    }
    if allow && text.starts_with('$') && !template.starts_with('$') {
        return None;
    }
    Some(text)
}

fn complete_level(level: &str, subject: &Subject<'_>, text: &mut String) -> bool {
    let mut rest = level;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let value = match rest.as_bytes().get(at + 1) {
            Some(b'c') => Some(subject.client_id),
            Some(b'u') => Some(subject.user_name.unwrap_or_default()),
            _ => None,
        };
        match value {
            Some(value) if value.is_empty() || value.contains(['/', '+', '#', '\0']) => return false,
            Some(value) => {
                text.push_str(value);
                rest = &rest[at + 2..];
            }
            None => {
                text.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    text.push_str(rest);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All Topic Names of up to four levels, with one level (`z`) that no filter of these tests spells out.
    fn names() -> Vec<String> {
        let levels = ["", "a", "b", "z"];
        let mut names: Vec<String> = ["", "a", "b", "z", "$a"].map(String::from).into();
        let mut last = names.clone();
        for _ in 1..4 {
            last = last.iter().flat_map(|name| levels.map(|level| format!("{name}/{level}"))).collect();
            names.extend(last.iter().cloned());
        }
        names.retain(|name| !name.is_empty());
        names
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["", "a", "b", "+", "+", "a"]);
        let first = prop::sample::select(vec!["a", "b", "+", "+", "$a", ""]);
        (first, prop::collection::vec(level, 0..3), any::<bool>()).prop_filter_map("empty", |(first, rest, all)| {
            let mut levels = vec![first];
            levels.extend(rest);
            if all {
                if levels.len() == 3 {
                    levels.pop();
                }
                levels.push("#");
            }
            let text = levels.join("/");
            (!text.is_empty()).then_some(text)
        })
    }

    fn filter_or_all() -> impl Strategy<Value = String> {
        prop_oneof![9 => filter(), 1 => Just("#".to_owned())]
    }

    fn matches(filter: &str, name: &str) -> bool {
        TopicFilter::Plain(filter).matches(name)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        #[test]
        fn a_filter_is_contained_when_all_its_names_are(
            filter in filter_or_all(), allowed in prop::collection::vec(filter_or_all(), 0..5)
        ) {
            let all = names().iter().filter(|name| matches(&filter, name))
                .all(|name| allowed.iter().any(|rule| matches(rule, name)));
            prop_assert_eq!(is_contained(&filter, allowed.iter().map(String::as_str)), all);
        }

        #[test]
        fn what_one_rule_covers_is_contained(filter in filter_or_all(), rule in filter_or_all()) {
            let all = names().iter().filter(|name| matches(&filter, name)).all(|name| matches(&rule, name));
            let same_in_other_words = rule.ends_with("/#") && rule.trim_start_matches("+/") == "#" && filter.ends_with('#');
            prop_assert!(covers(&rule, &filter) == all || all && (same_in_other_words || filter == "/#"), "{} {}", rule, filter);
        }

        #[test]
        fn filters_intersect_when_they_share_a_name(one in filter_or_all(), other in filter_or_all()) {
            let shared = names().iter().any(|name| matches(&one, name) && matches(&other, name));
            prop_assert_eq!(intersect(&one, &other), shared);
        }

        #[test]
        fn each_form_of_a_filter_matches_as_the_standard_says(text in filter_or_all()) {
            let filter = Filter::new(&text);
            for name in names() {
                prop_assert_eq!(filter.matches(&name), matches(&text, &name), "{} {}", text, name);
            }
        }
    }

    #[test]
    fn containment_by_example() {
        let contained = [
            ("a", &["a"][..]),
            ("a", &["+"]),
            ("a", &["a/#"]),
            ("a/b", &["a/+"]),
            ("a/+", &["a/#"]),
            ("a/#", &["#"]),
            ("a/#", &["a", "a/+", "a/+/#"]),
            ("#", &["+", "+/#"]),
            ("#", &["+/#"]),
            ("+/+", &["+/+", "a"]),
            ("$SYS/#", &["$SYS/#"]),
            ("a//b", &["a/+/b"]),
        ];
        for (filter, allowed) in contained {
            assert!(is_contained(filter, allowed.iter().copied()), "{filter} in {allowed:?}");
        }
        let others = [
            ("#", &["a/#"][..]),
            ("#", &["+"]),
            ("+/+", &["dev/a/x"]),
            ("dev/+/x", &["dev/a/x"]),
            ("dev/+/x", &["dev/a/x", "dev/b/x"]),
            ("a/#", &["a/+"]),
            ("a/#", &["a", "a/+", "a/b/#"]),
            ("a/#", &["a/+/#", "a/b"][..1]),
            ("$SYS/#", &["#"]),
            ("$SYS", &["+"]),
            ("a", &[]),
            ("ab", &["a/#"]),
            ("a", &["a/b"]),
        ];
        for (filter, allowed) in others {
            // `a/+/#` matches `a/b` and what is below, and `a/` too, but never `a`.
            assert!(!is_contained(filter, allowed.iter().copied()), "{filter} in {allowed:?}");
        }
    }

    #[test]
    fn names_of_clients_are_put_in_once_and_stay_in_their_level() {
        let complete = |template, client_id, user_name, allow| {
            complete(template, &Subject { client_id, user_name, ..Subject::default() }, allow)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(complete("dev/%c/#", "kitchen", None, true), some("dev/kitchen/#"));
        assert_eq!(complete("dev/%u-%c/x", "c", Some("u"), true), some("dev/u-c/x"));
        assert_eq!(complete("100%/%d/%", "c", None, true), some("100%/%d/%"));
        // Neither of these is looked at again.
        assert_eq!(complete("dev/%c/%u", "%u", Some("%c"), true), some("dev/%u/%c"));
        for name in ["+", "#", "a/b", "../x", "/", "", "a+", "a\0"] {
            assert_eq!(complete("dev/%c/#", name, None, true), None, "{name}");
            assert_eq!(complete("dev/%u/#", "c", Some(name), true), None, "{name}");
            assert_eq!(complete("dev/%c/x", name, None, false), some("dev/+/x"), "{name}");
        }
        assert_eq!(complete("dev/%u/#", "c", None, true), None);
        // Nobody comes to the broker's own topics by a name.
        assert_eq!(complete("%c/#", "$CONTROL", None, true), None);
        assert_eq!(complete("%c/#", "$SYS", None, false), some("$SYS/#"));
        assert_eq!(
            complete("$SYS/broker/connection/%c/state", "b", None, true),
            some("$SYS/broker/connection/b/state")
        );
        // What would be a pattern elsewhere is a name here.
        assert_eq!(complete("dev/%c", ".*", None, true), some("dev/.*"));
        assert_eq!(complete("dev/%c", "x|y", None, true), some("dev/x|y"));
    }
}
