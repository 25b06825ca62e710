//! MQTT bytes, for tests only.
//!
//! The encoder writes whatever it is told, right or wrong: strings are bytes, flags can be overridden, and a
//! packet is only a first byte and a body. The decoder reads what a *server* may send and is as strict as the
//! standard is, so every packet of every test is also a test of the server's encoder: shortest lengths,
//! reserved bits, listed Reason Codes, properties that belong to the packet, well-formed strings.

use std::fmt;

/// The version of the protocol a test speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol version 5.
    V5,
}

impl Version {
    /// The byte that follows the protocol name in CONNECT.
    pub fn level(self) -> u8 {
        match self {
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }

    /// Whether this is MQTT 5.0.
    pub fn is_v5(self) -> bool {
        self == Version::V5
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        })
    }
}

/// Property identifiers of MQTT 5.0 (section 2.2.2.2).
pub mod prop {
    #![allow(missing_docs)]
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const RESPONSE_INFORMATION: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// The value of a property, by its type on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// One byte.
    Byte(u8),
    /// Two byte integer.
    TwoByte(u16),
    /// Four byte integer.
    FourByte(u32),
    /// Variable byte integer.
    Varint(u32),
    /// UTF-8 string; bytes, so that a test can send one that is not.
    Text(Vec<u8>),
    /// Binary data.
    Binary(Vec<u8>),
    /// UTF-8 string pair.
    Pair(Vec<u8>, Vec<u8>),
}

/// One property: identifier and value.
pub type Property = (u8, Value);

/// A text property.
pub fn text(id: u8, value: impl AsRef<[u8]>) -> Property {
    (id, Value::Text(value.as_ref().to_vec()))
}

/// A User Property.
pub fn user(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Property {
    (prop::USER_PROPERTY, Value::Pair(key.as_ref().to_vec(), value.as_ref().to_vec()))
}

/// The shortest variable byte integer for `value`, which is at most 268,435,455.
pub fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// A string or binary data: two bytes of length, then the bytes. Longer than 65,535 bytes is cut there.
pub fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = &bytes.as_ref()[..bytes.as_ref().len().min(65_535)];
    let mut out = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// A whole Control Packet: the first byte as given, the Remaining Length of `body`, and `body`.
pub fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first_byte];
    out.extend(varint(u32::try_from(body.len()).unwrap_or(u32::MAX)));
    out.extend_from_slice(body);
    out
}

/// A property list without its length.
pub fn property_bytes(properties: &[Property]) -> Vec<u8> {
    let mut out = Vec::new();
    for (id, value) in properties {
        out.push(*id);
        match value {
            Value::Byte(v) => out.push(*v),
            Value::TwoByte(v) => out.extend(v.to_be_bytes()),
            Value::FourByte(v) => out.extend(v.to_be_bytes()),
            Value::Varint(v) => out.extend(varint(*v)),
            Value::Text(v) | Value::Binary(v) => out.extend(string(v)),
            Value::Pair(k, v) => {
                out.extend(string(k));
                out.extend(string(v));
            }
        }
    }
    out
}

/// A property list with its length.
pub fn properties(list: &[Property]) -> Vec<u8> {
    let bytes = property_bytes(list);
    let mut out = varint(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend(bytes);
    out
}

/// A Will Message as CONNECT carries it.
#[derive(Clone, Debug)]
pub struct Will {
    /// Will Topic.
    pub topic: Vec<u8>,
    /// Will Payload.
    pub payload: Vec<u8>,
    /// Will QoS.
    pub qos: u8,
    /// Will Retain.
    pub retain: bool,
    /// Will Properties, MQTT 5.0 only.
    pub properties: Vec<Property>,
}

impl Will {
    /// A Will Message of QoS 1, not retained, without properties.
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Will {
        Will {
            topic: topic.as_ref().to_vec(),
            payload: payload.as_ref().to_vec(),
            qos: 1,
            retain: false,
            properties: Vec::new(),
        }
    }

    /// The same with Will Retain.
    pub fn retained(mut self) -> Will {
        self.retain = true;
        self
    }

    /// The same with one property more.
    pub fn with(mut self, property: Property) -> Will {
        self.properties.push(property);
        self
    }
}

/// A CONNECT packet. Fields that are public can be made wrong on purpose.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Decides about the form: properties or not.
    pub version: Version,
    /// `MQTT`, unless a test wants another.
    pub protocol_name: Vec<u8>,
    /// Protocol version byte.
    pub level: u8,
    /// Connect Flags; computed from the rest if `None`.
    pub flags: Option<u8>,
    /// Clean Session or Clean Start.
    pub clean: bool,
    /// Keep Alive in seconds.
    pub keep_alive: u16,
    /// CONNECT properties, MQTT 5.0 only.
    pub properties: Vec<Property>,
    /// Client Identifier.
    pub client_id: Vec<u8>,
    /// Will Message.
    pub will: Option<Will>,
    /// User Name.
    pub username: Option<Vec<u8>>,
    /// Password.
    pub password: Option<Vec<u8>>,
}

