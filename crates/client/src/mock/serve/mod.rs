//! The broker that works by itself: its handle, and the tasks that move bytes.

mod behaviour;
mod core;
mod filter;
mod incoming;
mod message;
mod outgoing;
mod violation;

pub use self::behaviour::{Behaviour, Cut, Limits};
pub use self::message::Message;
pub use self::violation::Violation;

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use pantala_proto::{PacketType, ReasonCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, Sleep, sleep_until};

use self::core::{Core, OUTPUT_BYTES_MAX};
use super::patience::{PATIENCE, lock, within};
use super::peer::{drain, url};
use super::received::Received;

/// Bytes of one read.
const READ_BYTES: usize = 16 * 1_024;
/// Reads of one connection before the others have a turn.
const READS_PER_TURN: usize = 16;
/// Packets that a failed expectation shows.
const SHOWN: usize = 20;

/// A small broker that works by itself, and looks at its clients with the standard in hand.
///
/// MQTT 3.1, 3.1.1 and 5; QoS 0, 1 and 2 both ways, wildcards, Shared Subscriptions, Retained Messages, Wills, Sessions
/// that outlive their connections. Its behaviour can be changed at any time. It ends when it is dropped.
pub struct ServingBroker {
    core: Arc<Mutex<Core>>,
    accepting: JoinHandle<()>,
    address: SocketAddr,
    url: String,
}

impl ServingBroker {
    pub(super) fn start(listener: TcpListener, behaviour: Behaviour) -> Self {
        let address = listener.local_addr().expect("a listener has an address");
        let mut core = Core::default();
        core.behaviour = behaviour;
        let core = Arc::new(Mutex::new(core));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&core)));
        Self { core, accepting, address, url: url(address) }
    }

    /// Where it listens, as `mqtt://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes its behaviour, from the next packet on.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.change(|core| change(&mut core.behaviour));
    }

    /// Keeps acknowledgements back from now on: see [`Behaviour::hold_acknowledgements`].
    pub fn hold_acknowledgements(&self) {
        self.behave(|behaviour| behaviour.hold_acknowledgements = true);
    }

    /// Sends what was kept back, and keeps nothing back any more.
    pub fn release_acknowledgements(&self) {
        self.change(|core| {
            core.behaviour.hold_acknowledgements = false;
            core.release(usize::MAX);
        });
    }

    /// Sends the oldest acknowledgement kept back for each connection.
    pub fn release_one_acknowledgement(&self) {
        self.change(|core| core.release(1));
    }

    /// Acknowledgements kept back at the moment.
    pub fn held_acknowledgements(&self) -> usize {
        self.look(|core| core.held())
    }

    /// All packets of all clients, in the order in which they came. At most the last 1 000 000.
    pub fn received(&self) -> Vec<Received> {
        self.look(|core| core.received.iter().cloned().collect())
    }

    /// All packets of this type.
    pub fn received_of(&self, packet_type: PacketType) -> Vec<Received> {
        let of_type = |received: &&Received| received.packet_type() == packet_type;
        self.look(|core| core.received.iter().filter(of_type).cloned().collect())
    }

    /// All messages that were published, Wills and those of [`ServingBroker::publish`] too: each time a subscriber
    /// would have got it. So one of QoS 2 stands there once. At most the last 1 000 000.
    pub fn published(&self) -> Vec<Message> {
        self.look(|core| core.published.iter().cloned().collect())
    }

    /// Forgets the packets and messages up to now; violations, Sessions and Retained Messages stay.
    pub fn forget_received(&self) {
        self.change(|core| {
            core.received.clear();
            core.published.clear();
        });
    }

    /// Where clients have violated the standard, in the order in which it was seen. At most the first 1 000.
    pub fn violations(&self) -> Vec<Violation> {
        self.look(|core| core.violations.clone())
    }

    /// # Panics
    /// If a client has violated the standard, and tells where.
    #[track_caller]
    pub fn assert_no_violations(&self) {
        let violations = self.violations();
        if !violations.is_empty() {
            let list = violations.iter().map(|violation| format!("\n    {violation}"));
            panic!("{} violations of the standard:{}", violations.len(), list.collect::<String>());
        }
    }

    /// Publishes a message, as a client would.
    pub fn publish(&self, message: Message) {
        self.change(|core| core.route(message, None));
    }

    /// The Retained Message of this Topic Name.
    pub fn retained(&self, topic_name: &str) -> Option<Message> {
        self.look(|core| core.retained.get(topic_name).cloned())
    }

    /// Connections it has accepted up to now.
    pub fn connections(&self) -> usize {
        self.look(|core| core.accepted)
    }

    /// Client Identifiers of the clients that are connected, in alphabetical order.
    pub fn connected(&self) -> Vec<String> {
        self.look(|core| core.connected().map(str::to_owned).collect())
    }

    /// Topic Filters in the Session of this client, in alphabetical order.
    pub fn subscriptions_of(&self, client_id: &str) -> Vec<String> {
        self.look(|core| core.subscriptions_of(client_id).map(str::to_owned).collect())
    }

    /// QoS 1 and 2 messages this client is to get, up to its last acknowledgement of each.
    pub fn owed_to(&self, client_id: &str) -> usize {
        self.look(|core| core.owed_to(client_id))
    }

    /// Ends the connection of this client, with DISCONNECT if it speaks MQTT 5. Whether it had one.
    pub fn disconnect(&self, client_id: &str, reason_code: ReasonCode) -> bool {
        self.change(|core| {
            let number = core.connection_of(client_id);
            number.into_iter().for_each(|number| core.end(number, reason_code));
            number.is_some()
        })
    }

    /// Closes all connections without a word. How many there were.
    pub fn drop_connections(&self) -> usize {
        self.change(|core| {
            let numbers: Vec<usize> = core.connections.keys().copied().collect();
            numbers.iter().for_each(|number| core.drop_connection(*number));
            numbers.len()
        })
    }

    /// Waits until `condition` holds. It is looked at again whenever something has happened at the broker.
    ///
    /// # Panics
    /// If it does not hold within 20 seconds of real time; tells what has come.
    #[track_caller]
    pub fn wait_until(&self, condition: impl FnMut(&Self) -> bool) -> impl Future<Output = ()> {
        self.wait_for("what is waited for", condition)
    }

    /// Waits until a message has been published to this Topic Name; at once if one has been already. The first such.
    ///
    /// # Panics
    /// If none comes within 20 seconds of real time; tells what has come.
    #[track_caller]
    pub fn expect_published(&self, topic_name: &str) -> impl Future<Output = Message> {
        let what = format!("a message to {topic_name:?}");
        let find = move |broker: &Self| {
            broker.look(|core| core.published.iter().find(|message| message.topic_name == topic_name).cloned())
        };
        let waiting = self.wait_for(what, move |broker| find(broker).is_some());
        async move {
            waiting.await;
            find(self).expect("it was there")
        }
    }

    #[track_caller]
    fn wait_for(&self, what: impl Into<String>, mut condition: impl FnMut(&Self) -> bool) -> impl Future<Output = ()> {
        let (caller, what) = (Location::caller(), what.into());
        async move {
            let holds = poll_fn(|cx| {
                // First the waker, so that nothing happens in between unnoticed.
                lock(&self.core).watchers.push(cx.waker().clone());
                if condition(self) { Poll::Ready(()) } else { Poll::Pending }
            });
            if within(PATIENCE, holds).await.is_none() {
                panic!("{caller}: {what} did not come about within {PATIENCE:?}; {}", self.told());
            }
        }
    }

    fn told(&self) -> String {
        let core = lock(&self.core);
        let mut text = format!("{} packets came, the last of them:", core.received.len());
        let from = core.received.len().saturating_sub(SHOWN);
        for received in core.received.range(from..) {
            let _ = write!(text, "\n    {received:?}");
        }
        for violation in &core.violations {
            let _ = write!(text, "\n    violation: {violation}");
        }
        text
    }

    /// Wakes nobody: a condition that looks would wake the very task that waits for it.
    fn look<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&lock(&self.core))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Core) -> T) -> T {
        let mut core = lock(&self.core);
        let output = change(&mut core);
        core.wake();
        output
    }
}

