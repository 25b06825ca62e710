//! The client library at the program, over a link that cuts connections at random bytes.

#[path = "../../../client/tests/cuts/exchange.rs"]
mod exchange;

use pantala_client::ProtocolVersion;

use self::exchange::{Plan, nothing_is_lost};
use crate::process::Broker;

fn run(version: ProtocolVersion, workers: u8) {
    let broker = Broker::start(&format!("[broker]\nworkers = {workers}\n"));
    let address = broker.address();
    let plan = Plan { version, seed: 3, cuts: 1_000, prefix: "cuts".to_owned(), exact: true };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(nothing_is_lost(address, plan));
}

#[test]
fn a_client_that_is_cut_a_thousand_times_loses_nothing() {
    run(ProtocolVersion::V5, 2);
}

#[test]
fn a_client_that_is_cut_a_thousand_times_loses_nothing_before_mqtt_5() {
    run(ProtocolVersion::V311, 1);
}