impl Connect {
    /// Clean, Keep Alive 60 s, nothing else.
    pub fn new(version: Version, client_id: impl AsRef<[u8]>) -> Connect {
        Connect {
            version,
            protocol_name: b"MQTT".to_vec(),
            level: version.level(),
            flags: None,
            clean: true,
            keep_alive: 60,
            properties: Vec::new(),
            client_id: client_id.as_ref().to_vec(),
            will: None,
            username: None,
            password: None,
        }
    }

    /// The same with Clean Session (Clean Start) as given.
    pub fn clean(mut self, clean: bool) -> Connect {
        self.clean = clean;
        self
    }

    /// The same with a Keep Alive of `seconds`.
    pub fn keep_alive(mut self, seconds: u16) -> Connect {
        self.keep_alive = seconds;
        self
    }

    /// The same with a Will Message.
    pub fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }

    /// The same with one property more.
    pub fn with(mut self, property: Property) -> Connect {
        self.properties.push(property);
        self
    }

    /// The same with a Session Expiry Interval of `seconds` in place of any other; nothing changes in 3.1.1.
    pub fn session_expiry(mut self, seconds: u32) -> Connect {
        if self.version.is_v5() {
            self.properties.retain(|(id, _)| *id != prop::SESSION_EXPIRY_INTERVAL);
            self.properties.push((prop::SESSION_EXPIRY_INTERVAL, Value::FourByte(seconds)));
        }
        self
    }

    /// The same with these Connect Flags, whatever the payload holds.
    pub fn flags(mut self, flags: u8) -> Connect {
        self.flags = Some(flags);
        self
    }

    /// The Connect Flags sent.
    pub fn flag_byte(&self) -> u8 {
        self.flags.unwrap_or_else(|| {
            let will = self.will.as_ref().map_or(0, |w| 0x04 | (w.qos << 3) | (u8::from(w.retain) << 5));
            (u8::from(self.clean) << 1)
                | will
                | (u8::from(self.password.is_some()) << 6)
                | (u8::from(self.username.is_some()) << 7)
        })
    }

    /// Everything after the fixed header.
    pub fn body(&self) -> Vec<u8> {
        let mut body = string(&self.protocol_name);
        body.push(self.level);
        body.push(self.flag_byte());
        body.extend(self.keep_alive.to_be_bytes());
        if self.version.is_v5() {
            body.extend(properties(&self.properties));
        }
        body.extend(string(&self.client_id));
        if let Some(will) = &self.will {
            if self.version.is_v5() {
                body.extend(properties(&will.properties));
            }
            body.extend(string(&will.topic));
            body.extend(string(&will.payload));
        }
        for field in [&self.username, &self.password].into_iter().flatten() {
            body.extend(string(field));
        }
        body
    }

    /// The packet.
    pub fn encode(&self) -> Vec<u8> {
        packet(0x10, &self.body())
    }
}

