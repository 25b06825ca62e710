//! CONNECT, AUTH, and the beginning or resumption of a Session.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::atomic::Ordering;

use pantala_proto::{
    Auth, ConnAck, Connect, DecodeError, ProtocolVersion, PublishProperties, QoS, ReasonCode, topic_levels,
};
use pantala_session::{Instant, KeepAlive, SentAliases};
use pantala_store::{Durability, Owner, Record, SessionNumber, Store};

use crate::access::{self, Access};
use crate::authentication::{Failure, Step};
use crate::connection::{Authentication, Connection, Phase, Place};
use crate::core::{Action, Core, Flow, cap_expiry};
use crate::identity::Principal;
use crate::maybe_instant::MaybeInstant;
use crate::message::{Incoming, Message, Room};
use crate::session::{NEVER, Will};
use crate::sparkplug::Certificates;
use crate::{
    AuthenticationRequest, Cause, ConnectionKey, End, Event, Identity, Proof, SecurityId, Settings, Standing, Verified,
    durability, owner,
};

/// AUTH packets that one authentication may take from the client.
const AUTHENTICATION_ROUNDS_MAX: u8 = 8;
/// A Maximum Packet Size from here on says nothing, since no packet can be longer.
const PACKET_BYTES_UNLIMITED: u32 = 268_435_455;

/// Its listener's domain has changed since it was asked.
const OTHER_DOMAIN: Cause = Cause::Credentials("the listener has another security domain now");

/// How a client gets in without anybody being asked.
enum Unasked {
    Identity(Identity),
    /// Somebody has to be asked.
    Ask,
}

impl<S: Store> Core<S> {
    /// A CONNECT packet on a connection that has said nothing before.
    pub(crate) fn connect(&mut self, now: Instant, key: ConnectionKey, body: &[u8]) -> Flow {
        let name;
        let mut connect = match Connect::decode(body) {
            Ok(connect) => connect,
            Err(error) => {
                // To be answered in the form of the version it wants, as far as that can be told.
                if let Some(connection) = self.connections.get_mut(key as usize) {
                    connection.version = match (Connect::version_of(body), error) {
                        (Some(version), _) => version,
                        (None, DecodeError::ProtocolVersion) if body.get(6).is_some_and(|level| *level > 4) => {
                            ProtocolVersion::V5
                        }
                        (None, _) => ProtocolVersion::V311,
                    };
                    // Where it cannot be told, the answer is as short as can be.
                    connection.packet_bytes_max = Connect::maximum_packet_size_of(body).unwrap_or(0);
                }
                return self.fail(now, key, error);
            }
        };
        // Libraries send empty credentials where their users have set none.
        if connect.user_name == Some("") {
            connect.user_name = None;
            connect.password = connect.password.filter(|password| !password.is_empty());
        }
        let Some(connection) = self.connections.get_mut(key as usize) else { return Flow::Stop };
        connection.version = connect.version;
        connection.packet_bytes_max = connect.properties.maximum_packet_size.map_or(u32::MAX, NonZeroU32::get);
        if let Some(listener) = self.listener(key)
            && !listener.versions.contains(connect.version)
        {
            let code = ReasonCode::UnsupportedProtocolVersion;
            return self.end(now, key, End::Reason(code), Some(code));
        }
        match self.client_id_in_place(key, &connect) {
            Ok(Some(in_place)) => {
                name = in_place;
                connect.client_id = &name;
            }
            Ok(None) => {}
            Err(cause) => return self.break_off(now, key, ReasonCode::NotAuthorized, cause),
        }
        if let Err((code, cause)) = self.check_client_id(key, &connect) {
            return self.break_off(now, key, code, cause);
        }
        if !connect.client_id.is_empty() {
            let owner = owner(connect.client_id, self.workers);
            if owner != self.worker {
                return Flow::HandOver(owner);
            }
        }
        if let Some(redirect) = &self.settings.redirect {
            let code = if redirect.permanent { ReasonCode::ServerMoved } else { ReasonCode::UseAnotherServer };
            return self.end(now, key, End::Reason(code), Some(code));
        }
        if let Err((code, cause)) = self.check_connect(key, &connect) {
            self.counters.connects_memory_short += u64::from(cause == Cause::Memory);
            return self.break_off(now, key, code, cause);
        }
        let verified = self.connections[key as usize].extras.as_mut().and_then(|extras| extras.verified.take());
        if let Some(verified) = verified {
            return self.accept(now, key, &connect, *verified, Vec::new());
        }
        if connect.properties.authentication_method.is_some() {
            return self.begin_authentication(now, key, &connect, body);
        }
        match self.identify_unasked(key, &connect) {
            Ok(Unasked::Identity(identity)) => {
                let verified = Verified { security: self.domain_to_prove(key), identity };
                self.accept(now, key, &connect, verified, Vec::new())
            }
            Ok(Unasked::Ask) => self.ask_for_verdict(key, &connect),
            Err(cause) => self.break_off(now, key, ReasonCode::NotAuthorized, cause),
        }
    }

