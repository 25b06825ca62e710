//! The one question that is asked of the DNS here, and its answer: the SRV records of a name (RFC 1035, RFC 2782).
//!
//! Whoever can reach the socket can send an answer, so its bytes are believed to be nothing: lengths are checked before they are
//! used, compressed names lead back only, and there is a bound on everything.

/// Bytes of an answer by UDP that the question says we take (RFC 6891); more is no use, as it would come in fragments.
pub const UDP_BYTES_MAX: u16 = 1_232;
/// SRV records that are looked at; the others are passed over.
pub const RECORDS_MAX: usize = 64;
/// Aliases (CNAME) in a row.
const ALIASES_MAX: usize = 8;
/// Bytes of a name with its dots (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// Jumps within a name; each leads back, so that this only keeps the work small.
const JUMPS_MAX: usize = 32;
const HEADER_BYTES: usize = 12;

const TYPE_CNAME: u16 = 5;
const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
const NAME_DOES_NOT_EXIST: u8 = 3;

/// A server of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// The lowest is tried first.
    pub priority: u16,
    /// Among those of one priority the share of clients that try it first.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// Its name, without a dot at the end; empty says that there is no such service.
    pub target: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It answers something else: the right one may come yet.
    #[error("it answers another question")]
    Other,
    /// It was cut, and has to be asked for by TCP.
    #[error("it was cut")]
    Truncated,
    /// The server could not or would not answer.
    #[error("the name server says error {0}")]
    Refused(u8),
    /// It is no DNS message.
    #[error("it is malformed")]
    Malformed,
}

/// The question for the SRV records of `name`. None if that is no name.
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER_BYTES + name.len() + 17);
    out.extend(id.to_be_bytes());
    // Recursion desired; one question, and one record of additional data.
    out.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 1]);
    put_name(name, &mut out)?;
    out.extend(TYPE_SRV.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    // OPT of EDNS: root, type, size, no flags, no options.
    out.push(0);
    out.extend(TYPE_OPT.to_be_bytes());
    out.extend(UDP_BYTES_MAX.to_be_bytes());
    out.extend([0; 6]);
    Some(out)
}

fn put_name(name: &str, out: &mut Vec<u8>) -> Option<()> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=LABEL_BYTES_MAX as u8).contains(length))?;
        if !label.bytes().all(is_name_byte) {
            return None;
        }
        out.push(length);
        out.extend(label.as_bytes());
    }
    out.push(0);
    Some(())
}

