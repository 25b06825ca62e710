//! The null broker: takes everything, looks only at sequence numbers, and gives messages as fast as they are read.
//!
//! It runs in a process of its own, so that what it does is no cost of the library under test. It writes its port to standard
//! output, serves until its standard input ends, and then writes an [`Account`].

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{PAYLOAD_BYTES, TOPIC_NAME, WINDOW};
use crate::fault::Fault;
use crate::packet::{self, Frame, PublishTemplate, packet, split_frame};
use crate::pinning::Pinning;

const LISTENER: Token = Token(usize::MAX);
const END: Token = Token(usize::MAX - 1);
/// Bytes read by one system call at most.
const READ_BYTES: usize = 256 << 10;
/// Bytes of messages that wait for the socket.
const OUTPUT_BYTES: usize = 256 << 10;
const CONNECT: u8 = 0x10;
const SUBSCRIBE: u8 = 0x82;
const PINGREQ: u8 = 0xC0;

/// What came of one sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Messages that came, each the one that was due.
    pub published: u64,
    /// Messages that were given and acknowledged.
    pub acknowledged: u64,
    /// When the first message of each client that has published came: see [`now_nanos`].
    pub first_arrivals: Vec<u64>,
    /// What clients did wrong.
    pub faults: Vec<String>,
}

/// A running sink; dropped, it is killed.
#[derive(Debug)]
pub struct Sink {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Sink {
    /// Starts `executable`, this program, as a sink that gives `messages` to each subscriber.
    pub fn start(executable: &Path, messages: u64, pinning: &Pinning) -> io::Result<Self> {
        let mut command = Command::new(executable);
        command.args(["sink", "--messages", &messages.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pinning.on_broker_core(|| command.spawn())??;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut sink = Self { child, input, output: BufReader::new(output), address };
        let mut line = String::new();
        sink.output.read_line(&mut line)?;
        sink.address.set_port(line.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?);
        Ok(sink)
    }

    /// Ends it, and gives its account.
    pub fn stop(mut self) -> io::Result<Account> {
        drop(self.input.take());
        let mut text = String::new();
        self.output.read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nanoseconds of a clock that is the same in all processes.
pub fn now_nanos() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or_default() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}

/// Is a sink until standard input ends.
pub fn run(messages: u64) -> io::Result<()> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), END)?);
    let mut listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let end = waker.clone();
    std::thread::spawn(move || {
        // An error is an end as well.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = end.wake();
    });
    let account = serve(poll, &listener, messages)?;
    // Closed any sooner, it would take its event with it.
    drop(waker);
    println!("{}", serde_json::to_string(&account)?);
    Ok(())
}

fn serve(mut poll: Poll, listener: &TcpListener, messages: u64) -> io::Result<Account> {
    let mut account = Account::default();
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = Events::with_capacity(1_024);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        for event in &events {
            match event.token() {
                END => return Ok(account),
                LISTENER => loop {
                    let (mut stream, _) = match listener.accept() {
                        Ok(accepted) => accepted,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) => return Err(error),
                    };
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(peers.len()), interest)?;
                    peers.push(Some(Peer::new(stream)));
                },
                Token(index) => {
                    let Some(peer) = peers.get_mut(index).and_then(Option::as_mut) else { continue };
                    match peer.turn(&mut buffer, messages, &mut account) {
                        Ok(true) => continue,
                        Ok(false) | Err(Fault::ConnectionClosed) => {}
                        Err(fault) => account.faults.push(fault.to_string()),
                    }
                    peers[index] = None;
                }
            }
        }
    }
}

struct Peer {
    stream: TcpStream,
    /// Start of a packet whose rest has not come yet.
    remainder: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// Sequence number of the message that is due.
    due: u64,
    given: Option<Given>,
}

/// Messages for a subscriber.
struct Given {
    template: PublishTemplate,
    qos: u8,
    next: u64,
    acknowledged: u64,
    messages: u64,
}

impl Given {
    fn append(&mut self, output: &mut Vec<u8>) {
        while output.len() < OUTPUT_BYTES
            && self.next < self.messages
            && (self.qos == 0 || self.next - self.acknowledged < u64::from(WINDOW))
        {
            self.template.append(output, self.next, packet_id(self.next));
            self.next += 1;
        }
    }
}

