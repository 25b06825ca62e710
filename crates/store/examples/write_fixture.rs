//! Writes a store with every kind of entry in it: `cargo run -p pantala-store --example write_fixture FOLDER`, and
//! with `users` behind that one with owners and publishers.
//!
//! For `tests/fixtures`, when the version of the format has changed: what earlier versions wrote stays beside it.

#![allow(clippy::unwrap_used, reason = "it has nobody to tell of errors")]

use pantala_store::disk::{Directory, Disk};

#[path = "../tests/format/scenario.rs"]
mod scenario;

fn main() {
    let folder = std::env::args_os().nth(1).expect("a folder to write to");
    assert!(!std::path::Path::new(&folder).exists(), "{} exists", folder.display());
    match std::env::args().nth(2).as_deref() {
        Some("users") => scenario::live_among_users(Directory::open(&folder).unwrap()),
        _ => scenario::live(Directory::open(&folder).unwrap()),
    }
    // Files that are not part of the log.
    let directory = Directory::open(&folder).unwrap();
    for name in directory.list().unwrap().iter().filter(|name| !name.ends_with(".log")) {
        directory.remove(name).unwrap();
    }
}
