//! What the fuzz targets check, as plain functions: `fuzz/` feeds them what a fuzzer makes up, `corpus.rs` beside this
//! folder the kept inputs, and both fail by a panic.

use pantala_proto::{Connect, DecodeError, FilterError, Packet, ProtocolVersion, TopicFilter, frame};

/// The packet size that the stream target's receiver allows.
const PACKET_BYTES_MAX: u32 = 1 << 20;

/// One target.
pub type Target = fn(&[u8]);

/// All of them by the names of their corpora.
#[allow(dead_code, reason = "the fuzz targets are one program each")]
pub const ALL: [(&str, Target); 4] = [("connect", connect), ("decode", decode), ("filter", filter), ("stream", stream)];

/// The version that an input's first byte asks for.
pub fn version(byte: u8) -> ProtocolVersion {
    [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5][usize::from(byte % 3)]
}

fn encode(version: ProtocolVersion, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

fn decode_whole(version: ProtocolVersion, bytes: &[u8]) -> Packet<'_> {
    match frame::split(bytes, u32::MAX) {
        Ok(frame::Split::Frame(frame)) if frame.packet_bytes == bytes.len() => {
            Packet::decode(version, frame.first_byte, frame.body).expect("what we encode can be decoded")
        }
        other => panic!("what we encode is one packet, not {other:?}"),
    }
}

/// A version, then a packet's first byte and body: no panic, and a packet that was decoded is the same after having
/// been encoded and decoded.
pub fn decode(input: &[u8]) {
    let [version_byte, first_byte, body @ ..] = input else { return };
    let version = version(*version_byte);
    let Ok(packet) = Packet::decode(version, *first_byte, body) else { return };
    let encoded = encode(version, &packet);
    let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
    let again = decode_whole(version, &encoded);
    assert_eq!(again, packet);
    assert_eq!(encode(version, &again), encoded);
}

/// The body of a CONNECT: as [`decode`]; further, the version is known before the rest is, and no prefix is a CONNECT.
pub fn connect(body: &[u8]) {
    let Ok(packet) = Connect::decode(body) else { return };
    assert_eq!(Connect::version_of(body), Some(packet.version));
    let mut encoded = Vec::new();
    packet.encode(&mut encoded);
    assert_eq!(decode_whole(packet.version, &encoded), Packet::Connect(packet.clone()));
    // MQTT 3.1 allows user name and password to be missing.
    if packet.version != ProtocolVersion::V31 && body.len() <= 512 {
        for cut in 0..body.len() {
            assert!(Connect::decode(&body[..cut]).is_err(), "{cut} bytes of {}", body.len());
        }
    }
}

/// A string: whether it is a Topic Filter is the same as when asked level by level.
pub fn filter(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let parsed = TopicFilter::parse(text);
    assert_eq!(parsed, filter_by_levels(text), "{text:?}");
    if let Ok(filter) = parsed {
        let levels: Vec<&str> = filter.filter().split('/').collect();
        assert_eq!(filter.has_wildcard(), levels.iter().any(|level| matches!(*level, "+" | "#")));
        assert_eq!(pantala_proto::topic_levels(filter.filter()), levels.len());
    }
}

/// v5 sections 4.7 and 4.8.2, word by word.
fn filter_by_levels(text: &str) -> Result<TopicFilter<'_>, FilterError> {
    let parts: Vec<&str> = text.splitn(3, '/').collect();
    if parts[0] == "$share" {
        return match parts[..] {
            [_, share_name, filter] if !share_name.is_empty() && !share_name.contains(['+', '#']) => {
                if filter.is_empty() {
                    return Err(FilterError::Share);
                }
                plain_by_levels(filter)
                    .map(|()| TopicFilter::Shared(pantala_proto::SharedFilter { share_name, filter }))
            }
            _ => Err(FilterError::Share),
        };
    }
    plain_by_levels(text).map(|()| TopicFilter::Plain(text))
}

fn plain_by_levels(filter: &str) -> Result<(), FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty);
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (at, level) in levels.iter().enumerate() {
        let wildcard = level.contains(['+', '#']);
        let alone = *level == "+" || (*level == "#" && at + 1 == levels.len());
        if wildcard && !alone {
            return Err(FilterError::Wildcard);
        }
    }
    Ok(())
}

/// A version, a number n, n lengths of chunks, then a stream of bytes: the stream gives the same packets and the same
/// error whether it comes whole, a byte at a time, or in those chunks.
pub fn stream(input: &[u8]) {
    let [version_byte, count, rest @ ..] = input else { return };
    let Some((lengths, bytes)) = rest.split_at_checked(usize::from(*count)) else { return };
    let version = version(*version_byte);
    let whole = read_chunks(version, bytes, &[bytes.len()]);
    assert_eq!(read_chunks(version, bytes, &[1]), whole);
    let lengths: Vec<usize> = lengths.iter().map(|length| usize::from(*length) + 1).collect();
    assert_eq!(read_chunks(version, bytes, &lengths), whole);
}

/// What a stream was: its packets, encoded again, and how it ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The packets.
    pub packets: Vec<Vec<u8>>,
    /// What was wrong after them.
    pub error: Option<DecodeError>,
    /// Bytes of a packet that is not whole.
    pub left: usize,
}

/// Feeds `bytes` to a receiver in chunks of `lengths`, over and over.
pub fn read_chunks(version: ProtocolVersion, bytes: &[u8], lengths: &[usize]) -> Outcome {
    let mut outcome = Outcome { packets: Vec::new(), error: None, left: 0 };
    let mut lengths = lengths.iter().copied().filter(|length| *length > 0).cycle();
    let mut buffer = Vec::new();
    let mut unread = bytes;
    // How many bytes the last `Incomplete` asked for: before there are as many, it must be incomplete still.
    let mut needed_before = 0;
    while !unread.is_empty() {
        let length = lengths.next().unwrap_or(unread.len()).min(unread.len());
        let (chunk, after) = unread.split_at(length);
        buffer.extend_from_slice(chunk);
        unread = after;
        loop {
            match frame::split(&buffer, PACKET_BYTES_MAX) {
                Ok(frame::Split::Frame(frame)) => {
                    assert!(buffer.len() >= needed_before, "complete before it could be");
                    match Packet::decode(version, frame.first_byte, frame.body) {
                        Ok(packet) => outcome.packets.push(encode(version, &packet)),
                        Err(error) => outcome.error = Some(error),
                    }
                    let packet_bytes = frame.packet_bytes;
                    buffer.drain(..packet_bytes);
                    needed_before = 0;
                }
                Ok(frame::Split::Incomplete { needed }) => {
                    assert!(needed > buffer.len(), "incomplete, but nothing is missing");
                    assert!(needed <= PACKET_BYTES_MAX as usize, "waits for what it will not take");
                    assert!(needed >= needed_before, "asks for less than before");
                    needed_before = needed;
                    break;
                }
                Err(error) => outcome.error = Some(error),
            }
            if outcome.error.is_some() {
                return outcome;
            }
        }
    }
    outcome.left = buffer.len();
    outcome
}