    /// The Client Identifier that a client has in place of its own, if it has one.
    fn client_id_in_place(&self, key: ConnectionKey, connect: &Connect<'_>) -> Result<Option<String>, Cause> {
        let connection = &self.connections[key as usize];
        let verified = connection.extras.as_ref().and_then(|extras| extras.verified.as_deref());
        let identity = verified.map(|verified| &verified.identity);
        if let Some(client_id) = identity.and_then(|identity| identity.client_id.as_deref()) {
            return Ok(Some(client_id.to_owned()));
        }
        if !self.listener(key).is_some_and(|listener| listener.use_user_name_as_client_id) {
            return Ok(None);
        }
        let user_name = match identity {
            Some(identity) => identity.user_name.as_deref(),
            // The exchange has not begun: who the client is, and so where its Session is, is not known.
            None if connect.properties.authentication_method.is_some() => None,
            None => {
                let by_certificate = connection.place.peer().and_then(|peer| peer.user_name_by_certificate.as_deref());
                by_certificate.or(connect.user_name)
            }
        };
        match user_name {
            Some(user_name) => Ok(Some(user_name.to_owned())),
            None => Err(Cause::UserNameMissing),
        }
    }

    /// Who a client is as far as CONNECT and the transport tell, or that its credentials have to be verified.
    fn identify_unasked(&self, key: ConnectionKey, connect: &Connect<'_>) -> Result<Unasked, Cause> {
        let Some(listener) = self.listener(key) else { return Err(Cause::Anonymous) };
        let peer = self.connections[key as usize].place.peer();
        let by_certificate = peer.and_then(|peer| peer.user_name_by_certificate.clone());
        let has_credentials = connect.user_name.is_some() || connect.password.is_some();
        if listener.verify_credentials && (has_credentials || peer.is_some_and(|peer| peer.certificate.is_some())) {
            return Ok(Unasked::Ask);
        }
        if by_certificate.is_none() && !listener.allow_anonymous {
            return Err(Cause::Anonymous);
        }
        let believed = connect.user_name.filter(|_| listener.believe_user_names && !listener.verify_credentials);
        let (user_name, proof) = match (by_certificate, believed) {
            (Some(name), _) => (Some(name), Proof::Certificate),
            (None, Some(name)) => (Some(name.into()), Proof::Word),
            (None, None) => (None, Proof::Nothing),
        };
        Ok(Unasked::Identity(Identity { user_name, proof, ..Identity::default() }))
    }

    /// Asks the shell to verify the credentials of a CONNECT. Until it has, the packet stays where it is, and is taken up
    /// again with what has come of it.
    fn ask_for_verdict(&mut self, key: ConnectionKey, connect: &Connect<'_>) -> Flow {
        let security = self.domain_to_prove(key);
        let connection = &mut self.connections[key as usize];
        connection.phase = Phase::Verifying;
        connection.extras().asked = security;
        let request = AuthenticationRequest {
            listener: connection.listener,
            security,
            client_id: connect.client_id.into(),
            user_name: connect.user_name.map(Into::into),
            password: connect.password.map(<[u8]>::to_vec),
            peer: connection.place.peer().cloned().map(Box::new),
        };
        let generation = connection.generation;
        self.actions.push_back(Action::Authenticate { connection: key, generation, request: Box::new(request) });
        Flow::Verify
    }

    /// Answers a CONNECT that has failed, if it has one; for [`Core::end`].
    pub(crate) fn refuse_connect(&mut self, key: ConnectionKey, why: End, code: ReasonCode, reason: Option<&str>) {
        self.counters.connects_refused += 1;
        let Some(connection) = self.connections.get(key as usize) else { return };
        let (version, bytes_max) = (connection.version, connection.packet_bytes_max);
        // What is no MQTT at all is closed without a word.
        if connection.phase == Phase::AwaitConnect
            && matches!(why, End::NotMqtt(_) | End::Decode(DecodeError::ProtocolName))
        {
            return;
        }
        if !version.is_v5() && code.v3_connect_return_code().is_none() {
            return;
        }
        let redirect = self.settings.redirect.clone();
        let mut packet = ConnAck { reason_string: reason, ..ConnAck::new(false, code) };
        if matches!(code, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved) {
            packet.server_reference = redirect.as_ref().map(|redirect| redirect.server_reference.as_str());
        }
        self.send(key, |out| packet.encode_within(version, bytes_max, out));
    }

