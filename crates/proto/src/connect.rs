//! CONNECT (v5 section 3.1).

use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use crate::primitive::{Reader, put_binary, put_packet, put_two_bytes, put_with_length};
use crate::property::{NONE_REPEATABLE, PropertySet, decode_section, id};
use crate::{DecodeError, Property, ProtocolVersion, PublishProperties, QoS, UserProperties, valid_topic_name};

const FIRST_BYTE: u8 = 0x10;
/// The bit of the protocol level by which bridges of Mosquitto's kind make themselves known.
const BRIDGE: u8 = 0x80;

const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

const PROPERTIES: PropertySet = PropertySet::of(&[
    id::SESSION_EXPIRY_INTERVAL,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
    id::REQUEST_PROBLEM_INFORMATION,
    id::REQUEST_RESPONSE_INFORMATION,
    id::RECEIVE_MAXIMUM,
    id::TOPIC_ALIAS_MAXIMUM,
    id::USER_PROPERTY,
    id::MAXIMUM_PACKET_SIZE,
]);

const WILL_PROPERTIES: PropertySet = PropertySet::of(&[
    id::WILL_DELAY_INTERVAL,
    id::PAYLOAD_FORMAT_INDICATOR,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::CONTENT_TYPE,
    id::RESPONSE_TOPIC,
    id::CORRELATION_DATA,
    id::USER_PROPERTY,
]);

/// A client's first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version the client speaks.
    pub version: ProtocolVersion,
    /// The client is a bridge (protocol level with 0x80 set; 3.1 and 3.1.1 only).
    pub bridge: bool,
    /// Clean Start, called Clean Session before MQTT 5.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive: u16,
    /// What MQTT 5 adds; the defaults in older versions.
    pub properties: ConnectProperties<'a>,
    /// Client Identifier, without control characters and noncharacters; empty to have one assigned.
    pub client_id: &'a str,
    /// The message to publish should the client vanish.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub user_name: Option<&'a str>,
    /// Password: any bytes.
    pub password: Option<&'a [u8]>,
}

/// Properties of CONNECT. `None` is "absent", whose meaning is given with each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds the Session outlives its connection; absent is 0, `u32::MAX` is for ever.
    pub session_expiry_interval: Option<u32>,
    /// QoS 1 and 2 messages the client takes at once; absent is 65_535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Bytes of the largest packet the client takes; absent is no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Highest Topic Alias the client takes; absent is 0, none.
    pub topic_alias_maximum: Option<u16>,
    /// Whether CONNACK may carry Response Information; absent is false.
    pub request_response_information: bool,
    /// Whether Reason Strings and User Properties are wanted beside PUBLISH, CONNACK and DISCONNECT; absent is true.
    pub request_problem_information: bool,
    /// Enhanced authentication by this method.
    pub authentication_method: Option<&'a str>,
    /// Its first data; only with a method.
    pub authentication_data: Option<&'a [u8]>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry_interval: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: None,
            request_response_information: false,
            request_problem_information: true,
            authentication_method: None,
            authentication_data: None,
            user_properties: UserProperties::none(),
        }
    }
}

