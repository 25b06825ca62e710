//! The outbox of a client: programs that end, and others that go on where they were.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pantala_client::error::{ConnectionError, PublishError};
use pantala_client::mock::{MockBroker, ServingBroker};
use pantala_client::{
    Client, Message, Options, OptionsError, OutboxDurability, OutboxError, OutboxOptions, ProtocolVersion, QoS, Status,
};
use pantala_proto::PacketType;

fn options(url: &str, directory: &Path) -> Options {
    let options = Options::new(url).expect("the URL is right");
    options.client_id("meter").keep_session(Duration::MAX).outbox(directory)
}

fn numbers(broker: &ServingBroker, qos: QoS) -> Vec<u64> {
    let of_qos = broker.published().into_iter().filter(|message| message.qos == qos);
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

/// Not a test, but the program that the next one kills: enqueues numbers for ever, and says of each when it is accepted.
#[test]
fn program_to_be_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let directory = std::env::var(DIRECTORY).unwrap();
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = Client::start(options(&url, Path::new(&directory)));
        for number in first.. {
            let enqueued = client.enqueue(message(number)).await;
            enqueued.unwrap_or_else(|error| panic!("{error}: {:?}", client.status()));
            let mut out = std::io::stdout();
            writeln!(out, "accepted {number}").unwrap();
            out.flush().unwrap();
        }
    });
}

fn start_program(url: &str, directory: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", "program_to_be_killed", "--nocapture"])
        .envs([(URL, url), (FIRST, &first.to_string())])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("this test can be run again")
}

#[test]
fn a_program_killed_at_any_moment_loses_and_doubles_nothing_that_it_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = runtime.block_on(MockBroker::serve());
    broker.behave(|behaviour| behaviour.distinct_messages = true);
    let mut accepted = BTreeSet::new();
    let mut first = 1;
    for round in 0..20_u64 {
        let mut program = start_program(broker.url(), directory.path(), first);
        // From before the connection is there to some hundred messages later.
        let lines = round * round * 37 % 601 + 1;
        let mut out = BufReader::new(program.stdout.take().unwrap()).lines();
        let mut take = |line: String| {
            if let Some((_, number)) = line.split_once("accepted ") {
                accepted.insert(number.parse::<u64>().unwrap());
                return true;
            }
            false
        };
        let mut seen = 0;
        while seen < lines {
            seen += u64::from(take(out.next().expect("the program goes on").unwrap()));
        }
        program.kill().unwrap();
        program.wait().unwrap();
        // What it said before it was killed counts. A last line may be without its end, and thus its number.
        let rest: Vec<String> = out.map_while(Result::ok).collect();
        if let Some((_, whole)) = rest.split_last() {
            for line in whole {
                take(line.clone());
            }
        }
        first = accepted.last().unwrap() + 1_000;
    }
    runtime.block_on(async {
        let client = Client::connect(options(broker.url(), directory.path())).await.unwrap();
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
    let lost: Vec<&u64> = accepted.difference(&arrived).collect();
    assert!(lost.is_empty(), "{lost:?} of {} accepted are lost", accepted.len());
    broker.assert_no_violations();
}
