//! The server's side of TLS 1.2 and 1.3 by rustls, on buffers.
//!
//! [`settings`] makes a configuration from PEM text, [`session`] is one connection, [`names`] reads who a certificate is for,
//! [`ciphers`] knows what others call the cipher suites, [`failure`] says in words what went wrong and what can be done about it. A [`KeyLog`]
//! has the secrets of sessions, for somebody who reads what was recorded on the wire.
//!
//! The crate opens no socket and no file. It reads the system's clock where certificates have to be valid, and the system's
//! random numbers. Between two calls a [`Session`] holds keys and the front of a record whose rest has not come, and no other
//! buffer: so an idle connection stays small.
//!
//! ```no_run
//! use pantala_tls::{Pem, Progress, Session, Settings};
//!
//! # fn pem(name: &str) -> Pem { Pem { name: name.to_owned(), bytes: Vec::new() } }
//! let settings = Settings {
//!     certificates: vec![(pem("broker.crt"), pem("broker.key"))],
//!     alpn: vec!["mqtt".to_owned()],
//!     ..Settings::default()
//! };
//! let listener = settings.build()?;
//! let mut session = Session::new(&listener);
//! let (mut inward, mut outward) = (Vec::new(), Vec::new());
//! # let mut read = [0; 100];
//! match session.receive(&mut read, &mut inward, &mut outward) {
//!     Progress::Open => {} // `inward` has what the client says, `outward` what is to be written
//!     Progress::Ended => {} // the client has said close_notify
//!     Progress::Failed(failure) => println!("{failure}"),
//! }
//! # Ok::<(), pantala_tls::SettingsError>(())
//! ```

mod chain;
pub mod ciphers;
pub mod failure;
mod key_log;
pub mod names;
pub mod session;
pub mod settings;
mod traffic_keys;
mod verifier;

pub use failure::Failure;
pub use key_log::KeyLog;
pub use names::{NameError, Names, UserNameFrom};
pub use session::{Progress, Session};
pub use settings::{ClientCertificates, Configuration, OwnCertificate, Pem, Settings, SettingsError, Versions};
