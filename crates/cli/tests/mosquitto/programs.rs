//! Where Mosquitto's programs are.

use std::env;
use std::io::{self, Write as _};
use std::path::PathBuf;

/// The programs, or None if one is missing here; the test is then skipped by its name.
pub fn find<const N: usize>(test: &str, names: [&str; N]) -> Option<[PathBuf; N]> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Debian keeps its broker where only root looks.
    let folders: Vec<PathBuf> = env::split_paths(&path).chain(["/usr/sbin".into()]).collect();
    let mut found = Vec::new();
    for name in names {
        let Some(program) = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()) else {
            return missing(test, name);
        };
        found.push(program);
    }
    found.try_into().ok()
}

/// Says that a test is skipped for want of a file; where CI is told to have everything, it fails instead.
pub fn missing<T>(test: &str, name: &str) -> Option<T> {
    let is_ci = env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!is_ci, "{test} needs {name}, of Debian's packages mosquitto and mosquitto-clients");
    let packages = "Debian's packages are mosquitto and mosquitto-clients";
    // Past the test harness, which shows what a test prints only when it fails.
    drop(writeln!(io::stderr(), "{test}: skipped, since there is no {name} ({packages})"));
    None
}
