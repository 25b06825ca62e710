//! What is used: plans that are complete and free of contradiction, made of [`Written`](super::flags::Written).
//!
//! A plan names files and does not read them, but for passwords: they come from where the flags say, and one that is to be
//! asked for is [`Password::Prompt`].

mod address;
mod connection;
mod properties;
mod publish;
mod request;
mod subscribe;

pub use address::{Proxy, Target, Transport, Url};
pub use connection::{ClientId, Connection, Password, Reconnect, Tls, Will};
pub use properties::{
    ConnectProperties, DisconnectProperties, MessageProperties, Properties, SubscribeProperties, UserProperties,
};
pub use publish::{PayloadSource, PublishPlan};
pub use request::RequestPlan;
pub use subscribe::{Output, SubscribePlan};

use pantala_proto::{TopicFilter, valid_topic_name};

use super::flags::FlagError;

/// A Topic Name that a message can be published to.
fn checked_topic_name(flag: &'static str, name: String) -> Result<String, FlagError> {
    if valid_topic_name(&name) && name.len() <= usize::from(u16::MAX) {
        return Ok(name);
    }
    let expected = "a topic that is published to has no + and no #, and at most 65535 bytes";
    Err(FlagError::Value { flag: flag.to_owned(), given: name, expected })
}

/// A Topic Filter.
fn checked_filter(flag: &'static str, filter: String) -> Result<String, FlagError> {
    if TopicFilter::parse(&filter).is_ok() && filter.len() <= usize::from(u16::MAX) {
        return Ok(filter);
    }
    let expected = "in a topic filter + and # have a level to themselves, and # is the last";
    Err(FlagError::Value { flag: flag.to_owned(), given: filter, expected })
}

#[cfg(test)]
mod tests;
