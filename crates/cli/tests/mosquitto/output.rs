//! What mosquitto_sub prints, byte for byte.

use std::path::Path;

use pantala_cli::clients::json_lines::JsonMessage;
use pantala_cli::clients::output::{Escaping, Format, Layout, LocalTime, Moment, Printer, Received, Style};
use pantala_proto::{Property, ProtocolVersion};

use crate::peer::{Printed, decode, publish, subscribe};
use crate::programs;

const ZONE: &str = "IST-5:30";
const NOON: Moment = Moment { seconds: 1_795_639_798, nanoseconds: 5_006_007 };

/// QoS 1 with DUP, QoS 2, and RETAIN, as the lower bits of the first byte.
const QOS_1_DUP: u8 = 0b1010;
const QOS_2: u8 = 0b0100;
const RETAIN: u8 = 0b0001;

fn printer(style: Style, zone: &str) -> Printer {
    Printer {
        style,
        ends_lines: true,
        layout: Layout::Compact,
        escaping: Escaping::Raw,
        zone: LocalTime::named(zone).unwrap(),
    }
}

/// What ours prints, errors apart, as mosquitto_sub prints them.
fn ours(printer: &mut Printer, version: ProtocolVersion, messages: &[Vec<u8>], at: Moment) -> Printed {
    let (mut stdout, mut stderr) = (Vec::new(), String::new());
    for message in messages {
        let message = Received::new(&decode(version, message), at);
        if printer.print(&message, &mut stdout).is_err() {
            stderr += &format!("Error: Message payload is not valid JSON on topic {}.\n", message.topic_name);
        }
    }
    Printed { stdout, stderr, status: Some(0) }
}

fn compare(program: &Path, version: ProtocolVersion, format: &str, messages: &[Vec<u8>]) {
    for layout in [Layout::Compact, Layout::Pretty] {
        let is_json = format.contains("%j") || format.contains("%J");
        if layout == Layout::Pretty && !is_json {
            continue;
        }
        let mut printer = printer(Style::Format(Format::parse(format).unwrap()), ZONE);
        printer.layout = layout;
        let pretty: &[&str] = if layout == Layout::Pretty { &["--pretty"] } else { &[] };
        let mut theirs = subscribe(program, version, &[&["-F", format], pretty].concat(), ZONE, messages);
        let mut ours = ours(&mut printer, version, messages, NOON);
        for stdout in [&mut theirs.stdout, &mut ours.stdout].into_iter().filter(|_| is_json) {
            mask_time(stdout);
        }
        let text = |printed: &Printed| String::from_utf8_lossy(&printed.stdout).into_owned();
        assert_eq!(text(&ours), text(&theirs), "{format} {version:?}");
        assert_eq!((ours.stderr, ours.status), (theirs.stderr, theirs.status), "{format} {version:?}");
        assert!(ours.stdout == theirs.stdout, "{format} {version:?}");
    }
}

/// Replaces what the clock says. Mosquitto up to 2.0.13 writes a Z before the zone, which is a mistake.
fn mask_time(json: &mut Vec<u8>) {
    const MEMBER: &[u8] = b"\"tst\":";
    let mut masked = Vec::new();
    let mut rest = &json[..];
    while let Some(at) = rest.windows(MEMBER.len()).position(|bytes| bytes == MEMBER) {
        let (before, behind) = rest.split_at(at + MEMBER.len());
        masked.extend_from_slice(before);
        let quote = behind.iter().position(|byte| *byte == b'"').unwrap();
        let end = behind[quote + 1..].iter().position(|byte| *byte == b'"').unwrap() + quote + 1;
        // A tab or nothing.
        masked.extend_from_slice(&behind[..quote]);
        let shape = behind[quote..end].iter().map(|byte| if byte.is_ascii_digit() { b'0' } else { *byte });
        masked.extend(shape.filter(|byte| *byte != b'Z'));
        rest = &behind[end..];
    }
    masked.extend_from_slice(rest);
    *json = masked;
}

