//! Rules of the configuration: what is allowed, what is denied, and which of both counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its own table has failed")]

use pantala_access::{DefaultAccess, Grants, Permissions, Rights, RoleDraft, RuleDraft, RulesDraft, Subject};
use pantala_proto::TopicFilter;
use proptest::prelude::*;

/// `+publish a/# -publish a/b ...`: what is allowed and denied.
fn permissions(text: &str) -> Permissions {
    let mut permissions = Permissions::default();
    let mut words = text.split_whitespace();
    while let Some(list) = words.next() {
        let filter = words.next().unwrap().to_owned();
        match list {
            "+publish" => permissions.publish.push(filter),
            "+subscribe" => permissions.subscribe.push(filter),
            "+receive" => permissions.receive.get_or_insert_default().push(filter),
            "-publish" => permissions.deny_publish.push(filter),
            "-subscribe" => permissions.deny_subscribe.push(filter),
            "-receive" => permissions.deny_receive.push(filter),
            _ => panic!("{list}"),
        }
    }
    permissions
}

fn everybody(text: &str, default_access: DefaultAccess) -> RulesDraft {
    let rules = if text.is_empty() {
        Vec::new()
    } else {
        vec![RuleDraft { permissions: permissions(text), ..RuleDraft::default() }]
    };
    RulesDraft { default_access, rules, ..RulesDraft::default() }
}

/// `publish a/b`, `receive a/b`, `subscribe $share/g/a`, `unsubscribe a`.
fn may(rights: &Rights, question: &str) -> bool {
    let (action, topic) = question.split_once(' ').unwrap();
    match action {
        "publish" => rights.may_publish(topic),
        "receive" => rights.may_receive(topic),
        "subscribe" => match TopicFilter::parse(topic).unwrap() {
            TopicFilter::Plain(filter) => rights.may_subscribe(filter, None),
            TopicFilter::Shared(shared) => rights.may_subscribe(shared.filter, Some(shared.share_name)),
        },
        "unsubscribe" => rights.may_unsubscribe(topic),
        _ => panic!("{action}"),
    }
}

const CLIENT: Subject<'static> = Subject {
    client_id: "c1",
    user_name: Some("eve"),
    address: None,
    certificate: false,
    named_by_certificate: false,
    groups: &[],
    grants: None,
};

