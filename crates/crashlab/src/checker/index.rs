//! The first pass: what all checks look up.

use std::time::Duration;

use pantala_proto::QoS;

use crate::fault::FaultKind;
use crate::history::{ClientNumber, Ending, Event, History, MessageFacts, MessageId, Moment, Purpose, Reception};
use crate::payload::Content;

/// What became of a message between its publisher and the broker. Numbers are places in the history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace {
    /// How often it was sent.
    pub sends: usize,
    /// The first time.
    pub first_sent: Option<usize>,
    /// The last time.
    pub last_sent: Option<usize>,
    /// When the broker took it over.
    pub accepted: Option<usize>,
    /// When PUBCOMP came.
    pub completed: Option<usize>,
    /// Whether the broker refused it.
    pub refused: bool,
    /// Whether the publisher gave it up.
    pub abandoned: bool,
}

/// How often one client got one message live, repetitions included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// All packets.
    pub total: usize,
    /// Those without DUP.
    pub fresh: usize,
    /// The first one's place.
    pub first: usize,
    /// The last one's.
    pub last: usize,
}

/// A time in which a client has a subscription.
///
/// `asked <= granted`, and `owed_until <= gone`. What was owed to a Session that ended as it may is owed no more.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// SUBSCRIBE was sent: from here on messages may come.
    pub asked: usize,
    /// SUBACK came: from here on messages are owed.
    pub granted: Option<usize>,
    /// UNSUBSCRIBE was sent, or the Session could end: what is published from here on is not owed.
    pub owed_until: Option<usize>,
    /// The Session ended, by Clean Start or its expiry.
    pub session_ended: bool,
    /// UNSUBACK came, or the Session was known to be gone: what is published from here on must not come.
    pub gone: Option<usize>,
    /// It went with its Session, and so did all that was queued.
    pub gone_with_session: bool,
}

/// Where everything is.
pub struct Index<'h> {
    /// What is indexed.
    pub history: &'h History,
    traces: Vec<Vec<Trace>>,
    /// By receiver and publisher; empty until the first message of that publisher.
    tallies: Vec<Vec<Vec<Tally>>>,
    /// Where the broker's process went.
    crashes: Vec<usize>,
    /// By client: where CONNACK came.
    connections: Vec<Vec<usize>>,
    /// By client and subscription.
    intervals: Vec<Vec<Vec<Interval>>>,
    /// By client: the last place at which all that is due had come.
    settled: Vec<Option<usize>>,
    /// Where the broker's clock jumped first.
    pub clock_jump: Option<usize>,
}

impl<'h> Index<'h> {
    /// One pass over the history.
    pub fn of(history: &'h History) -> Self {
        let clients = history.cast.clients.len();
        let mut index = Self {
            history,
            traces: history.cast.messages.iter().map(|messages| vec![Trace::default(); messages.len()]).collect(),
            tallies: vec![vec![Vec::new(); history.cast.messages.len()]; clients],
            crashes: Vec::new(),
            connections: vec![Vec::new(); clients],
            intervals: history.cast.clients.iter().map(|facts| vec![Vec::new(); facts.subscriptions.len()]).collect(),
            settled: vec![None; clients],
            clock_jump: None,
        };
        let mut sessions = vec![SessionEnds::default(); clients];
        for (at, moment) in history.moments.iter().enumerate() {
            index.add(at, moment.event, &mut sessions);
        }
        index
    }

