//! Which protocols a client offers by ALPN, and WebSocket through TLS, against servers by other libraries.
#![cfg(all(feature = "mock", feature = "tls", feature = "websocket"))]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream as _;
use futures_sink::Sink as _;
use pantala_client::error::ConnectionError;
use pantala_client::mock::MockBroker;
use pantala_client::transport::{Address, Endpoint, Roots, TlsOptions, Transport, TransportOptions};
use pantala_client::{Client, Message, Options, QoS, Reconnect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// A listener for TLS on a free port, with a certificate for localhost that is its own authority.
struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    roots: Roots,
    port: u16,
}

impl Server {
    /// It agrees to the first of these protocols that a client offers.
    async fn listen(protocols: &[&str]) -> Self {
        let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
        let builder = ServerConfig::builder().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![signed.cert.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let roots = Roots::Pem(signed.cert.pem().into_bytes());
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), roots, port }
    }

    async fn accept(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let (stream, _) = self.listener.accept().await.unwrap();
        self.acceptor.accept(stream).await
    }

    fn transport(&self, alpn: &[&str]) -> TransportOptions {
        let alpn = alpn.iter().map(|&protocol| protocol.to_owned()).collect();
        let tls = TlsOptions { roots: self.roots.clone(), alpn, ..TlsOptions::default() };
        TransportOptions { tls, ..TransportOptions::default() }
    }
}

#[tokio::test]
async fn a_client_offers_the_protocols_that_it_was_told() {
    /// What is offered, whether WebSocket is wanted, what the server takes, and what they agree to.
    type Case = (&'static [&'static str], bool, &'static [&'static str], Option<&'static str>);
    let cases: [Case; 7] = [
        (&["mqtt"], false, &["h2", "mqtt"], Some("mqtt")),
        // Both, and the server has the choice.
        (&["x-mqtt", "mqtt"], false, &["mqtt", "x-mqtt"], Some("mqtt")),
        (&["x-mqtt", "mqtt"], false, &["x-mqtt", "mqtt"], Some("x-mqtt")),
        (&[], false, &["mqtt"], None),
        // What WebSocket is built on, unless something else was asked for.
        (&[], true, &["h2", "http/1.1"], Some("http/1.1")),
        (&["mqtt"], true, &["http/1.1", "mqtt"], Some("mqtt")),
        (&["mqtt"], false, &[], None),
    ];
    for (offered, websocket, taken, agreed) in cases {
        let server = Server::listen(taken).await;
        let address = Address::Host("localhost".to_owned(), server.port);
        let endpoint = Endpoint { address, tls: true, websocket: websocket.then(|| "/mqtt".to_owned()) };
        let transport = Transport::new(endpoint, server.transport(offered));
        let connecting = tokio::spawn(async move { transport.connect().await.map(|_| ()) });
        let stream = server.accept().await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(protocol.as_deref(), agreed.map(str::as_bytes), "{offered:?} {taken:?}");
        // Of WebSocket nothing follows.
        drop(stream);
        assert_eq!(connecting.await.unwrap().is_ok(), !websocket);
    }
}

#[tokio::test]
async fn a_server_of_other_protocols_is_an_error() {
    let server = Server::listen(&["h2"]).await;
    let options = Options::with_transport(
        &format!("mqtts://localhost:{}", server.port).parse().unwrap(),
        server.transport(&["mqtt"]),
    );
    let connecting = tokio::spawn(async move { Client::connect(options).await.map(|_| ()) });
    assert!(server.accept().await.is_err());
    let error = connecting.await.unwrap().unwrap_err();
    let ConnectionError::Connect(words) = &error else { panic!("{error:?}") };
    assert!(words.starts_with("TLS with localhost: "), "{words}");
}

/// Passes MQTT on between a WebSocket and a broker, in frames of at most 100 bytes.
async fn pass(mut socket: WebSocketStream<TlsStream<TcpStream>>, broker: SocketAddr) {
    let mut broker = TcpStream::connect(broker).await.unwrap();
    let mut bytes = [0; 100];
    loop {
        tokio::select! {
            frame = poll_fn(|context| Pin::new(&mut socket).poll_next(context)) => match frame {
                Some(Ok(Frame::Binary(bytes))) => broker.write_all(&bytes).await.unwrap(),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                _ => return,
            },
            count = broker.read(&mut bytes) => {
                let Ok(count @ 1..) = count else { return };
                poll_fn(|context| Pin::new(&mut socket).poll_ready(context)).await.unwrap();
                Pin::new(&mut socket).start_send(Frame::Binary(bytes[..count].to_vec().into())).unwrap();
                poll_fn(|context| Pin::new(&mut socket).poll_flush(context)).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn web_socket_through_tls_and_again_after_a_lost_connection() {
    let broker = MockBroker::serve().await;
    let server = Server::listen(&["http/1.1"]).await;
    let quick = Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() };
    let url = format!("wss://localhost:{}/of/mqtt?x=1", server.port);
    let options = Options::with_transport(&url.parse().unwrap(), server.transport(&[])).reconnect(quick);
    let options = options.client_id("c").keep_session(Duration::from_secs(60));
    let (port, to) = (server.port, broker.address());
    tokio::spawn(async move {
        loop {
            let stream = server.accept().await.unwrap();
            #[allow(clippy::result_large_err, reason = "the library's form")]
            let callback = move |request: &Request, mut response: Response| {
                assert_eq!(request.headers()["sec-websocket-protocol"], "mqtt");
                assert_eq!(request.headers()["host"], format!("localhost:{port}").as_str());
                assert_eq!(request.uri().path_and_query().unwrap(), "/of/mqtt?x=1");
                response.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
                Ok(response)
            };
            let socket = tokio_tungstenite::accept_hdr_async(stream, callback).await.unwrap();
            tokio::spawn(pass(socket, to));
        }
    });
    let client = Client::connect(options).await.unwrap();
    let mut stream = client.subscribe(("a", QoS::ExactlyOnce)).await.unwrap();
    for connections in 1..=2 {
        let payload = vec![b'0' + connections; 100_000];
        client.publish(Message::new("a", payload.clone()).qos(QoS::ExactlyOnce)).await.unwrap();
        assert_eq!(stream.recv().await.unwrap().payload(), &payload);
        assert_eq!(broker.connections(), usize::from(connections));
        broker.drop_connections();
    }
    client.disconnect().await;
    broker.assert_no_violations();
}

/// What TLS checks, it checks here too.
#[tokio::test]
async fn web_socket_through_tls_with_a_stranger_is_an_error() {
    let server = Server::listen(&["http/1.1"]).await;
    let stranger = Server::listen(&["http/1.1"]).await;
    for (url, transport) in [
        (format!("wss://127.0.0.1:{}", server.port), server.transport(&[])),
        (format!("wss://localhost:{}", server.port), stranger.transport(&[])),
    ] {
        let options = Options::with_transport(&url.parse().unwrap(), transport);
        let connecting = tokio::spawn(async move { Client::connect(options).await.map(|_| ()) });
        assert!(server.accept().await.is_err(), "{url}");
        let error = connecting.await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("TLS with "), "{error}");
    }
}
