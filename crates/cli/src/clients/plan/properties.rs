//! `-D`: properties of MQTT 5, each given to the packet it is for.

use std::num::{NonZeroU16, NonZeroU32};

use crate::clients::flags::{FlagError, PropertyWritten};

/// Names and values, in their order; names may be there twice.
pub type UserProperties = Vec<(String, String)>;

/// All properties of a command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties {
    /// Of CONNECT.
    pub connect: ConnectProperties,
    /// Of PUBLISH.
    pub publish: MessageProperties,
    /// Of SUBSCRIBE.
    pub subscribe: SubscribeProperties,
    /// Of UNSUBSCRIBE: User Properties only.
    pub unsubscribe: UserProperties,
    /// Of DISCONNECT.
    pub disconnect: DisconnectProperties,
    /// Of the Will; None if none was given.
    pub will: Option<MessageProperties>,
}

/// Properties of CONNECT; absent has the standard's meaning. Session Expiry Interval is in the connection's plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub struct ConnectProperties {
    pub session_expiry_interval: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    pub maximum_packet_size: Option<NonZeroU32>,
    pub topic_alias_maximum: Option<u16>,
    pub request_response_information: Option<bool>,
    pub request_problem_information: Option<bool>,
    pub authentication_method: Option<String>,
    pub authentication_data: Option<Vec<u8>>,
    pub user_properties: UserProperties,
}

/// Properties of an Application Message or a Will.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub struct MessageProperties {
    pub payload_format_indicator: Option<bool>,
    pub message_expiry_interval: Option<u32>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Vec<u8>>,
    /// Of a PUBLISH only.
    pub topic_alias: Option<NonZeroU16>,
    /// Of a Will only.
    pub will_delay_interval: Option<u32>,
    pub user_properties: UserProperties,
}

/// Properties of SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub struct SubscribeProperties {
    /// 1..=268_435_455.
    pub subscription_identifier: Option<NonZeroU32>,
    pub user_properties: UserProperties,
}

/// Properties of DISCONNECT.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "the names are the standard's and say all")]
pub struct DisconnectProperties {
    pub session_expiry_interval: Option<u32>,
    pub reason_string: Option<String>,
    pub user_properties: UserProperties,
}

impl Properties {
    /// Checks and sorts what was written. Of a property written twice the last counts; User Properties add up.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn new(written: &[PropertyWritten]) -> Result<Self, FlagError> {
        let mut this = Self::default();
        for property in written {
            this.take(property).map_err(|why| FlagError::Property {
                command: property.command.clone(),
                name: property.name.clone(),
                why,
            })?;
        }
        Ok(this)
    }

    fn take(&mut self, property: &PropertyWritten) -> Result<(), &'static str> {
        let PropertyWritten { name, value, second, .. } = property;
        if [Some(value), second.as_ref()].into_iter().flatten().any(|text| text.len() > usize::from(u16::MAX)) {
            return Err("its value has at most 65535 bytes");
        }
        let command = property.command.to_ascii_lowercase();
        if let Some(second) = second {
            let pair = (value.clone(), second.clone());
            match command.as_str() {
                "connect" => self.connect.user_properties.push(pair),
                "publish" => self.publish.user_properties.push(pair),
                "subscribe" => self.subscribe.user_properties.push(pair),
                "unsubscribe" => self.unsubscribe.push(pair),
                "disconnect" => self.disconnect.user_properties.push(pair),
                "will" => self.will.get_or_insert_default().user_properties.push(pair),
                _ => return Err(wrong_command(&command)),
            }
            return Ok(());
        }
        match command.as_str() {
            "connect" => self.connect.take(name, value),
            "publish" => self.publish.take(name, value, false),
            "subscribe" => match name.as_str() {
                "subscription-identifier" => {
                    let identifier = NonZeroU32::new(number(value, 1, pantala_proto::VARIABLE_BYTE_INTEGER_MAX)?);
                    self.subscribe.subscription_identifier = identifier;
                    Ok(())
                }
                _ => Err("SUBSCRIBE has subscription-identifier and user-property"),
            },
            "unsubscribe" => Err("UNSUBSCRIBE has user-property"),
            "disconnect" => match name.as_str() {
                "session-expiry-interval" => {
                    self.disconnect.session_expiry_interval = Some(number(value, 0, u32::MAX)?);
                    Ok(())
                }
                "reason-string" => {
                    self.disconnect.reason_string = Some(value.clone());
                    Ok(())
                }
                _ => Err("DISCONNECT has reason-string, session-expiry-interval and user-property"),
            },
            "will" => self.will.get_or_insert_default().take(name, value, true),
            _ => Err(wrong_command(&command)),
        }
    }
}

