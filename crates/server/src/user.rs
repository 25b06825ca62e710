//! Becoming another user: a broker that was started as root, for its ports and files, goes on as somebody who may do less.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{Access, AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, access};
use rustix::io::Errno;

use crate::import::{self, LOCK};
use crate::log::shown;
use crate::reload::RUNNING;

/// How what is given is opened: no link, and without waiting for anybody.
const FILE: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
const DIRECTORY: OFlags = FILE.union(OFlags::DIRECTORY);

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
    ///
    /// Who was given them before may have put anything in their places meanwhile. So links are not followed, what is given is what was
    /// opened, and a file that has another name besides is left alone.
    pub(crate) fn give_folder(&self, data_dir: &Path, folder: &str) -> io::Result<()> {
        let path = data_dir.join(folder);
        let given = rustix::fs::open(&path, DIRECTORY, Mode::empty())
            .map_err(|error| io::Error::other(format!("{} is no folder of its own: {error}", path.display())))?;
        self.give(&given)?;
        for entry in Dir::read_from(&given)? {
            let entry = entry?;
            let is_regular = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            // Looked at first, as opening some others does something.
            if rustix::fs::statat(&given, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|it| is_regular(&it))
            {
                let file = rustix::fs::openat(&given, entry.file_name(), FILE, Mode::empty())?;
                let stat = rustix::fs::fstat(&file)?;
                if is_regular(&stat) && stat.st_nlink == 1 {
                    self.give(&file)?;
                }
            }
        }
        if !is_ours_alone(data_dir, folder)? {
            return Ok(());
        }
        // One that is a link was not made for this.
        match rustix::fs::open(data_dir, DIRECTORY, Mode::empty()) {
            Ok(data_dir) => self.give(&data_dir),
            Err(_) => Ok(()),
        }
    }

    /// Gives a Unix socket to the user, if it is root's: whoever may connect to it, by its permissions, is of this user and its group. What
    /// another name leads to is left alone, as in a folder that is the user's anything may have come to be in its place.
    pub(crate) fn give_socket(&self, path: &Path) -> io::Result<()> {
        // Neither connects, nor follows a link, nor is something else by the time it is given.
        #[cfg(target_os = "linux")]
        {
            let flags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
            let socket = rustix::fs::open(path, flags, Mode::empty())?;
            if is_given(&rustix::fs::fstat(&socket)?) {
                let (uid, gid) = (Some(self.uid), Some(self.gid));
                rustix::fs::chownat(&socket, "", uid, gid, AtFlags::EMPTY_PATH)?;
            }
        }
        #[cfg(not(target_os = "linux"))]
        if is_given(&rustix::fs::lstat(path)?) {
            let (uid, gid) = (Some(self.uid), Some(self.gid));
            rustix::fs::chownat(rustix::fs::CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Gives what is open to the user, if it is root's.
    fn give(&self, open: &OwnedFd) -> io::Result<()> {
        if rustix::fs::fstat(open)?.st_uid == 0 {
            rustix::fs::fchown(open, Some(self.uid), Some(self.gid))?;
        }
        Ok(())
    }

    /// Whether the store in a data directory can be used as this user, which is what goes on with it when the process has become it. What
    /// is wrong is said with the folder, and with what helps. What is missing is not: it will be made.
    ///
    /// `Before` what is to be given has been, what is root's of it counts as the user's.
    pub(crate) fn can_keep(&self, name: &str, data_dir: &Path, folder: &str, when: Given) -> Result<(), String> {
        let refuse = |what: &dyn fmt::Display| {
            Err(format!("cannot keep data in {} as user {}: {what}", data_dir.display(), shown(name)))
        };
        // As root, as nobody else may be able to look.
        let is_given =
            when == Given::Before && is_roots_own(data_dir) && is_ours_alone(data_dir, folder).unwrap_or(false);
        match self.as_it(|| obstacle(data_dir, is_given, folder, when)) {
            Ok(None) => Ok(()),
            Ok(Some(Obstacle { path, is_way: true })) => {
                let path = path.display();
                refuse(&format_args!(
                    "it may not enter {path}; --data-dir names another place, or `chmod o+x {path}` lets it in"
                ))
            }
            Ok(Some(Obstacle { path, is_way: false })) => {
                let path = path.display();
                refuse(&format_args!(
                    "it may not write to {path}; --data-dir names another place, or `chown -R {} {path}` gives it",
                    shown(name)
                ))
            }
            Err(error) => refuse(&error),
        }
    }

    /// Does something as this user, on a thread of its own: so the system itself says what it may do, whatever its permissions come from.
    fn as_it<T: Send>(&self, what: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("access".to_owned()).spawn_scoped(scope, || {
                self.become_it()?;
                Ok(what())
            })?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("it could not be tried out")))
        })
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

