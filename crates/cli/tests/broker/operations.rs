//! What an operator sees and says: `$SYS`, logs, signals, pid file, user, the service manager, guardrails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::{Client, V5, V311, acknowledgement, connect, publish, taken_apart};
use crate::process::{Broker, Folder, PATIENCE, free_port, wait_for};

/// Subscribes to what may come before SUBACK does; what has come until that is given back.
fn observe(client: &mut Client, filter: &str) -> BTreeMap<String, (String, bool)> {
    client.send(&crate::client::subscribe(client.level, 1, filter, 0));
    let mut told = BTreeMap::new();
    take(client, &mut told);
    told
}

/// What has come to a subscriber at QoS 0 when it has been answered a PINGREQ, by Topic Name, with RETAIN.
fn take(client: &mut Client, into: &mut BTreeMap<String, (String, bool)>) {
    for packet in client.ping() {
        put(client.level, &packet, into);
    }
}

/// The next packet only.
fn take_one(client: &mut Client, into: &mut BTreeMap<String, (String, bool)>) {
    put(client.level, &client.packet(), into);
}

fn put(level: u8, packet: &[u8], into: &mut BTreeMap<String, (String, bool)>) {
    if packet[0] >> 4 == 3 {
        let (_, _, payload) = taken_apart(level, packet);
        // The Topic Name stands in front, behind two bytes of its length.
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let header = if packet[1] & 0x80 == 0 { 4 } else { 5 };
        let topic_name = text(&packet[header..packet.len() - payload.len()]);
        into.insert(topic_name, (text(payload), packet[0] & 1 == 1));
    }
}

fn value<'a>(told: &'a BTreeMap<String, (String, bool)>, name: &str) -> Option<&'a str> {
    told.get(&format!("$SYS/broker/{name}")).map(|(payload, _)| &**payload)
}

#[test]
fn sys_is_retained_and_tells_what_changes() {
    let mut broker = Broker::start("[broker]\nworkers = 2\nsys_interval_seconds = 1\n");
    let mut client = Client::connect(broker.address(), V311, "observer");
    let mut told = observe(&mut client, "$SYS/#");
    // What is retained comes in any order, amid what is new.
    wait_for("all that is told", || {
        take(&mut client, &mut told);
        let names = ["version", "uptime", "heap/current", "pantala/store/state", "pantala/store/durability"];
        let counters = ["pantala/workers", "pantala/counters/wills_published", "pantala/counters/key_sets_fetched"];
        names.iter().chain(&counters).all(|name| value(&told, name).is_some()).then_some(())
    });
    assert_eq!(value(&told, "version"), Some(concat!("pantala version ", env!("CARGO_PKG_VERSION"))));
    assert!(value(&told, "uptime").unwrap().ends_with(" seconds"), "{told:?}");
    assert_eq!(value(&told, "pantala/store/state"), Some("ok"));
    assert_eq!(value(&told, "pantala/store/durability"), Some("fsync"));
    assert_eq!(value(&told, "pantala/workers"), Some("2"));
    let heap: u64 = value(&told, "heap/current").unwrap().parse().unwrap();
    assert!(heap > 1 << 20, "{heap}");
    let mut late = Client::connect(broker.address(), V311, "late");
    let mut retained = observe(&mut late, "$SYS/broker/version");
    wait_for("what is retained", || {
        take(&mut late, &mut retained);
        value(&retained, "version").map(drop)
    });
    assert!(retained.values().all(|(_, retain)| *retain), "{retained:?}");
    drop(late);
    // Nobody is named there.
    let mut publisher = Client::connect(broker.address(), V311, "a-name-to-look-for");
    publisher.subscribe("a/topic/to/look/for", 1);
    publisher.send(&publish(V311, "a/topic/to/look/for", 1, 1, b"12345"));
    publisher.expect(&publish(V311, "a/topic/to/look/for", 1, 1, b"12345"));
    publisher.expect(&acknowledgement(0x40, 1));
    let expected = [
        ("clients/connected", "2"),
        ("clients/total", "2"),
        ("subscriptions/count", "2"),
        ("publish/messages/received", "1"),
        ("publish/bytes/received", "5"),
        ("connections/socket/count", "2"),
        ("pantala/listeners/0/connections", "2"),
        ("pantala/inflight/messages", "1"),
    ];
    // Sockets count the one that looked whether the broker listens.
    wait_for("what has changed", || {
        take(&mut client, &mut told);
        let is = |(name, wanted): &(&str, &str)| match *name {
            "connections/socket/count" => value(&told, name).is_some_and(|count| count.parse::<u32>().unwrap() >= 2),
            _ => value(&told, name) == Some(wanted),
        };
        expected.iter().all(is).then_some(())
    });
    for (topic_name, (payload, _)) in &told {
        assert!(
            !topic_name.contains("look") && !payload.contains("look") && !payload.contains("127.0.0.1"),
            "{topic_name}"
        );
    }
    // No PUBLISH of a client, and none on the disk.
    assert_eq!(broker.counter("publish_received"), 1);
    broker.signal(Signal::TERM);
    broker.wait();
    let store = broker.folder.path("home/.local/state/pantala");
    let check =
        Command::new(env!("CARGO_BIN_EXE_pantala")).args(["store", "dump"]).arg("--data-dir").arg(&store).output();
    let dump = String::from_utf8(check.unwrap().stdout).unwrap();
    assert!(!dump.contains("$SYS"), "{dump}");
}