    fn add(&mut self, at: usize, event: Event, sessions: &mut [SessionEnds]) {
        match event {
            Event::Published { message } => {
                if let Some(trace) = self.trace_mut(message) {
                    trace.sends += 1;
                    trace.first_sent.get_or_insert(at);
                    trace.last_sent = Some(at);
                }
            }
            Event::Accepted { message } => {
                if let Some(trace) = self.trace_mut(message) {
                    trace.accepted.get_or_insert(at);
                }
            }
            Event::Refused { message } => {
                if let Some(trace) = self.trace_mut(message) {
                    trace.refused = true;
                }
            }
            Event::Abandoned { message } => {
                if let Some(trace) = self.trace_mut(message) {
                    trace.abandoned = true;
                }
            }
            Event::Completed { message, .. } => {
                if let Some(trace) = self.trace_mut(message) {
                    trace.completed.get_or_insert(at);
                }
            }
            Event::Received(reception) => self.add_reception(at, reception),
            Event::BrokerGone => self.crashes.push(at),
            Event::Settled { client } => self.settled[usize::from(client)] = Some(at),
            Event::Fault { kind: FaultKind::Clock } => {
                self.clock_jump.get_or_insert(at);
            }
            Event::Connecting { client, clean_start } => {
                let session = &mut sessions[usize::from(client)];
                session.connecting = at;
                let expiry = self.history.cast.clients[usize::from(client)].session_expiry;
                if clean_start {
                    self.end_owing(client, at);
                } else if let (Some(expiry), Some(ended)) = (expiry, session.ended)
                    && self.time(at) >= self.time(ended) + expiry
                {
                    // A CONNECT that is not answered may begin a new Session in its place, and the next one finds that.
                    self.end_owing(client, ended);
                }
            }
            Event::Connected { client, session_present } => {
                let place = usize::from(client);
                self.connections[place].push(at);
                if !session_present {
                    let SessionEnds { connecting, ended } = sessions[place];
                    if self.history.cast.clients[place].session_expiry.is_some() {
                        self.end_owing(client, ended.unwrap_or(connecting));
                    }
                    for interval in self.intervals[place].iter_mut().flatten() {
                        if interval.gone.is_none() && interval.asked < connecting {
                            (interval.gone, interval.gone_with_session) = (Some(at), true);
                        }
                    }
                }
            }
            Event::Ended { client, .. } => sessions[usize::from(client)].ended = Some(at),
            Event::Subscribing { client, subscription } => {
                let intervals = &mut self.intervals[usize::from(client)][usize::from(subscription)];
                let is_open = intervals.last().is_some_and(|last| last.gone.is_none() && last.owed_until.is_none());
                if !is_open {
                    intervals.push(Interval {
                        asked: at,
                        granted: None,
                        owed_until: None,
                        session_ended: false,
                        gone: None,
                        gone_with_session: false,
                    });
                }
            }
            Event::Subscribed { client, subscription, granted } => {
                if let Some(last) = self.intervals[usize::from(client)][usize::from(subscription)].last_mut()
                    && granted.is_some()
                {
                    last.granted.get_or_insert(at);
                }
            }
            Event::Unsubscribing { client, subscription } => {
                if let Some(last) = self.intervals[usize::from(client)][usize::from(subscription)].last_mut() {
                    last.owed_until.get_or_insert(at);
                }
            }
            Event::Unsubscribed { client, subscription } => {
                if let Some(last) = self.intervals[usize::from(client)][usize::from(subscription)].last_mut() {
                    last.gone.get_or_insert(at);
                }
            }
            _ => {}
        }
    }

    fn add_reception(&mut self, at: usize, reception: Reception) {
        let Content::Message(message) = reception.content else { return };
        let Some(count) = self.traces.get(usize::from(message.publisher)).map(Vec::len) else { return };
        if reception.retain || message.sequence as usize >= count {
            return;
        }
        let tallies = &mut self.tallies[usize::from(reception.client)][usize::from(message.publisher)];
        if tallies.is_empty() {
            tallies.resize(count, Tally::default());
        }
        let tally = &mut tallies[message.sequence as usize];
        if tally.total == 0 {
            tally.first = at;
        }
        tally.total += 1;
        tally.fresh += usize::from(!reception.dup);
        tally.last = at;
    }

    fn end_owing(&mut self, client: ClientNumber, at: usize) {
        for interval in self.intervals[usize::from(client)].iter_mut().flatten() {
            if interval.gone.is_none() {
                interval.owed_until.get_or_insert(at);
                interval.session_ended = true;
            }
        }
    }

    fn trace_mut(&mut self, message: MessageId) -> Option<&mut Trace> {
        self.traces.get_mut(usize::from(message.publisher))?.get_mut(message.sequence as usize)
    }

