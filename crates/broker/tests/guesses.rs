//! Whether somebody who guesses by enhanced authentication may try again is for the brake to say, and it is told what came of it.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use pantala_broker::authentication::{Brake, Exchange, Failure, Method, Step};
use pantala_broker::{ConnectionKey, Core, CoreOptions, ListenerSettings, Peer, SecurityId, Settings};
use pantala_proto::{Auth, Connect, ConnectProperties, ProtocolVersion, ReasonCode};
use pantala_session::Instant;
use pantala_store::MemoryStore;

const NAME: &str = "KNOCK";
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A method of two packets: a user name, and whether its proof is right.
struct Knock;

impl Method for Knock {
    fn name(&self) -> &str {
        NAME
    }

    fn begin(&self, security: SecurityId, _server_nonce: [u8; 18]) -> Box<dyn Exchange> {
        assert_eq!(security, SecurityId(3));
        Box::new(Knocked(None))
    }
}

struct Knocked(Option<String>);

impl Exchange for Knocked {
    fn step(&mut self, client_data: &[u8]) -> Step {
        match (self.0.take(), client_data) {
            (None, name) => {
                self.0 = Some(String::from_utf8(name.to_vec()).unwrap());
                Step::Continue(b"?".to_vec())
            }
            (Some(user_name), b"right") => Step::Success { data: Vec::new(), user_name },
            (Some(_), b"mallory") => Step::Success { data: Vec::new(), user_name: "mallory".to_owned() },
            (Some(_), b"wrong") => Step::Failure(Failure::Credentials),
            (Some(_), _) => Step::Failure(Failure::Malformed),
        }
    }

    fn user_name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

/// Writes down what it is asked and told, and has had enough of one user.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Brake for Notes {
    fn may_try(&self, now: Instant, address: Option<IpAddr>, security: SecurityId, user_name: &str) -> bool {
        assert_eq!((now, address, security), (Instant(2), Some(HOME), SecurityId(3)));
        self.0.lock().unwrap().push(format!("may {user_name} try"));
        user_name != "eve"
    }

    fn tried(&self, now: Instant, address: Option<IpAddr>, security: SecurityId, user_name: &str, right: bool) {
        assert_eq!((now, address, security), (Instant(2), Some(HOME), SecurityId(3)));
        self.0.lock().unwrap().push(format!("{user_name}: {right}"));
    }
}

fn settings(security: SecurityId) -> Arc<Settings> {
    let listener = ListenerSettings { security, ..ListenerSettings::default() };
    Arc::new(Settings { listeners: vec![listener], ..Settings::default() })
}

struct World {
    core: Core<MemoryStore>,
    notes: Arc<Notes>,
}

impl World {
    fn new() -> Self {
        let notes = Arc::new(Notes::default());
        let options = CoreOptions::alone(settings(SecurityId(3)), Box::new(|bytes| bytes.fill(7)));
        let options =
            CoreOptions { methods: Arc::new([Box::new(Knock)]), brake: Arc::<Notes>::clone(&notes), ..options };
        Self { core: Core::new(options, MemoryStore), notes }
    }

    /// A connection that has said who it is, and been asked for its proof.
    fn named(&mut self, user_name: &str) -> ConnectionKey {
        let key = self.core.open(Instant(1), 0);
        let address = Some(SocketAddr::new(HOME, 1));
        self.core.introduce(key, Box::new(Peer { address, ..Peer::default() }));
        let properties = ConnectProperties {
            authentication_method: Some(NAME),
            authentication_data: Some(user_name.as_bytes()),
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version: ProtocolVersion::V5,
            bridge: false,
            clean_start: true,
            keep_alive: 60,
            properties,
            client_id: "a",
            will: None,
            user_name: None,
            password: None,
        };
        let mut bytes = Vec::new();
        connect.encode(&mut bytes);
        self.core.receive(Instant(1), key, &bytes);
        // AUTH has its Reason Code behind the length.
        assert_eq!(self.answer(key), (0xf0, 0x18));
        key
    }

    fn auth(&mut self, key: ConnectionKey, reason_code: ReasonCode, data: &[u8]) {
        let auth =
            Auth { authentication_method: Some(NAME), authentication_data: Some(data), ..Auth::new(reason_code) };
        let mut bytes = Vec::new();
        auth.encode(&mut bytes);
        self.core.receive(Instant(2), key, &bytes);
    }

