//! What MQTT 3.1.1 and 5.0 both demand, under two numbers: written once, spoken in the version of the case.

pub mod connect;
pub mod framing;
pub mod qos;
pub mod retained;
pub mod session;
pub mod strings;
pub mod subscribe;
pub mod topics;
pub mod will;

use crate::peer::{Outcome, Stop};

/// Says which of several similar steps failed.
pub fn label<T>(what: &str, outcome: Outcome<T>) -> Outcome<T> {
    outcome.map_err(|stop| match stop {
        Stop::Fail(why) => Stop::Fail(format!("{what}: {why}")),
        skip => skip,
    })
}
