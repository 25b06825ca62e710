//! What a log holds, put together as the broker needs it.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Range;

use crate::Clock;
use crate::codec::Reader;
use crate::entry::Entry;
use crate::format::{self, Kind};
use crate::ledger::Ledger;
use crate::order::sort_by_number;
use crate::record::{Kept, Message, MessageId, Owed, Publisher, Receiver, SessionNumber, Stage};

// The numbers are ours: nobody can choose them to collide.
type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
type HashSet<K> = std::collections::HashSet<K, foldhash::fast::RandomState>;

/// Flags and numbers of a message take no more.
const HEAD_BYTES_MAX: usize = 32;

/// A message with bytes of its own.
#[derive(Clone)]
pub struct StoredMessage {
    /// Its name.
    pub id: Option<MessageId>,
    bytes: Box<[u8]>,
    /// Where in them it begins.
    begin: u32,
}

impl std::fmt::Debug for StoredMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredMessage")
            .field("id", &self.id)
            .field("bytes", &&self.bytes[self.begin as usize..])
            .finish()
    }
}

impl PartialEq for StoredMessage {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.message() == other.message()
    }
}

impl Eq for StoredMessage {}

impl StoredMessage {
    /// From the entry of a [`Kind::Message`] whose value begins there.
    pub(crate) fn from_entry(id: MessageId, entry: Vec<u8>, value: usize) -> Option<Self> {
        let mut reader = Reader(entry.get(value..)?);
        format::read_receivers(&mut reader, drop)?;
        format::read_message(reader)?;
        let begin = u32::try_from(entry.len() - reader.0.len()).ok()?;
        Some(Self { id: Some(id), bytes: entry.into(), begin })
    }

    /// A copy of a message.
    fn of(id: Option<MessageId>, message: &Message<'_>) -> Self {
        let [head, tail] = message.properties;
        let most = message.topic_name.len() + head.len() + tail.len() + message.payload.len() + HEAD_BYTES_MAX;
        let mut bytes = Vec::with_capacity(most);
        format::put_message_head(&mut bytes, message);
        bytes.extend_from_slice(message.payload);
        Self { id, bytes: bytes.into(), begin: 0 }
    }

    /// The message itself.
    pub fn message(&self) -> Message<'_> {
        format::read_message(Reader(&self.bytes[self.begin as usize..]))
            .expect("the bytes were checked when they were read")
    }
}

/// How whoever opens a store has its Retained Messages: there may be millions, so each is made once, of the bytes that were
/// read. As a string it is its Topic Name.
pub trait KeepRetained: AsRef<str> {
    /// Keeps a copy.
    fn keep(id: MessageId, message: &Message<'_>) -> Self;
}

impl AsRef<str> for StoredMessage {
    fn as_ref(&self) -> &str {
        self.message().topic_name
    }
}

impl KeepRetained for StoredMessage {
    fn keep(id: MessageId, message: &Message<'_>) -> Self {
        Self::of(Some(id), message)
    }
}

/// A Will that outlived the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredWill {
    /// The message.
    pub message: StoredMessage,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_interval: u32,
}

/// A message that waits for a Session, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredMessage {
    /// Its name; [`Store::load`](crate::Store::load) has the bytes.
    pub id: MessageId,
    /// Bytes of its Topic Name, properties and payload.
    pub bytes: u32,
    /// When it expires.
    pub expires_at: Option<u64>,
    /// How it is to be delivered.
    pub receiver: Receiver,
}

/// An exchange that was open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredExchange {
    /// Packet Identifier.
    pub packet_id: u16,
    /// Its place among the Session's exchanges.
    pub order: u64,
    /// The message that awaits PUBACK or PUBREC; None: PUBCOMP is awaited.
    pub message: Option<RecoveredMessage>,
}

/// The user that a Session belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredOwner {
    /// Name of the user's security domain.
    pub security_domain: Box<str>,
    /// User name.
    pub user_name: Box<str>,
}

