//! The figures, each with what is done, its unit and the aim.

use crate::features::{Features, Setup, Transport, Version};
use crate::load::{Plan, Shape};

/// Payload of every message, in bytes.
pub const PAYLOAD_BYTES: usize = 64;

/// Connections opened and kept before memory is first read, so that what is built once is built.
pub const IDLE_WARM_UP: u32 = 500;

/// Connections the memory is shared among.
pub const IDLE_COUNTED: u32 = 5_000;

/// Connections opened for the price of a connect.
pub const CONNECTS: u32 = 5_000;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// Instructions in user mode per message, by callgrind.
    Instructions {
        /// The load.
        plan: Plan,
        /// What clients and broker have beside it, if it is not the broker as for all other figures.
        beside: Option<(Features, Setup)>,
        /// Messages of the shorter of the two runs.
        messages: u64,
    },
    /// CPU time of Pantala per message delivered, by that of another one without what is beside the load: the two take turns.
    CpuBesidePlain {
        /// The load.
        plan: Plan,
        /// What clients do.
        features: Features,
        /// What the broker has in its configuration.
        setup: Setup,
    },
    /// Bytes of anonymous memory per connection that does nothing.
    IdleBytes {
        /// With one subscription of its own and a Will Message of 32 bytes.
        subscription_and_will: bool,
        /// What it is over.
        transport: Transport,
    },
    /// CPU time of the broker per message delivered, as fast as it goes.
    CpuPerDelivery {
        /// The load.
        plan: Plan,
    },
    /// CPU time of the broker per connection opened, its handshakes included.
    CpuPerConnect {
        /// What it is over.
        transport: Transport,
    },
}

/// What Pantala wants to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// At most this, in the figure's unit.
    AtMost(f64),
    /// At most this part of what mosquitto takes in the same run.
    PartOfMosquitto(f64),
    /// None: the figure explains another one.
    Nothing,
}

impl Aim {
    /// The limit in the figure's unit; `None` when mosquitto was not measured.
    pub fn limit(self, mosquitto: Option<f64>) -> Option<f64> {
        match self {
            Self::AtMost(limit) => Some(limit),
            Self::PartOfMosquitto(part) => mosquitto.map(|value| value * part),
            Self::Nothing => None,
        }
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Short name, for `--only` and for result files.
    pub id: &'static str,
    /// What it is, in words.
    pub title: &'static str,
    /// Unit of the value.
    pub unit: &'static str,
    /// How it is taken.
    pub measure: Measure,
    /// What is wanted.
    pub aim: Aim,
}

impl Figure {
    /// Finds a figure by its id.
    pub fn find(id: &str) -> Option<&'static Self> {
        FIGURES.iter().find(|figure| figure.id.eq_ignore_ascii_case(id))
    }

    /// Whether Mosquitto is left out.
    pub fn is_for_pantala_alone(&self) -> bool {
        match self.measure {
            Measure::CpuBesidePlain { .. } | Measure::Instructions { beside: Some(_), .. } => true,
            Measure::IdleBytes { transport, .. } | Measure::CpuPerConnect { transport } => {
                transport != Transport::Plain
            }
            Measure::Instructions { beside: None, .. } | Measure::CpuPerDelivery { .. } => false,
        }
    }

    /// What the connections are over, where they are measured alone.
    pub fn transport(&self) -> Transport {
        match self.measure {
            Measure::IdleBytes { transport, .. } | Measure::CpuPerConnect { transport } => transport,
            _ => Transport::Plain,
        }
    }

    /// Its load, if it has one.
    pub fn plan(&self) -> Option<&Plan> {
        match &self.measure {
            Measure::Instructions { plan, .. } | Measure::CpuPerDelivery { plan } => Some(plan),
            // Without what is beside it, it would be another load.
            Measure::CpuBesidePlain { .. } | Measure::IdleBytes { .. } | Measure::CpuPerConnect { .. } => None,
        }
    }
}

const fn plan(shape: Shape, qos: u8, window: u32, per_write: u32) -> Plan {
    Plan { shape, qos, payload_bytes: PAYLOAD_BYTES, window, per_write }
}

/// What a feature costs: R2's load with it, by the same without.
const fn cost(id: &'static str, title: &'static str, features: Features, setup: Setup, at_most: f64) -> Figure {
    let measure = Measure::CpuBesidePlain { plan: plan(Shape::Pairs(100), 0, 1, 1), features, setup };
    Figure { id, title, unit: "× R2", measure, aim: Aim::AtMost(at_most) }
}

