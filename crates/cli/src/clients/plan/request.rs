//! What `rr` does.

use std::time::Duration;

use pantala_proto::{QoS, RetainHandling};

use super::publish::{payload, topic_names};
use super::subscribe::retained;
use super::{
    Connection, MessageProperties, Output, PayloadSource, Properties, SubscribeProperties, checked_topic_name,
};
use crate::clients::decision::Wanted;
use crate::clients::flags::{FlagError, Program, Surroundings, Written};

/// What `rr` does.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestPlan {
    /// How to connect.
    pub connection: Connection,
    /// Topic Name of the request.
    pub topic_name: String,
    /// Topic Name of the response: subscribed to, and in MQTT 5 sent as Response Topic, also in `properties`.
    pub response_topic: String,
    /// The request's payload; never line by line.
    pub payload: PayloadSource,
    /// QoS of the request and of the subscription.
    pub qos: QoS,
    /// Properties of the request; empty before MQTT 5.
    pub properties: MessageProperties,
    /// Properties of SUBSCRIBE; empty before MQTT 5.
    pub subscribe_properties: SubscribeProperties,
    /// Retain As Published; false before MQTT 5.
    pub retain_as_published: bool,
    /// Retain Handling; `Send` before MQTT 5.
    pub retain_handling: RetainHandling,
    /// Which message is the response: the first that is to be printed.
    pub wanted: Wanted,
    /// Give up after this time, with status 27.
    pub timeout: Option<Duration>,
    /// What is printed of the response.
    pub output: Output,
    /// Print the time from request to response.
    pub latency: bool,
}

impl RequestPlan {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first contradiction or gap.
    pub fn new(written: &Written, surroundings: &Surroundings<'_>) -> Result<Self, FlagError> {
        let mut properties = Properties::new(&written.properties)?;
        // The last one: several are of no use here.
        let topic_name = topic_names(written)?
            .pop()
            .ok_or(FlagError::Missing { flag: "-t", why: "there is no topic to send the request to" })?;
        let response_topic = written
            .response_topic
            .clone()
            .ok_or(FlagError::Missing { flag: "-e", why: "there is no topic to wait for the response on" })?;
        let response_topic = checked_topic_name("-e", response_topic)?;
        let payload = payload(written, surroundings)?
            .ok_or(FlagError::Missing { flag: "-m", why: "the request is empty; give -m, -f, -n or -s" })?;
        let connection = Connection::new(Program::Request, written, &properties, surroundings)?;
        let is_v5 = connection.version.is_v5();
        if properties.publish.response_topic.is_some() {
            let why = "-e is the Response Topic";
            return Err(FlagError::Conflict { one: "-e", other: "-D publish response-topic", why });
        }
        properties.publish.response_topic = is_v5.then(|| response_topic.clone());
        Ok(Self {
            topic_name,
            response_topic,
            payload,
            qos: written.qos.unwrap_or_default(),
            properties: properties.publish,
            subscribe_properties: properties.subscribe,
            retain_as_published: written.retain_as_published && is_v5,
            retain_handling: written.retain_handling.filter(|_| is_v5).unwrap_or_default(),
            wanted: Wanted { retained: retained(written)?, count: Some(1), ..Wanted::default() },
            timeout: written.timeout,
            output: Output::new(written)?,
            latency: written.latency,
            connection,
        })
    }
}
