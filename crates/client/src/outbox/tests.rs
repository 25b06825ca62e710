//! The machine, its journal and the log together, with power cuts at every operation of the disk, against a broker that
//! remembers what it got.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::time::Duration;

use pantala_proto::{
    Acknowledgement, AcknowledgementKind, ConnAck, Delivery, Outgoing, Packet, PacketId, ProtocolVersion,
    PublishProperties, QoS, ReasonCode, frame,
};
use pantala_session::Instant;
use pantala_store::disk::{Operation, SimDisk};

use super::{Keeper, OutboxDurability, OutboxError, Recovered};
use crate::Message;
use crate::error::PublishError;
use crate::machine::{Event, Kept, Machine, Phase, Progress, Record, SessionSettings};

const SEGMENT_BYTES: u32 = 4096;
const V5: ProtocolVersion = ProtocolVersion::V5;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn nothing() -> Recovered {
    Recovered { existed: false, kept: Vec::new(), opened: Vec::new(), report: Default::default() }
}

fn settings() -> SessionSettings {
    SessionSettings {
        client_id: "c".to_owned(),
        clean_start: false,
        session_expiry_interval: Duration::MAX,
        ..SessionSettings::default()
    }
}

fn open(disk: &SimDisk) -> Result<(Keeper<SimDisk>, Recovered), OutboxError> {
    open_with(disk, OutboxDurability::Fsync)
}

fn open_with(disk: &SimDisk, durability: OutboxDurability) -> Result<(Keeper<SimDisk>, Recovered), OutboxError> {
    Keeper::open_on(disk.clone(), SEGMENT_BYTES, durability, "here", "c")
}

fn machine(recovered: Recovered) -> Machine {
    let mut machine = Machine::new(settings());
    machine.keep_journal();
    machine.restore(recovered.kept, recovered.opened);
    machine
}

/// One end of a Session at a broker.
#[derive(Default)]
struct Broker {
    session: bool,
    /// QoS 2 messages that came and are not released.
    open: BTreeSet<PacketId>,
    /// All messages that were not known to be repeats, in order.
    received: Vec<(QoS, u64)>,
    /// QoS 2 messages for the client: their number, and whether PUBREC has come.
    owed: BTreeMap<PacketId, (u64, bool)>,
    connections: u16,
    input: Vec<u8>,
}

impl Broker {
    fn handle(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut used = 0;
        let mut output = Vec::new();
        while let Ok(frame::Split::Frame(frame)) = frame::split(&input[used..], u32::MAX) {
            used += frame.packet_bytes;
            self.handle_packet(Packet::decode(V5, frame.first_byte, frame.body).unwrap(), &mut output);
        }
        self.input = input[used..].to_vec();
        output
    }

