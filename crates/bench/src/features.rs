//! What connections of a load have beside plain MQTT 5.0 over TCP, and what a broker has to be told for it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// The version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.0.
    #[default]
    V5,
}

/// What carries the Control Packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// TCP alone.
    #[default]
    Plain,
    /// TLS 1.3, or what the broker has, with a full handshake each.
    Tls,
    /// The same; all but the first ones resume a session.
    TlsResumed,
    /// WebSocket frames, one for each write.
    WebSocket,
}

/// What clients do; the default is nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The version of all connections.
    pub version: Version,
    /// What carries them.
    pub transport: Transport,
    /// User Properties on each message, at most five.
    pub user_properties: u8,
    /// Publishers name their topic once, and then by its Topic Alias.
    pub alias_in: bool,
    /// Subscribers allow the broker Topic Aliases.
    pub alias_out: bool,
    /// Subscriptions have a Subscription Identifier.
    pub subscription_identifier: bool,
    /// Subscriptions have the option No Local.
    pub no_local: bool,
}

impl Features {
    /// The properties of each PUBLISH but for a Topic Alias.
    pub(crate) fn publish_properties(self) -> Vec<u8> {
        let mut properties = Vec::new();
        for number in 0..self.user_properties {
            properties.extend_from_slice(&[0x26, 0, 4, b'n', b'a', b'm', b'0' + number % 10]);
            properties.extend_from_slice(&[0, 5, b'v', b'a', b'l', b'u', b'e']);
        }
        properties
    }
}

/// What a broker has in its configuration for a figure, beside one listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// So many access rules; those of the load's topics are among them. None lets everybody do everything.
    pub rules: u32,
    /// All of `$SYS/` is told every second.
    pub tells: bool,
}

impl Setup {
    /// The configuration, with one listener on `port`. Files that it names are written to `scratch`.
    pub(crate) fn configuration(self, transport: Transport, port: u16, scratch: &Path) -> io::Result<String> {
        let mut text = format!("[broker]\nsys_interval_seconds = {}\n", if self.tells { 1 } else { 10 });
        let _ = writeln!(text, "[[listener]]\nport = {port}\nhost = \"127.0.0.1\"\nallow_anonymous = true");
        match transport {
            Transport::Plain => {}
            Transport::WebSocket => text.push_str("protocol = \"websocket\"\n"),
            Transport::Tls | Transport::TlsResumed => {
                let certified =
                    rcgen::generate_simple_self_signed(["localhost".to_owned()]).map_err(io::Error::other)?;
                let (certificate, key) = (scratch.join("bench.crt"), scratch.join("bench.key"));
                std::fs::write(&certificate, certified.cert.pem())?;
                std::fs::write(&key, certified.signing_key.serialize_pem())?;
                let _ = writeln!(text, "tls_certificate_files = [{certificate:?}]\ntls_key_files = [{key:?}]");
            }
        }
        if self.rules > 0 {
            let file = scratch.join("bench.acl");
            let rules: String =
                (0..self.rules).map(|number| format!("topic readwrite bench/pair/{number:05}\n")).collect();
            std::fs::write(&file, rules)?;
            let _ = writeln!(text, "security = \"rules\"\n[[security]]\nname = \"rules\"\nacl_file = {file:?}");
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_user_properties_are_few_enough_for_one_length_byte() {
        let features = Features { user_properties: 5, ..Features::default() };
        assert_eq!(features.publish_properties().len(), 70);
        assert!(features.publish_properties().starts_with(b"\x26\0\x04nam0\0\x05value\x26"));
        assert!(Features::default().publish_properties().is_empty());
    }
}
