//! The command `fuzz`: the fuzz targets under libFuzzer, on the toolchain that builds all else.
//!
//! libFuzzer needs to know which edges of the code an input has reached, which a pass of LLVM counts that stable rustc has too. What needs
//! nightly is a sanitizer, and of safe code there is little that one could find.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::Guarded;
use crate::step::{Counts, Failure};
use crate::workspace::{Workspace, cargo_command};

/// What counts edges and watches comparisons; integers that overflow are findings.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];
/// Longer inputs find nothing that these do not.
const INPUT_BYTES_MAX: u32 = 4_096;
/// An input that takes longer is a finding.
const SECONDS_PER_INPUT_MAX: u32 = 10;
/// So is one that takes more memory.
const MEGABYTES_MAX: u32 = 2_048;

/// Runs each target for so long. Prints a line for each; one that finds something fails. All targets run if none is named.
pub fn run(workspace: &Workspace, names: &[String], seconds: u64) -> Result<Counts, Failure> {
    let folder = workspace.root.join("fuzz");
    let targets = chosen(&folder, names)?;
    let built = build(workspace, &folder, &targets)?;
    let mut counts = Counts::default();
    for target in &targets {
        let found = fuzz(workspace, &folder, &built.join(target), target, seconds)?;
        counts += Counts::of(found.is_none());
        if let Some(input) = found {
            println!("    found: {input}");
        }
    }
    Ok(counts)
}

/// The targets, in the order of their names.
fn chosen(folder: &Path, names: &[String]) -> Result<Vec<String>, Failure> {
    let targets = folder.join("fuzz_targets");
    let failed = |error| Failure::io(targets.display(), &error);
    let mut all = Vec::new();
    for entry in fs::read_dir(&targets).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        all.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    all.sort_unstable();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        return Err(Failure(format!("there is no target {unknown}; there are {}", all.join(", "))));
    }
    Ok(if names.is_empty() { all } else { names.to_vec() })
}

/// Builds targets; returns the folder of their executables.
fn build(workspace: &Workspace, folder: &Path, targets: &[String]) -> Result<PathBuf, Failure> {
    let host = host()?;
    let target_folder = workspace.target.join("fuzz");
    // With a target given the flags are not for build scripts, which have no libFuzzer to count for.
    let mut arguments = vec!["build", "--release", "--locked", "--target", &host];
    for target in targets {
        arguments.extend(["--bin", target]);
    }
    println!("cargo {} (in fuzz/, for coverage)", arguments.join(" "));
    let mut command = cargo_command();
    command.current_dir(folder).args(&arguments).stdin(Stdio::null());
    command.env("CARGO_TARGET_DIR", &target_folder).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    let child = command.spawn().map_err(|error| Failure::io("cargo", &error))?;
    let status = Guarded::new(child).child().wait().map_err(|error| Failure::io("cargo", &error))?;
    if !status.success() {
        return Err(Failure("the fuzz targets cannot be built; libFuzzer needs a C++ compiler".to_owned()));
    }
    Ok(target_folder.join(host).join("release"))
}

