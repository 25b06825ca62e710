//! Headers of the PROXY protocol: attacks L15 and L16.

use std::os::unix::net::UnixStream;

use crate::client::{Client, V311, connect, connect_as};
use crate::{start, start_one};

const CONN_ACK: [u8; 4] = [0x20, 2, 0, 0];
const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 49152 1883\r\n";

/// A header of version 2 for 192.0.2.7:49152, with these values.
fn header(command: u8, values: &[u8]) -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0xc0, 0x00, 0x07, 0x5b];
    let length = u16::try_from(addresses.len() + values.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11][..], &length, &addresses, values].concat()
}

/// What a proxy says of a client that came by TLS.
const TLS: [u8; 8] = [0x20, 0, 5, 1, 0, 0, 0, 1];

#[test]
fn the_client_is_the_one_that_the_header_names() {
    for (versions, header) in
        [("v1", LINE.to_vec()), ("v2", header(0x21, &[])), ("any", LINE.to_vec()), ("any", header(0x21, &TLS))]
    {
        let (mut broker, address) =
            start_one(&format!("proxy_protocol = \"{versions}\"\nproxy_trusted = [\"127.0.0.1\"]"));
        let mut together = Client::open(address);
        together.send(&[&header[..], &connect(V311, "together")].concat());
        together.expect(&CONN_ACK);
        broker.wait_for_log("New client connected from 192.0.2.7:49152 as together");
        let mut single = Client::open(address);
        for byte in [&header[..], &connect(V311, "single")].concat() {
            single.send(&[byte]);
        }
        single.expect(&CONN_ACK);
        broker.wait_for_log("New client connected from 192.0.2.7:49152 as single");
        assert!(single.ping().is_empty());
        broker.check();
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let (broker, address) = start_one("proxy_protocol = \"any\"\nproxy_trusted = [\"127.0.0.0/8\"]");
    // A health check says nothing more.
    let mut check = Client::open(address);
    check.send(&header(0x20, &[]));
    check.finish();
    check.expect_closed();
    let mut client = Client::open(address);
    client.send(&[header(0x20, &[]), connect(V311, "local")].concat());
    client.expect(&CONN_ACK);
    broker.wait_for_log("New client connected from 127.0.0.1:");
    let mut unknown = Client::open(address);
    unknown.send(&[&b"PROXY UNKNOWN\r\n"[..], &connect(V311, "unknown")].concat());
    unknown.expect(&CONN_ACK);
    broker.wait_for_log("as unknown");
}

#[test]
fn without_a_right_header_nobody_is_let_in() {
    let (mut broker, address) = start_one("proxy_protocol = \"v2\"\nproxy_trusted = [\"127.0.0.1\"]");
    let cut = header(0x21, &[0x20, 0, 9, 1]);
    for (bytes, words) in [
        (connect(V311, "a"), "no PROXY header of a version that this listener takes"),
        ([LINE, &connect(V311, "a")].concat(), "no PROXY header of a version that this listener takes"),
        (header(0x22, &[]), "the PROXY header has an unknown version or command"),
        (cut, "a value in the PROXY header is longer than the header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(), "the PROXY header is longer than 4096 bytes"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0".to_vec(), "the PROXY header ends within its addresses"),
    ] {
        let mut client = Client::open(address);
        client.send(&bytes);
        client.expect_closed();
        broker.wait_for_log(&format!(" closed: {words}."));
    }
    assert_eq!(broker.counter("transport_failures"), 6);
    broker.check();
}

#[test]
fn a_header_has_connect_seconds() {
    let (broker, addresses) = start(
        "[limits]\nconnect_seconds = 1\n[[listener]]\nhost = \"127.0.0.1\"\nport = 0\nproxy_protocol = \"any\"\n\
         proxy_trusted = [\"127.0.0.1\"]",
    );
    let mut client = Client::open(addresses[0]);
    client.send(&LINE[..20]);
    client.expect_closed();
    assert_eq!(broker.counter("connect_timeouts"), 1);
}

#[test]
fn headers_of_others_than_trusted_proxies_are_not_read() {
    let (broker, address) = start_one("proxy_protocol = \"any\"\nproxy_trusted = [\"10.0.0.0/8\"]");
    let mut client = Client::open(address);
    // It may be gone before all is written.
    drop(client.try_send(&[LINE, &connect(V311, "a")].concat()));
    client.expect_closed();
    broker.wait_for_log(" closed: it is no trusted proxy.");
    assert_eq!((broker.counter("connections_not_allowed"), broker.counter("bytes_received")), (1, 0));
}

#[test]
fn lists_of_addresses_are_about_the_client_and_not_its_proxy() {
    let keys = "proxy_protocol = \"any\"\nproxy_trusted = [\"127.0.0.1\"]";
    let (broker, address) = start_one(&format!("{keys}\ndeny_addresses = [\"192.0.2.0/24\"]"));
    let mut client = Client::open(address);
    client.send(&[LINE, &connect(V311, "a")].concat());
    client.expect_closed();
    broker.wait_for_log("Connection from 192.0.2.7:49152 closed: clients of this address are not let in.");
    let (_broker, address) = start_one(&format!("{keys}\nallow_addresses = [\"192.0.2.0/24\"]"));
    let mut client = Client::open(address);
    client.send(&[LINE, &connect(V311, "a")].concat());
    client.expect(&CONN_ACK);
    // Nobody knows whether one without an address is allowed.
    let mut unknown = Client::open(address);
    unknown.send(&[&b"PROXY UNKNOWN\r\n"[..], &connect(V311, "a")].concat());
    unknown.expect_closed();
}

#[test]
fn tls_in_front_of_the_proxy_can_be_required() {
    let (broker, address) =
        start_one("proxy_protocol = \"any\"\nproxy_trusted = [\"127.0.0.1\"]\nproxy_require_tls = true");
    for front in [LINE.to_vec(), header(0x21, &[])] {
        let mut client = Client::open(address);
        client.send(&[front, connect(V311, "a")].concat());
        client.expect_closed();
        broker.wait_for_log("the client came to the proxy without TLS");
    }
    let mut client = Client::open(address);
    client.send(&[header(0x21, &TLS), connect(V311, "a")].concat());
    client.expect(&CONN_ACK);
}

/// The proxy has taken TLS off and verified the client's certificate.
#[test]
fn a_verified_common_name_can_be_the_user_name() {
    let keys = "proxy_protocol = \"v2\"\nproxy_trusted = [\"127.0.0.1\"]\nallow_anonymous = false";
    let tls = |client: u8, verified: u8, name: &str| {
        let name = [&[0x22, 0, name.len() as u8], name.as_bytes()].concat();
        let length = 5 + name.len() as u8;
        [&[0x20, 0, length, client, 0, 0, 0, verified][..], &name].concat()
    };
    let (broker, address) = start_one(&format!("{keys}\nuser_name_from_certificate = \"cn\""));
    let connected = |values: &[u8]| {
        let mut client = Client::open(address);
        client.send(&[header(0x21, values), connect(V311, "a")].concat());
        client
    };
    connected(&tls(0x07, 0, "sensor-7")).expect(&CONN_ACK);
    // Not verified, and no certificate: nobody the listener knows.
    for values in [tls(0x07, 1, "sensor-7"), tls(0x01, 1, "sensor-7"), Vec::new()] {
        connected(&values).expect_closed();
        // Whose address is the client's: it was the proxy's.
        let words = "the client came to the proxy without a certificate that it has verified";
        broker.wait_for_log(&format!("Connection from 192.0.2.7:49152 closed: {words}."));
    }
    // Of two names the last one counted.
    let two = [tls(0x07, 0, "sensor-7"), tls(0x07, 0, "admin")].concat();
    connected(&two).expect_closed();
    broker.wait_for_log(" closed: the PROXY header has a value twice that can be there once.");
    for (name, words) in [("#", "has a wildcard"), ("a\0", "has a control character"), ("", "has no name")] {
        connected(&tls(0x07, 0, name)).expect_closed();
        broker.wait_for_log(words);
    }
    let (_broker, address) = start_one(keys);
    let mut without_the_rule = Client::open(address);
    without_the_rule.send(&[header(0x21, &tls(0x07, 0, "sensor-7")), connect(V311, "a")].concat());
    without_the_rule.expect(&[0x20, 2, 0, 5]);
}

/// Names were believed where nobody verifies them, and a client that came to the proxy without a certificate could give itself
/// the name of another's.
#[test]
fn where_the_proxy_names_users_nobody_names_himself() {
    let folder = crate::Folder::new();
    let rules = folder.write("rules", "user admin\ntopic readwrite #\n");
    let port = crate::process::free_port();
    let text = format!(
        "acl_file {}\nlistener {port} 127.0.0.1\nenable_proxy_protocol 2\nuse_identity_as_username true\nallow_anonymous true\n",
        rules.display()
    );
    let file = folder.write("mosquitto.conf", &text);
    let mut broker = crate::Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    assert_eq!(broker.listening_on().len(), 1);
    let address = broker.address();
    let as_admin = connect_as(V311, "a", Some("admin"), None);
    for values in [&[][..], &TLS] {
        let mut client = Client::open(address);
        client.send(&[header(0x21, values), as_admin.clone()].concat());
        client.expect_closed();
    }
    broker.wait_for_log("the client came to the proxy without a certificate that it has verified");
    let verified = [0x20, 0, 13, 7, 0, 0, 0, 0, 0x22, 0, 5, b'a', b'd', b'm', b'i', b'n'];
    let mut admin = Client::open(address);
    admin.send(&[header(0x21, &verified), connect(V311, "a")].concat());
    admin.expect(&CONN_ACK);
    admin.subscribe("t", 0);
    admin.send(&crate::client::publish(V311, "t", 0, 0, b"x"));
    admin.expect(&crate::client::publish(V311, "t", 0, 0, b"x"));
    broker.check();
}

#[test]
fn a_proxy_on_a_unix_socket_is_believed() {
    let folder = crate::Folder::new();
    let path = folder.path("s");
    let (broker, _) = start(&format!("[[listener]]\nunix_path = \"{}\"\nproxy_protocol = \"any\"\n", path.display()));
    let mut stream = UnixStream::connect(&path).unwrap();
    std::io::Write::write_all(&mut stream, &[LINE, &connect(V311, "a")].concat()).unwrap();
    broker.wait_for_log("New client connected from 192.0.2.7:49152 as a");
}
