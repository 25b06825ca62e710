//! Rules about what is written in the checkout's text files.

use std::env;
use std::fs;
use std::process::Command;

use super::Findings;
use crate::step::Failure;
use crate::workspace::Workspace;

/// A line longer than this is not text that a person wrote.
const LINE_BYTES_SHOWN_MAX: usize = 120;

/// The text files of the checkout: all that git tracks or would track.
pub struct Files(Vec<(String, String)>);

impl Files {
    /// Asks git. Files that are not UTF-8 are not text, and left out.
    pub fn of(workspace: &Workspace) -> Result<Files, Failure> {
        let output = Command::new("git")
            .current_dir(&workspace.root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output()
            .map_err(|error| Failure::io("git ls-files", &error))?;
        if !output.status.success() {
            return Err(Failure(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        let mut files = Vec::new();
        for name in String::from_utf8_lossy(&output.stdout).split_terminator('\0') {
            // One that cannot be read has just been deleted.
            if let Ok(text) = fs::read_to_string(workspace.root.join(name)) {
                files.push((name.to_owned(), text));
            }
        }
        Ok(Files(files))
    }

    /// Lines for which `is_wrong` gives a reason.
    fn lines(&self, matches: impl Fn(&str) -> bool, is_wrong: impl Fn(&str) -> Option<String>) -> Findings {
        let mut findings = Findings::new();
        for (name, text) in self.0.iter().filter(|(name, _)| matches(name)) {
            for (number, line) in text.lines().enumerate() {
                if let Some(why) = is_wrong(line) {
                    let shown: String = line.trim().chars().take(LINE_BYTES_SHOWN_MAX).collect();
                    findings.push(format!("{name}:{}: {why}: {shown}", number + 1));
                }
            }
        }
        findings
    }
}

/// Rust code has no ignored test and none of the macros that stand for work to do.
pub fn check_unfinished(files: &Files) -> Findings {
    // Written in two parts, so that this file does not find itself.
    let words = [concat!("#[ig", "nore"), concat!("tod", "o!("), concat!("unimple", "mented!(")];
    files.lines(
        |name| name.ends_with(".rs"),
        |line| words.iter().find(|word| line.contains(*word)).map(|word| format!("`{word}`")),
    )
}

/// No file names the checkout's own folder, the person's home, or a folder of machines that build.
pub fn check_paths(files: &Files, workspace: &Workspace) -> Findings {
    let mut folders: Vec<String> = [concat!("/ro", "ot"), concat!("/wo", "rk")].map(Into::into).to_vec();
    folders.push(workspace.root.display().to_string());
    folders.extend(env::var("HOME"));
    folders.retain(|folder| folder.len() > 1);
    find_paths(files, &folders.iter().map(|folder| format!("{}/", folder.trim_end_matches('/'))).collect::<Vec<_>>())
}

fn find_paths(files: &Files, folders: &[String]) -> Findings {
    files.lines(
        |_| true,
        |line| folders.iter().find(|folder| names_folder(line, folder)).map(|folder| format!("a path in {folder}")),
    )
}

/// Whether the line has an absolute path in the folder. `a/home/b` is a Topic Name, and `https://x.org/home/` an address.
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + folder.len()..].chars().next();
        let begins_path = before.is_none_or(|before| " \t\"'`=(:<,;".contains(before));
        begins_path && after.is_some_and(|after| after.is_alphanumeric() || "._-".contains(after))
    })
}

/// Lock files of npm say no address: whoever installs has a source of packages of their own choice.
pub fn check_locks(files: &Files) -> Findings {
    files.lines(
        |name| name.ends_with("package-lock.json"),
        |line| {
            let found = line.contains("\"resolved\"") || line.contains("://");
            found.then(|| "an address; .npmrc has to have omit-lockfile-registry-resolved".into())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(name: &str, text: &str) -> Files {
        Files(vec![(name.into(), text.into())])
    }

    #[test]
    fn paths_of_a_machine_are_found_and_topics_are_not() {
        let folder = "/home/ann/";
        let find = |text: &str| find_paths(&files("README.md", text), &[folder.into()]);
        let found = find(&format!("fine\nsee {folder}pantala\n"));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("README.md:2: "), "{found:?}");
        for line in [format!("topic a{folder}b"), format!("see example.org{folder}x"), format!("{folder} alone")] {
            assert_eq!(find(&line), Findings::new(), "{line}");
        }
    }

    #[test]
    fn unfinished_code_is_found() {
        let text = format!("fn a() {{\n    {}later)\n}}\n", concat!("tod", "o!("));
        assert_eq!(check_unfinished(&files("src/lib.rs", &text)).len(), 1);
        assert_eq!(check_unfinished(&files("notes.md", &text)), Findings::new());
        assert_eq!(check_unfinished(&files("src/lib.rs", "fn a() {}")), Findings::new());
    }

    #[test]
    fn addresses_in_lock_files_are_found() {
        let lock = "{\n \"version\": \"1.0.0\",\n \"resolved\": \"file:x\"\n}\n";
        assert_eq!(check_locks(&files("a/package-lock.json", lock)).len(), 1);
        assert_eq!(check_locks(&files("a/package.json", lock)), Findings::new());
    }
}
