//! CONNECT and CONNACK.

use std::time::Duration;

use pantala_proto::{ConnAck, Connect, ConnectProperties, ProtocolVersion, PublishProperties, Will as WillPacket};
use pantala_session::{Instant, SentAliases};

use super::authenticate::{Method, Step, authentication_error};
use super::{Connected, Details, Event, Machine, Phase, ServerLimits, UnknownSession, seconds};
use crate::error::{ConnectionError, Refusal, Violation};
use crate::message::{STRING_BYTES_MAX, is_text};

impl Machine {
    /// There is a connection: CONNECT is in the output.
    pub fn connection_made(&mut self, now: Instant) {
        debug_assert_eq!(self.phase, Phase::Offline);
        self.phase = Phase::Connecting;
        if let Some(why) = self.unsendable() {
            return self.fail(ConnectionError::Settings(why));
        }
        let first = match self.method.as_ref().map(|method| method.lock().start()) {
            None => None,
            Some(Ok(first)) => first,
            Some(Err(error)) => return self.fail(authentication_error(&error)),
        };
        let authentication_method = self.method.as_ref().map(Method::name);
        let settings = &self.settings;
        let session_expiry = settings.session_expiry_seconds();
        let will = settings.will.as_ref().map(|will| WillPacket {
            qos: will.message.qos,
            retain: will.message.retain,
            delay_interval: seconds(will.delay),
            properties: PublishProperties::new(will.message.properties.section()).unwrap_or_default(),
            topic_name: &will.message.topic_name,
            payload: &will.message.payload,
        });
        Connect {
            version: settings.version,
            bridge: false,
            clean_start: settings.clean_start && !(self.was_open && settings.outlives_connection()),
            keep_alive: u16::try_from(seconds(settings.keep_alive)).unwrap_or(u16::MAX),
            properties: ConnectProperties {
                session_expiry_interval: (session_expiry > 0).then_some(session_expiry),
                receive_maximum: Some(settings.receive_maximum).filter(|maximum| maximum.get() < u16::MAX),
                maximum_packet_size: settings.maximum_packet_size,
                topic_alias_maximum: Some(settings.topic_alias_maximum).filter(|maximum| *maximum > 0),
                request_response_information: settings.request_response_information,
                request_problem_information: settings.request_problem_information,
                authentication_method,
                authentication_data: first.as_deref(),
                user_properties: pairs(&settings.user_properties),
            },
            client_id: &settings.client_id,
            will,
            user_name: settings.user_name.as_deref(),
            password: settings.password.as_deref(),
        }
        .encode(&mut self.output);
        self.asked = Some(now);
        self.last_sent = now;
        self.last_received = now;
    }

