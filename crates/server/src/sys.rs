//! What the broker tells of itself below `$SYS/`: Mosquitto's names with their meaning, and names of our own.
//!
//! Nothing here measures: figures of all workers come in, messages go out. A value is published when it has changed, and
//! then retained; a load when it has changed by a hundredth. `docs/sys.md` has the list, and a test compares it.

use std::collections::HashMap;
use std::fmt::Write as _;

use pantala_broker::{Census, Counters};
use pantala_store::{Activity, Durability, Health};

use crate::guard::Memory;
use crate::stage::StageCounters;

/// What there is to tell, of all workers together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) uptime_seconds: u64,
    pub(crate) counters: Counters,
    pub(crate) stages: StageCounters,
    /// What has come of verifications, by the names of their counters.
    pub(crate) verifications: Vec<(&'static str, u64)>,
    pub(crate) census: Census,
    /// Clients that are let in.
    pub(crate) connected: u64,
    pub(crate) sessions: u64,
    /// Retained Messages of clients.
    pub(crate) retained: u64,
    /// For each worker, connections and Sessions.
    pub(crate) workers: Vec<(u64, u64)>,
    /// For each listener, clients that are let in.
    pub(crate) listeners: Vec<u64>,
    pub(crate) memory: Option<Memory>,
    pub(crate) memory_max: Option<u64>,
    pub(crate) memory_short: bool,
    pub(crate) durability: Option<Durability>,
    pub(crate) store: Activity,
    /// Records that are appended and not durable.
    pub(crate) store_lag: u64,
    pub(crate) log_held_back: u64,
}

/// A message of the broker's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) topic_name: String,
    pub(crate) payload: String,
    pub(crate) retain: bool,
}

/// A topic whose value is a number.
struct Gauge {
    topic_names: &'static [&'static str],
    value: fn(&Figures) -> Option<u64>,
    /// Only larger values are published.
    maximum: bool,
}

const fn gauge(topic_names: &'static [&'static str], value: fn(&Figures) -> Option<u64>) -> Gauge {
    Gauge { topic_names, value, maximum: false }
}

const fn maximum(topic_names: &'static [&'static str], value: fn(&Figures) -> Option<u64>) -> Gauge {
    Gauge { topic_names, value, maximum: true }
}

/// Mosquitto's.
static GAUGES: &[Gauge] = &[
    gauge(&["$SYS/broker/clients/total"], |it| Some(it.sessions)),
    maximum(&["$SYS/broker/clients/maximum"], |it| Some(it.sessions)),
    gauge(&["$SYS/broker/clients/disconnected", "$SYS/broker/clients/inactive"], |it| {
        Some(it.sessions.saturating_sub(it.connected))
    }),
    gauge(&["$SYS/broker/clients/connected", "$SYS/broker/clients/active"], |it| Some(it.connected)),
    gauge(&["$SYS/broker/clients/expired"], |it| Some(it.counters.sessions_expired)),
    gauge(&["$SYS/broker/messages/stored", "$SYS/broker/store/messages/count"], |it| {
        Some(retained(it) + it.census.queued_messages + it.census.inflight_messages)
    }),
    gauge(&["$SYS/broker/store/messages/bytes"], |it| {
        Some(it.census.retained_bytes + it.census.queued_bytes + it.census.inflight_bytes)
    }),
    gauge(&["$SYS/broker/subscriptions/count"], |it| Some(it.census.subscriptions)),
    gauge(&["$SYS/broker/shared_subscriptions/count"], |it| Some(it.census.shared_subscriptions)),
    gauge(&["$SYS/broker/retained messages/count"], |it| Some(retained(it))),
    gauge(&["$SYS/broker/heap/current"], |it| it.memory.map(|memory| memory.resident)),
    maximum(&["$SYS/broker/heap/maximum"], |it| it.memory.map(|memory| memory.peak)),
    gauge(&["$SYS/broker/messages/received"], |it| Some(messages_received(&it.counters))),
    gauge(&["$SYS/broker/messages/sent"], |it| Some(messages_sent(&it.counters))),
    gauge(&["$SYS/broker/bytes/received"], |it| Some(it.counters.bytes_received)),
    gauge(&["$SYS/broker/bytes/sent"], |it| Some(it.counters.bytes_sent)),
    gauge(&["$SYS/broker/publish/bytes/received"], |it| Some(it.counters.publish_bytes_received)),
    gauge(&["$SYS/broker/publish/bytes/sent"], |it| Some(it.counters.publish_bytes_sent)),
    gauge(&["$SYS/broker/packet/out/count"], |it| Some(it.census.output_connections)),
    gauge(&["$SYS/broker/packet/out/bytes"], |it| Some(it.census.output_bytes)),
    gauge(&["$SYS/broker/connections/socket/count"], |it| Some(it.counters.connections_opened)),
    gauge(&["$SYS/broker/publish/messages/dropped"], |it| Some(dropped(&it.counters))),
    gauge(&["$SYS/broker/publish/messages/received"], |it| Some(it.counters.publish_received)),
    gauge(&["$SYS/broker/publish/messages/sent"], |it| Some(it.counters.publish_sent)),
];

