//! What an attack works with, and the steps that many attacks share.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::oracle::Process;
use super::server::Server;
use super::{ATTACK_DURATION_MAX, version_name};
use crate::Options;
use crate::case::Case;
use crate::peer::{Event, Outcome, Peer, Stop};
use crate::rules::label;
use crate::scram::{Exchange, METHOD};
use crate::wire::{self, Connect, Packet, Property, Value, Version, prop, text};
use crate::{ensure, fail, skip};

/// "M": the Reason Code of a Malformed Packet.
pub const M: &[u8] = &[0x81];
/// "P": the Reason Code of a Protocol Error.
pub const P: &[u8] = &[0x82];
/// Where a row accepts both.
pub const M_OR_P: &[u8] = &[0x81, 0x82];

/// In this time an offending connection has to be closed.
pub const CLOSE_DURATION_MAX: Duration = Duration::from_secs(1);

/// User and password of brokers with SCRAM-SHA-256.
pub const SCRAM_USER: (&str, &str) = ("mallory", "correct horse battery staple");

/// One round of one attack.
pub struct Arena<'a> {
    /// Names and connections of MQTT 5.0.
    pub v5: Case<'a>,
    /// Names and connections of MQTT 3.1.1; the names differ from those of `v5`.
    pub v311: Case<'a>,
    /// The broker's process, if it can be watched.
    pub process: Option<&'a Process>,
    broker: Option<&'a Path>,
    ready: RefCell<Option<mpsc::Sender<()>>>,
}

