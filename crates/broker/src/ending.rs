//! The ends of connections and of Sessions, and Sessions by name.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pantala_access::Rights;
use pantala_proto::{DecodeError, Disconnect, ReasonCode};
use pantala_session::Instant;
use pantala_store::{LoadError, Record, Store};

use crate::access::Access;
use crate::connection::{Connection, Phase};
use crate::core::{Action, Core, Flow, Timer};
use crate::maybe_instant::MaybeInstant;
use crate::message::Body;
use crate::persist::Origin;
use crate::session::{Session, SessionKey};
use crate::sparkplug::Certificates;
use crate::{Cause, ConnectionKey, End, Event, Settings, Standing};

impl<S: Store> Core<S> {
    /// Ends a connection over bytes that are wrong.
    pub(crate) fn fail(&mut self, now: Instant, key: ConnectionKey, error: DecodeError) -> Flow {
        self.end(now, key, End::Decode(error), Some(error.reason_code()))
    }

    /// Ends a connection: says why if it can, lets its Session go, and asks the shell to close the socket.
    pub(crate) fn end(&mut self, now: Instant, key: ConnectionKey, why: End, code: Option<ReasonCode>) -> Flow {
        let Some(connection) = self.connections.get_mut(key as usize) else { return Flow::Stop };
        if connection.phase == Phase::Closing {
            return Flow::Stop;
        }
        match why {
            End::Decode(_) | End::NotMqtt(_) => self.counters.protocol_errors += 1,
            End::Because(ReasonCode::SessionTakenOver, _) => self.counters.sessions_taken_over += 1,
            End::Because(_, Cause::Store) if connection.phase == Phase::Connected => {
                self.counters.closed_store_refused += 1
            }
            End::Because(_, Cause::CredentialsExpired) => self.counters.credentials_expired += 1,
            End::Because(_, Cause::Banned | Cause::UserRemoved | Cause::Administrator | Cause::Credentials(_)) => {}
            // By a reload: they are counted where that is found out.
            End::Because(_, Cause::PasswordChanged | Cause::NotVerified) => {}
            End::Because(_, Cause::Anonymous) if connection.phase == Phase::Connected => {}
            // A client that is not let in is counted among those.
            End::Because(..) if connection.phase == Phase::Connected => self.counters.protocol_errors += 1,
            End::Because(ReasonCode::ProtocolError, _) => self.counters.protocol_errors += 1,
            End::Reason(ReasonCode::KeepAliveTimeout) => self.counters.keep_alive_timeouts += 1,
            End::ConnectTimeout => self.counters.connect_timeouts += 1,
            End::Transport(_) => self.counters.transport_failures += 1,
            End::WriteStall => self.counters.write_stalls += 1,
            _ => {}
        }
        let connected = connection.phase == Phase::Connected;
        if let Some(reason_code) = code {
            let (version, bytes_max) = (connection.version, connection.packet_bytes_max);
            let told = Arc::clone(&connection.told);
            let reason = version.is_v5().then(|| reason_string(&told, why, connected)).flatten();
            if connected && version.is_v5() {
                let packet = Disconnect {
                    reason_string: reason.as_deref(),
                    server_reference: match (&self.settings.redirect, reason_code) {
                        (Some(redirect), ReasonCode::ServerShuttingDown) => Some(redirect.server_reference.as_str()),
                        _ => None,
                    },
                    ..Disconnect::new(reason_code)
                };
                let mut bytes = Vec::new();
                packet.encode_within(version, bytes_max, &mut bytes);
                self.send(key, |out| out.extend_from_slice(&bytes));
            } else if !connected {
                self.refuse_connect(key, why, reason_code, reason.as_deref());
            }
        }
        let Some(connection) = self.connections.get_mut(key as usize) else { return Flow::Stop };
        connection.phase = Phase::Closing;
        connection.input = Vec::new();
        let listener = connection.listener;
        let session = connection.session.take();
        if let Some(extras) = &mut connection.extras {
            extras.held.clear();
            extras.asking = None;
        }
        if let Some(timer) = connection.timer.take() {
            self.timers.cancel(timer);
        }
        self.actions.push_back(Action::Close(key));
        let address = connection.place.peer().and_then(|peer| peer.address);
        let client_id = session.map(|session| self.sessions[session as usize].client_id.clone());
        self.events.push_back(Event::Ended { connection: key, address, client_id, why });
        if let Some(session) = session {
            self.totals.connections.fetch_sub(1, Ordering::Relaxed);
            self.totals.with_listener(listener, |count| count.fetch_sub(1, Ordering::Relaxed));
            self.detach(now, session);
        }
        Flow::Stop
    }

