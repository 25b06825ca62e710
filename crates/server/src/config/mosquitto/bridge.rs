//! `connection` and what follows it: bridges. They are read to the end, so that a mistake is told as one, and then refused:
//! a broker that leaves a bridge out silently loses messages.

use std::collections::BTreeMap;

use super::super::error::{ConfigError, Fault, Origin};
use super::super::key::{number_within, word_of};
use super::{Directive, split};

/// The port of a broker that a bridge goes to.
const PORT_MAX: u64 = 65_535;

/// What the value of a directive is.
enum Value {
    Switch,
    Number {
        min: u64,
        max: u64,
    },
    Text,
    Words(&'static [&'static str]),
    /// `HOST[:PORT]`, several of them with spaces between.
    Addresses,
    /// `PATTERN [out|in|both [QOS [LOCAL-PREFIX REMOTE-PREFIX]]]`.
    Topic,
    /// A constant, or a base, a cap, and the time after which a connection counts as stable.
    RestartTimeout,
    /// Idle time, interval and count.
    TcpKeepAlive,
    Hex,
}

/// All that may follow a `connection` line.
const DIRECTIVES: &[(&str, Value)] = &[
    ("address", Value::Addresses),
    ("addresses", Value::Addresses),
    ("bridge_alpn", Value::Text),
    ("bridge_attempt_unsubscribe", Value::Switch),
    ("bridge_bind_address", Value::Text),
    ("bridge_cafile", Value::Text),
    ("bridge_capath", Value::Text),
    ("bridge_certfile", Value::Text),
    ("bridge_ciphers", Value::Text),
    ("bridge_ciphers_tls1.3", Value::Text),
    ("bridge_identity", Value::Text),
    ("bridge_insecure", Value::Switch),
    ("bridge_keyfile", Value::Text),
    ("bridge_max_packet_size", Value::Number { min: 0, max: 268_435_460 }),
    ("bridge_max_topic_alias", Value::Number { min: 0, max: 65_535 }),
    ("bridge_outgoing_retain", Value::Switch),
    ("bridge_protocol_version", Value::Words(&["mqttv50", "mqttv311", "mqttv31"])),
    ("bridge_psk", Value::Hex),
    ("bridge_receive_maximum", Value::Number { min: 1, max: 65_535 }),
    ("bridge_reload_type", Value::Words(&["immediate", "lazy"])),
    ("bridge_require_ocsp", Value::Switch),
    ("bridge_session_expiry_interval", Value::Number { min: 0, max: u32::MAX as u64 }),
    ("bridge_tcp_keepalive", Value::TcpKeepAlive),
    ("bridge_tcp_user_timeout", Value::Number { min: 0, max: i32::MAX as u64 }),
    ("bridge_tls_use_os_certs", Value::Switch),
    ("bridge_tls_version", Value::Words(&["tlsv1.2", "tlsv1.3"])),
    ("cleansession", Value::Switch),
    ("clientid", Value::Text),
    ("idle_timeout", Value::Number { min: 1, max: 65_535 }),
    ("keepalive_interval", Value::Number { min: 5, max: 65_535 }),
    ("local_cleansession", Value::Switch),
    ("local_clientid", Value::Text),
    ("local_password", Value::Text),
    ("local_username", Value::Text),
    ("notification_topic", Value::Text),
    ("notifications", Value::Switch),
    ("notifications_local_only", Value::Switch),
    ("password", Value::Text),
    ("remote_clientid", Value::Text),
    ("remote_password", Value::Text),
    ("remote_username", Value::Text),
    ("restart_timeout", Value::RestartTimeout),
    ("round_robin", Value::Switch),
    // `manual` is in the manual page and refused by Mosquitto as well.
    ("start_type", Value::Words(&["automatic", "lazy", "once"])),
    ("threshold", Value::Number { min: 1, max: 65_535 }),
    ("topic", Value::Topic),
    ("try_private", Value::Switch),
    ("username", Value::Text),
];

/// Directives that need another one: the first without the second makes no bridge.
const PAIRS: &[(&str, &str)] = &[
    ("bridge_certfile", "bridge_keyfile"),
    ("bridge_keyfile", "bridge_certfile"),
    ("bridge_identity", "bridge_psk"),
    ("bridge_psk", "bridge_identity"),
    ("local_password", "local_username"),
    ("remote_password", "remote_username"),
];

