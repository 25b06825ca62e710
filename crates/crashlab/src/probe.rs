//! A fresh client that reads all Retained Messages, in blocking calls with a bound.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use pantala_proto::{
    Acknowledgement, AcknowledgementKind, Connect, ConnectProperties, Packet, PacketId, ProtocolVersion, QoS,
    ReasonCode, Subscribe, SubscriptionOptions, frame,
};

use crate::client::is_transient;
use crate::fleet::Fleet;
use crate::history::{Event, UNKNOWN_TOPIC};
use crate::payload;

/// How long it may take in all.
const PROBE_MAX: Duration = Duration::from_secs(3);

/// Nothing came for so long after PINGRESP: that was all. Retained Messages of other workers may come after it, as late as those
/// are slow.
const QUIET_MIN: Duration = Duration::from_millis(40);
/// So many times as long as SUBACK and PINGRESP took is waited, where that is more: on a machine that has no time, silence says
/// little.
const QUIET_FACTOR: u32 = 4;

const PACKET_BYTES_MAX: u32 = 16 << 20;

/// Where Retained Messages are.
const FILTER: &str = "lab/r/#";

/// Reads all Retained Messages while the fleet stands still, and writes them down. One that fails leaves no end in
/// the history, and so proves nothing.
pub fn run(fleet: &mut Fleet, address: std::net::SocketAddr, salt: u64, number: u16) {
    fleet.write(Event::ProbeBegan { probe: number });
    if read_all(fleet, address, salt, number).is_some() {
        fleet.write(Event::ProbeEnded { probe: number });
    }
}

fn read_all(fleet: &mut Fleet, address: std::net::SocketAddr, salt: u64, number: u16) -> Option<()> {
    let began = Instant::now();
    let deadline = began + PROBE_MAX;
    let mut quiet = QUIET_MIN;
    let mut stream = TcpStream::connect_timeout(&address, PROBE_MAX).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(10))).ok()?;
    stream.set_write_timeout(Some(PROBE_MAX)).ok()?;
    stream.set_nodelay(true).ok()?;
    let version = ProtocolVersion::V5;
    let mut out = Vec::new();
    Connect {
        version,
        bridge: false,
        clean_start: true,
        keep_alive: 0,
        properties: ConnectProperties::default(),
        client_id: &format!("probe-{number}"),
        will: None,
        user_name: None,
        password: None,
    }
    .encode(&mut out);
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    let filters = [(FILTER, options)].into_iter().collect();
    let packet_id = PacketId::FIRST;
    let subscribe =
        Subscribe { packet_id, subscription_identifier: None, user_properties: Default::default(), filters };
    Packet::Subscribe(subscribe).encode(version, &mut out);
    let mut incoming = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let (mut subscribed, mut answered) = (false, false);
    let mut last = Instant::now();
    loop {
        stream.write_all(&out).ok()?;
        out.clear();
        if (subscribed && answered && last.elapsed() > quiet) || Instant::now() > deadline {
            return (subscribed && answered).then_some(());
        }
        match stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(count) => incoming.extend_from_slice(&buffer[..count]),
            Err(error) if is_transient(&error) => {}
            Err(_) => return None,
        }
        let mut at = 0;
        while let Ok(frame::Split::Frame(frame)) = frame::split(&incoming[at..], PACKET_BYTES_MAX) {
            at += frame.packet_bytes;
            last = Instant::now();
            match Packet::decode(version, frame.first_byte, frame.body).ok()? {
                Packet::SubAck(ack) => {
                    if ack.reason_codes.iter().any(|code| code.is_error()) {
                        return None;
                    }
                    subscribed = true;
                    Packet::PingReq.encode(version, &mut out);
                }
                Packet::PingResp => {
                    answered = true;
                    quiet = QUIET_MIN.max(began.elapsed() * QUIET_FACTOR);
                }
                Packet::Publish(publish) => {
                    if publish.retain {
                        let topic = fleet.history.cast.topics.iter().position(|name| name == publish.topic_name);
                        let topic = topic.and_then(|place| u16::try_from(place).ok()).unwrap_or(UNKNOWN_TOPIC);
                        let content = payload::decode(salt, publish.payload);
                        fleet.write(Event::ProbeFound { probe: number, topic, content });
                    }
                    if let Some(packet_id) = publish.delivery.packet_id() {
                        let kind = AcknowledgementKind::PubAck;
                        let ack = Acknowledgement::new(kind, packet_id, ReasonCode::Success);
                        Packet::Acknowledgement(ack).encode(version, &mut out);
                    }
                }
                _ => {}
            }
        }
        incoming.drain(..at);
    }
}
