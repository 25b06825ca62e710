//! The one place where it is decided who may do what.
//!
//! Routing takes a [`Permit`] and delivery a [`Receipt`], which only this module makes: a message that nobody has checked
//! cannot be passed on, nor handed to a client, whatever path it takes.
//!
//! Rights are about Topic Names as the broker knows them. A client of a listener with a mount point sees none but those
//! that begin with it, and sees them without.

use std::sync::Arc;

use pantala_access::Rights;
use pantala_proto::{SharedFilter, TopicFilter};

use crate::sparkplug::{self, Certificates};

/// Proof that a publisher may publish to the Topic Name of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permit(());

/// Proof that a client may receive the message, under the name that it is to see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    /// Bytes at the front of the Topic Name that are the mount point.
    mount_point_bytes: u16,
}

impl Receipt {
    /// The Topic Name as the client sees it.
    #[inline]
    pub(crate) fn topic_name<'t>(&self, topic_name: &'t str) -> &'t str {
        &topic_name[usize::from(self.mount_point_bytes)..]
    }

    /// Whether that is the name as it is.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.mount_point_bytes == 0
    }
}

/// The access check has been failed: Not authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied;

/// What the client of one Session may do, and where in the broker's topics it is. None: everything, everywhere.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access(Option<Arc<Restricted>>);

#[derive(Debug)]
struct Restricted {
    rights: Rights,
    mount_point: Option<Arc<str>>,
}

impl Access {
    pub(crate) fn new(rights: Rights, mount_point: Option<Arc<str>>) -> Self {
        let plain = rights.is_everything() && mount_point.is_none();
        Self((!plain).then(|| Arc::new(Restricted { rights, mount_point })))
    }

    /// Whether nothing has to be asked.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn mount_point(&self) -> Option<Arc<str>> {
        self.0.as_ref()?.mount_point.clone()
    }

    #[inline]
    pub(crate) fn has_mount_point(&self) -> bool {
        self.0.as_ref().is_some_and(|restricted| restricted.mount_point.is_some())
    }

    /// The broker's name for what the client calls so; None if that is the same. Topics that no client publishes to are
    /// nowhere mounted.
    #[inline]
    pub(crate) fn mounted_name(&self, topic_name: &str, certificates: impl FnOnce() -> Certificates) -> Option<String> {
        let mount_point = self.0.as_ref()?.mount_point.as_deref()?;
        (!is_reserved(topic_name, certificates())).then(|| format!("{mount_point}{topic_name}"))
    }

    /// What the client calls what the broker calls so.
    pub(crate) fn client_name<'t>(&self, topic_name: &'t str) -> &'t str {
        let mount_point = self.0.as_ref().and_then(|restricted| restricted.mount_point.as_deref());
        mount_point.and_then(|mount_point| topic_name.strip_prefix(mount_point)).unwrap_or(topic_name)
    }

    /// The same for a whole Topic Filter; a Share Name stays where it is.
    pub(crate) fn mounted_filter(&self, whole_filter: &str) -> Option<String> {
        let mount_point = self.0.as_ref()?.mount_point.as_deref()?;
        Some(match TopicFilter::parse(whole_filter) {
            Ok(TopicFilter::Shared(share)) => format!("$share/{}/{mount_point}{}", share.share_name, share.filter),
            _ => format!("{mount_point}{whole_filter}"),
        })
    }

    /// Whether a subscription may be there. `whole_filter` is the broker's name for it.
    pub(crate) fn has_subscription(&self, whole_filter: &str) -> bool {
        let Some(restricted) = &self.0 else { return true };
        match TopicFilter::parse(whole_filter) {
            Ok(TopicFilter::Shared(share)) => restricted.rights.may_subscribe(share.filter, Some(share.share_name)),
            Ok(TopicFilter::Plain(filter)) => restricted.rights.may_subscribe(filter, None),
            Err(_) => false,
        }
    }
}