/// A Will Message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will<'a> {
    /// QoS it is published with.
    pub qos: QoS,
    /// Whether it is published as a Retained Message.
    pub retain: bool,
    /// Seconds between the end of the connection and the Will; 0 is at once.
    pub delay_interval: u32,
    /// The properties it is published with. Will Delay Interval is not passed on, nor counted when comparing.
    pub properties: PublishProperties<'a>,
    /// Topic Name.
    pub topic_name: &'a str,
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> Connect<'a> {
    /// The version that the body of a CONNECT names, as far as it can be told: for answering one that is wrong.
    pub fn version_of(body: &[u8]) -> Option<ProtocolVersion> {
        let mut reader = Reader::new(body);
        let name = reader.binary().ok()?;
        version(name, reader.byte().ok()?).ok().map(|(version, _)| version)
    }

    /// The Maximum Packet Size of the body of a CONNECT, as far as it can be told: for answering one that is wrong.
    /// `u32::MAX` where there is none, None where there may be one.
    pub fn maximum_packet_size_of(body: &[u8]) -> Option<u32> {
        let mut reader = Reader::new(body);
        let name = reader.binary().ok()?;
        let (version, _) = version(name, reader.byte().ok()?).ok()?;
        if !version.is_v5() {
            return Some(u32::MAX);
        }
        reader.byte().ok()?;
        reader.two_bytes().ok()?;
        let mut found = None;
        let decoded = decode_section(reader.properties().ok()?, PROPERTIES, NONE_REPEATABLE, |property, _| {
            if let Property::MaximumPacketSize(bytes) = property {
                found = Some(bytes.get());
            }
        });
        found.or(decoded.is_ok().then_some(u32::MAX))
    }

    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// [`DecodeError::ProtocolName`] and [`DecodeError::ProtocolVersion`] for what we do not speak, otherwise what is
    /// wrong with the packet.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let name = reader.binary()?;
        let (version, bridge) = version(name, reader.byte()?)?;
        let flags = reader.byte()?;
        // v5 MQTT-3.1.2-3, MQTT-3.1.2-11, MQTT-3.1.2-13; v3.1.1 MQTT-3.1.2-3, MQTT-3.1.2-22.
        let will_flags = flags & (0b0001_1000 | WILL_RETAIN);
        let password_alone = flags & PASSWORD != 0 && flags & USER_NAME == 0 && !version.is_v5();
        if flags & 1 != 0 || (flags & WILL == 0 && will_flags != 0) || password_alone {
            return Err(DecodeError::ConnectFlags);
        }
        let will_qos = QoS::from_bits(flags >> 3 & 0b11).ok_or(DecodeError::QoS)?;
        let keep_alive = reader.two_bytes()?;
        let properties = if version.is_v5() {
            ConnectProperties::decode(reader.properties()?)?
        } else {
            ConnectProperties::default()
        };
        let client_id = check_client_id(reader.string()?)?;
        let will = if flags & WILL != 0 {
            let section = if version.is_v5() { reader.properties()? } else { &[] };
            Some(Will::decode(&mut reader, section, will_qos, flags & WILL_RETAIN != 0)?)
        } else {
            None
        };
        // In MQTT 3.1 the Remaining Length goes before the flags: what is missing at the end was not given.
        let absent = |reader: &Reader<'_>| version == ProtocolVersion::V31 && reader.is_empty();
        let user_name = if flags & USER_NAME != 0 && !absent(&reader) { Some(reader.string()?) } else { None };
        let password = if flags & PASSWORD != 0 && !absent(&reader) { Some(reader.binary()?) } else { None };
        reader.end()?;
        let clean_start = flags & CLEAN_START != 0;
        Ok(Self { version, bridge, clean_start, keep_alive, properties, client_id, will, user_name, password })
    }

    /// Appends the packet to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_packet(out, FIRST_BYTE, |out| {
            put_binary(out, if self.version == ProtocolVersion::V31 { b"MQIsdp" } else { b"MQTT" });
            out.push(self.version as u8 | if self.bridge { BRIDGE } else { 0 });
            let mut flags = if self.clean_start { CLEAN_START } else { 0 };
            if let Some(will) = &self.will {
                flags |= WILL | (will.qos as u8) << 3 | if will.retain { WILL_RETAIN } else { 0 };
            }
            flags |= if self.user_name.is_some() { USER_NAME } else { 0 };
            flags |= if self.password.is_some() { PASSWORD } else { 0 };
            out.push(flags);
            put_two_bytes(out, self.keep_alive);
            if self.version.is_v5() {
                put_with_length(out, |out| self.properties.encode(out));
            }
            put_binary(out, self.client_id.as_bytes());
            if let Some(will) = &self.will {
                if self.version.is_v5() {
                    put_with_length(out, |out| {
                        if will.delay_interval != 0 {
                            Property::WillDelayInterval(will.delay_interval).encode(out);
                        }
                        out.extend(will.properties.forward().bytes());
                    });
                }
                put_binary(out, will.topic_name.as_bytes());
                put_binary(out, will.payload);
            }
            if let Some(user_name) = self.user_name {
                put_binary(out, user_name.as_bytes());
            }
            if let Some(password) = self.password {
                put_binary(out, password);
            }
        });
    }
}

/// Refuses control characters and noncharacters, which the standard allows a receiver to take for malformed (v5
/// section 1.5.4). A Client Identifier is what logs, dashboards and file names are made of. Other strings may hold them.
fn check_client_id(client_id: &str) -> Result<&str, DecodeError> {
    let noncharacter = |c: char| matches!(c, '\u{fdd0}'..='\u{fdef}') || u32::from(c) & 0xfffe == 0xfffe;
    if client_id.chars().any(|c| c.is_control() || noncharacter(c)) { Err(DecodeError::Utf8) } else { Ok(client_id) }
}

fn version(name: &[u8], level: u8) -> Result<(ProtocolVersion, bool), DecodeError> {
    match (name, level & !BRIDGE, level & BRIDGE != 0) {
        (b"MQIsdp", 3, bridge) => Ok((ProtocolVersion::V31, bridge)),
        (b"MQTT", 4, bridge) => Ok((ProtocolVersion::V311, bridge)),
        (b"MQTT", 5, false) => Ok((ProtocolVersion::V5, false)),
        (b"MQTT" | b"MQIsdp", ..) => Err(DecodeError::ProtocolVersion),
        _ => Err(DecodeError::ProtocolName),
    }
}

