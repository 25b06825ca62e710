//! Rules as they are written in the configuration: plain data, and how it is compiled.

use std::collections::HashMap;

use serde::Deserialize;

use crate::address::Network;
use crate::error::{check_filter, split_share};
use crate::layer::{Action, Block, Entry, Order, Share};
use crate::rights::Defaults;
use crate::rules::{Condition, Name, Rule, Rules};
use crate::{Error, ROLES_MAX, RULES_MAX};

/// What may be done and what may not. Each list holds Topic Filters.
///
/// What a list denies is denied, whoever else allows it. `%c` stands for the Client Identifier and `%u` for the user name; a
/// name with `/`, `+` or `#` in it is never put in. A wildcard at the front stands for no topic that begins with `$`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// Topic Names that may be published to, Wills included.
    pub publish: Vec<String>,
    /// Topic Filters that may be subscribed to: those, and all that ask for a part of what these together ask for.
    /// `$share/GROUP/FILTER` is about one group of Shared Subscriptions, which then nobody else may join; `$share/+/FILTER` is
    /// about every group.
    pub subscribe: Vec<String>,
    /// Topic Names whose messages are delivered. None: those that `subscribe` lets the client subscribe to.
    pub receive: Option<Vec<String>>,
    /// Topic Names that may not be published to.
    pub deny_publish: Vec<String>,
    /// What may not be subscribed to, in whole or in part, and, but for groups, is not delivered either.
    pub deny_subscribe: Vec<String>,
    /// Topic Names whose messages are not delivered, even to who may subscribe.
    pub deny_receive: Vec<String>,
}

impl Permissions {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn filters(&self) -> impl Iterator<Item = &String> {
        [&self.publish, &self.subscribe, &self.deny_publish, &self.deny_subscribe, &self.deny_receive]
            .into_iter()
            .chain(&self.receive)
            .flatten()
    }
}

/// Permissions with a name, for rules to give.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "RoleTable")]
pub struct RoleDraft {
    /// Not empty, and no other role's.
    pub name: String,
    /// What the role is.
    pub permissions: Permissions,
}

/// Who gets which permissions. Every condition that is given has to hold, and of each list one entry; with none the rule
/// is about everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "RuleTable")]
pub struct RuleDraft {
    /// User names. A `*` at the end stands for any rest, so `*` is everybody with a user name.
    pub users: Vec<String>,
    /// Client Identifiers, with `*` as in `users`.
    pub client_ids: Vec<String>,
    /// Groups that a token, an HTTP service or a directory says the client is in.
    pub groups: Vec<String>,
    /// Networks as [`Network`] reads them.
    pub addresses: Vec<String>,
    /// Whether the client has to have proved itself by a certificate, or not to have.
    pub certificate: Option<bool>,
    /// Whether the client has to be without a user name, or with one.
    pub anonymous: Option<bool>,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Permissions besides those of the roles.
    pub permissions: Permissions,
}

/// What holds where no rule says anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultAccess {
    /// Nothing is allowed.
    #[default]
    Deny,
    /// Everything is, but for topics that begin with `$CONTROL`.
    Allow,
}

/// The rules of one domain as they are written.
///
/// It can be deserialized from a document with `default_access` and tables `[[role]]` and `[[rule]]`, which have the fields of
/// [`RoleDraft`] and [`RuleDraft`] and beside them those of [`Permissions`]; other fields are refused:
///
/// ```
/// use pantala_access::RulesDraft;
///
/// let rules: RulesDraft = toml::from_str(r#"
///     default_access = "deny"
///
///     [[role]]
///     name = "sensor"
///     publish = ["dev/%c/#"]
///     subscribe = ["cmd/%c/+"]
///
///     [[rule]]
///     users = ["kitchen", "hall-*"]
///     roles = ["sensor"]
///
///     [[rule]]
///     subscribe = ["public/#"]
/// "#)?;
/// assert!(rules.compile().is_ok());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RulesDraft {
    /// What holds where no rule says anything.
    pub default_access: DefaultAccess,
    /// At most [`ROLES_MAX`].
    #[serde(rename = "role")]
    pub roles: Vec<RoleDraft>,
    /// At most [`RULES_MAX`]. Their order says nothing.
    #[serde(rename = "rule")]
    pub rules: Vec<RuleDraft>,
}

/// A role as it is written, with its permissions beside its name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleTable {
    name: String,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    subscribe: Vec<String>,
    receive: Option<Vec<String>>,
    #[serde(default)]
    deny_publish: Vec<String>,
    #[serde(default)]
    deny_subscribe: Vec<String>,
    #[serde(default)]
    deny_receive: Vec<String>,
}

impl From<RoleTable> for RoleDraft {
    fn from(table: RoleTable) -> Self {
        let RoleTable { name, publish, subscribe, receive, deny_publish, deny_subscribe, deny_receive } = table;
        let permissions = Permissions { publish, subscribe, receive, deny_publish, deny_subscribe, deny_receive };
        Self { name, permissions }
    }
}

/// A rule as it is written, with its permissions beside its conditions.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleTable {
    users: Vec<String>,
    client_ids: Vec<String>,
    groups: Vec<String>,
    addresses: Vec<String>,
    certificate: Option<bool>,
    anonymous: Option<bool>,
    roles: Vec<String>,
    publish: Vec<String>,
    subscribe: Vec<String>,
    receive: Option<Vec<String>>,
    deny_publish: Vec<String>,
    deny_subscribe: Vec<String>,
    deny_receive: Vec<String>,
}