    fn handle_packet(&mut self, packet: Packet<'_>, output: &mut Vec<u8>) {
        let mut answer = |kind, packet_id, code| Acknowledgement::new(kind, packet_id, code).encode(V5, output);
        match packet {
            Packet::Connect(connect) => {
                assert!(!connect.clean_start);
                let mut conn_ack = ConnAck::new(self.session, ReasonCode::Success);
                // Sometimes less is taken at once than was in flight before.
                self.connections += 1;
                conn_ack.receive_maximum = NonZeroU16::new(1 + self.connections * 7 % 5);
                conn_ack.encode(V5, output);
                self.session = true;
                for (packet_id, (number, answered)) in self.owed.clone() {
                    if answered {
                        Acknowledgement::new(AcknowledgementKind::PubRel, packet_id, ReasonCode::Success)
                            .encode(V5, output);
                    } else {
                        publish(packet_id, number, true, output);
                    }
                }
            }
            Packet::Publish(publish) => {
                let number = std::str::from_utf8(publish.payload).unwrap().parse().unwrap();
                match publish.delivery {
                    Delivery::AtMostOnce => {}
                    Delivery::AtLeastOnce { packet_id, .. } => {
                        self.received.push((QoS::AtLeastOnce, number));
                        answer(AcknowledgementKind::PubAck, packet_id, ReasonCode::Success);
                    }
                    Delivery::ExactlyOnce { packet_id, .. } => {
                        if self.open.insert(packet_id) {
                            self.received.push((QoS::ExactlyOnce, number));
                        }
                        answer(AcknowledgementKind::PubRec, packet_id, ReasonCode::Success);
                    }
                }
            }
            Packet::Acknowledgement(acknowledgement) => {
                let packet_id = acknowledgement.packet_id;
                match acknowledgement.kind {
                    AcknowledgementKind::PubAck => {}
                    AcknowledgementKind::PubRel => {
                        let known = self.open.remove(&packet_id);
                        let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
                        answer(AcknowledgementKind::PubComp, packet_id, code);
                    }
                    AcknowledgementKind::PubRec => {
                        self.owed.get_mut(&packet_id).expect("PUBREC of what is owed").1 = true;
                        answer(AcknowledgementKind::PubRel, packet_id, ReasonCode::Success);
                    }
                    AcknowledgementKind::PubComp => {
                        self.owed.remove(&packet_id);
                    }
                }
            }
            Packet::PingReq | Packet::Disconnect(_) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Sends a message, with the lowest Packet Identifier that is free, so that they are used again soon.
    fn send(&mut self, number: u64) -> Vec<u8> {
        let mut packet_id = PacketId::FIRST;
        while self.owed.contains_key(&packet_id) {
            packet_id = packet_id.following();
        }
        self.owed.insert(packet_id, (number, false));
        let mut output = Vec::new();
        publish(packet_id, number, false, &mut output);
        output
    }
}

fn publish(packet_id: PacketId, number: u64, dup: bool, output: &mut Vec<u8>) {
    let payload = number.to_string();
    let properties = PublishProperties::default();
    let form = Outgoing {
        delivery: Delivery::ExactlyOnce { packet_id, dup },
        retain: false,
        topic_name: "down",
        properties: properties.forward(),
        message_expiry_interval: None,
        topic_alias: None,
        subscription_identifiers: &[],
    };
    form.encode_header(V5, payload.len(), output);
    output.extend_from_slice(payload.as_bytes());
}

/// A program with an outbox and its broker.
struct World {
    random: Random,
    now: Instant,
    disk: SimDisk,
    keeper: Keeper<SimDisk>,
    machine: Machine,
    broker: Broker,
    /// On the way to the client.
    to_client: Vec<u8>,
    records: Vec<Record>,
    offered: Vec<(QoS, u64)>,
    accepted: Vec<(QoS, u64)>,
    sent_down: u64,
    delivered: Vec<u64>,
    /// What the program has dealt with: since the last write, and for all time.
    acknowledged: Vec<u64>,
    dealt_with: BTreeSet<u64>,
    number: u64,
    published: BTreeMap<u64, QoS>,
    durability: OutboxDurability,
    only_at_least_once: bool,
    /// All that was given to the keeper, also what it failed to write.
    batches: Vec<Vec<Record>>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::with(seed, OutboxDurability::Fsync)
    }

    fn with(seed: u64, durability: OutboxDurability) -> Self {
        let disk = SimDisk::new();
        let (keeper, recovered) = open_with(&disk, durability).unwrap();
        Self {
            durability,
            only_at_least_once: false,
            published: BTreeMap::new(),
            batches: Vec::new(),
            random: Random(seed),
            now: Instant(1),
            disk,
            keeper,
            machine: machine(recovered),
            broker: Broker::default(),
            to_client: Vec::new(),
            records: Vec::new(),
            offered: Vec::new(),
            accepted: Vec::new(),
            sent_down: 0,
            delivered: Vec::new(),
            acknowledged: Vec::new(),
            dealt_with: BTreeSet::new(),
            number: 0,
        }
    }

    fn step(&mut self) -> Result<(), OutboxError> {
        self.now = self.now.after(Duration::from_millis(1));
        match self.random.below(12) {
            0..=3 => self.publish(),
            4 if self.machine.phase() == Phase::Open => {
                self.sent_down += 1;
                let bytes = self.broker.send(self.sent_down);
                self.to_client.extend(bytes);
            }
            5 if self.random.below(3) == 0 => self.drop_connection(),
            6 | 7 => self.client_reads(),
            _ => {}
        }
        self.connect();
        self.turn()
    }

    fn connect(&mut self) {
        if self.machine.phase() == Phase::Offline {
            self.machine.connection_made(self.now);
        }
    }

    fn publish(&mut self) {
        self.number += 1;
        let at_least_once = self.random.below(2) == 0 || self.only_at_least_once;
        let qos = if at_least_once { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let message = Message::new("up", self.number.to_string()).qos(qos);
        self.machine.publish(self.now, &message, None).unwrap();
        self.offered.push((qos, self.number));
        self.published.insert(self.number, qos);
    }

    fn drop_connection(&mut self) {
        if self.machine.phase() != Phase::Offline {
            self.machine.connection_lost();
        }
        self.broker.input.clear();
        self.to_client.clear();
    }

    fn client_reads(&mut self) {
        let bytes = std::mem::take(&mut self.to_client);
        let split = self.random.below(bytes.len() as u64 + 1) as usize;
        self.machine.handle_input(self.now, &bytes[..split]);
        self.to_client = bytes[split..].to_vec();
    }

    /// What the task of a client does: output goes out after the records before it.
    fn turn(&mut self) -> Result<(), OutboxError> {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Message(message) => {
                    let number = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
                    let known = self.dealt_with.contains(&number);
                    assert!(!known || self.durability == OutboxDurability::Os, "{number} again");
                    self.delivered.push(number);
                    self.acknowledged.push(number);
                    self.machine.acknowledge(message.acknowledgement.unwrap());
                }
                Event::Ended(error) => panic!("{error}"),
                _ => {}
            }
        }
        let output = self.machine.take_output(self.now);
        self.machine.take_records(&mut self.records);
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            self.batches.push(records.clone());
            self.keeper.write(&records)?;
        }
        self.accepted.append(&mut self.offered);
        self.dealt_with.extend(self.acknowledged.drain(..));
        // Sometimes the connection is lost within it.
        let cut = self.random.below(30) == 0;
        let bytes = if cut { self.random.below(output.len() as u64 + 1) as usize } else { output.len() };
        let answer = self.broker.handle(&output[..bytes]);
        self.to_client.extend(answer);
        if cut {
            self.drop_connection();
        }
        Ok(())
    }

    /// The power fails, or only the program, and the program starts again.
    fn restart(&mut self, disk: SimDisk) {
        self.drop_connection();
        self.offered.clear();
        self.acknowledged.clear();
        self.records.clear();
        let (keeper, recovered) = open_with(&disk, self.durability).unwrap();
        assert_eq!(recovered.report.damages, Vec::<String>::new());
        (self.keeper, self.disk, self.machine) = (keeper, disk, machine(recovered));
    }

    /// Until all is over.
    fn finish(&mut self) {
        for _ in 0..1_000 {
            self.connect();
            self.turn().unwrap();
            let bytes = std::mem::take(&mut self.to_client);
            self.machine.handle_input(self.now, &bytes);
            let quiet = self.machine.unsettled() == 0 && self.machine.output_len() == 0 && self.broker.owed.is_empty();
            if quiet && self.to_client.is_empty() && self.machine.phase() == Phase::Open {
                break;
            }
        }
        assert_eq!((self.machine.unsettled(), self.machine.kept()), (0, 0));
        self.turn().unwrap();
        let (_, recovered) = open(&self.disk).unwrap();
        assert_eq!(recovered.kept, Vec::new());
        // An exchange that the broker has ended, and of which only the power cut lost the end, stays open.
        assert!(recovered.opened.is_empty() || self.durability == OutboxDurability::Os);
    }

    fn check(&self, exactly_once: bool) {
        let mut seen = BTreeSet::new();
        let mut last = 0;
        for (qos, number) in &self.broker.received {
            if seen.insert(*number) {
                assert!(last < *number, "{number} after {last}");
                last = *number;
            } else {
                assert!(*qos == QoS::AtLeastOnce || !exactly_once, "{number} twice at QoS 2");
            }
        }
        for (qos, number) in &self.accepted {
            assert!(seen.contains(number), "{number} of {qos:?} is lost");
        }
        let delivered: BTreeSet<u64> = self.delivered.iter().copied().collect();
        assert_eq!(delivered, (1..=self.sent_down).collect());
    }
}