/// Rules, what they allow, and what they do not. The client is `c1`, its user `eve`.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    (
        "",
        &["unsubscribe a", "unsubscribe #", "unsubscribe $CONTROL/x"],
        &["publish a", "receive a", "subscribe a", "subscribe #"],
    ),
    (
        "+publish a",
        &["publish a"],
        &[
            "publish b",
            "publish A",
            "publish a/",
            "publish /a",
            "publish a/b",
            "publish aa",
            "publish $a",
            "receive a",
            "subscribe a",
        ],
    ),
    (
        "+publish a/#",
        &["publish a", "publish a/", "publish a/b", "publish a//b", "publish a/b/c"],
        &["publish ab", "publish b/a", "publish /a", "publish A/b", "subscribe a/b", "receive a/b"],
    ),
    ("+publish a/+", &["publish a/b", "publish a/", "publish a/$b"], &["publish a", "publish a/b/c", "publish a//"]),
    (
        "+publish #",
        &["publish a", "publish /", "publish a/b/c"],
        &["publish $SYS/x", "publish $CONTROL/dynamic-security/v1", "publish $x", "receive a"],
    ),
    (
        "+publish $SYS/#",
        &["publish $SYS/x", "publish $SYS"],
        &["publish $SYSTEM", "publish $CONTROL/x", "publish SYS/x"],
    ),
    ("+publish +/a", &["publish b/a", "publish /a"], &["publish $SYS/a", "publish a", "publish b/a/c"]),
    (
        "+publish a/# -publish a/b",
        &["publish a", "publish a/c", "publish a/b/", "publish a/B", "publish a//b", "publish a/b/c"],
        &["publish a/b"],
    ),
    ("-publish a/b +publish a/#", &["publish a", "publish a/c", "publish a/b/c"], &["publish a/b", "publish b"]),
    ("+publish a/b -publish a/#", &[], &["publish a/b", "publish a", "publish a/c"]),
    (
        "+publish a/# -publish a/+/c",
        &["publish a/b", "publish a/b/c/d", "publish a/c"],
        &["publish a/b/c", "publish a//c"],
    ),
    ("-publish #", &[], &["publish a", "publish $SYS/x", "publish a/b"]),
    (
        "+publish dev/%c/#",
        &["publish dev/c1", "publish dev/c1/x"],
        &["publish dev/c2/x", "publish dev/c", "publish dev/c11", "publish dev/%c/x", "publish dev/+/x", "publish dev"],
    ),
    (
        "+publish home/%u/%c",
        &["publish home/eve/c1"],
        &["publish home/c1/eve", "publish home/eve", "publish home/eve/c2", "publish home/adam/c1"],
    ),
    ("+publish dev/# -publish dev/%c", &["publish dev/c2", "publish dev/c1/x"], &["publish dev/c1"]),
    ("+publish x-%c/y", &["publish x-c1/y"], &["publish x-/y", "publish x-c2/y", "publish x-c1"]),
    (
        "+subscribe a/b",
        &["subscribe a/b", "receive a/b", "subscribe $share/g/a/b"],
        &[
            "subscribe a/+",
            "subscribe a/#",
            "subscribe #",
            "subscribe +/b",
            "receive a/c",
            "publish a/b",
            "subscribe $share/g/a/+",
        ],
    ),
    (
        "+subscribe a/+",
        &["subscribe a/b", "subscribe a/+", "subscribe a/", "receive a/x"],
        &["subscribe a", "subscribe a/#", "subscribe a/+/+", "subscribe +/+", "receive a", "receive a/b/c"],
    ),
    (
        "+subscribe a/#",
        &[
            "subscribe a",
            "subscribe a/#",
            "subscribe a/+",
            "subscribe a/+/#",
            "subscribe a/b/c",
            "receive a",
            "receive a/b",
        ],
        &["subscribe #", "subscribe +", "subscribe +/#", "subscribe b", "receive b"],
    ),
    (
        "+subscribe #",
        &["subscribe #", "subscribe +", "subscribe a/b", "receive a"],
        &["subscribe $SYS/#", "subscribe $SYS/x", "receive $SYS/x"],
    ),
    (
        "+subscribe $SYS/#",
        &["subscribe $SYS/#", "subscribe $SYS/+", "receive $SYS/x"],
        &["subscribe #", "subscribe +/x"],
    ),
    (
        "+subscribe a +subscribe a/+ +subscribe a/+/#",
        &["subscribe a/#", "subscribe a", "subscribe a/b/#"],
        &["subscribe #", "subscribe +/b"],
    ),
    ("+subscribe dev/a/x", &["subscribe dev/a/x"], &["subscribe dev/+/x", "subscribe +/+/x", "subscribe dev/a/#"]),
    (
        "+subscribe a/# -subscribe a/b",
        &["subscribe a", "subscribe a/c", "subscribe a/c/#", "receive a/c", "subscribe a/b/c"],
        &["subscribe a/b", "subscribe a/#", "subscribe a/+", "receive a/b", "subscribe $share/g/a/+"],
    ),
    (
        "+subscribe # -subscribe secret/#",
        &["subscribe a/#", "subscribe open/secret", "receive a", "subscribe Secret/x"],
        &[
            "subscribe #",
            "subscribe +/x",
            "subscribe secret",
            "subscribe secret/x",
            "receive secret",
            "receive secret/x",
            "subscribe +",
        ],
    ),
    (
        "+subscribe # -receive secret/#",
        &["subscribe #", "subscribe secret/x", "receive a"],
        &["receive secret/x", "receive secret"],
    ),
    (
        "+subscribe # +receive a/#",
        &["subscribe #", "subscribe b", "receive a/x", "receive a"],
        &["receive b", "receive ab"],
    ),
    ("+receive a/#", &["receive a/b"], &["subscribe a/b", "receive b"]),
    (
        "+subscribe jobs/# +subscribe $share/workers/tasks/#",
        &[
            "subscribe jobs/1",
            "subscribe $share/others/jobs/1",
            "subscribe $share/workers/tasks/#",
            "subscribe $share/workers/tasks/1",
            "receive tasks/1",
        ],
        &["subscribe tasks/1", "subscribe $share/others/tasks/1", "subscribe $share/workers/jobs/1"],
    ),
    (
        "+subscribe jobs/# -subscribe $share/+/#",
        &["subscribe jobs/1", "receive jobs/1"],
        &["subscribe $share/g/jobs/1", "subscribe $share/h/jobs/1"],
    ),
    (
        "+subscribe jobs/# -subscribe $share/g/jobs/secret",
        &["subscribe jobs/#", "subscribe $share/h/jobs/#"],
        &["subscribe $share/g/jobs/#", "subscribe $share/g/jobs/secret", "subscribe $share/g/jobs/open"],
    ),
    (
        "+subscribe $share/+/jobs/#",
        &["subscribe $share/g/jobs/1", "subscribe $share/h/jobs/#"],
        &["subscribe jobs/1", "subscribe $share/g/tasks"],
    ),
    ("+publish a//b", &["publish a//b"], &["publish a/b", "publish a///b", "publish a//b/", "publish /a//b"]),
    ("+publish a/ -publish a", &["publish a/"], &["publish a"]),
    (
        "+publish # -publish Door/open",
        &["publish door/open", "publish Door/open/", "publish Door//open"],
        &["publish Door/open"],
    ),
];

