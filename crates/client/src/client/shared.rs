//! What the handles, the streams and the task of one client share, behind one lock that is never held while anything waits.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::num::NonZeroU32;
use std::ops::{Deref, DerefMut};
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
use crate::message::Properties;
use crate::outbox::{Outbox, OutboxError, Position};

/// QoS 0 messages that match no stream and wait for one; above it the oldest goes.
const UNCLAIMED_MAX: usize = 1_000;
/// Topic Names of Retained Messages that a stream remembers; those beyond may come to it again when another subscribes.
const REPLAYED_MAX: usize = 10_000;
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

/// What the answer to a request means to streams.
enum Asked {
    /// SUBSCRIBE: the stream can be taken.
    Begin(Arc<Queue>),
    /// UNSUBSCRIBE: the stream, which was dropped, is gone.
    End(Arc<Queue>),
    /// UNSUBSCRIBE: these streams lose the filters.
    Filters(Vec<String>, Vec<Arc<Queue>>),
}

/// Who is to be woken when the lock is free: what a waker does is not ours to know, it may drop a future that takes the lock.
#[derive(Default)]
pub(super) struct Wakers {
    /// There is seldom more than one.
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakers {
    fn push(&mut self, waker: Waker) {
        match &self.first {
            None => self.first = Some(waker),
            Some(_) => self.others.push(waker),
        }
    }
}

impl Extend<Waker> for Wakers {
    fn extend<I: IntoIterator<Item = Waker>>(&mut self, wakers: I) {
        wakers.into_iter().for_each(|waker| self.push(waker));
    }
}

impl Drop for Wakers {
    fn drop(&mut self) {
        self.first.take().into_iter().chain(self.others.drain(..)).for_each(Waker::wake);
    }
}

/// Where the messages of a stream come from.
struct Route {
    /// Its own, and those of streams with one of its filters that are gone.
    identifiers: Vec<u32>,
    /// Those that have not been unsubscribed.
    filters: Vec<String>,
    queue: Arc<Queue>,
    replays: Replays,
    /// Topic Names whose Retained Message it has had since it subscribed.
    replayed: HashSet<Arc<str>>,
}

/// What RETAIN says to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replays {
    /// That the broker had kept the message, and sends it since somebody has subscribed.
    Wanted,
    /// The same, and the stream wants none of these (Retain Handling).
    Unwanted,
    /// How the message was published (Retain As Published).
    AsPublished,
}

/// The only stream that the last message was for: most often the next one is for it as well.
struct LastFound {
    properties: Properties,
    /// None where Subscription Identifiers have decided.
    topic_name: Option<Arc<str>>,
    queue: Arc<Queue>,
}

impl LastFound {
    /// Whether a message has come to the same address.
    fn is_for(&self, message: &Inbound) -> bool {
        self.properties.is_same(&message.properties)
            && self.topic_name.as_ref().is_none_or(|topic_name| Arc::ptr_eq(topic_name, &message.topic_name))
    }
}

impl Route {
    fn matches(&self, topic_name: &str) -> bool {
        self.filters.iter().any(|filter| matches(filter, topic_name))
    }

