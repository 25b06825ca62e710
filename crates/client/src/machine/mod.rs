//! One end of a Session as a machine without I/O: bytes, requests and `now` go in, bytes, events and the next deadline come
//! out. [`Client`](crate::Client) drives one; whoever has a transport or a runtime of their own can do the same.
//!
//! ```text
//!             connection_made                 CONNACK                     disconnect, or an error
//!   Offline ───────────────────► Connecting ───────────► Open ─────────────────────────────────────► Closing
//!      ▲                              │                    │                                             │
//!      └──────────────────────────────┴────────────────────┴─────────────────────────────────────────────┘
//!                                           connection_lost
//! ```
//!
//! ```
//! use pantala_client::machine::{Event, Machine, SessionSettings};
//! use pantala_session::Instant;
//!
//! let mut machine = Machine::new(SessionSettings::default());
//! let now = Instant(0);
//! machine.connection_made(now);
//! let connect = machine.take_output(now);
//! assert_eq!(connect[0], 0x10);
//! machine.handle_input(now, &[0x20, 0x03, 0x00, 0x00, 0x00]);
//! assert!(matches!(machine.poll_event(), Some(Event::Connected(_))));
//! ```
//!
//! After each input, take events until there are none, write the output, and be back at [`Machine::deadline`]. Where writing may
//! take long, tell of it: [`Machine::report_writes`].

mod authenticate;
mod connect;
mod event;
mod journal;
mod observe;
mod publish;
mod receive;
mod request;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use pantala_proto::{Acknowledgement, Disconnect, Packet, PacketId, ProtocolVersion, ReasonCode, frame};
use pantala_session::{Instant, Outbound, ReceivedAliases, SentAliases};

pub use authenticate::{AuthenticationAnswer, AuthenticationStep};
pub use event::{Answered, Connected, Details, Event, Inbound, Published, ServerLimits, Token};
pub use journal::{Kept, Progress, Record};
pub use observe::{Direction, Observer};
pub use publish::Accepted;
pub use request::{DisconnectRequest, REQUESTS_WAITING_MAX, SubscribeRequest, UnsubscribeRequest};
pub use settings::{SessionSettings, UnknownSession, Will};

pub(crate) use settings::seconds;

use crate::authentication::Authenticator;
use crate::error::{ConnectionError, Violation};
use authenticate::{Method, Step};
use journal::{Journal, Releasing};
use observe::Observed;
use publish::{Blocks, Waiting};

pub(crate) use publish::Offered;
use receive::Receiver;
use request::Requests;

/// A read buffer above this is given back when it is empty. Bytes.
const INPUT_KEPT_BYTES: usize = 4 << 10;
/// PINGREQ goes out this long before the Keep Alive is over, or a quarter of it where that is less.
const PING_MARGIN: Duration = Duration::from_secs(5);
/// PINGRESP may take this long, or half the Keep Alive where that is more, from the last byte that went either way.
const PING_TIMEOUT_MIN: Duration = Duration::from_secs(5);
/// Each byte that goes either way since PINGREQ prolongs the wait for PINGRESP by this much at most: bytes that trickle are no
/// sign of life.
const BYTE_PROLONGS: Duration = Duration::from_millis(10);

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is none.
    Offline,
    /// CONNECT has been sent.
    Connecting,
    /// CONNACK has come: messages flow.
    Open,
    /// The last packet is in the output; nothing is read any more.
    Closing,
}

/// One end of a Session. See the [module](self).
pub struct Machine {
    settings: SessionSettings,
    /// Enhanced authentication.
    method: Option<Method>,
    /// Answers to AUTH are worked out elsewhere.
    defers: bool,
    step: Step,
    /// Counts connections, so that an answer for an earlier one is known.
    exchange: u64,
    phase: Phase,
    /// A CONNACK with Success has come once: from then on Clean Start is not asked for where the Session can live on.
    was_open: bool,
    /// An earlier program has left its part of the Session.
    was_restored: bool,
    limits: ServerLimits,
    keep_alive: Duration,
    /// What the broker has made of our Session Expiry Interval, if it has another. Seconds.
    session_expiry: Option<u32>,

