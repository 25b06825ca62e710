//! Instants that may be missing, at no more cost than others.

use pantala_session::Instant;

/// An instant or none, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MaybeInstant(u64);

impl MaybeInstant {
    pub(crate) const NONE: Self = Self(u64::MAX);

    pub(crate) fn get(self) -> Option<Instant> {
        (self != Self::NONE).then_some(Instant(self.0))
    }

    pub(crate) fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl From<Option<Instant>> for MaybeInstant {
    fn from(instant: Option<Instant>) -> Self {
        instant.map_or(Self::NONE, |instant| Self(instant.0))
    }
}

impl From<Instant> for MaybeInstant {
    fn from(instant: Instant) -> Self {
        Self(instant.0)
    }
}
