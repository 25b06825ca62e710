//! Dynamic security in force: the state, its file, and who carries out the commands that change it.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::thread;
use std::time::Duration;

use pantala_access::dynsec::{Credentials as Known, DynamicSecurity, FILE_BYTES_MAX, Host, Kick, Response, refuse};
use pantala_access::{Rules, Subject};
use pantala_broker::{ConnectionKey, SecurityId, Standing};
use pantala_identity::cache::{Cache, Hasher};
use pantala_identity::{Credentials, Identity, Outcome, Refusal};
use pantala_password::{Algorithm, Hash};
use pantala_session::Instant;

use super::domain::{Domain, lock, read_text};
use super::{Counters, Security, control};
use crate::config::{LogType, Verification};
use crate::inbox::{Inbox, Letter};
use crate::log::shown;

/// Where commands are published to; the answer comes by the same with `/response`.
pub(super) const COMMANDS: &str = "$CONTROL/dynamic-security/v1";
const RESPONSES: &str = "$CONTROL/dynamic-security/v1/response";
/// So many commands wait at most; what comes then is dropped, and logged.
const COMMANDS_WAITING_MAX: usize = 64;
/// The workers have so long to say who is connected.
const CONNECTED_PATIENCE: Duration = Duration::from_secs(2);
const NOT_SAVED: &str = "The change could not be saved";
/// As a password file of ours.
const ALGORITHM: Algorithm = Algorithm::Argon2id { iterations: 1 };
const SALT_BYTES: usize = 12;

/// The state that is kept in one file, which outlives reloads: its file is read again, but a command in between is not lost.
#[derive(Debug)]
pub(super) struct Dynamic {
    path: PathBuf,
    kept_max: usize,
    state: Mutex<State>,
    snapshot: RwLock<Arc<Snapshot>>,
}

#[derive(Debug)]
struct State {
    security: DynamicSecurity,
    /// Commands that have changed it.
    changes: u64,
}

/// The file of a domain read again, and not in force yet.
#[derive(Debug)]
pub(super) struct Reread {
    dynamic: Arc<Dynamic>,
    security: DynamicSecurity,
    snapshot: Arc<Snapshot>,
    /// [`State::changes`] when it was read.
    changes: u64,
}

impl Reread {
    /// Puts it in force, unless a command has written the file since: what is in force then is what the file holds. Returns the state,
    /// and whose password is another one now.
    pub fn publish(self) -> (Arc<Dynamic>, HashSet<Box<str>>) {
        let Self { dynamic, security, snapshot, changes } = self;
        let mut state = lock(&dynamic.state);
        let mut changed = HashSet::new();
        if state.changes == changes {
            changed = snapshot.passwords_changed_since(&dynamic.snapshot());
            state.security = security;
            dynamic.publish(snapshot);
        }
        drop(state);
        (dynamic, changed)
    }
}

/// The states of all domains of a configuration. Those that name the same file have the same one: with one each, whatever was
/// commanded last would write its own into the file, and what others had changed there would be lost.
pub(super) struct Dynamics<'a> {
    old: &'a [Arc<Domain>],
    found: Vec<Arc<Dynamic>>,
    reread: Vec<Reread>,
}

impl<'a> Dynamics<'a> {
    /// `old` are the domains in force.
    pub fn new(old: &'a [Arc<Domain>]) -> Self {
        Self { old, found: Vec::new(), reread: Vec::new() }
    }

    /// The state that is kept in a file. Commands go on in the one that is there.
    pub fn of(&mut self, path: &Path, bounds: &Verification) -> Result<Arc<Dynamic>, String> {
        if let Some(found) = self.found.iter().find(|found| found.is_at(path)) {
            return Ok(Arc::clone(found));
        }
        let mut old = self.old.iter().filter_map(|domain| domain.dynamic.as_ref());
        let dynamic = match old.find(|old| old.is_at(path)) {
            Some(old) => {
                self.reread.push(old.reread()?);
                Arc::clone(old)
            }
            None => Dynamic::open(path, bounds)?,
        };
        self.found.push(Arc::clone(&dynamic));
        Ok(dynamic)
    }