    fn check_client_id(&self, key: ConnectionKey, connect: &Connect<'_>) -> Result<(), (ReasonCode, Cause)> {
        let not_valid = |cause| Err((ReasonCode::ClientIdentifierNotValid, cause));
        let listener = self.listener(key);
        if listener.is_some_and(|listener| listener.deny_special_characters)
            && (is_special(connect.client_id) || connect.user_name.is_some_and(is_special))
        {
            return Err((ReasonCode::NotAuthorized, Cause::SpecialCharacters));
        }
        let v3_keeps_nothing = connect.clean_start || connect.version.is_v5();
        if connect.client_id.is_empty() {
            // v3.1.1 MQTT-3.1.3-7, MQTT-3.1.3-8; MQTT 3.1 has no assigned identifiers.
            let here = listener.and_then(|listener| listener.allow_zero_length_client_id);
            let assigned = here.unwrap_or(self.settings.allow_zero_length_client_id) && v3_keeps_nothing;
            if !assigned || connect.version == ProtocolVersion::V31 {
                return not_valid(Cause::ClientIdMissing);
            }
        }
        let bytes_max = self.settings.client_id_bytes_max;
        if connect.client_id.len() > usize::from(bytes_max) {
            return not_valid(Cause::setting("client_id_bytes_max", bytes_max));
        }
        let prefixes = listener.map_or(&[][..], |listener| &listener.client_id_prefixes);
        // Of one that is assigned it is what it will begin with.
        let name = if connect.client_id.is_empty() { self.auto_id_prefix(key) } else { connect.client_id };
        if !prefixes.is_empty() && !prefixes.iter().any(|prefix| name.starts_with(prefix.as_str())) {
            return Err((ReasonCode::NotAuthorized, Cause::ClientIdPrefix));
        }
        Ok(())
    }

    fn check_connect(&self, key: ConnectionKey, connect: &Connect<'_>) -> Result<(), (ReasonCode, Cause)> {
        let settings = &*self.settings;
        let listener_index = usize::from(self.connections[key as usize].listener);
        let listener = settings.listeners.get(listener_index);
        let reached = |max: Option<NonZeroU32>, count: u32| max.map(NonZeroU32::get).filter(|max| count >= *max);
        let on_listener = self.totals.on_listener(self.connections[key as usize].listener);
        let session = self.find_session(connect.client_id);
        // A client that is here already takes the place of its own old connection.
        let old =
            session.and_then(|session| self.connections.get(self.sessions[session as usize].connection? as usize));
        let own = u32::from(old.is_some());
        let own_here = u32::from(old.is_some_and(|old| usize::from(old.listener) == listener_index));
        let connections = self.totals.connections.load(Ordering::Relaxed);
        // A Session that would have to be kept, or one whose end would, cannot be vouched for.
        let kept = session.is_some_and(|session| self.sessions[session as usize].number.is_some());
        if !self.store.accepts() && (kept || wanted_expiry(connect) > 0) {
            return Err((ReasonCode::ServerUnavailable, Cause::Store));
        }
        let exceeded = |cause| Err((ReasonCode::QuotaExceeded, cause));
        if self.totals.memory_short.load(Ordering::Relaxed) {
            return exceeded(Cause::Memory);
        }
        if let Some(max) = reached(settings.connections_max, connections.saturating_sub(own)) {
            return exceeded(Cause::setting("connections_max", max));
        }
        let on_listener_max = listener.and_then(|listener| listener.connections_max);
        if let Some(max) = reached(on_listener_max, on_listener.saturating_sub(own_here)) {
            return exceeded(Cause::ListenerSetting { key: "connections_max", value: max.into() });
        }
        let sessions = self.totals.sessions.load(Ordering::Relaxed);
        if let (Some(max), None) = (reached(settings.sessions_max, sessions), session) {
            return exceeded(Cause::setting("sessions_max", max));
        }
        let user_properties_max = settings.user_properties_per_packet_max;
        let too_many_user_properties = Cause::setting("user_properties_per_packet_max", user_properties_max);
        let properties = &connect.properties;
        let user_properties = properties.user_properties.iter().count();
        if user_properties > usize::from(user_properties_max) {
            return exceeded(too_many_user_properties);
        }
        let too_slow = connect.keep_alive == 0 || connect.keep_alive > settings.keep_alive_max;
        if settings.keep_alive_max > 0 && too_slow && !connect.version.is_v5() {
            return Err((ReasonCode::ServerUnavailable, Cause::setting("keep_alive_max", settings.keep_alive_max)));
        }
        if let Some(will) = &connect.will {
            if will.qos > self.maximum_qos(key) {
                let cause = Cause::setting("maximum_qos", self.maximum_qos(key) as u8);
                return Err((ReasonCode::QoSNotSupported, cause));
            }
            if will.retain && !settings.retain_available {
                return Err((ReasonCode::RetainNotSupported, Cause::setting("retain_available", false)));
            }
            if will.properties.user_property_count() > usize::from(user_properties_max) {
                return exceeded(too_many_user_properties);
            }
            if settings.payload_bytes_max > 0 && will.payload.len() > settings.payload_bytes_max as usize {
                let cause = Cause::setting("payload_bytes_max", settings.payload_bytes_max);
                return Err((ReasonCode::PacketTooLarge, cause));
            }
            if will.topic_name.len() > usize::from(settings.topic_bytes_max) {
                let cause = Cause::setting("topic_bytes_max", settings.topic_bytes_max);
                return Err((ReasonCode::TopicNameInvalid, cause));
            }
            if topic_levels(will.topic_name) > usize::from(settings.topic_levels_max) {
                let cause = Cause::setting("topic_levels_max", settings.topic_levels_max);
                return Err((ReasonCode::TopicNameInvalid, cause));
            }
            // What the client may do is not known yet, but this nobody may.
            let denied = |access::Denied| (ReasonCode::NotAuthorized, Cause::TopicName);
            let certificates = || Certificates::of(settings, will.retain, will.payload);
            access::publish(&Access::default(), will.topic_name, certificates).map_err(denied)?;
        }
        Ok(())
    }

