//! The file that a Mosquitto broker keeps its data in, `mosquitto.db`, of versions 5 and 6 (Mosquitto 1.6 and later).
//!
//! It is a header and then chunks, each with its kind and its length in front. Lengths and most numbers are in network order; the
//! numbers of messages and times are as the machine had them that wrote the file. Texts follow the fixed part of a chunk, without
//! lengths of their own. Nothing in it has a checksum, so all that is read is checked by whoever uses it.

use std::fmt;

/// How it begins.
const MAGIC: &[u8] = b"\x00\xb5\x00mosquitto db";
/// Behind that stand a checksum that nobody writes, and the version.
const HEADER_BYTES: usize = MAGIC.len() + 8;
const VERSIONS: [u32; 2] = [5, 6];

const CONFIGURATION: u32 = 1;
const MESSAGE: u32 = 2;
const CLIENT_MESSAGE: u32 = 3;
const RETAIN: u32 = 4;
const SUBSCRIPTION: u32 = 5;
const CLIENT: u32 = 6;

/// All that is in a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Database<'a> {
    pub(crate) messages: Vec<Message<'a>>,
    /// Numbers of messages that are retained.
    pub(crate) retained: Vec<u64>,
    pub(crate) clients: Vec<Client<'a>>,
    pub(crate) subscriptions: Vec<Subscription<'a>>,
    /// For each client in the order in which it is owed them.
    pub(crate) owed: Vec<Owed<'a>>,
    /// Chunks of kinds that are not known.
    pub(crate) unknown: usize,
}

/// A message, by whatever it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) number: u64,
    /// When it expires, in seconds since 1970; 0 is never.
    pub(crate) expires_at: u64,
    pub(crate) publisher: Who<'a>,
    pub(crate) topic_name: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// As in PUBLISH, without their length.
    pub(crate) properties: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
}

/// A client, as it was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who<'a> {
    pub(crate) client_id: &'a [u8],
    /// Empty where there is none, or where the version does not say. Mosquitto 2.0.11 writes there what it has written for another
    /// client if this one has none.
    pub(crate) user_name: &'a [u8],
    /// Of the listener; 0 if it is not known.
    pub(crate) port: u16,
}

/// A client with a Session that outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client<'a> {
    pub(crate) who: Who<'a>,
    /// In seconds; `u32::MAX` is for ever.
    pub(crate) expiry_interval: u32,
    /// When its Session expires, in seconds since 1970; 0 if it was connected, or never.
    pub(crate) expires_at: u64,
}

/// A subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscription<'a> {
    pub(crate) client_id: &'a [u8],
    pub(crate) filter: &'a [u8],
    /// Subscription Options as SUBSCRIBE writes them.
    pub(crate) options: u8,
    /// 0 is none.
    pub(crate) identifier: u32,
}

/// A message that is on its way to a client, or comes from one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owed<'a> {
    pub(crate) client_id: &'a [u8],
    pub(crate) message: u64,
    pub(crate) packet_id: u16,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) stage: Stage,
    /// As in PUBLISH: Subscription Identifiers.
    pub(crate) properties: &'a [u8],
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not been sent.
    Waiting,
    /// PUBACK or PUBREC is awaited.
    Sent,
    /// PUBCOMP is awaited.
    Released,
    /// It comes from the client, who has not released it; nobody has got it yet.
    FromClient,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DatabaseError {
    /// It is something else.
    Other,
    /// It is of a version that is not known.
    Version(u32),
    /// It ends within a chunk.
    Cut,
    /// The chunk that begins at this byte is not as its kind is.
    Chunk(usize),
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other => f.write_str("it is no file of Mosquitto's"),
            Self::Version(version) => {
                write!(
                    f,
                    "it is of version {version} of Mosquitto's format; versions 5 and 6, of Mosquitto 1.6 and later, are read"
                )
            }
            Self::Cut => f.write_str("it has been cut off"),
            Self::Chunk(at) => write!(f, "what begins at byte {at} is not understood"),
        }
    }
}

