//! Messages into bytes.

use std::io::Write as _;

use pantala_proto::Property;

use super::format::{Field, Piece, Space};
use super::json;
use super::number::{put_decimal, put_padded};
use super::{Escaping, Format, Layout, LocalTime, Received};

/// What of a message is printed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Style {
    /// The payload.
    #[default]
    Payload,
    /// Topic Name, a blank, the payload.
    Verbose,
    /// What a format says.
    Format(Format),
    /// A JSON object on a line, which `pub --json` can read.
    Json,
}

/// The payload of a message is not the JSON that `%J` wants. In its place nothing was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message payload is not valid JSON")]
pub struct NotJson;

/// Prints messages.
#[derive(Debug, Clone)]
pub struct Printer {
    /// What of a message.
    pub style: Style,
    /// A line feed behind each message (not with `-N`).
    pub ends_lines: bool,
    /// Layout of `%j` and `%J`.
    pub layout: Layout,
    /// What is done to bytes from the network.
    pub escaping: Escaping,
    /// The zone of `%I`, `%j`, `%J` and `@`.
    pub zone: LocalTime,
}

impl Printer {
    /// Appends a message to `out`.
    ///
    /// As mosquitto_sub does, an empty payload prints nothing at all, and with Topic Names `(null)`; with `-N` not even that.
    ///
    /// # Errors
    /// [`NotJson`] is to be reported; the message has been printed nevertheless, without its payload.
    pub fn print(&mut self, message: &Received<'_>, out: &mut Vec<u8>) -> Result<(), NotJson> {
        let mut written = Ok(());
        match &self.style {
            Style::Payload if message.payload.is_empty() => return Ok(()),
            Style::Payload => self.escaping.put(message.payload, out),
            Style::Verbose if message.payload.is_empty() && !self.ends_lines => return Ok(()),
            Style::Verbose => {
                put_topic(self.escaping, message.topic_name, out);
                out.push(b' ');
                if message.payload.is_empty() {
                    out.extend_from_slice(b"(null)");
                } else {
                    self.escaping.put(message.payload, out);
                }
            }
            Style::Json => {
                let payload = json::Payload::StringOrBase64;
                // Always written: only JSON in JSON can be wrong.
                let put = json::put_message(message, payload, self.layout, self.escaping, &mut self.zone, out);
                written = put.map_err(|_| NotJson);
            }
            Style::Format(format) => {
                for piece in &format.pieces {
                    match piece {
                        Piece::Literal(bytes) => out.extend_from_slice(bytes),
                        Piece::Time(conversion) => self.zone.put(*conversion, message.received_at, out),
                        Piece::Nanoseconds => put_padded(message.received_at.nanoseconds.into(), 9, out),
                        Piece::Field { field: field @ (Field::Json | Field::JsonOfJson), .. } => {
                            let payload = match field {
                                Field::Json => json::Payload::String,
                                _ => json::Payload::Json,
                            };
                            let put =
                                json::put_message(message, payload, self.layout, self.escaping, &mut self.zone, out);
                            written = written.and(put.map_err(|_| NotJson));
                        }
                        Piece::Field { field, space } => {
                            put_field(message, *field, *space, self.escaping, &mut self.zone, out);
                        }
                    }
                }
            }
        }
        if self.ends_lines {
            out.push(b'\n');
        }
        written
    }
}

/// A Topic Name has one line, whatever is in it.
fn put_topic(escaping: Escaping, topic_name: &str, out: &mut Vec<u8>) {
    let escaping = if escaping == Escaping::Terminal { Escaping::OneLine } else { escaping };
    escaping.put(topic_name.as_bytes(), out);
}

