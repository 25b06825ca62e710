//! The step `conformance`: our suite against our broker, with one worker and with two: statements, then attacks.

use std::process::{Command, Stdio};

use crate::ConformanceArguments;
use crate::broker::{Broker, Start, free_address};
use crate::cargo;
use crate::process::Guarded;
use crate::step::{Counts, Failure};
use crate::workspace::Workspace;

const STATEMENTS: &str = "statements hold";
/// The user of the listener for enhanced authentication.
const SCRAM_USER: (&str, &str) = ("conformance", "a password of no importance");

/// Runs the suite, and the list of what it covers, which fails if a server statement has neither test nor exception.
pub fn run(workspace: &Workspace, arguments: &ConformanceArguments) -> Result<Counts, Failure> {
    if let Some(address) = arguments.broker {
        cargo::build_release(workspace, &["pantala-conformance"])?;
        println!("-- {address}");
        let mut suite = suite(workspace, "run");
        suite.arg(address.to_string()).args(&arguments.arguments);
        return counts_of(suite, STATEMENTS);
    }

    cargo::build_release(workspace, &["pantala", "pantala-conformance"])?;
    let mut sum = Counts::default();
    println!("-- coverage of the numbered statements");
    let mut coverage = suite(workspace, "coverage");
    let output = coverage.output().map_err(|error| Failure::io("pantala-conformance coverage", &error))?;
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stdout));
    }
    sum += Counts::of(output.status.success());

    for workers in [1, 2] {
        let executable = workspace.release_executable("pantala");
        let broker = Broker::start(workspace, &Start { executable: &executable, workers, configuration: None })?;
        let poorer = free_address()?.port();
        let configuration = |port: u16| restricted(port, poorer);
        let restricted =
            Broker::start(workspace, &Start { executable: &executable, workers, configuration: Some(&configuration) })?;
        println!("-- {} at {}", broker.title, broker.address);
        let mut suite = suite(workspace, "run");
        suite
            .arg(broker.address.to_string())
            .arg(format!("--max-qos-target=127.0.0.1:{poorer}"))
            .arg(format!("--no-retain-target={}", restricted.address))
            .arg(format!("--scram-target={},{},{}", restricted.address, SCRAM_USER.0, SCRAM_USER.1))
            .args(&arguments.arguments);
        let counts = counts_of(suite, STATEMENTS)?;
        if counts.failed > 0 {
            println!("{}", broker.last_words());
        }
        sum += counts;
        println!("-- attacks on {} at {}", broker.title, broker.address);
        let mut attacks = self::suite(workspace, "attack");
        attacks
            .arg(broker.address.to_string())
            .arg(format!("--pid={}", broker.pid()))
            .arg("--broker")
            .arg(workspace.release_executable("pantala"));
        let counts = counts_of(attacks, "attacks are met")?;
        if counts.failed > 0 {
            println!("{}", broker.last_words());
        }
        sum += counts;
        for broker in [broker, restricted] {
            let ended = broker.stop();
            if let Err(failure) = &ended {
                println!("{failure}");
            }
            sum += Counts::of(ended.is_ok());
        }
    }
    Ok(sum)
}

/// A broker that lacks what the standard lets it lack, and asks for SCRAM-SHA-256 where a client offers it.
fn restricted(port: u16, poorer: u16) -> String {
    let (user, password) = SCRAM_USER;
    format!(
        "[features]\nretain_available = false\n\n\
         [[listener]]\nhost = \"127.0.0.1\"\nport = {port}\nallow_anonymous = true\n\n\
         [[listener]]\nhost = \"127.0.0.1\"\nport = {poorer}\nallow_anonymous = true\nmaximum_qos = 1\n\n\
         [[scram_user]]\nname = \"{user}\"\npassword = \"{password}\"\n"
    )
}

fn suite(workspace: &Workspace, command: &str) -> Command {
    let mut suite = Command::new(workspace.release_executable("pantala-conformance"));
    suite.current_dir(&workspace.root).arg(command).stdin(Stdio::null());
    suite
}

/// Runs the suite; prints its table, but not its closing line, since ours is the one that counts.
fn counts_of(mut suite: Command, what: &str) -> Result<Counts, Failure> {
    let failed = |error: &std::io::Error| Failure::io("pantala-conformance", error);
    let child = suite.stdout(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
    let mut child = Guarded::new(child);
    let mut output = Vec::new();
    if let Some(mut stdout) = child.child().stdout.take() {
        std::io::Read::read_to_end(&mut stdout, &mut output).map_err(|error| failed(&error))?;
    }
    let status = child.child().wait().map_err(|error| failed(&error))?;
    let mut counts = None;
    for line in String::from_utf8_lossy(&output).lines() {
        match parse_counts(line) {
            Some(found) => counts = Some(found),
            None => println!("{line}"),
        }
    }
    let counts = counts.ok_or_else(|| Failure(format!("pantala-conformance ended with {status} and no counts")))?;
    println!("   {} of {} {what}, {} not tested", counts.passed, counts.passed + counts.failed, counts.skipped);
    if !status.success() && counts.failed == 0 {
        return Err(Failure(format!("pantala-conformance ended with {status} although nothing failed")));
    }
    Ok(counts)
}

/// `12 passed, 0 failed, 3 skipped`
fn parse_counts(line: &str) -> Option<Counts> {
    let mut numbers = [0; 3];
    let mut parts = line.trim().split(", ");
    for (number, word) in numbers.iter_mut().zip(["passed", "failed", "skipped"]) {
        let (digits, rest) = parts.next()?.split_once(' ')?;
        if rest != word {
            return None;
        }
        *number = digits.parse().ok()?;
    }
    let [passed, failed, skipped] = numbers;
    parts.next().is_none().then_some(Counts { passed, failed, skipped })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_of_the_suite_is_read() {
        assert_eq!(
            parse_counts("412 passed, 3 failed, 7 skipped"),
            Some(Counts { passed: 412, failed: 3, skipped: 7 })
        );
        assert_eq!(parse_counts("412 passed, 3 failed"), None);
        assert_eq!(parse_counts("5 MQTT-3.1.0-1 pass"), None);
        assert_eq!(parse_counts(""), None);
    }
}
