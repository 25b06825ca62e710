//! Whatever comes from the network, or from the user as a format: nothing panics, and a terminal gets no orders.

use pantala_cli::clients::json_lines::JsonMessage;
use pantala_cli::clients::output::{Escaping, Format, Layout, LocalTime, Moment, Printer, Received, Style};
use pantala_proto::{Delivery, Property, PublishProperties};
use proptest::collection::vec;
use proptest::prelude::*;

/// Formats that are one more often than chance would have it; without escapes, which are the user's own orders.
fn format() -> impl Strategy<Value = String> {
    vec("(%-?0?[0-9]{0,2}(\\.[0-9]{0,2})?[ACDdEFfIjJlmPpqRrStUXx%]|@[A-Za-z@]|[a-z ])", 0..6)
        .prop_map(|parts| parts.concat())
}

/// Payloads that are JSON, or nearly.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..60),
        r#"[ \[\]{}:,"a0-9eE.+\\u\-]{0,40}"#.prop_map(String::into_bytes),
        any::<String>().prop_map(String::into_bytes),
    ]
}

fn text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| text.replace('\0', ""))
}

proptest! {
    #[test]
    fn a_terminal_gets_no_orders(
        (format, topic_name, payload) in (format(), text(), payload()),
        (name, value, data) in (text(), text(), vec(any::<u8>(), 0..20)),
        (seconds, nanoseconds) in (any::<i64>(), 0..1_000_000_000_u32),
        (is_pretty, is_raw) in any::<(bool, bool)>(),
    ) {
        let Ok(format) = Format::parse(&format) else { return Ok(()) };
        let mut section = Vec::new();
        for property in [
            Property::UserProperty(&name, &value),
            Property::ContentType(&value),
            Property::CorrelationData(&data),
        ] {
            property.encode(&mut section);
        }
        let properties = PublishProperties::new(&section).expect("they may stand in a PUBLISH");
        let received_at = Moment { seconds, nanoseconds };
        let delivery = Delivery::AtMostOnce;
        let message = Received { topic_name: &topic_name, payload: &payload, delivery, retain: false, properties, received_at };
        for style in [Style::Format(format), Style::Payload, Style::Verbose, Style::Json] {
            let is_json = style == Style::Json;
            let mut printer = Printer {
                style,
                ends_lines: true,
                layout: if is_pretty { Layout::Pretty } else { Layout::Compact },
                escaping: if is_raw { Escaping::Raw } else { Escaping::Terminal },
                zone: LocalTime::named("UTC0").expect("UTC is known"),
            };
            let mut out = Vec::new();
            let _not_json = printer.print(&message, &mut out);
            if !is_raw {
                // What a width cuts off may be half a character, but no order.
                let text = String::from_utf8_lossy(&out);
                let orders = text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\t'));
                prop_assert!(!orders, "{text:?}");
            } else if is_json {
                let read: serde_json::Value = serde_json::from_slice(&out).expect("it is JSON");
                prop_assert_eq!(read["topic"].as_str(), Some(topic_name.as_str()));
                if let Ok(read) = JsonMessage::parse(&out) {
                    prop_assert_eq!(read.payload, payload.clone());
                }
            }
        }
    }

    #[test]
    fn formats_and_lines_of_json_are_read_or_refused(format in any::<String>(), line in payload()) {
        let _refused = Format::parse(&format);
        let _refused = JsonMessage::parse(&line);
    }

    /// What is said to be JSON is JSON, whatever leniency it was read with.
    #[test]
    fn what_is_taken_for_json_is_json(payload in payload()) {
        let mut printer = Printer {
            style: Style::Format(Format::parse("%J").expect("it is a format")),
            ends_lines: true,
            layout: Layout::Compact,
            // Bytes that are not UTF-8 are passed on otherwise.
            escaping: Escaping::Terminal,
            zone: LocalTime::named("UTC0").expect("UTC is known"),
        };
        let message = Received {
            topic_name: "t",
            payload: &payload,
            delivery: Delivery::AtMostOnce,
            retain: false,
            properties: PublishProperties::default(),
            received_at: Moment { seconds: 0, nanoseconds: 0 },
        };
        let mut out = Vec::new();
        let printed = printer.print(&message, &mut out);
        prop_assert_eq!(printed.is_ok(), serde_json::from_slice::<serde_json::Value>(&out).is_ok());
        if serde_json::from_slice::<serde_json::Value>(&payload).is_ok() {
            prop_assert!(printed.is_ok());
        }
    }
}