#[test]
fn without_an_interval_there_is_no_sys() {
    let broker = Broker::start("[broker]\nsys_interval_seconds = 0\n[limits]\nmemory_bytes_max = 0\n");
    let mut client = Client::connect(broker.address(), V311, "observer");
    let told = observe(&mut client, "$SYS/#");
    assert_eq!(told, BTreeMap::new());
}

#[test]
fn lines_of_the_log_are_messages_where_that_is_wanted() {
    let broker =
        Broker::start("[log]\ndestinations = [\"stderr\", \"topic\"]\ntypes = [\"all\"]\ntimestamp = \"off\"\n");
    let mut client = Client::connect(broker.address(), V311, "observer");
    let mut told = observe(&mut client, "$SYS/broker/log/#");
    let mut other = Client::connect(broker.address(), V311, "newcomer");
    other.subscribe("some/+", 1);
    let (mut connected, mut subscribed) = (false, false);
    wait_for("both lines", || {
        connected |= value(&told, "log/N").is_some_and(|line| {
            line.starts_with("New client connected from 127.0.0.1:") && line.contains(" as newcomer ")
        });
        subscribed |= value(&told, "log/M/subscribe") == Some("newcomer 1 some/+");
        if connected && subscribed {
            return Some(());
        }
        // One packet at a time, so that no line is hidden by a later one of its kind.
        take_one(&mut client, &mut told);
        None
    });
    assert!(told.values().all(|(_, retain)| !retain), "{told:?}");
    broker.wait_for_log("newcomer 1 some/+");
    broker.wait_for_log("Received SUBSCRIBE from newcomer (13 bytes).");
}

#[test]
fn what_a_reload_wants_in_the_log_is_there() {
    let broker = Broker::start("");
    let file = broker.folder.path("pantala.toml");
    let before = fs::read_to_string(&file).unwrap();
    let mut client = Client::connect(broker.address(), V311, "observer");
    let mut told = observe(&mut client, "$SYS/broker/log/#");
    let mut other = Client::connect(broker.address(), V311, "newcomer");
    other.subscribe("not/told", 1);
    let log = "[broker]\nsys_interval_seconds = 1\n[log]\ndestinations = [\"stderr\", \"topic\"]\ntypes = [\"all\"]\n";
    fs::write(&file, format!("{log}{before}")).unwrap();
    broker.signal(Signal::HUP);
    broker.wait_for_log("broker.sys_interval_seconds: 10 -> 1 (live)");
    wait_for("workers that know of it", || {
        other.subscribe("told", 1);
        broker.log().contains("newcomer 1 told").then_some(())
    });
    wait_for("a line as a message", || {
        take_one(&mut client, &mut told);
        value(&told, "log/M/subscribe").filter(|line| line.contains("newcomer 1 told")).map(drop)
    });
    assert!(!broker.log().contains("not/told"));
}

