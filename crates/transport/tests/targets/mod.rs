//! What the fuzz targets check, as plain functions: `fuzz/` feeds them what a fuzzer makes up, `corpus.rs` beside this
//! folder the kept inputs, and both fail by a panic.

use pantala_transport::proxy::{self, Versions};
use pantala_transport::websocket::{CloseCode, End, Handshake, Options, Refusal, Upgrade, WebSocket};

/// One target.
pub type Target = fn(&[u8]);

/// All of them by the names of their corpora.
#[allow(dead_code, reason = "the fuzz targets are one program each")]
pub const ALL: [(&str, Target); 3] =
    [("proxy", proxy), ("websocket-frames", websocket_frames), ("websocket-request", websocket_request)];

/// Splits the input: a number n, n lengths of chunks, and the bytes that are cut by them.
fn split(input: &[u8]) -> Option<(Vec<usize>, &[u8])> {
    let [count, rest @ ..] = input else { return None };
    let (lengths, bytes) = rest.split_at_checked(usize::from(*count))?;
    Some((lengths.iter().map(|length| usize::from(*length) + 1).collect(), bytes))
}

/// `bytes` in chunks of `lengths`, over and over; whole if there are none.
fn chunks<'a>(bytes: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut lengths = lengths.iter().copied().cycle();
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = lengths.next().unwrap_or(rest.len()).min(rest.len());
        let (chunk, after) = rest.split_at(length);
        rest = after;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// A stream that begins with a PROXY header: any cut gives the same header, the same end of it, and the same error.
