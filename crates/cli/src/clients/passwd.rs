//! `passwd`: mosquitto_passwd, which looks after password files.

use std::fs::{self, File as SystemFile, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, ValueEnum};
use pantala_password::{Algorithm, Error as PasswordError, File, Hash, ITERATIONS_MAX};

use super::EXIT_FAILURE;
use super::prompt::read_secret;

/// Mosquitto's numbers.
const ARGON2_ITERATIONS: u32 = 1;
const PBKDF2_ITERATIONS: u32 = 1_000;
/// What Mosquitto 2.0 expects of `$7$`.
const PBKDF2_SALT_BYTES: usize = 12;
const ARGON2_SALT_BYTES: usize = 16;
/// What only the owner can read, of a new file.
const NEW_FILE_MODE: u32 = 0o600;
const PERMISSIONS: u32 = 0o7777;
/// What mosquitto_passwd ends with when the two passwords differ.
const EXIT_MISMATCH: u8 = 2;
/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Look after a password file in Mosquitto's format.
///
/// Adds a user to FILE, or gives one a new password, which it asks for twice. The file is replaced in one step and keeps its
/// owner and mode; a new one can be read by its owner only. Runs at the same time wait for each other.
///
/// Status: 0 done, 2 the two passwords differ, 1 anything else.
#[derive(Debug, Args)]
pub struct Passwd {
    /// Take the password from the command line, where everybody on this machine can see it in the list of processes.
    #[arg(short = 'b', conflicts_with_all = ["delete", "update"])]
    batch: bool,
    /// Create FILE; one that is there is replaced. `-` is standard output.
    #[arg(short = 'c', conflicts_with_all = ["delete", "update"])]
    create: bool,
    /// Delete the user.
    #[arg(short = 'D', conflicts_with = "update")]
    delete: bool,
    /// Hash the passwords of FILE that are in plain text. Lines that are hashed already stay; a file without others is refused.
    #[arg(short = 'U')]
    update: bool,
    /// How new passwords are hashed. Mosquitto 2.0 reads sha512-pbkdf2 only. Default: argon2id.
    #[arg(short = 'H', value_name = "HASH", hide_possible_values = false)]
    hash: Option<HashName>,
    /// Iterations of the hash, 1 to 10000000. Default: 1, of sha512-pbkdf2 1000.
    #[arg(short = 'I', value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(ITERATIONS_MAX)))]
    iterations: Option<u32>,
    /// The password file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user's name, without a colon.
    #[arg(value_name = "USER", required_unless_present = "update")]
    user: Option<String>,
    /// With -b, the password.
    #[arg(value_name = "PASSWORD", requires = "batch", required_if_eq("batch", "true"))]
    password: Option<std::ffi::OsString>,
}

