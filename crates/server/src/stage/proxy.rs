//! The stage of a PROXY header, which is gone when the header is read.

use std::net::SocketAddr;
use std::sync::Arc;

use pantala_broker::{CertificateNames, Peer};
use pantala_tls::{NameError, names};
use pantala_transport::proxy::{Certificate, Header, Proxied, Reader};

use super::{NOT_ALLOWED, Progress, is_allowed};
use crate::config::Transport;

/// Waits for the header.
#[derive(Debug)]
pub(crate) struct Proxy {
    transport: Arc<Transport>,
    reader: Reader,
}

impl Proxy {
    pub(super) fn new(transport: Arc<Transport>) -> Self {
        Self { transport, reader: Reader::default() }
    }

    pub(super) fn receive(&mut self, bytes: &[u8], inward: &mut Vec<u8>, peer: &mut Peer) -> Progress {
        let Some(versions) = self.transport.proxy_protocol else { return Progress::Done };
        let (header, used) = match self.reader.receive(versions, bytes) {
            Ok(None) => return Progress::Open,
            Ok(Some(read)) => read,
            Err(error) => return Progress::Failed(error.words()),
        };
        if let Header::Proxied(proxied) = header {
            // First of all, as the log names the client also where it is refused.
            let address = proxied.source.map(|source| SocketAddr::new(source.ip().to_canonical(), source.port()));
            peer.address = address.or(peer.address);
            if self.transport.proxy_require_tls && proxied.tls.is_none() {
                return Progress::Failed("the client came to the proxy without TLS");
            }
            // Nobody gets round a certificate by leaving it out, as at a listener that speaks TLS itself.
            if self.transport.user_name_by_proxy && !has_certificate(&proxied) {
                return Progress::Failed("the client came to the proxy without a certificate that it has verified");
            }
            if let Err(why) = introduce(proxied, self.transport.user_name_by_proxy, peer) {
                return Progress::Failed(why);
            }
            // What the socket says is the proxy's: a client that it does not know has no address.
            peer.address = address;
        }
        if !is_allowed(&self.transport, peer.address.map(|address| address.ip())) {
            return Progress::Failed(NOT_ALLOWED);
        }
        inward.extend_from_slice(&bytes[used..]);
        Progress::Done
    }
}

/// Whether the proxy has verified a certificate of the client.
fn has_certificate(proxied: &Proxied) -> bool {
    proxied.tls.as_ref().is_some_and(|tls| tls.certificate == Certificate::Verified)
}

/// What the proxy knows about the client's certificate.
fn introduce(proxied: Proxied, is_user_name: bool, peer: &mut Peer) -> Result<(), &'static str> {
    if let Some(tls) = proxied.tls
        && tls.certificate == Certificate::Verified
    {
        if is_user_name {
            let name = tls.common_name.clone().unwrap_or_default();
            names::check(&name).map_err(NameError::as_str)?;
            peer.user_name_by_certificate = Some(name);
        }
        let names = CertificateNames { common_name: tls.common_name, ..CertificateNames::default() };
        peer.certificate = Some(Box::new(names));
    }
    Ok(())
}
