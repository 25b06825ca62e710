//! Verdicts about clients, and what follows when rules change.
//!
//! A Session has the rights that the present [`RightsSource`] gives its client: made when the client is let in, and again
//! for every Session when the source is replaced. Subscriptions that a client may not have any more stay with its Session and
//! are taken out of the router, so that they are back when the right is. What is queued is looked at when it goes out.
//!
//! A Session from before the last start whose client has not come back is not judged: what its client may do may depend on
//! what it proves. Nothing can be delivered to it before.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use pantala_access::{Rights, Subject};
use pantala_proto::{ReasonCode, TopicFilter};
use pantala_session::Instant;
use pantala_store::{Owner, Record, Store};

use crate::access::{self, Access};
use crate::connection::Phase;
use crate::core::{Action, Core};
use crate::message::Incoming;
use crate::session::{Session, SessionKey};
use crate::{Cause, ConnectionKey, ListenerSettings, Proof, RightsSource, SecurityId, Standing, Verdict, Verified};

/// The security domain of Sessions whose own is not there any more.
pub(crate) const NO_DOMAIN: SecurityId = SecurityId(u16::MAX);

impl<S: Store> Core<S> {
    // ---- who a client is --------------------------------------------------------------------------------------

    /// What has come of an [`Action::Authenticate`]. Ignored if the connection is gone, or has another generation.
    pub fn authenticated(&mut self, now: Instant, key: ConnectionKey, generation: u32, verdict: Verdict) {
        let Some(connection) = self.connections.get_mut(key as usize) else { return };
        if connection.generation != generation || connection.phase != Phase::Verifying {
            return;
        }
        match verdict {
            Verdict::Refused { reason_code, cause } => {
                self.counters.connects_refused_credentials += 1;
                self.break_off(now, key, reason_code, cause);
            }
            Verdict::Accepted(identity) => {
                connection.phase = Phase::AwaitConnect;
                let extras = connection.extras();
                extras.verified = Some(Box::new(Verified { security: extras.asked, identity }));
                let input = std::mem::take(&mut connection.input);
                // So that the shell looks at it, and reads on.
                if !connection.dirty {
                    connection.dirty = true;
                    self.dirty.push(key);
                }
                // It was counted when it came.
                self.counters.bytes_received -= input.len() as u64;
                self.counters.other_packets_received -= 1;
                self.counters.connect_received -= 1;
                self.receive(now, key, &input);
            }
        }
    }

    /// Who the client is, as [`Action::HandOver`] said where the connection was before. To be called before the first
    /// [`Core::receive`].
    pub fn identified(&mut self, key: ConnectionKey, verified: Box<Verified>) {
        if let Some(connection) = self.connections.get_mut(key as usize) {
            connection.extras().verified = Some(verified);
        }
    }

    /// The listener that a connection came by.
    pub(crate) fn listener(&self, key: ConnectionKey) -> Option<&ListenerSettings> {
        self.settings.listeners.get(usize::from(self.connections.get(key as usize)?.listener))
    }

