//! T1, T2, T3: each topic is a register, and each probe reads it.
//!
//! A topic has one writer, so the order of writes is the order of its sequence numbers. A probe must find a write that is
//! not older than the last one accepted before the probe began.

use std::collections::HashMap;

use super::index::{Index, Trace};
use super::{Class, Promise, Violation};
use crate::history::{Event, MessageId, Purpose, TopicNumber};
use crate::payload::Content;

struct Write {
    message: MessageId,
    is_delete: bool,
    trace: Trace,
}

/// Judges every probe.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    let mut registers: HashMap<TopicNumber, Vec<Write>> = HashMap::new();
    for (message, facts, trace) in index.messages() {
        if facts.retain && !matches!(facts.purpose, Purpose::Will { .. }) && trace.first_sent.is_some() {
            let is_delete = facts.purpose == Purpose::Delete;
            registers.entry(facts.topic).or_default().push(Write { message, is_delete, trace });
        }
    }
    let mut topics: Vec<TopicNumber> = registers.keys().copied().collect();
    topics.sort_unstable();
    let mut probes: HashMap<u16, (usize, HashMap<TopicNumber, Content>)> = HashMap::new();
    for (at, moment) in index.moments() {
        match moment.event {
            Event::ProbeBegan { probe } => {
                probes.insert(probe, (at, HashMap::new()));
            }
            Event::ProbeFound { probe, topic, content } => {
                if let Some((_, values)) = probes.get_mut(&probe) {
                    values.entry(topic).or_insert(content);
                }
            }
            Event::ProbeEnded { probe } => {
                let Some((began, values)) = probes.remove(&probe) else { continue };
                for topic in &topics {
                    judge(index, *topic, &registers[topic], (began, at), values.get(topic).copied(), found);
                }
            }
            _ => {}
        }
    }
}

fn judge(
    index: &Index<'_>,
    topic: TopicNumber,
    writes: &[Write],
    (began, ended): (usize, usize),
    value: Option<Content>,
    found: &mut Vec<Violation>,
) {
    let accepted = |write: &Write| write.trace.accepted.is_some_and(|accepted| accepted < began);
    let oldest = writes.iter().rposition(accepted);
    let candidates = &writes[oldest.unwrap_or(0)..];
    let under_way = |write: &&Write| write.trace.first_sent.is_some_and(|sent| sent < ended);
    let last = oldest.map(|place| &writes[place]);
    let crashed = last.and_then(|last| last.trace.accepted).is_some_and(|from| index.crashes(from, began) > 0);
    let stale = if crashed { Promise::T2 } else { Promise::T1 };
    let name = index.history.cast.topics.get(usize::from(topic)).map_or("?", String::as_str);
    let mut broken = |promise, class, message, what: String| {
        let at = last.and_then(|last| last.trace.accepted).unwrap_or(began);
        found.push(Violation { promise, class, at, client: None, message, what });
    };
    match value {
        Some(Content::Message(message)) => {
            if candidates.iter().filter(under_way).any(|write| write.message == message && !write.is_delete) {
                return;
            }
            match last {
                Some(last) if last.is_delete && message.sequence < last.message.sequence => {
                    let what = format!("{name} has {message}, which {} had deleted", last.message);
                    broken(Promise::T3, Class::Resurrected, Some(message), what);
                }
                Some(last) if message.sequence < last.message.sequence => {
                    let what = format!("{name} has {message}, older than {}", last.message);
                    broken(stale, Class::Lost, Some(message), what);
                }
                _ => broken(Promise::T2, Class::Other, Some(message), format!("{name} has {message}, written nowhere")),
            }
        }
        Some(Content::Empty | Content::Damaged) => {
            broken(Promise::T2, Class::Other, None, format!("{name} has a value that is not whole"));
        }
        None => {
            if last.is_none() || candidates.iter().filter(under_way).any(|write| write.is_delete) {
                return;
            }
            let message = last.map(|last| last.message);
            let what =
                format!("{name} has nothing, where there should be {}", message.map_or("?".into(), |m| m.to_string()));
            broken(stale, Class::Lost, message, what);
        }
    }
}
