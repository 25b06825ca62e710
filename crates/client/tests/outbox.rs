//! The outbox of a client: programs that end, and others that go on where they were.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pantala_client::error::{ConnectionError, PublishError, Violation};
use pantala_client::mock::{MockBroker, ServingBroker};
use pantala_client::{
    Client, Message, Options, OptionsError, OutboxDurability, OutboxError, OutboxOptions, ProtocolVersion, QoS, Status,
    UnknownSession,
};
use pantala_proto::PacketType;

fn options(url: &str, directory: &Path) -> Options {
    let options = Options::new(url).expect("the URL is right");
    options.client_id("meter").keep_session(Duration::MAX).outbox(directory)
}

fn numbers(broker: &ServingBroker, qos: QoS) -> Vec<u64> {
    let of_qos = broker.published().into_iter().filter(|message| message.topic_name == "n" && message.qos == qos);
    let number = |payload: &[u8]| std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
    of_qos.map(|message| number(&message.payload).expect("a number")).collect()
}

fn message(number: u64) -> Message {
    let qos = if number.is_multiple_of(2) { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
    Message::new("n", number.to_string()).qos(qos)
}

/// A broker that nobody listens at.
const NOWHERE: &str = "mqtt://127.0.0.1:1";

#[test]
fn what_was_enqueued_without_a_broker_arrives_from_the_next_program() {
    let directory = tempfile::tempdir().unwrap();
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        // The runtime ends with all its tasks, as abruptly as it can within a process.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut options = options(NOWHERE, directory.path()).version(version);
            options.reconnect.retry_first = true;
            let client = Client::start(options);
            for number in 1..=50 {
                client.enqueue(message(number)).await.unwrap();
            }
            assert_eq!(client.outbox_len(), 50);
        });
        drop(runtime);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let broker = MockBroker::serve().await;
            let client = Client::connect(options(broker.url(), directory.path()).version(version)).await.unwrap();
            assert_eq!(client.outbox_report().unwrap().messages, 50);
            client.settled().await.unwrap();
            assert_eq!(client.outbox_len(), 0);
            client.disconnect().await;
            assert_eq!(numbers(&broker, QoS::AtLeastOnce), (1..=50).step_by(2).collect::<Vec<u64>>());
            assert_eq!(numbers(&broker, QoS::ExactlyOnce), (2..=50).step_by(2).collect::<Vec<u64>>());
            broker.assert_no_violations();
        });
    }
}

#[test]
fn exchanges_in_flight_go_on_in_the_next_program() {
    let directory = tempfile::tempdir().unwrap();
    let outside = tokio::runtime::Runtime::new().unwrap();
    let broker = outside.block_on(MockBroker::serve());
    broker.behave(|behaviour| behaviour.distinct_messages = true);
    for round in 0..4 {
        broker.hold_acknowledgements();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = Client::connect(options(broker.url(), directory.path())).await.unwrap();
            let first = round * 20 + 1;
            for number in first..first + 20 {
                client.enqueue(message(number)).await.unwrap();
            }
            let last = (first + 19).to_string();
            let has_last = |broker: &ServingBroker| broker.published().iter().any(|message| message.payload == last);
            if round == 0 {
                broker.wait_until(has_last).await;
            }
        });
        drop(runtime);
    }
    // Else it would acknowledge into a connection that is gone.
    outside.block_on(broker.wait_until(|broker| broker.connected().is_empty()));
    broker.release_acknowledgements();
    outside.block_on(async {
        let client = Client::connect(options(broker.url(), directory.path())).await.unwrap();
        client.settled().await.unwrap();
        client.disconnect().await;
    });
    assert_eq!(numbers(&broker, QoS::ExactlyOnce), (2..=80).step_by(2).collect::<Vec<u64>>());
    let at_least_once: BTreeSet<u64> = numbers(&broker, QoS::AtLeastOnce).into_iter().collect();
    assert_eq!(at_least_once, (1..=80).step_by(2).collect());
    broker.assert_no_violations();
}

