//! Who comes in: verifying the credentials of clients, away from the workers.
//!
//! ```text
//! worker ── authenticate ──► brake ──► known of late? ──► chain: jwt, password ──► hashing threads (few, at low priority)
//!    ▲                         │              │                           http ──► calling threads (wait for services)
//!    └──────── a letter ◄──────┴──────────────┴───────────────────────┴── each with a bounded, fair queue
//! ```
//!
//! What a worker does itself takes microseconds: it asks the brake, and whether the same password was right a moment ago.
//! All else is a job that goes along the chain of its domain's back ends, on the threads that the next one needs. At each turn
//! the brake is asked again, since others may have failed while it waited. Whatever happens to it, it answers once: when it is
//! dropped, by "not now".

mod control;
mod domain;
mod dynamic;
mod http;
mod keys;
mod pool;
mod seam;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pantala_broker::{Proof as By, ScramUser, SecurityId, authentication};
use pantala_identity::brake::{self, Brake, Name};
use pantala_identity::cache::{Digest, Hasher};
use pantala_identity::chain::{BackEnd, Next};
use pantala_identity::http as answers;
use pantala_identity::jwt::{KeySet, Rejection};
use pantala_identity::{Credentials, Identity, Outcome, Proof, Refusal, Unavailable};
use pantala_session::Instant;

pub(crate) use self::control::Described;
pub(crate) use self::domain::DomainError;
use self::domain::{Domain, Service, Tokens, lock};
pub(crate) use self::dynamic::ControlRequest;
use self::dynamic::{Dynamics, Reread};
use self::keys::{Asked, FetchedKeys, Keys, News};
use self::pool::Pool;
pub(crate) use self::seam::Reply;
use crate::config::{Config, LogType, SecurityDomain, Verification};
use crate::inbox::{Inbox, Letter};
use crate::log::{Log, shown};
use crate::reload::{Commit, Reloadable};
use crate::worker::Clock;

/// What a client is told: who it is, or why it does not come in.
type Answer = Result<Identity, Refusal>;

/// Where an answer goes.
type Return = Box<dyn FnOnce(Answer) + Send>;

/// The security domains of a broker.
pub(crate) struct Security {
    bounds: Verification,
    in_force: RwLock<InForce>,
    brake: Mutex<Brake>,
    hasher: Hasher,
    hashing: Pool<Job>,
    calling: Pool<Call>,
    /// To the thread that carries out commands, once there is one.
    commands: Mutex<Option<SyncSender<ControlRequest>>>,
    /// Of all workers, once there are some.
    inboxes: OnceLock<Arc<[Arc<Inbox>]>>,
    counters: Counters,
    clock: Clock,
    log: Log,
}

/// What a reload replaces.
struct InForce {
    /// By listener.
    allow_anonymous: Box<[bool]>,
    /// How long a client waits, and so how long an answer is of use.
    patience: Duration,
    domains: Arc<[Arc<Domain>]>,
    /// What is told by `$CONTROL/broker`, if that is wanted.
    described: Option<Arc<Described>>,
}

/// What has come of verifications.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
    braked: AtomicU64,
    crowded: AtomicU64,
    unavailable: AtomicU64,
    remembered: AtomicU64,
    hashed: AtomicU64,
    http_requests: AtomicU64,
    http_failures: AtomicU64,
    key_sets_fetched: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("credentials_accepted", &self.accepted),
            ("credentials_refused", &self.refused),
            ("credentials_braked", &self.braked),
            ("credentials_crowded", &self.crowded),
            ("credentials_unavailable", &self.unavailable),
            ("credentials_remembered", &self.remembered),
            ("passwords_hashed", &self.hashed),
            ("http_requests", &self.http_requests),
            ("http_failures", &self.http_failures),
            ("key_sets_fetched", &self.key_sets_fetched),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

