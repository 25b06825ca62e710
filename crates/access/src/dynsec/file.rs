//! The file of Mosquitto's dynamic security plugin.

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::json::{Named, Object, RoleJson, TextsJson, WrongType, acl_type, boolean, member, number, priority, string};
use super::{
    ACLS_MAX, ACLS_OF_ROLE_MAX, ASSIGNED_MAX, Acl, Assigned, CLIENTS_MAX, Client, DefaultAccess, DynamicSecurity,
    FILE_BYTES_MAX, GROUPS_MAX, Group, PRIORITY_OF_ASSIGNED, ROLES_MAX, Role, Texts, assign,
};
use crate::Error;

impl DynamicSecurity {
    /// Reads the file, as Mosquitto 2.0 and 2.1 write it.
    ///
    /// # Errors
    /// [`Error::Place`] where Mosquitto would leave out what it cannot read: a role half read might deny less.
    pub fn parse(file: &[u8]) -> Result<Self, Error> {
        if file.len() > FILE_BYTES_MAX {
            return Err(wrong("the file", "it has more than 64 MiB"));
        }
        let file: Value = serde_json::from_slice(file).map_err(|error| Error::Place {
            place: format!("line {}, column {}", error.line(), error.column()),
            why: "it is no JSON",
        })?;
        let file = file.as_object().ok_or_else(|| wrong("the file", "it is no object"))?;
        let mut state = Self::default();
        if let Some(access) = member(file, "defaultACLAccess") {
            let place = "defaultACLAccess";
            let access = access.as_object().ok_or_else(|| wrong(place, "it is no object"))?;
            let get = |name: &str| at(place, name, boolean(access, name)).map(Option::unwrap_or_default);
            state.default_access = DefaultAccess {
                publish_client_send: get("publishClientSend")?,
                publish_client_receive: get("publishClientReceive")?,
                subscribe: get("subscribe")?,
                unsubscribe: get("unsubscribe")?,
            };
        }
        for (name, place, object) in named(file, "roles", "rolename", ROLES_MAX)? {
            let role = role(object, &place)?;
            if state.roles.insert(name.to_owned(), role).is_some() {
                return Err(wrong(&place, "it is there twice"));
            }
        }
        if state.acl_count() > ACLS_MAX {
            return Err(wrong("roles", "they have more than 100000 ACLs"));
        }
        for (name, place, object) in named(file, "clients", "username", CLIENTS_MAX)? {
            let client = state.client(object, &place)?;
            if state.clients.insert(name.to_owned(), client).is_some() {
                return Err(wrong(&place, "it is there twice"));
            }
        }
        for (name, place, object) in named(file, "groups", "groupname", GROUPS_MAX)? {
            let group =
                Group { texts: texts(object, &place)?, roles: state.roles_of(object, &place)?, ..Group::default() };
            if state.groups.insert(name.to_owned(), group).is_some() {
                return Err(wrong(&place, "it is there twice"));
            }
            for (user_name, place, client) in named(object, "clients", "username", CLIENTS_MAX)? {
                if !state.clients.contains_key(user_name) {
                    return Err(wrong(&place, "there is no such client"));
                }
                state.join(user_name, name, priority(client, PRIORITY_OF_ASSIGNED));
            }
        }
        if let Some(name) = at("the file", "anonymousGroup", string(file, "anonymousGroup"))? {
            if !state.groups.contains_key(name) {
                return Err(wrong("anonymousGroup", "there is no such group"));
            }
            state.anonymous_group = Some(name.to_owned());
        }
        Ok(state)
    }

    /// Writes the file. Mosquitto 2.1 reads it, and 2.0 as long as all passwords are hashed by PBKDF2.
    pub fn to_json(&self) -> Vec<u8> {
        let clients = self.clients.iter().map(|(name, client)| ClientJson::new(name, client));
        let groups = self.groups.iter().map(|(name, group)| {
            let clients = group.clients.iter();
            GroupJson {
                groupname: name,
                texts: (&group.texts).into(),
                roles: Named::list("rolename", &group.roles),
                clients: clients.map(|(name, &priority)| Named::new("username", name, priority)).collect(),
            }
        });
        let file = FileJson {
            default_access: DefaultAccessJson {
                publish_client_send: self.default_access.publish_client_send,
                publish_client_receive: self.default_access.publish_client_receive,
                subscribe: self.default_access.subscribe,
                unsubscribe: self.default_access.unsubscribe,
            },
            clients: clients.collect(),
            groups: groups.collect(),
            roles: self.roles.iter().map(|(name, role)| RoleJson::new(name, role)).collect(),
            anonymous_group: self.anonymous_group.as_deref(),
        };
        let mut written = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut written, PrettyFormatter::with_indent(b"\t"));
        file.serialize(&mut serializer).expect("strings and numbers can be written to memory");
        written.push(b'\n');
        written
    }

    fn client(&self, object: &Object, place: &str) -> Result<Client, Error> {
        let client_id = at(place, "clientid", string(object, "clientid"))?;
        Ok(Client {
            client_id: client_id.filter(|id| !id.is_empty()).map(str::to_owned),
            texts: texts(object, place)?,
            disabled: at(place, "disabled", boolean(object, "disabled"))?.unwrap_or_default(),
            password: password(object, place)?,
            roles: self.roles_of(object, place)?,
            groups: Vec::new(),
        })
    }

    fn roles_of(&self, object: &Object, place: &str) -> Result<Vec<Assigned>, Error> {
        let mut roles = Vec::new();
        for (name, role_place, role) in named(object, "roles", "rolename", ASSIGNED_MAX)? {
            if !self.roles.contains_key(name) {
                return Err(wrong(&format!("{place}, {role_place}"), "there is no such role"));
            }
            assign(&mut roles, name, priority(role, PRIORITY_OF_ASSIGNED));
        }
        Ok(roles)
    }
}