/// A PUBLISH packet, to be sent or as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// DUP flag.
    pub dup: bool,
    /// QoS, 0 to 2 (3 to be wrong on purpose).
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic Name.
    pub topic: Vec<u8>,
    /// Packet Identifier; `None` at QoS 0, and before the peer has chosen one.
    pub packet_id: Option<u16>,
    /// Properties, MQTT 5.0 only.
    pub properties: Vec<Property>,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Publish {
    /// A message without properties, not retained.
    pub fn new(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, qos: u8) -> Publish {
        Publish {
            dup: false,
            qos,
            retain: false,
            topic: topic.as_ref().to_vec(),
            packet_id: None,
            properties: Vec::new(),
            payload: payload.as_ref().to_vec(),
        }
    }

    /// The same with RETAIN.
    pub fn retained(mut self) -> Publish {
        self.retain = true;
        self
    }

    /// The same with DUP.
    pub fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }

    /// The same with this Packet Identifier.
    pub fn id(mut self, packet_id: u16) -> Publish {
        self.packet_id = Some(packet_id);
        self
    }

    /// The same with one property more.
    pub fn with(mut self, property: Property) -> Publish {
        self.properties.push(property);
        self
    }

    /// The value of the first property `id`.
    pub fn property(&self, id: u8) -> Option<&Value> {
        self.properties.iter().find(|(i, _)| *i == id).map(|(_, v)| v)
    }

    /// The Subscription Identifiers, sorted.
    pub fn subscription_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self
            .properties
            .iter()
            .filter_map(|p| match p {
                (prop::SUBSCRIPTION_IDENTIFIER, Value::Varint(id)) => Some(*id),
                _ => None,
            })
            .collect();
        ids.sort_unstable();
        ids
    }

    /// The packet.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = string(&self.topic);
        if let Some(id) = self.packet_id {
            body.extend(id.to_be_bytes());
        }
        if version.is_v5() {
            body.extend(properties(&self.properties));
        }
        body.extend_from_slice(&self.payload);
        packet(0x30 | (u8::from(self.dup) << 3) | (self.qos << 1) | u8::from(self.retain), &body)
    }
}

/// A SUBSCRIBE packet.
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    /// Packet Identifier; `None` lets the peer choose.
    pub packet_id: Option<u16>,
    /// Properties, MQTT 5.0 only.
    pub properties: Vec<Property>,
    /// Topic Filters with their options byte (in 3.1.1 the requested QoS).
    pub filters: Vec<(Vec<u8>, u8)>,
}

impl Subscribe {
    /// One Topic Filter with its options byte.
    pub fn to(filter: impl AsRef<[u8]>, options: u8) -> Subscribe {
        Subscribe::default().and(filter, options)
    }

    /// The same with one Topic Filter more.
    pub fn and(mut self, filter: impl AsRef<[u8]>, options: u8) -> Subscribe {
        self.filters.push((filter.as_ref().to_vec(), options));
        self
    }

    /// The same with one property more.
    pub fn with(mut self, property: Property) -> Subscribe {
        self.properties.push(property);
        self
    }

    /// The same with a Subscription Identifier.
    pub fn subscription_id(self, id: u32) -> Subscribe {
        self.with((prop::SUBSCRIPTION_IDENTIFIER, Value::Varint(id)))
    }

    /// The packet; Packet Identifier 0 if none was chosen.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        let mut body = self.packet_id.unwrap_or(0).to_be_bytes().to_vec();
        if version.is_v5() {
            body.extend(properties(&self.properties));
        }
        for (filter, options) in &self.filters {
            body.extend(string(filter));
            body.push(*options);
        }
        packet(0x82, &body)
    }
}

