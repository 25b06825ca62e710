//! Paho is a C library. Its part is a small C program, built when it is wanted, so that nobody else needs the library.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: &str = include_str!("paho.c");

/// Builds the program in `scratch`. The error says what is missing.
pub fn build(scratch: &Path) -> Result<PathBuf, String> {
    let (source, program) = (scratch.join("paho.c"), scratch.join("paho"));
    fs::write(&source, SOURCE).map_err(|error| error.to_string())?;
    let mut command = Command::new("cc");
    command.args(["-O2", "-Wall", "-Wextra", "-o"]).arg(&program).arg(&source).args(["-lpaho-mqtt3a", "-lpthread"]);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("no C compiler: {error}"))?;
    if output.status.success() {
        return Ok(program);
    }
    let reason = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned();
    Err(format!("needs Debian's libpaho-mqtt-dev or the like: {reason}"))
}
