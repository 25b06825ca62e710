//! Subscribers that leave, and come back for what was published meanwhile.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::fleet::{Fleet, Introduction, Lifetime, require_success};
use crate::load::require_due;
use crate::packet::{self, Frame};
use crate::progress::Patience;
use crate::usage;

/// Connections opened before the broker is given a moment to accept them; see its listener's backlog.
const DIALS: usize = 64;
const DIAL_PAUSE: Duration = Duration::from_millis(2);

/// A client whose Session is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Its number, for its Client Identifier.
    pub number: u32,
    /// Its Topic Filter.
    pub topic_filter: String,
    /// Publishers it hears.
    pub hears: Range<u32>,
}

/// Makes the Sessions, with a subscription of QoS `qos` each, and leaves.
pub fn subscribe(address: SocketAddr, subscribers: &[Subscriber], qos: u8, patience: &Patience) -> Result<(), Fault> {
    patience.step("making Sessions", subscribers.len() as u64);
    // Not more connections at once than any process may have.
    for some in subscribers.chunks(4_000) {
        let mut fleet = Fleet::new(address, patience.clone())?;
        fleet.open(some.iter().map(|subscriber| Introduction {
            client_id: client_id(subscriber.number),
            will: None,
            lifetime: Lifetime::Kept { receive_maximum: 20 },
            topic_filters: vec![subscriber.topic_filter.clone()],
            qos,
        }))?;
        fleet.close()?;
        patience.advance(some.len() as u64);
    }
    Ok(())
}

fn client_id(number: u32) -> String {
    format!("a{number:08}")
}

/// How everything that had waited came.
#[derive(Clone, Debug)]
pub struct Drained {
    /// Messages, counted once per subscriber.
    pub messages: u64,
    /// From the first CONNECT to the last message.
    pub elapsed: Duration,
    /// From the first CONNECT, all of which are sent at once, to the first message of each subscriber; sorted.
    pub first_after: Vec<Duration>,
    /// CPU time the generator took.
    pub generator_cpu: Duration,
}

struct Draining {
    hears: Range<u32>,
    qos: u8,
    /// Next sequence number due of each publisher it hears.
    due: Box<[u64]>,
    outstanding: u64,
    /// Its CONNACK has come, with the Session that it is to find.
    is_connected: bool,
    first_at: Option<Instant>,
}

/// All subscribers come back at once. Returns when each has got all that `sent` says of the publishers it hears, each message
/// once and in its publisher's order.
pub fn drain(
    address: SocketAddr,
    subscribers: &[Subscriber],
    sent: &[u64],
    qos: u8,
    payload_bytes: usize,
    receive_maximum: u16,
    patience: &Patience,
) -> Result<Drained, Fault> {
    let mut draining: Vec<Draining> = subscribers
        .iter()
        .map(|subscriber| Draining {
            hears: subscriber.hears.clone(),
            qos,
            due: vec![0; subscriber.hears.len()].into_boxed_slice(),
            outstanding: sent[subscriber.hears.start as usize..subscriber.hears.end as usize].iter().sum(),
            is_connected: false,
            first_at: None,
        })
        .collect();
    let messages: u64 = draining.iter().map(|it| it.outstanding).sum();
    // Those that are owed nothing have to find their Session all the same.
    let mut unfinished = draining.len();
    patience.step(if messages > 0 { "draining" } else { "finding Sessions" }, messages);
    let mut fleet = Fleet::new(address, patience.clone())?;
    for number in 0..subscribers.len() {
        fleet.dial()?;
        if number % DIALS == DIALS - 1 {
            std::thread::sleep(DIAL_PAUSE);
        }
    }
    let cpu_before = usage::own_cpu();
    let started = Instant::now();
    for (connection, subscriber) in fleet.connections.iter_mut().zip(subscribers) {
        connection.output = packet::connect_to_kept_session(&client_id(subscriber.number), receive_maximum);
        connection.flush()?;
    }
    while unfinished > 0 {
        let mut taken = 0;
        let turn = fleet.turn(None, |connections, buffer, index, readable, writable| {
            let (draining, connection) = (&mut draining[index], &mut connections[index]);
            if readable {
                let was_finished = draining.is_finished();
                connection.receive(buffer, |frame, output| {
                    taken += u64::from(draining.on_packet(frame, payload_bytes, sent, output)?);
                    Ok(())
                })?;
                unfinished -= usize::from(!was_finished && draining.is_finished());
            }
            if readable || writable {
                connection.flush()?;
            }
            Ok(())
        })?;
        fleet.advance(taken);
        if !turn {
            return Err(Fault::Stalled { messages: draining.iter().map(|it| it.outstanding).sum() });
        }
    }
    let elapsed = started.elapsed();
    let generator_cpu = usage::own_cpu().saturating_sub(cpu_before);
    let mut first_after: Vec<Duration> =
        draining.iter().filter_map(|it| Some(it.first_at?.saturating_duration_since(started))).collect();
    first_after.sort_unstable();
    fleet.close()?;
    Ok(Drained { messages, elapsed, first_after, generator_cpu })
}