#[tokio::test]
async fn publish_waits_for_the_broker_and_for_room_and_try_publish_for_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let broker = MockBroker::serve().await;
    let outbox = OutboxOptions::new(directory.path()).messages_max(3).durability(OutboxDurability::Os);
    let client = Client::connect(options(broker.url(), directory.path()).outbox(outbox)).await.unwrap();
    client.publish(message(1)).await.unwrap();
    broker.hold_acknowledgements();
    for number in 2..=4 {
        client.enqueue(message(number)).await.unwrap();
    }
    assert_eq!(client.try_publish(&message(5)), Err(PublishError::QueueFull));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.publish(message(5)).await }
    });
    broker.wait_until(|broker| broker.held_acknowledgements() == 3).await;
    assert!(!waiting.is_finished());
    broker.release_acknowledgements();
    waiting.await.unwrap().unwrap();
    client.disconnect().await;
    broker.assert_no_violations();
}

#[tokio::test]
async fn the_directory_is_free_when_the_client_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let broker = MockBroker::serve().await;
    for _ in 0..3 {
        let client = Client::connect(options(broker.url(), directory.path())).await.unwrap();
        let second = Client::connect(options(broker.url(), directory.path())).await;
        assert!(matches!(second, Err(ConnectionError::Outbox(OutboxError::InUse(_)))), "{second:?}");
        client.disconnect().await;
    }
}

/// An outbox has our part of the Session in it, also when all its messages have arrived.
#[tokio::test]
async fn a_session_that_the_outbox_knows_is_not_unknown() {
    let broker = MockBroker::serve().await;
    let directory = tempfile::tempdir().unwrap();
    let options = || options(broker.url(), directory.path()).unknown_session(UnknownSession::Close);
    for round in 0..3 {
        let client = Client::connect(options()).await.unwrap();
        assert_eq!(client.connected().await.unwrap().session_present, round > 0);
        client.publish(message(round)).await.unwrap();
        client.disconnect().await;
    }
    let empty = tempfile::tempdir().unwrap();
    let error = Client::connect(options().outbox(empty.path())).await.unwrap_err();
    assert_eq!(error, ConnectionError::Protocol(Violation::UnknownSession));
}

#[tokio::test]
async fn what_an_outbox_needs_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let nameless = Options::new(NOWHERE).unwrap().keep_session(Duration::MAX).outbox(directory.path());
    let error = nameless.check().unwrap_err();
    assert!(matches!(error, OptionsError::Outbox(OutboxError::NoClientId)));
    assert_eq!(error.to_string(), "an outbox needs a Client Identifier of your own: set one with Options::client_id");
    let fleeting = Options::new(NOWHERE).unwrap().client_id("meter").outbox(directory.path());
    assert!(matches!(fleeting.check(), Err(OptionsError::Outbox(OutboxError::NoSession))));
    let client = Client::start(fleeting);
    let Status::Ended(Some(error)) = client.status() else { panic!("{:?}", client.status()) };
    assert_eq!(*error, ConnectionError::Outbox(OutboxError::NoSession));
    assert_eq!(client.enqueue(message(1)).await, Err(PublishError::Ended));

    let broker = MockBroker::serve().await;
    Client::connect(options(broker.url(), directory.path())).await.unwrap().disconnect().await;
    let other = Client::connect(options(broker.url(), directory.path()).client_id("other")).await;
    let Err(ConnectionError::Outbox(OutboxError::Foreign { client_id, .. })) = other else { panic!("{other:?}") };
    assert_eq!(client_id, "meter");
}

