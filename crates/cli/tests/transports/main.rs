//! What stands between a socket and MQTT, from outside: WebSocket, PROXY headers, shared ports, lists of addresses,
//! permissions of Unix sockets. The broker is a process, its clients are ours and raw bytes.
#![expect(clippy::unwrap_used, reason = "what fails in a test's own work fails the test")]

mod addresses;
#[allow(dead_code, reason = "shared with the tests of the broker, which use all of it")]
#[path = "../broker/client.rs"]
mod client;
mod frames;
#[allow(dead_code, reason = "shared with the tests of the broker, which use all of it")]
#[path = "../broker/process.rs"]
mod process;
mod proxy;
mod secure;
mod shared_port;
#[allow(dead_code, reason = "shared with the tests of TLS, which use all of it")]
#[path = "../tls/client.rs"]
mod tls_client;
mod websocket;

use std::net::SocketAddr;

use process::{Broker, Folder};

/// A broker with these `[[listener]]`, and where it listens on TCP.
fn start(toml: &str) -> (Broker, Vec<SocketAddr>) {
    let folder = Folder::new();
    let file = folder.write("pantala.toml", toml);
    let mut broker = Broker::with_arguments(folder, &["-c".as_ref(), file.as_os_str()]);
    let addresses = broker.listening_on().iter().filter_map(|address| address.parse().ok()).collect();
    (broker, addresses)
}

/// One listener on 127.0.0.1 with these keys.
fn start_one(keys: &str) -> (Broker, SocketAddr) {
    let (broker, addresses) = start(&format!("[[listener]]\nhost = \"127.0.0.1\"\nport = 0\n{keys}\n"));
    (broker, addresses[0])
}