/// Our own, without the counters and what there is one of for each listener and worker.
static OWN_GAUGES: &[Gauge] = &[
    gauge(&["$SYS/broker/pantala/store/records_waiting"], |it| Some(it.store_lag)),
    gauge(&["$SYS/broker/pantala/store/batches"], |it| Some(it.store.batches)),
    gauge(&["$SYS/broker/pantala/store/syncs"], |it| Some(it.store.syncs)),
    gauge(&["$SYS/broker/pantala/store/bytes"], |it| Some(it.store.bytes)),
    gauge(&["$SYS/broker/pantala/store/records"], |it| Some(it.store.records)),
    gauge(&["$SYS/broker/pantala/store/segments"], |it| Some(it.store.segments)),
    gauge(&["$SYS/broker/pantala/store/file_bytes"], |it| Some(it.store.file_bytes)),
    gauge(&["$SYS/broker/pantala/queued/messages"], |it| Some(it.census.queued_messages)),
    gauge(&["$SYS/broker/pantala/queued/bytes"], |it| Some(it.census.queued_bytes)),
    gauge(&["$SYS/broker/pantala/inflight/messages"], |it| Some(it.census.inflight_messages)),
    gauge(&["$SYS/broker/pantala/inflight/bytes"], |it| Some(it.census.inflight_bytes)),
    gauge(&["$SYS/broker/pantala/retained/messages"], |it| Some(it.retained)),
    gauge(&["$SYS/broker/pantala/memory/bytes_max"], |it| Some(it.memory_max.unwrap_or(0))),
    gauge(&["$SYS/broker/pantala/log/lines_held_back"], |it| Some(it.log_held_back)),
    gauge(&["$SYS/broker/pantala/workers"], |it| Some(it.workers.len() as u64)),
];

/// One of the things that are counted, or several together.
type Count = fn(&Counters) -> u64;

/// What Mosquitto has loads of, in the order in which it names them.
static LOADS: &[(&str, Count)] = &[
    ("messages/received", messages_received),
    ("messages/sent", messages_sent),
    ("publish/dropped", dropped),
    ("publish/received", |it| it.publish_received),
    ("publish/sent", |it| it.publish_sent),
    ("bytes/received", |it| it.bytes_received),
    ("bytes/sent", |it| it.bytes_sent),
    ("sockets", |it| it.connections_opened),
    ("connections", |it| it.connect_received),
];

/// The times over which loads are averaged, with their names.
const SPANS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];
/// A load that has changed by less is not published again.
const LOAD_CHANGE: f64 = 0.01;

fn messages_received(counters: &Counters) -> u64 {
    counters.publish_received + counters.other_packets_received
}

fn messages_sent(counters: &Counters) -> u64 {
    counters.publish_sent + counters.other_packets_sent
}

/// Those that were dropped because a client did not take them in time, which is what Mosquitto counts.
fn dropped(counters: &Counters) -> u64 {
    counters.dropped_queue_full_newest + counters.dropped_queue_full_oldest + counters.dropped_outgoing_full
}

/// Names of memory, which not every system tells of.
const HEAP_NAMES: usize = 2;

/// Mosquitto counts its own among them; what we say beyond that is not to change what its users see.
fn retained(figures: &Figures) -> u64 {
    let names: usize = GAUGES.iter().map(|gauge| gauge.topic_names.len()).sum();
    let untold = if figures.memory.is_none() { HEAP_NAMES } else { 0 };
    // Version and uptime.
    figures.retained + (names - untold) as u64 + 2 + (LOADS.len() * SPANS.len()) as u64
}

/// What has been published, and so what has changed.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    said: HashMap<String, String>,
    highest: HashMap<&'static str, u64>,
    loads: HashMap<(usize, usize), f64>,
    /// The counters of the last time.
    before: Counters,
}