/// What [`Security::new`] is told besides the domains.
pub(crate) struct Surroundings {
    pub allow_anonymous: Box<[bool]>,
    pub bounds: Verification,
    /// `connect_seconds`.
    pub patience: Duration,
    pub scram_users: ScramUsers,
    /// For what is told by `$CONTROL/broker`.
    pub described: Option<Described>,
    /// Random bytes.
    pub secret: [u8; 32],
    pub clock: Clock,
    pub log: Log,
}

impl Security {
    /// Reads all files.
    ///
    /// # Errors
    /// The first thing that is wrong: a broker must not start with half of its rules.
    pub fn new(config: Vec<SecurityDomain>, surroundings: Surroundings) -> Result<Arc<Self>, DomainError> {
        let Surroundings { allow_anonymous, bounds, patience, scram_users, described, secret, clock, log } =
            surroundings;
        let described = described.map(Arc::new);
        let hasher = Hasher::new(&secret);
        let mut dynamics = Dynamics::new(&[]);
        let domains = config.iter().enumerate().map(|(number, domain)| {
            let others = scram_users.of_domain(number);
            Domain::new(domain, &bounds, &hasher, others, None, &mut dynamics).map(Arc::new)
        });
        let domains: Result<Arc<[_]>, _> = domains.collect();
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = bounds.threads.unwrap_or((cores / 2).max(1));
        Ok(Arc::new(Self {
            in_force: RwLock::new(InForce { allow_anonymous, patience, domains: domains?, described }),
            brake: Mutex::new(Brake::new(bounds.brake)),
            hashing: Pool::new("passwords", threads, bounds.waiting_max, give_way, Job::go_on),
            calling: Pool::new("services", bounds.http_requests_max, bounds.waiting_max, || {}, Call::make),
            bounds,
            hasher,
            commands: Mutex::new(None),
            inboxes: OnceLock::new(),
            counters: Counters::default(),
            clock,
            log,
        }))
    }

    /// What has been counted, and how many users there are.
    pub fn report(&self) -> String {
        let mut text = String::from("Credentials:");
        for (name, value) in self.counters.iter().filter(|(_, value)| *value > 0) {
            text += &format!(" {name}={value}");
        }
        let users: usize = self.domains().iter().filter_map(|domain| domain.user_count()).sum();
        let forgotten = lock(&self.brake).forgotten();
        text + &format!(" password_users={users} brake_entries_forgotten={forgotten}")
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    fn domains(&self) -> Arc<[Arc<Domain>]> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner).domains)
    }

    fn described(&self) -> Option<Arc<Described>> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner).described.clone()
    }

    fn now(&self) -> Instant {
        let mut clock = self.clock;
        clock.now()
    }

    /// Verifies credentials. `reply` is called once: at once, by this thread, or later by another one.
    pub fn authenticate(self: &Arc<Self>, number: u16, credentials: Credentials, reply: Return) {
        let now = self.now();
        let (domain, patience, allow_anonymous) = {
            let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
            let allow_anonymous = in_force.allow_anonymous.get(usize::from(credentials.listener)).copied();
            let domain = in_force.domains.get(usize::from(number)).cloned();
            (domain, in_force.patience, allow_anonymous.unwrap_or(false))
        };
        let Some(domain) = domain else { return reply(Err(Refusal::Unknown)) };
        let token_name = domain.tokens.as_ref().filter(|tokens| tokens.rules.concern(&credentials));
        let token_name = token_name.map(|tokens| tokens.rules.claimed_name(&credentials));
        let mut job = Job {
            security: Arc::clone(self),
            domain,
            number,
            token_name,
            credentials,
            place: 0,
            news: News::NotAsked,
            since: now,
            until: now.after(patience),
            digest: None,
            reply: Some(reply),
        };
        if !lock(&self.brake).may_try(now, job.credentials.address, number, job.name()) {
            return job.end(Err(Refusal::Brake));
        }
        let user_name = job.credentials.user_name.clone();
        if let (Some(user_name), Some(password), Some(_)) =
            (user_name.as_deref(), job.credentials.password.as_deref(), &job.domain.users)
        {
            // Made for unknown users as well: its time must not tell who is known.
            let digest = self.hasher.password(user_name, password);
            // Only where no other back end would have been asked before.
            let first = job.domain.chain.back_ends().iter().find(|it| **it != BackEnd::Certificate);
            if first == Some(&BackEnd::Password)
                && job.credentials.certificate_name.is_none()
                && lock(&job.domain.verified).find(now, &digest).is_some()
            {
                Counters::count(&self.counters.remembered);
                let identity = Identity { proof: Proof::Password, ..Identity::named(user_name) };
                return job.end(Ok(identity));
            }
            job.digest = Some(digest);
        }
        match job.domain.chain.first(&job.credentials, allow_anonymous) {
            Next::Done(answer) => job.end(answer),
            Next::Ask(place, _) => {
                job.place = place;
                job.send();
            }
        }
    }
}