#[test]
fn a_log_file_is_opened_anew_on_a_signal_and_subscriptions_are_dumped_on_another() {
    let broker = Broker::start("[log]\nfile = \"lines\"\n");
    let mut client = Client::connect(broker.address(), V311, "subscriber");
    client.subscribe("where/messages/go", 1);
    broker.signal(Signal::USR2);
    broker.wait_for_log("subscriber where/messages/go");
    let [file, old] = ["lines", "lines.1"].map(|name| broker.folder.path(name));
    fs::rename(&file, &old).unwrap();
    broker.reopen();
    wait_for("a new file", || fs::read_to_string(&file).ok().filter(|text| text.contains("opened anew")));
    assert!(fs::read_to_string(&old).unwrap().contains("where/messages/go"));
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o027, 0);
}

#[test]
fn the_pid_file_is_there_while_the_broker_listens() {
    let mut broker = Broker::start("[broker]\npid_file = \"pid\"\n");
    let path = broker.folder.path("pid");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.trim().parse::<u32>().unwrap(), broker.id());
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    assert!(!path.exists());

    let folder = Folder::new();
    let victim = folder.write("victim", "precious");
    symlink(&victim, folder.path("pid")).unwrap();
    let port = free_port();
    let file = folder.write("b.conf", &format!("pid_file pid\nlistener {port} 127.0.0.1\n"));
    let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    assert_eq!(broker.wait().code(), Some(1));
    assert!(broker.log().contains("cannot write the pid file pid: "), "{}", broker.log());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn started_as_root_it_becomes_the_user_it_is_told_to() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else may become somebody else.
        return;
    }
    let nobody = fs::read_to_string("/etc/passwd").unwrap();
    let line = nobody.lines().find(|line| line.starts_with("nobody:")).expect("a user nobody").to_owned();
    let uid: u32 = line.split(':').nth(2).unwrap().parse().unwrap();
    // Not in the home of root, where nobody else gets to.
    let data = std::env::temp_dir().join(format!("pantala-user-{}", std::process::id()));
    let config = format!(
        "[broker]\nuser = \"nobody\"\ndata_dir = \"{0}/made\"\nworkers = 2\n[log]\nfile = \"{0}/lines\"\n\
         [[security]]\nacl_file = \"{0}/rules\"\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n\
         [[listener]]\nunix_path = \"{0}/socket\"\n",
        data.display()
    );
    fs::create_dir_all(&data).unwrap();
    // For root's eyes only: it is read before.
    fs::write(data.join("rules"), "topic readwrite kept\n").unwrap();
    fs::set_permissions(data.join("rules"), fs::Permissions::from_mode(0o600)).unwrap();
    for start in 0..2 {
        let folder = Folder::new();
        let file = folder.write("pantala.toml", &config);
        let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
        broker.wait_for_log("Try it");
        // Its permissions are for its user and group, so it has to be theirs.
        assert_eq!(fs::symlink_metadata(data.join("socket")).unwrap().uid(), uid);
        let tasks = format!("/proc/{}/task", broker.id());
        let mut count = 0;
        for task in fs::read_dir(tasks).unwrap() {
            let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
            assert!(line("Uid:").split_whitespace().all(|id| id.parse::<u32>().unwrap() == uid), "{status}");
            assert!(!line("Groups:").split_whitespace().any(|group| group == "0"), "{status}");
            assert_eq!(line("CapEff:").trim(), "0000000000000000");
            count += 1;
        }
        assert!(count >= 4, "{count} threads");
        let mut client = Client::connect(broker.address(), V311, "keeper");
        let mut packet = publish(V311, "kept", 1, 1, b"value");
        packet[0] |= 1;
        if start == 0 {
            client.send(&packet);
            client.expect(&acknowledgement(0x40, 1));
        } else {
            client.send(&crate::client::subscribe(V311, 1, "kept", 0));
            client.expect(&[0x90, 3, 0, 1, 0]);
            let mut retained = publish(V311, "kept", 0, 0, b"value");
            retained[0] |= 1;
            client.expect(&retained);
        }
        // A reload is the other user's, who may not read them.
        broker.signal(Signal::HUP);
        let log = broker.wait_for_log("SIGHUP: nothing has changed");
        assert!(log.contains("Permission denied") && !log.contains("running-configuration"), "{log}");
        broker.signal(Signal::TERM);
        assert_eq!(broker.wait().code(), Some(0));
        for entry in fs::read_dir(data.join("made/store")).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().uid(), uid);
        }
        for name in ["made", "lines"] {
            assert_eq!(fs::metadata(data.join(name)).unwrap().uid(), uid);
        }
        // What was there before, or lies beside it, is nobody else's.
        assert_eq!(fs::metadata(&data).unwrap().uid(), 0);
    }
    fs::remove_dir_all(&data).unwrap();

    let mut broker = Broker::with_arguments(Folder::new(), &["-p", &free_port().to_string(), "--durability", "memory"]);
    broker.wait_for_log("running as root");
    broker.signal(Signal::TERM);
    broker.wait();
    let folder = Folder::new();
    let file = folder.write("b.conf", &format!("user no-such-user\nlistener {} 127.0.0.1\n", free_port()));
    let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    assert_eq!(broker.wait().code(), Some(1));
    assert!(broker.log().contains("cannot become user no-such-user"), "{}", broker.log());
}

