//! An MQTT client for 3.1.1 and 5.0 (and 3.1) on tokio.
//!
//! ```no_run
//! use pantala_client::{Client, Message, Options, QoS};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options::new("mqtt://localhost")?).await?;
//! let mut readings = client.subscribe(("sensors/+/temperature", QoS::AtLeastOnce)).await?;
//! client.publish(Message::new("sensors/kitchen/temperature", "21.5").qos(QoS::AtLeastOnce)).await?;
//! let reading = readings.recv().await?;
//! println!("{}: {:?}", reading.topic_name().escape_debug(), reading.payload());
//! # Ok(()) }
//! ```
//!
//! # What a person comes for
//!
//! | | |
//! |---|---|
//! | publish, and know that the broker has it | [`Client::publish`] |
//! | publish and forget | [`Client::try_publish`], and [`Client::settled`] at the end |
//! | take messages, with flow control | [`Client::subscribe`], [`Subscription::recv`]; it is a `Stream`, too |
//! | acknowledge when the work is done | [`Subscribe::acknowledge_by_hand`], [`Received::acknowledge`] |
//! | go on after a lost connection | it does by itself; [`Reconnect`] says how, [`Client::changes`] tells |
//! | keep the Session | [`Options::keep_session`], [`Options::unknown_session`] |
//! | ask and get an answer | [`Client::requester`] |
//! | a Will | [`Options::will`] |
//! | see each packet | [`Options::observer`] |
//! | enhanced authentication | [`Options::authenticator`], [`authentication::ScramSha256`] |
//! | no async | [`blocking`] |
//! | a broker that the DNS names | [`transport::Address::Service`] |
//! | an own transport | [`Options::with_connector`] |
//! | an own runtime, or none | [`machine`] |
//! | tests | `mock`, with the feature of this name |
//!
//! # What it does, and what it does not
//!
//! - **Nothing waits for the program.** The task behind a client reads whatever comes, so that publishing from inside the handling
//!   of a message cannot lock up. What the program does not take is bounded otherwise: at QoS 1 and 2 by Receive Maximum, which the
//!   broker obeys, at QoS 0 by [`Overflow`].
//! - **Acknowledgements in order.** A message is acknowledged when the next one is asked for. If several streams share a client,
//!   one that stands still holds up the acknowledgements of the others, since the standard wants them in the order of the messages
//!   (v5 MQTT-4.6.0-2).
//! - **Which stream a message is for** the broker says by Subscription Identifiers (MQTT 5): each stream that it matches gets it once,
//!   however many copies come. Without them the filters decide, and each copy goes to all streams that match: see
//!   [`Subscription`].
//! - **Reconnects.** What was in flight is sent again, with DUP, and QoS 2 stays exactly once, as long as the broker has the Session.
//!   If it has lost it, unacknowledged messages are published anew, which may double one, and the client subscribes again.
//! - **No time limits of its own.** What is asked for waits for a connection as long as there is none; `tokio::time::timeout` around
//!   it is a limit. When the client ends, for whatever reason, everybody who waits is told.
//! - **Topic Aliases, Keep Alive, Packet Identifiers and quotas** need no thought.
//!
//! It leaves to others: what payloads mean, metrics, and the choice of a runtime other than tokio.
//!
//! The odd decision: one lock for each client, held for nanoseconds, instead of channels between tasks. A publisher encodes straight into
//! the buffer that the task writes, so that messages published in a burst go out in one write.

pub mod authentication;
pub mod blocking;
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
pub use machine::UnknownSession;
pub use message::{Message, Properties, STRING_BYTES_MAX};
pub use outbox::{OutboxDurability, OutboxError, OutboxOptions, OutboxReport};
pub use pantala_proto::{Packet, ProtocolVersion, QoS, ReasonCode, RetainHandling, SubscriptionOptions};

/// The page about this library, for its examples.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/client.md")]
struct Page;