fn put_field(
    message: &Received<'_>,
    field: Field,
    space: Space,
    escaping: Escaping,
    zone: &mut LocalTime,
    out: &mut Vec<u8>,
) {
    let properties = message.properties;
    // Strings are padded with blanks whatever the flags say, and numbers are not cut.
    let text_space = Space { zeros: false, ..space };
    let number_space = Space { precision: None, ..space };
    let mut number = |value: Option<u64>| {
        put_in_space(number_space, out, |out| {
            if let Some(value) = value {
                put_decimal(value, out);
            }
        });
    };
    match field {
        Field::TopicAlias => number(properties.topic_alias.map(|alias| alias.get().into())),
        Field::MessageExpiryInterval => number(properties.message_expiry_interval.map(u64::from)),
        Field::PayloadFormatIndicator => number(properties.iter().find_map(|property| match property {
            Property::PayloadFormatIndicator(flag) => Some(flag.into()),
            _ => None,
        })),
        Field::SubscriptionIdentifier => number(properties.iter().find_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier.get().into()),
            _ => None,
        })),
        Field::Length => number(Some(message.payload.len() as u64)),
        Field::PacketIdentifier => number(Some(message.packet_number().into())),
        Field::Qos => put_decimal(message.qos_number().into(), out),
        Field::Retain => put_decimal(message.retain.into(), out),
        Field::TopicName => put_cut(text_space, message.topic_name.as_bytes(), escaping, out),
        Field::ContentType => {
            let text = properties.iter().find_map(|property| match property {
                Property::ContentType(text) => Some(text),
                _ => None,
            });
            put_cut(text_space, text.unwrap_or_default().as_bytes(), escaping, out);
        }
        // Not padded when it is absent.
        Field::ResponseTopic => {
            if let Some(text) = properties.iter().find_map(|property| match property {
                Property::ResponseTopic(text) => Some(text),
                _ => None,
            }) {
                put_cut(text_space, text.as_bytes(), escaping, out);
            }
        }
        Field::CorrelationData => {
            if let Some(bytes) = properties.iter().find_map(|property| match property {
                Property::CorrelationData(bytes) => Some(bytes),
                _ => None,
            }) {
                escaping.put(bytes, out);
            }
        }
        Field::UserProperties => {
            let mut separator = &b""[..];
            for (name, value) in properties.iter().filter_map(|property| match property {
                Property::UserProperty(name, value) => Some((name, value)),
                _ => None,
            }) {
                out.extend_from_slice(separator);
                separator = b" ";
                put_topic(escaping, name, out);
                out.push(b':');
                put_topic(escaping, value, out);
            }
        }
        Field::Payload => {
            // Its width is also the most that is shown, and its precision has no meaning.
            let shown = if space.width > 0 { message.payload.len().min(space.width) } else { message.payload.len() };
            put_in_space(Space { precision: None, ..space }, out, |out| escaping.put(&message.payload[..shown], out));
        }
        Field::HexLower => put_hex(b"0123456789abcdef", message.payload, space, out),
        Field::HexUpper => put_hex(b"0123456789ABCDEF", message.payload, space, out),
        Field::Double => {
            let value = message.payload.try_into().ok().map(f64::from_le_bytes);
            put_float(value, space, out);
        }
        Field::Float => {
            let value = message.payload.try_into().ok().map(|bytes| f64::from(f32::from_le_bytes(bytes)));
            put_float(value, space, out);
        }
        Field::IsoTime => {
            put_in_space(text_space, out, |out| zone.put_iso(message.received_at, false, out));
        }
        Field::UnixTime => {
            drop(write!(out, "{}.", message.received_at.seconds));
            put_padded(message.received_at.nanoseconds.into(), 9, out);
        }
        // With the layout, by the caller.
        Field::Json | Field::JsonOfJson => {}
    }
}

/// A text whose bytes are counted before they are escaped.
fn put_cut(space: Space, bytes: &[u8], escaping: Escaping, out: &mut Vec<u8>) {
    let shown = bytes.len().min(space.precision.unwrap_or(usize::MAX));
    let escaping = if escaping == Escaping::Terminal { Escaping::OneLine } else { escaping };
    put_in_space(Space { precision: None, ..space }, out, |out| escaping.put(&bytes[..shown], out));
}

/// Lets `put` write, cuts that to the precision, and pads it to the width.
fn put_in_space(space: Space, out: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    put(out);
    if let Some(precision) = space.precision {
        out.truncate(start.saturating_add(precision).min(out.len()));
    }
    let missing = space.width.saturating_sub(out.len() - start);
    if missing == 0 {
        return;
    }
    let end = out.len();
    out.resize(end + missing, if space.zeros && !space.left { b'0' } else { b' ' });
    if !space.left {
        out[start..].rotate_right(missing);
    }
}

/// The payload in hexadecimal. A precision is the digits of a group. Like that of `%p`, a width without groups is also the
/// most that is shown, in whole bytes.
fn put_hex(digits: &[u8; 16], payload: &[u8], space: Space, out: &mut Vec<u8>) {
    let group = space.precision.unwrap_or(0);
    let shown = match (group, space.width) {
        (0, 1..) => payload.len().min(space.width / 2),
        _ => payload.len(),
    };
    put_in_space(Space { precision: None, ..space }, out, |out| {
        if group == 0 {
            out.reserve(2 * shown);
            for byte in &payload[..shown] {
                out.extend_from_slice(&[digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
            }
            return;
        }
        let halves = payload.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        for (place, half) in halves.enumerate() {
            if place > 0 && place % group == 0 {
                out.push(space.separator);
            }
            out.push(digits[usize::from(half)]);
        }
    });
}

/// A number as `%f` of C writes it. None, of a payload with another length, is nothing.
fn put_float(value: Option<f64>, space: Space, out: &mut Vec<u8>) {
    // As many as an f64 can have.
    const DECIMALS_MAX: usize = 1_074;
    const DECIMALS_DEFAULT: usize = 6;
    let decimals = space.precision.unwrap_or(DECIMALS_DEFAULT).min(DECIMALS_MAX);
    let finite = value.is_none_or(f64::is_finite);
    let space = Space { precision: None, zeros: space.zeros && finite, ..space };
    put_in_space(space, out, |out| match value {
        Some(value) if value.is_nan() => out.extend_from_slice(b"nan"),
        Some(value) => drop(write!(out, "{value:.decimals$}")),
        None => {}
    });
}
