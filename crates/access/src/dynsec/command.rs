//! The commands of `$CONTROL/dynamic-security/v1`, and what is answered.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::client::ClientJson;
use super::group::GroupJson;
use super::json::{Named, Object, RoleJson, boolean, check_name, member, number, priority, string};
use super::{
    ASSIGNED_MAX, Assigned, COMMANDS_MAX, DynamicSecurity, PRIORITY_OF_ASSIGNED, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX,
    Texts, assign,
};

/// What commands need of the world.
pub trait Host {
    /// Hashes a password, and returns what a password file has behind the colon. None if that failed.
    fn hash(&mut self, password: &str) -> Option<String>;

    /// The addresses of the connected clients with this user name.
    fn addresses(&self, user_name: &str) -> Vec<IpAddr>;
}

/// What is answered to a request, and what has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// To be published to the client that asked, with the topic `$CONTROL/dynamic-security/v1/response`.
    pub json: String,
    /// Whether the state is another one: the file is to be written, the rules are to be compiled.
    pub changed: bool,
    /// Whose connections are concerned, each once, by their names.
    pub kicks: Vec<Kick>,
    /// A line for each change, without passwords: `createClient | username="eve"`.
    pub log: Vec<String>,
}

/// A client whose rights or credentials changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kick {
    /// Whose.
    pub who: Who,
    /// Whether it has to be disconnected, since it could not connect again as it did. Else it has other rights, and making
    /// these anew is enough. (Mosquitto disconnects in either case.)
    pub must_leave: bool,
}

/// Whom a change concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// All with this user name.
    User(String),
    /// All without a user name.
    Anonymous,
}

/// The text of an error, where Mosquitto has one the same.
pub(super) type Refusal = &'static str;
pub(super) type Outcome<'a> = Result<Option<Data<'a>>, Refusal>;

pub(super) const NO_USER_NAME: Refusal = "Invalid/missing username";
pub(super) const NO_CLIENT: Refusal = "Client not found";
pub(super) const NO_GROUP: Refusal = "Group not found";
pub(super) const NO_ROLE: Refusal = "Role not found";
pub(super) const INTERNAL: Refusal = "Internal error";
pub(super) const TOO_LONG: Refusal = "The response is too long; ask with count and offset";
pub(super) const TOO_MANY_ACLS: Refusal = "Too many ACLs";
pub(super) const TOO_MANY_ASSIGNED: Refusal = "Too many roles or groups";

