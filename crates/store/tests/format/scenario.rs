//! A broker's life in small, which leaves a store with every kind of entry in it.

use std::num::{NonZeroU32, NonZeroU64};

use pantala_store::disk::Disk;
use pantala_store::log::LogOptions;
use pantala_store::{
    Clock, Durability, DurableStore, Message, MessageId, Opened, Owner, Pause, Publish, Publisher, Receiver, Record,
    Session, SessionNumber, Store, Will, open,
};

/// Small, so that a few entries fill two.
pub const OPTIONS: LogOptions = LogOptions { segment_bytes: 4096, segments_min: 4 };

const MILLENNIUM: u64 = 946_684_800_000;

struct Broker<D: Disk> {
    opened: Opened<D>,
    clock: Clock,
}

impl<D: Disk> Broker<D> {
    fn new(disk: D) -> Self {
        let opened = open(disk, OPTIONS, 2, Durability::Fsync).unwrap();
        Self { opened, clock: Clock { broker: 1, wall: MILLENNIUM } }
    }

    fn worker(&mut self, worker: usize) -> &mut DurableStore {
        &mut self.opened.stores[worker]
    }

    fn session(&mut self, client_id: &str, expiry_interval: u32, detached_at: Option<u64>) -> SessionNumber {
        let number = self.worker(0).next_session().unwrap();
        let session = Session { number, client_id, expiry_interval, detached_at };
        self.worker(0).append(&Record::Session(session));
        number
    }

    fn publish(&mut self, message: Message<'_>, receivers: &[Receiver]) -> MessageId {
        let id = self.worker(0).next_message().unwrap();
        let publish = Publish {
            id,
            message,
            receivers,
            others: 0,
            opens: None,
            will_of: None,
            retained: message.retain,
            publisher: None,
        };
        self.worker(0).append(&Record::Publish(publish));
        id
    }

    fn retain(
        &mut self,
        topic_name: &'static str,
        payload: &'static [u8],
        publisher: Option<Publisher<'_>>,
    ) -> MessageId {
        let id = self.worker(0).next_message().unwrap();
        let message = Message { retain: true, ..plain(topic_name, payload) };
        let (receivers, others) = (&[][..], 0);
        let publish = Publish { id, message, receivers, others, opens: None, will_of: None, retained: true, publisher };
        self.worker(0).append(&Record::Publish(publish));
        id
    }

    /// All that was appended goes down, in one frame for each call.
    fn commit(&mut self) {
        self.clock.broker += 1_000;
        self.clock.wall += 1_000;
        self.opened.stores.iter_mut().for_each(Store::submit);
        let mut notice = |notice| panic!("{notice:?}");
        while self.opened.committer.step(self.clock, &mut notice) != Pause::Idle {}
    }
}

fn plain(topic_name: &'static str, payload: &'static [u8]) -> Message<'static> {
    Message {
        topic_name,
        properties: [&[], &[]],
        message_expiry_at: None,
        payload,
        qos: 1,
        retain: false,
        expires_at: None,
    }
}

fn receiver(session: SessionNumber, qos: u8, order: u64) -> Receiver {
    Receiver { session, qos, retain: false, order, identifiers: Vec::new(), group: None }
}

/// A small one with what later programs of the first version write besides: owners, and publishers of Retained Messages.
pub fn live_among_users<D: Disk>(disk: D) {
    let mut broker = Broker::new(disk);
    let anna = broker.session("anna", 3_600, None);
    let owner = Some(Owner { security_domain: "plant", user_name: "anna ☕" });
    broker.worker(0).append(&Record::Owner { session: anna, owner });
    broker.commit();

    let nobody = Publisher {
        security_domain: "",
        user_name: None,
        client_id: "",
        address: None,
        certificate: false,
        granted: false,
    };
    let anna = Publisher {
        security_domain: "plant",
        user_name: Some("anna ☕"),
        client_id: "anna",
        address: Some([10, 0, 0, 1].into()),
        certificate: true,
        granted: true,
    };
    let ben = Publisher { client_id: "ben", address: Some(std::net::Ipv6Addr::LOCALHOST.into()), ..nobody };
    broker.retain("of/anna", b"1", Some(anna));
    broker.retain("of/ben", b"2", Some(ben));
    broker.retain("of/nobody", b"3", Some(nobody));
    broker.retain("of/the broker", b"4", None);
    broker.commit();

    // Replaced by somebody else, by a message without a publisher, ended twice: each with what stood beside it.
    for topic_name in ["to/ben", "to/nobody", "ended", "expired"] {
        broker.retain(topic_name, b"of anna", Some(anna));
    }
    broker.commit();
    broker.retain("to/ben", b"of ben", Some(ben));
    broker.retain("to/nobody", b"of whom?", None);
    broker.retain("ended", b"", Some(anna));
    let expired = broker.retain("expired", b"again", Some(anna));
    broker.worker(0).append(&Record::RetainedEnded { topic_name: "expired", message: expired });
    broker.commit();
}

