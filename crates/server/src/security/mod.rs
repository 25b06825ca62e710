//! Security domains: who is let in, and what they may do.

use std::sync::Arc;

use pantala_broker::{AuthenticationRequest, Cause, ConnectionKey, Verdict};
use pantala_proto::ReasonCode;

use crate::inbox::{Inbox, Letter};

/// Verifies credentials, for all workers.
pub(crate) trait Authenticator: Send + Sync {
    /// Verifies a client's credentials. Called on a worker's thread, so it must not wait for anything: what takes longer
    /// happens elsewhere, and `reply` is given from there.
    fn authenticate(&self, request: AuthenticationRequest, reply: Reply);
}

/// Where a verdict goes. Dropped without one, the client is refused when its time is over.
pub(crate) struct Reply {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) connection: ConnectionKey,
    pub(crate) generation: u32,
}

impl Reply {
    /// Gives the verdict, from any thread.
    pub(crate) fn give(self, verdict: Verdict) {
        let Self { inbox, connection, generation } = self;
        inbox.send(Letter::Verdict(connection, generation, verdict));
    }
}

/// Knows nobody: a broker whose listeners ask about nobody either.
#[derive(Debug)]
pub(crate) struct NobodyKnown;

impl Authenticator for NobodyKnown {
    fn authenticate(&self, _request: AuthenticationRequest, reply: Reply) {
        let cause = Cause::Credentials("no users are known");
        reply.give(Verdict::Refused { reason_code: ReasonCode::NotAuthorized, cause });
    }
}