/// Whether a client may publish to this Topic Name.
///
/// Topics that only the server speaks on, and names that are a Shared Subscription's filter, are denied to everybody. Whose those of
/// certificates are is asked only where it matters.
#[inline]
pub(crate) fn publish(
    access: &Access,
    topic_name: &str,
    certificates: impl FnOnce() -> Certificates,
) -> Result<Permit, Denied> {
    if topic_name.starts_with('$') && is_reserved(topic_name, certificates()) {
        return Err(Denied);
    }
    match &access.0 {
        Some(restricted) if !restricted.rights.may_publish(topic_name) => Err(Denied),
        _ => Ok(Permit(())),
    }
}

/// Whether a client may come with this Will: to be published it has to be allowed then, too.
///
/// A bridge says by its Will that it has gone, whether or not the rules let it. Its messages are not to be kept away for that.
pub(crate) fn will(
    access: &Access,
    topic_name: &str,
    mounted_name: &str,
    certificates: impl FnOnce() -> Certificates,
) -> Result<(), Denied> {
    if is_bridge_state(topic_name) { Ok(()) } else { publish(access, mounted_name, certificates).map(drop) }
}

/// Whether a client may give commands by publishing to this Topic Name.
///
/// Only who has been given the right by name: where there are no rules nobody has.
pub(crate) fn control(access: &Access, topic_name: &str) -> Result<(), Denied> {
    match &access.0 {
        Some(restricted) if !restricted.rights.is_everything() && restricted.rights.may_publish(topic_name) => {}
        _ => return Err(Denied),
    }
    if topic_name.starts_with("$CONTROL/") { Ok(()) } else { Err(Denied) }
}

/// Whether a message with this Topic Name may be handed to a client.
#[inline]
pub(crate) fn receive(access: &Access, topic_name: &str) -> Result<Receipt, Denied> {
    match &access.0 {
        None => Ok(Receipt { mount_point_bytes: 0 }),
        Some(restricted) => receive_restricted(restricted, topic_name),
    }
}

#[inline(never)]
fn receive_restricted(restricted: &Restricted, topic_name: &str) -> Result<Receipt, Denied> {
    let mount_point = restricted.mount_point.as_deref().unwrap_or_default();
    let inside = topic_name.strip_prefix(mount_point).is_some_and(|rest| !rest.is_empty());
    if !inside || !restricted.rights.may_receive(topic_name) {
        return Err(Denied);
    }
    // No mount point is as long as the longest Topic Name.
    Ok(Receipt { mount_point_bytes: mount_point.len() as u16 })
}

/// The answer to a command goes to who gave it, under its own name.
pub(crate) fn answer_to_control() -> Receipt {
    Receipt { mount_point_bytes: 0 }
}

/// Whether a client may subscribe to this filter.
pub(crate) fn subscribe(access: &Access, filter: &str, share: Option<SharedFilter<'_>>) -> Result<(), Denied> {
    match &access.0 {
        Some(restricted) if !restricted.rights.may_subscribe(filter, share.map(|share| share.share_name)) => {
            Err(Denied)
        }
        _ => Ok(()),
    }
}

/// Whether a client may unsubscribe from this filter.
pub(crate) fn unsubscribe(access: &Access, filter: &str) -> Result<(), Denied> {
    match &access.0 {
        Some(restricted) if !restricted.rights.may_unsubscribe(filter) => Err(Denied),
        _ => Ok(()),
    }
}

/// What the broker itself says: on the topics that are denied to everybody else, and on no others.
pub(crate) fn own(topic_name: &str) -> Result<Permit, Denied> {
    if is_own(topic_name) { Ok(Permit(())) } else { Err(Denied) }
}

/// Whether only the broker itself publishes to this Topic Name.
pub(crate) fn is_own(topic_name: &str) -> bool {
    topic_name.starts_with("$SYS/") && !is_bridge_state(topic_name)
}

/// Whether this is where a bridge of another broker, which is a client here, says that it is there: with its Will, too.
fn is_bridge_state(topic_name: &str) -> bool {
    let bridge = topic_name.strip_prefix("$SYS/broker/connection/").and_then(|rest| rest.strip_suffix("/state"));
    bridge.is_some_and(|bridge| !bridge.is_empty() && !bridge.contains('/'))
}

/// The certificate of a birth, which may be published.
pub(crate) fn certificate() -> Permit {
    Permit(())
}

