//! The language of `-F`, compiled.
//!
//! ```text
//! format     = { text | "%" field | "@" letter | "\" letter }
//! field      = [ "-" ] [ "0" ] [ width ] [ "." precision [ separator ] ] conversion
//! separator  = one character that is no letter, no digit and none of "%.-"; of %x and %X only
//! ```

/// The widest field, and the largest precision.
pub const WIDTH_MAX: usize = 65_535;

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pub(super) pieces: Vec<Piece>,
}

/// What is wrong with a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It ends behind `%` and what may follow it, or behind `@`.
    #[error("incomplete format specifier at its end; a literal % is %%, a literal @ is @@")]
    Incomplete,
    /// It ends behind a backslash.
    #[error("incomplete escape at its end; a literal \\ is \\\\")]
    IncompleteEscape,
    /// No conversion of this name.
    #[error("invalid format specifier '{0}'; known are %A C D d E F f I j J l m P p q R r S t U X x %")]
    Conversion(char),
    /// No escape of this name.
    #[error("invalid escape '\\{0}'; known are \\0 \\a \\e \\n \\r \\t \\v \\\\")]
    Escape(char),
    /// A separator where there are no groups.
    #[error("a separator such as '{0}' belongs to %x and %X only, as in %.2:x")]
    Separator(char),
    /// A number too large.
    #[error("width and precision are at most 65535")]
    Width,
}

/// A part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Bytes as they stand in the format.
    Literal(Box<[u8]>),
    /// Something of the message.
    Field { field: Field, space: Space },
    /// A conversion of strftime.
    Time(u8),
    /// Nanoseconds of the second.
    Nanoseconds,
}

/// How much room a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Space {
    /// On the left of it, with the padding on the right.
    pub left: bool,
    /// Padded with zeros.
    pub zeros: bool,
    /// The least bytes; 0 is no matter.
    pub width: usize,
    /// The most bytes; digits behind the point; hexadecimal digits of a group.
    pub precision: Option<usize>,
    /// Between groups.
    pub separator: u8,
}

/// What of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    TopicAlias,
    ContentType,
    CorrelationData,
    Double,
    MessageExpiryInterval,
    PayloadFormatIndicator,
    Float,
    IsoTime,
    Json,
    JsonOfJson,
    Length,
    PacketIdentifier,
    UserProperties,
    Payload,
    Qos,
    ResponseTopic,
    Retain,
    SubscriptionIdentifier,
    TopicName,
    UnixTime,
    HexLower,
    HexUpper,
}