/// A received QoS 2 message that was acknowledged does not come again, whatever the broker sends again.
#[test]
fn a_received_message_comes_to_one_program_only() {
    let directory = tempfile::tempdir().unwrap();
    let outside = tokio::runtime::Runtime::new().unwrap();
    let broker = outside.block_on(MockBroker::serve());
    let down = |number: u64| pantala_client::mock::Message::new("down", number.to_string()).with_qos(QoS::ExactlyOnce);
    let mut expected = 1;
    for round in 0..5 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = Client::connect(options(broker.url(), directory.path())).await.unwrap();
            let mut stream = client.subscribe(("down", QoS::ExactlyOnce)).await.unwrap();
            if round == 0 {
                (1..=25).for_each(|number| broker.publish(down(number)));
            }
            let pub_recs = broker.received_of(PacketType::PubRec).len();
            for _ in 0..5 {
                let received = stream.recv().await.unwrap();
                assert_eq!(received.payload(), &expected.to_string());
                expected += 1;
            }
            stream.acknowledge();
            // Up to here the broker has heard of it, perhaps not of PUBCOMP.
            broker.wait_until(|broker| broker.received_of(PacketType::PubRec).len() >= pub_recs + 5).await;
        });
        drop(runtime);
    }
    broker.assert_no_violations();
}

const URL: &str = "OUTBOX_TEST_URL";
const DIRECTORY: &str = "OUTBOX_TEST_DIRECTORY";
const FIRST: &str = "OUTBOX_TEST_FIRST";
const OS: &str = "OUTBOX_TEST_OS";
/// How often a program is killed by each of the two tests, to be set for a long run. Default: 20.
const KILLS: &str = "OUTBOX_TEST_KILLS";
/// Where the chance of a long run comes from. Default: 1.
const SEED: &str = "OUTBOX_TEST_SEED";

fn outbox(directory: &Path, durability: OutboxDurability) -> OutboxOptions {
    OutboxOptions::new(directory).durability(durability)
}

/// Not a test, but the program that the next ones kill: enqueues numbers for ever, and says of each when it is accepted; takes
/// what comes, and says so before it acknowledges.
#[test]
fn program_to_be_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let directory = std::env::var(DIRECTORY).unwrap();
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let durability = if std::env::var_os(OS).is_some() { OutboxDurability::Os } else { OutboxDurability::Fsync };
    let say = |what: &str, number: &str| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{what} {number}").unwrap();
        out.flush().unwrap();
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let outbox = outbox(Path::new(&directory), durability);
        let client = Client::start(options(&url, Path::new(&directory)).outbox(outbox));
        let mut stream = client.unclaimed();
        tokio::spawn(async move {
            while let Ok(received) = stream.recv().await {
                say("received", std::str::from_utf8(received.payload()).unwrap());
                stream.acknowledge();
            }
        });
        for number in first.. {
            let enqueued = client.enqueue(message(number)).await;
            enqueued.unwrap_or_else(|error| panic!("{error}: {:?}", client.status()));
            say("accepted", &number.to_string());
        }
    });
}

