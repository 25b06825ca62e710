//! What CONNACK tells a client about the server, by the server's settings.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::io::IoSlice;
use std::sync::Arc;

use pantala_broker::{Action, Core, CoreOptions, ListenerId, ListenerSettings, Redirect, Settings};
use pantala_proto::{ConnAck, Connect, ConnectProperties, ProtocolVersion, ReasonCode};
use pantala_session::Instant;
use pantala_store::MemoryStore;

fn connect(version: ProtocolVersion, properties: ConnectProperties<'static>) -> Connect<'static> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 60,
        properties,
        client_id: "a",
        will: None,
        user_name: None,
        password: None,
    }
}

/// Connects a client; hands over what it gets, and whether the connection ends with it.
fn answer(settings: Settings, connect: &Connect<'_>, check: impl FnOnce(ConnAck<'_>, bool)) {
    let settings = Settings { listeners: vec![ListenerSettings::default()], ..settings };
    answer_at(0, settings, connect, check);
}

/// The same at one of the listeners of the settings.
fn answer_at(listener: ListenerId, settings: Settings, connect: &Connect<'_>, check: impl FnOnce(ConnAck<'_>, bool)) {
    let mut core = Core::new(CoreOptions::alone(Arc::new(settings), Box::new(|bytes| bytes.fill(7))), MemoryStore);
    let key = core.open(Instant(1), listener);
    let mut bytes = Vec::new();
    connect.encode(&mut bytes);
    core.receive(Instant(1), key, &bytes);
    let mut slices = [IoSlice::new(&[]); 1];
    assert_eq!(core.slices(key, &mut slices), 1);
    let sent = slices[0].to_vec();
    assert_eq!((sent[0], usize::from(sent[1])), (0x20, sent.len() - 2));
    let ends = matches!(core.next_action(), Some(Action::Close(closed)) if closed == key);
    check(ConnAck::decode(connect.version, &sent[2..]).unwrap(), ends);
}

#[test]
fn clients_are_sent_to_another_server() {
    for (permanent, code) in [(false, ReasonCode::UseAnotherServer), (true, ReasonCode::ServerMoved)] {
        let settings = || Settings {
            redirect: Some(Redirect { server_reference: "other.example:1883".to_owned(), permanent }),
            ..Settings::default()
        };
        answer(settings(), &connect(ProtocolVersion::V5, ConnectProperties::default()), |ack, ends| {
            assert_eq!((ack.reason_code, ack.server_reference, ends), (code, Some("other.example:1883"), true));
        });
        // The older versions have no word for it but "unavailable".
        answer(settings(), &connect(ProtocolVersion::V311, ConnectProperties::default()), |ack, ends| {
            assert_eq!((ack.reason_code, ends), (ReasonCode::ServerUnavailable, true));
        });
    }
}

#[test]
fn response_information_is_for_those_who_ask() {
    let settings = || Settings { response_information_prefix: Some("answers/".to_owned()), ..Settings::default() };
    for (asked, expected) in [(true, Some("answers/a/")), (false, None)] {
        let properties = ConnectProperties { request_response_information: asked, ..ConnectProperties::default() };
        answer(settings(), &connect(ProtocolVersion::V5, properties), |ack, ends| {
            assert_eq!((ack.reason_code, ack.response_information, ends), (ReasonCode::Success, expected, false));
        });
    }
    let properties = ConnectProperties { request_response_information: true, ..ConnectProperties::default() };
    answer(Settings::default(), &connect(ProtocolVersion::V5, properties), |ack, _| {
        assert_eq!(ack.response_information, None);
    });
}

#[test]
fn what_the_server_caps_it_says() {
    let settings = Settings { keep_alive_max: 30, session_expiry_max: Some(100), ..Settings::default() };
    let properties = ConnectProperties { session_expiry_interval: Some(u32::MAX), ..ConnectProperties::default() };
    answer(settings, &connect(ProtocolVersion::V5, properties), |ack, _| {
        assert_eq!((ack.server_keep_alive, ack.session_expiry_interval), (Some(30), Some(100)));
    });
    let properties = ConnectProperties { session_expiry_interval: Some(50), ..ConnectProperties::default() };
    answer(Settings::default(), &connect(ProtocolVersion::V5, properties), |ack, _| {
        assert_eq!((ack.server_keep_alive, ack.session_expiry_interval), (None, None));
        assert_eq!(ack.receive_maximum.map(|maximum| maximum.get()), Some(20));
        assert_eq!(ack.maximum_packet_size.map(|size| size.get()), Some(2_000_000));
        assert_eq!(ack.topic_alias_maximum, Some(10));
    });
}

#[test]
fn listeners_assign_identifiers_and_announce_sizes_of_their_own() {
    let own = ListenerSettings {
        packet_bytes_max: Some(1_000),
        auto_id_prefix: Some("own-".to_owned()),
        allow_zero_length_client_id: Some(true),
        ..ListenerSettings::default()
    };
    let refusing = ListenerSettings { allow_zero_length_client_id: Some(false), ..ListenerSettings::default() };
    let settings = || Settings {
        listeners: vec![ListenerSettings::default(), own.clone(), refusing.clone()],
        ..Settings::default()
    };
    let nameless = Connect { client_id: "", ..connect(ProtocolVersion::V5, ConnectProperties::default()) };
    for (listener, prefix, size) in [(0, "auto-", 2_000_000), (1, "own-", 1_000)] {
        answer_at(listener, settings(), &nameless, |ack, ends| {
            let (code, assigned) = (ack.reason_code, ack.assigned_client_identifier.unwrap());
            assert_eq!((code, ends), (ReasonCode::Success, false));
            assert!(assigned.starts_with(prefix) && assigned.len() == prefix.len() + 36, "{assigned}");
            assert_eq!(ack.maximum_packet_size.map(|size| size.get()), Some(size));
        });
    }
    answer_at(2, settings(), &nameless, |ack, ends| {
        assert_eq!((ack.reason_code, ends), (ReasonCode::ClientIdentifierNotValid, true));
    });
    // What a listener says stands above what all say.
    let settings = Settings { allow_zero_length_client_id: false, ..settings() };
    answer_at(1, settings, &nameless, |ack, _| assert_eq!(ack.reason_code, ReasonCode::Success));
}

#[test]
fn what_is_assigned_begins_as_identifiers_have_to_here() {
    let nameless = Connect { client_id: "", ..connect(ProtocolVersion::V5, ConnectProperties::default()) };
    for (auto_id_prefix, code) in [(None, ReasonCode::NotAuthorized), (Some("app-x-"), ReasonCode::Success)] {
        let listener = ListenerSettings {
            client_id_prefixes: vec!["dev-".to_owned(), "app-".to_owned()],
            auto_id_prefix: auto_id_prefix.map(str::to_owned),
            ..ListenerSettings::default()
        };
        let settings = Settings { listeners: vec![listener], ..Settings::default() };
        answer_at(0, settings, &nameless, |ack, _| assert_eq!(ack.reason_code, code));
    }
}