fn packet_id(sequence: u64) -> u16 {
    (sequence % 65_535) as u16 + 1
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        Self { stream, remainder: Vec::new(), output: Vec::new(), written: 0, due: 0, given: None }
    }

    /// Reads and writes until neither goes on. False when the client has said goodbye.
    fn turn(&mut self, buffer: &mut [u8], messages: u64, account: &mut Account) -> Result<bool, Fault> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(Fault::ConnectionClosed),
                Ok(count) => {
                    if !self.receive(&buffer[..count], messages, account)? {
                        return Ok(false);
                    }
                    true
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
                Err(error) => return Err(error.into()),
            };
            let wrote = self.flush()?;
            if !read && !wrote {
                return Ok(true);
            }
        }
    }

    /// True if anything was written.
    fn flush(&mut self) -> Result<bool, Fault> {
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
            if let Some(given) = &mut self.given {
                given.append(&mut self.output);
            }
        }
        if self.written == self.output.len() {
            // One of ten thousand that are idle is to keep nothing.
            self.output = Vec::new();
            self.written = 0;
            return Ok(false);
        }
        match self.stream.write(&self.output[self.written..]) {
            Ok(0) => Err(Fault::ConnectionClosed),
            Ok(count) => {
                self.written += count;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self, bytes: &[u8], messages: u64, account: &mut Account) -> Result<bool, Fault> {
        let mut remainder = std::mem::take(&mut self.remainder);
        let bytes = if remainder.is_empty() {
            bytes
        } else {
            remainder.extend_from_slice(bytes);
            &remainder
        };
        let mut used = 0;
        while let Some((frame, packet_bytes)) = split_frame(&bytes[used..])? {
            used += packet_bytes;
            if !self.on_packet(frame, messages, account)? {
                return Ok(false);
            }
        }
        self.remainder = bytes[used..].to_vec();
        Ok(true)
    }

    fn on_packet(&mut self, frame: Frame<'_>, messages: u64, account: &mut Account) -> Result<bool, Fault> {
        match frame.first_byte {
            CONNECT => self.output.extend_from_slice(&[packet::CONNACK, 3, 0, 0, 0]),
            PINGREQ => self.output.extend_from_slice(&[0xD0, 0]),
            SUBSCRIBE => {
                let (properties, qos) = frame.subscribed()?;
                let mut answer = frame.body[..2].to_vec();
                answer.push(0);
                answer.extend_from_slice(&qos);
                self.output.extend_from_slice(&packet(packet::SUBACK, &answer));
                let qos = qos.first().copied().unwrap_or(0).min(1);
                // Only a Subscription Identifier can be among them, and that comes back with each message (v5 MQTT-3.3.4-3).
                let template = PublishTemplate::with_properties(TOPIC_NAME, qos, PAYLOAD_BYTES, 0, properties);
                self.given = Some(Given { template, qos, next: 0, acknowledged: 0, messages });
            }
            packet::PUBACK => {
                let (packet_id_acknowledged, _) = frame.acknowledged()?;
                let stray = Fault::StrayAcknowledgement(packet_id_acknowledged);
                let given = self.given.as_mut().ok_or(stray.clone())?;
                if given.acknowledged == given.next || packet_id(given.acknowledged) != packet_id_acknowledged {
                    return Err(stray);
                }
                given.acknowledged += 1;
                account.acknowledged += 1;
            }
            packet::DISCONNECT => return Ok(false),
            first_byte if first_byte & 0xF0 == 0x30 => {
                let delivered = frame.delivered(PAYLOAD_BYTES)?;
                check_due(delivered.sequence, self.due)?;
                if self.due == 0 {
                    account.first_arrivals.push(now_nanos());
                }
                self.due += 1;
                account.published += 1;
                if delivered.qos > 0 {
                    self.output.extend_from_slice(&packet::acknowledgement(packet::PUBACK, delivered.packet_id));
                }
            }
            other => return Err(Fault::Unexpected(other)),
        }
        Ok(true)
    }
}

/// Nothing may be missing, come twice, or come out of order.
pub fn check_due(sequence: u64, due: u64) -> Result<(), Fault> {
    match sequence.checked_sub(due) {
        Some(0) => Ok(()),
        Some(messages) => Err(Fault::Lost { publisher: 0, messages }),
        None => Err(Fault::RepeatedOrReordered { publisher: 0, expected: due, received: sequence }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_that_is_due_is_taken() {
        assert_eq!(check_due(7, 7), Ok(()));
        assert_eq!(check_due(9, 7), Err(Fault::Lost { publisher: 0, messages: 2 }));
        let repeated = Fault::RepeatedOrReordered { publisher: 0, expected: 7, received: 6 };
        assert_eq!(check_due(6, 7), Err(repeated));
    }

    #[test]
    fn no_more_than_a_window_is_given_at_once() {
        let template = PublishTemplate::new(TOPIC_NAME, 1, PAYLOAD_BYTES, 0);
        let mut given = Given { template, qos: 1, next: 0, acknowledged: 0, messages: 150 };
        let mut output = Vec::new();
        given.append(&mut output);
        assert_eq!(given.next, u64::from(WINDOW));
        given.acknowledged = 60;
        given.append(&mut output);
        assert_eq!(given.next, 150);
    }
}
