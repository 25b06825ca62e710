//! Messages that come before SUBACK, and many of them: a broker may send Retained Messages so, and those of a Session.

use crate::bench::pantala;
use crate::peer::broker;

/// More than `sub` and `rr` hold before they wait for somebody to take them.
const MESSAGES: usize = 20_000;
const PUBLISH: u8 = 0x32;
const RETAINED: u8 = 0x31;

fn retained() -> Vec<u8> {
    [RETAINED, 4, 0, 1, b't', b'x'].repeat(MESSAGES)
}

#[test]
fn sub_takes_messages_while_it_waits_for_sub_ack() {
    let folder = tempfile::tempdir().unwrap();
    for flags in [&["-C", &MESSAGES.to_string()][..], &["-E"]] {
        let (port, broker) = broker(|peer| {
            peer.subscribed_behind(&retained());
            peer.ended();
        });
        let printed = pantala(folder.path(), "sub", &[&["-p", &port, "-t", "t"], flags].concat(), b"");
        // `-E` is for who wants no message.
        printed.is(if flags[0] == "-E" { String::new() } else { "x\n".repeat(MESSAGES) }, 0);
        broker.join().unwrap();
    }
}

#[test]
fn rr_takes_messages_while_it_waits_for_sub_ack_and_pub_ack() {
    let folder = tempfile::tempdir().unwrap();
    let (port, broker) = broker(|peer| {
        peer.subscribed_behind(&retained());
        let request = peer.expect(PUBLISH);
        assert_eq!(request, b"\0\x03ask\0\x02?");
        let answer = [0x30, 9, 0, 1, b't', b'a', b'n', b's', b'w', b'e', b'r'];
        peer.send(&[&retained(), &[0x40, 2, 0, 2][..], &answer].concat());
        peer.ended();
    });
    // Retained Messages are no response.
    let arguments = ["-V", "311", "-p", &port, "-q", "1", "-t", "ask", "-e", "t", "-m", "?", "-R"];
    pantala(folder.path(), "rr", &arguments, b"").is("answer\n", 0);
    broker.join().unwrap();
}