    /// What has been read again, to be published.
    pub fn into_reread(self) -> Vec<Reread> {
        self.reread
    }
}

/// The state as it was at one time, in the form in which it is asked.
#[derive(Debug)]
pub(super) struct Snapshot {
    rules: Rules,
    clients: HashMap<Box<str>, Client>,
    /// Those with a hash, in order.
    with_hash: Vec<Box<str>>,
    /// Passwords that were right.
    verified: Mutex<Cache<()>>,
}

#[derive(Debug)]
struct Client {
    hash: Option<Hash>,
    /// The only Client Identifier it may come with.
    client_id: Option<Box<str>>,
    disabled: bool,
}

impl Dynamic {
    fn open(path: &Path, bounds: &Verification) -> Result<Arc<Self>, String> {
        let (security, snapshot) = read(path, bounds.kept_max)?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            kept_max: bounds.kept_max,
            state: Mutex::new(State { security, changes: 0 }),
            snapshot: RwLock::new(snapshot),
        }))
    }

    /// Whether this is its file, by whatever name.
    fn is_at(&self, path: &Path) -> bool {
        let target = |path: &Path| fs::canonicalize(path).ok();
        self.path == path || target(&self.path).is_some_and(|of_self| Some(of_self) == target(path))
    }

    /// Reads the file again. Nothing changes before the result is published.
    fn reread(self: &Arc<Self>) -> Result<Reread, String> {
        // Held meanwhile, so that no command writes the file while it is read.
        let state = lock(&self.state);
        let (security, snapshot) = read(&self.path, self.kept_max)?;
        Ok(Reread { dynamic: Arc::clone(self), security, snapshot, changes: state.changes })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn publish(&self, snapshot: Arc<Snapshot>) {
        *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// Carries out a request. What it changes is in the file, and in force here, before it is answered; what cannot be
    /// saved is not changed.
    fn apply(&self, request: &[u8], world: &mut World<'_>) -> Result<Response, String> {
        let mut state = lock(&self.state);
        let mut new = state.security.clone();
        let response = new.apply(request, world);
        if response.changed {
            let snapshot = Snapshot::new(&new, self.kept_max)?;
            replace(&self.path, &new.to_json()).map_err(|error| format!("{}: {error}", self.path.display()))?;
            state.security = new;
            state.changes += 1;
            self.publish(snapshot);
        }
        Ok(response)
    }
}

fn read(path: &Path, kept_max: usize) -> Result<(DynamicSecurity, Arc<Snapshot>), String> {
    let text = read_text(path, FILE_BYTES_MAX as u64)?;
    let state = DynamicSecurity::parse(text.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
    let snapshot = Snapshot::new(&state, kept_max).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((state, snapshot))
}

impl Snapshot {
    fn new(state: &DynamicSecurity, kept_max: usize) -> Result<Arc<Self>, String> {
        let client = |(name, known): (&str, Known<'_>)| {
            let hash = known.password.map(Hash::parse).transpose();
            let hash = hash.map_err(|error| format!("username {name:?}, password: {error}"))?;
            let client = Client { hash, client_id: known.client_id.map(Box::from), disabled: known.disabled };
            Ok((Box::from(name), client))
        };
        let clients: HashMap<Box<str>, Client> = state.all_credentials().map(client).collect::<Result<_, String>>()?;
        let with_hash = clients.iter().filter(|(_, client)| client.hash.is_some());
        let mut with_hash: Vec<Box<str>> = with_hash.map(|(name, _)| name.clone()).collect();
        with_hash.sort_unstable();
        let verified = Mutex::new(Cache::new(kept_max));
        Ok(Arc::new(Self { rules: state.rules(), clients, with_hash, verified }))
    }

    /// Those whose password is another one than in `old`.
    pub fn passwords_changed_since(&self, old: &Self) -> HashSet<Box<str>> {
        let mut changed = HashSet::new();
        for (name, client) in &self.clients {
            let old = old.clients.get(name).and_then(|old| old.hash.as_ref());
            if old.is_some() && old != client.hash.as_ref() {
                changed.insert(name.clone());
            }
        }
        changed
    }

    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// What a client may do. With `only` nobody else can say who a user is, so that one who is not there is gone.
    pub fn standing(&self, subject: &Subject<'_>, only: bool) -> Standing {
        match subject.user_name.map(|name| self.clients.get(name)) {
            Some(Some(client)) if client.disabled => Standing::Banned,
            Some(None) if only && !subject.named_by_certificate => Standing::Unknown,
            _ => Standing::Rights(self.rules.rights(subject)),
        }
    }

    /// Verifies a password, as a password file does: an unknown user costs what one of the others does.
    pub fn verify(
        &self,
        credentials: &Credentials,
        hasher: &Hasher,
        now: Instant,
        bounds: &Verification,
        counters: &Counters,
    ) -> Outcome {
        let Some(user_name) = credentials.user_name.as_deref() else { return Outcome::NotMine };
        let known = self.clients.get(user_name);
        let hash = known.and_then(|client| client.hash.as_ref()).or_else(|| {
            let place = hasher.number(user_name) % (self.with_hash.len().max(1) as u64);
            self.clients.get(self.with_hash.get(place as usize)?)?.hash.as_ref()
        });
        let password = credentials.password.as_deref();
        let digest = hasher.password(user_name, password.unwrap_or_default());
        let remembered = known.is_some() && password.is_some() && lock(&self.verified).find(now, &digest).is_some();
        let fits = if remembered {
            Counters::count(&counters.remembered);
            true
        } else {
            Counters::count(&counters.hashed);
            hash.is_some_and(|hash| std::hint::black_box(hash.verify(password.unwrap_or_default())))
        };
        let Some(client) = known else { return Outcome::NotMine };
        let is_own_id = client.client_id.as_ref().is_none_or(|id| *id == credentials.client_id);
        if !fits || password.is_none() || client.hash.is_none() || client.disabled || !is_own_id {
            return Outcome::Refuse(Refusal::Password);
        }
        if !remembered {
            lock(&self.verified).put(now, digest, (), bounds.keep);
        }
        Outcome::Accept(Identity::named(user_name))
    }
}

/// What commands are given of the world.
struct World<'a> {
    /// All domains with this state.
    domains: &'a [SecurityId],
    inboxes: &'a [Arc<Inbox>],
    /// Who is connected, by user name: asked for when it is first needed, once for all commands of a request.
    connected: OnceCell<HashMap<Box<str>, Vec<IpAddr>>>,
}

impl World<'_> {
    /// Each connection belongs to a worker of its own, so that all are asked. One that does not answer in time has none.
    fn connected(&self) -> &HashMap<Box<str>, Vec<IpAddr>> {
        self.connected.get_or_init(|| {
            let (sender, receiver) = channel();
            for (inbox, domain) in self.inboxes.iter().flat_map(|inbox| self.domains.iter().map(move |it| (inbox, it)))
            {
                inbox.send(Letter::Connected(*domain, sender.clone()));
            }
            drop(sender);
            let (begun, mut connected) = (std::time::Instant::now(), HashMap::<_, Vec<_>>::new());
            while let Ok(some) = receiver.recv_timeout(CONNECTED_PATIENCE.saturating_sub(begun.elapsed())) {
                some.into_iter().for_each(|(user, address)| connected.entry(user).or_default().push(address));
            }
            connected.values_mut().for_each(|addresses| addresses.sort_unstable());
            connected
        })
    }
}

