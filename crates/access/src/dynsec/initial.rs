//! The first file.

use serde_json::{Value, json};

use super::DynamicSecurity;
use crate::Error;

/// What the administrator may do, in the order of the file.
const ACLS: [(&str, &str); 8] = [
    ("publishClientSend", "$CONTROL/dynamic-security/#"),
    ("publishClientReceive", "$CONTROL/dynamic-security/#"),
    ("subscribePattern", "$CONTROL/dynamic-security/#"),
    ("publishClientReceive", "$SYS/#"),
    ("subscribePattern", "$SYS/#"),
    ("publishClientReceive", "#"),
    ("subscribePattern", "#"),
    ("unsubscribePattern", "#"),
];

impl DynamicSecurity {
    /// The file that everything begins with, as `mosquitto_ctrl dynsec init` writes it: one client, who may change the state, and
    /// see everything. All others may receive what they have subscribed to, and unsubscribe, and nothing else.
    ///
    /// `password` is what a password file has behind the colon. One by PBKDF2 can be read by Mosquitto 2.0 too.
    ///
    /// # Errors
    /// [`Error::Place`] when the name is empty or longer than a name may be.
    pub fn initial(administrator: &str, password: &str) -> Result<Vec<u8>, Error> {
        let wrong = |why| Error::Place { place: format!("username {administrator:?}"), why };
        if administrator.is_empty() || administrator.contains(|c: char| c.is_control()) {
            return Err(wrong("expected a name without control characters"));
        }
        if administrator.len() > super::TEXT_BYTES_MAX {
            return Err(wrong("it has more than 4096 bytes"));
        }
        let mut client = json!({
            "username": administrator,
            "textName": "Dynsec admin user",
            "roles": [{ "rolename": "admin" }],
        });
        match password.strip_prefix("$7$").map(|rest| rest.splitn(3, '$').collect::<Vec<_>>()).as_deref() {
            Some(&[iterations, salt, hash]) => {
                client["password"] = hash.into();
                client["salt"] = salt.into();
                client["iterations"] = iterations.parse::<u64>().map_or(Value::Null, Value::from);
            }
            _ => client["encoded_password"] = password.into(),
        }
        let acls = ACLS.map(|(acl_type, topic)| json!({ "acltype": acl_type, "topic": topic, "allow": true }));
        let file = json!({
            "clients": [client],
            "roles": [{ "rolename": "admin", "acls": acls }],
            "defaultACLAccess": {
                "publishClientSend": false,
                "publishClientReceive": true,
                "subscribe": false,
                "unsubscribe": true,
            },
        });
        let mut text = serde_json::to_vec_pretty(&file).expect("strings and numbers can be written to memory");
        text.push(b'\n');
        Self::parse(&text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_mosquittos_but_for_the_password() {
        let theirs = include_bytes!("../../tests/mosquitto/dynsec-init.json");
        let password = "$7$101$lKAKENV77SVtI0AU$B4576aEO85a993DF/zWYLyeiaBQbrp5yXuL1/yrOA6KfTjZqz+JSXCyfyg8GGP60NKe22nrfeo9v7z0NrAo2eQ==";
        let ours = DynamicSecurity::initial("admin", password).unwrap();
        let [ours_read, theirs_read] = [&ours[..], theirs].map(|text| serde_json::from_slice::<Value>(text).unwrap());
        assert_eq!(ours_read, theirs_read);
        let [ours, theirs] = [&ours[..], theirs].map(|text| DynamicSecurity::parse(text).unwrap());
        assert_eq!(ours, theirs);
    }

    #[test]
    fn other_hashes_and_names() {
        let text = DynamicSecurity::initial("ä \"root\"", "$argon2id$v=19$m=47104,t=1,p=1$c2FsdA$aGFzaA").unwrap();
        let state = DynamicSecurity::parse(&text).unwrap();
        let known = state.credentials("ä \"root\"").unwrap();
        assert_eq!(known.password, Some("$argon2id$v=19$m=47104,t=1,p=1$c2FsdA$aGFzaA"));
        for name in ["", "a\nb", &"x".repeat(4_097)] {
            assert!(DynamicSecurity::initial(name, "$7$1$c2FsdA==$aGFzaA==").is_err(), "{name:?}");
        }
    }
}