impl Format {
    /// Compiles a format.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(format: &str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = format.chars();
        while let Some(character) = rest.next() {
            let piece = match character {
                '%' => match field(&mut rest)? {
                    Some(piece) => piece,
                    None => {
                        literal.push(b'%');
                        continue;
                    }
                },
                '@' => match rest.next().ok_or(FormatError::Incomplete)? {
                    '@' => {
                        literal.push(b'@');
                        continue;
                    }
                    'N' => Piece::Nanoseconds,
                    letter @ ' '..='~' => Piece::Time(letter as u8),
                    other => {
                        literal.push(b'%');
                        literal.extend(other.encode_utf8(&mut [0; 4]).as_bytes());
                        continue;
                    }
                },
                '\\' => {
                    literal.push(match rest.next().ok_or(FormatError::IncompleteEscape)? {
                        '\\' => b'\\',
                        '0' => 0,
                        'a' => 7,
                        'e' => 0x1b,
                        'n' => b'\n',
                        'r' => b'\r',
                        't' => b'\t',
                        'v' => 0x0b,
                        other => return Err(FormatError::Escape(other)),
                    });
                    continue;
                }
                other => {
                    literal.extend(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            flush(&mut literal, &mut pieces);
            pieces.push(piece);
        }
        flush(&mut literal, &mut pieces);
        Ok(Self { pieces })
    }
}

fn flush(literal: &mut Vec<u8>, pieces: &mut Vec<Piece>) {
    if !literal.is_empty() {
        pieces.push(Piece::Literal(std::mem::take(literal).into()));
    }
}

/// What follows a `%`; None for `%%`.
fn field(rest: &mut std::str::Chars<'_>) -> Result<Option<Piece>, FormatError> {
    let mut space = Space { separator: b' ', ..Space::default() };
    let mut next = rest.next().ok_or(FormatError::Incomplete)?;
    if next == '-' {
        space.left = true;
        next = rest.next().ok_or(FormatError::Incomplete)?;
    }
    if next == '0' {
        space.zeros = !space.left;
        next = rest.next().ok_or(FormatError::Incomplete)?;
    }
    space.width = number(&mut next, rest)?;
    let mut separator = None;
    if next == '.' {
        next = rest.next().ok_or(FormatError::Incomplete)?;
        space.precision = Some(number(&mut next, rest)?);
        if next.is_ascii_graphic() && !next.is_ascii_alphanumeric() && !"%.-".contains(next) || next == ' ' {
            separator = Some(next);
            space.separator = next as u8;
            next = rest.next().ok_or(FormatError::Incomplete)?;
        }
    }
    let field = match next {
        '%' => return Ok(None),
        'A' => Field::TopicAlias,
        'C' => Field::ContentType,
        'D' => Field::CorrelationData,
        'd' => Field::Double,
        'E' => Field::MessageExpiryInterval,
        'F' => Field::PayloadFormatIndicator,
        'f' => Field::Float,
        'I' => Field::IsoTime,
        'j' => Field::Json,
        'J' => Field::JsonOfJson,
        'l' => Field::Length,
        'm' => Field::PacketIdentifier,
        'P' => Field::UserProperties,
        'p' => Field::Payload,
        'q' => Field::Qos,
        'R' => Field::ResponseTopic,
        'r' => Field::Retain,
        'S' => Field::SubscriptionIdentifier,
        't' => Field::TopicName,
        'U' => Field::UnixTime,
        'x' => Field::HexLower,
        'X' => Field::HexUpper,
        other => return Err(FormatError::Conversion(other)),
    };
    match separator {
        Some(separator) if !matches!(field, Field::HexLower | Field::HexUpper) => {
            Err(FormatError::Separator(separator))
        }
        _ => Ok(Some(Piece::Field { field, space })),
    }
}

/// Reads digits from `next` on; leaves in `next` what follows them.
fn number(next: &mut char, rest: &mut std::str::Chars<'_>) -> Result<usize, FormatError> {
    let mut number = 0;
    while let Some(digit) = next.to_digit(10) {
        number = number * 10 + digit as usize;
        if number > WIDTH_MAX {
            return Err(FormatError::Width);
        }
        *next = rest.next().ok_or(FormatError::Incomplete)?;
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mosquitto_refuses_is_refused() {
        for (format, error) in [
            ("%", FormatError::Incomplete),
            ("%5", FormatError::Incomplete),
            ("abc%", FormatError::Incomplete),
            ("%-", FormatError::Incomplete),
            ("%0", FormatError::Incomplete),
            ("%.", FormatError::Incomplete),
            ("%5.3", FormatError::Incomplete),
            ("%.2:", FormatError::Incomplete),
            ("a@", FormatError::Incomplete),
            ("\\", FormatError::IncompleteEscape),
            ("%z", FormatError::Conversion('z')),
            ("%--5t", FormatError::Conversion('-')),
            ("%0-8l", FormatError::Conversion('-')),
            ("\\q", FormatError::Escape('q')),
            ("%.2:t", FormatError::Separator(':')),
            ("%65536t", FormatError::Width),
            ("%99999999999999999999t", FormatError::Width),
        ] {
            assert_eq!(Format::parse(format), Err(error), "{format}");
        }
    }

    #[test]
    fn literals_are_joined() {
        let format = Format::parse("a%%@@\\t%5%é%t").expect("it is one");
        assert_eq!(format.pieces.len(), 2);
        assert_eq!(format.pieces[0], Piece::Literal("a%@\t%é".as_bytes().into()));
    }
}