impl Tree {
    /// Takes back all that has been said: nothing more will be.
    pub(crate) fn take_back(&mut self) -> Vec<Own> {
        let said = std::mem::take(&mut self.said).into_keys();
        said.map(|topic_name| Own { topic_name, payload: String::new(), retain: true }).collect()
    }

    /// What has changed, when so many seconds have passed since the last time; 0 is the first time.
    pub(crate) fn update(&mut self, figures: &Figures, seconds: f64) -> Vec<Own> {
        let mut out = Vec::new();
        self.say(&mut out, "$SYS/broker/version", concat!("pantala version ", env!("CARGO_PKG_VERSION")).to_owned());
        self.say(&mut out, "$SYS/broker/uptime", format!("{} seconds", figures.uptime_seconds));
        self.update_loads(&mut out, figures, seconds);
        for gauge in GAUGES.iter().chain(OWN_GAUGES) {
            let Some(mut value) = (gauge.value)(figures) else { continue };
            for topic_name in gauge.topic_names {
                if gauge.maximum {
                    let highest = self.highest.entry(topic_name).or_default();
                    value = value.max(*highest);
                    *highest = value;
                }
                self.say(&mut out, topic_name, value.to_string());
            }
        }
        let mut topic_name = String::new();
        let verifications = figures.verifications.iter().copied();
        for (name, value) in figures.counters.iter().chain(figures.stages.iter()).chain(verifications) {
            counter_topic(name, &mut topic_name);
            self.say(&mut out, &topic_name, value.to_string());
        }
        let health = match figures.store.health {
            Health::Working => "ok",
            Health::Full => "full",
            Health::Failed => "failed",
        };
        self.say(&mut out, "$SYS/broker/pantala/store/state", health.to_owned());
        let durability = figures.durability.map_or_else(String::new, |durability| durability.to_string());
        self.say(&mut out, "$SYS/broker/pantala/store/durability", durability);
        let memory = if figures.memory_short { "short" } else { "ok" };
        self.say(&mut out, "$SYS/broker/pantala/memory/state", memory.to_owned());
        for (number, connections) in figures.listeners.iter().enumerate() {
            let topic_name = format!("$SYS/broker/pantala/listeners/{number}/connections");
            self.say(&mut out, &topic_name, connections.to_string());
        }
        for (number, (connections, sessions)) in figures.workers.iter().enumerate() {
            for (what, value) in [("connections", connections), ("sessions", sessions)] {
                let topic_name = format!("$SYS/broker/pantala/workers/{number}/{what}");
                self.say(&mut out, &topic_name, value.to_string());
            }
        }
        self.before = figures.counters;
        out
    }

    fn say(&mut self, out: &mut Vec<Own>, topic_name: &str, payload: String) {
        match self.said.get_mut(topic_name) {
            Some(said) if *said == payload => return,
            Some(said) => said.clone_from(&payload),
            None => drop(self.said.insert(topic_name.to_owned(), payload.clone())),
        }
        out.push(Own { topic_name: topic_name.to_owned(), payload, retain: true });
    }

    /// Averages that forget: events a minute, weighted by how long ago they were.
    fn update_loads(&mut self, out: &mut Vec<Own>, figures: &Figures, seconds: f64) {
        for (what, (name, value)) in LOADS.iter().enumerate() {
            let count = value(&figures.counters).saturating_sub(value(&self.before));
            for (over, (span, span_seconds)) in SPANS.iter().enumerate() {
                let topic_name = || format!("$SYS/broker/load/{name}/{span}");
                let Some(load) = self.loads.get_mut(&(what, over)) else {
                    self.loads.insert((what, over), 0.0);
                    self.say(out, &topic_name(), "0.00".to_owned());
                    continue;
                };
                if seconds <= 0.0 {
                    continue;
                }
                let rate = count as f64 * 60.0 / seconds;
                let next = rate + (-seconds / span_seconds).exp() * (*load - rate);
                let changed = (next - *load).abs() >= LOAD_CHANGE;
                *load = next;
                if changed {
                    self.say(out, &topic_name(), format!("{next:.2}"));
                }
            }
        }
    }
}

