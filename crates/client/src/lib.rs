//! An MQTT client for 3.1.1 and 5.0 on tokio.

#[cfg(feature = "mock")]
pub mod mock;
pub mod authentication;
pub mod transport;
pub mod url;
