//! `docs/format.md` against the code.

use pantala_store::Kind;

fn page() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_page_of_the_format_has_a_row_for_every_kind() {
    let page = page();
    let section = page.split_once("\n## Records\n").expect("a section of records").1;
    let table = section.split_once("| number | kind |").expect("a table of kinds").1;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let documented: Vec<(&str, &str)> = rows.iter().map(|row| (row[0], row[1].trim_matches('`'))).collect();
    let kinds: Vec<(String, &str)> = Kind::ALL.iter().map(|kind| ((*kind as u8).to_string(), kind.name())).collect();
    let kinds: Vec<(&str, &str)> = kinds.iter().map(|(number, name)| (number.as_str(), *name)).collect();
    assert_eq!(documented, kinds);
    for row in rows {
        assert!(row.len() == 5 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}
