//! Who may do what: rules that hold, rules that change, and a spy who may see everything and sees nothing else.

use std::sync::Arc;

use pantala_access::{Permissions, RuleDraft, Rules, RulesDraft, Subject};
use pantala_broker::{
    AuthenticationRequest, Cause, Identity, ListenerSettings, QueueFull, RightsSource, SecurityId, Settings, Standing,
    Verdict,
};
use pantala_proto::{
    AcknowledgementKind, Packet, PacketId, QoS, ReasonCode, Subscribe, SubscriptionOptions, UserProperties,
};

use crate::support::{
    Client, Delivered, Outcome, Peer, Pub, Received, Sub, Will, World, everywhere, everywhere_kept, settings,
};

const SUCCESS: Outcome = Outcome::Acknowledged(ReasonCode::Success);
const DENIED: Outcome = Outcome::Acknowledged(ReasonCode::NotAuthorized);

/// Rules, and users that are to be sent away.
#[derive(Clone, Default)]
pub struct Book {
    draft: RulesDraft,
    banned: Vec<String>,
    removed: Vec<String>,
}

impl Book {
    /// With an administrator, who may do everything.
    pub fn new() -> Self {
        Self::default().user("root", &["#", "$CONTROL/#"], &["#", "$SYS/#", "$share/+/#"])
    }

    pub fn user(mut self, user: &str, publish: &[&str], subscribe: &[&str]) -> Self {
        if publish.is_empty() && subscribe.is_empty() {
            return self;
        }
        let owned = |filters: &[&str]| filters.iter().map(|filter| (*filter).to_owned()).collect();
        self.draft.rules.push(RuleDraft {
            users: vec![user.to_owned()],
            permissions: Permissions { publish: owned(publish), subscribe: owned(subscribe), ..Permissions::default() },
            ..RuleDraft::default()
        });
        self
    }

    pub fn anonymous(mut self, publish: &[&str], subscribe: &[&str]) -> Self {
        let owned = |filters: &[&str]| filters.iter().map(|filter| (*filter).to_owned()).collect();
        self.draft.rules.push(RuleDraft {
            anonymous: Some(true),
            permissions: Permissions { publish: owned(publish), subscribe: owned(subscribe), ..Permissions::default() },
            ..RuleDraft::default()
        });
        self
    }

    pub fn banned(mut self, user: &str) -> Self {
        self.banned.push(user.to_owned());
        self
    }

    pub fn removed(mut self, user: &str) -> Self {
        self.removed.push(user.to_owned());
        self
    }

    pub fn hold(&self, world: &World) {
        let rules = self.draft.compile().unwrap();
        let (banned, removed) = (self.banned.clone(), self.removed.clone());
        world.set_rights(Arc::new(Holding { rules, banned, removed }));
    }
}

struct Holding {
    rules: Rules,
    banned: Vec<String>,
    removed: Vec<String>,
}

impl RightsSource for Holding {
    fn rights(&self, _security: SecurityId, subject: &Subject<'_>) -> Standing {
        let is_in = |list: &[String]| subject.user_name.is_some_and(|user| list.iter().any(|name| name == user));
        if is_in(&self.banned) {
            Standing::Banned
        } else if is_in(&self.removed) {
            Standing::Unknown
        } else {
            Standing::Rights(self.rules.rights(subject))
        }
    }
}

/// Users whose password is their name.
pub fn verify(request: &AuthenticationRequest) -> Verdict {
    let AuthenticationRequest { user_name, password, .. } = request;
    match (user_name, password) {
        (Some(user), Some(password)) if user.as_bytes() == password => {
            Verdict::Accepted(Identity { user_name: Some(user.clone()), ..Identity::default() })
        }
        _ => refused(),
    }
}

fn refused() -> Verdict {
    Verdict::Refused { reason_code: ReasonCode::BadUserNameOrPassword, cause: Cause::Credentials("wrong password") }
}

fn verifying() -> ListenerSettings {
    ListenerSettings { verify_credentials: true, ..ListenerSettings::default() }
}

pub fn secured() -> Settings {
    Settings { listeners: vec![verifying()], ..settings() }
}

/// Everywhere, with users whose password is their name.
fn secured_everywhere(book: &Book, dialogue: impl Fn(&World)) {
    everywhere(&secured(), |world| {
        world.set_authenticator(verify);
        book.hold(world);
        dialogue(world);
    });
}

/// The administrator, who subscribes to everything.
fn spy(world: &World) -> Peer {
    let spy = world.client("spy").user("root").receive_maximum(1_000).connect();
    spy.subscribe("#", 2);
    spy.subscribe("$SYS/#", 0);
    spy
}

/// The Reason Code that SUBACK has for a filter.
fn subscribed(peer: &Peer, subscription: &Sub) -> ReasonCode {
    peer.send_subscribe(subscription);
    peer.world().run();
    match peer.take_first(|packet| matches!(packet, Received::SubAck(..))) {
        Some(Received::SubAck(_, codes)) => codes[0],
        other => panic!("no SUBACK, but {other:?}"),
    }
}

fn payloads(peer: &Peer) -> Vec<String> {
    peer.take_everything().into_iter().map(|message| message.payload).collect()
}

fn nothing() -> Vec<String> {
    Vec::new()
}

// ---- letting in ---------------------------------------------------------------------------------------------------------

#[test]
fn who_proves_to_be_a_user_is_let_in_and_nobody_else() {
    secured_everywhere(&Book::new(), |world| {
        world.client("a").user("ann").connect();
        world.client("b").user("bob").v3().connect();
        world.client("c").user("ann").password("wrong").refused(ReasonCode::BadUserNameOrPassword);
        world.client("c").user("ann").password("wrong").v3().refused(ReasonCode::BadUserNameOrPassword);
        // Nobody is asked about who says nothing.
        world.client("d").connect();
        assert_eq!(world.counters().connects_refused_credentials, 2);
        assert_eq!(world.sessions(), 3);
    });
}

#[test]
fn who_says_nothing_is_refused_where_everybody_has_to_say_something() {
    let listener = ListenerSettings { allow_anonymous: false, ..verifying() };
    everywhere(&Settings { listeners: vec![listener], ..settings() }, |world| {
        world.set_authenticator(verify);
        world.client("a").refused(ReasonCode::NotAuthorized);
        world.client("a").v3().refused(ReasonCode::NotAuthorized);
        world.client("a").user("ann").connect();
    });
}

#[test]
fn what_is_asked_about_is_what_the_client_said() {
    everywhere(&secured(), |world| {
        let peer = world.client("a").user("ann").password("se\0cret").begin();
        world.run();
        let asked = world.asked().unwrap();
        let request = &asked.request;
        assert_eq!((&*request.client_id, request.user_name.as_deref()), (&*format!("a-{}", world.seed()), Some("ann")));
        assert_eq!(request.password.as_deref(), Some(&b"se\0cret"[..]));
        assert!(!format!("{request:?}").contains("cret"), "a password in a debug text");
        peer.expect_nothing();
        world.answer(&asked, verify(&AuthenticationRequest { password: Some(b"ann".to_vec()), ..request.clone() }));
        world.run();
        peer.expect(&Received::ConnAck { session_present: false, code: ReasonCode::Success });
    });
}

