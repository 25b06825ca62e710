//! `pantala broker --check` and `pantala config`: what a configuration comes to, without serving anybody.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::process::{Broker, Folder, free_port};

fn pantala(folder: &Folder, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pantala"));
    command.args(arguments).env_clear().env("HOME", folder.path("home")).current_dir(folder.path("."));
    command.output().unwrap()
}

/// The status, what is on standard output, and what on standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_check_says_who_may_connect_and_what_is_kept_and_opens_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = Folder::new();
    let text = format!(
        "[limits]\nreceive_maximum = 7\n[[listener]]\nport = {port}\n[[listener]]\nport = 0\nhost = \"127.0.0.1\"\nconnections_max = 5\n\
         [[scram_user]]\nname = \"ann\"\npassword = \"hidden-word\"\n"
    );
    folder.write("a.toml", &text);
    let (status, out, error) = said(&pantala(&folder, &["broker", "-c", "a.toml", "--check", "-p", "1999"]));
    assert_eq!((status, error.as_str()), (Some(0), ""), "{out}");
    for line in [
        &format!("Listener *:{port}: users by SCRAM-SHA-256.\n"),
        "Listener 127.0.0.1:0: anybody, and users by SCRAM-SHA-256, 5 at a time.\n",
        "Listener 127.0.0.1:1999: anybody, and users by SCRAM-SHA-256.\n",
        "Durability: fsync. What is acknowledged survives a power cut; data is in ",
        "  limits.receive_maximum = 7 (default 20)\n",
        "  scram_user ann\n",
        "The broker can start with this.\n",
    ] {
        assert!(out.contains(line), "it does not say \"{line}\": {out}");
    }
    assert!(!out.contains("hidden-word"), "{out}");
    assert!(!folder.path("home").exists(), "a check makes no directories");

    // Whether plain text is served beside TLS, and what no listener is for.
    for (key, how) in [("", "with TLS"), ("allow_plain_text = true\n", "with and without TLS")] {
        let listener =
            "[[listener]]\nport = 0\nhost = \"::1\"\nprotocol = \"any\"\ntls_certificate_files = [\"none\"]\n";
        let domain = "[[security]]\nname = \"plant\"\npassword_file = \"none\"\n";
        folder.write("b.toml", &format!("{listener}{key}{domain}"));
        let (_, out, _) = said(&pantala(&folder, &["broker", "-c", "b.toml", "--check"]));
        assert!(out.contains(&format!("Listener [::1]:0: anybody, {how}.\n")), "{out}");
        assert!(out.contains(": no listener has security = \"plant\": the users and rules of this "), "{out}");
    }

    // Mosquitto's name of it, and a file of Mosquitto's with a warning.
    folder.write("a.conf", "listener 1883\nautosave_interval 10\n");
    let (status, out, _) = said(&pantala(&folder, &["broker", "-c", "a.conf", "--test-config"]));
    assert_eq!(status, Some(0));
    let nobody = "Listener *:1883: nobody: anonymous clients are refused, and there are no users.\n";
    assert!(out.contains(nobody) && out.contains("Warning: a.conf:2: "), "{out}");
}

#[test]
fn a_check_finds_what_would_not_work() {
    let folder = Folder::new();
    folder.write("file", "");
    let long = "[[scram_user]]\nname = \"ann\"\npassword_file = \"nowhere\"\n";
    let root = rustix::process::geteuid().is_root();
    let locked = folder.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    for (text, problem, as_root) in [
        ("[limits]\nnonsense = 1\n", "a.toml:2:1: unknown key \"nonsense\"", true),
        (long, "nowhere cannot be read", true),
        ("[broker]\ndata_dir = \"file/data\"\n", "cannot keep data in file/data: file is no directory", true),
        ("[broker]\ndata_dir = \"locked/data\"\n", "cannot keep data in locked/data: ", false),
        ("[log]\nfile = \"nowhere/log\"\n", "cannot open the log file nowhere/log: ", true),
        ("[log]\nfile = \"locked/log\"\n", "cannot open the log file locked/log: ", false),
        ("[[listener]]\nunix_path = \"file\"\n", "cannot listen on unix:file: there is something else", true),
        ("[[listener]]\nunix_path = \"nowhere/s\"\n", "cannot listen on unix:nowhere/s: ", true),
        ("[[listener]]\nhost = \"host.invalid\"\n", "cannot listen on host.invalid:1883: ", true),
        // Both of them, not the first alone.
        ("[log]\nfile = \"nowhere/log\"\n[[listener]]\nunix_path = \"file\"\n", "cannot listen on unix:file", true),
    ] {
        if root && !as_root {
            continue;
        }
        folder.write("a.toml", text);
        let (status, out, error) = said(&pantala(&folder, &["broker", "-c", "a.toml", "--check"]));
        assert_eq!(status, Some(3), "{text}{out}");
        assert!(error.contains(problem), "{text} does not say \"{problem}\": {error}");
        assert!(!out.contains("The broker can start"), "{out}");
    }
}

