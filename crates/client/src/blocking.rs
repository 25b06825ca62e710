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
//! No method may be called from async code: it would block the runtime, and tokio panics.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::client::{Ended, Options, Received, RequestError, Status, Subscribe};
use crate::error::{ConnectionError, PublishError, SubscribeError};
use crate::machine::{Answered, Published};
use crate::{Message, ReasonCode};

/// A thread that moves the bytes.
struct Thread {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Thread {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("pantala-client".to_owned()).spawn(move || {
            // Ends when the sender is dropped, too.
            let _ = runtime.block_on(stopped);
        })?;
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
/// When the last one and the last [`Subscription`] are dropped, the connection is ended with DISCONNECT, which may take two seconds if
/// the broker does not listen.
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
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wait(self.client.disconnect());
    }
}

impl Client {
    /// See [`crate::Client::connect`].
    ///
    /// # Errors
    /// Why there is no connection, or no thread.
    pub fn connect(options: Options) -> Result<Self, ConnectionError> {
        let thread = Thread::start().map_err(|error| ConnectionError::Connect(error.to_string()))?;
        let client = thread.handle.block_on(crate::Client::connect(options))?;
        Ok(Self { inner: Arc::new(Inner { client, thread }) })
    }

    /// See [`crate::Client::publish`].
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn publish(&self, message: Message) -> Result<Published, PublishError> {
        self.inner.wait(self.inner.client.publish(message))
    }

    /// See [`crate::Client::try_publish`]. Does not block.
    ///
    /// # Errors
    /// [`PublishError`].
    pub fn try_publish(&self, message: &Message) -> Result<(), PublishError> {
        self.inner.client.try_publish(message)
    }

    /// See [`crate::Client::settled`].
    ///
    /// # Errors
    /// The client has ended before.
    pub fn settled(&self) -> Result<(), PublishError> {
        self.inner.wait(self.inner.client.settled())
    }

    /// See [`crate::Client::subscribe`].
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub fn subscribe(&self, subscribe: impl Into<Subscribe>) -> Result<Subscription, SubscribeError> {
        let subscription = self.inner.wait(self.inner.client.subscribe(subscribe))?;
        Ok(Subscription { subscription: Some(subscription), client: self.inner.clone() })
    }

    /// See [`crate::Client::unclaimed`].
    pub fn unclaimed(&self) -> Subscription {
        Subscription { subscription: Some(self.inner.client.unclaimed()), client: self.inner.clone() }
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

    /// Asks others by a message; see [`crate::Requester`], of which this makes one for each request. Needs MQTT 5.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn request(&self, message: Message, timeout: Duration) -> Result<Received, RequestError> {
        self.inner.wait(async {
            let requester = self.inner.client.requester().await?;
            requester.request(message, timeout).await
        })
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
        self.client.wait(async { tokio::time::timeout(timeout, subscription.recv()).await.ok().transpose() })
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
