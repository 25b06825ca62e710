//! SIGHUP: the configuration read again while clients are connected, all of it or nothing.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::client::{Client, V5, publish};
use crate::process::{Broker, Folder, free_port, wait_for};

/// The longest that a broker may take to end.
const STOP_DURATION_MAX: Duration = Duration::from_secs(5);
const QUOTA_EXCEEDED: u8 = 0x97;

/// A broker whose file can be written anew.
struct Subject {
    broker: Broker,
    name: &'static str,
    /// Of the listener that it always has.
    port: u16,
}

impl Subject {
    fn start(name: &'static str, text: &str) -> Self {
        Self::start_with(name, text, free_port())
    }

    fn start_with(name: &'static str, text: &str, port: u16) -> Self {
        let folder = Folder::new();
        folder.write(name, &Self::text(name, text, port));
        let broker = Broker::with_arguments(folder, &["-c", name]);
        broker.wait_for_log("Try it");
        Self { broker, name, port }
    }

    fn text(name: &str, text: &str, port: u16) -> String {
        match name.ends_with(".toml") {
            true => format!("{text}\n[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\n"),
            false => format!("{text}\nlistener {port} 127.0.0.1\nallow_anonymous true\n"),
        }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Writes the file, in one step as editors do.
    fn write(&self, text: &str) {
        let new = self.broker.folder.write("new", &Self::text(self.name, text, self.port));
        fs::rename(new, self.broker.folder.path(self.name)).unwrap();
    }

    /// What it says to a reload.
    fn reload(&self, text: &str) -> String {
        self.write(text);
        let before = self.broker.log().len();
        self.broker.signal(Signal::HUP);
        wait_for("the end of a reload", || {
            let log = self.broker.log()[before..].to_owned();
            let announced = log.split_once("read again, ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            let told = match announced {
                Some(changes) => log.lines().filter(|line| line.contains(":   ")).count() >= changes,
                None => log.contains("nothing has changed"),
            };
            told.then_some(log)
        })
    }
}

/// A connection that gets an answer to a message of so many bytes: 0 where it was taken.
fn answer(client: &mut Client, packet_id: u16, payload: usize) -> u8 {
    client.send(&publish(V5, "t", 1, packet_id, &vec![b'x'; payload]));
    let answer = client.packet();
    assert_eq!(answer[0], 0x40, "{answer:02x?}");
    answer.get(4).copied().unwrap_or(0)
}

#[test]
fn limits_change_for_clients_that_are_connected_and_the_log_says_what_changed() {
    let subject = Subject::start("a.toml", "[limits]\npayload_bytes_max = 10\n");
    let mut client = Client::connect(subject.address(), V5, "a");
    assert_eq!(answer(&mut client, 1, 11), QUOTA_EXCEEDED);
    let log = subject.reload("[broker]\nworkers = 7\n[limits]\npayload_bytes_max = 100\nconnections_max = 1\n");
    for line in [
        "  broker.workers: auto -> 7 (needs a restart)\n",
        "  limits.payload_bytes_max: 10 -> 100 (live)\n",
        "  limits.connections_max: unlimited -> 1 (live)\n",
    ] {
        assert!(log.contains(line), "it does not say \"{line}\": {log}");
    }
    assert_ne!(answer(&mut client, 2, 11), QUOTA_EXCEEDED);
    let mut second = Client::open(subject.address());
    second.send(&crate::client::connect(V5, "b"));
    assert_eq!(second.packet()[3], QUOTA_EXCEEDED);
    // What needs a restart is said again, as it still differs; the rest is not.
    let log = subject.reload("[broker]\nworkers = 7\n[limits]\npayload_bytes_max = 100\nconnections_max = 1\n");
    assert!(log.contains("broker.workers: auto -> 7 (needs a restart)") && !log.contains("limits."), "{log}");
    let log = subject.reload("[limits]\npayload_bytes_max = 100\nconnections_max = 1\n");
    assert!(log.contains("nothing has changed"), "{log}");
    client.ping();
}

/// A pipe that nobody wrote to held up the reload, and then the end of the broker, which only SIGKILL brought about.
#[test]
fn a_pipe_is_no_file_to_be_read_again() {
    for name in ["users", "rules", "a.conf"] {
        let text = "password_file users\nacl_file rules\n";
        let folder = Folder::new();
        folder.write("users", "");
        folder.write("rules", "topic #\n");
        let port = free_port();
        folder.write("a.conf", &format!("{text}listener {port} 127.0.0.1\nallow_anonymous true\n"));
        let mut broker = Broker::with_arguments(folder, &["-c", "a.conf"]);
        broker.wait_for_log("Try it");
        let path = broker.folder.path(name);
        fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        broker.signal(Signal::HUP);
        let log = broker.wait_for_log("SIGHUP: nothing has changed");
        assert!(log.contains(&format!("{name}: ")) && log.contains("it is a pipe, not a regular file"), "{log}");
        Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), V5, "a").ping();
        broker.signal(Signal::TERM);
        assert_eq!(broker.wait_at_most(STOP_DURATION_MAX).code(), Some(0), "{}", broker.log());
    }
}