impl Reloadable for Arc<Security> {
    /// Who was verified by the old files and is remembered has to be verified again.
    fn prepare(&mut self, old: &Config, new: &Config) -> Result<Commit, String> {
        let renewed_by_scram = renewed_by_scram(&old.settings.scram_users, &new.settings.scram_users);
        let old = self.domains();
        let mut dynamics = Dynamics::new(&old);
        let scram_users = scram_users(new);
        // They have the numbers of the old ones, and more may stand behind them.
        let domains = new.security.iter().enumerate().map(|(number, domain)| {
            let is_used = new.listeners.iter().any(|listener| usize::from(listener.settings.security.0) == number);
            match old.get(number) {
                // Nobody comes in by it. Who has is judged as before: its files may be gone with its listeners.
                Some(old) if !is_used => Ok(Arc::clone(old)),
                old => {
                    let (old, others) = (old.map(|old| &**old), scram_users.of_domain(number));
                    Domain::new(domain, &self.bounds, &self.hasher, others, old, &mut dynamics).map(Arc::new)
                }
            }
        });
        let domains: Result<Arc<[_]>, DomainError> = domains.collect();
        let domains = domains.map_err(|error| error.within(new))?;
        let reread = dynamics.into_reread();
        let patience = Duration::from_secs(new.settings.connect_seconds.into());
        let described = new.control_api.then(|| Arc::new(Described::of(new)));
        let security = Arc::clone(self);
        Ok(Box::new(move |committed| {
            let allow_anonymous = committed.allow_anonymous.into();
            let old = security.domains();
            let reread: Vec<_> = reread.into_iter().map(Reread::publish).collect();
            // Those that are new have no clients yet.
            let both = domains.iter().zip(old.iter()).enumerate();
            let mut renewed: Vec<(SecurityId, HashSet<Box<str>>)> = both
                .map(|(number, (new, old))| (SecurityId(number as u16), new.passwords_changed_since(old)))
                .collect();
            for (number, domain) in domains.iter().enumerate() {
                let dynamic = domain.dynamic.as_ref();
                let changed = reread.iter().find(|(it, _)| dynamic.is_some_and(|dynamic| Arc::ptr_eq(dynamic, it)));
                renewed.extend(changed.map(|(_, users)| (SecurityId(number as u16), users.clone())));
            }
            let renewed = renewed.into_iter().map(|(security, users)| (security, By::Password, users));
            let by_scram = renewed_by_scram.into_iter().map(|(security, users)| (security, By::Scram, users));
            let renewed: Vec<_> = renewed.chain(by_scram).collect();
            *security.in_force.write().unwrap_or_else(PoisonError::into_inner) =
                InForce { allow_anonymous, patience, domains, described };
            let rights = security.rights_source();
            committed.inboxes.iter().for_each(|inbox| inbox.send(Letter::Rights(Arc::clone(&rights))));
            for (security, proof, users) in renewed.into_iter().filter(|(.., users)| !users.is_empty()) {
                let users = Arc::new(users);
                for inbox in committed.inboxes {
                    inbox.send(Letter::Renewed(security, proof, Arc::clone(&users)));
                }
            }
            // That the files were read again is said for all of them.
            Vec::new()
        }))
    }
}