/// A check found them sound, and the start ended when it came to the second one, without a place.
#[test]
fn listeners_that_cannot_be_beside_each_other_are_a_mistake_in_the_configuration() {
    let port = free_port();
    for second in ["127.0.0.1", "localhost", "::ffff:127.0.0.1"] {
        let folder = Folder::new();
        folder.write("a.conf", &format!("listener {port} 127.0.0.1\n\nlistener {port} {second}\n"));
        folder.write("b.conf", &format!("listener {port}\n\nlistener {port} {second}\n"));
        for name in ["a.conf", "b.conf"] {
            let expected = format!("pantala: {name}:3: a listener on ");
            let (status, out, error) = said(&pantala(&folder, &["broker", "-c", name, "--check"]));
            assert!(status == Some(3) && error.starts_with(&expected), "{second}: {out}{error}");
            let (status, _, at_start) = said(&pantala(&folder, &["broker", "-c", name]));
            assert_eq!((status, at_start.lines().last()), (Some(3), error.lines().last()), "{at_start}");
        }
    }
    // By its own address a listener of IPv4 is one, whatever it is written like.
    let folder = Folder::new();
    folder.write("a.toml", "[[listener]]\nhost = \"::ffff:127.0.0.1\"\nport = 0\n");
    let broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    assert!(broker.address().is_ipv4());
}

#[test]
fn a_check_compares_with_a_broker_that_runs() {
    let port = free_port();
    let text = |limit: &str, more: &str| {
        format!(
            "[limits]\n{limit}\n[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\n{more}\n[[scram_user]]\nname = \"ann\"\npassword = \"x\"\n"
        )
    };
    let folder = Folder::new();
    folder.write("a.toml", &text("receive_maximum = 7", ""));
    let mut broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    broker.wait_for_log("Try it");
    let pid = broker.id().to_string();
    let data = "home/.local/state/pantala";
    let diff =
        |name: &str, target: &str| said(&pantala(&broker.folder, &["broker", "-c", name, "--check", "--diff", target]));
    let (status, out, error) = diff("a.toml", data);
    assert_eq!(status, Some(0), "{error}");
    assert!(out.contains(&format!("A reload would change nothing in process {pid}.\n")), "{out}");

    let more = "allow_anonymous = false\n[[listener]]\nunix_path = \"a b.sock\"";
    let other = format!("[broker]\nworkers = 3\n{}", text("receive_maximum = 9", more));
    broker.folder.write("b.toml", &other);
    for target in [data, pid.as_str()] {
        let (status, out, error) = diff("b.toml", target);
        assert_eq!(status, Some(0), "{error}");
        let changes = out.split_once(&format!("A reload would change in process {pid}:\n")).expect(&out).1;
        let expected = format!(
            "  broker.workers: auto -> 3 (needs a restart)\n  limits.receive_maximum: 7 -> 9 (live)\n  \
             listener 127.0.0.1:{port} allow_anonymous: true -> false (live)\n  listener unix:a b.sock: added (live)\n"
        );
        assert_eq!(changes, expected);
    }
    // After a reload that is what is in force, but for what needs a restart.
    fs::rename(broker.folder.path("b.toml"), broker.folder.path("a.toml")).unwrap();
    broker.signal(Signal::HUP);
    broker.wait_for_log("a b.sock: added");
    let changes = crate::process::wait_for("the file of what is in force", || {
        let (_, out, _) = diff("a.toml", data);
        out.split_once(&format!("in process {pid}:\n"))
            .map(|(_, changes)| changes.to_owned())
            .filter(|it| it.lines().count() == 1)
    });
    assert_eq!(changes, "  broker.workers: auto -> 3 (needs a restart)\n");

    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
    for target in [data, pid.as_str()] {
        let (status, _, error) =
            said(&pantala(&broker.folder, &["broker", "-c", "a.toml", "--check", "--diff", target]));
        assert_eq!(status, Some(3), "{error}");
        assert!(error.contains("no broker runs") || error.contains("neither in the data directory"), "{error}");
    }
}

