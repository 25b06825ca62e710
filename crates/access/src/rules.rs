//! The rules of one security domain.

use crate::{Rights, Subject};

/// Rules, compiled and immutable: shared by all workers, and replaced as a whole when they change.
#[derive(Debug, Clone)]
pub struct Rules(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Everything,
    Nothing,
}

impl Rules {
    /// Everybody may do everything: what holds where no rules are configured.
    pub fn everything() -> Self {
        Self(Kind::Everything)
    }

    /// Nobody may do anything.
    pub fn nothing() -> Self {
        Self(Kind::Nothing)
    }

    /// What one client may do.
    pub fn rights(&self, _subject: &Subject<'_>) -> Rights {
        match self.0 {
            Kind::Everything => Rights::everything(),
            Kind::Nothing => Rights::nothing(),
        }
    }
}
