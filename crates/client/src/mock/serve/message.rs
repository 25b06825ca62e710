//! Application Messages as the serving broker keeps them.

use bytes::Bytes;
use pantala_proto::{ForwardProperties, Property, Publish, PublishProperties, QoS, Will};

/// An Application Message. Cloning copies no payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic Name.
    pub topic_name: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// As [`ForwardProperties::bytes`] gives them: without a Topic Alias.
    properties: Bytes,
}

impl Message {
    /// A message of QoS 0, not retained, without properties.
    pub fn new(topic_name: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        let (topic_name, payload) = (topic_name.into(), payload.into());
        Self { topic_name, payload, qos: QoS::AtMostOnce, retain: false, properties: Bytes::new() }
    }

    /// The same with this QoS.
    #[must_use]
    pub fn with_qos(self, qos: QoS) -> Self {
        Self { qos, ..self }
    }

    /// The same, to be retained.
    #[must_use]
    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    /// The same with these properties.
    ///
    /// # Panics
    /// If they cannot stand in a PUBLISH to a client, or if one is a Topic Alias.
    #[must_use]
    pub fn with_properties(self, properties: &[Property<'_>]) -> Self {
        let mut bytes = Vec::new();
        properties.iter().for_each(|property| property.encode(&mut bytes));
        let checked = PublishProperties::new(&bytes).expect("properties of a PUBLISH");
        assert_eq!(checked.topic_alias, None, "a message has no Topic Alias, only its packet has");
        Self { properties: bytes.into(), ..self }
    }

    /// Its properties, without the Topic Alias it came with.
    pub fn properties(&self) -> PublishProperties<'_> {
        PublishProperties::new(&self.properties).expect("they were decoded when they came")
    }

    pub(super) fn of_publish(publish: &Publish<'_>, topic_name: &str) -> Self {
        Self {
            topic_name: topic_name.to_owned(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.delivery.qos(),
            retain: publish.retain,
            properties: publish.properties.forward().bytes().collect(),
        }
    }

    pub(super) fn of_will(will: &Will<'_>) -> Self {
        Self {
            topic_name: will.topic_name.to_owned(),
            payload: Bytes::copy_from_slice(will.payload),
            qos: will.qos,
            retain: will.retain,
            properties: will.properties.forward().bytes().collect(),
        }
    }

    pub(super) fn forward(&self) -> ForwardProperties<'_> {
        // Message Expiry is left out, so nobody has to know where it stands.
        ForwardProperties::from_parts(&self.properties, None)
    }
}