    /// The first byte of the packet that is to be sent, and its Reason Code.
    fn answer(&mut self, key: ConnectionKey) -> (u8, u8) {
        let mut slices = [IoSlice::new(&[]); 1];
        assert_eq!(self.core.slices(key, &mut slices), 1);
        let sent = slices[0].to_vec();
        self.core.wrote(Instant(2), key, sent.len());
        // CONNACK has a flag before it.
        (sent[0], sent[if sent[0] == 0x20 { 3 } else { 2 }])
    }

    fn notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.0.lock().unwrap())
    }
}

#[test]
fn a_proof_is_looked_at_if_the_brake_lets_it_try() {
    for (user_name, proof, code, notes) in [
        ("ann", "right", 0, &["may ann try", "ann: true"][..]),
        ("ann", "wrong", 0x87, &["may ann try", "ann: false"]),
        // Who is let in as somebody else is not known by the name it came in.
        ("ann", "mallory", 0, &["may ann try"]),
        // What is no proof tells nothing.
        ("ann", "nonsense", 0x87, &["may ann try"]),
        ("eve", "right", 0x9f, &["may eve try"]),
        ("eve", "wrong", 0x9f, &["may eve try"]),
    ] {
        let mut world = World::new();
        let key = world.named(user_name);
        assert!(world.notes().is_empty(), "a name is no try");
        world.auth(key, ReasonCode::ContinueAuthentication, proof.as_bytes());
        assert_eq!(world.answer(key), (0x20, code), "{user_name} {proof}");
        assert_eq!(world.notes(), notes, "{user_name} {proof}");
        let refused = u64::from(code != 0);
        assert_eq!(world.core.counters().connects_refused_credentials, refused, "{user_name} {proof}");
    }
}

/// Who is in could have guessed at others by authenticating again.
#[test]
fn a_client_that_authenticates_again_is_braked_as_well() {
    let mut world = World::new();
    let key = world.named("ann");
    world.auth(key, ReasonCode::ContinueAuthentication, b"right");
    assert_eq!(world.answer(key), (0x20, 0));
    world.auth(key, ReasonCode::ReAuthenticate, b"ann");
    assert_eq!(world.answer(key), (0xf0, 0x18));
    world.auth(key, ReasonCode::ContinueAuthentication, b"right");
    assert_eq!(world.answer(key).0, 0xf0);
    assert_eq!(world.notes(), ["may ann try", "ann: true", "may ann try", "ann: true"]);
    world.auth(key, ReasonCode::ReAuthenticate, b"eve");
    assert_eq!(world.answer(key), (0xf0, 0x18));
    world.auth(key, ReasonCode::ContinueAuthentication, b"wrong");
    assert_eq!(world.answer(key), (0xe0, 0x9f));
    assert_eq!(world.notes(), ["may eve try"]);
    // That is no error of the protocol.
    assert_eq!(world.core.counters().protocol_errors, 0);
}

/// Who was challenged as a user of one domain was let in as that of another with the same name.
#[test]
fn a_proof_is_no_good_in_the_domain_that_the_listener_has_meanwhile() {
    let mut world = World::new();
    let key = world.named("ann");
    world.core.reconfigure(Instant(2), settings(SecurityId(4)));
    world.auth(key, ReasonCode::ContinueAuthentication, b"right");
    assert_eq!(world.answer(key), (0x20, 0x87));
    assert_eq!(world.core.counters().connects_refused_credentials, 1);
    // It was right where it was asked for.
    assert_eq!(world.notes(), ["may ann try", "ann: true"]);
}

#[test]
fn a_client_stays_a_user_of_its_own_domain() {
    let mut world = World::new();
    let key = world.named("ann");
    world.auth(key, ReasonCode::ContinueAuthentication, b"right");
    assert_eq!(world.answer(key), (0x20, 0));
    // Begun before the reload.
    world.auth(key, ReasonCode::ReAuthenticate, b"ann");
    assert_eq!(world.answer(key), (0xf0, 0x18));
    world.core.reconfigure(Instant(2), settings(SecurityId(4)));
    world.auth(key, ReasonCode::ContinueAuthentication, b"right");
    assert_eq!(world.answer(key).0, 0xf0);
    // And after it.
    world.auth(key, ReasonCode::ReAuthenticate, b"ann");
    assert_eq!(world.answer(key), (0xf0, 0x18));
    world.auth(key, ReasonCode::ContinueAuthentication, b"right");
    assert_eq!(world.answer(key).0, 0xf0);
    assert_eq!(world.notes().len(), 6);
    assert_eq!(world.core.counters().protocol_errors, 0);
}