/// The same in instructions, beside I1.
const fn instructions(id: &'static str, title: &'static str, features: Features, setup: Setup) -> Figure {
    let measure = Measure::Instructions {
        plan: plan(Shape::Pairs(1), 0, 1, 1),
        beside: Some((features, setup)),
        messages: 5_000,
    };
    Figure { id, title, unit: "instructions/message", measure, aim: Aim::Nothing }
}

/// Nothing beside plain MQTT 5.0.
const PLAIN: Features = Features {
    version: Version::V5,
    transport: Transport::Plain,
    user_properties: 0,
    alias_in: false,
    alias_out: false,
    subscription_identifier: false,
    no_local: false,
};
const OPEN: Setup = Setup { rules: 0, tells: false };
const V311: Features = Features { version: Version::V311, ..PLAIN };
const PROPERTIES: Features = Features { user_properties: 5, ..PLAIN };
const ALIAS_IN: Features = Features { alias_in: true, ..PLAIN };
const ALIAS_OUT: Features = Features { alias_out: true, ..PLAIN };
const IDENTIFIER: Features = Features { subscription_identifier: true, ..PLAIN };
const NO_LOCAL: Features = Features { no_local: true, ..PLAIN };
const TLS: Features = Features { transport: Transport::Tls, ..PLAIN };
const WEBSOCKET: Features = Features { transport: Transport::WebSocket, ..PLAIN };
const RULES: Setup = Setup { rules: 1_000, ..OPEN };
const TELLS: Setup = Setup { tells: true, ..OPEN };

