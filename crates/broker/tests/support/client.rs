//! A client before it is connected: what its CONNECT says.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};

use pantala_broker::ListenerId;
use pantala_proto::{Connect, ConnectProperties, Property, ProtocolVersion, PublishProperties, QoS, ReasonCode};

use super::method::Word;
use super::{Peer, Received, World};

/// The fields of a CONNECT.
#[derive(Clone)]
pub struct Client {
    world: World,
    client_id: String,
    version: ProtocolVersion,
    clean_start: bool,
    keep_alive: u16,
    expiry: Option<u32>,
    receive_maximum: Option<u16>,
    packet_bytes_max: Option<u32>,
    problem_information: bool,
    alias_max: Option<u16>,
    will: Option<Will>,
    user_name: Option<String>,
    password: Option<String>,
    listener: ListenerId,
    word: Option<String>,
    address: Option<SocketAddr>,
}

/// A Will Message.
#[derive(Clone)]
pub struct Will {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
    pub delay: u32,
    pub expiry: Option<u32>,
}

impl Will {
    pub fn new(topic: &str, payload: &str) -> Self {
        Self { topic: topic.to_owned(), payload: payload.to_owned(), qos: 1, retain: false, delay: 0, expiry: None }
    }
}

impl Client {
    /// MQTT 5, Clean Start, no expiry, no Keep Alive.
    pub fn new(world: World, client_id: String) -> Self {
        Self {
            world,
            client_id,
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive: 0,
            expiry: None,
            receive_maximum: None,
            packet_bytes_max: None,
            problem_information: true,
            alias_max: None,
            will: None,
            user_name: None,
            password: None,
            listener: 0,
            word: None,
            address: None,
        }
    }

    pub fn v3(mut self) -> Self {
        self.version = ProtocolVersion::V311;
        self
    }

    pub fn clean(mut self, clean_start: bool) -> Self {
        self.clean_start = clean_start;
        self
    }

    /// Goes on with what there is, and stays: the form in which most tests want a persistent Session.
    pub fn persistent(self) -> Self {
        self.clean(false).expiry(1_000_000)
    }

    pub fn expiry(mut self, seconds: u32) -> Self {
        self.expiry = Some(seconds);
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    pub fn receive_maximum(mut self, messages: u16) -> Self {
        self.receive_maximum = Some(messages);
        self
    }

    pub fn packet_bytes_max(mut self, bytes: u32) -> Self {
        self.packet_bytes_max = Some(bytes);
        self
    }

    /// Request Problem Information is 0.
    pub fn without_problem_information(mut self) -> Self {
        self.problem_information = false;
        self
    }

    pub fn alias_max(mut self, aliases: u16) -> Self {
        self.alias_max = Some(aliases);
        self
    }

    pub fn will(mut self, will: Will) -> Self {
        self.will = Some(will);
        self
    }

    /// With this user name, and as password the same.
    pub fn user(mut self, user_name: &str) -> Self {
        (self.user_name, self.password) = (Some(user_name.to_owned()), Some(user_name.to_owned()));
        self
    }

    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// From this address.
    pub fn from(mut self, address: &str) -> Self {
        self.address = Some(SocketAddr::new(address.parse().unwrap(), 40_000));
        self
    }

    /// By enhanced authentication, with this word.
    pub fn word(mut self, word: &str) -> Self {
        self.word = Some(word.to_owned());
        self
    }

    /// At another listener than the first.
    pub fn at(mut self, listener: ListenerId) -> Self {
        self.listener = listener;
        self
    }

    /// Is not let in.
    #[track_caller]
    pub fn refused(&self, code: ReasonCode) {
        let (peer, answer) = self.try_connect();
        assert_eq!(answer, Some(Received::ConnAck { session_present: false, code }), "{}", self.client_id);
        peer.expect_nothing();
        assert!(peer.is_closed());
    }

    /// Connects, and returns the CONNACK too.
    pub fn try_connect(&self) -> (Peer, Option<Received>) {
        let peer = self.begin();
        self.world.run();
        let answer = peer.next();
        (peer, answer)
    }

    /// Sends CONNECT and waits for nothing.
    pub fn begin(&self) -> Peer {
        self.begin_with(&self.bytes())
    }

    /// Opens a connection and sends these bytes.
    pub fn begin_with(&self, bytes: &[u8]) -> Peer {
        let peer = Peer::open(&self.world, self.version, self.listener, self.address);
        peer.send_bytes(bytes);
        peer
    }

    /// Connects; a Session is present or not as `session_present` says.
    pub fn connect_with(&self, session_present: bool) -> Peer {
        let (peer, answer) = self.try_connect();
        let expected = Received::ConnAck { session_present, code: ReasonCode::Success };
        assert_eq!(answer, Some(expected), "{}", self.client_id);
        peer
    }

    /// Connects without a Session to go on with.
    pub fn connect(&self) -> Peer {
        self.connect_with(false)
    }

    /// Connects and goes on with the Session.
    pub fn resume(&self) -> Peer {
        self.connect_with(true)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let section = self.will.as_ref().and_then(|will| will.expiry).map_or_else(Vec::new, |seconds| {
            let mut section = Vec::new();
            Property::MessageExpiryInterval(seconds).encode(&mut section);
            section
        });
        let v5 = self.version.is_v5();
        let packet = Connect {
            version: self.version,
            bridge: false,
            clean_start: self.clean_start,
            keep_alive: self.keep_alive,
            properties: ConnectProperties {
                session_expiry_interval: self.expiry,
                receive_maximum: self.receive_maximum.and_then(NonZeroU16::new),
                maximum_packet_size: self.packet_bytes_max.and_then(NonZeroU32::new),
                topic_alias_maximum: self.alias_max,
                request_problem_information: self.problem_information,
                authentication_method: self.word.as_ref().map(|_| Word::NAME),
                authentication_data: self.word.as_deref().map(str::as_bytes),
                ..ConnectProperties::default()
            },
            client_id: &self.client_id,
            will: self.will.as_ref().map(|will| pantala_proto::Will {
                qos: QoS::from_bits(will.qos).unwrap(),
                retain: will.retain,
                delay_interval: if v5 { will.delay } else { 0 },
                properties: PublishProperties::new(&section).unwrap(),
                topic_name: &will.topic,
                payload: will.payload.as_bytes(),
            }),
            user_name: self.user_name.as_deref(),
            password: self.password.as_deref().map(str::as_bytes),
        };
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        bytes
    }
}