/// An UNSUBSCRIBE packet.
pub fn unsubscribe<F: AsRef<[u8]>>(version: Version, packet_id: u16, filters: &[F]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    if version.is_v5() {
        body.push(0);
    }
    for filter in filters {
        body.extend(string(filter));
    }
    packet(0xA2, &body)
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP in the short form, which is also the form of 3.1.1.
pub fn ack(first_byte: u8, packet_id: u16) -> Vec<u8> {
    packet(first_byte, &packet_id.to_be_bytes())
}

/// The same with a Reason Code; MQTT 5.0 only.
pub fn ack_with(first_byte: u8, packet_id: u16, reason_code: u8) -> Vec<u8> {
    let [high, low] = packet_id.to_be_bytes();
    packet(first_byte, &[high, low, reason_code])
}

/// An AUTH packet.
pub fn auth(reason_code: u8, list: &[Property]) -> Vec<u8> {
    let mut body = vec![reason_code];
    body.extend(properties(list));
    packet(0xF0, &body)
}

/// A DISCONNECT packet of MQTT 5.0 with a Reason Code and properties.
pub fn disconnect(reason_code: u8, list: &[Property]) -> Vec<u8> {
    let mut body = vec![reason_code];
    body.extend(properties(list));
    packet(0xE0, &body)
}

/// First byte of PUBACK.
pub const PUBACK: u8 = 0x40;
/// First byte of PUBREC.
pub const PUBREC: u8 = 0x50;
/// First byte of PUBREL.
pub const PUBREL: u8 = 0x62;
/// First byte of PUBCOMP.
pub const PUBCOMP: u8 = 0x70;
/// A PINGREQ packet.
pub const PINGREQ: &[u8] = &[0xC0, 0x00];
/// A DISCONNECT packet in the short form: normal disconnection.
pub const DISCONNECT: &[u8] = &[0xE0, 0x00];

/// CONNACK as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    /// Session Present.
    pub session_present: bool,
    /// Return code (3.1.1) or Reason Code (5.0).
    pub code: u8,
    /// Properties, MQTT 5.0 only.
    pub properties: Vec<Property>,
    /// Size of the whole packet in bytes.
    pub packet_bytes: usize,
}

impl ConnAck {
    /// The value of property `id`.
    pub fn property(&self, id: u8) -> Option<&Value> {
        self.properties.iter().find(|(i, _)| *i == id).map(|(_, v)| v)
    }

    /// A property that is an integer of any width.
    pub fn integer(&self, id: u8) -> Option<u32> {
        match self.property(id)? {
            Value::Byte(v) => Some(u32::from(*v)),
            Value::TwoByte(v) => Some(u32::from(*v)),
            Value::FourByte(v) | Value::Varint(v) => Some(*v),
            _ => None,
        }
    }
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT or AUTH as received, and SUBACK and UNSUBACK with their lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Packet Identifier; 0 in DISCONNECT and AUTH, which have none.
    pub packet_id: u16,
    /// Reason Codes: one, or one for each Topic Filter. In 3.1.1 the acknowledgements have 0x00.
    pub codes: Vec<u8>,
    /// Properties, MQTT 5.0 only.
    pub properties: Vec<Property>,
}

impl Answer {
    /// The (first) Reason Code.
    pub fn code(&self) -> u8 {
        self.codes.first().copied().unwrap_or(0)
    }

    /// Whether property `id` is there.
    pub fn has(&self, id: u8) -> bool {
        self.properties.iter().any(|(i, _)| *i == id)
    }
}

/// A Control Packet from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Packet {
    ConnAck(ConnAck),
    Publish(Publish),
    PubAck(Answer),
    PubRec(Answer),
    PubRel(Answer),
    PubComp(Answer),
    SubAck(Answer),
    UnsubAck(Answer),
    PingResp,
    Disconnect(Answer),
    Auth(Answer),
}

impl Packet {
    /// The name of the Control Packet.
    pub fn name(&self) -> &'static str {
        match self {
            Packet::ConnAck(_) => "CONNACK",
            Packet::Publish(_) => "PUBLISH",
            Packet::PubAck(_) => "PUBACK",
            Packet::PubRec(_) => "PUBREC",
            Packet::PubRel(_) => "PUBREL",
            Packet::PubComp(_) => "PUBCOMP",
            Packet::SubAck(_) => "SUBACK",
            Packet::UnsubAck(_) => "UNSUBACK",
            Packet::PingResp => "PINGRESP",
            Packet::Disconnect(_) => "DISCONNECT",
            Packet::Auth(_) => "AUTH",
        }
    }

    /// The properties, if the packet can have some.
    pub fn properties(&self) -> &[Property] {
        match self {
            Packet::ConnAck(p) => &p.properties,
            Packet::Publish(p) => &p.properties,
            Packet::PingResp => &[],
            Packet::PubAck(a)
            | Packet::PubRec(a)
            | Packet::PubRel(a)
            | Packet::PubComp(a)
            | Packet::SubAck(a)
            | Packet::UnsubAck(a)
            | Packet::Disconnect(a)
            | Packet::Auth(a) => &a.properties,
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packet::ConnAck(c) => {
                write!(f, "CONNACK 0x{:02X}{}", c.code, if c.session_present { " session present" } else { "" })
            }
            Packet::Publish(p) => write!(
                f,
                "PUBLISH q{}{}{} id {} topic {:?} payload of {} bytes {:?}",
                p.qos,
                if p.dup { " dup" } else { "" },
                if p.retain { " retain" } else { "" },
                p.packet_id.unwrap_or(0),
                clip(&p.topic),
                p.payload.len(),
                clip(&p.payload),
            ),
            Packet::PingResp => f.write_str("PINGRESP"),
            Packet::Disconnect(a) | Packet::Auth(a) => write!(f, "{} 0x{:02X}", self.name(), a.code()),
            Packet::PubAck(a)
            | Packet::PubRec(a)
            | Packet::PubRel(a)
            | Packet::PubComp(a)
            | Packet::SubAck(a)
            | Packet::UnsubAck(a) => write!(f, "{} id {} codes {:02X?}", self.name(), a.packet_id, a.codes),
        }
    }
}