/// Directives that exclude each other.
const EXCLUSIVE: &[(&str, &str)] = &[
    ("bridge_psk", "bridge_cafile"),
    ("bridge_psk", "bridge_capath"),
    ("bridge_psk", "bridge_certfile"),
    ("bridge_psk", "bridge_tls_use_os_certs"),
];

/// A bridge, as far as it has been read.
pub(super) struct Bridge {
    name: String,
    origin: Origin,
    /// Where each directive was, the last time.
    written: BTreeMap<&'static str, Origin>,
}

/// The directives of bridges, `connection` among them.
pub(super) fn is_directive(name: &str) -> bool {
    name == "connection" || known(name).is_some()
}

pub(super) fn directives() -> impl Iterator<Item = &'static str> {
    std::iter::once("connection").chain(DIRECTIVES.iter().map(|(name, _)| *name))
}

fn known(name: &str) -> Option<&'static (&'static str, Value)> {
    DIRECTIVES.iter().find(|(known, _)| *known == name)
}

/// Reads a line of a bridge. `current` is the one that the file is at.
pub(super) fn read(bridges: &mut Vec<Bridge>, current: &mut Option<usize>, line: &Directive<'_>) -> Result<(), Fault> {
    let Some((name, value)) = known(line.name) else {
        let name = line.value.to_owned();
        if bridges.iter().any(|bridge| bridge.name == name) {
            return Err(Fault::Twice { what: format!("connection \"{}\"", name.escape_debug()) });
        }
        *current = Some(bridges.len());
        bridges.push(Bridge { name, origin: line.origin.clone(), written: BTreeMap::new() });
        return Ok(());
    };
    check(line, value)?;
    let Some(bridge) = current.and_then(|index| bridges.get_mut(index)) else {
        let reason = "belongs to a bridge, and has to follow its \"connection\" line";
        return Err(Fault::WrongPlace { name, reason });
    };
    // The old names say the same.
    let name = match *name {
        "username" => "remote_username",
        "password" => "remote_password",
        "clientid" => "remote_clientid",
        "addresses" => "address",
        name => name,
    };
    bridge.written.insert(name, line.origin.clone());
    Ok(())
}

fn check(line: &Directive<'_>, value: &Value) -> Result<(), Fault> {
    let words: Vec<&str> = line.value.split_whitespace().collect();
    let number = |word: &str, min, max| number_within(line.name, word.parse().ok(), word.to_owned(), min, max, None);
    let bad = |reason| {
        // A key must not end in a log.
        let given = if line.name == "bridge_psk" { String::from("…") } else { line.value.to_owned() };
        Err(Fault::BadText { key: line.name.to_owned(), given, reason })
    };
    match value {
        Value::Text => Ok(()),
        Value::Switch => line.switch().map(drop),
        Value::Number { min, max } => line.number(*min, *max).map(drop),
        Value::Words(allowed) => word_of(line.name, line.word()?, allowed).map(drop),
        Value::Addresses => words.iter().try_for_each(|word| address(line, word)),
        Value::Topic => topic(line),
        Value::RestartTimeout => match words[..] {
            [constant] => number(constant, 1, 3_600).map(drop),
            [base, cap] | [base, cap, _] => {
                let (base, cap) = (number(base, 1, 3_600)?, number(cap, 1, 86_400)?);
                if let [_, _, stable] = words[..] {
                    number(stable, 1, 86_400)?;
                }
                if cap < base { bad("the second number is the longest time, so not below the first") } else { Ok(()) }
            }
            _ => bad("it has to be one number, or a base and a cap in seconds"),
        },
        Value::TcpKeepAlive => match words[..] {
            [idle, interval, count] => {
                [idle, interval, count].into_iter().try_for_each(|word| number(word, 1, i32::MAX as u64).map(drop))
            }
            _ => bad("it has to be three numbers: seconds of silence, seconds between probes, probes"),
        },
        Value::Hex => {
            match line.value.len().is_multiple_of(2) && line.value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                true => Ok(()),
                false => bad("it has to be hexadecimal, two digits for each byte"),
            }
        }
    }
}