    /// Whose a Session is, as the store has it.
    pub(crate) fn owner_of(&self, key: SessionKey) -> Option<Owner<'_>> {
        let session = &self.sessions[key as usize];
        let user_name = session.principal.as_ref()?.user_name.as_deref()?;
        let security_domain = match session.security {
            // That of a domain that is not there any more.
            NO_DOMAIN => return None,
            security => self.settings.security_domain(security),
        };
        Some(Owner { security_domain, user_name })
    }

    // ---- rules ------------------------------------------------------------------------------------------------

    /// The rules are others now: every Session gets its rights anew. Clients whose user is unknown or banned by them are
    /// disconnected, without their Will.
    ///
    /// To be called for each worker; messages that come from a worker that has not been told yet are judged by the rights of
    /// their receivers here, and those of their publishers there.
    pub fn rights_changed(&mut self, now: Instant, rights: Arc<dyn RightsSource>) {
        self.rights = rights;
        self.rights_changes += 1;
        self.publishers.judge_anew();
        let keys: Vec<SessionKey> = self.sessions.iter().map(|(key, _)| key as SessionKey).collect();
        for key in keys {
            self.judge(now, key);
        }
    }

    fn judge(&mut self, now: Instant, key: SessionKey) {
        let Some(session) = self.sessions.get(key as usize) else { return };
        if session.restored {
            return;
        }
        let (connection, mount_point) = (session.connection, session.access.mount_point());
        match self.standing(key) {
            Standing::Rights(rights) => {
                let access = Access::new(rights, mount_point);
                self.set_access(key, access);
                self.pump(now, key);
            }
            standing => {
                self.set_access(key, Access::new(Rights::nothing(), mount_point));
                self.forget_will(key);
                let Some(connection) = connection else { return };
                self.counters.users_disconnected += 1;
                let (code, cause) = match standing {
                    Standing::Banned => (ReasonCode::AdministrativeAction, Cause::Banned),
                    _ => (ReasonCode::NotAuthorized, Cause::UserRemoved),
                };
                self.break_off(now, connection, code, cause);
            }
        }
    }

    /// What the client of a Session may do by the present rules.
    pub(crate) fn standing(&self, key: SessionKey) -> Standing {
        let session = &self.sessions[key as usize];
        // Nothing was worth remembering while there were no rules.
        let connection = session.connection.and_then(|key| self.connections.get(key as usize));
        let (address, certificate) = connection
            .map_or((None, false), |connection| (connection.place.address(), connection.place.has_certificate()));
        let nobody = Subject { client_id: &session.client_id, address, certificate, ..Subject::default() };
        let subject =
            session.principal.as_ref().map_or(nobody, |principal| principal.subject(&session.client_id, session.proof));
        self.rights.rights(session.security, &subject)
    }

    /// What a client that is to be let in may do.
    pub(crate) fn standing_of(&self, security: SecurityId, subject: &Subject<'_>) -> Standing {
        self.rights.rights(security, subject)
    }

    /// A Session has other rights, or other Topic Names, from here on.
    pub(crate) fn set_access(&mut self, key: SessionKey, access: Access) {
        let session = &mut self.sessions[key as usize];
        if session.access.is_plain() && access.is_plain() {
            return;
        }
        session.access = access;
        if !session.subscriptions.is_empty() {
            // What publishers remember of where their messages go is over.
            self.rights_changes += 1;
            self.review_subscriptions(key);
        }
    }

    /// Takes subscriptions out of the router that the client may not have, and puts those back that it may have again.
    fn review_subscriptions(&mut self, key: SessionKey) {
        let mut filters: Vec<Box<str>> = self.sessions[key as usize].subscriptions.filters().map(Box::from).collect();
        // In an order that is the same in every run.
        filters.sort_unstable();
        for text in filters {
            let session = &mut self.sessions[key as usize];
            let permitted = session.access.has_subscription(&text);
            let Some(subscription) = session.subscriptions.get_mut(&text) else { continue };
            let was_routed = !subscription.disabled;
            subscription.disabled = !permitted;
            let (shared, grant) = (subscription.shared, subscription.grant());
            match (was_routed, permitted) {
                (true, false) => self.withdraw_subscription(key, &text, shared),
                // The home of a group knows the rights of its members.
                (true, true) if shared => drop(self.join(key, &text, grant)),
                (false, true) => {
                    if let Ok(filter) = TopicFilter::parse(&text) {
                        self.route_subscription(key, &text, filter, grant);
                    }
                }
                _ => {}
            }
        }
        self.end_replays(key);
    }

    /// A Session has no Will any more.
    pub(crate) fn forget_will(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key as usize];
        let Some(will) = session.will.take() else { return };
        if let Some(session) = session.number {
            self.store.append(&Record::WillEnded { session });
        }
        if let Some(session) = will.number {
            self.store.append(&Record::SessionEnded { session });
        }
    }

    /// Disconnects a client by name, with this code; its Will goes out as for any end that is not its own. Returns whether it
    /// was there.
    pub fn disconnect(&mut self, now: Instant, client_id: &str, reason_code: ReasonCode) -> bool {
        let session = self.find_session(client_id);
        let Some(connection) = session.and_then(|session| self.sessions[session as usize].connection) else {
            return false;
        };
        self.break_off(now, connection, reason_code, Cause::Administrator);
        true
    }

    /// User names and addresses of the clients of a security domain that are connected, so many at the most. Goes through all
    /// Sessions.
    pub fn users_connected(&self, security: SecurityId, most: usize) -> Vec<(Box<str>, IpAddr)> {
        let of_session = |(_, session): (usize, &Session)| {
            let here = session.connection.is_some() && session.security == security;
            let principal = session.principal.as_deref().filter(|_| here)?;
            Some((principal.user_name.clone()?, principal.address?))
        };
        self.sessions.iter().filter_map(of_session).take(most).collect()
    }

    /// Disconnects all clients of a security domain with this user name, or those without one, as [`Self::disconnect`] does.
    /// Those whose credentials are being looked at, perhaps as they were before, have to come again (0x88). Returns how many.
    pub fn disconnect_user(
        &mut self,
        now: Instant,
        security: SecurityId,
        user_name: Option<&str>,
        reason_code: ReasonCode,
    ) -> usize {
        let of_user = self.sessions.iter().filter(|(_, session)| {
            let of = session.principal.as_ref().and_then(|principal| principal.user_name.as_deref());
            session.security == security && of == user_name
        });
        let connections: Vec<ConnectionKey> = of_user.filter_map(|(_, session)| session.connection).collect();
        for connection in &connections {
            self.break_off(now, *connection, reason_code, Cause::Administrator);
        }
        let may_be = self.connections.iter().filter(|(_, connection)| connection.may_become(security, user_name));
        let may_be: Vec<ConnectionKey> = may_be.map(|(key, _)| key as ConnectionKey).collect();
        for connection in &may_be {
            self.break_off(now, *connection, ReasonCode::ServerUnavailable, Cause::Administrator);
        }
        connections.len() + may_be.len()
    }

    /// The passwords of these users of a security domain, where they are for this kind of proof, are others now: whoever has come in by an
    /// old one is disconnected (0x98), and may come again with the new one. Its Will goes out as for any end that is not its own.
    pub fn passwords_changed(&mut self, now: Instant, security: SecurityId, proof: Proof, users: &HashSet<Box<str>>) {
        let of_one = |(_, session): (usize, &Session)| {
            let connection = session.connection.filter(|_| session.security == security)?;
            let user_name = session.principal.as_ref()?.user_name.as_ref()?;
            (session.proof == proof && users.contains(user_name)).then_some(connection)
        };
        let connections: Vec<ConnectionKey> = self.sessions.iter().filter_map(of_one).collect();
        for connection in connections {
            self.counters.users_disconnected += 1;
            self.break_off(now, connection, ReasonCode::AdministrativeAction, Cause::PasswordChanged);
        }
    }

    /// Disconnects those (0x87, without their Wills) whom their listener would not let in any more as it did: anonymous clients, and those
    /// whose word it took for their user name. Called when the listeners' settings have changed.
    pub(crate) fn judge_entries(&mut self, now: Instant) {
        let unwelcome = |(key, session): (usize, &Session)| {
            let connection = session.connection?;
            let listener = self.listener(connection)?;
            let cause = match session.proof {
                Proof::Nothing if !listener.allow_anonymous => Cause::Anonymous,
                Proof::Word if listener.verify_credentials || !listener.believe_user_names => Cause::NotVerified,
                _ => return None,
            };
            Some((key as SessionKey, connection, cause))
        };
        let unwelcome: Vec<_> = self.sessions.iter().filter_map(unwelcome).collect();
        for (session, connection, cause) in unwelcome {
            self.forget_will(session);
            self.counters.users_disconnected += 1;
            self.break_off(now, connection, ReasonCode::NotAuthorized, cause);
        }
    }

    // ---- commands ---------------------------------------------------------------------------------------------

    /// A client that may has published to a topic below `$CONTROL`.
    pub(crate) fn command(&mut self, key: ConnectionKey, session: SessionKey, incoming: &Incoming<'_>) {
        self.counters.commands_received += 1;
        let session = &self.sessions[session as usize];
        self.actions.push_back(Action::Control {
            connection: key,
            generation: self.connections[key as usize].generation,
            security: session.security,
            client_id: session.client_id.clone(),
            user_name: session.principal.as_ref().and_then(|principal| principal.user_name.clone()),
            topic_name: incoming.topic_name.into(),
            payload: incoming.payload.into(),
        });
    }

    /// Answers a command: the message goes to that client alone, at QoS 0, whether it has subscribed to the topic or not.
    /// Ignored if the connection is gone, or has another generation.
    pub fn control_response(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        generation: u32,
        topic_name: &str,
        payload: &[u8],
    ) {
        let connection = self.connections.get(key as usize);
        if connection.is_some_and(|it| it.generation == generation && it.phase == Phase::Connected) {
            self.send_own(now, key, topic_name, payload, access::answer_to_control());
        }
    }
}