/// Who comes in past the back ends, by domain.
#[derive(Debug, Default)]
pub(crate) struct ScramUsers {
    /// The names of those who authenticate by SCRAM.
    names: HashMap<usize, HashSet<Box<str>>>,
    /// Where a listener believes names that nobody verifies.
    believing: HashSet<usize>,
}

/// The same of one domain.
#[derive(Debug, Clone, Copy)]
struct Others<'a> {
    scram_users: Option<&'a HashSet<Box<str>>>,
    believes_names: bool,
}

impl ScramUsers {
    fn of_domain(&self, number: usize) -> Others<'_> {
        Others { scram_users: self.names.get(&number), believes_names: self.believing.contains(&number) }
    }
}

pub(crate) fn scram_users(config: &Config) -> ScramUsers {
    let mut users = ScramUsers::default();
    for user in &config.settings.scram_users {
        users.names.entry(usize::from(user.security.0)).or_default().insert(called(user).into());
    }
    let listeners = config.listeners.iter().map(|listener| &listener.settings);
    let believing = listeners.filter(|it| it.believe_user_names && !it.verify_credentials);
    users.believing = believing.map(|it| usize::from(it.security.0)).collect();
    users
}

/// The users by SCRAM, as they are called when they have come in, whose password is another one now.
fn renewed_by_scram(old: &[ScramUser], new: &[ScramUser]) -> HashMap<SecurityId, HashSet<Box<str>>> {
    let mut renewed: HashMap<_, HashSet<Box<str>>> = HashMap::new();
    for user in new {
        let same = |old: &&ScramUser| (old.security, &old.name) == (user.security, &user.name);
        if old.iter().find(same).is_some_and(|old| old.password != user.password) {
            renewed.entry(user.security).or_default().insert(called(user).into());
        }
    }
    renewed
}

/// As it is called when it has come in.
fn called(user: &ScramUser) -> String {
    authentication::prepared_user_name(&user.name).unwrap_or_else(|| user.name.clone())
}

/// Reads all files that `config` names, as a start does.
pub(crate) fn check(config: &Config) -> Result<(), String> {
    let (hasher, scram_users) = (Hasher::new(&[0; 32]), scram_users(config));
    let (mut domains, mut dynamics) = (config.security.iter().enumerate(), Dynamics::new(&[]));
    let read = |(number, domain)| {
        let others = scram_users.of_domain(number);
        Domain::new(domain, &config.verification, &hasher, others, None, &mut dynamics).map(drop)
    };
    domains.try_for_each(read).map_err(|error| error.within(config))
}

/// Guesses at users who authenticate by SCRAM count with all others.
impl authentication::Brake for Security {
    fn may_try(&self, now: Instant, address: Option<IpAddr>, security: SecurityId, user_name: &str) -> bool {
        let may = lock(&self.brake).may_try(now, address, security.0, Name::User(user_name));
        if !may {
            Counters::count(&self.counters.braked);
        }
        may
    }

    fn tried(&self, now: Instant, address: Option<IpAddr>, security: SecurityId, user_name: &str, right: bool) {
        let (mut brake, domain, name) = (lock(&self.brake), security.0, Name::User(user_name));
        if right { brake.succeeded(now, address, domain, name) } else { brake.failed(now, address, domain, name) }
    }
}

/// Hashing gives way to everybody else on this machine.
fn give_way() {
    const NICE: i32 = 10;
    // Of this thread, on Linux. Where that is not so, nothing is better or worse for it.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(NICE);
    #[cfg(not(target_os = "linux"))]
    let _ = NICE;
}

