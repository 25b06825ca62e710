//! Between the core's words and ours.

use std::sync::Arc;

use pantala_access::{Grants, Permissions, Subject};
use pantala_broker::{
    AuthenticationRequest, Cause, ConnectionKey, Identity, Proof, RightsSource, SecurityId, Standing, Verdict,
};
use pantala_identity::{self as identity, Credentials, Refusal};
use pantala_proto::ReasonCode;
use pantala_session::Instant;

use super::domain::Domain;
use super::dynamic::Snapshot;
use super::{Answer, Security};
use crate::inbox::{Inbox, Letter};

/// Where a verdict goes.
pub(crate) struct Reply {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) connection: ConnectionKey,
    pub(crate) generation: u32,
}

impl Reply {
    /// Gives the verdict, from any thread.
    fn give(self, verdict: Verdict) {
        let Self { inbox, connection, generation } = self;
        inbox.send(Letter::Verdict(connection, generation, verdict));
    }
}

impl Security {
    /// Verifies a client's credentials. Called on a worker's thread, so it waits for nothing: what takes longer happens
    /// elsewhere, and the reply is given from there.
    pub(crate) fn verify(self: &Arc<Self>, request: AuthenticationRequest, reply: Reply) {
        let AuthenticationRequest { listener, security, client_id, user_name, password, peer } = request;
        let credentials = Credentials {
            client_id,
            user_name,
            password: password.map(Vec::into_boxed_slice),
            certificate_name: peer.as_ref().and_then(|peer| peer.user_name_by_certificate.clone()),
            address: peer.and_then(|peer| peer.address).map(|address| address.ip()),
            listener,
        };
        let this = Arc::clone(self);
        self.authenticate(security.0, credentials, Box::new(move |answer| reply.give(verdict(answer, this.now()))));
    }

    /// What holds now about who may do what, to be asked until the next reload.
    pub(crate) fn rights_source(&self) -> Arc<dyn RightsSource> {
        let domains = self.domains();
        let dynamic = domains.iter().map(|domain| domain.dynamic.as_ref().map(|dynamic| dynamic.snapshot())).collect();
        Arc::new(InForce { domains, dynamic })
    }
}

/// The domains as they were at one time.
struct InForce {
    domains: Arc<[Arc<Domain>]>,
    /// By domain.
    dynamic: Box<[Option<Arc<Snapshot>>]>,
}

impl RightsSource for InForce {
    fn rights(&self, security: SecurityId, subject: &Subject<'_>) -> Standing {
        let place = usize::from(security.0);
        let Some(domain) = self.domains.get(place) else { return Standing::Unknown };
        match self.dynamic.get(place) {
            Some(Some(snapshot)) => snapshot.standing(subject, domain.only_users_of_files),
            _ => domain.rights(subject).map_or(Standing::Unknown, Standing::Rights),
        }
    }

    fn is_unrestricted(&self) -> bool {
        !self.domains.is_empty() && self.domains.iter().all(|domain| domain.is_unrestricted())
    }
}

fn verdict(answer: Answer, now: Instant) -> Verdict {
    let refused = |reason_code, cause| Verdict::Refused { reason_code, cause: Cause::Credentials(cause) };
    let identity = match answer {
        Ok(identity) => identity,
        // As Mosquitto: Not authorized rather than Bad User Name or Password, which tells a guesser no more than it has to.
        Err(refusal) => {
            return match refusal {
                Refusal::Anonymous => refused(ReasonCode::NotAuthorized, "it has shown no credentials"),
                Refusal::Unknown => refused(ReasonCode::NotAuthorized, "nobody knows its credentials"),
                Refusal::Password => refused(ReasonCode::NotAuthorized, "wrong user name or password"),
                Refusal::Token(_) => refused(ReasonCode::NotAuthorized, "its token is refused"),
                Refusal::Http => refused(ReasonCode::NotAuthorized, "the HTTP back end refuses it"),
                Refusal::Brake => refused(ReasonCode::ConnectionRateExceeded, "too many failures before"),
                Refusal::Unavailable(_) => {
                    refused(ReasonCode::ServerUnavailable, "its credentials cannot be verified now")
                }
            };
        }
    };
    let grants = if identity.superuser {
        let all = || vec!["#".to_owned(), "$SYS/#".to_owned()];
        Some(Permissions { publish: vec!["#".to_owned()], subscribe: all(), ..Permissions::default() })
    } else {
        identity.permissions.map(|permissions| {
            let texts = |texts: &[Box<str>]| texts.iter().map(|text| text.to_string()).collect();
            let (publish, subscribe) = (texts(&permissions.publish), texts(&permissions.subscribe));
            Permissions { publish, subscribe, ..Permissions::default() }
        })
    };
    let grants = match grants.as_ref().map(Grants::new).transpose() {
        Ok(grants) => grants.map(Arc::new),
        Err(_) => return refused(ReasonCode::NotAuthorized, "it is granted what is no Topic Filter"),
    };
    let proof = match identity.proof {
        identity::Proof::Credentials => Proof::Credentials,
        identity::Proof::Password => Proof::Password,
        identity::Proof::Certificate => Proof::Certificate,
        identity::Proof::Nothing => Proof::Nothing,
    };
    Verdict::Accepted(Identity {
        user_name: identity.user_name,
        proof,
        client_id: None,
        expires_at: identity.valid_for.map(|valid_for| now.after(valid_for)),
        groups: identity.groups,
        grants,
    })
}