const STEPS: usize = 250;

#[test]
fn nothing_is_lost_or_doubled_whichever_operation_the_power_fails_in() {
    for seed in 0..4 {
        let operations = {
            let mut world = World::new(seed);
            let before = world.disk.counts().operations;
            (0..STEPS).for_each(|_| world.step().unwrap());
            world.disk.counts().operations - before
        };
        assert!(operations > 100);
        for cut in 1..=operations {
            let mut world = World::new(seed);
            world.disk.cut_at(world.disk.counts().operations + cut);
            let failed = (0..STEPS).any(|_| world.step().is_err());
            assert!(failed, "the same steps need the same operations");
            let disk = world.disk.crash(seed * 10_000 + cut);
            world.restart(disk);
            for _ in 0..10 {
                world.step().unwrap();
            }
            world.finish();
            world.check(true);
        }
    }
}

#[test]
fn power_cuts_and_kills_one_after_the_other_lose_and_double_nothing() {
    for seed in 0..150 {
        let mut world = World::new(1_000 + seed);
        for _ in 0..8 {
            let cut = 1 + world.random.below(60);
            world.disk.cut_at(world.disk.counts().operations + cut);
            for _ in 0..200 {
                if world.step().is_err() {
                    break;
                }
            }
            let disk = match world.random.below(3) {
                // Only the program is killed.
                0 => world.disk.crash_prefix(usize::MAX),
                _ => world.disk.crash(world.random.next()),
            };
            world.restart(disk);
        }
        world.finish();
        world.check(true);
    }
}