#[test]
fn the_schema_and_the_reference_are_printed() {
    let folder = Folder::new();
    let (status, out, _) = said(&pantala(&folder, &["config", "schema"]));
    assert_eq!(status, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(schema["properties"]["limits"]["properties"]["receive_maximum"]["maximum"], 65_535);
    let (status, out, _) = said(&pantala(&folder, &["config", "reference"]));
    assert_eq!(status, Some(0));
    assert!(out.contains("PANTALA__LISTENER__N__PORT"), "{out}");
}

/// Numbers at their bounds: it starts and serves, or says why not.
#[test]
fn every_number_at_0_1_and_its_largest_starts_or_says_why_not() {
    let folder = Folder::new();
    let (_, schema, _) = said(&pantala(&folder, &["config", "schema"]));
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let mut started = 0;
    for (section, keys) in schema["properties"].as_object().unwrap() {
        let list = keys["type"] == "array";
        let keys = if list { &keys["items"]["properties"] } else { &keys["properties"] };
        for (key, schema) in keys.as_object().unwrap() {
            let number = schema["anyOf"].get(0).unwrap_or(schema);
            let Some(max) = number.get("maximum").and_then(serde_json::Value::as_u64) else { continue };
            let min = number["minimum"].as_u64().unwrap();
            for value in [0, 1, min, max] {
                let listener = "[[listener]]\nhost = \"127.0.0.1\"\n";
                let text = match (section.as_str(), key.as_str()) {
                    // The port of something else, or none that a user may open, is not the question.
                    ("listener", "port") if value != 0 => continue,
                    ("listener", "port") => format!("{listener}port = 0\n"),
                    ("listener", _) => format!("{listener}port = 0\n{key} = {value}\n"),
                    _ if list => format!("[[{section}]]\n{key} = {value}\n{listener}port = 0\n"),
                    _ => format!("[{section}]\n{key} = {value}\n{listener}port = 0\n"),
                };
                started += usize::from(starts_or_says_why(&text, (min..=max).contains(&value)));
            }
        }
    }
    assert!(started > 60, "{started} brokers have started");
}

/// Whether a broker with this file has started, and then that somebody is let in or refused, and it ends.
fn starts_or_says_why(text: &str, allowed: bool) -> bool {
    let folder = Folder::new();
    let memory = match text.starts_with("[broker]") {
        true => text.replacen("[broker]\n", "[broker]\ndurability = \"memory\"\n", 1),
        false => format!("[broker]\ndurability = \"memory\"\n{text}"),
    };
    folder.write("a.toml", &memory);
    let mut broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    if broker.ends_before_it_listens() {
        let log = broker.log();
        assert!(log.lines().count() == 1 && log.contains("a.toml:"), "{text}: {log}");
        let of_several = log.contains(", above ") || log.contains("[[security]] needs ");
        assert!(!allowed || of_several, "{text}: {log}");
        return false;
    }
    assert!(allowed, "{text}: {}", broker.log());
    let mut client = crate::client::Client::open(broker.address());
    client.send(&crate::client::connect(crate::client::V5, "a"));
    // Whatever it answers, it goes on, and ends when it is told to.
    client.next();
    broker.check();
    drop(client);
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0), "{text}: {}", broker.log());
    true
}

