//! Where it listens, what it says, and what it refuses to start with.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::client::{Client, V5, V311, acknowledgement, connect, publish};
use crate::process::{Broker, Folder, free_port, wait_for};

const READY_DURATION_MAX: Duration = Duration::from_secs(2);
const EXIT_CONFIGURATION: i32 = 3;

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// Both loopback addresses, where the machine has both.
fn loopback(port: u16) -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
    addresses.extend(has_ipv6().then(|| SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
    addresses
}

fn strings(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

#[test]
fn without_arguments_it_serves_this_machine_on_port_1883() {
    let mut broker = Broker::with_arguments(Folder::new(), &[] as &[&str]);
    let said = wait_for("a broker that starts or says why not", || {
        Some(broker.log()).filter(|log| log.contains("Try it") || log.contains("cannot listen"))
    });
    if said.contains("cannot listen") {
        // Someone else has the port: that is said, with a way out, and nothing is left running.
        assert!(said.contains(":1883: it is in use") && said.contains("-p"), "{said}");
        assert_eq!(broker.wait().code(), Some(1));
        return;
    }
    assert_eq!(broker.listening_on(), strings(&loopback(1883)));
    for address in loopback(1883) {
        Client::connect(address, V5, "anybody");
    }
    broker.signal(Signal::TERM);
    assert_eq!(broker.wait().code(), Some(0));
}

#[test]
fn it_is_ready_soon_and_says_how_to_use_it() {
    let port = free_port();
    let start = Instant::now();
    let mut broker = Broker::with_arguments(Folder::new(), &["-p", &port.to_string(), "--workers", "2"]);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    wait_for("a broker that accepts", || TcpStream::connect(address).ok());
    assert!(start.elapsed() < READY_DURATION_MAX, "{:?}", start.elapsed());
    for address in loopback(port) {
        Client::connect(address, V311, "anybody");
    }
    assert_eq!(broker.listening_on(), strings(&loopback(port)));
    let log = broker.wait_for_log("Try it");
    for said in [
        "starting with 2 workers",
        "(anonymous clients allowed)",
        "Durability: fsync",
        "home/.local/state/pantala",
        &format!("mosquitto_sub -p {port} -t '#' -v"),
        &format!("mosquitto_pub -p {port} -t a/b -m hi -q 2"),
    ] {
        assert!(log.contains(said), "it does not say \"{said}\": {log}");
    }
    broker.check();
}

#[test]
fn topics_that_are_worth_less_are_named_at_the_start_and_acknowledged() {
    let mut broker = Broker::start(
        "[broker]\nworkers = 2\n[[durability]]\nfilter = \"o/#\"\nlevel = \"os\"\n\
         [[durability]]\nfilter = \"m/#\"\nlevel = \"memory\"\n",
    );
    let log = broker.wait_for_log("Try it");
    for said in ["Durability: fsync.", "Durability of o/#: os.\n", "Durability of m/#: memory.\n"] {
        assert!(log.contains(said), "it does not say \"{said}\": {log}");
    }
    let mut client = Client::connect(broker.address(), V311, "publisher");
    for (packet_id, topic_name) in [(1, "o/x"), (2, "m/x"), (3, "k")] {
        let mut packet = publish(V311, topic_name, 1, packet_id, b"retained");
        packet[0] |= 1;
        client.send(&packet);
        client.expect(&acknowledgement(0x40, packet_id));
    }
    broker.check();
}

#[test]
fn several_ports_are_all_served() {
    let ports = [free_port(), free_port(), free_port()];
    let [one, two, three] = ports.map(|port| port.to_string());
    let mut broker = Broker::with_arguments(Folder::new(), &["-p", &one, "-p", &two, "--port", &three]);
    let expected: Vec<SocketAddr> = ports.into_iter().flat_map(loopback).collect();
    assert_eq!(broker.listening_on(), strings(&expected));
    for address in expected {
        Client::connect(address, V5, "anybody");
    }
}

#[test]
fn files_of_both_kinds_and_a_port_beside_them() {
    let ports = [free_port(), free_port()];
    let [port, other] = ports.map(|port| port.to_string());
    let toml = format!("[limits]\nreceive_maximum = 7\n[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\n");
    let conf = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 7\n");
    let single = format!("port {port}\nallow_anonymous true\n");
    let on = |address: &str, port: &str| format!("{address}:{port}");
    let both = |port: &str| strings(&loopback(port.parse().unwrap()));
    // The file, the arguments after it, and where it is to listen.
    let cases: [(&str, &str, &[&str], Vec<String>); 5] = [
        ("pantala.toml", &toml, &[], vec![on("127.0.0.1", &port)]),
        ("pantala.toml", &toml, &["-p", &other], [vec![on("127.0.0.1", &port)], both(&other)].concat()),
        ("mosquitto.conf", &conf, &[], vec![on("127.0.0.1", &port)]),
        ("mosquitto.conf", &conf, &["-p", &other], [vec![on("127.0.0.1", &port)], both(&other)].concat()),
        // What `port` names is moved by -p, as Mosquitto does it.
        ("mosquitto.conf", &single, &["-p", &other], vec![on("[::]", &other)]),
    ];
    for (name, text, more, expected) in cases {
        let folder = Folder::new();
        folder.write(name, text);
        let mut broker = Broker::with_arguments(folder, &[&["-c", name], more].concat());
        let found = broker.listening_on();
        let ipv4_only = found.iter().map(|address| address.replace("0.0.0.0", "[::]")).collect::<Vec<_>>();
        assert_eq!(ipv4_only, expected, "{name} {more:?}: {}", broker.log());
        for address in found {
            let address: SocketAddr = address.parse().unwrap();
            let mut client = Client::open(SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())));
            client.let_in(V5, "anybody");
        }
        broker.signal(Signal::TERM);
        assert_eq!(broker.wait().code(), Some(0), "{}", broker.log());
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_status_3() {
    let cases: [(&[&str], &str, &str); 12] = [
        (&["--nonsense"], "", "--nonsense"),
        (&["-p", "70000"], "", "70000"),
        (&["-p"], "", "--port"),
        (&["--workers", "0"], "", "--workers"),
        (&["--workers", "65"], "", "--workers: \"workers\" is 65, but has to be from 1 to 64"),
        (&["-c", "nowhere.toml"], "", "nowhere.toml: cannot be read"),
        (&["-c", "a.toml"], "\n[limits]\npacket_bytes_mx = 1\n", "a.toml:3:1: unknown key \"packet_bytes_mx\""),
        (&["-c", "a.toml"], "[limits]\npacket_bytes_max = \"x\"\n", "a.toml:2:20: "),
        (&["-c", "a.toml"], "[limits\n", "a.toml:1:"),
        (&["-c", "a.toml"], "[nothing]\n", "a.toml:1:"),
        (&["-c", "a.conf"], "# first\nport 1883\nlistner 1884\n", "a.conf:3: unknown directive \"listner\""),
        (&["-c", "a.conf"], "port 123456\n", "a.conf:1: "),
    ];
    for (arguments, text, said) in cases {
        let folder = Folder::new();
        if let Some(name) = arguments.get(1).filter(|_| !text.is_empty()) {
            folder.write(name, text);
        }
        let mut broker = Broker::with_arguments(folder, arguments);
        assert_eq!(broker.wait().code(), Some(EXIT_CONFIGURATION), "{arguments:?}: {}", broker.log());
        assert!(broker.log().contains(said), "{arguments:?} does not say \"{said}\": {}", broker.log());
    }
}

#[test]
fn a_port_that_is_in_use_is_not_shared() {
    let first = Broker::start("");
    let port = first.address().port().to_string();
    let configurations = [
        String::new(),
        format!("[[listener]]\nhost = \"127.0.0.1\"\nport = {port}\n"),
        // All interfaces: nor without IPv6.
        format!("[[listener]]\nport = {port}\n"),
    ];
    for text in configurations {
        let folder = Folder::new();
        folder.write("a.toml", &text);
        let arguments: &[&str] = if text.is_empty() { &["-p", &port] } else { &["-c", "a.toml"] };
        let mut second = Broker::with_arguments(folder, arguments);
        assert_eq!(second.wait().code(), Some(1), "{text}{}", second.log());
        let log = second.log();
        assert!(log.contains(&format!(":{port}: it is in use")), "{log}");
    }
    Client::connect(first.address(), V5, "anybody");
}

#[test]
fn all_interfaces_are_for_clients_that_say_who_they_are() {
    let folder = Folder::new();
    folder.write("a.toml", "[[listener]]\nport = 0\n");
    let broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    let log = broker.wait_for_log("Durability: ");
    assert!(log.contains("(anonymous clients refused)"), "{log}");
    for (level, answer) in [(V311, 5), (V5, 0x87)] {
        let mut client = Client::open(SocketAddr::from((Ipv4Addr::LOCALHOST, broker.address().port())));
        client.send(&connect(level, "anybody"));
        let refused = client.packet();
        assert_eq!((refused[0], refused[3]), (0x20, answer), "{refused:02x?}");
        client.expect_closed();
    }
}

#[test]
fn a_unix_socket_is_made_and_removed_and_what_is_left_of_one_replaced() {
    let folder = Folder::new();
    let path = folder.path("broker.sock");
    let text = format!("[[listener]]\nunix_path = \"{}\"\n", path.display());
    folder.write("a.toml", &text);
    // A socket that nobody listens on any more.
    drop(UnixListener::bind(&path).unwrap());
    let mut broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    assert_eq!(broker.listening_on(), [format!("unix:{}", path.display())]);
    let mut client = Client::open_unix(&path);
    client.let_in(V5, "anybody");

    // Another broker leaves it alone.
    let folder = Folder::new();
    folder.write("a.toml", &text);
    let mut second = Broker::with_arguments(folder, &["-c", "a.toml"]);
    assert_eq!(second.wait().code(), Some(1));
    assert!(second.log().contains("broker.sock: it is in use"), "{}", second.log());
    client.ping();
    UnixStream::connect(&path).unwrap();

    broker.signal(Signal::TERM);
    client.expect(&[0xe0, 1, 0x8b]);
    assert_eq!(broker.wait().code(), Some(0));
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_stays_where_it_is() {
    let folder = Folder::new();
    let path = folder.write("precious", "data");
    let first = folder.path("first.sock");
    let text = |path: &std::path::Path| format!("[[listener]]\nunix_path = \"{}\"\n", path.display());
    // The first listener opens; with the second the start fails, and nothing of the first is left behind.
    folder.write("a.toml", &(text(&first) + &text(&path)));
    let mut broker = Broker::with_arguments(folder, &["-c", "a.toml"]);
    assert_eq!(broker.wait().code(), Some(1));
    assert!(broker.log().contains("something else than a socket"), "{}", broker.log());
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    assert!(!fs::symlink_metadata(&first).is_ok_and(|found| found.file_type().is_socket()), "a socket is left behind");
}
