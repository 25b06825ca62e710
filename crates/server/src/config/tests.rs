//! Whole configurations: what they come to, and what is said about those that are wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use pantala_broker::{DurabilityRule, QueueFull};
use pantala_proto::QoS;
use pantala_store::Durability;
use proptest::prelude::*;

use super::draft::{Draft, FILE_BYTES_MAX};
use super::key::{self, Key, Kind};
use super::*;

/// A directory of this test alone, removed at the end of it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("pantala-config-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a temporary file");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load(name: &str, text: &str, overrides: &Overrides, variables: &[(&str, &str)]) -> Result<Config, String> {
    let environment: Environment = variables.iter().copied().collect();
    let mut draft = Draft::new();
    let path = Path::new(name);
    let read = if name.ends_with(".toml") { toml::read } else { mosquitto::read };
    read(&mut draft, path, text)
        .and_then(|()| environment.apply(&mut draft))
        .and_then(|()| draft.finish(overrides, &environment))
        .map_err(|error| error.to_string())
}

fn of_toml(text: &str) -> Result<Config, String> {
    load("pantala.toml", text, &Overrides::default(), &[])
}

fn of_conf(text: &str) -> Result<Config, String> {
    load("mosquitto.conf", text, &Overrides::default(), &[])
}

fn of_variables(variables: &[(&str, &str)]) -> Result<Config, String> {
    load("pantala.toml", "", &Overrides::default(), variables)
}

fn ports(ports: &[u16]) -> Overrides {
    Overrides { ports: ports.to_vec(), ..Overrides::default() }
}

