//! S4: a client has one connection. Once the new one has been answered, nothing comes on the old one but DISCONNECT, and the
//! end.

use super::index::Index;
use super::{Class, Promise, Violation};
use crate::history::Event;
use crate::payload::Content;

/// Looks for what comes on connections that are no more.
pub fn check(index: &Index<'_>, found: &mut Vec<Violation>) {
    for (at, moment) in index.moments() {
        let (client, message, what) = match moment.event {
            Event::Stale { client, content: Some(Content::Message(message)) } => {
                (client, Some(message), format!("{message} came on a connection that had been taken over"))
            }
            Event::Stale { client, .. } => {
                (client, None, "a packet came on a connection that had been taken over".into())
            }
            Event::Outlived { client } => (client, None, "a connection that was taken over stays open".into()),
            _ => continue,
        };
        found.push(Violation { promise: Promise::S4, class: Class::Other, at, client: Some(client), message, what });
    }
}
