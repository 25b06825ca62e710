//! Streams of messages.

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use pantala_proto::{QoS, ReasonCode, RetainHandling, SubscriptionOptions};

use super::Client;
use super::queue::{Closed, Overflow, Queue};
use super::shared::{Replays, Shared};
use crate::error::{Refusal, SubscribeError};
use crate::machine::{Answered, Details, Inbound, SubscribeRequest, Token, UnsubscribeRequest};
use crate::message::Properties;

/// What to subscribe to. A filter alone, and a filter with a QoS, turn into one:
///
/// ```
/// use pantala_client::{QoS, Subscribe};
///
/// let plain: Subscribe = "sensors/+/temperature".into();
/// let durable = Subscribe::new("orders/#", QoS::ExactlyOnce).filter("refunds/#", QoS::AtLeastOnce).acknowledge_by_hand();
/// ```
#[derive(Debug, Clone)]
pub struct Subscribe {
    filters: Vec<(String, SubscriptionOptions)>,
    user_properties: Vec<(String, String)>,
    pub(super) buffer: usize,
    pub(super) overflow: Overflow,
    pub(super) manual: bool,
    /// Nobody has to take a message for the broker to hear that it came.
    pub(super) acknowledged_at_once: bool,
}

impl Default for Subscribe {
    fn default() -> Self {
        Self {
            filters: Vec::new(),
            user_properties: Vec::new(),
            buffer: 1_000,
            overflow: Overflow::default(),
            manual: false,
            acknowledged_at_once: false,
        }
    }
}

impl Subscribe {
    /// The messages that `filter` matches, at `qos` at most.
    pub fn new(filter: impl Into<String>, qos: QoS) -> Self {
        Self::default().filter(filter, qos)
    }

    /// Adds a filter: one stream has the messages of all of them, in the order in which they come.
    #[must_use]
    pub fn filter(self, filter: impl Into<String>, qos: QoS) -> Self {
        self.filter_with(filter, SubscriptionOptions { qos, ..SubscriptionOptions::default() })
    }

    /// Adds a filter with options of its own; those beyond QoS are of MQTT 5.
    #[must_use]
    pub fn filter_with(mut self, filter: impl Into<String>, options: SubscriptionOptions) -> Self {
        self.filters.push((filter.into(), options));
        self
    }

    /// Our own messages stay away, for all filters so far. Default: they come too. MQTT 5.
    #[must_use]
    pub fn no_local(mut self) -> Self {
        self.filters.iter_mut().for_each(|(_, options)| options.no_local = true);
        self
    }

    /// Messages say whether they were published as retained, for all filters so far. Default: only those that were kept for us
    /// say so. MQTT 5.
    #[must_use]
    pub fn retain_as_published(mut self) -> Self {
        self.filters.iter_mut().for_each(|(_, options)| options.retain_as_published = true);
        self
    }

    /// Whether Retained Messages come at the beginning, for all filters so far. Default: they do. MQTT 5.
    #[must_use]
    pub fn retain_handling(mut self, retain_handling: RetainHandling) -> Self {
        self.filters.iter_mut().for_each(|(_, options)| options.retain_handling = retain_handling);
        self
    }

    /// A pair for the broker. MQTT 5.
    #[must_use]
    pub fn user_property(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_properties.push((key.into(), value.into()));
        self
    }

    /// QoS 0 messages that the stream holds before [`Overflow`] says what happens. At least 1. Default: 1 000. How many of QoS 1
    /// and 2 there can be is [`SessionSettings::receive_maximum`](crate::machine::SessionSettings::receive_maximum).
    #[must_use]
    pub fn buffer(mut self, messages: usize) -> Self {
        self.buffer = messages.max(1);
        self
    }

    /// What happens to QoS 0 messages that find no room.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// A message counts as acknowledged when [`Received::acknowledge`] is called, in any order; the broker hears of it in the
    /// order of the messages. Default: when the next one is asked for.
    #[must_use]
    pub fn acknowledge_by_hand(mut self) -> Self {
        self.manual = true;
        self
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.filters.iter().map(|(filter, _)| filter.clone()).collect()
    }

    /// The packet, without an identifier.
    pub(super) fn packet(&self) -> SubscribeRequest {
        let (filters, user_properties) = (self.filters.clone(), self.user_properties.clone());
        SubscribeRequest { filters, identifier: None, user_properties }
    }