impl From<RuleTable> for RuleDraft {
    fn from(table: RuleTable) -> Self {
        let RuleTable { publish, subscribe, receive, deny_publish, deny_subscribe, deny_receive, .. } = table;
        Self {
            users: table.users,
            client_ids: table.client_ids,
            groups: table.groups,
            addresses: table.addresses,
            certificate: table.certificate,
            anonymous: table.anonymous,
            roles: table.roles,
            permissions: Permissions { publish, subscribe, receive, deny_publish, deny_subscribe, deny_receive },
        }
    }
}

impl RulesDraft {
    /// Compiles the rules.
    ///
    /// # Errors
    /// [`Error::Place`] names the role or rule, and what in it is wrong.
    pub fn compile(&self) -> Result<Rules, Error> {
        let place = |place: String, why| Error::Place { place, why };
        if self.roles.len() > ROLES_MAX {
            return Err(place("roles".into(), "more than 10000"));
        }
        if self.rules.len() > RULES_MAX {
            return Err(place("rules".into(), "more than 100000"));
        }
        let mut blocks = Vec::with_capacity(self.roles.len() + self.rules.len());
        let mut roles = HashMap::new();
        let mut share_names = Vec::new();
        let mut add = |permissions: &Permissions, place: &str| {
            let mut entries = Vec::new();
            entries_of(permissions, place, &mut entries)?;
            share_names.extend(entries.iter().filter_map(|entry| match &entry.share {
                Share::Named(name) => Some(name.clone()),
                _ => None,
            }));
            blocks.push(Block::new(entries, Order::Deny));
            Ok::<usize, Error>(blocks.len() - 1)
        };
        for role in &self.roles {
            let name = format!("role {:?}", role.name);
            if role.name.is_empty() {
                return Err(place(name, "a role needs a name"));
            }
            let block = add(&role.permissions, &name)?;
            if roles.insert(role.name.as_str(), block).is_some() {
                return Err(place(name, "there is another role with this name"));
            }
        }
        let mut rules = Vec::with_capacity(self.rules.len());
        for (index, rule) in self.rules.iter().enumerate() {
            let number = format!("rule {}", index + 1);
            let mut of_rule = Vec::with_capacity(rule.roles.len() + 1);
            for role in &rule.roles {
                let block = roles.get(role.as_str());
                of_rule.push(*block.ok_or_else(|| place(format!("{number}, role {role:?}"), "there is no such role"))?);
            }
            if !rule.permissions.is_empty() {
                of_rule.push(add(&rule.permissions, &number)?);
            }
            if of_rule.is_empty() {
                return Err(place(number, "it gives neither a role nor a permission"));
            }
            rules.push(Rule { condition: condition(rule, &number)?, blocks: of_rule.into() });
        }
        let default = match self.default_access {
            // Leaving is nobody's loss.
            DefaultAccess::Deny => Defaults { unsubscribe: true, ..Defaults::default() },
            DefaultAccess::Allow => Defaults::ALL,
        };
        Ok(Rules::of_draft(blocks, rules, default, share_names))
    }
}

fn condition(rule: &RuleDraft, number: &str) -> Result<Condition, Error> {
    let place = |what: &str, text: &str, why| Error::Place { place: format!("{number}, {what} {text:?}"), why };
    let names = |what, names: &[String]| -> Result<Box<[Name]>, Error> {
        let name = |name: &String| match name.strip_suffix('*') {
            Some(front) => Ok(Name::Front(front.into())),
            None if name.is_empty() => Err(place(what, name, "a name is not empty")),
            None => Ok(Name::Exact(name.as_str().into())),
        };
        names.iter().map(name).collect()
    };
    let network = |text: &String| {
        let why = "a network is an address, or an address, '/' and the bits of its prefix";
        text.parse::<Network>().map_err(|_| place("address", text, why))
    };
    if rule.anonymous == Some(true) && !rule.users.is_empty() {
        return Err(Error::Place { place: number.to_owned(), why: "an anonymous client has no user name" });
    }
    Ok(Condition {
        users: names("user", &rule.users)?,
        client_ids: names("client_id", &rule.client_ids)?,
        groups: rule.groups.iter().map(|group| group.as_str().into()).collect(),
        addresses: rule.addresses.iter().map(network).collect::<Result<_, _>>()?,
        certificate: rule.certificate,
        anonymous: rule.anonymous,
    })
}

/// The permissions as rules. Where messages may be received follows from where one may subscribe.
pub(crate) fn entries_of(permissions: &Permissions, place: &str, entries: &mut Vec<Entry>) -> Result<(), Error> {
    let wrong = |list: &str, text: &str, why| Error::Place { place: format!("{place}, {list} {text:?}"), why };
    let topics = |list: &'static str, filters: &[String], action, allow, entries: &mut Vec<Entry>| {
        for text in filters {
            check_filter(text).map_err(|why| wrong(list, text, why))?;
            entries.push(Entry::new(action, allow, text));
        }
        Ok(())
    };
    topics("publish", &permissions.publish, Action::Publish, true, entries)?;
    topics("deny_publish", &permissions.deny_publish, Action::Publish, false, entries)?;
    topics("deny_receive", &permissions.deny_receive, Action::Receive, false, entries)?;
    if let Some(receive) = &permissions.receive {
        topics("receive", receive, Action::Receive, true, entries)?;
    }
    for (list, filters, allow) in
        [("subscribe", &permissions.subscribe, true), ("deny_subscribe", &permissions.deny_subscribe, false)]
    {
        for text in filters {
            let (share, filter) = split_share(text).map_err(|why| wrong(list, text, why))?;
            check_filter(filter).map_err(|why| wrong(list, text, why))?;
            // Who may not join a group may still get the messages in another way.
            if if allow { permissions.receive.is_none() } else { share == Share::Unnamed } {
                entries.push(Entry::new(Action::Receive, allow, filter));
            }
            entries.push(Entry { share, ..Entry::new(Action::SubscribePattern, allow, filter) });
        }
    }
    Ok(())
}
