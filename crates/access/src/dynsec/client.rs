//! Commands about clients.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::command::{
    Call, Changed, Data, Host, INTERNAL, ListOfClients, NO_CLIENT, NO_GROUP, NO_ROLE, NO_USER_NAME, Outcome, Refusal,
    TOO_MANY_ASSIGNED, Who, list, modified_texts, new_name, new_texts, role_name, user_name,
};
use super::json::{Named, Object, TextsJson, check_name, member, priority, string};
use super::{ASSIGNED_MAX, Assigned, CLIENTS_MAX, Client, DynamicSecurity, PRIORITY_OF_ASSIGNED, assign};

impl DynamicSecurity {
    pub(super) fn create_client(&mut self, Call { command, host, .. }: Call<'_>) -> Changed {
        let name = new_name(command, "username", NO_USER_NAME, "Empty username", "Username not valid UTF-8")?;
        let password = string(command, "password").map_err(|_| "Invalid/missing password")?;
        let client_id = string(command, "clientid").map_err(|_| "Invalid/missing client id")?;
        client_id.map(|id| check_name(id, "Client ID not valid UTF-8")).transpose()?;
        let texts = new_texts(command)?;
        if self.clients.contains_key(name) {
            return Err("Client already exists");
        }
        if self.clients.len() >= CLIENTS_MAX {
            return Err("Too many clients");
        }
        let roles = self.given_roles(command)?.unwrap_or_default();
        let groups = self.groups_of(command, NO_GROUP, |_| Ok(()))?.unwrap_or_default();
        // Nobody comes in by an empty password.
        let password = match password.filter(|password| !password.is_empty()) {
            Some(password) => Some(host.hash(password).ok_or(INTERNAL)?),
            None => None,
        };
        let client_id = client_id.filter(|id| !id.is_empty()).map(str::to_owned);
        let named = format!(" | username={name:?} | password={}", if password.is_some() { "*****" } else { "none" });
        let client = Client { client_id, texts, password, roles, ..Client::default() };
        self.clients.insert(name.to_owned(), client);
        for group in groups {
            self.join(name, &group.name, group.priority);
        }
        Ok(named)
    }

    pub(super) fn delete_client(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let name = string(command, "username").ok().flatten().ok_or(NO_USER_NAME)?;
        let client = self.clients.remove(name).ok_or(NO_CLIENT)?;
        for group in client.groups {
            if let Some(group) = self.groups.get_mut(&group.name) {
                group.clients.remove(name);
            }
        }
        effects.leave(name);
        Ok(format!(" | username={name:?}"))
    }

