//! Request and response (v5 section 4.10).

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use pantala_proto::QoS;

use super::subscription::{Ended, Received};
use super::{Client, Subscribe, Subscription};
use crate::Message;
use crate::error::{PublishError, SubscribeError};

/// Asks others by messages, and gives each answer to who asked. Needs MQTT 5.
///
/// A requester has one Response Topic, to which it has subscribed, and tells the answers apart by their Correlation Data. Cheap to
/// clone. Any number of requests may wait at once.
#[derive(Clone)]
pub struct Requester {
    client: Client,
    inner: Arc<Mutex<Inner>>,
    response_topic: Arc<str>,
}

struct Inner {
    subscription: Subscription,
    next: u64,
    waiting: HashMap<u64, Slot>,
}

enum Slot {
    Waiting(Option<Waker>),
    Answered(Received),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no Response Topic.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// The request could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Nobody has subscribed to the topic of the request.
    #[error("nobody has subscribed to the topic of the request")]
    NoResponder,
    /// No answer came in time.
    #[error("no answer came in time")]
    TimedOut,
    /// The client has ended, or the broker took the Response Topic away.
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl Client {
    /// Begins to ask others by messages: subscribes to a Response Topic of its own, below the broker's Response Information if it
    /// gave one.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use pantala_client::{Client, Message, QoS};
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let requester = client.requester().await?;
    /// let question = Message::new("kitchen/thermometer/read", "").qos(QoS::AtLeastOnce);
    /// let answer = requester.request(question, Duration::from_secs(5)).await?;
    /// println!("{:?}", answer.payload());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SubscribeError::NeedsV5`], or why there is no subscription.
    pub async fn requester(&self) -> Result<Requester, SubscribeError> {
        if !self.shared().lock().machine.settings().version.is_v5() {
            return Err(SubscribeError::NeedsV5);
        }
        let connected = self.connected().await.map_err(|_| SubscribeError::Ended)?;
        let mut random = [0; 8];
        // Without randomness the Client Identifier keeps the topics of two clients apart.
        let _ = getrandom::fill(&mut random);
        let unique = u64::from_le_bytes(random);
        let base = connected.response_information.as_deref().unwrap_or("response");
        let own = connected.client_id.replace(['/', '+', '#'], "_");
        let response_topic: Arc<str> = format!("{}/{own}/{unique:016x}", base.trim_end_matches('/')).into();
        let mut subscribe = Subscribe::new(&*response_topic, QoS::AtLeastOnce);
        // Answers that come when nobody asks any more must not hold up the acknowledgements of other streams.
        subscribe.acknowledged_at_once = true;
        let subscription = self.subscribe(subscribe).await?;
        let inner = Inner { subscription, next: unique, waiting: HashMap::new() };
        Ok(Requester { client: self.clone(), inner: Arc::new(Mutex::new(inner)), response_topic })
    }
}

impl Requester {
    /// Where the answers come.
    pub fn response_topic(&self) -> &str {
        &self.response_topic
    }

    /// Publishes `message` with a Response Topic and Correlation Data, and returns the first answer. QoS 1 lets the broker say
    /// that nobody is there to answer.
    ///
    /// When the future is dropped, an answer that still comes is ignored.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(&self, message: Message, timeout: Duration) -> Result<Received, RequestError> {
        let number = {
            let mut inner = self.lock();
            inner.next = inner.next.wrapping_add(1);
            let number = inner.next;
            inner.waiting.insert(number, Slot::Waiting(None));
            number
        };
        let waiting = Waiting { requester: self, number };
        let message = message.response_topic(&self.response_topic).correlation_data(&number.to_be_bytes());
        let answer = async {
            let published = self.client.publish(message).await?;
            if published.reason_code == pantala_proto::ReasonCode::NoMatchingSubscribers {
                return Err(RequestError::NoResponder);
            }
            waiting.answer().await
        };
        tokio::time::timeout(timeout, answer).await.unwrap_or(Err(RequestError::TimedOut))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting<'r> {
    requester: &'r Requester,
    number: u64,
}

impl Waiting<'_> {
    /// Whoever waits takes the answers that have come, of all.
    async fn answer(&self) -> Result<Received, RequestError> {
        poll_fn(|context| {
            let mut inner = self.requester.lock();
            let inner = &mut *inner;
            loop {
                if let Some(Slot::Answered(_)) = inner.waiting.get(&self.number) {
                    let Some(Slot::Answered(answer)) = inner.waiting.remove(&self.number) else { continue };
                    inner.wake_one();
                    return Poll::Ready(Ok(answer));
                }
                match inner.subscription.poll_recv(context) {
                    Poll::Ready(Ok(answer)) => inner.answered(answer),
                    Poll::Ready(Err(ended)) => {
                        inner.waiting.values_mut().for_each(Slot::wake);
                        return Poll::Ready(Err(ended.into()));
                    }
                    Poll::Pending => break,
                }
            }
            if let Some(Slot::Waiting(waker)) = inner.waiting.get_mut(&self.number) {
                *waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut inner = self.requester.lock();
        inner.waiting.remove(&self.number);
        // The stream may have known only this task.
        inner.wake_one();
    }
}

impl Inner {
    fn answered(&mut self, answer: Received) {
        let number = answer.properties().correlation_data().and_then(|data| data.try_into().ok());
        let Some(slot) = number.and_then(|data| self.waiting.get_mut(&u64::from_be_bytes(data))) else { return };
        if matches!(slot, Slot::Waiting(_)) {
            slot.wake();
            *slot = Slot::Answered(answer);
        }
    }

    /// Has somebody else look at the stream.
    fn wake_one(&mut self) {
        if let Some(slot) = self.waiting.values_mut().find(|slot| matches!(slot, Slot::Waiting(Some(_)))) {
            slot.wake();
        }
    }
}

impl Slot {
    fn wake(&mut self) {
        if let Self::Waiting(waker) = self
            && let Some(waker) = waker.take()
        {
            waker.wake();
        }
    }
}