/// Shells give such ones: `-c <(sops decrypt a.yaml)`.
#[test]
fn a_configuration_may_come_through_a_pipe_at_the_start() {
    let folder = Folder::new();
    let path = folder.path("a.conf");
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let port = free_port();
    let broker = Broker::with_arguments(folder, &["-c", "a.conf"]);
    fs::write(&path, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).unwrap();
    Client::connect(broker.address(), V5, "a").ping();
    broker.signal(Signal::HUP);
    broker.wait_for_log("a.conf: cannot be read: it is a pipe, not a regular file");
}

#[test]
fn a_broken_file_changes_nothing_and_is_one_line() {
    for (name, good, broken, place) in [
        (
            "a.toml",
            "[limits]\npayload_bytes_max = 10\n",
            "[limits]\npayload_bytes_max = 1\nnonsense = 1\n",
            "a.toml:3:1: ",
        ),
        ("a.conf", "message_size_limit 10\n", "message_size_limit 1\nnonsense 1\n", "a.conf:2: "),
    ] {
        let subject = Subject::start(name, good);
        let mut client = Client::connect(subject.address(), V5, "a");
        let log = subject.reload(broken);
        assert!(log.contains(place) && log.contains("nonsense"), "{log}");
        assert_eq!(log.lines().filter(|line| !line.contains("client connected")).count(), 1, "{log}");
        assert_ne!(answer(&mut client, 1, 10), QUOTA_EXCEEDED);
        // Nor does a file that is gone.
        fs::remove_file(subject.broker.folder.path(name)).unwrap();
        subject.broker.signal(Signal::HUP);
        subject.broker.wait_for_log(&format!("{name}: cannot be read"));
        assert_ne!(answer(&mut client, 2, 10), QUOTA_EXCEEDED);
        let more = good.replace("10", "5");
        let log = subject.reload(&more);
        assert!(log.contains("limits.payload_bytes_max: 10 -> 5 (live)"), "{log}");
        assert_eq!(answer(&mut client, 3, 10), QUOTA_EXCEEDED);
    }
}

#[test]
fn listeners_come_and_go_and_their_connections_stay() {
    let subject = Subject::start("a.toml", "[broker]\nworkers = 2\n");
    let socket = subject.broker.folder.path("s.sock");
    let other = free_port();
    let more = format!(
        "[broker]\nworkers = 2\n[[listener]]\nhost = \"127.0.0.1\"\nport = {other}\n[[listener]]\nunix_path = \"{}\"\n",
        socket.display()
    );
    let log = subject.reload(&more);
    assert!(log.contains(&format!("listener 127.0.0.1:{other}: added (live)")), "{log}");
    assert!(log.contains("s.sock: added (live)"), "{log}");
    let other = SocketAddr::from((Ipv4Addr::LOCALHOST, other));
    // Several, so that both workers have some.
    let mut clients: Vec<Client> = (0..8).map(|number| Client::connect(other, V5, &format!("c{number}"))).collect();
    let mut unix = Client::open_unix(&socket);
    unix.let_in(V5, "unix");

    let log = subject.reload("[broker]\nworkers = 2\n");
    assert!(log.contains(&format!("listener {other}: removed (live)")), "{log}");
    wait_for("a closed port", || TcpStream::connect(other).is_err().then_some(()));
    assert!(!socket.exists());
    for client in &mut clients {
        client.ping();
    }
    unix.ping();
    Client::connect(subject.address(), V5, "first").ping();

    // The same address again, and no anonymous clients there.
    let closed = more
        .replace(&format!("port = {}\n", other.port()), &format!("port = {}\nallow_anonymous = false\n", other.port()));
    subject.reload(&closed);
    let mut refused = Client::open(other);
    refused.send(&crate::client::connect(V5, "stranger"));
    assert_eq!(refused.packet()[3], 0x87);
    // Nor do those stay who have come by it before.
    for client in &mut clients {
        let farewell = client.packet();
        assert_eq!((farewell[0], farewell[2]), (0xe0, 0x87), "{farewell:02x?}");
    }
    unix.ping();
    let log = subject.reload(&more);
    assert!(log.contains(&format!("listener {other} allow_anonymous: false -> true (live)")), "{log}");
    Client::connect(other, V5, "stranger").ping();
}

