//! The secrets of sessions, for whoever has to read what was recorded on the wire.

use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Is told each secret of each session, as a line of the format that `SSLKEYLOGFILE` stands for: a label, the random bytes of the
/// ClientHello, the secret, both in hexadecimal.
///
/// Whoever has these lines can read, and with some of them change, all that a session says.
#[derive(Clone)]
pub struct KeyLog(Arc<dyn Fn(&str) + Send + Sync>);

impl KeyLog {
    /// Calls `write` with each line, which ends in a newline, from whatever thread has the session.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }
}

impl fmt::Debug for KeyLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLog").finish_non_exhaustive()
    }
}

impl rustls::KeyLog for KeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = String::with_capacity(label.len() + 2 * (client_random.len() + secret.len()) + 3);
        line.push_str(label);
        for bytes in [client_random, secret] {
            line.push(' ');
            for byte in bytes {
                // Writing to a String cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push('\n');
        (self.0)(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_secret_is_one_line() {
        let lines = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&lines);
        let log = KeyLog::new(move |line| into.lock().expect("nobody panics").push_str(line));
        rustls::KeyLog::log(&log, "CLIENT_RANDOM", &[0x01, 0xab], &[0x00, 0xff]);
        assert_eq!(*lines.lock().expect("nobody panics"), "CLIENT_RANDOM 01ab 00ff\n");
    }
}
