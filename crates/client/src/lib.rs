//! An MQTT client for 3.1.1 and 5.0 on tokio.

pub mod authentication;
mod client;
pub mod error;
pub mod machine;
mod message;
#[cfg(feature = "mock")]
pub mod mock;
pub mod outbox;
pub mod transport;
pub mod url;

pub use client::{
    BoxedStream, Changes, Client, Connector, Ended, Io, Options, OptionsError, Overflow, Received, Reconnect,
    RequestError, Requester, Status, Subscribe, Subscription,
};
pub use message::{Message, Properties, STRING_BYTES_MAX};
pub use outbox::{OutboxDurability, OutboxError, OutboxOptions, OutboxReport};
pub use pantala_proto::{ProtocolVersion, QoS, ReasonCode, RetainHandling};
