//! What a Mosquitto broker has left, taken over by a broker in its place.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::client::{Client, V5, V311, acknowledgement, connect, publish};
use crate::process::{Broker, Folder, free_port};

/// Written by Mosquitto 2.0.11 on a little-endian machine, as numbers in it tell. There are three Sessions: `v3` with everything
/// queued, `v5`, which expires, and `slow`, which has not answered.
const WRITTEN: &[u8] = include_bytes!("../../../server/tests/mosquitto-db/2.0.11.db");

/// The file, in which the Session of `v5` expires so many seconds from now.
fn written(expires_in: Duration) -> Vec<u8> {
    let mut bytes = WRITTEN.to_vec();
    let client = bytes.windows(5).position(|window| window == b"v5bob").unwrap();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + expires_in;
    bytes[client - 24..client - 16].copy_from_slice(&at.as_secs().to_ne_bytes());
    bytes
}

struct Place {
    folder: Folder,
    port: u16,
}

impl Place {
    fn new(file: &[u8]) -> Self {
        let (folder, port) = (Folder::new(), free_port());
        fs::write(folder.path("mosquitto.db"), file).unwrap();
        let location = folder.path("").display().to_string();
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {location}\n"
        );
        folder.write("mosquitto.conf", &text);
        Self { folder, port }
    }

    fn start(&self) -> Broker {
        let file = self.folder.path("mosquitto.conf");
        Broker::with_arguments(Folder::new(), &["-c".as_ref(), file.as_os_str()])
    }

    fn client(&self, level: u8) -> Client {
        let mut client = Client::open(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        client.level = level;
        client
    }

    /// Back with its Session.
    fn resume(&self, client_id: &str) -> Client {
        let mut client = self.client(V311);
        let mut packet = connect(V311, client_id);
        packet[9] &= !2;
        client.send(&packet);
        client.expect(&[0x20, 2, 1, 0]);
        client
    }

    /// So many Retained Messages, which may come at any time after SUBACK.
    fn retained(&self, count: usize) -> Vec<Vec<u8>> {
        let mut client = self.client(V5);
        client.let_in(V5, "looks");
        client.send(&crate::client::subscribe(V5, 1, "#", 2));
        std::iter::repeat_with(|| client.packet()).filter(|packet| packet[0] >> 4 == 3).take(count).collect()
    }
}

#[cfg(target_endian = "little")]
#[test]
fn what_mosquitto_has_kept_is_taken_over_once() {
    let place = Place::new(&written(Duration::from_secs(1_000)));
    // What a start has left that was broken off.
    fs::create_dir_all(place.folder.path("pantala/store.unfinished/x")).unwrap();
    let mut broker = place.start();
    broker.wait_for_log("Try it");
    let log = broker.log();
    assert!(
        log.contains(": 3 Retained Messages, 3 Sessions with 4 subscriptions and 14 messages that wait.\n"),
        "{log}"
    );
    let left_out = "2 messages at QoS 0 waited, 1 messages had not been released by their publishers.\n";
    assert!(log.contains(&format!("Warning: not taken over from Mosquitto: {left_out}")), "{log}");

    let mut v3 = place.resume("v3");
    for number in 1..=5_u8 {
        let packet = v3.packet();
        let (topic, payload) = match number {
            5 => ("q/r".to_owned(), "queued and retained".to_owned()),
            number => (format!("q/{number}"), format!("queued {number}")),
        };
        let (qos, packet_id, found) = crate::client::taken_apart(V311, &packet);
        assert_eq!((qos, found), (1, payload.as_bytes()));
        assert_eq!(packet, publish(V311, &topic, 1, packet_id, payload.as_bytes()));
        v3.send(&acknowledgement(0x40, packet_id));
    }
    assert!(v3.ping().is_empty());
    // Its subscriptions hold.
    let mut other = place.client(V311);
    other.let_in(V311, "other");
    other.send(&publish(V311, "more/x", 0, 0, b"new"));
    assert_eq!(v3.packet(), publish(V311, "more/x", 0, 0, b"new"));

    // It has had two messages before, and has taken one of them over; the others had to wait.
    let mut slow = place.resume("slow");
    let mut again = publish(V311, "slow/1", 1, 1, b"one");
    again[0] |= 8;
    slow.expect(&again);
    slow.expect(&[0x62, 2, 0, 2]);
    for (expected_qos, payload) in [(2, &b"three"[..]), (1, b"four")] {
        let packet = slow.packet();
        let (qos, packet_id, found) = crate::client::taken_apart(V311, &packet);
        assert_eq!((qos, found, packet[0] & 8), (expected_qos, payload, 0));
        assert!(packet_id > 2, "{packet_id} is that of another exchange");
    }

    let retained = place.retained(3);
    let contains = |packet: &[u8], text: &str| packet.windows(text.len()).any(|window| window == text.as_bytes());
    for (text, more) in [("retained one", "r/one"), ("with properties", "text/plain"), ("queued and retained", "q/r")] {
        assert!(retained.iter().any(|packet| contains(packet, text) && contains(packet, more)), "{text}: {retained:?}");
    }
    let mut ended = publish(V311, "r/one", 1, 9, b"");
    ended[0] |= 1;
    other.send(&ended);
    other.expect(&acknowledgement(0x40, 9));
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));

    let mut broker = place.start();
    broker.wait_for_log("Try it");
    let log = broker.log();
    assert!(!log.contains("aken over") && log.contains(" and 2 Retained Messages in "), "{log}");
    assert!(place.retained(2).iter().all(|packet| !contains(packet, "r/one")));
    assert!(place.folder.path("mosquitto.db").exists() && !place.folder.path("pantala/store.unfinished").exists());
    broker.check();
}

#[cfg(target_endian = "little")]
#[test]
fn a_session_that_has_expired_meanwhile_is_not_there() {
    let place = Place::new(&written(Duration::ZERO));
    let broker = place.start();
    let log = broker.wait_for_log("Try it");
    assert!(log.contains(" 2 Sessions with 3 subscriptions and 9 messages that wait.\n"), "{log}");
    assert!(log.contains("not taken over from Mosquitto: 1 had expired, "), "{log}");
}

/// Nobody is to find out later that all was lost.
#[test]
fn a_file_that_cannot_be_read_ends_the_start() {
    for (file, said) in [
        (&b"something else"[..], "it is no file of Mosquitto's"),
        (&WRITTEN[..WRITTEN.len() - 1], "it has been cut off"),
    ] {
        let place = Place::new(file);
        let mut broker = place.start();
        assert_eq!(broker.wait().code(), Some(1));
        assert!(broker.log().contains(&format!("mosquitto.db: {said}; without that file")), "{}", broker.log());
        assert!(!place.folder.path("pantala/store").exists());
        // Without it there is nothing to be taken over, and the start goes on.
        fs::remove_file(place.folder.path("mosquitto.db")).unwrap();
        let broker = place.start();
        broker.wait_for_log("Try it");
    }
}