    /// The highest QoS that clients of this connection's listener may publish with.
    pub(crate) fn maximum_qos(&self, key: ConnectionKey) -> QoS {
        let Connection { listener, told, .. } = &self.connections[key as usize];
        let here = told.listeners.get(usize::from(*listener)).map_or(QoS::ExactlyOnce, |listener| listener.maximum_qos);
        here.min(told.maximum_qos)
    }

    // ---- enhanced authentication (v5 section 4.12) ------------------------------------------------------------

    fn begin_authentication(&mut self, now: Instant, key: ConnectionKey, connect: &Connect<'_>, body: &[u8]) -> Flow {
        let name = connect.properties.authentication_method.unwrap_or_default();
        let mut nonce = [0; 18];
        (self.random)(&mut nonce);
        let Some(method) = self.methods.iter().find(|method| method.name() == name) else {
            return self.break_off(now, key, ReasonCode::BadAuthenticationMethod, Cause::AuthenticationMethod);
        };
        let security = self.domain_to_prove(key);
        let exchange = method.begin(security, nonce);
        let connection = &mut self.connections[key as usize];
        connection.phase = Phase::Authenticating;
        let extras = connection.extras();
        extras.authentication_method = Some(name.into());
        extras.authentication = Some(Authentication { exchange, security, connect: Some(body.into()), rounds: 0 });
        // Without data the client waits for the server's first word, which for SCRAM does not exist.
        self.authentication_step(now, key, connect.properties.authentication_data.unwrap_or_default())
    }

    /// An AUTH packet.
    pub(crate) fn auth(&mut self, now: Instant, key: ConnectionKey, auth: &Auth<'_>) -> Flow {
        let security = self.domain_to_prove(key);
        let connection = &mut self.connections[key as usize];
        let phase = connection.phase;
        let protocol_error = ReasonCode::ProtocolError;
        let Some(extras) = connection.extras.as_deref_mut() else {
            return self.break_off(now, key, protocol_error, Cause::AuthenticationOrder);
        };
        // v5 MQTT-4.12.0-5, MQTT-4.12.0-7, MQTT-4.12.1-1: the method of CONNECT, in every AUTH.
        if extras.authentication_method.is_none()
            || auth.authentication_method != extras.authentication_method.as_deref()
        {
            return self.break_off(now, key, protocol_error, Cause::AuthenticationMethod);
        }
        match (auth.reason_code, &extras.authentication) {
            (ReasonCode::ContinueAuthentication, Some(_)) => {}
            (ReasonCode::ReAuthenticate, None) if phase == Phase::Connected => {
                let mut nonce = [0; 18];
                (self.random)(&mut nonce);
                let name = extras.authentication_method.clone().unwrap_or_default();
                let Some(method) = self.methods.iter().find(|method| *method.name() == *name) else {
                    return self.break_off(now, key, ReasonCode::BadAuthenticationMethod, Cause::AuthenticationMethod);
                };
                let exchange = method.begin(security, nonce);
                extras.authentication = Some(Authentication { exchange, security, connect: None, rounds: 0 });
            }
            _ => return self.break_off(now, key, protocol_error, Cause::AuthenticationOrder),
        }
        self.authentication_step(now, key, auth.authentication_data.unwrap_or_default())
    }

