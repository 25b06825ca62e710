//! Whole configurations: what they come to, and what is said about those that are wrong.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::toml::de::{DeTable, DeValue};
use pantala_broker::{AcceptedVersions, DurabilityRule, ListenerRate, QueueFull};
use pantala_identity::chain::BackEnd;
use pantala_identity::http::Format;
use pantala_identity::jwt::Algorithm;
use pantala_proto::QoS;
use pantala_store::Durability;
use pantala_tls::UserNameFrom;
use pantala_transport::address::Network;
use pantala_transport::{proxy, websocket};
use proptest::prelude::*;
use serde_json::Value;

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
control_api = true
pid_file = "/run/p.pid"
user = "mqtt"
data_dir = "/srv/pantala"
import_file = "/srv/mosquitto.db"
durability = "os"
sparkplug_aware = true
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
verification_threads = 2
verifications_waiting_max = 3
verified_seconds = 4
verified_max = 5
http_requests_max = 6
failures_per_address_max = 7
failures_per_user_max = 8
failure_wait_seconds_max = 9
session_expiry_max = 25

[delivery]
queue_full = "refuse"
queue_qos0_messages = true
upgrade_outgoing_qos = true
allow_duplicate_messages = true
check_retain_source = false

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
packet_bytes_max = 35
messages_per_second_max = 31
bytes_per_second_max = 0
topic_alias_max = 27
topic_alias_broker_max = 28
mount_point = "plant/"
versions = ["3.1.1", "5.0"]
use_user_name_as_client_id = true
client_id_prefixes = ["dev-", "app-"]
allow_zero_length_client_id = true
auto_id_prefix = "l-"
deny_special_characters = true
sessions_belong_to_users = false
believe_user_names = true
tcp_no_delay = false
protocol = "any"
allow_plain_text = false
websocket_path = "/mqtt"
websocket_origins = ["https://app.example", "http://localhost:8080"]
proxy_protocol = "v2"
proxy_require_tls = true
proxy_trusted = ["10.0.0.0/8", "::1"]
allow_addresses = ["192.0.2.0/24"]
deny_addresses = ["192.0.2.7", "::ffff:192.0.2.8"]

[[listener]]
unix_path = "/run/pantala.sock"
unix_mode = "0600"

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
            check_retain_source: false,
            sparkplug_aware: true,
            response_information_prefix: Some("reply/".to_owned()),
            redirect: redirect.clone(),
            durability_rules: vec![DurabilityRule { filter: "telemetry/#".to_owned(), level: Durability::Memory }],
            scram_users: scram_users.clone(),
            listeners: in_core.clone(),
            security_domains: Vec::new(),
        }
    );
    let mut verification = Verification {
        threads: Some(2),
        waiting_max: 3,
        keep: Duration::from_secs(4),
        kept_max: 5,
        http_requests_max: 6,
        ..Verification::default()
    };
    verification.brake.per_address = 7;
    verification.brake.per_user = 8;
    verification.brake.wait_max = Duration::from_secs(9);
    assert_eq!(config.verification, verification);
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
                    packet_bytes_max: Some(35),
                    messages_per_second_max: ListenerRate::PerSecond(NonZeroU32::new(31).unwrap()),
                    bytes_per_second_max: ListenerRate::Unlimited,
                    topic_alias_max: Some(27),
                    topic_alias_broker_max: Some(28),
                    mount_point: Some("plant/".into()),
                    versions: AcceptedVersions { v31: false, v311: true, v5: true },
                    use_user_name_as_client_id: true,
                    client_id_prefixes: vec!["dev-".to_owned(), "app-".to_owned()],
                    allow_zero_length_client_id: Some(true),
                    auto_id_prefix: Some("l-".to_owned()),
                    deny_special_characters: true,
                    sessions_belong_to_users: false,
                    believe_user_names: true,
                    ..ListenerSettings::default()
                },
                socket_domain: SocketDomain::Ipv6,
                tcp_no_delay: false,
                tls: None,
                transport: Transport {
                    protocol: Protocol::Any,
                    allow_plain_text: false,
                    websocket: websocket::Options {
                        path: Some("/mqtt".into()),
                        origins: websocket::Origins::Listed(
                            ["https://app.example".into(), "http://localhost:8080".into()].into()
                        ),
                        trusted: networks(&["10.0.0.0/8", "::1"]),
                    },
                    proxy_protocol: Some(proxy::Versions::V2),
                    proxy_require_tls: true,
                    user_name_by_proxy: false,
                    proxy_trusted: networks(&["10.0.0.0/8", "::1"]),
                    allow_addresses: networks(&["192.0.2.0/24"]),
                    deny_addresses: networks(&["192.0.2.7", "192.0.2.8"]),
                    unix_mode: 0o660,
                },
                optional: false,
            },
            Listener {
                address: ListenAddress::Unix("/run/pantala.sock".into()),
                settings: ListenerSettings::default(),
                socket_domain: SocketDomain::Both,
                tcp_no_delay: true,
                tls: None,
                transport: Transport { unix_mode: 0o600, ..Transport::default() },
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
    assert!(config.control_api);
    assert_eq!((config.pid_file.as_deref(), config.user.as_deref()), (Some(Path::new("/run/p.pid")), Some("mqtt")));
    assert_eq!(config.connections_per_address_max, key::count(Some(32)));
    assert_eq!(config.connections_per_address_per_second_max, key::count(Some(33)));
    assert_eq!((config.data_dir.as_deref(), config.durability), (Some(Path::new("/srv/pantala")), Durability::Os));
    assert_eq!(config.import_file.as_deref(), Some(Path::new("/srv/mosquitto.db")));

    // Each key of the tables was among them, so none can be forgotten above. Those of security and TLS have tests of their own.
    let elsewhere: Vec<_> = names(key::SECURITY).chain(["security", "user_name_from_certificate"]).collect();
    for name in all_names().into_iter().filter(|name| !elsewhere.contains(name) && !name.starts_with("tls_")) {
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
         packet_bytes_max = 35, messages_per_second_max = 31, bytes_per_second_max = unlimited, topic_alias_max = 27, topic_alias_broker_max = 28, mount_point = plant/, versions = 3.1.1,5.0, \
         use_user_name_as_client_id = true, client_id_prefixes = dev-,app-, \
         allow_zero_length_client_id = true, auto_id_prefix = l-, deny_special_characters = true, \
         sessions_belong_to_users = false, believe_user_names = true, tcp_no_delay = false, protocol = any, \
         websocket_path = /mqtt, websocket_origins = https://app.example,http://localhost:8080, proxy_protocol = v2, \
         proxy_require_tls = true, proxy_trusted = 10.0.0.0/8,::1, allow_addresses = 192.0.2.0/24, \
         deny_addresses = 192.0.2.7,192.0.2.8\n",
        "listener unix:/run/pantala.sock, anonymous, unix_mode = 0600\n",
    ] {
        assert!(described.contains(line), "{line}\n in\n{described}");
    }
}

fn networks(texts: &[&str]) -> Box<[Network]> {
    texts.iter().map(|text| text.parse().expect("a network")).collect()
}

/// What would have no effect, or would let in whom it should not, is said before anything listens.
#[test]
fn a_transport_that_contradicts_itself_is_refused() {
    for (listener, message) in [
        ("websocket_path = \"/\"", "\"websocket_path\" has no effect unless \"protocol\" is \"websocket\" or \"any\""),
        (
            "websocket_origins = [\"https://a\"]",
            "\"websocket_origins\" has no effect unless \"protocol\" is \"websocket\" or \"any\"",
        ),
        ("proxy_protocol = \"v2\"", "[[listener]] with \"proxy_protocol\" needs \"proxy_trusted\""),
        // Nobody could connect.
        ("proxy_protocol = \"v2\"\nproxy_trusted = []", "[[listener]] with \"proxy_protocol\" needs \"proxy_trusted\""),
        (
            "proxy_protocol = \"v1\"\nproxy_trusted = [\"::1\"]\nproxy_require_tls = true",
            "\"proxy_require_tls\" has no effect unless \"proxy_protocol\" is \"v2\" or \"any\"",
        ),
        (
            "proxy_trusted = [\"::1\"]",
            "\"proxy_trusted\" has no effect unless there is \"proxy_protocol\" or WebSocket",
        ),
        ("unix_mode = \"0600\"", "\"unix_mode\" has no effect unless there is \"unix_path\""),
        (
            "unix_path = \"/s\"\ndeny_addresses = [\"::1\"]",
            "\"deny_addresses\" has no effect unless clients have addresses; behind a Unix socket a proxy has to tell them",
        ),
    ] {
        let found = of_toml(&format!("[[listener]]\n{listener}")).expect_err(listener);
        assert_eq!(found, format!("pantala.toml:1:1: {message}"), "{listener}");
    }
    for (key, value, reason) in [
        ("websocket_path", "\"mqtt\"", "a path begins with a slash"),
        ("websocket_path", "\"/m?t\"", "a path is written as it comes over the wire: no spaces, no query"),
        ("websocket_origins", "[\"app.example\"]", "an origin is written as browsers do"),
        ("websocket_origins", "[\"https://app.example/\"]", "an origin is written as browsers do"),
        ("websocket_origins", "[\"https://*.example\"]", "an origin is written as browsers do"),
        ("proxy_trusted", "[\"localhost\"]", "an entry is an address or a network"),
        ("allow_addresses", "[\"10.0.0.1/8\"]", "an entry is an address or a network"),
        ("deny_addresses", "[\"10.0.0.0/33\"]", "an entry is an address or a network"),
        ("unix_mode", "\"rw\"", "permission bits are three or four octal digits, such as 0660"),
        ("unix_mode", "\"4755\"", "permission bits are three or four octal digits, such as 0660"),
        ("unix_mode", "\"0888\"", "permission bits are three or four octal digits, such as 0660"),
    ] {
        let found = of_toml(&format!("[[listener]]\n{key} = {value}")).expect_err(value);
        assert!(found.starts_with(&format!("pantala.toml:2:{}: ", key.len() + 4)) && found.contains(reason), "{found}");
    }
    // A proxy on the same machine, and whoever the permissions of the socket let in.
    of_toml("[[listener]]\nunix_path = \"/s\"\nproxy_protocol = \"v1\"").expect("a Unix socket");
}