#[derive(Serialize)]
struct Reply<'a> {
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Refusal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(rename = "correlationData", skip_serializing_if = "Option::is_none")]
    correlation_data: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Data<'a> {
    Client { client: ClientJson<'a> },
    Group { group: GroupJson<'a> },
    Role { role: RoleJson<'a> },
    AnonymousGroup { group: Named<'a> },
    DefaultAccess { acls: [DefaultJson; 4] },
    Clients(ListOfClients<'a>),
    Groups(ListOfGroups<'a>),
    Roles(ListOfRoles<'a>),
    Details(Details),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListOfClients<'a> {
    pub(super) total_count: usize,
    pub(super) clients: Vec<Item<'a, ClientJson<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListOfGroups<'a> {
    pub(super) total_count: usize,
    pub(super) groups: Vec<Item<'a, GroupJson<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListOfRoles<'a> {
    pub(super) total_count: usize,
    pub(super) roles: Vec<Item<'a, RoleJson<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    client_count: usize,
    group_count: usize,
    role_count: usize,
    change_index: u64,
}

/// A thing of a list: its name, or all of it.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Item<'a, T> {
    Name(&'a str),
    Whole(T),
}

#[derive(Serialize)]
pub(super) struct DefaultJson {
    acltype: &'static str,
    allow: bool,
}

/// What the commands of a request did.
#[derive(Default)]
pub(super) struct Effects {
    changed: bool,
    /// Who, and whether they must leave.
    kicks: BTreeMap<Who, bool>,
    log: Vec<String>,
}

impl Effects {
    /// The rights of a user are others.
    pub(super) fn rights(&mut self, user_name: &str) {
        self.kick(Who::User(user_name.to_owned()), false);
    }

    /// A user may not stay.
    pub(super) fn leave(&mut self, user_name: &str) {
        self.kick(Who::User(user_name.to_owned()), true);
    }

    pub(super) fn kick(&mut self, who: Who, must_leave: bool) {
        *self.kicks.entry(who).or_default() |= must_leave;
    }
}

impl DynamicSecurity {
    /// Carries out a request, `{"commands": [{"command": …}, …]}`, one command after the other. A command changes all it is
    /// to change or nothing, and those behind one that failed are carried out.
    ///
    /// Whoever calls has checked that the client may publish to `$CONTROL/dynamic-security/v1`. Hashing is what takes time: a
    /// request can ask for it [`COMMANDS_MAX`] times.
    pub fn apply(&mut self, request: &[u8], host: &mut dyn Host) -> Response {
        let mut effects = Effects::default();
        let mut replies = Replies::default();
        let parsed = parse(request);
        match parsed.as_ref().map_err(|refusal| *refusal).and_then(commands) {
            Err(refusal) => replies.add("Unknown command", Err(refusal), None),
            Ok(commands) => {
                for command in commands {
                    if !self.command(command, host, &mut effects, &mut replies) {
                        break;
                    }
                }
            }
        }
        let Effects { changed, kicks, log } = effects;
        let kicks = kicks.into_iter().map(|(who, must_leave)| Kick { who, must_leave }).collect();
        Response { json: replies.finish(), changed, kicks, log }
    }

    /// Returns whether those behind it are to be carried out.
    fn command(&mut self, command: &Value, host: &mut dyn Host, effects: &mut Effects, replies: &mut Replies) -> bool {
        let Some(command) = command.as_object() else {
            replies.add("Unknown command", Err("Command not an object"), None);
            return true;
        };
        let Ok(Some(name)) = string(command, "command") else {
            replies.add("Unknown command", Err("Missing command"), None);
            return true;
        };
        let Ok(correlation_data) = string(command, "correlationData") else {
            replies.add(name, Err("Invalid correlationData data type."), None);
            return false;
        };
        let known = COMMANDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some((name, known)) = known else {
            replies.add(name, Err("Unknown command"), correlation_data);
            return true;
        };
        match known {
            Command::Ask(ask) => {
                let outcome = if replies.are_full() { Err(TOO_LONG) } else { ask(self, command, &*host) };
                replies.add(name, outcome, correlation_data);
            }
            Command::Change(change) => {
                let outcome = change(self, Call { command, host, effects: &mut *effects });
                let outcome = outcome.map(|named| {
                    self.change_index += 1;
                    effects.changed = true;
                    effects.log.push(format!("{name}{named}"));
                    None
                });
                replies.add(name, outcome, correlation_data);
            }
        }
        true
    }
}

fn parse(request: &[u8]) -> Result<Value, Refusal> {
    if request.len() > REQUEST_BYTES_MAX {
        return Err("The request is too long");
    }
    serde_json::from_slice(request).map_err(|_| "Payload not valid JSON")
}

fn commands(request: &Value) -> Result<&Vec<Value>, Refusal> {
    let commands = request.as_object().and_then(|request| member(request, "commands"));
    match commands.and_then(Value::as_array) {
        None => Err("Invalid/missing commands"),
        Some(commands) if commands.len() > COMMANDS_MAX => Err("Too many commands"),
        Some(commands) => Ok(commands),
    }
}

/// The answer to a request of which nothing is done after all: each of its commands has failed, by its name.
pub fn refuse(request: &[u8], refusal: &'static str) -> String {
    let mut replies = Replies::default();
    let parsed = parse(request);
    let all = parsed.as_ref().map_err(|refusal| *refusal).and_then(commands);
    for command in all.into_iter().flatten() {
        let text = |name| string(command.as_object()?, name).ok().flatten();
        let name = text("command").unwrap_or("Unknown command");
        let known = COMMANDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        replies.add(known.map_or(name, |(known, _)| known), Err(refusal), text("correlationData"));
    }
    replies.finish()
}

/// The answers so far, as text.
#[derive(Default)]
struct Replies(String);

impl Replies {
    fn are_full(&self) -> bool {
        self.0.len() > RESPONSE_BYTES_MAX
    }

    fn add(&mut self, command: &str, outcome: Outcome<'_>, correlation_data: Option<&str>) {
        let before = self.0.len();
        let mut write = |reply: Reply<'_>| {
            let text = serde_json::to_string(&reply).expect("strings and numbers can be written to memory");
            self.0.push_str(if self.0.is_empty() { "" } else { "," });
            self.0.push_str(&text);
            self.0.len()
        };
        let (data, error) = match outcome {
            Ok(data) => (data, None),
            Err(refusal) => (None, Some(refusal)),
        };
        let is_list = data.is_some();
        let length = write(Reply { command, error, data, correlation_data });
        if is_list && length > RESPONSE_BYTES_MAX {
            self.0.truncate(before);
            self.add(command, Err(TOO_LONG), correlation_data);
        }
    }

    fn finish(self) -> String {
        format!("{{\"responses\":[{}]}}", self.0)
    }
}

type Ask = for<'a> fn(&'a DynamicSecurity, &Object, &dyn Host) -> Outcome<'a>;
type Change = fn(&mut DynamicSecurity, Call<'_>) -> Changed;

/// What was changed, for the log.
pub(super) type Changed = Result<String, Refusal>;

/// A command that changes something, and what it needs.
pub(super) struct Call<'a> {
    pub(super) command: &'a Object,
    pub(super) host: &'a mut dyn Host,
    pub(super) effects: &'a mut Effects,
}

enum Command {
    Ask(Ask),
    Change(Change),
}

const COMMANDS: [(&str, Command); 32] = [
    ("setDefaultACLAccess", Command::Change(DynamicSecurity::set_default_access)),
    ("getDefaultACLAccess", Command::Ask(DynamicSecurity::default_access)),
    ("getDetails", Command::Ask(DynamicSecurity::details)),
    ("createClient", Command::Change(DynamicSecurity::create_client)),
    ("deleteClient", Command::Change(DynamicSecurity::delete_client)),
    ("getClient", Command::Ask(DynamicSecurity::get_client)),
    ("listClients", Command::Ask(DynamicSecurity::list_clients)),
    ("modifyClient", Command::Change(DynamicSecurity::modify_client)),
    ("setClientPassword", Command::Change(DynamicSecurity::set_client_password)),
    ("setClientId", Command::Change(DynamicSecurity::set_client_id)),
    ("addClientRole", Command::Change(DynamicSecurity::add_client_role)),
    ("removeClientRole", Command::Change(DynamicSecurity::remove_client_role)),
    ("enableClient", Command::Change(DynamicSecurity::enable_client)),
    ("disableClient", Command::Change(DynamicSecurity::disable_client)),
    ("createGroup", Command::Change(DynamicSecurity::create_group)),
    ("deleteGroup", Command::Change(DynamicSecurity::delete_group)),
    ("getGroup", Command::Ask(DynamicSecurity::get_group)),
    ("listGroups", Command::Ask(DynamicSecurity::list_groups)),
    ("modifyGroup", Command::Change(DynamicSecurity::modify_group)),
    ("addGroupClient", Command::Change(DynamicSecurity::add_group_client)),
    ("removeGroupClient", Command::Change(DynamicSecurity::remove_group_client)),
    ("addGroupRole", Command::Change(DynamicSecurity::add_group_role)),
    ("removeGroupRole", Command::Change(DynamicSecurity::remove_group_role)),
    ("setAnonymousGroup", Command::Change(DynamicSecurity::set_anonymous_group)),
    ("getAnonymousGroup", Command::Ask(DynamicSecurity::get_anonymous_group)),
    ("createRole", Command::Change(DynamicSecurity::create_role)),
    ("deleteRole", Command::Change(DynamicSecurity::delete_role)),
    ("getRole", Command::Ask(DynamicSecurity::get_role)),
    ("listRoles", Command::Ask(DynamicSecurity::list_roles)),
    ("modifyRole", Command::Change(DynamicSecurity::modify_role)),
    ("addRoleACL", Command::Change(DynamicSecurity::add_role_acl)),
    ("removeRoleACL", Command::Change(DynamicSecurity::remove_role_acl)),
];

/// The default access.
impl DynamicSecurity {
    fn set_default_access(&mut self, Call { command, .. }: Call<'_>) -> Changed {
        let acls = member(command, "acls").and_then(Value::as_array).ok_or("Missing/invalid actions array")?;
        let mut named = String::new();
        for acl in acls.iter().filter_map(Value::as_object) {
            let (Ok(Some(name)), Ok(Some(allow))) = (string(acl, "acltype"), boolean(acl, "allow")) else { continue };
            let access = &mut self.default_access;
            let access = [
                ("publishClientSend", &mut access.publish_client_send),
                ("publishClientReceive", &mut access.publish_client_receive),
                ("subscribe", &mut access.subscribe),
                ("unsubscribe", &mut access.unsubscribe),
            ];
            if let Some((name, access)) = access.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                *access = allow;
                named.push_str(&format!(" | acltype={name} | allow={allow}"));
            }
        }
        Ok(named)
    }

    fn default_access(&self, _command: &Object, _host: &dyn Host) -> Outcome<'_> {
        let access = &self.default_access;
        let acls = [
            DefaultJson { acltype: "publishClientSend", allow: access.publish_client_send },
            DefaultJson { acltype: "publishClientReceive", allow: access.publish_client_receive },
            DefaultJson { acltype: "subscribe", allow: access.subscribe },
            DefaultJson { acltype: "unsubscribe", allow: access.unsubscribe },
        ];
        Ok(Some(Data::DefaultAccess { acls }))
    }

    fn details(&self, _command: &Object, _host: &dyn Host) -> Outcome<'_> {
        Ok(Some(Data::Details(Details {
            client_count: self.clients.len(),
            group_count: self.groups.len(),
            role_count: self.roles.len(),
            change_index: self.change_index,
        })))
    }
}

/// Lists in commands.
impl DynamicSecurity {
    /// The roles that a command gives to somebody, if it has a list of them.
    pub(super) fn given_roles(&self, command: &Object) -> Result<Option<Vec<Assigned>>, Refusal> {
        const WRONG: Refusal = "'roles' not an array or missing/invalid rolename";
        let Some(list) = member(command, "roles") else { return Ok(None) };
        let list = list.as_array().ok_or(WRONG)?;
        if list.len() > ASSIGNED_MAX {
            return Err(TOO_MANY_ASSIGNED);
        }
        let mut roles = Vec::with_capacity(list.len());
        for role in list {
            let role = role.as_object().ok_or(WRONG)?;
            let name = string(role, "rolename").ok().flatten().ok_or(WRONG)?;
            if !self.roles.contains_key(name) {
                return Err(NO_ROLE);
            }
            assign(&mut roles, name, priority(role, PRIORITY_OF_ASSIGNED));
        }
        Ok(Some(roles))
    }
}

impl Texts {
    pub(super) fn modify(&mut self, modified: Texts) {
        let Texts { name, description } = modified;
        self.name = name.or(self.name.take());
        self.description = description.or(self.description.take());
    }
}

/// A part of a list, from `offset` on, `count` long, with everything if `verbose`.
pub(super) fn list<'a, T: 'a, U>(
    command: &Object,
    all: impl Iterator<Item = (&'a String, &'a T)>,
    whole: impl Fn(&'a str, &'a T) -> U,
) -> Vec<Item<'a, U>> {
    let is_verbose = boolean(command, "verbose").ok().flatten().unwrap_or_default();
    let get = |name| number(command, name).ok().flatten().and_then(|value| usize::try_from(value).ok());
    let part = all.skip(get("offset").unwrap_or(0)).take(get("count").unwrap_or(usize::MAX));
    part.map(|(name, thing)| if is_verbose { Item::Whole(whole(name, thing)) } else { Item::Name(name) }).collect()
}

pub(super) fn user_name(command: &Object) -> Result<&str, Refusal> {
    name(command, "username", NO_USER_NAME, "Username not valid UTF-8")
}

pub(super) fn group_name(command: &Object) -> Result<&str, Refusal> {
    name(command, "groupname", "Invalid/missing groupname", "Group name not valid UTF-8")
}

pub(super) fn role_name(command: &Object) -> Result<&str, Refusal> {
    name(command, "rolename", "Invalid/missing rolename", "Role name not valid UTF-8")
}

pub(super) fn name<'a>(command: &'a Object, key: &str, missing: Refusal, unclean: Refusal) -> Result<&'a str, Refusal> {
    let name = string(command, key).ok().flatten().ok_or(missing)?;
    check_name(name, unclean)
}