fn address(line: &Directive<'_>, word: &str) -> Result<(), Fault> {
    let (host, port) = match word.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.strip_prefix(':').unwrap_or_default())),
        // An IPv6 address without brackets has no port.
        None if word.matches(':').count() > 1 => (word, None),
        None => word.split_once(':').map_or((word, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        let reason = "it has to be a host, or a host and a port with a colon between";
        return Err(Fault::BadText { key: line.name.to_owned(), given: word.to_owned(), reason });
    }
    port.map_or(Ok(()), |port| {
        number_within(line.name, port.parse().ok(), port.to_owned(), 1, PORT_MAX, None).map(drop)
    })
}

fn topic(line: &Directive<'_>) -> Result<(), Fault> {
    let (pattern, mut rest) = split(line.value);
    let mut next = || {
        let (word, more) = split(rest);
        rest = more;
        Some(word).filter(|word| !word.is_empty())
    };
    let bad = |given: &str, reason| Err(Fault::BadText { key: "topic".to_owned(), given: given.to_owned(), reason });
    // Empty is the prefixes alone.
    let filter = if pattern == "\"\"" { "" } else { pattern };
    if !filter.is_empty() && pantala_proto::TopicFilter::parse(filter).is_err() {
        return bad(pattern, "a wildcard must have its level for itself, and # must be the last");
    }
    if let Some(direction) = next() {
        word_of("topic", direction, &["out", "in", "both"])?;
    }
    if let Some(qos) = next() {
        number_within("topic", qos.parse().ok(), qos.to_owned(), 0, 2, None)?;
    }
    let prefixes = [next(), next()];
    for prefix in prefixes.into_iter().flatten() {
        if prefix.contains(['+', '#']) {
            return bad(prefix, "a prefix has no wildcards");
        }
    }
    if filter.is_empty() && prefixes.iter().all(|prefix| prefix.is_none_or(|prefix| prefix == "\"\"")) {
        return bad(pattern, "without a pattern it needs a prefix");
    }
    match next() {
        Some(more) => Err(Fault::TrailingText { name: "topic".to_owned(), text: more.to_owned() }),
        None => Ok(()),
    }
}

