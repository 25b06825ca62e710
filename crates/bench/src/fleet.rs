//! Many MQTT connections in one `epoll` set: opening them, reading packets from them, writing to them.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::fault::Fault;
use crate::features::{Features, Version};
use crate::packet::{self, Frame, Will, split_frame};
use crate::progress::Patience;
use crate::stage::Stage;

/// Handshakes under way at once; below the smallest listen backlog in use (100), since a connection beyond it would
/// wait a second for its SYN to be sent again.
const HANDSHAKES_MAX: usize = 64;

/// Bytes read from a connection by one system call at most.
const READ_BUFFER_BYTES: usize = 256 * 1024;

/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// What becomes of a Session when its connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It begins and ends with the connection.
    Connection,
    /// It is kept for ever, and found again by the next connection.
    Kept {
        /// QoS 1 and 2 messages the broker may have under way to it.
        receive_maximum: u16,
    },
}

/// How one connection introduces itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// Client Identifier.
    pub client_id: String,
    /// Will Message, if it has one.
    pub will: Option<Will>,
    /// How long its Session lives.
    pub lifetime: Lifetime,
    /// Topic Filters it subscribes to once connected; none is allowed.
    pub topic_filters: Vec<String>,
    /// Maximum QoS of these subscriptions.
    pub qos: u8,
}

/// One Network Connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Bytes to be sent; written from `written` on. Kept for its capacity when empty.
    pub output: Vec<u8>,
    written: usize,
    /// Start of a packet whose rest has not come yet.
    remainder: Vec<u8>,
    /// What `output` is on the wire, if something stands between.
    staged: Option<Box<Staged>>,
}

#[derive(Debug)]
struct Staged {
    stage: Stage,
    /// Bytes for the socket; written from `written` on.
    wire: Vec<u8>,
    written: usize,
}

impl Connection {
    /// True when earlier bytes still wait for the socket to take them.
    pub fn is_blocked(&self) -> bool {
        match &self.staged {
            None => self.written < self.output.len(),
            Some(staged) => staged.written < staged.wire.len(),
        }
    }

    /// Writes what is in `output` with as few calls as the socket allows, usually one.
    pub fn flush(&mut self) -> Result<(), Fault> {
        let Some(staged) = &mut self.staged else {
            return write(&mut self.stream, &mut self.output, &mut self.written);
        };
        if !self.output.is_empty() {
            staged.stage.seal(&self.output, &mut staged.wire)?;
            self.output.clear();
        }
        write(&mut self.stream, &mut staged.wire, &mut staged.written)
    }

    /// Reads until the socket is empty and hands each packet to `on_packet`, with the output to answer into.
    pub fn receive(
        &mut self,
        buffer: &mut [u8],
        mut on_packet: impl FnMut(Frame<'_>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        loop {
            // The buffer is far larger than any packet of a run, so there is always room behind the remainder.
            let kept = self.remainder.len();
            buffer[..kept].copy_from_slice(&self.remainder);
            if self.staged.is_some() {
                return self.receive_staged(buffer, on_packet);
            }
            let count = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err(Fault::ConnectionClosed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let filled = kept + count;
            let mut at = 0;
            while let Some((frame, length)) = split_frame(&buffer[at..filled])? {
                if frame.first_byte == packet::DISCONNECT {
                    return Err(Fault::Disconnected(frame.body.first().copied().unwrap_or(0)));
                }
                on_packet(frame, &mut self.output)?;
                at += length;
            }
            self.remainder.clear();
            self.remainder.extend_from_slice(&buffer[at..filled]);
            if self.remainder.len() > buffer.len() / 2 {
                return Err(Fault::Malformed);
            }
            // A short read says that the socket is empty; what comes later makes a new edge.
            if filled < buffer.len() {
                return Ok(());
            }
        }
    }
}

impl Connection {
    /// The same where something stands between: what it opens is put together in `remainder`.
    fn receive_staged(
        &mut self,
        buffer: &mut [u8],
        mut on_packet: impl FnMut(Frame<'_>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Err(Fault::ConnectionClosed),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if let Some(staged) = &mut self.staged {
                staged.stage.open(&buffer[..count], &mut self.remainder)?;
            }
            let mut at = 0;
            while let Some((frame, length)) = split_frame(&self.remainder[at..])? {
                if frame.first_byte == packet::DISCONNECT {
                    return Err(Fault::Disconnected(frame.body.first().copied().unwrap_or(0)));
                }
                on_packet(frame, &mut self.output)?;
                at += length;
            }
            self.remainder.drain(..at);
            if count < buffer.len() {
                return Ok(());
            }
        }
    }
}