fn section(properties: &[Property<'_>]) -> Vec<u8> {
    let mut section = Vec::new();
    for property in properties {
        property.encode(&mut section);
    }
    section
}

/// Messages with and without properties, and with payloads of all kinds but those that have zero bytes.
fn messages(version: ProtocolVersion) -> Vec<Vec<u8>> {
    let all = section(&[
        Property::PayloadFormatIndicator(true),
        Property::UserProperty("a", "b"),
        // A larger one is negative in Mosquitto 2.0.
        Property::MessageExpiryInterval(2_147_483_647),
        Property::UserProperty("x\"\\", "ä y"),
        Property::ResponseTopic("re/sp"),
        Property::CorrelationData(b"\x01\xff\x1b\"c"),
        Property::SubscriptionIdentifier(268_435_455.try_into().unwrap()),
        Property::ContentType("text/plain; charset=utf-8"),
    ]);
    let few = section(&[
        Property::CorrelationData(b""),
        Property::ContentType(""),
        Property::PayloadFormatIndicator(false),
        Property::MessageExpiryInterval(0),
        Property::UserProperty("", ""),
    ]);
    let json = r#"{"b": 1.0, "a":[1,2,{"x":"\u00e9é\n"}], "c":1e5, "z":{}, "y":[], "t":true}"#.as_bytes();
    vec![
        publish(version, QOS_1_DUP | RETAIN, "all/properties", 9, &all, b"payload"),
        publish(version, QOS_2, "few/properties", 65_535, &few, b"p"),
        publish(version, 0, "t", 0, &[], b""),
        publish(version, RETAIN, "ü/😀 \"q\"\\", 0, &[], "caf\u{e9} \u{20ac} \u{1f600} \u{85}".as_bytes()),
        publish(version, 0, "binary", 0, &[], b"\x01\xff\xfe\x80abc\n\x1b[31m\"\\/\x7f\t\r\x08\x0c\x0b"),
        publish(version, 0, "json", 0, &[], json),
        publish(version, 0, "a/rather/long/topic/name/for/a/narrow/field", 0, &[], &[b'x'; 100]),
    ]
}

#[test]
fn every_conversion_prints_what_mosquitto_prints() {
    let name = "every_conversion_prints_what_mosquitto_prints";
    let Some([program]) = programs::find(name, ["mosquitto_sub"]) else { return };
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let messages = messages(version);
        for format in [
            "%j",
            "%J",
            "%p|%t|%q|%r|%m|%l|%x|%X|%C|%D|%E|%F|%P|%R|%S|%A",
            "[%20t][%-20t][%.3t][%10.3t][%-10.3t][%020t][%-020t][%-.20t]",
            "[%8l][%08l][%-8l][%-08l][%.1l][%08.3l][%00l]",
            "[%8p][%-8p][%.2p][%20.2p][%08p][%-08p]",
            "[%5m][%05m][%-5m][%5q][%05q][%-5q][%5r][%05r]",
            "[%12E][%012E][%-12E][%3F][%03F][%-3F]",
            "[%10C][%-10C][%.4C][%10.4C][%010C][%10R][%.3R][%-10R][%10.3R]",
            "[%10D][%-10D][%10P][%.2P][%12S][%012S][%-12S][%5A][%05A][%-5A]",
            r"\0\a\e\n\r\t\v\\",
            "%% @@ %5% %05% @~ @! ü@",
        ] {
            // What stands last is a conversion that is not complete.
            compare(&program, version, format.trim_end_matches("ü@"), &messages);
        }
    }
}

#[test]
fn topic_aliases_are_printed() {
    let Some([program]) = programs::find("topic_aliases_are_printed", ["mosquitto_sub"]) else { return };
    let alias = section(&[Property::TopicAlias(7.try_into().unwrap())]);
    let messages = [publish(ProtocolVersion::V5, 0, "t", 0, &alias, b"p")];
    compare(&program, ProtocolVersion::V5, "%A [%5A][%05A][%-5A]", &messages);
}

#[test]
fn hexadecimal_is_cut_to_its_width() {
    let Some([program]) = programs::find("hexadecimal_is_cut_to_its_width", ["mosquitto_sub"]) else { return };
    // A payload shorter than the width loses its second half in Mosquitto 2.0, which 2.1 mended.
    let messages = [publish(ProtocolVersion::V311, 0, "t", 0, &[], &[0xab; 40])];
    compare(&program, ProtocolVersion::V311, "[%30x][%-30X][%030x][%7x][%-7x][%07X][%40x]", &messages);
}