/// F10: what comes behind CONNECT is dealt with when the client is let in, and not at all if it is not.
#[test]
fn packets_behind_connect_wait_for_the_verdict() {
    for let_in in [true, false] {
        everywhere(&secured(), |world| {
            let witness = world.client("witness").connect();
            witness.subscribe("#", 1);
            let client = world.client("a").user("ann");
            let peer = client.begin();
            peer.send_publish(&Pub::new("t", "early").qos(1));
            peer.send(&Packet::PingReq);
            world.run();
            peer.expect_nothing();
            assert_eq!(payloads(&witness), nothing());
            let asked = world.asked().unwrap();
            // More of it: it is not even read.
            peer.send(&Packet::PingReq);
            world.run();
            assert!(peer.unsent() > 0);
            world.answer(&asked, if let_in { verify(&asked.request) } else { refused() });
            world.run();
            if let_in {
                assert_eq!(peer.drain().len(), 4);
                assert_eq!(payloads(&witness), ["early"]);
            } else {
                let code = ReasonCode::BadUserNameOrPassword;
                peer.expect(&Received::ConnAck { session_present: false, code });
                peer.expect_nothing();
                assert!(peer.is_closed());
                assert_eq!(payloads(&witness), nothing());
            }
            assert!(world.asked().is_none());
        });
    }
}

#[test]
fn without_a_verdict_the_time_for_connecting_runs_out() {
    everywhere(&secured(), |world| {
        let peer = world.client("a").user("ann").begin();
        world.run();
        let asked = world.asked().unwrap();
        world.seconds(11);
        assert!(peer.is_closed());
        assert_eq!(world.counters().connect_timeouts, 1);
        // Too late, and its key may be another's by now.
        let next = world.client("a").user("bob").begin();
        world.run();
        world.answer(&asked, verify(&asked.request));
        world.run();
        next.expect_nothing();
        let asked = world.asked().unwrap();
        world.answer(&asked, verify(&asked.request));
        world.run();
        next.expect(&Received::ConnAck { session_present: false, code: ReasonCode::Success });
    });
}

#[test]
fn a_client_that_vanishes_while_it_is_verified_leaves_nothing() {
    everywhere(&secured(), |world| {
        let spy = world.client("spy").connect();
        spy.subscribe("#", 1);
        let peer = world.client("a").user("ann").will(Will::new("will", "dead")).begin();
        world.run();
        peer.lose();
        let asked = world.asked().unwrap();
        world.answer(&asked, verify(&asked.request));
        world.run();
        assert_eq!((world.sessions(), world.connections()), (1, 1));
        assert_eq!(payloads(&spy), nothing());
    });
}

#[test]
fn an_old_connection_goes_when_the_new_one_is_verified_and_not_before() {
    everywhere(&secured(), |world| {
        let client = world.client("a").user("ann").persistent();
        let first = client.begin();
        world.run();
        let asked = world.asked().unwrap();
        world.answer(&asked, verify(&asked.request));
        world.run();
        first.expect(&Received::ConnAck { session_present: false, code: ReasonCode::Success });
        let (second, third) = (client.begin(), client.begin());
        world.run();
        assert!(!first.is_closed());
        let (of_second, of_third) = (world.asked().unwrap(), world.asked().unwrap());
        world.answer(&of_second, refused());
        world.run();
        assert!(!first.is_closed());
        world.answer(&of_third, verify(&of_third.request));
        world.run();
        first.expect_end(ReasonCode::SessionTakenOver);
        let peers = [second, third];
        assert_eq!(peers.iter().filter(|peer| peer.is_closed()).count(), 1);
        let survivor = peers.iter().find(|peer| !peer.is_closed()).unwrap();
        survivor.expect(&Received::ConnAck { session_present: true, code: ReasonCode::Success });
    });
}

/// The Client Identifier that comes with the verdict may belong to another worker.
#[test]
fn a_client_moves_to_the_worker_of_the_identifier_that_it_is_given() {
    everywhere(&secured(), |world| {
        let seed = world.seed();
        world.set_authenticator(move |request| match verify(request) {
            Verdict::Accepted(identity) => {
                let client_id = request.user_name.as_ref().map(|user| format!("{user}-{seed}").into());
                Verdict::Accepted(Identity { client_id, ..identity })
            }
            refused => refused,
        });
        for worker in 0..world.workers() {
            let name = world.name_on(worker, "given");
            let peers: Vec<Peer> = (0..2)
                .map(|n| world.client(&format!("any{n}")).user(&name))
                .map(|client| {
                    let (peer, answer) = client.clean(false).expiry(100).try_connect();
                    assert!(matches!(answer, Some(Received::ConnAck { code: ReasonCode::Success, .. })), "{answer:?}");
                    peer
                })
                .collect();
            peers[0].expect_end(ReasonCode::SessionTakenOver);
            peers[1].subscribe("t", 0);
            peers[1].publish("t", 0, "m");
            assert_eq!(payloads(&peers[1]), ["m"]);
        }
        assert_eq!(world.sessions(), usize::from(world.workers()));
    });
}

/// A reload may give a listener another security domain while the credentials of a client are looked at. The verdict was
/// taken for one of the new domain's users: whoever was ann in one tenant became ann in the other.
#[test]
fn what_is_proved_to_one_security_domain_lets_nobody_into_another() {
    let domain = |security| ListenerSettings { security: SecurityId(security), ..verifying() };
    let with = |listener| Settings { listeners: vec![listener], ..secured() };
    everywhere(&with(domain(0)), |world| {
        let moved = world.client("a").user("ann").clean(false).expiry(100);
        let peer = moved.begin();
        world.run();
        let asked = world.asked().unwrap();
        assert_eq!(asked.request.security, SecurityId(0));
        world.reconfigure(&with(domain(1)));
        world.answer(&asked, verify(&asked.request));
        world.run();
        peer.expect(&Received::ConnAck { session_present: false, code: ReasonCode::NotAuthorized });
        assert!(peer.is_closed());
        assert_eq!((world.counters().connects_refused_credentials, world.sessions()), (1, 0));
        // Who comes now is asked about in the new one.
        let peer = moved.begin();
        world.run();
        let asked = world.asked().unwrap();
        assert_eq!(asked.request.security, SecurityId(1));
        world.answer(&asked, verify(&asked.request));
        world.run();
        peer.expect(&Received::ConnAck { session_present: false, code: ReasonCode::Success });
    });
}