#[test]
fn the_table() {
    let mut cases = 0;
    for (text, allowed, denied) in TABLE {
        let rights = everybody(text, DefaultAccess::Deny).compile().unwrap().rights(&CLIENT);
        for (questions, expected) in [(allowed, true), (denied, false)] {
            for question in *questions {
                assert_eq!(may(&rights, question), expected, "{text:?}: {question}");
                cases += 1;
            }
        }
    }
    assert!(cases >= 200, "{cases}");
}

#[test]
fn where_nothing_is_said_all_may_be_allowed() {
    let rights = everybody("-publish a/# -subscribe s/# +subscribe $share/g/x", DefaultAccess::Allow);
    let rights = rights.compile().unwrap().rights(&CLIENT);
    for question in [
        "publish b",
        "publish $x",
        "receive b",
        "subscribe b/#",
        "subscribe $SYS/#",
        "subscribe $share/h/b",
        "subscribe $share/g/x",
    ] {
        assert!(may(&rights, question), "{question}");
    }
    for question in [
        "publish a/b",
        "subscribe #",
        "subscribe s",
        "receive s/x",
        "subscribe $share/h/s/x",
        "subscribe $share/g/b",
        // Commanding the broker is never a default.
        "publish $CONTROL/dynamic-security/v1",
        "subscribe $CONTROL/#",
        "receive $CONTROL/dynamic-security/v1/response",
    ] {
        assert!(!may(&rights, question), "{question}");
    }
}

#[test]
fn names_that_reach_beyond_their_level_are_never_put_in() {
    let rules = everybody("+publish dev/%c/# +publish user/%u +subscribe cmd/%c/+ -publish %c/x", DefaultAccess::Deny);
    let rules = rules.compile().unwrap();
    for name in ["+", "#", "a/b", "../x", "a+", "#a"] {
        let rights = rules.rights(&Subject { client_id: name, user_name: Some(name), ..CLIENT });
        for topic in [format!("dev/{name}/x"), format!("user/{name}"), "dev/a/x".into(), "dev/".into(), "dev".into()] {
            assert!(!rights.may_publish(&topic), "{name}: {topic}");
        }
        for filter in ["cmd/+/+", "cmd/#", "cmd/a/b", "cmd/a/+"] {
            assert!(!rights.may_subscribe(filter, None), "{name}: {filter}");
        }
    }
    // Put in once, and compared by whole levels.
    let rights = rules.rights(&Subject { client_id: "%u", user_name: Some("%c"), ..CLIENT });
    assert!(rights.may_publish("dev/%u/x") && rights.may_publish("user/%c"));
    assert!(!rights.may_publish("dev/%c/x") && !rights.may_publish("user/%u"));
    let rights = rules.rights(&Subject { client_id: "a", ..CLIENT });
    assert!(rights.may_publish("dev/a") && !rights.may_publish("dev/ab") && !rights.may_publish("dev/ab/x"));
    let rights = rules.rights(&Subject { client_id: ".*", user_name: None, ..CLIENT });
    assert!(rights.may_publish("dev/.*") && !rights.may_publish("dev/x") && !rights.may_publish("user/"));
}