impl<'a> Database<'a> {
    /// Reads a whole file.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, DatabaseError> {
        let header = bytes.strip_prefix(MAGIC).ok_or(DatabaseError::Other)?;
        let version = Fields(header.get(4..).unwrap_or_default()).u32().ok_or(DatabaseError::Cut)?;
        if !VERSIONS.contains(&version) {
            return Err(DatabaseError::Version(version));
        }
        let mut database = Self::default();
        let mut rest = Fields(&bytes[HEADER_BYTES..]);
        while !rest.0.is_empty() {
            let at = bytes.len() - rest.0.len();
            let header = rest.u32().zip(rest.u32()).ok_or(DatabaseError::Cut)?;
            let chunk = rest.take(header.1 as usize).ok_or(DatabaseError::Cut)?;
            database.chunk(version, header.0, Fields(chunk)).ok_or(DatabaseError::Chunk(at))?;
        }
        Ok(database)
    }

    fn chunk(&mut self, version: u32, kind: u32, mut fields: Fields<'a>) -> Option<()> {
        match kind {
            // The last number given out, and whether it was an orderly end.
            CONFIGURATION => {}
            MESSAGE => self.messages.push(message(&mut fields)?),
            CLIENT_MESSAGE => self.owed.push(owed(&mut fields)?),
            RETAIN => self.retained.push(fields.own_u64()?),
            SUBSCRIPTION => self.subscriptions.push(subscription(&mut fields)?),
            CLIENT => self.clients.push(client(version, &mut fields)?),
            _ => self.unknown += 1,
        }
        Some(())
    }
}

fn message<'a>(fields: &mut Fields<'a>) -> Option<Message<'a>> {
    let (number, expires_at, payload_bytes) = (fields.own_u64()?, fields.own_u64()?, fields.u32()?);
    let _packet_id = fields.u16()?;
    let (client_id, user_name, topic_name) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let (port, qos, retain) = (fields.u16()?, fields.u8()?, fields.u8()? != 0);
    let client_id = fields.take(client_id.into())?;
    let publisher = Who { client_id, user_name: fields.take(user_name.into())?, port };
    let topic_name = fields.take(topic_name.into())?;
    let payload = fields.take(payload_bytes as usize)?;
    let properties = fields.properties()?;
    Some(Message { number, expires_at, publisher, topic_name, payload, properties, qos, retain })
}

fn owed<'a>(fields: &mut Fields<'a>) -> Option<Owed<'a>> {
    const FROM_CLIENT: u8 = 0;
    let (message, packet_id, client_id) = (fields.own_u64()?, fields.u16()?, fields.u16()?);
    let (qos, state, retain_and_dup, direction) = (fields.u8()?, fields.u8()?, fields.u8()?, fields.u8()?);
    let client_id = fields.take(client_id.into())?;
    let stage = match (direction, state) {
        (FROM_CLIENT, _) => Stage::FromClient,
        (_, 3 | 5) => Stage::Sent,
        (_, 6 | 9) => Stage::Released,
        _ => Stage::Waiting,
    };
    let properties = fields.properties()?;
    Some(Owed { client_id, message, packet_id, qos, retain: retain_and_dup >> 4 != 0, stage, properties })
}

fn subscription<'a>(fields: &mut Fields<'a>) -> Option<Subscription<'a>> {
    const OPTIONS: u8 = 0b0011_1100;
    let (identifier, client_id, filter) = (fields.u32()?, fields.u16()?, fields.u16()?);
    let options = fields.u8()? & 0b11 | fields.u8()? & OPTIONS;
    fields.take(2)?;
    Some(Subscription {
        client_id: fields.take(client_id.into())?,
        filter: fields.take(filter.into())?,
        options,
        identifier,
    })
}

fn client<'a>(version: u32, fields: &mut Fields<'a>) -> Option<Client<'a>> {
    let (expires_at, expiry_interval, _packet_id) = (fields.own_u64()?, fields.u32()?, fields.u16()?);
    let client_id = fields.u16()?;
    let (mut port, mut user_name) = (0, 0);
    if version > 5 {
        (port, user_name) = (fields.u16()?, fields.u16()?);
        fields.take(4)?;
    }
    let client_id = fields.take(client_id.into())?;
    // What does not fit is what has been left over from another client.
    let user_name = fields.take(user_name.into()).unwrap_or_default();
    Some(Client { who: Who { client_id, user_name, port }, expiry_interval, expires_at })
}

