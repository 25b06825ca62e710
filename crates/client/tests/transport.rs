//! TLS, WebSocket, Unix sockets and redirects, against small servers on loopback.
#![cfg(all(feature = "tls", feature = "websocket"))]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pantala_client::mock::{MockBroker, Peer};
use pantala_client::transport::{
    Address, ClientCertificate, ConnectError, Endpoint, Roots, TlsOptions, TlsVersions, Transport, TransportOptions,
    Verification,
};
use pantala_client::{Client, Options, ReasonCode, Reconnect};
use pantala_proto::{ConnAck, Packet};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// An authority and a folder for its files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn roots(&self) -> Roots {
        Roots::Files(vec![self.folder.path().join("ca.pem")])
    }

    /// A certificate for `names`, changed by `change`, and its key.
    fn issue(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> (String, KeyPair) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut parameters = CertificateParams::new(names).unwrap();
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A TLS server that sends back what it gets, with the certificate given; asks for one of `clients`' where there is some.
async fn echo(certificate: &(String, KeyPair), clients: Option<&Authority>) -> u16 {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject as _;
    let chain = vec![CertificateDer::from_pem_slice(certificate.0.as_bytes()).unwrap()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certificate.1.serialize_der()));
    let builder = ServerConfig::builder();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = tokio_rustls::rustls::RootCertStore::empty();
            roots.add(authority.issuer.der().clone()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        }
    };
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut bytes = [0; 4];
            if stream.read_exact(&mut bytes).await.is_ok() {
                drop(stream.write_all(&bytes).await);
                drop(stream.shutdown().await);
            }
        }
    })
    .await
}

async fn serve<F: Future<Output = ()> + Send + 'static>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    port
}

/// Connects and has four bytes come back.
async fn round(transport: &Transport) -> Result<(), String> {
    let mut stream = transport.connect().await.map_err(|error| error.to_string())?;
    let mut bytes = [0; 4];
    let result = async {
        stream.write_all(b"ping").await?;
        stream.flush().await?;
        stream.read_exact(&mut bytes).await
    };
    result.await.map_err(|error: std::io::Error| error.to_string())?;
    assert_eq!(&bytes, b"ping");
    Ok(())
}

fn tls(host: &str, port: u16, tls: TlsOptions) -> Transport {
    let endpoint = Endpoint { address: Address::Host(host.to_owned(), port), tls: true, websocket: None };
    Transport::new(endpoint, TransportOptions { tls, ..TransportOptions::default() })
}

#[tokio::test]
async fn a_trusted_certificate_for_the_right_name_is_accepted() {
    let authority = Authority::new();
    let port = echo(&authority.issue(&["localhost", "127.0.0.1"], |_| ()), None).await;
    for host in ["localhost", "127.0.0.1"] {
        for versions in [TlsVersions::All, TlsVersions::V12, TlsVersions::V13] {
            let options = TlsOptions { roots: authority.roots(), versions, ..TlsOptions::default() };
            round(&tls(host, port, options)).await.unwrap();
        }
    }
    let folder = Roots::Files(vec![authority.folder.path().to_owned()]);
    round(&tls("localhost", port, TlsOptions { roots: folder, ..TlsOptions::default() })).await.unwrap();
}