/// Some credentials on their way along a chain.
struct Job {
    security: Arc<Security>,
    domain: Arc<Domain>,
    /// The domain's, which no reload changes.
    number: u16,
    credentials: Credentials,
    /// What a password that is taken for a token says about its user, if it says anything.
    token_name: Option<Option<Box<str>>>,
    /// The place in the chain.
    place: usize,
    /// What has come of asking for newer keys on behalf of its token.
    news: News,
    /// When the brake let it try.
    since: Instant,
    /// Nobody waits any longer then.
    until: Instant,
    /// Of user name and password, if there is a password file.
    digest: Option<Digest>,
    reply: Option<Return>,
}

impl Drop for Job {
    /// The queue was full or is no more, or a thread has panicked.
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply(Err(Refusal::Unavailable(Unavailable::Ending)));
        }
    }
}

/// What comes of looking at a token.
enum Step {
    Outcome(Outcome),
    /// That is so by the keys that there are, fetched then; newer ones may say otherwise.
    Keys(Outcome, Arc<FetchedKeys>, Option<Instant>),
}

/// What a calling thread has to do.
enum Call {
    Service(Job),
    Keys(keys::Fetch),
}

impl Call {
    fn make(self) {
        match self {
            Self::Service(job) => job.go_on(),
            Self::Keys(fetch) => fetch.make(),
        }
    }
}

