//! The task of a client and a disk that is slow, full or broken.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use pantala_proto::PacketType;
use pantala_store::disk::{Disk, DiskFile, Operation, SimDisk, SimFile};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;

use super::{BoxedStream, Client, Connector, Options, OutboxOptions, Reconnect, Status};
use crate::error::{ConnectionError, PublishError};
use crate::mock::MockBroker;
use crate::outbox::{Keeper, OutboxDurability, OutboxError};
use crate::transport::ConnectError;
use crate::{Message, QoS};

fn start<D: Disk>(url: &str, disk: D) -> Client {
    start_with(Options::new(url).unwrap(), disk)
}

fn start_with<D: Disk>(options: Options, disk: D) -> Client {
    let outbox = OutboxOptions::new("here");
    let options = options.client_id("c").keep_session(Duration::MAX).outbox(outbox);
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

/// Connections in memory, whose other end the test has.
struct Wire(mpsc::UnboundedSender<DuplexStream>);

impl Connector for Wire {
    fn connect(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Result<BoxedStream, ConnectError>> + Send>> {
        let (ours, theirs) = duplex(64 << 10);
        let sent = self.0.send(theirs);
        Box::pin(async move {
            sent.map_err(|_| ConnectError::Other("nobody listens".to_owned()))?;
            Ok(Box::new(ours) as BoxedStream)
        })
    }
}

fn wire() -> (Options, mpsc::UnboundedReceiver<DuplexStream>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Options::with_connector(Wire(sender)), receiver)
}

/// The next packet, which has to come within a minute.
async fn packet(stream: &mut DuplexStream) -> Vec<u8> {
    let reading = async {
        // None here is longer than 127 bytes.
        let mut packet = vec![0; 2];
        stream.read_exact(&mut packet).await.unwrap();
        packet.resize(2 + usize::from(packet[1]), 0);
        stream.read_exact(&mut packet[2..]).await.unwrap();
        packet
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("a packet comes within a minute")
}

/// A connection that has been welcomed, with its Session.
async fn welcomed(connections: &mut mpsc::UnboundedReceiver<DuplexStream>) -> DuplexStream {
    let mut stream = connections.recv().await.unwrap();
    assert_eq!(packet(&mut stream).await[0], 0x10);
    stream.write_all(&[0x20, 3, 1, 0, 0]).await.unwrap();
    stream
}

/// Waits without letting tokio's clock go on: for what a thread does.
async fn at_once<T>(future: impl Future<Output = T>) -> T {
    tokio::select! {
        biased;
        output = future => output,
        () = async { loop { tokio::task::yield_now().await } } => unreachable!("it has no end"),
    }
}

/// The disk stands at the gate, and a message waits for it.
async fn stalled(client: &Client, gate: &Gate) {
    gate.close();
    client.try_publish(&message()).unwrap();
    while !gate.somebody_waits() {
        tokio::task::yield_now().await;
    }
}

/// CONNECT waited for the disk, for so long that the client gave up.
#[tokio::test(start_paused = true)]
async fn a_disk_that_stalls_does_not_hold_up_connect() {
    let (options, mut connections) = wire();
    let gate = Gate::default();
    let client = start_with(options, Slow(SimDisk::new(), gate.clone()));
    let _opens = Opens(gate.clone());
    stalled(&client, &gate).await;
    let mut stream = welcomed(&mut connections).await;
    client.connected().await.unwrap();
    // That is all that goes out.
    let rest = tokio::time::timeout(Duration::from_secs(30), stream.read_u8()).await;
    assert!(rest.is_err(), "{rest:?}");
    gate.open();
    assert_eq!(at_once(packet(&mut stream)).await[0], 0x34);
}

/// Messages that waited for the disk held up PINGREQ: the client gave the broker up for its silence, or the broker the client.
#[tokio::test(start_paused = true)]
async fn a_disk_that_stalls_does_not_end_the_connection() {
    let (options, mut connections) = wire();
    let gate = Gate::default();
    let client = start_with(options.reconnect(Reconnect::NEVER), Slow(SimDisk::new(), gate.clone()));
    let _opens = Opens(gate.clone());
    let mut stream = welcomed(&mut connections).await;
    client.connected().await.unwrap();
    // The last that the broker hears for a while.
    client.try_publish(&Message::new("up", "0")).unwrap();
    assert_eq!(packet(&mut stream).await[0], 0x30);
    tokio::time::sleep(Duration::from_secs(50)).await;
    stalled(&client, &gate).await;
    for round in 0..20 {
        // Within the Keep Alive of 60 s, and again.
        let within = if round == 0 { 10 } else { 60 };
        let ping = tokio::time::timeout(Duration::from_secs(within), packet(&mut stream)).await;
        assert_eq!(ping.expect("PINGREQ comes in time"), [0xc0, 0]);
        stream.write_all(&[0xd0, 0]).await.unwrap();
        // More that has to wait.
        client.try_publish(&message()).unwrap();
    }
    assert!(matches!(client.status(), Status::Connected(_)));
    gate.open();
    for _ in 0..21 {
        assert_eq!(at_once(packet(&mut stream)).await[0], 0x34);
    }
    // A broker that does not answer is given up all the same, with nothing out that is not safe.
    stalled(&client, &gate).await;
    let began = tokio::time::Instant::now();
    assert_eq!(packet(&mut stream).await, [0xc0, 0]);
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty(), "{rest:02x?}");
    assert!(began.elapsed() < Duration::from_secs(60 + 35), "{:?}", began.elapsed());
    gate.open();
    assert_eq!(at_once(client.connected()).await.unwrap_err(), ConnectionError::TimedOut);
}

/// Whoever waited for the broker waited for the disk, though the client had long been asked to end.
#[tokio::test(start_paused = true)]
async fn a_client_that_ends_keeps_nobody_waiting_for_its_disk() {
    let (options, mut connections) = wire();
    let gate = Gate::default();
    let client = start_with(options, Slow(SimDisk::new(), gate.clone()));
    let _opens = Opens(gate.clone());
    let _stream = welcomed(&mut connections).await;
    client.connected().await.unwrap();
    stalled(&client, &gate).await;
    let mut unclaimed = client.unclaimed();
    let disconnecting = tokio::spawn({
        let client = client.clone();
        async move { client.disconnect().await }
    });
    let waiting = async { tokio::join!(client.publish(message()), client.settled(), unclaimed.recv()) };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("they hear of it");
    assert_eq!((waited.0, waited.1), (Err(PublishError::Ended), Err(PublishError::Ended)));
    assert!(waited.2.is_err());
    assert_eq!(client.try_publish(&message()), Err(PublishError::Ended));
    assert_eq!(client.connected().await.unwrap_err(), ConnectionError::Closed);
    // But the outbox is not free yet.
    settle_down().await;
    assert!(!disconnecting.is_finished() && !matches!(client.status(), Status::Ended(_)));
    gate.open();
    at_once(disconnecting).await.unwrap();
    assert_eq!(client.status(), Status::Ended(None));
}

/// Nothing was ever taken.
#[tokio::test]
async fn an_outbox_has_room_for_one_message() {
    let broker = MockBroker::serve().await;
    for builder in [false, true] {
        let mut outbox = OutboxOptions::new("here").messages_max(0).bytes_max(0);
        if !builder {
            (outbox.messages_max, outbox.bytes_max) = (0, 0);
        }
        let options = Options::new(broker.url()).unwrap().client_id("c").keep_session(Duration::MAX).outbox(outbox);
        let client = Client::start_with(options, |_, client_id| {
            Keeper::open_on(SimDisk::new(), 64 << 10, OutboxDurability::Fsync, "here", client_id)
        });
        for _ in 0..3 {
            let enqueueing = tokio::time::timeout(Duration::from_secs(20), client.enqueue(message()));
            enqueueing.await.expect("there is room").unwrap();
        }
        client.settled().await.unwrap();
        client.disconnect().await;
    }
    broker.assert_no_violations();
}
