//! Password files that go from one program to the other.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pantala_password::File;

use crate::programs;

const PATIENCE: Duration = Duration::from_secs(20);

fn passwd(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pantala"))
        .arg("passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that asks for nothing may be gone already.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

#[track_caller]
fn done(output: &Output) {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

fn verifies(file: &Path, user: &str, password: &str) -> bool {
    let file = File::parse(&fs::read_to_string(file).unwrap()).unwrap();
    file.hash(user).is_some_and(|hash| hash.verify(password.as_bytes()))
}

#[test]
fn users_are_added_changed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = path.to_str().unwrap();
    // It has to be there, but for -c.
    assert_eq!(passwd(&["-b", file, "a", "x"], "").status.code(), Some(1));
    done(&passwd(&["-c", "-b", file, "a", "x"], ""));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    assert!(fs::read_to_string(&path).unwrap().starts_with("a:$argon2id$v=19$m=47104,t=1,p=1$"));
    done(&passwd(&["-H", "sha512-pbkdf2", "-I", "5", file, "b"], "secret\nsecret\n"));
    assert!(fs::read_to_string(&path).unwrap().contains("\nb:$7$5$"));
    assert!(verifies(&path, "a", "x") && verifies(&path, "b", "secret"));
    done(&passwd(&["-b", file, "a", ""], ""));
    assert!(verifies(&path, "a", "") && !verifies(&path, "a", "x"));
    done(&passwd(&["-D", file, "a"], ""));
    assert!(!verifies(&path, "a", "") && verifies(&path, "b", "secret"));
    assert_eq!(passwd(&["-D", file, "a"], "").status.code(), Some(1));
    done(&passwd(&["-b", "-c", file, "c", "x"], ""));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    // Nothing is left behind.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn mode_and_links_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&path, "# comment\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    done(&passwd(&["-b", "-H", "sha512-pbkdf2", link.to_str().unwrap(), "a", "x"], ""));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    assert!(fs::read_to_string(&path).unwrap().starts_with("# comment\na:$7$1000$"));
}

#[test]
fn plain_text_is_hashed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, "a:x:y\nb:z\n").unwrap();
    done(&passwd(&["-U", "-H", "sha512-pbkdf2", path.to_str().unwrap()], ""));
    assert!(verifies(&path, "a", "x:y") && verifies(&path, "b", "z"));
    let before = fs::read(&path).unwrap();
    assert_eq!(passwd(&["-U", path.to_str().unwrap()], "").status.code(), Some(1));
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// Lines that were hashed already were hashed again, and nobody could log in any more.
#[test]
fn a_file_that_is_hashed_in_part_is_hashed_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = path.to_str().unwrap();
    done(&passwd(&["-c", "-b", "-H", "sha512-pbkdf2", file, "a", "x"], ""));
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{before}# by hand\nb:z\n")).unwrap();
    done(&passwd(&["-U", "-H", "sha512-pbkdf2", file], ""));
    assert!(verifies(&path, "a", "x") && verifies(&path, "b", "z"));
    assert!(fs::read_to_string(&path).unwrap().starts_with(&format!("{before}# by hand\nb:$7$")));
    // An empty password is nobody's intent.
    fs::write(&path, "a:x\nb:\n").unwrap();
    let output = passwd(&["-U", file], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the password of line 2 is empty"), "{output:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a:x\nb:\n");
}

/// Each run read the file, hashed, and replaced what others had written meanwhile: of eight users one was left.
#[test]
fn runs_at_the_same_time_lose_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = path.to_str().unwrap();
    fs::write(&path, "").unwrap();
    std::thread::scope(|scope| {
        for user in 0..12 {
            scope.spawn(move || done(&passwd(&["-b", "-H", "sha512-pbkdf2", file, &format!("u{user}"), "x"], "")));
        }
    });
    let file = File::parse(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut users: Vec<_> = file.users().collect();
    users.sort_unstable();
    assert_eq!(users.len(), 12, "{users:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_wrong_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = path.to_str().unwrap();
    done(&passwd(&["-c", "-b", "-H", "sha512-pbkdf2", file, "a", "x"], ""));
    let before = fs::read(&path).unwrap();
    for (arguments, input, status, error) in [
        (&[file, "a"][..], "one\ntwo\n", 2, "Error: the passwords do not match."),
        (&[file, "a"], "\n\n", 1, "Error: the password is empty"),
        (&[file, "a"], "", 1, "Error: the password cannot be read: unexpected end of file."),
        (&["-b", file, "a:b", "x"], "", 1, "Error: \"a:b\": a user name has no ':', no control character"),
        (&["-b", file, "", "x"], "", 1, "Error: \"\": a user name"),
        (&["-H", "sha512", file, "a"], "", 1, "Error: -H sha512 is only read, since it can be guessed too fast"),
        (&["-H", "md5", "-b", file, "a", "x"], "", 1, "Error: invalid value 'md5' for '-H <HASH>'"),
        (&["-I", "0", "-b", file, "a", "x"], "", 1, "Error: invalid value '0' for '-I <N>'"),
        (&["-c", "-D", file, "a"], "", 1, "Error: the argument '-c' cannot be used with '-D'"),
        (&["-b", file, "a"], "", 1, "Error: the following required arguments were not provided: <PASSWORD>"),
        (&[file], "", 1, "Error: the following required arguments were not provided: <USER>"),
        (&["-b", "-", "a", "x"], "", 1, "Error: - is for -c only, as standard output"),
    ] {
        let output = passwd(arguments, input);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with(error), "{arguments:?}: {stderr}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    fs::write(&path, "a:b\n").unwrap();
    let output = passwd(&["-b", file, "a", "x"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1: not a hash of a kind we know"));
}

#[test]
fn standard_output_can_be_the_file() {
    let output = passwd(&["-c", "-b", "-H", "sha512-pbkdf2", "-", "a", "x"], "");
    done(&output);
    let file = File::parse(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    assert!(file.hash("a").is_some_and(|hash| hash.verify(b"x")));
}

#[test]
fn files_of_mosquitto_passwd_are_read_and_changed() {
    let name = "files_of_mosquitto_passwd_are_read_and_changed";
    let Some([program]) = programs::find(name, ["mosquitto_passwd"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = path.to_str().unwrap();
    for arguments in
        [&["-c", "-b", file, "a", "secret"][..], &["-b", file, "ü b", "pass:word $"], &["-b", file, "e", ""]]
    {
        assert!(Command::new(&program).args(arguments).status().unwrap().success());
    }
    assert!(verifies(&path, "a", "secret") && verifies(&path, "ü b", "pass:word $") && verifies(&path, "e", ""));
    assert!(!verifies(&path, "a", "Secret"));
    done(&passwd(&["-H", "sha512-pbkdf2", "-b", file, "a", "new"], ""));
    assert!(Command::new(&program).args(["-b", file, "d", "x"]).status().unwrap().success());
    assert!(verifies(&path, "a", "new") && verifies(&path, "d", "x"));
}

/// Ends with the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn mosquitto_takes_our_files() {
    let Some([broker, client]) = programs::find("mosquitto_takes_our_files", ["mosquitto", "mosquitto_pub"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    done(&passwd(&["-c", "-b", "-H", "sha512-pbkdf2", path.to_str().unwrap(), "kitchen", "sécret"], ""));
    // The broker gives up root, and has to read it then.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let configuration = folder.path().join("mosquitto.conf");
    let text = format!("listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\n", path.display());
    fs::write(&configuration, text).unwrap();
    let broker = Command::new(broker).arg("-c").arg(&configuration).stderr(Stdio::null()).spawn().unwrap();
    let _guard = Guard(broker);
    let publish = |password: &str| {
        let arguments = ["-h", "127.0.0.1", "-t", "a", "-m", "b", "-q", "1", "-u", "kitchen", "-P", password, "-p"];
        Command::new(&client).args(arguments).arg(port.to_string()).output().unwrap().status.code()
    };
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < deadline, "the broker does not listen");
        std::thread::yield_now();
    }
    assert_eq!(publish("sécret"), Some(0));
    assert_ne!(publish("secret"), Some(0));
}
