//! The rules of one security domain.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::Network;
use crate::layer::{Block, Layer, Order};
use crate::rights::{Defaults, Ruled};
use crate::{Rights, Subject};

/// Rules, compiled and immutable: shared by all workers, and replaced as a whole when they change. Cheap to clone.
///
/// Making the rights of a client takes as long as there are rules about it, besides those with no user name to find them by.
#[derive(Debug, Clone)]
pub struct Rules(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Everything,
    Nothing,
    Draft(Arc<Draft>),
    Users(Arc<Users>),
}

/// Rules of the configuration.
#[derive(Debug)]
struct Draft {
    blocks: Box<[Block]>,
    rules: Box<[Rule]>,
    /// The rules that are about some users only, by those.
    of_user: HashMap<Box<str>, Vec<usize>>,
    /// All others.
    others: Box<[usize]>,
    default: Defaults,
    share_names: Arc<[Box<str>]>,
}

/// Who gets what.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) condition: Condition,
    /// Places in the list of blocks.
    pub(crate) blocks: Box<[usize]>,
}

#[derive(Debug, Default)]
pub(crate) struct Condition {
    pub(crate) users: Box<[Name]>,
    pub(crate) client_ids: Box<[Name]>,
    pub(crate) groups: Box<[Box<str>]>,
    pub(crate) addresses: Box<[Network]>,
    pub(crate) certificate: Option<bool>,
    pub(crate) anonymous: Option<bool>,
}

/// A name, or how it begins.
#[derive(Debug)]
pub(crate) enum Name {
    Exact(Box<str>),
    Front(Box<str>),
}

/// Rules that are lists in order for each user: Mosquitto's.
#[derive(Debug, Default)]
pub(crate) struct Users {
    pub(crate) blocks: Box<[Block]>,
    /// The blocks of each user, in their order.
    pub(crate) of_user: HashMap<Box<str>, Box<[usize]>>,
    /// Users who may do nothing.
    pub(crate) barred: HashSet<Box<str>>,
    /// The blocks of each group. A client is in those that who verified it says, unless the rules know the user.
    pub(crate) of_group: HashMap<Box<str>, Box<[usize]>>,
    /// Those of a client without a user name.
    pub(crate) anonymous: Box<[usize]>,
    /// Those that come last, for everybody.
    pub(crate) everybody: Box<[usize]>,
    /// Whether a client with `+` or `#` in a name is nobody.
    pub(crate) everybody_is_careful: bool,
    /// What a user has whom the rules do not know.
    pub(crate) unknown: Unknown,
    pub(crate) default: Defaults,
}

/// What becomes of a user name that the rules do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Unknown {
    /// What is for everybody.
    #[default]
    Everybody,
    /// Nothing at all.
    Nobody,
}

impl Rules {
    /// Everybody may do everything: what holds where no rules are configured. A client that comes with
    /// [grants](Subject::grants) may do what these say and no more.
    pub fn everything() -> Self {
        Self(Kind::Everything)
    }

    /// Nobody may do anything but what comes with the client as [grants](Subject::grants).
    pub fn nothing() -> Self {
        Self(Kind::Nothing)
    }

    pub(crate) fn of_draft(
        blocks: Vec<Block>,
        rules: Vec<Rule>,
        default: Defaults,
        mut share_names: Vec<Box<str>>,
    ) -> Self {
        share_names.sort_unstable();
        share_names.dedup();
        let mut of_user: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        let mut others = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let exact = rule.condition.users.iter().map(|name| match name {
                Name::Exact(name) => Some(name),
                Name::Front(_) => None,
            });
            match exact.collect::<Option<Vec<_>>>() {
                Some(names) if !names.is_empty() => {
                    for name in names {
                        of_user.entry(name.clone()).or_default().push(index);
                    }
                }
                _ => others.push(index),
            }
        }
        let (blocks, rules, others) = (blocks.into(), rules.into(), others.into());
        let share_names = share_names.into();
        Self(Kind::Draft(Draft { blocks, rules, of_user, others, default, share_names }.into()))
    }

    pub(crate) fn of_users(users: Users) -> Self {
        Self(Kind::Users(users.into()))
    }

    /// Whether everybody may do everything who comes without [grants](Subject::grants).
    pub fn is_everything(&self) -> bool {
        matches!(self.0, Kind::Everything)
    }

    /// Whether nobody may do anything by these rules, because there are none. Worth a warning.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Kind::Everything => false,
            Kind::Nothing => true,
            Kind::Draft(draft) => draft.rules.is_empty() && draft.default != Defaults::ALL,
            Kind::Users(users) => users.blocks.is_empty(),
        }
    }

    /// What one client may do.
    pub fn rights(&self, subject: &Subject<'_>) -> Rights {
        match &self.0 {
            Kind::Everything if subject.grants.is_none() => Rights::everything(),
            Kind::Nothing if subject.grants.is_none() => Rights::nothing(),
            Kind::Everything | Kind::Nothing => Rights::ruled(Ruled {
                layers: layers_of_grants(subject).collect(),
                default: Defaults { unsubscribe: true, ..Defaults::default() },
                ..Ruled::default()
            }),
            Kind::Draft(draft) => draft.rights(subject),
            Kind::Users(users) => users.rights(subject),
        }
    }
}

