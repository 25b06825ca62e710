//! Topic Names, Topic Filters, and what matches.

use super::label;
use crate::case::Case;
use crate::ensure;
use crate::peer::{Event, Outcome, payloads};
use crate::wire::{Packet, Publish, Subscribe};

/// Filter, Topic Name, whether they match; both behind the first level of the test. An empty one is that level alone.
const MATCHES: &[(&str, &str, bool)] = &[
    ("/a", "/a", true),
    ("/a", "/b", false),
    ("/a", "/a/", false),
    ("/a", "/a/b", false),
    ("/a/b", "/a", false),
    ("/#", "", true),
    ("/#", "/", true),
    ("/#", "/a", true),
    ("/#", "/a/b/c", true),
    ("/a/#", "/a", true),
    ("/a/#", "/a/", true),
    ("/a/#", "/a/b", true),
    ("/a/#", "/ab", false),
    ("/a/#", "/b", false),
    ("/+", "/a", true),
    ("/+", "/", true),
    ("/+", "", false),
    ("/+", "/a/b", false),
    ("/+", "/a/", false),
    ("/+/c", "/a/c", true),
    ("/+/c", "//c", true),
    ("/+/c", "/c", false),
    ("/+/c", "/a/b/c", false),
    ("/+/+", "/a/b", true),
    ("/+/+", "//", true),
    ("/+/+", "/a", false),
    ("/+/#", "/a", true),
    ("/+/#", "/a/b/c", true),
    ("/+/#", "", false),
    ("//", "//", true),
    ("//", "/", false),
];

/// Pairs that only a broker that changes characters would take for the same.
const DIFFERENT: &[(&str, &str)] = &[
    ("/ACCOUNTS", "/Accounts"),
    ("/\u{e9}", "/e\u{301}"),
    ("/\u{c5}", "/\u{212b}"),
    ("/\u{3a9}", "/\u{2126}"),
    ("/a", "/ a"),
    ("/a", "/a "),
    ("/a", "/\u{ff41}"),
    ("/a", "/%61"),
    ("/a", "/./a"),
    ("/a", "/b/../a"),
    ("/a", "//a"),
    ("/*", "/a"),
    ("/a/*", "/a/b"),
    ("/?", "/a"),
    ("/a", "/a\u{200b}"),
    ("/a", "/a\u{0301}"),
];

fn matches(t: &Case<'_>, pairs: impl Iterator<Item = (String, String, bool)>) -> Outcome {
    let mut a = t.connect("a")?;
    for (filter, name, expected) in pairs {
        a.subscribe(&filter, 1)?;
        a.publish(&name, "m", 1)?;
        let got = a.collect_own(t)?;
        // The marker lies below the same first level, so a wildcard filter may deliver it once more; it is not `name`.
        let count = got.iter().filter(|m| m.topic == name.as_bytes()).count();
        ensure!(
            count == usize::from(expected),
            "{filter:?} and {name:?}: delivered {count} times, expected {}",
            u8::from(expected)
        );
        a.unsubscribe(&[&filter])?;
    }
    Ok(())
}

/// The wildcards match what the standard says.
pub fn wildcards_match(t: &Case<'_>) -> Outcome {
    let root = t.root().to_owned();
    matches(t, MATCHES.iter().map(|(f, n, m)| (format!("{root}{f}"), format!("{root}{n}"), *m)))?;
    let mut a = t.connect("b")?;
    // A leading separator makes an empty first level.
    a.subscribe(format!("/{root}"), 1)?;
    a.publish(&root, "no", 1)?;
    a.publish(format!("/{root}"), "yes", 1)?;
    a.receive(format!("/{root}"), "yes")?;
    Ok(())
}

/// Matching changes no characters: neither normalisation nor case nor substitution.
pub fn no_normalisation(t: &Case<'_>) -> Outcome {
    let root = t.root().to_owned();
    let pairs = DIFFERENT.iter().flat_map(|(a, b)| {
        let (a, b) = (format!("{root}{a}"), format!("{root}{b}"));
        [(a.clone(), b.clone(), false), (b.clone(), a.clone(), false), (a.clone(), a, true), (b.clone(), b, true)]
    });
    matches(t, pairs)
}

/// The Topic Name of a forwarded message matches the filter of the subscription, and is the one published.
pub fn forwarded_name_matches(t: &Case<'_>) -> Outcome {
    let names = ["x", "x/y", "x//y", "x/ y", "x/y/", "Ünï/水"].map(|n| t.topic(n));
    let (mut s, mut p) = (t.connect("s")?, t.connect("p")?);
    s.subscribe(t.topic("#"), 1)?;
    for name in &names {
        p.publish(name, name, 1)?;
        s.receive(name, name)?;
    }
    Ok(())
}

