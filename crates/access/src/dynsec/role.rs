//! Commands about roles.

use serde_json::Value;

use super::command::{
    Call, Changed, Data, Effects, Host, ListOfRoles, NO_ROLE, Outcome, Refusal, TOO_MANY_ACLS, list, modified_texts,
    new_name, new_texts, role_name,
};
use super::json::{Object, RoleJson, acl_type, boolean, member, priority, string};
use super::{ACL_TYPES, ACLS_MAX, ACLS_OF_ROLE_MAX, Acl, Assigned, DynamicSecurity, ROLES_MAX, Role};
use crate::error::check_filter;

impl DynamicSecurity {
    pub(super) fn create_role(&mut self, Call { command, .. }: Call<'_>) -> Changed {
        let name =
            new_name(command, "rolename", "Invalid/missing rolename", "Empty rolename", "Role name not valid UTF-8")?;
        let texts = new_texts(command)?;
        let allow_wildcards = boolean(command, "allowwildcardsubs").map_err(|_| "Invalid allowwildcardsubs")?;
        if self.roles.contains_key(name) {
            return Err("Role already exists");
        }
        if self.roles.len() >= ROLES_MAX {
            return Err("Too many roles");
        }
        let acls = self.acls_of(command, 0)?.unwrap_or_default();
        let allow_wildcard_subscriptions = allow_wildcards.unwrap_or(true);
        self.roles.insert(name.to_owned(), Role { texts, allow_wildcard_subscriptions, acls });
        Ok(format!(" | rolename={name:?}"))
    }

    pub(super) fn delete_role(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let name = role_name(command)?;
        if !self.roles.contains_key(name) {
            return Err(NO_ROLE);
        }
        self.role_changed(name, effects);
        self.roles.remove(name);
        let of_clients = self.clients.values_mut().map(|client| &mut client.roles);
        let of_groups = self.groups.values_mut().map(|group| &mut group.roles);
        for roles in of_clients.chain(of_groups) {
            roles.retain(|role| role.name != name);
        }
        Ok(format!(" | rolename={name:?}"))
    }

    pub(super) fn get_role<'a>(&'a self, command: &Object, _host: &dyn Host) -> Outcome<'a> {
        let (name, role) = self.roles.get_key_value(role_name(command)?).ok_or(NO_ROLE)?;
        Ok(Some(Data::Role { role: RoleJson::new(name, role) }))
    }

    pub(super) fn list_roles<'a>(&'a self, command: &Object, _host: &dyn Host) -> Outcome<'a> {
        let roles = list(command, self.roles.iter(), RoleJson::new);
        Ok(Some(Data::Roles(ListOfRoles { total_count: self.roles.len(), roles })))
    }

    pub(super) fn modify_role(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let name = role_name(command)?;
        let role = self.roles.get(name).ok_or("Role does not exist")?;
        let texts = modified_texts(command)?;
        let allow_wildcards = boolean(command, "allowwildcardsubs").ok().flatten();
        let acls = self.acls_of(command, role.acl_count())?;
        if let Some(role) = self.roles.get_mut(name) {
            role.texts.modify(texts);
            let allow_wildcards = allow_wildcards.unwrap_or(role.allow_wildcard_subscriptions);
            let is_other = acls.is_some() || allow_wildcards != role.allow_wildcard_subscriptions;
            role.allow_wildcard_subscriptions = allow_wildcards;
            if let Some(acls) = acls {
                role.acls = acls;
            }
            if is_other {
                self.role_changed(name, effects);
            }
        }
        Ok(format!(" | rolename={name:?}"))
    }

    pub(super) fn add_role_acl(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let (name, acl_type, topic) = self.acl(command)?;
        let acl_count = self.acl_count();
        let role = self.roles.get_mut(name).ok_or(NO_ROLE)?;
        if acl_count >= ACLS_MAX || role.acl_count() >= ACLS_OF_ROLE_MAX {
            return Err(TOO_MANY_ACLS);
        }
        let priority = priority(command, 0);
        let allow = boolean(command, "allow").ok().flatten().unwrap_or_default();
        if !role.add(acl_type, Acl { topic: topic.to_owned(), priority, allow }) {
            return Err("ACL with this topic already exists");
        }
        self.role_changed(name, effects);
        let acl_type = ACL_TYPES[acl_type].0;
        Ok(format!(" | rolename={name:?} | acltype={acl_type} | topic={topic:?} | priority={priority} | allow={allow}"))
    }

    pub(super) fn remove_role_acl(&mut self, Call { command, effects, .. }: Call<'_>) -> Changed {
        let (name, acl_type, topic) = self.acl(command)?;
        let acls = &mut self.roles.get_mut(name).ok_or(NO_ROLE)?.acls[acl_type];
        let place = acls.iter().position(|acl| acl.topic == topic).ok_or("ACL not found")?;
        acls.remove(place);
        self.role_changed(name, effects);
        Ok(format!(" | rolename={name:?} | acltype={} | topic={topic:?}", ACL_TYPES[acl_type].0))
    }

    /// The rights of all who have the role are others.
    pub(super) fn role_changed(&self, name: &str, effects: &mut Effects) {
        let has = |roles: &[Assigned]| roles.iter().any(|role| role.name == name);
        for (user_name, _) in self.clients.iter().filter(|(_, client)| has(&client.roles)) {
            effects.rights(user_name);
        }
        for (group_name, _) in self.groups.iter().filter(|(_, group)| has(&group.roles)) {
            self.group_changed(group_name, effects);
        }
    }

    /// The role, the type and the topic of a command about an ACL.
    pub(super) fn acl<'a>(&self, command: &'a Object) -> Result<(&'a str, usize, &'a str), Refusal> {
        let name = role_name(command)?;
        if !self.roles.contains_key(name) {
            return Err(NO_ROLE);
        }
        let acl_type_name = string(command, "acltype").ok().flatten().ok_or("Invalid/missing acltype")?;
        let acl_type = acl_type(acl_type_name).ok_or("Unknown acltype")?;
        let topic = string(command, "topic").ok().flatten().ok_or("Invalid/missing topic")?;
        if topic.contains(char::is_control) {
            return Err("Topic not valid UTF-8");
        }
        check_filter(topic).map_err(|_| "Invalid ACL topic")?;
        Ok((name, acl_type, topic))
    }

    /// The ACLs of a command about a role that has `replaced` of them, if it has a list.
    pub(super) fn acls_of(
        &self,
        command: &Object,
        replaced: usize,
    ) -> Result<Option<[Vec<Acl>; ACL_TYPES.len()]>, Refusal> {
        let Some(list) = member(command, "acls").and_then(Value::as_array) else { return Ok(None) };
        if list.len() > ACLS_OF_ROLE_MAX || self.acl_count() - replaced + list.len() > ACLS_MAX {
            return Err(TOO_MANY_ACLS);
        }
        let mut role = Role::default();
        for acl in list {
            let acl = acl.as_object().ok_or("Invalid ACL")?;
            let name = string(acl, "acltype").ok().flatten().ok_or("Invalid/missing acltype")?;
            let acl_type = acl_type(name).ok_or("Unknown acltype")?;
            let topic = string(acl, "topic").ok().flatten().ok_or("Invalid/missing topic")?;
            if topic.contains(char::is_control) || check_filter(topic).is_err() {
                return Err("Invalid ACL topic");
            }
            let allow = boolean(acl, "allow").ok().flatten().unwrap_or_default();
            role.add(acl_type, Acl { topic: topic.to_owned(), priority: priority(acl, 0), allow });
        }
        Ok(Some(role.acls))
    }
}