/// Writes `bytes` from `written` on, as far as the socket takes them; both are empty when it has taken all.
fn write(stream: &mut TcpStream, bytes: &mut Vec<u8>, written: &mut usize) -> Result<(), Fault> {
    while *written < bytes.len() {
        match stream.write(&bytes[*written..]) {
            Ok(0) => return Err(Fault::ConnectionClosed),
            Ok(count) => *written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.clear();
    *written = 0;
    Ok(())
}

/// Connections of one run; a connection's number is its place in `connections`.
pub struct Fleet {
    address: SocketAddr,
    poll: Poll,
    events: Events,
    /// Shared by all connections, since packets are dealt with at once.
    pub buffer: Box<[u8]>,
    /// All connections, in the order of their introductions.
    pub connections: Vec<Connection>,
    patience: Patience,
    /// What the connections have beside plain MQTT 5.0; to be changed before the first is opened.
    pub features: Features,
}

impl Fleet {
    /// An empty fleet for the broker at `address`; `patience` is how long it waits for an answer before it gives up.
    pub fn new(address: SocketAddr, patience: impl Into<Patience>) -> Result<Self, Fault> {
        Ok(Self {
            address,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            connections: Vec::new(),
            patience: patience.into(),
            features: Features::default(),
        })
    }

    /// How long without any answer counts as a stall.
    pub fn stall_after(&self) -> Duration {
        self.patience.stall_after
    }

    /// So many parts more of what the run is at are done.
    pub fn advance(&self, parts: u64) {
        self.patience.advance(parts);
    }

    /// Opens one connection per introduction, up to 64 at once, and returns when all are connected and subscribed.
    pub fn open(&mut self, introductions: impl IntoIterator<Item = Introduction>) -> Result<(), Fault> {
        let (first, features) = (self.connections.len(), self.features);
        let mut introductions = introductions.into_iter();
        // Handshakes: SUBSCRIBE packet to send after CONNACK, empty when none is due or it has been sent.
        let mut subscribes: Vec<Option<Vec<u8>>> = Vec::new();
        let mut unfinished = 0;
        let mut exhausted = false;
        while !exhausted || unfinished > 0 {
            while !exhausted && unfinished < HANDSHAKES_MAX {
                let Some(introduction) = introductions.next() else {
                    exhausted = true;
                    break;
                };
                self.introduce(&introduction)?;
                subscribes.push(
                    (!introduction.topic_filters.is_empty())
                        .then(|| packet::subscribe_with(&introduction.topic_filters, introduction.qos, features)),
                );
                unfinished += 1;
            }
            if unfinished == 0 {
                break;
            }
            let any_event = self.turn(None, |connections, buffer, index, readable, _| {
                if !readable || index < first {
                    return Ok(());
                }
                let connection = &mut connections[index];
                connection.receive(buffer, |frame, output| {
                    match frame.first_byte {
                        packet::CONNACK => {
                            require_success(frame.body.get(1).copied().ok_or(Fault::Malformed)?)?;
                            match subscribes[index - first].take() {
                                Some(subscribe) => output.extend_from_slice(&subscribe),
                                None => unfinished -= 1,
                            }
                        }
                        packet::SUBACK => {
                            let codes_at = match features.version {
                                Version::V5 => 3 + usize::from(*frame.body.get(2).ok_or(Fault::Malformed)?),
                                Version::V311 => 2,
                            };
                            for &code in frame.body.get(codes_at..).ok_or(Fault::Malformed)? {
                                require_success(code)?;
                            }
                            unfinished -= 1;
                        }
                        other => return Err(Fault::Unexpected(other)),
                    }
                    Ok(())
                })?;
                connection.flush()
            })?;
            if !any_event {
                return Err(Fault::Stalled { messages: 0 });
            }
        }
        Ok(())
    }

    /// Waits for events, at most `timeout` (or the stall time), and never beyond the time there is; and calls `on_event` with connection number, readable
    /// and writable for each. Returns whether there were any.
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
        mut on_event: impl FnMut(&mut [Connection], &mut [u8], usize, bool, bool) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        self.patience.check()?;
        let deadline = self.patience.deadline(timeout);
        loop {
            match self.poll.poll(&mut self.events, Some(deadline.saturating_duration_since(Instant::now()))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        }
        for event in &self.events {
            // The generator never closes its own side, so a closed one is the broker's doing. What it sent before is
            // read first: it may say why.
            let closed = event.is_read_closed() || event.is_error();
            let readable = event.is_readable() || closed;
            on_event(&mut self.connections, &mut self.buffer, index_of(event), readable, event.is_writable())?;
            if closed {
                return Err(Fault::ConnectionClosed);
            }
        }
        if self.events.is_empty() {
            // Waiting may have ended with the time there is, which is no stall.
            self.patience.check()?;
        }
        Ok(!self.events.is_empty())
    }

    /// Opens a connection and says nothing.
    pub fn dial(&mut self) -> Result<(), Fault> {
        // A blocking connect to a listener with room in its backlog returns at once on loopback.
        let mut stream = std::net::TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience.stall_after))?;
        let stage = Stage::establish(self.features.transport, &mut stream)?;
        let staged = stage.map(|stage| Box::new(Staged { stage, wire: Vec::new(), written: 0 }));
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let token = Token(self.connections.len());
        self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        self.connections.push(Connection { stream, output: Vec::new(), written: 0, remainder: Vec::new(), staged });
        Ok(())
    }

    /// Ends all connections with DISCONNECT.
    pub fn close(mut self) -> Result<(), Fault> {
        for connection in &mut self.connections {
            connection.output.extend_from_slice(&packet::GOODBYE);
            connection.flush()?;
        }
        Ok(())
    }

    fn introduce(&mut self, introduction: &Introduction) -> Result<(), Fault> {
        self.dial()?;
        let features = self.features;
        let Some(connection) = self.connections.last_mut() else { return Ok(()) };
        connection.output = match introduction.lifetime {
            Lifetime::Connection => packet::connect_with(&introduction.client_id, introduction.will.as_ref(), features),
            Lifetime::Kept { receive_maximum } => {
                packet::connect_to_kept_session(&introduction.client_id, receive_maximum)
            }
        };
        connection.flush()?;
        // Thousands of idle connections need no output memory.
        connection.output.shrink_to_fit();
        Ok(())
    }
}

/// Turns a Reason Code of 0x80 and above into a fault.
pub fn require_success(reason_code: u8) -> Result<(), Fault> {
    if reason_code < 0x80 { Ok(()) } else { Err(Fault::Refused(reason_code)) }
}

fn index_of(event: &Event) -> usize {
    event.token().0
}
