//! A file system of its own for the data directory: ext4 in an image file, mounted by a loop device.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::shutdown;

/// Size of the image. It is sparse, so only what is written takes space.
const IMAGE_BYTES: u64 = 192 << 20;

/// How often a file system that is still in use is tried again, and after how long.
const UNMOUNT_ATTEMPTS_MAX: u32 = 50;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(20);

/// A mounted image; dropped, it is unmounted and removed.
#[derive(Debug)]
pub struct Volume {
    folder: PathBuf,
    mounted: bool,
    removed: bool,
}

impl Volume {
    /// Makes and mounts one in a new folder.
    ///
    /// # Errors
    /// What `mkfs.ext4` or `mount` say; mostly that one has to be root.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let mut volume = Self { folder: folder.to_owned(), mounted: false, removed: false };
        fs::create_dir_all(volume.mount_point())?;
        File::create(volume.image())?.set_len(IMAGE_BYTES)?;
        // No blocks are kept back for root, so that a full file system is full.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(volume.image()))?;
        volume.mount_again()?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.folder.join("mount")
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    fn ballast(&self) -> PathBuf {
        self.mount_point().join("ballast")
    }

    /// Stops the file system as a power cut does. Writes fail from now on; [`Volume::mount_again`] is the reboot.
    ///
    /// # Errors
    /// If the file system does not know this request.
    pub fn cut_power(&mut self) -> io::Result<()> {
        shutdown::cut_power(&self.mount_point())
    }

    /// Mounts it, after an unmount if it is mounted; ext4 recovers from its journal. Nobody may use it.
    ///
    /// # Errors
    /// What `umount` and `mount` say.
    pub fn mount_again(&mut self) -> io::Result<()> {
        self.unmount()?;
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(self.image()).arg(self.mount_point()))?;
        self.mounted = true;
        // Its removal was not synced, so a power cut may bring it back.
        self.relieve()
    }

    /// Leaves no free block.
    ///
    /// # Errors
    /// Anything but "no space left", which is what this is for.
    pub fn fill(&mut self) -> io::Result<()> {
        let mut ballast = OpenOptions::new().create(true).append(true).open(self.ballast())?;
        let mut chunk = vec![0x5a; 1 << 20];
        while !chunk.is_empty() {
            match ballast.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => chunk.truncate(chunk.len() / 2 / 512 * 512),
                Err(error) => return Err(error),
            }
        }
        // Blocks are given out when data goes down; until then a promise of space can still be broken.
        match ballast.sync_all() {
            Err(error) if error.kind() != ErrorKind::StorageFull => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// If the ballast is there and cannot be removed.
    pub fn relieve(&mut self) -> io::Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            // Or a power cut brings it back, and with it the full disk.
            _ => File::open(self.mount_point())?.sync_all(),
        }
    }

    /// Unmounts and removes it.
    ///
    /// # Errors
    /// If it is in use, or the folder cannot be removed.
    pub fn remove(mut self) -> io::Result<()> {
        self.unmount()?;
        self.removed = true;
        fs::remove_dir_all(&self.folder)
    }

    fn unmount(&mut self) -> io::Result<()> {
        let mut attempt = 0;
        while self.mounted {
            match run(Command::new("umount").arg(self.mount_point())) {
                Ok(()) => self.mounted = false,
                Err(error) if attempt >= UNMOUNT_ATTEMPTS_MAX => return Err(error),
                // A process that was killed a moment ago may still hold it.
                Err(_) => thread::sleep(UNMOUNT_PAUSE),
            }
            attempt += 1;
        }
        Ok(())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.removed {
            return;
        }
        if self.unmount().is_err() {
            // It goes as soon as its last user does.
            drop(run(Command::new("umount").arg("--lazy").arg(self.mount_point())));
        }
        drop(fs::remove_dir_all(&self.folder));
    }
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("no reason given");
    Err(io::Error::other(format!("{}: {said}", command.get_program().to_string_lossy())))
}