/// `127.0.0.1:1883+ [::1]:1883+?`: a plus for anonymous, a question mark for one that may fail.
fn listeners(config: &Config) -> String {
    let shown = config.listeners.iter().map(|listener| {
        let anonymous = if listener.settings.allow_anonymous { "+" } else { "" };
        let optional = if listener.optional { "?" } else { "" };
        format!("{}{anonymous}{optional}", listener.address)
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn in_core(config: &Config) -> bool {
    config.listeners.iter().map(|listener| &listener.settings).eq(&config.settings.listeners)
}

#[test]
fn nothing_written_is_loopback_with_the_defaults_of_the_core() {
    let config = Config::load_with(None, &Overrides::default(), &Environment::default()).expect("no file");
    assert_eq!(listeners(&config), "127.0.0.1:1883+ [::1]:1883+?");
    assert_eq!(config.settings, Settings { listeners: config.settings.listeners.clone(), ..Settings::default() });
    assert!(in_core(&config));
    assert_eq!(config.log, LogConfig::default());
    assert_eq!((config.workers, config.durability, config.data_dir.clone()), (None, Durability::Fsync, None));
    assert!(config.warnings.is_empty());
    assert_eq!(of_toml("").as_ref(), Ok(&config));
    assert_eq!(config.describe(), "listener 127.0.0.1:1883, anonymous\nlistener [::1]:1883, anonymous\n");
}

#[test]
fn ports_of_the_command_line() {
    let cases: &[(&str, &str, &[u16], &str)] = &[
        // Nothing written: loopback, on each port named.
        ("f.toml", "", &[], "127.0.0.1:1883+ [::1]:1883+?"),
        ("f.toml", "", &[2000], "127.0.0.1:2000+ [::1]:2000+?"),
        ("f.toml", "", &[2000, 2001, 2000], "127.0.0.1:2000+ [::1]:2000+? 127.0.0.1:2001+ [::1]:2001+?"),
        ("f.toml", "", &[0, 0], "127.0.0.1:0+ [::1]:0+? 127.0.0.1:0+ [::1]:0+?"),
        ("f.conf", "# nothing", &[2000], "127.0.0.1:2000+ [::1]:2000+?"),
        ("f.conf", "allow_anonymous false", &[2000], "127.0.0.1:2000 [::1]:2000?"),
        // A port that is there already is that listener.
        ("f.toml", "[[listener]]\nport = 2000", &[2000], "*:2000"),
        ("f.conf", "listener 2000", &[2000], "*:2000"),
        ("f.conf", "listener 2000\nlistener 2001 127.0.0.1", &[2001, 2000], "*:2000 127.0.0.1:2001"),
        ("f.conf", "port 2000", &[2000], "*:2000"),
        // The listener without a line of its own moves; a second port does not move it again.
        ("f.conf", "max_connections 5", &[2000], "*:2000"),
        ("f.conf", "port 1999", &[2000], "*:2000"),
        ("f.conf", "port 1999", &[2000, 1999], "*:1999 127.0.0.1:2000 [::1]:2000?"),
        ("f.conf", "port 1999", &[2000, 2001], "*:2000 127.0.0.1:2001 [::1]:2001?"),
        // Beside listeners with a line of their own, another port is for this machine alone.
        ("f.conf", "listener 2000", &[2001], "*:2000 127.0.0.1:2001 [::1]:2001?"),
        ("f.conf", "listener 2000\nallow_anonymous true", &[2001], "*:2000+ 127.0.0.1:2001+ [::1]:2001+?"),
        ("f.toml", "[[listener]]\nport = 2000", &[2001], "*:2000 127.0.0.1:2001+ [::1]:2001+?"),
    ];
    for (name, text, given, expected) in cases {
        let config = load(name, text, &ports(given), &[]).expect(text);
        assert_eq!(&listeners(&config), expected, "{name} {text:?} {given:?}");
        assert!(in_core(&config), "{name} {text:?}");
    }
}

#[test]
fn a_toml_with_every_key() {
    let directory = Directory::new();
    let password = directory.write("password", "from a file\n");
    let text = format!(
        r#"
[broker]
workers = 3
sys_interval_seconds = 35
pid_file = "/run/p.pid"
user = "mqtt"
data_dir = "/srv/pantala"
durability = "os"
allow_zero_length_client_id = false
auto_id_prefix = "p-"
response_information_prefix = "reply/"

[limits]
packet_bytes_max = 100_000
connect_packet_bytes_max = 1_000
payload_bytes_max = 5_000
client_id_bytes_max = 23
topic_bytes_max = 300
topic_levels_max = 8
subscriptions_per_session_max = 9
user_properties_per_packet_max = 10
inflight_messages_max = 11
inflight_bytes_max = 12
receive_maximum = 13
queued_messages_max = 14
queued_bytes_max = 0xFF
topic_alias_max = 16
topic_alias_broker_max = 17
outgoing_bytes_max = 1_800
write_stall_seconds = 19
messages_per_second_max = 29
bytes_per_second_max = 30
takeovers_per_second_max = 31
connect_seconds = 20
connections_max = 21
connections_per_address_max = 32
connections_per_address_per_second_max = 33
sessions_max = 22
memory_bytes_max = 34
retained_messages_max = 23
keep_alive_max = 24
session_expiry_max = 25

[delivery]
queue_full = "refuse"
queue_qos0_messages = true
upgrade_outgoing_qos = true
allow_duplicate_messages = true

[features]
maximum_qos = 1
retain_available = false
wildcard_subscription_available = false
shared_subscription_available = false
subscription_identifiers_available = false

[log]
types = ["error", "debug"]
destinations = ["stdout", "syslog", "topic"]
facility = "local7"
file = "/var/log/pantala.log"
timestamp = "%H:%M"
connection_messages = false

[redirect]
server_reference = "other:1883"
permanent = true

[[listener]]
port = 1884
host = "::1"
socket_domain = "ipv6"
allow_anonymous = false
connections_max = 26
maximum_qos = 0
topic_alias_max = 27
topic_alias_broker_max = 28
tcp_no_delay = false

[[listener]]
unix_path = "/run/pantala.sock"

[[durability]]
filter = "telemetry/#"
level = "memory"

[[scram_user]]
name = "ann"
password = "in the open"

[[scram_user]]
name = "bob"
password_file = "{}"
"#,
        password.display()
    );
    let config = of_toml(&text).expect("all keys");
    let Settings { scram_users, redirect, listeners: in_core, .. } = &config.settings;
    assert_eq!(
        config.settings,
        Settings {
            packet_bytes_max: 100_000,
            connect_packet_bytes_max: 1_000,
            payload_bytes_max: 5_000,
            client_id_bytes_max: 23,
            topic_bytes_max: 300,
            topic_levels_max: 8,
            subscriptions_per_session_max: 9,
            user_properties_per_packet_max: 10,
            inflight_messages_max: 11,
            inflight_bytes_max: 12,
            receive_maximum: 13,
            queued_messages_max: 14,
            queued_bytes_max: 255,
            queue_full: QueueFull::Refuse,
            queue_qos0_messages: true,
            upgrade_outgoing_qos: true,
            topic_alias_max: 16,
            topic_alias_broker_max: 17,
            outgoing_bytes_max: 1_800,
            write_stall_seconds: 19,
            messages_per_second_max: key::count(Some(29)),
            bytes_per_second_max: key::count(Some(30)),
            takeovers_per_second_max: key::count(Some(31)),
            connect_seconds: 20,
            connections_max: key::count(Some(21)),
            sessions_max: key::count(Some(22)),
            retained_messages_max: 23,
            keep_alive_max: 24,
            session_expiry_max: Some(25),
            maximum_qos: QoS::AtLeastOnce,
            retain_available: false,
            wildcard_subscription_available: false,
            shared_subscription_available: false,
            subscription_identifiers_available: false,
            allow_zero_length_client_id: false,
            auto_id_prefix: "p-".to_owned(),
            allow_duplicate_messages: true,
            response_information_prefix: Some("reply/".to_owned()),
            redirect: redirect.clone(),
            durability_rules: vec![DurabilityRule { filter: "telemetry/#".to_owned(), level: Durability::Memory }],
            scram_users: scram_users.clone(),
            listeners: in_core.clone(),
        }
    );
    let redirect = redirect.as_ref().expect("a redirect");
    assert_eq!((redirect.server_reference.as_str(), redirect.permanent), ("other:1883", true));
    let users: Vec<_> = scram_users.iter().map(|user| (user.name.as_str(), user.password.as_str())).collect();
    assert_eq!(users, [("ann", "in the open"), ("bob", "from a file")]);
    assert_eq!(
        config.listeners,
        [
            Listener {
                address: ListenAddress::Tcp { host: Some("::1".to_owned()), port: 1884 },
                settings: ListenerSettings {
                    allow_anonymous: false,
                    connections_max: key::count(Some(26)),
                    maximum_qos: QoS::AtMostOnce,
                    topic_alias_max: Some(27),
                    topic_alias_broker_max: Some(28),
                },
                socket_domain: SocketDomain::Ipv6,
                tcp_no_delay: false,
                optional: false,
            },
            Listener {
                address: ListenAddress::Unix("/run/pantala.sock".into()),
                settings: ListenerSettings::default(),
                socket_domain: SocketDomain::Both,
                tcp_no_delay: true,
                optional: false,
            },
        ]
    );
    assert_eq!(
        config.log,
        LogConfig {
            types: LogTypes::NONE.with(LogType::Error).with(LogType::Debug),
            stderr: false,
            stdout: true,
            syslog: true,
            facility: Facility::local(7),
            topic: true,
            file: Some("/var/log/pantala.log".into()),
            timestamp: Timestamp::Pattern("%H:%M".to_owned()),
            connection_messages: false,
        }
    );
    assert_eq!(config.workers.map(NonZeroUsize::get), Some(3));
    assert_eq!((config.sys_interval_seconds, config.memory_bytes_max), (35, Some(34)));
    assert_eq!((config.pid_file.as_deref(), config.user.as_deref()), (Some(Path::new("/run/p.pid")), Some("mqtt")));
    assert_eq!(config.connections_per_address_max, key::count(Some(32)));
    assert_eq!(config.connections_per_address_per_second_max, key::count(Some(33)));
    assert_eq!((config.data_dir.as_deref(), config.durability), (Some(Path::new("/srv/pantala")), Durability::Os));

    // Each key of the tables was among them, so none can be forgotten above.
    for name in all_names() {
        assert!(text.contains(&format!("\n{name} = ")), "{name}");
    }
    // No secret is shown, and everything else that is not the default.
    let described = config.describe();
    assert!(!described.contains("in the open") && !described.contains("from a file"), "{described}");
    assert!(!format!("{config:?}").contains("in the open"));
    for line in [
        "broker.workers = 3 (default auto)\n",
        "broker.data_dir = /srv/pantala\n",
        "limits.packet_bytes_max = 100000 (default 2000000)\n",
        "delivery.queue_full = refuse (default drop_newest)\n",
        "log.types = error,debug (default error,warning,notice,information)\n",
        "redirect.server_reference = other:1883\n",
        "broker.durability = os (default fsync)\n",
        "durability of telemetry/# = memory\n",
        "scram_user ann\nscram_user bob\n",
        "listener [::1]:1884, no anonymous, socket_domain = ipv6, connections_max = 26, maximum_qos = 0, \
         topic_alias_max = 27, topic_alias_broker_max = 28, tcp_no_delay = false\n",
        "listener unix:/run/pantala.sock, anonymous\n",
    ] {
        assert!(described.contains(line), "{line}\n in\n{described}");
    }
}

fn names<Written, Used>(keys: &[Key<Written, Used>]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}

fn all_names() -> BTreeSet<&'static str> {
    let tables = key::SECTIONS.iter().flat_map(|section| names(section.keys));
    tables.chain(names(key::LISTENER)).chain(names(key::DURABILITY)).chain(names(key::SCRAM_USER)).collect()
}

#[test]
fn what_is_wrong_with_a_toml_is_said_with_line_and_column() {
    let cases = [
        (
            "[limits]\npacket_bytes_mx = 1",
            r#"pantala.toml:2:1: unknown key "packet_bytes_mx" in [limits]; did you mean "packet_bytes_max"?"#,
        ),
        ("[limits]\n  zebra = 1", r#"pantala.toml:2:3: unknown key "zebra" in [limits]"#),
        ("[limit]\nx = 1", "pantala.toml:1:2: unknown section [limit]; did you mean \"limits\"?"),
        ("\n[[listeners]]\nport = 1", "pantala.toml:2:3: unknown section [listeners]; did you mean \"listener\"?"),
        (
            "queue_ful = \"refuse\"",
            "pantala.toml:1:1: unknown key \"queue_ful\" in front of the first section; did you mean \"queue_full\" \
             in \"[delivery]\"?",
        ),
        (
            "[limits]\ntopic_levels_max = 0",
            r#"pantala.toml:2:20: "topic_levels_max" is 0, but has to be from 1 to 65535"#,
        ),
        (
            "[limits]\ntopic_levels_max = 65_536",
            r#"pantala.toml:2:20: "topic_levels_max" is 65536, but has to be from 1 to 65535"#,
        ),
        (
            "[limits]\nkeep_alive_max = -1",
            r#"pantala.toml:2:18: "keep_alive_max" is -1, but has to be from 0 to 65535"#,
        ),
        (
            "[limits]\nqueued_bytes_max = 99999999999999999999999999999999999999999",
            "pantala.toml:2:20: \"queued_bytes_max\" is 99999999999999999999999999999999999999999, but has to be from \
             0 to 9223372036854775807",
        ),
        (
            "[limits]\nconnections_max = \"many\"",
            "pantala.toml:2:19: \"connections_max\" is many, but has to be from 0 to 4294967295 or \
             \"unlimited\"",
        ),
        (
            "[limits]\nkeep_alive_max = \"1\"",
            r#"pantala.toml:2:18: "keep_alive_max" takes an integer from 0 to 65535, not a string"#,
        ),
        (
            "[limits]\nkeep_alive_max = 1.5",
            r#"pantala.toml:2:18: "keep_alive_max" takes an integer from 0 to 65535, not a float"#,
        ),
        (
            "[delivery]\nqueue_qos0_messages = 1",
            r#"pantala.toml:2:23: "queue_qos0_messages" takes true or false, not an integer"#,
        ),
        (
            "[delivery]\nqueue_full = \"drop_newst\"",
            "pantala.toml:2:14: \"queue_full\" cannot be \"drop_newst\"; did you mean \"drop_newest\"? (allowed: \
             drop_oldest, drop_newest, refuse)",
        ),
        (
            "[log]\ntypes = [\"error\", \"wrning\"]",
            "pantala.toml:2:9: \"types\" cannot be \"wrning\"; did you mean \"warning\"? (allowed: error, warning, \
             notice, information, debug, subscribe, unsubscribe, websockets, internal, all, none)",
        ),
        (
            "[log]\ndestinations = [1]",
            r#"pantala.toml:2:16: "destinations" takes a list of stderr, stdout, syslog, topic, not an array of something else"#,
        ),
        ("limits = 3", r#"pantala.toml:1:10: "limits" takes a section, [limits], not an integer"#),
        (
            "[listener]\nport = 1",
            "pantala.toml:1:1: \"listener\" takes sections with double brackets, [[listener]], not a table",
        ),
        (
            "scram_user = [3]",
            "pantala.toml:1:15: \"scram_user\" takes sections with double brackets, [[scram_user]], not an integer",
        ),
        ("[[listener]]\nport = 70000", r#"pantala.toml:2:8: "port" is 70000, but has to be from 0 to 65535"#),
        (
            "[[listener]]\nhost = \"a b\"",
            r#"pantala.toml:2:8: "host" cannot be "a b": it has to be an address or a host name, without spaces"#,
        ),
        (
            "[[listener]]\nhost = \"[::1]\"",
            "pantala.toml:2:8: \"host\" cannot be \"[::1]\": it has to be an address or a host name, without brackets \
             or slashes",
        ),
        (
            "[[listener]]\nport = 1\n[[listener]]\nport = 2\nunix_path = \"/s\"",
            r#"pantala.toml:3:1: "unix_path" and "port" exclude each other in [[listener]]"#,
        ),
        (
            "[[listener]]\nhost = \"h\"\nunix_path = \"/s\"",
            r#"pantala.toml:1:1: "unix_path" and "host" exclude each other in [[listener]]"#,
        ),
        (
            "[[listener]]\nhost = \"h\"\n[[listener]]\nhost = \"h\"\nport = 1883",
            "pantala.toml:3:1: a listener on h:1883 is there twice",
        ),
        (
            "[limits]\npacket_bytes_max = 1000\nconnect_packet_bytes_max = 1001",
            "pantala.toml:3:28: \"connect_packet_bytes_max\" is 1001, above \"packet_bytes_max\", which is 1000",
        ),
        ("[redirect]\npermanent = true", r#"pantala.toml:2:13: [redirect] needs "server_reference""#),
        (
            "[redirect]\nserver_reference = \"\"",
            r#"pantala.toml:2:20: "server_reference" cannot be "": it must not be empty"#,
        ),
        (
            "[broker]\ndurability = \"os\"\n[[durability]]\nfilter = \"a\"\nlevel = \"os\"",
            r#"pantala.toml:5:9: "level" is "os", but has to be below "broker.durability", which is "os""#,
        ),
        // Wherever the broker's own level stands.
        (
            "[[durability]]\nfilter = \"a\"\nlevel = \"memory\"\n[broker]\ndurability = \"memory\"",
            r#"pantala.toml:3:9: "level" is "memory", but has to be below "broker.durability", which is "memory""#,
        ),
        (
            "[[durability]]\nfilter = \"a\"\nlevel = \"fsync\"",
            r#"pantala.toml:3:9: "level" cannot be "fsync" (allowed: os, memory)"#,
        ),
        ("[[durability]]\nlevel = \"os\"", r#"pantala.toml:1:1: [[durability]] needs "filter""#),
        ("[[durability]]\nfilter = \"a\"", r#"pantala.toml:1:1: [[durability]] needs "level""#),
        (
            "[[durability]]\nfilter = \"a/#/b\"\nlevel = \"os\"",
            "pantala.toml:2:10: \"filter\" cannot be \"a/#/b\": a wildcard must have its level for itself, and # must be \
             the last",
        ),
        (
            "[[durability]]\nfilter = \"$share/g/a\"\nlevel = \"os\"",
            "pantala.toml:2:10: \"filter\" cannot be \"$share/g/a\": a Shared Subscription is not a set of topics; its \
             filter alone is",
        ),
        (
            "[[durability]]\nfilter = \"\"\nlevel = \"os\"",
            r#"pantala.toml:2:10: "filter" cannot be "": it must not be empty"#,
        ),
        (
            "[[durability]]\nfilter = \"a\"\nlevel = \"os\"\n[[durability]]\nfilter = \"a\"\nlevel = \"memory\"",
            r#"pantala.toml:4:1: durability of "a" is there twice"#,
        ),
        (
            "durability = \"os\"",
            "pantala.toml:1:1: unknown key \"durability\" in front of the first section; did you mean \"durability\" in \
             \"[broker]\"?",
        ),
        ("[[scram_user]]\npassword = \"x\"", r#"pantala.toml:1:1: [[scram_user]] needs "name""#),
        ("[[scram_user]]\nname = \"x\"", r#"pantala.toml:1:1: [[scram_user]] needs "password""#),
        (
            "[[scram_user]]\nname = \"x\"\npassword = \"y\"\npassword_file = \"z\"",
            r#"pantala.toml:1:1: "password" and "password_file" exclude each other in [[scram_user]]"#,
        ),
        (
            "[[scram_user]]\nname = \"x\"\npassword = \"y\"\n[[scram_user]]\nname = \"x\"\npassword = \"y\"",
            r#"pantala.toml:4:1: user "x" is there twice"#,
        ),
        (
            "[[scram_user]]\nname = \"x\"\npassword_file = \"/nonexistent/p\"",
            "pantala.toml:1:1: /nonexistent/p cannot be read: No such file or directory (os error 2)",
        ),
        (
            "[broker]\nresponse_information_prefix = \"a/#\"",
            "pantala.toml:2:31: \"response_information_prefix\" cannot be \"a/#\": it begins Topic Names, which have \
             no wildcards",
        ),
        (
            "[broker]\nauto_id_prefix = \"a\\u0000\"",
            "pantala.toml:2:18: \"auto_id_prefix\" cannot be \"a\\0\": it goes into MQTT packets, which should not \
             carry control characters or noncharacters",
        ),
        ("[broker]\nworkers = 257", r#"pantala.toml:2:11: "workers" is 257, but has to be from 1 to 64 or "auto""#),
        (
            "[log]\ntimestamp = \"%Y %Q\"",
            "pantala.toml:2:13: \"timestamp\" cannot be \"%Y %Q\": it has a conversion that is not known; known are \
             %Y %C %y %m %d %e %j %H %I %M %S %p %s %F %T %D %R %a %A %b %B %h %Z %z %n %t %%",
        ),
        // The column counts characters; the first fault in the file is the one reported.
        ("# é\n[broker] # ü\n\"é\" = 1", "pantala.toml:3:1: unknown key \"é\" in [broker]"),
        ("[limits]\nz = 1\n[delivery]\na = 1", r#"pantala.toml:2:1: unknown key "z" in [limits]"#),
        (
            "[[scram_user]]\nname = \"x\"\npassword = \"\"",
            "pantala.toml:3:12: \"password\" cannot be \"…\": it must not be empty",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(of_toml(text).expect_err(text), expected, "{text}");
    }
    // What the TOML parser says is its own; where it says so is ours.
    for (text, place) in [
        ("[limits", "pantala.toml:1:8: "),
        ("[limits]\nkeep_alive_max = ", "pantala.toml:2:18: "),
        ("[limits]\nkeep_alive_max = 1\nkeep_alive_max = 2", "pantala.toml:3:1: "),
        ("é = 'ü", "pantala.toml:1:1: "),
    ] {
        let message = of_toml(text).expect_err(text);
        assert!(message.starts_with(place) && message.len() > place.len(), "{text}: {message}");
    }
}

#[test]
fn nesting_without_end_is_an_error_and_not_the_end_of_the_stack() {
    const DEPTH: usize = 200_000;
    for text in [
        format!("a = {}", "[".repeat(DEPTH)),
        format!("a = {}", "{a=".repeat(DEPTH)),
        format!("{}a = 1", "a.".repeat(DEPTH)),
        format!("[{}a]", "a.".repeat(DEPTH)),
        format!("[limits]\n{}a = 1", "a.".repeat(DEPTH)),
    ] {
        assert!(of_toml(&text).is_err(), "{}", &text[..20]);
    }
}

#[test]
fn the_smaller_packet_limit_holds_for_connect_too() {
    let config = of_toml("[limits]\npacket_bytes_max = 1000").expect("a small limit");
    assert_eq!(config.settings.connect_packet_bytes_max, 1000);
    let config = of_toml("[limits]\npacket_bytes_max = 16").expect("the smallest limit");
    assert_eq!(config.settings.connect_packet_bytes_max, 16);
    let config = of_toml("[limits]\npacket_bytes_max = 268_435_460").expect("the largest limit");
    assert_eq!(config.settings.connect_packet_bytes_max, 65_536);
}

/// Zero, one, both bounds and what is just beyond them, for each number there is.
#[test]
fn each_number_takes_what_is_within_its_bounds_and_nothing_else() {
    fn check<Written, Used>(
        section: &str,
        keys: &[Key<Written, Used>],
        shown: impl Fn(&Config, &Key<Written, Used>) -> String,
    ) {
        for key in keys {
            let Kind::Number { min, max, word, .. } = key.kind else { continue };
            let text = |value: &str| match section {
                // The bound of the CONNECT packet is bounded itself.
                "limits" if key.name == "connect_packet_bytes_max" => {
                    format!("[limits]\npacket_bytes_max = 268_435_460\n{} = {value}", key.name)
                }
                "listener" => format!("[[listener]]\n{} = {value}", key.name),
                section => format!("[{section}]\n{} = {value}", key.name),
            };
            for value in [0, 1, 2, min, max, min.saturating_sub(1), max.saturating_add(1)] {
                if value > i64::MAX as u64 {
                    continue;
                }
                match of_toml(&text(&value.to_string())) {
                    Ok(config) => {
                        assert!((min..=max).contains(&value), "{} = {value}", key.name);
                        let shown = shown(&config, key);
                        // Where a word says no limit, so does one of the ends.
                        assert!(
                            shown == value.to_string() || word == Some(shown.as_str()),
                            "{} = {value}: {shown}",
                            key.name
                        );
                    }
                    Err(message) => {
                        assert!(!(min..=max).contains(&value), "{} = {value}: {message}", key.name);
                        let bounds = format!("is {value}, but has to be from {min} to {max}");
                        assert!(message.contains(&bounds), "{message}");
                    }
                }
            }
            if let Some(word) = word {
                let config = of_toml(&text(&format!("\"{word}\""))).expect(key.name);
                assert_eq!(shown(&config, key), word, "{}", key.name);
            }
        }
    }
    for section in key::SECTIONS {
        check(section.name, section.keys, |config, key| (key.show)(config));
    }
    check("listener", key::LISTENER, |config, key| (key.show)(&config.listeners[0]));
}

#[test]
fn anonymous_clients_are_let_in_where_only_this_machine_connects_unless_told() {
    for (listener, anonymous) in [
        ("host = \"127.0.0.1\"", true),
        ("host = \"127.9.9.9\"", true),
        ("host = \"::1\"", true),
        ("host = \"::ffff:127.0.0.1\"", true),
        ("host = \"localhost\"", true),
        ("unix_path = \"/run/p.sock\"", true),
        ("", false),
        ("host = \"0.0.0.0\"", false),
        ("host = \"::\"", false),
        ("host = \"192.168.1.1\"", false),
        ("host = \"broker.example\"", false),
        ("host = \"127.0.0.1\"\nallow_anonymous = false", false),
        ("allow_anonymous = true", true),
    ] {
        let config = of_toml(&format!("[[listener]]\n{listener}")).expect(listener);
        assert_eq!(config.listeners[0].settings.allow_anonymous, anonymous, "{listener}");
    }
    // A mosquitto.conf has to say so, as in Mosquitto.
    assert_eq!(listeners(&of_conf("listener 1883 127.0.0.1\nlistener 0 /s").expect("two")), "127.0.0.1:1883 unix:/s");
}

#[test]
fn a_mosquitto_conf_with_every_directive() {
    let text = "
# A comment, and blank lines.
   # An indented one.

per_listener_settings false
listener 1883 192.168.1.2
socket_domain ipv4
max_connections 100
max_qos 1
max_topic_alias 3
max_topic_alias_broker 4
protocol mqtt
listener 0 /run/mosquitto/with space.sock
listener_allow_anonymous false
maximum_qos 0
listener 1885 # all interfaces
max_connections -1
allow_anonymous true
allow_zero_length_clientid false
auto_id_prefix dev-
global_max_clients 7
global_max_connections 8
max_inflight_messages 9
max_inflight_bytes 10
max_keepalive 11
max_packet_size 1200
max_queued_messages 13
max_queued_bytes 14
message_size_limit 15
retain_available false
queue_qos0_messages true
upgrade_outgoing_qos true
allow_duplicate_messages true
persistent_client_expiration 2h
set_tcp_nodelay false
persistence true
persistence_location /var/lib/mosquitto/
log_type error
log_type  debug
log_dest stdout
log_dest file /var/log/mosquitto/mosquitto.log
log_timestamp_format %Y-%m-%dT%H:%M:%S
connection_messages false\t# trailing
";
    let config = of_conf(&text.replace('\n', "\r\n")).expect("all directives");
    assert_eq!(of_conf(text).as_ref(), Ok(&config));
    assert_eq!(
        config.settings,
        Settings {
            packet_bytes_max: 1200,
            connect_packet_bytes_max: 1200,
            payload_bytes_max: 15,
            inflight_messages_max: 9,
            inflight_bytes_max: 10,
            receive_maximum: 9,
            queued_messages_max: 13,
            queued_bytes_max: 14,
            queue_qos0_messages: true,
            upgrade_outgoing_qos: true,
            connections_max: key::count(Some(8)),
            sessions_max: key::count(Some(7)),
            keep_alive_max: 11,
            session_expiry_max: Some(7_200),
            retain_available: false,
            allow_zero_length_client_id: false,
            auto_id_prefix: "dev-".to_owned(),
            allow_duplicate_messages: true,
            listeners: config.settings.listeners.clone(),
            ..Settings::default()
        }
    );
    assert_eq!(listeners(&config), "192.168.1.2:1883+ unix:/run/mosquitto/with space.sock *:1885+");
    assert!(in_core(&config));
    let [first, unix, last] = &config.listeners[..] else { panic!("three listeners") };
    assert_eq!(first.socket_domain, SocketDomain::Ipv4);
    assert_eq!(
        first.settings,
        ListenerSettings {
            allow_anonymous: true,
            connections_max: key::count(Some(100)),
            maximum_qos: QoS::AtLeastOnce,
            topic_alias_max: Some(3),
            topic_alias_broker_max: Some(4),
        }
    );
    assert_eq!(
        unix.settings,
        ListenerSettings { allow_anonymous: false, maximum_qos: QoS::AtMostOnce, ..ListenerSettings::default() }
    );
    assert_eq!(last.settings, ListenerSettings::default());
    assert!(config.listeners.iter().all(|listener| !listener.tcp_no_delay));
    assert_eq!(
        config.log,
        LogConfig {
            types: LogTypes::NONE.with(LogType::Error).with(LogType::Debug),
            stderr: false,
            stdout: true,
            syslog: false,
            facility: Facility::DAEMON,
            topic: false,
            file: Some("/var/log/mosquitto/mosquitto.log".into()),
            timestamp: Timestamp::Pattern("%Y-%m-%dT%H:%M:%S".to_owned()),
            connection_messages: false,
        }
    );
    assert_eq!((config.data_dir, config.durability), (Some("/var/lib/mosquitto/pantala".into()), Durability::Fsync));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_mosquitto_conf_that_says_nothing_has_our_limits_and_keeps_nothing() {
    let config = of_conf("listener 1883").expect("one line");
    assert_eq!(listeners(&config), "*:1883");
    assert_eq!(config.settings, Settings { listeners: config.settings.listeners.clone(), ..Settings::default() });
    assert_eq!(config.durability, Durability::Memory);
    assert_eq!(config.log, LogConfig { timestamp: Timestamp::EpochSeconds, ..LogConfig::default() });
}

#[test]
fn the_value_that_is_no_limit_in_mosquitto_is_none_here() {
    for (text, expected) in [
        (
            "max_inflight_messages 0",
            Settings { inflight_messages_max: 65_535, receive_maximum: 65_535, ..Settings::default() },
        ),
        (
            "max_inflight_messages -1",
            Settings { inflight_messages_max: 65_535, receive_maximum: 65_535, ..Settings::default() },
        ),
        ("max_inflight_messages 1", Settings { inflight_messages_max: 1, receive_maximum: 1, ..Settings::default() }),
        ("max_queued_messages 0", Settings { queued_messages_max: 0, ..Settings::default() }),
        ("max_queued_bytes 0", Settings { queued_bytes_max: 0, ..Settings::default() }),
        ("max_keepalive 0", Settings::default()),
        ("message_size_limit 0", Settings::default()),
        ("global_max_clients -1", Settings::default()),
        ("global_max_connections 0", Settings::default()),
        ("persistent_client_expiration 1s", Settings { session_expiry_max: Some(1), ..Settings::default() }),
        ("persistent_client_expiration 1d", Settings { session_expiry_max: Some(86_400), ..Settings::default() }),
        ("persistent_client_expiration 2w", Settings { session_expiry_max: Some(1_209_600), ..Settings::default() }),
        ("persistent_client_expiration 1m", Settings { session_expiry_max: Some(2_592_000), ..Settings::default() }),
        ("persistent_client_expiration 1y", Settings { session_expiry_max: Some(31_536_000), ..Settings::default() }),
    ] {
        let config = of_conf(text).expect(text);
        assert_eq!(config.settings, Settings { listeners: config.settings.listeners.clone(), ..expected }, "{text}");
        assert_eq!(listeners(&config), "127.0.0.1:1883+ [::1]:1883+?", "{text}");
    }
}

#[test]
fn what_is_wrong_with_a_mosquitto_conf_is_said_with_its_line() {
    let cases = [
        ("\nbridge_cafile x", r#"mosquitto.conf:2: directive "bridge_cafile" is not supported yet"#),
        ("plugin_opt_anything x", r#"mosquitto.conf:1: directive "plugin_opt_anything" is not supported yet"#),
        ("password_file /etc/p", r#"mosquitto.conf:1: directive "password_file" is not supported yet"#),
        ("require_certificate", r#"mosquitto.conf:1: directive "require_certificate" is not supported yet"#),
        (
            "allow_anonymus true",
            r#"mosquitto.conf:1: unknown directive "allow_anonymus"; did you mean "allow_anonymous"?"#,
        ),
        ("zzz", r#"mosquitto.conf:1: unknown directive "zzz""#),
        ("Listener 1883", r#"mosquitto.conf:1: unknown directive "Listener"; did you mean "listener"?"#),
        ("listener", r#"mosquitto.conf:1: directive "listener" needs a value"#),
        ("allow_anonymous   ", r#"mosquitto.conf:1: directive "allow_anonymous" needs a value"#),
        ("listener 70000", r#"mosquitto.conf:1: "listener" is 70000, but has to be from 0 to 65535"#),
        ("listener mqtt", r#"mosquitto.conf:1: "listener" is mqtt, but has to be from 0 to 65535"#),
        ("port 0", r#"mosquitto.conf:1: "port" is 0, but has to be from 1 to 65535"#),
        (
            "listener 0",
            r#"mosquitto.conf:1: "listener" cannot be "0": port 0 needs the path of a Unix socket after it"#,
        ),
        (
            "listener 1883 /run/s",
            "mosquitto.conf:1: \"listener\" cannot be \"1883 /run/s\": the path of a Unix socket needs port 0 before it",
        ),
        (
            "listener 1883 a b",
            "mosquitto.conf:1: \"listener\" cannot be \"a b\": it has to be an address or a host name, without spaces",
        ),
        ("listener 1\nlistener 1", "mosquitto.conf:2: a listener on *:1 is there twice"),
        ("allow_anonymous yes", r#"mosquitto.conf:1: "allow_anonymous" cannot be "yes" (allowed: true, false, 1, 0)"#),
        (
            "allow_anonymous true false",
            r#"mosquitto.conf:1: unexpected "false" after the value of directive "allow_anonymous""#,
        ),
        ("max_qos 3", r#"mosquitto.conf:1: "max_qos" is 3, but has to be from 0 to 2"#),
        ("max_packet_size 0", r#"mosquitto.conf:1: "max_packet_size" is 0, but has to be from 20 to 268435460"#),
        ("max_connections -2", r#"mosquitto.conf:1: "max_connections" is -2, but has to be from -1 to 2147483647"#),
        (
            "max_inflight_messages 65536",
            r#"mosquitto.conf:1: "max_inflight_messages" is 65536, but has to be from -1 to 65535"#,
        ),
        (
            "persistent_client_expiration 14",
            "mosquitto.conf:1: \"persistent_client_expiration\" cannot be \"14\": it has to be a number followed by s, \
             h, d, w, m (30 days) or y (365 days), up to 136y",
        ),
        (
            "socket_domain ipv5",
            r#"mosquitto.conf:1: "socket_domain" cannot be "ipv5"; did you mean "ipv4"? (allowed: ipv4, ipv6)"#,
        ),
        ("protocol websockets", r#"mosquitto.conf:1: directive "protocol" with "websockets" is not supported yet"#),
        ("log_dest file", r#"mosquitto.conf:1: directive "log_dest file" needs a value"#),
        (
            "listener 1\nper_listener_settings true",
            "mosquitto.conf:2: directive \"per_listener_settings\" has to stand in front of all listeners and security \
             settings",
        ),
        (
            "per_listener_settings true\nlistener 1\nauto_id_prefix a\nlistener 2\nauto_id_prefix b",
            "mosquitto.conf:5: directive \"auto_id_prefix\" has to be the same for all listeners; one of its own for \
             each is not supported yet",
        ),
        (
            "per_listener_settings true\nlistener 1\nlistener 2\nallow_zero_length_clientid false",
            "mosquitto.conf:4: directive \"allow_zero_length_clientid\" has to be the same for all listeners; one of \
             its own for each is not supported yet",
        ),
        ("include_dir /nonexistent/d", "/nonexistent/d: cannot be read: No such file or directory (os error 2)"),
        ("include_dir", r#"mosquitto.conf:1: directive "include_dir" needs a value"#),
        ("auto_id_prefix", r#"mosquitto.conf:1: directive "auto_id_prefix" needs a value"#),
    ];
    for (text, expected) in cases {
        assert_eq!(of_conf(text).expect_err(text), expected, "{text}");
    }
    for hopeless in ["0d", "14x", "1é", "d", "-1d", "137y", "4294967295s", "99999999999999999999y"] {
        let text = format!("persistent_client_expiration {hopeless}");
        assert!(of_conf(&text).expect_err(&text).contains("it has to be a number"), "{text}");
    }
}

#[test]
fn per_listener_settings_give_each_listener_its_own() {
    let config = of_conf(
        "per_listener_settings true\nallow_anonymous true\nport 1\nlistener 2\nlistener 3\nallow_anonymous true\n\
         listener 4\nallow_anonymous true\nlistener_allow_anonymous false",
    )
    .expect("four listeners");
    assert_eq!(listeners(&config), "*:1+ *:2 *:3+ *:4");
    let config = of_conf("per_listener_settings true\nallow_anonymous false\nauto_id_prefix x-").expect("no listener");
    assert_eq!(listeners(&config), "127.0.0.1:1883 [::1]:1883?");
    assert_eq!(config.settings.auto_id_prefix, "x-");
    let config = of_conf("per_listener_settings true\nlistener 1\nauto_id_prefix x-\nlistener 2\nauto_id_prefix x-");
    assert_eq!(config.expect("the same prefix").settings.auto_id_prefix, "x-");
}

#[test]
fn a_directive_of_a_listener_without_one_makes_the_default_listener() {
    for (text, expected) in [
        ("max_connections 10", "*:1883"),
        ("maximum_qos 1\nallow_anonymous true", "*:1883+"),
        ("bind_address 127.0.0.1", "127.0.0.1:1883"),
        ("bind_address 127.0.0.1\nport 1999", "127.0.0.1:1999"),
        ("listener 1884\nport 1999\nmax_qos 1", "*:1999 *:1884"),
        ("allow_anonymous true", "127.0.0.1:1883+ [::1]:1883+?"),
    ] {
        assert_eq!(listeners(&of_conf(text).expect(text)), expected, "{text}");
    }
}

#[test]
fn directives_without_effect_are_warned_about_once_each() {
    let config = of_conf(
        "retry_interval 20\nautosave_interval 1800\nautosave_on_changes false\npersistence_file mosquitto.db\n\
         log_dest dlt",
    )
    .expect("all accepted");
    let expected = [
        "mosquitto.conf:1: directive \"retry_interval\" has no effect: MQTT messages are sent again after a reconnect only",
        "mosquitto.conf:2: directive \"autosave_interval\" has no effect: there are no snapshots to be saved",
        "mosquitto.conf:3: directive \"autosave_on_changes\" has no effect: there are no snapshots to be saved",
        "mosquitto.conf:4: directive \"persistence_file\" has no effect: the data directory holds several files",
        "mosquitto.conf:5: directive \"log_dest\" has no effect: that log is not supported",
    ];
    assert_eq!(config.warnings, expected);
}

#[test]
fn what_an_operator_of_mosquitto_sees_is_set_as_there() {
    let config =
        of_conf("sys_interval 0\npid_file /run/m.pid\nuser mosquitto\nmemory_limit 1000000").expect("all accepted");
    assert_eq!((config.sys_interval_seconds, config.memory_bytes_max), (0, Some(1_000_000)));
    assert_eq!((config.pid_file, config.user.as_deref()), (Some("/run/m.pid".into()), Some("mosquitto")));
    let config = of_conf("").expect("nothing");
    assert_eq!((config.sys_interval_seconds, config.memory_bytes_max, config.user), (10, None, None));
}

#[test]
fn without_a_terminal_the_log_goes_to_the_systems() {
    let detached = Overrides { detached: true, ..Overrides::default() };
    let log = |text: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Config::load_with(Some(file.path()), &detached, &Environment::default()).expect(text).log
    };
    assert_eq!((log("").stderr, log("").syslog), (false, true));
    assert_eq!((log("log_dest stderr").stderr, log("log_dest stderr").syslog), (true, false));
    let quiet = Overrides { quiet: true, verbose: true, ..Overrides::default() };
    let config = Config::load_with(None, &quiet, &Environment::default()).expect("nothing");
    assert_eq!(config.log.types, LogTypes::NONE);
}

#[test]
fn logs_of_a_mosquitto_conf() {
    let log = |text: &str| of_conf(text).expect(text).log;
    let destinations = |text: &str| {
        let log = log(text);
        (log.stderr, log.stdout, log.file.is_some())
    };
    assert_eq!(destinations(""), (true, false, false));
    assert_eq!(destinations("log_dest none"), (false, false, false));
    assert_eq!(destinations("log_dest stdout\nlog_dest stderr\nlog_dest file /a b.log"), (true, true, true));
    assert_eq!(destinations("log_dest stdout\nlog_dest none"), (false, false, false));
    assert_eq!(log("log_dest file /a b.log").file, Some("/a b.log".into()));
    let system = log("log_dest syslog\nlog_dest topic\nlog_facility 5");
    assert_eq!((system.stderr, system.syslog, system.topic, system.facility.number()), (false, true, true, 21));
    assert_eq!((log("").facility.number(), log("log_dest topic\nlog_dest none").topic), (3, false));
    assert_eq!(log("log_type all").types, LogTypes::ALL);
    assert_eq!(log("log_type none").types, LogTypes::NONE);
    assert_eq!(log("log_timestamp false\nlog_timestamp_format %Y").timestamp, Timestamp::Off);
    assert_eq!(log("log_timestamp_format epoch").timestamp, Timestamp::Pattern("epoch".to_owned()));
    let verbose = Overrides { verbose: true, ..Overrides::default() };
    assert_eq!(load("f.conf", "log_type none", &verbose, &[]).expect("-v").log.types, LogTypes::ALL);
}

#[test]
fn included_files_are_read_in_the_order_of_their_names() {
    let directory = Directory::new();
    directory.write("b.conf", "listener 2\nmax_qos 1");
    directory.write("B.conf", "listener 1\nmax_keepalive 7");
    directory.write("c.conf", "max_qos 0\ninclude_dir /nonexistent");
    directory.write("d.txt", "nonsense");
    let main =
        directory.write("main", format!("listener 9\ninclude_dir {}\nsocket_domain ipv6", directory.0.display()));
    let load = || Config::load_with(Some(&main), &Overrides::default(), &Environment::default());
    let config = load().expect("three files");
    // The default listener of c.conf is the first; the main file goes on with its own.
    assert_eq!(listeners(&config), "*:1883 *:9 *:1 *:2");
    let domains: Vec<_> = config.listeners.iter().map(|listener| listener.socket_domain).collect();
    assert_eq!(domains, [SocketDomain::Both, SocketDomain::Ipv6, SocketDomain::Both, SocketDomain::Both]);
    let qos: Vec<_> = config.listeners.iter().map(|listener| listener.settings.maximum_qos).collect();
    assert_eq!(qos, [QoS::AtMostOnce, QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::AtLeastOnce]);
    assert_eq!(config.settings.keep_alive_max, 7);
    let nested = directory.0.join("c.conf");
    assert_eq!(
        config.warnings,
        [format!("{}:2: directive \"include_dir\" has no effect in a file that is included itself", nested.display())]
    );

    let broken = directory.write("e.conf", "\n\nbogus 1");
    let message = load().expect_err("a broken file").to_string();
    assert_eq!(message, format!("{}:3: unknown directive \"bogus\"", broken.display()));
}

#[test]
fn files_that_cannot_be_read() {
    let directory = Directory::new();
    let load = |path: &Path| {
        let error = Config::load_with(Some(path), &Overrides::default(), &Environment::default());
        error.expect_err("not readable").to_string()
    };
    let missing = directory.0.join("missing.toml");
    assert_eq!(
        load(&missing),
        format!("{}: cannot be read: No such file or directory (os error 2)", missing.display())
    );
    assert!(load(&directory.0).contains(": cannot be read: "));
    let binary = directory.write("binary.conf", b"listener 1883 \xFF");
    assert_eq!(load(&binary), format!("{}: is not UTF-8 text", binary.display()));
    let long = directory.write("long.toml", "#".repeat(FILE_BYTES_MAX as usize + 1));
    assert_eq!(load(&long), format!("{}: is longer than 1048576 bytes, the most that is read", long.display()));
    let full = directory.write("full.toml", "#".repeat(FILE_BYTES_MAX as usize));
    assert!(Config::load_with(Some(&full), &Overrides::default(), &Environment::default()).is_ok());
}

#[test]
fn a_password_file_holds_one_line() {
    let directory = Directory::new();
    for (content, expected) in [
        ("secret", Ok("secret")),
        ("secret\n", Ok("secret")),
        ("secret\r\n", Ok("secret")),
        (" secret \n", Ok(" secret ")),
        ("", Err("must not be empty")),
        ("\n", Err("must not be empty")),
        ("two\nlines\n", Err("in one line")),
    ] {
        let path = directory.write("password", content);
        let text = format!("[[scram_user]]\nname = \"a\"\npassword_file = \"{}\"", path.display());
        match (of_toml(&text), expected) {
            (Ok(config), Ok(password)) => assert_eq!(config.settings.scram_users[0].password, password),
            (Err(message), Err(reason)) => {
                assert!(message.contains(reason) && !message.contains("lines"), "{message}");
            }
            (result, expected) => panic!("{content:?}: {result:?}, not {expected:?}"),
        }
    }
}

#[test]
fn variables_override_the_file_and_flags_override_variables() {
    let text = "[limits]\nkeep_alive_max = 5\ntopic_levels_max = 5\n[broker]\nworkers = 5\ndata_dir = \"/file\"";
    let variables = [("PANTALA__LIMITS__KEEP_ALIVE_MAX", "6"), ("PANTALA__BROKER__WORKERS", "6")];
    let flags = Overrides { workers: NonZeroUsize::new(7), ..Overrides::default() };
    let config = load("f.toml", text, &flags, &variables).expect("all three");
    assert_eq!(config.settings.topic_levels_max, 5);
    assert_eq!(config.settings.keep_alive_max, 6);
    assert_eq!(config.workers.map(NonZeroUsize::get), Some(7));
    let config = load("f.conf", "max_keepalive 5", &Overrides::default(), &variables).expect("a mosquitto.conf");
    assert_eq!((config.settings.keep_alive_max, config.workers.map(NonZeroUsize::get)), (6, Some(6)));

    let flags = Overrides { workers: NonZeroUsize::new(257), ..Overrides::default() };
    let message = load("f.toml", "", &flags, &[]).expect_err("too many");
    assert_eq!(message, "--workers: \"workers\" is 257, but has to be from 1 to 64");
}

#[test]
fn variables_of_each_type() {
    let config = of_variables(&[
        ("PANTALA__DELIVERY__QUEUE_FULL", "drop_oldest"),
        ("PANTALA__DELIVERY__QUEUE_QOS0_MESSAGES", "true"),
        ("PANTALA__FEATURES__RETAIN_AVAILABLE", "0"),
        ("PANTALA__LIMITS__CONNECTIONS_MAX", "unlimited"),
        ("PANTALA__LIMITS__SESSION_EXPIRY_MAX", "never"),
        ("PANTALA__LOG__TYPES", "error, debug"),
        ("PANTALA__LOG__DESTINATIONS", ""),
        ("PANTALA__BROKER__AUTO_ID_PREFIX", "123"),
        ("PANTALA__LISTENER__0__PORT", "2000"),
        ("PANTALA__LISTENER__1__UNIX_PATH", "/run/p"),
        ("PANTALA__LISTENER__1__ALLOW_ANONYMOUS", "false"),
        ("PANTALA__DURABILITY__0__FILTER", "a/+"),
        ("PANTALA__DURABILITY__0__LEVEL", "os"),
        ("PANTALA__SCRAM_USER__0__NAME", "ann"),
        ("PANTALA__SCRAM_USER__0__PASSWORD", "secret"),
        ("PANTALA_OTHER", "1"),
        ("PANTALA", "1"),
    ])
    .expect("all good");
    assert_eq!(config.settings.queue_full, QueueFull::DropOldest);
    assert!(config.settings.queue_qos0_messages && !config.settings.retain_available);
    assert_eq!((config.settings.connections_max, config.settings.session_expiry_max), (None, None));
    assert_eq!(config.log.types, LogTypes::NONE.with(LogType::Error).with(LogType::Debug));
    assert!(!config.log.stderr && !config.log.stdout);
    assert_eq!(config.settings.auto_id_prefix, "123");
    assert_eq!(listeners(&config), "*:2000 unix:/run/p");
    assert_eq!(config.settings.scram_users[0].password, "secret");
    let rule = DurabilityRule { filter: "a/+".to_owned(), level: Durability::Os };
    assert_eq!(config.settings.durability_rules, [rule]);

    // More than ten: 10 comes after 2.
    let names: Vec<String> = (0..12).map(|index| format!("PANTALA__LISTENER__{index}__PORT")).collect();
    let values: Vec<String> = (0..12).map(|index| (3_000 + index).to_string()).collect();
    let many: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
    assert_eq!(of_variables(&many).expect("twelve").listeners[11].address.to_string(), "*:3011");

    // A variable changes one key of a listener of the file, and brings another kind of secret.
    let text = "[[listener]]\nport = 1\nhost = \"::1\"\n[[scram_user]]\nname = \"a\"\npassword_file = \"/nonexistent\"";
    let variables = [("PANTALA__LISTENER__0__PORT", "2"), ("PANTALA__SCRAM_USER__0__PASSWORD", "x")];
    let config = load("f.toml", text, &Overrides::default(), &variables).expect("mixed");
    assert_eq!(listeners(&config), "[::1]:2+");
    assert_eq!(config.settings.scram_users[0].password, "x");

    // A flag that takes the broker's level below that of a rule.
    let text = "[[durability]]\nfilter = \"a\"\nlevel = \"memory\"";
    let variables = [("PANTALA__DURABILITY__0__LEVEL", "os")];
    let overrides = Overrides { durability: Some(Durability::Os), ..Overrides::default() };
    assert_eq!(
        load("f.toml", text, &overrides, &variables).expect_err("not below the flag"),
        "environment variable PANTALA__DURABILITY__0__LEVEL: \"level\" is \"os\", but has to be below \
         \"broker.durability\", which is \"os\""
    );
    assert!(load("f.toml", text, &overrides, &[]).is_ok());
}

#[test]
fn what_is_wrong_with_a_variable() {
    for (name, value, expected) in [
        (
            "PANTALA__LIMITS__KEEP_ALIVE_MX",
            "1",
            r#"unknown key "keep_alive_mx" in [limits]; did you mean "keep_alive_max"?"#,
        ),
        ("PANTALA__LIMIT__KEEP_ALIVE_MAX", "1", "unknown section [limit]; did you mean \"limits\"?"),
        ("PANTALA__KEEP_ALIVE_MAX", "1", "unknown key \"keep_alive_max\""),
        ("PANTALA__", "1", "unknown key \"\""),
        ("PANTALA__LISTENER__PORT", "1", "unknown key \"listener__port\"; did you mean \"listener__0__port\"?"),
        ("PANTALA__LISTENER__X__PORT", "1", r#""position" is x, but has to be from 0 to 65535"#),
        ("PANTALA__LISTENER__1__PORT", "1", "there are 0 entries of [[listener]], so the next one is 0, not 1"),
        ("PANTALA__LIMITS__KEEP_ALIVE_MAX", "a", r#""keep_alive_max" takes an integer from 0 to 65535, not "a""#),
        ("PANTALA__LIMITS__KEEP_ALIVE_MAX", "65536", r#""keep_alive_max" is 65536, but has to be from 0 to 65535"#),
        ("PANTALA__DELIVERY__QUEUE_QOS0_MESSAGES", "yes", r#""queue_qos0_messages" takes true or false, not "yes""#),
        ("PANTALA__SCRAM_USER__0__NAME", "a", r#"[[scram_user]] needs "password""#),
        ("PANTALA__DURABILITY__0__LEVEL", "os", r#"[[durability]] needs "filter""#),
        ("PANTALA__DURABILITY__1__LEVEL", "os", "there are 0 entries of [[durability]], so the next one is 0, not 1"),
        ("PANTALA__REDIRECT__PERMANENT", "true", r#"[redirect] needs "server_reference""#),
    ] {
        let message = of_variables(&[(name, value)]).expect_err(name);
        assert_eq!(message, format!("environment variable {name}: {expected}"));
    }
    let environment: Environment = [("PANTALA__SCRAM_USER__0__PASSWORD", "hidden")].into_iter().collect();
    assert!(!format!("{environment:?}").contains("hidden"));
}

#[test]
fn the_data_directory() {
    let all = [("PANTALA_DATA_DIR", "/variable"), ("XDG_STATE_HOME", "/state"), ("HOME", "/home/ann")];
    let file = "[broker]\ndata_dir = \"file\"";
    let data_dir = |text: &str, flag: Option<&str>, variables: &[(&str, &str)]| {
        let overrides = Overrides { data_dir: flag.map(PathBuf::from), ..Overrides::default() };
        load("f.toml", text, &overrides, variables).expect("a directory").data_dir
    };
    for (text, flag, variables, expected) in [
        (file, Some("flag"), &all[..], Some("flag")),
        (file, None, &all[..], Some("/variable")),
        (file, None, &all[1..], Some("file")),
        ("", None, &all[1..], Some("/state/pantala")),
        ("", None, &all[2..], Some("/home/ann/.local/state/pantala")),
        ("", None, &[], None),
        (
            "",
            None,
            &[("PANTALA_DATA_DIR", ""), ("XDG_STATE_HOME", ""), ("HOME", "/h")],
            Some("/h/.local/state/pantala"),
        ),
        ("", None, &[("XDG_STATE_HOME", "relative"), ("HOME", "/h")], Some("/h/.local/state/pantala")),
    ] {
        assert_eq!(data_dir(text, flag, variables), expected.map(PathBuf::from), "{text} {flag:?} {variables:?}");
    }
}

/// The repository, from the directory of this crate.
fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of each row of the tables of a page whose first cell is a name in backquotes.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let line = line.trim().trim_matches('|').to_owned();
        line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    page.lines().filter(|line| line.starts_with("| `")).map(cells).collect()
}

fn unquoted(cell: &str) -> String {
    cell.replace(['`', '_'], "")
}

/// The default as the page shows it: empty is a dash, long integers have underscores.
fn shown_default(shown: &str) -> String {
    if shown.is_empty() { "–".to_owned() } else { shown.replace('_', "") }
}

#[test]
fn the_page_of_limits_tells_the_truth() {
    let page = document("docs/limits.md");
    let counters = document("crates/broker/src/counters.rs");
    let rows = rows(&page);
    let default = Config::unwritten();
    let limits = key::SECTIONS.iter().find(|section| section.name == "limits").expect("a section of limits").keys;
    let documented: Vec<String> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(documented, names(limits).collect::<Vec<_>>(), "the limits, in their order");
    for (row, key) in rows.iter().zip(limits) {
        assert_eq!(row.len(), 5, "{row:?}");
        assert_eq!(unquoted(&row[1]), shown_default(&(key.show)(&default)), "default of {}", key.name);
        let Kind::Number { min, max, word, .. } = key.kind else { panic!("{} is a number", key.name) };
        let range = word.map_or(format!("{min}..={max}"), |word| format!("{min}..={max}, {word}"));
        assert_eq!(unquoted(&row[2]), range, "range of {}", key.name);
        assert!(row[3].len() > 10, "{row:?}");
        for counter in row[4].split(", ").filter(|counter| *counter != "–") {
            let declared = format!("\n    {},\n", counter.trim_matches('`'));
            assert!(counters.contains(&declared), "counter {counter} of {}", key.name);
        }
    }
}

#[test]
fn the_page_of_keys_tells_the_truth() {
    fn row<Written, Used>(
        section: &str,
        variable: &str,
        key: &Key<Written, Used>,
        default: Option<&Used>,
    ) -> [String; 4] {
        let kind = match key.kind {
            Kind::Switch { .. } => "boolean".to_owned(),
            Kind::Number { min, max, word: None, .. } => format!("{min}..={max}"),
            Kind::Number { min, max, word: Some(word), .. } => format!("{min}..={max}, {word}"),
            Kind::Text { .. } => "text".to_owned(),
            Kind::Choice { allowed, .. } => allowed.join(", "),
            Kind::List { allowed, .. } => format!("list of {}", allowed.join(", ")),
        };
        let default = default.map_or(String::from("–"), |used| shown_default(&(key.show)(used)));
        let variable = format!("PANTALA__{variable}__{}", key.name).to_uppercase();
        [format!("{section}.{}", key.name), kind, default, variable]
    }
    let default = Config::unwritten();
    let listener = of_toml("[[listener]]").expect("an empty listener").listeners.remove(0);
    let mut expected = Vec::new();
    for section in key::SECTIONS {
        expected.extend(section.keys.iter().map(|key| row(section.name, section.name, key, Some(&default))));
    }
    expected.extend(key::LISTENER.iter().map(|key| row("listener", "listener__n", key, Some(&listener))));
    expected.extend(key::DURABILITY.iter().map(|key| row("durability", "durability__n", key, None)));
    expected.extend(key::SCRAM_USER.iter().map(|key| row("scram_user", "scram_user__n", key, None)));
    let page = document("docs/configuration.md");
    let rows: Vec<Vec<String>> = rows(&page).into_iter().filter(|row| row[0].contains('.')).collect();
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row[0].trim_matches('`'), expected[0]);
        assert_eq!(unquoted(&row[1]), expected[1].replace('_', ""), "type of {}", expected[0]);
        assert_eq!(unquoted(&row[2]), expected[2].replace('_', ""), "default of {}", expected[0]);
        assert_eq!(row[3].trim_matches('`'), expected[3], "variable of {}", expected[0]);
    }
    assert_eq!(rows.len(), expected.len(), "rows of docs/configuration.md");
}

#[test]
fn the_page_of_keys_names_directives_that_exist() {
    let page = document("docs/configuration.md");
    for row in rows(&page).iter().filter(|row| row[0].contains('.') && row[4] != "–") {
        for directive in row[4].split(", ").map(|directive| directive.trim_matches('`')) {
            let message = of_conf(directive).expect_err("a directive without a value");
            assert_eq!(message, format!("mosquitto.conf:1: directive \"{directive}\" needs a value"), "{}", row[0]);
        }
    }
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = document("examples/pantala.toml");
    assert_eq!(of_toml(&example), of_toml(""), "as it stands");
    // Every key is there, behind a comment sign without a space; what has a space behind it is prose.
    let all: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    for name in all_names().into_iter().filter(|name| *name != "password_file") {
        assert!(all.contains(&format!("\n{name} = ")), "{name}");
    }
    let config = of_toml(&all).unwrap_or_else(|message| panic!("{message}"));
    // What is shown there behind the comment sign is the default, apart from what has none to show.
    let shown: Vec<String> = config.describe().lines().map(str::to_owned).collect();
    assert_eq!(
        shown,
        [
            "broker.data_dir = /var/lib/pantala",
            "broker.pid_file = /run/pantala.pid",
            "broker.user = pantala",
            "broker.response_information_prefix = reply/",
            "log.file = /var/log/pantala.log",
            "redirect.server_reference = mqtt.example.org:1883",
            "durability of telemetry/# = memory",
            "scram_user ann",
            "listener 127.0.0.1:1883, anonymous, topic_alias_max = 10, topic_alias_broker_max = 10",
            "listener unix:/run/pantala/mqtt.sock, anonymous",
        ]
    );
}

/// Text that gets further than random characters would.
fn fragments() -> impl Strategy<Value = String> {
    let words: Vec<&'static str> = all_names()
        .into_iter()
        .chain([
            "[limits]\n",
            "[[listener]]\n",
            "[broker]\n",
            "[log]\n",
            "[redirect]\n",
            "[[scram_user]]\n",
            "[[durability]]\n",
            " = ",
            "\n",
            " ",
            "#",
            "\"",
            "'",
            "{",
            "}",
            "[",
            "]",
            ",",
            "0",
            "1",
            "-1",
            "1883",
            "true",
            "false",
            "listener",
            "max_connections",
            "allow_anonymous",
            "per_listener_settings",
            "log_dest file",
            "log_type",
            "persistent_client_expiration",
            "auto_id_prefix",
            "all",
            "é",
            "\u{0}",
            "\r\n",
            "\t",
            "99999999999999999999999",
            "1e9",
            "1979-05-27",
            "%",
            "\u{10FFFF}",
        ])
        .collect();
    prop::collection::vec(prop::sample::select(words), 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever stands in a file or a variable, it is a configuration or an error with a message in one line.
    #[test]
    fn no_text_panics(text in prop_oneof![any::<String>(), fragments()], port in any::<u16>()) {
        for name in ["f.toml", "f.conf"] {
            match load(name, &text, &ports(&[port]), &[]) {
                Ok(config) => {
                    prop_assert!(in_core(&config) && !config.listeners.is_empty());
                    prop_assert!(!config.describe().is_empty());
                }
                Err(message) => prop_assert!(!message.is_empty()),
            }
        }
    }

    #[test]
    fn no_variable_panics(name in "(listener|durability|limits|log|[a-z_]{0,9})(__([0-9]{0,7}|[a-z]{0,5}))?__(port|types|keep_alive_max|[A-Z_é]{0,9})", value in any::<String>()) {
        let name = format!("PANTALA__{}", name.to_uppercase());
        let _ = of_variables(&[(&name, &value)]);
    }

    /// The place of a fault is the one where the key was put.
    #[test]
    fn the_place_of_a_fault_is_exact(lines in 0_usize..50, blanks in 0_usize..20) {
        let text = format!("[limits]\n{}{}keep_alive_mux = 1", "# é\n".repeat(lines), " ".repeat(blanks));
        let message = of_toml(&text).expect_err("a misspelt key");
        let place = format!("f.toml:{}:{}: ", lines + 2, blanks + 1).replace("f.toml", "pantala.toml");
        prop_assert!(message.starts_with(&place), "{}", message);
    }
}
