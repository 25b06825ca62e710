//! A store under control: durable at once, or when told, or failing by panic.

use std::collections::BTreeMap;

use pantala_store::{Position, Record, Store};

/// Counts records and remembers which Sessions it would bring back.
#[derive(Debug, Default)]
pub struct TestStore {
    appended: u64,
    /// None: as far as it was appended.
    durable: Option<u64>,
    panic_at: Option<u64>,
    pub sessions: BTreeMap<String, u32>,
}

impl TestStore {
    pub fn delay(&mut self) {
        self.durable = Some(self.appended);
    }

    pub fn sync(&mut self) {
        self.durable = self.durable.map(|_| self.appended);
    }

    /// The n-th append from now panics.
    pub fn panic_at(&mut self, nth: u64) {
        self.panic_at = Some(self.appended + nth);
    }

    pub fn forget_panic(&mut self) {
        self.panic_at = None;
    }
}

impl Store for TestStore {
    fn append(&mut self, record: Record<'_>) -> Position {
        if self.panic_at == Some(self.appended + 1) {
            self.panic_at = None;
            panic!("the store panics, as it was told to");
        }
        match record {
            Record::Session { client_id, expiry_interval } => {
                self.sessions.insert(client_id.to_owned(), expiry_interval);
            }
            Record::SessionEnded { client_id } => {
                self.sessions.remove(client_id);
            }
            _ => {}
        }
        self.appended += 1;
        Position(self.appended)
    }

    fn durable(&self) -> Position {
        Position(self.durable.unwrap_or(self.appended))
    }
}
