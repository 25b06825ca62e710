//! What a Sparkplug Aware MQTT Server keeps (Eclipse Sparkplug 3.0.0, section 10.1.4): births, as certificates.
//!
//! An NBIRTH or DBIRTH that a client publishes goes on as the Retained Message of a topic of its own, so that who comes later learns
//! what there is. That is one more message, with a record of its own. It is routed before the birth, so its record stands before that
//! of the birth: of a QoS 2 birth whose identifier is known after a crash the certificate is known, too, and otherwise the birth
//! comes again.
//!
//! A client that lives below a mount point finds certificates there, under the names that it knows.

use pantala_session::Instant;
use pantala_store::{Durability, Position, Store};

use crate::access::{self, Access};
use crate::core::Core;
use crate::message::{Incoming, Room};
use crate::persist::Origin;
use crate::session::SessionKey;
use crate::{Settings, durability};

const NAMESPACE: &str = "spBv1.0/";
/// What the Topic Name of a certificate begins with; that of the birth follows.
const CERTIFICATES: &str = "$sparkplug/certificates/";

/// Bytes that a certificate's name is longer by than that of its birth.
pub(crate) const CERTIFICATES_BYTES: usize = CERTIFICATES.len();

/// Whose the topics of certificates are, for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificates {
    /// The broker's alone.
    Reserved,
    /// Whoever the rules let: the broker keeps none, or the message is one that removes what is retained.
    Open,
}

impl Certificates {
    #[inline]
    pub(crate) fn of(settings: &Settings, retain: bool, payload: &[u8]) -> Self {
        if settings.sparkplug_aware && !(retain && payload.is_empty()) { Self::Reserved } else { Self::Open }
    }
}

/// Whether a Topic Name is one of certificates, or the one above them, which a subscription to all of them matches.
pub(crate) fn is_certificate(topic_name: &str) -> bool {
    let above = &CERTIFICATES[..CERTIFICATES_BYTES - 1];
    topic_name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a Topic Name, as its client calls it, is that of an NBIRTH (`spBv1.0/GROUP/NBIRTH/NODE`) or a DBIRTH
/// (`spBv1.0/GROUP/DBIRTH/NODE/DEVICE`).
#[inline]
pub(crate) fn is_birth(topic_name: &str) -> bool {
    topic_name.strip_prefix(NAMESPACE).is_some_and(is_birth_in_namespace)
}

fn is_birth_in_namespace(rest: &str) -> bool {
    let mut levels = rest.split('/');
    let (_group, kind) = (levels.next(), levels.next());
    match kind {
        Some("NBIRTH") => levels.count() == 1,
        Some("DBIRTH") => levels.count() == 2,
        _ => false,
    }
}

/// The Topic Name of the certificate that a message is, if it is a birth.
fn certificate_name(access: &Access, topic_name: &str) -> Option<String> {
    let birth = access.client_name(topic_name);
    let (mount_point, _) = topic_name.split_at(topic_name.len() - birth.len());
    is_birth(birth).then(|| [mount_point, CERTIFICATES, birth].concat())
}

impl<S: Store> Core<S> {
    /// Publishes a message as the certificate that it is, if it is a birth: before it is routed itself, and only if it will be.
    /// Returns what the store has to reach before the birth may be acknowledged.
    #[inline(never)]
    pub(crate) fn publish_certificate(
        &mut self,
        now: Instant,
        publisher: SessionKey,
        birth: &Incoming<'_>,
    ) -> Position {
        let access = &self.sessions[publisher as usize].access;
        let Some(topic_name) = certificate_name(access, birth.topic_name) else { return Position::default() };
        self.counters.sparkplug_certificates_published += 1;
        let mut certificate =
            Incoming { topic_name: &topic_name, retain: true, id: None, room: Room::Unasked, ..*birth };
        self.begin_routing(&mut certificate);
        // It is the broker's own: there is no publisher whose rights could end, and to whom No Local would apply.
        self.route(now, None, &certificate, Origin::default(), access::certificate()).position
    }

    /// Whether a message is a birth whose certificate the store would have to keep.
    pub(crate) fn certificate_has_to_be_kept(&self, publisher: SessionKey, incoming: &Incoming<'_>) -> bool {
        let access = &self.sessions[publisher as usize].access;
        self.settings.sparkplug_aware
            && certificate_name(access, incoming.topic_name)
                .is_some_and(|name| durability::level(&self.settings, &name) != Some(Durability::Memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn births_have_the_levels_that_they_have() {
        for birth in ["spBv1.0/g/NBIRTH/n", "spBv1.0/g/DBIRTH/n/d", "spBv1.0/g h/NBIRTH/n:1", "spBv1.0//NBIRTH/"] {
            assert!(is_birth(birth), "{birth}");
        }
        for other in [
            "spBv1.0/g/NBIRTH",
            "spBv1.0/g/NBIRTH/n/d",
            "spBv1.0/g/DBIRTH/n",
            "spBv1.0/g/DBIRTH/n/d/e",
            "spBv1.0/g/NDATA/n",
            "spBv1.0/g/NDEATH/n",
            "spBv1.0/g/nbirth/n",
            "spBv1.0/NBIRTH/g/n",
            "spBv1.0/STATE/h",
            "spAv1.0/g/NBIRTH/n",
            "x/spBv1.0/g/NBIRTH/n",
            "spBv1.0/",
            "spBv1.0",
            "",
        ] {
            assert!(!is_birth(other), "{other}");
        }
    }

    #[test]
    fn a_certificate_is_told_by_its_first_levels() {
        for name in
            ["$sparkplug/certificates", "$sparkplug/certificates/", "$sparkplug/certificates/spBv1.0/g/NBIRTH/n"]
        {
            assert!(is_certificate(name), "{name}");
        }
        for name in ["$sparkplug", "$sparkplug/x", "$sparkplug/certificates2", "$sparkplug/certificate", "a/$sparkplug"]
        {
            assert!(!is_certificate(name), "{name}");
        }
    }
}
