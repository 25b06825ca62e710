//! What is done to a broker, and whether it can be done here.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::ValueEnum;
use serde::Serialize;

use crate::volume::Volume;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// Nothing: what has to hold in any case.
    Calm,
    /// SIGKILL.
    Kill,
    /// Power cut: what the file system has not been made to sync is gone.
    Power,
    /// SIGSTOP, and SIGCONT after a while; half of the time SIGKILL follows.
    Pause,
    /// SIGTERM under load.
    Term,
    /// The file system is full for a while; then SIGKILL or a power cut.
    Enospc,
    /// Syncs fail with EIO for a while; then SIGKILL or a power cut.
    Eio,
    /// The wall clock jumps; then SIGKILL.
    Clock,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calm => "calm",
            Self::Kill => "kill",
            Self::Power => "power",
            Self::Pause => "pause",
            Self::Term => "term",
            Self::Enospc => "enospc",
            Self::Eio => "eio",
            Self::Clock => "clock",
        })
    }
}

/// Where Debian and others install libfaketime.
const FAKETIME_LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The library that fakes the clock of a process, if it is installed.
pub fn faketime_library() -> Option<PathBuf> {
    FAKETIME_LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Tries whether a kind of fault can be made here.
///
/// # Errors
/// The reason why not.
pub fn try_out(kind: FaultKind, broker: &Path, data_root: &Path) -> Result<(), String> {
    match kind {
        FaultKind::Calm | FaultKind::Kill | FaultKind::Pause | FaultKind::Term => Ok(()),
        FaultKind::Power | FaultKind::Enospc => try_volume(data_root, kind == FaultKind::Power),
        FaultKind::Eio => try_strace(data_root),
        FaultKind::Clock => try_faketime(broker),
    }
}

fn try_volume(data_root: &Path, cut: bool) -> Result<(), String> {
    let attempt = || {
        let mut volume = Volume::create(&data_root.join(format!("trial-{}", std::process::id())))?;
        if cut {
            volume.cut_power()?;
            volume.mount_again()?;
        }
        volume.remove()
    };
    attempt().map_err(|error| format!("no ext4 on a loop device: {error}"))
}

fn try_strace(data_root: &Path) -> Result<(), String> {
    let file = data_root.join(format!("trial-{}.sync", std::process::id()));
    fs::write(&file, b"x").map_err(|error| error.to_string())?;
    let status = Command::new("strace")
        .args(["-qq", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO", "sync", "-d"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // What was not made cannot be in the way.
    drop(fs::remove_file(&file));
    match status {
        // `sync` reports the error that was injected.
        Ok(status) if status.code() == Some(1) => Ok(()),
        Ok(_) => Err("strace cannot make system calls fail here".into()),
        Err(error) => Err(format!("strace cannot be started: {error}")),
    }
}

fn try_faketime(broker: &Path) -> Result<(), String> {
    let library = faketime_library().ok_or("libfaketime is not installed")?;
    let output = Command::new(broker)
        .arg("--help")
        .env("LD_PRELOAD", library)
        .env("FAKETIME", "+0")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.stdout.is_empty() && output.stderr.is_empty() {
        return Err("the broker does not start with libfaketime".into());
    }
    Ok(())
}