#[test]
fn without_syncs_kills_one_after_the_other_lose_and_double_nothing() {
    for seed in 0..150 {
        let mut world = World::with(9_000 + seed, OutboxDurability::Os);
        for _ in 0..8 {
            // Within an operation too: a program can be killed between any two.
            let cut = 1 + world.random.below(60);
            world.disk.cut_at(world.disk.counts().operations + cut);
            for _ in 0..200 {
                if world.step().is_err() {
                    break;
                }
            }
            let disk = world.disk.crash_prefix(usize::MAX);
            world.restart(disk);
        }
        world.finish();
        world.check(true);
    }
}

/// What a list of records comes to.
fn effect<'r>(records: impl IntoIterator<Item = &'r Record>) -> (Vec<Kept>, BTreeSet<PacketId>) {
    let mut kept = BTreeMap::new();
    let mut opened = BTreeSet::new();
    for record in records {
        match record.clone() {
            Record::Taken { place, since, message } => drop(kept.insert(place, Progress::Taken { since, message })),
            Record::Sent { place, packet_id } => {
                if let Some(Progress::Taken { since, message } | Progress::Sent { since, message, .. }) =
                    kept.remove(&place)
                {
                    kept.insert(place, Progress::Sent { since, message, packet_id });
                }
            }
            Record::Unsent { place } => {
                if let Some(Progress::Sent { since, message, .. }) = kept.remove(&place) {
                    kept.insert(place, Progress::Taken { since, message });
                }
            }
            Record::Answered { place, packet_id } => drop(kept.insert(place, Progress::Answered { packet_id })),
            Record::Settled { place } => drop(kept.remove(&place)),
            Record::Opened { packet_id } => drop(opened.insert(packet_id)),
            Record::Closed { packet_id } => drop(opened.remove(&packet_id)),
        }
    }
    (kept.into_iter().map(|(place, progress)| Kept { place, progress }).collect(), opened)
}

/// Without syncs a power cut takes the last batches away, and never one from between two that stay.
#[test]
fn without_syncs_a_power_cut_leaves_all_records_up_to_some_batch() {
    let (mut whole, mut partial) = (0, 0);
    for seed in 0..400 {
        let mut random = Random(20_000 + seed);
        let mut world = World::with(20_000 + seed, OutboxDurability::Os);
        let steps = 1 + random.below(150);
        let cut = random.below(3) == 0;
        if cut {
            world.disk.cut_at(world.disk.counts().operations + 1 + random.below(120));
        }
        // The one that fails may be there, too.
        (0..steps).any(|_| world.step().is_err());
        let (_, recovered) = open_with(&world.disk.crash(seed), OutboxDurability::Os).unwrap();
        assert_eq!(recovered.report.damages, Vec::<String>::new());
        assert!(recovered.kept.is_sorted_by(|one, next| one.place < next.place));
        let found = (recovered.kept, recovered.opened.into_iter().collect());
        let batches = &world.batches;
        let up_to =
            (0..=batches.len()).rev().find(|batches_left| effect(batches[..*batches_left].iter().flatten()) == found);
        let up_to = up_to.unwrap_or_else(|| panic!("seed {seed}: {found:?} is the effect of no beginning"));
        if up_to == batches.len() { whole += 1 } else { partial += 1 }
    }
    assert!(whole > 20 && partial > 20, "{whole} whole, {partial} partial");
}

