//! Packets as bytes, written by hand: each type in each version, bare and with all that it may carry, in the form
//! that the encoder uses where the standard leaves a choice.

use pantala_proto::ProtocolVersion;

use super::VERSIONS;
use super::wire::{Connect, packet, section, string, user_property};

/// A packet with a name for messages and file names.
#[derive(Debug, Clone)]
pub struct Sample {
    pub name: &'static str,
    pub version: ProtocolVersion,
    pub bytes: Vec<u8>,
}

/// All samples of all versions.
pub fn all() -> Vec<Sample> {
    VERSIONS.into_iter().flat_map(of).collect()
}

/// All samples of one version.
pub fn of(version: ProtocolVersion) -> Vec<Sample> {
    let packets = if version.is_v5() { v5() } else { v3(version) };
    packets.into_iter().map(|(name, bytes)| Sample { name, version, bytes }).collect()
}

fn v3(version: ProtocolVersion) -> Vec<(&'static str, Vec<u8>)> {
    let bare = if version == ProtocolVersion::V31 { Connect::C3 } else { Connect::C4 };
    let rest = [string("w/t"), string("bye"), string("user"), string([0x00, 0xff])].concat();
    let full = Connect { flags: 0xf6, rest: &rest, ..bare.clone() };
    vec![
        ("connect", bare.bytes()),
        ("connect-full", full.bytes()),
        ("connect-bridge", Connect { level: bare.level | 0x80, ..bare.clone() }.bytes()),
        ("conn-ack", packet(0x20, [0, 0])),
        ("conn-ack-refused", packet(0x20, [0, 5])),
        ("publish-qos-0", packet(0x30, [string("a/b"), b"hello".to_vec()].concat())),
        ("publish-retained-empty", packet(0x31, string("a"))),
        ("publish-qos-1", packet(0x32, [string("a/b"), vec![0, 1], b"hello".to_vec()].concat())),
        ("publish-qos-2-again", packet(0x3d, [string("/"), vec![0xff, 0xff], vec![0; 200]].concat())),
        ("pub-ack", packet(0x40, [0, 1])),
        ("pub-rec", packet(0x50, [0, 1])),
        ("pub-rel", packet(0x62, [0, 1])),
        ("pub-comp", packet(0x70, [0, 1])),
        ("subscribe", packet(0x82, [vec![0, 2], string("a/#"), vec![0], string("+/b"), vec![2]].concat())),
        ("sub-ack", packet(0x90, [0, 2, 0, 1, 2, 0x80])),
        ("unsubscribe", packet(0xa2, [vec![0, 3], string("a/#"), string("+")].concat())),
        ("unsub-ack", packet(0xb0, [0, 3])),
        ("ping-req", packet(0xc0, [])),
        ("ping-resp", packet(0xd0, [])),
        ("disconnect", packet(0xe0, [])),
    ]
}

