//! Who published Retained Messages: whoever may no longer publish to a topic is not read on it either.
//!
//! A Retained Message has a number of four bytes for its publisher, and each publisher stands here once, with how many messages
//! are its. Where there are no rules nobody is noted, and nobody is asked about. What a publisher may do is not kept, but
//! for the last few that were asked about: there may be as many publishers as messages.
//!
//! Rules are asked about the publisher as it was: its names, its address, and what came with its credentials. The last is
//! not on the disk: after a restart such a publisher may still publish as long as its user is there and not banned.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::HashTable;
use pantala_access::{Grants, Rights, Subject};
use pantala_store::{RecoveredPublisher, Store};
use slab::Slab;

use crate::core::Core;
use crate::rights::NO_DOMAIN;
use crate::session::{Session, SessionKey};
use crate::{Proof, RightsSource, SecurityId, Settings, Standing};

/// How many publishers' rights are kept: those of many messages in a row are made once.
const JUDGED: usize = 64;

/// A publisher that is noted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PublisherId(NonZeroU32);

impl PublisherId {
    fn of_key(key: usize) -> Self {
        Self(NonZeroU32::MIN.saturating_add(key as u32))
    }

    fn key(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A publisher, wherever what is known of it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described<'a> {
    security: SecurityId,
    client_id: &'a str,
    user_name: Option<&'a str>,
    address: Option<IpAddr>,
    certificate: bool,
    named_by_certificate: bool,
    groups: &'a [Box<str>],
    grants: Option<&'a Arc<Grants>>,
    /// It had groups or grants, and they have been forgotten.
    forgotten: bool,
}

impl<'a> Described<'a> {
    fn of_session(session: &'a Session) -> Self {
        let client_id = &session.client_id;
        let nobody = Self {
            security: session.security,
            client_id,
            user_name: None,
            address: None,
            certificate: false,
            named_by_certificate: false,
            groups: &[],
            grants: None,
            // Of a Session from before the last start names alone have been judged, if anything.
            forgotten: false,
        };
        session.principal.as_deref().map_or(nobody, |principal| Self {
            user_name: principal.user_name.as_deref(),
            address: principal.address,
            certificate: principal.certificate,
            named_by_certificate: session.proof == Proof::Certificate,
            groups: &principal.groups,
            grants: principal.grants.as_ref(),
            ..nobody
        })
    }

    fn recovered(settings: &Settings, publisher: &'a RecoveredPublisher) -> Self {
        Self {
            security: security_named(settings, &publisher.security_domain),
            client_id: &publisher.client_id,
            user_name: publisher.user_name.as_deref(),
            address: publisher.address,
            certificate: publisher.certificate,
            // The store does not say; who showed one may have its name from it.
            named_by_certificate: publisher.certificate,
            groups: &[],
            grants: None,
            forgotten: publisher.granted,
        }
    }

    fn to_store(self, settings: &'a Settings) -> pantala_store::Publisher<'a> {
        pantala_store::Publisher {
            security_domain: settings.security_domain(self.security),
            user_name: self.user_name,
            client_id: self.client_id,
            address: self.address,
            certificate: self.certificate,
            granted: self.forgotten || !self.groups.is_empty() || self.grants.is_some(),
        }
    }

    fn hash(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((self.security.0, self.client_id, self.user_name))
    }

    fn is(&self, other: &Self) -> bool {
        let grants = |one: &Self| one.grants.map(Arc::as_ptr);
        self.security == other.security
            && self.client_id == other.client_id
            && self.user_name == other.user_name
            && self.address == other.address
            && self.certificate == other.certificate
            && self.named_by_certificate == other.named_by_certificate
            && self.groups == other.groups
            && grants(self) == grants(other)
            && self.forgotten == other.forgotten
    }

    /// What it may do; None: nothing.
    fn judge(&self, source: &dyn RightsSource) -> Option<Rights> {
        let subject = Subject {
            client_id: self.client_id,
            user_name: self.user_name,
            address: self.address,
            certificate: self.certificate,
            named_by_certificate: self.named_by_certificate,
            groups: self.groups,
            grants: self.grants.map(|grants| &**grants),
        };
        match source.rights(self.security, &subject) {
            Standing::Rights(_) if self.forgotten => Some(Rights::everything()),
            Standing::Rights(rights) => Some(rights),
            Standing::Unknown | Standing::Banned => None,
        }
    }
}

/// The domain with this name; [`NO_DOMAIN`] if there is none any more.
pub(crate) fn security_named(settings: &Settings, domain: &str) -> SecurityId {
    let names = &settings.security_domains;
    match names.iter().position(|name| **name == *domain) {
        Some(at) => SecurityId(at as u16),
        None if names.is_empty() && domain.is_empty() => SecurityId::default(),
        None => NO_DOMAIN,
    }
}

/// A publisher that owns what is known of it.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// Client Identifier, then user name.
    names: Box<str>,
    client_id_bytes: u16,
    security: SecurityId,
    has_user_name: bool,
    certificate: bool,
    named_by_certificate: bool,
    forgotten: bool,
    address: Option<IpAddr>,
    granted: Option<Box<Granted>>,
}

/// What came with credentials.
#[derive(Debug)]
struct Granted {
    groups: Box<[Box<str>]>,
    grants: Option<Arc<Grants>>,
}

impl Publisher {
    fn new(described: &Described<'_>) -> Self {
        let Described {
            security,
            client_id,
            user_name,
            address,
            certificate,
            named_by_certificate,
            groups,
            grants,
            forgotten,
        } = *described;
        let granted = (!groups.is_empty() || grants.is_some())
            .then(|| Box::new(Granted { groups: groups.into(), grants: grants.cloned() }));
        Self {
            names: [client_id, user_name.unwrap_or_default()].concat().into(),
            // No text of a packet is longer.
            client_id_bytes: client_id.len() as u16,
            security,
            has_user_name: user_name.is_some(),
            certificate,
            named_by_certificate,
            forgotten,
            address,
            granted,
        }
    }

