//! SUBSCRIBE and UNSUBSCRIBE.

use std::collections::HashMap;
use std::sync::Arc;

use pantala_proto::{
    PacketId, ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions, TopicFilter, UnsubAck, Unsubscribe,
    UserProperties, topic_levels,
};
use pantala_session::Instant;
use pantala_store::{Position, Record, Store};

use crate::access::Access;
use crate::connection::Answer;
use crate::core::{Core, Flow, Target, Then};
use crate::mailbox::Frame;
use crate::replay::Replay;
use crate::session::{Grant, SessionKey, Subscription};
use crate::shared::Member;
use crate::{Cause, ConnectionKey, Event, Settings, Trip, access, owner};

/// What came of one filter of a SUBSCRIBE.
struct Subscribed {
    code: ReasonCode,
    position: Position,
    /// A token that other workers have to confirm before the subscription is complete.
    announcement: Option<u32>,
    replay: Option<Replay>,
    /// Why not.
    cause: Option<Cause>,
}

impl<S: Store> Core<S> {
    pub(crate) fn subscribe(&mut self, now: Instant, key: ConnectionKey, subscribe: &Subscribe<'_>) -> Flow {
        let connection = &self.connections[key as usize];
        let (version, bytes_max) = (connection.version, connection.packet_bytes_max);
        let problem_information = connection.problem_information;
        let told = Arc::clone(&connection.told);
        let bridge = connection.extras.as_ref().is_some_and(|extras| extras.bridge);
        let Some(session) = connection.session else { return Flow::Stop };
        if subscribe.user_properties.iter().count() > usize::from(self.settings.user_properties_per_packet_max) {
            let cause = Cause::setting("user_properties_per_packet_max", self.settings.user_properties_per_packet_max);
            return self.break_off(now, key, ReasonCode::QuotaExceeded, cause);
        }
        // What ends the connection is found before anything is done.
        for (text, options) in subscribe.filters.iter() {
            if topic_levels(text) > usize::from(self.settings.topic_levels_max) {
                let cause = Cause::setting("topic_levels_max", self.settings.topic_levels_max);
                return self.break_off(now, key, ReasonCode::MalformedPacket, cause);
            }
            // v5 MQTT-3.8.3-4.
            if options.no_local && text.starts_with("$share/") {
                return self.break_off(now, key, ReasonCode::ProtocolError, Cause::NoLocal);
            }
        }
        let mut cause = None;
        let mut packet = SubAck {
            packet_id: subscribe.packet_id,
            reason_codes: Vec::new(),
            reason_string: None,
            user_properties: UserProperties::none(),
        };
        let (mut position, mut announcements, mut replays) = (Position::default(), Vec::new(), Vec::<Replay>::new());
        // A filter that is named again is made anew: its Retained Messages are sent once.
        let mut places = HashMap::new();
        for (written, mut options) in subscribe.filters.iter() {
            // What a bridge passes on does not come back to it, and is retained there, too.
            options.no_local |= bridge;
            options.retain_as_published |= bridge;
            let mounted = self.sessions[session as usize].access.mounted_filter(written);
            let text = mounted.as_deref().unwrap_or(written);
            let checked = self.check_filter(&told, session, written, text, subscribe);
            let subscribed = match checked {
                Ok(filter) => {
                    let grant = Grant::new(options, subscribe.subscription_identifier);
                    self.subscribe_one(session, text, filter, options, grant)
                }
                Err((code, why)) => Subscribed { code, position, announcement: None, replay: None, cause: Some(why) },
            };
            packet.reason_codes.push(subscribed.code);
            cause = subscribed.cause.or(cause);
            position = position.max(subscribed.position);
            let place = subscribed.replay.map(|replay| {
                let place = *places.entry(written).or_insert(replays.len());
                match replays.get_mut(place) {
                    Some(old) => *old = replay,
                    None => replays.push(replay),
                }
                place as u32
            });
            announcements.extend(subscribed.announcement.map(|token| (token, place)));
        }
        let reason = cause.filter(|_| problem_information && version.is_v5()).map(|cause| cause.to_string());
        packet.reason_string = reason.as_deref();
        let mut bytes = Vec::new();
        packet.encode_within(version, bytes_max, &mut bytes);
        let waiting = announcements.len() as u32;
        let number = self.answer(key, position, waiting, Answer::Packet(bytes.into(), replays));
        let generation = self.connections[key as usize].generation;
        for (token, replay) in announcements {
            if let (Some(number), Some(pending)) = (number, self.pending.get_mut(&token)) {
                pending.then.push(Then::Held { connection: key, generation, number, replay });
            }
        }
        Flow::Continue
    }

