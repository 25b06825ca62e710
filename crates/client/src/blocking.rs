//! The client for programs without async: the same client, on a thread of its own, behind methods that block.
//!
//! ```no_run
//! use std::time::Duration;
//! use pantala_client::{Message, Options, QoS, blocking::Client};
//!
//! let client = Client::connect(Options::new("mqtt://localhost")?)?;
//! let mut readings = client.subscribe(("sensors/#", QoS::AtLeastOnce))?;
//! client.publish(Message::new("sensors/kitchen", "21.5").qos(QoS::AtLeastOnce))?;
//! while let Some(message) = readings.recv_timeout(Duration::from_secs(10))? {
//!     println!("{}: {:?}", message.topic_name().escape_debug(), message.payload());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Where a method waits for the broker, a second one ends in `_timeout` and waits only so long: without a connection there may be
//! none for hours.
//!
//! No method may be called from async code: it would block the runtime, and tokio panics.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::client::{Ended, Options, Received, RequestError, Status, Subscribe};
use crate::error::{ConnectionError, PublishError, SubscribeError};
use crate::machine::{Answered, Connected, Published};
use crate::{Message, OutboxReport, ReasonCode};

/// A thread that moves the bytes.
struct Thread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn start() -> Result<Self, ConnectionError> {
        let failed = |error: io::Error| ConnectionError::Connect(error.to_string());
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let work = move || {
            // Ends when the sender is dropped, too.
            let _ = runtime.block_on(stopped);
            // A name that is being resolved, or an authenticator's step, may take long and is for nobody any more.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("pantala-client".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to end.
            drop(thread.join());
        }
    }
}

/// A client whose methods block; see [`crate::Client`], which it is. Clones are the same client.
///
/// When the last one and the last [`Subscription`] are dropped, the connection is ended with DISCONNECT, which may take some seconds if
/// the broker does not listen, and what was given to an [`outbox`](Options::outbox) is written.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    client: crate::Client,
    thread: Thread,
}

impl Inner {
    fn wait<F: Future>(&self, future: F) -> F::Output {
        self.thread.handle.block_on(future)
    }

    /// None if it is not ready in time.
    fn wait_timeout<T, E>(
        &self,
        timeout: Duration,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<Option<T>, E> {
        self.wait(async { tokio::time::timeout(timeout, future).await.ok().transpose() })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wait(self.client.disconnect());
    }
}

impl Client {
    /// See [`crate::Client::connect`]. With [`Reconnect::retry_first`](crate::Reconnect::retry_first) it may block for ever;
    /// [`Client::start`] and [`Client::connected_timeout`] do not.
    ///
    /// # Errors
    /// Why there is no connection, or no thread.
    pub fn connect(options: Options) -> Result<Self, ConnectionError> {
        let thread = Thread::start()?;
        let client = thread.handle.block_on(crate::Client::connect(options))?;
        Ok(Self { inner: Arc::new(Inner { client, thread }) })
    }

    /// See [`crate::Client::start`]: as [`Client::connect`], without waiting for the connection. For programs that give messages to
    /// an [`outbox`](Options::outbox), by [`Client::enqueue`], whether the broker is there or not.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start(options: Options) -> Result<Self, ConnectionError> {
        let thread = Thread::start()?;
        let client = {
            let _within = thread.handle.enter();
            crate::Client::start(options)
        };
        Ok(Self { inner: Arc::new(Inner { client, thread }) })
    }

    /// See [`crate::Client::connected`]. None if there is no connection in time.
    ///
    /// # Errors
    /// Why the client has ended.
    pub fn connected_timeout(&self, timeout: Duration) -> Result<Option<Arc<Connected>>, ConnectionError> {
        self.inner.wait_timeout(timeout, self.inner.client.connected())
    }

    /// See [`crate::Client::publish`].
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(&self, message: Message) -> Result<Published, PublishError> {
        self.inner.wait(self.inner.client.publish(message))
    }

