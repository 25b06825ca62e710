//! How long to wait before the next attempt.

use std::time::Duration;

/// When to try again after a connection has failed or ended: exponential back-off with full jitter. The wait is random
/// between nothing and a bound that doubles with every failure, so that a thousand clients that lost the same broker do not
/// come back at once.
///
/// Nearly everything is tried again, for ever by default: also what the broker refuses, as a wrong password, and TLS that fails, as
/// with a certificate that is not trusted, since either may be put right where the client cannot see it.
/// [`Client::changes`](crate::Client::changes) tells each error; who would rather end says so with `attempts_max` or
/// `only_passing`, or calls [`Client::disconnect`](crate::Client::disconnect). Not tried again is what would fail at once in the same way: settings that
/// CONNECT cannot say, an outbox that fails, and a Session that is [not to be accepted](crate::UnknownSession::Close).
///
/// A client whose Session was taken over by another with its Client Identifier (v5 Reason Code 0x8E) does not come back: the
/// two would throw each other out for ever. The exception is once in the first 5 s of its first connection, since the other
/// may be the same program, killed just after CONNECT and started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// The bound of the first wait. Default: 500 ms.
    pub first_wait_max: Duration,
    /// The bound of every later wait. Default: 60 s.
    pub wait_max: Duration,
    /// Give up after so many attempts in a row without a connection; None is never. Default: never.
    pub attempts_max: Option<u32>,
    /// Whether the first connection is tried again as well. If not, [`Client::connect`](crate::Client::connect) ends with the
    /// first error, so that a wrong password or host is seen at the start. Default: false.
    pub retry_first: bool,
    /// Whether to try again only after what may pass by itself, and to end the client after what does not: see
    /// [`ConnectionError::is_lasting`](crate::error::ConnectionError::is_lasting). Default: false.
    pub only_passing: bool,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first_wait_max: Duration::from_millis(500),
            wait_max: Duration::from_secs(60),
            attempts_max: None,
            retry_first: false,
            only_passing: false,
        }
    }
}

impl Reconnect {
    /// No second attempt.
    pub const NEVER: Self = Self {
        first_wait_max: Duration::ZERO,
        wait_max: Duration::ZERO,
        attempts_max: Some(0),
        retry_first: false,
        only_passing: false,
    };

    /// How long to wait after the `failures`-th failure in a row, from 1, of which the last `in_vain` brought no connection after
    /// the first; `random` decides within the bound. None: give up.
    pub(super) fn wait(&self, failures: u32, in_vain: u32, random: u32) -> Option<Duration> {
        if self.attempts_max.is_some_and(|maximum| in_vain > maximum) {
            return None;
        }
        let doublings = failures.saturating_sub(1).min(31);
        let bound = self.first_wait_max.saturating_mul(1 << doublings).min(self.wait_max);
        Some(bound.mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_its_end() {
        let reconnect = Reconnect { wait_max: Duration::from_secs(3), ..Reconnect::default() };
        let bounds: Vec<_> =
            (1..6).map(|failures| reconnect.wait(failures, failures, u32::MAX).unwrap().as_millis()).collect();
        assert_eq!(bounds, [500, 1_000, 2_000, 3_000, 3_000]);
        assert_eq!(reconnect.wait(1_000_000, 1, u32::MAX), Some(Duration::from_secs(3)));
        assert_eq!(reconnect.wait(3, 3, 0), Some(Duration::ZERO));
    }

    #[test]
    fn it_gives_up_when_told() {
        assert_eq!(Reconnect::NEVER.wait(1, 1, 7), None);
        let twice = Reconnect { attempts_max: Some(2), ..Reconnect::default() };
        assert!(twice.wait(9, 2, 7).is_some());
        assert_eq!(twice.wait(9, 3, 7), None);
    }
}
