//! What the fuzz targets check, for `fuzz/` and for `corpus.rs`.

use std::net::IpAddr;

use pantala_access::dynsec::{DynamicSecurity, Host};
use pantala_access::{Error, Permissions, Rights, RuleDraft, Rules, RulesDraft, Subject};

/// A target: its name and what it checks.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: [Target; 3] = [("acl_file", acl_file), ("dynsec", dynsec), ("rules_file", rules_file)];

const TOPICS: [&str; 6] = ["a", "a/b", "dev/c/x", "$SYS/x", "$CONTROL/dynamic-security/v1", "//"];

fn answers(rights: &Rights) -> Vec<bool> {
    let of = |topic: &str| {
        [
            rights.may_publish(topic),
            rights.may_receive(topic),
            rights.may_subscribe(topic, None),
            rights.may_subscribe(topic, Some("g")),
            rights.may_unsubscribe(topic),
        ]
    };
    TOPICS.iter().flat_map(|topic| of(topic)).chain([rights.may_subscribe("#", None)]).collect()
}

/// An ACL file: it is read the same whatever ends its lines, an error is in one of them, and a client whose names are
/// wildcards may do no more than one of the same user with another name.
pub fn acl_file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let read = Rules::from_mosquitto_acl(text);
    let other_ends = text.replace("\r\n", "\n").replace('\n', "\r\n");
    let again = Rules::from_mosquitto_acl(&other_ends);
    match (&read, &again) {
        (Err(error), Err(other)) => assert_eq!(error, other),
        (Ok(rules), Ok(other)) => {
            for user_name in [None, Some("a"), Some("")] {
                let subject = Subject { client_id: "c", user_name, ..Subject::default() };
                let rights = answers(&rules.rights(&subject));
                assert_eq!(rights, answers(&other.rights(&subject)));
                let wild = rules.rights(&Subject { client_id: "+", ..subject });
                for topic in TOPICS {
                    // No line can name this client, so what it may do all of its user may.
                    let may = rules.rights(&subject);
                    assert!(!wild.may_publish(topic) || may.may_publish(topic) || text.contains("deny"), "{topic}");
                }
            }
        }
        _ => panic!("it depends on the ends of lines"),
    }
    if let Err(Error::Line { line, .. }) = read {
        assert!((1..=text.split('\n').count()).contains(&line), "{line}");
    }
}

/// A rules file in TOML: it is read or refused in one line, the order of its tables says nothing, and what a rule for everybody
/// denies nobody may.
pub fn rules_file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(draft) = toml::from_str::<RulesDraft>(text) else { return };
    let rules = match draft.compile() {
        Ok(rules) => rules,
        Err(error) => return assert!(!error.to_string().contains('\n'), "{error}"),
    };
    let mut reversed = draft.clone();
    reversed.roles.reverse();
    reversed.rules.reverse();
    let reversed = reversed.compile().expect("the order says nothing");
    let mut denied = draft;
    let all = || vec!["#".to_owned(), "$share/+/#".to_owned()];
    let permissions = Permissions {
        deny_publish: vec!["#".to_owned()],
        deny_subscribe: all(),
        deny_receive: vec!["#".to_owned()],
        ..Permissions::default()
    };
    denied.rules.push(RuleDraft { permissions, ..RuleDraft::default() });
    // As many as may be are there already.
    let denied = denied.compile().ok();
    for user_name in [None, Some("a"), Some("")] {
        let of_some: [Box<str>; 1] = ["a".into()];
        for groups in [&[], &of_some[..]] {
            let subject = Subject { client_id: "c", user_name, groups, ..Subject::default() };
            let rights = answers(&rules.rights(&subject));
            assert_eq!(rights, answers(&reversed.rights(&subject)));
            let Some(denied) = denied.as_ref().map(|denied| denied.rights(&subject)) else { continue };
            for topic in TOPICS.iter().filter(|topic| !topic.starts_with('$')) {
                assert!(!denied.may_publish(topic) && !denied.may_receive(topic), "{topic}");
                assert!(!denied.may_subscribe(topic, None) && !denied.may_subscribe(topic, Some("g")), "{topic}");
            }
        }
    }
}

struct Lab;

impl Host for Lab {
    fn hash(&mut self, password: &str) -> Option<String> {
        Some(format!("$test${}", password.len()))
    }

    fn addresses(&self, _user_name: &str) -> Vec<IpAddr> {
        Vec::new()
    }
}

/// A file and requests, each ended by a zero byte: the answer is JSON, the file has all of the state, and what changed
/// nothing says so.
pub fn dynsec(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    let mut state = DynamicSecurity::parse(file).unwrap_or_else(|_| DynamicSecurity::new("admin", "$test$".into()));
    for request in parts {
        let before = state.to_json();
        let response = state.apply(request, &mut Lab);
        let answer: serde_json::Value = serde_json::from_str(&response.json).expect("the answer is JSON");
        assert!(answer["responses"].is_array());
        let after = state.to_json();
        assert!(response.changed || before == after);
        assert_eq!(response.changed, !response.log.is_empty());
    }
    let again = DynamicSecurity::parse(&state.to_json()).expect("what is written can be read");
    for user_name in [None, Some("admin"), Some("a")] {
        let subject = Subject { client_id: "c", user_name, ..Subject::default() };
        assert_eq!(answers(&state.rules().rights(&subject)), answers(&again.rules().rights(&subject)));
    }
}
