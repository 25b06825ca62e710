//! The task of a client and a disk that is slow, full or broken.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pantala_proto::PacketType;
use pantala_store::disk::{Disk, DiskFile, Operation, SimDisk, SimFile};

use super::{Client, Options, Status};
use crate::error::{ConnectionError, PublishError};
use crate::mock::MockBroker;
use crate::outbox::{Keeper, OutboxDurability, OutboxError};
use crate::{Message, QoS};

fn start<D: Disk>(url: &str, disk: D) -> Client {
    let options = Options::new(url).unwrap().client_id("c").keep_session(Duration::MAX).outbox(Path::new("here"));
    Client::start_with(options, |_, client_id| {
        Keeper::open_on(disk, 64 << 10, OutboxDurability::Fsync, "here", client_id)
    })
}

fn message() -> Message {
    Message::new("up", "1").qos(QoS::ExactlyOnce)
}

/// Who waits at it, and whether it is open.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(bool, bool)>, Condvar)>);

impl Gate {
    fn close(&self) {
        *self.0.0.lock().unwrap() = (true, false);
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = (false, false);
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        while state.0 {
            state.1 = true;
            state = self.0.1.wait(state).unwrap();
        }
    }

    fn somebody_waits(&self) -> bool {
        self.0.0.lock().unwrap().1
    }
}

/// Opens a gate when a test fails, so that its client can end.
struct Opens(Gate);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A disk whose syncs wait at a gate.
struct Slow(SimDisk, Gate);

struct SlowFile(SimFile, Gate);

impl Disk for Slow {
    type File = SlowFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<SlowFile> {
        Ok(SlowFile(self.0.create(name, bytes)?, self.1.clone()))
    }

    fn open(&self, name: &str) -> io::Result<SlowFile> {
        Ok(SlowFile(self.0.open(name)?, self.1.clone()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.0.free_bytes()
    }
}

impl DiskFile for SlowFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        self.0.sync_data()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

/// Lets the client and the broker do what they can, on the one thread that they have.
async fn settle_down() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn nothing_goes_out_before_it_is_safe() {
    let broker = MockBroker::serve().await;
    let gate = Gate::default();
    let client = start(broker.url(), Slow(SimDisk::new(), gate.clone()));
    let _opens = Opens(gate.clone());
    client.connected().await.unwrap();

    gate.close();
    client.try_publish(&message()).unwrap();
    while !gate.somebody_waits() {
        tokio::task::yield_now().await;
    }
    let enqueued = tokio::spawn({
        let client = client.clone();
        async move { client.enqueue(Message::new("up", "2").qos(QoS::AtLeastOnce)).await }
    });
    settle_down().await;
    assert_eq!(broker.received_of(PacketType::Publish).len(), 0);
    assert!(!enqueued.is_finished());
    gate.open();
    enqueued.await.unwrap().unwrap();
    client.settled().await.unwrap();

    // PUBREL follows from PUBREC, and PUBREC from a message that came.
    broker.hold_acknowledgements();
    client.try_publish(&message()).unwrap();
    broker.wait_until(|broker| broker.held_acknowledgements() == 1).await;
    let released = broker.received_of(PacketType::PubRel).len();
    gate.close();
    broker.release_acknowledgements();
    while !gate.somebody_waits() {
        tokio::task::yield_now().await;
    }
    settle_down().await;
    assert_eq!(broker.received_of(PacketType::PubRel).len(), released);
    gate.open();
    client.settled().await.unwrap();

    let mut stream = client.subscribe(("down", QoS::ExactlyOnce)).await.unwrap();
    broker.publish(crate::mock::Message::new("down", "3").with_qos(QoS::ExactlyOnce));
    stream.recv().await.unwrap();
    gate.close();
    stream.acknowledge();
    while !gate.somebody_waits() {
        tokio::task::yield_now().await;
    }
    settle_down().await;
    assert_eq!(broker.received_of(PacketType::PubRec).len(), 0);
    gate.open();
    broker.wait_until(|broker| broker.received_of(PacketType::PubComp).len() == 1).await;
    client.disconnect().await;
    broker.assert_no_violations();
}

#[tokio::test]
async fn after_a_failed_sync_the_client_ends_and_nothing_was_sent() {
    let broker = MockBroker::serve().await;
    let disk = SimDisk::new();
    let client = start(broker.url(), disk.clone());
    client.publish(message()).await.unwrap();
    disk.fail_at(Operation::Sync, disk.counts().syncs + 1, io::ErrorKind::Other);
    let published = broker.received_of(PacketType::Publish).len();
    let error = client.enqueue(message()).await.unwrap_err();
    assert!(matches!(&error, PublishError::Outbox(OutboxError::Failed(_)) | PublishError::Ended), "{error}");
    let mut changes = client.changes();
    let mut last = None;
    while let Some(status) = changes.next().await {
        last = Some(status);
    }
    let Some(Status::Ended(Some(why))) = last else { panic!("{last:?}") };
    assert!(matches!(*why, ConnectionError::Outbox(OutboxError::Failed(_))), "{why}");
    assert_eq!(client.try_publish(&message()), Err(PublishError::Ended));
    settle_down().await;
    assert_eq!(broker.received_of(PacketType::Publish).len(), published);
    assert_eq!(broker.connections(), 1);
}

/// The same while there is no connection.
#[tokio::test]
async fn on_a_full_disk_a_client_without_a_connection_ends_too() {
    let disk = SimDisk::new();
    let options = Options::new("mqtt://127.0.0.1:1").unwrap().client_id("c").keep_session(Duration::MAX);
    let mut options = options.outbox(Path::new("here"));
    options.reconnect.retry_first = true;
    let client = Client::start_with(options, |_, client_id| {
        Keeper::open_on(disk.clone(), 64 << 10, OutboxDurability::Fsync, "here", client_id)
    });
    client.enqueue(message()).await.unwrap();
    disk.full(Some(disk.bytes()));
    let mut taken = 1;
    let error = loop {
        match client.enqueue(Message::new("up", vec![0; 10_000]).qos(QoS::AtLeastOnce)).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, PublishError::Outbox(OutboxError::Full));
    let error = client.connected().await.unwrap_err();
    assert_eq!(error, ConnectionError::Outbox(OutboxError::Full));
    drop(client);
    disk.full(None);
    let (_, recovered) = Keeper::open_on(disk, 64 << 10, OutboxDurability::Fsync, "here", "c").unwrap();
    assert_eq!(recovered.kept.len(), taken);
}