/// The same where the connection moves to another worker with its verdict, and finds other settings there.
#[test]
fn a_proof_that_moves_to_another_worker_takes_its_domain_along() {
    let domain = |security| ListenerSettings { security: SecurityId(security), ..verifying() };
    let with = |listener| Settings { listeners: vec![listener], ..secured() };
    everywhere(&with(domain(0)), |world| {
        for worker in 0..world.workers() {
            world.reconfigure(&with(domain(0)));
            let given = format!("{}-{}", world.name_on(worker, "given"), world.seed());
            let peer = world.client("any").user("ann").begin();
            world.run();
            let asked = world.asked().unwrap();
            world.reconfigure(&with(domain(1)));
            let identity = Identity { client_id: Some(given.into()), ..Identity::default() };
            world.answer(&asked, Verdict::Accepted(identity));
            world.run();
            peer.expect(&Received::ConnAck { session_present: false, code: ReasonCode::NotAuthorized });
        }
        assert_eq!(world.sessions(), 0);
    });
}

#[test]
fn the_user_name_can_be_the_client_identifier() {
    let listener = ListenerSettings { use_user_name_as_client_id: true, ..verifying() };
    everywhere(&Settings { listeners: vec![listener], ..settings() }, |world| {
        world.set_authenticator(verify);
        let first = world.client("a").user("ann").connect();
        let (second, _) = world.client("b").user("ann").try_connect();
        first.expect_end(ReasonCode::SessionTakenOver);
        assert!(!second.is_closed());
        world.client("c").refused(ReasonCode::NotAuthorized);
        assert_eq!(world.sessions(), 1);
    });
}

/// J8, and the rights of who has proved itself so.
#[test]
fn enhanced_authentication_makes_a_user_with_rights_who_stays_that_user() {
    let book = Book::new().user("ann", &["mine"], &[]).banned("eve");
    secured_everywhere(&book, |world| {
        let spy = spy(world);
        world.client("w").word("wrong").refused(ReasonCode::NotAuthorized);
        world.client("e").word("eve").refused(ReasonCode::Banned);
        let client = world.client("a").persistent();
        let asked = client.clone().word("").begin();
        world.run();
        asked.expect(&Received::Auth(ReasonCode::ContinueAuthentication));
        asked.send_word(ReasonCode::ContinueAuthentication, "ann");
        world.run();
        asked.expect(&Received::ConnAck { session_present: false, code: ReasonCode::Success });
        client.clone().word("bob").refused(ReasonCode::NotAuthorized);
        let ann = client.word("ann").resume();
        asked.expect_end(ReasonCode::SessionTakenOver);
        assert_eq!(ann.publish_with(&Pub::new("mine", "m").qos(1)), SUCCESS);
        assert_eq!(ann.publish_with(&Pub::new("theirs", "m").qos(1)), DENIED);
        ann.send_word(ReasonCode::ReAuthenticate, "ann");
        world.run();
        ann.expect(&Received::Auth(ReasonCode::Success));
        ann.send_word(ReasonCode::ReAuthenticate, "root");
        world.run();
        ann.expect_end(ReasonCode::ProtocolError);
        assert_eq!(payloads(&spy), ["m"]);
        let counters = world.counters();
        assert_eq!((counters.connects_refused_credentials, counters.connects_refused_other_user), (1, 1));
    });
}

/// `expires_at` of the credentials ends the connection, whatever Keep Alive says.
#[test]
fn a_connection_ends_with_its_credentials() {
    everywhere(&secured(), |world| {
        let expires_at = world.now().after_seconds(60);
        world.set_authenticator(move |request| match verify(request) {
            Verdict::Accepted(identity) => Verdict::Accepted(Identity { expires_at: Some(expires_at), ..identity }),
            refused => refused,
        });
        let short = world.client("a").user("ann").connect();
        let with_keep_alive = world.client("b").user("bob").keep_alive(1_000).connect();
        world.seconds(59);
        assert!(!short.is_closed() && !with_keep_alive.is_closed());
        world.seconds(2);
        short.expect_end(ReasonCode::NotAuthorized);
        with_keep_alive.expect_end(ReasonCode::NotAuthorized);
        assert_eq!(world.counters().credentials_expired, 2);
    });
}

#[test]
fn listeners_take_some_versions_prefixes_and_characters_only() {
    let old = ListenerSettings {
        versions: pantala_broker::AcceptedVersions { v31: false, v311: true, v5: false },
        ..ListenerSettings::default()
    };
    let prefixes = vec!["dev-".to_owned(), "app-".to_owned()];
    let prefixed = ListenerSettings { client_id_prefixes: prefixes, ..ListenerSettings::default() };
    let careful = ListenerSettings { deny_special_characters: true, ..verifying() };
    everywhere(&Settings { listeners: vec![old, prefixed, careful], ..settings() }, |world| {
        world.set_authenticator(verify);
        world.client("a").refused(ReasonCode::UnsupportedProtocolVersion);
        world.client("a").v3().connect().disconnect();
        for (name, good) in [("dev-1", true), ("app-", true), ("de", false), ("xdev-1", false), ("DEV-1", false)] {
            match good {
                true => world.client(name).at(1).connect().disconnect(),
                false => world.client(name).at(1).refused(ReasonCode::NotAuthorized),
            }
        }
        for (name, user, good) in
            [("a", "ann", true), ("a+", "ann", false), ("#", "ann", false), ("a/b", "ann", false), ("a", "a/b", false)]
        {
            match good {
                true => world.client(name).user(user).at(2).connect().disconnect(),
                false => world.client(name).user(user).at(2).refused(ReasonCode::NotAuthorized),
            }
        }
    });
}

// ---- publishing ---------------------------------------------------------------------------------------------------------

#[test]
fn who_may_not_publish_is_told_and_nobody_hears_it() {
    let book = Book::new().user("ann", &["mine/#"], &[]);
    secured_everywhere(&book, |world| {
        let spy = spy(world);
        let ann = world.client("a").user("ann").connect();
        for qos in 0..=2 {
            let outcomes = |topic: &str| ann.publish_with(&Pub::new(topic, topic).qos(qos).retained());
            assert_eq!(outcomes("mine/1"), if qos == 0 { Outcome::Sent } else { SUCCESS });
            assert_eq!(outcomes("theirs"), if qos == 0 { Outcome::Sent } else { DENIED });
        }
        assert_eq!(payloads(&spy), ["mine/1"; 3]);
        assert_eq!((world.retained(), world.counters().dropped_not_authorized), (1, 3));
        // Older versions cannot be told.
        let old = world.client("o").user("ann").v3().connect();
        for qos in 1..=2 {
            assert_eq!(old.publish_with(&Pub::new("theirs", "x").qos(qos)), SUCCESS);
        }
        assert_eq!(payloads(&spy), nothing());
        assert_eq!(world.counters().dropped_not_authorized, 5);
    });
}

