//! Application Messages: those to publish and those that came.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pantala_proto::{Property, PublishProperties, QoS, valid_topic_name};

/// The longest string that MQTT can carry: a Topic Name, a Content Type, a key or value of a User Property. Bytes.
pub const STRING_BYTES_MAX: usize = 65_535;

/// An Application Message to publish. Cheap to clone: topic and payload are shared.
///
/// ```
/// use pantala_client::{Message, QoS};
///
/// let message = Message::new("home/kitchen/temperature", "21.5").qos(QoS::AtLeastOnce).retain();
/// assert_eq!(message.topic_name(), "home/kitchen/temperature");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub(crate) topic_name: Arc<str>,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: Properties,
}

impl Message {
    /// A message at QoS 0, not retained. Whether the Topic Name is one is looked at when it is published.
    pub fn new(topic_name: impl Into<Arc<str>>, payload: impl Into<Bytes>) -> Self {
        Self {
            topic_name: topic_name.into(),
            payload: payload.into(),
            qos: QoS::AtMostOnce,
            retain: false,
            properties: Properties::default(),
        }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Arc::<str>::default(), Bytes::new())
    }

    /// The level of delivery. Default: QoS 0.
    #[must_use]
    pub fn qos(mut self, qos: QoS) -> Self {
        self.qos = qos;
        self
    }

    /// The broker keeps it for subscribers to come, in place of what it kept for the topic; an empty payload removes that.
    #[must_use]
    pub fn retain(mut self) -> Self {
        self.retain = true;
        self
    }

    /// The broker drops it for subscribers it has not reached in this time. Whole seconds, rounded up; the time it waits here
    /// counts too. Default: it never expires. MQTT 5.
    #[must_use]
    pub fn message_expiry_interval(mut self, interval: Duration) -> Self {
        let seconds = interval.as_secs() + u64::from(interval.subsec_nanos() > 0);
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.properties.set(Property::MessageExpiryInterval(seconds));
        self
    }

    /// Says that the payload is UTF-8; the broker may check it. MQTT 5.
    #[must_use]
    pub fn payload_is_utf8(mut self) -> Self {
        self.properties.set(Property::PayloadFormatIndicator(true));
        self
    }

    /// What kind of thing the payload is, often a MIME type. MQTT 5.
    #[must_use]
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.properties.set(Property::ContentType(content_type));
        self
    }

    /// Where an answer is expected: a Topic Name. MQTT 5.
    #[must_use]
    pub fn response_topic(mut self, topic_name: &str) -> Self {
        self.properties.set(Property::ResponseTopic(topic_name));
        self
    }

    /// What the answer has to repeat, so that it can be told from others. MQTT 5.
    #[must_use]
    pub fn correlation_data(mut self, data: &[u8]) -> Self {
        self.properties.set(Property::CorrelationData(data));
        self
    }

    /// Has this Topic Alias stand for the Topic Name: the first such message of a connection carries both, those after it the
    /// alias alone. In place of those that [`SessionSettings::sent_topic_aliases`](crate::machine::SessionSettings::sent_topic_aliases)
    /// gives out. A message whose alias is above the broker's Topic Alias Maximum is not sent. MQTT 5.
    #[must_use]
    pub fn topic_alias(mut self, alias: NonZeroU16) -> Self {
        self.properties.set(Property::TopicAlias(alias));
        self
    }

    /// Adds a pair for the application; there may be several, also with the same key. MQTT 5.
    #[must_use]
    pub fn user_property(mut self, key: &str, value: &str) -> Self {
        self.properties.add(Property::UserProperty(key, value));
        self
    }

    /// Its Topic Name.
    pub fn topic_name(&self) -> &str {
        &self.topic_name
    }

    /// Its payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Its properties.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }
}

/// The properties of a message, in the order they have on the wire. None before MQTT 5.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties {
    /// Most messages have none.
    some: Option<Arc<Section>>,
}

#[derive(Clone, PartialEq, Eq, Default)]
struct Section {
    /// As they stand in the packet; checked when they came, or built here. Not empty.
    bytes: Vec<u8>,
    /// One of them is longer than the wire can say.
    too_long: bool,
    /// A text holds U+0000, or the Response Topic is not a Topic Name.
    malformed: bool,
}

impl Properties {
    pub(crate) fn of_section(bytes: &[u8]) -> Self {
        let section = || Arc::new(Section { bytes: bytes.to_vec(), ..Section::default() });
        Self { some: (!bytes.is_empty()).then(section) }
    }