/// How quickly a subscriber takes messages.
#[derive(Debug)]
pub struct Pace {
    /// Messages per second that it acknowledges.
    pub per_second: f64,
    /// From now on it does not wait.
    pub is_over: AtomicBool,
    /// Messages it has acknowledged.
    pub taken: AtomicU64,
}

/// How often a slow subscriber acknowledges what it may.
const PACE_STEP: Duration = Duration::from_millis(5);

/// A subscriber comes back and takes messages of QoS 1 at its pace while they are published. Returns when it has got all
/// that `sent` says of the publishers it hears, each message once and in its publisher's order.
pub fn consume(
    address: SocketAddr,
    subscriber: &Subscriber,
    sent: &[u64],
    payload_bytes: usize,
    receive_maximum: u16,
    pace: &Pace,
    patience: &Patience,
) -> Result<(), Fault> {
    let mut draining = Draining {
        hears: subscriber.hears.clone(),
        qos: 1,
        due: vec![0; subscriber.hears.len()].into_boxed_slice(),
        outstanding: sent[subscriber.hears.start as usize..subscriber.hears.end as usize].iter().sum(),
        is_connected: false,
        first_at: None,
    };
    let mut fleet = Fleet::new(address, patience.clone())?;
    fleet.dial()?;
    for connection in &mut fleet.connections {
        connection.output = packet::connect_to_kept_session(&client_id(subscriber.number), receive_maximum);
        connection.flush()?;
    }
    // Acknowledgements, of four bytes each, that have not been sent.
    let (mut held, mut taken) = (Vec::new(), 0_u64);
    let (started, mut progress_at) = (Instant::now(), Instant::now());
    while draining.outstanding > 0 || !held.is_empty() {
        let turn = fleet.turn(Some(PACE_STEP), |connections, buffer, index, readable, writable| {
            if readable {
                connections[index].receive(buffer, |frame, _| {
                    draining.on_packet(frame, payload_bytes, sent, &mut held).map(|_| ())
                })?;
            }
            if writable { connections[index].flush() } else { Ok(()) }
        })?;
        let count = (held.len() / 4) as u64;
        let may = match pace.is_over.load(Ordering::Relaxed) {
            true => count,
            false => ((pace.per_second * started.elapsed().as_secs_f64()) as u64).saturating_sub(taken).min(count),
        };
        for connection in &mut fleet.connections {
            connection.output.extend(held.drain(..may as usize * 4));
            connection.flush()?;
        }
        taken += may;
        pace.taken.store(taken, Ordering::Relaxed);
        if turn || may > 0 {
            progress_at = Instant::now();
        } else if progress_at.elapsed() >= patience.stall_after {
            return Err(Fault::Stalled { messages: draining.outstanding });
        }
    }
    fleet.close()
}

