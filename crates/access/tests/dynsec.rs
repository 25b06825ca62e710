//! Dynamic security, beside what Mosquitto 2.0.11 does.
//!
//! In `mosquitto/`: `dynsec-init.json` was written by `mosquitto_ctrl dynsec init`; `dynsec.jsonl` has requests and, each on the
//! line below, what the plugin answered, beginning with that file; `dynsec-saved.json` is the plugin's file at some point
//! of these; `dynsec-rights.tsv` says what the clients of `dynsec-rights.json` could do: user (`-` for none), action, Topic
//! Name or Topic Filter, and whether it was allowed.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its own table has failed")]

use std::net::IpAddr;

use pantala_access::dynsec::{self, DynamicSecurity, Host, Kick, Who};
use pantala_access::{Rights, Subject};
use pantala_proto::TopicFilter;
use proptest::prelude::*;
use serde_json::{Value, json};

const INIT: &[u8] = include_bytes!("mosquitto/dynsec-init.json");
const SAVED: &[u8] = include_bytes!("mosquitto/dynsec-saved.json");
const RIGHTS: &[u8] = include_bytes!("mosquitto/dynsec-rights.json");
const RECORDED: &str = include_str!("mosquitto/dynsec.jsonl");
const RECORDED_RIGHTS: &str = include_str!("mosquitto/dynsec-rights.tsv");

/// Hashes are the password itself; one client is connected, from two addresses.
struct Lab;

impl Host for Lab {
    fn hash(&mut self, password: &str) -> Option<String> {
        (password != "unlucky").then(|| format!("$test${password}"))
    }

    fn addresses(&self, user_name: &str) -> Vec<IpAddr> {
        if user_name == "online" { vec!["192.0.2.1".parse().unwrap(), "::1".parse().unwrap()] } else { Vec::new() }
    }
}

/// Carries out one command and returns its answer.
fn ask(state: &mut DynamicSecurity, command: Value) -> Value {
    let response = state.apply(json!({"commands": [command]}).to_string().as_bytes(), &mut Lab);
    let mut response: Value = serde_json::from_str(&response.json).unwrap();
    response["responses"][0].take()
}

/// Takes out what 2.0 does not have.
fn older(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("allowwildcardsubs");
            object.remove("connections");
            object.values_mut().for_each(older);
        }
        Value::Array(items) => items.iter_mut().for_each(older),
        _ => {}
    }
}

#[test]
fn it_answers_as_mosquitto_does() {
    let mut state = DynamicSecurity::parse(INIT).unwrap();
    let mut lines = RECORDED.lines();
    let mut answers = 0;
    while let (Some(request), Some(expected)) = (lines.next(), lines.next()) {
        let response = state.apply(request.as_bytes(), &mut Lab);
        let mut answer: Value = serde_json::from_str(&response.json).unwrap();
        older(&mut answer);
        let mut expected: Value = serde_json::from_str(expected).unwrap();
        // There it has no text of its own.
        if expected["responses"][0]["error"] == "Internal error" {
            assert_eq!(expected["responses"][0]["command"], "addClientRole");
            expected["responses"][0]["error"] = "Client already has this role".into();
        }
        assert_eq!(answer, expected, "{request}");
        answers += 1;
    }
    assert_eq!(answers, 190);
}

fn rights(state: &DynamicSecurity, user_name: Option<&str>, client_id: &str) -> Rights {
    state.rules().rights(&Subject { client_id, user_name, ..Subject::default() })
}

fn may(rights: &Rights, action: &str, topic: &str) -> bool {
    match action {
        "publish" => rights.may_publish(topic),
        "receive" => rights.may_receive(topic),
        "unsubscribe" => rights.may_unsubscribe(topic),
        _ => match TopicFilter::parse(topic).unwrap() {
            TopicFilter::Plain(filter) => rights.may_subscribe(filter, None),
            TopicFilter::Shared(shared) => rights.may_subscribe(shared.filter, Some(shared.share_name)),
        },
    }
}

