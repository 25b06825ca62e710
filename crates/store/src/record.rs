//! What is to be remembered: one [`Record`] for each change of state that an acknowledgement vouches for.

use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

/// A place in one worker's log: how many records it has appended up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

impl Position {
    /// Later than all others: of something whose record is still to be appended.
    pub const NEVER: Self = Self(u64::MAX);
}

/// Names a message for as long as anything remembers it.
///
/// Later messages have larger numbers, whichever worker they came from. The low byte is the worker that the publisher
/// belonged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub NonZeroU64);

/// Bits of a [`MessageId`] that name the worker.
pub(crate) const WORKER_BITS: u32 = 8;
/// Both kinds of numbers stay below this, so that a pair of them fits into a short key. At a million a second it takes 500
/// years to get there.
pub(crate) const NUMBER_END: u64 = 1 << 56;

impl MessageId {
    pub(crate) fn new(count: u64, worker: u8) -> Option<Self> {
        NonZeroU64::new(count << WORKER_BITS | u64::from(worker)).map(Self)
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// As a number.
    pub fn number(self) -> u64 {
        self.0.get()
    }

    pub(crate) fn worker(self) -> usize {
        (self.0.get() & ((1 << WORKER_BITS) - 1)) as usize
    }

    /// How many messages the store had named by then, this one among them.
    pub fn count(self) -> u64 {
        self.0.get() >> WORKER_BITS
    }
}

/// Names a Session: another one of the same client has another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionNumber(pub NonZeroU64);

impl SessionNumber {
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// As a number.
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

/// A message, wherever its bytes stand. Times are milliseconds of the broker's own clock, which goes on over restarts: see
/// [`Clock`](crate::Clock).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// Topic Name.
    pub topic_name: &'a str,
    /// Properties as PUBLISH has them, in two pieces, of which the second may be empty.
    pub properties: [&'a [u8]; 2],
    /// Where in the properties the Message Expiry Interval stands: its identifier, and four bytes behind that.
    pub message_expiry_at: Option<u32>,
    /// Payload.
    pub payload: &'a [u8],
    /// QoS it was published with, 0 to 2.
    pub qos: u8,
    /// RETAIN it was published with.
    pub retain: bool,
    /// When it expires.
    pub expires_at: Option<u64>,
}

/// A Session that a message waits for, or is on its way to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Whose.
    pub session: SessionNumber,
    /// QoS it is delivered with, 1 or 2.
    pub qos: u8,
    /// RETAIN it is delivered with.
    pub retain: bool,
    /// Its place among all messages that came for the Session, from 1. 0 if whoever named it does not know: then it goes by
    /// the number of the message.
    pub order: u64,
    /// Subscription Identifiers it is delivered with.
    pub identifiers: Vec<NonZeroU32>,
    /// The Shared Subscription it came by, as `$share/…/…`, which gets it back should the Session end.
    pub group: Option<Arc<str>>,
}

impl Receiver {
    /// Which copy of the message this is for the Session.
    pub fn copy(&self) -> u32 {
        copy_of(self.group.as_deref())
    }
}

/// A message, and which copy of it.
pub(crate) type Kept = (MessageId, u32);
/// Who is owed a copy of a message: the Session, and which copy.
pub(crate) type Owed = (SessionNumber, u32);

/// Which copy of a message one is that came by this Shared Subscription, or by none: a Session may be owed one of its own and
/// one by each group that it is a member of. 0 is its own; two groups have the same number by a chance of 1 in 2^32.
pub fn copy_of(group: Option<&str>) -> u32 {
    group.map_or(0, |filter| {
        let hash =
            filter.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        hash.max(1)
    })
}

/// What an exchange with a subscriber waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// PUBACK or PUBREC for the message.
    Acknowledgement,
    /// PUBCOMP; the message is settled.
    PubComp,
}

/// A message that was published.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// Its name.
    pub id: MessageId,
    /// Itself.
    pub message: Message<'a>,
    /// Sessions that it is owed to, those known to the publisher's worker.
    pub receivers: &'a [Receiver],
    /// How many other workers name further receivers, each with one call of
    /// [`add_receivers`](crate::Store::add_receivers).
    pub others: u32,
    /// The QoS 2 exchange with the publisher that it belongs to: known from then on, in one commit with the routing.
    pub opens: Option<(SessionNumber, u16)>,
    /// The Session whose Will it is: that Session has none from then on.
    pub will_of: Option<SessionNumber>,
    /// It replaces, or with an empty payload ends, the Retained Message of its topic, unless a later one has.
    pub retained: bool,
    /// Who published it, to be kept beside the Retained Message. None: nothing is.
    pub publisher: Option<Publisher<'a>>,
}

