//! CONNACK (v5 section 3.2).

use alloc::vec::Vec;
use core::num::{NonZeroU16, NonZeroU32};

use crate::primitive::{Reader, put_packet, put_with_length};
use crate::property::{NONE_REPEATABLE, PropertySet, decode_section, id};
use crate::{DecodeError, PacketType, Property, ProtocolVersion, QoS, ReasonCode, UserProperties};

const FIRST_BYTE: u8 = 0x20;

const PROPERTIES: PropertySet = PropertySet::of(&[
    id::SESSION_EXPIRY_INTERVAL,
    id::ASSIGNED_CLIENT_IDENTIFIER,
    id::SERVER_KEEP_ALIVE,
    id::AUTHENTICATION_METHOD,
    id::AUTHENTICATION_DATA,
    id::RESPONSE_INFORMATION,
    id::SERVER_REFERENCE,
    id::REASON_STRING,
    id::RECEIVE_MAXIMUM,
    id::TOPIC_ALIAS_MAXIMUM,
    id::MAXIMUM_QOS,
    id::RETAIN_AVAILABLE,
    id::USER_PROPERTY,
    id::MAXIMUM_PACKET_SIZE,
    id::WILDCARD_SUBSCRIPTION_AVAILABLE,
    id::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
    id::SHARED_SUBSCRIPTION_AVAILABLE,
]);