    pub(crate) fn described(&self) -> Described<'_> {
        let (client_id, user_name) = self.names.split_at(usize::from(self.client_id_bytes));
        let granted = self.granted.as_deref();
        Described {
            security: self.security,
            client_id,
            user_name: self.has_user_name.then_some(user_name),
            address: self.address,
            certificate: self.certificate,
            named_by_certificate: self.named_by_certificate,
            groups: granted.map_or(&[], |granted| &granted.groups),
            grants: granted.and_then(|granted| granted.grants.as_ref()),
            forgotten: self.forgotten,
        }
    }
}

#[derive(Debug)]
struct Known {
    publisher: Publisher,
    /// How many Retained Messages are its.
    messages: u32,
}

/// The publishers of a worker's Retained Messages.
#[derive(Debug, Default)]
pub(crate) struct Publishers {
    known: Slab<Known>,
    /// Keys of `known`. Names are the clients' choice, so they are hashed with std's SipHash.
    by_name: HashTable<u32>,
    hasher: RandomState,
    /// Rights of some, at their key modulo [`JUDGED`]: empty until the first is asked about.
    judged: Vec<Option<(PublisherId, Option<Rights>)>>,
}

impl Publishers {
    /// Notes the publisher of one more message.
    pub(crate) fn note(&mut self, described: &Described<'_>) -> PublisherId {
        let Self { known, by_name, hasher, .. } = self;
        let hash = described.hash(hasher);
        let same = |key: &u32| known[*key as usize].publisher.described().is(described);
        if let Some(key) = by_name.find(hash, same).map(|key| *key as usize) {
            known[key].messages += 1;
            return PublisherId::of_key(key);
        }
        let key = known.insert(Known { publisher: Publisher::new(described), messages: 1 });
        let hash_of = |key: &u32| known[*key as usize].publisher.described().hash(hasher);
        by_name.insert_unique(hash, key as u32, hash_of);
        PublisherId::of_key(key)
    }

    /// One message of a publisher is gone.
    pub(crate) fn forget(&mut self, id: Option<PublisherId>) {
        let Some(id) = id else { return };
        let Some(known) = self.known.get_mut(id.key()) else { return };
        known.messages -= 1;
        if known.messages > 0 {
            return;
        }
        let gone = self.known.remove(id.key());
        let hash = gone.publisher.described().hash(&self.hasher);
        if let Ok(entry) = self.by_name.find_entry(hash, |key| *key as usize == id.key()) {
            entry.remove();
        }
        if let Some(judged) = self.judged.get_mut(id.key() % JUDGED)
            && judged.as_ref().is_some_and(|(of, _)| *of == id)
        {
            *judged = None;
        }
        if self.known.is_empty() {
            self.known = Slab::new();
            self.by_name = HashTable::new();
        }
    }

    /// Whether a publisher may still publish to this Topic Name.
    pub(crate) fn may_publish(&mut self, id: PublisherId, source: &dyn RightsSource, topic_name: &str) -> bool {
        if self.judged.is_empty() {
            self.judged.resize_with(JUDGED, || None);
        }
        let judged = &mut self.judged[id.key() % JUDGED];
        let rights = match judged {
            Some((of, rights)) if *of == id => rights,
            _ => {
                let Some(known) = self.known.get(id.key()) else { return true };
                &judged.insert((id, known.publisher.described().judge(source))).1
            }
        };
        rights.as_ref().is_some_and(|rights| rights.may_publish(topic_name))
    }

