//! Closed-loop load with a proof that nothing was lost.
//!
//! Each publisher numbers its messages. Each subscriber knows which number of which publisher is due and takes nothing
//! else. A publisher sends only while its newest message is at most a window ahead of the oldest one that some
//! subscriber still lacks, so a broker that drops has lost, and is not merely overrun.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::features::{Features, Version};
use crate::fleet::{Connection, Fleet, Introduction, Lifetime, require_success};
use crate::packet::{self, Frame, PublishTemplate};
use crate::progress::Patience;
use crate::usage;

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Publisher *n* to subscriber *n*, each pair with a Topic Name of its own.
    Pairs(u32),
    /// All publishers, each with its own Topic Name, to one subscriber with one wildcard filter.
    FanIn {
        /// Number of publishers.
        publishers: u32,
    },
    /// Few publishers with a Topic Name each; every subscriber has subscribed to all of these.
    FanOut {
        /// Number of publishers.
        publishers: u32,
        /// Number of subscribers.
        subscribers: u32,
    },
}

/// A whole load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who talks to whom.
    pub shape: Shape,
    /// QoS of messages and subscriptions, 0 to 2.
    pub qos: u8,
    /// Bytes of each payload, at least [`packet::STAMP_BYTES`].
    pub payload_bytes: usize,
    /// QoS 0: messages a publisher may be ahead of its slowest subscriber. QoS 1 and 2: messages in flight between
    /// publisher and broker; the lead over the slowest subscriber is then at most [`LEAD_PER_INFLIGHT`] times that.
    pub window: u32,
    /// QoS 0: messages per write, exactly. QoS 1 and 2: as many as the window has room for, up to this.
    pub per_write: u32,
}

/// How far a QoS 1 or 2 publisher may lead its slowest subscriber, in multiples of its window.
///
/// Its acknowledgements come before the deliveries, so the lead needs a limit of its own; this one stays far below any
/// broker's queue limit.
pub const LEAD_PER_INFLIGHT: u32 = 4;

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Each publisher has sent this many messages more.
    MessagesPerPublisher(u64),
    /// This time is over; what has been sent by then is waited for.
    Elapsed(Duration),
}

/// What a run did. Nothing was lost, or it would have been a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Messages that arrived, counted once per subscriber.
    pub delivered: u64,
    /// Wall clock from first send to last arrival.
    pub elapsed: Duration,
    /// CPU time the generator took for it.
    pub generator_cpu: Duration,
}