/// The beginning of `bytes` as text, for messages.
pub fn clip(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(48)]).into_owned();
    if bytes.len() > 48 { text + "…" } else { text }
}

/// First byte, body and size in bytes of a whole packet.
pub type Frame<'a> = (u8, &'a [u8], usize);

/// Finds one whole packet at the front of `bytes`. `None`: more bytes are needed.
///
/// Fails on a Remaining Length that is longer than it need be or has more than four bytes.
pub fn take_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, String> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    let Some((length, used)) = read_varint(rest)? else { return Ok(None) };
    let length = length as usize;
    let body = &rest[used..];
    Ok((body.len() >= length).then(|| (first, &body[..length], 1 + used + length)))
}

fn read_varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, String> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            if i > 0 && *byte == 0 {
                return Err(format!("variable byte integer {value} written in {} bytes", i + 1));
            }
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() >= 4 { Err("variable byte integer of more than four bytes".into()) } else { Ok(None) }
}

/// Decodes a packet sent by a server, strictly. The error says which rule it breaks.
pub fn decode(version: Version, first: u8, body: &[u8]) -> Result<Packet, String> {
    let (kind, flags) = (first >> 4, first & 0x0F);
    let mut r = Reader { bytes: body };
    if kind == 3 {
        return decode_publish(version, flags, r).map(Packet::Publish);
    }
    let expected = if kind == 6 { 0b0010 } else { 0 };
    if flags != expected {
        return Err(format!("first byte 0x{first:02X}: reserved flags must be {expected:04b}"));
    }
    let packet = match kind {
        2 => {
            let (acknowledge, code) = (r.u8()?, r.u8()?);
            if acknowledge > 1 {
                return Err(format!("CONNACK acknowledge flags 0x{acknowledge:02X}: bits 7 to 1 must be 0"));
            }
            let properties = if version.is_v5() {
                listed("CONNACK", code, CONNACK_CODES)?;
                r.properties("CONNACK", CONNACK_PROPERTIES)?
            } else {
                if code > 5 {
                    return Err(format!("CONNACK return code {code} is reserved"));
                }
                Vec::new()
            };
            let packet_bytes = 1 + varint(u32::try_from(body.len()).unwrap_or(u32::MAX)).len() + body.len();
            Packet::ConnAck(ConnAck { session_present: acknowledge == 1, code, properties, packet_bytes })
        }
        4 => Packet::PubAck(r.acknowledgement(version, "PUBACK", PUBACK_CODES)?),
        5 => Packet::PubRec(r.acknowledgement(version, "PUBREC", PUBACK_CODES)?),
        6 => Packet::PubRel(r.acknowledgement(version, "PUBREL", PUBREL_CODES)?),
        7 => Packet::PubComp(r.acknowledgement(version, "PUBCOMP", PUBREL_CODES)?),
        9 => {
            Packet::SubAck(r.list(version, "SUBACK", if version.is_v5() { SUBACK_CODES } else { SUBACK_CODES_V311 })?)
        }
        11 if version.is_v5() => Packet::UnsubAck(r.list(version, "UNSUBACK", UNSUBACK_CODES)?),
        11 => Packet::UnsubAck(Answer { packet_id: r.packet_id("UNSUBACK")?, codes: vec![], properties: vec![] }),
        13 => Packet::PingResp,
        14 if version.is_v5() => Packet::Disconnect(r.reason("DISCONNECT", DISCONNECT_CODES, DISCONNECT_PROPERTIES)?),
        15 if version.is_v5() => Packet::Auth(r.reason("AUTH", AUTH_CODES, AUTH_PROPERTIES)?),
        _ => return Err(format!("first byte 0x{first:02X}: a server never sends this packet in MQTT {version}")),
    };
    if r.bytes.is_empty() {
        Ok(packet)
    } else {
        Err(format!("{} with {} bytes too many", packet.name(), r.bytes.len()))
    }
}

