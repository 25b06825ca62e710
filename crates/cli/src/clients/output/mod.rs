//! What is printed of an Application Message: the payload, topic and payload, or a format of `-F`.
//!
//! ```text
//!  "-F" ── Format::parse ──► pieces ──┐
//!                                     ├─► Printer::print ──► bytes into a buffer that is used again
//!  Received (borrowed) ───────────────┘
//! ```
//!
//! A format is compiled once. Printing allocates nothing per message once its buffers have grown, reads no clock (a
//! message carries the time it came) and writes nothing: the caller has the buffer.
//!
//! What comes from the network is printed as it is into files and pipes, and escaped for a terminal, which would take some
//! bytes as orders: see [`Escaping`].

mod clock;
mod escape;
mod folder;
mod format;
mod json;
mod number;
mod packets;
mod printer;
mod received;
mod watch;

pub use clock::LocalTime;
pub use escape::Escaping;
pub use folder::{FILES_MAX, Folder, NotWritten, file_name};
pub use format::{Format, FormatError, WIDTH_MAX};
pub use json::Layout;
pub use packets::PacketLines;
pub use printer::{NotJson, Printer, Style};
pub use received::{Moment, Received};
pub use watch::{ROWS_MIN, Watch};