// How to parse it under its own name. Not in a comment for the documentation: clap would take it for the help.
#[allow(missing_docs, reason = "see above")]
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, no_binary_name = false)]
pub struct PasswdProgram {
    /// Its arguments.
    #[command(flatten)]
    pub passwd: Passwd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HashName {
    Argon2id,
    Sha512Pbkdf2,
    /// Taken only to say why not.
    #[value(hide = true)]
    Sha512,
}

/// Why the work could not be done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0}: {1}")]
    Password(PathBuf, PasswordError),
    #[error("{0}: {1}")]
    User(String, PasswordError),
    #[error("{0} is not UTF-8")]
    NotText(PathBuf),
    #[error("{0}: its passwords are hashed already")]
    Hashed(PathBuf),
    #[error("there is no user {1} in {0}")]
    NoUser(PathBuf, String),
    #[error("-H sha512 is only read, since it can be guessed too fast; use argon2id or sha512-pbkdf2")]
    Sha512,
    #[error("- is for -c only, as standard output")]
    StandardOutput,
    #[error("the password cannot be read: {0}")]
    Prompt(io::Error),
    #[error("the passwords do not match")]
    Mismatch,
    #[error("the password is empty")]
    Empty,
    #[error("{0}: the password of line {1} is empty")]
    EmptyLine(PathBuf, usize),
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// Does the work and returns the status to end with.
pub fn run(passwd: &Passwd) -> u8 {
    match work(passwd) {
        Ok(()) => 0,
        Err(failure) => {
            // Nothing can be said about a terminal that is gone.
            drop(writeln!(io::stderr(), "Error: {failure}."));
            if matches!(failure, Failure::Mismatch) { EXIT_MISMATCH } else { EXIT_FAILURE }
        }
    }
}

fn work(passwd: &Passwd) -> Result<(), Failure> {
    let path = &passwd.file;
    let hash = |password: &[u8]| {
        let (algorithm, salt_bytes) = match passwd.hash.unwrap_or(HashName::Argon2id) {
            HashName::Argon2id => {
                let iterations = passwd.iterations.unwrap_or(ARGON2_ITERATIONS);
                (Algorithm::Argon2id { iterations }, ARGON2_SALT_BYTES)
            }
            HashName::Sha512Pbkdf2 => {
                let iterations = passwd.iterations.unwrap_or(PBKDF2_ITERATIONS);
                (Algorithm::Pbkdf2Sha512 { iterations }, PBKDF2_SALT_BYTES)
            }
            HashName::Sha512 => return Err(Failure::Sha512),
        };
        let mut salt = [0; ARGON2_SALT_BYTES];
        let salt = &mut salt[..salt_bytes];
        getrandom::fill(salt).map_err(Failure::Random)?;
        Hash::new(algorithm, password, salt).map_err(|error| Failure::Password(path.clone(), error))
    };
    if passwd.update {
        let _lock = lock(path)?;
        let text = read(path)?;
        return replace(path, &hash_plain(path, &text, hash)?.to_string());
    }
    let to_output = path.as_os_str() == "-";
    if to_output && !passwd.create {
        return Err(Failure::StandardOutput);
    }
    let user = passwd.user.as_deref().unwrap_or_default();
    let open = || match passwd.create {
        true => Ok(File::default()),
        false => File::parse(&read(path)?).map_err(|error| Failure::Password(path.clone(), error)),
    };
    if passwd.delete {
        let _lock = lock(path)?;
        let mut file = open()?;
        if !file.remove(user) {
            return Err(Failure::NoUser(path.clone(), user.to_owned()));
        }
        return replace(path, &file.to_string());
    }
    // Before anybody types a password in vain.
    open()?;
    if passwd.hash == Some(HashName::Sha512) {
        return Err(Failure::Sha512);
    }
    let password = match &passwd.password {
        Some(password) => password.as_bytes().to_vec(),
        None => {
            let password = read_secret("Password: ").map_err(Failure::Prompt)?;
            if password.is_empty() {
                return Err(Failure::Empty);
            }
            if read_secret("Reenter password: ").map_err(Failure::Prompt)? != password {
                return Err(Failure::Mismatch);
            }
            password
        }
    };
    // That takes time, and others are not to wait for it.
    let hash = hash(&password)?;
    let _lock = if to_output { None } else { lock(path)? };
    let mut file = open()?;
    file.set(user, hash).map_err(|error| Failure::User(format!("{user:?}"), error))?;
    if to_output {
        return write!(io::stdout(), "{file}").map_err(|error| Failure::File(path.clone(), error));
    }
    replace(path, &file.to_string())
}

/// What is in plain text is hashed, what is hashed stays.
fn hash_plain(path: &Path, text: &str, hash: impl Fn(&[u8]) -> Result<Hash, Failure>) -> Result<File, Failure> {
    let is_empty = |line: &str| {
        !line.trim_start().starts_with('#') && line.split_once(':').is_some_and(|(_, rest)| rest.trim_end().is_empty())
    };
    if let Some(index) = text.lines().position(is_empty) {
        return Err(Failure::EmptyLine(path.to_owned(), index + 1));
    }
    let mut failure = None;
    let (mut plain, mut hashed) = (false, false);
    let file = File::parse_plain(text, |password| {
        if let Some(hash) = std::str::from_utf8(password).ok().and_then(|text| Hash::parse(text).ok()) {
            hashed = true;
            return Ok(hash);
        }
        plain = true;
        hash(password).map_err(|error| {
            failure = Some(error);
            PasswordError::Hash("it cannot be hashed")
        })
    });
    match (file, failure) {
        (_, Some(failure)) => Err(failure),
        (Ok(_), None) if hashed && !plain => Err(Failure::Hashed(path.to_owned())),
        (Ok(file), None) => Ok(file),
        (Err(error), None) => Err(Failure::Password(path.to_owned(), error)),
    }
}

/// Waits until no other run is about to replace the file; None if there is none yet. What is read from here on is what is replaced.
fn lock(path: &Path) -> Result<Option<SystemFile>, Failure> {
    let failed = |error| Failure::File(path.to_owned(), error);
    loop {
        let file = match SystemFile::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        file.lock().map_err(failed)?;
        let ours = file.metadata().map_err(failed)?;
        // Whoever had the lock has put another file in its place.
        match fs::metadata(path) {
            Ok(now) if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) => return Ok(Some(file)),
            _ => {}
        }
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::File(path.to_owned(), error);
    if fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    String::from_utf8(fs::read(path).map_err(failed)?).map_err(|_| Failure::NotText(path.to_owned()))
}

/// Replaces a file in one step: whoever opens it has the old text or the new one, after a power cut too.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    // A link stays a link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let temporary = folder.join(name);
    let written = write_and_rename(&target, &temporary, folder, text);
    if written.is_err() {
        // It may never have been there.
        drop(fs::remove_file(&temporary));
    }
    written.map_err(|error| Failure::File(path.to_owned(), error))
}

fn write_and_rename(target: &Path, temporary: &Path, folder: &Path, text: &str) -> io::Result<()> {
    // What a process with the same number has left behind when it was killed.
    drop(fs::remove_file(temporary));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(NEW_FILE_MODE).open(temporary)?;
    if let Ok(before) = fs::metadata(target) {
        if !before.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let now = file.metadata()?;
        // The owner first: a change of owner takes some modes away.
        if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(before.mode() & PERMISSIONS))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(temporary, target)?;
    SystemFile::open(folder)?.sync_all()
}