impl<'a> ConnectProperties<'a> {
    fn decode(section: &'a [u8]) -> Result<Self, DecodeError> {
        let mut this = Self { user_properties: UserProperties::of_section(section), ..Self::default() };
        decode_section(section, PROPERTIES, NONE_REPEATABLE, |property, _| match property {
            Property::SessionExpiryInterval(value) => this.session_expiry_interval = Some(value),
            Property::ReceiveMaximum(value) => this.receive_maximum = Some(value),
            Property::MaximumPacketSize(value) => this.maximum_packet_size = Some(value),
            Property::TopicAliasMaximum(value) => this.topic_alias_maximum = Some(value),
            Property::RequestResponseInformation(value) => this.request_response_information = value,
            Property::RequestProblemInformation(value) => this.request_problem_information = value,
            Property::AuthenticationMethod(value) => this.authentication_method = Some(value),
            Property::AuthenticationData(value) => this.authentication_data = Some(value),
            _ => {}
        })?;
        if this.authentication_data.is_some() && this.authentication_method.is_none() {
            return Err(DecodeError::AuthenticationDataAlone);
        }
        Ok(this)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |wanted: bool, property: Property<'static>| wanted.then_some(property);
        let properties = [
            self.session_expiry_interval.map(Property::SessionExpiryInterval),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.maximum_packet_size.map(Property::MaximumPacketSize),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            flag(self.request_response_information, Property::RequestResponseInformation(true)),
            flag(!self.request_problem_information, Property::RequestProblemInformation(false)),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
        ];
        for property in properties.into_iter().flatten() {
            property.encode(out);
        }
        self.user_properties.encode(out);
    }
}

impl<'a> Will<'a> {
    fn decode(reader: &mut Reader<'a>, section: &'a [u8], qos: QoS, retain: bool) -> Result<Self, DecodeError> {
        let mut delay_interval = 0;
        let properties = PublishProperties::decode_section(section, WILL_PROPERTIES, |delay| delay_interval = delay)?;
        let topic_name = reader.string()?;
        if !valid_topic_name(topic_name) {
            return Err(DecodeError::TopicName);
        }
        Ok(Self { qos, retain, delay_interval, properties, topic_name, payload: reader.binary()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v311_connect_with_everything() {
        let bytes = [
            0x10, 0x1e, // CONNECT, Remaining Length 30
            0x00, 0x04, b'M', b'Q', b'T', b'T', 0x04, // Protocol Name, level 4
            0xf6, // user name, password, will retain, will QoS 2, will, clean session
            0x00, 0x3c, // Keep Alive 60
            0x00, 0x02, b'i', b'd', // Client Identifier
            0x00, 0x03, b'w', b'/', b't', // Will Topic
            0x00, 0x02, b'b', b'y', // Will Message
            0x00, 0x01, b'u', // User Name
            0x00, 0x02, 0x00, 0xff, // Password
        ];
        let connect = Connect::decode(&bytes[2..]).unwrap();
        assert_eq!((connect.version, connect.client_id, connect.keep_alive), (ProtocolVersion::V311, "id", 60));
        let will = connect.will.as_ref().unwrap();
        assert_eq!((will.qos, will.retain, will.topic_name), (QoS::ExactlyOnce, true, "w/t"));
        assert_eq!((connect.user_name, connect.password), (Some("u"), Some(&[0x00, 0xff][..])));
        let mut out = Vec::new();
        connect.encode(&mut out);
        assert_eq!(out, bytes);
    }

    #[test]
    fn protocol_names_and_levels() {
        for (name, level, expected) in [
            (&b"MQTT"[..], 4, Ok((ProtocolVersion::V311, false))),
            (b"MQTT", 0x84, Ok((ProtocolVersion::V311, true))),
            (b"MQTT", 5, Ok((ProtocolVersion::V5, false))),
            (b"MQIsdp", 3, Ok((ProtocolVersion::V31, false))),
            (b"MQIsdp", 0x83, Ok((ProtocolVersion::V31, true))),
            (b"MQTT", 3, Err(DecodeError::ProtocolVersion)),
            (b"MQIsdp", 4, Err(DecodeError::ProtocolVersion)),
            (b"MQTT", 6, Err(DecodeError::ProtocolVersion)),
            (b"mqtt", 4, Err(DecodeError::ProtocolName)),
            (b"", 4, Err(DecodeError::ProtocolName)),
        ] {
            assert_eq!(version(name, level), expected);
        }
    }
}
