//! Options files: one flag and its value on a line, `#` for comments.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::parse::{self, occurrence};
use super::table::Value;
use super::{FlagError, Program, Stage, Written};

/// What of the process's surroundings the flags depend on.
pub struct Surroundings<'a> {
    /// An environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// A file's bytes.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// The number of this process, of which `-I` makes a Client Identifier.
    pub process_id: u32,
}

impl Surroundings<'static> {
    /// Those of this process.
    pub fn of_process() -> Self {
        Self {
            variable: &|name| std::env::var_os(name),
            read: &|path| std::fs::read(path),
            process_id: std::process::id(),
        }
    }
}

/// The options files of a program, in the order in which they are read: Mosquitto's, then ours. They are in
/// `$XDG_CONFIG_HOME`, else in `~/.config`.
pub fn default_files(program: Program, surroundings: &Surroundings<'_>) -> Vec<PathBuf> {
    let set = |name| (surroundings.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(folder) = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config"))) else {
        return Vec::new();
    };
    vec![folder.join(program.mosquitto_name()), folder.join(format!("pantala_{}", program.name()))]
}

/// Applies the lines of a file. A value reaches to the end of its line and keeps its blanks, as with Mosquitto; the values of
/// `-D` are divided by blanks.
pub(super) fn apply(program: Program, path: &Path, bytes: &[u8], written: &mut Written) -> Result<(), FlagError> {
    for (index, line) in String::from_utf8_lossy(bytes).lines().enumerate() {
        let in_file =
            |error| FlagError::InFile { file: path.display().to_string(), line: index + 1, error: Box::new(error) };
        let line = line.trim_start_matches(' ');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once(' ') {
            Some((name, value)) => (name, Some(value)),
            None => (line, None),
        };
        let mut values = values(name, value).into_iter();
        let occurrence = occurrence(program, name.as_ref(), || values.next()).map_err(in_file)?;
        if occurrence.flag.value == Value::None && value.is_some_and(|value| !value.trim().is_empty()) {
            return Err(in_file(FlagError::ValueTooMuch { flag: name.to_owned() }));
        }
        if occurrence.flag.is_options_file() {
            let why = "an options file names no other";
            return Err(in_file(FlagError::Unsupported { flag: name.to_owned(), why }));
        }
        parse::apply(&occurrence, Stage::File, written).map_err(in_file)?;
    }
    Ok(())
}

/// The values of a line: the rest of it, or for `-D` its words, of which the last takes the rest.
fn values(name: &str, value: Option<&str>) -> Vec<OsString> {
    let Some(value) = value else { return Vec::new() };
    if !matches!(name, "-D" | "--property") {
        return vec![value.into()];
    }
    let is_pair = value.split_whitespace().nth(1) == Some("user-property");
    value.trim_start().splitn(if is_pair { 4 } else { 3 }, ' ').map(OsString::from).collect()
}
