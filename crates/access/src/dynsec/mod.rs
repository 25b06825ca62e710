//! Dynamic security: users, groups and roles that are changed while the broker runs, as Mosquitto has them.
//!
//! [`DynamicSecurity`] is the whole state. It [reads](DynamicSecurity::parse) and [writes](DynamicSecurity::to_json) the file of
//! Mosquitto's plugin, [answers](DynamicSecurity::apply) the commands that come by `$CONTROL/dynamic-security/v1` (from
//! `mosquitto_ctrl` and the consoles that speak the same), tells what is needed to
//! [check a password](DynamicSecurity::credentials), and [compiles](DynamicSecurity::rules) to [`Rules`].
//!
//! What a client may do is decided by the first ACL that fits: those of its own roles, the role with the highest priority
//! first, then those of the roles of its groups; inside a role by the priority of the ACL; where the priorities are equal, by
//! the names of roles and by age of ACLs. Where none fits, the default access of the domain decides, but never for
//! topics that begin with `$CONTROL`. A client without a user name has the roles of the anonymous group. A user who is disabled, or
//! whom the state does not know, may do nothing.
//!
//! ```
//! use pantala_access::Subject;
//! use pantala_access::dynsec::DynamicSecurity;
//!
//! let state = DynamicSecurity::parse(br#"{"roles": [{"rolename": "reader", "acls": [
//!     {"acltype": "subscribePattern", "topic": "news/#", "allow": true}]}],
//!     "clients": [{"username": "eve", "roles": [{"rolename": "reader"}]}]}"#)?;
//! let rights = state.rules().rights(&Subject { client_id: "c", user_name: Some("eve"), ..Subject::default() });
//! assert!(rights.may_subscribe("news/today", None) && !rights.may_subscribe("#", None));
//! # Ok::<(), pantala_access::Error>(())
//! ```

mod client;
mod command;
mod file;
mod group;
mod initial;
mod json;
mod role;

pub use command::{Host, Kick, Response, Who, refuse};

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::Rules;
use crate::error::check_filter;
use crate::layer::{Action, Block, Entry, Order};
use crate::rights::Defaults;
use crate::rules::{Unknown, Users};

/// The most bytes of a request.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The most commands of a request.
pub const COMMANDS_MAX: usize = 1_000;

/// The most bytes of a response. A list that would make it longer is refused, and can be asked for in parts.
pub const RESPONSE_BYTES_MAX: usize = 4 << 20;

/// The most bytes of the file.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// The most clients.
pub const CLIENTS_MAX: usize = 100_000;

/// The most groups.
pub const GROUPS_MAX: usize = 10_000;

/// The most roles.
pub const ROLES_MAX: usize = 10_000;

/// The most ACLs of all roles together.
pub const ACLS_MAX: usize = 100_000;

/// The most ACLs of a role.
pub const ACLS_OF_ROLE_MAX: usize = 10_000;

/// The most roles or groups that a client has, and roles that a group has.
pub const ASSIGNED_MAX: usize = 1_000;

/// The most bytes of a name or a text.
pub const TEXT_BYTES_MAX: usize = 4_096;

/// Priorities are from minus this to this; what is beyond is taken as the nearest.
pub const PRIORITY_MAX: i32 = 100_000;

/// The priority of what is assigned without one. It is not written out.
const PRIORITY_OF_ASSIGNED: i32 = -1;

/// The state of one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DynamicSecurity {
    default_access: DefaultAccess,
    clients: BTreeMap<String, Client>,
    groups: BTreeMap<String, Group>,
    roles: BTreeMap<String, Role>,
    /// A key of `groups`.
    anonymous_group: Option<String>,
    /// How many changes there were since the file was read.
    change_index: u64,
}

/// What a client may do where no ACL fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct DefaultAccess {
    publish_client_send: bool,
    publish_client_receive: bool,
    subscribe: bool,
    unsubscribe: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Texts {
    name: Option<String>,
    description: Option<String>,
}