/// What is left of a chunk.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const COUNT: usize>(&mut self) -> Option<[u8; COUNT]> {
        self.take(COUNT)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// In the order of the machine.
    fn own_u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// Properties behind their length, if there are any.
    fn properties(&mut self) -> Option<&'a [u8]> {
        let mut length = 0;
        if self.0.is_empty() {
            return Some(&[]);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            length |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return self.take(length);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by Mosquitto 2.0.11, on a little-endian machine.
    const WRITTEN: &[u8] = include_bytes!("../tests/mosquitto-db/2.0.11.db");

    #[cfg(target_endian = "little")]
    #[test]
    fn a_file_of_mosquitto_is_read() {
        let database = Database::read(WRITTEN).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let message = database.messages.iter().find(|message| message.topic_name == b"r/props").unwrap();
        assert_eq!((text(message.payload).as_str(), message.qos, message.retain), ("with properties", 2, true));
        assert_eq!(text(message.publisher.client_id), "pub5");
        assert_eq!(message.properties, b"\x03\x00\x0atext/plain\x26\x00\x01k\x00\x01v\x08\x00\x04back");
        assert!(message.expires_at > 1_700_000_000);
        let one = database.messages.iter().find(|message| message.topic_name == b"r/one").unwrap();
        assert_eq!((text(one.publisher.user_name).as_str(), one.expires_at), ("pam", 0));
        assert_eq!(database.retained.len(), 3);
        let clients: Vec<_> = database
            .clients
            .iter()
            .map(|it| (text(it.who.client_id), text(it.who.user_name), it.expiry_interval))
            .collect();
        assert_eq!(clients[..2], [("v3".into(), "ann".into(), u32::MAX), ("v5".into(), "bob".into(), 3_600)]);
        assert!(database.clients[1].expires_at > 1_700_000_000);
        let subscriptions: Vec<_> = database
            .subscriptions
            .iter()
            .map(|it| (text(it.client_id), text(it.filter), it.options, it.identifier))
            .collect();
        assert!(subscriptions.contains(&("v5".into(), "q/#".into(), 0x0a, 7)), "{subscriptions:?}");
        assert!(subscriptions.contains(&("v3".into(), "more/+".into(), 1, 0)), "{subscriptions:?}");
        let owed: Vec<_> = database.owed.iter().filter(|owed| owed.client_id == b"v5").collect();
        assert_eq!(owed.iter().map(|owed| owed.qos).collect::<Vec<_>>(), [2, 2, 2, 2, 0, 1]);
        assert!(owed.iter().all(|owed| owed.stage == Stage::Waiting && owed.properties == [0x0b, 7]));
        assert_eq!(owed.iter().map(|owed| owed.retain).collect::<Vec<_>>(), [false, false, false, false, false, true]);
        assert_eq!(database.unknown, 0);
    }

    #[test]
    fn what_is_no_such_file_is_told_from_one_that_is_cut() {
        assert_eq!(Database::read(b""), Err(DatabaseError::Other));
        assert_eq!(Database::read(&[MAGIC, &[0; 4]].concat()), Err(DatabaseError::Cut));
        assert_eq!(Database::read(&[MAGIC, &[0, 0, 0, 0, 0, 0, 0, 3]].concat()), Err(DatabaseError::Version(3)));
        let empty = [MAGIC, &[0, 0, 0, 0, 0, 0, 0, 5]].concat();
        assert_eq!(Database::read(&empty), Ok(Database::default()));
        assert_eq!(Database::read(&[&empty[..], &[0]].concat()), Err(DatabaseError::Cut));
        let chunk = |kind: u8, bytes: &[u8]| [&empty[..], &[0, 0, 0, kind, 0, 0, 0, bytes.len() as u8], bytes].concat();
        assert_eq!(Database::read(&chunk(4, &[0; 7])), Err(DatabaseError::Chunk(23)));
        assert_eq!(Database::read(&chunk(9, b"x")).unwrap().unknown, 1);
        // A client of version 5 has neither port nor User Name.
        let fixed = [&0_u64.to_ne_bytes()[..], &u32::MAX.to_be_bytes(), &[0, 9, 0, 2], b"id"].concat();
        let bytes = chunk(6, &fixed);
        let client = Database::read(&bytes).unwrap().clients.remove(0);
        let who = Who { client_id: b"id", user_name: b"", port: 0 };
        assert_eq!(client, Client { who, expiry_interval: u32::MAX, expires_at: 0 });
    }

    proptest! {
        /// Whatever has become of a file, it is read or refused.
        #[test]
        fn no_bytes_panic(cut in 0..WRITTEN.len(), changes in prop::collection::vec((0..WRITTEN.len(), any::<u8>()), 0..8)) {
            let mut bytes = WRITTEN.to_vec();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            bytes.truncate(WRITTEN.len() - cut);
            let _ = Database::read(&bytes);
        }
    }
}
