//! Reading from and writing to connections with stages: see `stage.rs`.

use std::io::{ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pantala_broker::{ConnectionKey, Core, Peer};
use pantala_session::Instant;
use pantala_store::AnyStore;
use pantala_transport::websocket::CloseCode;

use super::{SLICES, Worker, admit};
use crate::config::LogType;
use crate::log::shown;
use crate::stage::{CHUNK_BYTES, Progress, Told};

impl Worker {
    /// One read, and what follows from it; the same as [`Worker::read`] but for the stages.
    pub(super) fn read_staged(&mut self, now: Instant, key: ConnectionKey, buffer: &mut [u8]) {
        let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let Some(stages) = slot.stages.as_deref_mut() else { return };
        if !stages.wants_input() {
            // It is looked at again when the socket has taken what waits.
            slot.readable = true;
            return;
        }
        let count = match slot.socket.read(buffer) {
            Ok(0) => {
                self.write_all(now, &[key]);
                return self.lost(now, key);
            }
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                (slot.readable, slot.ended) = (false, false);
                return;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return self.read_later(key),
            Err(_) => return self.lost(now, key),
        };
        self.turn_bytes = self.turn_bytes.saturating_sub(count);
        slot.readable = count == buffer.len() || slot.ended;
        let more = slot.readable;
        let (core, scratch) = (&mut self.core, &mut self.scratch);
        let progress = catch_unwind(AssertUnwindSafe(|| {
            let progress = stages.receive(&mut buffer[..count], scratch);
            if let Some(address) = stages.address_to_count() {
                // So that the log can name it even if nothing more comes.
                core.introduce(key, Box::new(Peer { address, ..Peer::default() }));
                slot.counted = admit(&self.addresses, core, &self.log, address)?;
            }
            // The log of a failure names the client as well.
            if (!scratch.inward.is_empty() || matches!(progress, Progress::Failed(_)))
                && let Some(peer) = stages.introduction()
            {
                core.introduce(key, peer);
            }
            if !scratch.inward.is_empty() {
                core.receive(now, key, &scratch.inward);
            }
            Some(progress)
        }));
        let Ok(progress) = progress else { return self.panicked(now, key) };
        let Some(progress) = progress else {
            self.tell_websocket(key);
            // It has said nothing that the core has heard of.
            self.core.closed(key);
            return self.forget(now, key);
        };
        if !stages.pending().is_empty() {
            self.write_later(key);
        } else if stages.is_done() {
            slot.stages = None;
        }
        self.tell_websocket(key);
        match progress {
            Progress::Open | Progress::Done if more => self.read_later(key),
            Progress::Open | Progress::Done => {}
            Progress::Ended => {
                self.write_all(now, &[key]);
                self.say_farewell(now, key);
                self.lost(now, key);
            }
            Progress::Failed(why) => self.guarded(|core| core.transport_failed(now, key, why)),
        }
    }

    /// Writes what waits, as far as the socket takes it; at most one chunk more is made ready than it takes.
    pub(super) fn write_staged(&mut self, now: Instant, key: ConnectionKey) {
        loop {
            let (core, scratch) = (&mut self.core, &mut self.scratch);
            let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else { return };
            let Some(stages) = slot.stages.as_deref_mut() else { return };
            let kept = !stages.pending().is_empty();
            if !kept {
                gather(core, key, &mut scratch.gathered);
                let taken = scratch.gathered.len();
                if taken == 0 {
                    break;
                }
                let progress = stages.send(scratch);
                core.wrote(now, key, taken);
                if let Progress::Failed(why) = progress {
                    return self.guarded(|core| core.transport_failed(now, key, why));
                }
                if scratch.outward.is_empty() {
                    continue;
                }
            }
            let bytes = if kept { stages.pending() } else { &scratch.outward };
            let (bytes_len, result) = (bytes.len(), slot.socket.write(bytes));
            let written = match &result {
                Ok(count) => *count,
                Err(_) => 0,
            };
            if kept {
                stages.wrote(written);
                if written > 0 {
                    // A client that reads slowly does read.
                    core.wrote(now, key, 0);
                }
            } else if written < bytes_len {
                stages.keep(&scratch.outward[written..]);
            }
            self.turn_output_bytes = self.turn_output_bytes.saturating_sub(written);
            match result {
                Ok(0) => return self.lost(now, key),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    slot.blocked = true;
                    self.core.blocked(now, key);
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.lost(now, key),
            }
        }
        let Some(slot) = self.slot(key) else { return };
        if slot.readable && !slot.queued {
            self.read_later(key);
        }
    }

    /// Adds what the stages say last to what a connection has to be written before it is closed.
    pub(super) fn say_farewell(&mut self, now: Instant, key: ConnectionKey) {
        let Some(slot) = self.slots.get_mut(key as usize).and_then(Option::as_mut) else { return };
        let Some(stages) = slot.stages.as_deref_mut() else { return };
        let scratch = &mut self.scratch;
        let code = if self.ending.is_some() { CloseCode::GoingAway } else { CloseCode::Normal };
        // Its end is under way already.
        drop(catch_unwind(AssertUnwindSafe(|| stages.close(code, scratch))));
        self.tell_websocket(key);
        self.write_all(now, &[key]);
    }

    /// Writes into the log what has happened to a WebSocket.
    #[inline]
    fn tell_websocket(&mut self, key: ConnectionKey) {
        if !self.scratch.told.is_empty() {
            self.tell_what_happened(key);
        }
    }

    #[cold]
    fn tell_what_happened(&mut self, key: ConnectionKey) {
        let mut told = std::mem::take(&mut self.scratch.told);
        if self.log.wants(LogType::Websockets) {
            let client = self.core.client_id(key).map_or_else(|| self.peer(key), shown);
            for told in &told {
                self.log.limited(LogType::Websockets, "WebSockets", || match told {
                    Told::Accepted(subprotocol) => {
                        format!("WebSocket of {client} accepted, subprotocol {subprotocol}.")
                    }
                    Told::Refused(why) => format!("WebSocket of {client} refused: {why}."),
                    Told::ClosedByClient(Some(code)) => {
                        format!("WebSocket of {client} closed by the client with {code}.")
                    }
                    Told::ClosedByClient(None) => format!("WebSocket of {client} closed by the client without a code."),
                    Told::Closed(code, why) => format!("WebSocket of {client} closed with {code}: {why}."),
                });
            }
        }
        told.clear();
        self.scratch.told = told;
    }
}

/// Puts together what comes next in the output of a connection, up to a chunk.
fn gather(core: &Core<AnyStore>, key: ConnectionKey, gathered: &mut Vec<u8>) {
    gathered.clear();
    if let Some(bytes) = core.contiguous_output(key) {
        return gathered.extend_from_slice(&bytes[..bytes.len().min(CHUNK_BYTES)]);
    }
    let mut slices = [IoSlice::new(&[]); SLICES];
    let filled = core.slices(key, &mut slices);
    for slice in &slices[..filled] {
        let room = CHUNK_BYTES - gathered.len();
        gathered.extend_from_slice(&slice[..slice.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    use mio::{Poll, Waker};
    use pantala_broker::authentication::Unbraked;
    use pantala_broker::{CoreOptions, ListenerSettings, Settings, Totals, Unrestricted, WorkerId};
    use pantala_store::MemoryStore;

    use super::*;
    use crate::config::Verification;
    use crate::config::{LogConfig, LogTypes};
    use crate::guard::Addresses;
    use crate::inbox::{Inbox, Letter};
    use crate::listen::Listener;
    use crate::log::Log;
    use crate::security::{Security, Surroundings};
    use crate::stage::Entry;
    use crate::stage::scrambler::{ANSWER, KNOCK, WRONG};
    use crate::worker::{Clock, Doors, WAKER};

    /// Two workers, and one listener whose connections have two scramblers: the inner one's answer is turned by the outer.
    struct Broker {
        address: SocketAddr,
        inboxes: Arc<[Arc<Inbox>]>,
        threads: Vec<JoinHandle<()>>,
    }

    impl Broker {
        fn start(scrambled: usize) -> Self {
            let listener = ListenerSettings { allow_anonymous: true, ..ListenerSettings::default() };
            let settings = Arc::new(Settings { listeners: vec![listener], ..Settings::default() });
            let totals = Arc::new(Totals::new(1));
            let polls: Vec<Poll> = (0..2).map(|_| Poll::new().unwrap()).collect();
            let inboxes: Arc<[Arc<Inbox>]> =
                polls.iter().map(|poll| Inbox::new(Waker::new(poll.registry(), WAKER).unwrap())).collect();
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            let entries: Arc<[Arc<Entry>]> = Arc::new([Arc::new(Entry { scrambled, ..Entry::default() })]);
            let log = Log::open(LogConfig { stderr: false, types: LogTypes::ALL, ..LogConfig::default() }).unwrap();
            let clock = Clock::start(Instant(1));
            let surroundings = Surroundings {
                allow_anonymous: Box::new([true]),
                bounds: Verification::default(),
                patience: Duration::from_secs(10),
                scram_users: Default::default(),
                described: None,
                secret: [1; 32],
                clock,
                log: log.clone(),
            };
            let security = Security::new(Vec::new(), surroundings).unwrap();
            let threads = polls.into_iter().enumerate().map(|(index, poll)| {
                let id = WorkerId(index as u8);
                let options = CoreOptions {
                    settings: Arc::clone(&settings),
                    worker: id,
                    workers: 2,
                    totals: Arc::clone(&totals),
                    methods: Arc::new([]),
                    brake: Arc::new(Unbraked),
                    rights: Arc::new(Unrestricted),
                    random: Box::new(|bytes| bytes.fill(7)),
                };
                let core = Core::new(options, AnyStore::Memory(MemoryStore));
                // All come to the first one, and half of them belong to the second.
                let listener = mio::net::TcpListener::from_std(socket.try_clone().unwrap());
                let listeners = vec![(Listener::Tcp { listener, no_delay: true }, 0)];
                let listeners = if index == 0 { listeners } else { Vec::new() };
                let doors = Doors { listeners, entries: Arc::clone(&entries), addresses: Addresses::new(None, None) };
                let worker =
                    Worker::new(id, core, poll, clock, log.clone(), doors, Arc::clone(&inboxes), Arc::clone(&security))
                        .unwrap();
                thread::spawn(move || worker.run().unwrap())
            });
            Self { address: socket.local_addr().unwrap(), threads: threads.collect(), inboxes }
        }

        fn connect(&self) -> Client {
            let socket = TcpStream::connect(self.address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket.set_nodelay(true).unwrap();
            Client { socket }
        }
    }

    impl Drop for Broker {
        fn drop(&mut self) {
            self.inboxes.iter().for_each(|inbox| inbox.send(Letter::ShutDown));
            for thread in self.threads.drain(..) {
                thread.join().unwrap();
            }
        }
    }

    struct Client {
        socket: TcpStream,
    }

    impl Client {
        /// With two scramblers everything is turned twice, but the knock for the inner and its answer once.
        fn knock_twice(&mut self) {
            self.socket.write_all(&[KNOCK, !KNOCK]).unwrap();
            self.expect(&[ANSWER, !ANSWER]);
        }

        fn send(&mut self, bytes: &[u8]) {
            self.socket.write_all(bytes).unwrap();
        }

        fn expect(&mut self, expected: &[u8]) {
            let mut bytes = vec![0; expected.len()];
            self.socket.read_exact(&mut bytes).unwrap();
            assert!(bytes == expected, "{:02x?}", &bytes[..bytes.len().min(20)]);
        }

        fn connect_mqtt(&mut self, client_id: u8) {
            self.send(&connect(client_id));
            self.expect(&[0x20, 2, 0, 0]);
        }
    }

    fn connect(client_id: u8) -> [u8; 15] {
        [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, client_id]
    }

    /// Whatever worker a client belongs to, its stages and the bytes behind CONNECT go with it.
    #[test]
    fn stages_move_with_their_connection() {
        let broker = Broker::start(2);
        let mut clients = Vec::new();
        for client_id in b'a'..=b'h' {
            let mut client = broker.connect();
            client.knock_twice();
            let subscribe = [0x82, 6, 0, 1, 0, 1, b't', 0];
            client.send(&[&connect(client_id)[..], &subscribe].concat());
            client.expect(&[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0]);
            clients.push(client);
        }
        clients[0].send(&[0x30, 4, 0, 1, b't', b'!']);
        for client in &mut clients {
            client.expect(&[0x30, 4, 0, 1, b't', b'!']);
        }
    }

    #[test]
    fn bytes_one_by_one_come_through() {
        let broker = Broker::start(2);
        let mut client = broker.connect();
        client.knock_twice();
        for byte in connect(b'a') {
            client.send(&[byte]);
        }
        client.expect(&[0x20, 2, 0, 0]);
        client.send(&[0xc0]);
        client.send(&[0]);
        client.expect(&[0xd0, 0]);
    }

    /// More than the sockets take waits in the core, not in the stages, and all of it comes in order when the client reads.
    #[test]
    fn a_slow_reader_gets_everything() {
        let broker = Broker::start(2);
        let (mut reader, mut writer) = (broker.connect(), broker.connect());
        reader.knock_twice();
        reader.connect_mqtt(b'r');
        reader.send(&[0x82, 6, 0, 1, 0, 1, b't', 0]);
        reader.expect(&[0x90, 3, 0, 1, 0]);
        writer.knock_twice();
        writer.connect_mqtt(b'w');
        // Payloads that are shared, with small ones between them: 6 MB, below what may wait for one connection.
        let mut expected = Vec::new();
        for number in 0..300_u32 {
            let payload = vec![number as u8; if number % 3 == 0 { 3 } else { 30_000 }];
            expected.push(0x30);
            match payload.len() + 3 {
                short @ ..=127 => expected.push(short as u8),
                long => {
                    expected.extend_from_slice(&[long as u8 | 0x80, (long >> 7) as u8 | 0x80, (long >> 14) as u8]);
                }
            }
            expected.extend_from_slice(&[0, 1, b't']);
            expected.extend_from_slice(&payload);
        }
        writer.send(&expected);
        writer.send(&[0xc0, 0]);
        writer.expect(&[0xd0, 0]);
        reader.expect(&expected);
        reader.send(&[0xe0, 0]);
        // The last words of the inner one are turned, and those of the outer are not.
        let mut rest = Vec::new();
        reader.socket.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [b"bye".map(|byte| byte), b"bye".map(|byte| !byte)].concat());
    }

    #[test]
    fn a_stage_that_fails_ends_the_connection() {
        let broker = Broker::start(2);
        for knock in [&[WRONG][..], &[KNOCK, !WRONG]] {
            let mut client = broker.connect();
            client.send(knock);
            let mut rest = Vec::new();
            client.socket.read_to_end(&mut rest).unwrap();
            assert!(!rest.windows(4).any(|bytes| bytes == [0x20, 2, 0, 0]), "{rest:02x?}");
        }
        let mut client = broker.connect();
        client.knock_twice();
        client.connect_mqtt(b'a');
    }
}
