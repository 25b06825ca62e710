//! The steps that are cargo's own: formatting, lints, documentation, tests; and building for the others.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::clients::install;
use crate::process::Guarded;
use crate::step::{Counts, Failure};
use crate::workspace::{Workspace, cargo_command};

/// `cargo fmt`, one check.
pub fn fmt(workspace: &Workspace) -> Result<Counts, Failure> {
    run(workspace, &["fmt", "--all", "--check"], &[])
}

/// `cargo clippy`, one check.
pub fn clippy(workspace: &Workspace) -> Result<Counts, Failure> {
    run(workspace, &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"], &[])
}

/// `cargo doc`, one check.
pub fn doc(workspace: &Workspace) -> Result<Counts, Failure> {
    let arguments = ["doc", "--workspace", "--no-deps", "--locked", "--quiet", "--document-private-items"];
    run(workspace, &arguments, &[("RUSTDOCFLAGS", "-D warnings")])
}

/// Builds packages for release. An error if they do not build.
pub fn build_release(workspace: &Workspace, packages: &[&str]) -> Result<(), Failure> {
    let mut arguments = vec!["build", "--release", "--locked", "--quiet"];
    for package in packages {
        arguments.extend(["--package", package]);
    }
    match run(workspace, &arguments, &[])? {
        Counts { failed: 0, .. } => Ok(()),
        _ => Err(Failure(format!("{} cannot be built for release", packages.join(" and ")))),
    }
}

/// The benchmark's figures; arguments are the benchmark's own. True if it found nothing wrong.
pub fn bench(workspace: &Workspace, arguments: &[String]) -> Result<bool, Failure> {
    build_release(workspace, &["pantala", "pantala-bench"])?;
    let mut command = Command::new(workspace.release_executable("pantala-bench"));
    command.current_dir(&workspace.root).arg("figures");
    if !arguments.iter().any(|argument| argument.starts_with("--broker")) {
        command.arg("--broker").arg(workspace.release_executable("pantala"));
    }
    let child = command.args(arguments).spawn().map_err(|error| Failure::io("pantala-bench", &error))?;
    let status = Guarded::new(child).child().wait().map_err(|error| Failure::io("pantala-bench", &error))?;
    Ok(status.success())
}

/// What `cargo test` runs in the step `unit`: all tests of the workspace, then those of the broker with seeded bugs, each of
/// which has to be found. The bugs are compiled in for these tests only, so what is built anew is the broker and what it
/// is made of.
const UNIT: [&[&str]; 2] = [
    &["test", "--workspace", "--locked", "--no-fail-fast"],
    &[
        "test",
        "--package",
        "pantala-broker",
        "--features",
        "mutants",
        "--test",
        "dialogues",
        "--locked",
        "--no-fail-fast",
        "crashes::mutants",
    ],
];

/// What tests of the workspace run beside ours, with the Debian packages that have it; where it is missing they are skipped, or
/// fail with `CI=true`.
const PROGRAMS: [(&str, &str); 4] = [
    ("mosquitto", "mosquitto"),
    ("mosquitto_passwd", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("mosquitto_sub", "mosquitto-clients"),
];

/// `cargo test`: every test counts. What passes is not printed; the whole output is kept in a file.
pub fn unit(workspace: &Workspace) -> Result<Counts, Failure> {
    install::provide(&PROGRAMS);
    let path = workspace.scratch()?.join("unit.log");
    let mut log = File::create(&path).map_err(|error| Failure::io(path.display(), &error))?;
    let mut counts = Counts::default();
    for arguments in UNIT {
        counts += test(workspace, arguments, &mut log).map_err(|error| match error {
            TestError::Log(error) => Failure::io(path.display(), &error),
            TestError::Failure(failure) => failure,
        })?;
    }
    println!("The whole output is in {}", path.display());
    Ok(counts)
}

enum TestError {
    Log(io::Error),
    Failure(Failure),
}

/// One `cargo test`.
fn test(workspace: &Workspace, arguments: &[&str], log: &mut File) -> Result<Counts, TestError> {
    let failed = |error| TestError::Failure(Failure::io("cargo test", &error));
    let mut command = command(workspace, arguments, &[]);
    let mut child = Guarded::new(command.stdout(Stdio::piped()).spawn().map_err(failed)?);
    let mut counts = Counts::default();
    if let Some(output) = child.child().stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(failed)?;
            let line = String::from_utf8_lossy(&line);
            writeln!(log, "{line}").map_err(TestError::Log)?;
            if let Some(result) = parse_test_result(&line) {
                counts += result;
            }
            if is_worth_printing(&line) {
                println!("{line}");
            }
        }
    }
    let status = child.child().wait().map_err(failed)?;
    if !status.success() && counts.failed == 0 {
        println!(
            "cargo test ended with {status} without counting a failed test: something does not build, or a test ended its process"
        );
        counts.failed = 1;
    }
    if counts == Counts::default() {
        return Err(TestError::Failure(Failure("cargo test ran no test".into())));
    }
    Ok(counts)
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn parse_test_result(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split("; ") {
        match part.split_once(' ')? {
            (number, "passed") => counts.passed = number.parse().ok()?,
            (number, "failed") => counts.failed = number.parse().ok()?,
            (number, "ignored") => counts.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

/// All but the many lines that say that something went as it should.
fn is_worth_printing(line: &str) -> bool {
    let passed = line.starts_with("test ") && line.ends_with(" ... ok");
    let started = line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test"));
    !(passed || started || line.is_empty() || line.starts_with("test result: ok."))
}

fn run(workspace: &Workspace, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Counts, Failure> {
    let child = command(workspace, arguments, environment).spawn().map_err(|error| Failure::io("cargo", &error))?;
    let status = Guarded::new(child).child().wait().map_err(|error| Failure::io("cargo", &error))?;
    Ok(Counts::of(status.success()))
}

fn command(workspace: &Workspace, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let shown: Vec<String> = environment.iter().map(|(name, value)| format!("{name}=\"{value}\" ")).collect();
    println!("{}cargo {}", shown.concat(), arguments.join(" "));
    let mut command = cargo_command();
    command.current_dir(&workspace.root).args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.52s";
        assert_eq!(parse_test_result(line), Some(Counts { passed: 12, failed: 3, skipped: 1 }));
        assert_eq!(parse_test_result("test result::tests::of_a_kind ... ok"), None);
        assert_eq!(parse_test_result("running 3 tests"), None);
    }

    #[test]
    fn failures_are_printed_and_successes_are_not() {
        assert!(!is_worth_printing("test packet::tests::round_trip ... ok"));
        assert!(!is_worth_printing("running 1 test"));
        assert!(is_worth_printing("test packet::tests::round_trip ... FAILED"));
        assert!(is_worth_printing("test result: FAILED. 0 passed; 1 failed"));
        assert!(is_worth_printing("thread 'main' panicked at src/lib.rs:1:1:"));
    }
}