/// A Session that outlived the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredSession {
    /// Its number.
    pub number: SessionNumber,
    /// Client Identifier.
    pub client_id: Box<str>,
    /// Seconds it outlives its connection.
    pub expiry_interval: u32,
    /// When its connection ended; None if that was with the process.
    pub detached_at: Option<u64>,
    /// The user that it belongs to.
    pub owner: Option<RecoveredOwner>,
    /// Its Will.
    pub will: Option<RecoveredWill>,
    /// Topic Filter, Subscription Options, Subscription Identifier.
    pub subscriptions: Vec<(Box<str>, u8, Option<NonZeroU32>)>,
    /// QoS 2 Packet Identifiers of the client that are open.
    pub inbound: Vec<u16>,
    /// Exchanges with the client, in their order.
    pub outbound: Vec<RecoveredExchange>,
    /// Messages that have not been sent yet, in the order in which they came, which `Receiver::order` tells.
    pub queue: Vec<RecoveredMessage>,
}

/// Who published a Retained Message: see [`Publisher`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredPublisher {
    /// Name of the security domain.
    pub security_domain: Box<str>,
    /// User name.
    pub user_name: Option<Box<str>>,
    /// Client Identifier.
    pub client_id: Box<str>,
    /// Where the client was.
    pub address: Option<IpAddr>,
    /// It proved itself by a certificate.
    pub certificate: bool,
    /// It had rights that came with its credentials.
    pub granted: bool,
}

impl From<Publisher<'_>> for RecoveredPublisher {
    fn from(publisher: Publisher<'_>) -> Self {
        let Publisher { security_domain, user_name, client_id, address, certificate, granted } = publisher;
        Self {
            security_domain: security_domain.into(),
            user_name: user_name.map(Box::from),
            client_id: client_id.into(),
            address,
            certificate,
            granted,
        }
    }
}

/// A Retained Message that outlived the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredRetained<R = StoredMessage> {
    /// The message; its name is that of the publication.
    pub message: R,
    /// Who published it, if that was written down.
    pub publisher: Option<Box<RecoveredPublisher>>,
}

/// A message of a Shared Subscription whose Session has ended, and that no other has been given yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its name.
    pub id: MessageId,
    /// The Session that was to have it.
    pub receiver: Receiver,
}

/// All that a log holds.
#[derive(Debug)]
pub struct Recovered<R = StoredMessage> {
    /// In the order of their numbers.
    pub sessions: Vec<RecoveredSession>,
    /// Retained Messages.
    pub retained: Vec<RecoveredRetained<R>>,
    /// Messages that need a new Session.
    pub orphans: Vec<Orphan>,
    /// The last time that was written down.
    pub clock: Option<Clock>,
    /// When the process was known to live, in milliseconds since 1970, where that was noted beside the log: see [`Clock::lived`].
    pub last_alive: Option<u64>,
    /// Entries that make no sense: written by a later version, or damaged in a way that a checksum does not see.
    pub unreadable: u64,
    /// Entries that nothing refers to: to be deleted.
    pub(crate) garbage: Vec<(Kind, Box<[u8]>)>,
    pub(crate) session_count: u64,
    pub(crate) message_count: u64,
}

struct Queued {
    bytes: u32,
    expires_at: Option<u64>,
    /// Where its receivers are in [`Collector::named`]. There are millions of messages with one receiver each, so these have
    /// no list of their own.
    named: Range<usize>,
}

