//! What a Mosquitto broker has kept, for a broker that takes its place: taken over once, at a start with an empty store.
//!
//! A store is written beside the place of the real one, and put there when all of it is down. Where there is an empty folder in that
//! place, which may be a mount point that nothing can take the place of, it is written there, beside a file that says that it is not
//! finished and goes when all is down; what stands beside such a file is removed at the next start. So it is taken over whole or
//! not at all, and the start goes on as one with a store of its own.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pantala_proto::{Property, PublishProperties, TopicFilter, valid_topic_name};
use pantala_store::disk::{Directory, Disk};
use pantala_store::log::LogOptions;
use pantala_store::{
    Clock, Durability, Notice, Opened, Owner, Pause, Publish, Publisher, Receiver, Record, Session, SessionNumber,
    Store as _,
};
use pantala_tls::UserNameFrom;

use crate::config::{Config, ListenAddress, Listener, LogType};
use crate::log::Log;
use crate::mosquitto_db::{Client, Database, Message, Owed, Stage, Who};
use crate::storage::wall;

/// Where the store is written, beside its place.
const UNFINISHED: &str = "store.unfinished";
/// What stands in a store as long as it is not all there.
const MARKER: &str = "import.unfinished";
/// What a process has locked that has the store open.
pub(crate) const LOCK: &str = "lock";
/// The broker's time when it is, so large that whatever began before it has a time, too.
const NOW: u64 = u32::MAX as u64 * 1_000;
/// Records that go down together.
const RECORDS_PER_BATCH: usize = 4_096;
/// The same for what their payloads come to: it is in memory until then.
const PAYLOAD_BYTES_PER_BATCH: usize = 8 << 20;

/// How much was taken over, and how much was not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    retained: usize,
    sessions: usize,
    subscriptions: usize,
    messages: usize,
    /// What had expired meanwhile.
    expired: usize,
    /// Messages at QoS 0 that waited.
    at_most_once: usize,
    /// Messages of clients that had not released them.
    unreleased: usize,
    /// Second copies, of messages that several subscriptions of one client fit.
    copies: usize,
    /// What cannot be what it should be.
    wrong: usize,
}

/// Takes the file over, unless there is none or the store has been used.
pub(crate) fn take_over(config: &Config, file: &Path, store: &Path, log: &Log) -> Result<(), String> {
    let failed = |error: &dyn Display| {
        format!("cannot take over {}: {error}; without that file the broker starts with nothing", file.display())
    };
    if is_used(store) {
        return Ok(());
    }
    let bytes = match read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let file = file.display();
            let text = format!("There is no {file} to be taken over; one that comes later is not taken over either.");
            log.line(LogType::Notice, &text);
            return Ok(());
        }
        read => read.map_err(|error| failed(&error))?,
    };
    // As a full disk leaves it.
    if bytes.is_empty() {
        let text = format!("Warning: {} is empty: nothing is taken over from Mosquitto.", file.display());
        log.line(LogType::Warning, &text);
        return Ok(());
    }
    let database = Database::read(&bytes).map_err(|error| failed(&error))?;
    let unfinished = store.with_file_name(UNFINISHED);
    // That of a start that was broken off.
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    let in_place = store.is_dir();
    let directory = Directory::open(if in_place { store } else { &unfinished }).map_err(|error| failed(&error))?;
    let marker = in_place.then(|| store.join(MARKER));
    if let Some(marker) = &marker {
        // Before it was locked another broker may have begun.
        if is_used(store) {
            return Ok(());
        }
        // What is there already may be a link to another file.
        let mark = || File::create_new(marker)?.sync_all().and_then(|()| sync(store));
        mark().map_err(|error| failed(&error))?;
    }
    let opened = pantala_store::open(directory, LogOptions::default(), 1, Durability::Fsync);
    let opened = opened.map_err(|error| failed(&error))?;
    let mut import = Import::new(config, opened, wall());
    import.put(&database).map_err(|error| failed(&error))?;
    let counts = import.counts;
    let finished = match &marker {
        // While it is locked.
        Some(marker) => fs::remove_file(marker).and_then(|()| sync(store)),
        None => Ok(()),
    };
    drop(import.opened);
    let finished = finished.and_then(|()| match &marker {
        Some(_) => Ok(()),
        None => fs::rename(&unfinished, store).and_then(|()| sync(store.parent().unwrap_or(Path::new(".")))),
    });
    finished.map_err(|error| failed(&error))?;
    let Counts { retained, sessions, subscriptions, messages, expired, at_most_once, unreleased, copies, wrong } =
        counts;
    log.line(
        LogType::Notice,
        &format!(
            "Taken over from Mosquitto's {}: {retained} Retained Messages, {sessions} Sessions with {subscriptions} subscriptions and \
             {messages} messages that wait.",
            file.display()
        ),
    );
    let left_out = [
        (expired, "had expired"),
        (at_most_once, "messages at QoS 0 waited"),
        (unreleased, "messages had not been released by their publishers"),
        (copies, "messages were second copies, for subscriptions that overlap"),
        (wrong + database.unknown, "entries are not understood"),
    ];
    let left_out = left_out.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let left_out = left_out.collect::<Vec<_>>().join(", ");
    if !left_out.is_empty() {
        log.line(LogType::Warning, &format!("Warning: not taken over from Mosquitto: {left_out}."));
    }
    Ok(())
}

