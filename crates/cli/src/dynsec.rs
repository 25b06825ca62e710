//! `pantala dynsec`: the first file of dynamic security.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use pantala_access::dynsec::DynamicSecurity;
use pantala_cli::clients::prompt::read_secret;
use pantala_password::{Algorithm, Hash};

use crate::complain;
use crate::connection::first_line;

/// As many as take some tens of milliseconds. What Mosquitto 2.0 and 2.1 read alike.
const ITERATIONS: u32 = 100_000;
const SALT_BYTES: usize = 12;
const NEW_FILE_MODE: u32 = 0o600;
/// The password, where nobody sees it who may not.
const PASSWORD_VARIABLE: &str = "PANTALA_DYNSEC_PASSWORD";

#[derive(Debug, Subcommand)]
pub enum Dynsec {
    /// Write the first file: an administrator, who may do all that `mosquitto_ctrl dynsec` can.
    ///
    /// It says what that of `mosquitto_ctrl dynsec init` says. Nobody else may publish or subscribe to anything before the
    /// administrator has made clients and roles. The file can be read by its owner only, and one that is there is not replaced.
    ///
    /// The password is asked for twice, unless --password-file or the variable PANTALA_DYNSEC_PASSWORD has it; where standard
    /// input is no terminal its next two lines are read.
    ///
    /// Status: 0 done, 2 the two passwords differ, 1 anything else.
    Init {
        /// A file that does not exist: `dynamic_security_file` of a security domain.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The administrator's user name.
        #[arg(long, value_name = "NAME", default_value = "admin")]
        admin: String,
        /// A file with the password in its first line.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

/// What mosquitto_passwd ends with when the two passwords differ.
const EXIT_MISMATCH: u8 = 2;

enum Failure {
    Mismatch,
    Other(String),
}

pub fn run(dynsec: &Dynsec) -> ExitCode {
    let Dynsec::Init { file, admin, password_file } = dynsec;
    let (code, text) = match init(file, admin, password_file.as_deref()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Mismatch) => (EXIT_MISMATCH, "the passwords do not match".to_owned()),
        Err(Failure::Other(text)) => (1, text),
    };
    complain(&*Box::<dyn std::error::Error>::from(text));
    ExitCode::from(code)
}

fn init(path: &Path, admin: &str, password_file: Option<&Path>) -> Result<(), Failure> {
    let other = |text: String| Failure::Other(text);
    // Before anybody types a password in vain.
    if fs::symlink_metadata(path).is_ok() {
        return Err(other(format!("{} is there already; nothing has been written", path.display())));
    }
    let password = password(password_file)?;
    if password.is_empty() {
        return Err(other("the password is empty".to_owned()));
    }
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| other(format!("the system gives no random numbers: {error}")))?;
    let hash = Hash::new(Algorithm::Pbkdf2Sha512 { iterations: ITERATIONS }, &password, &salt);
    let hash = hash.map_err(|error| other(error.to_string()))?;
    let text = DynamicSecurity::initial(admin, &hash.to_string()).map_err(|error| other(error.to_string()))?;
    write_new(path, &text).map_err(|error| other(format!("{}: {error}", path.display())))
}

fn password(file: Option<&Path>) -> Result<Vec<u8>, Failure> {
    if let Some(path) = file {
        return first_line(path).map_err(Failure::Other);
    }
    if let Some(password) = std::env::var_os(PASSWORD_VARIABLE) {
        return Ok(OsString::into_vec(password));
    }
    let ask =
        |prompt| read_secret(prompt).map_err(|error| Failure::Other(format!("the password cannot be read: {error}")));
    let password = ask("Password: ")?;
    if ask("Reenter password: ")? != password {
        return Err(Failure::Mismatch);
    }
    Ok(password)
}

/// Whole or not at all, and never in the place of another.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(NEW_FILE_MODE).open(path)?;
    let written = file.write_all(text).and_then(|()| file.sync_all());
    if written.is_err() {
        // Half a file is none.
        drop(fs::remove_file(path));
        return written;
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
