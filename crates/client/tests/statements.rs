//! Every numbered statement that binds a client, with the test that shows it or the reason why none does.

use std::collections::BTreeSet;
use std::path::Path;

const STATEMENTS: [(&str, &str); 2] = [
    ("5", include_str!("../../conformance/statements/mqtt5-normative.tsv")),
    ("3.1.1", include_str!("../../conformance/statements/mqtt311-normative.tsv")),
];
const TABLE: &str = include_str!("statements.tsv");

/// Version, id, and the test or the reason.
fn table() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    TABLE.lines().skip(1).map(|line| {
        let mut fields = line.split('\t');
        let mut field = || fields.next().unwrap_or_else(|| panic!("a field is missing: {line}"));
        (field(), field(), field())
    })
}

#[test]
fn every_statement_for_clients_stands_in_the_table_once() {
    let mut wanted = BTreeSet::new();
    for (version, statements) in STATEMENTS {
        for line in statements.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            if fields[2] == "client" {
                wanted.insert((version, fields[0]));
            }
        }
    }
    let found: BTreeSet<_> = table().map(|(version, id, _)| (version, id)).collect();
    assert_eq!(found, wanted);
    assert_eq!(table().count(), wanted.len());
}

#[test]
fn every_named_test_exists() {
    for (version, id, cover) in table() {
        if let Some(reason) = cover.strip_prefix("- ") {
            assert!(reason.ends_with('.'), "{version} {id}: no sentence");
            continue;
        }
        let (file, test) = cover.split_once("::").unwrap_or_else(|| panic!("{version} {id}: {cover} is no test"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
        let at = text.find(&format!("fn {test}(")).unwrap_or_else(|| panic!("{version} {id}: no {test} in {file}"));
        let before = text[..at].trim_end().trim_end_matches("async").trim_end();

        let attribute = before.lines().last().unwrap_or_default();
        assert!(attribute == "#[test]" || attribute.starts_with("#[tokio::test"), "{version} {id}: {attribute}");
    }
}
