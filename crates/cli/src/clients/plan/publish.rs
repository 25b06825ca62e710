//! What `pub` does.

use std::path::PathBuf;
use std::time::Duration;

use pantala_proto::QoS;

use super::connection::bytes_of;
use super::{Connection, MessageProperties, Properties, checked_topic_name};
use crate::clients::flags::{FlagError, PayloadWritten, Program, Stage, Surroundings, Written};

/// What `pub` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishPlan {
    /// How to connect.
    pub connection: Connection,
    /// Topic Names; each message goes to all. Empty only with [`PayloadSource::StdinJson`], whose lines have their own.
    pub topic_names: Vec<String>,
    /// Where payloads come from.
    pub payload: PayloadSource,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Properties of each message; empty before MQTT 5.
    pub properties: MessageProperties,
    /// How often it is published, from 1 on; 1 if payloads come line by line.
    pub repeat: u32,
    /// The wait between two of `repeat`.
    pub repeat_delay: Duration,
}

/// Where payloads come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadSource {
    /// This is one.
    Given(Vec<u8>),
    /// A file is one.
    File(PathBuf),
    /// Standard input is one.
    Stdin,
    /// Each line of standard input is one.
    StdinLines,
    /// Each line of standard input is a message in JSON.
    StdinJson,
}

impl PublishPlan {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first contradiction or gap.
    pub fn new(written: &Written, surroundings: &Surroundings<'_>) -> Result<Self, FlagError> {
        let properties = Properties::new(&written.properties)?;
        let payload = payload(written, surroundings)?
            .ok_or(FlagError::Missing { flag: "-m", why: "there is nothing to publish; give -m, -f, -n, -s or -l" })?;
        let topic_names = topic_names(written)?;
        if topic_names.is_empty() && payload != PayloadSource::StdinJson {
            return Err(FlagError::Missing { flag: "-t", why: "there is no topic to publish to" });
        }
        if properties.publish.topic_alias.is_some() && topic_names.len() > 1 {
            let why = "an alias stands for one topic";
            return Err(FlagError::Conflict { one: "-D publish topic-alias", other: "-t", why });
        }
        // As with Mosquitto, --repeat has no meaning where messages come line by line.
        let is_single = !matches!(payload, PayloadSource::StdinLines | PayloadSource::StdinJson);
        Ok(Self {
            connection: Connection::new(Program::Publish, written, &properties, surroundings)?,
            topic_names,
            payload,
            qos: written.qos.unwrap_or_default(),
            retain: written.retain,
            properties: properties.publish,
            repeat: written.repeat.filter(|_| is_single).unwrap_or(1),
            repeat_delay: written.repeat_delay.unwrap_or_default(),
        })
    }
}

/// The Topic Names of `-t`. Those of the command line take the place of those of a file.
pub(super) fn topic_names(written: &Written) -> Result<Vec<String>, FlagError> {
    let of = |stage| written.topics.iter().filter(move |(at, _)| *at == stage).map(|(_, topic)| topic.clone());
    let mut topics: Vec<String> = of(Stage::CommandLine).collect();
    if topics.is_empty() {
        topics.extend(of(Stage::File));
    }
    topics.into_iter().map(|topic| checked_topic_name("-t", topic)).collect()
}

/// The one source of payload; None if there is none.
pub(super) fn payload(written: &Written, surroundings: &Surroundings<'_>) -> Result<Option<PayloadSource>, FlagError> {
    if let [first, second, ..] = &written.payloads[..] {
        let why = "a message has one payload";
        return Err(FlagError::Conflict { one: flag_of(first), other: flag_of(second), why });
    }
    Ok(match written.payloads.first() {
        None => None,
        Some(PayloadWritten::Given(payload)) => Some(PayloadSource::Given(bytes_of(payload))),
        Some(PayloadWritten::Variable(name)) => match (surroundings.variable)(name) {
            Some(payload) => Some(PayloadSource::Given(bytes_of(&payload))),
            None => {
                let why = "there is no such variable".to_owned();
                return Err(FlagError::Unreadable { flag: "--payload-env", source_name: name.clone(), why });
            }
        },
        Some(PayloadWritten::File(path)) => Some(PayloadSource::File(path.clone())),
        Some(PayloadWritten::Null) => Some(PayloadSource::Given(Vec::new())),
        Some(PayloadWritten::Stdin) => Some(PayloadSource::Stdin),
        Some(PayloadWritten::StdinLines) => Some(PayloadSource::StdinLines),
        Some(PayloadWritten::StdinJson) => Some(PayloadSource::StdinJson),
    })
}

fn flag_of(payload: &PayloadWritten) -> &'static str {
    match payload {
        PayloadWritten::Given(_) => "-m",
        PayloadWritten::Variable(_) => "--payload-env",
        PayloadWritten::File(_) => "-f",
        PayloadWritten::Null => "-n",
        PayloadWritten::Stdin => "-s",
        PayloadWritten::StdinLines => "-l",
        PayloadWritten::StdinJson => "--json",
    }
}
