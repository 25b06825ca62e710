//! Who may do what, in a whole broker: rules in TOML, and dynamic security with its commands.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::client::{self, Client, Next, V5};
use crate::process::{Broker, Folder, free_port, wait_for};

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
    try_login_at(broker.address(), user_name, password, client_id)
}

fn try_login_at(address: SocketAddr, user_name: &str, password: &str, client_id: &str) -> (Client, u8) {
    let mut client = Client::open(address);
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
    command_to(client, COMMANDS, request)
}

fn command_to(client: &mut Client, topic_name: &str, request: &str) -> String {
    client.send(&client::publish(V5, topic_name, 0, 0, request.as_bytes()));
    let answer = client.packet();
    assert_eq!(answer[0] & 0xf0, 0x30, "{answer:02x?}");
    String::from_utf8(client::taken_apart(V5, &answer).2.to_vec()).unwrap()
}

const INIT: &str = include_str!("../../../access/tests/mosquitto/dynsec-init.json");
const LIST_CLIENTS: &str = r#"{"commands":[{"command":"listClients"}]}"#;

/// A broker with its configuration in `pantala.toml`, which may be written anew.
fn start(folder: Folder, toml: &str) -> Broker {
    folder.write("pantala.toml", toml);
    Broker::with_arguments(folder, &["-c", "pantala.toml", "--durability", "memory"])
}

/// Reloads, and returns what was said to it.
fn reload(broker: &Broker) -> String {
    let before = broker.log().len();
    broker.signal(Signal::HUP);
    wait_for("a reload", || Some(broker.log()[before..].to_owned()).filter(|log| log.contains("SIGHUP: ")))
}

