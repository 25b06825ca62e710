//! `%j` and `%J`: a message as one JSON object, with the members, order and layout of mosquitto_sub.
//!
//! A payload that is JSON itself (`%J`) is not copied but written anew: that takes out its white space, or lays it out for
//! reading, and shows that it is JSON. As with Mosquitto a number is read into a double first, so one with more than 17
//! digits is rounded. What Mosquitto's JSON library accepts beyond the standard is accepted: control characters in strings and as white
//! space, leading zeros, a byte order mark.
//!
//! Where Mosquitto cuts a string at a NUL byte we write `\u0000`, as JSON has it.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pantala_proto::Property;

use super::escape::is_order;
use super::number::{General, put_decimal};
use super::{Escaping, LocalTime, Received};

/// Arrays and objects in one another: how deep a payload may be.
const DEPTH_MAX: usize = 1_000;
/// Digits tried first, and those that tell every double from its neighbours.
const DIGITS_SHORT: usize = 15;
const DIGITS_ALL: usize = 17;

/// How JSON is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// On one line, without blanks.
    #[default]
    Compact,
    /// With line feeds and tabs.
    Pretty,
}

/// How the payload stands in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// As a string.
    String,
    /// As the JSON it is.
    Json,
    /// As a string if it is UTF-8, else in Base64 as `payload-base64`.
    StringOrBase64,
}

/// A payload was to be JSON and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadIsNotJson;

/// Appends a message. On an error `out` is as it was.
pub fn put_message(
    message: &Received<'_>,
    payload: Payload,
    layout: Layout,
    escaping: Escaping,
    zone: &mut LocalTime,
    out: &mut Vec<u8>,
) -> Result<(), PayloadIsNotJson> {
    let start = out.len();
    let mut writer = Writer { out, layout, escaping, depth: 0 };
    let mut object = writer.begin_object();
    writer.key(&mut object, b"tst");
    writer.out.push(b'"');
    zone.put_iso(message.received_at, true, writer.out);
    writer.out.push(b'"');
    writer.key(&mut object, b"topic");
    writer.string(message.topic_name.as_bytes());
    writer.key(&mut object, b"qos");
    put_decimal(u64::from(message.qos_number()), writer.out);
    writer.key(&mut object, b"retain");
    put_decimal(u64::from(message.retain), writer.out);
    writer.key(&mut object, b"payloadlen");
    put_decimal(message.payload.len() as u64, writer.out);
    if message.qos_number() > 0 {
        writer.key(&mut object, b"mid");
        put_decimal(u64::from(message.packet_number()), writer.out);
    }
    if message.properties.iter().next().is_some() {
        writer.key(&mut object, b"properties");
        put_properties(message, payload, &mut writer);
    }
    let in_base64 = payload == Payload::StringOrBase64 && std::str::from_utf8(message.payload).is_err();
    writer.key(&mut object, if in_base64 { b"payload-base64" } else { b"payload" });
    let written = match (message.payload, payload) {
        ([], _) => {
            writer.out.extend_from_slice(b"null");
            Ok(())
        }
        (bytes, Payload::StringOrBase64) if in_base64 => {
            writer.base64(bytes);
            Ok(())
        }
        (bytes, Payload::String | Payload::StringOrBase64) => {
            writer.string(bytes);
            Ok(())
        }
        (bytes, Payload::Json) => Reader { rest: bytes }.document(&mut writer),
    };
    writer.end_object();
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn put_properties(message: &Received<'_>, payload: Payload, writer: &mut Writer<'_>) {
    let mut object = writer.begin_object();
    let mut user_properties_done = false;
    let mut identifiers_done = false;
    for property in message.properties.iter() {
        let mut number = |key: &[u8], value: u64| {
            writer.key(&mut object, key);
            put_decimal(value, writer.out);
        };
        match property {
            Property::PayloadFormatIndicator(flag) => number(b"payload-format-indicator", u64::from(flag)),
            Property::MessageExpiryInterval(seconds) => number(b"message-expiry-interval", u64::from(seconds)),
            Property::TopicAlias(alias) => number(b"topic-alias", u64::from(alias.get())),
            Property::SubscriptionIdentifier(first) if !identifiers_done => {
                identifiers_done = true;
                let identifiers = || {
                    message.properties.iter().filter_map(|property| match property {
                        Property::SubscriptionIdentifier(identifier) => Some(u64::from(identifier.get())),
                        _ => None,
                    })
                };
                // Mosquitto's client knows one; of several, as overlapping subscriptions have, it would end its connection.
                if identifiers().count() == 1 {
                    number(b"subscription-identifier", u64::from(first.get()));
                } else {
                    writer.key(&mut object, b"subscription-identifier");
                    let mut array = writer.begin_array();
                    for identifier in identifiers() {
                        writer.element(&mut array);
                        put_decimal(identifier, writer.out);
                    }
                    writer.end_array();
                }
            }
            Property::ContentType(text) => {
                writer.key(&mut object, b"content-type");
                writer.string(text.as_bytes());
            }
            Property::ResponseTopic(text) => {
                writer.key(&mut object, b"response-topic");
                writer.string(text.as_bytes());
            }
            Property::CorrelationData(bytes)
                if payload == Payload::StringOrBase64 && std::str::from_utf8(bytes).is_err() =>
            {
                writer.key(&mut object, b"correlation-data-base64");
                writer.base64(bytes);
            }
            Property::CorrelationData(bytes) => {
                writer.key(&mut object, b"correlation-data");
                writer.string(bytes);
            }
            Property::UserProperty(..) if !user_properties_done => {
                user_properties_done = true;
                writer.key(&mut object, b"user-properties");
                let mut pairs = writer.begin_object();
                for (name, value) in message.properties.iter().filter_map(|property| match property {
                    Property::UserProperty(name, value) => Some((name, value)),
                    _ => None,
                }) {
                    writer.key(&mut pairs, name.as_bytes());
                    writer.string(value.as_bytes());
                }
                writer.end_object();
            }
            // No other property stands in a PUBLISH.
            _ => {}
        }
    }
    writer.end_object();
}

/// Whether the next member or element is the first.
struct Begun(bool);

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    layout: Layout,
    escaping: Escaping,
    depth: usize,
}

