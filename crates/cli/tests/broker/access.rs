//! Who may do what, in a whole broker: rules in TOML, and dynamic security with its commands.

use std::fs;

use rustix::process::Signal;

use crate::client::{self, Client, Next, V5};
use crate::process::{Broker, Folder, wait_for};

const NOT_AUTHORIZED: u8 = 0x87;
const COMMANDS: &str = "$CONTROL/dynamic-security/v1";

/// CONNECT of MQTT 5 with user name and password.
fn login(user_name: &str, password: &str, client_id: &str) -> Vec<u8> {
    let text = |text: &str| [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let body = [text("MQTT"), vec![V5, 0xc2, 0, 0, 0], text(client_id), text(user_name), text(password)].concat();
    [&[0x10, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

/// The Reason Code of CONNACK.
fn try_login(broker: &Broker, user_name: &str, password: &str, client_id: &str) -> (Client, u8) {
    let mut client = Client::open(broker.address());
    client.level = V5;
    client.send(&login(user_name, password, client_id));
    let answer = client.packet();
    assert_eq!(answer[0], 0x20);
    (client, answer[3])
}

/// The Reason Code of PUBACK.
fn publish(client: &mut Client, topic_name: &str) -> u8 {
    client.send(&client::publish(V5, topic_name, 1, 7, b"x"));
    let answer = client.packet();
    assert_eq!(answer[0], 0x40, "{answer:02x?}");
    // Nobody has subscribed, which is said too.
    match answer.get(4).copied().unwrap_or(0) {
        0x10 => 0,
        code => code,
    }
}

/// The Reason Code of SUBACK.
fn subscribe(client: &mut Client, filter: &str) -> u8 {
    client.send(&client::subscribe(V5, 8, filter, 0));
    let answer = client.packet();
    assert_eq!(answer[0], 0x90, "{answer:02x?}");
    answer[answer.len() - 1]
}

/// The response to a request.
fn command(client: &mut Client, request: &str) -> String {
    client.send(&client::publish(V5, COMMANDS, 0, 0, request.as_bytes()));
    let answer = client.packet();
    assert_eq!(answer[0] & 0xf0, 0x30, "{answer:02x?}");
    String::from_utf8(client::taken_apart(V5, &answer).2.to_vec()).unwrap()
}

#[test]
fn rules_in_toml_hold_and_are_read_again() {
    let folder = Folder::new();
    let rules = folder.write("rules.toml", "[[rule]]\npublish = [\"dev/%c/#\"]\nsubscribe = [\"cmd/%c/+\"]\n");
    let broker = Broker::start(&format!("[[security]]\nrules_file = {rules:?}\n"));
    let mut client = Client::connect(broker.address(), V5, "hall");
    assert_eq!((publish(&mut client, "dev/hall/x"), publish(&mut client, "dev/attic/x")), (0, NOT_AUTHORIZED));
    assert_eq!((subscribe(&mut client, "cmd/hall/on"), subscribe(&mut client, "cmd/#")), (0, NOT_AUTHORIZED));
    // A mistake leaves the old rules, and is named with its line.
    fs::write(&rules, "[[rule]]\npublsih = [\"#\"]\n").unwrap();
    broker.signal(Signal::HUP);
    let log = broker.wait_for_log("SIGHUP: nothing has changed, the configuration cannot be used: ");
    assert!(log.contains("rules_file: ") && log.contains("line 2: unknown field `publsih`"), "{log}");
    assert_eq!((publish(&mut client, "dev/hall/x"), publish(&mut client, "dev/attic/x")), (0, NOT_AUTHORIZED));
    fs::write(&rules, "[[rule]]\npublish = [\"dev/attic/#\"]\n").unwrap();
    broker.signal(Signal::HUP);
    wait_for("the new rules", || (publish(&mut client, "dev/attic/x") == 0).then_some(()));
    assert_eq!(publish(&mut client, "dev/hall/x"), NOT_AUTHORIZED);
}

#[test]
fn a_broker_does_not_start_with_rules_that_are_wrong() {
    let folder = Folder::new();
    let rules = folder.write("rules.toml", "[[rule]]\npublish = [\"a#\"]\n");
    let text = format!("[[security]]\nrules_file = {rules:?}\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n");
    let file = folder.write("pantala.toml", &text);
    let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    assert!(!broker.wait().success());
    assert!(broker.log().contains("rule 1, publish \"a#\": a wildcard must"), "{}", broker.log());
}

#[test]
fn commands_change_who_may_do_what() {
    let folder = Folder::new();
    let file = folder.write("dynsec.json", include_str!("../../../access/tests/mosquitto/dynsec-init.json"));
    let broker = Broker::start(&format!("[broker]\nworkers = 2\n[[security]]\ndynamic_security_file = {file:?}\n"));
    assert_eq!(try_login(&broker, "admin", "wrong", "a").1, NOT_AUTHORIZED);
    assert_eq!(try_login(&broker, "eve", "secret", "a").1, NOT_AUTHORIZED);
    let (mut admin, code) = try_login(&broker, "admin", "secret", "a");
    assert_eq!(code, 0);
    assert_eq!(publish(&mut admin, "x"), NOT_AUTHORIZED);
    let created = command(
        &mut admin,
        r#"{"commands":[{"command":"createRole","rolename":"r","acls":[
            {"acltype":"publishClientSend","topic":"dev/#","allow":true},
            {"acltype":"subscribePattern","topic":"dev/#","allow":true}]},
            {"command":"createClient","username":"eve","password":"pw","clientid":"e","roles":[{"rolename":"r"}],"correlationData":"x"}]}"#,
    );
    assert_eq!(created, r#"{"responses":[{"command":"createRole"},{"command":"createClient","correlationData":"x"}]}"#);
    // It is in the file before it is answered.
    assert!(fs::read_to_string(&file).unwrap().contains("\"eve\""));
    assert_eq!(try_login(&broker, "eve", "pw", "other").1, NOT_AUTHORIZED);
    let (mut eve, code) = try_login(&broker, "eve", "pw", "e");
    assert_eq!((code, publish(&mut eve, "dev/x"), publish(&mut eve, "q")), (0, 0, NOT_AUTHORIZED));
    assert_eq!((subscribe(&mut eve, "dev/+"), subscribe(&mut eve, "#")), (0, NOT_AUTHORIZED));
    assert_eq!(publish(&mut eve, COMMANDS), NOT_AUTHORIZED);
    // Other rights hold at once, for who is connected; with what had been subscribed to nothing comes any more.
    let changed = command(
        &mut admin,
        r#"{"commands":[{"command":"modifyRole","rolename":"r","acls":[{"acltype":"publishClientSend","topic":"q","allow":true}]}]}"#,
    );
    assert_eq!(changed, r#"{"responses":[{"command":"modifyRole"}]}"#);
    wait_for("the new rights", || (publish(&mut eve, "q") == 0).then_some(()));
    assert_eq!((publish(&mut eve, "dev/x"), subscribe(&mut eve, "dev/+")), (NOT_AUTHORIZED, NOT_AUTHORIZED));
    // Another password, or none at all, ends the connection.
    command(&mut admin, r#"{"commands":[{"command":"setClientPassword","username":"eve","password":"new"}]}"#);
    assert!(matches!(eve.next(), Next::Packet(packet) if packet[0] == 0xe0 && packet[2] == 0x98));
    eve.expect_closed();
    assert_eq!(try_login(&broker, "eve", "pw", "e").1, NOT_AUTHORIZED);
    let (mut eve, code) = try_login(&broker, "eve", "new", "e");
    assert_eq!(code, 0);
    command(&mut admin, r#"{"commands":[{"command":"disableClient","username":"eve"}]}"#);
    assert!(matches!(eve.next(), Next::Packet(packet) if packet[0] == 0xe0));
    eve.expect_closed();
    assert_ne!(try_login(&broker, "eve", "new", "e").1, 0);
    // What is logged has no password.
    let log = broker.wait_for_log("disableClient");
    assert!(log.contains("createClient | username=\"eve\" | password=*****") && !log.contains("pw\""), "{log}");
    // What was commanded outlives the broker.
    let text = fs::read_to_string(&file).unwrap();
    let again = Broker::start(&format!("[[security]]\ndynamic_security_file = {file:?}\n"));
    let (mut admin, _) = try_login(&again, "admin", "secret", "a");
    command(&mut admin, r#"{"commands":[{"command":"enableClient","username":"eve"}]}"#);
    assert_eq!(try_login(&again, "eve", "new", "e").1, 0);
    assert_ne!(fs::read_to_string(&file).unwrap(), text);
}
