//! What a batch writes, and what it does not.

use std::num::NonZeroU64;

use super::{Ledger, Writes};
use crate::format::{self, Kind};
use crate::record::{Message, MessageId, Publish, Receiver, Record, SessionNumber};
use crate::submission::{self, Submission};

const PAYLOAD: &[u8] = &[0xa5; 4_096];

/// Keeps all that is written, in order.
#[derive(Default)]
struct Recording {
    put: Vec<(Kind, Vec<u8>, Vec<u8>)>,
    deleted: Vec<(Kind, Vec<u8>)>,
}

impl Writes for Recording {
    fn put(&mut self, kind: Kind, key: &[u8], value: &[&[u8]]) {
        self.put.push((kind, key.to_vec(), value.concat()));
    }

    fn delete(&mut self, kind: Kind, key: &[u8]) {
        self.deleted.push((kind, key.to_vec()));
    }

    fn retained(&self, _topic_name: &str) -> std::io::Result<Option<MessageId>> {
        Ok(None)
    }
}

impl Recording {
    fn kinds(&self) -> Vec<Kind> {
        self.put.iter().map(|(kind, ..)| *kind).collect()
    }
}

/// The ledger of two workers, with what they hand over in one turn.
struct Book {
    ledger: Ledger,
    submissions: [Submission; 2],
}

impl Book {
    fn new() -> Self {
        Self { ledger: Ledger::new(2), submissions: Default::default() }
    }

    fn record(&mut self, worker: usize, record: &Record<'_>) -> &mut Self {
        submission::put(&mut self.submissions[worker].records, record);
        self
    }

    /// A message of worker 0, owed to these Sessions of its own, with `others` workers that name more.
    fn publish(&mut self, id: MessageId, receivers: &[Receiver], others: u32) -> &mut Self {
        let message = Message {
            topic_name: "t",
            properties: [&[], &[]],
            message_expiry_at: None,
            payload: PAYLOAD,
            qos: 1,
            retain: false,
            expires_at: None,
        };
        let (opens, will_of, retained, publisher) = (None, None, false, None);
        let publish = Publish { id, message, receivers, others, opens, will_of, retained, publisher };
        self.submissions[0].given_out = Some(id);
        self.record(0, &Record::Publish(publish))
    }

    fn settle(&mut self, worker: usize, session: u64, id: MessageId) -> &mut Self {
        let (session, message) = (number(session), Some(id));
        self.record(worker, &Record::Settled { session, message, copy: 0, packet_id: None })
    }

    fn batch(&mut self) -> Recording {
        let mut recording = Recording::default();
        for (worker, submission) in self.submissions.iter_mut().enumerate() {
            self.ledger.push(worker, submission);
        }
        assert!(!self.ledger.apply(&mut recording), "it is little enough for one batch");
        assert_eq!(self.ledger.waiting_bytes(), 0, "nothing waits");
        recording
    }
}

fn number(session: u64) -> SessionNumber {
    SessionNumber(NonZeroU64::new(session).unwrap())
}

fn id(count: u64) -> MessageId {
    MessageId::new(count, 0).unwrap()
}

fn receiver(session: u64) -> Receiver {
    Receiver { session: number(session), qos: 1, retain: false, order: 1, identifiers: Vec::new(), group: None }
}

#[test]
fn what_is_acknowledged_before_its_batch_is_not_written() {
    let mut book = Book::new();
    let (receivers, id) = ([receiver(1), receiver(2)], id(1));
    let sent = |session| Record::Sent { session: number(session), message: id, copy: 0, packet_id: 9, order: 1 };
    let answered =
        |session| Record::Settled { session: number(session), message: Some(id), copy: 0, packet_id: Some(9) };
    book.publish(id, &receivers, 0).record(0, &sent(1)).record(0, &sent(2)).record(0, &answered(1));
    book.record(0, &answered(2));
    let written = book.batch();
    assert_eq!(written.kinds(), []);
    // That their Packet Identifiers are free is said of keys that are not there, which costs a few bytes and no payload.
    assert!(written.deleted.iter().all(|(kind, _)| *kind == Kind::Outbound), "{:?}", written.deleted);
    // Nor does anything of it come later.
    let nothing = book.batch();
    assert!(nothing.put.is_empty() && nothing.deleted.is_empty());
}

#[test]
fn what_one_session_has_not_acknowledged_is_written_for_that_one() {
    let mut book = Book::new();
    let written = book.publish(id(1), &[receiver(1), receiver(2), receiver(3)], 0).settle(0, 1, id(1)).batch();
    assert_eq!(written.kinds(), [Kind::Message]);
    let mut reader = crate::codec::Reader(&written.put[0].2);
    let mut owed = Vec::new();
    format::read_receivers(&mut reader, |receiver| owed.push(receiver.session)).unwrap();
    assert_eq!(owed, [number(2), number(3)]);
    assert_eq!(format::read_message(reader).unwrap().payload, PAYLOAD);
    // Acknowledged later, it is deleted once the last one has it, and never written again.
    let first = book.settle(0, 2, id(1)).batch();
    assert_eq!((first.kinds(), first.deleted.len()), (vec![Kind::Settled], 0));
    let last = book.settle(0, 3, id(1)).batch();
    assert_eq!(last.kinds(), []);
    assert!(last.deleted.contains(&(Kind::Message, format::message_key(id(1)).to_vec())), "{:?}", last.deleted);
}

#[test]
fn a_message_is_written_once_for_a_thousand_sessions() {
    const SESSIONS: u64 = 1_000;
    // Half of them belong to the other worker, which names them apart from its own records.
    let (here, there): (Vec<u64>, Vec<u64>) = (1..=SESSIONS).partition(|session| session % 2 == 0);
    let mut book = Book::new();
    let receivers: Vec<Receiver> = here.into_iter().map(receiver).collect();
    book.publish(id(1), &receivers, 1);
    book.submissions[1].receivers.push((id(1), there.into_iter().map(receiver).collect()));
    let written = book.batch();
    assert_eq!(written.kinds(), [Kind::Message]);
    let value = &written.put[0].2;
    let mut count = 0;
    format::read_receivers(&mut crate::codec::Reader(value), |_| count += 1).unwrap();
    assert_eq!(count, SESSIONS);
    // The payload once, and for each Session no more than its number and its place take.
    let most = PAYLOAD.len() + 8 * SESSIONS as usize;
    assert!(value.len() <= most, "{} bytes, more than {most}", value.len());
}