fn wrong(place: &str, why: &'static str) -> Error {
    Error::Place { place: place.to_owned(), why }
}

fn at<T>(place: &str, name: &str, read: Result<T, WrongType>) -> Result<T, Error> {
    read.map_err(|WrongType| wrong(&format!("{place}, {name}"), "it has a wrong type"))
}

/// The objects of a list, each with its name and how to call it.
fn named<'a>(
    object: &'a Object,
    list: &str,
    key: &str,
    max: usize,
) -> Result<Vec<(&'a str, String, &'a Object)>, Error> {
    let Some(items) = member(object, list) else { return Ok(Vec::new()) };
    let items = items.as_array().ok_or_else(|| wrong(list, "it is no array"))?;
    if items.len() > max {
        return Err(wrong(list, "there are too many"));
    }
    let item = |(index, item): (usize, &'a Value)| {
        let place = format!("{list}, number {}", index + 1);
        let object = item.as_object().ok_or_else(|| wrong(&place, "it is no object"))?;
        let name = at(&place, key, string(object, key))?.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| wrong(&place, "it has no name"))?;
        Ok((name, format!("{key} {name:?}"), object))
    };
    items.iter().enumerate().map(item).collect()
}

fn texts(object: &Object, place: &str) -> Result<Texts, Error> {
    let get = |name: &str| at(place, name, string(object, name)).map(|text| text.map(str::to_owned));
    Ok(Texts { name: get("textname")?, description: get("textdescription")? })
}

fn role(object: &Object, place: &str) -> Result<Role, Error> {
    let allow_wildcards = at(place, "allowwildcardsubs", boolean(object, "allowwildcardsubs"))?;
    let mut role = Role {
        texts: texts(object, place)?,
        allow_wildcard_subscriptions: allow_wildcards.unwrap_or(true),
        ..Role::default()
    };
    let acls = match member(object, "acls") {
        None => &Vec::new(),
        Some(acls) => acls.as_array().ok_or_else(|| wrong(&format!("{place}, acls"), "it is no array"))?,
    };
    if acls.len() > ACLS_OF_ROLE_MAX {
        return Err(wrong(&format!("{place}, acls"), "there are more than 10000"));
    }
    for (index, acl) in acls.iter().enumerate() {
        let place = format!("{place}, ACL {}", index + 1);
        let acl = acl.as_object().ok_or_else(|| wrong(&place, "it is no object"))?;
        let name = at(&place, "acltype", string(acl, "acltype"))?;
        let acl_type = name.and_then(acl_type).ok_or_else(|| wrong(&place, "its type is unknown"))?;
        let topic = at(&place, "topic", string(acl, "topic"))?.filter(|topic| !topic.is_empty());
        let topic = topic.ok_or_else(|| wrong(&place, "it has no topic"))?.to_owned();
        let allow = at(&place, "allow", boolean(acl, "allow"))?.unwrap_or_default();
        // Of two with one topic the first counts.
        role.add(acl_type, Acl { topic, priority: priority(acl, 0), allow });
    }
    Ok(role)
}

/// The hash: in one text as 2.1 writes it, or in its three parts as 2.0 does.
fn password(object: &Object, place: &str) -> Result<Option<String>, Error> {
    if let Some(encoded) = at(place, "encoded_password", string(object, "encoded_password"))? {
        return Ok(Some(encoded.to_owned()));
    }
    let hash = at(place, "password", string(object, "password"))?;
    let salt = at(place, "salt", string(object, "salt"))?;
    let iterations = at(place, "iterations", number(object, "iterations"))?.filter(|count| *count > 0);
    let parts = hash.zip(salt).zip(iterations);
    Ok(parts.map(|((hash, salt), iterations)| format!("$7${iterations}${salt}${hash}")))
}

#[derive(Serialize)]
struct FileJson<'a> {
    #[serde(rename = "defaultACLAccess")]
    default_access: DefaultAccessJson,
    clients: Vec<ClientJson<'a>>,
    groups: Vec<GroupJson<'a>>,
    roles: Vec<RoleJson<'a>>,
    #[serde(rename = "anonymousGroup", skip_serializing_if = "Option::is_none")]
    anonymous_group: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DefaultAccessJson {
    publish_client_send: bool,
    publish_client_receive: bool,
    subscribe: bool,
    unsubscribe: bool,
}

#[derive(Serialize)]
struct ClientJson<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    clientid: Option<&'a str>,
    #[serde(flatten)]
    texts: TextsJson<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    roles: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterations: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoded_password: Option<&'a str>,
}

impl<'a> ClientJson<'a> {
    fn new(name: &'a str, client: &'a Client) -> Self {
        // The three parts where there are three, so that Mosquitto 2.0 can read the file.
        let parts = client.password.as_deref().and_then(|password| {
            let (iterations, rest) = password.strip_prefix("$7$")?.split_once('$')?;
            let (salt, hash) = rest.split_once('$')?;
            Some((hash, salt, iterations.parse::<u32>().ok()?))
        });
        Self {
            username: name,
            clientid: client.client_id.as_deref(),
            texts: (&client.texts).into(),
            disabled: client.disabled,
            roles: Named::list("rolename", &client.roles),
            password: parts.map(|(hash, ..)| hash),
            salt: parts.map(|(_, salt, _)| salt),
            iterations: parts.map(|(.., iterations)| iterations),
            encoded_password: client.password.as_deref().filter(|_| parts.is_none()),
        }
    }
}

#[derive(Serialize)]
struct GroupJson<'a> {
    groupname: &'a str,
    #[serde(flatten)]
    texts: TextsJson<'a>,
    roles: Vec<Named<'a>>,
    clients: Vec<Named<'a>>,
}
