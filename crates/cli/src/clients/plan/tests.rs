//! From arguments to plans.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pantala_proto::{ProtocolVersion, QoS, RetainHandling};

use super::*;
use crate::clients::decision::Retained;
use crate::clients::flags::{Program, Surroundings};
use crate::clients::output::{Layout, Style};
use crate::clients::{Prepared, prepare};

/// A machine with these variables and files.
#[derive(Default)]
struct Machine {
    variables: HashMap<&'static str, &'static str>,
    files: HashMap<&'static str, &'static str>,
}

impl Machine {
    fn prepare(&self, program: Program, arguments: &[&str]) -> Result<Prepared, String> {
        let variable = |name: &str| self.variables.get(name).map(OsString::from);
        let read = |path: &Path| {
            let text = path.to_str().and_then(|path| self.files.get(path));
            text.map(|text| text.as_bytes().to_vec()).ok_or(io::Error::from(io::ErrorKind::NotFound))
        };
        let surroundings = Surroundings { variable: &variable, read: &read, process_id: 77 };
        let arguments = arguments.iter().map(OsString::from);
        prepare(program, "program", arguments, &surroundings).map_err(|error| error.to_string())
    }

    fn publish(&self, arguments: &[&str]) -> PublishPlan {
        match self.prepare(Program::Publish, arguments) {
            Ok(Prepared::Publish(plan)) => *plan,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }
}

fn publish(arguments: &[&str]) -> PublishPlan {
    Machine::default().publish(&[&["-t", "x", "-m", "y"], arguments].concat())
}

fn subscribe(arguments: &[&str]) -> SubscribePlan {
    match Machine::default().prepare(Program::Subscribe, arguments) {
        Ok(Prepared::Subscribe(plan)) => *plan,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

fn refused(program: Program, arguments: &[&str]) -> String {
    match Machine::default().prepare(program, arguments) {
        Ok(plan) => panic!("{arguments:?} was taken: {plan:?}"),
        Err(error) => error,
    }
}

#[test]
fn defaults_are_mosquittos() {
    let plan = publish(&[]);
    assert_eq!(plan.connection.target, Target::Tcp { host: "localhost".into(), port: 1883 });
    assert_eq!(plan.connection.version, ProtocolVersion::V311);
    assert_eq!(plan.connection.client_id, ClientId::Assigned);
    assert_eq!((plan.connection.keep_alive, plan.connection.clean_start), (60, true));
    assert_eq!((plan.qos, plan.retain, plan.connection.inflight_max, plan.repeat), (QoS::AtMostOnce, false, 20, 1));
    assert_eq!(plan.connection.tls, None);
    assert_eq!(plan.connection.connect_properties, ConnectProperties::default());
    let plan = subscribe(&["-t", "a/#"]);
    assert_eq!(plan.output.style, Style::Payload);
    assert!(plan.output.ends_lines && plan.timeout.is_none() && plan.wanted == Default::default());
    let request = Machine::default().prepare(Program::Request, &["-t", "a", "-e", "b", "-n"]);
    let Ok(Prepared::Request(plan)) = request else { panic!("{request:?}") };
    assert_eq!(plan.connection.version, ProtocolVersion::V5);
    assert_eq!(plan.properties.response_topic.as_deref(), Some("b"));
    assert_eq!(plan.payload, PayloadSource::Given(Vec::new()));
}

#[test]
fn a_url_is_address_credentials_and_topic() {
    let plan = Machine::default().publish(&["-L", "mqtts://u:p%40@h/a/b", "-m", "y"]);
    assert_eq!(plan.connection.target, Target::Tcp { host: "h".into(), port: 8883 });
    assert_eq!(plan.connection.user_name.as_deref(), Some("u"));
    assert_eq!(plan.connection.password, Some(Password::Given(b"p@".to_vec())));
    assert_eq!(plan.topic_names, ["a/b"]);
    let tls = plan.connection.tls.expect("mqtts is TLS");
    assert!(tls.system_roots && !tls.insecure && tls.ca_file.is_none());
    // What comes later goes before.
    let plan = Machine::default().publish(&["-L", "mqtt://h:99/a", "-m", "y", "-p", "1"]);
    assert_eq!(plan.connection.target, Target::Tcp { host: "h".into(), port: 1 });
    let plan = publish(&["-L", "ws://h"]);
    assert_eq!(plan.connection.transport, Transport::WebSocket("/mqtt".into()));
    assert_eq!(plan.connection.target, Target::Tcp { host: "h".into(), port: 80 });
}

#[test]
fn tls_is_on_where_it_was_meant() {
    let has_tls = |arguments: &[&str]| publish(arguments).connection.tls.is_some();
    assert!(has_tls(&["-p", "8883"]) && !has_tls(&["-p", "8883", "--no-tls"]));
    assert!(has_tls(&["--capath", "d"]) && has_tls(&["--tls-use-os-certs"]) && !has_tls(&["--insecure"]));
    let tls = publish(&["--cert", "c", "--key", "k", "--tls-version", "tlsv1.3"]).connection.tls;
    let tls = tls.expect("a certificate is for TLS");
    assert!(tls.system_roots && tls.only_version_13);
    assert_eq!(tls.identity, Some(("c".into(), "k".into())));
    let tls = publish(&["--cafile", "a", "-p", "8883"]).connection.tls.expect("it is on");
    assert!(!tls.system_roots);
    assert_eq!(publish(&["--cafile", "a"]).connection.target, Target::Tcp { host: "localhost".into(), port: 8883 });
}

#[test]
fn unix_sockets_have_two_flags() {
    let socket = Target::Unix(PathBuf::from("/s"));
    assert_eq!(publish(&["--unix", "/s", "-h", "h"]).connection.target, socket);
    assert_eq!(publish(&["-p", "0", "-h", "/s"]).connection.target, socket);
}

#[test]
fn sessions_are_named_and_expire() {
    let connection = publish(&["-c", "-i", "me", "-V", "5"]).connection;
    assert_eq!(connection.client_id, ClientId::Given("me".into()));
    assert_eq!(
        (connection.clean_start, connection.connect_properties.session_expiry_interval),
        (false, Some(u32::MAX))
    );
    assert_eq!(publish(&["-c", "-i", "me"]).connection.connect_properties.session_expiry_interval, None);
    let connection = publish(&["-I", "me-", "-x", "60"]).connection;
    assert_eq!(connection.client_id, ClientId::Given("me-77".into()));
    assert_eq!((connection.version, connection.clean_start), (ProtocolVersion::V5, true));
    assert_eq!(connection.connect_properties.session_expiry_interval, Some(60));
    for forever in ["-1", "4294967295", "∞"] {
        let connection = publish(&["-i", "me", "-x", forever]).connection;
        assert_eq!(connection.connect_properties.session_expiry_interval, Some(u32::MAX));
    }
}

#[test]
fn properties_go_to_their_packets() {
    let plan = publish(&[
        "-D",
        "PUBLISH",
        "content-type",
        "text",
        "-D",
        "publish",
        "user-property",
        "a",
        "1",
        "-D",
        "publish",
        "user-property",
        "a",
        "2",
        "-D",
        "connect",
        "receive-maximum",
        "5",
        "-D",
        "will",
        "will-delay-interval",
        "3",
        "--will-topic",
        "w",
        "-D",
        "disconnect",
        "session-expiry-interval",
        "9",
        "-x",
        "5",
        "-D",
        "disconnect",
        "reason-string",
        "why",
        "-V",
        "31",
    ]);
    assert_eq!(plan.connection.version, ProtocolVersion::V5);
    assert_eq!(plan.properties.content_type.as_deref(), Some("text"));
    assert_eq!(plan.properties.user_properties, [("a".into(), "1".into()), ("a".into(), "2".into())]);
    assert_eq!(plan.connection.connect_properties.receive_maximum.map(u16::from), Some(5));
    let disconnect = &plan.connection.disconnect_properties;
    assert_eq!((disconnect.session_expiry_interval, disconnect.reason_string.as_deref()), (Some(9), Some("why")));
    let will = plan.connection.will.expect("there is one");
    assert_eq!((will.topic_name.as_str(), will.properties.will_delay_interval), ("w", Some(3)));
    let plan = subscribe(&["-t", "a", "-D", "subscribe", "subscription-identifier", "7"]);
    assert_eq!(plan.subscribe_properties.subscription_identifier.map(u32::from), Some(7));
}

#[test]
fn what_has_no_effect_is_said() {
    let warnings = publish(&["-D", "Subscribe", "user-property", "a", "b"]).connection.warnings;
    assert_eq!(warnings, ["-D subscribe has no effect, since `pantala pub` sends no SUBSCRIBE"]);
    let warnings = subscribe(&["-t", "t", "--retain-as-published", "--retain-handling", "new"]).connection.warnings;
    assert_eq!(warnings.len(), 2);
    assert_eq!(warnings[0], "--retain-as-published has no effect before MQTT 5; add -V 5");
    assert!(subscribe(&["-t", "t", "-V", "5", "--retain-as-published"]).connection.warnings.is_empty());
    assert!(publish(&["-D", "publish", "content-type", "a"]).connection.warnings.is_empty());
}

#[test]
fn publishing_has_its_numbers() {
    let plan = publish(&["-t", "z", "-q", "2", "-r", "-M", "9", "--repeat", "3", "--repeat-delay", "0.25"]);
    assert_eq!(plan.topic_names, ["x", "z"]);
    assert_eq!((plan.qos, plan.retain, plan.connection.inflight_max, plan.repeat), (QoS::ExactlyOnce, true, 9, 3));
    assert_eq!(plan.repeat_delay, Duration::from_millis(250));
    let plan = Machine::default().publish(&["--json", "--repeat=3"]);
    assert_eq!((plan.payload, plan.repeat), (PayloadSource::StdinJson, 1));
    assert!(plan.topic_names.is_empty());
}

#[test]
fn subscribing_has_its_choices() {
    let plan = subscribe(&[
        "-t",
        "a/#",
        "-t",
        "b",
        "-U",
        "c",
        "-T",
        "a/+",
        "-R",
        "-C",
        "5",
        "-W",
        "9",
        "-v",
        "-N",
        "-E",
        "-V",
        "mqttv5",
        "--retain-as-published",
        "--retain-handling",
        "new",
        "--random-filter",
        "12.5",
        "--remove-retained",
    ]);
    assert_eq!((plan.filters, plan.unsubscribe), (vec!["a/#".into(), "b".into()], vec!["c".into()]));
    assert_eq!(plan.wanted.retained, Retained::Hidden);
    assert_eq!((plan.wanted.count, plan.wanted.print_percent), (Some(5), Some(12.5)));
    assert_eq!(plan.timeout, Some(Duration::from_secs(9)));
    assert_eq!((plan.output.style, plan.output.ends_lines), (Style::Verbose, false));
    assert!(plan.exit_after_subscribe && plan.retain_as_published);
    assert_eq!(plan.retain_handling, RetainHandling::SendIfNew);
    let plan = subscribe(&["-t", "a", "-F", "%t", "-v", "--pretty", "--retain-as-published"]);
    assert!(matches!(plan.output.style, Style::Format(_)) && plan.output.layout == Layout::Pretty);
    // Which no older version has.
    assert!(!plan.retain_as_published);
    assert!(subscribe(&["-U", "only"]).filters.is_empty());
}

#[test]
fn a_terminal_is_spoken_to_with_care() {
    use crate::clients::output::{Escaping, LocalTime};
    let escaping = |arguments: &[&str], is_terminal| {
        let zone = LocalTime::named("UTC0").expect("UTC is known");
        subscribe(&[&["-t", "a"], arguments].concat()).printer(is_terminal, zone).escaping
    };
    assert_eq!(escaping(&[], false), Escaping::Raw);
    assert_eq!(escaping(&[], true), Escaping::Terminal);
    assert_eq!(escaping(&["--raw"], true), Escaping::Raw);
    assert_eq!(escaping(&["-w", "--raw"], true), Escaping::OneLine);
}

#[test]
fn secrets_come_from_where_nobody_sees_them() {
    let machine = Machine {
        variables: HashMap::from([("SECRET", "s1"), ("TEXT", "t1")]),
        files: HashMap::from([("/secret", "s2\r\n")]),
    };
    let plan = machine.publish(&["-t", "x", "--payload-env", "TEXT", "-u", "u", "--pw-env", "SECRET"]);
    assert_eq!(plan.payload, PayloadSource::Given(b"t1".to_vec()));
    assert_eq!(plan.connection.password, Some(Password::Given(b"s1".to_vec())));
    let plan = machine.publish(&["-t", "x", "-n", "-u", "u", "--pw-file", "/secret"]);
    assert_eq!(plan.connection.password, Some(Password::Given(b"s2".to_vec())));
    assert!(!format!("{plan:?}").contains("s2"));
    let plan = machine.publish(&["-L", "mqtt://u:hidden@h/t", "-n", "--proxy", "socks5h://u:hidden@h"]);
    assert!(!format!("{plan:?}").contains("hidden"));
    let plan = machine.publish(&["-t", "x", "-n", "-V", "5", "--pw-prompt"]);
    assert_eq!(plan.connection.password, Some(Password::Prompt));
    assert!(machine.prepare(Program::Publish, &["-t", "x", "-n", "-u", "u", "--pw-env", "NONE"]).is_err());
}

#[test]
fn options_files_come_before_the_command_line() {
    let mut machine = Machine {
        variables: HashMap::from([("HOME", "/home/me")]),
        files: HashMap::from([
            ("/home/me/.config/mosquitto_pub", "# mine\n\n-h theirs\n  -t from file\n-m two  words \n-q 1\n-r\n"),
            ("/home/me/.config/pantala_pub", "-h ours\n-D publish user-property k v w\n--cafile /a b\n"),
            ("/other", "-h other\r\n-t o\n-n"),
        ]),
    };
    let plan = machine.publish(&[]);
    assert_eq!(plan.connection.target, Target::Tcp { host: "ours".into(), port: 8883 });
    assert_eq!(plan.topic_names, ["from file"]);
    assert_eq!(plan.payload, PayloadSource::Given(b"two  words ".to_vec()));
    assert_eq!((plan.qos, plan.retain), (QoS::AtLeastOnce, true));
    assert_eq!(plan.properties.user_properties, [("k".into(), "v w".into())]);
    assert_eq!(plan.connection.tls.and_then(|tls| tls.ca_file), Some("/a b".into()));
    let plan = machine.publish(&["-t", "mine", "-q", "2"]);
    assert_eq!((plan.topic_names, plan.qos), (vec!["mine".into()], QoS::ExactlyOnce));
    let plan = machine.publish(&["-o", "/other"]);
    assert_eq!(plan.connection.target, Target::Tcp { host: "other".into(), port: 1883 });

    machine.variables.insert("XDG_CONFIG_HOME", "/xdg");
    machine.files.insert("/xdg/mosquitto_pub", "-t x\n-q\n");
    let error = machine.prepare(Program::Publish, &["-n"]).expect_err("the value is missing");
    assert_eq!(error, "/xdg/mosquitto_pub, line 2: -q needs QOS behind it");
    machine.files.insert("/xdg/mosquitto_pub", "-r yes\n");
    let error = machine.prepare(Program::Publish, &["-n"]).expect_err("there is no value");
    assert_eq!(error, "/xdg/mosquitto_pub, line 1: -r takes no value");
    assert!(machine.prepare(Program::Publish, &["-o", "/none"]).is_err());
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    use Program::{Publish, Request, Subscribe};
    let both = |arguments: &[&'static str]| [&["-t", "x", "-m", "y"], arguments].concat();
    for (program, arguments, error) in [
        (Publish, vec!["-t", "x"], "-m is missing: there is nothing to publish; give -m, -f, -n, -s or -l"),
        (Publish, vec!["-m", "x"], "-t is missing: there is no topic to publish to"),
        (Publish, both(&["-n"]), "-m and -n cannot be used together: a message has one payload"),
        (Publish, both(&["-q", "3"]), "-q 3: expected a number, 0 to 2"),
        (Publish, both(&["-k", "4"]), "-k 4: expected a number, 5 to 65535"),
        (Publish, both(&["-p", "65536"]), "-p 65536: expected a number, 0 to 65535"),
        (Publish, both(&["-V", "4"]), "-V 4: expected 5, 311 or 31"),
        (Publish, both(&["-c"]), "-i is missing: -c takes up a session, which needs a client's name"),
        (Publish, both(&["-x", "-1"]), "-i is missing: a session without end needs a client's name"),
        (Publish, both(&["-x", "-2"]), "-x -2: expected a number, 0 to 4294967295"),
        (
            Publish,
            both(&["-i", "a", "-I", "b"]),
            "-i and -I cannot be used together: -i is the whole identifier, -I its beginning",
        ),
        (Publish, both(&["-P", "p"]), "-u is missing: before MQTT 5 a password needs a user name"),
        (
            Publish,
            both(&["--will-retain"]),
            "--will-topic is missing: --will-retain is part of a Will Message, which needs a topic",
        ),
        (
            Publish,
            both(&["--will-topic", "#"]),
            "--will-topic #: a topic that is published to has no + and no #, and at most 65535 bytes",
        ),
        (Publish, both(&["--cert", "c"]), "--key is missing: a certificate needs its key"),
        (Publish, both(&["-D", "publish", "foo"]), "-D needs PACKET NAME VALUE behind it"),
        (
            Publish,
            both(&["-D", "publish", "topic-alias", "0"]),
            "-D publish topic-alias: its value is a number, 1 to 65535",
        ),
        (
            Publish,
            both(&["-D", "foo", "content-type", "x"]),
            "-D foo content-type: known are connect, publish, subscribe, unsubscribe, disconnect and will",
        ),
        (Publish, both(&["--tls-version", "tlsv1.1"]), "--tls-version tlsv1.1: it can be broken; the least is tlsv1.2"),
        (
            Publish,
            both(&["--psk", "aa"]),
            "--psk is not supported: rustls has no pre-shared keys; use certificates, with --cafile",
        ),
        (Publish, both(&["-S"]), "-h is missing: -S needs a domain"),
        (
            Publish,
            both(&["-S", "-h", "d", "-p", "1883"]),
            "-S and -p cannot be used together: SRV records name the port; --tls-use-os-certs turns on TLS",
        ),
        (Publish, both(&["--name-server", "::1"]), "-S is missing: --name-server is asked for nothing else"),
        (
            Publish,
            both(&["-D", "disconnect", "session-expiry-interval", "9"]),
            "-x is missing: -D disconnect session-expiry-interval can prolong no session that ends with the connection",
        ),
        (Publish, both(&["-C", "1"]), "-C is a flag of `pantala sub`, not of `pantala pub`"),
        (Publish, both(&["--topik", "1"]), "unknown flag --topik; did you mean --topic?"),
        (Publish, both(&["word"]), "unknown flag word"),
        (Publish, both(&["--quiet=1"]), "--quiet takes no value"),
        (Publish, vec!["-t"], "-t needs TOPIC behind it"),
        (Subscribe, vec!["-v"], "-t is missing: there is no topic to subscribe to"),
        (
            Subscribe,
            vec!["-t", "a", "-R", "--retained-only"],
            "-R and --retained-only cannot be used together: nothing would be left",
        ),
        (Subscribe, vec!["-t", "a", "-C", "0"], "-C 0: expected a number, 1 to 18446744073709551615"),
        (
            Subscribe,
            vec!["-t", "a", "-F", "%z"],
            "-F: invalid format specifier 'z'; known are %A C D d E F f I j J l m P p q R r S t U X x %",
        ),
        (Request, vec!["-t", "a", "-m", "b"], "-e is missing: there is no topic to wait for the response on"),
    ] {
        assert_eq!(refused(program, &arguments), error, "{arguments:?}");
    }
    for (program, arguments) in [
        (Publish, both(&["-M", "0"])),
        (Publish, both(&["-S", "-L", "ws://d"])),
        (Publish, both(&["-S", "-h", "d", "--name-server", "localhost"])),
        (Publish, both(&["-S", "-h", "d", "--unix", "/s"])),
        (Publish, both(&["--repeat", "0"])),
        (Publish, both(&["--repeat-delay", "-1"])),
        (Publish, both(&["--repeat-delay", "NaN"])),
        (Publish, both(&["-L", "http://h/t"])),
        (Publish, both(&["--proxy", "http://h"])),
        (Publish, both(&["--unix", "/s", "--proxy", "socks5h://h"])),
        (Publish, both(&["-t", "a/+"])),
        (Publish, both(&["--reconnect-delay", "9", "--reconnect-delay-max", "1"])),
        (Publish, both(&["--keyform", "engine"])),
        (Publish, both(&["--ciphers", "x"])),
        (Publish, both(&["-D", "connect", "authentication-data", "x"])),
        (Publish, both(&["-D", "will", "content-type", "x"])),
        (Subscribe, vec!["-t", "a/#/b"]),
        (Subscribe, vec!["-t", "a", "-T", "a+"]),
        (Subscribe, vec!["-t", "a", "--random-filter", "0.05"]),
        (Subscribe, vec!["-t", "a", "-W", "0"]),
        (Subscribe, vec!["-t", "a", "--json", "-F", "%p"]),
        (Subscribe, vec!["-t", "a", "-w", "--message-rate"]),
        (Subscribe, vec!["-t", "a", "--output-dir", "d", "-v"]),
        (Subscribe, vec!["-t", "a", "--output-dir", "d", "-w"]),
        (Request, vec!["-t", "a", "-m", "b", "-e", "#"]),
        (Request, vec!["-t", "a", "-e", "b", "-l"]),
        (Request, vec!["-t", "a", "-e", "b", "-n", "-D", "publish", "response-topic", "c"]),
    ] {
        assert_eq!(refused(program, &arguments).lines().count(), 1);
    }
}

#[test]
fn help_has_every_flag_and_the_table_no_name_twice() {
    use crate::clients::flags::TABLE;
    for program in Program::ALL {
        let Ok(Prepared::Text(help)) = Machine::default().prepare(program, &["-t", "x", "--help"]) else { panic!() };
        let flags: Vec<_> = TABLE.iter().filter(|flag| flag.programs.has(program)).collect();
        for flag in &flags {
            assert_eq!(help.contains(&format!("\n  {}", flag.names())), flag.is_supported(), "{}", flag.names());
            assert!(flags.iter().filter(|other| other.short.is_some() && other.short == flag.short).count() <= 1);
            assert!(flags.iter().filter(|other| other.long.is_some() && other.long == flag.long).count() <= 1);
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        crate::clients::manual::command(program).debug_assert();
    }
}