/// Collects entries in whatever order they come.
pub(crate) struct Collector<R> {
    sessions: HashMap<SessionNumber, RecoveredSession>,
    wills: Vec<(SessionNumber, RecoveredWill)>,
    owners: Vec<(SessionNumber, RecoveredOwner)>,
    subscriptions: Vec<(SessionNumber, Box<str>, u8, Option<NonZeroU32>)>,
    inbound: Vec<(SessionNumber, u16)>,
    outbound: Vec<(SessionNumber, u16, u64, Stage, Option<Kept>)>,
    messages: Vec<(MessageId, Queued)>,
    /// Receivers that were named with their message; None when they have been handed on.
    named: Vec<Option<Receiver>>,
    /// Those that came later.
    receivers: HashMap<MessageId, Vec<Receiver>>,
    settled: HashSet<(MessageId, Owed)>,
    beside: HashMap<MessageId, Vec<(Kind, Owed)>>,
    /// With the Topic Name.
    publishers: HashMap<MessageId, (Box<str>, Box<RecoveredPublisher>)>,
    retained: Vec<(MessageId, R)>,
    recovered: Recovered<R>,
}

impl<R: KeepRetained> Collector<R> {
    pub(crate) fn new() -> Self {
        Self {
            sessions: HashMap::default(),
            wills: Vec::new(),
            owners: Vec::new(),
            subscriptions: Vec::new(),
            inbound: Vec::new(),
            outbound: Vec::new(),
            messages: Vec::new(),
            named: Vec::new(),
            receivers: HashMap::default(),
            settled: HashSet::default(),
            beside: HashMap::default(),
            publishers: HashMap::default(),
            retained: Vec::new(),
            recovered: Recovered {
                sessions: Vec::new(),
                retained: Vec::new(),
                orphans: Vec::new(),
                clock: None,
                last_alive: None,
                unreadable: 0,
                garbage: Vec::new(),
                session_count: 0,
                message_count: 0,
            },
        }
    }

    pub(crate) fn entry(&mut self, kind: u8, key: &[u8], value: &[u8]) {
        if kind == Kind::Message as u8 {
            let known = self.named.len();
            if self.message(key, value).is_none() {
                self.named.truncate(known);
                self.recovered.unreadable += 1;
            }
            return;
        }
        match Entry::read(kind, key, value) {
            Some(entry) => self.collect(entry),
            None => self.recovered.unreadable += 1,
        }
    }

    /// The same as [`Entry::read`] does, without a list of its own for the receivers of each.
    fn message(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let id = format::read_message_key(key)?;
        let mut reader = Reader(value);
        let begin = self.named.len();
        let named = &mut self.named;
        format::read_receivers(&mut reader, |receiver| named.push(Some(receiver)))?;
        let message = format::read_message(reader)?;
        let [properties, _] = message.properties;
        let bytes = (message.topic_name.len() + properties.len() + message.payload.len()) as u32;
        self.recovered.message_count = self.recovered.message_count.max(id.count());
        let queued = Queued { bytes, expires_at: message.expires_at, named: begin..self.named.len() };
        self.messages.push((id, queued));
        Some(())
    }

