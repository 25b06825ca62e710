//! Publishers without subscribers: closed loop or at a fixed rate, and how long each acknowledgement took.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::fleet::{Connection, Fleet, Introduction, Lifetime, require_success};
use crate::load::Until;
use crate::packet::{self, Frame, PublishTemplate};
use crate::progress::Patience;
use crate::usage;

/// How long the generator sleeps at most while a message is due within the next millisecond.
const NAP: Duration = Duration::from_micros(100);

/// Which Topic Names the messages of a publisher have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topics {
    /// Each publisher has one of its own: see [`topic_name`].
    OfPublisher,
    /// The same under `bench/earlier/`, for what is not to be heard by those who hear the others.
    Earlier,
    /// Each message has one of its own, and is retained.
    OfMessage,
}

/// A whole load of publishers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publishing {
    /// How many, numbered from 0.
    pub publishers: u32,
    /// QoS, 1 or 2.
    pub qos: u8,
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Messages that a publisher has under way.
    pub window: u32,
    /// Topic Names.
    pub topics: Topics,
}

/// What publishers did in one run. All of it was acknowledged.
#[derive(Clone, Debug)]
pub struct Published {
    /// Messages.
    pub messages: u64,
    /// From the first to the last acknowledgement.
    pub elapsed: Duration,
    /// CPU time the generator took.
    pub generator_cpu: Duration,
    /// Microseconds from each PUBLISH to its PUBACK or PUBCOMP, sorted.
    pub latencies: Vec<u32>,
}

impl Published {
    /// Messages per second.
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// Share of its core that the generator used.
    pub fn generator_share(&self) -> f64 {
        self.generator_cpu.as_secs_f64() / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    /// The latency that this share of all messages did not exceed, in microseconds.
    pub fn latency(&self, share: f64) -> f64 {
        percentile(&self.latencies, share).map_or(f64::NAN, f64::from)
    }
}

/// The value that this share of `sorted` does not exceed.
pub fn percentile(sorted: &[u32], share: f64) -> Option<u32> {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied()
}

/// One acknowledgement of a load with a fixed rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Microseconds from the begin of the load to when its message was due to be sent.
    pub due_micros: u32,
    /// Microseconds from then to the acknowledgement.
    pub micros: u32,
}

impl Ack {
    /// From the begin of the load to when the message was due to be sent.
    pub fn due(&self) -> Duration {
        Duration::from_micros(u64::from(self.due_micros))
    }
}

/// What publishers did at a fixed rate. All of it was acknowledged.
#[derive(Clone, Debug)]
pub struct PublishedAtRate {
    /// When the first message was due.
    pub started: Instant,
    /// From then to the last acknowledgement.
    pub elapsed: Duration,
    /// All acknowledgements, in the order in which they came.
    pub acks: Vec<Ack>,
    /// Microseconds from when each message was due to when it was given to the kernel, sorted.
    pub lateness: Vec<u32>,
}

/// Topic Name of a publisher.
pub fn topic_name(publisher: u32) -> String {
    format!("bench/kept/{publisher:05}")
}

/// Topic Filter of all Retained Messages.
pub const RETAINED_FILTER: &str = "bench/retained/#";

/// Connected publishers.
pub struct Publishers {
    fleet: Fleet,
    plan: Publishing,
    publishers: Vec<Publisher>,
}

struct Publisher {
    template: PublishTemplate,
    number: u32,
    sent: u64,
    target: u64,
    /// Packet Identifiers under way, and when each was sent.
    in_flight: Vec<(u16, Instant)>,
}

impl Publishers {
    /// Connects them.
    pub fn connect(address: SocketAddr, plan: Publishing, patience: impl Into<Patience>) -> Result<Self, Fault> {
        let mut fleet = Fleet::new(address, patience)?;
        fleet.open((0..plan.publishers).map(|number| Introduction {
            client_id: format!("k{number:08}"),
            will: None,
            // A QoS 2 exchange belongs to a Session, and is kept only if that is.
            lifetime: if plan.qos == 2 { Lifetime::Kept { receive_maximum: 20 } } else { Lifetime::Connection },
            topic_filters: Vec::new(),
            qos: 0,
        }))?;
        let topic_name = |number| match plan.topics {
            Topics::OfPublisher | Topics::OfMessage => topic_name(number),
            Topics::Earlier => format!("bench/earlier/{number:05}"),
        };
        let publishers = (0..plan.publishers)
            .map(|number| Publisher {
                template: PublishTemplate::new(&topic_name(number), plan.qos, plan.payload_bytes, number),
                number,
                sent: 0,
                target: 0,
                in_flight: Vec::with_capacity(plan.window as usize),
            })
            .collect();
        Ok(Self { fleet, plan, publishers })
    }