    /// As they stand in the packet, without their length; for [`PublishProperties::new`](pantala_proto::PublishProperties::new).
    #[inline]
    pub fn section(&self) -> &[u8] {
        self.some.as_ref().map_or(&[], |section| &section.bytes)
    }

    /// Whether each string and Correlation Data have the length that MQTT allows.
    pub(crate) fn fit(&self) -> bool {
        self.some.as_ref().is_none_or(|section| !section.too_long)
    }

    /// Whether each of them may be sent (v5 MQTT-1.5.4-2, MQTT-3.3.2-14).
    pub(crate) fn well_formed(&self) -> bool {
        self.some.as_ref().is_none_or(|section| !section.malformed)
    }

    /// Whether both are one, or there is none.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.some, &other.some) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.some.is_none()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Property<'_>> {
        PublishProperties::new(self.section()).unwrap_or_default().iter()
    }

    /// Seconds that were left of the message's life when the broker sent it on.
    pub fn message_expiry_interval(&self) -> Option<u32> {
        self.iter().find_map(|property| match property {
            Property::MessageExpiryInterval(seconds) => Some(seconds),
            _ => None,
        })
    }

    /// Whether the payload is said to be UTF-8.
    pub fn payload_is_utf8(&self) -> bool {
        self.iter().any(|property| property == Property::PayloadFormatIndicator(true))
    }

    /// What kind of thing the payload is.
    pub fn content_type(&self) -> Option<&str> {
        self.iter().find_map(|property| match property {
            Property::ContentType(text) => Some(text),
            _ => None,
        })
    }

    /// Where an answer is expected.
    pub fn response_topic(&self) -> Option<&str> {
        self.iter().find_map(|property| match property {
            Property::ResponseTopic(text) => Some(text),
            _ => None,
        })
    }

    /// What the answer has to repeat.
    pub fn correlation_data(&self) -> Option<&[u8]> {
        self.iter().find_map(|property| match property {
            Property::CorrelationData(data) => Some(data),
            _ => None,
        })
    }

    /// Pairs for the application, in order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().filter_map(|property| match property {
            Property::UserProperty(key, value) => Some((key, value)),
            _ => None,
        })
    }

    /// The identifiers of the subscriptions that the message came for.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = NonZeroU32> {
        self.iter().filter_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        })
    }

    /// Puts `property` in place of one of its kind.
    fn set(&mut self, property: Property<'_>) {
        let mut kept = Vec::with_capacity(self.section().len());
        self.iter().filter(|old| old.identifier() != property.identifier()).for_each(|old| old.encode(&mut kept));
        self.own().bytes = kept;
        self.add(property);
    }

    fn add(&mut self, property: Property<'_>) {
        let longest = match property {
            Property::ContentType(text) | Property::ResponseTopic(text) => text.len(),
            Property::CorrelationData(data) => data.len(),
            Property::UserProperty(key, value) => key.len().max(value.len()),
            _ => 0,
        };
        let section = self.own();
        section.too_long |= longest > STRING_BYTES_MAX;
        section.malformed |= match property {
            Property::ContentType(text) => text.contains('\0'),
            Property::ResponseTopic(text) => !valid_topic_name(text),
            Property::UserProperty(key, value) => key.contains('\0') || value.contains('\0'),
            _ => false,
        };
        property.encode(&mut section.bytes);
    }

    /// The section, for nobody else.
    fn own(&mut self) -> &mut Section {
        Arc::make_mut(self.some.get_or_insert_default())
    }
}

impl std::fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

/// Whether it is a string that MQTT can carry (v5 MQTT-1.5.4-2).
pub(crate) fn is_text(text: &str) -> bool {
    text.len() <= STRING_BYTES_MAX && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_takes_the_place_of_one_of_its_kind() {
        let message = Message::new("a", "")
            .content_type("text/plain")
            .user_property("k", "1")
            .message_expiry_interval(Duration::from_millis(1_500))
            .content_type("image/png")
            .user_property("k", "2");
        let properties = message.properties();
        assert_eq!(properties.content_type(), Some("image/png"));
        assert_eq!(properties.message_expiry_interval(), Some(2));
        assert_eq!(properties.user_properties().collect::<Vec<_>>(), [("k", "1"), ("k", "2")]);
        assert_eq!(properties.iter().count(), 4);
        assert!(properties.fit());
    }

    #[test]
    fn what_the_wire_cannot_say_is_noticed() {
        let long = "x".repeat(STRING_BYTES_MAX + 1);
        assert!(!Message::new("a", "").user_property("k", &long).properties().fit());
    }
}
