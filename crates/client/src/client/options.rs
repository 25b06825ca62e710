//! What a client is told before it begins.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{BoxedStream, Connector, Reconnect, Redirected};
use crate::authentication::Authenticator;
use crate::machine::{Direction, Observer, SessionSettings, UnknownSession, Will};
use crate::outbox::{self, OutboxError, OutboxOptions};
use crate::transport::{Address, ConnectError, Endpoint, Transport, TransportOptions};
use crate::url::{BrokerUrl, UrlError};
use crate::{Message, Packet, ProtocolVersion};

/// Where the broker is, and what the connection and the Session are to be like.
///
/// ```
/// use std::time::Duration;
/// use pantala_client::{Message, Options, QoS};
///
/// let options = Options::new("mqtt://localhost")?
///     .client_id("kitchen-sensor")
///     .keep_session(Duration::from_secs(3_600))
///     .will(Message::new("sensors/kitchen/state", "gone").qos(QoS::AtLeastOnce).retain());
/// # Ok::<(), pantala_client::OptionsError>(())
/// ```
pub struct Options {
    /// Session, limits and credentials.
    pub session: SessionSettings,
    /// When to try again. Default: see [`Reconnect`].
    pub reconnect: Reconnect,
    /// Whether to go where the broker sends us (v5 section 4.11), five times in a row at most. To another host User Name,
    /// Password, authenticator and client certificate are not taken along, and a connection with TLS leads only to one with TLS.
    /// Default: false, it is an error.
    pub follow_redirects: bool,
    /// Where messages are kept beyond this program. Default: nowhere.
    pub outbox: Option<OutboxOptions>,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) authenticator: Option<Box<dyn Authenticator>>,
    pub(super) observer: Option<Observer>,
}

/// What is wrong with [`Options`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// What an [`outbox`] needs is missing.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
}

impl Options {
    /// A broker by its URL: `mqtt://host:1883`, `mqtts://`, `ws://`, `wss://` or `unix:///path`. User name and password of the
    /// URL count.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(url: &str) -> Result<Self, OptionsError> {
        Ok(Self::of(&url.parse()?))
    }

    /// As [`Options::new`], for a URL that has been parsed.
    pub fn of(url: &BrokerUrl) -> Self {
        Self::with_transport(url, TransportOptions::default())
    }

    /// As [`Options::of`], with TLS, proxy and the like.
    ///
    /// ```
    /// use pantala_client::Options;
    /// use pantala_client::transport::{ClientCertificate, Roots, TlsOptions, TransportOptions};
    ///
    /// let tls = TlsOptions {
    ///     roots: Roots::Files(vec!["ca.pem".into()]),
    ///     client_certificate: Some(ClientCertificate { certificate: "me.pem".into(), key: "me.key".into() }),
    ///     ..TlsOptions::default()
    /// };
    /// let transport = TransportOptions { tls, ..TransportOptions::default() };
    /// let options = Options::with_transport(&"mqtts://broker.example".parse()?, transport);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_transport(url: &BrokerUrl, transport: TransportOptions) -> Self {
        let mut this = Self::with_connector(Transport::new(Endpoint::of(url), transport));
        this.session.user_name = url.user_name().map(str::to_owned);
        this.session.password = url.password().map(<[u8]>::to_vec);
        this
    }

    /// A broker that `connector` knows how to reach.
    pub fn with_connector(connector: impl Connector) -> Self {
        Self {
            session: SessionSettings::default(),
            reconnect: Reconnect::default(),
            outbox: None,
            connector: Arc::new(connector),
            authenticator: None,
            observer: None,
            follow_redirects: false,
        }
    }

    /// What makes the connections.
    pub fn connector(&self) -> Arc<dyn Connector> {
        self.connector.clone()
    }

    /// Has `connector` make the connections: it may be a layer over [`Options::connector`].
    pub fn set_connector(&mut self, connector: impl Connector) {
        self.connector = Arc::new(connector);
    }

    /// The version to speak. Default: 5.0.
    #[must_use]
    pub fn version(mut self, version: ProtocolVersion) -> Self {
        self.session.version = version;
        self
    }

    /// Who we are, to the broker. Default: the broker chooses.
    #[must_use]
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.session.client_id = client_id.into();
        self
    }

    /// User Name and Password.
    #[must_use]
    pub fn credentials(mut self, user_name: impl Into<String>, password: impl Into<Vec<u8>>) -> Self {
        self.session.user_name = Some(user_name.into());
        self.session.password = Some(password.into());
        self
    }

    /// Goes on with the Session that the broker may have, and has it kept for `interval` after each connection; before MQTT 5 for
    /// as long as the broker likes. Needs a Client Identifier of our own. Default: the Session ends with the connection.
    #[must_use]
    pub fn keep_session(mut self, interval: Duration) -> Self {
        self.session.clean_start = false;
        self.session.session_expiry_interval = interval;
        self
    }

    /// What to do if the broker goes on with a Session of which this program knows nothing. Default:
    /// [`UnknownSession::Accept`].
    #[must_use]
    pub fn unknown_session(mut self, unknown_session: UnknownSession) -> Self {
        self.session.unknown_session = unknown_session;
        self
    }

    /// The longest silence. Default: 60 s.
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.session.keep_alive = keep_alive;
        self
    }

    /// What the broker publishes should we vanish.
    #[must_use]
    pub fn will(mut self, message: Message) -> Self {
        self.session.will = Some(Will::from(message));
        self
    }

    /// When to try again after a connection is lost.
    #[must_use]
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Keeps messages of QoS 1 and 2 in a directory until the broker has them, so that they survive this program: see
    /// [`outbox`]. Needs [`Options::client_id`] and [`Options::keep_session`]. Default: none.
    #[must_use]
    pub fn outbox(mut self, outbox: impl Into<OutboxOptions>) -> Self {
        self.outbox = Some(outbox.into());
        self
    }

    /// Whether all that goes together is there, as far as that can be known before the start; a client that is started
    /// without ends with the same error.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self) -> Result<(), OptionsError> {
        if self.outbox.is_some() {
            outbox::check(&self.session)?;
        }
        Ok(())
    }

    /// Enhanced authentication, as by [`ScramSha256`](crate::authentication::ScramSha256). MQTT 5. Its
    /// [`step`](Authenticator::step) runs on a thread for blocking work: the client's other users do not wait for it, and
    /// [`SessionSettings::connect_timeout`] goes on.
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Some(Box::new(authenticator));
        self
    }

    /// Has `observer` called with each packet, sent and received, in their order: for tools that show what goes over the wire.
    /// Default: none, which costs nothing. With one, each packet that is sent is decoded again.
    ///
    /// A packet that is sent is shown when it is about to be written, once for each time it is. It is called while the client is
    /// locked: it must not call the client, while it waits the client waits too, and if it panics the client ends. CONNECT shows
    /// the password, and texts from the broker are as they came; escape them before a terminal gets them.
    ///
    /// ```
    /// use pantala_client::machine::Direction;
    /// use pantala_client::{Options, Packet};
    ///
    /// let options = Options::new("mqtt://localhost")?.observer(|direction, packet| {
    ///     if let (Direction::Received, Packet::Publish(publish)) = (direction, packet) {
    ///         println!("{} bytes", publish.payload.len());
    ///     }
    /// });
    /// # Ok::<(), pantala_client::OptionsError>(())
    /// ```
    #[must_use]
    pub fn observer(mut self, observer: impl FnMut(Direction, &Packet<'_>) + Send + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Options")
            .field("session", &self.session)
            .field("reconnect", &self.reconnect)
            .field("outbox", &self.outbox)
            .finish_non_exhaustive()
    }
}

