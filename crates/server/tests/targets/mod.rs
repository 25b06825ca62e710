//! What the fuzz targets check, as plain functions: `fuzz/` feeds them what a fuzzer makes up, `corpus.rs` beside this folder the
//! kept inputs, and both fail by a panic.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use pantala_broker::{ConnectionKey, Core, CoreOptions, ListenerSettings, Settings, shares};
use pantala_proto::{Acknowledgement, AcknowledgementKind, Packet, ProtocolVersion, QoS, ReasonCode, frame};
use pantala_server::config::{Config, Environment, Overrides};
use pantala_server::import_mosquitto_db;
use pantala_session::Instant;
use pantala_store::disk::SimDisk;
use pantala_store::log::LogOptions;
use pantala_store::{AnyStore, Clock, Committer, Durability, Opened, Pause, Recovered, StoredMessage, open};

/// A target: its name and what it checks.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
#[allow(dead_code, reason = "the fuzz targets are one program each")]
pub const ALL: [Target; 3] =
    [("config_mosquitto", config_mosquitto), ("config_toml", config_toml), ("mosquitto_db", mosquitto_db)];

fn read(name: &str, text: &str) -> Option<Config> {
    match Config::of_text(Some((Path::new(name), text)), &Overrides::default(), &Environment::default()) {
        Ok(config) => {
            assert!(!config.listeners.is_empty());
            // What one configuration is told by does not differ from itself.
            assert!(config.effective().changes(&config.effective()).is_empty());
            for line in config.warnings.iter().map(String::as_str).chain(config.describe().lines()) {
                assert!(!line.contains(char::is_control), "{line:?}");
            }
            Some(config)
        }
        Err(error) => {
            assert!(!error.to_string().contains(char::is_control), "{error:?}");
            None
        }
    }
}

/// A mosquitto.conf: an error in one line, or a configuration, and the same one again when it is written down in TOML.
pub fn config_mosquitto(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    // What it includes is nothing that the input says.
    if text.contains("include_dir") {
        return;
    }
    let Some(config) = read("mosquitto.conf", text) else { return };
    let toml = config.written("mosquitto.conf");
    let again = read("pantala.toml", &toml).unwrap_or_else(|| panic!("{toml}"));
    assert_eq!(again.effective().changes(&config.effective()), [], "{toml}");
    assert_eq!(again.describe(), config.describe(), "{toml}");
}

/// A configuration in TOML: an error in one line, or a configuration.
pub fn config_toml(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    read("pantala.toml", text);
}

// ---- mosquitto_db ---------------------------------------------------------------------------------------------------

/// Users are believed at one of its ports.
const CONFIG: &str = "listener 1883\npassword_file /p\nlistener 1884\nallow_anonymous true\n";
const OPTIONS: LogOptions = LogOptions { segment_bytes: 65_536, segments_min: 4 };
/// 2023, later than what seeds say of when they were written.
const WALL: u64 = 1_700_000_000_000;

/// A mosquitto.db: an error in one line, or a store that holds as much as was taken over, and from which a broker tells its clients
/// nothing that is not MQTT.
pub fn mosquitto_db(input: &[u8]) {
    static SETTINGS: OnceLock<Config> = OnceLock::new();
    let config = SETTINGS.get_or_init(|| read("mosquitto.conf", CONFIG).expect("a configuration"));
    let disk = SimDisk::new();
    let counts = match import_mosquitto_db(config, input, disk.clone(), OPTIONS, WALL) {
        Ok(counts) => counts,
        Err(error) => return assert_eq!(error.lines().count(), 1, "{error}"),
    };
    let opened: Opened<_, StoredMessage> = open(disk.clone(), OPTIONS, 1, Durability::Fsync).expect("a store");
    assert!(opened.report.damages.is_empty() && opened.report.torn_bytes == 0, "{:?}", opened.report);
    let Recovered { sessions, retained, orphans, unreadable, .. } = &opened.recovered;
    assert_eq!((orphans.len(), *unreadable), (0, 0));
    assert_eq!(sessions.len(), counts[1]);
    // What is there twice counts twice, and is there once.
    assert!(retained.len() <= counts[0] && (retained.is_empty() == (counts[0] == 0)));
    assert!(sessions.iter().map(|session| session.subscriptions.len()).sum::<usize>() <= counts[2]);
    assert_eq!(sessions.iter().map(|session| session.queue.len() + session.outbound.len()).sum::<usize>(), counts[3]);
    let mut client_ids: Vec<_> = sessions.iter().map(|session| session.client_id.clone()).collect();
    client_ids.sort_unstable();
    assert!(client_ids.windows(2).all(|pair| pair[0] != pair[1]));
    drop(opened);
    serve(&disk, &client_ids);
}

/// A broker, as far as it sends what it has taken over.
struct Broker {
    core: Core<AnyStore>,
    committer: Committer<SimDisk>,
    now: Instant,
}

