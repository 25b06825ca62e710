//! What a listener asks of its clients, and where they are in the broker's topics.

use std::sync::Arc;

use pantala_broker::{AcceptedVersions, ListenerSettings};
use pantala_proto::{ProtocolVersion, valid_topic_name};

use super::key::{client_id_prefix, mqtt_text, not_empty};

/// Names of the versions, in the words of the file.
pub(super) const VERSIONS: [&str; 3] = ["3.1", "3.1.1", "5.0"];

/// What is written about the clients of one listener.
pub(super) struct ClientsDraft {
    pub mount_point: Option<Arc<str>>,
    pub versions: AcceptedVersions,
    pub use_user_name_as_client_id: bool,
    /// None: those of all listeners.
    pub client_id_prefixes: Option<Vec<String>>,
    /// None: as all listeners have it.
    pub allow_zero_length_client_id: Option<bool>,
    /// None: that of all listeners.
    pub auto_id_prefix: Option<String>,
    pub deny_special_characters: bool,
    /// None: as the file's kind has it.
    pub sessions_belong_to_users: Option<bool>,
    /// None: as the file's kind has it.
    pub believe_user_names: Option<bool>,
}

impl Default for ClientsDraft {
    fn default() -> Self {
        let ListenerSettings { mount_point, versions, .. } = ListenerSettings::default();
        Self {
            mount_point,
            versions,
            use_user_name_as_client_id: false,
            client_id_prefixes: None,
            allow_zero_length_client_id: None,
            auto_id_prefix: None,
            deny_special_characters: false,
            sessions_belong_to_users: None,
            believe_user_names: None,
        }
    }
}

impl ClientsDraft {
    pub fn finish(self, settings: ListenerSettings) -> ListenerSettings {
        let Self { mount_point, versions, use_user_name_as_client_id, client_id_prefixes, .. } = self;
        ListenerSettings {
            mount_point,
            versions,
            use_user_name_as_client_id,
            client_id_prefixes: client_id_prefixes.unwrap_or_default(),
            allow_zero_length_client_id: self.allow_zero_length_client_id,
            auto_id_prefix: self.auto_id_prefix,
            deny_special_characters: self.deny_special_characters,
            sessions_belong_to_users: self.sessions_belong_to_users.unwrap_or(true),
            believe_user_names: self.believe_user_names.unwrap_or(false),
            ..settings
        }
    }
}

/// A prefix of Topic Names.
pub(super) fn mount_point(text: String) -> Result<Arc<str>, &'static str> {
    const BYTES_MAX: usize = 1_024;
    let text = mqtt_text(not_empty(text)?)?;
    if text.starts_with('$') {
        return Err("topics that begin with $ are the broker's own");
    }
    if text.len() > BYTES_MAX {
        return Err("it can have 1024 bytes at most");
    }
    if valid_topic_name(&text) { Ok(text.into()) } else { Err("it stands before Topic Names, and so has no wildcards") }
}

/// What Client Identifiers begin with.
pub(super) fn client_id_prefixes(texts: Vec<String>) -> Result<Vec<String>, &'static str> {
    texts.into_iter().map(|text| client_id_prefix(not_empty(text)?)).collect()
}

/// From the words of the file.
pub(super) fn versions(names: &[&str]) -> AcceptedVersions {
    let [v31, v311, v5] = VERSIONS.map(|name| names.contains(&name));
    AcceptedVersions { v31, v311, v5 }
}

/// As one would write it.
pub(super) fn shown_versions(versions: AcceptedVersions) -> String {
    let all = [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5];
    let accepted = all.into_iter().zip(VERSIONS).filter(|(version, _)| versions.contains(*version));
    accepted.map(|(_, name)| name).collect::<Vec<_>>().join(",")
}
