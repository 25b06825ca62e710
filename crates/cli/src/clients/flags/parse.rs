//! From arguments to [`Written`].

use std::ffi::{OsStr, OsString};

use super::table::{Argument, Flag, TABLE, Value};
use super::{FlagError, Program, Stage, Surroundings, Written, default_files, file};

/// What is wanted of a program.
#[derive(Debug)]
pub enum Asked {
    /// To do its work.
    Run(Box<Written>),
    /// `--help`.
    Help,
    /// `--version`.
    Version,
}

/// A flag as it occurred, with its values.
pub(super) struct Occurrence {
    pub flag: &'static Flag,
    /// As it was written, for messages.
    pub name: String,
    pub values: Vec<OsString>,
}

/// Reads the options files, then the arguments behind the program's name.
///
/// `-o FILE` takes the place of the files in the person's folder of configuration.
///
/// # Errors
/// The first that is wrong.
pub fn parse(
    program: Program,
    arguments: impl IntoIterator<Item = OsString>,
    surroundings: &Surroundings<'_>,
) -> Result<Asked, FlagError> {
    let mut occurrences = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        // Before all else, so that it helps whoever is stuck.
        if argument == "--help" {
            return Ok(Asked::Help);
        }
        if argument == "--version" {
            return Ok(Asked::Version);
        }
        occurrences.push(occurrence(program, &argument, || arguments.next())?);
    }
    let mut written = Written::default();
    let named: Vec<_> = occurrences
        .iter()
        .filter(|occurrence| occurrence.flag.is_options_file())
        .map(|o| o.values[0].clone())
        .collect();
    if named.is_empty() {
        for path in default_files(program, surroundings) {
            // Most people have none.
            if let Some(text) = (surroundings.read)(&path).transpose_missing("-o", &path)? {
                file::apply(program, &path, &text, &mut written)?;
            }
        }
    }
    for path in named {
        let path = std::path::PathBuf::from(path);
        let text = (surroundings.read)(&path).map_err(|error| FlagError::Unreadable {
            flag: "-o",
            source_name: path.display().to_string(),
            why: error.to_string(),
        })?;
        file::apply(program, &path, &text, &mut written)?;
    }
    for occurrence in &occurrences {
        apply(occurrence, Stage::CommandLine, &mut written)?;
    }
    Ok(Asked::Run(Box::new(written)))
}

trait Missing {
    fn transpose_missing(self, flag: &'static str, path: &std::path::Path) -> Result<Option<Vec<u8>>, FlagError>;
}

impl Missing for std::io::Result<Vec<u8>> {
    fn transpose_missing(self, flag: &'static str, path: &std::path::Path) -> Result<Option<Vec<u8>>, FlagError> {
        match self {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(FlagError::Unreadable { flag, source_name: path.display().to_string(), why: error.to_string() })
            }
        }
    }
}

/// Lets a flag set what it is for.
pub(super) fn apply(occurrence: &Occurrence, stage: Stage, written: &mut Written) -> Result<(), FlagError> {
    let Occurrence { flag, name, values } = occurrence;
    (flag.set)(written, &Argument { flag: name, values, stage })
}

/// Finds the flag and takes its values from `next`.
pub(super) fn occurrence(
    program: Program,
    argument: &OsStr,
    mut next: impl FnMut() -> Option<OsString>,
) -> Result<Occurrence, FlagError> {
    let name = argument.to_string_lossy();
    if let Some(flag) = find(program, &name) {
        let name = name.into_owned();
        let mut values = Vec::new();
        let count = match flag.value {
            Value::None => 0,
            Value::One(_) => 1,
            // The fourth value depends on the second.
            Value::Property => 3,
        };
        let missing = || FlagError::ValueMissing { flag: name.clone(), value: flag.value.name() };
        for _ in 0..count {
            values.push(next().ok_or_else(missing)?);
        }
        if flag.value == Value::Property && values[1] == "user-property" {
            values.push(next().ok_or_else(missing)?);
        }
        return Ok(Occurrence { flag, name, values });
    }
    if let Some((long, value)) = name.split_once('=').filter(|(long, _)| long.starts_with("--"))
        && let Some(flag) = find(program, long)
    {
        return match flag.value {
            Value::One(_) => Ok(Occurrence { flag, name: long.to_owned(), values: vec![value.into()] }),
            _ => Err(FlagError::ValueTooMuch { flag: long.to_owned() }),
        };
    }
    Err(unknown(program, &name))
}

fn find(program: Program, name: &str) -> Option<&'static Flag> {
    TABLE.iter().find(|flag| flag.programs.has(program) && flag.is_called(name))
}

fn unknown(program: Program, name: &str) -> FlagError {
    let flag = name.to_owned();
    if let Some(other) = TABLE.iter().find(|flag| flag.is_called(name))
        && let Some(of) = other.programs.iter().next()
    {
        return FlagError::OtherProgram { flag, of, not_of: program };
    }
    let near = TABLE
        .iter()
        .filter(|flag| flag.programs.has(program))
        .filter_map(|flag| flag.long)
        .map(|long| format!("--{long}"))
        .filter(|long| name.starts_with("--") && distance(name, long) <= 2)
        .min_by_key(|long| distance(name, long));
    FlagError::Unknown { flag, near }
}

/// How many letters have to be changed, added or taken away.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, to) in right.bytes().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
