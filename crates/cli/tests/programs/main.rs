//! The programs `pub`, `sub`, `rr` and `passwd` from outside: names, help, man pages, completions, status.
#![expect(clippy::unwrap_used, reason = "what fails in a test's own work fails the test")]

mod golden;

use std::path::Path;
use std::process::{Command, Output};

const PANTALA: &str = env!("CARGO_BIN_EXE_pantala");

fn run(program: impl AsRef<Path>, arguments: &[&str]) -> Output {
    Command::new(program.as_ref()).args(arguments).env("XDG_CONFIG_HOME", "/nonexistent").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_link_makes_the_binary_that_program() {
    let folder = tempfile::tempdir().unwrap();
    for (name, arguments) in [
        ("mosquitto_pub", "-t TOPIC {-m TEXT"),
        ("mosquitto_sub", "-t FILTER [FLAGS]"),
        ("mosquitto_rr", "-t TOPIC -e TOPIC"),
        ("mosquitto_passwd", "[OPTIONS] [FILE|<FILE>]"),
        ("pantala_sub", "-t FILTER [FLAGS]"),
    ] {
        let link = folder.path().join(name);
        std::os::unix::fs::symlink(PANTALA, &link).unwrap();
        let output = run(&link, &["--help"]);
        assert!(output.status.success(), "{output:?}");
        let first_word = arguments.split(' ').next().unwrap();
        let usage = format!("Usage: {name} {first_word}");
        assert!(text(&output.stdout).contains(&usage), "{usage} is not in {}", text(&output.stdout));
        let output = run(&link, &["--no-such-flag"]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        let lines: Vec<_> = stderr.lines().collect();
        assert!(lines[0].starts_with("Error: ") && lines[0].contains("--no-such-flag"), "{stderr}");
        assert_eq!(lines[1..], [format!("Use '{name} --help' to see usage.")]);
    }
}

#[test]
fn wrong_flags_end_with_mosquittos_status() {
    for program in ["pub", "sub", "rr", "passwd"] {
        let output = run(PANTALA, &[program]);
        assert_eq!(output.status.code(), Some(1), "{program}");
        assert_eq!(text(&output.stderr).lines().count(), 2, "{output:?}");
        assert_eq!(output.stdout, b"");
    }
    assert_eq!(run(PANTALA, &["broker", "--no-such-flag"]).status.code(), Some(3));
}

#[test]
fn every_command_has_a_man_page() {
    for program in [vec![String::new()], golden::commands()].concat() {
        let program = program.as_str();
        let arguments = if program.is_empty() { vec!["man"] } else { vec!["man", program] };
        let output = run(PANTALA, &arguments);
        assert!(output.status.success(), "{output:?}");
        let page = text(&output.stdout);
        let title =
            if program.is_empty() { "PANTALA".to_owned() } else { format!("PANTALA-{}", program.to_uppercase()) };
        assert!(page.contains(&format!(".TH {title} 1")), "{page}");
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"));
        assert_eq!(page.contains(".SH FORMAT"), matches!(program, "sub" | "rr"));
    }
    let page = text(&run(PANTALA, &["man", "sub"]).stdout);
    assert!(
        page.contains("\\fB\\-R\\fR") && page.contains("\\fB\\-\\-retained\\-only\\fR") && page.contains(".SH TLS")
    );
    assert_eq!(run(PANTALA, &["man", "nothing"]).status.code(), Some(1));
}

#[test]
fn shells_complete_the_flags_of_the_table() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(PANTALA, &["completions", shell]);
        assert!(output.status.success(), "{output:?}");
        let script = text(&output.stdout);
        for flag in ["retained-only", "will-topic", "null-message", "durability"] {
            assert!(script.contains(flag), "{shell} does not complete {flag}");
        }
        // What is taken only to be refused.
        assert!(!script.contains("tls-engine"), "{shell}");
    }
    // Debian has it wherever it has a shell.
    if Path::new("/bin/bash").exists() {
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), run(PANTALA, &["completions", "bash"]).stdout).unwrap();
        let output = run("/bin/bash", &["-n", script.path().to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
    }
}

/// `docs/attacks.md` names tests that exist.
#[test]
fn the_tests_of_the_page_of_attacks_are_there() {
    let crates = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let page = std::fs::read_to_string(format!("{crates}/../docs/attacks.md")).unwrap();
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        for test in line.split('`').skip(1).step_by(2) {
            let Some((file, name)) = test.split_once(": ") else { continue };
            let text = std::fs::read_to_string(format!("{crates}/{file}")).expect(file);
            assert!(text.contains(&format!("fn {name}(")), "{file} has no test {name}");
            named += 1;
        }
    }
    assert!(named > 120, "{named}");
    for number in 1..=14 {
        assert!(page.contains(&format!("\n| O{number} | ")), "O{number}");
    }
}