fn layers_of_grants(subject: &Subject<'_>) -> impl Iterator<Item = Arc<Layer>> {
    subject.grants.into_iter().flat_map(|grants| grants.0.layers(subject))
}

impl Draft {
    fn rights(&self, subject: &Subject<'_>) -> Rights {
        let of_user = subject.user_name.and_then(|name| self.of_user.get(name));
        let rules = of_user.into_iter().flatten().chain(&self.others).map(|&rule| &self.rules[rule]);
        let applying = rules.filter(|rule| rule.condition.holds(subject));
        let mut blocks: Vec<usize> = applying.flat_map(|rule| rule.blocks.iter().copied()).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let layers = blocks.into_iter().flat_map(|block| self.blocks[block].layers(subject));
        Rights::ruled(Ruled {
            layers: layers.chain(layers_of_grants(subject)).collect(),
            order: Order::Deny.into(),
            default: self.default,
            share_names: self.share_names.clone(),
        })
    }
}

impl Condition {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        let is_one = |names: &[Name], name: Option<&str>| {
            names.is_empty() || name.is_some_and(|name| names.iter().any(|wanted| wanted.fits(name)))
        };
        let is_near = |address: IpAddr| self.addresses.iter().any(|network| network.contains(address));
        is_one(&self.users, subject.user_name)
            && is_one(&self.client_ids, Some(subject.client_id))
            && (self.groups.is_empty() || self.groups.iter().any(|group| subject.groups.contains(group)))
            && (self.addresses.is_empty() || subject.address.is_some_and(is_near))
            && self.certificate.is_none_or(|wanted| wanted == subject.certificate)
            && self.anonymous.is_none_or(|wanted| wanted == subject.user_name.is_none())
    }
}

impl Name {
    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *name,
            Self::Front(front) => name.starts_with(&**front),
        }
    }
}

impl Users {
    fn rights(&self, subject: &Subject<'_>) -> Rights {
        let mut blocks: Vec<usize> = Vec::new();
        match subject.user_name {
            None => blocks.extend(&self.anonymous),
            Some(name) if self.barred.contains(name) => return Rights::nothing(),
            Some(name) => match self.of_user.get(name) {
                Some(of_user) => blocks.extend(of_user),
                None => {
                    let of_groups = subject.groups.iter().filter_map(|group| self.of_group.get(group));
                    blocks.extend(of_groups.flatten());
                    let is_nobody = self.unknown == Unknown::Nobody && blocks.is_empty();
                    if is_nobody && subject.grants.is_none() {
                        return Rights::nothing();
                    }
                }
            },
        }
        let has_wildcard = |name: &str| name.contains(['+', '#']);
        let is_careless = has_wildcard(subject.client_id) || subject.user_name.is_some_and(has_wildcard);
        if !(self.everybody_is_careful && is_careless) {
            blocks.extend(&self.everybody);
        }
        let layers = blocks.into_iter().flat_map(|block| self.blocks[block].layers(subject));
        Rights::ruled(Ruled {
            layers: layers_of_grants(subject).chain(layers).collect(),
            order: Order::First.into(),
            default: self.default,
            ..Ruled::default()
        })
    }
}