/// The server's answer to CONNECT. Properties are absent (`None`) or as written; their order on the wire is the order here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the server had a Session for the client and goes on with it.
    pub session_present: bool,
    /// Success or why not.
    pub reason_code: ReasonCode,
    /// Highest Topic Alias the server takes; absent is none.
    pub topic_alias_maximum: Option<u16>,
    /// The Client Identifier given to a client that came without.
    pub assigned_client_identifier: Option<&'a str>,
    /// Keep Alive in seconds that the client has to use instead of its own.
    pub server_keep_alive: Option<u16>,
    /// Bytes of the largest packet the server takes; absent is no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// QoS 1 and 2 messages the server takes at once; absent is 65_535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Session Expiry Interval in seconds, where the server's differs from the client's.
    pub session_expiry_interval: Option<u32>,
    /// Highest QoS the server takes; [`QoS::ExactlyOnce`] is written as absence.
    pub maximum_qos: QoS,
    /// Whether Retained Messages are supported; true is written as absence.
    pub retain_available: bool,
    /// Whether filters may hold wildcards; true is written as absence.
    pub wildcard_subscription_available: bool,
    /// Whether Subscription Identifiers are supported; true is written as absence.
    pub subscription_identifier_available: bool,
    /// Whether Shared Subscriptions are supported; true is written as absence.
    pub shared_subscription_available: bool,
    /// Basis for Response Topics, if the client asked for it.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Enhanced authentication: the method, repeated.
    pub authentication_method: Option<&'a str>,
    /// Enhanced authentication: the last data.
    pub authentication_data: Option<&'a [u8]>,
    /// A sentence for people.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> ConnAck<'a> {
    /// A CONNACK with this code and nothing else.
    pub fn new(session_present: bool, reason_code: ReasonCode) -> Self {
        Self {
            session_present,
            reason_code,
            topic_alias_maximum: None,
            assigned_client_identifier: None,
            server_keep_alive: None,
            maximum_packet_size: None,
            receive_maximum: None,
            session_expiry_interval: None,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifier_available: true,
            shared_subscription_available: true,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::none(),
        }
    }

    /// Decodes what follows the fixed header.
    ///
    /// # Errors
    /// What is wrong with the packet.
    pub fn decode(version: ProtocolVersion, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        // MQTT 3.1 has no Session Present; the byte is reserved there, and says nothing.
        let flags = if version == ProtocolVersion::V31 { reader.byte().map(|_| 0)? } else { reader.byte()? };
        if flags > 1 {
            return Err(DecodeError::ConnectFlags);
        }
        let code = reader.byte()?;
        let reason_code = if version.is_v5() {
            ReasonCode::from_byte(code, PacketType::ConnAck)
        } else {
            ReasonCode::from_v3_connect_return_code(code)
        };
        let mut this = Self::new(flags == 1, reason_code.ok_or(DecodeError::ReasonCode(code))?);
        if version.is_v5() {
            let section = reader.properties()?;
            this.user_properties = UserProperties::of_section(section);
            decode_section(section, PROPERTIES, NONE_REPEATABLE, |property, _| this.set(property))?;
        }
        reader.end()?;
        Ok(this)
    }

    fn set(&mut self, property: Property<'a>) {
        match property {
            Property::SessionExpiryInterval(value) => self.session_expiry_interval = Some(value),
            Property::AssignedClientIdentifier(value) => self.assigned_client_identifier = Some(value),
            Property::ServerKeepAlive(value) => self.server_keep_alive = Some(value),
            Property::AuthenticationMethod(value) => self.authentication_method = Some(value),
            Property::AuthenticationData(value) => self.authentication_data = Some(value),
            Property::ResponseInformation(value) => self.response_information = Some(value),
            Property::ServerReference(value) => self.server_reference = Some(value),
            Property::ReasonString(value) => self.reason_string = Some(value),
            Property::ReceiveMaximum(value) => self.receive_maximum = Some(value),
            Property::TopicAliasMaximum(value) => self.topic_alias_maximum = Some(value),
            Property::MaximumQoS(one) => self.maximum_qos = if one { QoS::AtLeastOnce } else { QoS::AtMostOnce },
            Property::RetainAvailable(value) => self.retain_available = value,
            Property::MaximumPacketSize(value) => self.maximum_packet_size = Some(value),
            Property::WildcardSubscriptionAvailable(value) => self.wildcard_subscription_available = value,
            Property::SubscriptionIdentifierAvailable(value) => self.subscription_identifier_available = value,
            Property::SharedSubscriptionAvailable(value) => self.shared_subscription_available = value,
            _ => {}
        }
    }

    /// Appends the packet to `out`. A v3 CONNACK whose Reason Code has no return code is written as 0x03, Server
    /// unavailable; callers close without CONNACK instead ([`ReasonCode::v3_connect_return_code`]).
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put_packet(out, FIRST_BYTE, |out| {
            out.push(u8::from(self.session_present && version != ProtocolVersion::V31));
            if version.is_v5() {
                out.push(self.reason_code as u8);
                put_with_length(out, |out| self.encode_properties(out));
            } else {
                out.push(self.reason_code.v3_connect_return_code().unwrap_or(0x03));
            }
        });
    }

    /// As [`ConnAck::encode`], without Reason String and User Properties where the packet would be longer than
    /// `packet_bytes_max` (v5 MQTT-3.2.2-19, MQTT-3.2.2-20).
    pub fn encode_within(&self, version: ProtocolVersion, packet_bytes_max: u32, out: &mut Vec<u8>) {
        let start = out.len();
        self.encode(version, out);
        if out.len() - start > packet_bytes_max as usize {
            out.truncate(start);
            Self { reason_string: None, user_properties: UserProperties::none(), ..self.clone() }.encode(version, out);
        }
    }

    fn encode_properties(&self, out: &mut Vec<u8>) {
        let unless = |available: bool, property: Property<'static>| (!available).then_some(property);
        let maximum_qos = match self.maximum_qos {
            QoS::ExactlyOnce => None,
            qos => Some(Property::MaximumQoS(qos == QoS::AtLeastOnce)),
        };
        let properties = [
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            self.assigned_client_identifier.map(Property::AssignedClientIdentifier),
            self.server_keep_alive.map(Property::ServerKeepAlive),
            self.maximum_packet_size.map(Property::MaximumPacketSize),
            self.receive_maximum.map(Property::ReceiveMaximum),
            self.session_expiry_interval.map(Property::SessionExpiryInterval),
            maximum_qos,
            unless(self.retain_available, Property::RetainAvailable(false)),
            unless(self.wildcard_subscription_available, Property::WildcardSubscriptionAvailable(false)),
            unless(self.subscription_identifier_available, Property::SubscriptionIdentifierAvailable(false)),
            unless(self.shared_subscription_available, Property::SharedSubscriptionAvailable(false)),
            self.response_information.map(Property::ResponseInformation),
            self.server_reference.map(Property::ServerReference),
            self.authentication_method.map(Property::AuthenticationMethod),
            self.authentication_data.map(Property::AuthenticationData),
            self.reason_string.map(Property::ReasonString),
        ];
        for property in properties.into_iter().flatten() {
            property.encode(out);
        }
        self.user_properties.encode(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_stand_in_mosquittos_order() {
        let mut ack = ConnAck::new(false, ReasonCode::Success);
        ack.receive_maximum = NonZeroU16::new(20);
        ack.maximum_packet_size = NonZeroU32::new(2_000_000);
        ack.topic_alias_maximum = Some(10);
        let mut out = Vec::new();
        ack.encode(ProtocolVersion::V5, &mut out);
        assert_eq!(out, [0x20, 14, 0, 0, 11, 0x22, 0, 10, 0x27, 0x00, 0x1e, 0x84, 0x80, 0x21, 0, 20]);
        assert_eq!(ConnAck::decode(ProtocolVersion::V5, &out[2..]), Ok(ack));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut ack = ConnAck::new(false, ReasonCode::NotAuthorized);
        ack.reason_string = Some("no, because of a long reason");
        let mut out = Vec::new();
        ack.encode_within(ProtocolVersion::V5, 20, &mut out);
        assert_eq!(out, [0x20, 3, 0, 0x87, 0]);
    }
}
