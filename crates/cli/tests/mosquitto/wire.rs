//! The bytes that the programs send: Debian's and ours are the same.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pantala_proto::frame;

use crate::programs;

/// What is waited for has to come within this.
const PATIENCE: Duration = Duration::from_secs(20);
const PACKET_BYTES_MAX: u32 = 1 << 20;
/// CONNACK of MQTT 5 that allows ten Topic Aliases.
const WELCOME: &[u8] = &[0x20, 6, 0, 0, 3, 0x22, 0, 10];

/// What Mosquitto's send if nothing is said.
const RECEIVE_MAXIMUM: &[&str] = &["-D", "connect", "receive-maximum", "20"];

/// Plays the broker for one connection; every packet that came.
fn play(mut socket: &TcpStream) -> Vec<Vec<u8>> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut input, mut packets) = (Vec::new(), Vec::new());
    loop {
        let mut bytes = [0; 4096];
        match socket.read(&mut bytes) {
            Ok(0) | Err(_) => return packets,
            Ok(count) => input.extend_from_slice(&bytes[..count]),
        }
        while let frame::Split::Frame(packet) = frame::split(&input, PACKET_BYTES_MAX).unwrap() {
            let (body, bytes) = (packet.body, packet.packet_bytes);
            let answer = match packet.first_byte {
                0x10 => WELCOME.to_vec(),
                0x32 | 0x33 => {
                    let id = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    vec![0x40, 2, body[id], body[id + 1]]
                }
                // QoS 0 is granted, and then a message comes, so that -C can end it.
                0x82 => vec![0x90, 4, body[0], body[1], 0, 0, 0x30, 5, 0, 1, b't', 0, b'p'],
                0xa2 => vec![0xb0, 4, body[0], body[1], 0, 0],
                _ => Vec::new(),
            };
            packets.push(input[..bytes].to_vec());
            input.drain(..bytes);
            // It may have gone already.
            drop(socket.write_all(&answer));
        }
    }
}

/// What a program sends to a broker that takes everything, one packet on a line.
fn sent(mut command: Command, arguments: &[&str]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let scene = thread::spawn(move || play(&listener.accept().unwrap().0));
    let mut child = command
        .args(["-h", "127.0.0.1", "-p", &port, "-i", "me", "-V", "5"])
        .args(if arguments.contains(&"receive-maximum") { &[] } else { RECEIVE_MAXIMUM })
        .args(arguments)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    };
    assert!(status.success(), "{arguments:?}: {status}");
    scene.join().unwrap().iter().map(|packet| format!("{}\n", packet.escape_ascii())).collect()
}

#[test]
fn packets_have_the_same_bytes() {
    let names = ["mosquitto_pub", "mosquitto_sub", "mosquitto_rr"];
    let Some(theirs) = programs::find("packets_have_the_same_bytes", names) else { return };
    let [publish, subscribe, request]: [&[&str]; 3] = [
        &["-t", "topic", "-m", "hello"],
        &["-t", "topic", "-C", "1"],
        &["-t", "topic", "-e", "answer", "-m", "hello", "-W", "20"],
    ];
    // Properties are in the order that ours has; theirs is that of the command line.
    let cases: &[(usize, &[&str])] = &[
        (0, &[]),
        (0, &["-D", "disconnect", "user-property", "a", "b", "-D", "disconnect", "user-property", "a", "c"]),
        (0, &["-D", "disconnect", "reason-string", "why"]),
        (
            0,
            &[
                "-D",
                "connect",
                "session-expiry-interval",
                "9",
                "-D",
                "connect",
                "receive-maximum",
                "20",
                "-D",
                "disconnect",
                "session-expiry-interval",
                "5",
                "-D",
                "disconnect",
                "reason-string",
                "ü",
                "-D",
                "disconnect",
                "user-property",
                "a",
                "b",
            ],
        ),
        (0, &["-D", "connect", "request-problem-information", "0"]),
        (0, &["-D", "connect", "request-response-information", "1"]),
        (0, &["-D", "publish", "topic-alias", "5"]),
        (0, &["-D", "publish", "topic-alias", "5", "--repeat", "3"]),
        (0, &["-D", "publish", "topic-alias", "10", "--repeat", "2", "-q", "1", "-r"]),
        (0, &["-D", "publish", "content-type", "text", "-D", "publish", "topic-alias", "1"]),
        (1, &[]),
        (1, &["-D", "disconnect", "user-property", "a", "b"]),
        (
            1,
            &[
                "-U",
                "x/+",
                "-U",
                "y",
                "-D",
                "unsubscribe",
                "user-property",
                "a",
                "b",
                "-D",
                "unsubscribe",
                "user-property",
                "c",
                "",
            ],
        ),
        (1, &["-D", "subscribe", "subscription-identifier", "7", "-D", "subscribe", "user-property", "a", "b"]),
        (1, &["--retain-as-published", "-q", "2"]),
        (2, &["-D", "disconnect", "user-property", "a", "b"]),
    ];
    let mut different = Vec::new();
    for &(program, more) in cases {
        let (name, base) = [("pub", publish), ("sub", subscribe), ("rr", request)][program];
        let mut ours = Command::new(env!("CARGO_BIN_EXE_pantala"));
        ours.arg(name);
        let arguments = [base, more].concat();
        let (mut ours, theirs) = (sent(ours, &arguments), sent(Command::new(&theirs[program]), &arguments));
        if name == "rr" {
            // Mosquitto's ends without a goodbye when a response has come.
            let goodbye = ours.find("\\xe0").unwrap();
            ours.truncate(goodbye);
        }
        if ours != theirs {
            different.push(format!("{name} {arguments:?}\nours\n{ours}theirs\n{theirs}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn an_alias_that_the_broker_does_not_take_is_not_sent() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pantala"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let scene = thread::spawn(move || play(&listener.accept().unwrap().0));
    let arguments = ["pub", "-h", "127.0.0.1", "-p", &port, "-t", "t", "-m", "m", "-D", "publish", "topic-alias", "11"];
    let output = command.args(arguments).env("XDG_CONFIG_HOME", "/nonexistent").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "Error: t: the broker takes Topic Aliases up to 10\n");
    let first_bytes: Vec<u8> = scene.join().unwrap().iter().map(|packet| packet[0]).collect();
    assert_eq!(first_bytes, [0x10, 0xe0]);
}