    fn authentication_step(&mut self, now: Instant, key: ConnectionKey, data: &[u8]) -> Flow {
        let Some(mut authentication) = self.connections[key as usize].extras().authentication.take() else {
            return Flow::Stop;
        };
        authentication.rounds += 1;
        if authentication.rounds > AUTHENTICATION_ROUNDS_MAX {
            return self.break_off(now, key, ReasonCode::NotAuthorized, Cause::AuthenticationOrder);
        }
        let address = self.connections[key as usize].place.address();
        // Just before the proof is looked at, so that of any number of exchanges begun at once no more than may be are.
        let tried = authentication.exchange.user_name().map(str::to_owned);
        if let Some(user_name) = &tried
            && !self.brake.may_try(now, address, authentication.security, user_name)
        {
            self.counters.connects_refused_credentials += u64::from(authentication.connect.is_some());
            let cause = Cause::Credentials("too many failures before");
            return self.break_off(now, key, ReasonCode::ConnectionRateExceeded, cause);
        }
        let step = authentication.exchange.step(data);
        let right = match &step {
            // Who turns out to be somebody else has proved nothing about the name.
            Step::Success { user_name, .. } => (tried.as_ref() == Some(user_name)).then_some(true),
            Step::Failure(Failure::Credentials) => Some(false),
            Step::Failure(_) | Step::Continue(_) => None,
        };
        if let (Some(user_name), Some(right)) = (tried, right) {
            self.brake.tried(now, address, authentication.security, &user_name, right);
        }
        match step {
            Step::Continue(data) => {
                let extras = self.connections[key as usize].extras();
                extras.authentication = Some(authentication);
                let method = extras.authentication_method.clone();
                let packet = Auth {
                    authentication_method: method.as_deref(),
                    authentication_data: Some(&data),
                    ..Auth::new(ReasonCode::ContinueAuthentication)
                };
                self.send(key, |out| packet.encode(out));
                Flow::Continue
            }
            Step::Failure(failure) => {
                self.counters.connects_refused_credentials += u64::from(authentication.connect.is_some());
                self.end(now, key, End::Authentication(failure), Some(failure.reason_code()))
            }
            Step::Success { .. } if authentication.security != self.domain_to_prove(key) => {
                self.counters.connects_refused_credentials += u64::from(authentication.connect.is_some());
                self.break_off(now, key, ReasonCode::NotAuthorized, OTHER_DOMAIN)
            }
            Step::Success { data, user_name } => match authentication.connect {
                Some(body) => match Connect::decode(&body) {
                    Ok(connect) => {
                        self.connections[key as usize].extras().user_name = Some(user_name.as_str().into());
                        let identity =
                            Identity { user_name: Some(user_name.into()), proof: Proof::Scram, ..Identity::default() };
                        let verified = Verified { security: authentication.security, identity };
                        self.accept(now, key, &connect, verified, data)
                    }
                    Err(error) => self.fail(now, key, error),
                },
                None => {
                    let extras = self.connections[key as usize].extras();
                    // A client cannot become somebody else on the way.
                    if extras.user_name.as_deref() != Some(&*user_name) {
                        return self.break_off(now, key, ReasonCode::ProtocolError, Cause::UserChanged);
                    }
                    let method = extras.authentication_method.clone();
                    let packet = Auth {
                        authentication_method: method.as_deref(),
                        authentication_data: Some(&data),
                        ..Auth::new(ReasonCode::Success)
                    };
                    self.send(key, |out| packet.encode(out));
                    Flow::Continue
                }
            },
        }
    }

    /// The domain whose user a client has to be: the listener's for who comes in, and its own for who is in, whatever a reload
    /// has made of the listener.
    fn domain_to_prove(&self, key: ConnectionKey) -> SecurityId {
        match self.connections[key as usize].session {
            Some(session) => self.sessions[session as usize].security,
            None => self.listener(key).map(|listener| listener.security).unwrap_or_default(),
        }
    }

    // ---- letting in -------------------------------------------------------------------------------------------