    pub(super) fn get_client<'a>(&'a self, command: &Object, host: &dyn Host) -> Outcome<'a> {
        let name = user_name(command)?;
        let (name, client) = self.clients.get_key_value(name).ok_or(NO_CLIENT)?;
        Ok(Some(Data::Client { client: client_json(name, client, host) }))
    }

    pub(super) fn list_clients<'a>(&'a self, command: &Object, host: &dyn Host) -> Outcome<'a> {
        let whole = |name: &'a str, client: &'a Client| client_json(name, client, host);
        let clients = list(command, self.clients.iter(), whole);
        Ok(Some(Data::Clients(ListOfClients { total_count: self.clients.len(), clients })))
    }

    pub(super) fn modify_client(&mut self, Call { command, host, effects }: Call<'_>) -> Changed {
        let name = user_name(command)?;
        if !self.clients.contains_key(name) {
            return Err(NO_CLIENT);
        }
        // What has a wrong type is not modified, as in Mosquitto.
        let client_id = string(command, "clientid").ok().flatten();
        client_id.map(|id| check_name(id, "Client ID not valid UTF-8")).transpose()?;
        let texts = modified_texts(command)?;
        let roles = self.given_roles(command)?;
        let groups =
            self.groups_of(command, "'groups' contains an object with a 'groupname' that does not exist", |_| {
                Err("'groups' contains an object with an invalid 'groupname'")
            })?;
        let password = match string(command, "password").ok().flatten().filter(|password| !password.is_empty()) {
            Some(password) => Some(host.hash(password).ok_or(INTERNAL)?),
            None => None,
        };
        let mut must_leave = password.is_some();
        let left = match (self.clients.get_mut(name), &groups) {
            (Some(client), Some(_)) => std::mem::take(&mut client.groups),
            _ => Vec::new(),
        };
        for group in left {
            self.leave(name, &group.name);
        }
        for group in groups.unwrap_or_default() {
            self.join(name, &group.name, group.priority);
        }
        if let Some(client) = self.clients.get_mut(name) {
            client.texts.modify(texts);
            if let Some(id) = client_id {
                let id = (!id.is_empty()).then(|| id.to_owned());
                must_leave |= id.is_some() && client.client_id != id;
                client.client_id = id;
            }
            if let Some(roles) = roles {
                client.roles = roles;
            }
            if password.is_some() {
                client.password = password;
            }
        }
        effects.kick(Who::User(name.to_owned()), must_leave);
        Ok(format!(" | username={name:?}"))
    }

    pub(super) fn set_client_password(&mut self, Call { command, host, effects }: Call<'_>) -> Changed {
        let name = user_name(command)?;
        let password = string(command, "password").ok().flatten().ok_or("Invalid/missing password")?;
        if password.is_empty() {
            return Err("Empty password is not allowed");
        }
        let client = self.clients.get_mut(name).ok_or(NO_CLIENT)?;
        client.password = Some(host.hash(password).ok_or(INTERNAL)?);
        effects.leave(name);
        Ok(format!(" | username={name:?} | password=*****"))
    }

    pub(super) fn set_client_id(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let name = user_name(command)?;
        let id = string(command, "clientid").map_err(|_| "Invalid/missing client ID")?;
        id.map(|id| check_name(id, "Client ID not valid UTF-8")).transpose()?;
        let client = self.clients.get_mut(name).ok_or(NO_CLIENT)?;
        client.client_id = id.filter(|id| !id.is_empty()).map(str::to_owned);
        let named = format!(" | username={name:?} | clientid={:?}", client.client_id.as_deref().unwrap_or_default());
        effects.leave(name);
        Ok(named)
    }

    pub(super) fn add_client_role(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let (name, role) = (user_name(command)?, role_name(command)?);
        let priority = priority(command, PRIORITY_OF_ASSIGNED);
        let client = self.clients.get_mut(name).ok_or(NO_CLIENT)?;
        if !self.roles.contains_key(role) {
            return Err(NO_ROLE);
        }
        if client.roles.len() >= ASSIGNED_MAX {
            return Err(TOO_MANY_ASSIGNED);
        }
        if !assign(&mut client.roles, role, priority) {
            return Err("Client already has this role");
        }
        effects.rights(name);
        Ok(format!(" | username={name:?} | rolename={role:?} | priority={priority}"))
    }

    pub(super) fn remove_client_role(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let (name, role) = (user_name(command)?, role_name(command)?);
        let client = self.clients.get_mut(name).ok_or(NO_CLIENT)?;
        if !self.roles.contains_key(role) {
            return Err(NO_ROLE);
        }
        client.roles.retain(|other| other.name != role);
        effects.rights(name);
        Ok(format!(" | username={name:?} | rolename={role:?}"))
    }

    pub(super) fn enable_client(&mut self, Call { command, .. }: Call<'_>) -> Changed {
        let name = user_name(command)?;
        self.clients.get_mut(name).ok_or(NO_CLIENT)?.disabled = false;
        Ok(format!(" | username={name:?}"))
    }

    pub(super) fn disable_client(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let name = user_name(command)?;
        self.clients.get_mut(name).ok_or(NO_CLIENT)?.disabled = true;
        effects.leave(name);
        Ok(format!(" | username={name:?}"))
    }

    /// The groups that a command puts a client in, if it has a list of them. What is no object is passed over, as in
    /// Mosquitto; `nameless` decides about an object without a name.
    pub(super) fn groups_of(
        &self,
        command: &Object,
        unknown: Refusal,
        nameless: impl Fn(&Object) -> Result<(), Refusal>,
    ) -> Result<Option<Vec<Assigned>>, Refusal> {
        let Some(list) = member(command, "groups").and_then(Value::as_array) else { return Ok(None) };
        if list.len() > ASSIGNED_MAX {
            return Err(TOO_MANY_ASSIGNED);
        }
        let mut groups = Vec::with_capacity(list.len());
        for group in list.iter().filter_map(Value::as_object) {
            match string(group, "groupname").ok().flatten() {
                None => nameless(group)?,
                Some(name) if !self.groups.contains_key(name) => return Err(unknown),
                Some(name) => {
                    assign(&mut groups, name, priority(group, PRIORITY_OF_ASSIGNED));
                }
            }
        }
        Ok(Some(groups))
    }
}

#[derive(Serialize)]
pub(super) struct ClientJson<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    clientid: Option<&'a str>,
    #[serde(flatten)]
    texts: TextsJson<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disabled: bool,
    roles: Vec<Named<'a>>,
    groups: Vec<Named<'a>>,
    connections: Vec<ConnectionJson>,
}

#[derive(Serialize)]
struct ConnectionJson {
    address: IpAddr,
}

pub(super) fn client_json<'a>(name: &'a str, client: &'a Client, host: &dyn Host) -> ClientJson<'a> {
    ClientJson {
        username: name,
        clientid: client.client_id.as_deref(),
        texts: (&client.texts).into(),
        disabled: client.disabled,
        roles: Named::list("rolename", &client.roles),
        groups: Named::list("groupname", &client.groups),
        connections: host.addresses(name).into_iter().map(|address| ConnectionJson { address }).collect(),
    }
}