/// K10: the name that counts is the one that the alias stands for now, by the rules that hold now.
#[test]
fn an_alias_is_asked_about_each_time() {
    let book = Book::new().user("ann", &["mine"], &[]);
    secured_everywhere(&book, |world| {
        let spy = spy(world);
        let ann = world.client("a").user("ann").connect();
        let publish = |topic: &str| ann.publish_with(&Pub::new(topic, "m").qos(1).alias(1));
        assert_eq!(publish("mine"), SUCCESS);
        assert_eq!(publish(""), SUCCESS);
        assert_eq!(publish("theirs"), DENIED);
        assert_eq!(publish(""), DENIED);
        assert_eq!(publish("mine"), SUCCESS);
        assert_eq!(payloads(&spy).len(), 3);
        Book::new().user("ann", &["theirs"], &[]).hold(world);
        assert_eq!(publish(""), DENIED);
        assert_eq!(payloads(&spy), nothing());
    });
}

/// A publisher remembers where its last message went: not past a change of rules.
#[test]
fn what_is_remembered_of_a_way_is_forgotten_with_the_rules() {
    let (both, no_receiver) = (&["t"][..], &[][..]);
    let book = |publish: &[&str], subscribe: &[&str]| Book::new().user("ann", publish, &[]).user("bob", &[], subscribe);
    for v3 in [false, true] {
        secured_everywhere(&book(both, both), |world| {
            let client = |name: &str, user: &str| {
                let client = world.client(name).user(user);
                if v3 { client.v3().connect() } else { client.connect() }
            };
            let (ann, bob) = (client("a", "ann"), client("b", "bob"));
            bob.subscribe("t", 0);
            let say = |payload: &str| {
                ann.publish("t", 0, payload);
                ann.publish("t", 0, payload);
                payloads(&bob)
            };
            assert_eq!(say("1"), ["1", "1"]);
            book(both, no_receiver).hold(world);
            assert_eq!(say("2"), nothing());
            book(both, both).hold(world);
            // Until other workers know that it is wanted again.
            world.run();
            assert_eq!(say("3"), ["3", "3"]);
            book(&[], both).hold(world);
            assert_eq!(say("4"), nothing());
            book(both, both).hold(world);
            assert_eq!(say("5"), ["5", "5"]);
        });
    }
}

/// A bridge of another broker says that it is there on a topic below `$SYS/`, where the rules let it.
#[test]
fn a_bridge_gets_in_whether_or_not_it_may_tell_its_state() {
    const STATE: &str = "$SYS/broker/connection/edge/state";
    let book = Book::new().user("ann", &["data/#"], &[]).user("bob", &["data/#", STATE], &[]);
    secured_everywhere(&book, |world| {
        let spy = spy(world);
        for (user, told) in [("ann", &["reading"][..]), ("bob", &["1", "reading", "0"])] {
            let bridge = world.client("edge").user(user).will(Will::new(STATE, "0")).connect();
            bridge.publish_with(&Pub::new(STATE, "1").qos(1).retained());
            bridge.must_publish(&Pub::new("data/t", "reading").qos(1));
            bridge.lose();
            assert_eq!(payloads(&spy), told);
        }
        assert_eq!((world.retained(), world.counters().dropped_not_authorized), (1, 2));
    });
}

/// K6, K8: a Will that may not be published keeps its client out, and is looked at again when it is due.
#[test]
fn a_will_is_asked_about_twice() {
    let book = Book::new().user("ann", &["mine"], &[]);
    secured_everywhere(&book, |world| {
        let spy = spy(world);
        let with_will = |topic: &str| world.client("a").user("ann").will(Will::new(topic, "dead"));
        for topic in ["theirs", "$SYS/x", "$CONTROL/x", "$share/g/t"] {
            with_will(topic).refused(ReasonCode::NotAuthorized);
        }
        with_will("mine").connect().lose();
        assert_eq!(payloads(&spy), ["dead"]);
        let peer = with_will("mine").connect();
        Book::new().user("ann", &[], &[]).hold(world);
        peer.lose();
        assert_eq!(payloads(&spy), nothing());
        assert_eq!(world.counters().dropped_not_authorized, 1);
    });
}

/// K7.
#[test]
fn the_will_of_a_client_that_is_not_let_in_is_nobodys() {
    secured_everywhere(&Book::new(), |world| {
        let spy = spy(world);
        let client = world.client("a").user("root").will(Will::new("t", "dead"));
        client.clone().password("wrong").refused(ReasonCode::BadUserNameOrPassword);
        let refused = client.clone().password("wrong").begin();
        refused.lose();
        assert_eq!(payloads(&spy), nothing());
        client.connect().lose();
        assert_eq!(payloads(&spy), ["dead"]);
    });
}

#[test]
fn commands_go_to_the_broker_alone_and_their_answers_to_who_gave_them() {
    let book = Book::new().user("ann", &["#"], &["#"]);
    secured_everywhere(&book, |world| {
        let spy = spy(world);
        assert_eq!(subscribed(&spy, &Sub::new("$CONTROL/#", 0)), ReasonCode::NotAuthorized);
        let root = world.client("r").user("root").persistent().connect();
        for qos in 0..=2 {
            let outcome = root.publish_with(&Pub::new("$CONTROL/x/v1", "do").qos(qos).retained());
            assert_eq!(outcome, if qos == 0 { Outcome::Sent } else { SUCCESS });
            let command = world.command().unwrap();
            assert_eq!(
                (command.user_name.as_deref(), &*command.topic, &*command.payload),
                (Some("root"), "$CONTROL/x/v1", "do")
            );
            world.respond(&command, "$CONTROL/x/v1/response", "done");
            world.run();
            root.expect_message("$CONTROL/x/v1/response", "done");
        }
        let ann = world.client("a").user("ann").connect();
        let anonymous = world.client("n").connect();
        for peer in [&ann, &anonymous] {
            assert_eq!(peer.publish_with(&Pub::new("$CONTROL/x/v1", "do").qos(1)), DENIED);
        }
        assert!(world.command().is_none());
        assert_eq!((payloads(&spy), world.retained()), (nothing(), 0));
        assert_eq!(world.counters().commands_received, 3);
        // Where there are no rules nobody has been given the right.
        world.set_rights(Arc::new(pantala_broker::Unrestricted));
        assert_eq!(ann.publish_with(&Pub::new("$CONTROL/x/v1", "do").qos(1)), DENIED);
    });
}

// ---- subscribing --------------------------------------------------------------------------------------------------------

/// K5, K9, K18.
#[test]
fn a_filter_that_asks_for_more_than_is_allowed_is_refused() {
    let book = Book::new().user("ann", &[], &["dev/a/x", "open/#", "$share/mine/shared"]);
    secured_everywhere(&book, |world| {
        for v3 in [false, true] {
            let client = world.client("a").user("ann");
            let ann = if v3 { client.v3().connect() } else { client.connect() };
            let denied = if v3 { ReasonCode::UnspecifiedError } else { ReasonCode::NotAuthorized };
            for (filter, granted) in [
                ("dev/a/x", true),
                ("open/+/x", true),
                ("$share/g/open/#", true),
                ("$share/mine/shared", true),
                ("#", false),
                ("+/+", false),
                ("dev/+/x", false),
                ("$SYS/#", false),
                ("$share/g/secret/#", false),
                ("$share/theirs/shared", false),
            ] {
                let code = subscribed(&ann, &Sub::new(filter, 0));
                assert_eq!(code, if granted { ReasonCode::Success } else { denied }, "{filter}");
            }
            ann.disconnect();
        }
    });
}

