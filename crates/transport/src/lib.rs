//! Stages between the bytes of a socket and those of MQTT.
//!
//! [`websocket`] is the server's side of RFC 6455, [`proxy`] reads the header by which a load balancer tells whose
//! connection it passes on, [`first_bytes`] tells what a client speaks where several protocols share a port, and
//! [`address`] has networks, for lists of who may connect and who is believed.
//!
//! The crate opens no socket and reads no clock. Bytes go in as they were read, cut anywhere; what comes out does not
//! depend on the cuts. Whoever drives a stage bounds how long it may take.
//!
//! ```
//! use pantala_transport::first_bytes::{self, FirstBytes};
//! use pantala_transport::websocket::{Handshake, Options};
//!
//! let request = b"GET /mqtt HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
//!     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
//! assert_eq!(first_bytes::recognise(request), Some(FirstBytes::Http));
//!
//! let (upgrade, used) = Handshake::default().receive(&Options::default(), None, request)?.expect("it is whole");
//! assert_eq!(used, request.len());
//! assert!(upgrade.response.starts_with(b"HTTP/1.1 101 "));
//! # Ok::<(), pantala_transport::websocket::Refusal>(())
//! ```

pub mod address;
pub mod first_bytes;
pub mod proxy;
pub mod websocket;
