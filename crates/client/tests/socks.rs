//! Through a SOCKS5 proxy, a real one on loopback. It is the only way: nobody could find the broker otherwise.
#![cfg(feature = "mock")]
#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

#[path = "support/socks.rs"]
mod support;

use std::time::Duration;

use pantala_client::mock::MockBroker;
use pantala_client::transport::{Socks5, TransportOptions};
use pantala_client::{Client, Message, Options, QoS, Reconnect};
use support::{Asked, SocksServer};

/// No such name is ever in the DNS (RFC 6761).
const NAME: &str = "broker.invalid";

fn options(url: &str, proxy: &SocksServer, credentials: Option<(&str, &str)>) -> Options {
    let credentials = credentials.map(|(user_name, password)| (user_name.to_owned(), password.to_owned()));
    let proxy = Socks5 { host: proxy.address.ip().to_string(), port: proxy.address.port(), credentials };
    let transport = TransportOptions { proxy: Some(proxy), ..TransportOptions::default() };
    let quick = Reconnect { first_wait_max: Duration::from_millis(1), ..Reconnect::default() };
    let options = Options::with_transport(&url.parse().unwrap(), transport).reconnect(quick);
    options.client_id("c").keep_session(Duration::from_secs(60))
}

#[tokio::test]
async fn each_connection_goes_through_the_proxy_which_finds_the_broker_by_its_name() {
    for credentials in [None, Some(("user", "p@ss word"))] {
        let broker = MockBroker::serve().await;
        let proxy = SocksServer::start(Some(broker.address()), credentials);
        let client = Client::connect(options(&format!("mqtt://{NAME}:1883"), &proxy, credentials)).await.unwrap();
        let mut stream = client.subscribe(("a", QoS::ExactlyOnce)).await.unwrap();
        client.publish(Message::new("a", "1").qos(QoS::ExactlyOnce)).await.unwrap();
        assert_eq!(stream.recv().await.unwrap().payload(), "1");
        let asked = vec![Asked::Name(NAME.to_owned(), 1883); 2];
        assert_eq!(proxy.asked(), asked[..1]);
        // And so does the next.
        broker.drop_connections();
        client.publish(Message::new("a", "2").qos(QoS::ExactlyOnce)).await.unwrap();
        assert_eq!(stream.recv().await.unwrap().payload(), "2");
        assert_eq!(proxy.asked(), asked);
        client.disconnect().await;
        broker.assert_no_violations();
    }
}

#[tokio::test]
async fn an_address_is_passed_on_as_one() {
    let broker = MockBroker::serve().await;
    // Nobody listens at port 1, and the proxy leads elsewhere.
    for (host, address) in [("127.0.0.1", "127.0.0.1:1"), ("[::1]", "[::1]:1")] {
        let proxy = SocksServer::start(Some(broker.address()), None);
        let client = Client::connect(options(&format!("mqtt://{host}:1"), &proxy, None)).await.unwrap();
        client.publish(Message::new("a", "1").qos(QoS::AtLeastOnce)).await.unwrap();
        assert_eq!(proxy.asked(), [Asked::Address(address.parse().unwrap())]);
    }
}

#[tokio::test]
async fn who_is_not_let_through_goes_no_other_way() {
    let broker = MockBroker::serve().await;
    // A broker that could be reached without a proxy, too.
    let url = broker.url();
    let closed = SocksServer::start(Some(broker.address()), Some(("user", "right")));
    let lost = SocksServer::start(None, None);
    for (proxy, credentials, words) in [
        (&closed, Some(("user", "wrong")), "refuses the user name or the password"),
        (&closed, None, "wants a way of authentication"),
        (&lost, None, "the host cannot be reached"),
    ] {
        let error = Client::connect(options(url, proxy, credentials)).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!((closed.asked().len(), lost.asked().len(), broker.connections()), (0, 1, 0));
}

/// A name that could be resolved here is left to the proxy all the same.
#[tokio::test]
async fn a_name_is_not_resolved_on_this_side() {
    let broker = MockBroker::serve().await;
    let proxy = SocksServer::start(Some(broker.address()), None);
    let _client = Client::connect(options("mqtt://localhost:1", &proxy, None)).await.unwrap();
    assert_eq!(proxy.asked(), [Asked::Name("localhost".to_owned(), 1)]);
}