    /// Lets a client in that is who it says it is, if it may. `data` are the last words of enhanced authentication.
    fn accept(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        connect: &Connect<'_>,
        verified: Verified,
        data: Vec<u8>,
    ) -> Flow {
        let appended = self.store.appended();
        let assigned = connect.client_id.is_empty().then(|| self.assign_client_id(key));
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let expires_at = verified.identity.expires_at;
        let admitted = match self.admit(key, connect, client_id, verified) {
            Ok(admitted) => admitted,
            Err((code, cause)) => {
                self.counters.connects_refused_credentials += u64::from(cause == OTHER_DOMAIN);
                self.counters.connects_refused_other_user += u64::from(cause == Cause::OtherUser);
                return self.break_off(now, key, code, cause);
            }
        };

        // The old connection of the same client goes first, with all that follows from its end (v5 MQTT-3.1.4-3).
        if let Some(old) = self.find_session(client_id).and_then(|old| self.sessions[old as usize].connection) {
            // Only who may take over counts: else anybody could keep a client from coming back.
            if let Some(max) = self.settings.takeovers_per_second_max
                && !self.may_take_over(now, client_id)
            {
                self.counters.takeovers_refused += 1;
                let cause = Cause::setting("takeovers_per_second_max", max.get());
                return self.break_off(now, key, ReasonCode::ConnectionRateExceeded, cause);
            }
            let code = ReasonCode::SessionTakenOver;
            // Its Will is cancelled by the new connection if it goes on with the Session, below.
            self.break_off(now, old, code, Cause::ClientIdTaken);
        }
        let mut found = self.find_session(client_id);
        if let Some(old) = found.filter(|old| self.sessions[*old as usize].is_only_will()) {
            // The client is back in time.
            self.forget_will(old);
            self.end_session(now, old);
            found = None;
        }
        if let (true, Some(old)) = (connect.clean_start, found) {
            self.end_session(now, old);
            found = None;
        }
        let session_present = found.is_some();

        let wanted_expiry = wanted_expiry(connect);
        let expiry_interval = cap_expiry(&self.settings, wanted_expiry);
        // Whether the store knows of a Session is decided when it begins: one that was to end with its connection has ended.
        let number = match found {
            Some(old) => self.sessions[old as usize].number,
            None if expiry_interval > 0 => self.store.next_session(),
            None => None,
        };
        if let Some(number) = number {
            // Before anything is changed: should the store panic, no Session is left pointing at this connection.
            let session = pantala_store::Session { number, client_id, expiry_interval, detached_at: None };
            self.store.append(&Record::Session(session));
            let settings = std::sync::Arc::clone(&self.settings);
            let owner = admitted.owner(&settings);
            if found.and_then(|old| self.owner_of(old)) != owner {
                self.store.append(&Record::Owner { session: number, owner });
            }
        }
        let session_key = found.unwrap_or_else(|| self.begin_session(client_id));
        let user_name = admitted.principal.user_name.clone();
        let will = connect.will.as_ref().map(|will| {
            let certificates = || Certificates::of(&self.settings, will.retain, will.payload);
            let mounted = admitted.access.mounted_name(will.topic_name, certificates);
            let mut will = keep_will(will, mounted.as_deref());
            will.number = self.record_only_will(client_id, number, &admitted, &will);
            Box::new(will)
        });
        let session = &mut self.sessions[session_key as usize];
        // v5 MQTT-3.1.3-9: a client that is back in time has no Will published.
        let old_will = std::mem::replace(&mut session.will, will);
        session.security = admitted.security;
        session.proof = admitted.proof;
        let remembered = admitted.principal.is_somebody() || !self.rights.is_unrestricted();
        session.principal = remembered.then(|| Box::new(admitted.principal));
        session.restored = false;
        session.number = number;
        session.connection = Some(key);
        session.expiry_interval = expiry_interval;
        session.expires_at = MaybeInstant::NONE;
        if let Some(session) = old_will.as_ref().and_then(|old| old.number) {
            self.store.append(&Record::SessionEnded { session });
        }
        let session = &self.sessions[session_key as usize];
        if let Some(session_number) = number {
            match &session.will {
                Some(will) if !is_in_memory(&self.settings, will) => {
                    let will = will.to_store();
                    self.store.append(&Record::Will { session: session_number, will });
                }
                _ if old_will.is_some() => {
                    self.store.append(&Record::WillEnded { session: session_number });
                }
                _ => {}
            }
        }
        let session = &mut self.sessions[session_key as usize];
        if let Some(timer) = session.timer.take() {
            self.timers.cancel(timer);
        }

        let keep_alive_max = self.settings.keep_alive_max;
        let too_slow = keep_alive_max > 0 && (connect.keep_alive == 0 || connect.keep_alive > keep_alive_max);
        let keep_alive = if too_slow { keep_alive_max } else { connect.keep_alive };
        let receive_maximum = connect.properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get);
        let listener_index = usize::from(self.connections[key as usize].listener);
        let listener = self.settings.listeners.get(listener_index);
        let aliases_wanted = listener
            .and_then(|listener| listener.topic_alias_broker_max)
            .unwrap_or(self.settings.topic_alias_broker_max);
        let aliases = connect.properties.topic_alias_maximum.unwrap_or(0).min(aliases_wanted);
        let connection = &mut self.connections[key as usize];
        connection.phase = Phase::Connected;
        connection.session = Some(session_key);
        connection.keep_alive = KeepAlive::new(keep_alive, now);
        connection.window = receive_maximum.min(self.settings.inflight_messages_max).max(1);
        connection.problem_information = connect.properties.request_problem_information;
        if aliases > 0 {
            connection.extras().sent_aliases = Some(SentAliases::new(aliases));
        }
        if connect.bridge {
            connection.extras().bridge = true;
        }
        // An idle connection holds no more than is asked for again.
        let peer = connection.place.take_peer();
        connection.place = Place::of(peer.as_deref());
        let address = peer.and_then(|peer| peer.address);
        if expires_at.is_some() {
            connection.extras().expires_at = expires_at;
        }
        self.totals.connections.fetch_add(1, Ordering::Relaxed);
        self.totals.with_listener(listener_index as u16, |count| count.fetch_add(1, Ordering::Relaxed));
        self.counters.connects_accepted += 1;
        self.arm(now, key);