    /// The packets, with an identifier for each filter: one if they all have the same, else one for each filter.
    pub(super) fn packets(&self, identifiers: &[NonZeroU32]) -> Vec<SubscribeRequest> {
        if identifiers.iter().all(|identifier| identifiers.first() == Some(identifier)) {
            return vec![SubscribeRequest { identifier: identifiers.first().copied(), ..self.packet() }];
        }
        let packet = |(filter, identifier): (&(String, SubscriptionOptions), &NonZeroU32)| SubscribeRequest {
            filters: vec![filter.clone()],
            identifier: Some(*identifier),
            user_properties: self.user_properties.clone(),
        };
        self.filters.iter().zip(identifiers).map(packet).collect()
    }

    pub(super) fn replays(&self) -> Replays {
        let mut options = self.filters.iter().map(|(_, options)| options);
        if options.clone().any(|options| options.retain_as_published) {
            Replays::AsPublished
        } else if options.all(|options| options.retain_handling == RetainHandling::DoNotSend) {
            Replays::Unwanted
        } else {
            Replays::Wanted
        }
    }
}

impl From<&str> for Subscribe {
    fn from(filter: &str) -> Self {
        Self::new(filter, QoS::AtMostOnce)
    }
}

impl<S: Into<String>> From<(S, QoS)> for Subscribe {
    fn from((filter, qos): (S, QoS)) -> Self {
        Self::new(filter, qos)
    }
}

/// The messages of a subscription, in the order in which they came.
///
/// Unless it is to be done by hand, a message counts as acknowledged when the next one is asked for: a program that fails while it
/// works on one gets it again.
///
/// # Streams that overlap
///
/// A message that several streams of a client match comes to each of them once, whatever the broker does, where the broker
/// tells which subscriptions a copy is for: with Subscription Identifiers (MQTT 5). Else all that can be known of a copy is its
/// Topic Name:
///
/// - A broker may send one copy of a message to a client, or one for each subscription that matches (v5 MQTT-3.3.4-2,
///   v3.1.1 MQTT-3.3.5-1). Of two copies and two messages with the same content nothing tells which they are, so each copy goes to
///   each stream that matches: with a broker that sends several, and without Subscription Identifiers, a stream gets a message
///   once for each overlapping filter of the client's streams. Filters that are equal are one subscription, and no such case.
/// - The filters of one stream have one identifier. If they overlap, and the broker sends a copy for each, it gets all of them.
/// - Retained Messages that the broker sends since another stream has subscribed come only to those that have not had one of the
///   same topic since they subscribed, for the first 10 000 topics of each stream. After a lost Session, and without Subscription
///   Identifiers, one may come once for each overlapping filter.
/// - What a dropped stream leaves in a Session that outlives its connection goes to one that subscribes later, or to
///   [`Client::unclaimed`], and not a second time to those that had it already.
///
/// When it is dropped and the Session ends with its connection, so does the subscription. In a Session that outlives its connection
/// the subscription stays, with what comes for it: [`Subscription::unsubscribe`] ends it.
pub struct Subscription {
    client: Client,
    queue: Arc<Queue>,
    manual: bool,
    granted: Answered,
    /// The message that was returned last, if it is still to be acknowledged.
    last: Option<Token>,
    unsubscribed: bool,
}

/// Why a stream has ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The client has ended.
    #[error("the client has ended")]
    Client,
    /// The broker had lost the Session and did not let us subscribe again to one of the filters, or it does not take such a filter
    /// any more.
    #[error("the broker did not let us subscribe again: {0}")]
    Refused(Refusal),
    /// All its filters were unsubscribed, with [`Client::unsubscribe`].
    #[error("its filters were unsubscribed")]
    Unsubscribed,
    /// It was for what no other stream is for ([`Client::unclaimed`]), and somebody has asked for that again.
    #[error("another stream takes the unclaimed messages now")]
    Replaced,
}

impl From<Closed> for Ended {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Client => Self::Client,
            Closed::Refused(refusal) => Self::Refused(refusal),
            Closed::Unsubscribed => Self::Unsubscribed,
            Closed::Replaced => Self::Replaced,
        }
    }
}

