//! `-d`: a broker that goes on in the background.
//!
//! The program starts itself once more, waits until that one listens, and ends; if it does not come to listen, with its status. So
//! what is wrong is still said on the terminal, and who waits for the end of `-d` can connect.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};

use rustix::stdio::{dup2_stderr, dup2_stdout};

/// Tells the process that it is the one to go on.
const DETACHED: &str = "PANTALA_DETACHED";
/// Said on standard output, where lines of the log may be as well: a control character, which is in none of them.
const READY: u8 = 0x06;

/// Whether this is the process that is to go on.
pub fn is_detached() -> bool {
    let detached = env::var_os(DETACHED).is_some();
    if detached {
        // It fails only for one that has a session of its own already.
        let _ = rustix::process::setsid();
    }
    detached
}

/// Starts the process that goes on, and waits until it is ready or has ended.
pub fn start() -> ExitCode {
    let mut arguments: Vec<OsString> = env::args_os().collect();
    let name = if arguments.is_empty() { OsString::new() } else { arguments.remove(0) };
    let result = env::current_exe().and_then(|program| {
        let mut child = Command::new(program)
            .arg0(name)
            .args(arguments)
            .env(DETACHED, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(stdout) = &mut child.stdout {
            let mut said = [0; 4_096];
            loop {
                let count = stdout.read(&mut said)?;
                let ready = said[..count].iter().position(|byte| *byte == READY);
                // Nothing can be said about a terminal that is gone.
                drop(std::io::stdout().write_all(&said[..ready.unwrap_or(count)]));
                match (ready, count) {
                    (Some(_), _) => return Ok(None),
                    (None, 0) => break,
                    (None, _) => {}
                }
            }
        }
        child.wait().map(Some)
    });
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(status)) => {
            status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Err(error) => {
            // Nothing can be said about a terminal that is gone.
            drop(writeln!(std::io::stderr(), "pantala: cannot start in the background: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells who started this process that clients can connect, and lets the terminal go.
pub fn tell_ready() {
    let mut stdout = std::io::stdout();
    // Whoever waited may be gone.
    drop(stdout.write_all(&[READY]).and_then(|()| stdout.flush()));
    if let Ok(nowhere) = File::options().write(true).open("/dev/null") {
        let _ = dup2_stdout(&nowhere);
        let _ = dup2_stderr(&nowhere);
    }
}