        let settings = std::sync::Arc::clone(&self.settings);
        let mut packet = ConnAck::new(session_present, ReasonCode::Success);
        let response_information = settings
            .response_information_prefix
            .as_ref()
            .filter(|_| connect.properties.request_response_information && !client_id.contains(['+', '#']))
            .map(|prefix| format!("{prefix}{client_id}/"));
        if connect.version.is_v5() {
            let alias_max = self.topic_alias_max(key);
            packet.topic_alias_maximum = (alias_max > 0).then_some(alias_max);
            packet.assigned_client_identifier = assigned.as_deref();
            packet.server_keep_alive = too_slow.then_some(keep_alive_max);
            packet.maximum_packet_size = NonZeroU32::new(self.connections[key as usize].told.packet_bytes_max)
                .filter(|size| size.get() < PACKET_BYTES_UNLIMITED);
            packet.receive_maximum = NonZeroU16::new(settings.receive_maximum).filter(|max| *max != NonZeroU16::MAX);
            packet.session_expiry_interval = (expiry_interval != wanted_expiry).then_some(expiry_interval);
            packet.maximum_qos = self.maximum_qos(key);
            packet.retain_available = settings.retain_available;
            packet.wildcard_subscription_available = settings.wildcard_subscription_available;
            packet.subscription_identifier_available = settings.subscription_identifiers_available;
            packet.shared_subscription_available = settings.shared_subscription_available;
            packet.response_information = response_information.as_deref();
            packet.authentication_method = connect.properties.authentication_method;
            packet.authentication_data = Some(&*data).filter(|data| !data.is_empty());
        }
        let bytes_max = self.connections[key as usize].packet_bytes_max;
        self.send(key, |out| packet.encode_within(connect.version, bytes_max, out));
        // The Session that CONNACK speaks of, or the end of the old one, has to be what would come back. Where nothing will, whoever needs
        // nothing kept is let in as at any other time.
        let failed = self.store.has_failed();
        if number.is_some() || !failed && self.store.appended() > appended {
            self.gate(key);
        }
        self.events.push_back(Event::Connected {
            connection: key,
            address,
            client_id: client_id.into(),
            user_name,
            version: connect.version,
            clean_start: connect.clean_start,
            keep_alive,
        });
        // The store has failed since it was asked.
        if failed && number.is_some() {
            self.refuse_gated(now);
            return Flow::Stop;
        }
        // The client's rights may be others than when it was here last, and its subscriptions others then.
        self.set_access(session_key, admitted.access);
        if session_present {
            self.announce_presence(session_key, true);
            self.pump(now, session_key);
        }
        Flow::Continue
    }

    /// Records the Will of a Session that ends with its connection, and that the store need not know but for this. Returns the
    /// store's name for it; none if the Will is not kept, or is kept with its Session.
    fn record_only_will(
        &mut self,
        client_id: &str,
        number: Option<SessionNumber>,
        admitted: &Admitted,
        will: &Will,
    ) -> Option<SessionNumber> {
        if number.is_some() || !self.store.accepts() || is_in_memory(&self.settings, will) {
            return None;
        }
        let number = self.store.next_session()?;
        let session = pantala_store::Session { number, client_id, expiry_interval: 0, detached_at: None };
        self.store.append(&Record::Session(session));
        if let Some(owner) = admitted.owner(&self.settings) {
            self.store.append(&Record::Owner { session: number, owner: Some(owner) });
        }
        self.store.append(&Record::Will { session: number, will: will.to_store() });
        Some(number)
    }

    /// Whether a client may be let in, and what it may do then.
    fn admit(
        &self,
        key: ConnectionKey,
        connect: &Connect<'_>,
        client_id: &str,
        verified: Verified,
    ) -> Result<Admitted, (ReasonCode, Cause)> {
        let connection = &self.connections[key as usize];
        let listener = self.listener(key);
        let Verified { security, identity } = verified;
        let proof = identity.proof;
        // What was proved to the users of one domain says nothing to those of another.
        if security != self.domain_to_prove(key) {
            return Err((ReasonCode::NotAuthorized, OTHER_DOMAIN));
        }
        let principal = Principal::new(identity, connection.place.peer());
        if listener.is_some_and(|listener| listener.deny_special_characters)
            && principal.user_name.as_deref().is_some_and(is_special)
        {
            return Err((ReasonCode::NotAuthorized, Cause::SpecialCharacters));
        }
        if listener.is_none_or(|listener| listener.sessions_belong_to_users)
            && let Some(session) = self.find_session(client_id).map(|session| &self.sessions[session as usize])
            && let Some(owner) = session.principal.as_ref().and_then(|owner| owner.user_name.as_deref())
            && (session.security != security || principal.user_name.as_deref() != Some(owner))
        {
            return Err((ReasonCode::NotAuthorized, Cause::OtherUser));
        }
        let rights = match self.standing_of(security, &principal.subject(client_id, proof)) {
            Standing::Rights(rights) => rights,
            Standing::Unknown => return Err((ReasonCode::NotAuthorized, Cause::UserRemoved)),
            Standing::Banned => return Err((ReasonCode::Banned, Cause::Banned)),
        };
        let access = Access::new(rights, listener.and_then(|listener| listener.mount_point.clone()));
        if let Some(will) = &connect.will {
            let certificates = || Certificates::of(&self.settings, will.retain, will.payload);
            let mounted = access.mounted_name(will.topic_name, certificates);
            let topic_name = mounted.as_deref().unwrap_or(will.topic_name);
            if topic_name.len() > usize::from(u16::MAX) {
                let cause = Cause::ListenerSetting { key: "mount_point", value: topic_name.len() as u64 };
                return Err((ReasonCode::TopicNameInvalid, cause));
            }
            let denied = |access::Denied| (ReasonCode::NotAuthorized, Cause::TopicName);
            access::will(&access, will.topic_name, topic_name, certificates).map_err(denied)?;
        }
        Ok(Admitted { security, proof, principal, access })
    }

    /// Topic Alias Maximum announced on this connection.
    pub(crate) fn topic_alias_max(&self, key: ConnectionKey) -> u16 {
        let Connection { listener, told, .. } = &self.connections[key as usize];
        let here = told.listeners.get(usize::from(*listener)).and_then(|listener| listener.topic_alias_max);
        here.unwrap_or(told.topic_alias_max)
    }

    /// What Client Identifiers begin with that are assigned on this connection.
    fn auto_id_prefix(&self, key: ConnectionKey) -> &str {
        let here = self.listener(key).and_then(|listener| listener.auto_id_prefix.as_deref());
        here.unwrap_or(&self.settings.auto_id_prefix)
    }

    /// A Client Identifier that no Session has and nobody can guess: 122 random bits, as a UUID. It belongs to this worker.
    fn assign_client_id(&mut self, key: ConnectionKey) -> String {
        let prefix = self.auto_id_prefix(key).to_owned();
        loop {
            let mut random = [0; 16];
            (self.random)(&mut random);
            random[6] = random[6] & 0x0f | 0x40;
            random[8] = random[8] & 0x3f | 0x80;
            let mut client_id = prefix.clone();
            for (at, byte) in random.iter().enumerate() {
                if matches!(at, 4 | 6 | 8 | 10) {
                    client_id.push('-');
                }
                client_id += &format!("{byte:02X}");
            }
            if owner(&client_id, self.workers) == self.worker && self.find_session(&client_id).is_none() {
                return client_id;
            }
        }
    }
}

