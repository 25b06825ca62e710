//! Commands about groups.

use serde::Serialize;
use serde_json::Value;

use super::command::{
    Call, Changed, Data, Effects, Host, ListOfGroups, NO_CLIENT, NO_GROUP, NO_ROLE, Outcome, Refusal,
    TOO_MANY_ASSIGNED, Who, group_name, list, modified_texts, new_name, new_texts, role_name, user_name,
};
use super::json::{Named, Object, TextsJson, member, priority, string};
use super::{ASSIGNED_MAX, Assigned, DynamicSecurity, GROUPS_MAX, Group, PRIORITY_OF_ASSIGNED, assign};

impl DynamicSecurity {
    pub(super) fn create_group(&mut self, Call { command, .. }: Call<'_>) -> Changed {
        let name = new_name(
            command,
            "groupname",
            "Invalid/missing groupname",
            "Empty groupname",
            "Group name not valid UTF-8",
        )?;
        let texts = new_texts(command)?;
        if self.groups.contains_key(name) {
            return Err("Group already exists");
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err("Too many groups");
        }
        let roles = self.given_roles(command)?.unwrap_or_default();
        self.groups.insert(name.to_owned(), Group { texts, roles, ..Group::default() });
        Ok(format!(" | groupname={name:?}"))
    }

    pub(super) fn delete_group(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let name = group_name(command)?;
        if self.groups.contains_key(name) && self.anonymous_group.as_deref() == Some(name) {
            return Err("Deleting the anonymous group is forbidden");
        }
        let group = self.groups.remove(name).ok_or(NO_GROUP)?;
        for user_name in group.clients.keys() {
            self.leave(user_name, name);
            effects.rights(user_name);
        }
        Ok(format!(" | groupname={name:?}"))
    }

    pub(super) fn get_group<'a>(&'a self, command: &Object, _host: &dyn Host) -> Outcome<'a> {
        let (name, group) = self.groups.get_key_value(group_name(command)?).ok_or(NO_GROUP)?;
        Ok(Some(Data::Group { group: group_json(name, group) }))
    }

    pub(super) fn list_groups<'a>(&'a self, command: &Object, _host: &dyn Host) -> Outcome<'a> {
        let groups = list(command, self.groups.iter(), group_json);
        Ok(Some(Data::Groups(ListOfGroups { total_count: self.groups.len(), groups })))
    }

    pub(super) fn modify_group(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let name = group_name(command)?;
        if !self.groups.contains_key(name) {
            return Err(NO_GROUP);
        }
        let texts = modified_texts(command)?;
        let roles = self.given_roles(command)?;
        let clients = match member(command, "clients").and_then(Value::as_array) {
            None => None,
            Some(clients) => Some(self.clients_of(clients)?),
        };
        self.group_changed(name, effects);
        if let Some(clients) = clients {
            let old: Vec<String> =
                self.groups.get(name).into_iter().flat_map(|group| group.clients.keys().cloned()).collect();
            for user_name in old {
                self.leave(&user_name, name);
            }
            for client in clients {
                self.join(&client.name, name, client.priority);
            }
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.texts.modify(texts);
            if let Some(roles) = roles {
                group.roles = roles;
            }
        }
        self.group_changed(name, effects);
        Ok(format!(" | groupname={name:?}"))
    }

    pub(super) fn add_group_client(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let (name, group) = (user_name(command)?, group_name(command)?);
        let priority = priority(command, PRIORITY_OF_ASSIGNED);
        let client = self.clients.get(name).ok_or(NO_CLIENT)?;
        if self.groups.get(group).ok_or(NO_GROUP)?.clients.contains_key(name) {
            return Err("Client is already in this group");
        }
        if client.groups.len() >= ASSIGNED_MAX {
            return Err(TOO_MANY_ASSIGNED);
        }
        self.join(name, group, priority);
        effects.rights(name);
        Ok(format!(" | groupname={group:?} | username={name:?} | priority={priority}"))
    }

    pub(super) fn remove_group_client(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let (name, group) = (user_name(command)?, group_name(command)?);
        if !self.clients.contains_key(name) {
            return Err(NO_CLIENT);
        }
        if !self.groups.contains_key(group) {
            return Err(NO_GROUP);
        }
        self.leave(name, group);
        effects.rights(name);
        Ok(format!(" | groupname={group:?} | username={name:?}"))
    }

    pub(super) fn add_group_role(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let (name, role) = (group_name(command)?, role_name(command)?);
        let priority = priority(command, PRIORITY_OF_ASSIGNED);
        let group = self.groups.get_mut(name).ok_or(NO_GROUP)?;
        if !self.roles.contains_key(role) {
            return Err(NO_ROLE);
        }
        if group.roles.len() >= ASSIGNED_MAX {
            return Err(TOO_MANY_ASSIGNED);
        }
        if !assign(&mut group.roles, role, priority) {
            return Err("Group is already in this role");
        }
        self.group_changed(name, effects);
        Ok(format!(" | groupname={name:?} | rolename={role:?} | priority={priority}"))
    }

    pub(super) fn remove_group_role(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let (name, role) = (group_name(command)?, role_name(command)?);
        let group = self.groups.get_mut(name).ok_or(NO_GROUP)?;
        if !self.roles.contains_key(role) {
            return Err(NO_ROLE);
        }
        group.roles.retain(|other| other.name != role);
        self.group_changed(name, effects);
        Ok(format!(" | groupname={name:?} | rolename={role:?}"))
    }

    pub(super) fn set_anonymous_group(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let name = group_name(command)?;
        if !self.groups.contains_key(name) {
            return Err(NO_GROUP);
        }
        self.anonymous_group = Some(name.to_owned());
        effects.kick(Who::Anonymous, false);
        Ok(format!(" | groupname={name:?}"))
    }

    pub(super) fn get_anonymous_group(&self, _command: &Object, _host: &dyn Host) -> Outcome<'_> {
        let name = self.anonymous_group.as_deref().unwrap_or_default();
        Ok(Some(Data::AnonymousGroup { group: Named::alone("groupname", name) }))
    }

    /// The rights of all who are in the group are others.
    pub(super) fn group_changed(&self, name: &str, effects: &mut Effects) {
        for user_name in self.groups.get(name).into_iter().flat_map(|group| group.clients.keys()) {
            effects.rights(user_name);
        }
        if self.anonymous_group.as_deref() == Some(name) {
            effects.kick(Who::Anonymous, false);
        }
    }

    pub(super) fn clients_of(&self, list: &[Value]) -> Result<Vec<Assigned>, Refusal> {
        let mut clients = Vec::with_capacity(list.len());
        for client in list.iter().filter_map(Value::as_object) {
            let name = string(client, "username").ok().flatten();
            let name = name.ok_or("'clients' contains an object with an invalid 'username'")?;
            if !self.clients.contains_key(name) {
                return Err("'clients' contains an object with a 'username' that does not exist");
            }
            clients.push(Assigned { name: name.to_owned(), priority: priority(client, PRIORITY_OF_ASSIGNED) });
        }
        Ok(clients)
    }
}

#[derive(Serialize)]
pub(super) struct GroupJson<'a> {
    groupname: &'a str,
    #[serde(flatten)]
    texts: TextsJson<'a>,
    clients: Vec<Named<'a>>,
    roles: Vec<Named<'a>>,
}

fn group_json<'a>(name: &'a str, group: &'a Group) -> GroupJson<'a> {
    GroupJson {
        groupname: name,
        texts: (&group.texts).into(),
        clients: group.clients.keys().map(|name| Named::alone("username", name)).collect(),
        roles: Named::list("rolename", &group.roles),
    }
}