    fn collect(&mut self, entry: Entry<'_>) {
        match entry {
            Entry::Clock(clock) => self.recovered.clock = Some(clock),
            Entry::Session(session) => {
                let number = session.number;
                self.recovered.session_count = self.recovered.session_count.max(number.number());
                let session = RecoveredSession {
                    number,
                    client_id: session.client_id.into(),
                    expiry_interval: session.expiry_interval,
                    detached_at: session.detached_at,
                    owner: None,
                    will: None,
                    subscriptions: Vec::new(),
                    inbound: Vec::new(),
                    outbound: Vec::new(),
                    queue: Vec::new(),
                };
                self.sessions.insert(number, session);
            }
            Entry::Will { session, will } => {
                let will = RecoveredWill {
                    message: StoredMessage::of(None, &will.message),
                    message_expiry_interval: will.message_expiry_interval,
                    delay_interval: will.delay_interval,
                };
                self.wills.push((session, will));
            }
            Entry::Owner { session, owner } => {
                let (security_domain, user_name) = (owner.security_domain.into(), owner.user_name.into());
                self.owners.push((session, RecoveredOwner { security_domain, user_name }));
            }
            Entry::Subscription { session, filter, options, identifier } => {
                self.subscriptions.push((session, filter.into(), options, identifier));
            }
            Entry::Inbound { session, packet_id } => self.inbound.push((session, packet_id)),
            Entry::Outbound { session, packet_id, order, stage, message } => {
                self.outbound.push((session, packet_id, order, stage, message));
            }
            // It has a way of its own.
            Entry::Message { .. } => {}
            Entry::Receiver { message, receiver } => {
                self.beside.entry(message).or_default().push((Kind::Receiver, (receiver.session, receiver.copy())));
                self.receivers.entry(message).or_default().push(receiver);
            }
            Entry::Settled { message, session, copy } => {
                self.settled.insert((message, (session, copy)));
                self.beside.entry(message).or_default().push((Kind::Settled, (session, copy)));
            }
            Entry::Retained { id, message } => {
                self.recovered.message_count = self.recovered.message_count.max(id.count());
                self.retained.push((id, R::keep(id, &message)));
            }
            Entry::Publisher { topic_name, id, publisher } => {
                self.recovered.message_count = self.recovered.message_count.max(id.count());
                let publisher = Box::new(publisher.into());
                if let Some((topic_name, _)) = self.publishers.insert(id, (topic_name.into(), publisher)) {
                    self.recovered.garbage.push((Kind::Publisher, topic_name.into_boxed_bytes()));
                }
            }
        }
    }

