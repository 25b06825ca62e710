//! How Mosquitto reads JSON: names of members in any case, a wrong type is not a missing member.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value};

use super::{ACL_TYPES, Assigned, PRIORITY_MAX, Role, TEXT_BYTES_MAX, Texts};

pub(super) type Object = Map<String, Value>;

/// A member that has another type than it should.
pub(super) struct WrongType;

pub(super) fn member<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    let in_any_case = || object.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    object.get(name).or_else(in_any_case)
}

pub(super) fn string<'a>(object: &'a Object, name: &str) -> Result<Option<&'a str>, WrongType> {
    match member(object, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(WrongType),
    }
}

pub(super) fn boolean(object: &Object, name: &str) -> Result<Option<bool>, WrongType> {
    match member(object, name) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(WrongType),
    }
}

/// A whole number; of another one its whole part.
pub(super) fn number(object: &Object, name: &str) -> Result<Option<i64>, WrongType> {
    match member(object, name) {
        None => Ok(None),
        Some(Value::Number(value)) => {
            let whole = value.as_i64().or_else(|| value.as_f64().map(|value| value as i64));
            Ok(Some(whole.ok_or(WrongType)?))
        }
        Some(_) => Err(WrongType),
    }
}

pub(super) fn priority(object: &Object, default: i32) -> i32 {
    let priority = number(object, "priority").ok().flatten();
    let clamped = |priority: i64| priority.clamp(i64::from(-PRIORITY_MAX), i64::from(PRIORITY_MAX)) as i32;
    priority.map_or(default, clamped)
}

/// A name, if it may be kept and given to others: not too long, nothing that a terminal or a list would trip over, of which
/// `unclean` tells.
pub(super) fn check_name<'a>(text: &'a str, unclean: &'static str) -> Result<&'a str, &'static str> {
    if text.len() > TEXT_BYTES_MAX {
        return Err("The name is longer than 4096 bytes");
    }
    let is_no_character = |character: char| {
        let code = u32::from(character);
        (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
    };
    let is_unclean = text.contains(|character: char| character.is_control() || is_no_character(character));
    if is_unclean { Err(unclean) } else { Ok(text) }
}

/// Where in `ACL_TYPES` the type is, in any case.
pub(super) fn acl_type(name: &str) -> Option<usize> {
    ACL_TYPES.iter().position(|(other, _)| other.eq_ignore_ascii_case(name))
}

/// A name with its priority, as an object.
pub(super) struct Named<'a> {
    key: &'static str,
    name: &'a str,
    priority: Option<i32>,
}

impl<'a> Named<'a> {
    /// Without a priority where it is the one that is taken without one.
    pub(super) fn new(key: &'static str, name: &'a str, priority: i32) -> Self {
        Self { key, name, priority: (priority != super::PRIORITY_OF_ASSIGNED).then_some(priority) }
    }

    pub(super) fn alone(key: &'static str, name: &'a str) -> Self {
        Self { key, name, priority: None }
    }

    pub(super) fn list(key: &'static str, assigned: &'a [Assigned]) -> Vec<Self> {
        assigned.iter().map(|assigned| Self::new(key, &assigned.name, assigned.priority)).collect()
    }
}

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.key, self.name)?;
        if let Some(priority) = self.priority {
            map.serialize_entry("priority", &priority)?;
        }
        map.end()
    }
}

#[derive(serde::Serialize)]
pub(super) struct TextsJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    textname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    textdescription: Option<&'a str>,
}

impl<'a> From<&'a Texts> for TextsJson<'a> {
    fn from(texts: &'a Texts) -> Self {
        Self { textname: texts.name.as_deref(), textdescription: texts.description.as_deref() }
    }
}

/// A role, the same in the file and in answers.
#[derive(serde::Serialize)]
pub(super) struct RoleJson<'a> {
    rolename: &'a str,
    #[serde(flatten)]
    texts: TextsJson<'a>,
    allowwildcardsubs: bool,
    acls: Vec<AclJson<'a>>,
}

#[derive(serde::Serialize)]
struct AclJson<'a> {
    acltype: &'static str,
    topic: &'a str,
    priority: i32,
    allow: bool,
}

impl<'a> RoleJson<'a> {
    pub(super) fn new(name: &'a str, role: &'a Role) -> Self {
        let of_type = |(&(acltype, _), acls): (&(&'static str, _), &'a Vec<super::Acl>)| {
            acls.iter().map(move |acl| AclJson { acltype, topic: &acl.topic, priority: acl.priority, allow: acl.allow })
        };
        Self {
            rolename: name,
            texts: (&role.texts).into(),
            allowwildcardsubs: role.allow_wildcard_subscriptions,
            acls: ACL_TYPES.iter().zip(&role.acls).flat_map(of_type).collect(),
        }
    }
}