#[test]
fn a_listener_that_cannot_be_opened_leaves_all_as_it_was() {
    let taken = Broker::start("");
    let subject = Subject::start("a.toml", "[broker]\ndurability = \"memory\"\n");
    let text = format!(
        "[broker]\ndurability = \"memory\"\n[limits]\nconnections_max = 1\n[[listener]]\nhost = \"127.0.0.1\"\nport = {}\n[[listener]]\nhost = \"127.0.0.1\"\nport = {}\n",
        free_port(),
        taken.address().port()
    );
    let descriptors = subject.broker.descriptors();
    let log = subject.reload(&text);
    assert!(log.contains("it is in use"), "{log}");
    let mut both = [Client::connect(subject.address(), V5, "a"), Client::connect(subject.address(), V5, "b")];
    for client in &mut both {
        client.ping();
    }
    drop(both);
    wait_for("what the reload had opened to be closed", || (subject.broker.descriptors() <= descriptors).then_some(()));
}

#[test]
fn the_log_goes_on_in_a_file_that_is_opened_anew() {
    let file = |types: &str| format!("[log]\nfile = \"broker.log\"\ntypes = [{types}]\n");
    let subject = Subject::start("a.toml", &file("\"notice\""));
    let (path, old) = (subject.broker.folder.path("broker.log"), subject.broker.folder.path("broker.log.1"));
    Client::connect(subject.address(), V5, "before");
    wait_for("a line in the file", || fs::read_to_string(&path).unwrap().contains("as before").then_some(()));
    fs::rename(&path, &old).unwrap();
    subject.reload(&file("\"notice\""));
    Client::connect(subject.address(), V5, "after");
    wait_for("a line in the new file", || fs::read_to_string(&path).ok()?.contains("as after").then_some(()));
    assert!(!fs::read_to_string(&old).unwrap().contains("as after"));
    // Lines that are not wanted any more do not come; one that is there later shows that they would have.
    let subject_types = file("\"error\", \"warning\"");
    subject.write(&subject_types);
    subject.broker.signal(Signal::HUP);
    wait_for("a log without notices", || {
        let before = fs::read_to_string(&path).unwrap().len();
        Client::connect(subject.address(), V5, "unseen");
        let mut client = Client::connect(subject.address(), V5, "seen");
        client.ping();
        (fs::read_to_string(&path).unwrap().len() == before).then_some(())
    });
}

#[test]
fn a_thousand_reloads_leave_nothing_behind() {
    let good = ["[limits]\npayload_bytes_max = 10\n", "[limits]\npayload_bytes_max = 11\n"];
    let subject = Subject::start("a.toml", &format!("{}[log]\nconnection_messages = false\n", good[0]));
    let mut client = Client::connect(subject.address(), V5, "a");
    // The first ones may fill what is filled once.
    subject.reload(good[1]);
    subject.reload(good[0]);
    client.ping();
    let (descriptors, memory) = (subject.broker.descriptors_but_files(), subject.broker.peak_bytes());
    for round in 0..1_000 {
        let log_before = subject.broker.log().len();
        match round % 4 {
            0 => subject.write("[limits\n"),
            1 => subject.write(good[1]),
            2 => subject.write("[limits]\nnonsense = 1\n"),
            _ => subject.write(good[0]),
        }
        subject.broker.signal(Signal::HUP);
        // The lines of one cause are limited; those of changes are not, and wait for all signals before.
        if round % 2 == 1 {
            wait_for("a change", || subject.broker.log()[log_before..].contains("payload_bytes_max").then_some(()));
        }
    }
    subject.reload(good[1]);
    assert_ne!(answer(&mut client, 1, 11), QUOTA_EXCEEDED);
    assert_eq!(subject.broker.descriptors_but_files(), descriptors);
    let grown = subject.broker.peak_bytes().saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes more");
}

/// Rules had changed, and the log said that nothing had.
#[test]
fn a_reload_names_the_files_that_are_read_again_with_it() {
    let folder = Folder::new();
    folder.write("acl", "topic read a\n");
    let config = format!("listener {} 127.0.0.1\nallow_anonymous true\nacl_file acl\n", free_port());
    let config = folder.write("a.conf", &config);
    let broker = Broker::with_arguments(folder, &["-c".as_ref(), config.as_os_str()]);
    broker.wait_for_log("Try it");
    broker.folder.write("acl", "topic read b\n");
    broker.signal(Signal::HUP);
    let said = "SIGHUP: configuration read again, nothing has changed in it. What it names was read again, too: acl.";
    broker.wait_for_log(said);
}