    /// Whether a message that nobody has claimed is for this stream.
    fn wants(&self, message: &Inbound) -> bool {
        let mut identifiers = message.properties.subscription_identifiers().peekable();
        match identifiers.peek() {
            None => self.matches(&message.topic_name),
            Some(_) => identifiers.any(|identifier| self.identifiers.contains(&identifier.get())),
        }
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
    /// Who waits until no message before a mark is left.
    settled: Vec<(u64, Waker)>,
    routes: Vec<Route>,
    /// Emptied with each change of what stands above and below.
    last_found: Option<LastFound>,
    /// Nearly always a few, which a tree finds without hashing.
    by_identifier: BTreeMap<u32, Arc<Queue>>,
    /// Filters that several streams have, with their Subscription Identifier, which means nothing but this filter.
    common: BTreeMap<String, u32>,
    /// What streams wait for an answer of the broker for.
    asked: Vec<(Token, Asked)>,
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
    /// All that was put out is with the connection, and went out of it as far as it can be seen from here.
    all_out: bool,
    /// Why a connection ended before all was out, until somebody asks.
    cut: Option<ConnectionError>,
    /// Who waits until all is out.
    flushing: Vec<Waker>,
    /// Nothing more is taken, for this reason, if it is one. The status says so once the outbox is written.
    closing: Option<Option<Arc<ConnectionError>>>,
    woken: Wakers,
}

/// The state, locked. Who is to be woken is woken once it is free again.
pub(super) struct Locked<'s> {
    // In this order: fields are dropped from the first to the last.
    state: MutexGuard<'s, State>,
    /// Mostly there is nobody.
    woken: Option<Wakers>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.state.woken.first.is_some() {
            self.woken = Some(std::mem::take(&mut self.state.woken));
        }
    }
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
                last_found: None,
                by_identifier: BTreeMap::new(),
                common: BTreeMap::new(),
                asked: Vec::new(),
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
                all_out: true,
                cut: None,
                flushing: Vec::new(),
                closing: None,
                woken: Wakers::default(),
            }),
        }
    }

    #[inline]
    pub(super) fn lock(&self) -> Locked<'_> {
        // The state is consistent between any two calls into the machine; a panic of one task is not to end the others.
        Locked { state: self.state.lock().unwrap_or_else(PoisonError::into_inner), woken: None }
    }
}

impl State {
    /// Nothing more is taken.
    pub(super) fn is_over(&self) -> bool {
        self.closing.is_some()
    }

