//! All clients in one thread, around one poll.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::client::{Client, Phase, Scene};
use crate::history::{ClientNumber, Event, History, Moment, TopicNumber};
use crate::plan::{Presence, Stretch};

/// How long a turn waits for something to read. Clients look at the clock after it.
const TURN: Duration = Duration::from_millis(1);

/// Nothing came for so long, so nothing more is coming.
const QUIET: Duration = Duration::from_millis(100);

/// The clients, and what they have written down.
pub struct Fleet {
    /// What happened so far.
    pub history: History,
    /// Its beginning.
    pub started: Instant,
    clients: Vec<Client>,
    topics: HashMap<String, TopicNumber>,
    poll: Poll,
    events: Events,
    address: SocketAddr,
    salt: u64,
    activity: Instant,
}

impl Fleet {
    /// The clients of a stretch, for a broker at this address.
    ///
    /// # Errors
    /// If there is no poll to be had.
    pub fn new(stretch: &Stretch, address: SocketAddr) -> io::Result<Self> {
        let cast = stretch.cast.clone();
        let clients = cast.clients.iter().zip(&stretch.parts).enumerate().map(|(number, (facts, part))| {
            // Client numbers are of this type.
            Client::new(number as ClientNumber, facts.clone(), part.clone(), stretch.random.branch(number as u64))
        });
        let topics = cast.topics.iter().enumerate().map(|(number, name)| (name.clone(), number as TopicNumber));
        let now = Instant::now();
        Ok(Self {
            clients: clients.collect(),
            topics: topics.collect(),
            history: History { cast, moments: Vec::new() },
            started: now,
            poll: Poll::new()?,
            events: Events::with_capacity(256),
            address,
            salt: stretch.salt,
            activity: now,
        })
    }

    /// Writes an event down.
    pub fn write(&mut self, event: Event) {
        self.history.moments.push(Moment { at: self.started.elapsed(), event });
    }

    /// Gives each client its presence for a cycle.
    pub fn begin_cycle(&mut self, presences: &[Presence]) {
        for (client, presence) in self.clients.iter_mut().zip(presences) {
            client.begin_cycle(*presence);
        }
    }

    /// One turn: waits a little, reads, and lets every client do what is due.
    ///
    /// # Errors
    /// If polling fails.
    pub fn turn(&mut self, phase: Phase) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(TURN)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let mut scene = Scene {
            history: &mut self.history,
            started: self.started,
            address: self.address,
            salt: self.salt,
            topics: &self.topics,
            phase,
            activity: &mut self.activity,
        };
        for event in &self.events {
            if let Some(client) = self.clients.get_mut(event.token().0) {
                client.read(&mut scene);
            }
        }
        for client in &mut self.clients {
            client.work(&mut scene, self.poll.registry());
        }
        Ok(())
    }

    /// The broker is gone: takes what it had still sent, and gives the connections up.
    pub fn collect(&mut self, phase: Phase) {
        let mut scene = Scene {
            history: &mut self.history,
            started: self.started,
            address: self.address,
            salt: self.salt,
            topics: &self.topics,
            phase,
            activity: &mut self.activity,
        };
        for client in &mut self.clients {
            client.collect(&mut scene);
        }
    }

    /// Whether everybody is done and nothing has come for a while.
    pub fn is_quiet(&self) -> bool {
        self.activity.elapsed() > QUIET && self.clients.iter().all(Client::is_at_rest)
    }

    /// How long nothing has come.
    pub fn silence(&self) -> Duration {
        self.activity.elapsed()
    }

    /// Lets every client ask the broker whether it has dealt with all.
    pub fn ping(&mut self) {
        self.clients.iter_mut().for_each(Client::ping);
    }

    /// Who is not done, for people.
    pub fn busy(&self) -> Vec<String> {
        self.clients.iter().filter(|client| !client.is_at_rest()).map(Client::state).collect()
    }

    /// Writes down that everybody who should be there has got what is due. Returns the place before that.
    pub fn settle(&mut self) -> usize {
        let before = self.history.moments.len();
        for number in 0..self.clients.len() {
            if self.clients[number].has_two_connections() {
                self.write(Event::Outlived { client: number as ClientNumber });
            }
            if self.clients[number].is_expected() {
                self.write(Event::Settled { client: number as ClientNumber });
            }
        }
        before
    }
}