#[test]
fn who_a_rule_is_about() {
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let give = |topic: &str| permissions(&format!("+publish {topic}"));
    let draft = RulesDraft {
        roles: vec![RoleDraft { name: "sensor".into(), permissions: give("sensor/%c") }],
        rules: vec![
            RuleDraft { users: strings(&["eve", "adam"]), roles: strings(&["sensor"]), ..RuleDraft::default() },
            RuleDraft { users: strings(&["dev-*"]), permissions: give("user-front"), ..RuleDraft::default() },
            RuleDraft { users: strings(&["*"]), permissions: give("named"), ..RuleDraft::default() },
            RuleDraft { client_ids: strings(&["c1", "x*"]), permissions: give("id"), ..RuleDraft::default() },
            RuleDraft { groups: strings(&["ops"]), permissions: give("group"), ..RuleDraft::default() },
            RuleDraft { addresses: strings(&["10.0.0.0/8", "::1"]), permissions: give("near"), ..RuleDraft::default() },
            RuleDraft { certificate: Some(true), permissions: give("proved"), ..RuleDraft::default() },
            RuleDraft { anonymous: Some(true), permissions: give("anonymous"), ..RuleDraft::default() },
            RuleDraft {
                users: strings(&["eve"]),
                addresses: strings(&["10.0.0.0/8"]),
                permissions: give("both"),
                ..RuleDraft::default()
            },
            RuleDraft { permissions: give("all"), ..RuleDraft::default() },
        ],
        ..RulesDraft::default()
    };
    let rules = draft.compile().unwrap();
    let ops: [Box<str>; 1] = ["ops".into()];
    let near = Some("10.1.2.3".parse().unwrap());
    let nobody = Subject { client_id: "q", user_name: None, ..CLIENT };
    let cases = [
        (nobody, "anonymous all"),
        (CLIENT, "sensor/c1 named id all"),
        (Subject { user_name: Some("Eve"), ..CLIENT }, "named id all"),
        (Subject { user_name: Some("dev-7"), client_id: "xy", ..CLIENT }, "user-front named id all"),
        (Subject { user_name: Some("dev"), client_id: "c11", ..CLIENT }, "named all"),
        (Subject { groups: &ops, ..nobody }, "group anonymous all"),
        (Subject { address: near, ..CLIENT }, "sensor/c1 named id near both all"),
        (Subject { address: near, ..nobody }, "near anonymous all"),
        (Subject { address: Some("192.0.2.1".parse().unwrap()), certificate: true, ..nobody }, "proved anonymous all"),
        (Subject { address: Some("::1".parse().unwrap()), ..nobody }, "near anonymous all"),
    ];
    for (subject, expected) in cases {
        let rights = rules.rights(&subject);
        let topics = ["sensor/c1", "user-front", "named", "id", "group", "near", "proved", "anonymous", "both", "all"];
        let allowed: Vec<&str> = topics.into_iter().filter(|topic| rights.may_publish(topic)).collect();
        assert_eq!(allowed.join(" "), expected, "{subject:?}");
    }
}

#[test]
fn denying_counts_wherever_it_stands() {
    let role = |name: &str, text| RoleDraft { name: name.into(), permissions: permissions(text) };
    let rule = |roles: &[&str]| RuleDraft {
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..RuleDraft::default()
    };
    let roles = vec![role("reader", "+subscribe a/# +publish a/%c"), role("barred", "-subscribe a/b -publish a/c1")];
    for rules in [
        vec![rule(&["reader", "barred"])],
        vec![rule(&["barred"]), rule(&["reader"])],
        vec![rule(&["reader"]), rule(&["barred"])],
    ] {
        let draft = RulesDraft { roles: roles.clone(), rules, ..RulesDraft::default() };
        let rights = draft.compile().unwrap().rights(&CLIENT);
        assert!(may(&rights, "subscribe a/c") && may(&rights, "receive a"));
        assert!(!may(&rights, "subscribe a/b") && !may(&rights, "subscribe a/#") && !may(&rights, "publish a/c1"));
    }
}