/// What hosts and services are called by: `_mqtt`, `a-1`.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// The SRV records in the answer to [`question`], by aliases too; none if the name does not exist, or has none.
///
/// # Errors
/// See [`AnswerError`].
pub fn answer(bytes: &[u8], id: u16, name: &str) -> Result<Vec<Srv>, AnswerError> {
    let asked = name.strip_suffix('.').unwrap_or(name);
    let mut reader = Reader { bytes, at: 0 };
    let flags = {
        let of = reader.number()?;
        let flags = reader.number()?;
        let is_answer = flags & 0x8000 != 0;
        let is_query = flags & 0x7800 == 0;
        if of != id || !is_answer || !is_query {
            return Err(AnswerError::Other);
        }
        flags
    };
    let (questions, answers) = (reader.number()?, reader.number()?);
    reader.skip(4)?;
    // A server that does not like the question may leave it out.
    let code = (flags & 0x000f) as u8;
    if questions == 1 {
        let name = reader.name()?;
        let (kind, class) = (reader.number()?, reader.number()?);
        if !name.eq_ignore_ascii_case(asked) || kind != TYPE_SRV || class != CLASS_IN {
            return Err(AnswerError::Other);
        }
    } else if code == 0 || questions > 1 {
        return Err(AnswerError::Other);
    }
    if flags & 0x0200 != 0 {
        return Err(AnswerError::Truncated);
    }
    match code {
        0 => {}
        NAME_DOES_NOT_EXIST => return Ok(Vec::new()),
        code => return Err(AnswerError::Refused(code)),
    }
    let (mut aliases, mut found) = (Vec::new(), Vec::new());
    for _ in 0..answers {
        let owner = reader.name()?;
        let (kind, class) = (reader.number()?, reader.number()?);
        reader.skip(4)?;
        let length = usize::from(reader.number()?);
        let end = reader.at.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(AnswerError::Malformed)?;
        match kind {
            TYPE_CNAME if class == CLASS_IN && aliases.len() < ALIASES_MAX => aliases.push((owner, reader.name()?)),
            TYPE_SRV if class == CLASS_IN && found.len() < RECORDS_MAX => {
                let (priority, weight, port) = (reader.number()?, reader.number()?, reader.number()?);
                found.push((owner, Srv { priority, weight, port, target: reader.name()? }));
            }
            // What else is there was not asked for.
            _ => reader.at = end,
        }
        if reader.at != end {
            return Err(AnswerError::Malformed);
        }
    }
    let mut owner = asked.to_owned();
    for _ in 0..=aliases.len() {
        match aliases.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(&owner)) {
            Some((_, target)) => owner.clone_from(target),
            None => break,
        }
    }
    found.retain(|(of, _)| of.eq_ignore_ascii_case(&owner));
    Ok(found.into_iter().map(|(_, srv)| srv).collect())
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, AnswerError> {
        let byte = *self.bytes.get(self.at).ok_or(AnswerError::Malformed)?;
        self.at += 1;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u16, AnswerError> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn skip(&mut self, count: usize) -> Result<(), AnswerError> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len()).ok_or(AnswerError::Malformed)?;
        Ok(())
    }

    /// A name, which may go on elsewhere in the message; without a dot at the end.
    fn name(&mut self) -> Result<String, AnswerError> {
        let mut name = String::new();
        // Where the name stands, as long as it has not jumped; from there on the reader goes on behind it.
        let mut behind = None;
        // Each jump leads before the part that it is in.
        let mut part = self.at;
        for _ in 0..=JUMPS_MAX + NAME_BYTES_MAX {
            let length = self.byte()?;
            match length {
                0 => {
                    self.at = behind.unwrap_or(self.at);
                    return Ok(name);
                }
                1..=63 => {
                    let label = self.at..self.at + usize::from(length);
                    let label = self.bytes.get(label).ok_or(AnswerError::Malformed)?;
                    self.at += label.len();
                    if !name.is_empty() {
                        name.push('.');
                    }
                    if name.len() + label.len() > NAME_BYTES_MAX || !label.iter().copied().all(is_name_byte) {
                        return Err(AnswerError::Malformed);
                    }
                    name.extend(label.iter().copied().map(char::from));
                }
                0xc0..=0xff => {
                    let to = usize::from(length & 0x3f) << 8 | usize::from(self.byte()?);
                    behind.get_or_insert(self.at);
                    if to >= part {
                        return Err(AnswerError::Malformed);
                    }
                    (part, self.at) = (to, to);
                }
                _ => return Err(AnswerError::Malformed),
            }
        }
        Err(AnswerError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u16 = 0x1234;
    const NAME: &str = "_mqtt._tcp.example.org";

    /// The front of an answer: the question comes back.
    fn front(flags: u16, answers: u16) -> Vec<u8> {
        let mut bytes = question(ID, NAME).unwrap();
        bytes.truncate(bytes.len() - 11);
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&answers.to_be_bytes());
        bytes[11] = 0;
        bytes
    }

    fn record(owner: &[u8], kind: u16, data: &[u8], out: &mut Vec<u8>) {
        out.extend(owner);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 60]);
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }

    /// A pointer to the name of the question.
    const ASKED: &[u8] = &[0xc0, 12];

    #[test]
    fn the_question_is_what_rfc_1035_says() {
        let expected = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\
            \x05_mqtt\x04_tcp\x07example\x03org\x00\x00\x21\x00\x01\
            \x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
        assert_eq!(question(ID, NAME).as_deref(), Some(&expected[..]));
        assert_eq!(question(ID, "_mqtt._tcp.example.org."), question(ID, NAME));
        let long = format!("{}.org", "x".repeat(64));
        let longer = ["abc"; 64].join(".");
        for no_name in ["", "a..b", ".", ".a", "a b", "ä.org", &long, &longer] {
            assert_eq!(question(ID, no_name), None, "{no_name}");
        }
    }

    #[test]
    fn records_are_read_with_whole_and_compressed_names() {
        let mut bytes = front(0x8180, 2);
        record(ASKED, TYPE_SRV, b"\x00\x0a\x00\x05\x07\x5b\x01a\x07example\x03org\x00", &mut bytes);
        // `b`, and then from `example` on.
        record(ASKED, TYPE_SRV, b"\x00\x14\x00\x00\x22\xb3\x01b\xc0\x17", &mut bytes);
        let found = answer(&bytes, ID, NAME).unwrap();
        let expected = [(10, 5, 1883, "a.example.org"), (20, 0, 8883, "b.example.org")];
        let expected =
            expected.map(|(priority, weight, port, target)| Srv { priority, weight, port, target: target.to_owned() });
        assert_eq!(found, expected);
        assert_eq!(answer(&bytes, ID, "_MQTT._tcp.Example.org.").unwrap(), expected);
    }

    #[test]
    fn aliases_are_followed_and_other_records_passed_over() {
        let mut bytes = front(0x8180, 4);
        record(ASKED, TYPE_CNAME, b"\x05other\xc0\x17", &mut bytes);
        record(b"\x05other\xc0\x17", 99, b"whatever", &mut bytes);
        record(b"\x07strange\x03org\x00", TYPE_SRV, b"\0\0\0\0\0\x01\x01x\x00", &mut bytes);
        record(b"\x05other\xc0\x17", TYPE_SRV, b"\0\0\0\0\x07\x5b\x01h\x00", &mut bytes);
        let found = answer(&bytes, ID, NAME).unwrap();
        assert_eq!(found.iter().map(|srv| srv.target.as_str()).collect::<Vec<_>>(), ["h"]);
        // Two aliases that lead to each other.
        let mut bytes = front(0x8180, 2);
        record(ASKED, TYPE_CNAME, b"\x05other\xc0\x17", &mut bytes);
        record(b"\x05other\xc0\x17", TYPE_CNAME, ASKED, &mut bytes);
        assert_eq!(answer(&bytes, ID, NAME), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_answer_to_the_question_is_told_apart() {
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = front(0x8180, 0);
            change(&mut bytes);
            answer(&bytes, ID, NAME)
        };
        assert_eq!(with(&|_| {}), Ok(Vec::new()));
        assert_eq!(with(&|bytes| bytes[1] = 0), Err(AnswerError::Other));
        // A question, not an answer.
        assert_eq!(with(&|bytes| bytes[2] = 0x01), Err(AnswerError::Other));
        // For another name.
        assert_eq!(with(&|bytes| bytes[14] = b'q'), Err(AnswerError::Other));
        assert_eq!(with(&|bytes| bytes[2] = 0x83), Err(AnswerError::Truncated));
        assert_eq!(with(&|bytes| bytes[3] = 0x83), Ok(Vec::new()));
        assert_eq!(with(&|bytes| bytes[3] = 0x82), Err(AnswerError::Refused(2)));
        assert_eq!(with(&|bytes| bytes.truncate(20)), Err(AnswerError::Malformed));
        // More records than there are.
        assert_eq!(with(&|bytes| bytes[7] = 1), Err(AnswerError::Malformed));
        assert_eq!(answer(&[0x12, 0x34, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0], ID, NAME), Err(AnswerError::Refused(5)));
    }

    #[test]
    fn names_that_lead_nowhere_end() {
        for owner in [&[0xc0, 40][..], &[0xc0, 0xff], &[0xff, 0xff], &[0x40, 0], &[3, b'a'], &[1, b'\n', 0]] {
            let mut bytes = front(0x8180, 1);
            assert_eq!(bytes.len(), 40);
            record(owner, TYPE_SRV, b"\0\0\0\0\0\x01\x01x\x00", &mut bytes);
            assert_eq!(answer(&bytes, ID, NAME), Err(AnswerError::Malformed), "{owner:x?}");
        }
    }

    #[test]
    fn there_is_a_bound_on_records() {
        let mut bytes = front(0x8180, 200);
        for _ in 0..200 {
            record(ASKED, TYPE_SRV, b"\0\0\0\0\0\x01\x01x\x00", &mut bytes);
        }
        assert_eq!(answer(&bytes, ID, NAME).unwrap().len(), RECORDS_MAX);
    }
}