#[test]
fn each_filter_of_a_subscribe_is_decided_on_its_own() {
    let book = Book::new().user("ann", &["#"], &["a", "b"]);
    secured_everywhere(&book, |world| {
        let ann = world.client("a").user("ann").connect();
        let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        ann.send(&Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(9).unwrap(),
            subscription_identifier: None,
            user_properties: UserProperties::none(),
            filters: [("a", options), ("c", options), ("b", options)].into_iter().collect(),
        }));
        world.run();
        use ReasonCode::{GrantedQoS1, NotAuthorized};
        ann.expect(&Received::SubAck(9, vec![GrantedQoS1, NotAuthorized, GrantedQoS1]));
        for topic in ["a", "b", "c"] {
            ann.publish(topic, 1, topic);
        }
        assert_eq!(payloads(&ann), ["a", "b"]);
    });
}

/// K11.
#[test]
fn retained_messages_that_a_subscriber_may_not_read_are_not_sent() {
    let mut book = Book::new();
    book.draft.rules.push(RuleDraft {
        users: vec!["ann".to_owned()],
        permissions: Permissions {
            subscribe: vec!["#".to_owned()],
            receive: Some(vec!["open/#".to_owned()]),
            ..Permissions::default()
        },
        ..RuleDraft::default()
    });
    secured_everywhere(&book, |world| {
        let root = world.client("r").user("root").connect();
        let mut open = Vec::new();
        for worker in 0..world.workers() {
            for front in ["open/", "closed/"] {
                let topic = world.topic_on(worker, front);
                root.retain(&topic, 1, &topic);
                open.extend(Some(topic).filter(|topic| topic.starts_with("open")));
            }
        }
        let ann = world.client("a").user("ann").connect();
        ann.subscribe("#", 1);
        let mut got = payloads(&ann);
        got.sort_unstable();
        open.sort_unstable();
        assert_eq!(got, open);
        // And live, the only receiver of it.
        for qos in 0..=2 {
            for _ in 0..2 {
                root.publish("closed/x", qos, "no");
                root.publish("open/x", qos, "yes");
            }
            assert_eq!(payloads(&ann), ["yes", "yes"]);
        }
    });
}

/// K26: what comes by two subscriptions comes once, with what the one grants that is left.
#[test]
fn of_two_subscriptions_the_one_that_is_left_delivers() {
    let book = |filters: &[&str]| Book::new().user("ann", &["#"], filters);
    secured_everywhere(&book(&["#"]), |world| {
        let ann = world.client("a").user("ann").connect();
        ann.subscribe_with(&Sub::new("t/#", 2).identifier(1));
        ann.subscribe_with(&Sub::new("t/+", 0).identifier(2));
        book(&["t/+"]).hold(world);
        ann.publish("t/x", 2, "m");
        let got = ann.take_everything();
        let seen: Vec<_> = got.iter().map(|message| (message.qos, &*message.identifiers)).collect();
        assert_eq!(seen, [(0, &[2][..])]);
        book(&["#"]).hold(world);
        ann.publish("t/x", 2, "m");
        let got: Vec<Delivered> = ann.take_everything();
        assert_eq!((got.len(), got[0].qos, &*got[0].identifiers), (1, 2, &[1, 2][..]));
    });
}

/// K13: a subscription is disabled at once, and is back with the right.
#[test]
fn a_subscription_goes_with_the_right_to_it_and_comes_with_it() {
    let book = |filters: &[&str]| Book::new().user("ann", &[], filters);
    let (may, may_not) = (&["t", "$share/g/t"][..], &["other"][..]);
    for filter in ["t", "$share/g/t"] {
        secured_everywhere(&book(may), |world| {
            let root = world.client("r").user("root").connect();
            let client = world.client("a").user("ann").persistent();
            let ann = client.connect();
            ann.subscribe(filter, 1);
            let say = |payload: &str| root.publish_with(&Pub::new("t", payload).qos(1));
            assert_eq!((say("1"), payloads(&ann)), (SUCCESS, vec!["1".to_owned()]));
            book(may_not).hold(world);
            world.run();
            say("2");
            assert_eq!(payloads(&ann), nothing());
            book(may).hold(world);
            world.run();
            assert_eq!((say("3"), payloads(&ann)), (SUCCESS, vec!["3".to_owned()]));
            // Away: what is queued while it may comes only if it still may.
            ann.lose();
            say("4");
            book(may_not).hold(world);
            say("5");
            let ann = client.resume();
            assert_eq!(payloads(&ann), nothing());
            ann.lose();
            book(may).hold(world);
            world.run();
            say("6");
            let ann = client.resume();
            assert_eq!(payloads(&ann), ["6"]);
            ann.unsubscribe(filter);
            say("7");
            assert_eq!(payloads(&ann), nothing());
        });
    }
}

#[test]
fn a_disabled_subscription_can_be_ended_and_made_anew() {
    let book = |filters: &[&str]| Book::new().user("ann", &[], filters);
    secured_everywhere(&book(&["#"]), |world| {
        let root = world.client("r").user("root").connect();
        let ann = world.client("a").user("ann").connect();
        ann.subscribe("t", 1);
        ann.subscribe("u", 1);
        book(&[]).hold(world);
        assert_eq!(subscribed(&ann, &Sub::new("t", 1)), ReasonCode::NotAuthorized);
        ann.unsubscribe("t");
        book(&["#"]).hold(world);
        world.run();
        root.publish("t", 1, "t");
        root.publish("u", 1, "u");
        assert_eq!(payloads(&ann), ["u"]);
        book(&[]).hold(world);
        book(&["u"]).hold(world);
        assert_eq!(subscribed(&ann, &Sub::new("u", 2)), ReasonCode::GrantedQoS2);
        root.publish("u", 2, "once");
        let got = ann.take_everything();
        assert_eq!(got.iter().map(|message| (message.qos, &*message.payload)).collect::<Vec<_>>(), [(2, "once")]);
    });
}