/// The file that a reload named was said to be live, and the old one was read again in its place.
#[test]
fn a_reload_goes_over_to_another_file_of_dynamic_security() {
    let folder = Folder::new();
    let one = folder.write("one.json", INIT);
    let two = folder.write("two.json", &INIT.replace("\"admin\"", "\"boss\""));
    let toml = |file| {
        format!("[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n[[security]]\ndynamic_security_file = {file:?}\n")
    };
    let mut broker = start(folder, &toml(&one));
    broker.address();
    assert_eq!(
        (try_login(&broker, "admin", "secret", "a").1, try_login(&broker, "boss", "secret", "b").1),
        (0, NOT_AUTHORIZED)
    );
    broker.folder.write("pantala.toml", &toml(&two));
    let log = reload(&broker);
    assert!(log.contains("read again, 1 change"), "{log}");
    assert_eq!(try_login(&broker, "admin", "secret", "a").1, NOT_AUTHORIZED);
    let (mut boss, code) = try_login(&broker, "boss", "secret", "b");
    assert_eq!(code, 0);
    // What is changed from now on is in the new file, and only there.
    let answer = command(&mut boss, r#"{"commands":[{"command":"createClient","username":"eve","password":"e"}]}"#);
    assert!(!answer.contains("error"), "{answer}");
    let has_eve = |file| fs::read_to_string(file).unwrap().contains("\"eve\"");
    assert_eq!((has_eve(&one), has_eve(&two)), (false, true));
    broker.check();
}

/// Passwords were verified by the new file as soon as it was read, whatever became of the reload.
#[test]
fn a_reload_that_fails_elsewhere_leaves_dynamic_security_as_it_was() {
    let folder = Folder::new();
    let file = folder.write("dynsec.json", INIT);
    let toml =
        format!("[[security]]\ndynamic_security_file = {file:?}\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n");
    let mut broker = start(folder, &toml);
    broker.address();
    assert_eq!(try_login(&broker, "admin", "secret", "a").1, 0);
    fs::write(&file, INIT.replace("\"admin\"", "\"boss\"")).unwrap();
    // Sockets are opened last, and this one cannot be.
    let taken = Broker::start("");
    let more = format!("[[listener]]\nhost = \"127.0.0.1\"\nport = {}\n", taken.address().port());
    broker.folder.write("pantala.toml", &(toml.clone() + &more));
    let log = reload(&broker);
    assert!(log.contains("nothing has changed") && log.contains("in use"), "{log}");
    let codes =
        |broker: &Broker| (try_login(broker, "admin", "secret", "a").1, try_login(broker, "boss", "secret", "b").1);
    assert_eq!(codes(&broker), (0, NOT_AUTHORIZED));
    broker.folder.write("pantala.toml", &toml);
    reload(&broker);
    assert_eq!(codes(&broker), (NOT_AUTHORIZED, 0));
    broker.check();
}

/// The thread for commands was there from the start or never, so that a command to what a reload had brought had no answer.
#[test]
fn dynamic_security_that_a_reload_brings_has_commands() {
    let folder = Folder::new();
    let file = folder.write("dynsec.json", INIT);
    let toml = "[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n";
    let mut broker = start(folder, toml);
    broker.address();
    broker.folder.write("pantala.toml", &format!("{toml}[[security]]\ndynamic_security_file = {file:?}\n"));
    reload(&broker);
    let (mut admin, code) = try_login(&broker, "admin", "secret", "a");
    assert_eq!(code, 0);
    let answer = command(&mut admin, LIST_CLIENTS);
    assert!(answer.contains("\"admin\"") && !answer.contains("error"), "{answer}");
    broker.check();
}

/// Each domain had a state of its own, and wrote it over what had been changed by way of the other. So it was for a plugin of
/// all listeners with `per_listener_settings`.
#[test]
fn domains_with_the_same_file_of_dynamic_security_have_the_same_users() {
    let folder = Folder::new();
    let file = folder.write("dynsec.json", INIT);
    let link = folder.path("link.json");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let places = [free_port(), free_port()].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let with = |place: &SocketAddr, name: &str, file: &std::path::Path| {
        format!(
            "[[listener]]\nhost = \"127.0.0.1\"\nport = {}\nsecurity = \"{name}\"\n\
             [[security]]\nname = \"{name}\"\ndynamic_security_file = {file:?}\n",
            place.port()
        )
    };
    let toml = with(&places[0], "one", &file) + &with(&places[1], "two", &link);
    let mut broker = start(folder, &format!("[broker]\nworkers = 2\n{toml}"));
    broker.address();
    let mut admins = places.map(|place| {
        let (admin, code) = try_login_at(place, "admin", "secret", &format!("admin {place}"));
        assert_eq!(code, 0);
        admin
    });
    let create = |admin: &mut Client, user: &str| {
        let request = format!(r#"{{"commands":[{{"command":"createClient","username":"{user}","password":"pw"}}]}}"#);
        let answer = command(admin, &request);
        assert!(!answer.contains("error"), "{answer}");
    };
    let in_file = |users: &[&str]| {
        let text = fs::read_to_string(&file).unwrap();
        users.iter().all(|user| text.contains(&format!("\"{user}\"")))
    };
    create(&mut admins[0], "eve");
    create(&mut admins[1], "bob");
    assert!(in_file(&["eve", "bob"]));
    let (_bob, code) = try_login_at(places[0], "bob", "pw", "bob");
    assert_eq!(code, 0);
    // A reload keeps it so.
    reload(&broker);
    create(&mut admins[0], "dan");
    create(&mut admins[1], "eva");
    assert!(in_file(&["eve", "bob", "dan", "eva"]));
    // Who is connected is told, and sent away, wherever that is.
    let mut eves = [0, 1].map(|place| try_login_at(places[place], "eve", "pw", &format!("eve {place}")).0);
    let answer = command(&mut admins[0], r#"{"commands":[{"command":"getClient","username":"eve"}]}"#);
    assert_eq!(answer.matches("\"127.0.0.1\"").count(), 2, "{answer}");
    command(&mut admins[1], r#"{"commands":[{"command":"deleteClient","username":"eve"}]}"#);
    for eve in &mut eves {
        assert!(matches!(eve.next(), Next::Packet(packet) if packet[0] == 0xe0));
        eve.expect_closed();
    }
    assert_ne!(try_login_at(places[0], "eve", "pw", "eve").1, 0);
    broker.check();
}

#[test]
fn rules_in_toml_hold_and_are_read_again() {
    let folder = Folder::new();
    let rules = folder.write("rules.toml", "[[rule]]\npublish = [\"dev/%c/#\"]\nsubscribe = [\"cmd/%c/+\"]\n");
    let broker = Broker::start(&format!("[[security]]\nrules_file = {rules:?}\n"));
    let mut client = Client::connect(broker.address(), V5, "hall");
    assert_eq!((publish(&mut client, "dev/hall/x"), publish(&mut client, "dev/attic/x")), (0, NOT_AUTHORIZED));
    assert_eq!((subscribe(&mut client, "cmd/hall/on"), subscribe(&mut client, "cmd/#")), (0, NOT_AUTHORIZED));
    // A mistake leaves the old rules, and is named with its place and what was meant.
    fs::write(&rules, "[[rule]]\npublsih = [\"#\"]\n").unwrap();
    broker.signal(Signal::HUP);
    let log = broker.wait_for_log("SIGHUP: nothing has changed, the configuration cannot be used: ");
    assert!(
        log.contains("rules.toml:2:1: unknown field `publsih`, ") && log.contains("; did you mean \"publish\"?"),
        "{log}"
    );
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
    // What cannot be saved is not done, and each of its commands is told so, by its name.
    let before = fs::read_to_string(&file).unwrap();
    let text = Folder::new();
    let aside = text.path("aside.json");
    fs::rename(&file, &aside).unwrap();
    fs::create_dir(&file).unwrap();
    let failed = command(
        &mut admin,
        r#"{"commands":[{"command":"listRoles"},{"command":"createrole","rolename":"s","correlationData":"y"}]}"#,
    );
    let why = r#""error":"The change could not be saved""#;
    assert_eq!(
        failed,
        format!(
            r#"{{"responses":[{{"command":"listRoles",{why}}},{{"command":"createRole",{why},"correlationData":"y"}}]}}"#
        )
    );
    fs::remove_dir(&file).unwrap();
    fs::rename(&aside, &file).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
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

/// Retained Messages of the reader, so many that each worker has some. Their topics are the last in each worker's order.
const MARKERS: usize = 16;

/// Whose Retained Messages a new subscription to `#` gets, in order, but for those of the reader itself.
fn retained(broker: &Broker) -> Vec<String> {
    let (mut reader, code) = try_login(broker, "reader", "reader", "reader");
    assert_eq!((code, subscribe(&mut reader, "#")), (0, 0));
    let (mut publishers, mut markers) = (Vec::new(), 0);
    while markers < MARKERS {
        let packet = reader.packet();
        match client::taken_apart(V5, &packet).2 {
            b"reader" => markers += 1,
            publisher => publishers.push(String::from_utf8(publisher.to_vec()).unwrap()),
        }
    }
    publishers.sort();
    publishers
}

/// K12, with a restart between.
#[test]
fn a_retained_message_needs_a_publisher_who_may_publish() {
    const PASSWORDS: [&str; 3] = ["ann", "bob", "reader"];
    let folder = Folder::new();
    let passwords = folder.path("passwords");
    fs::write(&passwords, "").unwrap();
    for user in PASSWORDS {
        let status = Command::new(env!("CARGO_BIN_EXE_pantala"))
            .args(["passwd", "-b", "-H", "sha512-pbkdf2", "-I", "1"])
            .arg(&passwords)
            .args([user, user])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
    let acl = |users: &[&str]| -> String {
        let users = users.iter().map(|user| format!("user {user}\ntopic readwrite #\n"));
        users.collect::<String>() + "user reader\ntopic readwrite #\n"
    };
    let rules = folder.write("acl", &acl(&["ann", "bob"]));
    let data = folder.path("data");
    let text = format!(
        "[broker]\nworkers = 2\ndata_dir = {data:?}\n[[security]]\npassword_file = {passwords:?}\nacl_file = {rules:?}\n"
    );
    let mut broker = Broker::start(&text);
    for (user, count) in [("ann", 4), ("bob", 3), ("reader", MARKERS)] {
        let (mut client, code) = try_login(&broker, user, user, user);
        assert_eq!(code, 0);
        for number in 0..count {
            let mut packet = client::publish(V5, &format!("{user}/{number}"), 1, 7, user.as_bytes());
            // RETAIN.
            packet[0] |= 1;
            client.send(&packet);
            assert_eq!(client.packet()[0], 0x40);
        }
    }
    let all = ["ann", "ann", "ann", "ann", "bob", "bob", "bob"];
    assert_eq!(retained(&broker), all);
    fs::write(&rules, acl(&["bob"])).unwrap();
    broker.signal(Signal::HUP);
    wait_for("the new rules", || (retained(&broker) == all[4..]).then_some(()));
    assert!(broker.counter("withheld_publisher_not_authorized") >= 4);
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    // What was not allowed before is not after.
    let mut broker = Broker::start(&text);
    assert_eq!(retained(&broker), all[4..]);
    broker.signal(Signal::TERM);
    assert!(broker.wait().success());
    // And is back with the right; a user who is gone is one without rights.
    fs::write(&rules, acl(&["ann", "bob"])).unwrap();
    let lines = fs::read_to_string(&passwords).unwrap();
    let left: String = lines.lines().filter(|line| !line.starts_with("bob:")).map(|line| format!("{line}\n")).collect();
    fs::write(&passwords, left).unwrap();
    let broker = Broker::start(&text);
    assert_eq!(retained(&broker), all[..4]);
}

/// From where a client is connected, wherever in the broker.
#[test]
fn connections_of_a_client_are_told() {
    let folder = Folder::new();
    let file = folder.write("dynsec.json", include_str!("../../../access/tests/mosquitto/dynsec-init.json"));
    let broker = Broker::start(&format!("[broker]\nworkers = 3\n[[security]]\ndynamic_security_file = {file:?}\n"));
    let (mut admin, _) = try_login(&broker, "admin", "secret", "a");
    let create = |user: &str| format!(r#"{{"command":"createClient","username":"{user}","password":"pw"}}"#);
    command(&mut admin, &format!(r#"{{"commands":[{},{}]}}"#, create("eve"), create("absent")));
    let places = [(2, "e0"), (1, "e1"), (3, "e2"), (2, "e3"), (1, "e4")];
    let connected: Vec<Client> = places
        .into_iter()
        .map(|(place, client_id)| {
            let mut client = Client::open_from(std::net::Ipv4Addr::new(127, 0, 0, place), broker.address());
            client.level = V5;
            client.send(&login("eve", "pw", client_id));
            assert_eq!(client.packet()[3], 0);
            client
        })
        .collect();
    let ask = |admin: &mut Client, user: &str| {
        let request = format!(r#"{{"commands":[{{"command":"getClient","username":"{user}"}}]}}"#);
        let answer: serde_json::Value = serde_json::from_str(&command(admin, &request)).unwrap();
        let connections = &answer["responses"][0]["data"]["client"]["connections"];
        let addresses = connections.as_array().unwrap().iter().map(|it| it["address"].as_str().unwrap().to_owned());
        addresses.collect::<Vec<String>>()
    };
    let here = ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.3"];
    assert_eq!(ask(&mut admin, "eve"), here);
    assert_eq!((ask(&mut admin, "admin"), ask(&mut admin, "absent")), (vec!["127.0.0.1".to_owned()], vec![]));
    drop(connected);
    wait_for("their end", || ask(&mut admin, "eve").is_empty().then_some(()));
}

/// What Mosquitto 2.1 calls its control API: it tells of listeners and plugins, to who may ask, and where that is wanted.
#[test]
fn listeners_and_plugins_are_told_by_command() {
    const REQUEST: &str =
        r#"{"commands":[{"command":"listListeners","correlationData":"1"},{"command":"listPlugins"}]}"#;
    let folder = Folder::new();
    let file = folder.write("dynsec.json", include_str!("../../../access/tests/mosquitto/dynsec-init.json"));
    let (socket, port, other) = (folder.path("socket"), free_port(), free_port());
    let text = format!(
        "[broker]\ncontrol_api = true\nsparkplug_aware = true\n[[security]]\ndynamic_security_file = {file:?}\n\
         [[listener]]\nhost = \"127.0.0.1\"\nport = {port}\n\
         [[listener]]\nhost = \"127.0.0.1\"\nport = {other}\nprotocol = \"websocket\"\n\
         [[listener]]\nunix_path = {socket:?}\n"
    );
    let config = folder.write("pantala.toml", &text);
    let broker = Broker::with_arguments(folder, &["-c".as_ref(), config.as_os_str()]);
    let (mut admin, code) = try_login(&broker, "admin", "secret", "a");
    assert_eq!(code, 0);
    // Not yet by a rule that names it.
    assert_eq!(publish(&mut admin, "$CONTROL/broker/v1"), NOT_AUTHORIZED);
    command(
        &mut admin,
        r#"{"commands":[{"command":"addRoleACL","rolename":"admin","acltype":"publishClientSend","topic":"$CONTROL/broker/#","allow":true}]}"#,
    );
    let told: serde_json::Value = serde_json::from_str(&command_to(&mut admin, "$CONTROL/broker/v1", REQUEST)).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let listeners = serde_json::json!([
        {"port": port, "protocol": "mqtt", "bind-address": "127.0.0.1", "tls": false},
        {"port": other, "protocol": "websockets", "bind-address": "127.0.0.1", "tls": false},
        {"protocol": "mqtt", "socket-path": socket, "tls": false},
    ]);
    let plugins = serde_json::json!([
        {"name": "dynamic-security", "version": version, "control-endpoints": [COMMANDS]},
        {"name": "sparkplug-aware", "version": version},
    ]);
    assert_eq!(
        told,
        serde_json::json!({"responses": [
            {"command": "listListeners", "data": {"listeners": listeners}, "correlationData": "1"},
            {"command": "listPlugins", "data": {"plugins": plugins}},
        ]})
    );
    assert_eq!(
        command_to(&mut admin, "$CONTROL/broker/v1", "x"),
        r#"{"responses":[{"command":"Unknown command","error":"Payload not valid JSON"}]}"#
    );
}

/// It had to be started anew: who took the key away was told so, and the API went on to answer.
#[test]
fn what_is_told_by_command_is_told_no_more_as_soon_as_a_reload_says_so() {
    const REQUEST: &str = r#"{"commands":[{"command":"listPlugins"}]}"#;
    let folder = Folder::new();
    let file = folder.write("dynsec.json", INIT);
    let toml = |told: bool| {
        format!(
            "[broker]\ncontrol_api = {told}\n[[security]]\ndynamic_security_file = {file:?}\n\
             [[listener]]\nhost = \"127.0.0.1\"\nport = 0\n"
        )
    };
    let mut broker = start(folder, &toml(true));
    let (mut admin, code) = try_login(&broker, "admin", "secret", "a");
    assert_eq!(code, 0);
    command(
        &mut admin,
        r#"{"commands":[{"command":"addRoleACL","rolename":"admin","acltype":"publishClientSend","topic":"$CONTROL/broker/#","allow":true}]}"#,
    );
    // Commands are carried out in their order, so that the first answer is that to the first one that has any.
    let ask = |admin: &mut Client| {
        admin.send(&client::publish(V5, "$CONTROL/broker/v1", 0, 0, REQUEST.as_bytes()));
        let answer = command(admin, LIST_CLIENTS);
        let is_told = answer.contains("listPlugins");
        if is_told {
            admin.packet();
        }
        is_told
    };
    assert!(ask(&mut admin));
    broker.folder.write("pantala.toml", &toml(false));
    let log = reload(&broker);
    assert!(log.contains("broker.control_api: true -> false (live)"), "{log}");
    assert!(!ask(&mut admin));
    broker.folder.write("pantala.toml", &toml(true));
    reload(&broker);
    assert!(ask(&mut admin));
    broker.check();
}