#[derive(Clone, Default, PartialEq, Eq)]
struct Client {
    /// The only Client Identifier it may come with.
    client_id: Option<String>,
    texts: Texts,
    disabled: bool,
    /// As a password file has it behind the colon.
    password: Option<String>,
    /// By falling priority, then by name.
    roles: Vec<Assigned>,
    /// The same; each of these groups has the client.
    groups: Vec<Assigned>,
}

/// A hash in a log can be guessed at leisure.
impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("client_id", &self.client_id)
            .field("texts", &self.texts)
            .field("disabled", &self.disabled)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("roles", &self.roles)
            .field("groups", &self.groups)
            .finish()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Group {
    texts: Texts,
    roles: Vec<Assigned>,
    /// With the priority that the group has for the client; each of these clients has the group.
    clients: BTreeMap<String, i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Role {
    texts: Texts,
    /// Whether clients with this role may subscribe with wildcards at all.
    allow_wildcard_subscriptions: bool,
    /// For each type, in the order of `ACL_TYPES`, by falling priority, then by age.
    acls: [Vec<Acl>; ACL_TYPES.len()],
}

impl Default for Role {
    fn default() -> Self {
        Self { texts: Texts::default(), allow_wildcard_subscriptions: true, acls: Default::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Acl {
    topic: String,
    priority: i32,
    allow: bool,
}

/// A role or a group that somebody has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Assigned {
    name: String,
    priority: i32,
}

const ACL_TYPES: [(&str, Action); 6] = [
    ("publishClientSend", Action::Publish),
    ("publishClientReceive", Action::Receive),
    ("subscribeLiteral", Action::SubscribeLiteral),
    ("subscribePattern", Action::SubscribePattern),
    ("unsubscribeLiteral", Action::UnsubscribeLiteral),
    ("unsubscribePattern", Action::UnsubscribePattern),
];

/// What is needed to let a client in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The hash, as a password file has it behind the colon; without one nobody comes in by a password.
    pub password: Option<&'a str>,
    /// The only Client Identifier the client may come with, if there is one.
    pub client_id: Option<&'a str>,
    /// Whether the client is not let in at all.
    pub disabled: bool,
}

impl DynamicSecurity {
    /// The state that `mosquitto_ctrl dynsec init` makes: one user, who may administer, read `$SYS` and all other topics,
    /// and publish nothing else. `password` is a hash as a password file has it.
    pub fn new(user_name: &str, password: String) -> Self {
        let admin = [
            (0, "$CONTROL/dynamic-security/#"),
            (1, "$CONTROL/dynamic-security/#"),
            (1, "$SYS/#"),
            (1, "#"),
            (3, "$CONTROL/dynamic-security/#"),
            (3, "$SYS/#"),
            (3, "#"),
            (5, "#"),
        ];
        let mut role = Role::default();
        for (acl_type, topic) in admin {
            role.acls[acl_type].push(Acl { topic: topic.to_owned(), priority: 0, allow: true });
        }
        let client = Client {
            texts: Texts { name: Some("Dynsec admin user".to_owned()), description: None },
            password: Some(password),
            roles: vec![Assigned { name: "admin".to_owned(), priority: PRIORITY_OF_ASSIGNED }],
            ..Client::default()
        };
        let default_access =
            DefaultAccess { publish_client_receive: true, unsubscribe: true, ..DefaultAccess::default() };
        Self {
            default_access,
            clients: [(user_name.to_owned(), client)].into(),
            roles: [("admin".to_owned(), role)].into(),
            ..Self::default()
        }
    }

    /// What is needed to let a client in, or none if there is no such client.
    pub fn credentials(&self, user_name: &str) -> Option<Credentials<'_>> {
        self.clients.get(user_name).map(Client::credentials)
    }

    /// The same of all clients, with their user names in order.
    pub fn all_credentials(&self) -> impl Iterator<Item = (&str, Credentials<'_>)> {
        self.clients.iter().map(|(name, client)| (name.as_str(), client.credentials()))
    }

    /// How many changes there were since the file was read.
    pub fn change_index(&self) -> u64 {
        self.change_index
    }

    /// Compiles the state. Takes time in proportion to its size.
    pub fn rules(&self) -> Rules {
        let mut blocks = Vec::with_capacity(self.roles.len());
        let mut places = HashMap::new();
        for (name, role) in &self.roles {
            places.insert(name.as_str(), blocks.len());
            blocks.push(role.block());
        }
        let of_roles = |roles: &[Assigned]| -> Vec<usize> {
            roles.iter().filter_map(|role| places.get(role.name.as_str()).copied()).collect()
        };
        let of_group = |name: &str| self.groups.get(name).map(|group| of_roles(&group.roles)).unwrap_or_default();
        let of_client = |client: &Client| {
            let mut all = of_roles(&client.roles);
            all.extend(client.groups.iter().flat_map(|group| of_group(&group.name)));
            all.into()
        };
        let enabled = self.clients.iter().filter(|(_, client)| !client.disabled);
        let disabled = self.clients.iter().filter(|(_, client)| client.disabled);
        Rules::of_users(Users {
            of_user: enabled.map(|(name, client)| (name.as_str().into(), of_client(client))).collect(),
            barred: disabled.map(|(name, _)| name.as_str().into()).collect::<HashSet<_>>(),
            of_group: self.groups.keys().map(|name| (name.as_str().into(), of_group(name).into())).collect(),
            anonymous: self.anonymous_group.as_deref().map(of_group).unwrap_or_default().into(),
            unknown: Unknown::Nobody,
            default: Defaults {
                publish: self.default_access.publish_client_send,
                receive: self.default_access.publish_client_receive,
                subscribe: self.default_access.subscribe,
                unsubscribe: self.default_access.unsubscribe,
                control: false,
            },
            blocks: blocks.into(),
            ..Users::default()
        })
    }

    fn acl_count(&self) -> usize {
        self.roles.values().map(Role::acl_count).sum()
    }

    /// Puts a client into a group, if it is not in there.
    fn join(&mut self, user_name: &str, group_name: &str, priority: i32) {
        let (Some(client), Some(group)) = (self.clients.get_mut(user_name), self.groups.get_mut(group_name)) else {
            return;
        };
        if assign(&mut client.groups, group_name, priority) {
            group.clients.insert(user_name.to_owned(), priority);
        }
    }

    fn leave(&mut self, user_name: &str, group_name: &str) {
        if let Some(client) = self.clients.get_mut(user_name) {
            client.groups.retain(|group| group.name != group_name);
        }
        if let Some(group) = self.groups.get_mut(group_name) {
            group.clients.remove(user_name);
        }
    }
}

impl Client {
    fn credentials(&self) -> Credentials<'_> {
        Credentials {
            password: self.password.as_deref(),
            client_id: self.client_id.as_deref(),
            disabled: self.disabled,
        }
    }
}