/// Whether it is root's, and no link.
fn is_roots_own(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.uid() == 0 && !metadata.is_symlink())
}

/// Whether a data directory holds nothing but what the broker has put there.
fn is_ours_alone(data_dir: &Path, folder: &str) -> io::Result<bool> {
    for entry in fs::read_dir(data_dir)? {
        let name = entry?.file_name();
        if name != folder && name != RUNNING {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether what is root's in a data directory has been given to the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Given {
    Before,
    After,
}

/// What keeps somebody from a store.
struct Obstacle {
    path: PathBuf,
    /// It is a folder on the way there, which cannot be entered; else it cannot be written to.
    is_way: bool,
}

/// The first thing that keeps this thread from the store in a data directory, as far as that is there.
///
/// `is_given`: the data directory itself goes to the user yet.
fn obstacle(data_dir: &Path, is_given: bool, folder: &str, when: Given) -> Option<Obstacle> {
    let is_to_come = |path: &Path| when == Given::Before && is_roots_own(path);
    let way = |path: &Path| Some(Obstacle { path: path.to_owned(), is_way: true });
    let absolute = std::path::absolute(data_dir).ok()?;
    // From the root on, so that it is the first one that is named.
    let mut above: Vec<&Path> = absolute.ancestors().skip(1).collect();
    above.reverse();
    for parent in above {
        match access(parent, Access::EXEC_OK) {
            Ok(()) => {}
            Err(Errno::NOENT) => return None,
            Err(_) => return way(parent),
        }
    }
    let store = absolute.join(folder);
    match access(&absolute, Access::EXEC_OK) {
        Ok(()) => {}
        Err(Errno::NOENT) => return None,
        // What it holds cannot be seen from here.
        Err(_) if is_given => return None,
        Err(_) => return way(&absolute),
    }
    let all = Access::READ_OK | Access::WRITE_OK;
    match access(&store, all | Access::EXEC_OK) {
        Ok(()) => {}
        Err(Errno::NOENT) => return None,
        Err(_) if is_to_come(&store) => return None,
        Err(_) => return Some(Obstacle { path: store, is_way: false }),
    }
    // What somebody else has put there is nobody's business.
    let is_of_store = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name == LOCK || name.to_str().is_some_and(import::is_of_store)
    };
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let files = fs::read_dir(&store).ok()?.flatten().filter(|entry| is_file(entry) && is_of_store(entry));
    let closed = |path: &PathBuf| access(path, all).is_err() && !is_to_come(path);
    files.map(|file| file.path()).find(closed).map(|path| Obstacle { path, is_way: false })
}

/// Whether it is a socket of root's that has one name.
fn is_given(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket && stat.st_uid == 0 && stat.st_nlink == 1
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

    /// It stayed root's, so that nobody of the broker's own user and group could connect.
    #[test]
    fn a_socket_goes_to_the_user_and_nothing_else_does() {
        use std::os::unix::fs::symlink;
        use std::os::unix::net::UnixListener;
        if !is_root() {
            return;
        }
        let user = User::find("other", "other:x:4321:4322::/:/bin/false\n", "").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let owner = |name: &str| {
            let stat = fs::symlink_metadata(path(name)).unwrap();
            (stat.uid(), stat.gid())
        };
        let _listeners = ["socket", "victim", "linked"].map(|name| UnixListener::bind(path(name)).unwrap());
        fs::write(path("file"), "").unwrap();
        symlink(path("victim"), path("soft")).unwrap();
        fs::hard_link(path("linked"), path("hard")).unwrap();
        for name in ["socket", "soft", "hard", "file"] {
            user.give_socket(&path(name)).unwrap();
        }
        assert_eq!(owner("socket"), (4321, 4322));
        for name in ["victim", "soft", "linked", "file"] {
            assert_eq!(owner(name).0, 0, "{name}");
        }
    }

    /// The folder is another's after the first start, who could lead root elsewhere at the next one.
    #[test]
    fn links_do_not_give_away_what_is_elsewhere() {
        use std::os::unix::fs::symlink;
        if !is_root() {
            // Nobody else can give anything away.
            return;
        }
        let users = "other:x:4321:4321::/:/bin/false\n";
        let user = User::find("other", users, "").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let owner = |name: &str| fs::symlink_metadata(path(name)).unwrap().uid();
        for name in ["elsewhere", "data", "data/store", "data/store/inner"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["elsewhere/victim", "elsewhere/other", "data/store/segment"] {
            fs::write(path(name), "").unwrap();
        }
        symlink(path("elsewhere/victim"), path("data/store/soft")).unwrap();
        fs::hard_link(path("elsewhere/other"), path("data/store/hard")).unwrap();
        user.give_folder(&path("data"), "store").unwrap();
        for (name, expected) in [
            ("data", 4321),
            ("data/store", 4321),
            ("data/store/segment", 4321),
            ("data/store/inner", 0),
            ("data/store/soft", 0),
            ("elsewhere/victim", 0),
            ("elsewhere/other", 0),
        ] {
            assert_eq!(owner(name), expected, "{name}");
        }
        fs::rename(path("data/store"), path("data/old")).unwrap();
        symlink(path("elsewhere"), path("data/store")).unwrap();
        let error = user.give_folder(&path("data"), "store").unwrap_err().to_string();
        assert!(error.contains("data/store is no folder of its own"), "{error}");
        assert_eq!((owner("elsewhere"), owner("elsewhere/victim")), (0, 0));
    }

    /// The store died at its first write, as the folder could be opened by nobody but root, who had opened it.
    #[test]
    fn what_keeps_the_user_from_the_store_is_found() {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        if !is_root() {
            return;
        }
        let user = User::find("other", "other:x:4321:4321::/:/bin/false\n", "").unwrap();
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let set = |name: &str, mode: u32| fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        let said = |when| user.can_keep("other", &path("way/data"), "store", when).err();
        set("", 0o700);
        // The parent is root's alone, whether anything is in it or not.
        for _ in 0..2 {
            let said = said(Given::Before).expect("an obstacle");
            let expected = format!(
                "data as user other: it may not enter {0}; --data-dir names another place, or `chmod o+x {0}`",
                parent.path().display()
            );
            assert!(said.contains(&expected), "{said}");
            fs::create_dir_all(path("way/data/store")).unwrap();
        }
        set("", 0o755);
        set("way", 0o700);
        assert!(said(Given::Before).unwrap().contains("/way; --data-dir"));
        set("way", 0o711);
        for name in ["way/data", "way/data/store"] {
            set(name, 0o700);
        }
        fs::write(path("way/data/store/lock"), "").unwrap();
        // They will be given.
        assert_eq!(said(Given::Before), None);
        assert!(said(Given::After).unwrap().contains("it may not enter"));
        // With something else in it the data directory is not given.
        fs::write(path("way/data/other"), "").unwrap();
        assert!(said(Given::Before).unwrap().contains("/way/data; --data-dir"));
        set("way/data", 0o711);
        assert_eq!(said(Given::Before), None);
        assert!(said(Given::After).unwrap().contains("it may not write to"));
        user.give_folder(&path("way/data"), "store").unwrap();
        assert_eq!(said(Given::After), None);
        // Somebody else's is nobody's to give.
        chown(path("way/data/store/lock"), Some(99), Some(99)).unwrap();
        set("way/data/store/lock", 0o600);
        let said = said(Given::Before).expect("an obstacle");
        assert!(said.contains("it may not write to ") && said.contains("/lock` gives it"), "{said}");
        assert!(is_root());
    }
}
