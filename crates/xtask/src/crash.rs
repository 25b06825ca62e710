//! The step `crash`: a short run of the crash laboratory, with a real broker whose process, or whose power, is cut off.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cargo;
use crate::clients::install;
use crate::process::Guarded;
use crate::step::{Counts, Failure};
use crate::workspace::Workspace;

/// Cycles of one run: each takes about two seconds.
const CYCLES: u64 = 20;
/// What is done to the broker, each kind about as often. Cutting the power and filling the disk need root and loop devices, and
/// the last two [`PROGRAMS`]; what this machine cannot make the laboratory leaves out and names.
const FAULTS: &str = "kill,power,term,pause,enospc,eio,clock";
/// strace lets syncs fail, and libfaketime, which comes with the program, lets the wall clock jump; each with its Debian package.
const PROGRAMS: [(&str, &str); 2] = [("strace", "strace"), ("faketime", "faketime")];

/// Runs the laboratory with a seed of this day, so that every day tries others; `seed` repeats a run.
pub fn run(workspace: &Workspace, seed: Option<u64>) -> Result<Counts, Failure> {
    cargo::build_release(workspace, &["pantala", "pantala-crashlab"])?;
    install::provide(&PROGRAMS);
    let seed = seed.unwrap_or_else(today);
    let folder = workspace.target.join("crash");
    // Left by an earlier run; what an earlier failure kept is not needed once this runs.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).map_err(|error| Failure::io(folder.display(), &error))?;
    let report = folder.join("report.json");
    println!("-- {CYCLES} cycles of {FAULTS}, seed {seed}");
    let mut laboratory = Command::new(workspace.release_executable("pantala-crashlab"));
    laboratory
        .arg("run")
        .arg("--broker")
        .arg(workspace.release_executable("pantala"))
        .args(["--kind", "pantala", "--wills-survive", "--faults", FAULTS])
        .args(["--cycles", &CYCLES.to_string(), "--seed", &seed.to_string()])
        .arg("--data-root")
        .arg(&folder)
        .arg("--json")
        .arg(&report)
        .stdin(Stdio::null());
    let child = laboratory.spawn().map_err(|error| Failure::io("pantala-crashlab", &error))?;
    let status = Guarded::new(child).child().wait().map_err(|error| Failure::io("pantala-crashlab", &error))?;
    let text = fs::read_to_string(&report)
        .map_err(|_| Failure(format!("pantala-crashlab ended with {status} and without a report")))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| Failure(format!("its report: {error}")))?;
    let counts = counts_of(&report);
    for (kind, reason) in left_out(&report) {
        println!("Left out: {kind} ({reason})");
    }
    if !status.success() && counts.failed == 0 {
        return Err(Failure(format!("pantala-crashlab ended with {status} although no promise was broken")));
    }
    Ok(counts)
}

/// Cycles in which all promises held, and in which one did not; kinds of faults that could not be tried.
fn counts_of(report: &Value) -> Counts {
    let sum = |key: &str| -> u64 {
        let rows = report["rows"].as_array().into_iter().flatten();
        rows.filter_map(|row| row[key].as_u64()).sum()
    };
    let (cycles, broken) = (sum("cycles"), sum("cycles_broken"));
    let skipped = report["skipped"].as_array().map_or(0, |skipped| skipped.len() as u64);
    Counts { passed: cycles.saturating_sub(broken), failed: broken, skipped }
}

/// Kinds of faults that could not be made here, and why.
fn left_out(report: &Value) -> Vec<(&str, &str)> {
    let skipped = report["skipped"].as_array().into_iter().flatten();
    skipped.filter_map(|kind| Some((kind["fault"].as_str()?, kind["reason"].as_str()?))).collect()
}

fn today() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_secs() / 86_400
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn cycles_are_counted_once() {
        let report = serde_json::json!({
            "rows": [
                { "fault": "kill", "cycles": 5, "cycles_broken": 1 },
                { "fault": "term", "cycles": 3, "cycles_broken": 0 },
            ],
            "skipped": [{ "fault": "power", "reason": "not root" }],
        });
        assert_eq!(counts_of(&report), Counts { passed: 7, failed: 1, skipped: 1 });
        assert_eq!(left_out(&report), [("power", "not root")]);
    }

    /// A kind that is forgotten here would be tried by nobody.
    #[test]
    fn a_run_is_long_enough_for_each_kind_of_fault() {
        let kinds: BTreeSet<&str> = FAULTS.split(',').collect();
        assert_eq!(kinds, BTreeSet::from(["kill", "power", "term", "pause", "enospc", "eio", "clock"]));
        // The laboratory deals all kinds out before the first comes again.
        assert!(CYCLES >= 2 * kinds.len() as u64);
    }
}
