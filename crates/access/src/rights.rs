//! What one client may do.

/// What one client may do. Cheap to clone.
///
/// Topic Names and Topic Filters have to be well-formed; whoever asks has checked that before.
#[derive(Debug, Clone)]
pub struct Rights(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Everything,
    Nothing,
}

impl Rights {
    /// The right to everything.
    pub fn everything() -> Self {
        Self(Kind::Everything)
    }

    /// The right to nothing.
    pub fn nothing() -> Self {
        Self(Kind::Nothing)
    }

    /// Whether nothing needs to be asked, whatever it is.
    #[inline]
    pub fn is_everything(&self) -> bool {
        matches!(self.0, Kind::Everything)
    }

    /// Whether a message with this Topic Name may be published.
    #[inline]
    pub fn may_publish(&self, _topic_name: &str) -> bool {
        self.is_everything()
    }

    /// Whether a message with this Topic Name may be delivered to the client, whatever it has subscribed to.
    #[inline]
    pub fn may_receive(&self, _topic_name: &str) -> bool {
        self.is_everything()
    }

    /// Whether the client may subscribe. `filter` is the Topic Filter without `$share/{ShareName}/`, `share` the Share Name.
    pub fn may_subscribe(&self, _filter: &str, _share: Option<&str>) -> bool {
        self.is_everything()
    }

    /// Whether the client may unsubscribe from the Topic Filter, given without `$share/{ShareName}/`.
    pub fn may_unsubscribe(&self, _filter: &str) -> bool {
        self.is_everything()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_and_nothing() {
        for (rights, all) in [(Rights::everything(), true), (Rights::nothing(), false)] {
            assert_eq!(rights.is_everything(), all);
            assert_eq!(rights.may_publish("a"), all);
            assert_eq!(rights.may_receive("$SYS/x"), all);
            assert_eq!(rights.may_subscribe("#", None), all);
            assert_eq!(rights.may_subscribe("a/+", Some("g")), all);
            assert_eq!(rights.may_unsubscribe("#"), all);
        }
    }
}