/// After a power cut without syncs messages may be missing, or come twice. What comes is what was published, and at QoS 1 in
/// order.
#[test]
fn without_syncs_power_cuts_lead_to_nothing_that_was_not_published_and_to_no_other_order() {
    let mut lost = 0;
    for seed in 0..300 {
        let mut world = World::with(30_000 + seed, OutboxDurability::Os);
        world.only_at_least_once = seed % 2 == 0;
        for _ in 0..5 {
            world.disk.cut_at(world.disk.counts().operations + 1 + world.random.below(60));
            for _ in 0..100 {
                if world.step().is_err() {
                    break;
                }
            }
            let disk = world.disk.crash(world.random.next());
            world.restart(disk);
        }
        world.finish();
        let mut seen = BTreeSet::new();
        let mut last = 0;
        for (qos, number) in &world.broker.received {
            assert_eq!(world.published.get(number), Some(qos), "nobody has published {number}");
            if seen.insert(*number) && world.only_at_least_once {
                assert!(last < *number, "seed {seed}: {number} after {last}");
                last = *number;
            }
        }
        lost += world.accepted.iter().filter(|(_, number)| !seen.contains(number)).count();
    }
    assert!(lost > 0, "a power cut that loses nothing shows nothing");
}

#[test]
fn a_lost_session_loses_nothing() {
    for seed in 0..200 {
        let mut world = World::new(5_000 + seed);
        for _ in 0..4 {
            for _ in 0..40 {
                world.step().unwrap();
            }
            // The broker forgets, and with it the messages that it owed us.
            world.drop_connection();
            let lost: Vec<u64> = world.broker.owed.values().map(|(number, _)| *number).collect();
            world.delivered.extend(lost);
            let (received, connections) = (std::mem::take(&mut world.broker.received), world.broker.connections);
            world.broker = Broker { received, connections, ..Broker::default() };
            if world.random.below(2) == 0 {
                let disk = world.disk.crash(seed);
                world.restart(disk);
            }
            // Up to CONNACK: were it lost, the next one would speak of a Session, and MQTT has no way to tell that it is new.
            world.connect();
            let connect = world.machine.take_output(world.now);
            let conn_ack = world.broker.handle(&connect);
            world.machine.handle_input(world.now, &conn_ack);
            if world.random.below(2) == 0 {
                // As far as the broker lets us, what was open has gone out again.
                world.turn().unwrap();
                let disk = world.disk.crash(seed);
                world.restart(disk);
            }
        }
        world.finish();
        world.check(false);
    }
}

#[test]
fn output_never_overtakes_a_record() {
    let mut machine = machine(nothing());
    let now = Instant(7);
    machine.connection_made(now);
    machine.handle_input(now, &[0x20, 0x03, 0x00, 0x00, 0x00]);
    machine.take_output(now);
    let mut records = Vec::new();
    let message = Message::new("up", "1").qos(QoS::ExactlyOnce);
    machine.publish(now, &message, None).unwrap();
    machine.take_records(&mut records);
    let packet_id = PacketId::FIRST;
    assert_eq!(records, [Record::Taken { place: 1, since: now, message }, Record::Sent { place: 1, packet_id }]);
    records.clear();
    machine.handle_input(now, &[0x50, 0x02, 0x00, 0x01]);
    machine.take_records(&mut records);
    assert_eq!(records, [Record::Answered { place: 1, packet_id }]);
    records.clear();
    machine.handle_input(now, &[0x70, 0x02, 0x00, 0x01]);
    machine.take_records(&mut records);
    assert_eq!(records, [Record::Settled { place: 1 }]);
    assert!(!records[0].holds_output());
    assert_eq!(machine.kept(), 0);
}