    /// Ends a connection for a reason of ours, and says so.
    pub(crate) fn break_off(&mut self, now: Instant, key: ConnectionKey, code: ReasonCode, cause: Cause) -> Flow {
        self.end(now, key, End::Because(code, cause), Some(code))
    }

    /// A Session has lost its connection.
    pub(crate) fn detach(&mut self, now: Instant, key: SessionKey) {
        let shutting_down = self.shutting_down;
        let session = &mut self.sessions[key as usize];
        session.connection = None;
        session.replays = None;
        if let Some(owed) = &mut session.owed {
            owed.exchanges.connection_lost();
            if owed.exchanges.is_idle() && !session.is_persistent() {
                session.owed = None;
            }
        }
        if shutting_down {
            if session.is_persistent() {
                self.record_session(key, Some(now.0));
            }
            return;
        }
        session.expires_at = match session.expiry_interval {
            crate::session::NEVER => MaybeInstant::NONE,
            seconds => now.after_seconds(seconds).into(),
        };
        if let Some(will) = &mut session.will {
            // v5 MQTT-3.1.2-8: after its delay, or when the Session ends if that is sooner.
            will.due = now.after_seconds(will.delay_interval).into();
        }
        if session.will.as_ref().is_some_and(|will| will.delay_interval == 0) {
            self.publish_will(now, key);
        }
        if !self.sessions[key as usize].is_persistent() {
            return self.end_session(now, key);
        }
        self.record_session(key, Some(now.0));
        self.announce_presence(key, false);
        self.arm_session(key);
    }

