//! SUBSCRIBE and UNSUBSCRIBE: what is asked, what is answered, and what holds.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use pantala_proto::{
    Disconnect, PacketId, ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions, TopicFilter, UnsubAck,
    Unsubscribe,
};
use pantala_session::Instant;

use super::connect::pairs;
use super::{Answered, Details, Event, Machine, Phase, Token, seconds};
use crate::error::{ConnectionError, Refusal, SubscribeError, Violation};
use crate::message::is_text;

/// Requests that wait to be sent; above it nothing more is taken.
pub const REQUESTS_WAITING_MAX: usize = 1_000;
/// Requests that wait for their answer; above it they wait to be sent.
const REQUESTS_AWAITING_MAX: usize = 100;
/// Filters of one SUBSCRIBE when we subscribe again by ourselves.
const FILTERS_PER_PACKET: usize = 50;

/// A SUBSCRIBE to come.
#[derive(Debug, Clone, Default)]
pub struct SubscribeRequest {
    /// Filters with their options; one at least.
    pub filters: Vec<(String, SubscriptionOptions)>,
    /// Comes back with the messages, where the broker knows such a thing. MQTT 5.
    pub identifier: Option<NonZeroU32>,
    /// Pairs for the broker. MQTT 5.
    pub user_properties: Vec<(String, String)>,
}

/// An UNSUBSCRIBE to come.
#[derive(Debug, Clone, Default)]
pub struct UnsubscribeRequest {
    /// Filters; one at least.
    pub filters: Vec<String>,
    /// Pairs for the broker. MQTT 5.
    pub user_properties: Vec<(String, String)>,
}

impl UnsubscribeRequest {
    /// One without pairs.
    pub(crate) fn of(filters: Vec<String>) -> Self {
        Self { filters, user_properties: Vec::new() }
    }
}

/// A DISCONNECT to come.
#[derive(Debug, Clone)]
pub struct DisconnectRequest {
    /// Why. Default: Success, a normal end. With [`ReasonCode::DisconnectWithWillMessage`] the broker publishes the Will. MQTT 5.
    pub reason_code: ReasonCode,
    /// Another Session Expiry Interval, [`Duration::MAX`] for ever; ignored if CONNECT had 0. Default: the old one. MQTT 5.
    pub session_expiry_interval: Option<Duration>,
    /// A sentence for people. Left out, as are the pairs, if the broker takes no packet as long. MQTT 5.
    pub reason_string: Option<String>,
    /// Pairs for the broker. MQTT 5.
    pub user_properties: Vec<(String, String)>,
}