impl Host for World<'_> {
    fn hash(&mut self, password: &str) -> Option<String> {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).ok()?;
        Some(Hash::new(ALGORITHM, password.as_bytes(), &salt).ok()?.to_string())
    }

    fn addresses(&self, user_name: &str) -> Vec<IpAddr> {
        self.connected().get(user_name).cloned().unwrap_or_default()
    }
}

/// A command on its way.
pub(crate) struct ControlRequest {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) connection: ConnectionKey,
    pub(crate) generation: u32,
    pub(crate) security: SecurityId,
    pub(crate) client_id: Box<str>,
    pub(crate) user_name: Option<Box<str>>,
    pub(crate) topic_name: Box<str>,
    pub(crate) payload: Box<[u8]>,
}

impl Security {
    /// From now on commands are carried out, for these workers.
    pub(crate) fn serve_commands(&self, inboxes: &Arc<[Arc<Inbox>]>) {
        // Called once.
        drop(self.inboxes.set(Arc::clone(inboxes)));
    }

    /// Has a command carried out. Called on a worker's thread, so it waits for nothing.
    pub(crate) fn command(self: &Arc<Self>, request: ControlRequest) {
        let is_known = match &*request.topic_name {
            COMMANDS => self.dynamic(request.security).is_some(),
            control::COMMANDS => self.described().is_some(),
            _ => false,
        };
        if !is_known {
            return;
        }
        let dropped = |request: &ControlRequest, why: &dyn fmt::Display| {
            self.log.limited(LogType::Warning, "commands", || {
                format!("A command of client {} is dropped: {why}.", shown(&request.client_id))
            });
        };
        let Some(commands) = self.commands() else { return dropped(&request, &"there is no thread for it") };
        match commands.try_send(request) {
            Ok(()) => {}
            Err(TrySendError::Full(request)) => dropped(&request, &"too many wait"),
            Err(TrySendError::Disconnected(request)) => {
                // The next one starts a thread again.
                *lock(&self.commands) = None;
                dropped(&request, &"the thread for it has ended");
            }
        }
    }