/// The store died at its first write, as the user could not get to the data directory, and nobody had been told before.
#[test]
fn a_data_directory_that_the_user_cannot_get_to_ends_the_start() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else may become somebody else.
        return;
    }
    let folder = Folder::new();
    let home = folder.path("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    let text = format!("[broker]\nuser = \"nobody\"\n[[listener]]\nhost = \"127.0.0.1\"\nport = {}\n", free_port());
    folder.write("a.toml", &text);
    let expected = format!(
        "as user nobody: it may not enter {0}; --data-dir names another place, or `chmod o+x {0}` lets it in",
        home.display()
    );
    for (arguments, status) in [(&["-c", "a.toml", "--check"][..], 3), (&["-c", "a.toml"], 1)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pantala"));
        command.arg("broker").args(arguments).env_clear().env("HOME", &home).current_dir(folder.path("."));
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{error}");
        assert!(error.contains(&expected), "{error}");
    }
    // Nothing is made that is of no use.
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0);

    // What lies between is made for everybody to go through.
    let file = folder.write("b.toml", &format!("[broker]\ndata_dir = \"made/by/us\"\n{}", &text["[broker]\n".len()..]));
    let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    let mut client = Client::connect(broker.address(), V311, "a");
    let mut packet = publish(V311, "kept", 1, 1, b"value");
    packet[0] |= 1;
    client.send(&packet);
    client.expect(&acknowledgement(0x40, 1));
    let mode = |name: &str| fs::metadata(broker.folder.path(name)).unwrap().mode() & 0o777;
    assert_eq!(["made", "made/by", "made/by/us", "made/by/us/store"].map(mode), [0o755, 0o755, 0o700, 0o700]);
    assert_eq!(fs::metadata(broker.folder.path("made/by")).unwrap().uid(), 0);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.log());
}