    /// The events, in order.
    pub fn moments(&self) -> impl DoubleEndedIterator<Item = (usize, &'h Moment)> + ExactSizeIterator + use<'h> {
        self.history.moments.iter().enumerate()
    }

    /// When something happened.
    pub fn time(&self, at: usize) -> Duration {
        self.history.moments[at].at
    }

    /// All messages.
    pub fn messages(&self) -> impl Iterator<Item = (MessageId, &'h MessageFacts, Trace)> + '_ {
        let by_publisher = self.history.cast.messages.iter().zip(&self.traces).enumerate();
        by_publisher.flat_map(|(publisher, (facts, traces))| {
            facts.iter().zip(traces).enumerate().map(move |(sequence, (facts, trace))| {
                // Both came from these types.
                (MessageId { publisher: publisher as u16, sequence: sequence as u32 }, facts, *trace)
            })
        })
    }

    /// What became of a message; nothing, if there is none of that number.
    pub fn trace(&self, message: MessageId) -> Trace {
        let traces = self.traces.get(usize::from(message.publisher));
        traces.and_then(|traces| traces.get(message.sequence as usize)).copied().unwrap_or_default()
    }

    /// How often a client got a message live.
    pub fn tally(&self, client: ClientNumber, message: MessageId) -> Tally {
        let tallies = &self.tallies[usize::from(client)][usize::from(message.publisher)];
        tallies.get(message.sequence as usize).copied().unwrap_or_default()
    }

    /// All that a client got live.
    pub fn received(&self, client: ClientNumber) -> impl Iterator<Item = (MessageId, Tally)> + '_ {
        self.tallies[usize::from(client)].iter().enumerate().flat_map(|(publisher, tallies)| {
            tallies.iter().enumerate().filter(|(_, tally)| tally.total > 0).map(move |(sequence, tally)| {
                (MessageId { publisher: publisher as u16, sequence: sequence as u32 }, *tally)
            })
        })
    }

    /// The numbers of all clients.
    pub fn clients(&self) -> impl Iterator<Item = ClientNumber> + use<> {
        // Client numbers are of this type.
        0..self.history.cast.clients.len() as ClientNumber
    }

    /// How often the broker went between two places.
    pub fn crashes(&self, from: usize, to: usize) -> usize {
        count_between(&self.crashes, from, to)
    }

    /// How often the client connected between two places.
    pub fn reconnections(&self, client: ClientNumber, from: usize, to: usize) -> usize {
        count_between(&self.connections[usize::from(client)], from, to)
    }

    /// When the client had a subscription.
    pub fn intervals(&self, client: ClientNumber, subscription: usize) -> &[Interval] {
        self.intervals[usize::from(client)].get(subscription).map_or(&[], Vec::as_slice)
    }

    /// The last place at which all that is due to the client should have come.
    pub fn settled(&self, client: ClientNumber) -> Option<usize> {
        self.settled[usize::from(client)]
    }

    /// The QoS at which a client gets a message by this subscription.
    pub fn effective_qos(&self, client: ClientNumber, subscription: usize, message: &MessageFacts) -> QoS {
        let subscriptions = &self.history.cast.clients[usize::from(client)].subscriptions;
        subscriptions.get(subscription).map_or(message.qos, |subscription| subscription.qos.min(message.qos))
    }

    /// Whether a message that a subscription matches is owed to it: published while it surely was there.
    pub fn is_owed(&self, client: ClientNumber, subscription: usize, trace: Trace) -> bool {
        let (Some(first_sent), Some(accepted)) = (trace.first_sent, trace.accepted) else { return false };
        self.intervals(client, subscription).iter().any(|interval| {
            let began = interval.granted.is_some_and(|granted| granted < first_sent);
            began && !interval.session_ended && interval.owed_until.is_none_or(|until| accepted < until)
        })
    }
}

/// Whether a message is of the sort that must not be lost: not a delete, not one that expires while the test lasts.
pub fn is_lasting(message: &MessageFacts) -> bool {
    const LASTING_SECONDS: u32 = 600;
    message.purpose == Purpose::Ordinary
        && message.qos != QoS::AtMostOnce
        && message.expiry.is_none_or(|seconds| seconds >= LASTING_SECONDS)
}

#[derive(Clone, Copy, Debug, Default)]
struct SessionEnds {
    /// The last CONNECT.
    connecting: usize,
    /// The last end of a connection.
    ended: Option<usize>,
}

fn count_between(places: &[usize], from: usize, to: usize) -> usize {
    places.partition_point(|place| *place <= to) - places.partition_point(|place| *place < from)
}

/// How a connection of a client ended after a place, if it has.
pub fn ending_after(history: &History, client: ClientNumber, from: usize) -> Option<(usize, Ending)> {
    history.moments[from..].iter().enumerate().find_map(|(offset, moment)| match moment.event {
        Event::Ended { client: other, ending } if other == client => Some((from + offset, ending)),
        _ => None,
    })
}