/// The platform that cargo builds for by itself.
fn host() -> Result<String, Failure> {
    let output = cargo_command().arg("-vV").output().map_err(|error| Failure::io("cargo -vV", &error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure("cargo -vV names no host".to_owned()))
}

/// Runs one target: what it has found is kept in `artifacts`, and returned. What is new to it stays in a corpus of its own, with which the next run begins.
fn fuzz(
    workspace: &Workspace,
    folder: &Path,
    executable: &Path,
    target: &str,
    seconds: u64,
) -> Result<Option<String>, Failure> {
    let corpus = workspace.target.join("fuzz/corpus").join(target);
    let artifacts = folder.join("artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        fs::create_dir_all(folder).map_err(|error| Failure::io(folder.display(), &error))?;
    }
    let path = workspace.scratch()?.join(format!("fuzz-{target}.log"));
    let dictionary = folder.join("dictionaries").join(target);
    let mut command = Command::new(executable);
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}")).arg(format!("-timeout={SECONDS_PER_INPUT_MAX}"));
    command.arg(format!("-rss_limit_mb={MEGABYTES_MAX}")).args(["-print_final_stats=1", "-use_value_profile=1"]);
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.arg(&corpus).arg(folder.join("corpus").join(target)).stdin(Stdio::null()).stdout(Stdio::null());
    let failed = |error| Failure::io(target, &error);
    let mut child = Guarded::new(command.stderr(Stdio::piped()).spawn().map_err(failed)?);
    let mut log = fs::File::create(&path).map_err(|error| Failure::io(path.display(), &error))?;
    let mut told = Told::default();
    if let Some(output) = child.child().stderr.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(failed)?;
            let line = String::from_utf8_lossy(&line);
            writeln!(log, "{line}").map_err(|error| Failure::io(path.display(), &error))?;
            told.line(&line);
        }
    }
    let status = child.child().wait().map_err(failed)?;
    println!("{target:<18} {told}");
    if status.success() {
        return Ok(None);
    }
    let input = told.input.unwrap_or_else(|| format!("nothing that it named; it ended with {status}"));
    Ok(Some(format!("{input}; more is in {}", path.display())))
}

/// What libFuzzer has told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    executions: u64,
    /// Edges.
    coverage: u64,
    /// Inputs that reach something that others do not.
    inputs: u64,
    /// The file with what it has found.
    input: Option<String>,
}

impl Told {
    /// `#52 NEW cov: 7 ft: 8 corp: 3/12b lim: 4096 exec/s: 0 rss: 30Mb L: 2/7 MS: 1 ChangeBit-`, and at the end
    /// `Test unit written to artifacts/x/crash-0` and `stat::number_of_executed_units: 52`.
    fn line(&mut self, line: &str) {
        if let Some(state) = line.strip_prefix('#') {
            let mut words = state.split_whitespace();
            self.executions = words.next().and_then(|number| number.parse().ok()).unwrap_or(self.executions);
            while let Some(word) = words.next() {
                let number = |text: Option<&str>| text?.split('/').next()?.parse().ok();
                match word {
                    "cov:" => self.coverage = number(words.next()).unwrap_or(self.coverage),
                    "corp:" => self.inputs = number(words.next()).unwrap_or(self.inputs),
                    _ => {}
                }
            }
        } else if let Some((_, number)) = line.split_once("stat::number_of_executed_units:") {
            self.executions = number.trim().parse().unwrap_or(self.executions);
        } else if let Some((_, input)) = line.split_once("Test unit written to ") {
            self.input = Some(input.to_owned());
        }
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { executions, coverage, inputs, input } = self;
        let result = if input.is_none() { "nothing found" } else { "FAILED" };
        write!(f, "{executions:>10} executions, {coverage:>6} edges, {inputs:>5} inputs: {result}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_tells_is_understood() {
        let mut told = Told::default();
        for line in [
            "INFO: seed corpus: files: 10 min: 1b max: 300b total: 700b rss: 30Mb",
            "#2\tINITED cov: 5 ft: 6 corp: 2/5b exec/s: 0 rss: 30Mb",
            "#52\tNEW    cov: 7 ft: 8 corp: 3/12b lim: 4096 exec/s: 0 rss: 30Mb L: 2/7 MS: 1 ChangeBit-",
        ] {
            told.line(line);
        }
        assert_eq!(told, Told { executions: 52, coverage: 7, inputs: 3, input: None });
        told.line("artifact_prefix='/a/x/'; Test unit written to /a/x/crash-0");
        told.line("stat::number_of_executed_units: 60");
        assert_eq!((told.executions, told.input.as_deref()), (60, Some("/a/x/crash-0")));
        assert!(told.to_string().ends_with(": FAILED"));
    }
}
