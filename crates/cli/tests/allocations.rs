//! Printing a message allocates nothing once the buffer has grown.

use pantala_cli::clients::output::{Escaping, Format, Layout, LocalTime, Moment, Printer, Received, Style};
use pantala_proto::{Delivery, PacketId, Property, PublishProperties};

#[test]
fn printing_allocates_nothing() {
    let mut section = Vec::new();
    for property in [
        Property::ContentType("text/plain"),
        Property::UserProperty("name", "välue"),
        Property::CorrelationData(b"\x01\xff"),
        Property::MessageExpiryInterval(60),
    ] {
        property.encode(&mut section);
    }
    let properties = PublishProperties::new(&section).expect("they may stand in a PUBLISH");
    let packet_id = PacketId::FIRST;
    let every = "%t %p [%-40.9t][%40p][%0200x] %.2:X %j %J %I %U @c @V @Z @N %C %D %E %F %P %R %S %A %m %q %r %l %d %f";
    let formats = [every, "%t %p", "%j"].map(|format| Style::Format(Format::parse(format).expect("it is a format")));
    for style in formats.into_iter().chain([Style::Payload, Style::Verbose, Style::Json]) {
        for escaping in [Escaping::Raw, Escaping::Terminal] {
            let zone = LocalTime::named("EST5EDT,M3.2.0,M11.1.0").expect("the zone is known");
            let mut printer =
                Printer { style: style.clone(), ends_lines: true, layout: Layout::Pretty, escaping, zone };
            let mut out = Vec::with_capacity(1 << 16);
            let mut print = |seconds| {
                out.clear();
                for payload in [&br#"{"a":[1.5e3,"\u00e9",null]}"#[..], b"text\n", b"\x1b\xff\0", b""] {
                    let message = Received {
                        topic_name: "kitchen/light/\u{9b}",
                        payload,
                        delivery: Delivery::AtLeastOnce { packet_id, dup: false },
                        retain: true,
                        properties,
                        received_at: Moment { seconds, nanoseconds: 7 },
                    };
                    // What is no JSON is not printed as such.
                    let _not_json = printer.print(&message, &mut out);
                }
                out.len()
            };
            // The first time the zone's name is kept.
            print(0);
            let measured = allocation_counter::measure(|| {
                for seconds in 1..20 {
                    assert!(print(seconds * 10_000_000) > 0);
                }
            });
            assert_eq!(measured.count_total, 0, "{style:?} {escaping:?}");
        }
    }
}