/// Who published a Retained Message: what there is to ask rules about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publisher<'a> {
    /// Name of the security domain that its client is of; empty where there is but one.
    pub security_domain: &'a str,
    /// User name; None for an anonymous client.
    pub user_name: Option<&'a str>,
    /// Client Identifier.
    pub client_id: &'a str,
    /// Where the client was.
    pub address: Option<IpAddr>,
    /// It proved itself by a certificate.
    pub certificate: bool,
    /// It had rights that came with its credentials, and that are not written down.
    pub granted: bool,
}

/// A Session, without what has records of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// Its number.
    pub number: SessionNumber,
    /// Client Identifier.
    pub client_id: &'a str,
    /// Seconds it outlives its connection; `u32::MAX` is for ever.
    pub expiry_interval: u32,
    /// When its connection ended; None while there is one.
    pub detached_at: Option<u64>,
}

/// The user that a Session belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Name of the security domain that the user is of; empty where there is but one.
    pub security_domain: &'a str,
    /// User name.
    pub user_name: &'a str,
}

/// A Will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// The message; its life begins when it is published, so it has no `expires_at`.
    pub message: Message<'a>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_interval: u32,
}

/// One change of state. Strings are as MQTT has them.
#[derive(Debug, Clone, Copy)]
pub enum Record<'a> {
    /// A Session has begun, goes on with another expiry, or has lost its connection.
    Session(Session<'a>),
    /// A Session has ended. What it held has ended by records of its own.
    SessionEnded {
        /// Whose.
        session: SessionNumber,
    },
    /// A Session belongs to a user, or to nobody.
    Owner {
        /// Which.
        session: SessionNumber,
        /// To whom.
        owner: Option<Owner<'a>>,
    },
    /// A Session has a Will.
    Will {
        /// Whose.
        session: SessionNumber,
        /// Which.
        will: Will<'a>,
    },
    /// A Session has no Will any more.
    WillEnded {
        /// Whose.
        session: SessionNumber,
    },
    /// A subscription was made or replaced.
    Subscription {
        /// Whose.
        session: SessionNumber,
        /// Its Topic Filter, with `$share/…/` if it has that.
        filter: &'a str,
        /// Subscription Options as SUBSCRIBE writes them.
        options: u8,
        /// Subscription Identifier.
        identifier: Option<NonZeroU32>,
    },
    /// A subscription was removed.
    SubscriptionEnded {
        /// Whose.
        session: SessionNumber,
        /// Its Topic Filter.
        filter: &'a str,
    },
    /// A message was published.
    Publish(Publish<'a>),
    /// A message is on its way to a Session under this Packet Identifier.
    Sent {
        /// To whom.
        session: SessionNumber,
        /// What.
        message: MessageId,
        /// Which of the copies that the Session may be owed: see [`copy_of`].
        copy: u32,
        /// Packet Identifier.
        packet_id: u16,
        /// Its place among the Session's exchanges: later ones have larger numbers.
        order: u64,
    },
    /// PUBREC has come: the message is settled, the exchange is not.
    Released {
        /// From whom.
        session: SessionNumber,
        /// What.
        message: Option<MessageId>,
        /// Which of the copies that the Session may be owed: see [`copy_of`].
        copy: u32,
        /// Packet Identifier.
        packet_id: u16,
        /// As in [`Record::Sent`].
        order: u64,
    },
    /// A message is owed to a Session no more: acknowledged, expired, dropped; with `packet_id`, its exchange is over.
    Settled {
        /// Whose.
        session: SessionNumber,
        /// What, if the exchange still held a message.
        message: Option<MessageId>,
        /// Which of the copies that the Session may be owed: see [`copy_of`].
        copy: u32,
        /// Packet Identifier, if it had one.
        packet_id: Option<u16>,
    },
    /// The client has released the Packet Identifier of a QoS 2 message that it published.
    ExactlyOnceReleased {
        /// Whose.
        session: SessionNumber,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// The Retained Message of a topic has expired, unless a later one than this has replaced it.
    RetainedEnded {
        /// Topic Name.
        topic_name: &'a str,
        /// The one that has.
        message: MessageId,
    },
    /// A message of a Shared Subscription goes from a Session that has ended to others (at most one) in its place.
    Moved {
        /// What.
        message: MessageId,
        /// The Session that was to have it.
        from: SessionNumber,
        /// The copy that it was to have.
        copy: u32,
        /// The ones that are.
        to: &'a [Receiver],
    },
}