#[test]
fn exchanges_of_a_lost_session_are_recorded_as_begun_anew() {
    let mut machine = machine(nothing());
    let now = Instant(7);
    machine.connection_made(now);
    machine.handle_input(now, &[0x20, 0x03, 0x00, 0x00, 0x00]);
    machine.publish(now, &Message::new("up", "1").qos(QoS::ExactlyOnce), None).unwrap();
    machine.publish(now, &Message::new("up", "2").qos(QoS::AtLeastOnce), None).unwrap();
    machine.publish(now, &Message::new("up", "3").qos(QoS::ExactlyOnce), None).unwrap();
    machine.handle_input(now, &[0x50, 0x02, 0x00, 0x01]);
    machine.connection_lost();
    let mut records = Vec::new();
    machine.take_records(&mut records);
    records.clear();
    machine.connection_made(now);
    // Receive Maximum is 1.
    machine.handle_input(now, &[0x20, 0x06, 0x00, 0x00, 0x03, 0x21, 0x00, 0x01]);
    machine.take_records(&mut records);
    let packet_id = PacketId::new(4).unwrap();
    assert_eq!(
        records,
        [
            Record::Settled { place: 1 },
            Record::Unsent { place: 2 },
            Record::Unsent { place: 3 },
            Record::Sent { place: 2, packet_id },
        ]
    );
    assert_eq!(machine.kept(), 2);
}

#[test]
fn a_full_outbox_takes_nothing_more_until_something_is_settled() {
    let mut machine = Machine::new(SessionSettings { queue_messages_max: 2, ..settings() });
    machine.keep_journal();
    let now = Instant(7);
    machine.connection_made(now);
    machine.handle_input(now, &[0x20, 0x03, 0x00, 0x00, 0x00]);
    let message = Message::new("up", "1").qos(QoS::AtLeastOnce);
    machine.publish(now, &message, None).unwrap();
    machine.publish(now, &message, None).unwrap();
    assert_eq!(machine.publish(now, &message, None), Err(PublishError::QueueFull));
    machine.handle_input(now, &[0x40, 0x02, 0x00, 0x01]);
    assert!(machine.publish(now, &message, None).is_ok());
}

#[test]
fn the_time_between_two_programs_counts_for_the_expiry() {
    for (away, expired) in [(59_000, false), (61_000, true)] {
        let message = Message::new("up", "1").qos(QoS::AtLeastOnce).message_expiry_interval(Duration::from_secs(60));
        let since = Instant(1_000_000);
        let kept = vec![Kept { place: 4, progress: Progress::Taken { since, message } }];
        let mut machine = Machine::new(settings());
        machine.keep_journal();
        machine.restore(kept, []);
        assert_eq!(machine.kept(), 1);
        let now = since.after(Duration::from_millis(away));
        machine.connection_made(now);
        machine.take_output(now);
        machine.handle_input(now, &[0x20, 0x03, 0x01, 0x00, 0x00]);
        let output = machine.take_output(now);
        assert_eq!(output.is_empty(), expired);
        if expired {
            assert_eq!(machine.kept(), 0);
        } else {
            // The property is the last thing before the payload: one second is left.
            assert!(output.ends_with(&[0x02, 0, 0, 0, 1, b'1']), "{output:?}");
        }
    }
}

