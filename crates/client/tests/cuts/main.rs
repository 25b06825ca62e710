//! The client over a link that is cut at random bytes, with messages of QoS 1 and 2 under way in both directions: none is lost,
//! those of QoS 2 come once, and the order stays.
#![expect(clippy::unwrap_used, reason = "what fails in a test's own work fails the test")]

mod exchange;

use std::net::SocketAddr;

use pantala_client::ProtocolVersion;
use pantala_client::mock::{Behaviour, MockBroker};

use exchange::{Plan, nothing_is_lost};

/// A broker of another make: its address, if there is one.
const OTHER_BROKER: &str = "PANTALA_TEST_BROKER";

async fn at_the_mock_broker(version: ProtocolVersion) {
    let behaviour = Behaviour { distinct_messages: true, ..Behaviour::default() };
    let broker = MockBroker::serve_with(behaviour).await;
    let plan = Plan { version, seed: 1, cuts: 1_000, prefix: "cuts".to_owned(), exact: true };
    nothing_is_lost(broker.address(), plan).await;
    broker.assert_no_violations();
}

#[tokio::test]
async fn nothing_is_lost_over_a_thousand_cuts() {
    at_the_mock_broker(ProtocolVersion::V5).await;
}

#[tokio::test]
async fn nothing_is_lost_over_a_thousand_cuts_before_mqtt_5() {
    at_the_mock_broker(ProtocolVersion::V311).await;
}

/// Needs the address of a broker in the environment, so that it is left out where there is none.
#[tokio::test]
async fn nothing_is_lost_at_a_broker_of_another_make() {
    let Ok(address) = std::env::var(OTHER_BROKER) else { return };
    let address: SocketAddr = address.parse().unwrap();
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        let prefix = format!("cuts-{}-{version:?}", std::process::id());
        nothing_is_lost(address, Plan { version, seed: 2, cuts: 300, prefix, exact: false }).await;
    }
}