/// O9. Twice each: a reconnect is no different.
#[tokio::test]
async fn o9_whatever_is_wrong_with_a_certificate_is_an_error_each_time() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let expired = authority.issue(&["localhost"], |parameters| {
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let of_an_authority = authority.issue(&["localhost"], |parameters| {
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let cases = [
        (stranger.issue(&["localhost"], |_| ()), "localhost", "not trusted"),
        (authority.issue(&["other"], |_| ()), "localhost", "another name"),
        (authority.issue(&["localhost"], |_| ()), "127.0.0.1", "another name"),
        (authority.issue(&["*.host"], |_| ()), "localhost", "another name"),
        (expired, "localhost", "expired"),
        (of_an_authority, "localhost", "CA:FALSE"),
    ];
    for (certificate, host, words) in cases {
        let port = echo(&certificate, None).await;
        let transport = tls(host, port, TlsOptions { roots: authority.roots(), ..TlsOptions::default() });
        for _ in 0..2 {
            let error = round(&transport).await.unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}

#[tokio::test]
async fn o9_an_empty_file_of_authorities_is_an_error_and_trusts_nobody() {
    let authority = Authority::new();
    let port = echo(&authority.issue(&["localhost"], |_| ()), None).await;
    let empty = authority.write("empty.pem", "");
    let roots = Roots::Files(vec![empty]);
    let transport = tls("localhost", port, TlsOptions { roots, ..TlsOptions::default() });
    for _ in 0..2 {
        assert!(round(&transport).await.unwrap_err().contains("has no certificate"));
    }
}

#[tokio::test]
async fn checks_that_are_left_out_are_the_ones_that_were_named() {
    let authority = Authority::new();
    let other_name = echo(&authority.issue(&["other"], |_| ()), None).await;
    let stranger = echo(&Authority::new().issue(&["localhost"], |_| ()), None).await;
    let with = |verification| TlsOptions { roots: authority.roots(), verification, ..TlsOptions::default() };
    round(&tls("localhost", other_name, with(Verification::AnyName))).await.unwrap();
    round(&tls("localhost", stranger, with(Verification::AnyName))).await.unwrap_err();
    round(&tls("localhost", stranger, with(Verification::Nothing))).await.unwrap();
    let named = TlsOptions { server_name: Some("other".to_owned()), ..with(Verification::Full) };
    round(&tls("localhost", other_name, named)).await.unwrap();
}

#[tokio::test]
async fn a_client_certificate_is_shown_when_asked_for() {
    let authority = Authority::new();
    let port = echo(&authority.issue(&["localhost"], |_| ()), Some(&authority)).await;
    let (certificate, key) = authority.issue(&["client"], |_| ());
    let client_certificate = Some(ClientCertificate {
        certificate: authority.write("client.pem", &certificate),
        key: authority.write("client.key", &key.serialize_pem()),
    });
    let roots = authority.roots();
    round(&tls("localhost", port, TlsOptions { roots: roots.clone(), client_certificate, ..TlsOptions::default() }))
        .await
        .unwrap();
    round(&tls("localhost", port, TlsOptions { roots, ..TlsOptions::default() })).await.unwrap_err();
}

/// A WebSocket server that answers with `subprotocol` and sends `frames`, then what it gets.
async fn websocket(subprotocol: Option<&'static str>, frames: Vec<Message>) -> u16 {
    use futures_sink::Sink;
    use std::pin::Pin;
    serve(move |stream| {
        let frames = frames.clone();
        async move {
            #[allow(clippy::result_large_err, reason = "the library's form")]
            let callback = |request: &Request, mut response: Response| {
                assert_eq!(request.headers()["sec-websocket-protocol"], "mqtt");
                assert_eq!(request.uri().path(), "/mqtt");
                if let Some(subprotocol) = subprotocol {
                    response.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
                }
                Ok(response)
            };
            let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, callback).await else { return };
            for frame in frames {
                std::future::poll_fn(|context| Pin::new(&mut socket).poll_ready(context)).await.unwrap();
                Pin::new(&mut socket).start_send(frame).unwrap();
            }
            std::future::poll_fn(|context| Pin::new(&mut socket).poll_flush(context)).await.unwrap();
            // Until the client goes.
            use futures_core::Stream;
            while std::future::poll_fn(|context| Pin::new(&mut socket).poll_next(context))
                .await
                .is_some_and(|m| m.is_ok())
            {}
        }
    })
    .await
}

fn over_websocket(port: u16) -> Transport {
    let endpoint = Endpoint { websocket: Some("/mqtt".to_owned()), ..Endpoint::tcp("127.0.0.1", port) };
    Transport::new(endpoint, TransportOptions::default())
}

#[tokio::test]
async fn frames_of_any_size_are_one_stream() {
    let binary = |bytes: &'static [u8]| Message::Binary(bytes.into());
    let frames = vec![binary(b"p"), binary(b""), Message::Ping("x".into()), binary(b"in"), binary(b"g!")];
    let port = websocket(Some("mqtt"), frames).await;
    let mut stream = over_websocket(port).connect().await.unwrap();
    let mut bytes = [0; 5];
    stream.read_exact(&mut bytes).await.unwrap();
    assert_eq!(&bytes, b"ping!");
}

#[tokio::test]
async fn text_frames_and_other_protocols_are_errors() {
    let port = websocket(Some("mqtt"), vec![Message::Text("ping".into())]).await;
    let mut stream = over_websocket(port).connect().await.unwrap();
    assert!(stream.read_exact(&mut [0; 4]).await.unwrap_err().to_string().contains("text frame"));
    let port = websocket(None, Vec::new()).await;
    assert!(matches!(over_websocket(port).connect().await.map(|_| ()), Err(ConnectError::WebSocket(_))));
}

#[tokio::test]
async fn a_web_server_that_is_no_broker_is_named_as_such() {
    let port = serve(|mut stream| async move {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        drop(stream.write_all(answer).await);
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let error = over_websocket(port).connect().await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("404"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up() {
    let port = serve(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let transport = tls("localhost", port, TlsOptions { verification: Verification::Nothing, ..TlsOptions::default() });
    assert!(matches!(transport.connect().await.map(|_| ()), Err(ConnectError::TimedOut(_))));
}

#[tokio::test]
async fn a_unix_socket_is_a_way_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    let url = format!("unix://{}", path.display()).parse().unwrap();
    round(&Transport::new(Endpoint::of(&url), TransportOptions::default())).await.unwrap();
}

async fn send_elsewhere(peer: &mut Peer, other: SocketAddr) {
    let reference = format!("localhost:{}", other.port());
    let conn_ack = ConnAck { server_reference: Some(&reference), ..ConnAck::new(false, ReasonCode::UseAnotherServer) };
    peer.send(&Packet::ConnAck(conn_ack)).await;
}

fn with_credentials(broker: &MockBroker) -> Options {
    let options = Options::new(broker.url()).unwrap().client_id("one").credentials("user", "secret");
    options.reconnect(Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() })
}

/// O10.
#[tokio::test]
async fn o10_nobody_is_followed_unasked() {
    let (first, second) = (MockBroker::listen().await, MockBroker::listen().await);
    let connecting = tokio::spawn(Client::connect(with_credentials(&first)));
    let mut peer = first.accept().await;
    peer.expect_connect().await;
    send_elsewhere(&mut peer, second.address()).await;
    let error = connecting.await.unwrap().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("use another server"), "{error}");
}

/// O10. `localhost` is another host than `127.0.0.1`.
#[tokio::test]
async fn o10_credentials_stay_at_home() {
    let (first, second) = (MockBroker::listen().await, MockBroker::listen().await);
    let mut options = with_credentials(&first);
    options.follow_redirects = true;
    let client = Client::start(options);
    let mut peer = first.accept().await;
    assert_eq!(peer.expect_connect().await.connect().password, Some(b"secret".as_slice()));
    send_elsewhere(&mut peer, second.address()).await;
    let mut peer = second.accept().await;
    let connect = peer.expect_connect().await;
    assert_eq!((connect.connect().user_name, connect.connect().password), (None, None));
    peer.conn_ack(false, ReasonCode::Success).await;
    client.connected().await.unwrap();
    // When that is over, it is at home that we are known.
    peer.close().await;
    let mut peer = first.accept().await;
    assert_eq!(peer.expect_connect().await.connect().user_name, Some("user"));
}