/// All figures, in the order they are taken: the most robust first.
pub const FIGURES: &[Figure] = &[
    Figure {
        id: "I1",
        title: "user instructions, QoS 0, one message at a time",
        unit: "instructions/message",
        measure: Measure::Instructions { plan: plan(Shape::Pairs(1), 0, 1, 1), beside: None, messages: 5_000 },
        aim: Aim::AtMost(900.0),
    },
    Figure {
        id: "I50",
        title: "user instructions, QoS 0, 50 messages per write",
        unit: "instructions/message",
        measure: Measure::Instructions { plan: plan(Shape::Pairs(1), 0, 50, 50), beside: None, messages: 20_000 },
        aim: Aim::AtMost(350.0),
    },
    Figure {
        id: "C1",
        title: "user memory, idle connection",
        unit: "bytes/connection",
        measure: Measure::IdleBytes { subscription_and_will: false, transport: Transport::Plain },
        aim: Aim::AtMost(512.0),
    },
    Figure {
        id: "C2",
        title: "user memory, idle connection with a subscription and a will",
        unit: "bytes/connection",
        measure: Measure::IdleBytes { subscription_and_will: true, transport: Transport::Plain },
        aim: Aim::AtMost(800.0),
    },
    Figure {
        id: "C3",
        title: "user memory, idle connection over TLS 1.3",
        unit: "bytes/connection",
        measure: Measure::IdleBytes { subscription_and_will: false, transport: Transport::Tls },
        aim: Aim::AtMost(4096.0),
    },
    Figure {
        id: "C4",
        title: "connect, 64 at a time",
        unit: "CPU µs/connect",
        measure: Measure::CpuPerConnect { transport: Transport::Plain },
        aim: Aim::AtMost(30.0),
    },
    Figure {
        id: "C5-full",
        title: "connect over TLS 1.3 with a full handshake, ECDSA P-256",
        unit: "CPU µs/connect",
        // 5 000 a second and core.
        measure: Measure::CpuPerConnect { transport: Transport::Tls },
        aim: Aim::AtMost(1e6 / 5_000.0),
    },
    Figure {
        id: "C5-resumed",
        title: "connect over TLS 1.3 that resumes a session",
        unit: "CPU µs/connect",
        // 9 000 a second and core.
        measure: Measure::CpuPerConnect { transport: Transport::TlsResumed },
        aim: Aim::AtMost(1e6 / 9_000.0),
    },
    Figure {
        id: "R2",
        title: "100 pairs, QoS 0, one message per write and read",
        unit: "CPU µs/message",
        measure: Measure::CpuPerDelivery { plan: plan(Shape::Pairs(100), 0, 1, 1) },
        aim: Aim::AtMost(6.0),
    },
    cost("R13-v3", "R2 with MQTT 3.1.1", V311, OPEN, 1.15),
    cost("R13-properties", "R2 with five User Properties", PROPERTIES, OPEN, 1.15),
    cost("R13-alias-in", "R2 with Topic Aliases of the publishers", ALIAS_IN, OPEN, 1.15),
    cost("R13-alias-out", "R2 with Topic Aliases of the broker", ALIAS_OUT, OPEN, 1.15),
    cost("R13-identifier", "R2 with Subscription Identifiers", IDENTIFIER, OPEN, 1.15),
    cost("R13-no-local", "R2 with No Local", NO_LOCAL, OPEN, 1.15),
    cost("R13-rules", "R2 with 1 000 access rules", PLAIN, RULES, 1.15),
    cost("R13-sys", "R2 with $SYS told every second", PLAIN, TELLS, 1.15),
    cost("R13-tls", "R2 over TLS", TLS, OPEN, 1.4),
    cost("R13-websocket", "R2 over WebSocket", WEBSOCKET, OPEN, 1.25),
    instructions("I13-v3", "I1 with MQTT 3.1.1", V311, OPEN),
    instructions("I13-properties", "I1 with five User Properties", PROPERTIES, OPEN),
    instructions("I13-alias-in", "I1 with Topic Aliases of the publishers", ALIAS_IN, OPEN),
    instructions("I13-alias-out", "I1 with Topic Aliases of the broker", ALIAS_OUT, OPEN),
    instructions("I13-identifier", "I1 with Subscription Identifiers", IDENTIFIER, OPEN),
    instructions("I13-no-local", "I1 with No Local", NO_LOCAL, OPEN),
    instructions("I13-rules", "I1 with 1 000 access rules", PLAIN, RULES),
    instructions("I13-tls", "I1 over TLS", TLS, OPEN),
    instructions("I13-websocket", "I1 over WebSocket", WEBSOCKET, OPEN),
    Figure {
        id: "R3",
        title: "100 pairs, QoS 0, 50 messages per write",
        unit: "CPU µs/message",
        measure: Measure::CpuPerDelivery { plan: plan(Shape::Pairs(100), 0, 200, 50) },
        aim: Aim::AtMost(0.45),
    },
    Figure {
        id: "R4-q1",
        title: "100 pairs, QoS 1, 10 in flight",
        unit: "CPU µs/message",
        measure: Measure::CpuPerDelivery { plan: plan(Shape::Pairs(100), 1, 10, 10) },
        aim: Aim::AtMost(1.8),
    },
    Figure {
        id: "R4-q2",
        title: "100 pairs, QoS 2, 10 in flight",
        unit: "CPU µs/message",
        measure: Measure::CpuPerDelivery { plan: plan(Shape::Pairs(100), 2, 10, 10) },
        aim: Aim::AtMost(3.6),
    },
    Figure {
        id: "R10",
        title: "fan-in, 200 publishers to one wildcard subscriber, QoS 0",
        unit: "CPU µs/message",
        measure: Measure::CpuPerDelivery { plan: plan(Shape::FanIn { publishers: 200 }, 0, 50, 25) },
        aim: Aim::PartOfMosquitto(0.1),
    },
    Figure {
        id: "R7",
        title: "fan-out, 5 publishers to 1 000 subscribers each, QoS 0",
        unit: "CPU µs/delivery",
        measure: Measure::CpuPerDelivery { plan: plan(Shape::FanOut { publishers: 5, subscribers: 1_000 }, 0, 20, 10) },
        aim: Aim::PartOfMosquitto(0.1),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_can_fill_its_write_and_every_id_is_used_once() {
        for (index, figure) in FIGURES.iter().enumerate() {
            assert!(FIGURES[..index].iter().all(|other| other.id != figure.id), "{}", figure.id);
            if let Some(plan) = figure.plan() {
                assert!(plan.per_write <= plan.window && plan.payload_bytes >= crate::packet::STAMP_BYTES);
            }
        }
    }

    #[test]
    fn an_aim_beside_mosquitto_needs_mosquitto() {
        assert_eq!(Aim::PartOfMosquitto(0.1).limit(Some(8.0)), Some(0.8));
        assert_eq!(Aim::PartOfMosquitto(0.1).limit(None), None);
        assert_eq!(Aim::AtMost(512.0).limit(None), Some(512.0));
    }
}