    outbound: Outbound<Waiting, Vec<PacketId>>,
    /// Bytes of topics and payloads in `outbound`.
    waiting_bytes: usize,
    /// Small payloads in `outbound`.
    blocks: Blocks,
    /// QoS 2 messages that PUBREC has come for.
    releasing: VecDeque<Releasing>,
    sent_aliases: SentAliases,

    receiver: Receiver,
    received_aliases: ReceivedAliases,
    requests: Requests,
    /// What has to outlive the program; boxed, as few need it.
    journal: Option<Box<Journal>>,
    /// Who looks at packets.
    observed: Option<Box<Observed>>,

    input: Vec<u8>,
    output: Vec<u8>,
    events: VecDeque<Event>,

    /// When bytes were written last, or PINGREQ was due.
    last_sent: Instant,
    last_received: Instant,
    /// When CONNECT or PINGREQ was sent, or was to be sent, if its answer has not come.
    asked: Option<Instant>,
    /// Bytes that went either way since then.
    moved: u32,
    /// What is taken is not yet written, and PINGREQ is taken apart.
    reports_writes: bool,
    /// PINGREQ is to be taken apart.
    ping_due: bool,
    /// A PINGREQ has been taken apart, and is not answered.
    ping_taken: bool,
    /// Nobody reads: silence says nothing about the broker.
    reading_paused: bool,
}

impl Machine {
    /// A machine without a connection.
    pub fn new(settings: SessionSettings) -> Self {
        Self {
            keep_alive: settings.keep_alive,
            session_expiry: None,
            settings,
            method: None,
            defers: false,
            step: Step::None,
            exchange: 0,
            phase: Phase::Offline,
            was_open: false,
            was_restored: false,
            limits: ServerLimits::default(),
            outbound: Outbound::default(),
            waiting_bytes: 0,
            blocks: Blocks::default(),
            releasing: VecDeque::new(),
            sent_aliases: SentAliases::new(0),
            receiver: Receiver::default(),
            received_aliases: ReceivedAliases::default(),
            requests: Requests::default(),
            journal: None,
            observed: None,
            input: Vec::new(),
            output: Vec::new(),
            // One at a time is all that a quiet client has; the first growth would be to four.
            events: VecDeque::with_capacity(1),
            last_sent: Instant::default(),
            last_received: Instant::default(),
            asked: None,
            moved: 0,
            reports_writes: false,
            ping_due: false,
            ping_taken: false,
            reading_paused: false,
        }
    }

    /// With enhanced authentication (MQTT 5). Its work is done inside the calls into the machine; see
    /// [`Machine::defer_authentication`].
    #[must_use]
    pub fn with_authenticator(mut self, authenticator: Box<dyn Authenticator>) -> Self {
        self.method = Some(Method::new(authenticator));
        self
    }

    /// What it was told.
    pub fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// The next connections are to a stranger: User Name, Password and the authenticator are not for it. For
    /// [`Machine::set_credentials`].
    pub fn take_credentials(&mut self) -> Credentials {
        Credentials {
            user_name: self.settings.user_name.take(),
            password: self.settings.password.take(),
            method: self.method.take(),
        }
    }

    /// Takes back what [`Machine::take_credentials`] gave.
    pub fn set_credentials(&mut self, credentials: Credentials) {
        self.settings.user_name = credentials.user_name;
        self.settings.password = credentials.password;
        self.method = credentials.method;
    }

