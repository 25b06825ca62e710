//! Monotonic time as a number, so that tests and simulations own it.

use std::time::Duration;

/// Milliseconds of a monotonic clock since a beginning that the shell chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// This much later; saturates at the end of time, some 500 million years on.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This many seconds later.
    #[must_use]
    pub fn after_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(u64::from(seconds) * 1_000))
    }

    /// Whole seconds until `later`, rounded up; 0 if it has passed.
    pub fn seconds_until(self, later: Self) -> u32 {
        u32::try_from(later.0.saturating_sub(self.0).div_ceil(1_000)).unwrap_or(u32::MAX)
    }
}
