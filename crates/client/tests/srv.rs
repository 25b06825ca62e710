//! Brokers by SRV records, with a name server on loopback that answers as it is told.
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use pantala_client::transport::{Address, ConnectError, Endpoint, SrvError, Transport, TransportOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

const HEADER_BYTES: usize = 12;

/// Names that were asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// Priority, port and target.
type Record = (u16, u16, &'static str);

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// The name in a question, and where the question ends.
fn asked_name(question: &[u8]) -> (String, usize) {
    let (mut name, mut at) = (Vec::new(), HEADER_BYTES);
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        name.push(String::from_utf8(question[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    // Type SRV, class IN.
    assert_eq!(question[at + 1..at + 5], [0, 33, 0, 1]);
    (name.join("."), at + 5)
}

/// An answer to `question` with these flags.
fn answer(question: &[u8], flags: [u8; 2], records: &[Record]) -> Vec<u8> {
    let mut bytes = question[..asked_name(question).1].to_vec();
    bytes[2..4].copy_from_slice(&flags);
    bytes[7] = u8::try_from(records.len()).unwrap();
    bytes[11] = 0;
    for (priority, port, target) in records {
        let data = [&priority.to_be_bytes()[..], &[0, 1], &port.to_be_bytes(), &labels(target)].concat();
        bytes.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60]);
        bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

/// A name server that answers by `answers`, datagram after datagram.
async fn name_server(answers: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> (SocketAddr, Asked) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    let asked = Asked::default();
    let names = asked.clone();
    tokio::spawn(async move {
        let mut bytes = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut bytes).await {
            let question = &bytes[..count];
            names.lock().unwrap().push(asked_name(question).0);
            for datagram in answers(question) {
                socket.send_to(&datagram, from).await.unwrap();
            }
        }
    });
    (address, asked)
}

/// A broker, as far as TCP goes: who connects gets one byte.
async fn listener(byte: u8) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(&[byte]).await.unwrap();
        }
    });
    port
}

/// A port where nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

fn transport(name_servers: &[SocketAddr], tls: bool) -> Transport {
    let endpoint = Endpoint { address: Address::Service("example.test".into()), tls, websocket: None };
    Transport::new(endpoint, TransportOptions { name_servers: name_servers.to_vec(), ..TransportOptions::default() })
}

/// Connects, and tells which listener it was.
async fn reached(name_servers: &[SocketAddr]) -> Result<u8, ConnectError> {
    Ok(transport(name_servers, false).connect().await?.read_u8().await.unwrap())
}

#[tokio::test]
async fn hosts_are_tried_in_the_order_of_their_priorities() {
    let (closed, first, second) = (closed_port().await, listener(1).await, listener(2).await);
    let records = [(30, second, "localhost"), (20, first, "localhost"), (10, closed, "localhost")];
    let (server, asked) = name_server(move |question| vec![answer(question, [0x81, 0x80], &records)]).await;
    for _ in 0..3 {
        assert_eq!(reached(&[server]).await.unwrap(), 1);
    }
    assert_eq!(*asked.lock().unwrap(), ["_mqtt._tcp.example.test"; 3]);
}

#[tokio::test]
async fn with_tls_the_service_has_another_name() {
    let (server, asked) = name_server(|question| vec![answer(question, [0x81, 0x83], &[])]).await;
    let Err(error) = transport(&[server], true).connect().await else { panic!("there is nobody") };
    assert_eq!(error.to_string(), "the domain has no SRV records _secure-mqtt._tcp.example.test");
    assert!(matches!(error, ConnectError::Service(SrvError::None(_))));
    // It was asked once: that there are none is an answer.
    assert_eq!(*asked.lock().unwrap(), ["_secure-mqtt._tcp.example.test"]);
}

#[tokio::test]
async fn a_domain_can_say_that_it_has_no_broker() {
    let (server, _) = name_server(|question| vec![answer(question, [0x81, 0x80], &[(0, 0, ".")])]).await;
    assert!(matches!(reached(&[server]).await, Err(ConnectError::Service(SrvError::NoService(_)))));
}

#[tokio::test]
async fn what_does_not_answer_the_question_is_passed_over() {
    let port = listener(7).await;
    let (server, _) = name_server(move |question| {
        let good = answer(question, [0x81, 0x80], &[(0, port, "localhost")]);
        let wrong = answer(question, [0x81, 0x80], &[(0, 1, "localhost")]);
        let (mut other_id, mut other_name, mut no_answer) = (wrong.clone(), wrong.clone(), wrong.clone());
        other_id[0] ^= 1;
        other_name[HEADER_BYTES + 1] ^= 1;
        no_answer[2] = 0x01;
        vec![other_id, other_name, no_answer, b"garbage".to_vec(), wrong[..wrong.len() - 3].to_vec(), good]
    })
    .await;
    assert_eq!(reached(&[server]).await.unwrap(), 7);
}

#[tokio::test]
async fn the_next_name_server_is_asked_where_one_fails_or_is_silent() {
    let port = listener(7).await;
    let (silent, asked) = name_server(|_| Vec::new()).await;
    let (failing, _) = name_server(|question| vec![answer(question, [0x81, 0x82], &[])]).await;
    let (good, _) = name_server(move |question| vec![answer(question, [0x81, 0x80], &[(0, port, "localhost")])]).await;
    assert_eq!(reached(&[failing, silent, good]).await.unwrap(), 7);
    assert_eq!(asked.lock().unwrap().len(), 1);
    // All of them fail: each was asked twice.
    let (failing, asked) = name_server(|question| vec![answer(question, [0x81, 0x82], &[])]).await;
    let error = reached(&[failing]).await.unwrap_err();
    assert!(error.to_string().ends_with("the name server says error 2"), "{error}");
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn an_answer_that_was_cut_is_asked_for_by_tcp() {
    let port = listener(7).await;
    let (server, _) = name_server(|question| vec![answer(question, [0x83, 0x80], &[])]).await;
    let by_tcp = TcpListener::bind(server).await.unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = by_tcp.accept().await.unwrap();
        let mut question = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut question).await.unwrap();
        // More than a datagram could hold.
        let records = [(0, port, "localhost"); 60];
        let bytes = answer(&question, [0x81, 0x80], &records);
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    });
    assert_eq!(reached(&[server]).await.unwrap(), 7);
}

#[tokio::test]
async fn what_is_no_name_is_not_asked_for() {
    let endpoint = Endpoint { address: Address::Service("::1".into()), tls: false, websocket: None };
    let error = Transport::new(endpoint, TransportOptions::default()).connect().await.err().unwrap();
    assert_eq!(error.to_string(), "_mqtt._tcp.::1 is no name of the DNS");
}