/// Each client gets what waits for it, and one more what is retained.
fn serve(disk: &SimDisk, client_ids: &[Box<str>]) {
    let opened = open(disk.clone(), OPTIONS, 1, Durability::Fsync).expect("a store");
    let clock = opened.recovered.clock.unwrap_or_default();
    let now = Instant(clock.resumed(WALL, 0).max(1));
    let listener = ListenerSettings { sessions_belong_to_users: false, ..ListenerSettings::default() };
    let settings = Settings { listeners: vec![listener], ..Settings::default() };
    let options = CoreOptions::alone(Arc::new(settings), Box::new(|bytes| bytes.fill(7)));
    let store = opened.stores.into_iter().next().expect("one worker");
    let mut core = Core::new(options, AnyStore::Durable(store));
    for share in shares(opened.recovered, 1) {
        let orphans = core.restore(now, now, share);
        core.adopt(now, orphans);
    }
    let mut broker = Broker { core, committer: opened.committer, now };
    for (place, client_id) in client_ids.iter().take(4).enumerate() {
        let version = [ProtocolVersion::V5, ProtocolVersion::V311][place % 2];
        broker.connect(version, client_id, &[]);
    }
    let mut subscribe = vec![0x82, 7, 0, 1, 0, 0, 1, b'#', 2];
    subscribe[1] = (subscribe.len() - 2) as u8;
    broker.connect(ProtocolVersion::V5, "one that has read all", &subscribe);
}

impl Broker {
    /// A client connects, says something, and acknowledges all that it gets.
    fn connect(&mut self, version: ProtocolVersion, client_id: &str, more: &[u8]) {
        let mut connect = vec![0, 4];
        connect.extend(b"MQTT");
        // Without Clean Start; its Session goes on for ever.
        let (level, properties) = match version {
            ProtocolVersion::V5 => (5, &[5, 0x11, 0xff, 0xff, 0xff, 0xff][..]),
            _ => (4, &[][..]),
        };
        connect.extend([level, 0, 0, 0]);
        connect.extend(properties);
        connect.extend((client_id.len() as u16).to_be_bytes());
        connect.extend(client_id.as_bytes());
        let key = self.core.open(self.now, 0);
        let mut packet = vec![0x10];
        let mut length = connect.len();
        while length >= 128 {
            packet.push(length as u8 | 128);
            length >>= 7;
        }
        packet.push(length as u8);
        packet.extend(connect);
        self.say(key, &packet);
        self.say(key, more);
        let mut turns = 0;
        loop {
            self.core.store_completed(self.now);
            self.core.tick(self.now);
            let sent = self.sent(key);
            if sent.is_empty() {
                break;
            }
            let answers = answers(version, &sent);
            self.say(key, &answers);
            turns += 1;
            assert!(turns < 100_000, "it never ends");
        }
        self.core.lost(self.now, key);
        self.core.closed(key);
        self.commit();
    }

    fn say(&mut self, key: ConnectionKey, bytes: &[u8]) {
        if !bytes.is_empty() && self.core.wants_input(key) {
            self.core.receive(self.now, key, bytes);
        }
        self.core.submit();
        self.commit();
        self.core.store_completed(self.now);
    }

    fn commit(&mut self) {
        self.core.submit();
        let clock = Clock { broker: self.now.0, wall: WALL };
        while self.committer.step(clock, &mut |notice| panic!("{notice:?}")) != Pause::Idle {}
    }

    /// All that waits to be sent.
    fn sent(&mut self, key: ConnectionKey) -> Vec<u8> {
        let mut sent = Vec::new();
        loop {
            let before = sent.len();
            let mut slices = [std::io::IoSlice::new(&[]); 16];
            let filled = self.core.slices(key, &mut slices);
            slices[..filled].iter().for_each(|slice| sent.extend_from_slice(slice));
            let count = sent.len() - before;
            if count == 0 {
                return sent;
            }
            self.core.wrote(self.now, key, count);
        }
    }
}

/// What a client answers to packets, each of which has to be whole and right.
fn answers(version: ProtocolVersion, mut bytes: &[u8]) -> Vec<u8> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let Ok(frame::Split::Frame(frame)) = frame::split(bytes, u32::MAX) else {
            panic!("part of a packet: {bytes:02x?}");
        };
        let packet = Packet::decode(version, frame.first_byte, frame.body);
        let packet = packet.unwrap_or_else(|error| panic!("{error}: {:02x} {:02x?}", frame.first_byte, frame.body));
        let mut answer = |kind, packet_id| {
            Acknowledgement::new(kind, packet_id, ReasonCode::Success).encode(version, &mut answers);
        };
        match packet {
            Packet::Publish(publish) => match (publish.delivery.qos(), publish.delivery.packet_id()) {
                (QoS::AtLeastOnce, Some(packet_id)) => answer(AcknowledgementKind::PubAck, packet_id),
                (QoS::ExactlyOnce, Some(packet_id)) => answer(AcknowledgementKind::PubRec, packet_id),
                _ => {}
            },
            Packet::Acknowledgement(Acknowledgement { kind: AcknowledgementKind::PubRel, packet_id, .. }) => {
                answer(AcknowledgementKind::PubComp, packet_id);
            }
            _ => {}
        }
        bytes = &bytes[frame.packet_bytes..];
    }
    answers
}