/// Whether a store is one whose taking over was broken off.
pub(crate) fn is_unfinished(store: &Path) -> bool {
    store.join(MARKER).exists()
}

/// Empties a store whose taking over was broken off: nobody has been served from it. What is to be taken over is so anew.
pub(crate) fn clear_unfinished(store: &Path, log: &Log) -> Result<(), String> {
    if !is_unfinished(store) {
        return Ok(());
    }
    let place = store.display();
    let failed = |error: &dyn Display| format!("cannot remove from {place} what was taken over in part: {error}");
    let directory = Directory::open(store).map_err(|error| failed(&error))?;
    // It may have been finished before it was locked.
    if is_unfinished(store) {
        let names = directory.list().map_err(|error| failed(&error))?;
        for name in names.iter().filter(|name| is_of_store(name)) {
            directory.remove(name).map_err(|error| failed(&error))?;
        }
        // Last: until then all is to be removed.
        directory.remove(MARKER).map_err(|error| failed(&error))?;
        let text =
            format!("Warning: a start was broken off while {place} was filled from Mosquitto's file: emptied again.");
        log.line(LogType::Warning, &text);
    }
    Ok(())
}

/// Whether a file is one that a store makes. Others may be anybody's.
pub(crate) fn is_of_store(name: &str) -> bool {
    let is_segment =
        name.split('.').next().is_some_and(|it| it.len() == 16 && it.bytes().all(|it| it.is_ascii_digit()));
    is_segment || name.starts_with("spare.") || name == "preparing"
}

/// Whether anything is kept in a store. What a file system has for itself in a folder of its own (`lost+found`) is nothing.
fn is_used(store: &Path) -> bool {
    let is_kept = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() != LOCK && entry.file_type().is_ok_and(|it| it.is_file()))
    };
    fs::read_dir(store).is_ok_and(|mut entries| entries.any(is_kept))
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads a whole file, and nothing that may never end.
fn read(file: &Path) -> io::Result<Vec<u8>> {
    // Without waiting for somebody who writes to a pipe.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Puts what a `mosquitto.db` holds into the store on a disk, which is empty, at this time in milliseconds since 1970. Returns how many Retained
/// Messages, Sessions, subscriptions and messages that wait it has taken over. For the fuzz target.
#[doc(hidden)]
pub fn import_mosquitto_db<D: Disk>(
    config: &Config,
    bytes: &[u8],
    disk: D,
    options: LogOptions,
    wall: u64,
) -> Result<[usize; 4], String> {
    let database = Database::read(bytes).map_err(|error| error.to_string())?;
    let opened = pantala_store::open(disk, options, 1, Durability::Fsync).map_err(|error| error.to_string())?;
    let mut import = Import::new(config, opened, wall);
    import.put(&database).map_err(|error| error.to_string())?;
    let Counts { retained, sessions, subscriptions, messages, .. } = import.counts;
    Ok([retained, sessions, subscriptions, messages])
}

struct Import<'c, D: Disk> {
    config: &'c Config,
    opened: Opened<D>,
    /// Records since the last commit.
    appended: usize,
    /// Of payloads among them.
    payload_bytes: usize,
    counts: Counts,
    /// Milliseconds since 1970.
    wall: u64,
}

/// What is owed of one message.
struct Debt {
    receiver: Receiver,
    stage: Stage,
    packet_id: u16,
}