    /// What the connections to come are to be like.
    pub fn settings_mut(&mut self) -> &mut SessionSettings {
        &mut self.settings
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What the broker can do; before the first CONNACK, everything.
    pub fn limits(&self) -> &ServerLimits {
        &self.limits
    }

    /// Whether the broker keeps the Session beyond this connection: as it said, or as we asked.
    pub fn session_outlives_connection(&self) -> bool {
        self.session_expiry.map_or_else(|| self.settings.outlives_connection(), |seconds| seconds > 0)
    }

    fn version(&self) -> ProtocolVersion {
        self.settings.version
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Bytes that are to be written.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// The bytes that are to be written, which are the caller's now: all of them must go out, in order, before those taken
    /// later.
    pub fn take_output(&mut self, now: Instant) -> Vec<u8> {
        self.swap_output(now, Vec::new())
    }

    /// As [`Machine::take_output`], with an empty buffer in exchange, so that none is allocated.
    pub fn swap_output(&mut self, now: Instant, mut empty: Vec<u8>) -> Vec<u8> {
        if self.output.is_empty() {
            return empty;
        }
        if !self.reports_writes {
            self.output_written(now, self.output.len());
        }
        empty.clear();
        self.observe_output();
        let output = std::mem::replace(&mut self.output, empty);
        self.observe_anew();
        // There is room again for what waited.
        self.pump(now);
        output
    }

    /// From here on what is taken does not count as written: whoever drives the machine calls [`Machine::output_written`] for
    /// that, and takes PINGREQ with [`Machine::take_ping`]. For drivers that hold output back, or whose connections are slow.
    /// Default: what is taken counts as written at once, and PINGREQ stands in the output.
    pub fn report_writes(&mut self) {
        self.reports_writes = true;
    }

    /// So many bytes were written.
    pub fn output_written(&mut self, now: Instant, bytes: usize) {
        self.last_sent = now;
        self.moved = self.moved.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Appends PINGREQ to `output`, if it is due; whether it was. It may be written between any two packets, also before output
    /// that was taken earlier and is held back: to be asked for after [`Machine::handle_timeout`].
    pub fn take_ping(&mut self, now: Instant, output: &mut Vec<u8>) -> bool {
        if !self.ping_due || self.phase != Phase::Open {
            return false;
        }
        self.ping_due = false;
        Packet::PingReq.encode(self.version(), output);
        self.observe_sent(&Packet::PingReq);
        if !self.ping_taken {
            // It may have waited for the rest of a packet.
            self.ping_taken = true;
            self.asked_now(now);
        }
        true
    }

    fn asked_now(&mut self, now: Instant) {
        self.asked = Some(now);
        self.moved = 0;
    }

    /// Nothing is read from here on, or it is again: while nobody reads, the broker's silence is not held against it.
    pub fn set_reading_paused(&mut self, now: Instant, paused: bool) {
        if self.reading_paused && !paused {
            self.last_received = now;
            if self.asked.is_some() {
                self.asked_now(now);
            }
        }
        self.reading_paused = paused;
    }

    /// Bytes have come. What follows a packet that ends the connection is not looked at.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        self.last_received = now;
        self.moved = self.moved.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        if self.input.is_empty() {
            let used = self.handle_packets(now, bytes);
            self.input.extend_from_slice(&bytes[used..]);
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let used = self.handle_packets(now, &input);
        input.drain(..used);
        if !input.is_empty() || input.capacity() <= INPUT_KEPT_BYTES {
            self.input = input;
        }
    }

    /// Handles the whole packets at the front of `bytes`; how many bytes those were.
    fn handle_packets(&mut self, now: Instant, bytes: &[u8]) -> usize {
        let packet_bytes_max = self.settings.maximum_packet_size.map_or(u32::MAX, u32::from);
        let mut used = 0;
        while matches!(self.phase, Phase::Connecting | Phase::Open) {
            let frame = match frame::split(&bytes[used..], packet_bytes_max) {
                Ok(frame::Split::Frame(frame)) => frame,
                Ok(frame::Split::Incomplete { .. }) => break,
                Err(error) => {
                    self.fail(ConnectionError::Malformed(error));
                    break;
                }
            };
            used += frame.packet_bytes;
            if self.phase == Phase::Open
                && self.observed.is_none()
                && let Some(pub_ack) = Acknowledgement::plain_pub_ack(frame.first_byte, frame.body)
            {
                if let Err(error) = self.handle_acknowledgement(&pub_ack) {
                    self.fail(error);
                }
                continue;
            }
            match Packet::decode(self.version(), frame.first_byte, frame.body) {
                Ok(packet) => {
                    self.observe_received(&packet);
                    if let Err(error) = self.handle_packet(now, packet) {
                        self.fail(error);
                    }
                    self.observe_output();
                }
                Err(error) => self.fail(self.refused_as_v3(&frame).unwrap_or(ConnectionError::Malformed(error))),
            }
        }
        // What has been acknowledged makes room for what waits: once for all packets that came together.
        self.pump(now);
        self.observe_output();
        if self.outbound.is_idle() {
            self.blocks = Blocks::default();
        }
        if self.phase == Phase::Closing { bytes.len() } else { used }
    }

    /// A broker that does not know MQTT 5 refuses it in the form of MQTT 3: two bytes, and a return code that MQTT 5 does not have.
    fn refused_as_v3(&self, frame: &frame::Frame<'_>) -> Option<ConnectionError> {
        let asked = self.phase == Phase::Connecting && self.version().is_v5();
        let code = match (frame.first_byte, frame.body) {
            (0x20, &[0, code]) if asked && code > 0 => code,
            _ => return None,
        };
        let reason_code = ReasonCode::from_v3_connect_return_code(code)?;
        let refusal = Box::new(crate::error::Refusal { reason_code, details: Details::default() });
        Some(ConnectionError::Refused { refusal, server_reference: None })
    }

    fn handle_packet(&mut self, now: Instant, packet: Packet<'_>) -> Result<(), ConnectionError> {
        if self.phase == Phase::Connecting {
            return match packet {
                Packet::ConnAck(conn_ack) => self.handle_conn_ack(now, &conn_ack),
                Packet::Auth(auth) => self.handle_auth(&auth),
                _ => Err(ConnectionError::Protocol(Violation::NotConnAck)),
            };
        }
        match packet {
            Packet::Publish(publish) => self.handle_publish(&publish),
            Packet::Acknowledgement(acknowledgement) => self.handle_acknowledgement(&acknowledgement),
            Packet::SubAck(sub_ack) => self.handle_sub_ack(&sub_ack),
            Packet::UnsubAck(unsub_ack) => self.handle_unsub_ack(&unsub_ack),
            Packet::PingResp => {
                self.asked = None;
                self.ping_taken = false;
                Ok(())
            }
            Packet::Disconnect(disconnect) if self.version().is_v5() => Err(ConnectionError::Disconnected {
                refusal: Box::new(crate::error::Refusal {
                    reason_code: disconnect.reason_code,
                    details: Details::of(disconnect.reason_string, &disconnect.user_properties),
                }),
                server_reference: disconnect.server_reference.map(str::to_owned),
            }),
            Packet::Auth(auth) => self.handle_auth(&auth),
            Packet::ConnAck(_) => Err(ConnectionError::Protocol(Violation::SecondConnAck)),
            Packet::Connect(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Disconnect(_) => Err(ConnectionError::Protocol(Violation::ClientPacket)),
        }
    }

    /// The connection is over: says so to the broker where it wants to hear it, and to the caller.
    pub(crate) fn fail(&mut self, error: ConnectionError) {
        if self.phase == Phase::Closing || self.phase == Phase::Offline {
            return;
        }
        let reason_code = match &error {
            ConnectionError::Malformed(error) => Some(error.reason_code()),
            ConnectionError::Protocol(violation) => Some(violation.reason_code()),
            ConnectionError::Authentication(_) => Some(ReasonCode::NotAuthorized),
            ConnectionError::TimedOut => Some(ReasonCode::UnspecifiedError),
            // The broker has closed, or the network is gone.
            _ => None,
        };
        if let Some(reason_code) = reason_code.filter(|_| self.phase == Phase::Open && self.version().is_v5()) {
            Disconnect::new(reason_code).encode(self.version(), &mut self.output);
        }
        self.phase = Phase::Closing;
        self.events.push_back(Event::Ended(error));
    }

    /// Ends the connection: DISCONNECT is the last that goes out. What waits stays for the next connection. With
    /// [`ReasonCode::DisconnectWithWillMessage`] the broker publishes the Will (MQTT 5).
    pub fn disconnect(&mut self, reason_code: ReasonCode, session_expiry_interval: Option<Duration>) {
        self.disconnect_with(&DisconnectRequest {
            reason_code,
            session_expiry_interval,
            ..DisconnectRequest::default()
        });
    }

    /// As [`Machine::disconnect`], with all that DISCONNECT can say. Texts that are none in MQTT are left out.
    pub fn disconnect_with(&mut self, request: &DisconnectRequest) {
        if self.phase == Phase::Open {
            self.encode_disconnect(request);
        }
        if self.phase != Phase::Offline {
            self.phase = Phase::Closing;
        }
    }

    /// The connection is gone. Exchanges and requests go on with the next one.
    pub fn connection_lost(&mut self) {
        self.phase = Phase::Offline;
        self.input = Vec::new();
        self.output = Vec::new();
        self.observe_anew();
        self.asked = None;
        (self.ping_due, self.ping_taken) = (false, false);
        self.forget_authentication();
        self.outbound.connection_lost();
        self.received_aliases = ReceivedAliases::default();
        self.sent_aliases = SentAliases::new(0);
        self.receiver.connection_lost();
        self.requests.connection_lost(self.outbound.others_mut());
    }

    /// When [`Machine::handle_timeout`] is to be called, if nothing else comes before.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Offline | Phase::Closing => None,
            Phase::Connecting => self.asked.map(|asked| self.patience_ends(asked)),
            Phase::Open if self.keep_alive.is_zero() => None,
            Phase::Open => {
                let silence_max = self.keep_alive - PING_MARGIN.min(self.keep_alive / 4);
                // Also while an answer is awaited: the Keep Alive may be shorter than our patience (v5 MQTT-3.1.2-20).
                let ours = self.last_sent.after(silence_max);
                if self.reading_paused {
                    return Some(ours);
                }
                Some(match self.asked {
                    Some(asked) => ours.min(self.patience_ends(asked)),
                    // A broker that only takes, and a client that only gives, are both asked whether they are alive.
                    None => ours.min(self.last_received.after(silence_max)),
                })
            }
        }
    }

    fn patience_ends(&self, asked: Instant) -> Instant {
        if self.phase == Phase::Connecting {
            return asked.after(self.settings.connect_timeout);
        }
        let patience = (self.keep_alive / 2).max(PING_TIMEOUT_MIN);
        // Behind a large packet PINGREQ or its answer takes as long as that does, for which bytes have to go on and on.
        let stands_still = asked.max(self.last_sent).max(self.last_received).after(patience);
        stands_still.min(asked.after(patience + BYTE_PROLONGS * self.moved))
    }

    /// The deadline may have come: sends PINGREQ, or gives a silent broker up.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let heard = !self.reading_paused || self.phase == Phase::Connecting;
        if heard && self.asked.is_some_and(|asked| self.patience_ends(asked) <= now) {
            return self.fail(ConnectionError::TimedOut);
        }
        if self.reports_writes {
            self.ping_due = true;
        } else {
            Packet::PingReq.encode(self.version(), &mut self.output);
        }
        if self.asked.is_none() {
            self.asked_now(now);
        }
        // Not again at once, also if it cannot be written.
        self.last_sent = now;
    }
}

/// What proves who we are.
pub struct Credentials {
    user_name: Option<String>,
    password: Option<Vec<u8>>,
    method: Option<Method>,
}

/// The last Topic Name, so that a stream of messages on one topic shares it.
#[derive(Default)]
pub(crate) struct LastTopic(Option<Arc<str>>);

impl LastTopic {
    pub(crate) fn intern(&mut self, topic_name: &str) -> Arc<str> {
        match &self.0 {
            Some(last) if **last == *topic_name => last.clone(),
            _ => {
                let fresh: Arc<str> = topic_name.into();
                self.0 = Some(fresh.clone());
                fresh
            }
        }
    }
}