#[test]
fn a_reload_without_descriptors_changes_nothing() {
    let broker = Broker::start_limited("[broker]\nworkers = 1\ndurability = \"memory\"\n", Some(64));
    let address = broker.address();
    let mut client = Client::connect(address, V5, "a");
    let many: Vec<Client> = (0..100).map(|_| Client::open(address)).collect();
    broker.wait_for_log("Cannot accept a connection");
    broker.signal(Signal::HUP);
    broker.wait_for_log("SIGHUP: nothing has changed");
    client.ping();
    drop(many);
    wait_for("descriptors", || (broker.descriptors() < 40).then_some(()));
    broker.signal(Signal::HUP);
    broker.wait_for_log("read again, nothing has changed");
    client.ping();
}

#[test]
fn a_storm_of_signals_disturbs_nobody_and_the_end_comes_in_time() {
    let mut subject = Subject::start("a.toml", "[limits]\npayload_bytes_max = 1000\n");
    let mut client = Client::connect(subject.address(), V5, "a");
    for round in 1..=200_u16 {
        subject.write(&format!("[limits]\npayload_bytes_max = {}\n", 1_000 + round));
        for _ in 0..20 {
            subject.broker.signal(Signal::HUP);
            subject.broker.signal(if round % 2 == 0 { Signal::USR1 } else { Signal::HUP });
        }
        assert_ne!(answer(&mut client, round, 100), QUOTA_EXCEEDED);
    }
    subject.broker.wait_for_log(&format!("-> {} (live)", 1_200));
    for _ in 0..100 {
        subject.broker.signal(Signal::HUP);
    }
    subject.broker.signal(Signal::TERM);
    for _ in 0..100 {
        // It may have ended, and has not been waited for.
        subject.broker.signal(Signal::HUP);
    }
    let status = subject.broker.wait_at_most(STOP_DURATION_MAX);
    assert_eq!(status.code(), Some(0), "{}", subject.broker.log());
}

#[test]
fn what_is_in_force_is_in_a_file_for_its_owner_while_it_runs() {
    let mut subject = Subject::start(
        "a.toml",
        "[limits]\npayload_bytes_max = 10\n[[scram_user]]\nname = \"ann\"\npassword = \"hidden-word\"\n",
    );
    let path = subject.broker.folder.path("home/.local/state/pantala/running-configuration");
    let text = wait_for("the file", || fs::read_to_string(&path).ok());
    assert!(text.contains("limits.payload_bytes_max\t10\n") && text.contains("scram_user ann\t"), "{text}");
    assert!(!text.contains("hidden-word"), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    subject.reload("[limits]\npayload_bytes_max = 12\n");
    wait_for("the new file", || {
        fs::read_to_string(&path).ok()?.contains("limits.payload_bytes_max\t12\n").then_some(())
    });
    subject.broker.signal(Signal::TERM);
    assert_eq!(subject.broker.wait().code(), Some(0));
    assert!(!path.exists());
}

/// Users are part of the reload: a file of theirs that cannot be used leaves the limits as they were too.
#[test]
fn a_broken_password_file_leaves_all_as_it_was() {
    let text = |limit: u32| {
        format!("[limits]\npayload_bytes_max = {limit}\n[[security]]\nname = \"default\"\npassword_file = \"users\"\n")
    };
    let folder = Folder::new();
    let port = free_port();
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_pantala"))
        .args(["passwd", "-b", "-c", "users", "ann", "secret"])
        .current_dir(folder.path("."))
        .status();
    assert!(made.unwrap().success());
    folder.write("a.toml", &Subject::text("a.toml", &text(10), port));
    let broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    broker.wait_for_log("Try it");
    let subject = Subject { broker, name: "a.toml", port };
    let mut client = Client::connect(subject.address(), V5, "a");
    let users = fs::read(subject.broker.folder.path("users")).unwrap();
    subject.broker.folder.write("users", "ann:$9$nonsense\n");
    let log = subject.reload(&text(5));
    assert!(log.contains("SIGHUP: nothing has changed") && log.contains("users"), "{log}");
    assert_ne!(answer(&mut client, 1, 10), QUOTA_EXCEEDED);
    fs::write(subject.broker.folder.path("users"), users).unwrap();
    let log = subject.reload(&text(5));
    assert!(log.contains("limits.payload_bytes_max: 10 -> 5 (live)"), "{log}");
    assert_eq!(answer(&mut client, 2, 10), QUOTA_EXCEEDED);
}