#[test]
fn the_transport_of_a_mosquitto_conf() {
    let config = of_conf(
        "allow_anonymous true\nlistener 9001\nprotocol websockets\nwebsockets_origin https://app.example\n\
         websockets_origin http://localhost:8080\nwebsockets_headers_size 4096\npacket_buffer_size 4096\n\
         websockets_log_level 255\nlistener 1883\nprotocol mqtt\nwebsockets_origin https://app.example\n\
         enable_proxy_protocol 2\nproxy_protocol_v2_require_tls true\nlistener 1884\nenable_proxy_protocol 1",
    )
    .expect("three listeners");
    let [websocket, v2, v1] = &config.listeners[..] else { panic!("three listeners") };
    assert_eq!(websocket.transport.protocol, Protocol::WebSocket);
    let origins = ["https://app.example".into(), "http://localhost:8080".into()];
    assert_eq!(websocket.transport.websocket.origins, websocket::Origins::Listed(origins.into()));
    let everybody = networks(&["0.0.0.0/0", "::/0"]);
    assert_eq!((v2.transport.protocol, &v2.transport.proxy_trusted), (Protocol::Mqtt, &everybody));
    assert_eq!(v2.transport.websocket.origins, websocket::Origins::Any);
    assert_eq!((v2.transport.proxy_protocol, v2.transport.proxy_require_tls), (Some(proxy::Versions::V2), true));
    assert_eq!((v1.transport.proxy_protocol, v1.transport.proxy_require_tls), (Some(proxy::Versions::V1), false));
    let without_effect = "has no effect: buffers have the size that is needed, and requests 16384 bytes at most";
    let believes = "believes everybody who connects: let nobody but the proxy reach this listener";
    let about_directives = config.warnings.iter().filter(|warning| warning.starts_with("mosquitto.conf:"));
    assert_eq!(
        about_directives.cloned().collect::<Vec<_>>(),
        [
            format!("mosquitto.conf:6: directive \"websockets_headers_size\" {without_effect}"),
            format!("mosquitto.conf:7: directive \"packet_buffer_size\" {without_effect}"),
            "mosquitto.conf:8: directive \"websockets_log_level\" has no effect: WebSocket has no log of its own"
                .into(),
            format!("mosquitto.conf:12: directive \"enable_proxy_protocol\" {believes}"),
            format!("mosquitto.conf:15: directive \"enable_proxy_protocol\" {believes}"),
        ]
    );
    assert_eq!(
        of_conf("listener 9001\nhttp_dir /srv/www").expect_err("no files are served"),
        "mosquitto.conf:2: directive \"http_dir\" is not supported: files are not served here; a web server in front can \
         serve them and pass WebSocket on"
    );
}

fn names<Written, Used>(keys: &[Key<Written, Used>]) -> impl Iterator<Item = &'static str> {
    keys.iter().map(|key| key.name)
}

fn all_names() -> BTreeSet<&'static str> {
    let tables = key::SECTIONS.iter().flat_map(|section| names(section.keys));
    tables
        .chain(names(key::LISTENER))
        .chain(names(key::DURABILITY))
        .chain(names(key::SCRAM_USER))
        .chain(names(key::SECURITY))
        .collect()
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
fn a_security_domain_with_every_key() {
    let text = r#"
[[listener]]
security = "plant"

[[listener]]
port = 1884

[[security]]
name = "plant"
chain = ["http", "jwt", "password", "certificate"]
password_file = "/p"
acl_file = "/a"
jwt_jwks_url = "https://user:hidden@id.example/keys?token=hidden"
jwt_refresh_seconds = 20
jwt_algorithms = ["ES256", "EdDSA"]
jwt_issuer = "i"
jwt_audience = "u"
jwt_leeway_seconds = 5
jwt_require_expiry = false
jwt_token_bytes_max = 4_000
jwt_user_name = "jwt"
jwt_user_name_claim = "name"
jwt_client_id_claim = "client"
jwt_groups_claim = "groups"
jwt_publish_claim = "publish"
jwt_subscribe_claim = "subscribe"
http_url = "http://127.0.0.1:1/auth"
http_format = "form"
http_timeout_seconds = 2
http_cache_seconds = 0
http_authorization_file = "/h"
http_ca_file = "/c"
"#;
    let config = of_toml(text).expect("all keys");
    let [default, plant] = &config.security[..] else { panic!("two domains") };
    assert_eq!((default.name.as_str(), default.verifies()), ("default", false));
    let text_of = |text: &str| Some(text.to_owned());
    let rules = pantala_identity::jwt::Rules {
        algorithms: vec![Algorithm::Es256, Algorithm::EdDsa],
        issuer: text_of("i"),
        audience: text_of("u"),
        leeway: Duration::from_secs(5),
        require_expiry: false,
        token_bytes_max: 4_000,
        user_name: text_of("jwt"),
        user_name_claim: "name".to_owned(),
        client_id_claim: text_of("client"),
        groups_claim: text_of("groups"),
        publish_claim: text_of("publish"),
        subscribe_claim: text_of("subscribe"),
    };
    let (url, ca_file) = ("https://user:hidden@id.example/keys?token=hidden".to_owned(), Some("/c".into()));
    let url = JwtKeys::Url { url, ca_file };
    let jwt = Jwt { keys: url, refresh_after: Duration::from_secs(20), rules };
    let http = Http {
        url: "http://127.0.0.1:1/auth".to_owned(),
        format: Format::Form,
        timeout: Duration::from_secs(2),
        keep: Duration::ZERO,
        authorization_file: Some("/h".into()),
        ca_file: Some("/c".into()),
    };
    let expected = SecurityDomain {
        name: "plant".to_owned(),
        chain: vec![BackEnd::Http, BackEnd::Jwt, BackEnd::Password, BackEnd::Certificate],
        password_file: Some("/p".into()),
        acl_file: Some("/a".into()),
        rules_file: None,
        dynamic_security_file: None,
        jwt: Some(jwt),
        http: Some(http),
    };
    assert_eq!(plant, &expected);
    let of_listeners: Vec<_> =
        config.listeners.iter().map(|it| (it.settings.security.0, it.settings.verify_credentials)).collect();
    assert_eq!(of_listeners, [(1, true), (0, false)]);
    assert_eq!(config.settings.security_domains, ["", "plant"]);
    let described = config.describe();
    assert!(described.contains("listener *:1883, no anonymous, security = plant\n"), "{described}");
    assert!(described.contains("tokens with keys of https://id.example/keys, "), "{described}");
    assert!(!described.contains("hidden"), "{described}");
    // The other places of keys.
    for (key, keys) in [
        ("jwt_jwks_file", JwtKeys::SetFile("/k".into())),
        ("jwt_public_key_file", JwtKeys::PublicKeyFile("/k".into())),
        ("jwt_secret_file", JwtKeys::SecretFile("/k".into())),
    ] {
        let config = of_toml(&format!("[[security]]\n{key} = \"/k\"")).expect(key);
        assert_eq!(config.security[0].jwt.as_ref().map(|jwt| &jwt.keys), Some(&keys));
        assert_eq!(config.security[0].chain, [BackEnd::Certificate, BackEnd::Jwt]);
    }
    let config = of_toml("[[security]]\nrules_file = \"/r\"\npassword_file = \"/p\"").expect("rules_file");
    assert_eq!(config.security[0].rules_file, Some("/r".into()));
    let config = of_toml("[[security]]\ndynamic_security_file = \"/d\"").expect("dynamic_security_file");
    assert_eq!(config.security[0].dynamic_security_file, Some("/d".into()));
    assert_eq!(config.security[0].chain, [BackEnd::Certificate, BackEnd::Password]);
    let elsewhere = ["jwt_jwks_file", "jwt_public_key_file", "jwt_secret_file", "rules_file", "dynamic_security_file"];
    for name in names(key::SECURITY).filter(|name| !elsewhere.contains(name)) {
        assert!(text.contains(&format!("\n{name} = ")), "{name}");
    }
}

#[test]
fn a_listener_that_lets_nobody_in_is_warned_about() {
    let warned = |text: &str| {
        let warnings = of_toml(text).unwrap_or_else(|message| panic!("{text}: {message}")).warnings;
        assert!(warnings.len() <= 1, "{warnings:?}");
        warnings.first().is_some_and(|warning| warning.contains("nobody") && warning.contains("password_file"))
    };
    assert!(warned("[[listener]]"));
    assert!(warned("[[listener]]\nhost = \"::\"\n[[listener]]\nport = 1\nhost = \"localhost\""));
    for fine in [
        "",
        "[[listener]]\nallow_anonymous = true",
        "[[listener]]\nhost = \"127.0.0.1\"\nallow_anonymous = false",
        "[[listener]]\n[[security]]\npassword_file = \"p\"",
        "[[listener]]\n[[scram_user]]\nname = \"ann\"\npassword = \"x\"",
    ] {
        assert!(!warned(fine), "{fine}");
    }
}

