//! The one place with unsafe code: the request to ext4 to stop as in a power cut has no safe wrapper.

#![allow(unsafe_code, reason = "an ioctl is only as safe as its opcode; here is one, and what it takes")]

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)`.
const EXT4_IOC_SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);

/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: the journal is not written out first.
const NO_LOG_FLUSH: u32 = 2;

/// Cuts the power of the ext4 file system that is mounted at `mount_point`.
///
/// From now on nothing reaches its device, and what has not been synced is gone after the next mount.
///
/// # Errors
/// What the system says: `EPERM` without `CAP_SYS_ADMIN`, `ENOTTY` where there is another file system.
pub fn cut_power(mount_point: &Path) -> io::Result<()> {
    let directory = File::open(mount_point)?;
    // SAFETY: the opcode takes a pointer to a `u32` that it only reads, and that is what `Setter` gives it.
    unsafe { ioctl(&directory, Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH)) }?;
    Ok(())
}
