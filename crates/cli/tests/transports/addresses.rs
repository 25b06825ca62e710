//! Who may connect: by address, and to a Unix socket by its permissions.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;

use crate::client::{Client, V311};
use crate::process::{Broker, Folder};
use crate::{start, start_one};

#[test]
fn denied_addresses_are_closed_at_once() {
    let (mut broker, address) = start_one("deny_addresses = [\"127.0.0.0/8\"]");
    Client::open(address).expect_closed();
    broker.wait_for_log(" closed: clients of this address are not let in.");
    assert_eq!((broker.counter("connections_not_allowed"), broker.counter("connections_opened")), (1, 0));
    broker.check();
}

#[test]
fn where_some_are_allowed_others_are_not() {
    let (_broker, address) = start_one("allow_addresses = [\"10.0.0.0/8\", \"127.0.0.1\"]");
    Client::connect(address, V311, "a");
    let (_broker, address) = start_one("allow_addresses = [\"10.0.0.0/8\"]");
    Client::open(address).expect_closed();
    let (_broker, address) = start_one("allow_addresses = [\"127.0.0.0/8\"]\ndeny_addresses = [\"127.0.0.1\"]");
    Client::open(address).expect_closed();
}

/// Attack L20: on a socket for both versions of IP an IPv4 address comes as one of IPv6.
#[test]
fn an_ipv4_address_is_the_same_on_a_socket_for_both() {
    for (list, is_let_in) in [
        ("deny_addresses = [\"127.0.0.1\"]", false),
        ("deny_addresses = [\"::ffff:127.0.0.0/104\"]", false),
        ("allow_addresses = [\"127.0.0.0/8\"]", true),
        ("allow_addresses = [\"::ffff:127.0.0.1\"]", true),
        ("allow_addresses = [\"::/0\"]", false),
    ] {
        let (_broker, mut addresses) = start(&format!("[[listener]]\nport = 0\nallow_anonymous = true\n{list}\n"));
        addresses[0].set_ip([127, 0, 0, 1].into());
        let mut client = Client::open(addresses[0]);
        if is_let_in {
            client.let_in(V311, "a");
        } else {
            client.expect_closed();
        }
    }
}

fn unix(folder: &Folder, keys: &str) -> String {
    format!("[[listener]]\nunix_path = \"{}\"\n{keys}\n", folder.path("s").display())
}

/// Attack L18.
#[test]
fn a_unix_socket_has_the_permissions_that_are_asked_for() {
    for (keys, expected) in [("", 0o660), ("unix_mode = \"0600\"", 0o600), ("unix_mode = \"777\"", 0o777)] {
        let folder = Folder::new();
        // One that a process left behind is replaced, whatever its permissions were.
        drop(UnixListener::bind(folder.path("s")).unwrap());
        let (_broker, _) = start(&unix(&folder, keys));
        let found = fs::symlink_metadata(folder.path("s")).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o7777, expected, "{keys}");
        Client::open_unix(&folder.path("s")).let_in(V311, "a");
    }
}

/// Attack L18.
#[test]
fn what_is_no_socket_in_its_place_is_left_alone() {
    let refused = |folder: &Folder, words: &str| {
        let own = Folder::new();
        let file = own.write("pantala.toml", &unix(folder, ""));
        let mut broker = Broker::with_arguments(own, &["-c".as_ref(), file.as_os_str()]);
        assert!(!broker.wait().success());
        assert!(broker.log().contains(words), "{}", broker.log());
    };
    let folder = Folder::new();
    folder.write("precious", "x");
    symlink(folder.path("precious"), folder.path("s")).unwrap();
    refused(&folder, "there is something else than a socket here");
    assert_eq!(fs::read_to_string(folder.path("precious")).unwrap(), "x");
    assert!(fs::symlink_metadata(folder.path("s")).unwrap().is_symlink());

    // Not even if it leads to a socket that nobody listens on.
    let folder = Folder::new();
    drop(UnixListener::bind(folder.path("stale")).unwrap());
    symlink(folder.path("stale"), folder.path("s")).unwrap();
    refused(&folder, "there is something else than a socket here");
    assert!(folder.path("stale").exists());

    let folder = Folder::new();
    folder.write("s", "precious");
    refused(&folder, "there is something else than a socket here");
    assert_eq!(fs::read_to_string(folder.path("s")).unwrap(), "precious");
}
