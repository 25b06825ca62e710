//! Reason Codes (v5 section 2.4) and the return codes of the older versions.

use crate::PacketType;

/// Why something was done, or not. Codes of 0x80 and above are failures.
///
/// 0x00 means Success, Normal disconnection or Granted QoS 0, as the packet has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub enum ReasonCode {
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWillMessage = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8a,
    ServerShuttingDown = 0x8b,
    BadAuthenticationMethod = 0x8c,
    KeepAliveTimeout = 0x8d,
    SessionTakenOver = 0x8e,
    TopicFilterInvalid = 0x8f,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9a,
    QoSNotSupported = 0x9b,
    UseAnotherServer = 0x9c,
    ServerMoved = 0x9d,
    SharedSubscriptionsNotSupported = 0x9e,
    ConnectionRateExceeded = 0x9f,
    MaximumConnectTime = 0xa0,
    SubscriptionIdentifiersNotSupported = 0xa1,
    WildcardSubscriptionsNotSupported = 0xa2,
}

use PacketType as P;
use ReasonCode as R;

/// Each code with the packets that may carry it (v5 table 2-6), in the order of the codes.
const CODES: [(ReasonCode, &[PacketType]); 43] = [
    (
        R::Success,
        &[P::ConnAck, P::PubAck, P::PubRec, P::PubRel, P::PubComp, P::SubAck, P::UnsubAck, P::Disconnect, P::Auth],
    ),
    (R::GrantedQoS1, &[P::SubAck]),
    (R::GrantedQoS2, &[P::SubAck]),
    (R::DisconnectWithWillMessage, &[P::Disconnect]),
    (R::NoMatchingSubscribers, &[P::PubAck, P::PubRec]),
    (R::NoSubscriptionExisted, &[P::UnsubAck]),
    (R::ContinueAuthentication, &[P::Auth]),
    (R::ReAuthenticate, &[P::Auth]),
    (R::UnspecifiedError, &[P::ConnAck, P::PubAck, P::PubRec, P::SubAck, P::UnsubAck, P::Disconnect]),
    (R::MalformedPacket, &[P::ConnAck, P::Disconnect]),
    (R::ProtocolError, &[P::ConnAck, P::Disconnect]),
    (R::ImplementationSpecificError, &[P::ConnAck, P::PubAck, P::PubRec, P::SubAck, P::UnsubAck, P::Disconnect]),
    (R::UnsupportedProtocolVersion, &[P::ConnAck]),
    (R::ClientIdentifierNotValid, &[P::ConnAck]),
    (R::BadUserNameOrPassword, &[P::ConnAck]),
    (R::NotAuthorized, &[P::ConnAck, P::PubAck, P::PubRec, P::SubAck, P::UnsubAck, P::Disconnect]),
    (R::ServerUnavailable, &[P::ConnAck]),
    (R::ServerBusy, &[P::ConnAck, P::Disconnect]),
    (R::Banned, &[P::ConnAck]),
    (R::ServerShuttingDown, &[P::Disconnect]),
    (R::BadAuthenticationMethod, &[P::ConnAck, P::Disconnect]),
    (R::KeepAliveTimeout, &[P::Disconnect]),
    (R::SessionTakenOver, &[P::Disconnect]),
    (R::TopicFilterInvalid, &[P::SubAck, P::UnsubAck, P::Disconnect]),
    (R::TopicNameInvalid, &[P::ConnAck, P::PubAck, P::PubRec, P::Disconnect]),
    (R::PacketIdentifierInUse, &[P::PubAck, P::PubRec, P::SubAck, P::UnsubAck]),
    (R::PacketIdentifierNotFound, &[P::PubRel, P::PubComp]),
    (R::ReceiveMaximumExceeded, &[P::Disconnect]),
    (R::TopicAliasInvalid, &[P::Disconnect]),
    (R::PacketTooLarge, &[P::ConnAck, P::Disconnect]),
    (R::MessageRateTooHigh, &[P::Disconnect]),
    (R::QuotaExceeded, &[P::ConnAck, P::PubAck, P::PubRec, P::SubAck, P::Disconnect]),
    (R::AdministrativeAction, &[P::Disconnect]),
    (R::PayloadFormatInvalid, &[P::ConnAck, P::PubAck, P::PubRec, P::Disconnect]),
    (R::RetainNotSupported, &[P::ConnAck, P::Disconnect]),
    (R::QoSNotSupported, &[P::ConnAck, P::Disconnect]),
    (R::UseAnotherServer, &[P::ConnAck, P::Disconnect]),
    (R::ServerMoved, &[P::ConnAck, P::Disconnect]),
    (R::SharedSubscriptionsNotSupported, &[P::SubAck, P::Disconnect]),
    (R::ConnectionRateExceeded, &[P::ConnAck, P::Disconnect]),
    (R::MaximumConnectTime, &[P::Disconnect]),
    (R::SubscriptionIdentifiersNotSupported, &[P::SubAck, P::Disconnect]),
    (R::WildcardSubscriptionsNotSupported, &[P::SubAck, P::Disconnect]),
];

impl ReasonCode {
    /// The code with this number, if `packet` may carry it.
    pub fn from_byte(byte: u8, packet: PacketType) -> Option<Self> {
        let at = CODES.binary_search_by_key(&byte, |(code, _)| *code as u8).ok()?;
        let (code, packets) = CODES[at];
        packets.contains(&packet).then_some(code)
    }

    /// Whether it tells of a failure: 0x80 and above.
    #[inline]
    pub fn is_error(self) -> bool {
        self as u8 >= 0x80
    }

    /// The CONNACK return code of MQTT 3.1 and 3.1.1 that comes nearest; None where the connection is closed
    /// without CONNACK (v3.1.1 MQTT-3.2.2-6).
    pub fn v3_connect_return_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0x00),
            Self::UnsupportedProtocolVersion => Some(0x01),
            Self::ClientIdentifierNotValid => Some(0x02),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => Some(0x03),
            Self::BadUserNameOrPassword => Some(0x04),
            Self::NotAuthorized | Self::Banned => Some(0x05),
            _ => None,
        }
    }

    /// The Reason Code that a v3 CONNACK return code stands for; None for reserved ones.
    pub fn from_v3_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0x00 => Some(Self::Success),
            0x01 => Some(Self::UnsupportedProtocolVersion),
            0x02 => Some(Self::ClientIdentifierNotValid),
            0x03 => Some(Self::ServerUnavailable),
            0x04 => Some(Self::BadUserNameOrPassword),
            0x05 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_found() {
        assert!(CODES.is_sorted_by_key(|(code, _)| *code as u8));
        for (code, packets) in CODES {
            for packet in PacketType::ALL {
                let found = ReasonCode::from_byte(code as u8, packet);
                assert_eq!(found, packets.contains(&packet).then_some(code));
            }
        }
        assert_eq!(ReasonCode::from_byte(0x03, PacketType::SubAck), None);
        assert_eq!(ReasonCode::from_byte(0xff, PacketType::Disconnect), None);
    }

    #[test]
    fn v3_return_codes_go_there_and_back() {
        for code in 0..=5 {
            let reason = ReasonCode::from_v3_connect_return_code(code);
            assert_eq!(reason.and_then(ReasonCode::v3_connect_return_code), Some(code));
        }
        assert_eq!(ReasonCode::from_v3_connect_return_code(6), None);
    }
}
