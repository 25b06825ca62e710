//! Stores under control: one that keeps nothing, and the real one on a simulated disk, which panics when it is told to.

use pantala_store::{
    AnyStore, LoadError, MemoryStore, MessageId, Position, Receiver, Record, SessionNumber, Store, StoredMessage,
};

/// The store of one worker.
pub struct TestStore {
    inner: AnyStore,
    appended: u64,
    panic_at: Option<u64>,
}

impl TestStore {
    pub fn memory() -> Self {
        Self::new(AnyStore::Memory(MemoryStore))
    }

    pub fn new(inner: AnyStore) -> Self {
        Self { inner, appended: 0, panic_at: None }
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
    fn keeps(&self) -> bool {
        self.inner.keeps()
    }

    fn accepts(&self) -> bool {
        self.inner.accepts()
    }

    fn has_failed(&self) -> bool {
        self.inner.has_failed()
    }

    fn next_message(&mut self) -> Option<MessageId> {
        self.inner.next_message()
    }

    fn next_session(&mut self) -> Option<SessionNumber> {
        self.inner.next_session()
    }

    fn append(&mut self, record: &Record<'_>) -> Position {
        self.appended += 1;
        if self.panic_at == Some(self.appended) {
            self.panic_at = None;
            panic!("the store panics, as it was told to");
        }
        self.inner.append(record)
    }

    fn add_receivers(&mut self, message: MessageId, receivers: Vec<Receiver>) {
        self.inner.add_receivers(message, receivers);
    }

    fn appended(&self) -> Position {
        self.inner.appended()
    }

    fn durable(&self) -> Position {
        self.inner.durable()
    }

    fn written(&self) -> Position {
        self.inner.written()
    }

    fn holds(&self, message: MessageId) -> bool {
        self.inner.holds(message)
    }

    fn load(&self, message: MessageId) -> Result<StoredMessage, LoadError> {
        self.inner.load(message)
    }

    fn submit(&mut self) {
        self.inner.submit();
    }
}