/// What no directive alone can say, and that there are no bridges.
pub(super) fn refuse(bridges: Vec<Bridge>) -> Result<(), ConfigError> {
    for bridge in &bridges {
        let Bridge { origin, written, .. } = bridge;
        for (key, section) in [("address", "connection"), ("topic", "connection")] {
            if !written.contains_key(key) {
                return Err(ConfigError::new(origin.clone(), Fault::Missing { key, section }));
            }
        }
        for (one, other) in PAIRS {
            if let Some(origin) = written.get(one).filter(|_| !written.contains_key(other)) {
                return Err(ConfigError::new(origin.clone(), Fault::Missing { key: other, section: one }));
            }
        }
        for (one, other) in EXCLUSIVE {
            if let Some(origin) = written.get(one).filter(|_| written.contains_key(other)) {
                let fault = Fault::Exclusive { one, other, section: "connection" };
                return Err(ConfigError::new(origin.clone(), fault));
            }
        }
    }
    match bridges.into_iter().next() {
        None => Ok(()),
        Some(bridge) => {
            let reason =
                "there are no bridges yet; without its block the file can be used, and no message goes that way";
            Err(ConfigError::new(bridge.origin, Fault::RefusedDirective { name: "connection", reason }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::draft::Draft;

    fn said(text: &str) -> String {
        let read = super::super::read(&mut Draft::new(), std::path::Path::new("f.conf"), text);
        read.expect_err(text).to_string()
    }

    const WHOLE: &str = "connection b\naddress a.example\ntopic #\n";

    #[test]
    fn a_bridge_without_mistakes_is_refused_by_the_line_of_its_connection() {
        let all: String = [
            "address [::1]:1884 host.example:1883 192.0.2.1 2001:db8::1",
            "topic a/+/# both 2 local/ remote/",
            "topic \"\" in 0 local/ \"\"",
            "topic x",
            "restart_timeout 10",
            "restart_timeout 5 30",
            "restart_timeout 5 30 60",
            "bridge_tcp_keepalive 60 10 3",
            "bridge_protocol_version mqttv50",
            "start_type lazy",
            "clientid gateway 1",
            "username ann",
            "password secret with blanks",
            "keepalive_interval 5",
            "bridge_certfile c",
            "bridge_keyfile k",
        ]
        .map(|line| format!("{line}\n"))
        .concat();
        for text in [WHOLE, &format!("{WHOLE}{all}"), &format!("{WHOLE}listener 1883\ntry_private false")] {
            let expected = "f.conf:1: directive \"connection\" is not supported: there are no bridges yet";
            assert!(said(text).starts_with(expected), "{}", said(text));
        }
        // The first one is named.
        assert!(said(&format!("# a\n{WHOLE}connection c\naddress x\ntopic y")).starts_with("f.conf:2: "));
    }

    #[test]
    fn mistakes_in_a_bridge_are_told_first() {
        for (line, expected) in [
            ("connection b", "f.conf:4: connection \"b\" is there twice"),
            ("address :1883", "f.conf:4: \"address\" cannot be \":1883\""),
            ("address host:0", "f.conf:4: \"address\" is 0, but has to be from 1 to 65535"),
            ("address host:70000", "f.conf:4: \"address\" is 70000"),
            ("address [::1]x", "f.conf:4: \"address\" is , but"),
            ("topic a/#/b", "f.conf:4: \"topic\" cannot be \"a/#/b\""),
            ("topic a sideways", "f.conf:4: \"topic\" cannot be \"sideways\""),
            ("topic a out 3", "f.conf:4: \"topic\" is 3, but has to be from 0 to 2"),
            ("topic a out 1 l/# r/", "f.conf:4: \"topic\" cannot be \"l/#\": a prefix has no wildcards"),
            ("topic a out 1 l r more", "f.conf:4: unexpected \"more\""),
            ("topic \"\" out", "f.conf:4: \"topic\" cannot be \"\\\"\\\"\": without a pattern"),
            ("start_type manual", "f.conf:4: \"start_type\" cannot be \"manual\""),
            ("keepalive_interval 4", "f.conf:4: \"keepalive_interval\" is 4, but has to be from 5"),
            ("restart_timeout 30 5", "f.conf:4: \"restart_timeout\" cannot be \"30 5\""),
            ("restart_timeout 1 2 3 4", "f.conf:4: \"restart_timeout\" cannot be"),
            ("restart_timeout 0", "f.conf:4: \"restart_timeout\" is 0"),
            ("bridge_tcp_keepalive 1 2", "f.conf:4: \"bridge_tcp_keepalive\" cannot be"),
            (
                "bridge_protocol_version mqttv5",
                "f.conf:4: \"bridge_protocol_version\" cannot be \"mqttv5\"; did you mean",
            ),
            ("bridge_tls_version tlsv1.1", "f.conf:4: \"bridge_tls_version\" cannot be"),
            ("bridge_receive_maximum 0", "f.conf:4: \"bridge_receive_maximum\" is 0"),
            ("bridge_psk 0g", "f.conf:4: \"bridge_psk\" cannot be \"…\""),
            ("try_private maybe", "f.conf:4: \"try_private\" cannot be \"maybe\""),
            ("bridge_certfile c", "f.conf:4: bridge_certfile needs \"bridge_keyfile\""),
            ("password p", "f.conf:4: remote_password needs \"remote_username\""),
            (
                "bridge_psk 00\nbridge_identity i\nbridge_cafile c",
                "f.conf:4: \"bridge_psk\" and \"bridge_cafile\" exclude",
            ),
        ] {
            assert!(
                said(&format!("{WHOLE}{line}")).starts_with(expected),
                "{line}: {}",
                said(&format!("{WHOLE}{line}"))
            );
        }
        for (text, expected) in [
            ("connection b\ntopic #", "f.conf:1: connection needs \"address\""),
            ("connection b\naddress a", "f.conf:1: connection needs \"topic\""),
            ("topic #", "f.conf:1: directive \"topic\" belongs to a bridge"),
            ("try_private true\nconnection b", "f.conf:1: directive \"try_private\" belongs to a bridge"),
        ] {
            assert!(said(text).starts_with(expected), "{text}: {}", said(text));
        }
    }
}