impl Connector for Transport {
    fn connect(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Result<BoxedStream, ConnectError>> + Send>> {
        Box::pin(async move { Self::connect(&self).await })
    }

    fn redirected(&self, server_reference: &str) -> Option<Redirected> {
        let (host, port) = split_reference(server_reference)?;
        let Address::Host(own_host, own_port) = &self.endpoint().address else { return None };
        let same_host = host.eq_ignore_ascii_case(own_host);
        let mut endpoint = self.endpoint().clone();
        endpoint.address = Address::Host(host.to_owned(), port.unwrap_or(*own_port));
        let mut options = self.options().clone();
        if !same_host {
            // What was set for the one broker is not for the other.
            options.tls.server_name = None;
            options.tls.client_certificate = None;
            options.websocket_headers.clear();
        }
        Some(Redirected { connector: Arc::new(Self::new(endpoint, options)), same_host })
    }
}

/// The first of the servers in a Server Reference: `host`, `host:port` or `[address]:port` (v5 section 4.11).
fn split_reference(reference: &str) -> Option<(&str, Option<u16>)> {
    let first = reference.split_whitespace().next()?;
    let (host, port) = if let Some(rest) = first.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        (host, after.strip_prefix(':').map(str::parse))
    } else {
        match first.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse())),
            None => (first, None),
        }
    };
    let port = port.transpose().ok()?;
    (!host.is_empty() && !host.contains('/')).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_references_are_hosts_with_or_without_a_port() {
        let cases = [
            ("other", Some(("other", None))),
            ("other:1884 third:5", Some(("other", Some(1884)))),
            ("[::1]:7", Some(("::1", Some(7)))),
            ("[::1]", Some(("::1", None))),
            ("mqtt://other", None),
            ("other:x", None),
            (":5", None),
            ("", None),
        ];
        for (reference, expected) in cases {
            assert_eq!(split_reference(reference), expected, "{reference:?}");
        }
    }
}