    /// All is done, the outbox is free.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.status, Status::Ended(_))
    }

    /// Why nothing more is taken, if that is so.
    pub(super) fn why_over(&self) -> Option<ConnectionError> {
        let error = match (&self.status, &self.closing) {
            (Status::Ended(error), _) | (_, Some(error)) => error,
            _ => return None,
        };
        Some(error.as_ref().map_or(ConnectionError::Closed, |error| (**error).clone()))
    }

    /// The task has to look again.
    pub(super) fn wake_driver(&mut self) {
        self.woken.extend(self.driver.take());
    }

    pub(super) fn driver_sleeps(&mut self, context: &Context<'_>) {
        if !self.driver.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.driver = Some(context.waker().clone());
        }
    }

    pub(super) fn set_status(&mut self, status: Status) {
        self.status = status;
        self.status_version += 1;
        self.woken.extend(self.status_wakers.drain(..));
    }

    pub(super) fn wait_for_status(&mut self, context: &Context<'_>) {
        add_waker(&mut self.status_wakers, context);
    }

    pub(super) fn wait_for_room(&mut self, context: &Context<'_>) {
        add_waker(&mut self.room, context);
    }

    /// Until all that was taken before `mark` is settled.
    pub(super) fn wait_for_settled(&mut self, mark: u64, context: &Context<'_>) {
        if !self.settled.iter().any(|(known, waker)| *known == mark && waker.will_wake(context.waker())) {
            self.settled.push((mark, context.waker().clone()));
        }
    }

    /// Whether everything that was taken so far is out, or was lost with its connection: since this was answered last.
    pub(super) fn poll_flushed(&mut self, mark: u64, context: &Context<'_>) -> Poll<Result<(), ConnectionError>> {
        if let Some(error) = self.cut.take() {
            return Poll::Ready(Err(error));
        }
        if self.machine.is_settled(mark) && self.machine.output_len() == 0 && self.all_out {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = self.why_over() {
            return Poll::Ready(Err(error));
        }
        add_waker(&mut self.flushing, context);
        self.wait_for_settled(mark, context);
        Poll::Pending
    }

    /// Whether the connection has all that it was given.
    pub(super) fn set_all_out(&mut self, all_out: bool) {
        self.all_out = all_out;
        if all_out && !self.flushing.is_empty() {
            self.woken.extend(self.flushing.drain(..));
        }
    }

    /// The connection is over. What it did not take of QoS 0 is lost, and so may be what it took.
    pub(super) fn cut(&mut self, error: Option<&ConnectionError>) {
        if let Some(error) = error.filter(|_| !self.all_out) {
            self.cut = Some(error.clone());
        }
        self.set_all_out(true);
    }

    /// There may be room for messages again.
    pub(super) fn room_made(&mut self) {
        if !self.room.is_empty() && self.machine.has_room() {
            self.woken.extend(self.room.drain(..));
        }
    }

    /// Hands what the machine has recorded to the outbox. What the machine has put out up to now may go out when the position
    /// is safe.
    #[inline]
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

    /// The token that the request will have which begins next.
    pub(super) fn next_token(&self) -> Token {
        self.completions.vacant_key() as Token
    }

    /// Begins a request that is waited for already.
    pub(super) fn begin_waiting(&mut self, context: &Context<'_>) -> Token {
        self.completions.insert(Completion::Waiting(Some(context.waker().clone()))) as Token
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
        match completion {
            Completion::Waiting(waker) => {
                self.woken.extend(waker.take());
                *completion = Completion::Done(outcome);
            }
            Completion::Abandoned => self.forget(token),
            // The broker's answer holds, also if the client ends before it is fetched.
            Completion::Done(_) => {}
        }
    }

    fn take_asked(&mut self, token: Token) -> Option<Asked> {
        let at = self.asked.iter().position(|(known, _)| *known == token)?;
        let (_, asked) = self.asked.swap_remove(at);
        if self.asked.is_empty() {
            // Few are asked for after the beginning.
            self.asked = Vec::new();
        }
        Some(asked)
    }

    /// Passes on what the machine has to say.
    pub(super) fn dispatch(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Message(message) => self.deliver(message),
                Event::Published { token, outcome } => self.complete(token, Outcome::Published(outcome)),
                Event::Subscribed { token, outcome } => {
                    if let Some(Asked::Begin(queue)) = self.take_asked(token) {
                        self.begun(queue);
                    }
                    self.complete(token, Outcome::Answered(outcome));
                }
                Event::Unsubscribed { token, outcome } => {
                    match self.take_asked(token) {
                        Some(Asked::End(queue)) => drop(self.remove_route(&queue)),
                        Some(Asked::Filters(filters, queues)) => self.filters_ended(filters, &queues, &outcome),
                        Some(Asked::Begin(_)) | None => {}
                    }
                    self.complete(token, Outcome::Answered(outcome));
                }
                Event::Connected(connected) => {
                    if connected.session_present {
                        self.forget_repeated();
                    } else {
                        // We subscribe again, so Retained Messages come again, perhaps changed.
                        self.routes.iter_mut().for_each(|route| route.replayed.clear());
                    }
                    self.set_status(Status::Connected(Arc::from(connected)));
                }
                Event::SubscriptionLost { filter, refusal } => {
                    for route in &self.routes {
                        if route.filters.contains(&filter) {
                            self.woken.extend(route.queue.close(Closed::Refused(refusal.clone())));
                        }
                    }
                }
                Event::Ended(error) => self.ended = Some(error),
            }
        }
        self.room_made();
        if !self.settled.is_empty() {
            let Self { settled, machine, woken, .. } = self;
            woken.extend(settled.extract_if(.., |(mark, _)| machine.is_settled(*mark)).map(|(_, waker)| waker));
        }
    }

    /// Nothing more is taken, and what is recorded is the last: everybody is told who waits for something else than the end.
    pub(super) fn close(&mut self, error: Option<Arc<ConnectionError>>) {
        if self.is_over() {
            return;
        }
        self.closing = Some(error);
        // A failure is told at the end.
        drop(self.keep());
        self.outbox.iter().for_each(Outbox::stop);
        let tokens: Vec<usize> = self.completions.iter().map(|(token, _)| token).collect();
        for token in tokens {
            // What kind of request it was matters only to the words: each future turns this into its own error.
            self.complete(token as Token, Outcome::Published(Err(PublishError::Ended)));
        }
        self.last_found = None;
        for route in self.routes.drain(..) {
            self.woken.extend(route.queue.close(Closed::Client));
        }
        if let Some(queue) = self.catch_all.take() {
            self.woken.extend(queue.close(Closed::Client));
        }
        self.by_identifier.clear();
        self.asked.clear();
        self.unclaimed.clear();
        self.woken.extend(self.status_wakers.drain(..));
        self.woken.extend(self.room.drain(..));
        self.woken.extend(self.settled.drain(..).map(|(_, waker)| waker));
        self.woken.extend(self.flushing.drain(..));
    }

    /// The client has ended.
    pub(super) fn end(&mut self, error: Option<Arc<ConnectionError>>) {
        self.close(error.clone());
        self.set_status(Status::Ended(error));
    }

    /// The task is gone before it came to the end.
    pub(super) fn abort(&mut self) {
        if !self.has_ended() {
            let error = self.closing.clone().unwrap_or_else(|| Some(Arc::new(ConnectionError::Aborted)));
            self.end(error);
        }
    }

    // Messages and streams.

    fn deliver(&mut self, message: Inbound) {
        if let Some(last) = self.last_found.as_ref().filter(|last| !message.retain && last.is_for(&message)) {
            let queue = last.queue.clone();
            return self.push(&queue, message);
        }
        let mut queues = self.queues_for(&message);
        if let (Some(queue), []) = (&queues.0, &queues.1[..]) {
            let (properties, queue) = (message.properties.clone(), queue.clone());
            let by_name = properties.subscription_identifiers().next().is_none();
            let topic_name = by_name.then(|| message.topic_name.clone());
            self.last_found = Some(LastFound { properties, topic_name, queue });
        }
        if message.retain {
            queues = self.without_replayed(&message.topic_name, queues);
        }
        match queues {
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
        let mut add = |queue: &Arc<Queue>| {
            // An identifier comes more than once if several filters of one stream match (v5 section 3.3.4).
            if first.iter().chain(&others).any(|known| Arc::ptr_eq(known, queue)) {
                return;
            }
            match first {
                None => first = Some(queue.clone()),
                Some(_) => others.push(queue.clone()),
            }
        };
        for identifier in identifiers.map(NonZeroU32::get) {
            match self.common.iter().find(|(_, common)| **common == identifier) {
                // The broker has one subscription for each filter, whose messages are for all streams with that filter.
                Some((filter, _)) => {
                    let sharing = self.routes.iter().filter(|route| route.filters.contains(filter));
                    sharing.for_each(|route| add(&route.queue));
                }
                None => self.by_identifier.get(&identifier).into_iter().for_each(&mut add),
            }
        }
        (first, others)
    }

    /// When a stream subscribes, the broker sends Retained Messages again that others have had: they are for those that have
    /// not. If all have, nobody knows why it comes, and it is for all.
    fn without_replayed(
        &mut self,
        topic_name: &Arc<str>,
        (first, others): (Option<Arc<Queue>>, Vec<Arc<Queue>>),
    ) -> (Option<Arc<Queue>>, Vec<Arc<Queue>>) {
        let queues: Vec<Arc<Queue>> = first.into_iter().chain(others).collect();
        let has_had = |route: &Route| route.replays == Replays::Unwanted || route.replayed.contains(topic_name);
        let named = |route: &Route| queues.iter().any(|queue| route.is(queue));
        let mut fresh: Vec<Arc<Queue>> = Vec::new();
        let mut as_published = false;
        for route in self.routes.iter_mut().filter(|route| named(route)) {
            as_published |= route.replays == Replays::AsPublished;
            if !has_had(route) {
                fresh.push(route.queue.clone());
                if route.replayed.len() < REPLAYED_MAX && route.replays == Replays::Wanted {
                    route.replayed.insert(topic_name.clone());
                }
            }
        }
        let mut queues = if fresh.is_empty() || as_published { queues } else { fresh }.into_iter();
        (queues.next(), queues.collect())
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
        let pushed = queue.push(message);
        self.woken.extend(pushed.waker);
        if pushed.full {
            self.full.push(queue.clone());
        }
    }

    /// The broker has answered a SUBSCRIBE of this stream. From the last one on it can be taken, and may be full.
    fn begun(&mut self, queue: Arc<Queue>) {
        let awaited = |asked: &Asked| matches!(asked, Asked::Begin(other) if Arc::ptr_eq(other, &queue));
        if !self.asked.iter().any(|(_, asked)| awaited(asked)) && queue.grant() {
            self.full.push(queue);
        }
    }

    /// The broker has answered an UNSUBSCRIBE of these filters. Streams that have no other end.
    fn filters_ended(
        &mut self,
        filters: Vec<String>,
        queues: &[Arc<Queue>],
        outcome: &Result<Answered, SubscribeError>,
    ) {
        let Ok(Answered { reason_codes, .. }) = outcome else { return };
        self.last_found = None;
        // There are none before MQTT 5, when it cannot be refused.
        let codes = reason_codes.iter().map(Some).chain(std::iter::repeat(None));
        let over: Vec<String> = filters
            .into_iter()
            .zip(codes)
            .filter(|(_, code)| !code.is_some_and(|code| code.is_error()))
            .map(|(filter, _)| filter)
            .collect();
        for queue in queues {
            let Some(route) = self.routes.iter_mut().find(|route| route.is(queue)) else { continue };
            route.filters.retain(|filter| !over.contains(filter));
            if route.filters.is_empty() {
                self.woken.extend(queue.close(Closed::Unsubscribed));
                self.remove_route(queue);
            }
        }
        for filter in &over {
            if self.sharing(filter).is_none() {
                self.common.remove(filter);
            }
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

    /// A Subscription Identifier for each of these filters: one for all of them, but for filters that another stream has too.
    /// The broker has one subscription for each filter, with the identifier it saw last; if that means nothing but the filter,
    /// each copy of a message finds all its streams, whether the broker sends one copy or one for each subscription.
    pub(super) fn identifiers_for(&self, filters: &[String]) -> Vec<NonZeroU32> {
        let mut identifiers: Vec<NonZeroU32> = Vec::with_capacity(filters.len());
        let own = self.identifier_for(filters, &[]);
        for filter in filters {
            let taken: Vec<NonZeroU32> = identifiers.iter().copied().chain([own]).collect();
            identifiers.push(self.identifier_in_common(filter, &taken).unwrap_or(own));
        }
        identifiers
    }

    fn identifier_in_common(&self, filter: &String, taken: &[NonZeroU32]) -> Option<NonZeroU32> {
        if !self.machine.settings().version.is_v5() {
            return None;
        }
        let other = self.sharing(filter)?;
        match self.common.get(filter) {
            Some(common) => NonZeroU32::new(*common),
            // It has one that means this filter alone.
            None if other.filters.len() == 1 => other.identifiers.first().copied().and_then(NonZeroU32::new),
            None => Some(self.identifier_for(std::slice::from_ref(filter), taken)),
        }
    }

    /// A stream that has this filter.
    fn sharing(&self, filter: &String) -> Option<&Route> {
        self.routes.iter().find(|route| route.filters.contains(filter) && !route.queue.discards())
    }

    /// A Subscription Identifier for these filters: the same in every process, so that the messages of a Session that was left
    /// find their stream again.
    fn identifier_for(&self, filters: &[String], taken: &[NonZeroU32]) -> NonZeroU32 {
        let mut hash = 0x811c_9dc5_u32;
        for byte in filters.iter().flat_map(|filter| filter.bytes().chain([0])) {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        let mut identifier = hash % IDENTIFIERS + 1;
        while self.by_identifier.contains_key(&identifier) || taken.iter().any(|taken| taken.get() == identifier) {
            identifier = identifier % IDENTIFIERS + 1;
        }
        NonZeroU32::new(identifier).unwrap_or(NonZeroU32::MIN)
    }

    /// From here on what comes for these filters goes to `queue`, each with its identifier, and so does what came for them
    /// before and found nobody.
    pub(super) fn add_route(
        &mut self,
        filters: &[String],
        identifiers: &[NonZeroU32],
        replays: Replays,
        queue: &Arc<Queue>,
    ) {
        self.last_found = None;
        let v5 = self.machine.settings().version.is_v5();
        let mut own = Vec::new();
        for (filter, identifier) in filters.iter().zip(identifiers) {
            let identifier = identifier.get();
            if v5 && self.sharing(filter).is_some() {
                self.common.insert(filter.clone(), identifier);
            }
            self.by_identifier.entry(identifier).or_insert_with(|| queue.clone());
            if !own.contains(&identifier) {
                own.push(identifier);
            }
        }
        self.routes.push(Route {
            identifiers: own,
            filters: filters.to_vec(),
            queue: queue.clone(),
            replays,
            replayed: HashSet::new(),
        });
        // Only this one: the others that match have had what was left by one that was dropped.
        self.unclaimed_at_most_once = 0;
        for message in std::mem::take(&mut self.unclaimed) {
            let wanted = self.routes.last().is_some_and(|route| route.wants(&message));
            if wanted { self.push(queue, message) } else { self.leave_unclaimed(message) }
        }
    }

    pub(super) fn set_catch_all(&mut self, queue: &Arc<Queue>) {
        // Nobody asks the broker for it.
        queue.grant();
        if self.is_over() {
            self.woken.extend(queue.close(Closed::Client));
            return;
        }
        if let Some(old) = self.catch_all.replace(queue.clone()) {
            self.woken.extend(old.close(Closed::Replaced));
        }
        self.unclaimed_at_most_once = 0;
        for message in std::mem::take(&mut self.unclaimed) {
            self.push(queue, message);
        }
    }

    /// A stream is gone. The filters that no other stream has are returned.
    pub(super) fn remove_route(&mut self, queue: &Arc<Queue>) -> Vec<String> {
        self.last_found = None;
        self.full.retain(|full| !Arc::ptr_eq(full, queue));
        if self.catch_all.as_ref().is_some_and(|catch_all| Arc::ptr_eq(catch_all, queue)) {
            self.catch_all = None;
            return Vec::new();
        }
        let Some(at) = self.routes.iter().position(|route| route.is(queue)) else {
            return Vec::new();
        };
        let route = self.routes.swap_remove(at);
        for identifier in route.identifiers {
            // Whoever has the filter in common, if it means one.
            let filter =
                self.common.iter().find(|(_, common)| **common == identifier).map(|(filter, _)| filter.clone());
            let heir = filter.as_ref().and_then(|filter| {
                self.routes.iter_mut().find(|other| other.filters.contains(filter) && !other.queue.discards())
            });
            match (heir, filter) {
                (Some(heir), _) => {
                    if !heir.identifiers.contains(&identifier) {
                        heir.identifiers.push(identifier);
                    }
                    self.by_identifier.insert(identifier, heir.queue.clone());
                }
                (None, filter) => {
                    self.by_identifier.remove(&identifier);
                    filter.map(|filter| self.common.remove(&filter));
                }
            }
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

    /// The stream can be taken when the SUBSCRIBE with this token, and all others of it, have been answered.
    pub(super) fn begins_with(&mut self, token: Token, queue: Arc<Queue>) {
        self.asked.push((token, Asked::Begin(queue)));
    }

    /// The stream is gone for good when the UNSUBSCRIBE with this token has been answered.
    pub(super) fn ends_with(&mut self, token: Token, queue: Arc<Queue>) {
        self.asked.push((token, Asked::End(queue)));
    }

    /// The streams of today with these filters have them no more when the UNSUBSCRIBE with this token has been answered.
    pub(super) fn filters_end_with(&mut self, token: Token, filters: Vec<String>) {
        let concerned = self.routes.iter().filter(|route| route.filters.iter().any(|filter| filters.contains(filter)));
        let queues: Vec<Arc<Queue>> = concerned.map(|route| route.queue.clone()).collect();
        if !queues.is_empty() {
            self.asked.push((token, Asked::Filters(filters, queues)));
        }
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