pub(super) fn new_name<'a>(
    command: &'a Object,
    key: &str,
    missing: Refusal,
    empty: Refusal,
    unclean: Refusal,
) -> Result<&'a str, Refusal> {
    let name = name(command, key, missing, unclean)?;
    if name.is_empty() { Err(empty) } else { Ok(name) }
}

/// The texts of something new, where a wrong type is an error.
pub(super) fn new_texts(command: &Object) -> Result<Texts, Refusal> {
    let name = string(command, "textname").map_err(|_| "Invalid/missing textname")?;
    let description = string(command, "textdescription").map_err(|_| "Invalid/missing textdescription")?;
    texts(name, description)
}

/// The texts of something there is, where a wrong type changes nothing.
pub(super) fn modified_texts(command: &Object) -> Result<Texts, Refusal> {
    texts(string(command, "textname").ok().flatten(), string(command, "textdescription").ok().flatten())
}

fn texts(name: Option<&str>, description: Option<&str>) -> Result<Texts, Refusal> {
    let too_long = |text: &&str| text.len() > super::TEXT_BYTES_MAX;
    if name.as_ref().is_some_and(too_long) || description.as_ref().is_some_and(too_long) {
        return Err("The text is longer than 4096 bytes");
    }
    Ok(Texts { name: name.map(str::to_owned), description: description.map(str::to_owned) })
}