    /// How many messages each has sent, all of them acknowledged.
    pub fn sent(&self) -> Vec<u64> {
        self.publishers.iter().map(|publisher| publisher.sent).collect()
    }

    /// Publishes until `until`, and waits until all is acknowledged.
    pub fn run(&mut self, until: Until) -> Result<Published, Fault> {
        let Self { fleet, plan, publishers } = self;
        let cpu_before = usage::own_cpu();
        let started = Instant::now();
        let mut deadline = match until {
            Until::MessagesPerPublisher(_) => None,
            Until::Elapsed(duration) => Some(started + duration),
        };
        let mut latencies = Vec::with_capacity(1 << 20);
        let mut unfinished = publishers.len();
        for (publisher, connection) in publishers.iter_mut().zip(&mut fleet.connections) {
            publisher.target = match until {
                Until::MessagesPerPublisher(messages) => publisher.sent + messages,
                Until::Elapsed(_) => u64::MAX,
            };
            publisher.fill(connection, plan, started)?;
        }
        while unfinished > 0 {
            let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now())).filter(|t| !t.is_zero());
            let answers = latencies.len();
            let turn = fleet.turn(timeout, |connections, buffer, index, readable, writable| {
                let (publisher, connection) = (&mut publishers[index], &mut connections[index]);
                let now = Instant::now();
                if readable {
                    connection.receive(buffer, |frame, output| {
                        if let Some(sent_at) = publisher.on_answer(frame, plan.qos, output)? {
                            latencies.push(now.saturating_duration_since(sent_at).as_micros() as u32);
                        }
                        Ok(())
                    })?;
                }
                if readable || writable {
                    publisher.fill(connection, plan, now)?;
                }
                Ok(())
            })?;
            fleet.advance((latencies.len() - answers) as u64);
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                deadline = None;
                publishers.iter_mut().for_each(|publisher| publisher.target = publisher.sent);
            } else if !turn && deadline.is_none() {
                return Err(Fault::Stalled { messages: publishers.iter().map(|p| p.in_flight.len() as u64).sum() });
            }
            if deadline.is_none() && latencies.len() != answers || !turn {
                let is_done =
                    |publisher: &&Publisher| publisher.sent == publisher.target && publisher.in_flight.is_empty();
                unfinished = publishers.len() - publishers.iter().filter(is_done).count();
            }
        }
        latencies.sort_unstable();
        Ok(Published {
            messages: latencies.len() as u64,
            elapsed: started.elapsed(),
            generator_cpu: usage::own_cpu().saturating_sub(cpu_before),
            latencies,
        })
    }

    /// How many messages each will have sent after [`run_at`](Self::run_at), if it was the first run.
    pub fn shares_at(&self, rate: u32, duration: Duration) -> Vec<u64> {
        let (all, count) = (messages_at(rate, duration), self.publishers.len() as u64);
        (0..count).map(|number| all / count + u64::from(number < all % count)).collect()
    }

    /// Publishes `rate` messages per second for `duration`, evenly and by the publishers in turn, whatever the broker does;
    /// then waits until all is acknowledged. The plan's window does not count. Latencies begin when a message is due, so those
    /// that have to wait because the generator or the connection is held up are not told as shorter.
    pub fn run_at(&mut self, rate: u32, duration: Duration) -> Result<PublishedAtRate, Fault> {
        let Self { fleet, plan, publishers } = self;
        debug_assert!(plan.topics != Topics::OfMessage);
        let all = messages_at(rate, duration);
        let mut acks = Vec::with_capacity(all as usize);
        let mut lateness = Vec::with_capacity(all as usize);
        let started = Instant::now();
        let due_at =
            |number: u64| started + Duration::from_nanos((number as u128 * 1_000_000_000 / u128::from(rate)) as u64);
        let micros = |later: Instant, earlier: Instant| {
            u32::try_from(later.saturating_duration_since(earlier).as_micros()).unwrap_or(u32::MAX)
        };
        let (mut next, mut progress_at) = (0, started);
        while acks.len() < all as usize {
            let mut now = Instant::now();
            while next < all && due_at(next) <= now {
                let (index, due) = ((next % publishers.len() as u64) as usize, due_at(next));
                let (publisher, connection) = (&mut publishers[index], &mut fleet.connections[index]);
                publisher.send(connection, due);
                connection.flush()?;
                now = Instant::now();
                lateness.push(micros(now, due));
                next += 1;
            }
            let wait = match next < all {
                true => due_at(next).saturating_duration_since(now),
                false => fleet.stall_after(),
            };
            // The kernel waits for events in whole milliseconds, and rather longer than shorter.
            let timeout = wait.saturating_sub(Duration::from_millis(1));
            let answers = acks.len();
            let turn = fleet.turn(Some(timeout), |connections, buffer, index, readable, writable| {
                let (publisher, connection) = (&mut publishers[index], &mut connections[index]);
                if readable {
                    connection.receive(buffer, |frame, output| {
                        if let Some(due) = publisher.on_answer(frame, plan.qos, output)? {
                            acks.push(Ack { due_micros: micros(due, started), micros: micros(Instant::now(), due) });
                        }
                        Ok(())
                    })?;
                }
                if readable || writable {
                    connection.flush()?;
                }
                Ok(())
            })?;
            fleet.advance((acks.len() - answers) as u64);
            if turn || next as usize == acks.len() {
                progress_at = Instant::now();
            } else if progress_at.elapsed() >= fleet.stall_after() {
                return Err(Fault::Stalled { messages: next - acks.len() as u64 });
            }
            if !turn && timeout.is_zero() {
                std::thread::sleep(wait.min(NAP));
            }
        }
        lateness.sort_unstable();
        Ok(PublishedAtRate { started, elapsed: started.elapsed(), acks, lateness })
    }

    /// Disconnects them.
    pub fn close(self) -> Result<(), Fault> {
        self.fleet.close()
    }
}