#[test]
fn what_comes_with_a_client_joins_the_rules() {
    let grants = Grants::new(&permissions("+publish g/%c -publish r/b +subscribe s/#")).unwrap();
    let subject = Subject { grants: Some(&grants), ..CLIENT };
    let rights = everybody("+publish r/# -publish g/x", DefaultAccess::Deny).compile().unwrap().rights(&subject);
    for question in ["publish g/c1", "publish r/a", "subscribe s/x", "receive s/x"] {
        assert!(may(&rights, question), "{question}");
    }
    for question in ["publish r/b", "publish g/x", "publish g/c2", "publish q"] {
        assert!(!may(&rights, question), "{question}");
    }
    // Where no rules are configured, the client may do what it was granted, and no more.
    for rules in [pantala_access::Rules::everything(), pantala_access::Rules::nothing()] {
        let rights = rules.rights(&subject);
        assert!(may(&rights, "publish g/c1") && may(&rights, "unsubscribe q") && !rights.is_everything());
        assert!(!may(&rights, "publish g/c2") && !may(&rights, "receive q") && !may(&rights, "subscribe #"));
    }
    let too_many = "+publish a ".repeat(1_001);
    assert!(Grants::new(&permissions(&too_many)).is_err());
}

#[test]
fn a_mistake_is_named() {
    let rule = |text: &str| everybody(text, DefaultAccess::Deny);
    let with = |change: fn(&mut RuleDraft)| {
        let mut draft = rule("+publish a");
        change(&mut draft.rules[0]);
        draft
    };
    let role = |name: &str| RoleDraft { name: name.into(), ..RoleDraft::default() };
    let cases = [
        (
            rule("+publish a#"),
            "rule 1, publish \"a#\": a wildcard must have its level for itself, and # must be the last",
        ),
        (rule("+publish a -subscribe b/#/c"), "rule 1, deny_subscribe \"b/#/c\": a wildcard must"),
        (rule("+subscribe $share/g"), "rule 1, subscribe \"$share/g\": a Shared Subscription is written"),
        (rule("+subscribe $share/%c/x"), "rule 1, subscribe \"$share/%c/x\": a Share Name has no %c"),
        (rule("+subscribe $share/a+/x"), "rule 1, subscribe \"$share/a+/x\": a Share Name has no wildcard"),
        (with(|rule| rule.permissions = Permissions::default()), "rule 1: it gives neither"),
        (with(|rule| rule.roles.push("x".into())), "rule 1, role \"x\": there is no such role"),
        (with(|rule| rule.users.push(String::new())), "rule 1, user \"\": a name is not empty"),
        (with(|rule| rule.addresses.push("10/8".into())), "rule 1, address \"10/8\": a network is"),
        (
            with(|rule| {
                rule.users.push("a".into());
                rule.anonymous = Some(true);
            }),
            "rule 1: an anonymous client has no user name",
        ),
        (RulesDraft { roles: vec![role("a"), role("a")], ..rule("") }, "role \"a\": there is another"),
        (RulesDraft { roles: vec![role("")], ..rule("") }, "role \"\": a role needs a name"),
        (rule(&format!("+publish {}", "a/".repeat(200))), "rule 1, publish"),
    ];
    for (draft, expected) in cases {
        let error = draft.compile().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn rules_are_read_from_toml() {
    let text = r#"
        default_access = "allow"

        [[role]]
        name = "sensor"
        publish = ["dev/%c/#"]
        receive = []
        deny_subscribe = ["secret/#"]

        [[rule]]
        users = ["a*"]
        client_ids = ["c"]
        groups = ["g"]
        addresses = ["::1"]
        certificate = true
        anonymous = false
        roles = ["sensor"]
        deny_publish = ["x"]
    "#;
    let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let expected = RulesDraft {
        default_access: DefaultAccess::Allow,
        roles: vec![RoleDraft {
            name: "sensor".into(),
            permissions: Permissions { receive: Some(vec![]), ..permissions("+publish dev/%c/# -subscribe secret/#") },
        }],
        rules: vec![RuleDraft {
            users: strings(&["a*"]),
            client_ids: strings(&["c"]),
            groups: strings(&["g"]),
            addresses: strings(&["::1"]),
            certificate: Some(true),
            anonymous: Some(false),
            roles: strings(&["sensor"]),
            permissions: permissions("-publish x"),
        }],
    };
    assert_eq!(toml::from_str::<RulesDraft>(text).unwrap(), expected);
    assert_eq!(toml::from_str::<RulesDraft>("").unwrap(), RulesDraft::default());
    // A word that is not known could have denied something.
    for wrong in [
        "rules = []",
        "[[rule]]\nuser = [\"a\"]",
        "[[role]]\nname = \"a\"\npublishes = []",
        "[[role]]\n",
        "default_access = \"no\"",
    ] {
        assert!(toml::from_str::<RulesDraft>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn questions_of_the_hot_path_take_no_memory() {
    let mut text = "+publish dev/%c/# -publish dev/%c/x/+ +subscribe #".to_owned();
    for number in 0..100 {
        text.push_str(&format!(" +publish site/{number}/+/state -receive secret/{number}"));
    }
    let rights = everybody(&text, DefaultAccess::Deny).compile().unwrap().rights(&CLIENT);
    let counted = allocation_counter::measure(|| {
        assert!(rights.may_publish("dev/c1/temperature") && rights.may_publish("site/99/lamp/state"));
        assert!(!rights.may_publish("dev/c1/x/y") && !rights.may_publish("site/100/lamp/state"));
        assert!(rights.may_receive("site/1") && !rights.may_receive("secret/42"));
        let again = rights.clone();
        assert!(!again.is_everything());
    });
    assert_eq!(counted.count_total, 0);
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["a", "b", "+", "", "c1"]);
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_filter_map("empty", |(mut levels, all)| {
        if all {
            levels.push("#");
        }
        let text = levels.join("/");
        (!text.is_empty()).then_some(text)
    })
}

/// All Topic Names of up to five levels; `z` stands in no rule.
fn names() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut last = vec![String::new()];
    for depth in 0..5 {
        let levels: &[&str] = if depth < 3 { &["a", "b", "", "c1", "z"] } else { &["a", "z"] };
        last = last
            .iter()
            .flat_map(|front| {
                levels
                    .iter()
                    .map(move |level| if depth == 0 { (*level).to_owned() } else { format!("{front}/{level}") })
            })
            .collect();
        names.extend(last.iter().cloned());
    }
    names.retain(|name| !name.is_empty());
    names
}

fn matches(filter: &str, name: &str) -> bool {
    TopicFilter::Plain(filter).matches(name)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// In whatever order and in however many rules they stand: denied is what one denies, allowed what one of the others
    /// allows; and a filter may be subscribed to when each name it matches may be received.
    #[test]
    fn order_says_nothing_and_denying_wins(
        rules in prop::collection::vec((any::<bool>(), filter(), 0..3_usize), 0..10),
        asked in filter(),
        many in any::<bool>(),
    ) {
        let mut draft = RulesDraft::default();
        let mut texts = [String::new(), String::new(), String::new()];
        for (allow, filter, rule) in &rules {
            let sign = if *allow { '+' } else { '-' };
            texts[*rule] += &format!("{sign}publish {filter} {sign}subscribe {filter} ");
        }
        if many {
            // Enough that lists become trees.
            for number in 0..20 {
                texts[0] += &format!("+publish other/{number} -publish other/{number}/x ");
            }
        }
        for text in texts.iter().filter(|text| !text.is_empty()) {
            draft.rules.push(RuleDraft { permissions: permissions(text), ..RuleDraft::default() });
        }
        let rights = draft.compile().unwrap().rights(&CLIENT);
        let allows = |name: &str| {
            let says = |wanted: bool| rules.iter().any(|(allow, filter, _)| *allow == wanted && matches(filter, name));
            says(true) && !says(false)
        };
        let names = names();
        for name in &names {
            prop_assert_eq!(rights.may_publish(name), allows(name), "{}", name);
            prop_assert_eq!(rights.may_receive(name), allows(name), "{}", name);
        }
        let all = names.iter().filter(|name| matches(&asked, name)).all(|name| allows(name));
        prop_assert_eq!(rights.may_subscribe(&asked, None), all, "{}", asked);
        prop_assert_eq!(rights.may_subscribe(&asked, Some("g")), all, "{}", asked);
    }
}
