//! A client whose connection is cut a thousand times, and a mate with a good connection: what they tell each other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pantala_client::error::PublishError;
use pantala_client::mock::{CutEnding, Cuts, CuttingLink};
use pantala_client::{Client, Message, Options, ProtocolVersion, QoS, Reconnect, Subscription};
use tokio::sync::watch;

/// Messages that one side may be ahead of the other: brokers bound what they keep for a client that is away.
const AHEAD_MAX: usize = 60;
/// The longest that anything may take; the clock is the real one.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker that is not exact gets the last cuts in this rhythm, until it has sent what it still had.
const STUCK_AFTER: Duration = Duration::from_millis(300);

/// What one run is like.
pub(crate) struct Plan {
    pub(crate) version: ProtocolVersion,
    pub(crate) seed: u64,
    /// Connections that are cut.
    pub(crate) cuts: usize,
    /// Begins Client Identifiers and Topic Names, so that runs at one broker do not meet.
    pub(crate) prefix: String,
    /// Whether the broker itself keeps order and QoS 2 over reconnects. Mosquitto 2.0 does not: it sends PUBLISH again for what
    /// PUBREC has answered, lets new messages overtake those that wait, and forgets to go on with those that wait until the client
    /// connects again. There, all messages have to come, and that is all.
    pub(crate) exact: bool,
}

impl Plan {
    fn options(&self, address: SocketAddr, name: &str) -> Options {
        let mut options = Options::new(&format!("mqtt://{address}")).unwrap();
        options = options.version(self.version).client_id(format!("{}-{name}", self.prefix));
        options = options.keep_session(Duration::from_secs(3_600)).reconnect(Reconnect {
            first_wait_max: Duration::from_millis(1),
            wait_max: Duration::from_millis(2),
            attempts_max: None,
            retry_first: true,
            only_passing: false,
        });
        options.session.queue_messages_max = AHEAD_MAX;
        options
    }
}

/// Messages go both ways, at QoS 1 and 2 and under two Topic Names each, while connections are cut; then it is counted.
pub(crate) async fn nothing_is_lost(broker: SocketAddr, plan: Plan) {
    let cuts = Cuts::Random { seed: plan.seed, bytes: 0..=3_000 };
    let link = CuttingLink::to(broker, cuts).await;
    let shaken = Client::start(plan.options(link.address(), "shaken"));
    let mate = Client::connect(plan.options(broker, "mate")).await.unwrap();
    let (up, down) = (format!("{}/up", plan.prefix), format!("{}/down", plan.prefix));
    let ups = mate.subscribe((format!("{up}/#"), QoS::ExactlyOnce)).await.unwrap();
    let downs = within("SUBACK", shaken.subscribe((format!("{down}/#"), QoS::ExactlyOnce))).await.unwrap();

    let over = AtomicBool::new(false);
    let (came_up, seen_up) = watch::channel(0);
    let (came_down, seen_down) = watch::channel(0);
    let (sent_up, of_up) = watch::channel(None);
    let (sent_down, of_down) = watch::channel(None);
    let cutting = async {
        // Each cut is a change.
        let mut changes = shaken.changes();
        while link.cut() < plan.cuts {
            changes.next().await.unwrap();
        }
        over.store(true, Ordering::Relaxed);
        link.pass_all();
        if plan.exact {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(STUCK_AFTER).await;
            link.cut_all(CutEnding::Close);
        }
    };
    within("the end", async {
        let talking = async {
            tokio::join!(
                tell(&shaken, &up, &over, seen_up, sent_up),
                tell(&mate, &down, &over, seen_down, sent_down),
                listen(ups, came_up, of_up, plan.exact),
                listen(downs, came_down, of_down, plan.exact),
            )
        };
        tokio::select! {
            _ = talking => {}
            () = cutting => {}
        }
    })
    .await;
    shaken.settled().await.unwrap();
    mate.settled().await.unwrap();
    shaken.disconnect().await;
    mate.disconnect().await;
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_| panic!("{what} did not come within {PATIENCE:?}"))
}

/// Publishes 0, 1, 2, … until it is `over`, then says how many there were.
async fn tell(
    client: &Client,
    topic: &str,
    over: &AtomicBool,
    mut seen: watch::Receiver<usize>,
    sent: watch::Sender<Option<usize>>,
) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        seen.wait_for(|seen| number < seen + AHEAD_MAX).await.unwrap();
        let qos = if number.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        let name = if number % 4 < 2 { "a" } else { "b" };
        let message = Message::new(format!("{topic}/{name}"), number.to_string()).qos(qos);
        // Now and then one is waited for.
        if number % 50 == 49 {
            client.publish(message).await.unwrap();
        } else {
            match client.try_publish(&message) {
                Ok(()) => {}
                Err(PublishError::QueueFull) => {
                    client.settled().await.unwrap();
                    continue;
                }
                Err(error) => panic!("{error}"),
            }
        }
        number += 1;
    }
    sent.send_replace(Some(number));
}

/// Takes messages until all that were sent have come: at QoS 1 at least once, at QoS 2 exactly once, and under each Topic Name
/// and QoS in order, but for what comes again.
async fn listen(
    mut stream: Subscription,
    came: watch::Sender<usize>,
    mut sent: watch::Receiver<Option<usize>>,
    exact: bool,
) {
    let mut seen: Vec<bool> = Vec::new();
    let mut distinct = 0;
    let mut last: HashMap<(String, QoS), usize> = HashMap::new();
    let mut all = None;
    while all != Some(distinct) {
        let message = tokio::select! {
            message = stream.recv() => message.unwrap(),
            _ = sent.changed(), if all.is_none() => {
                all = *sent.borrow_and_update();
                continue;
            }
        };
        let number: usize = std::str::from_utf8(message.payload()).unwrap().parse().unwrap();
        let qos = if number.is_multiple_of(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        assert_eq!(message.qos(), qos, "{number}");
        seen.resize(seen.len().max(number + 1), false);
        if std::mem::replace(&mut seen[number], true) {
            assert!(qos == QoS::AtLeastOnce || !exact, "{number} came twice to {}", message.topic_name());
            continue;
        }
        let last = last.insert((message.topic_name().to_owned(), qos), number);
        assert!(last < Some(number) || !exact, "{number} came after {last:?} to {}", message.topic_name());
        distinct += 1;
        came.send_replace(distinct);
    }
    stream.acknowledge();
}
