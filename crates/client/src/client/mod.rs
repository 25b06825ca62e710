//! The client: a handle, its streams, and the task behind them.

mod backoff;
mod driver;
mod options;
#[cfg(test)]
mod outbox_tests;
mod queue;
mod requester;
mod shared;
mod subscription;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use pantala_proto::ReasonCode;
use pantala_store::disk::Disk;

pub use backoff::Reconnect;
pub use driver::Io;
pub use options::{Options, OptionsError};
pub use queue::Overflow;
pub use requester::{RequestError, Requester};
pub use shared::Status;
pub use subscription::{Ended, Received, Subscribe, Subscription};

use crate::error::{ConnectionError, PublishError, SubscribeError};
use crate::machine::{
    Accepted, Answered, Connected, DisconnectRequest, Machine, Offered, Published, SubscribeRequest, Token,
    UnsubscribeRequest,
};
use crate::outbox::{Keeper, Outbox, OutboxError, OutboxOptions, OutboxReport, Position, Recovered};
use crate::transport::ConnectError;
use crate::{Message, QoS};
use driver::{Clock, Driver};
use queue::Queue;
use shared::{Outcome, Shared, State};

/// A stream of bytes to a broker.
pub type BoxedStream = Box<dyn Io>;

/// Makes the network connections of a client. [`Options`] have one for every kind of URL; whoever has a transport of their own
/// brings theirs.
pub trait Connector: Send + Sync + 'static {
    /// One attempt. May be dropped before it ends. There is no time limit but its own: while it takes, the client is
    /// [`Status::Connecting`], and makes no other attempt. If it panics, the client ends.
    fn connect(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Result<BoxedStream, ConnectError>> + Send>>;

    /// A connector to the server that a Server Reference names; None if it cannot be followed, which is the default.
    fn redirected(&self, server_reference: &str) -> Option<Redirected> {
        let _ = server_reference;
        None
    }
}

/// Where a Server Reference leads.
pub struct Redirected {
    /// The way there.
    pub connector: Arc<dyn Connector>,
    /// Whether it is the same host: credentials may be taken along.
    pub same_host: bool,
}

/// A client of one broker, with a task of its own that keeps the connection. A handle: clones are the same client.
///
/// Every method can be called from anywhere, also while a message is being handled: the task never waits for the program, with
/// one exception that has to be asked for ([`Overflow::Wait`]).
///
/// When the last handle and the last [`Subscription`] are dropped, DISCONNECT is sent and the client ends. What has not been
/// acknowledged then is lost to this program; await [`Client::publish`] or [`Client::settled`] before, or have an
/// [`outbox`](Options::outbox).
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

/// Ends the client when nobody has one any more.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stop.get_or_insert_default();
        state.wake_driver();
    }
}

