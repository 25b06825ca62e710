//! Becoming another user: a broker that was started as root, for its ports and files, goes on as somebody who may do less.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Uid};

use crate::reload::RUNNING;

/// A user of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    /// All groups it is in.
    groups: Vec<Gid>,
}

/// Why a user cannot be become.
#[derive(Debug)]
pub(crate) enum UserError {
    Unknown,
    System(io::Error),
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("there is no such user in /etc/passwd"),
            Self::System(error) => error.fmt(f),
        }
    }
}

/// Whether this process may become somebody else.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl User {
    /// The user of this name.
    pub(crate) fn named(name: &str) -> Result<Self, UserError> {
        let users = fs::read_to_string("/etc/passwd").map_err(UserError::System)?;
        // Without it there are no groups but the user's own.
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        Self::find(name, &users, &groups).ok_or(UserError::Unknown)
    }

    fn find(name: &str, users: &str, groups: &str) -> Option<Self> {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let mut found = fields.filter(|fields| fields.len() >= 4 && fields[0] == name);
        let found = found.next()?;
        let (uid, gid) = (found[2].parse().ok()?, found[3].parse().ok()?);
        let mut all = vec![gid];
        for line in groups.lines() {
            let fields: Vec<_> = line.split(':').collect();
            if let [_, _, group, members] = fields[..]
                && members.split(',').any(|member| member == name)
                && let Ok(group) = group.parse::<u32>()
                && !all.contains(&group)
            {
                all.push(group);
            }
        }
        let groups = all.into_iter().map(Gid::from_raw).collect();
        Some(Self { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups })
    }

    /// Gives a folder in a data directory, and the files in it, to the user, as far as they are root's. The data directory goes
    /// with it if it holds nothing else: then it was made for this.
    pub(crate) fn give_folder(&self, data_dir: &Path, folder: &str) -> io::Result<()> {
        let path = data_dir.join(folder);
        self.give(&path)?;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                self.give(&entry.path())?;
            }
        }
        for entry in fs::read_dir(data_dir)? {
            let name = entry?.file_name();
            if name != folder && name != RUNNING {
                return Ok(());
            }
        }
        self.give(data_dir)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        if fs::symlink_metadata(path)?.uid() != 0 {
            return Ok(());
        }
        Ok(rustix::fs::chownat(CWD, path, Some(self.uid), Some(self.gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Becomes this user, for good.
    ///
    /// The system does this for a thread: it has to be the only one, and those that it starts are the user's too.
    pub(crate) fn become_it(&self) -> io::Result<()> {
        rustix::thread::set_thread_groups(&self.groups)?;
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid)?;
        if !self.uid.is_root() && is_root() {
            return Err(io::Error::other("the process is root's as before"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_its_groups_are_found() {
        let users = "root:x:0:0:root:/root:/bin/sh\nbroken\npantala:x:123:456::/var/lib/pantala:/bin/false\n";
        let groups = "root:x:0:\nssl-cert:x:110:other,pantala\nsame:x:456:pantala\nnot:x:9:pantalas\n";
        let user = User::find("pantala", users, groups).unwrap();
        assert_eq!((user.uid.as_raw(), user.gid.as_raw()), (123, 456));
        assert_eq!(user.groups.iter().map(|group| group.as_raw()).collect::<Vec<_>>(), [456, 110]);
        assert_eq!(User::find("pantal", users, groups), None);
        assert_eq!(User::find("broken", users, groups), None);
        assert!(User::find("root", users, groups).unwrap().uid.is_root());
    }
}