impl Drop for ServingBroker {
    fn drop(&mut self) {
        // The connections are tasks of a set that ends with it.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, core: Arc<Mutex<Core>>) {
    let mut connections = JoinSet::new();
    // An error of accept is a lack of descriptors; the tests that hold them will tell.
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        while connections.try_join_next().is_some() {}
        let number = {
            let mut core = lock(&core);
            let number = core.opened(Instant::now());
            core.wake();
            number
        };
        connections.spawn(serve(stream, Arc::clone(&core), number));
    }
}

async fn serve(stream: TcpStream, core: Arc<Mutex<Core>>, number: usize) {
    let mut shell = Shell { stream, core, number, output: Vec::new(), written: 0, alarm: None };
    poll_fn(|cx| shell.turn(cx)).await;
    {
        let mut core = lock(&shell.core);
        core.closed(number);
        core.wake();
    }
    // Closing with unread input would be a reset, which may overtake our last word.
    let _ = shell.stream.shutdown().await;
    drain(shell.stream).await;
}

/// Moves the bytes of one connection.
struct Shell {
    stream: TcpStream,
    core: Arc<Mutex<Core>>,
    number: usize,
    output: Vec<u8>,
    written: usize,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Shell {
    /// Reads and writes what can be. Ready when the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..READS_PER_TURN {
            let blocked = match self.write(cx) {
                Poll::Ready(Ok(())) => false,
                Poll::Ready(Err(())) => return Poll::Ready(()),
                Poll::Pending => true,
            };
            let (closing, behind) = match lock(&self.core).connections.get(&self.number) {
                Some(connection) => (connection.closing, connection.output.len() >= OUTPUT_BYTES_MAX),
                None => (true, false),
            };
            if closing && !blocked {
                return Poll::Ready(());
            }
            if behind {
                return Poll::Pending;
            }
            // Input comes before the alarm: with a paused clock, both may be there at once.
            let mut bytes = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let mut core = lock(&self.core);
                    core.input(Instant::now(), self.number, buffer.filled());
                    core.wake();
                    continue;
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if !self.is_late(cx) {
                return Poll::Pending;
            }
            let mut core = lock(&self.core);
            core.silent(self.number);
            core.wake();
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        loop {
            if self.written == self.output.len() {
                self.output.clear();
                self.written = 0;
                if let Some(connection) = lock(&self.core).connections.get_mut(&self.number) {
                    connection.waker = Some(cx.waker().clone());
                    std::mem::swap(&mut self.output, &mut connection.output);
                }
                if self.output.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.output[self.written..]) {
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
                Poll::Pending => {
                    // Whoever closes the connection wakes it.
                    if let Some(connection) = lock(&self.core).connections.get_mut(&self.number) {
                        connection.waker = Some(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = lock(&self.core).deadline(self.number) else {
            self.alarm = None;
            return false;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx).is_ready()
    }
}