    /// The rules are others now.
    pub(crate) fn judge_anew(&mut self) {
        self.judged.clear();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.known.len(), self.by_name.len());
        self.known.len()
    }
}

impl<S: Store> Core<S> {
    /// Whether it is kept who published Retained Messages.
    pub(crate) fn notes_publishers(&self) -> bool {
        self.settings.check_retain_source && !self.rights.is_unrestricted()
    }

    /// Notes a client of this worker as the publisher of a message that is to be retained here.
    pub(crate) fn note_publisher(&mut self, key: SessionKey) -> PublisherId {
        self.publishers.note(&Described::of_session(&self.sessions[key as usize]))
    }

    /// The same for a message that is to be retained at another worker.
    pub(crate) fn publisher(&self, key: SessionKey) -> Box<Publisher> {
        Box::new(Publisher::new(&Described::of_session(&self.sessions[key as usize])))
    }

    /// The publisher of a message that was found in the store.
    pub(crate) fn note_recovered_publisher(&mut self, publisher: &RecoveredPublisher) -> PublisherId {
        self.publishers.note(&Described::recovered(&self.settings, publisher))
    }
}

/// A client as the store is told of it. None if its security domain is not there any more.
pub(crate) fn to_store<'a>(settings: &'a Settings, session: &'a Session) -> Option<pantala_store::Publisher<'a>> {
    (session.security != NO_DOMAIN).then(|| Described::of_session(session).to_store(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::Retained;

    struct OnlyAnna;

    impl RightsSource for OnlyAnna {
        fn rights(&self, _security: SecurityId, subject: &Subject<'_>) -> Standing {
            match subject.user_name {
                Some("anna") => Standing::Rights(Rights::everything()),
                Some("gone") => Standing::Unknown,
                _ => Standing::Rights(Rights::nothing()),
            }
        }
    }

    fn described<'a>(client_id: &'a str, user_name: Option<&'a str>) -> Described<'a> {
        let (security, address) = (SecurityId::default(), Some(IpAddr::from([127, 0, 0, 1])));
        Described {
            security,
            client_id,
            user_name,
            address,
            certificate: false,
            named_by_certificate: false,
            groups: &[],
            grants: None,
            forgotten: false,
        }
    }

    #[test]
    fn each_stands_there_once_and_goes_with_its_last_message() {
        let mut publishers = Publishers::default();
        let anna = publishers.note(&described("c", Some("anna")));
        // Other names, though the same characters one after the other.
        let others = [
            publishers.note(&described("ca", Some("nna"))),
            publishers.note(&described("canna", None)),
            publishers.note(&described("canna", Some(""))),
            publishers.note(&Described { address: None, ..described("c", Some("anna")) }),
            publishers.note(&Described { certificate: true, ..described("c", Some("anna")) }),
            publishers.note(&Described { groups: &["g".into()], ..described("c", Some("anna")) }),
        ];
        assert_eq!(publishers.len(), 7);
        assert_eq!(publishers.note(&described("c", Some("anna"))), anna);
        assert_eq!(publishers.len(), 7);
        publishers.forget(Some(anna));
        assert_eq!(publishers.len(), 7);
        publishers.forget(Some(anna));
        publishers.forget(None);
        assert_eq!(publishers.len(), 6);
        others.into_iter().for_each(|other| publishers.forget(Some(other)));
        assert_eq!((publishers.len(), publishers.known.capacity()), (0, 0));
    }

    #[test]
    fn a_key_used_again_is_judged_again() {
        let mut publishers = Publishers::default();
        let anna = publishers.note(&described("c", Some("anna")));
        assert!(publishers.may_publish(anna, &OnlyAnna, "t"));
        publishers.forget(Some(anna));
        let ben = publishers.note(&described("c", Some("ben")));
        assert_eq!(ben, anna);
        assert!(!publishers.may_publish(ben, &OnlyAnna, "t"));
    }

    #[test]
    fn whose_grants_are_forgotten_has_to_be_there_yet() {
        let mut publishers = Publishers::default();
        for (user_name, may) in [("ben", true), ("gone", false)] {
            let id = publishers.note(&Described { forgotten: true, ..described("c", Some(user_name)) });
            assert_eq!(publishers.may_publish(id, &OnlyAnna, "t"), may, "{user_name}");
        }
    }

    #[test]
    fn one_takes_little_room() {
        assert!(size_of::<Known>() <= 64, "{}", size_of::<Known>());
        // What there would be without it.
        assert_eq!(size_of::<Retained>(), 24);
    }
}