impl Writer<'_> {
    fn begin_object(&mut self) -> Begun {
        self.out.push(b'{');
        self.depth += 1;
        if self.layout == Layout::Pretty {
            self.out.push(b'\n');
        }
        Begun(false)
    }

    /// What stands between two members, and before a name.
    fn before_member(&mut self, begun: &mut Begun) {
        if begun.0 {
            self.out.push(b',');
            if self.layout == Layout::Pretty {
                self.out.push(b'\n');
            }
        }
        begun.0 = true;
        if self.layout == Layout::Pretty {
            self.out.extend(std::iter::repeat_n(b'\t', self.depth));
        }
    }

    fn after_key(&mut self) {
        self.out.push(b':');
        if self.layout == Layout::Pretty {
            self.out.push(b'\t');
        }
    }

    fn key(&mut self, begun: &mut Begun, name: &[u8]) {
        self.before_member(begun);
        self.string(name);
        self.after_key();
    }

    /// Ends an object; an empty one has a line feed too.
    fn end_object(&mut self) {
        self.depth -= 1;
        if self.layout == Layout::Pretty {
            if self.out.last() != Some(&b'\n') {
                self.out.push(b'\n');
            }
            self.out.extend(std::iter::repeat_n(b'\t', self.depth));
        }
        self.out.push(b'}');
    }

    fn begin_array(&mut self) -> Begun {
        self.depth += 1;
        self.out.push(b'[');
        Begun(false)
    }

    fn element(&mut self, begun: &mut Begun) {
        if begun.0 {
            self.out.push(b',');
            if self.layout == Layout::Pretty {
                self.out.push(b' ');
            }
        }
        begun.0 = true;
    }

    fn end_array(&mut self) {
        self.depth -= 1;
        self.out.push(b']');
    }

    fn string(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        self.characters(bytes);
        self.out.push(b'"');
    }

    /// Characters of a string. Bytes that are not UTF-8 are passed on as they are, which is not JSON but loses nothing; a
    /// terminal gets a replacement character.
    fn characters(&mut self, bytes: &[u8]) {
        let is_plain = |byte: &u8| matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
        if bytes.iter().all(is_plain) {
            self.out.extend_from_slice(bytes);
            return;
        }
        if self.escaping == Escaping::Raw {
            for byte in bytes {
                self.byte(*byte);
            }
            return;
        }
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character == '\x7f' || !character.is_ascii() && is_order(character) {
                    drop(write!(self.out, "\\u{:04x}", u32::from(character)));
                } else {
                    for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                        self.byte(byte);
                    }
                }
            }
            if !chunk.invalid().is_empty() {
                self.out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        let short = match byte {
            b'"' | b'\\' => byte,
            8 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 => {
                drop(write!(self.out, "\\u{byte:04x}"));
                return;
            }
            _ => {
                self.out.push(byte);
                return;
            }
        };
        self.out.extend_from_slice(&[b'\\', short]);
    }

    fn base64(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        // Exactly as long as it has to be, so it does not fail.
        drop(STANDARD.encode_slice(bytes, &mut self.out[start..]));
        self.out.push(b'"');
    }

    fn number(&mut self, value: f64) {
        if !value.is_finite() {
            self.out.extend_from_slice(b"null");
            return;
        }
        let short = General::new(value, DIGITS_SHORT);
        let read = short.value();
        if (read - value).abs() <= read.abs().max(value.abs()) * f64::EPSILON {
            self.out.extend_from_slice(short.bytes());
        } else {
            self.out.extend_from_slice(General::new(value, DIGITS_ALL).bytes());
        }
    }
}