#[test]
fn whatever_a_message_has_comes_back() {
    let disk = SimDisk::new();
    let (mut keeper, _) = open(&disk).unwrap();
    let message = Message::new("up/ü", vec![0, 255, 7])
        .qos(QoS::ExactlyOnce)
        .retain()
        .content_type("text/plain")
        .user_property("k", "v");
    let plain = Message::new("up", "").qos(QoS::AtLeastOnce);
    let (one, two) = (PacketId::FIRST, PacketId::FIRST.following());
    let taken = |place, message: &Message| Record::Taken { place, since: Instant(9), message: message.clone() };
    keeper
        .write(&[
            taken(1, &message),
            taken(2, &plain),
            taken(3, &message),
            taken(4, &message),
            Record::Sent { place: 1, packet_id: one },
            Record::Sent { place: 2, packet_id: two },
            Record::Sent { place: 3, packet_id: two.following() },
            Record::Answered { place: 1, packet_id: one },
            Record::Unsent { place: 3 },
            Record::Opened { packet_id: two },
            Record::Opened { packet_id: one },
            Record::Closed { packet_id: one },
        ])
        .unwrap();
    let (_, recovered) = open(&disk.crash(0)).unwrap();
    let since = Instant(9);
    assert_eq!(
        recovered.kept,
        [
            Kept { place: 1, progress: Progress::Answered { packet_id: one } },
            Kept { place: 2, progress: Progress::Sent { since, message: plain, packet_id: two } },
            Kept { place: 3, progress: Progress::Taken { since, message: message.clone() } },
            Kept { place: 4, progress: Progress::Taken { since, message } },
        ]
    );
    assert_eq!(recovered.opened, [two]);
    assert_eq!(recovered.report.messages, 4);
}

#[test]
fn a_directory_belongs_to_one_client() {
    let disk = SimDisk::new();
    drop(open(&disk).unwrap());
    let other = Keeper::open_on(disk, SEGMENT_BYTES, OutboxDurability::Fsync, "here", "another");
    let expected = OutboxError::Foreign { directory: "here".to_owned(), client_id: "c".to_owned() };
    assert_eq!(other.err(), Some(expected));
}

#[test]
fn a_log_of_something_else_is_left_alone() {
    let disk = SimDisk::new();
    let options = pantala_store::log::LogOptions { segment_bytes: SEGMENT_BYTES, ..Default::default() };
    let (mut log, _) = pantala_store::log::Log::open(disk.clone(), options).unwrap();
    let mut batch = pantala_store::log::Batch::new();
    batch.put(1, b"key", &[b"value"]);
    log.commit(&mut batch, true).unwrap();
    drop(log);
    assert_eq!(open(&disk).err(), Some(OutboxError::NotAnOutbox("here".to_owned())));
}

#[test]
fn a_damaged_file_costs_what_was_in_it_and_is_told() {
    let disk = SimDisk::new();
    let (mut keeper, _) = open(&disk).unwrap();
    for place in 1..=100 {
        let message = Message::new("up", vec![b'x'; 200]).qos(QoS::AtLeastOnce);
        keeper.write(&[Record::Taken { place, since: Instant(9), message }]).unwrap();
    }
    drop(keeper);
    let name = "0000000000000002.log";
    let mut bytes = disk.read(name).unwrap();
    bytes[1_000..1_400].fill(0xee);
    disk.overwrite(name, bytes);
    let (mut keeper, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.report.damages.len(), 1, "{:?}", recovered.report);
    assert!((95..100).contains(&recovered.kept.len()), "{}", recovered.kept.len());
    keeper.write(&[Record::Settled { place: 100 }]).unwrap();
}

#[test]
fn after_a_failed_sync_or_on_a_full_disk_nothing_is_written() {
    let taken = |place| {
        let message = Message::new("up", vec![b'x'; 2_000]).qos(QoS::AtLeastOnce);
        [Record::Taken { place, since: Instant(9), message }]
    };
    let disk = SimDisk::new();
    let (mut keeper, _) = open(&disk).unwrap();
    disk.fail_at(Operation::Sync, disk.counts().syncs + 1, std::io::ErrorKind::Other);
    assert!(matches!(keeper.write(&taken(1)), Err(OutboxError::Failed(_))));
    assert!(matches!(keeper.write(&taken(2)), Err(OutboxError::Failed(_))));

    let disk = SimDisk::new();
    let (mut keeper, _) = open(&disk).unwrap();
    disk.full(Some(disk.bytes() + u64::from(SEGMENT_BYTES)));
    let mut place = 0;
    let error = loop {
        place += 1;
        if let Err(error) = keeper.write(&taken(place)) {
            break error;
        }
    };
    assert_eq!(error, OutboxError::Full);
    drop(keeper);
    disk.full(None);
    let (_, recovered) = open(&disk).unwrap();
    assert_eq!(recovered.kept.len() as u64, place - 1);
}