impl Run {
    /// Share of one core the generator used, 0 to 1.
    pub fn generator_share(&self) -> f64 {
        self.generator_cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Deliveries per second.
    pub fn rate(&self) -> f64 {
        self.delivered as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Connected publishers and subscribers, ready to run any number of times.
pub struct Load {
    fleet: Fleet,
    state: State,
}

/// All but the connections. Publisher *n* is connection *n*; subscribers follow the publishers.
struct State {
    qos: u8,
    version: Version,
    payload_bytes: usize,
    window: u64,
    /// Most messages a publisher may be ahead of its slowest subscriber; length of every `arrivals` ring.
    lead_max: u64,
    per_write: u64,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    /// Publishers that may be able to send since the turn began; each at most once.
    ready: Vec<usize>,
    delivered: u64,
}

/// Invariant: `completed <= sent <= target`, `sent - completed <= lead_max`, `in_flight.len() <= window`.
struct Publisher {
    template: PublishTemplate,
    /// Its first message, which sets its Topic Alias; None once that is sent.
    first: Option<PublishTemplate>,
    /// Messages sent so far, and so the next sequence number.
    sent: u64,
    /// Messages all of whose subscribers have them.
    completed: u64,
    /// Where it stops.
    target: u64,
    receivers: u32,
    /// For each outstanding message, how many subscribers have it: a ring, by sequence number.
    arrivals: Box<[u32]>,
    /// Packet Identifiers not yet acknowledged to the end.
    in_flight: Vec<u16>,
    is_ready: bool,
}

struct Subscriber {
    /// Publishers it hears.
    hears: Range<u32>,
    /// Next sequence number due, for each of them.
    due: Box<[u64]>,
}

impl Load {
    /// Connects everybody and subscribes. More than `patience` without any progress makes a run fail.
    pub fn connect(address: SocketAddr, plan: &Plan, patience: impl Into<Patience>) -> Result<Self, Fault> {
        Self::connect_with(address, plan, Features::default(), patience)
    }

    /// The same with connections that have more than plain MQTT 5.0.
    pub fn connect_with(
        address: SocketAddr,
        plan: &Plan,
        features: Features,
        patience: impl Into<Patience>,
    ) -> Result<Self, Fault> {
        let (publisher_count, subscriber_count) = match plan.shape {
            Shape::Pairs(pairs) => (pairs, pairs),
            Shape::FanIn { publishers } => (publishers, 1),
            Shape::FanOut { publishers, subscribers } => (publishers, subscribers),
        };
        let topic_name = |publisher: u32| match plan.shape {
            Shape::Pairs(_) => format!("bench/pair/{publisher:05}"),
            Shape::FanIn { .. } => format!("bench/in/{publisher:05}"),
            Shape::FanOut { .. } => format!("bench/out/{publisher:05}"),
        };
        let publishers = (0..publisher_count).map(|publisher| Introduction {
            client_id: format!("p{publisher:08}"),
            will: None,
            lifetime: Lifetime::Connection,
            topic_filters: Vec::new(),
            qos: 0,
        });
        let subscribers = (0..subscriber_count).map(|subscriber| Introduction {
            client_id: format!("s{subscriber:08}"),
            will: None,
            lifetime: Lifetime::Connection,
            topic_filters: match plan.shape {
                Shape::Pairs(_) => vec![topic_name(subscriber)],
                Shape::FanIn { .. } => vec!["bench/in/#".to_owned()],
                Shape::FanOut { .. } => (0..publisher_count).map(topic_name).collect(),
            },
            qos: plan.qos,
        });
        let mut fleet = Fleet::new(address, patience)?;
        fleet.features = features;
        fleet.open(publishers.chain(subscribers))?;

        let lead_max = u64::from(if plan.qos == 0 { plan.window } else { plan.window * LEAD_PER_INFLIGHT });
        let state = State {
            qos: plan.qos,
            version: features.version,
            payload_bytes: plan.payload_bytes,
            window: u64::from(plan.window),
            lead_max,
            per_write: u64::from(plan.per_write),
            publishers: (0..publisher_count)
                .map(|publisher| (publisher, topic_name(publisher)))
                .map(|(publisher, topic)| {
                    (
                        publisher,
                        PublishTemplate::with_features(&topic, plan.qos, plan.payload_bytes, publisher, features),
                    )
                })
                .map(|(_, (first, template))| Publisher {
                    template,
                    first: Some(first),
                    sent: 0,
                    completed: 0,
                    target: 0,
                    receivers: if matches!(plan.shape, Shape::FanOut { .. }) { subscriber_count } else { 1 },
                    arrivals: vec![0; lead_max as usize].into_boxed_slice(),
                    in_flight: Vec::with_capacity(plan.window as usize),
                    is_ready: false,
                })
                .collect(),
            subscribers: (0..subscriber_count)
                .map(|subscriber| {
                    let hears = match plan.shape {
                        Shape::Pairs(_) => subscriber..subscriber + 1,
                        Shape::FanIn { .. } | Shape::FanOut { .. } => 0..publisher_count,
                    };
                    Subscriber { due: vec![0; hears.len()].into_boxed_slice(), hears }
                })
                .collect(),
            ready: Vec::with_capacity(publisher_count as usize),
            delivered: 0,
        };
        Ok(Self { fleet, state })
    }

    /// Sends until `until`, waits until all has arrived and been acknowledged.
    pub fn run(&mut self, until: Until) -> Result<Run, Fault> {
        let Self { fleet, state } = self;
        let cpu_before = usage::own_cpu();
        let started = Instant::now();
        let mut deadline = match until {
            Until::MessagesPerPublisher(_) => None,
            Until::Elapsed(duration) => Some(started + duration),
        };
        let delivered_before = state.delivered;
        for (index, publisher) in state.publishers.iter_mut().enumerate() {
            publisher.target = match until {
                Until::MessagesPerPublisher(messages) => publisher.sent + messages,
                Until::Elapsed(_) => u64::MAX,
            };
            publisher.is_ready = true;
            state.ready.push(index);
        }
        let mut now = started;
        let mut progress_at = started;
        loop {
            if deadline.is_some_and(|deadline| now >= deadline) {
                deadline = None;
                for publisher in &mut state.publishers {
                    publisher.target = publisher.sent;
                }
            }
            state.send_ready(&mut fleet.connections)?;
            if state.is_done() {
                break;
            }
            let delivered = state.delivered;
            let timeout = deadline.map_or(fleet.stall_after(), |at| at - now).min(fleet.stall_after());
            fleet.turn(Some(timeout), |connections, buffer, index, readable, writable| {
                state.on_event(connections, buffer, index, readable, writable)
            })?;
            now = Instant::now();
            if state.delivered != delivered {
                progress_at = now;
            } else if now - progress_at >= fleet.stall_after() {
                return Err(Fault::Stalled { messages: state.outstanding() });
            }
        }
        Ok(Run {
            delivered: state.delivered - delivered_before,
            elapsed: started.elapsed(),
            generator_cpu: usage::own_cpu().saturating_sub(cpu_before),
        })
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.publishers.iter().all(|p| p.completed == p.target && p.in_flight.is_empty())
    }

    fn outstanding(&self) -> u64 {
        self.publishers.iter().map(|p| p.sent - p.completed).sum()
    }

    fn on_event(
        &mut self,
        connections: &mut [Connection],
        buffer: &mut [u8],
        index: usize,
        readable: bool,
        writable: bool,
    ) -> Result<(), Fault> {
        let is_publisher = index < self.publishers.len();
        let connection = &mut connections[index];
        if readable {
            connection.receive(buffer, |frame, output| {
                if is_publisher { self.on_answer(index, frame, output) } else { self.on_delivery(index, frame, output) }
            })?;
        }
        if readable || writable {
            connection.flush()?;
        }
        if writable && is_publisher {
            self.mark_ready(index);
        }
        Ok(())
    }

    /// An acknowledgement for a publisher.
    fn on_answer(&mut self, index: usize, frame: Frame<'_>, output: &mut Vec<u8>) -> Result<(), Fault> {
        let (packet_id, reason_code) = frame.acknowledged()?;
        require_success(reason_code)?;
        let publisher = &mut self.publishers[index];
        let place = publisher.in_flight.iter().position(|&id| id == packet_id);
        let place = place.ok_or(Fault::StrayAcknowledgement(packet_id))?;
        match (frame.first_byte, self.qos) {
            (packet::PUBREC, 2) => {
                output.extend_from_slice(&packet::acknowledgement(packet::PUBREL, packet_id));
            }
            (packet::PUBACK, 1) | (packet::PUBCOMP, 2) => {
                publisher.in_flight.swap_remove(place);
                self.mark_ready(index);
            }
            (other, _) => return Err(Fault::Unexpected(other)),
        }
        Ok(())
    }

    /// A message, or PUBREL, for a subscriber.
    fn on_delivery(&mut self, index: usize, frame: Frame<'_>, output: &mut Vec<u8>) -> Result<(), Fault> {
        if frame.first_byte == packet::PUBREL {
            let (packet_id, _) = frame.acknowledged()?;
            output.extend_from_slice(&packet::acknowledgement(packet::PUBCOMP, packet_id));
            return Ok(());
        }
        if frame.first_byte & 0xF0 != 0x30 {
            return Err(Fault::Unexpected(frame.first_byte));
        }
        let delivered = frame.delivered_in(self.version, self.payload_bytes)?;
        let subscriber = &mut self.subscribers[index - self.publishers.len()];
        if !subscriber.hears.contains(&delivered.publisher) || delivered.qos != self.qos {
            return Err(Fault::Misrouted { publisher: delivered.publisher });
        }
        let due = &mut subscriber.due[(delivered.publisher - subscriber.hears.start) as usize];
        require_due(&delivered, *due)?;
        *due += 1;
        match delivered.qos {
            0 => {}
            1 => output.extend_from_slice(&packet::acknowledgement(packet::PUBACK, delivered.packet_id)),
            _ => output.extend_from_slice(&packet::acknowledgement(packet::PUBREC, delivered.packet_id)),
        }
        self.delivered += 1;

        let from = delivered.publisher as usize;
        let publisher = &mut self.publishers[from];
        let slot = (delivered.sequence % self.lead_max) as usize;
        publisher.arrivals[slot] += 1;
        // Every subscriber takes them in order, so messages complete in order as well.
        if publisher.arrivals[slot] == publisher.receivers {
            publisher.arrivals[slot] = 0;
            publisher.completed = delivered.sequence + 1;
            self.mark_ready(from);
        }
        Ok(())
    }

    fn mark_ready(&mut self, index: usize) {
        let publisher = &mut self.publishers[index];
        if !publisher.is_ready {
            publisher.is_ready = true;
            self.ready.push(index);
        }
    }

    fn send_ready(&mut self, connections: &mut [Connection]) -> Result<(), Fault> {
        while let Some(index) = self.ready.pop() {
            let publisher = &mut self.publishers[index];
            publisher.is_ready = false;
            let connection = &mut connections[index];
            loop {
                let count = publisher.sendable(self.qos, self.window, self.lead_max, self.per_write);
                if count == 0 || connection.is_blocked() {
                    break;
                }
                for _ in 0..count {
                    let packet_id = (publisher.sent % 65_535) as u16 + 1;
                    let first = publisher.first.take();
                    let template = first.as_ref().unwrap_or(&publisher.template);
                    template.append(&mut connection.output, publisher.sent, packet_id);
                    publisher.sent += 1;
                    if self.qos > 0 {
                        publisher.in_flight.push(packet_id);
                    }
                }
                connection.flush()?;
            }
        }
        Ok(())
    }
}

impl Publisher {
    /// How many messages its next write may carry.
    fn sendable(&self, qos: u8, window: u64, lead_max: u64, per_write: u64) -> u64 {
        let left = self.target - self.sent;
        let room = lead_max - (self.sent - self.completed);
        if qos == 0 {
            let whole = per_write.min(left);
            if room >= whole { whole } else { 0 }
        } else {
            room.min(window - self.in_flight.len() as u64).min(per_write).min(left)
        }
    }
}

pub(crate) fn require_due(delivered: &packet::Delivered, due: u64) -> Result<(), Fault> {
    let packet::Delivered { publisher, sequence: received, .. } = *delivered;
    match received.cmp(&due) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Fault::Lost { publisher, messages: received - due }),
        std::cmp::Ordering::Less => Err(Fault::RepeatedOrReordered { publisher, expected: due, received }),
    }
}