impl Default for DisconnectRequest {
    fn default() -> Self {
        Self {
            reason_code: ReasonCode::Success,
            session_expiry_interval: None,
            reason_string: None,
            user_properties: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
enum Kind {
    Subscribe(SubscribeRequest),
    Unsubscribe(UnsubscribeRequest),
}

#[derive(Debug, Clone)]
struct Request {
    /// None if we ask by ourselves, to subscribe again.
    token: Option<Token>,
    kind: Kind,
}

/// A subscription that the broker has granted.
#[derive(Debug, Clone)]
struct Held {
    filter: String,
    options: SubscriptionOptions,
    identifier: Option<NonZeroU32>,
}

#[derive(Default)]
pub(super) struct Requests {
    waiting: VecDeque<Request>,
    awaiting: VecDeque<(PacketId, Request)>,
    held: Vec<Held>,
}

impl Requests {
    pub(super) fn connection_lost(&mut self, packet_ids: &mut Vec<PacketId>) {
        packet_ids.clear();
        while let Some((_, request)) = self.awaiting.pop_back() {
            self.waiting.push_front(request);
        }
    }

    /// The broker knows none of our subscriptions: they go out again, before what waits.
    pub(super) fn session_lost(&mut self) {
        self.waiting.retain(|request| request.token.is_some());
        let mut again: Vec<SubscribeRequest> = Vec::new();
        for held in &self.held {
            let mut options = held.options;
            // What was asked only of a new subscription has been answered.
            if options.retain_handling == RetainHandling::SendIfNew {
                options.retain_handling = RetainHandling::DoNotSend;
            }
            let filter = (held.filter.clone(), options);
            match again.last_mut() {
                Some(last) if last.identifier == held.identifier && last.filters.len() < FILTERS_PER_PACKET => {
                    last.filters.push(filter);
                }
                _ => again.push(SubscribeRequest {
                    filters: vec![filter],
                    identifier: held.identifier,
                    user_properties: Vec::new(),
                }),
            }
        }
        for request in again.into_iter().rev() {
            self.waiting.push_front(Request { token: None, kind: Kind::Subscribe(request) });
        }
    }

    fn hold(&mut self, held: Held) {
        match self.held.iter_mut().find(|known| known.filter == held.filter) {
            Some(known) => *known = held,
            None => self.held.push(held),
        }
    }

    /// The request that this answers, unless it does not fit: then the request stays, and goes out again on the next connection.
    fn take_awaiting(&mut self, packet_id: PacketId, fits: impl Fn(&Kind) -> bool) -> Option<Request> {
        let at = self.awaiting.iter().position(|(known, request)| *known == packet_id && fits(&request.kind))?;
        Some(self.awaiting.remove(at)?.1)
    }
}

impl Machine {
    /// Subscribes, now or when there is a connection, and again by itself when the broker has lost the Session.
    /// [`Event::Subscribed`] has the answer.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn subscribe(&mut self, now: Instant, request: SubscribeRequest, token: Token) -> Result<(), SubscribeError> {
        self.check_subscribe(&request, 1)?;
        self.request(now, Request { token: Some(token), kind: Kind::Subscribe(request) })
    }

    /// Whether a request is right, and there is room for the `count` that it becomes.
    pub(crate) fn check_subscribe(&self, request: &SubscribeRequest, count: usize) -> Result<(), SubscribeError> {
        if request.filters.is_empty() {
            return Err(SubscribeError::NoFilter);
        }
        let v5 = self.version().is_v5();
        for (filter, options) in &request.filters {
            let parsed = parse(filter)?;
            let beyond_qos = SubscriptionOptions { qos: options.qos, ..SubscriptionOptions::default() };
            if !v5 && *options != beyond_qos {
                return Err(SubscribeError::NeedsV5);
            }
            if options.no_local && matches!(parsed, TopicFilter::Shared(_)) {
                return Err(SubscribeError::NoLocalShared);
            }
        }
        self.check_user_properties(&request.user_properties)?;
        let room = REQUESTS_WAITING_MAX.saturating_sub(self.requests.waiting.len());
        if count > room { Err(SubscribeError::QueueFull) } else { Ok(()) }
    }

    /// Ends subscriptions, now or when there is a connection. [`Event::Unsubscribed`] has the answer.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn unsubscribe(
        &mut self,
        now: Instant,
        request: UnsubscribeRequest,
        token: Token,
    ) -> Result<(), SubscribeError> {
        if request.filters.is_empty() {
            return Err(SubscribeError::NoFilter);
        }
        for filter in &request.filters {
            parse(filter)?;
        }
        self.check_user_properties(&request.user_properties)?;
        self.request(now, Request { token: Some(token), kind: Kind::Unsubscribe(request) })
    }

    fn check_user_properties(&self, user_properties: &[(String, String)]) -> Result<(), SubscribeError> {
        if !self.version().is_v5() && !user_properties.is_empty() {
            return Err(SubscribeError::NeedsV5);
        }
        let fit = user_properties.iter().all(|(key, value)| is_text(key) && is_text(value));
        fit.then_some(()).ok_or(SubscribeError::UserProperty)
    }

    fn request(&mut self, now: Instant, request: Request) -> Result<(), SubscribeError> {
        if self.requests.waiting.len() >= REQUESTS_WAITING_MAX {
            return Err(SubscribeError::QueueFull);
        }
        if let Kind::Unsubscribe(unsubscribe) = &request.kind {
            // Whatever the broker answers, we do not ask for these again.
            self.requests.held.retain(|held| !unsubscribe.filters.contains(&held.filter));
        }
        self.requests.waiting.push_back(request);
        self.send_requests(now);
        Ok(())
    }

    pub(super) fn send_requests(&mut self, _now: Instant) {
        while self.phase == Phase::Open && self.requests.awaiting.len() < REQUESTS_AWAITING_MAX {
            let Some(request) = self.requests.waiting.pop_front() else { return };
            if let Err(error) = self.check_request(&request.kind) {
                self.cannot_send(request, error);
                continue;
            }
            let packet_id = self.outbound.take_packet_id();
            let start = self.output.len();
            self.encode_request(packet_id, &request.kind);
            let bytes = self.output.len() - start;
            let maximum = self.limits.maximum_packet_size.map_or(u32::MAX, u32::from) as usize;
            if bytes > maximum {
                self.output.truncate(start);
                self.cannot_send(request, SubscribeError::PacketTooLarge);
                continue;
            }
            self.outbound.others_mut().push(packet_id);
            self.requests.awaiting.push_back((packet_id, request));
        }
    }

    /// A request is not sent. One of our own is tried in parts; a filter that cannot be sent alone is lost.
    fn cannot_send(&mut self, request: Request, error: SubscribeError) {
        let Request { token: None, kind: Kind::Subscribe(mut first) } = request else {
            return self.answer(request, Err(error));
        };
        if first.filters.len() > 1 {
            let filters = first.filters.split_off(first.filters.len() / 2);
            let second = SubscribeRequest { filters, ..first.clone() };
            for part in [second, first] {
                self.requests.waiting.push_front(Request { token: None, kind: Kind::Subscribe(part) });
            }
            return;
        }
        // What the broker would have answered.
        let reason_code = match error {
            SubscribeError::WildcardUnsupported => ReasonCode::WildcardSubscriptionsNotSupported,
            SubscribeError::SharedUnsupported => ReasonCode::SharedSubscriptionsNotSupported,
            SubscribeError::PacketTooLarge => ReasonCode::PacketTooLarge,
            _ => ReasonCode::UnspecifiedError,
        };
        for (filter, _) in first.filters {
            self.subscription_lost(filter, Refusal { reason_code, details: Details::default() });
        }
    }

    fn subscription_lost(&mut self, filter: String, refusal: Refusal) {
        self.requests.held.retain(|held| held.filter != filter);
        self.events.push_back(Event::SubscriptionLost { filter, refusal });
    }

    /// What CONNACK forbids.
    fn check_request(&self, kind: &Kind) -> Result<(), SubscribeError> {
        let Kind::Subscribe(request) = kind else { return Ok(()) };
        for (filter, _) in &request.filters {
            let parsed = parse(filter)?;
            if parsed.has_wildcard() && !self.limits.wildcard_subscription_available {
                return Err(SubscribeError::WildcardUnsupported);
            }
            if matches!(parsed, TopicFilter::Shared(_)) && !self.limits.shared_subscription_available {
                return Err(SubscribeError::SharedUnsupported);
            }
        }
        Ok(())
    }

    pub(super) fn encode_disconnect(&mut self, request: &DisconnectRequest) {
        let pairs_that_fit = request.user_properties.iter().filter(|(key, value)| is_text(key) && is_text(value));
        let disconnect = Disconnect {
            // It must not be set where CONNECT had 0 (v5 section 3.14.2.2.2).
            session_expiry_interval: request
                .session_expiry_interval
                .filter(|_| self.settings.session_expiry_seconds() > 0)
                .map(seconds),
            reason_string: request.reason_string.as_deref().filter(|text| is_text(text)),
            user_properties: pairs_that_fit.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            ..Disconnect::new(request.reason_code)
        };
        let packet_bytes_max = self.limits.maximum_packet_size.map_or(u32::MAX, u32::from);
        disconnect.encode_within(self.settings.version, packet_bytes_max, &mut self.output);
    }

    fn encode_request(&mut self, packet_id: PacketId, kind: &Kind) {
        let version = self.settings.version;
        match kind {
            Kind::Subscribe(request) => Subscribe {
                packet_id,
                subscription_identifier: request
                    .identifier
                    .filter(|_| version.is_v5() && self.limits.subscription_identifier_available),
                user_properties: pairs(&request.user_properties),
                filters: request.filters.iter().map(|(filter, options)| (filter.as_str(), *options)).collect(),
            }
            .encode(version, &mut self.output),
            Kind::Unsubscribe(request) => Unsubscribe {
                packet_id,
                user_properties: pairs(&request.user_properties),
                filters: request.filters.iter().map(String::as_str).collect(),
            }
            .encode(version, &mut self.output),
        }
    }

    pub(super) fn handle_sub_ack(&mut self, sub_ack: &SubAck<'_>) -> Result<(), ConnectionError> {
        let violation = ConnectionError::Protocol(Violation::RequestAnswer);
        let fits = |kind: &Kind| matches!(kind, Kind::Subscribe(subscribe) if subscribe.filters.len() == sub_ack.reason_codes.len());
        let request = self.take_request(sub_ack.packet_id, fits).ok_or(violation.clone())?;
        let Kind::Subscribe(subscribe) = &request.kind else { return Err(violation) };
        let details = Details::of(sub_ack.reason_string, &sub_ack.user_properties);
        for ((filter, options), &reason_code) in subscribe.filters.iter().zip(&sub_ack.reason_codes) {
            if !reason_code.is_error() {
                let (filter, options) = (filter.clone(), *options);
                self.requests.hold(Held { filter, options, identifier: subscribe.identifier });
            } else if request.token.is_none() {
                let refusal = Refusal { reason_code, details: details.clone() };
                self.subscription_lost(filter.clone(), refusal);
            }
        }
        self.answer(request, outcome(sub_ack.reason_codes.clone(), details));
        self.send_requests(Instant::default());
        Ok(())
    }

    pub(super) fn handle_unsub_ack(&mut self, unsub_ack: &UnsubAck<'_>) -> Result<(), ConnectionError> {
        let violation = ConnectionError::Protocol(Violation::RequestAnswer);
        let v5 = self.version().is_v5();
        let fits = |kind: &Kind| matches!(kind, Kind::Unsubscribe(it) if !v5 || it.filters.len() == unsub_ack.reason_codes.len());
        let request = self.take_request(unsub_ack.packet_id, fits).ok_or(violation)?;
        let details = Details::of(unsub_ack.reason_string, &unsub_ack.user_properties);
        self.answer(request, outcome(unsub_ack.reason_codes.clone(), details));
        self.send_requests(Instant::default());
        Ok(())
    }

    fn take_request(&mut self, packet_id: PacketId, fits: impl Fn(&Kind) -> bool) -> Option<Request> {
        let request = self.requests.take_awaiting(packet_id, fits)?;
        self.outbound.others_mut().retain(|known| *known != packet_id);
        Some(request)
    }

    fn answer(&mut self, request: Request, outcome: Result<Answered, SubscribeError>) {
        let Some(token) = request.token else { return };
        self.events.push_back(match request.kind {
            Kind::Subscribe(_) => Event::Subscribed { token, outcome },
            Kind::Unsubscribe(_) => Event::Unsubscribed { token, outcome },
        });
    }
}

/// An error if every filter was refused.
fn outcome(reason_codes: Vec<pantala_proto::ReasonCode>, details: Details) -> Result<Answered, SubscribeError> {
    match reason_codes.first() {
        Some(&reason_code) if reason_codes.iter().all(|code| code.is_error()) => {
            Err(SubscribeError::Refused(Box::new(Refusal { reason_code, details })))
        }
        _ => Ok(Answered { reason_codes, details }),
    }
}

fn parse(filter: &str) -> Result<TopicFilter<'_>, SubscribeError> {
    TopicFilter::parse(filter)
        .ok()
        .filter(|_| is_text(filter))
        .ok_or_else(|| SubscribeError::TopicFilter(filter.to_owned()))
}