impl<'c, D: Disk> Import<'c, D> {
    fn new(config: &'c Config, opened: Opened<D>, wall: u64) -> Self {
        Self { config, opened, appended: 0, payload_bytes: 0, counts: Counts::default(), wall }
    }

    fn put(&mut self, database: &Database<'_>) -> io::Result<()> {
        let mut sessions = HashMap::new();
        for client in &database.clients {
            if sessions.contains_key(client.who.client_id) {
                self.counts.wrong += 1;
                continue;
            }
            let number = self.session(client)?;
            sessions.insert(client.who.client_id, number);
        }
        for subscription in &database.subscriptions {
            let valid = |filter: &&str| {
                let (qos, handling) = (subscription.options & 0b11, subscription.options >> 4 & 0b11);
                TopicFilter::parse(filter).is_ok() && qos < 3 && handling < 3
            };
            let filter = std::str::from_utf8(subscription.filter).ok().filter(valid);
            let (Some(filter), Some(session)) = (filter, sessions.get(subscription.client_id)) else {
                self.counts.wrong += 1;
                continue;
            };
            // What is not taken over takes all that it held with it.
            let Some(session) = *session else { continue };
            let options = subscription.options;
            let identifier = NonZeroU32::new(subscription.identifier);
            self.append(&Record::Subscription { session, filter, options, identifier })?;
            self.counts.subscriptions += 1;
        }
        let mut debts = self.debts(database, &sessions);
        let retained: HashSet<u64> = database.retained.iter().copied().collect();
        let mut messages: Vec<_> = database.messages.iter().collect();
        messages.sort_unstable_by_key(|message| message.number);
        for message in messages {
            let owed = debts.remove(&message.number).unwrap_or_default();
            self.message(message, retained.contains(&message.number), owed)?;
        }
        // Owed, and not there.
        self.counts.wrong += debts.values().map(Vec::len).sum::<usize>();
        self.commit()
    }

    /// None if it is not taken over.
    fn session(&mut self, client: &Client<'_>) -> io::Result<Option<SessionNumber>> {
        let Client { who, expiry_interval, expires_at } = *client;
        let Some(client_id) = std::str::from_utf8(who.client_id).ok().filter(|client_id| !client_id.is_empty()) else {
            self.counts.wrong += 1;
            return Ok(None);
        };
        let expires = expiry_interval != u32::MAX && expires_at > 0;
        if expiry_interval == 0 || expires && expires_at.saturating_mul(1_000) <= self.wall {
            self.counts.expired += 1;
            return Ok(None);
        }
        let detached_at = match expires {
            true => self.broker_time(expires_at.saturating_sub(expiry_interval.into())).min(NOW),
            // It was connected, or it does not matter.
            false => NOW,
        };
        let expiry_interval = expiry_interval.min(self.config.settings.session_expiry_max.unwrap_or(u32::MAX));
        let Some(number) = self.opened.stores[0].next_session() else { return Ok(None) };
        let detached_at = Some(detached_at);
        self.append(&Record::Session(Session { number, client_id, expiry_interval, detached_at }))?;
        if let Some(owner) = user(self.config, &who) {
            self.append(&Record::Owner { session: number, owner: Some(owner) })?;
        }
        self.counts.sessions += 1;
        Ok(Some(number))
    }

    /// Who is owed each message, by its number.
    fn debts(
        &mut self,
        database: &Database<'_>,
        sessions: &HashMap<&[u8], Option<SessionNumber>>,
    ) -> HashMap<u64, Vec<Debt>> {
        let mut debts: HashMap<u64, Vec<Debt>> = HashMap::new();
        let (mut orders, mut packet_ids, mut receivers) = (HashMap::new(), HashSet::new(), HashSet::new());
        for owed in &database.owed {
            let Owed { client_id, message, packet_id, qos, retain, stage, properties } = *owed;
            match (stage, qos) {
                (Stage::FromClient, _) => self.counts.unreleased += 1,
                (_, 0) => self.counts.at_most_once += 1,
                (_, 1 | 2) => {
                    let Some(session) = sessions.get(client_id) else {
                        self.counts.wrong += 1;
                        continue;
                    };
                    let Some(session) = *session else { continue };
                    // A copy for each of several subscriptions is one too many here.
                    if !receivers.insert((message, session)) {
                        self.counts.copies += 1;
                        continue;
                    }
                    let order = orders.entry(session).or_insert(0_u64);
                    *order += 1;
                    let (order, group) = (*order, None);
                    let receiver =
                        Receiver { session, qos, retain, order, identifiers: identifiers(properties), group };
                    let has_exchange =
                        stage != Stage::Waiting && packet_id > 0 && packet_ids.insert((session, packet_id));
                    let stage = if has_exchange { stage } else { Stage::Waiting };
                    debts.entry(message).or_default().push(Debt { receiver, stage, packet_id });
                }
                _ => self.counts.wrong += 1,
            }
        }
        debts
    }