    fn check_filter<'t>(
        &self,
        told: &Settings,
        session: SessionKey,
        written: &str,
        text: &'t str,
        subscribe: &Subscribe<'_>,
    ) -> Result<TopicFilter<'t>, (ReasonCode, Cause)> {
        let settings = &*self.settings;
        let invalid = |error| (ReasonCode::TopicFilterInvalid, Cause::Filter(error));
        // What is wrong may not be so with a mount point before it.
        TopicFilter::parse(written).map_err(invalid)?;
        let filter = TopicFilter::parse(text).map_err(invalid)?;
        if text.len() > usize::from(settings.topic_bytes_max) {
            return Err((ReasonCode::TopicFilterInvalid, Cause::setting("topic_bytes_max", settings.topic_bytes_max)));
        }
        let share = match filter {
            TopicFilter::Shared(share) => Some(share),
            TopicFilter::Plain(_) => None,
        };
        if share.is_some() && !told.shared_subscription_available {
            return Err((
                ReasonCode::SharedSubscriptionsNotSupported,
                Cause::setting("shared_subscription_available", false),
            ));
        }
        if filter.has_wildcard() && !told.wildcard_subscription_available {
            return Err((
                ReasonCode::WildcardSubscriptionsNotSupported,
                Cause::setting("wildcard_subscription_available", false),
            ));
        }
        if subscribe.subscription_identifier.is_some() && !told.subscription_identifiers_available {
            return Err((
                ReasonCode::SubscriptionIdentifiersNotSupported,
                Cause::setting("subscription_identifiers_available", false),
            ));
        }
        match access::subscribe(&self.sessions[session as usize].access, filter.filter(), share) {
            Ok(()) => Ok(filter),
            Err(access::Denied) => Err((ReasonCode::NotAuthorized, Cause::TopicFilter)),
        }
    }

    fn subscribe_one(
        &mut self,
        key: SessionKey,
        text: &str,
        filter: TopicFilter<'_>,
        options: SubscriptionOptions,
        grant: Grant,
    ) -> Subscribed {
        let subscriptions_max = self.settings.subscriptions_per_session_max as usize;
        let shared = matches!(filter, TopicFilter::Shared(_));
        let session = &mut self.sessions[key as usize];
        let new = !session.subscriptions.contains(text);
        if session.number.is_some() && !self.store.accepts() {
            let (code, cause) = (ReasonCode::QuotaExceeded, Some(Cause::Store));
            return Subscribed { code, position: Position::default(), announcement: None, replay: None, cause };
        }
        if new {
            if session.subscriptions.len() >= subscriptions_max {
                let (code, limit) = (ReasonCode::QuotaExceeded, self.settings.subscriptions_per_session_max);
                let cause = Cause::setting("subscriptions_per_session_max", limit);
                self.counters.subscriptions_refused_limit += 1;
                self.trip(Trip::Subscription, Some(key), cause);
                let cause = Some(cause);
                return Subscribed { code, position: Position::default(), announcement: None, replay: None, cause };
            }
            session.shared_subscriptions += u32::from(shared);
        }
        // One that was disabled is none to the router.
        let old = session.subscriptions.insert(text, Subscription::new(shared, grant));
        let routed = old.is_some_and(|old| !old.disabled);
        let recorded = !mutant!(SubscribeForgotten) || session.subscriptions.len() == 1;
        let mut position = Position::default();
        let number = session.number;
        if let Some(session) = number.filter(|_| recorded) {
            let (options, identifier) = (grant.options(), grant.identifier);
            let record = Record::Subscription { session, filter: text, options, identifier };
            position = self.store.append(&record);
        }
        let mut replay = None;
        let announcement = if shared {
            self.join(key, text, grant)
        } else {
            self.tree.insert(filter.filter(), Target::Session(key), grant);
            let wanted = match options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => new,
                RetainHandling::DoNotSend => false,
            };
            // Before the interest is announced: what was seen until now is all that will not come live.
            let seen = wanted.then(|| self.writes_seen.clone());
            let announcement = if !routed {
                self.interest_added(filter.filter(), number.is_some())
            } else {
                self.announcement_of(filter.filter())
            };
            replay = seen.map(|seen| Replay::new(filter.filter(), grant, &seen, announcement));
            announcement
        };
        if self.wanted.subscriptions {
            let client_id = self.sessions[key as usize].client_id.clone();
            self.events.push_back(Event::Subscribed { client_id, filter: text.into(), qos: grant.qos });
        }
        let code = match grant.qos {
            pantala_proto::QoS::AtMostOnce => ReasonCode::Success,
            pantala_proto::QoS::AtLeastOnce => ReasonCode::GrantedQoS1,
            pantala_proto::QoS::ExactlyOnce => ReasonCode::GrantedQoS2,
        };
        Subscribed { code, position, announcement, replay, cause: None }
    }

    fn announcement_of(&self, filter: &str) -> Option<u32> {
        let token = self.interests.get(filter)?.announcement?;
        self.pending.contains_key(&token).then_some(token)
    }

    /// A Session of this worker joins a group, wherever that is at home.
    pub(crate) fn join(&mut self, key: SessionKey, whole_filter: &str, grant: Grant) -> Option<u32> {
        let session = &self.sessions[key as usize];
        let member = session.member(self.worker, key);
        let connected = session.connection.is_some();
        let home = owner(whole_filter, self.workers);
        if home == self.worker {
            let access = session.access.clone();
            return self.join_here(whole_filter, member, grant, &access, connected);
        }
        let access = session.access.clone();
        let token = self.expect(1, Vec::new());
        let whole_filter = whole_filter.into();
        let frame = Frame::Join { whole_filter, member, grant, access, connected, token };
        self.outboxes[usize::from(home.0)].control(frame);
        Some(token)
    }

    /// A Session joins a group that is at home here. Returns the announcement that is not confirmed yet.
    pub(crate) fn join_here(
        &mut self,
        whole: &str,
        member: Member,
        grant: Grant,
        access: &Access,
        connected: bool,
    ) -> Option<u32> {
        let (number, new) = self.groups.join(whole, member, grant, access, connected);
        let Ok(filter) = TopicFilter::parse(whole) else { return None };
        if !new {
            return self.announcement_of(filter.filter());
        }
        self.tree.insert(filter.filter(), Target::Group(number), grant);
        // Who the members are, and whether they outlive the process, changes: the store is always asked.
        self.interest_added(filter.filter(), self.store.keeps())
    }

    /// A Session leaves a group that is at home here.
    pub(crate) fn leave_here(&mut self, whole_filter: &str, member: Member) {
        let Some(number) = self.groups.leave(whole_filter, member) else { return };
        if let Ok(filter) = TopicFilter::parse(whole_filter) {
            self.tree.remove(filter.filter(), Target::Group(number));
            self.interest_removed(filter.filter(), self.store.keeps());
        }
    }

    pub(crate) fn unsubscribe(&mut self, now: Instant, key: ConnectionKey, unsubscribe: &Unsubscribe<'_>) -> Flow {
        let connection = &self.connections[key as usize];
        let version = connection.version;
        let Some(session) = connection.session else { return Flow::Stop };
        if unsubscribe.user_properties.iter().count() > usize::from(self.settings.user_properties_per_packet_max) {
            let cause = Cause::setting("user_properties_per_packet_max", self.settings.user_properties_per_packet_max);
            return self.break_off(now, key, ReasonCode::QuotaExceeded, cause);
        }
        let packet_id: PacketId = unsubscribe.packet_id;
        let (mut reason_codes, mut position) = (Vec::new(), Position::default());
        for written in unsubscribe.filters.iter() {
            let access = &self.sessions[session as usize].access;
            let mounted = access.mounted_filter(written);
            let text = mounted.as_deref().unwrap_or(written);
            if let Ok(filter) = TopicFilter::parse(text)
                && access::unsubscribe(access, filter.filter()).is_err()
            {
                reason_codes.push(ReasonCode::NotAuthorized);
                continue;
            }
            let removed = self.sessions[session as usize].subscriptions.remove(text);
            reason_codes.push(match (removed, TopicFilter::parse(written)) {
                (Some(subscription), _) => {
                    if self.wanted.subscriptions {
                        let client_id = self.sessions[session as usize].client_id.clone();
                        self.events.push_back(Event::Unsubscribed { client_id, filter: text.into() });
                    }
                    position = position.max(self.remove_subscription(now, session, text, subscription));
                    ReasonCode::Success
                }
                (None, Ok(_)) => ReasonCode::NoSubscriptionExisted,
                (None, Err(_)) => ReasonCode::TopicFilterInvalid,
            });
        }
        self.end_replays(session);
        let packet = UnsubAck { packet_id, reason_codes, reason_string: None, user_properties: UserProperties::none() };
        let mut bytes = Vec::new();
        packet.encode(version, &mut bytes);
        self.answer(key, position, 0, Answer::Packet(bytes.into(), Vec::new()));
        Flow::Continue
    }

    /// Takes a subscription, already out of its Session's list, out of the router; its replay is the caller's.
    pub(crate) fn remove_subscription(
        &mut self,
        _now: Instant,
        key: SessionKey,
        text: &str,
        subscription: Subscription,
    ) -> Position {
        self.sessions[key as usize].shared_subscriptions -= u32::from(subscription.shared);
        if !subscription.disabled {
            self.withdraw_subscription(key, text, subscription.shared);
        }
        match self.sessions[key as usize].number {
            Some(_) if mutant!(UnsubscribeForgotten) => self.store.appended(),
            Some(session) => self.store.append(&Record::SubscriptionEnded { session, filter: text }),
            None => Position::default(),
        }
    }

    /// Takes a subscription out of the router.
    pub(crate) fn withdraw_subscription(&mut self, key: SessionKey, text: &str, shared: bool) {
        let session = &self.sessions[key as usize];
        if shared {
            let member = session.member(self.worker, key);
            let home = owner(text, self.workers);
            if home == self.worker {
                self.leave_here(text, member);
            } else {
                self.outboxes[usize::from(home.0)].control(Frame::Leave { whole_filter: text.into(), member });
            }
        } else {
            self.tree.remove(text, Target::Session(key));
            let kept = session.number.is_some();
            self.interest_removed(text, kept);
        }
    }
}