/// A Topic Name with wildcard characters is refused and not delivered.
pub fn wildcards_in_topic_names(t: &Case<'_>) -> Outcome {
    let mut watcher = t.connect("w")?;
    watcher.subscribe(t.topic("#"), 1)?;
    for (name, qos) in [("x/#", 0), ("x/+", 1), ("x+", 0), ("a#b", 1), ("+/x", 2)] {
        refused_name(t, t.topic(name).as_bytes(), qos)?;
    }
    let mut p = t.connect("p")?;
    let got = watcher.collect(t, &mut p)?;
    ensure!(got.is_empty(), "a Topic Name with wildcards was delivered: {:?}", got[0].topic);
    Ok(())
}

/// A bad Topic Name closes the connection, or, in 5.0 at QoS above 0, may be refused by an acknowledgement with 0x90.
fn refused_name(t: &Case<'_>, name: &[u8], qos: u8) -> Outcome {
    let mut a = t.connect("a")?;
    let answer =
        label(&format!("Topic Name {:?}", crate::wire::clip(name)), a.try_publish(Publish::new(name, "bad", qos)))?;
    match answer {
        None => Ok(()),
        Some(0x90) if t.version.is_v5() && qos > 0 => Ok(()),
        Some(_) if qos == 0 => crate::fail!("PUBLISH to {:?} did not close the connection", crate::wire::clip(name)),
        Some(code) => crate::fail!("PUBLISH to {:?} was acknowledged with 0x{code:02X}", crate::wire::clip(name)),
    }
}

/// A bad Topic Filter is not granted: SUBACK with a failure, or the connection is closed.
pub fn refused_filter(t: &Case<'_>, filter: &[u8]) -> Outcome {
    let mut a = t.connect("a")?;
    let mut subscribe = Subscribe::to(filter, 1);
    subscribe.packet_id = Some(1);
    a.send(subscribe.encode(t.version));
    let what = crate::wire::clip(filter);
    match label(&format!("Topic Filter {what:?}"), a.event())? {
        Event::Closed | Event::Packet(Packet::Disconnect(_)) => Ok(()),
        Event::Packet(Packet::SubAck(answer)) if answer.code() >= 0x80 => Ok(()),
        Event::Packet(other) => crate::fail!("Topic Filter {what:?} was answered by {other}"),
        Event::Silence => crate::fail!("Topic Filter {what:?} got no answer"),
    }
}

/// `#` stands alone or after a separator, and last.
pub fn misplaced_number_sign(t: &Case<'_>) -> Outcome {
    for filter in ["a#", "a/#/b", "a/##", "a/#b", "#/a", "a/b#"] {
        refused_filter(t, t.topic(filter).as_bytes())?;
    }
    refused_filter(t, b"##")?;
    refused_filter(t, b"#/a")
}

/// `+` takes a whole level.
pub fn misplaced_plus_sign(t: &Case<'_>) -> Outcome {
    for filter in ["a+", "+a", "a/+b/c", "a/b+", "++", "a/+#"] {
        refused_filter(t, t.topic(filter).as_bytes())?;
    }
    Ok(())
}

/// Names and filters have at least one character.
pub fn empty_names_and_filters(t: &Case<'_>) -> Outcome {
    for qos in 0..3 {
        refused_name(t, b"", qos)?;
    }
    refused_filter(t, b"")?;
    // One character is enough, and so is a separator.
    let mut a = t.connect("a")?;
    a.subscribe("/", 0)?;
    a.unsubscribe(&["/"])?;
    Ok(())
}

/// Filters that begin with `#` or `+` do not match names that begin with `$`.
pub fn dollar_topics(t: &Case<'_>) -> Outcome {
    let name = format!("${}/x", t.root());
    let mut all = t.connect("all")?;
    all.only = Some(t.root().to_owned());
    for filter in ["#".to_owned(), "+/x".to_owned(), "+/#".to_owned()] {
        all.subscribe(filter, 1)?;
    }
    // What the broker itself publishes under $SYS must not come through these filters; nor what a client publishes
    // below another name with $, if the broker lets it.
    let mut p = t.connect("p")?;
    let mut exact = t.connect("exact")?;
    let granted = exact.subscribe_with(Subscribe::to(&name, 1))?.code() < 0x80;
    let accepted = matches!(p.try_publish(Publish::new(&name, "dollar", 1))?, Some(code) if code < 0x80);
    if !accepted {
        p = t.connect("q")?;
    }
    if granted && accepted {
        let got = exact.collect(t, &mut p)?;
        ensure!(
            got.is_empty() || payloads(&got) == ["dollar"],
            "the exact filter got something else: {:?}",
            payloads(&got)
        );
    }
    p.publish(format!("{}/x", t.root()), "plain", 1)?;
    let got = all.collect(t, &mut p)?;
    ensure!(!got.iter().any(|m| m.topic.starts_with(b"$")), "a name that begins with $ came through #, +/x or +/#");
    ensure!(got.iter().any(|m| m.payload == b"plain"), "the ordinary message did not come");
    Ok(())
}