    fn message(&mut self, message: &Message<'_>, is_retained: bool, owed: Vec<Debt>) -> io::Result<()> {
        let topic_name = std::str::from_utf8(message.topic_name).ok().filter(|name| valid_topic_name(name));
        let properties = PublishProperties::new(message.properties).ok();
        let properties = properties.filter(|properties| !properties.has_subscription_identifier);
        let (Some(topic_name), Some(properties), 0..=2) = (topic_name, properties, message.qos) else {
            self.counts.wrong += 1 + owed.len();
            return Ok(());
        };
        // What the broker itself says there, this one does.
        let is_retained = is_retained && !message.payload.is_empty() && !topic_name.starts_with("$SYS/");
        if owed.is_empty() && !is_retained {
            return Ok(());
        }
        let expires_at = (message.expires_at > 0).then(|| self.broker_time(message.expires_at));
        if expires_at.is_some_and(|at| at <= NOW) {
            self.counts.expired += owed.len() + usize::from(is_retained);
            return Ok(());
        }
        let forward = properties.forward();
        let (mut bytes, mut message_expiry_at) = (forward.bytes().collect::<Vec<u8>>(), forward.message_expiry_at());
        if let (Some(at), None) = (expires_at, message_expiry_at) {
            // It is kept elsewhere there, and written with what is left of it when the message goes out.
            const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
            message_expiry_at = Some(bytes.len());
            bytes.push(MESSAGE_EXPIRY_INTERVAL);
            bytes.extend(u32::try_from((at - NOW) / 1_000).unwrap_or(u32::MAX).to_be_bytes());
        }
        let Some(id) = self.opened.stores[0].next_message() else { return Ok(()) };
        let publisher = user(self.config, &message.publisher).and_then(|Owner { security_domain, user_name }| {
            let client_id = std::str::from_utf8(message.publisher.client_id).ok()?;
            let (address, certificate, granted) = (None, false, false);
            Some(Publisher { security_domain, user_name: Some(user_name), client_id, address, certificate, granted })
        });
        let receivers: Vec<Receiver> = owed.iter().map(|debt| debt.receiver.clone()).collect();
        self.append(&Record::Publish(Publish {
            id,
            message: pantala_store::Message {
                topic_name,
                properties: [&bytes, &[]],
                message_expiry_at: message_expiry_at.map(|at| at as u32),
                payload: message.payload,
                qos: message.qos,
                retain: message.retain,
                expires_at,
            },
            receivers: &receivers,
            others: 0,
            opens: None,
            will_of: None,
            retained: is_retained,
            publisher: publisher.filter(|_| is_retained),
        }))?;
        for Debt { receiver, stage, packet_id } in &owed {
            let (session, order, packet_id) = (receiver.session, receiver.order, *packet_id);
            let copy = receiver.copy();
            if *stage != Stage::Waiting {
                self.append(&Record::Sent { session, message: id, copy, packet_id, order })?;
            }
            if *stage == Stage::Released {
                self.append(&Record::Released { session, message: Some(id), copy, packet_id, order })?;
            }
        }
        self.counts.messages += owed.len();
        self.counts.retained += usize::from(is_retained);
        Ok(())
    }

    /// Seconds since 1970 in the broker's time.
    fn broker_time(&self, seconds: u64) -> u64 {
        (NOW + seconds.saturating_mul(1_000).min(u64::MAX / 2)).saturating_sub(self.wall)
    }