/// Who forgets `security` has a listener with other users than those just written, or, on loopback, with none: anybody comes in.
#[test]
fn a_security_domain_that_no_listener_names_is_warned_of() {
    let warnings = |text: &str| of_toml(text).unwrap_or_else(|message| panic!("{text}: {message}")).warnings;
    let domain = "[[security]]\npassword_file = \"p\"\nname = ";
    let unused = |line: usize, name: &str| {
        format!(
            "pantala.toml:{line}:1: no listener has security = \"{name}\": the users and rules of this [[security]] count nowhere"
        )
    };
    let loopback = "[[listener]]\nhost = \"::1\"\n";
    assert_eq!(warnings(&format!("{loopback}{domain}\"plant\"")), [unused(3, "plant")]);
    assert_eq!(warnings(&format!("{domain}\"plant\"")), [unused(1, "plant")]);
    // The default one as well.
    let both = format!("{loopback}security = \"plant\"\n{domain}\"plant\"\n[[security]]\nacl_file = \"a\"");
    assert_eq!(warnings(&both), [unused(7, "default")]);
    // Its users by SCRAM have nowhere to come in either.
    let scram = "[[scram_user]]\nname = \"ann\"\npassword = \"x\"\nsecurity = \"plant\"";
    assert_eq!(warnings(&format!("{loopback}{domain}\"plant\"\n{scram}")), [unused(3, "plant")]);
    for fine in
        ["", loopback, &format!("{loopback}security = \"plant\"\n{domain}\"plant\""), &format!("{domain}\"default\"")]
    {
        assert_eq!(warnings(fine), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn what_is_wrong_with_a_security_domain_is_said() {
    for (text, expected) in [
        (
            "[[listener]]\nsecurity = \"plnt\"\n[[security]]\nname = \"plant\"",
            "pantala.toml:1:1: \"security\" cannot be \"plnt\": there is no [[security]] of this name",
        ),
        ("[[security]]\n[[security]]", "pantala.toml:2:1: security domain \"default\" is there twice"),
        (
            "[[security]]\njwt_secret_file = \"a\"\njwt_jwks_file = \"b\"",
            "pantala.toml:1:1: \"jwt_jwks_file\" and \"jwt_secret_file\" exclude each other in [[security]]",
        ),
        (
            "[[security]]\nacl_file = \"a\"\nrules_file = \"b\"",
            "pantala.toml:1:1: \"acl_file\" and \"rules_file\" exclude each other in [[security]]",
        ),
        (
            "[[security]]\npassword_file = \"a\"\ndynamic_security_file = \"b\"",
            "pantala.toml:1:1: \"dynamic_security_file\" and \"password_file\" exclude each other in [[security]]",
        ),
        (
            "[[security]]\nrules_file = \"a\"\ndynamic_security_file = \"b\"",
            "pantala.toml:1:1: \"dynamic_security_file\" and \"rules_file\" exclude each other in [[security]]",
        ),
        ("[[security]]\njwt_issuer = \"a\"", "pantala.toml:1:1: [[security]] needs \"jwt_jwks_url\""),
        ("[[security]]\nhttp_format = \"form\"", "pantala.toml:1:1: [[security]] needs \"http_url\""),
        ("[[security]]\nchain = [\"password\"]", "pantala.toml:1:1: [[security]] needs \"password_file\""),
        (
            "[[security]]\nchain = [\"certificate\"]\npassword_file = \"p\"",
            "pantala.toml:1:1: \"chain\" cannot be \"certificate\": it leaves out \"password\", which is configured",
        ),
        (
            "[[security]]\npassword_file = \"p\"\nhttp_ca_file = \"c\"",
            "pantala.toml:1:1: \"http_ca_file\" has no effect unless there is \"http_url\" or \"jwt_jwks_url\"",
        ),
        (
            "[[security]]\njwt_secret_file = \"s\"\nhttp_ca_file = \"c\"",
            "pantala.toml:1:1: \"http_ca_file\" has no effect unless there is \"http_url\" or \"jwt_jwks_url\"",
        ),
        // Passwords and tokens in a URL stay out of what is said.
        (
            "[[security]]\nhttp_url = \"https://svc:s3cret@auth/a b?token=s3cret\"",
            "pantala.toml:2:12: \"http_url\" cannot be \"https://auth/a b\": a URL has no spaces",
        ),
        (
            "[[security]]\njwt_jwks_url = \"ftp://id/keys?token=s3cret\"",
            "pantala.toml:2:16: \"jwt_jwks_url\" cannot be \"ftp://id/keys\": it has to begin with http:// or https://",
        ),
        (
            "[[security]]\nhttp_url = \"ftp://x\"",
            "pantala.toml:2:12: \"http_url\" cannot be \"ftp://x\": it has to begin with http:// or https://",
        ),
    ] {
        assert_eq!(of_toml(text).expect_err(text), expected);
    }
}

#[test]
fn a_ca_file_serves_a_key_set_without_an_http_service() {
    let text = "[[security]]\njwt_jwks_url = \"https://id/keys\"\nhttp_ca_file = \"/c\"";
    let config = of_toml(text).expect("it serves the key set");
    let keys = JwtKeys::Url { url: "https://id/keys".to_owned(), ca_file: Some("/c".into()) };
    assert_eq!(config.security[0].jwt.as_ref().map(|jwt| &jwt.keys), Some(&keys));
    assert_eq!(config.security[0].http, None);
}

/// A user by SCRAM was one of every domain, so that one tenant's admin was the admin of all.
#[test]
fn scram_users_belong_to_a_domain() {
    let user = |name: &str, more: &str| format!("[[scram_user]]\nname = \"{name}\"\npassword = \"x\"\n{more}\n");
    let domains = "[[listener]]\nsecurity = \"plant\"\n[[listener]]\nport = 1\n[[security]]\nname = \"plant\"\n";
    let text = [domains.to_owned(), user("ann", ""), user("ann", "security = \"plant\"")].concat();
    let config = of_toml(&text).unwrap();
    let of = |config: &Config| {
        let users = config.settings.scram_users.iter();
        users.map(|user| config.security[usize::from(user.security.0)].name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(of(&config), ["default", "plant"]);
    assert_eq!(config.warnings, Vec::<String>::new());
    let described = config.describe();
    assert!(described.contains("scram_user ann\nscram_user ann of plant\n"), "{described}");
    // A reload may give domains other numbers, and its users go with them.
    let text = [user("ann", "security = \"plant\""), "[[security]]\nname = \"new\"\n".to_owned(), domains.to_owned()];
    let renumbered = of_toml(&text.concat()).unwrap().renumbered(&config);
    assert_eq!(of(&renumbered), ["plant"]);
    assert_eq!(renumbered.settings.scram_users[0].security, config.settings.scram_users[1].security);
    let changes = config.changes(&renumbered);
    assert!(changes.iter().any(|change| change.to_string() == "scram_user ann: removed (live)"), "{changes:?}");
    // Who is of another domain lets nobody in here.
    let other = ["[[listener]]\n[[security]]\nname = \"plant\"\n", &user("ann", "security = \"plant\"")].concat();
    assert!(of_toml(&other).unwrap().warnings.iter().any(|warning| warning.contains("lets nobody in")));
    for (text, expected) in [
        (
            user("ann", "security = \"plnt\""),
            "pantala.toml:1:1: \"security\" cannot be \"plnt\": there is no [[security]] of this name",
        ),
        (user("ann", "security = \"\""), "pantala.toml:4:12: \"security\" cannot be \"\": it must not be empty"),
        (user("ann", "") + &user("ann", "security = \"default\""), "pantala.toml:5:1: user \"ann\" is there twice"),
    ] {
        assert_eq!(of_toml(&text).expect_err(&text), expected);
    }
}

#[test]
fn users_and_rules_of_a_mosquitto_conf() {
    fn domains(text: &str) -> Vec<String> {
        let config = of_conf(text).unwrap_or_else(|message| panic!("{text}: {message}"));
        config.listeners.iter().map(|it| config.security[usize::from(it.settings.security.0)].to_string()).collect()
    }
    let both = "security \"default\", password file /etc/pass words, ACL file /a";
    // For all listeners, wherever it stands.
    assert_eq!(domains("password_file /etc/pass words\nlistener 1\nacl_file /a\nlistener 2"), [both, both]);
    // By plugins, in any of their ways.
    let plugins = "plugin /usr/lib/mosquitto_password_file.so\nplugin_opt_password_file /etc/pass words\n\
                   plugin_load x mosquitto_acl_file.so\nauth_opt_acl_file /a\nlistener 1\nplugin_use x";
    assert_eq!(domains(plugins), [both]);
    let dynamic = "plugin /usr/lib/mosquitto_dynamic_security.so\nplugin_opt_config_file /d\nlistener 1";
    assert_eq!(domains(dynamic), ["security \"default\", dynamic security /d"]);
    // For one listener each.
    assert_eq!(
        domains(
            "per_listener_settings true\npassword_file /0\nlistener 1\npassword_file /1\nlistener 2 ::1\nacl_file /2\n\
             listener 3\nlistener 4\nglobal_plugin mosquitto_acl_file.so\nplugin_opt_acl_file /g\nlistener 5"
        ),
        [
            "security \"listener 1\", password file /1, ACL file /g",
            "security \"listener ::1 2\", ACL file /g",
            "security \"listener 3\", ACL file /g",
            "security \"listener 4\", ACL file /g",
            "security \"listener 5\", ACL file /g",
        ]
    );
    assert_eq!(
        domains("per_listener_settings true\npassword_file /0\nport 1\nlistener 2"),
        ["security \"listener 1\", password file /0", "security \"default\""]
    );
    let config = of_conf("plugin /x/mosquitto_persist_sqlite.so\nplugin_opt_db_file /d").expect("it is known");
    assert_eq!((config.durability, config.warnings.len()), (Durability::Fsync, 1));
}

/// The broker is aware for everybody or for nobody, where Mosquitto's plugin may be that of one listener.
#[test]
fn the_plugin_for_sparkplug_is_a_key_of_ours() {
    const PLUGIN: &str = "mosquitto_sparkplug_aware.so";
    let told = |text: &str| {
        let config = of_conf(text).expect(text);
        (config.settings.sparkplug_aware, config.warnings)
    };
    let quiet = |aware: bool| (aware, Vec::<String>::new());
    let listener = "listener 1 127.0.0.1\nallow_anonymous true\n";
    for (text, aware) in [
        (listener.to_owned(), false),
        (format!("global_plugin /usr/lib/{PLUGIN}\n{listener}"), true),
        (format!("{listener}plugin /usr/lib/{PLUGIN}"), true),
        (format!("plugin_load s {PLUGIN}\n{listener}plugin_use s"), true),
        // It is loaded, and used nowhere.
        (format!("plugin_load s {PLUGIN}\n{listener}"), false),
        (format!("per_listener_settings true\n{listener}global_plugin {PLUGIN}"), true),
    ] {
        assert_eq!(told(&text), quiet(aware), "{text}");
    }
    let warning = |line: u32, text: &str| (true, vec![format!("mosquitto.conf:{line}: {text}")]);
    assert_eq!(
        told(&format!("per_listener_settings true\n{listener}plugin {PLUGIN}\n")),
        warning(4, "mosquitto_sparkplug_aware.so is for the clients of all listeners")
    );
    for option in ["plugin_opt_x", "auth_opt_x"] {
        assert_eq!(
            told(&format!("{listener}plugin {PLUGIN}\n{option} y\n")),
            warning(4, &format!("directive \"{option}\" has no effect: that plugin has no options"))
        );
    }
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
    // In the working directory.
    assert_eq!(listeners(&of_conf("listener 0 s.sock").expect("a relative path")), "unix:s.sock");
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
mount_point plant 1/
accept_protocol_versions 5,	 4 # not 3
use_username_as_clientid true
protocol mqtt
listener 0 /run/mosquitto/with space.sock
listener_allow_anonymous false
maximum_qos 0
listener 1885 # all interfaces
max_connections -1
allow_anonymous true
allow_zero_length_clientid false
auto_id_prefix dev-
clientid_prefixes secure-
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
    let common = ListenerSettings {
        client_id_prefixes: vec!["secure-".to_owned()],
        sessions_belong_to_users: false,
        ..ListenerSettings::default()
    };
    assert_eq!(
        first.settings,
        ListenerSettings {
            allow_anonymous: true,
            connections_max: key::count(Some(100)),
            maximum_qos: QoS::AtLeastOnce,
            topic_alias_max: Some(3),
            topic_alias_broker_max: Some(4),
            mount_point: Some("plant 1/".into()),
            versions: AcceptedVersions { v31: false, v311: true, v5: true },
            use_user_name_as_client_id: true,
            ..common.clone()
        }
    );
    assert_eq!(
        unix.settings,
        ListenerSettings { allow_anonymous: false, maximum_qos: QoS::AtMostOnce, ..common.clone() }
    );
    assert_eq!(last.settings, common);
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
    assert_eq!(config.import_file, Some("/var/lib/mosquitto/mosquitto.db".into()));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn tls_of_a_toml() {
    let tls = |text: &str| of_toml(&format!("[[listener]]\n{text}")).map(|config| config.listeners[0].tls.clone());
    assert_eq!(tls("port = 8883"), Ok(None));
    let least = Tls {
        certificate_files: vec!["a.pem".into()],
        key_files: vec!["a.pem".into()],
        client_ca_files: Vec::new(),
        chain_files: Vec::new(),
        require_certificate: true,
        crl_files: Vec::new(),
        versions: vec!["1.2", "1.3"],
        ciphers: Vec::new(),
        alpn: vec!["mqtt".to_owned()],
        user_name_from_certificate: UserNameFrom::No,
        ignore_certificate_dates: false,
    };
    assert_eq!(tls("tls_certificate_files = [\"a.pem\"]"), Ok(Some(least.clone())));
    let all = r#"
        tls_certificate_files = ["a.crt", "b.crt"]
        tls_key_files = ["a.key", "b.key"]
        tls_client_ca_files = ["ca", "more.pem"]
        tls_chain_files = ["chain.pem"]
        tls_require_certificate = false
        tls_crl_files = ["crl"]
        tls_versions = ["1.3"]
        tls_ciphers = ["TLS_AES_128_GCM_SHA256"]
        tls_alpn = []
        tls_ignore_certificate_dates = true
        user_name_from_certificate = "san"
    "#;
    let expected = Tls {
        certificate_files: vec!["a.crt".into(), "b.crt".into()],
        key_files: vec!["a.key".into(), "b.key".into()],
        client_ca_files: vec!["ca".into(), "more.pem".into()],
        chain_files: vec!["chain.pem".into()],
        require_certificate: false,
        crl_files: vec!["crl".into()],
        versions: vec!["1.3"],
        ciphers: vec!["TLS_AES_128_GCM_SHA256"],
        alpn: Vec::new(),
        user_name_from_certificate: UserNameFrom::SubjectAlternativeName,
        ignore_certificate_dates: true,
    };
    assert_eq!(tls(all), Ok(Some(expected)));
    for name in names(key::LISTENER).filter(|name| name.contains("tls_") || name.contains("certificate")) {
        assert!(all.contains(&format!(" {name} = ")), "{name}");
    }
    for (text, message) in [
        ("tls_key_files = [\"a\"]", "needs \"tls_certificate_files\""),
        ("tls_alpn = [\"mqtt\"]", "needs \"tls_certificate_files\""),
        ("tls_certificate_files = [\"a\"]\ntls_crl_files = [\"c\"]", "needs \"tls_client_ca_files\""),
        ("tls_certificate_files = [\"a\"]\nuser_name_from_certificate = \"cn\"", "needs \"tls_client_ca_files\""),
        ("tls_certificate_files = [\"a\", \"b\"]\ntls_key_files = [\"c\"]", "as many as tls_certificate_files"),
        ("tls_certificate_files = [\"\"]", "must not be empty"),
        ("tls_certificate_files = [1]", "a list of strings"),
        ("tls_versions = [\"1.1\"]", "1.2"),
        ("tls_ciphers = [\"AES256-SHA\"]", "TLS_AES_256_GCM_SHA384"),
    ] {
        let error = tls(text).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
}

/// A certificate made of `any` no port of TLS: plain text went on beside it, and nothing said so.
#[test]
fn plain_text_beside_tls_is_asked_for() {
    let any = |more: &str| {
        let config = of_toml(&format!("[[listener]]\ntls_certificate_files = [\"a\"]\nprotocol = \"any\"\n{more}"));
        config.map(|config| config.listeners[0].transport.allow_plain_text)
    };
    assert_eq!(any(""), Ok(false));
    assert_eq!(any("allow_plain_text = true"), Ok(true));
    assert_eq!(
        any("allow_plain_text = true\ntls_client_ca_files = [\"c\"]\ntls_require_certificate = false"),
        Ok(true)
    );
    // Nobody gets round a certificate by leaving TLS out.
    for more in
        ["", "tls_require_certificate = true", "tls_require_certificate = false\nuser_name_from_certificate = \"cn\""]
    {
        let error = any(&format!("allow_plain_text = true\ntls_client_ca_files = [\"c\"]\n{more}")).expect_err(more);
        let begin =
            "pantala.toml:1:1: \"allow_plain_text\" has no effect unless clients may do without a certificate: ";
        assert!(error.starts_with(begin), "{error}");
    }
    for text in [
        "protocol = \"any\"",
        "tls_certificate_files = [\"a\"]",
        "tls_certificate_files = [\"a\"]\nprotocol = \"websocket\"",
    ] {
        let error = of_toml(&format!("[[listener]]\nallow_plain_text = true\n{text}")).expect_err(text);
        let whole = "pantala.toml:1:1: \"allow_plain_text\" has no effect unless \"protocol\" is \"any\" and there is a certificate";
        assert_eq!(error, whole);
    }
}

/// What is empty meant nobody, or everybody, and neither was said.
#[test]
fn a_list_that_makes_no_sense_when_it_is_empty_is_refused() {
    for (section, key, why) in [
        ("listener", "versions", "then nobody is let in; without the key all versions are"),
        ("listener", "tls_versions", "then no TLS is spoken; without the key both versions are"),
        (
            "listener",
            "tls_certificate_files",
            "then there is no TLS; a listener that is to have none goes without the key",
        ),
        (
            "listener",
            "tls_client_ca_files",
            "then nobody needs a certificate; a listener that asks for none goes without the key",
        ),
        ("listener", "allow_addresses", "then everybody is let in; a listener for all goes without the key"),
        (
            "listener",
            "client_id_prefixes",
            "then every Client Identifier is taken; a listener for all goes without the key",
        ),
        ("security", "chain", "then nobody is asked who a client is; without the key all that is configured is"),
        ("security", "jwt_algorithms", "then no token is good; without the key those are that the keys are made for"),
    ] {
        let error = of_toml(&format!("[[{section}]]\n{key} = []")).expect_err(key);
        assert_eq!(error, format!("pantala.toml:2:{}: \"{key}\" cannot be empty: {why}", key.len() + 4));
        let variable = format!("PANTALA__{section}__0__{key}").to_uppercase();
        let error = of_variables(&[(&variable, " ")]).expect_err(key);
        assert_eq!(error, format!("environment variable {variable}: \"{key}\" cannot be empty: {why}"));
    }
    for fine in ["deny_addresses", "tls_key_files"] {
        of_toml(&format!("[[listener]]\n{fine} = []")).expect(fine);
    }
    of_toml("[log]\ntypes = []\ndestinations = []").expect("a broker that says nothing");
}

/// `false` of one directive turned off what the other had turned on, and whoever had any certificate was whom they said.
#[test]
fn a_directive_of_names_in_certificates_that_is_off_takes_nothing_back_of_the_other() {
    let (identity, subject) = ("use_identity_as_username", "use_subject_as_username");
    for (first, second, expected) in [
        ((subject, true), (identity, false), UserNameFrom::Subject),
        ((identity, false), (subject, true), UserNameFrom::Subject),
        ((identity, true), (subject, false), UserNameFrom::CommonName),
        ((subject, false), (identity, true), UserNameFrom::CommonName),
        ((subject, true), (identity, true), UserNameFrom::CommonName),
        ((identity, true), (subject, true), UserNameFrom::CommonName),
        ((identity, true), (identity, false), UserNameFrom::No),
        ((subject, true), (subject, false), UserNameFrom::No),
        ((subject, false), (identity, false), UserNameFrom::No),
    ] {
        let lines = format!("{} {}\n{} {}", first.0, first.1, second.0, second.1);
        let text = format!("listener 8883\ncertfile /c\ncafile /ca\nrequire_certificate true\n{lines}");
        let config = of_conf(&text).expect(&text);
        let tls = config.listeners[0].tls.as_ref().expect("TLS");
        assert_eq!(tls.user_name_from_certificate, expected, "{lines}");
    }
    // All three say one after the other what holds.
    let three = format!("{subject} true\n{identity} true\n{identity} false");
    let config = of_conf(&format!("listener 8883\ncertfile /c\ncafile /ca\n{three}")).expect("three lines");
    let tls = config.listeners[0].tls.as_ref().expect("TLS");
    assert_eq!(tls.user_name_from_certificate, UserNameFrom::Subject);
}

#[test]
fn tls_of_a_mosquitto_conf() {
    let tls = |text: &str| of_conf(&format!("listener 8883\n{text}")).map(|config| config.listeners[0].tls.clone());
    let server = "certfile /c\nkeyfile /k\n";
    let found = tls(server).expect("a certificate").expect("TLS");
    assert_eq!((found.certificate_files, found.key_files), (vec!["/c".into()], vec!["/k".into()]));
    // Mosquitto agrees upon no ALPN, and takes everybody.
    assert_eq!((found.alpn, found.client_ca_files), (Vec::new(), Vec::new()));
    // Clients are asked for certificates where they must have one.
    let authorities = |text: &str| {
        let found = tls(&format!("{server}cafile /ca\ncapath /dir\ncrlfile /crl\n{text}")).expect(text).expect("TLS");
        (found.client_ca_files.len(), found.crl_files.len(), found.user_name_from_certificate)
    };
    assert_eq!(authorities(""), (0, 0, UserNameFrom::No));
    // Otherwise the same files have what the chain lacks.
    let chain = |text: &str| {
        let found = tls(&format!("{server}cafile /ca\ncapath /dir\n{text}")).expect(text).expect("TLS");
        found.chain_files
    };
    assert_eq!(chain(""), [PathBuf::from("/ca"), PathBuf::from("/dir")]);
    assert_eq!(chain("require_certificate true"), Vec::<PathBuf>::new());
    assert_eq!(authorities("require_certificate true"), (2, 1, UserNameFrom::No));
    assert_eq!(authorities("use_identity_as_username true"), (2, 1, UserNameFrom::CommonName));
    assert_eq!(authorities("require_certificate true\nuse_subject_as_username true"), (2, 1, UserNameFrom::Subject));
    assert_eq!(authorities("use_identity_as_username true\nuse_subject_as_username true").2, UserNameFrom::CommonName);
    // Who has a certificate with a name is somebody.
    let named = "listener 8883\ncertfile /c\nkeyfile /k\ncafile /ca\n";
    let warnings = |text: &str| of_conf(&format!("{named}{text}")).expect(text).warnings;
    assert_eq!(warnings("use_identity_as_username true"), Vec::<String>::new());
    assert_eq!(warnings("require_certificate true").len(), 1, "anonymous clients are refused");
    let dates = "cafile /ca\nrequire_certificate true\ndisable_client_cert_date_checks true";
    assert!(tls(&format!("{server}{dates}")).expect("dates").expect("TLS").ignore_certificate_dates);
    // Nor does who has shown one to the proxy.
    let by_proxy = of_conf("listener 1883\nenable_proxy_protocol 2\nuse_identity_as_username true").expect("a proxy");
    assert!(by_proxy.listeners[0].transport.user_name_by_proxy);
    assert_eq!(by_proxy.warnings.len(), 1, "that it believes everybody: {:?}", by_proxy.warnings);
    // Without a certificate there is no TLS, and what is said of it is of no consequence.
    let without = of_conf("listener 1883\nrequire_certificate false\ntls_version tlsv1.2\nciphers HIGH\ncrlfile /c")
        .expect("plain");
    assert_eq!(without.listeners[0].tls, None);
    let expected = [("ciphers", 4), ("crlfile", 5), ("require_certificate", 2), ("tls_version", 3)];
    assert_eq!(without.warnings.len(), expected.len() + 1, "{:?}", without.warnings);
    for ((name, line), warning) in expected.iter().zip(&without.warnings) {
        let whole = format!("mosquitto.conf:{line}: directive \"{name}\" has no effect: the listener has no certfile");
        assert_eq!(*warning, whole);
    }
    // What would have kept somebody out is refused, by its own name and line.
    for (text, message) in [
        (
            "\nrequire_certificate true",
            "mosquitto.conf:3: directive \"require_certificate\" needs \"certfile\" beside it",
        ),
        ("use_subject_as_username true", "mosquitto.conf:2: directive \"use_subject_as_username\" needs \"certfile\""),
        (
            "use_identity_as_username true",
            "mosquitto.conf:2: directive \"use_identity_as_username\" needs \"certfile\"",
        ),
        ("capath /ca", "mosquitto.conf:2: directive \"capath\" needs \"certfile\" beside it"),
        ("keyfile /k", "mosquitto.conf:2: directive \"keyfile\" needs \"certfile\" beside it"),
        (
            "certfile /c\nuse_identity_as_username true",
            "mosquitto.conf:3: directive \"use_identity_as_username\" needs \"cafile\"",
        ),
    ] {
        let error = tls(text).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
    for (version, expected) in [("tlsv1.2", vec!["1.2", "1.3"]), ("tlsv1.3", vec!["1.3"])] {
        let found = tls(&format!("{server}tls_version {version}")).expect(version).expect("TLS");
        assert_eq!(found.versions, expected);
    }
    let config = of_conf(
        "listener 8883\ncertfile /c\nkeyfile /k\nciphers ECDHE-RSA-AES128-GCM-SHA256:AES256-SHA\n\
         ciphers_tls1.3 TLS_AES_256_GCM_SHA384\ndhparamfile /dh\ntls_keyform pem",
    )
    .expect("ciphers");
    let found = config.listeners[0].tls.as_ref().expect("TLS");
    assert_eq!(found.ciphers, ["ECDHE-RSA-AES128-GCM-SHA256", "TLS_AES_256_GCM_SHA384"]);
    assert!(config.warnings[1].contains("\"dhparamfile\" has no effect"), "{:?}", config.warnings);
    assert!(config.warnings[0].contains("AES256-SHA"), "{:?}", config.warnings);
    for (text, message) in [
        ("psk_file /p", "\"psk_file\" cannot be used: TLS with pre-shared keys is not offered"),
        ("psk_hint h", "\"psk_hint\" cannot be used: TLS with pre-shared keys is not offered"),
        ("tls_engine e", "there are no OpenSSL engines"),
        ("tls_engine_kpass_sha1 e", "there are no OpenSSL engines"),
        ("tls_keyform engine", "there are no OpenSSL engines"),
        ("tls_version tlsv1.1", "TLS 1.1 and older can be broken"),
        ("tls_version tlsv1", "TLS 1.1 and older can be broken"),
        ("tls_version ssl", "(allowed: tlsv1.3, tlsv1.2)"),
        ("ciphers AES256-SHA", "there is none of these cipher suites"),
        ("ciphers CHACHA20:!ECDHE", "there is none of these cipher suites"),
        ("cafile /ca", "needs \"certfile\""),
        ("certfile /c\nkeyfile /k\nrequire_certificate true", "needs \"cafile\""),
    ] {
        let error = tls(text).expect_err(text);
        assert!(error.contains(message), "{text}: {error}");
    }
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

/// What comes of a directive of Mosquitto's.
enum Outcome {
    /// This value is in force.
    Effective(&'static str),
    /// There is nothing to be done, and nothing to be said.
    Same,
    /// One line of warning, with this in it.
    Warned(&'static str),
    /// Refused by its line, with this in it.
    Refused(&'static str),
    /// The tests of what it is about tell.
    Elsewhere,
}

/// Every directive of Mosquitto 2.1, with a value, and what comes of it.
const DIRECTIVES: &[(&str, Outcome)] = {
    use Outcome::*;
    const BRIDGE: Outcome = Refused("belongs to a bridge");
    &[
        ("acl_file /a", Elsewhere),
        ("allow_anonymous false", Effective("listener 127.0.0.1:1883 allow_anonymous\tfalse\n")),
        ("allow_duplicate_messages true", Effective("delivery.allow_duplicate_messages\ttrue\n")),
        ("allow_zero_length_clientid false", Effective("broker.allow_zero_length_client_id\tfalse\n")),
        ("auto_id_prefix a-", Effective("broker.auto_id_prefix\ta-\n")),
        ("autosave_interval 10", Warned("no snapshots")),
        ("autosave_on_changes true", Warned("no snapshots")),
        ("check_retain_source false", Effective("delivery.check_retain_source\tfalse\n")),
        ("check_retain_source true", Same),
        ("clientid_prefixes a", Elsewhere),
        ("connection_messages false", Effective("log.connection_messages\tfalse\n")),
        ("enable_control_api false", Same),
        ("enable_control_api true", Effective("broker.control_api\ttrue\n")),
        ("global_max_clients 5", Effective("limits.sessions_max\t5\n")),
        ("global_max_connections 5", Effective("limits.connections_max\t5\n")),
        ("global_plugin /usr/lib/other.so", Elsewhere),
        ("plugin /usr/lib/other.so", Elsewhere),
        ("global_plugin /usr/lib/mosquitto_sparkplug_aware.so", Effective("broker.sparkplug_aware\ttrue\n")),
        ("plugin /usr/lib/mosquitto_sparkplug_aware.so", Effective("broker.sparkplug_aware\ttrue\n")),
        ("auth_plugin mosquitto_sparkplug_aware.so", Effective("broker.sparkplug_aware\ttrue\n")),
        ("plugin_load s mosquitto_sparkplug_aware.so\nplugin_use s", Effective("broker.sparkplug_aware\ttrue\n")),
        ("plugin_load s mosquitto_sparkplug_aware.so", Same),
        ("auth_plugin /usr/lib/other.so", Elsewhere),
        ("plugin_load a /usr/lib/other.so", Elsewhere),
        ("plugin_use a", Elsewhere),
        ("plugin_opt_a b", Elsewhere),
        ("auth_opt_a b", Elsewhere),
        ("auth_plugin_deny_special_chars true", Elsewhere),
        ("include_dir /nowhere", Refused("cannot be read")),
        ("log_dest stdout", Effective("log.destinations\tstdout\n")),
        ("log_dest file /var/log/m", Effective("log.file\t/var/log/m\n")),
        ("log_dest stderr\nlog_dest dlt", Warned("not supported")),
        ("log_facility 5", Elsewhere),
        ("log_timestamp false", Effective("log.timestamp\toff\n")),
        ("log_timestamp_format %H:%M", Effective("log.timestamp\t%H:%M\n")),
        ("log_type error", Effective("log.types\terror\n")),
        ("max_inflight_bytes 9", Effective("limits.inflight_bytes_max\t9\n")),
        ("max_inflight_messages 1", Effective("limits.inflight_messages_max\t1\n")),
        ("max_keepalive 60", Effective("limits.keep_alive_max\t60\n")),
        ("max_packet_size 1000", Effective("limits.packet_bytes_max\t1000\n")),
        ("max_queued_bytes 9", Effective("limits.queued_bytes_max\t9\n")),
        ("max_queued_messages 9", Effective("limits.queued_messages_max\t9\n")),
        ("memory_limit 1000000", Elsewhere),
        ("message_size_limit 9", Effective("limits.payload_bytes_max\t9\n")),
        ("password_file /p", Elsewhere),
        ("per_listener_settings false", Same),
        ("persistence true", Effective("broker.durability\tfsync\n")),
        ("retained_persistence true", Effective("broker.durability\tfsync\n")),
        ("persistence_file m.db", Elsewhere),
        ("persistence_location /m", Effective("broker.data_dir\t/m/pantala\n")),
        ("persistent_client_expiration 1d", Effective("limits.session_expiry_max\t86400\n")),
        ("pid_file /p", Elsewhere),
        ("user mosquitto", Elsewhere),
        ("psk_file /p", Elsewhere),
        ("queue_qos0_messages true", Effective("delivery.queue_qos0_messages\ttrue\n")),
        ("retain_available false", Effective("features.retain_available\tfalse\n")),
        ("retain_expiry_interval 5", Warned("all the time")),
        ("retry_interval 20", Warned("after a reconnect only")),
        ("set_tcp_nodelay false", Effective("listener 127.0.0.1:1883 tcp_no_delay\tfalse\n")),
        ("sys_interval 10", Elsewhere),
        ("upgrade_outgoing_qos true", Effective("delivery.upgrade_outgoing_qos\ttrue\n")),
        ("listener 1999 127.0.0.2", Effective("listener 127.0.0.2:1999\t\n")),
        ("listener 0 /run/m.sock", Effective("listener unix:/run/m.sock\t\n")),
        ("port 1999", Effective("listener *:1999\t\n")),
        ("bind_address 127.0.0.2", Effective("listener 127.0.0.2:1883\t\n")),
        ("bind_interface lo", Effective("listener lo:1883\t\n")),
        ("socket_domain ipv4", Effective("listener *:1883 socket_domain\tipv4\n")),
        ("protocol mqtt", Same),
        ("protocol http_api", Refused("\"http_api\"")),
        ("protocol mqttsn", Refused("\"mqttsn\"")),
        ("accept_protocol_versions 4,5", Elsewhere),
        ("listener_allow_anonymous true", Effective("listener *:1883 allow_anonymous\ttrue\n")),
        ("listener_auto_id_prefix l-", Effective("listener *:1883 auto_id_prefix\tl-\n")),
        ("max_connections 5", Effective("listener *:1883 connections_max\t5\n")),
        ("max_qos 1", Effective("listener *:1883 maximum_qos\t1\n")),
        ("maximum_qos 1", Effective("listener *:1883 maximum_qos\t1\n")),
        ("max_topic_alias 3", Effective("listener *:1883 topic_alias_max\t3\n")),
        ("max_topic_alias_broker 3", Effective("listener *:1883 topic_alias_broker_max\t3\n")),
        ("mount_point a/", Elsewhere),
        ("use_username_as_clientid true", Elsewhere),
        ("enable_proxy_protocol 2", Elsewhere),
        ("proxy_protocol_v2_require_tls true", Elsewhere),
        ("http_dir /srv", Refused("not supported")),
        ("packet_buffer_size 4096", Elsewhere),
        ("websockets_headers_size 4096", Elsewhere),
        ("websockets_log_level 0", Elsewhere),
        ("websockets_origin http://a", Elsewhere),
        ("certfile /c", Elsewhere),
        ("keyfile /k", Elsewhere),
        ("cafile /c", Elsewhere),
        ("capath /c", Elsewhere),
        ("require_certificate true", Elsewhere),
        ("use_identity_as_username true", Elsewhere),
        ("use_subject_as_username true", Elsewhere),
        ("crlfile /c", Elsewhere),
        ("disable_client_cert_date_checks true", Elsewhere),
        ("tls_version tlsv1.2", Elsewhere),
        ("ciphers x", Elsewhere),
        ("ciphers_tls1.3 x", Elsewhere),
        ("dhparamfile /d", Elsewhere),
        ("tls_engine e", Elsewhere),
        ("tls_engine_kpass_sha1 e", Elsewhere),
        ("tls_keyform engine", Elsewhere),
        ("psk_hint h", Elsewhere),
        ("connection b", Refused("connection needs \"address\"")),
        ("connection b\naddress a\ntopic #", Refused("there are no bridges yet")),
        ("address a", BRIDGE),
        ("addresses a", BRIDGE),
        ("topic #", BRIDGE),
        ("round_robin true", BRIDGE),
        ("start_type lazy", BRIDGE),
        ("idle_timeout 60", BRIDGE),
        ("threshold 10", BRIDGE),
        ("restart_timeout 5 30", BRIDGE),
        ("keepalive_interval 60", BRIDGE),
        ("cleansession true", BRIDGE),
        ("local_cleansession true", BRIDGE),
        ("remote_clientid a", BRIDGE),
        ("clientid a", BRIDGE),
        ("local_clientid a", BRIDGE),
        ("remote_username a", BRIDGE),
        ("username a", BRIDGE),
        ("remote_password a", BRIDGE),
        ("password a", BRIDGE),
        ("local_username a", BRIDGE),
        ("local_password a", BRIDGE),
        ("notifications true", BRIDGE),
        ("notifications_local_only true", BRIDGE),
        ("notification_topic a", BRIDGE),
        ("try_private true", BRIDGE),
        ("bridge_attempt_unsubscribe true", BRIDGE),
        ("bridge_bind_address 127.0.0.1", BRIDGE),
        ("bridge_protocol_version mqttv50", BRIDGE),
        ("bridge_max_packet_size 0", BRIDGE),
        ("bridge_max_topic_alias 10", BRIDGE),
        ("bridge_receive_maximum 20", BRIDGE),
        ("bridge_session_expiry_interval 0", BRIDGE),
        ("bridge_outgoing_retain true", BRIDGE),
        ("bridge_reload_type lazy", BRIDGE),
        ("bridge_tcp_keepalive 60 10 3", BRIDGE),
        ("bridge_tcp_user_timeout 5", BRIDGE),
        ("bridge_cafile /c", BRIDGE),
        ("bridge_capath /c", BRIDGE),
        ("bridge_certfile /c", BRIDGE),
        ("bridge_keyfile /c", BRIDGE),
        ("bridge_tls_use_os_certs true", BRIDGE),
        ("bridge_insecure false", BRIDGE),
        ("bridge_alpn mqtt", BRIDGE),
        ("bridge_tls_version tlsv1.2", BRIDGE),
        ("bridge_ciphers x", BRIDGE),
        ("bridge_ciphers_tls1.3 x", BRIDGE),
        ("bridge_require_ocsp true", BRIDGE),
        ("bridge_identity i", BRIDGE),
        ("bridge_psk 00", BRIDGE),
    ]
};

#[test]
fn every_directive_of_mosquitto_does_what_it_says_or_says_that_it_does_not() {
    for (text, outcome) in DIRECTIVES {
        let result = of_conf(text);
        let last = format!("mosquitto.conf:{}: ", 1 + text.matches('\n').count());
        // That nobody can come in is another matter.
        let result = result.map(|mut config| {
            config.warnings.retain(|warning| !warning.contains("lets nobody in"));
            config
        });
        match (outcome, result) {
            (Outcome::Effective(value), Ok(config)) => {
                let effective = config.effective().to_text();
                assert!(effective.contains(value), "{text} does not come to {value}: {effective}");
                assert!(!of_conf("").expect("nothing").effective().to_text().contains(value), "{text} shows nothing");
                assert_eq!(config.warnings, [""; 0], "{text}");
            }
            (Outcome::Same, Ok(config)) => assert_eq!(Ok(config), of_conf(""), "{text}"),
            (Outcome::Warned(words), Ok(config)) => {
                assert_eq!(config.warnings.len(), 1, "{text}: {:?}", config.warnings);
                let warning = &config.warnings[0];
                assert!(warning.starts_with(&last) && warning.contains(words), "{text}: {warning}");
                assert_eq!(config.effective(), of_conf("").expect("nothing").effective(), "{text}");
            }
            (Outcome::Refused(words), Err(message)) => {
                let placed = message.contains("mosquitto.conf:1: ");
                assert!(placed && message.contains(words) && message.lines().count() == 1, "{text}: {message}");
            }
            (Outcome::Elsewhere, Err(message)) => assert!(!message.contains("unknown directive"), "{text}: {message}"),
            (Outcome::Elsewhere, Ok(_)) => {}
            (_, result) => panic!("{text}: {result:?}"),
        }
    }
    // And the other way round: what is known is on this list.
    for known in mosquitto::directives().filter(|known| !known.ends_with('*')) {
        let is_listed = DIRECTIVES.iter().any(|(text, _)| text.split(' ').next() == Some(known));
        assert!(is_listed, "{known} is on no list of Mosquitto's directives");
    }
}

#[test]
fn a_converted_mosquitto_conf_comes_to_the_same() {
    let directory = Directory::new();
    let texts = DIRECTIVES.iter().map(|(text, _)| (*text).to_owned()).chain([
        String::new(),
        "log_dest none\nlog_type none".to_owned(),
        "auto_id_prefix \"a\\b\u{7f}".to_owned(),
        "log_timestamp_format \"%H\\t\"".to_owned(),
        "listener 1883\nlistener 1884 ::1\nmax_connections -1\nlistener 0 /run/m m.sock\nallow_anonymous true"
            .to_owned(),
        "per_listener_settings true\nlistener 1\nallow_anonymous true\nlistener 2\nset_tcp_nodelay false".to_owned(),
        // What is one text has to stay one: as two or a shorter one it lets others in.
        "clientid_prefixes dev,".to_owned(),
        "per_listener_settings true\nlistener 1\nallow_zero_length_clientid false\nauto_id_prefix a\nlistener 2"
            .to_owned(),
        r"clientid_prefixes a\,b".to_owned(),
        // The default of another limit bows to it, and went below what can be written.
        "max_packet_size 20".to_owned(),
        "max_packet_size 63".to_owned(),
        "max_packet_size 64\nmax_inflight_messages 0\nmessage_size_limit 268435455".to_owned(),
        "listener 1 ::1\nsocket_domain ipv6\nmax_topic_alias 0\nmax_topic_alias_broker 65535".to_owned(),
        "listener 1\ncertfile /a,b.pem\nkeyfile /c, d\\\ncafile /e,\nrequire_certificate true".to_owned(),
    ]);
    let mut converted = 0;
    for text in texts {
        let path = directory.write("a.conf", &text);
        let Ok(config) = of_conf(&text) else {
            assert!(convert(&path).is_err(), "{text}");
            continue;
        };
        let toml = convert(&path).expect(&text);
        let again = of_toml(&toml).unwrap_or_else(|error| panic!("{text}\n{toml}\n{error}"));
        assert_eq!(again.effective(), config.effective(), "{text}\n{toml}");
        assert_eq!(again.describe(), config.describe(), "{text}\n{toml}");
        for warning in &config.warnings {
            let said = warning.split_once(": ").expect("a place").1;
            assert!(toml.lines().any(|line| line.starts_with('#') && line.ends_with(said)), "{text}\n{toml}");
        }
        converted += 1;
    }
    assert!(converted > 40, "{converted}");
    let path =
        directory.write("a.conf", "allow_duplicate_messages true\nmax_queued_messages 100000\nautosave_interval 5");
    let toml = convert(&path).expect("a file");
    assert_eq!(
        toml,
        format!(
            "# Made from {path}.\n#\n# Left out, or to be known:\n\
             # - {path}:3: directive \"autosave_interval\" has no effect: there are no snapshots to be saved\n\
             #\n# Not as Mosquitto has it by default:\n\
             # - limits.queued_messages_max is 100000, in Mosquitto 1000\n\
             # - limits.queued_bytes_max is 268435456, in Mosquitto no limit\n\
             # - listener.tcp_no_delay is true, in Mosquitto false\n\
             \n[broker]\ndurability = \"memory\"\n\
             \n[delivery]\nallow_duplicate_messages = true\n\
             \n[log]\ntimestamp = \"epoch\"\n\
             \n[[listener]]\nport = 1883\nhost = \"127.0.0.1\"\nallow_anonymous = true\nsessions_belong_to_users = false\n\
             \n[[listener]]\nport = 1883\nhost = \"::1\"\nallow_anonymous = true\nsessions_belong_to_users = false\n",
            path = path.display()
        )
    );
}

/// Found by a fuzzer: a path went into the log with all that it has.
#[test]
fn control_characters_are_shown_and_do_nothing() {
    let toml = "[[security]]\nname = \"a\"\nacl_file = \"/a\\nlistener *:1\"\n\
                [[listener]]\nunix_path = \"/b\\u001bc\"\nsecurity = \"a\"\n";
    let config = of_toml(toml).expect("a configuration");
    let text = config.describe();
    assert!(text.contains(r"ACL file /a\nlistener *:1") && text.contains(r"listener unix:/b\u{1b}c"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
    let config = of_conf("certfile /a\u{1b}\nkeyfile /b\npassword_file /c\u{1b}").expect("a configuration");
    assert!(!config.warnings.iter().any(|warning| warning.contains(char::is_control)), "{:?}", config.warnings);
    let error = of_conf("plugin mosquitto_acl_file.so\nplugin_opt_a\u{1b}[2J").unwrap_err();
    assert!(error.ends_with(r#"directive "plugin_opt_a\u{1b}[2J" needs a value"#), "{error}");
}

/// A fuzzer does not guess that a file could say `max_inflight_bytes`. `UPDATE_CORPUS=1` writes the dictionaries anew.
#[test]
fn the_dictionaries_of_fuzzers_have_all_keys() {
    fn words<Written, Used>(keys: &[Key<Written, Used>]) -> Vec<String> {
        let mut words = Vec::new();
        for key in keys {
            words.push(format!("\n{} = ", key.name));
            let allowed: &[&str] = match key.kind {
                Kind::Choice { allowed, .. } | Kind::List { allowed, .. } => allowed,
                Kind::Number { word: Some(word), .. } => &[word],
                _ => &[],
            };
            words.extend(allowed.iter().map(|word| format!("\"{word}\"")));
        }
        words
    }
    let sections = key::SECTIONS.iter();
    let mut toml: Vec<_> = sections.clone().map(|section| format!("\n[{}]", section.name)).collect();
    toml.extend(key::LISTS.iter().map(|list| format!("\n[[{list}]]")));
    toml.extend(sections.flat_map(|section| words(section.keys)));
    toml.extend([words(key::LISTENER), words(key::DURABILITY), words(key::SCRAM_USER), words(key::SECURITY)].concat());
    let directives = DIRECTIVES.iter().map(|(text, _)| format!("\n{text}\n"));
    let blocks = ["listener 1884 ::1", "per_listener_settings true", "connection b\naddress h\ntopic # both 2 l/ r/"];
    let mosquitto = directives.chain(blocks.map(|text| format!("\n{text}\n"))).collect();
    for (name, mut words) in [("config_toml", toml), ("config_mosquitto", mosquitto)] {
        words.sort_unstable();
        words.dedup();
        let escaped = words.iter().map(|word| {
            let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\x0A").replace('\t', "\\x09");
            format!("\"{word}\"\n")
        });
        let text = escaped.collect::<String>();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/dictionaries").join(name);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::write(&path, &text).expect("it can be written");
        }
        assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "{name}");
    }
}

/// Whole files as people have them: `tests/mosquitto-conf/NAME/mosquitto.conf`, and beside it what comes of it.
#[test]
fn files_from_the_world_come_to_what_is_expected() {
    let root = Path::new("tests/mosquitto-conf");
    let mut names: Vec<PathBuf> =
        fs::read_dir(root).expect("the files").map(|entry| entry.expect("one").path()).collect();
    names.sort();
    assert!(names.len() >= 12, "{names:?}");
    let mut wrong = Vec::new();
    for directory in names {
        let path = directory.join("mosquitto.conf");
        let place = format!("{}/", directory.display());
        let came_to = match Config::load_with(Some(&path), &Overrides::default(), &Environment::default()) {
            Ok(config) => {
                let toml = convert(&path).expect("what can be read can be converted");
                let again = of_toml(&toml).unwrap_or_else(|error| panic!("{}: {error}\n{toml}", path.display()));
                assert_eq!(again.effective(), config.effective(), "{}", path.display());
                let warnings: String = config.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
                warnings + &config.describe()
            }
            Err(error) => format!("refused: {error}\n"),
        };
        let came_to = came_to.replace(&place, "");
        let expected = fs::read_to_string(directory.join("expected")).unwrap_or_default();
        if came_to != expected {
            wrong.push(format!("{}\n{came_to}\ninstead of\n{expected}", directory.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_wrong_with_a_mosquitto_conf_is_said_with_its_line() {
    let cases = [
        (
            "\nbridge_cafile x",
            r#"mosquitto.conf:2: directive "bridge_cafile" belongs to a bridge, and has to follow its "connection" line"#,
        ),
        (
            "listener 1 ::1\nbind_interface lo",
            r#"mosquitto.conf:2: directive "bind_interface" cannot be for a listener that has an address already"#,
        ),
        (
            "plugin_opt_anything x",
            "mosquitto.conf:1: directive \"plugin_opt_\" has to stand behind the plugin that it is for",
        ),
        (
            "plugin /usr/lib/mosquitto_password_file.so\nplugin_opt_users x",
            "mosquitto.conf:2: unknown directive \"plugin_opt_users\"; did you mean \"plugin_opt_password_file\"?",
        ),
        ("plugin mosquitto_acl_file.so", r#"mosquitto.conf:1: directive "plugin_opt_acl_file" needs a value"#),
        ("plugin_use x", r#"mosquitto.conf:1: "plugin_use" cannot be "x": no plugin_load above has this name"#),
        (
            "auth_plugin /usr/lib/go-auth.so",
            "mosquitto.conf:1: \"auth_plugin\" cannot be \"/usr/lib/go-auth.so\": no shared object is loaded here; \
             mosquitto_password_file.so, mosquitto_acl_file.so, mosquitto_dynamic_security.so, \
             mosquitto_persist_sqlite.so and mosquitto_sparkplug_aware.so are built in, and `[[security]]` in a .toml asks HTTP services",
        ),
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
        ("protocol http_api", r#"mosquitto.conf:1: directive "protocol" with "http_api" is not supported yet"#),
        ("log_dest file", r#"mosquitto.conf:1: directive "log_dest file" needs a value"#),
        (
            "listener 1\nper_listener_settings true",
            "mosquitto.conf:2: directive \"per_listener_settings\" has to stand in front of all listeners and security \
             settings",
        ),
        (
            "include_dir /nonexistent/d",
            "mosquitto.conf:1: /nonexistent/d cannot be read: No such file or directory (os error 2)",
        ),
        ("include_dir", r#"mosquitto.conf:1: directive "include_dir" needs a value"#),
        ("auto_id_prefix", r#"mosquitto.conf:1: directive "auto_id_prefix" needs a value"#),
        // These were told in the words of a TOML file, at the place of something else.
        (
            "listener 1\nenable_proxy_protocol 1\nproxy_protocol_v2_require_tls true",
            "mosquitto.conf:3: directive \"proxy_protocol_v2_require_tls\" needs \"enable_proxy_protocol 2\" beside it",
        ),
        (
            "listener 1\nproxy_protocol_v2_require_tls false\nproxy_protocol_v2_require_tls true",
            "mosquitto.conf:3: directive \"proxy_protocol_v2_require_tls\" needs \"enable_proxy_protocol 2\" beside it",
        ),
        (
            "listener 1\nenable_proxy_protocol 2\nuse_subject_as_username true",
            "mosquitto.conf:3: directive \"use_subject_as_username\" needs \"certfile\" beside it",
        ),
        (
            "plugin mosquitto_dynamic_security.so\nplugin_opt_config_file /d\npassword_file /p\nacl_file /a",
            "mosquitto.conf:3: directive \"password_file\" cannot stand beside the plugin mosquitto_dynamic_security, whose \
             file has users and rules of its own",
        ),
        (
            "per_listener_settings true\nlistener 1\nacl_file /a\nplugin mosquitto_dynamic_security.so\n\
             plugin_opt_config_file /d",
            "mosquitto.conf:3: directive \"acl_file\" cannot stand beside the plugin mosquitto_dynamic_security, whose \
             file has users and rules of its own",
        ),
        (
            "plugin mosquitto_password_file.so\nplugin_opt_password_file /p\nplugin mosquitto_dynamic_security.so\n\
             plugin_opt_config_file /d",
            "mosquitto.conf:2: directive \"plugin_opt_password_file\" cannot stand beside the plugin \
             mosquitto_dynamic_security, whose file has users and rules of its own",
        ),
        (
            "per_listener_settings true\nlistener 1\npassword_file /p\nlistener 1\npassword_file /q",
            "mosquitto.conf:4: \"listener 1\" is there twice",
        ),
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
    // What a listener is silent about is as it is by default, and not as another has it.
    let config = of_conf(
        "per_listener_settings true\nallow_zero_length_clientid false\nauto_id_prefix x-\nport 1\nlistener 2\n\
         auto_id_prefix y-\nlistener 3\nallow_zero_length_clientid false\nlistener 4\nauto_id_prefix no-\n\
         listener_auto_id_prefix z-",
    )
    .expect("four listeners");
    let default = Settings::default();
    assert_eq!(
        (config.settings.allow_zero_length_client_id, config.settings.auto_id_prefix),
        (default.allow_zero_length_client_id, default.auto_id_prefix)
    );
    let own = config.listeners.iter().map(|listener| &listener.settings);
    let own: Vec<_> = own.map(|it| (it.allow_zero_length_client_id, it.auto_id_prefix.as_deref())).collect();
    assert_eq!(own, [(Some(false), Some("x-")), (None, Some("y-")), (Some(false), None), (None, Some("z-"))]);
    // The one that stands above all others needs no settings per listener.
    let config =
        of_conf("auto_id_prefix x-\nlistener 1\nlistener_auto_id_prefix a\nlistener 2").expect("two listeners");
    let own: Vec<_> = config.listeners.iter().map(|listener| listener.settings.auto_id_prefix.as_deref()).collect();
    assert_eq!((config.settings.auto_id_prefix.as_str(), own), ("x-", vec![Some("a"), None]));
}

/// They share a port, and were taken for one security domain that was there twice.
#[test]
fn listeners_of_ipv4_and_ipv6_have_users_of_their_own() {
    let config = of_conf(
        "per_listener_settings true\nlistener 1\nsocket_domain ipv4\npassword_file /4\nlistener 1\nsocket_domain ipv6\n\
         password_file /6",
    )
    .expect("two listeners");
    let own: Vec<_> = config.listeners.iter().map(|it| &config.security[usize::from(it.settings.security.0)]).collect();
    let own: Vec<_> = own.iter().map(|domain| (&*domain.name, domain.password_file.as_deref())).collect();
    assert_eq!(own, [("listener 1", Some(Path::new("/4"))), ("listener 1 ipv6", Some(Path::new("/6")))]);
}

/// In front of all listeners such a file is for one that is not there; nobody was told.
#[test]
fn files_of_a_listener_that_is_not_there_are_warned_of() {
    let warnings = |text: &str| {
        let warnings =
            of_conf(&format!("per_listener_settings true\nallow_anonymous true\n{text}")).expect(text).warnings;
        warnings.into_iter().filter(|warning| warning.contains("has no effect")).collect::<Vec<_>>()
    };
    let because = "has no effect: with per_listener_settings it is for the listener whose line stands above it";
    assert_eq!(
        warnings("password_file /p\nacl_file /a\nlistener 1"),
        [
            format!("mosquitto.conf:3: directive \"password_file\" {because}"),
            format!("mosquitto.conf:4: directive \"acl_file\" {because}"),
        ]
    );
    for fine in [
        "password_file /p",
        "password_file /p\nport 1\nlistener 2",
        "listener 1\npassword_file /p",
        "global_plugin mosquitto_acl_file.so\nplugin_opt_acl_file /g\nlistener 1",
    ] {
        assert_eq!(warnings(fine), Vec::<String>::new(), "{fine}");
    }
}

#[test]
fn prefixes_of_client_identifiers_are_those_of_all_listeners_or_each_has_its_own() {
    let prefixes = |text: &str| -> Vec<Vec<String>> {
        let listeners = of_conf(text).expect(text).listeners;
        listeners.into_iter().map(|listener| listener.settings.client_id_prefixes).collect()
    };
    let of = |prefixes: &[&str]| prefixes.iter().map(|prefix| (*prefix).to_owned()).collect::<Vec<_>>();
    assert_eq!(prefixes("clientid_prefixes a-"), [of(&["a-"]), of(&["a-"])]);
    assert_eq!(prefixes("per_listener_settings true\nclientid_prefixes a-"), [of(&["a-"]), of(&["a-"])]);
    assert_eq!(prefixes("clientid_prefixes a-\nlistener 1\nlistener 2"), [of(&["a-"]), of(&["a-"])]);
    let own = "per_listener_settings true\nlistener 1\nclientid_prefixes a-\nlistener 2";
    assert_eq!(prefixes(own), [of(&["a-"]), of(&[])]);
}

#[test]
fn what_a_listener_asks_of_its_clients_has_to_make_sense() {
    for (text, reason) in [
        ("mount_point a/#", "it stands before Topic Names, and so has no wildcards"),
        ("mount_point $SYS/", "topics that begin with $ are the broker's own"),
        (
            "accept_protocol_versions 4,6",
            "it has to be some of 3 (MQTT 3.1), 4 (3.1.1) and 5 (5.0), with commas between",
        ),
        ("accept_protocol_versions ,", "it has to be some of"),
        ("accept_protocol_versions 4, five", "it has to be some of"),
    ] {
        let message = of_conf(&format!("listener 1\n{text}")).expect_err(text);
        assert!(message.contains(reason), "{text}: {message}");
    }
    for (text, reason) in [
        ("mount_point = \"\"", "it must not be empty"),
        ("mount_point = \"a/+/\"", "it stands before Topic Names, and so has no wildcards"),
        ("versions = [\"4\"]", "3.1, 3.1.1, 5.0"),
        ("client_id_prefixes = [\"a\", \"\"]", "it must not be empty"),
    ] {
        let message = of_toml(&format!("[[listener]]\n{text}")).expect_err(text);
        assert!(message.contains(reason), "{text}: {message}");
    }
    let own = of_toml("[[listener]]\nhost = \"127.0.0.1\"").expect("a listener").listeners.remove(0).settings;
    assert!(own.sessions_belong_to_users);
    let conf = of_conf("allow_anonymous true").expect("no listener").listeners;
    assert!(conf.iter().all(|listener| !listener.settings.sessions_belong_to_users));
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
        "retry_interval 20\nautosave_interval 1800\nautosave_on_changes false\n\
         log_dest dlt\nauth_plugin_deny_special_chars false",
    )
    .expect("all accepted");
    let expected = [
        "mosquitto.conf:1: directive \"retry_interval\" has no effect: MQTT messages are sent again after a reconnect only",
        "mosquitto.conf:2: directive \"autosave_interval\" has no effect: there are no snapshots to be saved",
        "mosquitto.conf:3: directive \"autosave_on_changes\" has no effect: there are no snapshots to be saved",
        "mosquitto.conf:4: directive \"log_dest\" has no effect: that log is not supported",
        "mosquitto.conf:5: directive \"auth_plugin_deny_special_chars\" has no effect: a name with such characters is never put into a rule",
    ];
    assert_eq!(config.warnings, expected);
}

#[test]
fn what_mosquitto_has_kept_is_looked_for_where_it_lies() {
    for (text, expected) in [
        ("persistence true\npersistence_location /m", Some("/m/mosquitto.db")),
        ("persistence_file x y.db\npersistence true\npersistence_location /m/", Some("/m/x y.db")),
        ("persistence true\npersistence_file m.db", Some("m.db")),
        // In the working directory, as in Mosquitto.
        ("persistence true", Some("mosquitto.db")),
        // It keeps nothing.
        ("persistence false\npersistence_location /m\npersistence_file m.db", None),
        ("persistence_location /m\npersistence_file m.db", None),
    ] {
        assert_eq!(of_conf(text).expect(text).import_file, expected.map(PathBuf::from), "{text}");
    }
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
        config.warnings[..1],
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
    for (name, bytes, place) in [
        ("a.conf", &b"max_qos 1\nlistener 1883 \xff"[..], "2:15"),
        ("a.toml", b"# caf\xe9", "1:6"),
        // What looks like a comment there is a part of the path.
        ("b.conf", b"persistence_location /caf #\xe9", "1"),
        ("c.conf", b"\nlistener 0 /run/caf #\xe9", "2"),
        ("d.conf", b"log_dest file /caf #\xe9", "1"),
        ("e.conf", b"include_dir /caf #\xe9", "1"),
    ] {
        let path = directory.write(name, bytes);
        assert_eq!(load(&path), format!("{}:{place}: is not UTF-8 text", path.display()));
    }
    let long = directory.write("long.toml", "#".repeat(FILE_BYTES_MAX as usize + 1));
    assert_eq!(load(&long), format!("{}: is longer than 1048576 bytes, the most that is read", long.display()));
    let full = directory.write("full.toml", "#".repeat(FILE_BYTES_MAX as usize));
    assert!(Config::load_with(Some(&full), &Overrides::default(), &Environment::default()).is_ok());
}

/// One byte of another encoding in a comment ended the start, without a line, and so did a mark of UTF-8 in front.
#[test]
fn comments_of_a_mosquitto_conf_may_be_in_any_encoding() {
    let directory = Directory::new();
    let folder = directory.0.join("more");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("b.conf"), b"\xef\xbb\xbfmax_keepalive 9 # caf\xe9\n").expect("a file");
    let text = format!(
        "# cafX\r\nlistener 1883 # cafX\n\tmax_qos 1 #X\n  #X\nallow_anonymous true\t#X\ninclude_dir {}\n#",
        folder.display()
    );
    for front in [&b""[..], b"\xef\xbb\xbf"] {
        let bytes: Vec<u8> = text.bytes().map(|byte| if byte == b'X' { 0xe9 } else { byte }).collect();
        let path = directory.write("a.conf", [front, &bytes].concat());
        let config = Config::load_with(Some(&path), &Overrides::default(), &Environment::default());
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((listeners(&config).as_str(), config.settings.keep_alive_max), ("*:1883+", 9));
        assert_eq!(config.listeners[0].settings.maximum_qos, QoS::AtLeastOnce);
        assert!(convert(&path).is_ok());
    }
    assert_eq!(listeners(&of_conf("\u{feff}listener 1").expect("a mark")), "*:1");
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
        (
            "PANTALA__SECURITY__PASSWORD_FILE",
            "f",
            "unknown key \"security__password_file\"; did you mean \"security__0__password_file\"?",
        ),
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
    let verification = document("crates/server/src/security/mod.rs");
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
            let ours = verification.contains(&format!("(\"{}\", ", counter.trim_matches('`')));
            assert!(ours || counters.contains(&declared), "counter {counter} of {}", key.name);
        }
    }
}

#[test]
fn the_page_of_keys_tells_the_truth() {
    let page = document("docs/configuration.md");
    let rows: Vec<Vec<String>> = rows(&page).into_iter().filter(|row| row[0].contains('.')).collect();
    let meanings: Vec<&str> = page.lines().filter(|line| line.starts_with("- `")).collect();
    let expected = reference::rows();
    for (row, key) in rows.iter().zip(&expected) {
        let name = format!("{}.{}", key.section, key.name);
        assert_eq!(row[0].trim_matches('`'), name);
        assert_eq!(unquoted(&row[1]), key.kind().replace('_', ""), "type of {name}");
        assert_eq!(unquoted(&row[2]), shown_default(&key.default), "default of {name}");
        assert_eq!(row[3].trim_matches('`'), key.variable(), "variable of {name}");
        let meaning = format!("- `{name}`: {}", key.doc);
        assert!(
            meanings.iter().any(|line| line.starts_with(&meaning)),
            "docs/configuration.md needs the line\n{meaning}"
        );
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

/// The example with all that it shows set: what has a space behind the comment sign is prose.
fn uncommented(example: &str) -> String {
    example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = document("examples/pantala.toml");
    assert_eq!(of_toml(&example), of_toml(""), "as it stands");
    // Every key is there, behind a comment sign without a space.
    let all = uncommented(&example);
    // What excludes others that are there is in prose only.
    let alternatives =
        ["jwt_jwks_file", "jwt_public_key_file", "jwt_secret_file", "rules_file", "dynamic_security_file"];
    for name in all_names().into_iter().filter(|name| !alternatives.contains(name)) {
        assert!(all.contains(&format!("\n{name} = ")), "{name}");
    }
    let config = of_toml(&all).unwrap_or_else(|message| panic!("{message}"));
    // What is shown there behind the comment sign is the default, apart from what has none to show.
    let shown: Vec<String> = config.describe().lines().map(str::to_owned).collect();
    assert_eq!(
        shown,
        [
            "broker.data_dir = /var/lib/pantala",
            "broker.import_file = /var/lib/mosquitto/mosquitto.db",
            "broker.pid_file = /run/pantala.pid",
            "broker.user = pantala",
            "broker.response_information_prefix = reply/",
            "log.file = /var/log/pantala.log",
            "redirect.server_reference = mqtt.example.org:1883",
            "durability of telemetry/# = memory",
            "scram_user ann",
            "security \"default\", tokens with keys of https://id.example.org/keys, password file /etc/pantala/passwords, \
             https://id.example.org/mqtt, ACL file /etc/pantala/acl",
            "listener 127.0.0.1:1883, anonymous, packet_bytes_max = 2000000, messages_per_second_max = 100000, bytes_per_second_max = 67108864, topic_alias_max = 10, \
             topic_alias_broker_max = 10, mount_point = plant/, client_id_prefixes = dev-,app-, \
             allow_zero_length_client_id = true, auto_id_prefix = auto-",
            "listener unix:/run/pantala/mqtt.sock, anonymous",
            "listener *:9001, no anonymous, protocol = any, websocket_path = /mqtt, websocket_origins = https://app.example, \
             proxy_protocol = v2, proxy_trusted = 10.0.0.0/8, allow_addresses = 192.0.2.0/24, \
             deny_addresses = 192.0.2.7",
            "listener *:8883, no anonymous, tls_certificate_files = /etc/pantala/broker.crt, \
             tls_key_files = /etc/pantala/broker.key, tls_chain_files = /etc/pantala/chain.crt, tls_client_ca_files = /etc/pantala/clients.crt, \
             tls_crl_files = /etc/pantala/clients.crl, \
             tls_ciphers = TLS_AES_128_GCM_SHA256,ECDHE-ECDSA-AES128-GCM-SHA256",
        ]
    );
}

/// What is wrong with a value, by as much of JSON Schema as ours has in it.
fn check_schema(schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{place}: {what}"));
    for (keyword, wanted) in schema.as_object().expect("a schema") {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "default" => {}
            "type" => {
                let is = match wanted.as_str().expect("a type") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    other => panic!("type {other}"),
                };
                if !is {
                    return wrong("type");
                }
            }
            "minimum" if value.as_i64() < wanted.as_i64() => return wrong("minimum"),
            "maximum" if value.as_i64() > wanted.as_i64() => return wrong("maximum"),
            "minimum" | "maximum" => {}
            "minItems" if value.as_array().map(Vec::len) < wanted.as_u64().map(|min| min as usize) => {
                return wrong("minItems");
            }
            "minItems" => {}
            "const" if value != wanted => return wrong("const"),
            "const" => {}
            "enum" if !wanted.as_array().expect("words").contains(value) => return wrong("enum"),
            "enum" => {}
            "anyOf" => {
                if !wanted.as_array().expect("schemas").iter().any(|one| check_schema(one, value, place).is_ok()) {
                    return wrong("anyOf");
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check_schema(wanted, item, &format!("{place}[{index}]"))?;
                }
            }
            "required" => {
                let missing = |key: &&Value| value.get(key.as_str().expect("a name")).is_none();
                if wanted.as_array().expect("names").iter().any(|key| missing(&key)) {
                    return wrong("required");
                }
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object().expect("properties");
                if value.as_object().is_some_and(|keys| keys.keys().any(|key| !known.contains_key(key))) {
                    return wrong("additionalProperties");
                }
            }
            "properties" => {
                for (key, schema) in wanted.as_object().expect("properties") {
                    if let Some(value) = value.get(key) {
                        check_schema(schema, value, &format!("{place}.{key}"))?;
                    }
                }
            }
            other => panic!("{other} is not known to this test"),
        }
    }
    Ok(())
}

fn json_of_toml(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(&**text),
        DeValue::Integer(number) => {
            let digits: String = number.as_str().chars().filter(|digit| *digit != '_').collect();
            Value::from(i64::from_str_radix(&digits, number.radix()).expect("an integer"))
        }
        DeValue::Boolean(value) => Value::from(*value),
        DeValue::Array(values) => values.iter().map(|value| json_of_toml(value.get_ref())).collect(),
        DeValue::Table(table) => json_of_table(table),
        DeValue::Float(_) | DeValue::Datetime(_) => Value::Null,
    }
}

fn json_of_table(table: &DeTable<'_>) -> Value {
    table.iter().map(|(name, value)| (name.get_ref().to_string(), json_of_toml(value.get_ref()))).collect()
}

#[test]
fn the_schema_agrees_with_the_reader() {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let check = |text: &str| {
        let document = DeTable::parse(text).expect(text);
        check_schema(&schema, &json_of_table(document.get_ref()), "")
    };
    let example = document("examples/pantala.toml");
    assert_eq!(check(&example), Ok(()));
    assert_eq!(check(&uncommented(&example)), Ok(()));
    let mut texts: Vec<String> = [
        "[limits]\npacket_bytes_mx = 1",
        "[nothing]",
        "[[listener]]\nprot = 1",
        "[[durability]]\nfilter = \"a\"",
        "[[scram_user]]\npassword = \"x\"",
        "limits = 1",
        "[listener]",
        "[broker]\nworkers = \"auto\"",
        "[broker]\nworkers = \"many\"",
        "[broker]\ndurability = \"fsync\"",
        "[broker]\ndurability = \"disk\"",
        "[log]\ntypes = [\"error\", \"all\"]",
        "[log]\ntypes = [\"eror\"]",
        "[log]\ntypes = \"error\"",
        "[delivery]\nqueue_qos0_messages = 1",
        "[limits]\npacket_bytes_max = 1e5",
        "[[listener]]\nversions = []",
        "[[listener]]\ntls_certificate_files = []",
        "[log]\ntypes = []",
    ]
    .map(str::to_owned)
    .into();
    // Every number at and beyond its bounds.
    for row in reference::rows() {
        if let reference::Shape::Number { min, max, .. } = row.shape {
            let brackets = if row.list { ("[[", "]]") } else { ("[", "]") };
            let number = |number: i128| format!("{}{}{}\n{} = {number}", brackets.0, row.section, brackets.1, row.name);
            texts.extend([min.into(), max.into(), i128::from(min) - 1].map(number));
            texts.extend((max < i64::MAX as u64).then(|| number(i128::from(max) + 1)));
        }
    }
    for text in texts {
        // Bounds that one key sets for another are not in the schema.
        let read = of_toml(&text).map(drop).or_else(|error| {
            let of_several = error.contains(", above ") || error.contains("[[security]] needs ");
            if of_several { Ok(()) } else { Err(error) }
        });
        assert_eq!(check(&text).is_ok(), read.is_ok(), "{text}: {:?}, {read:?}", check(&text));
    }
    for row in reference::rows() {
        let keys = &schema["properties"][row.section];
        let key = &(if row.list { &keys["items"] } else { keys })["properties"][row.name];
        assert_eq!(key["description"], row.doc);
        assert!(key.get("default").is_none_or(|default| check_schema(key, default, row.name).is_ok()), "{}", row.name);
    }
}

#[test]
fn the_reference_tells_of_every_key() {
    let text = reference();
    for row in reference::rows() {
        assert!(text.contains(&format!("\n  {}: {}", row.name, row.kind())), "{}", row.name);
        assert!(text.contains(&row.variable()) && text.contains(&row.doc.replace('`', "")), "{}", row.name);
        let one_line = !row.doc.contains('\n') && row.doc.ends_with('.') && row.doc.len() < 200;
        assert!(one_line, "{}: {}", row.name, row.doc);
    }
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
            "[[security]]\n",
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