impl Client {
    /// Connects, and stays connected: when the connection is lost, a new one is made as [`Reconnect`] says.
    ///
    /// Dropping the future ends the client.
    ///
    /// # Errors
    /// Why the first connection did not come about. With [`Reconnect::retry_first`] only what another attempt would not change: it
    /// waits for as long as it takes, also with a wrong password or a certificate that is not trusted.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect(options: Options) -> Result<Self, ConnectionError> {
        let client = Self::start(options);
        client.connected().await?;
        Ok(client)
    }

    /// As [`Client::connect`], without waiting for the connection: what is asked of the client meanwhile waits for it.
    ///
    /// With an [`outbox`](Options::outbox), it is opened and read before this returns, which blocks: some ms, and more for
    /// many messages. Without success the client has [`Status::Ended`], with [`ConnectionError::Outbox`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(options: Options) -> Self {
        Self::start_with(options, Keeper::open)
    }

    fn start_with<D: Disk>(
        options: Options,
        open: impl FnOnce(&OutboxOptions, &str) -> Result<(Keeper<D>, Recovered), OutboxError>,
    ) -> Self {
        let Options { session, reconnect, outbox, connector, authenticator, follow_redirects, observer } = options;
        let mut machine = Machine::new(session);
        machine.report_writes();
        if let Some(observer) = observer {
            machine = machine.with_observer(observer);
        }
        if let Some(authenticator) = authenticator {
            machine = machine.with_authenticator(authenticator);
            machine.defer_authentication();
        }
        let Some(outbox) = outbox else {
            let clock = Clock::start();
            let shared = Arc::new(Shared::new(machine, clock, None));
            return Self::drive(Driver::new(shared, connector, reconnect, follow_redirects, clock));
        };
        let clock = Clock::start_at_wall_time();
        let opened = crate::outbox::check(machine.settings())
            .and_then(|()| open(&outbox, &machine.settings().client_id))
            .and_then(|(keeper, recovered)| {
                // At least 1 each, as the machine has it.
                machine.settings_mut().queue_messages_max = outbox.messages_max;
                machine.settings_mut().queue_bytes_max = outbox.bytes_max;
                machine.keep_journal();
                if recovered.existed {
                    machine.restore(recovered.kept, recovered.opened);
                }
                Outbox::start(keeper, recovered.report)
            });
        match opened {
            Ok(outbox) => {
                let shared = Arc::new(Shared::new(machine, clock, Some(outbox)));
                Self::drive(Driver::new(shared, connector, reconnect, follow_redirects, clock))
            }
            Err(error) => {
                let shared = Arc::new(Shared::new(machine, clock, None));
                shared.lock().end(Some(Arc::new(ConnectionError::Outbox(error))));
                Self { handle: Arc::new(Handle { shared }) }
            }
        }
    }

    fn drive(driver: Driver) -> Self {
        let shared = driver.shared.clone();
        tokio::spawn(driver.run());
        Self { handle: Arc::new(Handle { shared }) }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Waits until the broker has taken us in. May be dropped at any time.
    ///
    /// # Errors
    /// Why the client has ended.
    pub async fn connected(&self) -> Result<Arc<Connected>, ConnectionError> {
        poll_fn(|context| {
            let mut state = self.shared().lock();
            if let Some(error) = state.why_over() {
                return Poll::Ready(Err(error));
            }
            if let Status::Connected(connected) = &state.status {
                return Poll::Ready(Ok(connected.clone()));
            }
            state.wait_for_status(context);
            Poll::Pending
        })
        .await
    }

    /// How it stands now.
    pub fn status(&self) -> Status {
        self.shared().lock().status.clone()
    }

    /// How it stands, at each change: for programs that show it. Who looks late sees only the last one.
    pub fn changes(&self) -> Changes {
        Changes { shared: self.shared().clone(), seen: 0 }
    }

    /// Publishes a message, and waits until the broker has it: until PUBACK at QoS 1 and PUBCOMP at QoS 2, over as many
    /// connections as it takes. At QoS 0 until it has been handed to the connection. Waits for room first if too much waits
    /// already.
    ///
    /// ```no_run
    /// # use pantala_client::{Client, Message, QoS, ReasonCode};
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let published = client.publish(Message::new("orders/7", "paid").qos(QoS::ExactlyOnce)).await?;
    /// if published.reason_code == ReasonCode::NoMatchingSubscribers {
    ///     println!("nobody has subscribed");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// When the future is dropped while it waits for room, the message is not published; later, it is, and only the answer is
    /// lost. It has no time limit of its own: without a connection it waits for one. Who wants a limit has `tokio::time::timeout`,
    /// and [`Message::message_expiry_interval`] for a message that is to go out in time or not at all.
    ///
    /// # Errors
    /// [`PublishError`]. [`PublishError::QueueFull`] is not among them.
    pub async fn publish(&self, mut message: Message) -> Result<Published, PublishError> {
        let mut request = Request { shared: self.shared(), token: None };
        poll_fn(|context| {
            let mut state = request.shared.lock();
            if let Some(token) = request.token {
                let outcome = ready!(state.poll_completion(token, context));
                request.token = None;
                return Poll::Ready(match outcome {
                    Outcome::Published(outcome) => outcome,
                    Outcome::Answered(_) => Err(PublishError::Ended),
                });
            }
            if state.is_over() {
                return Poll::Ready(Err(PublishError::Ended));
            }
            let token = state.next_token();
            match offer(&mut state, Offered::Given(&mut message), Some(token)) {
                Ok((Accepted::Sent, _)) => Poll::Ready(Ok(Published::SUCCESS)),
                Ok((Accepted::Pending, _)) => {
                    request.token = Some(state.begin_waiting(context));
                    Poll::Pending
                }
                // It was not taken: nothing is left of it if the future is dropped.
                Err(PublishError::QueueFull) => {
                    state.wait_for_room(context);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }

    /// Publishes a message without waiting for anything: for telemetry. It goes out as soon as it can, and at QoS 1 and 2 as
    /// often as it takes; nobody hears of its end.
    ///
    /// # Errors
    /// What is wrong with the message, [`PublishError::QueueFull`] if too much waits already, or [`PublishError::Ended`].
    pub fn try_publish(&self, message: &Message) -> Result<(), PublishError> {
        let mut state = self.shared().lock();
        if state.is_over() {
            return Err(PublishError::Ended);
        }
        offer(&mut state, Offered::Lent(message), None).map(|_| ())
    }

    /// Publishes a message, and waits until it is safe in the [`outbox`](Options::outbox), whether there is a connection or not:
    /// from then on it reaches the broker even if this program ends. At QoS 0, and without an outbox, until it is taken. Waits
    /// for room first if too much waits already.
    ///
    /// When the future is dropped while it waits for room, the message is not published; later, it may be.
    ///
    /// # Errors
    /// [`PublishError`], of those that can be known without the broker. [`PublishError::QueueFull`] is not among them.
    pub async fn enqueue(&self, mut message: Message) -> Result<(), PublishError> {
        let qos = message.qos;
        let mut kept = None;
        poll_fn(|context| {
            let mut state = self.shared().lock();
            let position = match kept {
                Some(position) => position,
                None if state.is_over() => return Poll::Ready(Err(PublishError::Ended)),
                None => match offer(&mut state, Offered::Given(&mut message), None) {
                    Err(PublishError::QueueFull) => {
                        state.wait_for_room(context);
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                    Ok((_, position)) => *kept.insert(position),
                },
            };
            match &state.outbox {
                Some(outbox) if qos != QoS::AtMostOnce => outbox.poll_safe(position, context).map_err(unkept),
                _ => Poll::Ready(Ok(())),
            }
        })
        .await
    }

    /// Messages of QoS 1 and 2 in the [`outbox`](Options::outbox), those in flight with them; 0 without one.
    pub fn outbox_len(&self) -> usize {
        self.shared().lock().machine.kept()
    }

    /// What was found in the [`outbox`](Options::outbox) when it was opened. None without one.
    pub fn outbox_report(&self) -> Option<OutboxReport> {
        self.shared().lock().outbox.as_ref().map(|outbox| outbox.report().clone())
    }

    /// Waits until every message that was taken before has been acknowledged, or sent at QoS 0; what is published meanwhile is
    /// not waited for. May be dropped at any time.
    ///
    /// # Errors
    /// The client has ended before.
    pub async fn settled(&self) -> Result<(), PublishError> {
        let mut mark = None;
        poll_fn(|context| {
            let mut state = self.shared().lock();
            let mark = *mark.get_or_insert_with(|| state.machine.mark());
            if state.machine.is_settled(mark) {
                return Poll::Ready(Ok(()));
            }
            if state.is_over() {
                return Poll::Ready(Err(PublishError::Ended));
            }
            state.wait_for_settled(mark, context);
            Poll::Pending
        })
        .await
    }

    /// Waits until every message that was taken before has been acknowledged, or at QoS 0 has gone out: until the operating system
    /// has it, however long that takes with a slow broker. May be dropped at any time.
    ///
    /// # Errors
    /// Why a connection ended before all was out, since this was answered last or since the client began: messages of QoS 0 may
    /// be lost. Also why the client has ended.
    pub async fn flushed(&self) -> Result<(), ConnectionError> {
        let mut mark = None;
        poll_fn(|context| {
            let mut state = self.shared().lock();
            let mark = *mark.get_or_insert_with(|| state.machine.mark());
            state.poll_flushed(mark, context)
        })
        .await
    }

    /// Subscribes, and returns the stream of the messages: see [`Subscribe`] for what can be asked, which a filter and a QoS
    /// turn into.
    ///
    /// ```no_run
    /// # use pantala_client::{Client, QoS, Subscribe};
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut orders = client.subscribe(Subscribe::new("orders/+", QoS::AtLeastOnce).acknowledge_by_hand()).await?;
    /// while let Ok(mut order) = orders.recv().await {
    ///     println!("{:?}", order.payload());
    ///     // The work is done; only now the broker may forget the message.
    ///     order.acknowledge();
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// When the future is dropped, the subscription ends as if the stream had been dropped. It has no time limit of its own:
    /// without a connection it waits for one.
    ///
    /// # Errors
    /// What is wrong with the request, or that the broker refused every filter; [`Subscription::granted`] has its answers.
    pub async fn subscribe(&self, subscribe: impl Into<Subscribe>) -> Result<Subscription, SubscribeError> {
        let subscribe = subscribe.into();
        let mut queue = Queue::new(subscribe.buffer, subscribe.overflow);
        queue.acknowledged_at_once = subscribe.acknowledged_at_once;
        let queue = Arc::new(queue);
        let mut requests = Vec::new();
        let mut subscription = Subscription::new(self.clone(), queue.clone(), subscribe.manual);
        {
            let mut state = self.shared().lock();
            if state.is_over() {
                return Err(SubscribeError::Ended);
            }
            let names = subscribe.names();
            let identifiers = state.identifiers_for(&names);
            let packets = subscribe.packets(&identifiers);
            state.machine.check_subscribe(&subscribe.packet(), packets.len())?;
            let now = state.now;
            for packet in packets {
                let token = state.begin();
                requests.push(Request { shared: self.shared(), token: Some(token) });
                state.machine.subscribe(now, packet, token)?;
            }
            // Messages may come before SUBACK does.
            state.add_route(&names, &identifiers, subscribe.replays(), &queue);
            for token in requests.iter().filter_map(|request| request.token) {
                state.begins_with(token, queue.clone());
            }
            state.dispatch();
            state.wake_driver();
        }
        subscription.set_granted(all_answered(requests).await?);
        Ok(subscription)
    }

    /// The stream of all messages that no other stream is for: those of a Session from before this program began, and those of
    /// streams that were dropped. There is one; asking again ends the one before, with [`Ended::Replaced`].
    ///
    /// Without it such messages wait, unacknowledged at QoS 1 and 2, until somebody subscribes with the filter that they came
    /// for; of QoS 0 the last 1 000.
    pub fn unclaimed(&self) -> Subscription {
        self.unclaimed_with(&Subscribe::default())
    }

    /// As [`Client::unclaimed`], with a buffer, a rule for overflow and a way of acknowledging; filters say nothing here.
    pub fn unclaimed_with(&self, how: &Subscribe) -> Subscription {
        let mut queue = Queue::new(how.buffer, how.overflow);
        queue.acknowledged_at_once = how.acknowledged_at_once;
        let queue = Arc::new(queue);
        self.shared().lock().set_catch_all(&queue);
        Subscription::new(self.clone(), queue, how.manual)
    }

    /// Subscribes without a stream: what comes goes to [`Client::unclaimed`], together with what a Session of before has. For
    /// programs that take everything from one place, and that choose the Subscription Identifier, or none, themselves.
    ///
    /// When the future is dropped, the request goes out all the same. It has no time limit of its own: without a connection it
    /// waits for one.
    ///
    /// # Errors
    /// What is wrong with the request, or that the broker refused every filter.
    pub async fn subscribe_only(&self, request: SubscribeRequest) -> Result<Answered, SubscribeError> {
        let mut waiting = Request { shared: self.shared(), token: None };
        {
            let mut state = self.shared().lock();
            if state.is_over() {
                return Err(SubscribeError::Ended);
            }
            let token = state.begin();
            let now = state.now;
            if let Err(error) = state.machine.subscribe(now, request, token) {
                state.forget(token);
                return Err(error);
            }
            waiting.token = Some(token);
            state.dispatch();
            state.wake_driver();
        }
        waiting.answered().await
    }

    /// Ends subscriptions, also those of an earlier program. When the broker has said yes, streams with these filters get nothing
    /// more by them, and one whose filters are all gone ends with [`Ended::Unsubscribed`], once what it holds is taken. One that
    /// is dropped needs no call, see [`Subscription`].
    ///
    /// When the future is dropped, the request goes out all the same. It has no time limit of its own: without a connection it
    /// waits for one.
    ///
    /// # Errors
    /// What is wrong with the request, or that the broker refused every filter.
    pub async fn unsubscribe(
        &self,
        filters: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Answered, SubscribeError> {
        self.end_subscriptions(UnsubscribeRequest::of(filters.into_iter().map(Into::into).collect()), None).await
    }

    /// As [`Client::unsubscribe`], also when it is dropped, with User Properties (MQTT 5).
    ///
    /// # Errors
    /// What is wrong with the request, or that the broker refused every filter.
    pub async fn unsubscribe_with(&self, request: UnsubscribeRequest) -> Result<Answered, SubscribeError> {
        self.end_subscriptions(request, None).await
    }

    /// `stream` is the one that ends with them.
    async fn end_subscriptions(
        &self,
        packet: UnsubscribeRequest,
        stream: Option<&Arc<Queue>>,
    ) -> Result<Answered, SubscribeError> {
        let mut request = Request { shared: self.shared(), token: None };
        {
            let mut state = self.shared().lock();
            if state.is_over() {
                return Err(SubscribeError::Ended);
            }
            let token = state.begin();
            let now = state.now;
            let filters = stream.is_none().then(|| packet.filters.clone());
            if let Err(error) = state.machine.unsubscribe(now, packet, token) {
                state.forget(token);
                if let Some(stream) = stream {
                    state.remove_route(stream);
                }
                return Err(error);
            }
            request.token = Some(token);
            if let Some(stream) = stream {
                state.ends_with(token, stream.clone());
            }
            if let Some(filters) = filters {
                state.filters_end_with(token, filters);
            }
            state.dispatch();
            state.wake_driver();
        }
        request.answered().await
    }

    /// Proves again who we are, by the [`Authenticator`](crate::authentication::Authenticator) of the options: before a token
    /// ends. If the broker refuses, it ends the connection. Does nothing without a connection, and while the broker waits for
    /// an answer of an exchange before.
    pub fn reauthenticate(&self) {
        let mut state = self.shared().lock();
        state.machine.reauthenticate();
        state.dispatch();
        state.wake_driver();
    }

    /// Ends the connection with DISCONNECT, and the client with it, and waits until that is done. What waits to be sent is not
    /// waited for: see [`Client::settled`].
    ///
    /// All other futures and the streams of the client end at once; an [`outbox`](Options::outbox) is written first, however long
    /// its disk takes, and is free for another client then. DISCONNECT is behind what was sent before, of which some may wait for
    /// that disk: if it takes more than two seconds, the connection is closed without, and the broker publishes the Will.
    ///
    /// When the future is dropped, the client ends all the same.
    pub async fn disconnect(&self) {
        self.disconnect_with(ReasonCode::Success, None).await;
    }

    /// As [`Client::disconnect`], with a reason and another Session Expiry Interval (MQTT 5).
    /// [`ReasonCode::DisconnectWithWillMessage`] has the broker publish the Will. An interval is ignored if CONNECT had 0.
    pub async fn disconnect_with(&self, reason_code: ReasonCode, session_expiry_interval: Option<Duration>) {
        let request = DisconnectRequest { reason_code, session_expiry_interval, ..DisconnectRequest::default() };
        self.disconnect_saying(request).await;
    }

    /// As [`Client::disconnect`], with all that DISCONNECT can say (MQTT 5).
    pub async fn disconnect_saying(&self, request: DisconnectRequest) {
        {
            let mut state = self.shared().lock();
            state.stop.get_or_insert_with(|| Box::new(request));
            state.wake_driver();
        }
        poll_fn(|context| {
            let mut state = self.shared().lock();
            if state.has_ended() {
                return Poll::Ready(());
            }
            state.wait_for_status(context);
            Poll::Pending
        })
        .await;
    }

    /// QoS 0 messages that came for no stream and found no room to wait.
    pub fn unclaimed_dropped(&self) -> u64 {
        self.shared().lock().unclaimed_dropped()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Gives a message to the machine, and has the task write it. Also where in the outbox it is.
fn offer(state: &mut State, message: Offered<'_>, token: Option<Token>) -> Result<(Accepted, Position), PublishError> {
    if !message.message().properties().is_empty() {
        // From now on it may expire, and the task may have slept for long.
        state.now = state.clock.now();
    }
    let now = state.now;
    let accepted = state.machine.publish_offered(now, message, token)?;
    if state.machine.output_len() > 0 {
        state.wake_driver();
    }
    let position = state.keep().map_err(unkept)?;
    Ok((accepted, position))
}

fn unkept(error: OutboxError) -> PublishError {
    match error {
        OutboxError::Closed => PublishError::Ended,
        error => PublishError::Outbox(error),
    }
}

/// What was answered to the requests that one SUBSCRIBE became: an error only if all filters were refused.
async fn all_answered(requests: Vec<Request<'_>>) -> Result<Answered, SubscribeError> {
    let several = requests.len() > 1;
    let mut all = Answered::default();
    let mut refused = None;
    for request in requests {
        let Answered { reason_codes, details } = match request.answered().await {
            Ok(answered) => answered,
            Err(SubscribeError::Refused(refusal)) if several => {
                let refusal = refused.insert(refusal);
                Answered { reason_codes: vec![refusal.reason_code], details: refusal.details.clone() }
            }
            Err(error) => return Err(error),
        };
        all.reason_codes.extend(reason_codes);
        if all.details.is_empty() {
            all.details = details;
        }
    }
    match refused {
        Some(refusal) if all.reason_codes.iter().all(|code| code.is_error()) => Err(SubscribeError::Refused(refusal)),
        _ => Ok(all),
    }
}

/// A request that was taken, until its answer.
struct Request<'c> {
    shared: &'c Shared,
    token: Option<Token>,
}

impl Request<'_> {
    async fn outcome(mut self) -> Outcome {
        let outcome = poll_fn(|context| match self.token {
            Some(token) => self.shared.lock().poll_completion(token, context),
            None => Poll::Ready(Outcome::Published(Err(PublishError::Ended))),
        })
        .await;
        self.token = None;
        outcome
    }

    async fn answered(self) -> Result<Answered, SubscribeError> {
        match self.outcome().await {
            Outcome::Answered(outcome) => outcome,
            Outcome::Published(_) => Err(SubscribeError::Ended),
        }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.shared.lock().abandon(token);
        }
    }
}

/// See [`Client::changes`].
pub struct Changes {
    shared: Arc<Shared>,
    seen: u64,
}

impl Changes {
    /// The status, when it is another than the last one that was returned; the first time at once. None after
    /// [`Status::Ended`]. May be dropped at any time.
    pub async fn next(&mut self) -> Option<Status> {
        poll_fn(|context| {
            let mut state = self.shared.lock();
            // The first status is number 0; `seen` counts from 1.
            if state.status_version + 1 > self.seen {
                self.seen = state.status_version + 1;
                return Poll::Ready(Some(state.status.clone()));
            }
            if state.has_ended() {
                return Poll::Ready(None);
            }
            state.wait_for_status(context);
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    struct Nowhere;

    impl Connector for Nowhere {
        fn connect(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Result<BoxedStream, ConnectError>> + Send>> {
            Box::pin(std::future::pending())
        }
    }

    /// A future that was dropped while it waited for room left its place behind for ever.
    #[tokio::test]
    async fn dropped_futures_leave_nothing_behind() {
        let mut options = Options::with_connector(Nowhere);
        options.session.queue_messages_max = 1;
        let client = Client::start(options);
        client.try_publish(&Message::new("t", "")).unwrap();
        for _ in 0..100 {
            let mut publishing = Box::pin(client.publish(Message::new("t", "")));
            assert!(publishing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(client.shared().lock().requests(), 0);
    }
}