    /// To the thread that carries out commands. It is started with the first one, as a reload may have brought what there is to
    /// command.
    fn commands(self: &Arc<Self>) -> Option<SyncSender<ControlRequest>> {
        let mut commands = lock(&self.commands);
        if commands.is_none() {
            let (sender, receiver) = sync_channel(COMMANDS_WAITING_MAX);
            let (security, inboxes) = (Arc::downgrade(self), Arc::clone(self.inboxes.get()?));
            // It ends with the last of the workers, and so with the sender.
            let serve = move || serve(&receiver, &security, &inboxes);
            thread::Builder::new().name("commands".to_owned()).spawn(serve).ok()?;
            *commands = Some(sender);
        }
        commands.clone()
    }

    fn dynamic(&self, security: SecurityId) -> Option<Arc<Dynamic>> {
        self.domains().get(usize::from(security.0))?.dynamic.clone()
    }

    /// Whose users and rules are those of this state.
    fn domains_of(&self, dynamic: &Arc<Dynamic>) -> Vec<SecurityId> {
        let domains = self.domains();
        let own = domains
            .iter()
            .enumerate()
            .filter(|(_, domain)| domain.dynamic.as_ref().is_some_and(|of_domain| Arc::ptr_eq(of_domain, dynamic)));
        own.map(|(number, _)| SecurityId(number as u16)).collect()
    }

    fn carry_out(&self, request: ControlRequest, inboxes: &[Arc<Inbox>]) {
        let ControlRequest { inbox, connection, generation, security, client_id, user_name, topic_name, payload } =
            request;
        if &*topic_name == control::COMMANDS {
            if let Some(described) = self.described() {
                let answer = described.answer(&payload).into_boxed_str();
                inbox.send(Letter::Answer(connection, generation, control::RESPONSES, answer, None));
            }
            return;
        }
        let Some(dynamic) = self.dynamic(security) else { return };
        let domains = self.domains_of(&dynamic);
        let mut world = World { domains: &domains, inboxes, connected: OnceCell::new() };
        let applied = dynamic.apply(&payload, &mut world).unwrap_or_else(|error| {
            self.log.line(LogType::Error, &format!("Dynamic security: nothing is changed, {}", shown(&error)));
            Response { json: refuse(&payload, NOT_SAVED), changed: false, kicks: Vec::new(), log: Vec::new() }
        });
        let user_name = user_name.map_or("-".to_owned(), |name| shown(&name).to_string());
        for line in &applied.log {
            let line = format!("Dynamic security: {}/{user_name} | {line}", shown(&client_id));
            self.log.line(LogType::Information, &line);
        }
        let rights = applied.changed.then(|| self.rights_source());
        if let Some(rights) = &rights {
            let others = inboxes.iter().filter(|other| !Arc::ptr_eq(other, &inbox));
            others.for_each(|inbox| inbox.send(Letter::Rights(Arc::clone(rights))));
        }
        // With the answer, so that whoever has it finds the new rules in force.
        inbox.send(Letter::Answer(connection, generation, RESPONSES, applied.json.into_boxed_str(), rights));
        for Kick { who, .. } in applied.kicks.into_iter().filter(|kick| kick.must_leave) {
            let who = Arc::new(who);
            for (inbox, domain) in inboxes.iter().flat_map(|inbox| domains.iter().map(move |it| (inbox, it))) {
                inbox.send(Letter::Leave(*domain, Arc::clone(&who)));
            }
        }
    }
}

