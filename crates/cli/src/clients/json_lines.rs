//! Messages to publish, as lines of JSON: what `sub --json` prints, or less.
//!
//! ```text
//! {"topic":"kitchen/light","payload":"on","qos":1,"retain":1,"properties":{"content-type":"text/plain"}}
//! {"payload":{"on":true}}
//! ```

use std::fmt;
use std::num::NonZeroU16;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pantala_proto::{QoS, valid_topic_name};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use super::plan::{MessageProperties, UserProperties};

/// A message of a line. What the line leaves out is None, and taken from the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonMessage {
    /// Topic Name.
    pub topic_name: Option<String>,
    /// Payload; empty if the line has none.
    pub payload: Vec<u8>,
    /// QoS.
    pub qos: Option<QoS>,
    /// RETAIN.
    pub retain: Option<bool>,
    /// Properties; of a line without, those of the plan.
    pub properties: Option<MessageProperties>,
}

/// A line that is no message.
#[derive(Debug, thiserror::Error)]
pub enum JsonLineError {
    /// It is not JSON, or a member has a wrong kind of value.
    #[error("not a message in JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The topic cannot be published to.
    #[error("`topic` and `response-topic` have no + and no #, and at least one character")]
    Topic,
    /// A string that no packet can hold.
    #[error("a string has a zero byte or more than 65535 bytes")]
    String,
    /// Two payloads.
    #[error("`payload` and `payload-base64` are both there")]
    TwoPayloads,
}

impl JsonMessage {
    /// Reads a line. Members that it does not know, such as `tst`, are passed over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(line: &[u8]) -> Result<Self, JsonLineError> {
        let line: Line = serde_json::from_slice(line)?;
        line.check_strings()?;
        let payload = match (line.payload, line.payload_base64) {
            (Some(_), Some(_)) => return Err(JsonLineError::TwoPayloads),
            (None, Some(Binary(bytes))) => bytes,
            (None | Some(Value::Null), None) => Vec::new(),
            (Some(Value::String(text)), None) => text.into(),
            (Some(other), None) => serde_json::to_vec(&other)?,
        };
        Ok(Self {
            topic_name: line.topic,
            payload,
            qos: line.qos.map(|Bounded(qos)| QoS::from_bits(qos).unwrap_or_default()),
            retain: line.retain.map(|Flag(retain)| retain),
            properties: line.properties.map(|properties| MessageProperties {
                payload_format_indicator: properties.payload_format_indicator.map(|Flag(flag)| flag),
                message_expiry_interval: properties.message_expiry_interval,
                content_type: properties.content_type,
                response_topic: properties.response_topic,
                correlation_data: match (properties.correlation_data, properties.correlation_data_base64) {
                    (_, Some(Binary(bytes))) => Some(bytes),
                    (text, None) => text.map(String::into_bytes),
                },
                topic_alias: None::<NonZeroU16>,
                will_delay_interval: None,
                user_properties: properties.user_properties.0,
            }),
        })
    }
}

#[derive(serde::Deserialize)]
struct Line {
    topic: Option<String>,
    #[serde(default)]
    payload: Option<Value>,
    #[serde(rename = "payload-base64")]
    payload_base64: Option<Binary>,
    qos: Option<Bounded>,
    retain: Option<Flag>,
    properties: Option<Properties>,
}