#[test]
fn rights_are_as_in_mosquitto() {
    let state = DynamicSecurity::parse(RIGHTS).unwrap();
    let mut answers = 0;
    for line in RECORDED_RIGHTS.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [user, action, topic, expected] = fields[..] else { panic!("{line}") };
        if action == "connect" {
            assert!(state.credentials(user).unwrap().disabled);
            assert!(!rights(&state, Some(user), "c").may_subscribe("q", None));
            continue;
        }
        // In 2.0 a pattern that begins with a wildcard fits filters that begin with `$`. In 2.1 and here it does not.
        let is_system = action.ends_with("subscribe") && topic.starts_with('$');
        if is_system {
            continue;
        }
        let rights = rights(&state, (user != "-").then_some(user), "c");
        assert_eq!(may(&rights, action, topic), expected == "yes", "{line}");
        answers += 1;
    }
    assert!(answers > 600, "{answers}");
}

#[test]
fn the_brokers_own_topics_and_groups() {
    let state = DynamicSecurity::parse(RIGHTS).unwrap();
    let of = |user: &'static str| rights(&state, Some(user), "c");
    for (user, topic, expected) in [
        ("admin", "$SYS/#", true),
        ("admin", "$CONTROL/dynamic-security/#", true),
        ("admin", "$CONTROL/#", false),
        ("fay", "$SYS/x", true),
        ("fay", "$SYS/#", false),
        ("fay", "$CONTROL/#", false),
        // A group is no way around, and no way in is shut by one.
        ("ann", "$share/g/a/x", true),
        ("ann", "$share/g/a/b", false),
        ("ann", "$share/g/q", false),
        ("fay", "$share/g/t", true),
        ("fay", "$share/h/t", true),
        ("fay", "$share/g/x/y/only", true),
    ] {
        assert_eq!(may(&of(user), "subscribe", topic), expected, "{user} {topic}");
    }
    assert!(of("fay").may_publish("$x/y") && !of("fay").may_publish("$SYS/y"));
    assert!(
        of("admin").may_publish("$CONTROL/dynamic-security/v1")
            && !of("fay").may_publish("$CONTROL/dynamic-security/v1")
    );
    // No default reaches there, and nobody whom the state does not know may do anything.
    let mut state = state.clone();
    let all = ["publishClientSend", "publishClientReceive", "subscribe", "unsubscribe"]
        .map(|name| json!({"acltype": name, "allow": true}));
    ask(&mut state, json!({"command": "setDefaultACLAccess", "acls": all}));
    let none = rights(&state, Some("none"), "c");
    assert!(none.may_publish("z") && none.may_subscribe("#", None) && none.may_receive("$SYS/x"));
    assert!(
        !none.may_publish("$CONTROL/x") && !none.may_subscribe("$CONTROL/#", None) && !none.may_receive("$CONTROL/x")
    );
    for user in ["stranger", "off"] {
        let rights = rights(&state, Some(user), "c");
        assert!(!rights.may_publish("z") && !rights.may_receive("z") && !rights.may_subscribe("z", None), "{user}");
    }
}

#[test]
fn acls_have_places_for_names_and_roles_may_be_without_wildcards() {
    let mut state = DynamicSecurity::new("admin", "$test$x".into());
    let acl = |acltype: &str, topic: &str, priority: i32, allow: bool| json!({"acltype": acltype, "topic": topic, "priority": priority, "allow": allow});
    ask(
        &mut state,
        json!({"command": "createRole", "rolename": "own", "allowwildcardsubs": false, "acls": [
            acl("publishClientSend", "dev/%c/#", 0, true),
            acl("publishClientSend", "dev/%c/%u", 1, false),
            acl("subscribePattern", "cmd/%u/#", 0, true),
        ]}),
    );
    ask(&mut state, json!({"command": "createClient", "username": "eve", "roles": [{"rolename": "own"}]}));
    let of = |client_id: &'static str| rights(&state, Some("eve"), client_id);
    assert!(
        of("c1").may_publish("dev/c1/x") && !of("c1").may_publish("dev/c1/eve") && !of("c1").may_publish("dev/c2/x")
    );
    for name in ["+", "#", "a/b"] {
        assert!(!of(name).may_publish("dev/a/x") && !of(name).may_publish("dev/a/b/x"), "{name}");
    }
    assert!(of("c1").may_subscribe("cmd/eve/x", None));
    assert!(!of("c1").may_subscribe("cmd/eve/+", None) && !of("c1").may_subscribe("cmd/eve/#", None));
    ask(&mut state, json!({"command": "modifyRole", "rolename": "own", "allowwildcardsubs": true}));
    assert!(rights(&state, Some("eve"), "c1").may_subscribe("cmd/eve/#", None));
    assert!(!rights(&state, Some("eve"), "c1").may_subscribe("cmd/#", None));
}

