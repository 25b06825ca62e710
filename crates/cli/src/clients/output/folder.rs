//! `--output-dir`: each Topic Name has a file with its last payload.
//!
//! Whoever may publish chooses Topic Names, so none of them may lead out of the folder, to a file that is there for something
//! else, or to the file of another topic. A name is one file name, made by [`file_name`]; files are opened below the folder
//! that was opened at the beginning, and are replaced as a whole.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Files of one run; messages of further topics are not written.
pub const FILES_MAX: usize = 10_000;
/// The longest name that file systems take. Bytes.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a long name that stand before its hash.
const FRONT_BYTES: usize = NAME_BYTES_MAX - 1 - 64;

/// The file name for a Topic Name: letters, digits, `-`, `_` and `.` stand for themselves, `+` for `/`, and `%` with two
/// hexadecimal digits for a byte; a `.` in front is such a byte. A name that would be too long is cut, and ends with `~` and the
/// SHA-256 of the Topic Name.
///
/// Two Topic Names have two file names, where the file system tells large letters from small ones: a Topic Name has no `+`
/// (v5 MQTT-3.3.2-2), and `~` stands in no short name.
pub fn file_name(topic_name: &str) -> String {
    let mut name = String::with_capacity(topic_name.len().min(NAME_BYTES_MAX));
    for byte in topic_name.bytes() {
        if name.len() > NAME_BYTES_MAX {
            // Long enough to be cut.
            break;
        }
        match byte {
            b'/' => name.push('+'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(byte.into()),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    if name.len() > NAME_BYTES_MAX {
        name.truncate(FRONT_BYTES);
        name.push('~');
        for byte in Sha256::digest(topic_name) {
            name.push_str(&format!("{byte:02x}"));
        }
    }
    name
}

/// A folder that payloads are written to.
#[derive(Debug)]
pub struct Folder {
    folder: OwnedFd,
    /// Where a file is written before it gets its name; no topic has it.
    draft: String,
    names: HashSet<String>,
}

/// Why a payload was not written.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// There are files enough.
    #[error("there are {FILES_MAX} files, and no more are made")]
    Full,
    /// In the place of its file stands something else: a symbolic link, a folder, a device.
    #[error("{0} is no plain file")]
    Occupied(String),
    /// The system.
    #[error("{0}: {1}")]
    System(String, io::Error),
}

impl Folder {
    /// Opens a folder that is there.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, process_id: u32) -> io::Result<Self> {
        let folder = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder, draft: format!(".pantala-{process_id}"), names: HashSet::new() })
    }

    /// Puts a payload in the place of what the topic's file held; others never see a part of it.
    ///
    /// # Errors
    /// [`NotWritten`]; the file is as it was.
    pub fn write(&mut self, topic_name: &str, payload: &[u8]) -> Result<(), NotWritten> {
        let name = file_name(topic_name);
        if !self.names.contains(&name) {
            if self.names.len() >= FILES_MAX {
                return Err(NotWritten::Full);
            }
            self.names.insert(name.clone());
        }
        let system = |error: Errno| NotWritten::System(name.clone(), error.into());
        // Renaming would replace a link, not follow it; but whoever put it there is to hear of it.
        match statat(&self.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile => {
                return Err(NotWritten::Occupied(name));
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(system(error)),
        }
        let written = self
            .write_draft(payload)
            .and_then(|()| renameat(&self.folder, &self.draft, &self.folder, &name).map_err(io::Error::from));
        written.map_err(|error| {
            // What is left of it is of no use.
            unlinkat(&self.folder, &self.draft, AtFlags::empty()).unwrap_or_default();
            NotWritten::System(name.clone(), error)
        })
    }

    fn write_draft(&self, payload: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        let open = || openat(&self.folder, &self.draft, flags, mode);
        let draft = match open() {
            // Of a program with this number that was killed.
            Err(Errno::EXIST) => {
                unlinkat(&self.folder, &self.draft, AtFlags::empty())?;
                open()?
            }
            opened => opened?,
        };
        io::Write::write_all(&mut std::fs::File::from(draft), payload)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_say_what_they_are_of() {
        for (topic_name, name) in [
            ("kitchen/light", "kitchen+light"),
            ("a.b/c_d-E9", "a.b+c_d-E9"),
            ("../x", "%2E.+x"),
            ("..", "%2E."),
            (".", "%2E"),
            ("/etc/passwd", "+etc+passwd"),
            ("a/../../b", "a+..+..+b"),
            ("//", "++"),
            ("a//b", "a++b"),
            ("$SYS/x y%", "%24SYS+x%20y%25"),
            ("ü\n~", "%C3%BC%0A%7E"),
        ] {
            assert_eq!(file_name(topic_name), name);
        }
        let (long, longer) = ("x".repeat(65_535), format!("{}y", "x".repeat(65_534)));
        assert_eq!(file_name(&"x".repeat(255)), "x".repeat(255));
        for topic_name in [&long, &longer, &"/".repeat(300), &"ü".repeat(100), &"x".repeat(256)] {
            let name = file_name(topic_name);
            assert_eq!((name.len(), name.as_bytes()[FRONT_BYTES]), (255, b'~'));
        }
        assert_ne!(file_name(&long), file_name(&longer));
    }

    #[test]
    fn no_two_topics_share_a_name_and_none_is_a_path() {
        let levels = ["", ".", "..", "a", "A", "%2E", "~", "é", "%", "\\", "a b", "+"];
        let mut names = HashSet::new();
        let mut count = 0;
        for first in levels.iter().filter(|level| **level != "+") {
            for second in levels.iter().filter(|level| **level != "+") {
                for topic_name in
                    [format!("{first}/{second}"), format!("{first}{second}/"), format!("{first}//{second}")]
                {
                    let name = file_name(&topic_name);
                    assert!(
                        !name.contains('/') && !name.starts_with('.') && !name.is_empty() && name.is_ascii(),
                        "{name}"
                    );
                    names.insert((name, topic_name));
                    count += 1;
                }
            }
        }
        // Some Topic Names come twice, and so do their files: as many pairs as names.
        let files: HashSet<_> = names.iter().map(|(name, _)| name).collect();
        assert_eq!(files.len(), names.len());
        assert!(count > names.len());
    }

    #[test]
    fn files_are_replaced_and_nothing_else_is() {
        let place = tempfile::tempdir().unwrap();
        let (inside, outside) = (place.path().join("in"), place.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::write(&outside, "mine").unwrap();
        let mut folder = Folder::open(&inside, 7).unwrap();
        // Left behind by another, and leading out.
        symlink(&outside, inside.join(".pantala-7")).unwrap();
        for payload in ["first", "second"] {
            folder.write("../outside", payload.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(inside.join("%2E.+outside")).unwrap(), payload);
        }
        symlink(&outside, inside.join("link")).unwrap();
        fs::create_dir(inside.join("folder")).unwrap();
        for topic_name in ["link", "folder"] {
            let error = folder.write(topic_name, b"payload").unwrap_err();
            assert_eq!(error.to_string(), format!("{topic_name} is no plain file"));
        }
        assert_eq!(fs::read_to_string(&outside).unwrap(), "mine");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
        let mut names: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["%2E.+outside", "folder", "link"]);
        assert!(Folder::open(&outside, 7).is_err());
    }

    #[test]
    fn there_is_a_bound_on_files() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = Folder::open(place.path(), 1).unwrap();
        folder.names = (0..FILES_MAX - 1).map(|number| number.to_string()).collect();
        folder.write("last", b"1").unwrap();
        assert!(matches!(folder.write("one more", b"1"), Err(NotWritten::Full)));
        folder.write("last", b"2").unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
