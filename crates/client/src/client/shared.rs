//! What the handles, the streams and the task of one client share, behind one lock that is never held while anything waits.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pantala_proto::TopicFilter;
use pantala_session::Instant;
use slab::Slab;

use super::driver::Clock;
use super::queue::{Closed, Queue, is_repeated, may_be_dropped};
use crate::error::{ConnectionError, PublishError, SubscribeError};
use crate::machine::{
    Answered, Connected, DisconnectRequest, Event, Inbound, Machine, Published, Token, UnsubscribeRequest,
};
use crate::outbox::{Outbox, OutboxError, Position};

/// QoS 0 messages that match no stream and wait for one; above it the oldest goes.
const UNCLAIMED_MAX: usize = 1_000;
/// Subscription Identifiers are 1..=268 435 455.
const IDENTIFIERS: u32 = 268_435_455;

/// How a client stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// A connection is being made.
    Connecting,
    /// The broker has taken us in.
    Connected(Arc<Connected>),
    /// The next attempt is due after a wait.
    Waiting {
        /// How the last connection, or the attempt at one, ended.
        error: Arc<ConnectionError>,
        /// How long the wait is.
        wait: Duration,
    },
    /// It has ended, and does not come back. None: because it was asked to.
    Ended(Option<Arc<ConnectionError>>),
}

/// What a request waits for.
enum Completion {
    Waiting(Option<Waker>),
    /// Nobody waits any more.
    Abandoned,
    Done(Outcome),
}

pub(super) enum Outcome {
    Published(Result<Published, PublishError>),
    Answered(Result<Answered, SubscribeError>),
}

/// Where the messages of a stream come from.
struct Route {
    /// Its own, and those of streams with one of its filters that are gone.
    identifiers: Vec<u32>,
    filters: Vec<String>,
    queue: Arc<Queue>,
}

impl Route {
    fn matches(&self, topic_name: &str) -> bool {
        self.filters.iter().any(|filter| matches(filter, topic_name))
    }

    fn shares_filter(&self, filters: &[String]) -> bool {
        self.filters.iter().any(|filter| filters.contains(filter))
    }

    fn is(&self, queue: &Arc<Queue>) -> bool {
        Arc::ptr_eq(&self.queue, queue)
    }
}

pub(super) struct State {
    pub(super) machine: Machine,
    pub(super) clock: Clock,
    /// The clock as it was read last.
    pub(super) now: Instant,
    /// Keeps what the machine records.
    pub(super) outbox: Option<Outbox>,
    /// The task, if it sleeps.
    driver: Option<Waker>,
    completions: Slab<Completion>,
    /// Who waits for room for a message.
    room: Vec<Waker>,
    /// Who waits until no message is left.
    settled: Vec<Waker>,
    routes: Vec<Route>,
    /// Nearly always a few, which a tree finds without hashing.
    by_identifier: BTreeMap<u32, Arc<Queue>>,
    /// Two streams have a filter in common.
    sharing: bool,
    /// Streams that are gone, until the broker has answered UNSUBSCRIBE.
    ending: Vec<(Token, Arc<Queue>)>,
    /// Takes what matches no stream.
    catch_all: Option<Arc<Queue>>,
    unclaimed: VecDeque<Inbound>,
    unclaimed_at_most_once: usize,
    unclaimed_dropped: u64,
    /// Streams with [`Overflow::Wait`](super::Overflow::Wait) that are full.
    full: Vec<Arc<Queue>>,
    pub(super) status: Status,
    /// Counts changes of `status`.
    pub(super) status_version: u64,
    status_wakers: Vec<Waker>,
    /// Somebody wants it to end, in this way.
    pub(super) stop: Option<Box<DisconnectRequest>>,
    /// Why the connection is over.
    pub(super) ended: Option<ConnectionError>,
}