impl Role {
    fn acl_count(&self) -> usize {
        self.acls.iter().map(Vec::len).sum()
    }

    /// Adds an ACL behind those of the same priority. Returns whether its topic was not there.
    fn add(&mut self, acl_type: usize, acl: Acl) -> bool {
        let acls = &mut self.acls[acl_type];
        if acls.iter().any(|other| other.topic == acl.topic) {
            return false;
        }
        let place = acls.partition_point(|other| other.priority >= acl.priority);
        acls.insert(place, acl);
        true
    }

    fn block(&self) -> Block {
        let mut entries = Vec::with_capacity(self.acl_count());
        for ((_, action), acls) in ACL_TYPES.iter().zip(&self.acls) {
            // A file may have topics that are no filters; they fit nothing.
            let acls = acls.iter().filter(|acl| check_filter(&acl.topic).is_ok());
            entries.extend(acls.map(|acl| Entry::new(*action, acl.allow, &acl.topic)));
        }
        Block::with_wildcards(entries, Order::First, self.allow_wildcard_subscriptions)
    }
}

/// Adds a name in its order. Returns whether it was not there.
fn assign(assigned: &mut Vec<Assigned>, name: &str, priority: i32) -> bool {
    if assigned.iter().any(|other| other.name == name) {
        return false;
    }
    let is_before =
        |other: &Assigned| other.priority > priority || (other.priority == priority && other.name.as_str() < name);
    let place = assigned.partition_point(is_before);
    assigned.insert(place, Assigned { name: name.to_owned(), priority });
    true
}