#[test]
fn payloads_with_zero_bytes_are_whole() {
    let Some([program]) = programs::find("payloads_with_zero_bytes_are_whole", ["mosquitto_sub"]) else { return };
    let version = ProtocolVersion::V311;
    let messages: Vec<_> =
        [&b"\0abc"[..], b"ab\0c", b"\0"].map(|payload| publish(version, 0, "t", 0, &[], payload)).into();
    for format in ["%p", "[%8p][%2p][%08p]", "%x %l"] {
        compare(&program, version, format, &messages);
    }
}

#[test]
fn output_without_format_is_mosquittos() {
    let Some([program]) = programs::find("output_without_format_is_mosquittos", ["mosquitto_sub"]) else { return };
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for (arguments, style, ends_lines) in [
            (&[][..], Style::Payload, true),
            (&["-N"], Style::Payload, false),
            (&["-v"], Style::Verbose, true),
            (&["-v", "-N"], Style::Verbose, false),
            (&["-F", "%t", "-v", "-N"], Style::Format(Format::parse("%t").unwrap()), false),
        ] {
            let mut printer = printer(style, ZONE);
            printer.ends_lines = ends_lines;
            let messages = messages(version);
            let ours = ours(&mut printer, version, &messages, NOON);
            assert_eq!(ours, subscribe(&program, version, arguments, ZONE, &messages), "{arguments:?}");
        }
    }
}

#[test]
fn json_is_read_and_written_as_mosquitto_does() {
    let Some([program]) = programs::find("json_is_read_and_written_as_mosquitto_does", ["mosquitto_sub"]) else {
        return;
    };
    let payloads = [
        "1",
        "-0",
        "-0.0",
        "1.5",
        "1e400",
        "-1e400",
        "0.1",
        "123456789",
        "2147483647",
        "2147483648",
        "-2147483649",
        "1e15",
        "1e16",
        "123456789012345678",
        "1.7976931348623157e308",
        "5e-324",
        "0.30000000000000004",
        "1E5",
        "01",
        "+1",
        ".5",
        "-.5",
        "1.",
        "-",
        "-e",
        "true",
        "nul",
        "null",
        "\"a\"",
        r#""\u00e9\ud83d\ude00\/\b\u0001""#,
        r#""\ud83d""#,
        r#""\x""#,
        "\"a\nb\"",
        "[]",
        "{}",
        "[1,]",
        "[1 2]",
        r#"{"a":1,}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":1} x"#,
        " 1 ",
        "\u{feff}1",
        r#"{"a":[{},[],{"b":[]}]}"#,
        r#"[1,2,[3,{"x":null}]]"#,
        r#"{"\u0041":1}"#,
        "'a'",
        "{a:1}",
        "  ",
        "[1.0,100,1e3,1e-3,1e-7,123456.789,1e-5,0.0001]",
        "3.14159265358979323846",
        "100000000000000000000",
        "true1",
        "truex",
        "[true false]",
        "1x",
        r#""abc"#,
        "[",
        r#"{"a""#,
        r#"{"a" : 1}"#,
        "\u{b}1",
        "\u{1}1",
        "0x10",
        "1e",
        "1e+",
        "1e+5",
        "nan",
        "Infinity",
        "--1",
        "1-2",
        r#""\u12""#,
        r#""\ud83dx""#,
        r#""\ude00""#,
        r#""\"#,
        "[[[[[[]]]]]]",
        r#"{"":{"":{}}}"#,
        ",",
        ":",
        "]",
        "1,2",
        "\"\u{7f}\u{80}\"",
    ];
    let version = ProtocolVersion::V311;
    let mut messages: Vec<_> =
        payloads.iter().map(|payload| publish(version, 0, "t", 0, &[], payload.as_bytes())).collect();
    messages.push(publish(version, 0, "t", 0, &[], b"\"\xff\""));
    messages.push(publish(version, 0, "t", 0, &[], b"1\0"));
    messages.push(publish(version, 0, "t", 0, &[], ("[".repeat(1_000) + &"]".repeat(1_000)).as_bytes()));
    messages.push(publish(version, 0, "t", 0, &[], ("[".repeat(1_001) + &"]".repeat(1_001)).as_bytes()));
    // One by one where they differ, to see which it is.
    for message in &messages {
        compare(&program, version, "%J", std::slice::from_ref(message));
    }
    compare(&program, version, "<%J>", &messages);
}

