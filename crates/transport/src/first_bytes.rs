//! What the first bytes of a connection are, for a port that several protocols share.

use crate::proxy;

/// So many bytes are enough to tell.
pub const BYTES_MAX: usize = 12;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBytes {
    /// A CONNECT packet.
    Mqtt,
    /// A TLS record with a handshake.
    Tls,
    /// An HTTP request, or what begins as one: WebSocket.
    Http,
    /// A line or header of the PROXY protocol.
    Proxy,
    /// An SSH banner.
    Ssh,
    /// Nothing that is known here.
    Unknown,
}

/// Looks at the first bytes of a connection; None if they could still be of two kinds.
///
/// MQTT, TLS and most else is told by the first byte; `P` may begin `POST` as well as `PROXY`.
#[must_use]
pub fn recognise(bytes: &[u8]) -> Option<FirstBytes> {
    /// A record of the type handshake, of whichever minor version.
    const TLS: &[u8] = &[0x16, 0x03];
    let first = *bytes.first()?;
    let begins = |text: &[u8]| bytes.iter().zip(text).all(|(byte, expected)| byte == expected);
    for (text, meaning) in [
        (TLS, FirstBytes::Tls),
        (proxy::V1_SIGNATURE, FirstBytes::Proxy),
        (proxy::V2_SIGNATURE, FirstBytes::Proxy),
        (b"SSH-", FirstBytes::Ssh),
    ] {
        if begins(text) {
            return (bytes.len() >= text.len()).then_some(meaning);
        }
    }
    Some(match first {
        // The flags of CONNECT are zero.
        0x10 => FirstBytes::Mqtt,
        // A method. No packet that has such a first byte can be the first.
        b'A'..=b'Z' => FirstBytes::Http,
        _ => FirstBytes::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_recognised() {
        for (bytes, expected) in [
            (&[0x10][..], Some(FirstBytes::Mqtt)),
            (&[0x10, 0x0c, 0, 4], Some(FirstBytes::Mqtt)),
            (&[0x16, 0x03, 0x01], Some(FirstBytes::Tls)),
            (b"GET / HTTP/1.1", Some(FirstBytes::Http)),
            (b"G", Some(FirstBytes::Http)),
            (b"POST", Some(FirstBytes::Http)),
            (b"PRI * HTTP/2.0", Some(FirstBytes::Http)),
            (b"PROXY TCP4", Some(FirstBytes::Proxy)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21", Some(FirstBytes::Proxy)),
            (b"SSH-2.0-x", Some(FirstBytes::Ssh)),
            (b"STARTTLS", Some(FirstBytes::Http)),
            (&[0x16, 0x04], Some(FirstBytes::Unknown)),
            (&[0x30, 0x00], Some(FirstBytes::Unknown)),
            (b"\r\nGET", Some(FirstBytes::Unknown)),
            (b"get /", Some(FirstBytes::Unknown)),
            (b"", None),
            (&[0x16], None),
            (b"P", None),
            (b"PROXY", None),
            (b"SSH", None),
            (b"\r\n\r\n\0\r\nQUIT", None),
        ] {
            assert_eq!(recognise(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn more_bytes_never_change_the_answer_and_enough_always_tell() {
        for text in [&b"PROXY TCP4 1.1.1.1"[..], b"\r\n\r\n\0\r\nQUIT\n\x21\x11", b"\x16\x03\x01\x02\0\0\0\0\0\0\0\0\0"]
        {
            let whole = recognise(text);
            for cut in 0..text.len() {
                let part = recognise(&text[..cut]);
                assert!(part.is_none() && cut < BYTES_MAX || part == whole, "{cut}: {part:?}");
            }
        }
    }
}