pub(super) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn new(machine: Machine, clock: Clock, outbox: Option<Outbox>) -> Self {
        Self {
            state: Mutex::new(State {
                machine,
                clock,
                now: clock.now(),
                outbox,
                driver: None,
                completions: Slab::new(),
                room: Vec::new(),
                settled: Vec::new(),
                routes: Vec::new(),
                by_identifier: BTreeMap::new(),
                sharing: false,
                ending: Vec::new(),
                catch_all: None,
                unclaimed: VecDeque::new(),
                unclaimed_at_most_once: 0,
                unclaimed_dropped: 0,
                full: Vec::new(),
                status: Status::Connecting,
                status_version: 0,
                status_wakers: Vec::new(),
                stop: None,
                ended: None,
            }),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two calls into the machine; a panic of one task is not to end the others.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn is_over(&self) -> bool {
        matches!(self.status, Status::Ended(_))
    }

    /// The task has to look again.
    pub(super) fn wake_driver(&mut self) {
        if let Some(waker) = self.driver.take() {
            waker.wake();
        }
    }

    pub(super) fn driver_sleeps(&mut self, context: &Context<'_>) {
        if !self.driver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.driver = Some(context.waker().clone());
        }
    }

    pub(super) fn set_status(&mut self, status: Status) {
        self.status = status;
        self.status_version += 1;
        self.status_wakers.drain(..).for_each(Waker::wake);
    }

    pub(super) fn wait_for_status(&mut self, context: &Context<'_>) {
        add_waker(&mut self.status_wakers, context);
    }

    pub(super) fn wait_for_room(&mut self, context: &Context<'_>) {
        add_waker(&mut self.room, context);
    }

    pub(super) fn wait_for_settled(&mut self, context: &Context<'_>) {
        add_waker(&mut self.settled, context);
    }

    /// There may be room for messages again.
    pub(super) fn room_made(&mut self) {
        if !self.room.is_empty() && self.machine.has_room() {
            self.room.drain(..).for_each(Waker::wake);
        }
    }

    /// Hands what the machine has recorded to the outbox. What the machine has put out up to now may go out when the position
    /// is safe.
    pub(super) fn keep(&mut self) -> Result<Position, OutboxError> {
        match &self.outbox {
            None => Ok(0),
            Some(outbox) => outbox.submit(&mut self.machine),
        }
    }

    /// Up to where the outbox is safe.
    pub(super) fn safe(&self, context: &Context<'_>) -> Result<Position, OutboxError> {
        self.outbox.as_ref().map_or(Ok(0), |outbox| outbox.safe(context))
    }

    // Requests and their ends.

    pub(super) fn begin(&mut self) -> Token {
        self.completions.insert(Completion::Waiting(None)) as Token
    }

    /// Requests that have no end yet.
    #[cfg(test)]
    pub(super) fn requests(&self) -> usize {
        self.completions.len()
    }

    /// The request was not taken.
    pub(super) fn forget(&mut self, token: Token) {
        self.completions.try_remove(token as usize);
    }

    /// Nobody waits for the request any more; it goes on.
    pub(super) fn abandon(&mut self, token: Token) {
        match self.completions.get_mut(token as usize) {
            Some(Completion::Done(_)) => self.forget(token),
            Some(completion) => *completion = Completion::Abandoned,
            None => {}
        }
    }

    pub(super) fn poll_completion(&mut self, token: Token, context: &Context<'_>) -> Poll<Outcome> {
        match self.completions.get_mut(token as usize) {
            Some(Completion::Waiting(waker)) => {
                if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                    *waker = Some(context.waker().clone());
                }
                Poll::Pending
            }
            Some(Completion::Done(_)) => match self.completions.remove(token as usize) {
                Completion::Done(outcome) => Poll::Ready(outcome),
                _ => Poll::Pending,
            },
            Some(Completion::Abandoned) | None => Poll::Pending,
        }
    }

    fn complete(&mut self, token: Token, outcome: Outcome) {
        let Some(completion) = self.completions.get_mut(token as usize) else { return };
        match std::mem::replace(completion, Completion::Done(outcome)) {
            Completion::Waiting(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Completion::Abandoned => self.forget(token),
            Completion::Done(_) => {}
        }
    }

    /// Passes on what the machine has to say.
    pub(super) fn dispatch(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Message(message) => self.deliver(message),
                Event::Published { token, outcome } => self.complete(token, Outcome::Published(outcome)),
                Event::Subscribed { token, outcome } => self.complete(token, Outcome::Answered(outcome)),
                Event::Unsubscribed { token, outcome } => {
                    if let Some(at) = self.ending.iter().position(|(known, _)| *known == token) {
                        let (_, queue) = self.ending.swap_remove(at);
                        self.remove_route(&queue);
                    }
                    self.complete(token, Outcome::Answered(outcome));
                }
                Event::Connected(connected) => {
                    if connected.session_present {
                        self.forget_repeated();
                    }
                    self.set_status(Status::Connected(Arc::from(connected)));
                }
                Event::SubscriptionLost { filter, refusal } => {
                    for route in &self.routes {
                        if route.filters.contains(&filter) {
                            route.queue.close(Closed::Refused(refusal.clone()));
                        }
                    }
                }
                Event::Ended(error) => self.ended = Some(error),
            }
        }
        self.room_made();
        if !self.settled.is_empty() && self.machine.unsettled() == 0 {
            self.settled.drain(..).for_each(Waker::wake);
        }
    }

    /// The client has ended: everybody who waits is told.
    pub(super) fn end(&mut self, error: Option<Arc<ConnectionError>>) {
        let tokens: Vec<usize> = self.completions.iter().map(|(token, _)| token).collect();
        for token in tokens {
            // What kind of request it was matters only to the words: each future turns this into its own error.
            self.complete(token as Token, Outcome::Published(Err(PublishError::Ended)));
        }
        for route in self.routes.drain(..) {
            route.queue.close(Closed::Client);
        }
        if let Some(queue) = self.catch_all.take() {
            queue.close(Closed::Client);
        }
        self.by_identifier.clear();
        self.ending.clear();
        self.unclaimed.clear();
        self.set_status(Status::Ended(error));
        self.room.drain(..).for_each(Waker::wake);
        self.settled.drain(..).for_each(Waker::wake);
    }

    // Messages and streams.

    fn deliver(&mut self, message: Inbound) {
        match self.queues_for(&message) {
            (None, _) => self.leave_unclaimed(message),
            (Some(first), others) => {
                if let (Some(token), false) = (message.acknowledgement, others.is_empty()) {
                    self.machine.expect_acknowledgements(token, others.len() + 1);
                }
                others.iter().for_each(|queue| self.push(queue, message.clone()));
                self.push(&first, message);
            }
        }
    }

    /// The streams that a message is for: by its Subscription Identifiers, or else by what the filters match. The first is apart,
    /// since there is seldom another: an empty vector costs nothing.
    fn queues_for(&self, message: &Inbound) -> (Option<Arc<Queue>>, Vec<Arc<Queue>>) {
        let mut identifiers = message.properties.subscription_identifiers().peekable();
        if identifiers.peek().is_none() {
            let matching = self.routes.iter().filter(|route| route.matches(&message.topic_name));
            let mut queues = matching.map(|route| route.queue.clone());
            return (queues.next(), queues.collect());
        }
        let mut first: Option<Arc<Queue>> = None;
        let mut others: Vec<Arc<Queue>> = Vec::new();
        for queue in identifiers.filter_map(|identifier| self.by_identifier.get(&identifier.get())) {
            // An identifier comes more than once if several filters of one stream match (v5 section 3.3.4).
            if first.iter().chain(&others).any(|known| Arc::ptr_eq(known, queue)) {
                continue;
            }
            match first {
                None => first = Some(queue.clone()),
                Some(_) => others.push(queue.clone()),
            }
        }
        if self.sharing {
            let mut all: Vec<Arc<Queue>> = first.into_iter().chain(others).collect();
            self.add_sharing(&message.topic_name, &mut all);
            let mut all = all.into_iter();
            return (all.next(), all.collect());
        }
        (first, others)
    }

    /// The broker has one subscription for each filter, with the identifier it saw last: the other streams with that filter
    /// have its messages too.
    fn add_sharing(&self, topic_name: &str, queues: &mut Vec<Arc<Queue>>) {
        let named = |route: &&Route| queues.iter().any(|queue| route.is(queue));
        let filters = self.routes.iter().filter(named).flat_map(|route| &route.filters);
        let filters: Vec<String> = filters.filter(|filter| matches(filter, topic_name)).cloned().collect();
        let more = self.routes.iter().filter(|route| !named(route) && route.shares_filter(&filters));
        let more: Vec<_> = more.map(|route| route.queue.clone()).collect();
        queues.extend(more);
    }

    fn push(&mut self, queue: &Arc<Queue>, mut message: Inbound) {
        let discards = queue.discards();
        if (discards || queue.acknowledged_at_once)
            && let Some(token) = message.acknowledgement.take()
        {
            self.machine.acknowledge(token);
        }
        if discards {
            return;
        }
        if queue.push(message) {
            self.full.push(queue.clone());
        }
    }

    /// Whether nothing is to be read, since a stream is full.
    pub(super) fn reading_paused(&mut self) -> bool {
        self.full.retain(|queue| queue.is_full());
        !self.full.is_empty()
    }

    fn forget_repeated(&mut self) {
        self.routes.iter().for_each(|route| route.queue.forget_repeated());
        if let Some(queue) = &self.catch_all {
            queue.forget_repeated();
        }
        self.unclaimed.retain(|message| !is_repeated(message));
    }

    fn leave_unclaimed(&mut self, mut message: Inbound) {
        if let Some(queue) = self.catch_all.clone() {
            return self.push(&queue, message);
        }
        // In a Session that ends with its connection nobody comes for it later, and the acknowledgements of all others would
        // wait behind its own.
        if !self.machine.session_outlives_connection()
            && let Some(token) = message.acknowledgement.take()
        {
            self.machine.acknowledge(token);
        }
        if may_be_dropped(&message) {
            if self.unclaimed_at_most_once == UNCLAIMED_MAX {
                let oldest = self.unclaimed.iter().position(may_be_dropped);
                oldest.map(|at| self.unclaimed.remove(at));
                self.unclaimed_dropped += 1;
            } else {
                self.unclaimed_at_most_once += 1;
            }
        }
        self.unclaimed.push_back(message);
    }

    /// QoS 0 messages that matched no stream and were dropped.
    pub(super) fn unclaimed_dropped(&self) -> u64 {
        self.unclaimed_dropped
    }

    /// A Subscription Identifier for these filters: the same in every process, so that the messages of a Session that was left
    /// find their stream again.
    pub(super) fn identifier_for(&self, filters: &[String]) -> NonZeroU32 {
        let mut hash = 0x811c_9dc5_u32;
        for byte in filters.iter().flat_map(|filter| filter.bytes().chain([0])) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        let mut identifier = hash % IDENTIFIERS + 1;
        while self.by_identifier.contains_key(&identifier) {
            identifier = identifier % IDENTIFIERS + 1;
        }
        NonZeroU32::new(identifier).unwrap_or(NonZeroU32::MIN)
    }

    /// From here on what comes for these filters goes to `queue`, and so does what came for them before.
    pub(super) fn add_route(&mut self, identifier: NonZeroU32, filters: &[String], queue: &Arc<Queue>) {
        let identifier = identifier.get();
        self.by_identifier.insert(identifier, queue.clone());
        self.sharing |= self.routes.iter().any(|route| route.shares_filter(filters));
        self.routes.push(Route { identifiers: vec![identifier], filters: filters.to_vec(), queue: queue.clone() });
        self.deliver_unclaimed();
    }

    pub(super) fn set_catch_all(&mut self, queue: &Arc<Queue>) {
        if let Some(old) = self.catch_all.replace(queue.clone()) {
            old.close(Closed::Client);
        }
        self.deliver_unclaimed();
    }

    fn deliver_unclaimed(&mut self) {
        self.unclaimed_at_most_once = 0;
        for message in std::mem::take(&mut self.unclaimed) {
            self.deliver(message);
        }
    }

    /// A stream is gone. The filters that no other stream has are returned.
    pub(super) fn remove_route(&mut self, queue: &Arc<Queue>) -> Vec<String> {
        self.full.retain(|full| !Arc::ptr_eq(full, queue));
        if self.catch_all.as_ref().is_some_and(|catch_all| Arc::ptr_eq(catch_all, queue)) {
            self.catch_all = None;
            return Vec::new();
        }
        let Some(at) = self.routes.iter().position(|route| route.is(queue)) else {
            return Vec::new();
        };
        let route = self.routes.swap_remove(at);
        // Whoever has a filter in common gets what comes under its identifiers.
        let heir = self.routes.iter_mut().find(|other| other.shares_filter(&route.filters) && !other.queue.discards());
        for identifier in &route.identifiers {
            self.by_identifier.remove(identifier);
            if let Some(heir) = &heir {
                self.by_identifier.insert(*identifier, heir.queue.clone());
            }
        }
        if let Some(heir) = heir {
            heir.identifiers.extend(&route.identifiers);
        }
        self.unused(&route.filters)
    }

    /// The filters that no stream has.
    fn unused(&self, filters: &[String]) -> Vec<String> {
        let live =
            |filter: &String| self.routes.iter().any(|route| route.filters.contains(filter) && !route.queue.discards());
        filters.iter().filter(|filter| !live(filter)).cloned().collect()
    }

    /// Nobody wants the messages of a stream any more. What it held counts as taken, and so does what comes until the broker
    /// has unsubscribed us from the filters that are returned; if there are some, [`State::ends_with`] has to follow.
    pub(super) fn end_stream(&mut self, queue: &Arc<Queue>) -> Vec<String> {
        for token in queue.discard().into_iter().filter_map(|message| message.acknowledgement) {
            self.machine.acknowledge(token);
        }
        self.full.retain(|full| !Arc::ptr_eq(full, queue));
        let filters = match self.routes.iter().find(|route| route.is(queue)) {
            Some(route) => self.unused(&route.filters),
            None => Vec::new(),
        };
        if filters.is_empty() {
            self.remove_route(queue);
        }
        filters
    }

    /// The stream is gone for good when the UNSUBSCRIBE with this token has been answered.
    pub(super) fn ends_with(&mut self, token: Token, queue: Arc<Queue>) {
        self.ending.push((token, queue));
    }

    /// The user dropped a stream. If the Session ends with the connection anyway, so does the subscription, and what it still
    /// held counts as taken; else the subscription and its messages stay for whoever subscribes next.
    pub(super) fn stream_dropped(&mut self, queue: &Arc<Queue>) {
        if self.is_over() {
            return;
        }
        if self.machine.session_outlives_connection() {
            self.remove_route(queue);
            queue.drain().into_iter().for_each(|message| self.leave_unclaimed(message));
        } else {
            let filters = self.end_stream(queue);
            if !filters.is_empty() {
                let token = self.begin();
                let request = UnsubscribeRequest { filters, user_properties: Vec::new() };
                match self.machine.unsubscribe(self.now, request, token) {
                    Ok(()) => {
                        self.abandon(token);
                        self.ends_with(token, queue.clone());
                    }
                    Err(_) => {
                        self.forget(token);
                        self.remove_route(queue);
                    }
                }
            }
        }
        self.wake_driver();
    }
}

fn matches(filter: &str, topic_name: &str) -> bool {
    TopicFilter::parse(filter).is_ok_and(|filter| filter.matches(topic_name))
}

fn add_waker(wakers: &mut Vec<Waker>, context: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
        wakers.push(context.waker().clone());
    }
}