/// Where a counter is published.
fn counter_topic(name: &str, into: &mut String) {
    into.clear();
    // Writing to a String cannot fail.
    let _ = match name.strip_prefix("dropped_") {
        Some(reason) => write!(into, "$SYS/broker/pantala/dropped/{reason}"),
        None => write!(into, "$SYS/broker/pantala/counters/{name}"),
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn figures() -> Figures {
        Figures {
            memory: Some(Memory { resident: 1, peak: 2 }),
            durability: Some(Durability::Fsync),
            verifications: crate::security::Counters::default().iter().collect(),
            listeners: vec![0],
            workers: vec![(0, 0)],
            ..Figures::default()
        }
    }

    fn value<'a>(messages: &'a [Own], topic_name: &str) -> Option<&'a str> {
        messages.iter().find(|message| message.topic_name == topic_name).map(|message| &*message.payload)
    }

    #[test]
    fn the_page_of_topics_names_them_all_and_no_others() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/sys.md");
        let page = std::fs::read_to_string(path).unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `$SYS/"));
        let documented: BTreeSet<String> = rows.map(|row| format!("$SYS/{}", row.split_once('`').unwrap().0)).collect();
        let messages = Tree::default().update(&figures(), 0.0);
        let mut told: BTreeSet<String> =
            messages.iter().map(|message| message.topic_name.replace("/0/", "/N/")).collect();
        for kind in ["E", "W", "N", "I", "M/subscribe", "M/unsubscribe", "WS"] {
            told.insert(format!("$SYS/broker/log/{kind}"));
        }
        assert_eq!(documented, told);
    }

    #[test]
    fn what_has_not_changed_is_not_said_again() {
        let (mut tree, mut figures) = (Tree::default(), figures());
        let first = tree.update(&figures, 0.0);
        assert!(first.iter().all(|message| message.retain && !message.payload.is_empty()), "{first:?}");
        assert_eq!(tree.update(&figures, 10.0), []);
        figures.uptime_seconds = 10;
        figures.sessions = 3;
        let messages = tree.update(&figures, 10.0);
        let names: Vec<_> =
            messages.iter().map(|message| message.topic_name.strip_prefix("$SYS/broker/").unwrap()).collect();
        assert_eq!(names, ["uptime", "clients/total", "clients/maximum", "clients/disconnected", "clients/inactive"]);
        figures.sessions = 1;
        let messages = tree.update(&figures, 10.0);
        assert_eq!(value(&messages, "$SYS/broker/clients/total"), Some("1"));
        assert_eq!(value(&messages, "$SYS/broker/clients/maximum"), None);
    }

    #[test]
    fn loads_rise_and_fall_as_in_mosquitto() {
        let (mut tree, mut figures) = (Tree::default(), figures());
        tree.update(&figures, 0.0);
        figures.counters.connections_opened = 10;
        let messages = tree.update(&figures, 10.0);
        // 60 a minute, and a part of it by the time that has passed: 60 (1 - exp(-10 / 60)), and so on.
        let load = |messages: &[Own], span: &str| {
            value(messages, &format!("$SYS/broker/load/sockets/{span}")).map(str::to_owned)
        };
        let expected = [("1min", "9.21"), ("5min", "1.97"), ("15min", "0.66")];
        for (span, expected) in expected {
            assert_eq!(load(&messages, span).as_deref(), Some(expected), "{span}");
        }
        let messages = tree.update(&figures, 60.0);
        assert_eq!(load(&messages, "1min").as_deref(), Some("3.39"));
        // It fades until it changes no more.
        for _ in 0..1_000 {
            tree.update(&figures, 10.0);
        }
        assert_eq!(tree.update(&figures, 10.0), []);
    }

    #[test]
    fn what_we_say_beyond_mosquitto_is_not_among_its_retained_messages() {
        let mut figures = figures();
        figures.retained = 5;
        let messages = Tree::default().update(&figures, 0.0);
        let theirs = messages.iter().filter(|message| !message.topic_name.contains("/pantala/")).count();
        let counted = value(&messages, "$SYS/broker/retained messages/count").unwrap();
        assert_eq!(counted.parse::<usize>().unwrap(), theirs + 5);
        assert_eq!(value(&messages, "$SYS/broker/pantala/retained/messages"), Some("5"));
    }

    #[test]
    fn trouble_is_told() {
        let (mut tree, mut figures) = (Tree::default(), figures());
        tree.update(&figures, 0.0);
        figures.store.health = Health::Full;
        figures.memory_short = true;
        figures.counters.dropped_store_refused = 2;
        let messages = tree.update(&figures, 10.0);
        for (topic_name, expected) in
            [("store/state", "full"), ("memory/state", "short"), ("dropped/store_refused", "2")]
        {
            assert_eq!(value(&messages, &format!("$SYS/broker/pantala/{topic_name}")), Some(expected));
        }
    }
}