fn decode_publish(version: Version, flags: u8, mut r: Reader<'_>) -> Result<Publish, String> {
    let qos = (flags >> 1) & 3;
    let dup = flags & 8 != 0;
    if qos == 3 {
        return Err("PUBLISH with both QoS bits set".into());
    }
    if qos == 0 && dup {
        return Err("PUBLISH of QoS 0 with DUP".into());
    }
    let topic = r.text("Topic Name")?;
    if topic.iter().any(|b| matches!(b, b'+' | b'#')) {
        return Err(format!("PUBLISH with wildcards in Topic Name {:?}", clip(&topic)));
    }
    let packet_id = if qos > 0 { Some(r.packet_id("PUBLISH")?) } else { None };
    let properties = if version.is_v5() { r.properties("PUBLISH", PUBLISH_PROPERTIES)? } else { Vec::new() };
    let aliased = properties.iter().any(|(id, _)| *id == prop::TOPIC_ALIAS);
    if topic.is_empty() && !aliased {
        return Err("PUBLISH with an empty Topic Name".into());
    }
    Ok(Publish { dup, qos, retain: flags & 1 != 0, topic, packet_id, properties, payload: r.bytes.to_vec() })
}

fn listed(name: &str, code: u8, codes: &[u8]) -> Result<u8, String> {
    if codes.contains(&code) {
        Ok(code)
    } else {
        Err(format!("{name} with Reason Code 0x{code:02X}, not one of its list"))
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Result<Vec<u8>, String> {
        if self.bytes.len() < n {
            return Err(format!("packet ends {} bytes too early", n - self.bytes.len()));
        }
        let (head, tail) = self.bytes.split_at(n);
        self.bytes = tail;
        Ok(head.to_vec())
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, String> {
        let b = self.take(2)?;
        Ok(u16::from_be_bytes([b[0], b[1]]))
    }

    fn packet_id(&mut self, name: &str) -> Result<u16, String> {
        match self.u16()? {
            0 => Err(format!("{name} with Packet Identifier 0")),
            id => Ok(id),
        }
    }

    fn varint(&mut self) -> Result<u32, String> {
        let (value, used) = read_varint(self.bytes)?.ok_or("packet ends inside a variable byte integer")?;
        self.bytes = &self.bytes[used..];
        Ok(value)
    }

    fn binary(&mut self) -> Result<Vec<u8>, String> {
        let n = self.u16()?;
        self.take(n.into())
    }

    fn text(&mut self, what: &str) -> Result<Vec<u8>, String> {
        let bytes = self.binary()?;
        match std::str::from_utf8(&bytes) {
            Err(_) => Err(format!("{what} is not well-formed UTF-8: {bytes:02X?}")),
            Ok(s) if s.contains('\0') => Err(format!("{what} holds U+0000")),
            Ok(_) => Ok(bytes),
        }
    }

    fn properties(&mut self, name: &str, allowed: &[u8]) -> Result<Vec<Property>, String> {
        let length = self.varint()? as usize;
        let bytes = self.take(length)?;
        let mut r = Reader { bytes: &bytes };
        let mut list: Vec<Property> = Vec::new();
        while !r.bytes.is_empty() {
            let id = r.u8()?;
            if !allowed.contains(&id) {
                return Err(format!("{name} from a server with property 0x{id:02X}, which does not belong there"));
            }
            let many = id == prop::USER_PROPERTY || id == prop::SUBSCRIPTION_IDENTIFIER;
            if !many && list.iter().any(|(i, _)| *i == id) {
                return Err(format!("{name} with property 0x{id:02X} twice"));
            }
            let value = match id {
                0x01 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => match r.u8()? {
                    v @ 0..=1 => Value::Byte(v),
                    v => return Err(format!("{name} with property 0x{id:02X} of value {v}")),
                },
                0x13 | 0x21 | 0x22 | 0x23 => Value::TwoByte(r.u16()?),
                0x02 | 0x11 | 0x27 => {
                    let b = r.take(4)?;
                    Value::FourByte(u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
                }
                0x0B => Value::Varint(r.varint()?),
                0x09 | 0x16 => Value::Binary(r.binary()?),
                0x26 => Value::Pair(r.text("User Property key")?, r.text("User Property value")?),
                _ => Value::Text(r.text("a property")?),
            };
            let zero = matches!(value, Value::TwoByte(0) | Value::FourByte(0) | Value::Varint(0));
            if zero && matches!(id, 0x0B | 0x21 | 0x23 | 0x27) {
                return Err(format!("{name} with property 0x{id:02X} of value 0"));
            }
            list.push((id, value));
        }
        Ok(list)
    }

    fn acknowledgement(&mut self, version: Version, name: &str, codes: &[u8]) -> Result<Answer, String> {
        let packet_id = self.packet_id(name)?;
        let mut answer = Answer { packet_id, codes: vec![0], properties: Vec::new() };
        if version.is_v5() && !self.bytes.is_empty() {
            answer.codes = vec![listed(name, self.u8()?, codes)?];
            if !self.bytes.is_empty() {
                answer.properties = self.properties(name, ACK_PROPERTIES)?;
            }
        }
        Ok(answer)
    }

    fn list(&mut self, version: Version, name: &str, codes: &[u8]) -> Result<Answer, String> {
        let packet_id = self.packet_id(name)?;
        let properties = if version.is_v5() { self.properties(name, ACK_PROPERTIES)? } else { Vec::new() };
        let rest = self.take(self.bytes.len())?;
        if rest.is_empty() {
            return Err(format!("{name} without a code"));
        }
        for code in &rest {
            listed(name, *code, codes)?;
        }
        Ok(Answer { packet_id, codes: rest, properties })
    }

    fn reason(&mut self, name: &str, codes: &[u8], allowed: &[u8]) -> Result<Answer, String> {
        let mut answer = Answer { packet_id: 0, codes: vec![0], properties: Vec::new() };
        if !self.bytes.is_empty() {
            answer.codes = vec![listed(name, self.u8()?, codes)?];
            if !self.bytes.is_empty() {
                answer.properties = self.properties(name, allowed)?;
            }
        }
        Ok(answer)
    }
}

const CONNACK_CODES: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B,
    0x9C, 0x9D, 0x9F,
];
const PUBACK_CODES: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL_CODES: &[u8] = &[0x00, 0x92];
const SUBACK_CODES: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const SUBACK_CODES_V311: &[u8] = &[0x00, 0x01, 0x02, 0x80];
const UNSUBACK_CODES: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
// 0x8C is in the standard's overall table for DISCONNECT (2.4) though not in the packet's own (3.14.2.1).
const DISCONNECT_CODES: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];
// 0x19 is the client's alone.
const AUTH_CODES: &[u8] = &[0x00, 0x18];

const CONNACK_PROPERTIES: &[u8] =
    &[0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A];
const PUBLISH_PROPERTIES: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26];
const ACK_PROPERTIES: &[u8] = &[0x1F, 0x26];
// Not 0x11: a server's DISCONNECT has no Session Expiry Interval (MQTT-3.14.2-2).
const DISCONNECT_PROPERTIES: &[u8] = &[0x1C, 0x1F, 0x26];
const AUTH_PROPERTIES: &[u8] = &[0x15, 0x16, 0x1F, 0x26];

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(version: Version, bytes: &[u8]) -> Result<Packet, String> {
        let (first, body, size) = take_frame(bytes)?.ok_or("incomplete")?;
        assert_eq!(size, bytes.len());
        decode(version, first, body)
    }

    #[test]
    fn lengths_are_shortest_at_every_boundary() {
        for (value, bytes) in [
            (0, vec![0]),
            (127, vec![0x7F]),
            (128, vec![0x80, 1]),
            (16_383, vec![0xFF, 0x7F]),
            (16_384, vec![0x80, 0x80, 1]),
            (268_435_455, vec![0xFF, 0xFF, 0xFF, 0x7F]),
        ] {
            assert_eq!(varint(value), bytes);
            assert_eq!(read_varint(&bytes), Ok(Some((value, bytes.len()))));
        }
        assert!(read_varint(&[0x80, 0x00]).is_err());
        assert!(read_varint(&[0x80, 0x80, 0x80, 0x80]).is_err());
        assert_eq!(read_varint(&[0x80]), Ok(None));
    }

    #[test]
    fn a_publish_comes_back_as_it_was_written() {
        let publish = Publish::new("a/b", "hello", 2)
            .id(7)
            .retained()
            .with((prop::SUBSCRIPTION_IDENTIFIER, Value::Varint(200)))
            .with(user("k", "v"))
            .with((prop::MESSAGE_EXPIRY_INTERVAL, Value::FourByte(5)));
        assert_eq!(decoded(Version::V5, &publish.encode(Version::V5)), Ok(Packet::Publish(publish)));
        let plain = Publish::new("a", "", 0);
        assert_eq!(decoded(Version::V311, &plain.encode(Version::V311)), Ok(Packet::Publish(plain)));
    }

    #[test]
    fn a_connect_is_the_bytes_of_the_standard() {
        let bytes = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'a'];
        assert_eq!(Connect::new(Version::V311, "a").encode(), bytes);
        let bytes = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 1, b'a'];
        assert_eq!(Connect::new(Version::V5, "a").encode(), bytes);
    }

    #[test]
    fn the_decoder_refuses_what_a_server_must_not_send() {
        let v5 = |bytes: &[u8]| decoded(Version::V5, bytes);
        let v311 = |bytes: &[u8]| decoded(Version::V311, bytes);
        assert!(v5(&[0x20, 3, 0, 0, 0]).is_ok());
        assert!(v5(&[0x20, 3, 2, 0, 0]).is_err(), "acknowledge flags");
        assert!(v5(&[0x21, 3, 0, 0, 0]).is_err(), "reserved flags");
        assert!(v5(&[0x20, 3, 0, 1, 0]).is_err(), "unlisted code");
        assert!(v5(&[0x20, 2, 0, 0]).is_err(), "no property length");
        assert!(v5(&[0x20, 5, 0, 0, 2, 0x23, 1]).is_err(), "property of another packet");
        assert!(v5(&[0x20, 9, 0, 0, 6, 0x22, 0, 1, 0x22, 0, 1]).is_err(), "property twice");
        assert!(v311(&[0x20, 2, 0, 5]).is_ok());
        assert!(v311(&[0x20, 2, 0, 6]).is_err(), "reserved return code");
        assert!(v311(&[0x36, 5, 0, 1, b'a', 0, 1]).is_err(), "QoS 3");
        assert!(v311(&[0x38, 3, 0, 1, b'a']).is_err(), "DUP at QoS 0");
        assert!(v311(&[0x30, 2, 0, 0]).is_err(), "empty Topic Name");
        assert!(v311(&[0x30, 3, 0, 1, b'#']).is_err(), "wildcard");
        assert!(v311(&[0x30, 3, 0, 1, 0]).is_err(), "U+0000");
        assert!(v311(&[0x30, 4, 0, 2, 0xC0, 0x80]).is_err(), "overlong UTF-8");
        assert!(v311(&[0x32, 5, 0, 1, b'a', 0, 0]).is_err(), "Packet Identifier 0");
        assert!(v311(&[0x40, 3, 0, 1, 0]).is_err(), "trailing byte");
        assert!(v311(&[0x90, 3, 0, 1, 3]).is_err(), "SUBACK code");
        assert!(v311(&[0xE0, 0]).is_err(), "DISCONNECT from a 3.1.1 server");
        assert!(v5(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 1]).is_err(), "Session Expiry Interval from a server");
        assert!(v5(&[0xE0, 1, 0x04]).is_err(), "client's code");
        assert!(v5(&[0xF0, 1, 0x19]).is_err(), "client's code");
    }
}