/// A message that another worker has checked.
pub(crate) fn from_worker() -> Permit {
    Permit(())
}

fn is_reserved(topic_name: &str, certificates: Certificates) -> bool {
    let first_level = topic_name.split('/').next().unwrap_or_default();
    ["$SYS", "$CONTROL", "$share", "$queue"].contains(&first_level) && !is_bridge_state(topic_name)
        || certificates == Certificates::Reserved && sparkplug::is_certificate(topic_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE_STATE: &str = "$SYS/broker/connection/edge.bridge/state";

    #[test]
    fn reserved_topics_are_denied() {
        let everything = Access::default();
        for topic in ["$SYS/x", "$SYS", "$CONTROL/x", "$share/g/t", "$queue/t"] {
            assert_eq!(publish(&everything, topic, || Certificates::Open).err(), Some(Denied), "{topic}");
        }
        for topic in
            ["$SYS/broker/connection//state", "$SYS/broker/connection/a/b/state", "$SYS/broker/connection/state"]
        {
            assert!(publish(&everything, topic, || Certificates::Open).is_err() && is_own(topic), "{topic}");
        }
        assert!(publish(&everything, BRIDGE_STATE, || Certificates::Open).is_ok() && !is_own(BRIDGE_STATE));
        for topic in ["a", "$SYS2", "$x/y", "a/$SYS"] {
            assert!(publish(&everything, topic, || Certificates::Open).is_ok(), "{topic}");
        }
        assert_eq!(control(&everything, "$CONTROL/x"), Err(Denied));
    }

    #[test]
    fn a_mount_point_is_put_on_and_taken_off() {
        let access = Access::new(Rights::everything(), Some("m/".into()));
        assert!(!access.is_plain());
        assert_eq!(access.mounted_name("t", || Certificates::Open).as_deref(), Some("m/t"));
        assert_eq!(access.mounted_name("$SYS/t", || Certificates::Open), None);
        assert_eq!(access.mounted_filter("$share/g/t/#").as_deref(), Some("$share/g/m/t/#"));
        assert_eq!(access.mounted_filter("#").as_deref(), Some("m/#"));
        assert_eq!(receive(&access, "m/t").unwrap().topic_name("m/t"), "t");
        for outside in ["t", "m", "m/", "n/t"] {
            assert_eq!(receive(&access, outside).err(), Some(Denied), "{outside}");
        }
    }

    #[test]
    fn certificates_are_the_brokers_where_it_keeps_them() {
        let (anybody, below) = (Access::default(), Access::new(Rights::everything(), Some("m/".into())));
        for topic in ["$sparkplug/certificates", "$sparkplug/certificates/x"] {
            assert!(publish(&anybody, topic, || Certificates::Open).is_ok(), "{topic}");
            assert_eq!(publish(&anybody, topic, || Certificates::Reserved).err(), Some(Denied), "{topic}");
            assert!(below.mounted_name(topic, || Certificates::Open).is_some(), "{topic}");
            assert_eq!(below.mounted_name(topic, || Certificates::Reserved), None, "{topic}");
        }
        assert!(publish(&anybody, "$sparkplug/x", || Certificates::Reserved).is_ok());
        assert_eq!((below.client_name("m/t"), below.client_name("t"), anybody.client_name("m/t")), ("t", "t", "m/t"));
    }

    #[test]
    fn the_broker_has_its_topics_for_itself() {
        let anybody = Access::default();
        assert!(
            own("$SYS/broker/uptime").is_ok()
                && publish(&anybody, "$SYS/broker/uptime", || Certificates::Open).is_err()
        );
        for topic in ["a", "$SYS", "$SYS2/x", "$CONTROL/x", "a/$SYS/x"] {
            assert_eq!(own(topic).err(), Some(Denied), "{topic}");
        }
    }

    #[test]
    fn without_rights_there_is_nothing() {
        let access = Access::new(Rights::nothing(), None);
        assert!(publish(&access, "t", || Certificates::Open).is_err() && receive(&access, "t").is_err());
        assert!(subscribe(&access, "t", None).is_err() && unsubscribe(&access, "t").is_err());
        assert!(!access.has_subscription("t") && !access.has_subscription("$share/g/t"));
    }
}
