//! What was behind a Reason Code, for people.

use std::fmt;

use pantala_proto::FilterError;

/// What was behind a Reason Code that a client is given. MQTT 5 clients read it as Reason String, operators in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A limit or a feature that is not offered.
    Setting {
        /// Its key, without the section.
        key: &'static str,
        /// What it is set to; 0 and 1 for features.
        value: u64,
    },
    /// A limit of the listener alone.
    ListenerSetting {
        /// Its key in `[[listener]]`.
        key: &'static str,
        /// What it is set to.
        value: u64,
    },
    /// The listener lets in only clients that say who they are.
    Anonymous,
    /// The credentials are not good, or nobody could say: in words, for the log alone.
    Credentials(&'static str),
    /// The credentials have expired.
    CredentialsExpired,
    /// The user is banned.
    Banned,
    /// There is no such user any more.
    UserRemoved,
    /// The user has another password now than the client came with.
    PasswordChanged,
    /// The listener has believed the user name, and does so no more.
    NotVerified,
    /// The Session with this Client Identifier belongs to another user.
    OtherUser,
    /// The Client Identifier begins with none of `client_id_prefixes`.
    ClientIdPrefix,
    /// User name or Client Identifier has a character that means something in a Topic Filter.
    SpecialCharacters,
    /// The Client Identifier is to be the user name, and there is none.
    UserNameMissing,
    /// An administrator has disconnected the client.
    Administrator,
    /// A v3 client without Client Identifier wants a Session that is kept, or speaks MQTT 3.1.
    ClientIdMissing,
    /// No method of this name, or another one than CONNECT had.
    AuthenticationMethod,
    /// The authentication took too many packets, or an AUTH packet came where none is waited for.
    AuthenticationOrder,
    /// The user of a re-authentication is another one.
    UserChanged,
    /// The client may not publish to this Topic Name.
    TopicName,
    /// Nor subscribe with this Topic Filter.
    TopicFilter,
    /// Somebody who is to get the message has a full queue.
    QueueFull,
    /// What would have to be kept cannot be: the disk is full, or has failed.
    Store,
    /// A Topic Alias without Topic Name that was not set before.
    TopicAliasUnknown,
    /// A client's PUBLISH has a Subscription Identifier (v5 MQTT-3.3.4-6).
    SubscriptionIdentifier,
    /// The answer is not one to the QoS of its message.
    Acknowledgement,
    /// What is wrong with a Topic Filter.
    Filter(FilterError),
    /// No Local with a Shared Subscription (v5 MQTT-3.8.3-4).
    NoLocal,
    /// DISCONNECT asks for a Session to be kept that was to end (v5 section 3.14.2.2.2).
    SessionExpiry,
    /// DISCONNECT says what only a server may say.
    ServerOnly,
    /// A packet that only a server sends, or a second CONNECT, or one before its time.
    PacketType,
    /// A newer connection has the same Client Identifier.
    ClientIdTaken,
    /// The process has more memory than `memory_bytes_max`.
    Memory,
}

impl Cause {
    /// Whether the client is told. Who is refused for its credentials learns no more than that.
    pub(crate) fn is_told(self) -> bool {
        !matches!(self, Self::Credentials(_) | Self::OtherUser)
    }

    /// A limit, or a feature that is not offered, by the name of its key.
    pub(crate) fn setting(key: &'static str, value: impl Into<u64>) -> Self {
        Self::Setting { key, value: value.into() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Setting { key, value: value @ 0..=1 } if key.ends_with("_available") || *key == "sparkplug_aware" => {
                return write!(f, "{key} is {}", *value == 1);
            }
            Self::Setting { key, value } => return write!(f, "{key} is {value}"),
            Self::ListenerSetting { key, value } => return write!(f, "{key} of the listener is {value}"),
            Self::Anonymous => "the listener is not for anonymous clients",
            Self::Credentials(what) => what,
            Self::CredentialsExpired => "the credentials have expired",
            Self::Banned => "the user is banned",
            Self::UserRemoved => "the user has been removed",
            Self::PasswordChanged => "the user's password has been changed",
            Self::NotVerified => "nobody has verified the user name, and the listener does not believe it any more",
            Self::OtherUser => "the Session with this Client Identifier belongs to another user",
            Self::ClientIdPrefix => "the Client Identifier begins with none of client_id_prefixes",
            Self::SpecialCharacters => "+, # or / in the user name or the Client Identifier",
            Self::UserNameMissing => "the Client Identifier is to be the user name, and there is none",
            Self::Administrator => "disconnected by an administrator",
            Self::ClientIdMissing => "no Client Identifier, and none is assigned",
            Self::AuthenticationMethod => "no such Authentication Method here",
            Self::AuthenticationOrder => "an AUTH packet that nobody waits for",
            Self::UserChanged => "re-authentication as another user",
            Self::TopicName => "not authorized for this Topic Name",
            Self::TopicFilter => "not authorized for this Topic Filter",
            Self::QueueFull => "the queue of a receiver is full",
            Self::Store => "the disk is full or has failed, and this would have to be kept",
            Self::TopicAliasUnknown => "this Topic Alias has not been set",
            Self::SubscriptionIdentifier => "Subscription Identifier in a PUBLISH from a client",
            Self::Acknowledgement => "an acknowledgement that does not fit the QoS of the message",
            Self::Filter(FilterError::Empty) => "the Topic Filter is empty",
            Self::Filter(FilterError::Wildcard) => "a wildcard must have its level for itself, and # must be the last",
            Self::Filter(FilterError::Share) => "a Shared Subscription is written $share/NAME/FILTER",
            Self::NoLocal => "No Local on a Shared Subscription",
            Self::SessionExpiry => "the Session was to end with the connection",
            Self::ServerOnly => "DISCONNECT with what only a server may say",
            Self::PacketType => "the packet has no place here",
            Self::ClientIdTaken => "a newer connection has the same Client Identifier",
            Self::Memory => "the broker is short of memory",
        };
        f.write_str(text)
    }
}