impl Subscription {
    pub(super) fn new(client: Client, queue: Arc<Queue>, manual: bool) -> Self {
        Self { client, queue, manual, granted: Answered::default(), last: None, unsubscribed: false }
    }

    pub(super) fn set_granted(&mut self, granted: Answered) {
        self.granted = granted;
    }

    /// The broker's answer for each filter, in their order: the QoS granted, or an error.
    pub fn granted(&self) -> &[ReasonCode] {
        &self.granted.reason_codes
    }

    /// What the broker said besides.
    pub fn details(&self) -> &Details {
        &self.granted.details
    }

    /// The next message. May be dropped at any time: no message is lost by it.
    ///
    /// # Errors
    /// Nothing more will come.
    pub async fn recv(&mut self) -> Result<Received, Ended> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// As [`Subscription::recv`], for futures written by hand.
    ///
    /// # Errors
    /// Nothing more will come.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Result<Received, Ended>> {
        self.acknowledge();
        match self.queue.poll_pop(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(closed)) => Poll::Ready(Err(closed.into())),
            Poll::Ready(Ok((message, room))) => {
                let shared = self.client.shared();
                if room {
                    shared.lock().wake_driver();
                }
                let token = message.acknowledgement;
                let by_hand = token.filter(|_| self.manual).map(|token| (shared.clone(), token));
                self.last = token.filter(|_| !self.manual);
                Poll::Ready(Ok(Received { message, by_hand }))
            }
        }
    }

    /// Acknowledges the message that was returned last, without asking for the next one.
    pub fn acknowledge(&mut self) {
        if let Some(token) = self.last.take() {
            acknowledge(self.client.shared(), token);
        }
    }

    /// QoS 0 messages that found no room here.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Ends the subscription. What the stream still held counts as taken.
    ///
    /// When the future is dropped, the request goes out all the same.
    ///
    /// # Errors
    /// The broker refused, or the client has ended.
    pub async fn unsubscribe(mut self) -> Result<Answered, SubscribeError> {
        self.acknowledge();
        self.unsubscribed = true;
        let filters = {
            let mut state = self.client.shared().lock();
            let filters = state.end_stream(&self.queue);
            state.wake_driver();
            filters
        };
        if filters.is_empty() {
            return Ok(Answered::default());
        }
        self.client.end_subscriptions(UnsubscribeRequest::of(filters), Some(&self.queue)).await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.unsubscribed {
            self.client.shared().lock().stream_dropped(&self.queue);
        }
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Subscription").field("granted", &self.granted).finish_non_exhaustive()
    }
}

/// Ends when nothing more will come; [`Subscription::recv`] says why.
impl Stream for Subscription {
    type Item = Received;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Received>> {
        self.poll_recv(context).map(Result::ok)
    }
}

fn acknowledge(shared: &Shared, token: Token) {
    let mut state = shared.lock();
    state.machine.acknowledge(token);
    // A failure of the outbox ends the client, and is told so.
    drop(state.keep());
    if state.machine.output_len() > 0 {
        state.wake_driver();
    }
}

/// A message that came.
pub struct Received {
    message: Inbound,
    by_hand: Option<(Arc<Shared>, Token)>,
}

impl Received {
    /// Its Topic Name.
    pub fn topic_name(&self) -> &str {
        &self.message.topic_name
    }

    /// Its payload; cheap to clone.
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }

    /// The QoS it came with.
    pub fn qos(&self) -> QoS {
        self.message.qos
    }

    /// Whether the broker had kept it for us; with Retain As Published, whether it was published so.
    pub fn retain(&self) -> bool {
        self.message.retain
    }

    /// Whether it may have come before. At QoS 1 only.
    pub fn dup(&self) -> bool {
        self.message.dup
    }

    /// The Packet Identifier it came with, 0 at QoS 0. It says nothing but what a broker's log may say too.
    pub fn packet_id(&self) -> u16 {
        self.message.packet_id
    }

    /// Its properties; none before MQTT 5.
    pub fn properties(&self) -> &Properties {
        &self.message.properties
    }

    /// The message has been dealt with, where that is to be said by hand; does nothing elsewhere, at QoS 0, and a second time.
    pub fn acknowledge(&mut self) {
        if let Some((shared, token)) = self.by_hand.take() {
            acknowledge(&shared, token);
        }
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.message.fmt(formatter)
    }
}