    /// What CONNECT cannot say.
    fn unsendable(&self) -> Option<&'static str> {
        let settings = &self.settings;
        let user_name = settings.user_name.as_deref().unwrap_or_default();
        let will = settings.will.as_ref().map(|will| &will.message);
        let mut pairs = settings.user_properties.iter();
        let checks = [
            (!is_text(&settings.client_id), "the Client Identifier is longer than 65535 bytes or holds U+0000"),
            (!is_text(user_name), "the User Name is longer than 65535 bytes or holds U+0000"),
            (
                settings.password.as_ref().is_some_and(|password| password.len() > STRING_BYTES_MAX),
                "the Password is longer than 65535 bytes",
            ),
            (
                !pairs.all(|(key, value)| is_text(key) && is_text(value)),
                "a User Property is longer than 65535 bytes or holds U+0000",
            ),
            (will.is_some_and(|will| self.check(will).is_err()), "the Will Message could not be published"),
            (
                will.is_some_and(|will| will.payload.len() > STRING_BYTES_MAX),
                "the payload of the Will Message is longer than 65535 bytes",
            ),
            // v3.1.1 MQTT-3.1.2-22.
            (
                !settings.version.is_v5() && settings.password.is_some() && settings.user_name.is_none(),
                "a Password without a User Name needs MQTT 5",
            ),
            // v3.1.1 MQTT-3.1.3-7.
            (
                !settings.version.is_v5() && settings.client_id.is_empty() && !settings.clean_start,
                "a Session that is kept needs a Client Identifier",
            ),
        ];
        checks.into_iter().find_map(|(wrong, why)| wrong.then_some(why))
    }

    pub(super) fn handle_conn_ack(&mut self, now: Instant, conn_ack: &ConnAck<'_>) -> Result<(), ConnectionError> {
        self.asked = None;
        let details = Details::of(conn_ack.reason_string, &conn_ack.user_properties);
        if conn_ack.reason_code.is_error() {
            return Err(ConnectionError::Refused {
                refusal: Box::new(Refusal { reason_code: conn_ack.reason_code, details }),
                server_reference: conn_ack.server_reference.map(str::to_owned),
            });
        }
        let clean = self.settings.clean_start && !(self.was_open && self.settings.outlives_connection());
        if conn_ack.session_present && clean && self.version() != ProtocolVersion::V31 {
            return Err(ConnectionError::Protocol(Violation::SessionPresent));
        }
        // Before anything else is believed: who answers may not be the broker.
        match (&self.method, conn_ack.authentication_method) {
            // It asked for something, and did not wait for it.
            (Some(_), _) if !matches!(self.step, Step::None) => {
                return Err(ConnectionError::Protocol(Violation::Auth));
            }
            (Some(method), _) => {
                method.lock().finish(conn_ack.authentication_data).map_err(|error| authentication_error(&error))?;
            }
            (None, Some(_)) => return Err(ConnectionError::Protocol(Violation::Auth)),
            (None, None) => {}
        }
        let knows_session = self.was_open || self.was_restored;
        let closes = self.settings.unknown_session == UnknownSession::Close && self.version() != ProtocolVersion::V31;
        if conn_ack.session_present && closes && !knows_session {
            return Err(ConnectionError::Protocol(Violation::UnknownSession));
        }
        self.phase = Phase::Open;
        self.was_open = true;
        self.limits = ServerLimits {
            receive_maximum: conn_ack.receive_maximum.unwrap_or(std::num::NonZeroU16::MAX),
            maximum_packet_size: conn_ack.maximum_packet_size,
            maximum_qos: conn_ack.maximum_qos,
            retain_available: conn_ack.retain_available,
            topic_alias_maximum: conn_ack.topic_alias_maximum.unwrap_or(0),
            wildcard_subscription_available: conn_ack.wildcard_subscription_available,
            subscription_identifier_available: conn_ack.subscription_identifier_available,
            shared_subscription_available: conn_ack.shared_subscription_available,
        };
        self.sent_aliases = SentAliases::new(self.limits.topic_alias_maximum.min(self.settings.sent_topic_aliases));
        self.session_expiry = conn_ack.session_expiry_interval.filter(|_| self.version().is_v5());
        // The broker's Keep Alive replaces ours (v5 MQTT-3.2.2-21).
        let keep_alive = conn_ack.server_keep_alive;
        self.keep_alive =
            keep_alive.map_or(self.settings.keep_alive, |seconds| Duration::from_secs(u64::from(seconds)));
        // A name of our own stays: the broker gives one only to who comes without (v5 MQTT-3.2.2-16).
        if let Some(assigned) = conn_ack.assigned_client_identifier.filter(|_| self.settings.client_id.is_empty()) {
            assigned.clone_into(&mut self.settings.client_id);
        }
        self.events.push_back(Event::Connected(Box::new(Connected {
            session_present: conn_ack.session_present,
            client_id: self.settings.client_id.clone(),
            limits: self.limits,
            keep_alive: u16::try_from(seconds(self.keep_alive)).unwrap_or(u16::MAX),
            session_expiry_interval: match self.session_expiry {
                Some(seconds) => seconds,
                None if self.version().is_v5() => self.settings.session_expiry_seconds(),
                None => 0,
            },
            response_information: conn_ack.response_information.map(str::to_owned),
            details,
        })));
        if !conn_ack.session_present && (clean || self.version() != ProtocolVersion::V31) {
            self.session_lost();
        } else if !conn_ack.session_present {
            // MQTT 3.1 does not say. Exchanges go on, as they must if there is a Session; to subscribe again does no harm.
            self.requests.session_lost();
        }
        self.send_requests(now);
        self.pump(now);
        Ok(())
    }

    /// The broker has no Session of ours: what only it could have finished begins anew, and we subscribe again.
    fn session_lost(&mut self) {
        self.exchanges_lost();
        self.receiver.session_lost();
        self.requests.session_lost();
    }
}

pub(super) fn pairs<'p>(pairs: &'p [(String, String)]) -> pantala_proto::UserProperties<'p> {
    pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}
