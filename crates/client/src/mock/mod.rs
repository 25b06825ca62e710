//! Brokers that are not one, for tests of programs that use this crate.
//!
//! - [`MockBroker::listen`]: a *scripted* broker. The test reads what the client sends and writes each answer, right or
//!   wrong, as packets or as bytes. For what a real broker never does, or never at the moment it is needed.
//! - [`MockBroker::serve`]: a broker that works *by itself*, with switches for its behaviour: refusals, limits,
//!   acknowledgements that wait for the test. It keeps what it received, and looks at it as the standard does:
//!   [`ServingBroker::violations`] tells where a client did what it must not.
//! - [`CuttingLink`]: a *link that cuts*, between a client and any broker on this machine, from a seed.
//!
//! All of them listen on a free port of the loopback interface, run on the test's own tokio runtime, and end when they
//! are dropped. What is waited for is waited for 20 seconds of real time, also if tokio's clock is paused; then the
//! test panics, and is told what came instead.
//!
//! ```
//! use pantala_client::mock::MockBroker;
//! use pantala_proto::{PacketType, ReasonCode};
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! # /// Stands for the program under test: a client that connects and publishes "21" to "t".
//! # async fn run_program(url: &str) {
//! #     let mut stream = tokio::net::TcpStream::connect(url.trim_start_matches("mqtt://")).await.unwrap();
//! #     stream.write_all(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01p").await.unwrap();
//! #     let mut conn_ack = [0; 5];
//! #     stream.read_exact(&mut conn_ack).await.unwrap();
//! #     stream.write_all(b"\x30\x06\x00\x01t\x0021\xe0\x00").await.unwrap();
//! #     assert_eq!(stream.read(&mut conn_ack).await.unwrap_or(0), 0);
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! // What the program does is all the test looks at …
//! let broker = MockBroker::serve().await;
//! # run_program(broker.url()).await;
//! # if false {
//! run_program(broker.url()).await;
//! # }
//! let message = broker.expect_published("t").await;
//! assert_eq!(message.payload, "21");
//! broker.assert_no_violations();
//!
//! // … or the test is the broker.
//! let broker = MockBroker::listen().await;
//! let program = tokio::spawn({ let url = broker.url().to_owned(); async move { run_program(&url).await } });
//! let mut peer = broker.accept().await;
//! assert!(peer.expect_connect().await.connect().clean_start);
//! peer.conn_ack(false, ReasonCode::Success).await;
//! assert_eq!(peer.expect_publish().await.publish().payload, b"21");
//! assert_eq!(peer.next_packet().await.map(|packet| packet.packet_type()), Some(PacketType::Disconnect));
//! peer.close().await;
//! # program.await.unwrap();
//! # }
//! ```
//!
//! What they leave out: TLS and WebSocket; enhanced authentication and a look at User Name and Password (the scripted
//! broker can play both); of the serving broker also Message Expiry, Will Delay, the time a Session outlives its
//! connection (it is kept until the broker is dropped, if it outlives it at all) and Topic Aliases to the client.
//!
//! The odd decision: the serving broker uses nothing of what the client is made of but the packets themselves. It has
//! its own memory of exchanges, since a bug it shared with the client would be one that it cannot see.

mod link;
mod patience;
mod peer;
mod received;
mod serve;

pub use link::{CutAt, CutEnding, Cuts, CuttingLink, Direction};
pub use peer::{End, MockBroker, Peer};
pub use received::Received;
pub use serve::{Behaviour, Cut, Limits, Message, ServingBroker, Violation};
