//! A broker that plays one scene: it accepts one subscriber and sends it the bytes it was given.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use pantala_proto::{Packet, ProtocolVersion, Publish, frame};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
const PACKET_BYTES_MAX: u32 = 1 << 20;
const CONNECT: u8 = 1;
const PUBREC: u8 = 5;
const SUBSCRIBE: u8 = 8;

/// What a program printed, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Printed {
    pub stdout: Vec<u8>,
    pub stderr: String,
    pub status: Option<i32>,
}

/// Runs mosquitto_sub with these arguments until it has got the messages, which are PUBLISH packets as bytes.
pub fn subscribe(
    program: &Path,
    version: ProtocolVersion,
    arguments: &[&str],
    zone: &str,
    messages: &[Vec<u8>],
) -> Printed {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let messages = messages.to_vec();
    let count = messages.len().to_string();
    let scene = thread::spawn(move || play(&listener.accept().unwrap().0, version, &messages));
    let level = if version == ProtocolVersion::V5 { "5" } else { "311" };
    let output = Command::new(program)
        .args(["-h", "127.0.0.1", "-p", &port, "-V", level, "-t", "#", "-q", "2", "-W", "20", "-C", &count])
        // One that is not asked for would end the connection.
        .args(if level == "5" { &["-D", "connect", "topic-alias-maximum", "10"][..] } else { &[] })
        .args(arguments)
        .env("TZ", zone)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    scene.join().unwrap();
    Printed {
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code(),
    }
}

fn play(mut socket: &TcpStream, version: ProtocolVersion, messages: &[Vec<u8>]) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    let mut input = Vec::new();
    let is_v5 = version == ProtocolVersion::V5;
    assert_eq!(next(socket, &mut input).unwrap().0 >> 4, CONNECT);
    socket.write_all(if is_v5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] }).unwrap();
    let (first_byte, body) = next(socket, &mut input).unwrap();
    assert_eq!(first_byte >> 4, SUBSCRIBE);
    let (high, low) = (body[0], body[1]);
    let sub_ack = if is_v5 { vec![0x90, 4, high, low, 0, 2] } else { vec![0x90, 3, high, low, 2] };
    socket.write_all(&sub_ack).unwrap();
    for message in messages {
        socket.write_all(message).unwrap();
        if message[0] & 0b110 == 0b100 {
            // QoS 2 is printed when it is complete.
            let body = loop {
                match next(socket, &mut input).unwrap() {
                    (first_byte, body) if first_byte >> 4 == PUBREC => break body,
                    _ => {}
                }
            };
            socket.write_all(&[0x62, 2, body[0], body[1]]).unwrap();
        }
    }
    // Until it has what it wanted and closes.
    while next(socket, &mut input).is_some() {}
}

/// The first byte and the body of the next packet; None at the end of the connection.
fn next(mut socket: &TcpStream, input: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    loop {
        if let frame::Split::Frame(packet) = frame::split(input, PACKET_BYTES_MAX).unwrap() {
            let (first_byte, body, bytes) = (packet.first_byte, packet.body.to_vec(), packet.packet_bytes);
            input.drain(..bytes);
            return Some((first_byte, body));
        }
        let mut bytes = [0; 4096];
        match socket.read(&mut bytes) {
            Ok(0) | Err(_) => return None,
            Ok(count) => input.extend_from_slice(&bytes[..count]),
        }
    }
}

/// A PUBLISH packet as bytes.
pub fn publish(
    version: ProtocolVersion,
    flags: u8,
    topic_name: &str,
    packet_id: u16,
    properties: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(u16::try_from(topic_name.len()).unwrap().to_be_bytes());
    body.extend(topic_name.as_bytes());
    if flags & 0b110 != 0 {
        body.extend(packet_id.to_be_bytes());
    }
    if version == ProtocolVersion::V5 {
        put_length(properties.len(), &mut body);
        body.extend(properties);
    }
    body.extend(payload);
    let mut packet = vec![0x30 | flags];
    put_length(body.len(), &mut packet);
    packet.extend(body);
    packet
}

fn put_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let more = length > 127;
        out.push((length % 128) as u8 | if more { 0x80 } else { 0 });
        length /= 128;
        if !more {
            return;
        }
    }
}

/// Reads such a packet.
pub fn decode(version: ProtocolVersion, packet: &[u8]) -> Publish<'_> {
    let frame::Split::Frame(frame) = frame::split(packet, PACKET_BYTES_MAX).unwrap() else { panic!("incomplete") };
    match Packet::decode(version, frame.first_byte, frame.body).unwrap() {
        Packet::Publish(publish) => publish,
        other => panic!("{other:?}"),
    }
}