/// Lives it.
pub fn live<D: Disk>(disk: D) {
    let mut broker = Broker::new(disk);
    let identifier = NonZeroU32::new(268_435_455);
    let group = "$share/kitchen/tea/+";

    // Sessions that come and go, with what belongs to them.
    let anna = broker.session("anna", 3_600, None);
    let ben = broker.session("ben ☕", u32::MAX, Some(900));
    let gone = broker.session("gone", 0, None);
    let cup = broker.session("cup", 60, Some(0));
    for (session, filter, options, identifier) in [
        (anna, "tea/#", 1, None),
        (anna, "coffee", 0b0010_1110, identifier),
        (ben, group, 2, NonZeroU32::new(7)),
        (cup, group, 1, None),
        (gone, "tea/#", 0, None),
    ] {
        broker.worker(0).append(&Record::Subscription { session, filter, options, identifier });
    }
    let mut last_words = plain("tea/spilt", b"\xff\x00 not a text");
    last_words.qos = 2;
    last_words.retain = true;
    last_words.properties = [&[2, 0, 0, 1, 44], &[1, 0]];
    last_words.message_expiry_at = Some(0);
    let will = Will { message: last_words, message_expiry_interval: Some(300), delay_interval: 30 };
    broker.worker(0).append(&Record::Will { session: anna, will });
    let short = Will { message: plain("b", b""), message_expiry_interval: None, delay_interval: 0 };
    broker.worker(0).append(&Record::Will { session: ben, will: short });
    broker.worker(0).append(&Record::WillEnded { session: ben });
    broker.worker(0).append(&Record::SubscriptionEnded { session: gone, filter: "tea/#" });
    broker.worker(0).append(&Record::SessionEnded { session: gone });
    broker.commit();

    // Retained Messages: one stays, one is replaced, one is ended.
    for payload in [&b"weak"[..], b"strong"] {
        let mut retained = plain("tea/strength", payload);
        retained.retain = true;
        broker.publish(retained, &[]);
    }
    let mut lasting = plain("coffee/☕", b"hot");
    lasting.qos = 0;
    lasting.retain = true;
    lasting.expires_at = Some(86_400_000);
    lasting.properties = [&[2, 0, 1, 0x51, 0x80], &[]];
    lasting.message_expiry_at = Some(0);
    broker.publish(lasting, &[]);
    for payload in [&b"none"[..], b""] {
        let mut ended = plain("water", payload);
        ended.retain = true;
        broker.publish(ended, &[]);
    }
    broker.commit();

    // Queues, with everything a receiver can have; the last is known by the other worker.
    let kettle = broker.publish(plain("tea/kettle", b"boils"), &[receiver(anna, 1, 1), receiver(ben, 2, 2)]);
    let mut told = receiver(ben, 1, 1);
    told.identifiers = vec![NonZeroU32::new(1).unwrap(), identifier.unwrap()];
    told.retain = true;
    let shared = |session, order| Receiver { group: Some(group.into()), ..receiver(session, 1, order) };
    let pot = broker.publish(plain("tea/pot", &[b'x'; 1_500]), &[told, shared(cup, 1)]);
    let lid = broker.worker(0).next_message().unwrap();
    let mut message = plain("tea/lid", b"closed");
    message.qos = 2;
    let publish = Publish {
        id: lid,
        message,
        receivers: &[receiver(anna, 2, 2)],
        others: 1,
        opens: Some((ben, 65_535)),
        will_of: None,
        retained: false,
        publisher: None,
    };
    broker.worker(0).append(&Record::Publish(publish));
    broker.worker(1).add_receivers(lid, vec![receiver(cup, 2, 0)]);
    let unheard = broker.publish(plain("tea/unheard", b"for nobody soon"), &[receiver(anna, 1, 3)]);
    broker.publish(plain("tea/saucer", &[b'y'; 1_500]), &[shared(cup, 2)]);
    broker.commit();

    // Exchanges: one waits for PUBACK, one for PUBCOMP, one is over. A message goes from one member to another.
    let worker = broker.worker(0);
    worker.append(&Record::Sent { session: anna, message: kettle, copy: 0, packet_id: 1, order: 1 });
    worker.append(&Record::Sent { session: anna, message: lid, copy: 0, packet_id: 2, order: 2 });
    worker.append(&Record::Released { session: anna, message: Some(lid), copy: 0, packet_id: 2, order: 3 });
    worker.append(&Record::Sent { session: anna, message: unheard, copy: 0, packet_id: 300, order: 4 });
    worker.append(&Record::Settled { session: anna, message: Some(unheard), copy: 0, packet_id: Some(300) });
    worker.append(&Record::Settled { session: ben, message: Some(kettle), copy: 0, packet_id: None });
    worker.append(&Record::Moved { message: pot, from: cup, copy: shared(ben, 3).copy(), to: &[shared(ben, 3)] });
    broker.commit();

    // A member ends with a message that nobody else has been given yet, and leaves what refers to nobody.
    let number = NonZeroU64::new(99).unwrap();
    let stray =
        broker.publish(plain("tea/stray", b"of a Session that never was"), &[receiver(SessionNumber(number), 1, 1)]);
    let worker = broker.worker(0);
    worker.append(&Record::Sent { session: cup, message: stray, copy: 0, packet_id: 9, order: 1 });
    worker.append(&Record::SessionEnded { session: cup });
    broker.commit();
}