#[test]
fn the_file_is_taken_over_and_given_back() {
    for file in [INIT, SAVED, RIGHTS] {
        let state = DynamicSecurity::parse(file).unwrap();
        let written = state.to_json();
        assert_eq!(DynamicSecurity::parse(&written).unwrap(), state);
    }
    let mut written: Value = serde_json::from_slice(&DynamicSecurity::parse(SAVED).unwrap().to_json()).unwrap();
    older(&mut written);
    assert_eq!(written, serde_json::from_slice::<Value>(SAVED).unwrap());
    // What is made anew is what `mosquitto_ctrl dynsec init` makes.
    let init = DynamicSecurity::parse(INIT).unwrap();
    let password = init.credentials("admin").unwrap().password.unwrap().to_owned();
    assert!(password.starts_with("$7$101$") && password.ends_with("=="), "{password}");
    let hash = pantala_password::Hash::parse(&password).unwrap();
    assert!(hash.verify(b"secret") && !hash.verify(b"Secret"));
    assert_eq!(DynamicSecurity::new("admin", password), init);
    // A hash of another kind is written as Mosquitto 2.1 does, and read so.
    let state = DynamicSecurity::new("eve", "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA".into());
    let written: Value = serde_json::from_slice(&state.to_json()).unwrap();
    assert_eq!(written["clients"][0]["encoded_password"], "$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA");
    assert_eq!(DynamicSecurity::parse(&state.to_json()).unwrap(), state);
}

