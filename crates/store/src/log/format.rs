//! The bytes of a segment: its header, frames, and the entries in them. `docs/format.md` says the same in words.
//!
//! All numbers are little-endian. Nothing here trusts a byte: lengths are checked against what is there.

/// The first bytes of each segment.
pub const MAGIC: [u8; 8] = *b"PANTALOG";
/// The only version there is.
pub const VERSION: u32 = 1;
/// Where the first frame begins.
pub const SEGMENT_HEADER: usize = 88;
/// What precedes the entries of a frame.
pub const FRAME_HEADER: usize = 32;
/// The entries of one frame are at most so many bytes, and a segment is at most one such frame.
pub const BODY_BYTES_MAX: usize = 1 << 30;
/// No segment is longer.
pub const SEGMENT_BYTES_MAX: u64 = (BODY_BYTES_MAX + 8192) as u64;

/// When this frame was written, everything before it in the log was on stable storage.
pub const ALL_BEFORE_SYNCED: u32 = 1;
/// The frame has copies that cleaning made.
pub const COPIES: u32 = 2;

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// What a segment says of itself and of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The length of the file.
    pub bytes: u32,
    /// Its number, as in its name.
    pub number: u64,
    /// The random number that begins each frame of this log.
    pub mark: u64,
    /// The sequence of its first frame; all frames ever written before have lower ones.
    pub first_sequence: u64,
    /// The number of the segment before it, 0 for none.
    pub previous: u64,
    /// Where the frames of that segment end. All before this is on stable storage.
    pub previous_end: u32,
    /// The sequence of the first frame of that segment.
    pub previous_first: u64,
    /// The oldest segment that was needed when this one was begun.
    pub oldest: u64,
    /// How many entries were live then: no more than a hint.
    pub live_entries: u64,
}

/// What the first bytes of a file turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderBytes {
    /// A header.
    Valid(SegmentHeader),
    /// A header of a version that we do not know.
    Version(u32),
    /// Anything else.
    Invalid,
}

impl SegmentHeader {
    /// Its bytes in a file.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.mark.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.oldest.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.live_entries.to_le_bytes());
        bytes[72..80].copy_from_slice(&self.previous_first.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..84]);
        bytes[84..88].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the beginning of a file.
    pub fn decode(bytes: &[u8]) -> HeaderBytes {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER>() else { return HeaderBytes::Invalid };
        if bytes[..8] != MAGIC || crc32fast::hash(&bytes[..84]) != u32_at(bytes, 84) {
            return HeaderBytes::Invalid;
        }
        match u32_at(bytes, 8) {
            VERSION => HeaderBytes::Valid(SegmentHeader {
                bytes: u32_at(bytes, 12),
                number: u64_at(bytes, 16),
                mark: u64_at(bytes, 24),
                first_sequence: u64_at(bytes, 32),
                previous: u64_at(bytes, 40),
                previous_end: u32_at(bytes, 48),
                oldest: u64_at(bytes, 56),
                live_entries: u64_at(bytes, 64),
                previous_first: u64_at(bytes, 72),
            }),
            version => HeaderBytes::Version(version),
        }
    }
}

/// Fills in the header of a frame whose body is in place.
pub fn seal(frame: &mut [u8], mark: u64, sequence: u64, entries: u32, flags: u32) {
    let body = (frame.len() - FRAME_HEADER) as u32;
    frame[..8].copy_from_slice(&mark.to_le_bytes());
    frame[8..16].copy_from_slice(&sequence.to_le_bytes());
    frame[16..20].copy_from_slice(&body.to_le_bytes());
    frame[20..24].copy_from_slice(&entries.to_le_bytes());
    frame[24..28].copy_from_slice(&flags.to_le_bytes());
    let crc = frame_crc(frame);
    frame[28..32].copy_from_slice(&crc.to_le_bytes());
}

fn frame_crc(frame: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&frame[..28]);
    crc.update(&frame[FRAME_HEADER..]);
    crc.finalize()
}

/// A frame as its header has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Its place in the order of all frames.
    pub sequence: u64,
    /// How many entries it has.
    pub entries: u32,
    /// [`ALL_BEFORE_SYNCED`] and [`COPIES`].
    pub flags: u32,
    /// Where its entries begin in the bytes it was read from.
    pub begin: usize,
    /// Where they end.
    pub end: usize,
}