pub fn proxy(input: &[u8]) {
    let Some((lengths, bytes)) = split(input) else { return };
    for versions in [Versions::V1, Versions::V2, Versions::Any] {
        let read = |lengths: &[usize]| {
            let mut reader = proxy::Reader::default();
            let mut before = 0;
            for chunk in chunks(bytes, lengths) {
                match reader.receive(versions, chunk) {
                    Ok(None) => before += chunk.len(),
                    Ok(Some((header, used))) => return Ok(Some((header, before + used))),
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        };
        let whole = read(&[]);
        assert_eq!(read(&[1]), whole, "{versions:?}");
        assert_eq!(read(&lengths), whole, "{versions:?}");
        match whole {
            Ok(Some((_, used))) => assert!(used <= bytes.len() && used <= proxy::V2_BYTES_MAX),
            Ok(None) => assert!(bytes.len() < proxy::V2_BYTES_MAX, "waits for what it will not take"),
            Err(_) => {}
        }
    }
}

/// A stream that begins with a request to upgrade: any cut gives the same answer.
pub fn websocket_request(input: &[u8]) {
    let Some((lengths, bytes)) = split(input) else { return };
    let options = Options { trusted: ["10.0.0.0/8".parse().expect("a network")].into(), ..Options::default() };
    let read = |lengths: &[usize]| -> Result<Option<(Upgrade, usize)>, Refusal> {
        let mut handshake = Handshake::default();
        let mut before = 0;
        for chunk in chunks(bytes, lengths) {
            match handshake.receive(&options, None, chunk)? {
                None => before += chunk.len(),
                Some((upgrade, used)) => return Ok(Some((upgrade, before + used))),
            }
        }
        Ok(None)
    };
    let whole = read(&[]);
    assert_eq!(read(&[1]), whole);
    assert_eq!(read(&lengths), whole);
    if let Ok(Some((upgrade, used))) = whole {
        assert!(bytes[..used].ends_with(b"\r\n\r\n") && bytes.starts_with(b"GET "));
        assert!(upgrade.response.starts_with(b"HTTP/1.1 101 ") && upgrade.response.ends_with(b"\r\n\r\n"));
    }
}

/// What a stream of frames was.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The MQTT bytes.
    pub mqtt: Vec<u8>,
    /// How it ended.
    pub end: Option<End>,
}

/// Feeds `bytes` to one end of a WebSocket in chunks of `lengths`; what it was, and the answers.
pub fn read_frames(bytes: &[u8], lengths: &[usize]) -> (Outcome, Vec<u8>) {
    let mut socket = WebSocket::default();
    let mut outcome = Outcome::default();
    let mut answers = Vec::new();
    for chunk in chunks(bytes, lengths) {
        let mut buffer = chunk.to_vec();
        let before = answers.len();
        let received = socket.receive(&mut buffer, &mut answers);
        assert!(answers.len() - before <= 2 * 127, "at most a Pong and a Close");
        outcome.mqtt.extend_from_slice(&buffer[received.mqtt]);
        if outcome.end.is_none() {
            outcome.end = received.end;
        } else {
            assert_eq!(received.end, None, "it ends once");
        }
    }
    (outcome, answers)
}

/// A stream of frames from a client: any cut gives the same MQTT bytes and the same end, all agree with frames read
/// one after the other as RFC 6455 has it, and what is answered is whole control frames.
pub fn websocket_frames(input: &[u8]) {
    let Some((lengths, bytes)) = split(input) else { return };
    let (whole, answers) = read_frames(bytes, &[]);
    assert_eq!(whole, model(bytes));
    check_answers(&answers, whole.end);
    for lengths in [&[1][..], &lengths] {
        let (parts, answers) = read_frames(bytes, lengths);
        assert_eq!(parts, whole);
        check_answers(&answers, whole.end);
    }
    let (mut socket, mut answers) = (WebSocket::default(), Vec::new());
    socket.close(CloseCode::Normal, &mut answers);
    socket.receive(&mut bytes.to_vec(), &mut answers);
    socket.send(b"late", &mut answers);
    assert_eq!(answers, [0x88, 2, 0x03, 0xe8], "one Close, and nothing behind it");
}

fn check_answers(mut answers: &[u8], end: Option<End>) {
    let mut last = None;
    while let [first, length, rest @ ..] = answers {
        assert!(matches!(first, 0x88 | 0x8a) && *length <= 125 && last != Some(0x88));
        last = Some(*first);
        answers = &rest[usize::from(*length)..];
    }
    assert!(answers.is_empty());
    assert_eq!(last == Some(0x88), end.is_some());
}

/// RFC 6455, sections 5.2 to 5.5, one frame after the other, on all bytes at once.
fn model(bytes: &[u8]) -> Outcome {
    let mut outcome = Outcome::default();
    let mut in_message = false;
    let mut rest = bytes.iter().copied();
    while outcome.end.is_none() {
        let Some(first) = rest.next() else { break };
        let (is_final, opcode) = (first >= 0x80, first & 0x0f);
        outcome.end = match opcode {
            _ if first & 0x70 != 0 => Some(End::ReservedBits),
            0 if !in_message => Some(End::Fragment),
            1 => Some(End::Text),
            2 if in_message => Some(End::Fragment),
            3..=7 | 11.. => Some(End::Opcode),
            8..=10 if !is_final => Some(End::Control),
            _ => None,
        };
        if outcome.end.is_some() {
            break;
        }
        let Some(second) = rest.next() else { break };
        let mut length = u64::from(second & 0x7f);
        outcome.end = match second {
            0..=0x7f => Some(End::Unmasked),
            _ if opcode >= 8 && length > 125 => Some(End::Control),
            _ => None,
        };
        let more = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if more > 0 && outcome.end.is_none() {
            let digits: Vec<u8> = rest.by_ref().take(more).collect();
            if digits.len() < more {
                break;
            }
            length = digits.iter().fold(0, |length, digit| length << 8 | u64::from(*digit));
            let least = if more == 2 { 126 } else { 65_536 };
            if length < least || length >> 63 == 1 {
                outcome.end = Some(End::Length);
            } else if length > 512 << 20 {
                outcome.end = Some(End::TooLong);
            }
        }
        if outcome.end.is_some() {
            break;
        }
        let mask: Vec<u8> = rest.by_ref().take(4).collect();
        if mask.len() < 4 {
            break;
        }
        let payload: Vec<u8> =
            rest.by_ref().take(length as usize).zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let is_whole = payload.len() as u64 == length;
        match opcode {
            0 | 2 => {
                in_message = !is_final;
                outcome.mqtt.extend(payload);
            }
            8 if is_whole => {
                let is_right = match &payload[..] {
                    [] => true,
                    [high, low, reason @ ..] => {
                        let code = u16::from_be_bytes([*high, *low]);
                        let is_code = (1000..5000).contains(&code)
                            && !(1015..3000).contains(&code)
                            && ![1004, 1005, 1006].contains(&code);
                        is_code && std::str::from_utf8(reason).is_ok()
                    }
                    [_] => false,
                };
                outcome.end = Some(if is_right { End::Closed } else { End::Close });
            }
            _ => {}
        }
    }
    outcome
}