/// The same for the numbers of a mosquitto.conf.
#[test]
fn every_number_of_a_mosquitto_conf_at_0_1_and_its_largest_starts_or_says_why_not() {
    let directives = [
        ("autosave_interval", i64::MAX as u64),
        ("global_max_clients", i32::MAX as u64),
        ("global_max_connections", i32::MAX as u64),
        ("max_connections", i32::MAX as u64),
        ("max_inflight_bytes", i64::MAX as u64),
        ("max_inflight_messages", 65_535),
        ("max_keepalive", 65_535),
        ("max_packet_size", 268_435_460),
        ("max_qos", 2),
        ("max_queued_bytes", i64::MAX as u64),
        ("max_queued_messages", u32::MAX.into()),
        ("max_topic_alias", 65_535),
        ("max_topic_alias_broker", 65_535),
        ("message_size_limit", 268_435_455),
        ("retry_interval", i64::MAX as u64),
        ("sys_interval", 65_535),
    ];
    for (directive, max) in directives {
        for (value, sure) in [(0, false), (1, false), (max, true), (max.saturating_add(1), false)] {
            let folder = Folder::new();
            folder.write(
                "a.conf",
                &format!("listener {} 127.0.0.1\nallow_anonymous true\n{directive} {value}\n", free_port()),
            );
            let mut broker = Broker::with_arguments(folder, &["-c", "a.conf"]);
            if broker.ends_before_it_listens() {
                let log = broker.log();
                assert!(!sure && log.lines().count() == 1 && log.contains("a.conf:3: "), "{directive} {value}: {log}");
                continue;
            }
            let mut client = crate::client::Client::open(broker.address());
            client.send(&crate::client::connect(crate::client::V5, "a"));
            client.next();
            broker.check();
        }
    }
}

#[test]
fn a_mosquitto_conf_is_converted_and_the_broker_starts_with_it() {
    let folder = Folder::new();
    let port = free_port();
    fs::create_dir(folder.path("conf.d")).unwrap();
    folder.write("a.conf", "include_dir conf.d\nautosave_interval 10\nmax_keepalive 60\n");
    folder.write("conf.d/1.conf", &format!("listener {port} 127.0.0.1\nallow_anonymous true\n"));
    let (status, out, error) = said(&pantala(&folder, &["config", "convert", "a.conf"]));
    assert_eq!((status, error.as_str()), (Some(0), ""));
    assert!(out.contains("# - a.conf:2: directive \"autosave_interval\" has no effect"), "{out}");
    assert!(out.contains("keep_alive_max = 60\n") && !out.contains("include_dir"), "{out}");
    let (status, nothing, _) = said(&pantala(&folder, &["config", "convert", "a.conf", "-o", "a.toml"]));
    assert_eq!((status, nothing.as_str()), (Some(0), ""));
    assert_eq!(fs::read_to_string(folder.path("a.toml")).unwrap(), out);
    // What is there already is not written over.
    let (status, _, error) = said(&pantala(&folder, &["config", "convert", "a.conf", "-o", "a.toml"]));
    assert!(status == Some(1) && error.contains("a.toml: "), "{error}");
    for (name, text, said_instead) in [
        (
            "b.conf",
            "listener 1883\nconnection b\naddress a\ntopic #\n",
            "b.conf:2: directive \"connection\" is not supported",
        ),
        ("b.toml", "", "b.toml: it is in our own format already"),
    ] {
        folder.write(name, text);
        let (status, out, error) = said(&pantala(&folder, &["config", "convert", name]));
        assert_eq!((status, out.as_str()), (Some(3), ""), "{error}");
        assert!(error.contains(said_instead), "{error}");
    }
    let mut broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    assert_eq!(broker.listening_on(), [format!("127.0.0.1:{port}")]);
    crate::client::Client::connect(broker.address(), crate::client::V5, "a").ping();
}

/// Only Linux can listen on an interface.
#[cfg(target_os = "linux")]
#[test]
fn a_listener_on_an_interface_takes_who_comes_by_it() {
    for (name, text) in [("a.conf", "listener PORT\nbind_interface lo\n"), ("a.conf", "listener PORT lo\n")] {
        let (folder, port) = (Folder::new(), free_port());
        folder.write(name, &format!("{text}allow_anonymous true\n").replace("PORT", &port.to_string()));
        let mut broker = Broker::with_arguments(folder, &["-c", name]);
        assert!(broker.listening_on()[0].ends_with(&format!(":{port}")), "{}", broker.log());
        for address in ["127.0.0.1", "127.0.0.2"] {
            let address = format!("{address}:{port}").parse().unwrap();
            crate::client::Client::connect(address, crate::client::V5, "a").ping();
        }
    }
    let folder = Folder::new();
    folder.write("a.conf", "listener 1883\nbind_interface nosuch0\n");
    let (status, _, error) = said(&pantala(&folder, &["broker", "-c", "a.conf", "--check"]));
    assert!(status == Some(3) && error.contains("cannot listen on nosuch0:1883"), "{error}");
}