/// K14: what a publisher has begun is not begun again; what a receiver has in hand is not sent again.
#[test]
fn exchanges_that_are_half_way_end_without_the_message() {
    let book = |publish: &[&str], subscribe: &[&str]| Book::new().user("ann", publish, &[]).user("bob", &[], subscribe);
    secured_everywhere(&book(&["t"], &["t"]), |world| {
        let bob_client = world.client("b").user("bob").persistent();
        let bob = bob_client.connect();
        bob.subscribe("t", 2);
        let ann = world.client("a").user("ann").connect();
        let number = ann.send_publish(&Pub::new("t", "m").qos(2));
        world.run();
        assert_eq!(ann.outcome(AcknowledgementKind::PubRec, number), SUCCESS);
        let first = bob.expect_message("t", "m");
        book(&[], &[]).hold(world);
        ann.ack(AcknowledgementKind::PubRel, number);
        world.run();
        assert_eq!(ann.outcome(AcknowledgementKind::PubComp, number), SUCCESS);
        assert_eq!(ann.publish_with(&Pub::new("t", "again").qos(2).id(number)), DENIED);
        // Its receiver has said nothing: the Packet Identifier is freed, the message does not come again.
        bob.lose();
        let bob = bob_client.resume();
        bob.expect(&Received::Ack(AcknowledgementKind::PubRel, first.packet_id, ReasonCode::Success));
        bob.expect_nothing();
        bob.ack(AcknowledgementKind::PubComp, first.packet_id);
        world.run();
        book(&["t"], &["t"]).hold(world);
        world.run();
        ann.publish("t", 2, "new");
        assert_eq!(payloads(&bob), ["new"]);
    });
}

// ---- users that go ------------------------------------------------------------------------------------------------------

/// K15.
#[test]
fn users_that_are_banned_or_removed_go_at_once_without_their_wills() {
    for banned in [true, false] {
        secured_everywhere(&Book::new().user("ann", &["#"], &["#"]), |world| {
            let spy = spy(world);
            let client = world.client("a").user("ann").persistent().will(Will::new("will", "dead"));
            let transient = world.client("x").user("ann").will(Will::new("will", "dead"));
            let (kept, gone) = (client.connect(), transient.connect());
            kept.subscribe("t", 1);
            let delayed = Will { delay: 100, ..Will::new("will", "later") };
            world.client("y").user("ann").persistent().will(delayed).connect().lose();
            let book = Book::new().user("ann", &["#"], &["#"]);
            let (book, code) = match banned {
                true => (book.banned("ann"), ReasonCode::AdministrativeAction),
                false => (book.removed("ann"), ReasonCode::NotAuthorized),
            };
            book.hold(world);
            world.run();
            kept.expect_end(code);
            gone.expect_end(code);
            client.refused(if banned { ReasonCode::Banned } else { ReasonCode::NotAuthorized });
            world.seconds(200);
            assert_eq!(payloads(&spy), nothing());
            assert_eq!((world.counters().users_disconnected, world.sessions()), (2, 3));
            // The Session is frozen, not gone.
            spy.publish("t", 1, "meanwhile");
            assert_eq!(payloads(&spy), ["meanwhile"]);
            Book::new().user("ann", &["#"], &["#"]).hold(world);
            let back = client.resume();
            spy.publish("t", 1, "afterwards");
            assert_eq!(payloads(&back), ["afterwards"]);
        });
    }
}

#[test]
fn an_administrator_can_disconnect_a_client() {
    everywhere(&settings(), |world| {
        let peer = world.client("a").connect();
        assert!(world.kick("a", ReasonCode::AdministrativeAction));
        world.run();
        peer.expect_end(ReasonCode::AdministrativeAction);
        assert!(!world.kick("a", ReasonCode::AdministrativeAction));
    });
}

/// What rules ask about a client is known when they come, and while it is away.
/// A password that was taken away while it was looked at let its client in afterwards: when its user was sent away, nobody was
/// there yet.
#[test]
fn who_is_looked_at_while_its_user_is_sent_away_has_to_come_again() {
    let elsewhere = ListenerSettings { security: SecurityId(1), ..verifying() };
    everywhere(&Settings { listeners: vec![verifying(), elsewhere], ..secured() }, |world| {
        let begin = |client_id: &str, user: &str, at| world.client(client_id).user(user).at(at).begin();
        let (ann, bob, other_ann) = (begin("a", "ann", 0), begin("b", "bob", 0), begin("c", "ann", 1));
        world.run();
        let asked: Vec<_> = std::iter::from_fn(|| world.asked()).collect();
        assert_eq!((asked.len(), world.send_away(SecurityId(0), "ann")), (3, 1));
        world.run();
        for asked in &asked {
            world.answer(asked, verify(&asked.request));
        }
        world.run();
        ann.expect(&Received::ConnAck { session_present: false, code: ReasonCode::ServerUnavailable });
        assert!(ann.is_closed());
        for peer in [&bob, &other_ann] {
            peer.expect(&Received::ConnAck { session_present: false, code: ReasonCode::Success });
        }
        // Who is there is sent away as such.
        assert_eq!(world.send_away(SecurityId(0), "bob"), 1);
        world.run();
        bob.expect_end(ReasonCode::AdministrativeAction);
        assert!(!other_ann.is_closed());
    });
}

#[test]
fn rules_about_addresses_hold_for_who_was_there_before_them() {
    everywhere(&settings(), |world| {
        let rule = |addresses: &[&str]| {
            let mut book = Book::new();
            book.draft.rules.push(RuleDraft {
                addresses: addresses.iter().map(|network| (*network).to_owned()).collect(),
                permissions: Permissions {
                    publish: vec!["#".to_owned()],
                    subscribe: vec!["#".to_owned()],
                    ..Permissions::default()
                },
                ..RuleDraft::default()
            });
            book.hold(world);
            world.run();
        };
        let client = |name: &str, address: &str| world.client(name).persistent().from(address);
        let (inside, outside) = (client("i", "10.0.0.1"), client("o", "192.168.0.1"));
        let (first, second) = (inside.connect(), outside.connect());
        first.subscribe("t", 1);
        second.subscribe("t", 1);
        rule(&["10.0.0.0/8"]);
        first.publish("t", 1, "1");
        assert_eq!(second.publish_with(&Pub::new("t", "2").qos(1)), DENIED);
        assert_eq!((payloads(&first), payloads(&second)), (vec!["1".to_owned()], nothing()));
        first.lose();
        second.lose();
        let first = inside.resume();
        first.lose();
        // Judged once more while it is away.
        rule(&["10.0.0.0/16"]);
        let helper = client("h", "10.0.0.2").connect();
        helper.publish("t", 1, "3");
        assert_eq!(payloads(&inside.resume()), ["3"]);
        assert_eq!(payloads(&outside.resume()), nothing());
    });
}