fn serve(receiver: &Receiver<ControlRequest>, security: &Weak<Security>, inboxes: &[Arc<Inbox>]) {
    while let Ok(request) = receiver.recv() {
        let Some(security) = security.upgrade() else { break };
        security.carry_out(request, inboxes);
    }
}

/// Replaces a file in one step: whoever opens it has the old text or the new one, after a power cut too.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    // A link stays a link.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = folder.join(name);
    let written = write_and_rename(&target, &temporary, folder, text);
    if written.is_err() {
        // It may never have been there.
        drop(fs::remove_file(&temporary));
    }
    written
}

fn write_and_rename(target: &Path, temporary: &Path, folder: &Path, text: &[u8]) -> io::Result<()> {
    const OWNER_ONLY: u32 = 0o600;
    const PERMISSIONS: u32 = 0o777;
    // What was left behind when the broker was killed.
    drop(fs::remove_file(temporary));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(temporary)?;
    if let Ok(before) = fs::metadata(target) {
        let now = file.metadata()?;
        // The owner first: a change of owner takes some modes away.
        if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
            std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()))?;
        }
        file.set_permissions(fs::Permissions::from_mode(before.mode() & PERMISSIONS))?;
    }
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(temporary, target)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token, Waker};

    use super::*;
    use crate::config::{Config, LogConfig, Overrides};
    use crate::log::Log;
    use crate::security::Surroundings;
    use crate::security::control::Described;

    /// A thread that has ended has taken one command with it, and not all that come.
    #[test]
    fn a_thread_for_commands_that_has_ended_is_started_again() {
        let config = Config::load(None, &Overrides::default()).unwrap();
        let surroundings = Surroundings {
            allow_anonymous: Box::new([true]),
            bounds: Verification::default(),
            patience: Duration::from_secs(10),
            scram_users: Default::default(),
            described: Some(Described::of(&config)),
            secret: [1; 32],
            clock: crate::worker::Clock::start(Instant(1)),
            log: Log::open(LogConfig { stderr: false, ..LogConfig::default() }).unwrap(),
        };
        let security = Security::new(Vec::new(), surroundings).unwrap();
        let mut poll = Poll::new().unwrap();
        let inbox = Inbox::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let inboxes: Arc<[_]> = Arc::new([Arc::clone(&inbox)]);
        security.serve_commands(&inboxes);
        let command = || {
            security.command(ControlRequest {
                inbox: Arc::clone(&inbox),
                connection: 1,
                generation: 1,
                security: SecurityId(0),
                client_id: "c".into(),
                user_name: None,
                topic_name: control::COMMANDS.into(),
                payload: b"{}".as_slice().into(),
            });
        };
        *lock(&security.commands) = Some(sync_channel(1).0);
        command();
        assert!(lock(&security.commands).is_none());
        assert!(inbox.go_to_sleep());
        command();
        poll.poll(&mut mio::Events::with_capacity(1), Some(Duration::from_secs(60))).unwrap();
        let mut letters = Vec::new();
        inbox.take(&mut letters);
        assert!(matches!(&letters[..], [Letter::Answer(1, 1, control::RESPONSES, ..)]));
    }
}