impl Job {
    /// In whose name it comes, for the brake.
    fn name(&self) -> Name<'_> {
        match &self.token_name {
            Some(Some(name)) => Name::Token(name),
            Some(None) => Name::None,
            None => self.credentials.user_name.as_deref().into(),
        }
    }

    fn back_end(&self) -> Option<BackEnd> {
        self.domain.chain.back_ends().get(self.place).copied()
    }

    /// To the threads that the next back end needs.
    fn send(self) {
        if self.back_end() == Some(BackEnd::Http) { self.send_to_callers() } else { self.send_to_hashers() }
    }

    fn send_to_hashers(self) {
        let security = Arc::clone(&self.security);
        if let Err(job) = security.hashing.submit(brake::place(self.credentials.address), self) {
            job.end(Err(Refusal::Unavailable(Unavailable::Waiting)));
        }
    }

    fn send_to_callers(self) {
        let security = Arc::clone(&self.security);
        let place = brake::place(self.credentials.address);
        if let Err(Call::Service(job)) = security.calling.submit(place, Call::Service(self)) {
            job.end(Err(Refusal::Unavailable(Unavailable::Waiting)));
        }
    }

    /// The next step, on a thread of a pool, and those behind it as far as they need the same kind of thread.
    fn go_on(mut self) {
        let calling = self.back_end() == Some(BackEnd::Http);
        let now = self.security.now();
        let (address, number) = (self.credentials.address, self.number);
        let may = lock(&self.security.brake).may_go_on(now, self.since, address, number, self.name());
        if !may {
            return self.end(Err(Refusal::Brake));
        }
        loop {
            let now = self.security.now();
            if now >= self.until {
                return self.end(Err(Refusal::Unavailable(Unavailable::Waiting)));
            }
            let Some(back_end) = self.back_end() else { return self.end(Err(Refusal::Unknown)) };
            let outcome = match back_end {
                BackEnd::Http if !calling => return self.send_to_callers(),
                // What takes the processor has no place among those who wait.
                BackEnd::Password | BackEnd::Jwt if calling => return self.send_to_hashers(),
                BackEnd::Certificate => self.certificate(),
                BackEnd::Password => self.password(now),
                BackEnd::Jwt => match self.token(now) {
                    Step::Outcome(outcome) => outcome,
                    Step::Keys(outcome, keys, fetched) => match keys.wait(self, now, fetched) {
                        Asked::Waits => return,
                        Asked::Newer(job) => {
                            self = job;
                            continue;
                        }
                        Asked::Nothing(job) => {
                            self = job;
                            outcome
                        }
                    },
                },
                BackEnd::Http => self.service(now),
            };
            let outcome = match (back_end, outcome) {
                (BackEnd::Certificate, Outcome::Accept(identity)) => {
                    Outcome::Accept(Identity { proof: Proof::Certificate, ..identity })
                }
                (BackEnd::Password, Outcome::Accept(identity)) => {
                    Outcome::Accept(Identity { proof: Proof::Password, ..identity })
                }
                (_, outcome) => outcome,
            };
            match self.domain.chain.after(self.place, outcome) {
                Next::Done(answer) => return self.end(answer),
                Next::Ask(place, _) => self.place = place,
            }
        }
    }

    fn certificate(&self) -> Outcome {
        self.credentials
            .certificate_name
            .as_deref()
            .map_or(Outcome::NotMine, |name| Outcome::Accept(Identity::named(name)))
    }

    fn password(&self, now: Instant) -> Outcome {
        if let Some(dynamic) = &self.domain.dynamic {
            let Security { hasher, bounds, counters, .. } = &*self.security;
            return dynamic.snapshot().verify(&self.credentials, hasher, now, bounds, counters);
        }
        let Some(users) = &self.domain.users else { return Outcome::NotMine };
        if self.credentials.user_name.is_none() {
            return Outcome::NotMine;
        }
        // Others with the same password may have been before us in the queue.
        if let (Some(digest), Some(user_name)) = (&self.digest, &self.credentials.user_name)
            && lock(&self.domain.verified).find(now, digest).is_some()
        {
            Counters::count(&self.security.counters.remembered);
            return Outcome::Accept(Identity::named(user_name));
        }
        Counters::count(&self.security.counters.hashed);
        let outcome = users.verify(&self.credentials);
        if let (Outcome::Accept(_), Some(digest)) = (&outcome, self.digest) {
            lock(&self.domain.verified).put(self.security.now(), digest, (), self.security.bounds.keep);
        }
        outcome
    }

    fn token(&self, now: Instant) -> Step {
        let Some(tokens) = &self.domain.tokens else { return Step::Outcome(Outcome::NotMine) };
        if !tokens.rules.concern(&self.credentials) {
            return Step::Outcome(Outcome::NotMine);
        }
        let fetched = match &tokens.keys {
            Keys::Fixed(keys) => return Step::Outcome(self.verify_token(tokens, keys)),
            Keys::Fetched(fetched) => fetched,
        };
        let (keys, due, fetched_at) = fetched.keys(now);
        let nobody_can_say = Outcome::Refuse(Refusal::Unavailable(Unavailable::Keys));
        let (mut outcome, newer_help) = if keys.is_empty() {
            (nobody_can_say.clone(), true)
        } else {
            let outcome = self.verify_token(tokens, &keys);
            let helps = matches!(&outcome, Outcome::Refuse(Refusal::Token(rejection)) if rejection.asks_for_keys());
            (outcome, helps)
        };
        // It may be signed with a key that is newer than ours, and could not be had.
        if outcome == Outcome::Refuse(Refusal::Token(Rejection::Key)) && fetched.may_be_outdated() {
            outcome = nobody_can_say;
        }
        if self.news == News::NotAsked {
            if newer_help {
                return Step::Keys(outcome, Arc::clone(fetched), fetched_at);
            }
            // The old ones serve meanwhile.
            if due {
                fetched.refresh(&self.security, now);
            }
        }
        Step::Outcome(outcome)
    }

    fn verify_token(&self, tokens: &Tokens, keys: &KeySet) -> Outcome {
        let unix_now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        tokens.rules.verify(unix_now, keys, &self.credentials)
    }

    fn service(&self, now: Instant) -> Outcome {
        let Some(service) = &self.domain.service else { return Outcome::NotMine };
        let Service { config, caller, accepted, others } = service;
        let security = &*self.security;
        let digest = security.hasher.credentials(b"http", &self.credentials);
        if let Some((mut identity, since)) = lock(accepted).find(now, &digest) {
            Counters::count(&security.counters.remembered);
            let age = Duration::from_millis(now.0.saturating_sub(since.0));
            identity.valid_for = identity.valid_for.map(|valid_for| valid_for.saturating_sub(age));
            return Outcome::Accept(identity);
        }
        if let Some(outcome) = lock(others).find(now, &digest) {
            Counters::count(&security.counters.remembered);
            return outcome;
        }
        Counters::count(&security.counters.http_requests);
        let answer = caller.post(config.format.content_type(), &config.format.body(&self.credentials));
        let outcome = answer.and_then(|(status, body)| {
            answers::read_answer(status, &body, &self.credentials).map_err(|error| error.to_string())
        });
        let now = security.now();
        match outcome {
            Ok(Outcome::Accept(identity)) => {
                let keep = identity.valid_for.map_or(config.keep, |valid_for| valid_for.min(config.keep));
                lock(accepted).put(now, digest, (identity.clone(), now), keep);
                Outcome::Accept(identity)
            }
            Ok(outcome) => {
                lock(others).put(now, digest, outcome.clone(), config.keep);
                outcome
            }
            Err(error) => {
                Counters::count(&security.counters.http_failures);
                security.log.limited(LogType::Error, "HTTP back ends", || {
                    format!("No answer of an HTTP back end, so nobody is let in by it: {}", shown(&error))
                });
                answers::unavailable()
            }
        }
    }

    /// Whether no reload has put another domain in the place of the one that it asks.
    fn is_in_force(&self) -> bool {
        let in_force = self.security.domains().get(usize::from(self.number)).cloned();
        in_force.is_some_and(|in_force| Arc::ptr_eq(&in_force, &self.domain))
    }

    /// Answers.
    fn end(mut self, answer: Answer) {
        let Some(reply) = self.reply.take() else { return };
        // It waited meanwhile. Who was right by the old files and services has to be so by the new ones.
        if answer.is_ok() && !self.is_in_force() {
            let credentials = std::mem::take(&mut self.credentials);
            return self.security.authenticate(self.number, credentials, reply);
        }
        let security = &*self.security;
        let address = self.credentials.address;
        let counters = &security.counters;
        match &answer {
            Ok(identity) => {
                Counters::count(&counters.accepted);
                // Who is let in as somebody else, say by its certificate, has proved nothing about the name that it came in.
                if identity.user_name.as_deref() == self.name().text() {
                    lock(&security.brake).succeeded(security.now(), address, self.number, self.name());
                }
            }
            Err(refusal) => {
                Counters::count(match refusal {
                    Refusal::Brake => &counters.braked,
                    Refusal::Unavailable(Unavailable::Waiting | Unavailable::Ending) => &counters.crowded,
                    Refusal::Unavailable(_) => &counters.unavailable,
                    _ => &counters.refused,
                });
                if self.has_failed(*refusal) {
                    let name = match refusal {
                        Refusal::Token(_) => self.name(),
                        _ => self.credentials.user_name.as_deref().into(),
                    };
                    lock(&security.brake).failed(security.now(), address, self.number, name);
                }
                security.log.limited(LogType::Notice, "refused credentials", || {
                    let client = match &*self.credentials.client_id {
                        "" => "A client".to_owned(),
                        client_id => format!("Client {}", shown(client_id)),
                    };
                    let user_name = self.credentials.user_name.as_deref();
                    let user = user_name.map_or("no user name".to_owned(), |name| format!("user {}", shown(name)));
                    format!("{client} ({user}) is not let in: {refusal}.")
                });
            }
        }
        reply(answer);
    }

    /// A key that is still unknown in a set fetched after the token came is nobody's. Before, the token may be signed with a
    /// new one.
    fn has_failed(&self, refusal: Refusal) -> bool {
        refusal.is_failure() || refusal == Refusal::Token(Rejection::Key) && self.news == News::Newer
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use pantala_broker::authentication::Brake as _;

    use super::*;
    use crate::config::{LogConfig, LogTypes};

    const HOME: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
    const ROUNDS: u32 = 10;

    /// Two domains that know certificates alone. Their brake knows no users, and the wait for the next guess from an address
    /// soon is longer than a test may take.
    fn security() -> Arc<Security> {
        let domain = |name: &str| SecurityDomain {
            name: name.to_owned(),
            chain: vec![BackEnd::Certificate],
            password_file: None,
            acl_file: None,
            rules_file: None,
            dynamic_security_file: None,
            jwt: None,
            http: None,
        };
        let limits =
            brake::Limits { per_address: 3, per_user: 0, wait_max: Duration::MAX, forgive: Duration::from_hours(1) };
        let surroundings = Surroundings {
            allow_anonymous: Box::new([false]),
            bounds: Verification { threads: Some(1), brake: limits, ..Verification::default() },
            patience: Duration::from_hours(1),
            scram_users: ScramUsers::default(),
            described: None,
            secret: [1; 32],
            clock: Clock::start(Instant(1)),
            log: Log::open(LogConfig { stderr: false, types: LogTypes::ALL, ..LogConfig::default() }).unwrap(),
        };
        Security::new(vec![domain("a"), domain("b")], surroundings).unwrap()
    }

    /// Somebody comes from home who says it is ann.
    fn come(security: &Arc<Security>, domain: u16, certificate_name: Option<&str>) -> Answer {
        let credentials = Credentials {
            user_name: Some("ann".into()),
            password: Some(Box::from(&b"guess"[..])),
            certificate_name: certificate_name.map(Box::from),
            address: HOME,
            ..Credentials::default()
        };
        let (sender, receiver) = mpsc::channel();
        security.authenticate(domain, credentials, Box::new(move |answer| sender.send(answer).unwrap()));
        receiver.recv().unwrap()
    }

    fn by_certificate(name: &str) -> Identity {
        Identity { proof: Proof::Certificate, ..Identity::named(name) }
    }

    /// Guesses at ann of a domain, nine after each time that `get_in` has been called; returns how many were verified.
    fn guess(security: &Arc<Security>, domain: u16, get_in: impl Fn()) -> u32 {
        let mut verified = 0;
        for _ in 0..ROUNDS {
            get_in();
            for _ in 0..9 {
                verified += u32::from(come(security, domain, None) != Err(Refusal::Brake));
            }
        }
        verified
    }

    /// After three guesses one comes for each doubling of a second: twenty take six days.
    fn assert_braked(verified: u32) {
        assert!((3..20).contains(&verified), "{verified}");
    }

    #[test]
    fn who_is_let_in_as_somebody_else_is_not_known_by_the_name_that_it_says() {
        let security = security();
        assert_eq!(come(&security, 0, Some("mallory")), Ok(by_certificate("mallory")));
        assert_braked(guess(&security, 0, || drop(come(&security, 0, Some("mallory")))));
    }

    #[test]
    fn who_has_the_same_name_in_another_domain_is_a_stranger() {
        let security = security();
        assert_eq!(come(&security, 0, Some("ann")), Ok(by_certificate("ann")));
        assert_braked(guess(&security, 1, || drop(come(&security, 0, Some("ann")))));
        // In its own domain it is not.
        assert_eq!(come(&security, 0, Some("ann")), Ok(by_certificate("ann")));
    }

    #[test]
    fn a_proof_by_scram_is_one_in_its_own_domain() {
        let security = security();
        let own = || security.tried(security.now(), HOME, SecurityId(0), "ann", true);
        assert_braked(guess(&security, 1, own));
        // The other way round.
        let mut verified = 0;
        for _ in 0..ROUNDS {
            own();
            for _ in 0..9 {
                if security.may_try(security.now(), HOME, SecurityId(1), "ann") {
                    security.tried(security.now(), HOME, SecurityId(1), "ann", false);
                    verified += 1;
                }
            }
        }
        assert!(verified < 20, "{verified}");
        assert!(security.may_try(security.now(), HOME, SecurityId(0), "ann"));
    }
}