/// K16: rules have changed while the Session's client was away, or the broker was.
#[test]
fn a_session_goes_on_with_the_rights_that_its_client_has_now() {
    everywhere_kept(&secured(), |world| {
        world.set_authenticator(verify);
        let book = |filters: &[&str]| Book::new().user("ann", &[], filters);
        book(&["t", "u"]).hold(world);
        let client = world.client("a").user("ann").persistent();
        let ann = client.connect();
        ann.subscribe("t", 1);
        ann.subscribe("u", 1);
        let root = world.client("r").user("root").connect();
        root.publish("t", 1, "t1");
        ann.lose();
        root.publish("t", 1, "t2");
        root.publish("u", 1, "u2");
        book(&["u"]).hold(world);
        let world = world.kill(world.workers(), 1);
        let root = world.client("r").user("root").connect();
        root.publish("t", 1, "t3");
        root.publish("u", 1, "u3");
        let ann = world.client("a").user("ann").persistent().resume();
        assert_eq!(payloads(&ann), ["u2", "u3"]);
        root.publish("t", 1, "t4");
        root.publish("u", 1, "u4");
        assert_eq!(payloads(&ann), ["u4"]);
        book(&["t", "u"]).hold(&world);
        world.run();
        root.publish("t", 1, "t5");
        assert_eq!(payloads(&ann), ["t5"]);
        world.end();
    });
}

#[test]
fn the_will_of_a_session_from_before_a_restart_is_asked_about() {
    everywhere_kept(&secured(), |world| {
        world.set_authenticator(verify);
        Book::new().user("ann", &["#"], &[]).user("bob", &["#"], &[]).hold(world);
        for user in ["ann", "bob"] {
            world.client(user).user(user).persistent().will(Will::new("will", user)).connect();
        }
        Book::new().user("ann", &["#"], &[]).hold(world);
        let world = world.kill(world.workers(), 0);
        let spy = spy(&world);
        world.seconds(30);
        assert_eq!(payloads(&spy), ["ann"]);
        world.end();
    });
}

/// Where nobody verifies, a name is one of nobody's, or of whoever says so, as the listener has it.
#[test]
fn a_name_that_nobody_verifies_counts_where_it_is_believed() {
    let careful = ListenerSettings { verify_credentials: false, allow_anonymous: true, ..verifying() };
    let credulous = ListenerSettings { believe_user_names: true, ..careful.clone() };
    let settings = Settings { listeners: vec![careful, credulous], ..settings() };
    let book = Book::new().user("ann", &["t"], &["t"]);
    everywhere(&settings, |world| {
        book.hold(world);
        for (listener, code) in [(0, ReasonCode::NotAuthorized), (1, ReasonCode::Success)] {
            let ann = world.client("a").user("ann").at(listener).connect();
            assert_eq!(subscribed(&ann, &Sub::new("t", 0)), code);
            let nobody = world.client("n").at(listener).connect();
            assert_eq!(subscribed(&nobody, &Sub::new("t", 0)), ReasonCode::NotAuthorized);
            ann.lose();
            nobody.lose();
        }
    });
}

// ---- Sessions of users --------------------------------------------------------------------------------------------------

/// J9.
#[test]
fn a_session_is_its_users_alone() {
    let theirs = ListenerSettings { sessions_belong_to_users: false, ..verifying() };
    let other = ListenerSettings { security: SecurityId(1), ..verifying() };
    let domains = vec!["plant".to_owned(), "office".to_owned()];
    let settings = Settings { listeners: vec![verifying(), theirs, other], security_domains: domains, ..settings() };
    everywhere_kept(&settings, |world| {
        world.set_authenticator(verify);
        let client = |user: &str| world.client("a").user(user).persistent();
        let ann = client("ann").connect();
        ann.subscribe("t", 1);
        let anonymous = world.client("a").persistent();
        let intruders = |world: &World| {
            for client in [
                world.client("a").user("bob").persistent(),
                world.client("a").user("bob"),
                world.client("a").user("bob").v3(),
                world.client("a").persistent(),
                world.client("a"),
                // Somebody else of that name.
                world.client("a").user("ann").at(2),
            ] {
                client.refused(ReasonCode::NotAuthorized);
            }
        };
        intruders(world);
        assert!(!ann.is_closed());
        ann.lose();
        let root = world.client("r").user("root").connect();
        root.publish("t", 1, "for ann");
        intruders(world);
        let world = world.kill(world.workers(), 1);
        intruders(&world);
        let ann = world.client("a").user("ann").persistent().resume();
        assert_eq!(payloads(&ann), ["for ann"]);
        ann.lose();
        // Where the listener is not so strict it goes to whoever comes, and is that user's from then on.
        let bob = world.client("a").user("bob").persistent().at(1).resume();
        bob.lose();
        let world = world.kill(world.workers(), 1);
        world.client("a").user("ann").persistent().refused(ReasonCode::NotAuthorized);
        world.client("a").user("bob").persistent().resume().lose();
        // What nobody has proved to be theirs is anybody's.
        drop(anonymous);
        world.client("n").persistent().connect().lose();
        world.client("n").user("ann").persistent().resume().lose();
        world.client("n").persistent().refused(ReasonCode::NotAuthorized);
        world.end();
    });
}

// ---- Shared Subscriptions -----------------------------------------------------------------------------------------------

#[test]
fn members_that_may_not_receive_are_passed_over() {
    let mut book = Book::new();
    for (user, receive) in [("ann", &["t/#"][..]), ("bob", &["t/open"][..])] {
        book.draft.rules.push(RuleDraft {
            users: vec![user.to_owned()],
            permissions: Permissions {
                subscribe: vec!["t/#".to_owned()],
                receive: Some(receive.iter().map(|filter| (*filter).to_owned()).collect()),
                ..Permissions::default()
            },
            ..RuleDraft::default()
        });
    }
    for queue_full in [QueueFull::DropNewest, QueueFull::Refuse] {
        everywhere(&Settings { queue_full, ..secured() }, |world| {
            world.set_authenticator(verify);
            book.hold(world);
            let members: Vec<Peer> = (0..world.workers())
                .flat_map(|worker| ["ann", "bob"].map(|user| world.client(&world.name_on(worker, user)).user(user)))
                .map(|client: Client| {
                    let member = client.receive_maximum(100).connect();
                    member.subscribe("$share/g/t/#", 1);
                    member
                })
                .collect();
            for worker in 0..world.workers() {
                let root = world.client(&world.name_on(worker, "root")).user("root").connect();
                for number in 0..8 {
                    root.publish("t/closed", number % 2, "closed");
                    root.publish("t/open", number % 2, "open");
                }
            }
            let of: Vec<Vec<String>> = members.iter().map(payloads).collect();
            let count = |payload: &str, got: &[Vec<String>]| got.iter().flatten().filter(|it| *it == payload).count();
            let all = 8 * usize::from(world.workers());
            assert_eq!((count("closed", &of), count("open", &of)), (all, all));
            let of_bob: Vec<Vec<String>> = of.into_iter().skip(1).step_by(2).collect();
            assert_eq!(count("closed", &of_bob), 0);
            assert!(count("open", &of_bob) > 0);
        });
    }
}