    fn append(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.opened.stores[0].append(record);
        self.appended += 1;
        if let Record::Publish(publish) = record {
            self.payload_bytes += publish.message.payload.len();
        }
        let is_full = self.appended >= RECORDS_PER_BATCH || self.payload_bytes >= PAYLOAD_BYTES_PER_BATCH;
        if is_full { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> io::Result<()> {
        (self.appended, self.payload_bytes) = (0, 0);
        self.opened.stores[0].submit();
        let mut failure = None;
        let clock = Clock { broker: NOW, wall: self.wall };
        loop {
            let pause = self.opened.committer.step(clock, &mut |notice| match notice {
                Notice::Full => failure = Some(io::ErrorKind::StorageFull.into()),
                Notice::Failed(error) => failure = Some(error),
                Notice::Working | Notice::Cleaning(_) | Notice::Damaged(_) => {}
            });
            match pause {
                Pause::Idle => return Ok(()),
                Pause::None => {}
                Pause::Trouble => return Err(failure.unwrap_or_else(|| io::Error::other("the store has failed"))),
            }
        }
    }
}

/// The user that somebody was, where that is sure: at a port whose listeners all let in nobody who has not proved a name, and belong
/// to one security domain. Elsewhere a name proves nothing, and Mosquitto may have written down another client's.
fn user<'a>(config: &'a Config, who: &Who<'a>) -> Option<Owner<'a>> {
    let is_there = |address: &ListenAddress| matches!(address, ListenAddress::Tcp { port, .. } if *port == who.port);
    let proves = |listener: &&Listener| {
        let settings = &listener.settings;
        let from_certificate =
            listener.tls.as_ref().is_some_and(|tls| tls.user_name_from_certificate != UserNameFrom::No);
        !settings.allow_anonymous && (settings.verify_credentials || from_certificate)
    };
    // Several listeners share a port, at addresses of their own, and the file has the port alone.
    let mut listeners = config.listeners.iter().filter(|listener| is_there(&listener.address));
    let first = listeners.next().filter(proves)?;
    let security = first.settings.security;
    if !listeners.all(|listener| proves(&listener) && listener.settings.security == security) {
        return None;
    }
    let user_name = std::str::from_utf8(who.user_name).ok().filter(|name| !name.is_empty())?;
    let names = &config.settings.security_domains;
    let security_domain = names.get(usize::from(security.0)).map_or("", String::as_str);
    Some(Owner { security_domain, user_name })
}

/// The Subscription Identifiers among these properties.
fn identifiers(properties: &[u8]) -> Vec<NonZeroU32> {
    let found = PublishProperties::new(properties).ok();
    let found = found.iter().flat_map(PublishProperties::iter).filter_map(|property| match property {
        Property::SubscriptionIdentifier(identifier) => Some(identifier),
        _ => None,
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogConfig, Overrides};

    #[test]
    fn what_is_not_there_or_empty_is_said_and_what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [file, store, said] = ["mosquitto.db", "store", "log"].map(|name| folder.path().join(name));
        let log = LogConfig { stderr: false, file: Some(said.clone()), ..LogConfig::default() };
        let log = Log::open(log).unwrap();
        let config = Config::load(None, &Overrides::default()).unwrap();
        let take_over = || take_over(&config, &file, &store, &log);
        assert_eq!(take_over(), Ok(()));
        assert!(fs::read_to_string(&said).unwrap().contains("mosquitto.db to be taken over"));
        fs::write(&file, "").unwrap();
        assert_eq!(take_over(), Ok(()));
        assert!(fs::read_to_string(&said).unwrap().contains("mosquitto.db is empty"));
        fs::remove_file(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let error = take_over().unwrap_err();
        assert!(error.contains("it is no regular file"), "{error}");
        // A store that is there is left alone.
        fs::create_dir(&store).unwrap();
        fs::write(store.join("x"), "").unwrap();
        assert_eq!(take_over(), Ok(()));
    }

    /// The volume of a container is a mount point, which nothing can take the place of: the start ended as its store could not
    /// be put there. What a file system has made in it for itself had it taken for a store that was used.
    #[test]
    #[cfg(target_endian = "little")]
    fn an_empty_folder_is_filled_in_its_place_whole_or_not_at_all() {
        use std::os::unix::fs::MetadataExt as _;

        let folder = tempfile::tempdir().unwrap();
        let [file, store, said] = ["mosquitto.db", "store", "log"].map(|name| folder.path().join(name));
        let log = LogConfig { stderr: false, file: Some(said.clone()), ..LogConfig::default() };
        let log = Log::open(log).unwrap();
        let config = Config::load(None, &Overrides::default()).unwrap();
        let take_over = || {
            clear_unfinished(&store, &log)?;
            take_over(&config, &file, &store, &log)
        };
        let times = |text: &str| fs::read_to_string(&said).unwrap().matches(text).count();
        let entries = || {
            let mut out = Vec::new();
            crate::store_tool::dump(folder.path(), None, &mut out)
                .map(|_| out.iter().filter(|it| **it == b'\n').count())
        };
        fs::write(&file, include_bytes!("../tests/mosquitto-db/2.0.11.db")).unwrap();
        fs::create_dir_all(store.join("lost+found")).unwrap();
        let place = fs::metadata(&store).unwrap().ino();
        assert_eq!(take_over(), Ok(()));
        assert_eq!((times("Taken over from"), fs::metadata(&store).unwrap().ino()), (1, place));
        assert!(store.join("lost+found").exists() && !is_unfinished(&store));
        assert!(!store.with_file_name(UNFINISHED).exists());
        let whole = entries().unwrap();
        assert!(whole > 10, "{whole}");
        // Once.
        assert_eq!(take_over(), Ok(()));
        assert_eq!(times("Taken over from"), 1);
        // Broken off, at several moments.
        let segment = || {
            let mut paths = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
            paths.find(|path| path.extension().is_some_and(|extension| extension == "log")).unwrap()
        };
        for (begun_anew, left) in [(1, Some(4_096)), (2, Some(0)), (3, None)] {
            match left {
                Some(bytes) => File::options().write(true).open(segment()).unwrap().set_len(bytes).unwrap(),
                None => fs::remove_file(segment()).unwrap(),
            }
            fs::write(store.join(MARKER), "").unwrap();
            let error = entries().unwrap_err();
            assert!(error.is_unopened() && error.to_string().contains("begins that anew"), "{error}");
            assert_eq!(take_over(), Ok(()));
            assert_eq!((times("emptied again"), times("Taken over from")), (begun_anew, begun_anew + 1));
            assert_eq!((entries().unwrap(), fs::metadata(&store).unwrap().ino()), (whole, place));
        }
        // With nothing to be taken over any more nothing of it is left.
        fs::write(store.join(MARKER), "").unwrap();
        let written = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(take_over(), Ok(()));
        assert!(!is_used(&store) && !is_unfinished(&store));
        // A link in the place of the mark is not followed, by which root would have emptied or made any file.
        fs::write(&file, written).unwrap();
        let victim = folder.path().join("victim");
        std::os::unix::fs::symlink(&victim, store.join(MARKER)).unwrap();
        assert!(take_over().unwrap_err().contains("File exists"));
        assert!(!victim.exists() && !is_used(&store));
    }

    /// Two brokers with one data directory: the second would have removed what the first was writing.
    #[test]
    fn a_store_that_another_process_fills_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [store, said] = ["store", "log"].map(|name| folder.path().join(name));
        let log = Log::open(LogConfig { stderr: false, file: Some(said), ..LogConfig::default() }).unwrap();
        let _other = Directory::open(&store).unwrap();
        for name in [MARKER, "0000000000000001.log"] {
            fs::write(store.join(name), "").unwrap();
        }
        let error = clear_unfinished(&store, &log).unwrap_err();
        assert!(error.contains("in use"), "{error}");
        assert!(is_unfinished(&store) && is_used(&store));
    }

    /// A client of an anonymous listener may have called itself as it liked.
    #[test]
    fn a_name_is_believed_where_no_listener_of_the_port_lets_others_in() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pantala.toml");
        let listener = |host: &str, anonymous: bool, security: &str| {
            format!(
                "[[listener]]\nport = 1883\nhost = \"{host}\"\nallow_anonymous = {anonymous}\nsecurity = \"{security}\"\n"
            )
        };
        let strict = listener("10.0.0.1", false, "plant");
        let domains =
            ["plant", "office"].map(|name| format!("[[security]]\nname = \"{name}\"\npassword_file = \"/p\"\n"));
        for (second, expected) in [
            (String::new(), Some("plant")),
            (listener("127.0.0.1", false, "plant"), Some("plant")),
            (listener("127.0.0.1", true, "plant"), None),
            (listener("127.0.0.1", false, "office"), None),
            (listener("127.0.0.1", true, "plant").replace("1883", "1884"), Some("plant")),
        ] {
            for listeners in [format!("{strict}{second}"), format!("{second}{strict}")] {
                fs::write(&path, format!("{listeners}{}", domains.concat())).unwrap();
                let config = Config::load(Some(&path), &Overrides::default()).unwrap();
                let who = Who { client_id: b"c", user_name: b"admin", port: 1_883 };
                let owner = user(&config, &who);
                assert_eq!(owner.as_ref().map(|owner| owner.security_domain), expected, "{listeners}");
            }
        }
    }
}