#[test]
fn time_is_told_as_by_strftime() {
    let Some([program]) = programs::find("time_is_told_as_by_strftime", ["mosquitto_sub"]) else { return };
    let version = ProtocolVersion::V311;
    let letters = "aAbBcCdDeEFgGhHIjklmMnpPqrRsStTuUvVwWxXyYzZ+fiJKLoO0";
    let conversions: String = letters.chars().map(|letter| format!("{letter}=@{letter}|")).collect();
    let format = format!("@s {conversions} %I [%35I][%-35I][%.5I][%030I]@s ");
    let messages = [publish(version, 0, "t", 0, &[], b"p")];
    for zone in ["UTC0", ZONE, "EST5EDT,M3.2.0,M11.1.0", "<+1245>-12:45"] {
        // Until no second has begun between the first conversion and the last.
        let (seconds, theirs) = loop {
            let theirs = subscribe(&program, version, &["-F", &format], zone, &messages);
            let text = String::from_utf8_lossy(&theirs.stdout).into_owned();
            let (first, last) = (text.split(' ').next().unwrap(), text.trim_end().rsplit(']').next().unwrap());
            if first == last {
                break (first.parse().unwrap(), theirs);
            }
        };
        let mut printer = printer(Style::Format(Format::parse(&format).unwrap()), zone);
        let ours = ours(&mut printer, version, &messages, Moment { seconds, nanoseconds: 0 });
        let text = |printed: &Printed| String::from_utf8_lossy(&printed.stdout).into_owned();
        assert_eq!(text(&ours), text(&theirs), "{zone}");
    }
}

#[test]
fn formats_that_mosquitto_refuses_are_refused() {
    let Some([program]) = programs::find("formats_that_mosquitto_refuses_are_refused", ["mosquitto_sub"]) else {
        return;
    };
    for format in ["%", "%5", "%-", "%0", "%.", "%5.3", "a@", "\\", "%z", "%--5t", "%0-8l", "\\q", "\\x41"] {
        let output = std::process::Command::new(&program).args(["-t", "x", "-p", "1", "-F", format]).output().unwrap();
        let refused = String::from_utf8_lossy(&output.stderr).contains("specifier");
        assert_eq!(Format::parse(format).is_err(), refused, "{format}");
    }
}

/// Later than Debian's version, from the tests of Mosquitto 2.1.
#[test]
fn newer_conversions_are_those_of_mosquitto_2_1() {
    let double = 2.625_f64.to_le_bytes();
    let float = 0.707_f32.to_le_bytes();
    for (format, payload, expected) in [
        ("%.1x", &b"message"[..], "6 d 6 5 7 3 7 3 6 1 6 7 6 5\n"),
        ("%.2x", b"message", "6d 65 73 73 61 67 65\n"),
        ("%.2:x", b"message", "6d:65:73:73:61:67:65\n"),
        ("%.4-X", b"message", ""),
        ("%18x", b"message", "    6d657373616765\n"),
        ("%-18x", b"message", "6d657373616765    \n"),
        ("%.3d", &double, "2.625\n"),
        ("%.3f", &float, "0.707\n"),
        ("[%12.1d][%-12d][%012.2d]", &double, "[         2.6][2.625000    ][000000002.62]\n"),
        ("[%d][%5f]", b"neither", "[][     ]\n"),
        ("%f", &f32::NAN.to_le_bytes(), "nan\n"),
        ("%d", &f64::NEG_INFINITY.to_le_bytes(), "-inf\n"),
    ] {
        let Ok(parsed) = Format::parse(format) else {
            assert_eq!(expected, "", "{format}");
            continue;
        };
        let message = publish(ProtocolVersion::V311, 0, "t", 0, &[], payload);
        let printed = ours(&mut printer(Style::Format(parsed), ZONE), ProtocolVersion::V311, &[message], NOON);
        assert_eq!(String::from_utf8_lossy(&printed.stdout), expected, "{format}");
    }
}