/// The program, until it is killed when this is dropped.
struct Program {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Program {
    fn start(url: &str, directory: &Path, first: u64, durability: OutboxDurability) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test has a file"));
        command
            .args(["--exact", "program_to_be_killed", "--nocapture"])
            .envs([(URL, url), (FIRST, &first.to_string())])
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        if durability == OutboxDurability::Os {
            command.env(OS, "1");
        }
        let mut child = command.spawn().expect("this test can be run again");
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// The next line it says. None when it has ended: what it said without an end of line may be half a number.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.ends_with('\n').then(|| line.trim_end().to_owned())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What programs have said.
#[derive(Default)]
struct Said {
    accepted: BTreeSet<u64>,
    /// The last number that came to the program that runs.
    last_received: u64,
    received: BTreeSet<u64>,
}

impl Said {
    /// Whether it is that a message was accepted.
    fn take(&mut self, line: &str) -> bool {
        if let Some((_, number)) = line.split_once("accepted ") {
            return self.accepted.insert(number.parse().unwrap());
        }
        if let Some((_, number)) = line.split_once("received ") {
            let number = number.parse().unwrap();
            assert!(self.last_received < number, "{number} came after {}", self.last_received);
            self.last_received = number;
            self.received.insert(number);
        }
        false
    }
}

/// Numbers from a seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn kill_again_and_again(durability: OutboxDurability) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(MockBroker::serve());
    broker.behave(|behaviour| behaviour.distinct_messages = true);
    runtime.block_on(async {
        let outbox = outbox(directory.path(), durability);
        let client = Client::connect(options(broker.url(), directory.path()).outbox(outbox)).await.unwrap();
        let _stays = client.subscribe(("down", QoS::ExactlyOnce)).await.unwrap();
        client.disconnect().await;
    });
    let mut said = Said::default();
    let (kills, mut chance) = (number_of(KILLS, 20), Chance(number_of(SEED, 1)));
    let (mut first, mut sent_down) = (1, 0);
    for kill in 1..=kills {
        let mut program = Program::start(broker.url(), directory.path(), first, durability);
        said.last_received = 0;
        for _ in 0..chance.below(4) {
            sent_down += 1;
            let down = pantala_client::mock::Message::new("down", sent_down.to_string());
            broker.publish(down.with_qos(QoS::ExactlyOnce));
        }
        // From before the connection is there to some hundred messages later.
        let most = [4, 30, 30, 100, 600][chance.below(5) as usize];
        let mut left = 1 + chance.below(most);
        while left > 0 {
            let line = program.line().unwrap_or_else(|| panic!("the program has ended, before kill {kill}"));
            left -= u64::from(said.take(&line));
        }
        // Just after a message was accepted is not the only moment.
        std::thread::sleep(Duration::from_micros(chance.below(2_000)));
        program.kill();
        // What it said before it was killed counts.
        while let Some(line) = program.line() {
            said.take(&line);
        }
        first = said.accepted.last().unwrap() + 1_000;
    }
    runtime.block_on(async {
        let outbox = outbox(directory.path(), durability);
        let client = Client::connect(options(broker.url(), directory.path()).outbox(outbox)).await.unwrap();
        assert_eq!(client.outbox_report().unwrap().damages, Vec::<String>::new());
        let mut stream = client.unclaimed();
        let last = pantala_client::mock::Message::new("down", u64::MAX.to_string());
        broker.publish(last.with_qos(QoS::ExactlyOnce));
        said.last_received = 0;
        while said.last_received < u64::MAX {
            let received = stream.recv().await.unwrap();
            said.take(&format!("received {}", std::str::from_utf8(received.payload()).unwrap()));
        }
        client.settled().await.unwrap();
        client.disconnect().await;
    });
    let exactly_once = numbers(&broker, QoS::ExactlyOnce);
    assert!(exactly_once.is_sorted_by(|one, next| one < next), "out of order, or twice");
    let mut at_least_once = BTreeSet::new();
    for number in numbers(&broker, QoS::AtLeastOnce) {
        let last = at_least_once.last().copied();
        assert!(!at_least_once.insert(number) || last < Some(number), "{number} came after {last:?}");
    }
    let arrived: BTreeSet<u64> = exactly_once.into_iter().chain(at_least_once).collect();
    let lost: Vec<&u64> = said.accepted.difference(&arrived).collect();
    assert!(lost.is_empty(), "{lost:?} of {} accepted are lost", said.accepted.len());
    let lost: Vec<u64> = (1..=sent_down).filter(|number| !said.received.contains(number)).collect();
    assert!(lost.is_empty(), "{lost:?} of {sent_down} from the broker never came");
    broker.assert_no_violations();
}

#[test]
fn a_program_killed_at_any_moment_loses_and_doubles_nothing_that_it_accepted() {
    kill_again_and_again(OutboxDurability::Fsync);
}

#[test]
fn a_program_killed_without_any_sync_loses_and_doubles_nothing_either() {
    kill_again_and_again(OutboxDurability::Os);
}
