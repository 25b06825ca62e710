//! The one place where it is decided who may do what.
//!
//! Routing and delivery take a [`Permit`], which only this module makes: a message that nobody has checked cannot be
//! passed on, whatever path it takes.

use pantala_proto::SharedFilter;

/// Proof that an access check has been passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permit(());

/// The access check has been failed: Not authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied;

/// Whether a client may publish to this Topic Name.
///
/// Topics that only the server speaks on, and names that are a Shared Subscription's filter, are denied to everybody.
#[inline]
pub(crate) fn publish(topic_name: &str) -> Result<Permit, Denied> {
    if !topic_name.starts_with('$') {
        return Ok(Permit(()));
    }
    let reserved = ["$SYS", "$CONTROL", "$share", "$queue"];
    let first_level = topic_name.split('/').next().unwrap_or_default();
    if reserved.contains(&first_level) { Err(Denied) } else { Ok(Permit(())) }
}

/// Whether a client may subscribe to this filter. Everybody may to all, so far.
pub(crate) fn subscribe(_filter: &str, _share: Option<SharedFilter<'_>>) -> Result<Permit, Denied> {
    Ok(Permit(()))
}

/// What the broker itself says: on the topics that are denied to everybody else, and on no others.
pub(crate) fn own(topic_name: &str) -> Result<Permit, Denied> {
    if is_own(topic_name) { Ok(Permit(())) } else { Err(Denied) }
}

/// Whether only the broker itself publishes to this Topic Name.
pub(crate) fn is_own(topic_name: &str) -> bool {
    topic_name.starts_with("$SYS/")
}

/// A message that another worker has checked.
pub(crate) fn from_worker() -> Permit {
    Permit(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_topics_are_denied() {
        for topic in ["$SYS/x", "$SYS", "$CONTROL/x", "$share/g/t", "$queue/t"] {
            assert_eq!(publish(topic).err(), Some(Denied), "{topic}");
        }
        for topic in ["a", "$SYS2", "$x/y", "a/$SYS"] {
            assert!(publish(topic).is_ok(), "{topic}");
        }
    }

    #[test]
    fn the_broker_has_its_topics_for_itself() {
        assert!(own("$SYS/broker/uptime").is_ok() && publish("$SYS/broker/uptime").is_err());
        for topic in ["a", "$SYS", "$SYS2/x", "$CONTROL/x", "a/$SYS/x"] {
            assert_eq!(own(topic).err(), Some(Denied), "{topic}");
        }
    }
}
