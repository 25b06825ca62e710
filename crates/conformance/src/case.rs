//! What a test works with: the target, the version, and names that no other test uses.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crate::Options;
use crate::peer::{Outcome, Peer};
use crate::wire::{self, Connect, Publish, Version};

/// What follows the tag of a test in the first level of a marker's Topic Name.
pub(crate) const MARKER: &str = "-marker";

/// One run of one test.
pub struct Case<'a> {
    /// The version the test speaks.
    pub version: Version,
    target: String,
    options: &'a Options,
    tag: String,
    deadline: Instant,
    serial: Cell<u32>,
    lasting: RefCell<Vec<Vec<u8>>>,
    retained: RefCell<Vec<String>>,
}

impl<'a> Case<'a> {
    /// A run against `target`; `tag` begins every name it makes: at most 10 characters of `0-9a-zA-Z`.
    pub fn new(version: Version, target: &str, options: &'a Options, tag: String, limit: Duration) -> Case<'a> {
        Case {
            version,
            target: target.to_owned(),
            options,
            tag,
            deadline: Instant::now() + limit,
            serial: Cell::new(0),
            lasting: RefCell::default(),
            retained: RefCell::default(),
        }
    }

    /// The same test against another listener, under the same names.
    pub fn at(&self, target: &str) -> Case<'a> {
        Case {
            version: self.version,
            target: target.to_owned(),
            options: self.options,
            tag: self.tag.clone(),
            deadline: self.deadline,
            serial: Cell::new(0),
            lasting: RefCell::default(),
            retained: RefCell::default(),
        }
    }

    /// `HOST:PORT` of the broker.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How the run was asked for.
    pub fn options(&self) -> &'a Options {
        self.options
    }

    /// How long one answer may take.
    pub fn patience(&self) -> Duration {
        self.options.patience
    }

    /// When the test has to be over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(crate) fn trace(&self) -> bool {
        self.options.trace
    }

    /// Client Identifier for this test: at most 23 characters of `0-9a-zA-Z` if `name` has at most 13.
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// First level of all Topic Names of this test.
    pub fn root(&self) -> &str {
        &self.tag
    }

    /// Topic Name or Topic Filter of this test.
    pub fn topic(&self, rest: &str) -> String {
        format!("{}/{rest}", self.tag)
    }

    /// A Topic Name for a marker message, not used before in this test. Its first level is not [`root`](Self::root),
    /// so that no filter below that root matches it.
    pub fn marker_topic(&self) -> String {
        format!("{}{}/{}", self.tag, MARKER, self.serial())
    }

    /// A number not used before in this test, for names in steps that are repeated.
    pub fn serial(&self) -> u32 {
        self.serial.set(self.serial.get() + 1);
        self.serial.get()
    }

    /// A Topic Name for Retained Messages, which are removed after the test.
    pub fn retained_topic(&self, rest: &str) -> String {
        let topic = self.topic(rest);
        self.retained.borrow_mut().push(topic.clone());
        topic
    }

    /// A clean CONNECT.
    pub fn hello(&self, name: &str) -> Connect {
        let mut connect = Connect::new(self.version, self.id(name));
        if let Some((user, password)) = &self.options.credentials {
            connect.username = Some(user.clone().into_bytes());
            connect.password = Some(password.clone().into_bytes());
        }
        connect
    }

    /// A CONNECT that resumes or begins a Session that outlives its connection. The Session is removed after the
    /// test.
    pub fn lasting(&self, name: &str) -> Connect {
        self.lasting.borrow_mut().push(self.id(name).into_bytes());
        self.hello(name).clean(false).session_expiry(300)
    }

    /// A Network Connection that has said nothing yet.
    pub fn dial(&self, name: &str) -> Outcome<Peer> {
        Peer::open(self, name)
    }

    /// Connects clean.
    pub fn connect(&self, name: &str) -> Outcome<Peer> {
        self.connect_with(name, &self.hello(name))
    }

    /// Connects with a lasting Session; Session Present has to be `present`.
    pub fn resume(&self, name: &str, present: bool) -> Outcome<Peer> {
        let peer = self.connect_with(name, &self.lasting(name))?;
        let found = peer.connack.as_ref().is_some_and(|c| c.session_present);
        crate::ensure!(found == present, "{name}: Session Present is {found}, expected {present}");
        Ok(peer)
    }

    /// Connects as told.
    pub fn connect_with(&self, name: &str, connect: &Connect) -> Outcome<Peer> {
        let mut peer = self.dial(name)?;
        peer.hello(connect)?;
        Ok(peer)
    }

    /// Sends these bytes on a connection of its own, which has not connected yet.
    pub fn send_first(&self, name: &str, bytes: impl AsRef<[u8]>) -> Outcome<Peer> {
        let mut peer = self.dial(name)?;
        peer.send(bytes);
        Ok(peer)
    }

    /// Removes the Sessions and Retained Messages the test left behind. What cannot be removed stays: the verdict
    /// on the test is given already.
    pub fn tidy(&self) {
        for id in self.lasting.take() {
            let connect = Connect { client_id: id, ..self.hello("tidy") }.session_expiry(0);
            let _ = self.connect_with("tidy", &connect).and_then(Peer::disconnect);
        }
        let retained = self.retained.take();
        if retained.is_empty() {
            return;
        }
        let _ = self.connect("tidy").and_then(|mut peer| {
            for topic in retained {
                peer.send(Publish::new(topic, "", 0).retained().encode(self.version));
            }
            peer.fence()?;
            peer.end(wire::DISCONNECT)
        });
    }
}

/// Prints a line of the trace the user asked for.
#[allow(clippy::print_stderr)]
pub(crate) fn print_trace(line: &str) {
    eprintln!("{line}");
}