    /// Puts everything in its place, and tells the ledger what the log has.
    pub(crate) fn finish(mut self, ledger: &mut Ledger) -> Recovered<R> {
        let mut recovered = self.recovered;
        let sessions = &mut self.sessions;
        let garbage = &mut recovered.garbage;
        for (session, will) in self.wills {
            match sessions.get_mut(&session) {
                Some(session) => session.will = Some(will),
                None => garbage.push((Kind::Will, format::session_key(session).into())),
            }
        }
        for (session, owner) in self.owners {
            match sessions.get_mut(&session) {
                Some(session) => session.owner = Some(owner),
                None => garbage.push((Kind::Owner, format::session_key(session).into())),
            }
        }
        for (session, filter, options, identifier) in self.subscriptions {
            match sessions.get_mut(&session) {
                Some(session) => session.subscriptions.push((filter, options, identifier)),
                None => {
                    let key = [&format::session_key(session), filter.as_bytes()].concat();
                    garbage.push((Kind::Subscription, key.into()));
                }
            }
        }
        for (session, packet_id) in self.inbound {
            match sessions.get_mut(&session) {
                Some(session) => session.inbound.push(packet_id),
                None => garbage.push((Kind::Inbound, format::exchange_key(session, packet_id).into())),
            }
        }
        let mut sent: HashMap<(Kept, SessionNumber), (u64, u16)> = HashMap::default();
        for (session, packet_id, order, stage, message) in self.outbound {
            match (sessions.get_mut(&session), stage, message) {
                (Some(session), Stage::PubComp, _) => {
                    session.outbound.push(RecoveredExchange { packet_id, order, message: None });
                }
                (Some(_), Stage::Acknowledgement, Some(message)) => {
                    let exchange = (order, packet_id);
                    let kept = sent.entry((message, session)).or_insert(exchange);
                    if *kept != exchange {
                        // Only a log that has lost a part has two: the later one is right, and nothing would end the other.
                        let older = exchange.min(*kept);
                        *kept = exchange.max(*kept);
                        garbage.push((Kind::Outbound, format::exchange_key(session, older.1).into()));
                    }
                }
                _ => garbage.push((Kind::Outbound, format::exchange_key(session, packet_id).into())),
            }
        }
        let mut places: Vec<(MessageId, u32)> = self.messages.iter().map(|(id, _)| *id).zip(0..).collect();
        sort_by_number(&mut places, |(id, _)| id.number());
        ledger.expect(self.messages.len());
        for (id, place) in places {
            let (_, message) = &self.messages[place as usize];
            let mut owed = 0;
            // Receivers without their message are among what is left over below.
            let later = if self.receivers.is_empty() { None } else { self.receivers.remove(&id) };
            let named = self.named[message.named.clone()].iter_mut().filter_map(Option::take);
            for receiver in named.chain(later.into_iter().flatten()) {
                let copy = receiver.copy();
                if self.settled.contains(&(id, (receiver.session, copy))) {
                    continue;
                }
                let number = receiver.session;
                let Some(session) = sessions.get_mut(&number) else {
                    // Its Session has ended before it was handed on; without a group it has gone with it.
                    if receiver.group.is_some() {
                        owed += 1;
                        recovered.orphans.push(Orphan { id, receiver });
                    }
                    continue;
                };
                owed += 1;
                let queued = RecoveredMessage { id, bytes: message.bytes, expires_at: message.expires_at, receiver };
                let exchange = if sent.is_empty() { None } else { sent.remove(&((id, copy), number)) };
                match exchange {
                    Some((order, packet_id)) => {
                        session.outbound.push(RecoveredExchange { packet_id, order, message: Some(queued) });
                    }
                    None => session.queue.push(queued),
                }
            }
            let beside = if self.beside.is_empty() { None } else { self.beside.remove(&id) };
            let beside = beside.unwrap_or_default();
            if owed > 0 {
                ledger.recovered(id, owed, beside);
            } else {
                garbage.push((Kind::Message, format::message_key(id).into()));
                garbage.extend(
                    beside.into_iter().map(|(kind, session)| (kind, Box::from(&*format::receiver_key(id, session)))),
                );
            }
        }
        // Exchanges whose message never got into the log: it was not acknowledged, and comes again.
        let lost = sent.into_iter().map(|((_, session), (_, packet_id))| format::exchange_key(session, packet_id));
        garbage.extend(lost.map(|key| (Kind::Outbound, key.into())));
        if !self.publishers.is_empty() {
            ledger.knows_publishers();
        }
        let publishers = &mut self.publishers;
        let retained = self.retained.into_iter().map(|(id, message)| {
            let publisher = match publishers.remove(&id) {
                Some((topic_name, publisher)) if *topic_name == *message.as_ref() => Some(publisher),
                Some((topic_name, _)) => {
                    garbage.push((Kind::Publisher, topic_name.into_boxed_bytes()));
                    None
                }
                None => None,
            };
            RecoveredRetained { message, publisher }
        });
        recovered.retained = retained.collect();
        let left = self.publishers.into_values();
        garbage.extend(left.map(|(topic_name, _)| (Kind::Publisher, topic_name.into_boxed_bytes())));
        for (id, beside) in self.beside {
            let keys = beside.into_iter().map(|(kind, session)| (kind, Box::from(&*format::receiver_key(id, session))));
            garbage.extend(keys);
        }
        recovered.sessions = self.sessions.into_values().collect();
        recovered.sessions.sort_unstable_by_key(|session| session.number);
        for session in &mut recovered.sessions {
            session.outbound.sort_by_key(|exchange| exchange.order);
            sort_queue(&mut session.queue);
            if mutant!(QueueReversed) {
                session.queue.reverse();
            }
            session.subscriptions.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        }
        ledger.starts_after(recovered.message_count);
        recovered
    }
}

/// Puts a queue, which is in the order of its messages' numbers, into the order in which they came. Those of unknown place
/// stay behind the one before them.
fn sort_queue(queue: &mut [RecoveredMessage]) {
    let mut last = 0;
    for message in queue.iter_mut() {
        if message.receiver.order == 0 {
            message.receiver.order = last;
        }
        last = last.max(message.receiver.order);
    }
    queue.sort_by_key(|message| message.receiver.order);
}
