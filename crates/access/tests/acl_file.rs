//! Mosquitto's ACL file.
//!
//! `mosquitto/acl.tsv` is what Mosquitto 2.0.11 did with `mosquitto/acl.txt`: user (`-` for none), Client Identifier, `write`
//! or `read`, Topic Name, and whether a publish was accepted, or a message delivered to a subscriber of `#` and `$SYS/x`.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its own table has failed")]

use pantala_access::{ACL_LINE_BYTES_MAX, Rights, Rules, Subject};

const FILE: &str = include_str!("mosquitto/acl.txt");
const ANSWERS: &str = include_str!("mosquitto/acl.tsv");

fn rights(text: &str, user_name: Option<&str>, client_id: &str) -> Rights {
    let rules = Rules::from_mosquitto_acl(text).unwrap();
    rules.rights(&Subject { client_id, user_name, ..Subject::default() })
}

#[test]
fn it_answers_as_mosquitto_does() {
    let mut answers = 0;
    for line in ANSWERS.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [user, client_id, access, topic_name, expected] = fields[..] else { panic!("{line}") };
        let rights = rights(FILE, (user != "-").then_some(user), client_id);
        let answer = match access {
            "write" => rights.may_publish(topic_name),
            _ => rights.may_receive(topic_name),
        };
        // There a name with a `/` in it is put in, and reaches below the level it was meant for. (2.1 does not.)
        let reaches_below = user == "a/b" && topic_name.starts_with("home/a/b");
        let reaches_below = reaches_below || client_id == "a/b" && topic_name.starts_with("dev/a/b");
        assert_eq!(answer, expected == "yes" && !reaches_below, "{line}");
        answers += 1;
    }
    assert!(answers > 500, "{answers}");
}

/// Mosquitto knows no others, and another user could have the name without them.
#[test]
fn blanks_beyond_ascii_belong_to_a_name() {
    let cases =
        [("user a\u{a0}\ntopic b", "a\u{a0}", "b"), ("user \u{3000}a \r\ntopic b\u{a0}", "\u{3000}a", "b\u{a0}")];
    for (text, user, topic_name) in cases {
        assert!(rights(text, Some(user), "c").may_publish(topic_name), "{text:?}");
        assert!(!rights(text, Some("a"), "c").may_publish(topic_name), "{text:?}");
    }
}

#[test]
fn everybody_may_subscribe_and_leave() {
    for user in [None, Some("eve"), Some("zoe")] {
        let rights = rights(FILE, user, "c");
        for filter in ["#", "public/secret", "$SYS/#", "$CONTROL/dynamic-security/#"] {
            assert!(rights.may_subscribe(filter, None) && rights.may_unsubscribe(filter));
            assert!(rights.may_subscribe(filter, Some("g")));
        }
    }
}

#[test]
fn nobody_may_do_anything_by_a_file_without_rules() {
    for text in ["", "\n\n", "# all\n", "\u{feff}# all\r\n", "user eve\n"] {
        let rules = Rules::from_mosquitto_acl(text).unwrap();
        assert!(rules.is_empty(), "{text:?}");
        let rights = rules.rights(&Subject { client_id: "c", user_name: Some("eve"), ..Subject::default() });
        assert!(!rights.may_publish("a") && !rights.may_receive("a"), "{text:?}");
    }
    assert!(!Rules::from_mosquitto_acl("topic a").unwrap().is_empty());
}

#[test]
fn line_ends_spaces_and_marks_are_no_part_of_names() {
    let rights = rights(
        "\u{feff}topic a\r\nuser  eve \r\n  topic   read   b c \r\n\ttopic write d\n # x\ntopic e",
        Some("eve"),
        "c",
    );
    assert!(
        rights.may_receive("b c") && !rights.may_receive("b") && rights.may_publish("d") && rights.may_publish("e")
    );
    assert!(!rights.may_publish("a"));
}

#[test]
fn names_stay_in_their_level() {
    let text = "pattern dev/%c/#\npattern home-%u/x\npattern deny dev/%c/secret\npattern %c/own";
    let of = |user, client_id| rights(text, user, client_id);
    assert!(of(None, "a").may_publish("dev/a/x") && !of(None, "a").may_publish("dev/a/secret"));
    assert!(!of(None, "a").may_publish("dev/ab/x") && !of(None, "ab").may_publish("dev/a/x"));
    assert!(of(Some("eve"), "a").may_publish("home-eve/x") && !of(None, "a").may_publish("home-/x"));
    assert!(!of(None, "$SYS").may_publish("$SYS/own"));
    for name in ["+", "#", "a/b", "+/+", "a#"] {
        let rights = of(Some(name), name);
        assert!(
            !rights.may_publish("dev/a/x") && !rights.may_publish("dev/a/b/x") && !rights.may_publish("home-a/x"),
            "{name}"
        );
    }
    // What is put in is not looked at again.
    assert!(of(Some("u"), "%u").may_publish("dev/%u/x") && !of(Some("u"), "%u").may_publish("dev/u/x"));
}

#[test]
fn a_wrong_line_is_named() {
    let long = format!("topic a\ntopic {}\n", "x".repeat(1 << 20));
    let cases = [
        ("topic a\n\ntopics b\n", "line 3: a line begins with user, topic or pattern"),
        ("topic a#\n", "line 1: a wildcard must have its level for itself"),
        ("# x\r\ntopic\r\n", "line 2: the Topic Filter is missing"),
        ("topic read\n", "line 1: the Topic Filter is missing"),
        ("topic deny \n", "line 1: the Topic Filter is missing"),
        ("pattern readwrite\n", "line 1: the Topic Filter is missing"),
        ("topic all a/b\n", "line 1: the access is one of"),
        ("user\n", "line 1: the user name is missing"),
        ("user  \r\n", "line 1: the user name is missing"),
        ("topic a\nuse", "line 2: a line begins with"),
        ("topic a\0b\n", "line 1: the Topic Filter has a character U+0000"),
        (&long, "line 2: the line is longer than 70000 bytes"),
    ];
    assert!(long.len() > ACL_LINE_BYTES_MAX);
    for (text, expected) in cases {
        let error = Rules::from_mosquitto_acl(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}