impl Line {
    fn check_strings(&self) -> Result<(), JsonLineError> {
        let properties = self.properties.as_ref();
        let response_topic = properties.and_then(|properties| properties.response_topic.as_ref());
        if self.topic.iter().chain(response_topic).any(|topic| !valid_topic_name(topic)) {
            return Err(JsonLineError::Topic);
        }
        let pairs = properties.map(|properties| &properties.user_properties.0[..]).unwrap_or_default();
        let strings = pairs.iter().flat_map(|(name, value)| [name, value]);
        let content_type = properties.and_then(|properties| properties.content_type.as_ref());
        let mut strings = strings.chain(content_type).chain(&self.topic).chain(response_topic);
        if strings.any(|text| text.contains('\0') || text.len() > usize::from(u16::MAX)) {
            return Err(JsonLineError::String);
        }
        Ok(())
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Properties {
    payload_format_indicator: Option<Flag>,
    message_expiry_interval: Option<u32>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data: Option<String>,
    #[serde(rename = "correlation-data-base64")]
    correlation_data_base64: Option<Binary>,
    #[serde(default)]
    user_properties: Pairs,
}

/// 0, 1 or 2.
struct Bounded(u8);

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            qos @ 0..=2 => Ok(Self(qos)),
            _ => Err(D::Error::custom("`qos` is 0, 1 or 2")),
        }
    }
}

/// A truth value, as JSON has it or as 0 and 1, which is how Mosquitto writes it.
struct Flag(bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(flag) => Ok(Self(flag)),
            Value::Number(number) if number.as_u64() == Some(0) => Ok(Self(false)),
            Value::Number(number) if number.as_u64() == Some(1) => Ok(Self(true)),
            _ => Err(D::Error::custom("expected true, false, 0 or 1")),
        }
    }
}

/// Bytes in Base64.
struct Binary(Vec<u8>);

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("expected Base64"))
    }
}

/// An object whose order counts, and whose names may be there twice.
#[derive(Default)]
struct Pairs(UserProperties);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs, M::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_what_it_has() {
        let message = JsonMessage::parse(
            br#"{"tst":"2026","topic":"a/b","qos":1,"retain":1,"payloadlen":2,"mid":5,"properties":{"content-type":"x",
                "user-properties":{"b":"1","a":"2","b":"3"},"correlation-data-base64":"AP8=","payload-format-indicator":1},
                "payload":"on"}"#,
        )
        .expect("it is a message");
        assert_eq!(message.topic_name.as_deref(), Some("a/b"));
        assert_eq!((message.qos, message.retain), (Some(QoS::AtLeastOnce), Some(true)));
        assert_eq!(message.payload, b"on");
        let properties = message.properties.expect("it has some");
        assert_eq!(properties.correlation_data.as_deref(), Some(&[0, 0xff][..]));
        assert_eq!(properties.payload_format_indicator, Some(true));
        let pairs: Vec<_> = properties.user_properties.iter().map(|(name, value)| format!("{name}{value}")).collect();
        assert_eq!(pairs, ["b1", "a2", "b3"]);
    }

    #[test]
    fn payloads_have_several_forms() {
        for (line, payload) in [
            (r#"{}"#, &b""[..]),
            (r#"{"payload":null}"#, b""),
            (r#"{"payload":"\u0000\n"}"#, b"\0\n"),
            (r#"{"payload":{"a":[1,true]}}"#, br#"{"a":[1,true]}"#),
            (r#"{"payload":5}"#, b"5"),
            (r#"{"payload-base64":"/wA="}"#, b"\xff\0"),
        ] {
            let message = JsonMessage::parse(line.as_bytes()).expect(line);
            assert_eq!(message.payload, payload, "{line}");
            assert_eq!((message.topic_name, message.qos, message.retain), (None, None, None));
        }
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "",
            "5",
            "{",
            r#"{"qos":3}"#,
            r#"{"retain":2}"#,
            r#"{"topic":"a/#"}"#,
            r#"{"topic":""}"#,
            r#"{"topic":5}"#,
            r#"{"topic":"a\u0000"}"#,
            r#"{"properties":{"response-topic":"+"}}"#,
            r#"{"properties":{"content-type":"\u0000"}}"#,
            r#"{"properties":{"user-properties":{"\u0000":""}}}"#,
            r#"{"payload":"a","payload-base64":"AA=="}"#,
            r#"{"payload-base64":"!"}"#,
        ] {
            assert!(JsonMessage::parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