impl ConnectProperties {
    fn take(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "session-expiry-interval" => self.session_expiry_interval = Some(number(value, 0, u32::MAX)?),
            "receive-maximum" => self.receive_maximum = NonZeroU16::new(small(value, 1)?),
            "maximum-packet-size" => self.maximum_packet_size = NonZeroU32::new(number(value, 1, u32::MAX)?),
            "topic-alias-maximum" => self.topic_alias_maximum = Some(small(value, 0)?),
            "request-response-information" => self.request_response_information = Some(flag(value)?),
            "request-problem-information" => self.request_problem_information = Some(flag(value)?),
            "authentication-method" => self.authentication_method = Some(value.to_owned()),
            "authentication-data" => self.authentication_data = Some(value.into()),
            _ => {
                return Err(
                    "CONNECT has authentication-data, authentication-method, maximum-packet-size, receive-maximum, \
                            request-problem-information, request-response-information, session-expiry-interval, \
                            topic-alias-maximum and user-property",
                );
            }
        }
        Ok(())
    }
}

impl MessageProperties {
    fn take(&mut self, name: &str, value: &str, is_will: bool) -> Result<(), &'static str> {
        match name {
            "payload-format-indicator" => self.payload_format_indicator = Some(flag(value)?),
            "message-expiry-interval" => self.message_expiry_interval = Some(number(value, 0, u32::MAX)?),
            "content-type" => self.content_type = Some(value.to_owned()),
            "response-topic" => {
                if !pantala_proto::valid_topic_name(value) {
                    return Err("a topic that is published to has no + and no #");
                }
                self.response_topic = Some(value.to_owned());
            }
            "correlation-data" => self.correlation_data = Some(value.into()),
            "topic-alias" if !is_will => self.topic_alias = NonZeroU16::new(small(value, 1)?),
            "will-delay-interval" if is_will => self.will_delay_interval = Some(number(value, 0, u32::MAX)?),
            _ if is_will => {
                return Err(
                    "a Will has content-type, correlation-data, message-expiry-interval, payload-format-indicator, \
                            response-topic, will-delay-interval and user-property",
                );
            }
            _ => {
                return Err("PUBLISH has content-type, correlation-data, message-expiry-interval, \
                            payload-format-indicator, response-topic, topic-alias and user-property");
            }
        }
        Ok(())
    }
}

fn wrong_command(command: &str) -> &'static str {
    match command {
        "auth" | "puback" | "pubrec" | "pubrel" | "pubcomp" => {
            "this program has no properties for such packets; known are connect, publish, subscribe, unsubscribe, \
             disconnect and will"
        }
        _ => "known are connect, publish, subscribe, unsubscribe, disconnect and will",
    }
}

fn number(value: &str, minimum: u32, maximum: u32) -> Result<u32, &'static str> {
    match value.parse() {
        Ok(number) if (minimum..=maximum).contains(&number) => Ok(number),
        _ if maximum == u32::MAX && minimum == 0 => Err("its value is a number, 0 to 4294967295"),
        _ if maximum == u32::MAX => Err("its value is a number, 1 to 4294967295"),
        _ => Err("its value is a number, 1 to 268435455"),
    }
}

fn small(value: &str, minimum: u16) -> Result<u16, &'static str> {
    match value.parse() {
        Ok(number) if number >= minimum => Ok(number),
        _ if minimum == 0 => Err("its value is a number, 0 to 65535"),
        _ => Err("its value is a number, 1 to 65535"),
    }
}

fn flag(value: &str) -> Result<bool, &'static str> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("its value is 0 or 1"),
    }
}