impl Draining {
    fn is_finished(&self) -> bool {
        self.is_connected && self.outstanding == 0
    }

    /// Returns whether it was a message.
    fn on_packet(
        &mut self,
        frame: Frame<'_>,
        payload_bytes: usize,
        sent: &[u64],
        output: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        match frame.first_byte {
            packet::CONNACK => {
                require_success(frame.body.get(1).copied().ok_or(Fault::Malformed)?)?;
                self.is_connected = frame.body.first() == Some(&1);
                return if self.is_connected { Ok(false) } else { Err(Fault::SessionLost) };
            }
            packet::PUBREL => {
                let (packet_id, _) = frame.acknowledged()?;
                output.extend_from_slice(&packet::acknowledgement(packet::PUBCOMP, packet_id));
                return Ok(false);
            }
            first_byte if first_byte & 0xF0 == 0x30 => {}
            other => return Err(Fault::Unexpected(other)),
        }
        let delivered = frame.delivered(payload_bytes)?;
        if !self.hears.contains(&delivered.publisher) || delivered.qos != self.qos {
            return Err(Fault::Misrouted { publisher: delivered.publisher });
        }
        let due = &mut self.due[(delivered.publisher - self.hears.start) as usize];
        require_due(&delivered, *due)?;
        if delivered.sequence >= sent[delivered.publisher as usize] {
            return Err(Fault::Misrouted { publisher: delivered.publisher });
        }
        *due += 1;
        self.outstanding -= 1;
        self.first_at.get_or_insert_with(Instant::now);
        let answer = if delivered.qos == 2 { packet::PUBREC } else { packet::PUBACK };
        output.extend_from_slice(&packet::acknowledgement(answer, delivered.packet_id));
        Ok(true)
    }
}

/// Receives the Retained Messages of one filter; every publisher's `sent` messages have to be there, once each.
pub fn collect_retained(
    address: SocketAddr,
    topic_filter: &str,
    sent: &[u64],
    payload_bytes: usize,
    patience: &Patience,
) -> Result<Duration, Fault> {
    let started = Instant::now();
    let mut fleet = Fleet::new(address, patience.clone())?;
    fleet.open([Introduction {
        client_id: "retained".to_owned(),
        will: None,
        lifetime: Lifetime::Connection,
        topic_filters: Vec::new(),
        qos: 0,
    }])?;
    let mut missing: Vec<Vec<bool>> = sent.iter().map(|sent| vec![true; *sent as usize]).collect();
    let mut outstanding: u64 = sent.iter().sum();
    patience.step("collecting Retained Messages", outstanding);
    for connection in &mut fleet.connections {
        connection.output.extend_from_slice(&packet::subscribe(&[topic_filter.to_owned()], 1));
        connection.flush()?;
    }
    while outstanding > 0 {
        let before = outstanding;
        let turn = fleet.turn(None, |connections, buffer, index, _, _| {
            let connection = &mut connections[index];
            connection.receive(buffer, |frame, output| {
                if frame.first_byte == packet::SUBACK {
                    return Ok(());
                }
                let delivered = frame.delivered(payload_bytes)?;
                let publisher = delivered.publisher;
                let place =
                    missing.get_mut(publisher as usize).and_then(|those| those.get_mut(delivered.sequence as usize));
                match place.map(std::mem::take) {
                    Some(true) => outstanding -= 1,
                    _ => return Err(Fault::Misrouted { publisher }),
                }
                output.extend_from_slice(&packet::acknowledgement(packet::PUBACK, delivered.packet_id));
                Ok(())
            })?;
            connection.flush()
        })?;
        fleet.advance(before - outstanding);
        if !turn {
            return Err(Fault::Stalled { messages: outstanding });
        }
    }
    fleet.close()?;
    Ok(started.elapsed())
}