/// What a connection is told that is refused before it is let in.
#[derive(Clone, Copy, Debug)]
pub enum Told {
    /// Nothing: it is closed.
    Nothing,
    /// CONNACK with one of these codes, then it is closed.
    Code(&'static [u8]),
    /// Either.
    NothingOr(&'static [u8]),
}

impl<'a> Arena<'a> {
    /// A round against `target` whose names begin with `tag`.
    pub fn new(
        target: &str,
        options: &'a Options,
        tag: String,
        process: Option<&'a Process>,
        broker: Option<&'a Path>,
        ready: Option<mpsc::Sender<()>>,
    ) -> Arena<'a> {
        let case = |version, suffix| Case::new(version, target, options, format!("{tag}{suffix}"), ATTACK_DURATION_MAX);
        Arena {
            v5: case(Version::V5, 'v'),
            v311: case(Version::V311, 'u'),
            process,
            broker,
            ready: RefCell::new(ready),
        }
    }

    /// Says that all connections are open that will be, for attacks beside others.
    pub fn ready(&self) {
        self.ready.take();
    }

    /// The same in both versions, 5.0 first.
    pub fn in_both(&self, run: impl Fn(&Case<'a>) -> Outcome) -> Outcome {
        for case in [&self.v5, &self.v311] {
            label(version_name(case.version), run(case))?;
        }
        Ok(())
    }

    /// A broker with a configuration of its own, and the names to work with it in both versions. Skips without an
    /// executable.
    pub fn server(&self, configuration: &str, listener: &str) -> Outcome<(Server, Case<'a>, Case<'a>)> {
        let Some(executable) = self.broker else { skip!("needs a broker of its own, which --broker lets it start") };
        let server = Server::start(executable, configuration, listener)?;
        let (v5, v311) = (self.v5.at(&server.address), self.v311.at(&server.address));
        Ok((server, v5, v311))
    }

    /// The same with the user [`SCRAM_USER`] and what `more` says.
    pub fn scram_server(&self, more: &str) -> Outcome<(Server, Case<'a>)> {
        let (user, password) = SCRAM_USER;
        let configuration = format!("{more}\n[[scram_user]]\nname = \"{user}\"\npassword = \"{password}\"\n");
        let (server, v5, _) = self.server(&configuration, "allow_anonymous = true")?;
        Ok((server, v5))
    }

    /// Removes what the round left behind.
    pub fn tidy(&self) {
        self.v5.tidy();
        self.v311.tidy();
    }
}

/// Sends `bytes` on a connection that is let in; it has to be closed, in MQTT 5.0 with one of these Reason Codes.
pub fn live(case: &Case<'_>, what: &str, bytes: impl AsRef<[u8]>, codes: &[u8]) -> Outcome {
    let steps = || {
        let mut peer = case.connect("live")?;
        peer.send(bytes);
        ends(&mut peer, codes)
    };
    label(what, steps())
}

/// Sends `bytes` as the first ones of a connection, which has to be refused.
pub fn first(case: &Case<'_>, what: &str, bytes: impl AsRef<[u8]>, told: Told) -> Outcome {
    label(what, case.send_first("first", bytes).and_then(|mut peer| refused(&mut peer, told)))
}

/// CONNECT that has to be refused: in MQTT 5.0 with one of these Reason Codes, in 3.1.1 without a word.
pub fn bad_connect(case: &Case<'_>, what: &str, connect: &Connect, codes: &'static [u8]) -> Outcome {
    first(case, what, connect.encode(), if case.version.is_v5() { Told::Code(codes) } else { Told::Nothing })
}

/// Expects the broker to close within a second: in MQTT 5.0 after DISCONNECT with one of these codes, in 3.1.1 without.
pub fn ends(peer: &mut Peer, codes: &[u8]) -> Outcome {
    let deadline = Instant::now() + CLOSE_DURATION_MAX;
    let mut told = None;
    loop {
        match peer.event_within(deadline.saturating_duration_since(Instant::now()))? {
            Event::Silence => fail!("the connection is open after a second"),
            Event::Packet(Packet::Disconnect(answer)) => {
                let code = answer.code();
                ensure!(told.is_none(), "two DISCONNECT");
                ensure!(codes.contains(&code), "DISCONNECT 0x{code:02X}, not one of {codes:02X?}");
                told = Some(code);
            }
            Event::Packet(packet) if told.is_some() => fail!("{packet} after DISCONNECT"),
            // Answers to what came before.
            Event::Packet(_) => {}
            Event::Closed => {
                ensure!(
                    told.is_some() || !peer.version.is_v5() || codes.is_empty(),
                    "closed without DISCONNECT {codes:02X?}"
                );
                return Ok(());
            }
        }
    }
}

/// Expects the broker to close within a second, after CONNACK as told. No Session is present then.
pub fn refused(peer: &mut Peer, told: Told) -> Outcome {
    let deadline = Instant::now() + CLOSE_DURATION_MAX;
    let mut heard = None;
    loop {
        match peer.event_within(deadline.saturating_duration_since(Instant::now()))? {
            Event::Silence => fail!("the connection is open after a second"),
            Event::Packet(Packet::ConnAck(connack)) if heard.is_none() => {
                ensure!(!connack.session_present, "Session Present in a refusal");
                heard = Some(connack.code);
            }
            Event::Packet(packet) => fail!("{packet} where CONNECT had to be refused"),
            Event::Closed => break,
        }
    }
    match (told, heard) {
        (Told::Nothing | Told::NothingOr(_), None) => Ok(()),
        (Told::Code(codes) | Told::NothingOr(codes), Some(code)) if codes.contains(&code) => Ok(()),
        (told, Some(code)) => fail!("CONNACK 0x{code:02X}, expected {told:02X?}"),
        (told, None) => fail!("closed without CONNACK, expected {told:02X?}"),
    }
}

/// A property with a two-byte integer.
pub fn two_byte(id: u8, value: u16) -> Property {
    (id, Value::TwoByte(value))
}

/// A property with a four-byte integer.
pub fn four_byte(id: u8, value: u32) -> Property {
    (id, Value::FourByte(value))
}

/// Authentication Method and Authentication Data of SCRAM-SHA-256.
pub fn method_and(data: &[u8]) -> [Property; 2] {
    [text(prop::AUTHENTICATION_METHOD, METHOD), (prop::AUTHENTICATION_DATA, Value::Binary(data.to_vec()))]
}

/// A CONNECT that begins an authentication with this first message.
pub fn scram_connect(case: &Case<'_>, name: &str, client_first: &[u8]) -> Connect {
    let mut connect = case.hello(name);
    connect.properties.extend(method_and(client_first));
    connect
}

/// Expects AUTH 0x18 and returns its data.
pub fn challenge(peer: &mut Peer) -> Outcome<Vec<u8>> {
    match peer.next("AUTH")? {
        Packet::Auth(answer) if answer.code() == 0x18 => {
            let data = answer.properties.iter().find_map(|property| match property {
                (prop::AUTHENTICATION_DATA, Value::Binary(data)) => Some(data.clone()),
                _ => None,
            });
            data.ok_or_else(|| Stop::Fail("AUTH without Authentication Data".into()))
        }
        other => fail!("expected AUTH 0x18, got {other}"),
    }
}

/// Lets a client in by SCRAM-SHA-256, with `connect` beside the authentication.
pub fn scram_enter(case: &Case<'_>, mut connect: Connect) -> Outcome<Peer> {
    let mut exchange = Exchange::new(SCRAM_USER.0, SCRAM_USER.1, &case.id("nonce"));
    connect.properties.extend(method_and(&exchange.client_first()));
    let mut peer = case.send_first("scram", connect.encode())?;
    let server_first = challenge(&mut peer)?;
    let last = exchange.client_final(&server_first).map_err(Stop::Fail)?;
    peer.send(wire::auth(0x18, &method_and(&last)));
    peer.expect_connack()?;
    Ok(peer)
}

/// A connection for masses: nothing is decoded, packets are counted.
pub struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
    patience: Duration,
}

/// Packets heard, by their type; in the place of type 0, which there is not, PUBLISH packets with RETAIN.
pub type Counts = [usize; 16];

impl Raw {
    /// Opens a connection and sends these bytes.
    pub fn open(case: &Case<'_>, bytes: &[u8]) -> Outcome<Raw> {
        Raw::dial(case.target(), case.patience(), bytes)
    }