fn v5() -> Vec<(&'static str, Vec<u8>)> {
    let user = [user_property("k", "v"), user_property("", ""), user_property("k", "é")].concat();
    let reason = [vec![0x1f], string("why"), user.clone()].concat();
    let connect_properties = [
        vec![0x11, 0, 0, 0, 60],               // Session Expiry Interval
        vec![0x21, 0, 10],                     // Receive Maximum
        vec![0x27, 0, 1, 0, 0],                // Maximum Packet Size
        vec![0x22, 0, 5],                      // Topic Alias Maximum
        vec![0x19, 1],                         // Request Response Information
        vec![0x17, 0],                         // Request Problem Information
        [vec![0x15], string("M")].concat(),    // Authentication Method
        [vec![0x16], string([0, 1])].concat(), // Authentication Data
        user.clone(),
    ]
    .concat();
    let message_properties = [
        vec![0x01, 1],                            // Payload Format Indicator
        vec![0x02, 0, 0, 1, 0],                   // Message Expiry Interval
        [vec![0x03], string("text")].concat(),    // Content Type
        [vec![0x08], string("r/t")].concat(),     // Response Topic
        [vec![0x09], string([0xff; 3])].concat(), // Correlation Data
        user.clone(),
    ]
    .concat();
    let will_properties = [vec![0x18, 0, 0, 0, 9], message_properties.clone()].concat();
    let rest = [string("w/t"), string("bye"), string("user"), string([0x00, 0xff])].concat();
    let connect_full = Connect {
        flags: 0xf6,
        properties: Some(&connect_properties),
        will_properties: Some(&will_properties),
        rest: &rest,
        ..Connect::C5
    };
    let password_alone = string("token");
    let conn_ack_properties = [
        vec![0x22, 0, 10],                        // Topic Alias Maximum
        [vec![0x12], string("auto-1")].concat(),  // Assigned Client Identifier
        vec![0x13, 0, 30],                        // Server Keep Alive
        vec![0x27, 0, 0x1e, 0x84, 0x80],          // Maximum Packet Size
        vec![0x21, 0, 20],                        // Receive Maximum
        vec![0x11, 0xff, 0xff, 0xff, 0xff],       // Session Expiry Interval
        vec![0x24, 1],                            // Maximum QoS
        vec![0x25, 0, 0x28, 0, 0x29, 0, 0x2a, 0], // what is not available
        [vec![0x1a], string("r/")].concat(),      // Response Information
        [vec![0x1c], string("b:1883")].concat(),  // Server Reference
        [vec![0x15], string("M")].concat(),       // Authentication Method
        [vec![0x16], string([7])].concat(),       // Authentication Data
        reason.clone(),
    ]
    .concat();
    let publish_properties = [
        user_property("first", "1"),
        vec![0x23, 0, 3], // Topic Alias
        message_properties,
        vec![0x0b, 0x80, 0x01, 0x0b, 1], // two Subscription Identifiers
    ]
    .concat();
    let acknowledgement = |code: u8| [vec![0, 1, code], section(&reason)].concat();
    let filters = [string("a/#"), vec![0x2e], string("$share/g/+/b"), vec![0x01]].concat();
    let disconnect = [vec![0x11, 0, 0, 0, 1, 0x1c], string("b"), reason.clone()].concat();
    let auth = [vec![0x15], string("M"), vec![0x16], string([1, 2]), reason.clone()].concat();
    vec![
        ("connect", Connect::C5.bytes()),
        ("connect-full", connect_full.bytes()),
        ("connect-password-alone", Connect { flags: 0x42, rest: &password_alone, ..Connect::C5 }.bytes()),
        ("conn-ack", packet(0x20, [1, 0, 0])),
        ("conn-ack-full", packet(0x20, [vec![0, 0x9d], section(&conn_ack_properties)].concat())),
        ("publish-qos-0", packet(0x30, [string("a/b"), vec![0], b"hello".to_vec()].concat())),
        ("publish-alias-alone", packet(0x30, [string(""), section([0x23, 0, 1]), b"x".to_vec()].concat())),
        (
            "publish-full",
            packet(0x3d, [string("a/b"), vec![0, 7], section(&publish_properties), b"hello".to_vec()].concat()),
        ),
        ("pub-ack", packet(0x40, [0, 1])),
        ("pub-ack-reason", packet(0x40, [0, 1, 0x10])),
        ("pub-ack-full", packet(0x40, acknowledgement(0x97))),
        ("pub-rec", packet(0x50, [0, 1])),
        ("pub-rec-full", packet(0x50, acknowledgement(0x00))),
        ("pub-rel", packet(0x62, [0, 1])),
        ("pub-rel-full", packet(0x62, acknowledgement(0x92))),
        ("pub-comp", packet(0x70, [0, 1])),
        ("pub-comp-full", packet(0x70, acknowledgement(0x92))),
        ("subscribe", packet(0x82, [vec![0, 2, 0], filters.clone()].concat())),
        (
            "subscribe-full",
            packet(0x82, [vec![0, 2], section([vec![0x0b, 0xff, 0x7f], user.clone()].concat()), filters].concat()),
        ),
        ("sub-ack", packet(0x90, [0, 2, 0, 0, 1, 2, 0x87])),
        ("sub-ack-full", packet(0x90, [vec![0, 2], section(&reason), vec![0x8f]].concat())),
        ("unsubscribe", packet(0xa2, [vec![0, 3, 0], string("a/#"), string("+")].concat())),
        ("unsubscribe-full", packet(0xa2, [vec![0, 3], section(&user), string("a")].concat())),
        ("unsub-ack", packet(0xb0, [0, 3, 0, 0, 0x11])),
        ("unsub-ack-full", packet(0xb0, [vec![0, 3], section(&reason), vec![0x00]].concat())),
        ("ping-req", packet(0xc0, [])),
        ("ping-resp", packet(0xd0, [])),
        ("disconnect", packet(0xe0, [])),
        ("disconnect-with-will", packet(0xe0, [0x04])),
        ("disconnect-full", packet(0xe0, [vec![0x9d], section(&disconnect)].concat())),
        ("auth", packet(0xf0, [])),
        ("auth-full", packet(0xf0, [vec![0x18], section(&auth)].concat())),
    ]
}