/// Reads JSON and hands it to a writer as it goes.
struct Reader<'b> {
    rest: &'b [u8],
}

impl Reader<'_> {
    fn document(&mut self, writer: &mut Writer<'_>) -> Result<(), PayloadIsNotJson> {
        self.rest = self.rest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(self.rest);
        let depth = writer.depth;
        let read = self.value(writer, 0);
        // After an error the caller throws away what was written, and ends its own object.
        writer.depth = depth;
        read?;
        self.skip_blank();
        if self.rest.is_empty() { Ok(()) } else { Err(PayloadIsNotJson) }
    }

    fn skip_blank(&mut self) {
        while let [0..=b' ', rest @ ..] = self.rest {
            // A zero byte ends a text in C.
            if self.rest[0] == 0 {
                return;
            }
            self.rest = rest;
        }
    }

    fn take(&mut self, text: &[u8]) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, writer: &mut Writer<'_>, depth: usize) -> Result<(), PayloadIsNotJson> {
        if depth >= DEPTH_MAX {
            return Err(PayloadIsNotJson);
        }
        self.skip_blank();
        for word in [&b"null"[..], b"true", b"false"] {
            if self.take(word) {
                writer.out.extend_from_slice(word);
                return Ok(());
            }
        }
        match self.rest {
            [b'"', ..] => self.string(writer),
            [b'{', ..] => self.object(writer, depth),
            [b'[', ..] => self.array(writer, depth),
            [b'-' | b'0'..=b'9', ..] => self.number(writer),
            _ => Err(PayloadIsNotJson),
        }
    }

    fn object(&mut self, writer: &mut Writer<'_>, depth: usize) -> Result<(), PayloadIsNotJson> {
        self.take(b"{");
        let mut begun = writer.begin_object();
        self.skip_blank();
        if !self.take(b"}") {
            loop {
                self.skip_blank();
                writer.before_member(&mut begun);
                self.string(writer)?;
                writer.after_key();
                self.skip_blank();
                if !self.take(b":") {
                    return Err(PayloadIsNotJson);
                }
                self.value(writer, depth + 1)?;
                self.skip_blank();
                if self.take(b"}") {
                    break;
                }
                if !self.take(b",") {
                    return Err(PayloadIsNotJson);
                }
            }
        }
        writer.end_object();
        Ok(())
    }

    fn array(&mut self, writer: &mut Writer<'_>, depth: usize) -> Result<(), PayloadIsNotJson> {
        self.take(b"[");
        let mut begun = writer.begin_array();
        self.skip_blank();
        if !self.take(b"]") {
            loop {
                writer.element(&mut begun);
                self.value(writer, depth + 1)?;
                self.skip_blank();
                if self.take(b"]") {
                    break;
                }
                if !self.take(b",") {
                    return Err(PayloadIsNotJson);
                }
            }
        }
        writer.end_array();
        Ok(())
    }

    fn string(&mut self, writer: &mut Writer<'_>) -> Result<(), PayloadIsNotJson> {
        if !self.take(b"\"") {
            return Err(PayloadIsNotJson);
        }
        writer.out.push(b'"');
        loop {
            let plain = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(PayloadIsNotJson)?;
            let (characters, rest) = self.rest.split_at(plain);
            writer.characters(characters);
            self.rest = &rest[1..];
            if rest[0] == b'"' {
                break;
            }
            let character = self.escape()?;
            writer.characters(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        writer.out.push(b'"');
        Ok(())
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<char, PayloadIsNotJson> {
        let (&letter, rest) = self.rest.split_first().ok_or(PayloadIsNotJson)?;
        self.rest = rest;
        match letter {
            b'b' => Ok('\u{8}'),
            b'f' => Ok('\u{c}'),
            b'n' => Ok('\n'),
            b'r' => Ok('\r'),
            b't' => Ok('\t'),
            b'"' | b'\\' | b'/' => Ok(char::from(letter)),
            b'u' => {
                let unit = self.unit()?;
                let code = match unit {
                    0xd800..0xdc00 => {
                        if !self.take(b"\\u") {
                            return Err(PayloadIsNotJson);
                        }
                        let low = self.unit()?;
                        if !(0xdc00..0xe000).contains(&low) {
                            return Err(PayloadIsNotJson);
                        }
                        0x1_0000 + ((unit & 0x3ff) << 10 | (low & 0x3ff))
                    }
                    unit => unit,
                };
                char::from_u32(code).ok_or(PayloadIsNotJson)
            }
            _ => Err(PayloadIsNotJson),
        }
    }

    fn unit(&mut self) -> Result<u32, PayloadIsNotJson> {
        let (digits, rest) = self.rest.split_at_checked(4).ok_or(PayloadIsNotJson)?;
        self.rest = rest;
        digits
            .iter()
            .try_fold(0, |unit, digit| Ok(unit << 4 | char::from(*digit).to_digit(16).ok_or(PayloadIsNotJson)?))
    }

    /// As much as C's strtod would take.
    fn number(&mut self, writer: &mut Writer<'_>) -> Result<(), PayloadIsNotJson> {
        let digits = |from: usize| self.rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut end = usize::from(self.rest[0] == b'-');
        let whole = digits(end);
        end += whole;
        let mut fraction = 0;
        if self.rest.get(end) == Some(&b'.') {
            fraction = digits(end + 1);
            end += 1 + fraction;
        }
        if whole + fraction == 0 {
            return Err(PayloadIsNotJson);
        }
        if let Some(b'e' | b'E') = self.rest.get(end) {
            let sign = usize::from(matches!(self.rest.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits((end + 1 + sign).min(self.rest.len()));
            if exponent > 0 {
                end += 1 + sign + exponent;
            }
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        let value = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(PayloadIsNotJson)?;
        writer.number(value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(payload: &[u8], layout: Layout, escaping: Escaping) -> Option<String> {
        let mut out = b"before".to_vec();
        let mut writer = Writer { out: &mut out, layout, escaping, depth: 1 };
        let read = Reader { rest: payload }.document(&mut writer);
        let text = String::from_utf8_lossy(&out["before".len()..]).into_owned();
        read.is_ok().then_some(text)
    }

    // What mosquitto_sub 2.0.11 makes of these payloads; the test beside it asks it again.
    #[test]
    fn payloads_are_written_as_mosquitto_writes_them() {
        for (payload, compact) in [
            ("1", "1"),
            ("-0.0", "-0"),
            ("1e400", "null"),
            ("1e15", "1e+15"),
            ("123456789012345678", "1.2345678901234568e+17"),
            ("1.7976931348623157e308", "1.79769313486232e+308"),
            ("5e-324", "4.94065645841247e-324"),
            ("0.30000000000000004", "0.3"),
            ("01", "1"),
            ("1.", "1"),
            (r#""\u00e9\ud83d\ude00\/\b\u0001""#, "\"é😀/\\b\\u0001\""),
            ("\"a\nb\"", "\"a\\nb\""),
            (r#" { "a" : [ { } , [ ] , -1.50 ] , "a" : null } "#, r#"{"a":[{},[],-1.5],"a":null}"#),
            ("\u{feff}1", "1"),
            ("\u{b}1\u{1}", "1"),
            ("3.14159265358979323846", "3.1415926535897931"),
        ] {
            assert_eq!(
                written(payload.as_bytes(), Layout::Compact, Escaping::Raw).as_deref(),
                Some(compact),
                "{payload}"
            );
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for payload in [
            "+1",
            ".5",
            "-",
            "nul",
            r#""\ud83d""#,
            r#""\x""#,
            "[1,]",
            "[1 2]",
            r#"{"a":1,}"#,
            r#"{"a":1} x"#,
            "'a'",
            "{a:1}",
            "  ",
            "1\0",
            "truex",
            "1x",
            r#""abc"#,
            "[",
            r#"{"a""#,
            "0x10",
            "1e",
            "1e+",
            "nan",
            "--1",
            "1-2",
            r#""\u12""#,
            r#""\ud83dx""#,
            r#""\ude00""#,
            r#""\"#,
            // Which Mosquitto's library reads as a zero byte.
            r#""\u00zz""#,
        ] {
            assert_eq!(written(payload.as_bytes(), Layout::Compact, Escaping::Raw), None, "{payload}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(written(deep(DEPTH_MAX).as_bytes(), Layout::Compact, Escaping::Raw).is_some());
        assert!(written(deep(DEPTH_MAX + 1).as_bytes(), Layout::Compact, Escaping::Raw).is_none());
        assert!(written("[".repeat(1_000_000).as_bytes(), Layout::Compact, Escaping::Raw).is_none());
    }

    #[test]
    fn pretty_is_as_mosquitto_has_it() {
        let payload = br#"{"a":[{},[],{"b":[]}]}"#;
        let pretty = "{\n\t\t\"a\":\t[{\n\t\t\t}, [], {\n\t\t\t\t\"b\":\t[]\n\t\t\t}]\n\t}";
        assert_eq!(written(payload, Layout::Pretty, Escaping::Raw).as_deref(), Some(pretty));
    }

    #[test]
    fn a_terminal_gets_escapes_that_are_still_json() {
        let payload = "\"a\u{7f}\u{9b}\u{202e}\"".as_bytes();
        assert_eq!(written(payload, Layout::Compact, Escaping::Terminal).as_deref(), Some(r#""a\u007f\u009b\u202e""#));
        assert_eq!(written(b"\"\xff\"", Layout::Compact, Escaping::Terminal).as_deref(), Some("\"\u{fffd}\""));
    }
}