    /// The same without a case, which belongs to one thread.
    pub fn dial(target: &str, patience: Duration, bytes: &[u8]) -> Outcome<Raw> {
        let wrong = |error: std::io::Error| Stop::Fail(format!("cannot connect to {target}: {error}"));
        let mut stream = TcpStream::connect(target).map_err(wrong)?;
        stream.set_nodelay(true).map_err(wrong)?;
        stream.set_read_timeout(Some(patience)).map_err(wrong)?;
        stream.set_write_timeout(Some(patience)).map_err(wrong)?;
        // An error shows at the next read.
        drop(stream.write_all(bytes));
        Ok(Raw { stream, input: Vec::new(), patience })
    }

    /// Connects and waits for CONNACK.
    pub fn connect(case: &Case<'_>, connect: &Connect) -> Outcome<Raw> {
        let mut raw = Raw::open(case, &connect.encode())?;
        let counts = raw.count(|counts| counts[2] == 1)?;
        ensure!(counts[2] == 1, "no CONNACK");
        Ok(raw)
    }

    /// Sends bytes; an error shows at the next read.
    pub fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// Reads until `enough`, until the broker closes, or until nothing comes any more.
    pub fn count(&mut self, enough: impl Fn(&Counts) -> bool) -> Outcome<Counts> {
        let mut counts = [0; 16];
        let mut chunk = vec![0; 65_536];
        while !enough(&counts) {
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
            }
            let mut at = 0;
            while let Some((first, _, size)) = wire::take_frame(&self.input[at..]).map_err(Stop::Fail)? {
                counts[usize::from(first >> 4)] += 1;
                counts[0] += usize::from(first & 0xf1 == 0x31);
                at += size;
            }
            self.input.drain(..at);
        }
        Ok(counts)
    }

    /// Writes `chunk` so many times while the answers are read, until `enough`.
    pub fn flood(&mut self, chunk: &[u8], times: usize, enough: impl Fn(&Counts) -> bool) -> Outcome<Counts> {
        let mut output = self.stream.try_clone().map_err(|error| Stop::Fail(format!("cannot write: {error}")))?;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for _ in 0..times {
                    if output.write_all(chunk).is_err() {
                        return;
                    }
                }
            });
            self.count(enough)
        })
    }

    /// Ends this side, and reads until the broker has closed its own.
    pub fn end(mut self) -> Outcome {
        drop(self.stream.shutdown(Shutdown::Write));
        let deadline = Instant::now() + self.patience;
        let mut chunk = [0; 65_536];
        while Instant::now() < deadline {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    break;
                }
                // Reset, because bytes were left unread on the other side: closed as well.
                Err(_) => return Ok(()),
            }
        }
        fail!("the broker does not close a connection its client has ended")
    }
}

/// A sequence of numbers that looks random and is the same for the same seed (xorshift64*).
pub struct Noise(u64);

impl Noise {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.number().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Runs `work` for each number below `count` on four threads; the first failure ends it.
pub fn in_parallel(count: usize, work: impl Fn(usize) -> Outcome + Sync) -> Outcome {
    const THREADS: usize = 4;
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || (thread..count).step_by(THREADS).try_for_each(work)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Stop::Fail("the test itself panicked".into()))))
    })
}