    /// As [`Client::publish`]. None if the broker has not answered in time: if there was room for the message, it is published all
    /// the same, and only the answer is lost; if there was none, it is not.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish_timeout(&self, message: Message, timeout: Duration) -> Result<Option<Published>, PublishError> {
        self.inner.wait_timeout(timeout, self.inner.client.publish(message))
    }

    /// See [`crate::Client::try_publish`]. Does not block.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn try_publish(&self, message: &Message) -> Result<(), PublishError> {
        self.inner.client.try_publish(message)
    }

    /// See [`crate::Client::enqueue`]: from then on the message is in the [`outbox`](Options::outbox), and reaches the broker even if
    /// this program ends.
    ///
    /// # Errors
    /// [`PublishError`], of those that can be known without the broker.
    pub fn enqueue(&self, message: Message) -> Result<(), PublishError> {
        self.inner.wait(self.inner.client.enqueue(message))
    }

    /// As [`Client::enqueue`]. False if it took too long: if there was no room for the message, it is not published; else it may be.
    ///
    /// # Errors
    /// [`PublishError`], of those that can be known without the broker.
    pub fn enqueue_timeout(&self, message: Message, timeout: Duration) -> Result<bool, PublishError> {
        Ok(self.inner.wait_timeout(timeout, self.inner.client.enqueue(message))?.is_some())
    }

    /// See [`crate::Client::outbox_len`].
    pub fn outbox_len(&self) -> usize {
        self.inner.client.outbox_len()
    }

    /// See [`crate::Client::outbox_report`].
    pub fn outbox_report(&self) -> Option<OutboxReport> {
        self.inner.client.outbox_report()
    }

    /// See [`crate::Client::settled`].
    ///
    /// # Errors
    /// The client has ended before.
    pub fn settled(&self) -> Result<(), PublishError> {
        self.inner.wait(self.inner.client.settled())
    }

    /// As [`Client::settled`]. False if messages are left after this time.
    ///
    /// # Errors
    /// The client has ended before.
    pub fn settled_timeout(&self, timeout: Duration) -> Result<bool, PublishError> {
        Ok(self.inner.wait_timeout(timeout, self.inner.client.settled())?.is_some())
    }

    /// See [`crate::Client::subscribe`].
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub fn subscribe(&self, subscribe: impl Into<Subscribe>) -> Result<Subscription, SubscribeError> {
        Ok(self.stream(self.inner.wait(self.inner.client.subscribe(subscribe))?))
    }

    /// As [`Client::subscribe`]. None if the broker has not answered in time: the subscription ends as if the stream had been
    /// dropped.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub fn subscribe_timeout(
        &self,
        subscribe: impl Into<Subscribe>,
        timeout: Duration,
    ) -> Result<Option<Subscription>, SubscribeError> {
        let subscription = self.inner.wait_timeout(timeout, self.inner.client.subscribe(subscribe))?;
        Ok(subscription.map(|subscription| self.stream(subscription)))
    }

    /// See [`crate::Client::unclaimed`].
    pub fn unclaimed(&self) -> Subscription {
        self.stream(self.inner.client.unclaimed())
    }

    fn stream(&self, subscription: crate::Subscription) -> Subscription {
        Subscription { subscription: Some(subscription), client: self.inner.clone() }
    }

    /// See [`crate::Client::unsubscribe`].
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub fn unsubscribe(
        &self,
        filters: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Answered, SubscribeError> {
        self.inner.wait(self.inner.client.unsubscribe(filters))
    }

    /// Asks others by a message; see [`crate::Requester`], of which this makes one for each request. Needs MQTT 5. All of it has to
    /// be done within `timeout`: that there is a connection, the subscription to the Response Topic, and the answer.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn request(&self, message: Message, timeout: Duration) -> Result<Received, RequestError> {
        let asking = async { self.inner.client.requester().await?.request(message, timeout).await };
        self.inner.wait_timeout(timeout, asking)?.ok_or(RequestError::TimedOut)
    }

    /// How it stands now.
    pub fn status(&self) -> Status {
        self.inner.client.status()
    }

    /// See [`crate::Client::disconnect`].
    pub fn disconnect(&self) {
        self.inner.wait(self.inner.client.disconnect());
    }

    /// See [`crate::Client::disconnect_with`].
    pub fn disconnect_with(&self, reason_code: ReasonCode, session_expiry_interval: Option<Duration>) {
        self.inner.wait(self.inner.client.disconnect_with(reason_code, session_expiry_interval));
    }
}

/// A stream of messages that blocks; see [`crate::Subscription`]. An iterator, too, which ends with the client.
pub struct Subscription {
    /// None only while it is being dropped.
    subscription: Option<crate::Subscription>,
    client: Arc<Inner>,
}

impl Subscription {
    /// The next message.
    ///
    /// # Errors
    /// Nothing more will come.
    pub fn recv(&mut self) -> Result<Received, Ended> {
        let Some(subscription) = &mut self.subscription else { return Err(Ended::Client) };
        self.client.wait(subscription.recv())
    }

    /// The next message, if one comes in time.
    ///
    /// # Errors
    /// Nothing more will come.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<Received>, Ended> {
        let Some(subscription) = &mut self.subscription else { return Err(Ended::Client) };
        self.client.wait_timeout(timeout, subscription.recv())
    }

    /// Acknowledges the message that was returned last, without asking for the next one.
    pub fn acknowledge(&mut self) {
        if let Some(subscription) = &mut self.subscription {
            subscription.acknowledge();
        }
    }

    /// The broker's answer for each filter, in their order.
    pub fn granted(&self) -> &[ReasonCode] {
        self.subscription.as_ref().map_or(&[], |subscription| subscription.granted())
    }

    /// See [`crate::Subscription::unsubscribe`].
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub fn unsubscribe(mut self) -> Result<Answered, SubscribeError> {
        match self.subscription.take() {
            Some(subscription) => self.client.wait(subscription.unsubscribe()),
            None => Err(SubscribeError::Ended),
        }
    }
}

impl Iterator for Subscription {
    type Item = Received;

    fn next(&mut self) -> Option<Received> {
        self.recv().ok()
    }
}