fn messages_at(rate: u32, duration: Duration) -> u64 {
    (f64::from(rate) * duration.as_secs_f64()).round().max(1.0) as u64
}

impl Publisher {
    /// Puts one message into the output.
    fn send(&mut self, connection: &mut Connection, since: Instant) {
        let packet_id = (self.sent % 65_535) as u16 + 1;
        self.template.append(&mut connection.output, self.sent, packet_id);
        self.in_flight.push((packet_id, since));
        self.sent += 1;
    }

    /// Sends what the window has room for.
    fn fill(&mut self, connection: &mut Connection, plan: &Publishing, now: Instant) -> Result<(), Fault> {
        if !connection.is_blocked() {
            while self.sent < self.target && self.in_flight.len() < plan.window as usize {
                match plan.topics {
                    Topics::OfPublisher | Topics::Earlier => self.send(connection, now),
                    Topics::OfMessage => {
                        let packet_id = (self.sent % 65_535) as u16 + 1;
                        let topic_name = format!("bench/retained/{:05}/{:07}", self.number, self.sent);
                        PublishTemplate::new(&topic_name, plan.qos, plan.payload_bytes, self.number).retained().append(
                            &mut connection.output,
                            self.sent,
                            packet_id,
                        );
                        self.in_flight.push((packet_id, now));
                        self.sent += 1;
                    }
                }
            }
        }
        connection.flush()
    }

    /// An acknowledgement; gives when its message was sent if it is the last one.
    fn on_answer(&mut self, frame: Frame<'_>, qos: u8, output: &mut Vec<u8>) -> Result<Option<Instant>, Fault> {
        let (packet_id, reason_code) = frame.acknowledged()?;
        require_success(reason_code)?;
        let place = self.in_flight.iter().position(|(id, _)| *id == packet_id);
        let place = place.ok_or(Fault::StrayAcknowledgement(packet_id))?;
        match (frame.first_byte, qos) {
            (packet::PUBREC, 2) => {
                output.extend_from_slice(&packet::acknowledgement(packet::PUBREL, packet_id));
                Ok(None)
            }
            (packet::PUBACK, 1) | (packet::PUBCOMP, 2) => Ok(Some(self.in_flight.remove(place).1)),
            (other, _) => Err(Fault::Unexpected(other)),
        }
    }
}
