//! A Sparkplug Aware MQTT Server from outside: what a mosquitto.conf that names Mosquitto's plugin comes to.

use rustix::process::Signal;

use crate::client::{Client, V5, V311, acknowledgement, client_id_of, publish, taken_apart};
use crate::process::{Broker, Folder, free_port, wait_for};

const CERTIFICATES: &str = "$sparkplug/certificates/";
const CONF: &str = "allow_anonymous true\npersistence true\npersistence_location data\n\
                    global_plugin /usr/lib/mosquitto_sparkplug_aware.so\n";

fn start(folder: Folder) -> Broker {
    let port = free_port();
    folder.write("mosquitto.conf", &format!("{CONF}listener {port} 127.0.0.1\n"));
    let broker = Broker::with_arguments(folder, &["-c", "mosquitto.conf", "--workers", "2"]);
    broker.wait_for_log("Try it");
    broker
}

/// RETAIN, QoS and payload of what a new subscription to a certificate gets, which is there.
fn certificate(broker: &Broker, birth: &str) -> (bool, u8, Vec<u8>) {
    let mut late = Client::connect(broker.address(), V311, "late");
    late.subscribe(&format!("{CERTIFICATES}{birth}"), 1);
    let publish = late.packet();
    let (qos, _, payload) = taken_apart(V311, &publish);
    (publish[0] & 1 == 1, qos, payload.to_vec())
}

#[test]
fn a_mosquitto_conf_with_the_plugin_keeps_births_over_a_kill() {
    let mut broker = start(Folder::new());
    let log = broker.log();
    assert!(log.contains("broker.sparkplug_aware = true (default false)") && !log.contains("has no effect"), "{log}");
    for (worker, level) in [(0, V311), (1, V5)] {
        let mut node = Client::connect(broker.address(), level, &client_id_of(worker, 2, "node"));
        for group in 0..4_u16 {
            let birth = format!("spBv1.0/{worker}{group}/NBIRTH/node");
            node.send(&publish(level, &birth, 0, 0, b"at QoS 0"));
            node.send(&publish(level, &birth, 1, 7, b"birth"));
            assert_eq!(node.packet()[..2], [0x40, if level == V5 { 3 } else { 2 }]);
            let device = format!("spBv1.0/{worker}{group}/DBIRTH/node/device");
            node.send(&publish(level, &device, 2, 10 + group, &[b'd'; 3_000]));
            assert_eq!(node.packet()[0], 0x50);
        }
        // A forged one. Of an older version the answer does not tell.
        let forged = format!("{CERTIFICATES}spBv1.0/00/NBIRTH/node");
        node.send(&publish(level, &forged, 1, 9, b"forged"));
        let answer = node.packet();
        assert!(level == V311 || answer[4] == 0x87, "{answer:02x?}");
    }
    assert_eq!(broker.counter("sparkplug_certificates_published"), 2 * 4 * 3);
    broker.signal(Signal::KILL);
    broker.wait();
    let folder = Folder::new();
    std::fs::rename(broker.folder.path("data"), folder.path("data")).unwrap();
    let broker = start(folder);
    for worker in 0..2 {
        for group in 0..4 {
            let birth = format!("spBv1.0/{worker}{group}/NBIRTH/node");
            assert_eq!(certificate(&broker, &birth), (true, 1, b"birth".to_vec()), "{birth}");
            let device = format!("spBv1.0/{worker}{group}/DBIRTH/node/device");
            assert_eq!(certificate(&broker, &device), (true, 1, vec![b'd'; 3_000]), "{device}");
        }
    }
    // As one does with Mosquitto when a node is gone for good.
    let mut watcher = Client::connect(broker.address(), V311, "watcher");
    watcher.subscribe("$sparkplug/certificates/spBv1.0/00/NBIRTH/+", 0);
    assert_eq!(taken_apart(V311, &watcher.packet()).2, b"birth");
    let mut operator = Client::connect(broker.address(), V311, "operator");
    let mut removal = publish(V311, &format!("{CERTIFICATES}spBv1.0/00/NBIRTH/node"), 1, 7, b"");
    removal[0] |= 1;
    operator.send(&removal);
    operator.expect(&acknowledgement(0x40, 7));
    assert_eq!(taken_apart(V311, &watcher.packet()).2, b"");
}

#[test]
fn a_reload_makes_the_broker_aware_and_unaware() {
    let broker = Broker::start("[broker]\nworkers = 2\n");
    let file = broker.folder.path("pantala.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut host = Client::connect(broker.address(), V311, "host");
    host.subscribe("spBv1.0/#", 0);
    let mut node = Client::connect(broker.address(), V311, "node");
    let birth = "spBv1.0/g/NBIRTH/node";
    for (aware, before) in [("true", "false"), ("false", "true")] {
        // The way to the only receiver is remembered by now.
        for _ in 0..3 {
            node.send(&publish(V311, birth, 0, 0, b"before"));
            assert_eq!(taken_apart(V311, &host.packet()).2, b"before");
        }
        std::fs::write(&file, text.replace("workers = 2\n", &format!("workers = 2\nsparkplug_aware = {aware}\n")))
            .unwrap();
        broker.signal(Signal::HUP);
        broker.wait_for_log(&format!("broker.sparkplug_aware: {before} -> {aware} (live)"));
        node.send(&publish(V311, birth, 0, 0, aware.as_bytes()));
        assert_eq!(taken_apart(V311, &host.packet()).2, aware.as_bytes());
        node.ping();
        // The one before it was told so was certified while it still was.
        let expected = if aware == "true" { &b"true"[..] } else { b"before" };
        wait_for("the certificate", || (certificate(&broker, birth).2 == expected).then_some(()));
    }
    // Somebody else may keep them then.
    let mut other = publish(V5, &format!("{CERTIFICATES}{birth}"), 1, 7, b"other");
    other[0] |= 1;
    let mut keeper = Client::connect(broker.address(), V5, "keeper");
    keeper.send(&other);
    assert_ne!(keeper.packet().get(4), Some(&0x87));
    assert_eq!(certificate(&broker, birth), (true, 1, b"other".to_vec()));
}