/// Wherever a message is when a member loses its right: it goes to one who has it, and to nobody if there is none.
#[test]
fn a_message_on_its_way_to_a_member_turns_round() {
    let book = |bob: &[&str]| Book::new().user("ann", &[], &["t"]).user("bob", &[], bob);
    for stages in 0..14 {
        for alone in [true, false] {
            secured_everywhere(&book(&["t"]), |world| {
                let members: Vec<Peer> = (0..world.workers())
                    .map(|worker| world.client(&world.name_on(worker, "bob")).user("bob").connect())
                    .collect();
                members.iter().for_each(|member| member.subscribe("$share/g/t", 1));
                let ann = world.client("a").user("ann").connect();
                if !alone {
                    ann.subscribe("$share/g/t", 1);
                }
                let root = world.client("r").user("root").connect();
                root.send_publish(&Pub::new("t", "m").qos(1));
                world.some(stages);
                let came = world.output_bytes() > 0
                    || members
                        .iter()
                        .any(|member| member.take_first(|it| matches!(it, Received::Publish(_))).is_some());
                book(&[]).hold(world);
                world.run();
                let of_members: Vec<String> = members.iter().flat_map(payloads).collect();
                let of_ann = payloads(&ann);
                if !came {
                    assert_eq!(of_members, nothing());
                    assert_eq!(of_ann.len(), usize::from(!alone));
                }
            });
        }
    }
}

/// What waits for a member that may not have it any more goes to another.
#[test]
fn what_a_member_may_not_have_any_more_another_gets() {
    let book = |filters: &[&str]| Book::new().user("ann", &[], &["t"]).user("bob", &[], filters);
    secured_everywhere(&book(&["t"]), |world| {
        let bob = world.client("b").user("bob").persistent();
        let peer = bob.connect();
        peer.subscribe("$share/g/t", 1);
        peer.lose();
        let root = world.client("r").user("root").connect();
        for number in 0..3 {
            root.publish("t", 1, &number.to_string());
        }
        let ann = world.client("a").user("ann").connect();
        ann.subscribe("$share/g/t", 1);
        book(&[]).hold(world);
        world.run();
        assert_eq!(payloads(&bob.resume()), nothing());
        assert_eq!(payloads(&ann), ["0", "1", "2"]);
    });
}

// ---- mount points -------------------------------------------------------------------------------------------------------

fn mounted() -> Settings {
    let at =
        |mount_point: &str| ListenerSettings { mount_point: Some(mount_point.into()), ..ListenerSettings::default() };
    Settings { listeners: vec![ListenerSettings::default(), at("one/"), at("two/")], ..settings() }
}

#[test]
fn clients_of_a_listener_with_a_mount_point_live_below_it() {
    everywhere(&mounted(), |world| {
        let all = world.client("all").connect();
        all.subscribe("#", 1);
        let (one, two) = (world.client("1").at(1).connect(), world.client("2").at(2).connect());
        for peer in [&one, &two] {
            peer.subscribe("#", 1);
            peer.subscribe("$SYS/#", 0);
        }
        let names = |peer: &Peer| {
            let all = peer.take_everything().into_iter();
            all.map(|message| message.topic).collect::<Vec<_>>()
        };
        for qos in 0..=2 {
            one.publish("t", qos, "m");
            assert_eq!((names(&all), names(&one), names(&two)), (vec!["one/t".into()], vec!["t".into()], vec![]));
            all.publish("two/t", qos, "m");
            assert_eq!((names(&all), names(&one), names(&two)), (vec!["two/t".into()], vec![], vec!["t".into()]));
            all.publish("t", qos, "m");
            assert_eq!((names(&all), names(&one), names(&two)), (vec!["t".into()], vec![], vec![]));
        }
        assert_eq!(one.publish_with(&Pub::new("$SYS/x", "m").qos(1)), DENIED);
        // With an alias, retained, and as a Will.
        one.must_publish(&Pub::new("a", "m").alias(1));
        one.must_publish(&Pub::new("", "m").alias(1));
        one.retain("kept", 1, "m");
        world.client("w").at(1).will(Will::new("will", "m")).connect().lose();
        assert_eq!(names(&all), ["one/a", "one/a", "one/kept", "one/will"]);
        assert_eq!(names(&one), ["a", "a", "kept", "will"]);
        let late = world.client("late").at(1).connect();
        late.subscribe("+", 1);
        assert_eq!(names(&late), ["kept"]);
        late.unsubscribe("+");
        one.publish("t", 1, "m");
        assert_eq!((names(&late), names(&one), names(&two)), (vec![], vec!["t".into()], vec![]));
    });
}

/// Messages that need no look are passed on as they came: not past a mount point.
#[test]
fn the_only_receiver_below_a_mount_point_sees_it_as_little_as_others() {
    everywhere(&mounted(), |world| {
        let (one, above) = (world.client("1").at(1).connect(), world.client("above").connect());
        one.subscribe("t", 0);
        above.subscribe("one/u", 0);
        for _ in 0..3 {
            above.publish("one/t", 0, "m");
            one.expect_message("t", "m");
            one.publish("u", 0, "m");
            above.expect_message("one/u", "m");
            one.expect_nothing();
        }
    });
}

#[test]
fn a_shared_subscription_is_below_the_mount_point_under_its_own_name() {
    everywhere(&mounted(), |world| {
        let members: Vec<Peer> = (0..3)
            .map(|number| {
                let member = world.client(&format!("m{number}")).at(1).connect();
                member.subscribe("$share/g/t", 1);
                member
            })
            .collect();
        let outside = world.client("o").at(2).connect();
        outside.subscribe("$share/g/t", 1);
        let from_above = world.client("above").connect();
        from_above.subscribe("$share/g/one/t", 1);
        world.client("p").at(1).connect().publish("t", 1, "0");
        let p = world.client("p2").at(1).connect();
        for number in 1..8 {
            p.publish("t", 1, &number.to_string());
        }
        let mut got: Vec<String> = members.iter().chain([&from_above]).flat_map(payloads).collect();
        got.sort_unstable();
        assert_eq!(got, ["0", "1", "2", "3", "4", "5", "6", "7"]);
        assert_eq!(payloads(&outside), nothing());
        for member in &members {
            member.unsubscribe("$share/g/t");
        }
        p.publish("t", 1, "8");
        assert_eq!(payloads(&from_above), ["8"]);
    });
}

/// A Session may be gone on with at another listener: what is not below that one's mount point is not for it.
#[test]
fn a_session_sees_nothing_of_the_mount_point_that_it_had_before() {
    everywhere(&mounted(), |world| {
        let client = world.client("c").persistent();
        let peer = client.clone().at(1).connect();
        peer.subscribe("#", 1);
        peer.lose();
        let all = world.client("all").connect();
        all.publish("one/t", 1, "1");
        let peer = client.clone().at(2).resume();
        assert_eq!(payloads(&peer), nothing());
        all.publish("one/t", 1, "2");
        all.publish("two/t", 1, "3");
        assert_eq!(payloads(&peer), nothing());
        peer.subscribe("#", 1);
        all.publish("two/t", 1, "4");
        assert_eq!(payloads(&peer), ["4"]);
        peer.lose();
        let peer = client.at(1).resume();
        all.publish("one/t", 1, "5");
        assert_eq!(payloads(&peer), ["5"]);
    });
}
