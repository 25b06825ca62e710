//! AUTH, and work for it that whoever drives the machine does elsewhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pantala_proto::{Auth, ReasonCode};

use super::{Machine, Phase};
use crate::authentication::{AuthenticationError, Authenticator};
use crate::error::{ConnectionError, Violation};

/// An authenticator that can be at work while the machine is not.
#[derive(Clone)]
pub(super) struct Method {
    name: Arc<str>,
    authenticator: Arc<Mutex<Box<dyn Authenticator>>>,
}

impl Method {
    pub(super) fn new(authenticator: Box<dyn Authenticator>) -> Self {
        Self { name: authenticator.method().into(), authenticator: Arc::new(Mutex::new(authenticator)) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Nobody else has it: the machine uses it only while no step is being run.
    pub(super) fn lock(&self) -> MutexGuard<'_, Box<dyn Authenticator>> {
        // One that has panicked begins anew with the next exchange.
        self.authenticator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the answer to the broker's AUTH stands.
#[derive(Default)]
pub(super) enum Step {
    /// None is owed.
    #[default]
    None,
    /// It is to be worked out, from this Authentication Data.
    Due(Option<Vec<u8>>),
    /// Somebody is at it.
    Running,
}

/// The work for the answer to one AUTH packet, see [`Machine::take_authentication`].
pub struct AuthenticationStep {
    method: Method,
    data: Option<Vec<u8>>,
    exchange: u64,
}

impl AuthenticationStep {
    /// Does it, which takes as long as the [`Authenticator`] says: some tenths of a second for SCRAM with 600 000 iterations.
    #[must_use]
    pub fn run(self) -> AuthenticationAnswer {
        let outcome = self.method.lock().step(self.data.as_deref());
        AuthenticationAnswer { outcome, exchange: self.exchange }
    }
}

/// What came out, for [`Machine::answer_authentication`].
pub struct AuthenticationAnswer {
    outcome: Result<Option<Vec<u8>>, AuthenticationError>,
    exchange: u64,
}

impl Machine {
    /// From here on the answers to AUTH packets are worked out outside of the machine: whoever drives it asks
    /// [`Machine::take_authentication`] after each input, runs what it gives, and hands the result to
    /// [`Machine::answer_authentication`]. Default: it is done within [`Machine::handle_input`].
    pub fn defer_authentication(&mut self) {
        self.defers = true;
    }

    /// The work for an answer that the broker waits for. Until [`Machine::answer_authentication`] the machine goes on without;
    /// a broker that does not wait breaks the protocol. The next connection must not begin before it has been run.
    pub fn take_authentication(&mut self) -> Option<AuthenticationStep> {
        let method = self.method.as_ref().filter(|_| matches!(self.phase, Phase::Connecting | Phase::Open))?;
        if !matches!(self.step, Step::Due(_)) {
            return None;
        }
        let Step::Due(data) = std::mem::replace(&mut self.step, Step::Running) else { return None };
        Some(AuthenticationStep { method: method.clone(), data, exchange: self.exchange })
    }

    /// Sends the answer, or ends the connection if there is none. Does nothing if the connection that it was for is gone.
    pub fn answer_authentication(&mut self, answer: AuthenticationAnswer) {
        if answer.exchange != self.exchange || !matches!(self.step, Step::Running) {
            return;
        }
        self.step = Step::None;
        match answer.outcome {
            Ok(data) if matches!(self.phase, Phase::Connecting | Phase::Open) => {
                self.send_auth(ReasonCode::ContinueAuthentication, data.as_deref());
            }
            Ok(_) => {}
            Err(error) => self.fail(authentication_error(&error)),
        }
    }

    /// The connection is gone, and with it the exchange.
    pub(super) fn forget_authentication(&mut self) {
        self.step = Step::None;
        self.exchange += 1;
    }

    pub(super) fn handle_auth(&mut self, auth: &Auth<'_>) -> Result<(), ConnectionError> {
        let violation = ConnectionError::Protocol(Violation::Auth);
        let Some(method) = &self.method else { return Err(violation) };
        if auth.authentication_method != Some(method.name()) || !matches!(self.step, Step::None) {
            return Err(violation);
        }
        match auth.reason_code {
            ReasonCode::ContinueAuthentication if self.defers => {
                self.step = Step::Due(auth.authentication_data.map(<[u8]>::to_vec));
                Ok(())
            }
            ReasonCode::ContinueAuthentication => {
                let answer = method.lock().step(auth.authentication_data);
                let answer = answer.map_err(|error| authentication_error(&error))?;
                self.send_auth(ReasonCode::ContinueAuthentication, answer.as_deref());
                Ok(())
            }
            ReasonCode::Success if self.phase == Phase::Open => {
                method.lock().finish(auth.authentication_data).map_err(|error| authentication_error(&error))
            }
            _ => Err(violation),
        }
    }

    /// Begins enhanced authentication anew on the open connection, as before a token ends (v5 section 4.12.1). Does nothing
    /// without a method, without a connection, and while an answer to the broker is being worked out.
    pub fn reauthenticate(&mut self) {
        if self.phase != Phase::Open || !matches!(self.step, Step::None) {
            return;
        }
        match self.method.as_ref().map(|method| method.lock().start()) {
            None => {}
            Some(Ok(first)) => self.send_auth(ReasonCode::ReAuthenticate, first.as_deref()),
            Some(Err(error)) => self.fail(authentication_error(&error)),
        }
    }

    fn send_auth(&mut self, reason_code: ReasonCode, data: Option<&[u8]>) {
        let method = self.method.as_ref().map(Method::name);
        let auth = Auth { authentication_method: method, authentication_data: data, ..Auth::new(reason_code) };
        auth.encode(&mut self.output);
    }
}

pub(super) fn authentication_error(error: &AuthenticationError) -> ConnectionError {
    ConnectionError::Authentication(error.to_string())
}
