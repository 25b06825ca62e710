//! Request and response (v5 section 4.10).

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use pantala_proto::QoS;

use super::shared::Wakers;
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
    /// When the future is dropped, the subscription ends as if a stream had been dropped. It has no time limit of its own: without
    /// a connection it waits for one.
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
    /// When the future is dropped, or the time is over, an answer that still comes is ignored; the question may still go out, if it
    /// waits for a connection. [`Message::message_expiry_interval`] prevents that.
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
            // In this order, so that they are woken when the lock is free.
            let mut woken = Wakers::default();
            let mut inner = self.requester.lock();
            let inner = &mut *inner;
            loop {
                if let Some(Slot::Answered(_)) = inner.waiting.get(&self.number) {
                    let Some(Slot::Answered(answer)) = inner.waiting.remove(&self.number) else { continue };
                    woken.extend(inner.next_waker());
                    return Poll::Ready(Ok(answer));
                }
                match inner.subscription.poll_recv(context) {
                    Poll::Ready(Ok(answer)) => woken.extend(inner.answered(answer)),
                    Poll::Ready(Err(ended)) => {
                        woken.extend(inner.waiting.values_mut().filter_map(Slot::take_waker));
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
        let mut woken = Wakers::default();
        let mut inner = self.requester.lock();
        inner.waiting.remove(&self.number);
        // The stream may have known only this task.
        woken.extend(inner.next_waker());
    }
}

impl Inner {
    /// Who waits for this answer.
    fn answered(&mut self, answer: Received) -> Option<Waker> {
        let number = answer.properties().correlation_data()?.try_into().ok()?;
        let slot = self.waiting.get_mut(&u64::from_be_bytes(number))?;
        let waker = slot.take_waker();
        if matches!(slot, Slot::Waiting(_)) {
            *slot = Slot::Answered(answer);
        }
        waker
    }

    /// Who is to look at the stream now.
    fn next_waker(&mut self) -> Option<Waker> {
        self.waiting.values_mut().find_map(Slot::take_waker)
    }
}

impl Slot {
    fn take_waker(&mut self) -> Option<Waker> {
        match self {
            Self::Waiting(waker) => waker.take(),
            Self::Answered(_) => None,
        }
    }
}