#[test]
fn a_file_half_read_is_refused() {
    let cases = [
        ("", "line 1, column 0: it is no JSON"),
        ("{\n\"roles\": [", "line 2, column 10: it is no JSON"),
        ("[]", "the file: it is no object"),
        (r#"{"roles": {}}"#, "roles: it is no array"),
        (r#"{"roles": [{}]}"#, "roles, number 1: it has no name"),
        (r#"{"roles": [7]}"#, "roles, number 1: it is no object"),
        (r#"{"roles": [{"rolename": "a"}, {"rolename": "a"}]}"#, "rolename \"a\": it is there twice"),
        (r#"{"roles": [{"rolename": "a", "acls": [{"topic": "x"}]}]}"#, "rolename \"a\", ACL 1: its type is unknown"),
        (
            r#"{"roles": [{"rolename": "a", "acls": [{"acltype": "subscribeLiteral"}]}]}"#,
            "rolename \"a\", ACL 1: it has no topic",
        ),
        (
            r#"{"clients": [{"username": "u", "roles": [{"rolename": "x"}]}]}"#,
            "username \"u\", rolename \"x\": there is no such role",
        ),
        (r#"{"clients": [{"username": "u", "disabled": "no"}]}"#, "username \"u\", disabled: it has a wrong type"),
        (
            r#"{"groups": [{"groupname": "g", "clients": [{"username": "x"}]}]}"#,
            "username \"x\": there is no such client",
        ),
        (r#"{"anonymousGroup": "g"}"#, "anonymousGroup: there is no such group"),
        (r#"{"defaultACLAccess": true}"#, "defaultACLAccess: it is no object"),
    ];
    for (file, expected) in cases {
        assert_eq!(DynamicSecurity::parse(file.as_bytes()).unwrap_err().to_string(), expected, "{file}");
    }
    let nothing = DynamicSecurity::parse(b"{}").unwrap();
    assert!(!rights(&nothing, None, "c").may_publish("a") && nothing.credentials("a").is_none());
}

#[test]
fn who_is_concerned_and_what_is_logged() {
    let mut state = DynamicSecurity::parse(SAVED).unwrap();
    let user = |name: &str, must_leave| Kick { who: Who::User(name.into()), must_leave };
    let anonymous = Kick { who: Who::Anonymous, must_leave: false };
    let cases = [
        (json!({"command": "setClientPassword", "username": "u1", "password": "hunter2"}), vec![user("u1", true)]),
        (json!({"command": "disableClient", "username": "u1"}), vec![user("u1", true)]),
        (json!({"command": "enableClient", "username": "u1"}), vec![]),
        (json!({"command": "addClientRole", "username": "u1", "rolename": "r2"}), vec![user("u1", false)]),
        (json!({"command": "modifyClient", "username": "u1", "textname": "x"}), vec![user("u1", false)]),
        (
            json!({"command": "modifyClient", "username": "u1", "clientid": "other", "password": "hunter2"}),
            vec![user("u1", true)],
        ),
        (json!({"command": "setAnonymousGroup", "groupname": "g1"}), vec![anonymous.clone()]),
        (
            json!({"command": "addRoleACL", "rolename": "r1", "acltype": "publishClientSend", "topic": "q", "allow": true}),
            vec![user("u1", false), user("u2", false), user("u3", false), anonymous.clone()],
        ),
        (json!({"command": "modifyRole", "rolename": "r1", "textname": "x"}), vec![]),
        (json!({"command": "addGroupClient", "groupname": "g2", "username": "admin"}), vec![user("admin", false)]),
        (
            json!({"command": "deleteGroup", "groupname": "g2"}),
            vec![user("admin", false), user("u2", false), user("u3", false)],
        ),
        (json!({"command": "deleteRole", "rolename": "r1"}), vec![user("u1", false), user("u2", false), anonymous]),
        (json!({"command": "deleteClient", "username": "u2"}), vec![user("u2", true)]),
        (json!({"command": "createClient", "username": "new", "password": "hunter2"}), vec![]),
    ];
    for (command, kicks) in cases {
        let response = state.apply(json!({"commands": [command]}).to_string().as_bytes(), &mut Lab);
        assert!(response.changed && !response.json.contains("error"), "{command}: {}", response.json);
        assert_eq!(response.kicks, kicks, "{command}");
        assert_eq!(response.log.len(), 1);
        assert!(
            response.log[0].starts_with(command["command"].as_str().unwrap()) && !response.log[0].contains("hunter2")
        );
    }
    assert_eq!(state.change_index(), 14);
    assert!(!format!("{state:?}").contains("hunter2"));
    let refused = state.apply(
        br#"{"commands": [{"command": "deleteClient", "username": "nobody"}, {"command": "listClients"}]}"#,
        &mut Lab,
    );
    assert!(!refused.changed && refused.kicks.is_empty() && refused.log.is_empty());
    // A name cannot make a line of its own in the log.
    let response = state.apply(b"{\"commands\": [{\"command\": \"createClient\", \"username\": \"a\\nb\"}]}", &mut Lab);
    assert!(response.json.contains("Username not valid UTF-8") && response.log.is_empty());
    // One that is too long is no other thing than that.
    let long = "x".repeat(dynsec::TEXT_BYTES_MAX + 1);
    for command in [
        json!({"command": "createClient", "username": long}),
        json!({"command": "createClient", "username": "a", "clientid": long}),
        json!({"command": "createRole", "rolename": long}),
        json!({"command": "createGroup", "groupname": long}),
        json!({"command": "getClient", "username": long}),
    ] {
        assert_eq!(ask(&mut state, command)["error"], "The name is longer than 4096 bytes");
    }
}

/// It was said of a command by the name of "Unknown command".
#[test]
fn a_request_that_comes_to_nothing_is_answered_by_the_names_of_its_commands() {
    let request = br#"{"Commands": [{"command": "CREATECLIENT", "correlationData": "x"}, {"command": "no"}, 7, {}]}"#;
    assert_eq!(
        dynsec::refuse(request, "why"),
        r#"{"responses":[{"command":"createClient","error":"why","correlationData":"x"},{"command":"no","error":"why"},{"command":"Unknown command","error":"why"},{"command":"Unknown command","error":"why"}]}"#
    );
    assert_eq!(dynsec::refuse(b"{", "why"), r#"{"responses":[]}"#);
}

#[test]
fn what_2_1_answers() {
    let mut state = DynamicSecurity::new("online", "$test$x".into());
    let error = |answer: Value| answer["error"].as_str().unwrap_or("none").to_owned();
    let answer = ask(&mut state, json!({"command": "getClient", "username": "online"}));
    assert_eq!(answer["data"]["client"]["connections"], json!([{"address": "192.0.2.1"}, {"address": "::1"}]));
    assert_eq!(
        ask(&mut state, json!({"command": "getDetails", "correlationData": "x"})),
        json!({"command": "getDetails", "correlationData": "x",
            "data": {"clientCount": 1, "groupCount": 0, "roleCount": 1, "changeIndex": 0}})
    );
    for (command, expected) in [
        (json!({"command": "createClient", "username": ""}), "Empty username"),
        (json!({"command": "createGroup", "groupname": ""}), "Empty groupname"),
        (json!({"command": "createRole", "rolename": ""}), "Empty rolename"),
        (json!({"command": "createRole", "rolename": "r", "allowwildcardsubs": 1}), "Invalid allowwildcardsubs"),
        (
            json!({"command": "createRole", "rolename": "r", "acls": [{"acltype": "publishClientSend", "topic": "a#"}]}),
            "Invalid ACL topic",
        ),
        (json!({"command": "createClient", "username": "u", "password": "unlucky"}), "Internal error"),
        (json!({"command": "createClient", "username": "u", "groups": [{"groupname": "g"}]}), "Group not found"),
        (json!({"command": "createGroup", "groupname": "g"}), "none"),
        (json!({"command": "setAnonymousGroup", "groupname": "g"}), "none"),
        (json!({"command": "deleteGroup", "groupname": "g"}), "Deleting the anonymous group is forbidden"),
        (
            json!({"command": "modifyClient", "username": "online", "textname": "no", "groups": [{"groupname": "x"}]}),
            "'groups' contains an object with a 'groupname' that does not exist",
        ),
        (
            json!({"command": "modifyGroup", "groupname": "g", "textname": "no", "clients": [{}]}),
            "'clients' contains an object with an invalid 'username'",
        ),
        (
            json!({"command": "modifyGroup", "groupname": "g", "textname": "no", "clients": [{"username": "x"}]}),
            "'clients' contains an object with a 'username' that does not exist",
        ),
        (
            json!({"command": "createClient", "username": "u", "roles": [{}]}),
            "'roles' not an array or missing/invalid rolename",
        ),
        (json!({"command": "createClient", "username": "u", "password": ""}), "none"),
    ] {
        assert_eq!(error(ask(&mut state, command.clone())), expected, "{command}");
    }
    // What failed changed nothing, and nobody comes in by an empty password.
    assert_eq!(
        ask(&mut state, json!({"command": "getGroup", "groupname": "g"}))["data"]["group"],
        json!({"groupname": "g", "clients": [], "roles": []})
    );
    assert_eq!(state.credentials("u").unwrap().password, None);
}

#[test]
fn every_list_has_an_end() {
    let mut state = DynamicSecurity::new("admin", "$test$x".into());
    let error = |response: &dynsec::Response| {
        serde_json::from_str::<Value>(&response.json).unwrap()["responses"][0]["error"].clone()
    };
    let long = vec![b' '; dynsec::REQUEST_BYTES_MAX + 1];
    assert_eq!(error(&state.apply(&long, &mut Lab)), "The request is too long");
    let many = json!({"commands": vec![0; dynsec::COMMANDS_MAX + 1]}).to_string();
    assert_eq!(error(&state.apply(many.as_bytes(), &mut Lab)), "Too many commands");
    let deep = "[".repeat(100_000);
    assert_eq!(error(&state.apply(deep.as_bytes(), &mut Lab)), "Payload not valid JSON");
    let acl = json!({"acltype": "publishClientSend", "topic": "a"});
    let many: Vec<Value> = vec![acl; dynsec::ACLS_OF_ROLE_MAX + 1];
    assert_eq!(
        ask(&mut state, json!({"command": "createRole", "rolename": "r", "acls": many}))["error"],
        "Too many ACLs"
    );
    let many = vec![json!({"rolename": "admin"}); dynsec::ASSIGNED_MAX + 1];
    assert_eq!(
        ask(&mut state, json!({"command": "createClient", "username": "u", "roles": many}))["error"],
        "Too many roles or groups"
    );
    let text = "x".repeat(dynsec::TEXT_BYTES_MAX + 1);
    assert!(ask(&mut state, json!({"command": "createRole", "rolename": "r", "textname": text}))["error"].is_string());
    assert!(ask(&mut state, json!({"command": "createRole", "rolename": text}))["error"].is_string());
    // A list that is too long is refused; a part of it is not.
    let text = "x".repeat(dynsec::TEXT_BYTES_MAX);
    let mut created = 0;
    while created * dynsec::TEXT_BYTES_MAX < dynsec::RESPONSE_BYTES_MAX {
        created += 1;
        ask(&mut state, json!({"command": "createGroup", "groupname": format!("g{created}"), "textname": text}));
    }
    let answer = ask(&mut state, json!({"command": "listGroups", "verbose": true}));
    assert_eq!(answer["error"], "The response is too long; ask with count and offset");
    let answer = ask(&mut state, json!({"command": "listGroups", "verbose": true, "count": 2, "offset": 3}));
    assert_eq!(answer["data"]["groups"].as_array().unwrap().len(), 2);
    assert_eq!(answer["data"]["totalCount"], created);
    // Priorities beyond the end are at the end.
    ask(&mut state, json!({"command": "addClientRole", "username": "admin", "rolename": "admin", "priority": 5}));
    ask(
        &mut state,
        json!({"command": "createClient", "username": "p", "roles": [{"rolename": "admin", "priority": 1e300}]}),
    );
    let answer = ask(&mut state, json!({"command": "getClient", "username": "p"}));
    assert_eq!(answer["data"]["client"]["roles"], json!([{"rolename": "admin", "priority": dynsec::PRIORITY_MAX}]));
}

fn command() -> impl Strategy<Value = Value> {
    let names = [
        "createClient",
        "deleteClient",
        "modifyClient",
        "addClientRole",
        "removeClientRole",
        "disableClient",
        "setClientId",
        "createGroup",
        "deleteGroup",
        "modifyGroup",
        "addGroupClient",
        "removeGroupClient",
        "addGroupRole",
        "removeGroupRole",
        "setAnonymousGroup",
        "createRole",
        "deleteRole",
        "modifyRole",
        "addRoleACL",
        "removeRoleACL",
    ];
    let few = || prop::sample::select(vec!["a", "b", "c"]);
    let types = prop::sample::select(vec!["publishClientSend", "subscribeLiteral", "subscribePattern"]);
    let topics = prop::sample::select(vec!["t/#", "t/+", "t/a", "#", "%c"]);
    (prop::sample::select(names.to_vec()), few(), few(), few(), types, topics, -2..3, any::<bool>()).prop_map(
        |(command, user, group, role, acltype, topic, priority, lists)| {
            let mut command = json!({"command": command, "username": user, "groupname": group, "rolename": role, "acltype": acltype,
                "topic": topic, "priority": priority, "allow": lists, "clientid": role});
            if lists {
                command["roles"] = json!([{"rolename": role, "priority": priority}]);
                command["groups"] = json!([{"groupname": group, "priority": priority}]);
                command["clients"] = json!([{"username": user}]);
                command["acls"] = json!([{"acltype": acltype, "topic": topic, "priority": priority}]);
            }
            command
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever was commanded: the file holds all of the state, a refusal changes nothing, a change is told.
    #[test]
    fn the_file_has_it_all(commands in prop::collection::vec(command(), 0..60)) {
        let mut state = DynamicSecurity::default();
        for command in commands {
            let before = (state.to_json(), state.change_index());
            let response = state.apply(json!({"commands": [command]}).to_string().as_bytes(), &mut Lab);
            let failed = response.json.contains("\"error\"");
            prop_assert_eq!(response.changed, !failed);
            if failed {
                prop_assert_eq!(&before, &(state.to_json(), state.change_index()), "{}", command);
                prop_assert!(response.kicks.is_empty() && response.log.is_empty());
            }
            let again = DynamicSecurity::parse(&state.to_json()).unwrap();
            prop_assert_eq!(again.to_json(), state.to_json());
            for user in [None, Some("a"), Some("b"), Some("c")] {
                let (now, then) = (rights(&state, user, "t"), rights(&again, user, "t"));
                for topic in ["t", "t/a", "u"] {
                    prop_assert_eq!(now.may_publish(topic), then.may_publish(topic));
                    prop_assert_eq!(now.may_subscribe(topic, None), then.may_subscribe(topic, None));
                }
            }
        }
    }
}