    pub(crate) fn arm_session(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key as usize];
        if let Some(timer) = session.timer.take() {
            self.timers.cancel(timer);
        }
        let due = session.will.as_ref().and_then(|will| will.due.get());
        let next = match (session.expires_at.get(), due) {
            (Some(expiry), Some(due)) => Some(expiry.min(due)),
            (expiry, due) => expiry.or(due),
        };
        if let Some(deadline) = next {
            session.timer = Some(self.timers.schedule(deadline.0, Timer::Session(key)));
        }
    }

    pub(crate) fn session_timer(&mut self, now: Instant, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        session.timer = None;
        if session.connection.is_some() {
            return;
        }
        if session.expires_at.get().is_some_and(|at| at <= now) {
            self.counters.sessions_expired += 1;
            return self.end_session(now, key);
        }
        if session.will.as_ref().and_then(|will| will.due.get()).is_some_and(|due| due <= now) {
            self.publish_will(now, key);
        }
        self.arm_session(key);
    }

    /// Publishes the Will of a Session, which forgets it (v5 MQTT-3.1.2-10).
    pub(crate) fn publish_will(&mut self, now: Instant, key: SessionKey) {
        let session = &mut self.sessions[key as usize];
        let Some(will) = session.will.take() else { return };
        let (number, mut access) = (session.number.or(will.number), session.access.clone());
        if session.restored {
            access = match self.standing(key) {
                Standing::Rights(rights) => Access::new(rights, None),
                Standing::Unknown | Standing::Banned => Access::new(Rights::nothing(), None),
            };
        }
        let mut incoming = will.message.incoming();
        incoming.expires_at = will.message_expiry_interval.map(|seconds| now.after_seconds(seconds));
        // Once more, since rules may have changed.
        let certificates = || Certificates::of(&self.settings, incoming.retain, incoming.payload);
        match crate::access::publish(&access, incoming.topic_name, certificates) {
            Ok(permit) => {
                self.counters.wills_published += 1;
                self.begin_routing(&mut incoming);
                // No Local keeps it from its own client as it does any message of the client's.
                let origin = Origin { opens: None, will_of: number.filter(|_| incoming.id.is_some()) };
                self.route(now, Some(key), &incoming, origin, permit);
            }
            Err(crate::access::Denied) => self.counters.dropped_not_authorized += 1,
        }
        if let (Some(session), None) = (number, incoming.id) {
            self.store.append(&Record::WillEnded { session });
        }
        if let Some(session) = will.number {
            self.store.append(&Record::SessionEnded { session });
        }
    }

    /// Ends a Session with all it holds. Its Will, if it has not gone out, goes out now (v5 MQTT-3.1.2-8).
    pub(crate) fn end_session(&mut self, now: Instant, key: SessionKey) {
        self.publish_will(now, key);
        let mut filters = self.sessions[key as usize].subscriptions.take();
        // In an order that is the same in every run, so that a seed replays what follows.
        filters.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (filter, subscription) in filters {
            self.remove_subscription(now, key, &filter, subscription);
        }
        let mut session = self.sessions.remove(key as usize);
        if let Some(timer) = session.timer {
            self.timers.cancel(timer);
        }
        let hash = self.client_id_hasher.hash_one(&*session.client_id);
        if let Ok(entry) = self.client_ids.find_entry(hash, |found| *found == key) {
            entry.remove();
        }
        self.totals.sessions.fetch_sub(1, Ordering::Relaxed);
        if mutant!(CleanedSessionReturns) {
            session.number = None;
        }
        let number = session.number;
        // What is handed on is not owed to this Session any more before it ends.
        self.hand_on(now, session);
        if let Some(session) = number {
            self.store.append(&Record::SessionEnded { session });
        }
    }

    /// What an ended Session held: messages of Shared Subscriptions go to another member (v5 section 4.8.2), but for QoS 2
    /// ones whose delivery has begun (v5 MQTT-4.8.2-5).
    pub(crate) fn hand_on(&mut self, now: Instant, session: Session) {
        let Session { number, received, owed, .. } = session;
        if let (Some(session), Some(received)) = (number, received) {
            for packet_id in received.open.iter() {
                self.store.append(&Record::ExactlyOnceReleased { session, packet_id: packet_id.number() });
            }
        }
        let Some(owed) = owed else { return };
        for (exchange, queued) in owed.exchanges.into_rest() {
            let begun = exchange.is_some_and(|(_, stage)| stage != pantala_session::Stage::AwaitPubAck);
            let packet_id = exchange.map(|(packet_id, _)| packet_id);
            let Some(queued) = queued else {
                self.record_settled(number, None, packet_id);
                continue;
            };
            if exchange.is_none() && matches!(queued.body, Body::Here(_)) {
                self.queued_memory = self.queued_memory.saturating_sub(queued.bytes() as u64);
            }
            let handed_on = queued.group.clone().filter(|_| !begun);
            match handed_on.map(|group| (group, self.body(&queued))) {
                Some((group, Ok(message))) => {
                    self.record_settled(number, None, packet_id);
                    self.dispatch(now, &group, &message.incoming(), number.filter(|_| queued.id().is_some()));
                }
                // It stays where it is, and a later start finds another member.
                Some((_, Err(LoadError::Unreadable))) => {
                    self.record_settled(number, None, packet_id);
                    self.counters.store_read_errors += 1;
                }
                Some((_, Err(LoadError::Damaged))) => {
                    self.record_settled(number, queued.kept(), packet_id);
                    self.counters.dropped_store_damaged += 1;
                }
                None => {
                    self.record_settled(number, queued.kept(), packet_id);
                    self.counters.dropped_session_ended += 1;
                }
            }
        }
    }

    // ---- Sessions by name -------------------------------------------------------------------------------------

    pub(crate) fn find_session(&self, client_id: &str) -> Option<SessionKey> {
        let hash = self.client_id_hasher.hash_one(client_id);
        self.client_ids.find(hash, |key| *self.sessions[*key as usize].client_id == *client_id).copied()
    }

    pub(crate) fn begin_session(&mut self, client_id: &str) -> SessionKey {
        let generation = self.generation();
        let key = self.sessions.insert(Session::new(client_id, generation)) as SessionKey;
        let Self { sessions, client_ids, client_id_hasher, .. } = self;
        let hash = |key: &SessionKey| client_id_hasher.hash_one(&*sessions[*key as usize].client_id);
        client_ids.insert_unique(hash(&key), key, hash);
        self.totals.sessions.fetch_add(1, Ordering::Relaxed);
        key
    }

    pub(crate) fn generation(&mut self) -> u32 {
        self.next_generation = self.next_generation.wrapping_add(1);
        self.next_generation
    }

    // ---- timers of connections --------------------------------------------------------------------------------

    /// When the connection is to be looked at.
    pub(crate) fn connection_deadline(&self, now: Instant, connection: &Connection) -> Option<Instant> {
        let stall = connection
            .stalled_since
            .get()
            .filter(|_| self.settings.write_stall_seconds > 0)
            .map(|since| since.after_seconds(self.settings.write_stall_seconds));
        let paused = connection.extras.as_ref().and_then(|extras| extras.paused_until);
        let alive = match connection.phase {
            Phase::Connected => {
                let expiry = connection.extras.as_ref().and_then(|extras| extras.expires_at);
                let alive = paused.or_else(|| connection.keep_alive.deadline());
                expiry.map_or(alive, |expiry| Some(alive.map_or(expiry, |alive| alive.min(expiry))))
            }
            Phase::Closing => None,
            _ => Some(connection.opened(now).after(Duration::from_secs(u64::from(self.settings.connect_seconds)))),
        };
        match (stall, alive) {
            (Some(stall), Some(alive)) => Some(stall.min(alive)),
            (stall, alive) => stall.or(alive),
        }
    }

    /// Sets the connection's timer for its next deadline.
    pub(crate) fn arm(&mut self, now: Instant, key: ConnectionKey) {
        let Some(connection) = self.connections.get(key as usize) else { return };
        let deadline = self.connection_deadline(now, connection);
        let timer = match (connection.timer, deadline) {
            (Some(timer), Some(deadline)) if self.timers.reschedule(timer, deadline.0) => Some(timer),
            (_, Some(deadline)) => Some(self.timers.schedule(deadline.0, Timer::Connection(key))),
            (Some(timer), None) => {
                self.timers.cancel(timer);
                None
            }
            (None, None) => None,
        };
        self.connections[key as usize].timer = timer;
    }

    pub(crate) fn connection_timer(&mut self, now: Instant, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        connection.timer = None;
        let (phase, stalled) = (connection.phase, connection.stalled_since.get());
        let paused = connection.extras.as_ref().and_then(|extras| extras.paused_until);
        let keep_alive = connection.keep_alive.deadline();
        let expires_at = connection.extras.as_ref().and_then(|extras| extras.expires_at);
        let stall = Duration::from_secs(u64::from(self.settings.write_stall_seconds));
        if phase != Phase::Connected {
            if now >= connection.opened(now).after(Duration::from_secs(u64::from(self.settings.connect_seconds))) {
                self.end(now, key, End::ConnectTimeout, None);
                return;
            }
        } else if expires_at.is_some_and(|at| now >= at) {
            self.break_off(now, key, ReasonCode::NotAuthorized, Cause::CredentialsExpired);
            return;
        } else if let Some(until) = paused {
            if now >= until {
                self.resume_reading(now, key);
            }
        } else if keep_alive.is_some_and(|deadline| now >= deadline) {
            let code = ReasonCode::KeepAliveTimeout;
            self.end(now, key, End::Reason(code), Some(code));
            return;
        }
        if !stall.is_zero() && stalled.is_some_and(|since| now >= since.after(stall)) {
            self.end(now, key, End::WriteStall, None);
            return;
        }
        self.arm(now, key);
    }
}

/// What a client is told beyond the Reason Code. Of a failed authentication it learns no more.
fn reason_string(told: &Settings, why: End, connected: bool) -> Option<String> {
    match why {
        End::Decode(DecodeError::PacketTooLarge) => {
            let (key, value) = match connected {
                false if told.connect_packet_bytes_max < told.packet_bytes_max => {
                    ("connect_packet_bytes_max", told.connect_packet_bytes_max)
                }
                _ => ("packet_bytes_max", told.packet_bytes_max),
            };
            Some(Cause::setting(key, value).to_string())
        }
        End::Decode(error) => Some(error.to_string()),
        End::Because(_, cause) => cause.is_told().then(|| cause.to_string()),
        _ => None,
    }
}
