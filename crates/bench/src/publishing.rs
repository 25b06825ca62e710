//! Publishers without subscribers: closed loop, and how long each acknowledgement took.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::fleet::{Connection, Fleet, Introduction, Lifetime, require_success};
use crate::load::Until;
use crate::packet::{self, Frame, PublishTemplate};
use crate::usage;

/// Which Topic Names the messages of a publisher have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topics {
    /// Each publisher has one of its own: see [`topic_name`].
    OfPublisher,
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
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share).round() as usize).map_or(f64::NAN, |micros| f64::from(*micros))
    }
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
    pub fn connect(address: SocketAddr, plan: Publishing, stall_after: Duration) -> Result<Self, Fault> {
        let mut fleet = Fleet::new(address, stall_after)?;
        fleet.open((0..plan.publishers).map(|number| Introduction {
            client_id: format!("k{number:08}"),
            will: None,
            // A QoS 2 exchange belongs to a Session, and is kept only if that is.
            lifetime: if plan.qos == 2 { Lifetime::Kept { receive_maximum: 20 } } else { Lifetime::Connection },
            topic_filters: Vec::new(),
            qos: 0,
        }))?;
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

    /// Disconnects them.
    pub fn close(self) -> Result<(), Fault> {
        self.fleet.close()
    }
}

impl Publisher {
    /// Sends what the window has room for.
    fn fill(&mut self, connection: &mut Connection, plan: &Publishing, now: Instant) -> Result<(), Fault> {
        if !connection.is_blocked() {
            while self.sent < self.target && self.in_flight.len() < plan.window as usize {
                let packet_id = (self.sent % 65_535) as u16 + 1;
                match plan.topics {
                    Topics::OfPublisher => self.template.append(&mut connection.output, self.sent, packet_id),
                    Topics::OfMessage => {
                        let topic_name = format!("bench/retained/{:05}/{:07}", self.number, self.sent);
                        PublishTemplate::new(&topic_name, plan.qos, plan.payload_bytes, self.number).retained().append(
                            &mut connection.output,
                            self.sent,
                            packet_id,
                        );
                    }
                }
                self.in_flight.push((packet_id, now));
                self.sent += 1;
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
