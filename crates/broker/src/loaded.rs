//! Messages that were read from the store last. Sessions that come back together are often owed the same ones, and read them one
//! after the other.

use std::sync::Arc;

use pantala_store::{LoadError, MessageId, Store};

use crate::message::Message;

/// Of messages with numbers in a row, so many are kept.
const MESSAGES: usize = 64;
/// Larger ones are not: to read them costs little beside what it takes to send them.
const BYTES_MAX: usize = 16 * 1024;

/// Each has one place to be, which it takes from another.
#[derive(Debug, Default)]
pub(crate) struct Loaded(Vec<Option<(MessageId, Arc<Message>)>>);

impl Loaded {
    /// The message.
    pub(crate) fn get(&mut self, store: &impl Store, id: MessageId) -> Result<Arc<Message>, LoadError> {
        let place = id.count() as usize % MESSAGES;
        if let Some(Some((known, message))) = self.0.get(place)
            && *known == id
        {
            return Ok(Arc::clone(message));
        }
        let message = Message::from_stored(&store.load(id)?);
        if message.bytes() <= BYTES_MAX {
            self.0.resize_with(MESSAGES, || None);
            self.0[place] = Some((id, Arc::clone(&message)));
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use pantala_store::disk::SimDisk;
    use pantala_store::log::LogOptions;
    use pantala_store::{Clock, Durability, Pause, Publish, Receiver, Record, StoredMessage};

    use super::*;

    /// More than there are places, so that some have the same.
    #[test]
    fn each_is_itself_and_is_read_once_in_a_row() {
        let mut opened =
            pantala_store::open::<_, StoredMessage>(SimDisk::new(), LogOptions::default(), 1, Durability::Fsync)
                .unwrap();
        let mut store = opened.stores.remove(0);
        let session = store.next_session().unwrap();
        let mut publish = |payload: &[u8]| {
            let id = store.next_message().unwrap();
            let message = pantala_store::Message {
                topic_name: "t",
                properties: [&[], &[]],
                message_expiry_at: None,
                payload,
                qos: 1,
                retain: false,
                expires_at: None,
            };
            let receiver = Receiver { session, qos: 1, retain: false, order: 0, identifiers: Vec::new(), group: None };
            store.append(&Record::Publish(Publish {
                id,
                message,
                receivers: &[receiver],
                others: 0,
                opens: None,
                will_of: None,
                retained: false,
                publisher: None,
            }));
            id
        };
        let small: Vec<_> = (0..2 * MESSAGES).map(|number| publish(&[number as u8])).collect();
        let large = publish(&[7; BYTES_MAX]);
        store.submit();
        while opened.committer.step(Clock::default(), &mut |_| {}) == Pause::None {}

        let mut loaded = Loaded::default();
        for _ in 0..2 {
            for (number, id) in small.iter().enumerate() {
                let message = loaded.get(&store, *id).unwrap();
                assert_eq!(message.payload(), [number as u8]);
                assert!(Arc::ptr_eq(&message, &loaded.get(&store, *id).unwrap()));
            }
        }
        let message = loaded.get(&store, large).unwrap();
        assert_eq!(Arc::strong_count(&message), 1);
        let latest = small.last().unwrap();
        assert!(Arc::strong_count(&loaded.get(&store, *latest).unwrap()) > 1);
    }
}