/// A client that may come in.
struct Admitted {
    security: SecurityId,
    proof: Proof,
    principal: Principal,
    access: Access,
}

impl Admitted {
    /// The user that its Session belongs to.
    fn owner<'a>(&'a self, settings: &'a Settings) -> Option<Owner<'a>> {
        let security_domain = settings.security_domain(self.security);
        self.principal.user_name.as_deref().map(|user_name| Owner { security_domain, user_name })
    }
}

/// Whether a Will is not to be kept on disk, by the rule for its topic.
fn is_in_memory(settings: &Settings, will: &Will) -> bool {
    durability::level(settings, will.message.incoming().topic_name) == Some(Durability::Memory)
}

/// Whether a name has what means something in a Topic Filter.
fn is_special(name: &str) -> bool {
    name.contains(['+', '#', '/'])
}

/// The Session Expiry Interval that a client asks for, in seconds.
fn wanted_expiry(connect: &Connect<'_>) -> u32 {
    match (connect.version.is_v5(), connect.clean_start) {
        (true, _) => connect.properties.session_expiry_interval.unwrap_or(0),
        (false, true) => 0,
        (false, false) => NEVER,
    }
}

fn keep_will(will: &pantala_proto::Will<'_>, mounted_name: Option<&str>) -> Will {
    let properties: &PublishProperties<'_> = &will.properties;
    let message = Message::alone(&Incoming {
        topic_name: mounted_name.unwrap_or(will.topic_name),
        properties: properties.forward(),
        payload: will.payload,
        qos: will.qos,
        retain: will.retain,
        expires_at: None,
        id: None,
        room: Room::Unasked,
    });
    Will {
        message,
        message_expiry_interval: properties.message_expiry_interval,
        delay_interval: will.delay_interval,
        due: MaybeInstant::NONE,
        number: None,
    }
}