/// Where we lose nothing and Mosquitto does: what stands behind a zero byte, aliases, a second identifier.
#[test]
fn what_mosquitto_loses_in_json_is_there() {
    let properties = section(&[
        Property::SubscriptionIdentifier(1.try_into().unwrap()),
        Property::TopicAlias(7.try_into().unwrap()),
        Property::SubscriptionIdentifier(2.try_into().unwrap()),
        Property::CorrelationData(b"\0\xff"),
    ]);
    let message = publish(ProtocolVersion::V5, 0, "t", 0, &properties, b"a\0\xff");
    let print = |style| {
        let printed = ours(&mut printer(style, ZONE), ProtocolVersion::V5, std::slice::from_ref(&message), NOON);
        String::from_utf8_lossy(&printed.stdout).into_owned()
    };
    assert_eq!(
        print(Style::Format(Format::parse("%j").unwrap())),
        "{\"tst\":\"2026-11-26T02:19:58.005006+0530\",\"topic\":\"t\",\"qos\":0,\"retain\":0,\"payloadlen\":3,\"properties\":\
         {\"subscription-identifier\":[1,2],\"topic-alias\":7,\"correlation-data\":\"\\u0000\u{fffd}\"},\
         \"payload\":\"a\\u0000\u{fffd}\"}\n"
    );
    assert_eq!(
        print(Style::Json),
        "{\"tst\":\"2026-11-26T02:19:58.005006+0530\",\"topic\":\"t\",\"qos\":0,\"retain\":0,\"payloadlen\":3,\"properties\":\
         {\"subscription-identifier\":[1,2],\"topic-alias\":7,\"correlation-data-base64\":\"AP8=\"},\
         \"payload-base64\":\"YQD/\"}\n"
    );
}

#[test]
fn a_line_of_json_can_be_published_again() {
    let version = ProtocolVersion::V5;
    for message in messages(version) {
        let printed = ours(&mut printer(Style::Json, ZONE), version, std::slice::from_ref(&message), NOON);
        let read = JsonMessage::parse(&printed.stdout).unwrap();
        let publish = decode(version, &message);
        assert_eq!((read.topic_name.as_deref(), &read.payload[..]), (Some(publish.topic_name), publish.payload));
        assert_eq!((read.qos, read.retain), (Some(publish.delivery.qos()), Some(publish.retain)));
        let properties = read.properties.unwrap_or_default();
        let pairs = properties.user_properties.iter().map(|(name, value)| Property::UserProperty(name, value));
        let user = |property: &Property<'_>| matches!(property, Property::UserProperty(..));
        assert!(pairs.eq(publish.properties.iter().filter(user)));
        let correlation_data = publish.properties.iter().find_map(|property| match property {
            Property::CorrelationData(bytes) => Some(bytes),
            _ => None,
        });
        assert_eq!(properties.correlation_data.as_deref(), correlation_data);
        assert_eq!(properties.message_expiry_interval, publish.properties.message_expiry_interval);
    }
}

#[test]
fn a_terminal_gets_nothing_it_would_obey() {
    let version = ProtocolVersion::V5;
    let evil = "\u{1b}]0;title\u{7}\u{9b}2J\r\u{202e}";
    let properties = section(&[
        Property::ContentType(evil),
        Property::ResponseTopic(evil),
        Property::CorrelationData(evil.as_bytes()),
        Property::UserProperty(evil, evil),
    ]);
    let message = publish(version, 0, &format!("t\n{evil}"), 0, &properties, format!("{evil}\n").as_bytes());
    for format in ["%p", "%t", "%C", "%R", "%D", "%P", "%j", "%10.40t", "%20p"] {
        let mut printer = printer(Style::Format(Format::parse(format).unwrap()), ZONE);
        printer.escaping = Escaping::Terminal;
        printer.ends_lines = false;
        let printed = ours(&mut printer, version, std::slice::from_ref(&message), NOON);
        let text = String::from_utf8(printed.stdout).unwrap();
        let obeyed = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
        assert!(!text.contains(obeyed), "{format}: {text:?}");
        assert!(text.contains("1b") && (format.ends_with('p') || !text.contains('\n')), "{format}: {text:?}");
    }
    // What the format itself has is the user's own.
    let mut printer = printer(Style::Format(Format::parse("\\e[31m%t").unwrap()), ZONE);
    printer.escaping = Escaping::Terminal;
    assert!(ours(&mut printer, version, &[message], NOON).stdout.starts_with(b"\x1b[31mt\\n\\x1b"));
}