impl Frame {
    /// Whether the flag is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// The header of a frame at this place, unchecked but for its mark and that it ends within `bytes`.
#[inline]
pub fn frame_header(bytes: &[u8], at: usize, mark: u64) -> Option<Frame> {
    let header = bytes.get(at..)?.first_chunk::<FRAME_HEADER>()?;
    if u64_at(header, 0) != mark {
        return None;
    }
    let begin = at + FRAME_HEADER;
    let end = begin.checked_add(u32_at(header, 16) as usize)?;
    if end > bytes.len() {
        return None;
    }
    Some(Frame { sequence: u64_at(header, 8), entries: u32_at(header, 20), flags: u32_at(header, 24), begin, end })
}

/// How long the body of the frame is that begins here, whether or not it is all there.
pub fn body_bytes(header: &[u8], mark: u64) -> Option<usize> {
    let header = header.first_chunk::<FRAME_HEADER>()?;
    (u64_at(header, 0) == mark).then(|| u32_at(header, 16) as usize)
}

/// Whether a frame is what was written.
#[inline]
pub fn is_intact(bytes: &[u8], frame: &Frame) -> bool {
    let whole = &bytes[frame.begin - FRAME_HEADER..frame.end];
    frame_crc(whole) == u32_at(&whole[..FRAME_HEADER], 28)
}

/// One entry of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The caller's kind.
    pub kind: u8,
    /// The caller's key.
    pub key: &'a [u8],
    /// What is put; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// Where it begins in the bytes it was read from.
    pub begin: usize,
    /// Where it ends.
    pub end: usize,
}

/// Reads the entry at this place. `None` if there is none that ends within `bytes`.
#[inline]
pub fn entry_at(bytes: &[u8], begin: usize) -> Option<Entry<'_>> {
    let (&[operation, kind], _) = bytes.get(begin..)?.split_first_chunk::<2>()?;
    let (key_bytes, key_begin) = varint(bytes, begin + 2)?;
    let key_end = key_begin.checked_add(key_bytes)?;
    let key = bytes.get(key_begin..key_end)?;
    match operation {
        PUT => {
            let (value_bytes, value_begin) = varint(bytes, key_end)?;
            let end = value_begin.checked_add(value_bytes)?;
            let value = bytes.get(value_begin..end)?;
            Some(Entry { kind, key, value: Some(value), begin, end })
        }
        DELETE => Some(Entry { kind, key, value: None, begin, end: key_end }),
        _ => None,
    }
}

/// Appends an entry that puts a value given in pieces.
pub fn push_put(bytes: &mut Vec<u8>, kind: u8, key: &[u8], value: &[&[u8]]) {
    let value_bytes: usize = value.iter().map(|piece| piece.len()).sum();
    bytes.reserve(12 + key.len() + value_bytes);
    bytes.extend_from_slice(&[PUT, kind]);
    push_varint(bytes, key.len());
    bytes.extend_from_slice(key);
    push_varint(bytes, value_bytes);
    for piece in value {
        bytes.extend_from_slice(piece);
    }
}

/// Appends an entry that deletes.
pub fn push_delete(bytes: &mut Vec<u8>, kind: u8, key: &[u8]) {
    bytes.extend_from_slice(&[DELETE, kind]);
    push_varint(bytes, key.len());
    bytes.extend_from_slice(key);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow. Lengths beyond `u32` are written as they
/// are and refused when read: the frame they are in is too long to be written at all.
fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

#[inline]
fn varint(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let mut value = 0u64;
    for position in 0..5 {
        let byte = *bytes.get(at + position)?;
        value |= u64::from(byte & 0x7f) << (7 * position);
        if byte < 0x80 {
            return Some((usize::try_from(value).ok()?, at + position + 1));
        }
    }
    None
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The name of a segment.
pub fn segment_name(number: u64) -> String {
    format!("{number:016}.log")
}

/// The number in the name of a segment.
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        let header = SegmentHeader {
            bytes: 4096,
            number: 7,
            mark: 0x0123_4567_89ab_cdef,
            first_sequence: 1 << 40,
            previous: 6,
            previous_end: 4000,
            previous_first: 77,
            oldest: 2,
            live_entries: 99,
        };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), HeaderBytes::Valid(header));
        assert_eq!(SegmentHeader::decode(&bytes[..87]), HeaderBytes::Invalid);
        bytes[50] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), HeaderBytes::Invalid);
    }

    #[test]
    fn a_header_of_a_later_version_is_known_as_one() {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..84]);
        bytes[84..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), HeaderBytes::Version(2));
    }

    #[test]
    fn entries_come_back_and_cut_ones_do_not() {
        let mut bytes = Vec::new();
        push_put(&mut bytes, 3, b"key", &[&[7; 100], &[8; 100]]);
        let first = bytes.len();
        push_delete(&mut bytes, 4, &[9; 300]);
        let entry = entry_at(&bytes, 0).unwrap();
        assert_eq!((entry.kind, entry.key, entry.end), (3, &b"key"[..], first));
        assert_eq!(entry.value.unwrap(), [[7; 100], [8; 100]].concat());
        let entry = entry_at(&bytes, first).unwrap();
        assert_eq!((entry.kind, entry.key, entry.value, entry.end), (4, &[9; 300][..], None, bytes.len()));
        for end in first..bytes.len() {
            assert_eq!(entry_at(&bytes[..end], first), None);
        }
    }

    #[test]
    fn names_have_sixteen_digits() {
        assert_eq!(segment_name(12), "0000000000000012.log");
        assert_eq!(segment_number("0000000000000012.log"), Some(12));
        for name in ["12.log", "0000000000000012.log.damaged", "+000000000000012.log", "lock"] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