/// Who met the failing disk with a CONNECT was not answered until its Keep Alive was over.
#[test]
fn a_connect_that_meets_the_failing_disk_is_answered() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let text =
        "[broker]\nuser = \"nobody\"\ndata_dir = \"data\"\nworkers = 2\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n";
    folder.write("a.toml", text);
    let broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    let address = broker.address();
    // From now on no file can be made there.
    std::os::unix::fs::chown(broker.folder.path("data/store"), Some(0), Some(0)).unwrap();
    for client_id in ["first", "second"] {
        let mut client = Client::open(address);
        // With a Session Expiry Interval of 100 s, and without Clean Start.
        let properties = [5, 0x11, 0, 0, 0, 100];
        let body = [&b"\0\x04MQTT\x05\0\0\0"[..], &properties, &crate::client::text(client_id)].concat();
        client.send(&crate::client::packet(0x10, &body));
        let answer = client.packet();
        assert_eq!((answer[0], answer[3]), (0x20, 0x88), "{answer:02x?}");
        client.expect_closed();
    }
    broker.wait_for_log("The disk has failed (Permission denied");
    Client::connect(address, V5, "passing").ping();
}

/// They stayed behind without a word.
#[test]
fn what_the_user_cannot_remove_at_the_end_is_said() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    let text = "[broker]\nuser = \"nobody\"\ndurability = \"memory\"\npid_file = \"pid\"\n[[listener]]\nunix_path = \"socket\"\n";
    folder.write("a.toml", text);
    let mut broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    broker.wait_for_log("Durability: ");
    assert_eq!(fs::read_to_string(broker.folder.path("pid")).unwrap().trim(), broker.id().to_string());
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    let log = broker.log();
    for line in
        ["the pid file pid stays behind, without a number: Permission denied", "socket stays behind: Permission denied"]
    {
        assert!(log.contains(line), "it does not say \"{line}\": {log}");
    }
    assert_eq!(fs::read_to_string(broker.folder.path("pid")).unwrap(), "");
    // Neither is in the way of the next start.
    let folder = std::mem::replace(&mut broker.folder, Folder::new());
    let mut broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    broker.wait_for_log("Durability: ");
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn the_service_manager_is_told() {
    let folder = Folder::new();
    let path = folder.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap().trim().to_owned()
    };
    let port = free_port();
    let arguments = ["-p".to_owned(), port.to_string(), "--durability".to_owned(), "memory".to_owned()];
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let mut broker = Broker::with_environment(folder, &arguments, &environment);
    let mut heard = vec![hear(), hear(), hear()];
    heard.sort_unstable();
    assert!(heard.contains(&"READY=1".to_owned()) && heard.contains(&"WATCHDOG=1".to_owned()), "{heard:?}");
    Client::connect(([127, 0, 0, 1], port).into(), V5, "served");
    broker.signal(Signal::HUP);
    // With the time of its beginning, by which the manager tells one from another.
    let reloading = wait_for("word of a reload", || Some(hear()).filter(|word| word.starts_with("RELOADING=1")));
    assert!(reloading.lines().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading}");
    while hear() != "READY=1" {}
    broker.signal(Signal::TERM);
    while hear() != "STOPPING=1" {}
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn in_the_background_it_goes_on_once_it_listens() {
    let folder = Folder::new();
    let port = free_port();
    let conf = format!("listener {port} 127.0.0.1\nallow_anonymous true\npid_file pid\nlog_dest file lines\n");
    let file = folder.write("b.conf", &conf);
    let link = folder.path("mosquitto");
    symlink(env!("CARGO_BIN_EXE_pantala"), &link).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&link);
        command.args(arguments).current_dir(folder.path(".")).stdin(Stdio::null()).output().unwrap()
    };
    let output = run(&["-d", "-c", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let pid: i32 = fs::read_to_string(folder.path("pid")).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    // It has a session of its own, and nothing of ours.
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);
    Client::connect(([127, 0, 0, 1], port).into(), V5, "served");
    // A second one says on the terminal why not, and ends with the status of the one in the background.
    let output = run(&["-d", "-c", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use"), "{output:?}");
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    wait_for("its end", || (!folder.path("pid").exists()).then_some(()));
}

#[test]
fn under_the_name_of_mosquitto_it_has_its_options_and_status() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("mosquitto");
    symlink(env!("CARGO_BIN_EXE_pantala"), &link).unwrap();
    for arguments in [&["-h"][..], &["--no-such-flag"], &["-c", "/nonexistent"], &["-p", "abc"]] {
        let output = Command::new(&link).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {output:?}");
    }
    let help = Command::new(&link).arg("-h").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for option in ["Usage: mosquitto", "--config", "--port", "--verbose", "--quiet", "--daemon", "--tls-keylog"] {
        assert!(help.contains(option), "{option} is not in {help}");
    }
}

/// A listener whose clients are where a PROXY header says. It is in front of the one that every broker here has.
const PROXIED: &str =
    "[[listener]]\nhost = \"127.0.0.1\"\nport = 0\nproxy_protocol = \"v1\"\nproxy_trusted = [\"127.0.0.1\"]\n";

/// What a proxy says of a client at this address.
fn header(address: &str) -> Vec<u8> {
    format!("PROXY TCP4 {address} 10.0.0.1 49152 1883\r\n").into_bytes()
}

#[test]
fn one_address_has_so_many_connections() {
    let mut broker =
        Broker::start(&format!("[broker]\nworkers = 1\n[limits]\nconnections_per_address_max = 2\n{PROXIED}"));
    let proxy = broker.address();
    let from = |address: &str, name: &str| let_in(proxy, &header(address), name);
    let one = from("203.0.113.1", "one").unwrap();
    let _two = from("203.0.113.1", "two").unwrap();
    assert!(from("203.0.113.1", "three").is_none());
    broker.wait_for_log("Connection from 203.0.113.1:49152 closed: connections_per_address_max is 2.");
    assert_eq!(broker.counter("connections_refused_address"), 1);
    // Another address has its own, and this machine none.
    let _other = from("203.0.113.2", "other").unwrap();
    let local: Vec<_> = (0..4).map(|number| from("127.0.0.1", &format!("local-{number}")).unwrap()).collect();
    let address = broker.listening_on()[1].parse().unwrap();
    let direct: Vec<_> = (0..4).map(|number| let_in(address, b"", &format!("direct-{number}")).unwrap()).collect();
    drop(one);
    let _four = wait_for("a place again", || from("203.0.113.1", "four"));
    // Whoever has said where it is and no more is counted as well.
    let mut silent = [0, 1].map(|_| Client::open(proxy));
    silent.iter_mut().for_each(|client| client.send(&header("203.0.113.3")));
    assert!(from("203.0.113.3", "five").is_none());
    silent[0].let_in(V311, "late");
    // A reload makes room for one more, and no more.
    let file = broker.folder.path("pantala.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("max = 2", "max = 3")).unwrap();
    broker.signal(Signal::HUP);
    broker.wait_for_log("limits.connections_per_address_max: 2 -> 3 (live)");
    let _six = wait_for("a new place", || from("203.0.113.1", "six"));
    assert!(from("203.0.113.1", "seven").is_none());
    broker.wait_for_log("connections_per_address_max is 3.");
    drop((local, direct));
    broker.check();
}

/// A client that is let in; None if its connection is closed without a word.
fn let_in(address: std::net::SocketAddr, before: &[u8], name: &str) -> Option<Client> {
    let mut client = Client::open(address);
    client.try_send(&[before, &connect(V311, name)].concat()).ok()?;
    match client.next() {
        crate::client::Next::Packet(packet) => {
            assert_eq!(packet, [0x20, 2, 0, 0]);
            Some(client)
        }
        crate::client::Next::Closed => None,
    }
}

/// The limit that holds where nothing is said would need a thousand connections in a second, whatever the machine does besides;
/// that it holds then is in the list of all keys and what they are by default.
#[test]
fn a_flood_of_connections_is_refused() {
    let mut broker = Broker::start(&format!("[limits]\nconnections_per_address_per_second_max = 20\n{PROXIED}"));
    let proxy = broker.address();
    // They are all there when the broker goes on, however slow the machine is.
    broker.signal(Signal::STOP);
    for _ in 0..500 {
        Client::open(proxy).send(&header("203.0.113.1"));
    }
    broker.signal(Signal::CONT);
    // The log has a line of it, however many it has of those that were let in and lost.
    broker.wait_for_log("Connection from 203.0.113.1:49152 closed: connections_per_address_per_second_max is 20.");
    assert!(broker.counter("connections_refused_address") >= 1);
    // Others are not.
    assert!(let_in(proxy, &header("203.0.113.2"), "other").is_some());
    broker.check();
}

#[test]
fn a_client_that_is_too_fast_waits_and_is_named() {
    for (toml, said) in [
        (format!("[limits]\nmessages_per_second_max = 20\n{PROXIED}"), "messages_per_second_max is 20"),
        (format!("{PROXIED}messages_per_second_max = 20\n"), "messages_per_second_max of the listener is 20"),
    ] {
        a_hasty_client_waits(&toml, said);
    }
}

fn a_hasty_client_waits(toml: &str, said: &str) {
    let mut broker = Broker::start(toml);
    let mut client = Client::open(broker.address());
    client.send(&header("203.0.113.1"));
    client.let_in(V311, "hasty");
    client.subscribe("t", 0);
    let send = |client: &mut Client| {
        let begun = std::time::Instant::now();
        for number in 0..50_u8 {
            client.send(&publish(V311, "t", 0, 0, &[number]));
            // One by one, so that no read brings them all.
            client.expect(&publish(V311, "t", 0, 0, &[number]));
        }
        begun.elapsed()
    };
    // A second's worth at once, and the others at twenty a second.
    let taken = send(&mut client);
    assert!(taken >= std::time::Duration::from_millis(1_400), "{taken:?}");
    broker.wait_for_log(&format!("Client hasty sends too fast and is read later: {said}."));
    let paused = broker.counter("reads_paused");
    assert!(paused >= 1);
    drop(client);
    // Nobody on this machine is held up.
    let mut local = Client::connect(broker.listening_on()[1].parse().unwrap(), V311, "local");
    local.subscribe("t", 0);
    send(&mut local);
    assert_eq!(broker.counter("reads_paused"), paused);
}

#[test]
fn short_of_memory_nobody_new_is_let_in() {
    let broker = Broker::start("[limits]\nmemory_bytes_max = 1\n[broker]\nsys_interval_seconds = 0\n");
    broker.wait_for_log(
        "Warning: memory_bytes_max (memory_limit of a mosquitto.conf) is 1 bytes, but the broker itself has ",
    );
    broker.wait_for_log("Short of memory: ");
    let mut client = Client::open(broker.address());
    client.send(&connect(V311, "newcomer"));
    client.expect(&[0x20, 2, 0, 3]);
    client.expect_closed();
    assert!(broker.counter("connects_memory_short") >= 1);
}

/// Packets by their names, each once, in whatever pieces sockets take them, and what is large too.
#[test]
fn the_log_tells_of_packets_both_ways_where_that_is_asked_for() {
    let broker = Broker::start(
        "[log]\ntypes = [\"notice\", \"information\", \"debug\"]\n[limits]\npacket_bytes_max = 8000000\n",
    );
    let mut client = Client::connect(broker.address(), V5, "both");
    client.subscribe("t", 1);
    client.send(&publish(V5, "t", 1, 7, &[b'x'; 3_000_000]));
    let large = publish(V5, "t", 1, 1, &[b'x'; 3_000_000]);
    // Whatever comes first.
    let packets = [client.packet(), client.packet()];
    assert!(packets.iter().any(|packet| packet.len() == large.len()), "no message came");
    client.send(&[0x40, 2, 0, 1]);
    client.send(&[0xc0, 0]);
    client.expect(&[0xd0, 0]);
    let log = broker.wait_for_log("Sent PINGRESP to both (2 bytes).");
    for (line, count) in [
        ("Received PINGREQ from both (2 bytes).\n", 1),
        ("Sent CONNACK to both (", 1),
        ("Sent SUBACK to both (", 1),
        ("Sent PUBACK to both (", 1),
        (&format!("Sent PUBLISH to both ({} bytes).\n", large.len()), 1),
        ("Sent ", 5),
    ] {
        assert_eq!(log.matches(line).count(), count, "{line}: {log}");
    }
    // Where it is not asked for any more, nothing is.
    let file = broker.folder.path("pantala.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(", \"debug\"", "")).unwrap();
    broker.signal(Signal::HUP);
    broker.wait_for_log("log.types: ");
    client.ping();
    let before = broker.log();
    client.ping();
    assert_eq!(broker.log(), before);
}

/// Who is gone before CONNECT is named by the address that it came from, though its socket knows none any more.
#[test]
fn who_is_lost_before_connect_is_named() {
    let broker = Broker::start("");
    let mut stream = std::net::TcpStream::connect(broker.address()).unwrap();
    let local = stream.local_addr().unwrap();
    std::io::Write::write_all(&mut stream, &[0x10]).unwrap();
    wait_for("the first byte", || (broker.counter("bytes_received") == 1).then_some(()));
    // Closed with nothing to wait for, it is reset.
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    broker.wait_for_log(&format!("Connection from {local} closed: connection lost."));
}

/// Both limits of memory and the rhythm of `$SYS` are those of the configuration read last.
#[test]
fn a_reload_changes_the_limit_of_memory_and_how_often_sys_is_told() {
    let broker = Broker::start("[broker]\nsys_interval_seconds = 0\n");
    let file = broker.folder.path("pantala.toml");
    let reload = |from: &str, to: &str, expected: &str| {
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace(from, to)).unwrap();
        broker.signal(Signal::HUP);
        broker.wait_for_log(expected);
    };
    let mut client = Client::connect(broker.address(), V311, "observer");
    let mut told = observe(&mut client, "$SYS/broker/uptime");
    reload("seconds = 0", "seconds = 1", "broker.sys_interval_seconds: 0 -> 1 (live)");
    wait_for("what $SYS tells", || {
        take_one(&mut client, &mut told);
        value(&told, "uptime").filter(|uptime| !uptime.is_empty()).map(drop)
    });
    // Where it is not told any more nothing stale is left.
    reload("seconds = 1", "seconds = 0", "broker.sys_interval_seconds: 1 -> 0 (live)");
    wait_for("the end of it", || {
        take_one(&mut client, &mut told);
        value(&told, "uptime").filter(|uptime| uptime.is_empty()).map(drop)
    });
    reload("[broker]", "[limits]\nmemory_bytes_max = 1\n[broker]", "limits.memory_bytes_max: auto -> 1 (live)");
    broker.wait_for_log("Short of memory: ");
    let mut refused = Client::open(broker.address());
    refused.send(&connect(V311, "newcomer"));
    refused.expect(&[0x20, 2, 0, 3]);
    refused.expect_closed();
    reload("max = 1\n", "max = 0\n", "limits.memory_bytes_max: 1 -> 0 (live)");
    broker.wait_for_log("There is memory again: there is no limit any more.");
    wait_for("room for a newcomer", || let_in(broker.address(), b"", "newcomer"));
}

#[test]
fn the_systems_log_gets_lines_without_being_waited_for() {
    // There may be none on this machine: then nothing is different.
    let mut broker = Broker::start("[log]\ndestinations = [\"stderr\", \"syslog\"]\nfacility = \"local3\"\n");
    Client::connect(broker.address(), V311, "served").finish();
    broker.check();
}
