//! The PROXY protocol, versions 1 and 2: a header before all else, by which a load balancer tells whose connection it
//! passes on.
//!
//! Whoever reads one believes it, so the address it came from has to be asked first: a listener takes headers from those
//! it trusts, and from nobody else. Where a header is expected, a connection without one is an error; nothing is guessed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How a header of version 1 begins.
pub(crate) const V1_SIGNATURE: &[u8] = b"PROXY ";
/// How a header of version 2 begins.
pub(crate) const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, with its CR LF; the protocol says so.
pub const V1_BYTES_MAX: usize = 107;

/// The longest header of version 2. The protocol's addresses take 232 bytes at most; the rest is for values that are sent
/// along, such as the subject of a client certificate.
pub const V2_BYTES_MAX: usize = 4_096;

/// Bytes of a header of version 2 before its addresses.
const V2_FIXED_BYTES: usize = 16;

/// The versions that a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
    /// Either.
    Any,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// The proxy speaks for itself (a health check): its own address is the client's.
    Local,
    /// It passes a connection on.
    Proxied(Proxied),
}

/// A connection that a proxy passes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxied {
    /// The client's address; None if the proxy does not know, or it is a Unix socket's.
    pub source: Option<SocketAddr>,
    /// Where the client connected to; None as before.
    pub destination: Option<SocketAddr>,
    /// The TLS that the proxy has taken off; None if the client came without, or the proxy does not say.
    pub tls: Option<Tls>,
}

/// What a proxy says of the client's TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Such as `TLSv1.3`; None if not said.
    pub version: Option<Box<str>>,
    /// The client's certificate.
    pub certificate: Certificate,
    /// The common name in the client's certificate, whether verified or not; None if not said.
    pub common_name: Option<Box<str>>,
}

/// What a proxy says of the client's certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Certificate {
    /// There was none.
    #[default]
    None,
    /// There was one, which the proxy did not find valid.
    Unverified,
    /// There was one, and the proxy has verified it.
    Verified,
}

/// What is wrong with a header, or with what stands in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No header of a version that is taken here.
    Missing,
    /// A line of version 1 without its end within [`V1_BYTES_MAX`].
    LineTooLong,
    /// A line of version 1 that is not as the protocol has it.
    Line,
    /// A header of version 2 that says it is longer than [`V2_BYTES_MAX`].
    HeaderTooLong,
    /// A version or command that is not known.
    Command,
    /// A family of addresses that is not known, or one of datagrams.
    Family,
    /// The header ends within its addresses.
    Addresses,
    /// A value beyond the end of the header, or of the value it is in.
    Value,
    /// A value that is there once, twice: two readers might take different ones.
    Twice,
    /// The checksum is of other bytes.
    Checksum,
}

impl Error {
    /// In words, for the log.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Missing => "no PROXY header of a version that this listener takes",
            Self::LineTooLong => "the PROXY line has no end within 107 bytes",
            Self::Line => "the PROXY line cannot be read",
            Self::HeaderTooLong => "the PROXY header is longer than 4096 bytes",
            Self::Command => "the PROXY header has an unknown version or command",
            Self::Family => "the PROXY header has addresses of an unknown kind",
            Self::Addresses => "the PROXY header ends within its addresses",
            Self::Value => "a value in the PROXY header is longer than the header",
            Self::Twice => "the PROXY header has a value twice that can be there once",
            Self::Checksum => "the checksum of the PROXY header is wrong",
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.words())
    }
}

impl std::error::Error for Error {}

/// Reads a header that comes in parts.
#[derive(Debug, Default)]
pub struct Reader {
    /// What has come so far, if that is no whole header: [`V2_BYTES_MAX`] at most.
    kept: Vec<u8>,
}

impl Reader {
    /// Takes the next bytes. With the header it returns how many of `bytes` belong to it; None if more are needed, and
    /// then all are taken.
    ///
    /// # Errors
    /// As soon as no bytes to come could make it right.
    pub fn receive(&mut self, versions: Versions, bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
        if self.kept.is_empty() {
            let parsed = parse(versions, bytes)?;
            if parsed.is_none() {
                self.kept.extend_from_slice(bytes);
            }
            return Ok(parsed);
        }
        let before = self.kept.len();
        // A header is not longer than this, and what follows it is not to be copied.
        self.kept.extend_from_slice(&bytes[..bytes.len().min(V2_BYTES_MAX - before)]);
        let Some((header, used)) = parse(versions, &self.kept)? else { return Ok(None) };
        self.kept = Vec::new();
        Ok(Some((header, used - before)))
    }
}

/// Reads the header that `bytes` begin with; returns it with its length, and None if it is not whole.
///
/// # Errors
/// As soon as no bytes to come could make it right.
pub fn parse(versions: Versions, bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
    let begins = |text: &[u8]| bytes.iter().zip(text).all(|(byte, expected)| byte == expected);
    if versions != Versions::V2 && begins(V1_SIGNATURE) {
        return parse_line(bytes);
    }
    if versions != Versions::V1 && begins(V2_SIGNATURE) {
        return parse_binary(bytes);
    }
    Err(Error::Missing)
}

fn parse_line(bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if bytes.len() < V1_BYTES_MAX { Ok(None) } else { Err(Error::LineTooLong) };
    };
    let line = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok()).ok_or(Error::Line)?;
    let proxied = line_addresses(line).ok_or(Error::Line)?;
    Ok(Some((Header::Proxied(proxied), end + 1)))
}

fn line_addresses(line: &str) -> Option<Proxied> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(Proxied::default());
    }
    let [source, destination, source_port, destination_port] = std::array::from_fn(|_| words.next());
    if words.next().is_some() {
        return None;
    }
    let address = |word: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => word.parse().ok().map(IpAddr::V4),
            "TCP6" => word.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    // `parse` would take a plus sign, which two readers might take for two numbers.
    let port = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit()).then(|| word.parse().ok())?;
    Some(Proxied {
        source: Some(SocketAddr::new(address(source?)?, port(source_port?)?)),
        destination: Some(SocketAddr::new(address(destination?)?, port(destination_port?)?)),
        tls: None,
    })
}

fn parse_binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
    /// The commands, beside the version.
    const LOCAL: u8 = 0x20;
    const PROXY: u8 = 0x21;
    let command = bytes.get(12).copied();
    if command.is_some_and(|command| !matches!(command, LOCAL | PROXY)) {
        return Err(Error::Command);
    }
    let Some(fixed) = bytes.first_chunk::<V2_FIXED_BYTES>() else { return Ok(None) };
    let header_bytes = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if header_bytes > V2_BYTES_MAX {
        return Err(Error::HeaderTooLong);
    }
    let Some(header) = bytes.get(..header_bytes) else { return Ok(None) };
    if command == Some(LOCAL) {
        // Whatever follows is to be ignored.
        return Ok(Some((Header::Local, header_bytes)));
    }
    let rest = &header[V2_FIXED_BYTES..];
    let mut proxied = Proxied::default();
    let values = match fixed[13] {
        // Unspecified: there are no addresses, or none that mean something.
        0x00 => rest,
        0x11 => {
            let (addresses, values) = rest.split_first_chunk::<12>().ok_or(Error::Addresses)?;
            let [a, b, c, d, e, f, g, h, source_port @ .., i, j] = *addresses;
            proxied.source = Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes(source_port)).into());
            proxied.destination = Some((Ipv4Addr::new(e, f, g, h), u16::from_be_bytes([i, j])).into());
            values
        }
        0x21 => {
            let (source, after) = rest.split_first_chunk::<16>().ok_or(Error::Addresses)?;
            let (destination, after) = after.split_first_chunk::<16>().ok_or(Error::Addresses)?;
            let (&[a, b, c, d], values) = after.split_first_chunk::<4>().ok_or(Error::Addresses)?;
            proxied.source = Some((Ipv6Addr::from(*source), u16::from_be_bytes([a, b])).into());
            proxied.destination = Some((Ipv6Addr::from(*destination), u16::from_be_bytes([c, d])).into());
            values
        }
        // A stream of Unix sockets: two paths of 108 bytes.
        0x31 => rest.get(216..).ok_or(Error::Addresses)?,
        _ => return Err(Error::Family),
    };
    let checked = values_offset(header, values);
    // Those that mean something here. Of the others some may be there several times: paddings, and what a cloud adds.
    let (mut sums, mut tls) = (0, None);
    for_each_value(values, |kind, at, value| {
        match kind {
            CRC32C => {
                sums += 1;
                if sums > 1 {
                    return Err(Error::Twice);
                }
                let sum = value.try_into().map(u32::from_be_bytes).map_err(|_| Error::Value)?;
                if crc32c(header, checked + at) != sum {
                    return Err(Error::Checksum);
                }
            }
            SSL => put_once(&mut tls, parse_tls(value)?)?,
            _ => {}
        }
        Ok(())
    })?;
    proxied.tls = tls.flatten();
    Ok(Some((Header::Proxied(proxied), header_bytes)))
}

const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;

fn values_offset(header: &[u8], values: &[u8]) -> usize {
    header.len() - values.len()
}

/// Calls `take` with the kind of each value, where it stands, and the value.
fn for_each_value<'a>(
    values: &'a [u8],
    mut take: impl FnMut(u8, usize, &'a [u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rest = values;
    while !rest.is_empty() {
        let (&[kind, high, low], after) = rest.split_first_chunk::<3>().ok_or(Error::Value)?;
        let (value, after) =
            after.split_at_checked(usize::from(u16::from_be_bytes([high, low]))).ok_or(Error::Value)?;
        take(kind, values.len() - after.len() - value.len(), value)?;
        rest = after;
    }
    Ok(())
}

/// Keeps what may be there once.
fn put_once<T>(place: &mut Option<T>, value: T) -> Result<(), Error> {
    if place.replace(value).is_some() { Err(Error::Twice) } else { Ok(()) }
}

fn parse_tls(value: &[u8]) -> Result<Option<Tls>, Error> {
    /// Bits of the first byte.
    const TLS: u8 = 0x01;
    const CERTIFICATE_OF_CONNECTION: u8 = 0x02;
    const CERTIFICATE_OF_SESSION: u8 = 0x04;
    /// Kinds of values within.
    const VERSION: u8 = 0x21;
    const COMMON_NAME: u8 = 0x22;
    let (&[client, verified @ ..], values) = value.split_first_chunk::<5>().ok_or(Error::Value)?;
    let certificate =
        match (client & (CERTIFICATE_OF_CONNECTION | CERTIFICATE_OF_SESSION), u32::from_be_bytes(verified)) {
            (0, _) => Certificate::None,
            (_, 0) => Certificate::Verified,
            _ => Certificate::Unverified,
        };
    let mut tls = Tls { certificate, ..Tls::default() };
    for_each_value(values, |kind, _, value| {
        let text = || std::str::from_utf8(value).map(Box::from).map_err(|_| Error::Value);
        match kind {
            VERSION => put_once(&mut tls.version, text()?),
            COMMON_NAME => put_once(&mut tls.common_name, text()?),
            _ => Ok(()),
        }
    })?;
    Ok((client & TLS != 0).then_some(tls))
}

/// The checksum of a header as it was before its four bytes, from `at` on, were filled in. Bit by bit: a header is short
/// and comes once.
fn crc32c(header: &[u8], at: usize) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let bytes = header.iter().enumerate().map(|(place, byte)| if (at..at + 4).contains(&place) { 0 } else { *byte });
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { POLYNOMIAL } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2: command, family, and what follows.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn value(kind: u8, bytes: &[u8]) -> Vec<u8> {
        [&[kind], &u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xc0, 0x00, 0x07, 0x5b];

    fn addresses(source: &str, destination: &str) -> Header {
        let parse = |text: &str| Some(text.parse().unwrap());
        Header::Proxied(Proxied { source: parse(source), destination: parse(destination), tls: None })
    }

    fn check(name: &str, bytes: &[u8], expected: Result<Header, Error>) {
        // The MQTT bytes behind a header are not its own, and cuts change nothing.
        let stream = [bytes, b"\x10\x0c"].concat();
        let whole = Reader::default().receive(Versions::Any, &stream);
        assert_eq!(whole, expected.clone().map(|header| Some((header, bytes.len()))), "{name}");
        let mut reader = Reader::default();
        let mut result = Ok(None);
        for (place, byte) in stream.iter().enumerate() {
            result =
                reader.receive(Versions::Any, &[*byte]).map(|done| done.map(|(header, used)| (header, place + used)));
            if result != Ok(None) {
                break;
            }
        }
        assert_eq!(result, expected.map(|header| Some((header, bytes.len()))), "{name}, byte by byte");
    }

    #[test]
    fn lines_of_version_1() {
        check(
            "IPv4",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 49152 1883\r\n",
            Ok(addresses("192.0.2.7:49152", "10.0.0.1:1883")),
        );
        check("IPv6", b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n", Ok(addresses("[2001:db8::7]:65535", "[::1]:0")));
        check("unknown", b"PROXY UNKNOWN\r\n", Ok(Header::Proxied(Proxied::default())));
        check("unknown with more", b"PROXY UNKNOWN ff::1 x y\r\n", Ok(Header::Proxied(Proxied::default())));
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 16));
        assert_eq!(longest.len(), V1_BYTES_MAX);
        check("longest", longest.as_bytes(), Ok(Header::Proxied(Proxied::default())));
        let longer = format!("PROXY UNKNOWN {}\r\n", "f".repeat(V1_BYTES_MAX - 15));
        check("longer", longer.as_bytes(), Err(Error::LineTooLong));
        for wrong in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 49152 1883\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 49152\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 49152 1883 1\r\n",
            "PROXY TCP4 192.0.2.7  10.0.0.1 49152 1883\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +1 1883\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 65536 1883\r\n",
            "PROXY TCP4 192.0.2.007 10.0.0.1 1 1\r\n",
            "PROXY TCP4 ::1 ::1 1 1\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 1 1\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 1\r\n",
            "PROXY \r\n",
            "PROXY é\r\n",
        ] {
            check(wrong, wrong.as_bytes(), Err(Error::Line));
        }
    }

    #[test]
    fn headers_of_version_2() {
        let of_ipv4 = addresses("192.0.2.7:49152", "10.0.0.1:1883");
        check("IPv4", &binary(0x21, 0x11, &IPV4), Ok(of_ipv4.clone()));
        let mut ipv6 = [0; 36];
        (ipv6[15], ipv6[31], ipv6[33], ipv6[35]) = (1, 2, 3, 4);
        check("IPv6", &binary(0x21, 0x21, &ipv6), Ok(addresses("[::1]:3", "[::2]:4")));
        check("Unix", &binary(0x21, 0x31, &[b'/'; 216]), Ok(Header::Proxied(Proxied::default())));
        check("unspecified", &binary(0x21, 0x00, &[]), Ok(Header::Proxied(Proxied::default())));
        check("local", &binary(0x20, 0x00, &[]), Ok(Header::Local));
        check("local with addresses", &binary(0x20, 0x11, &IPV4), Ok(Header::Local));
        check("local with anything", &binary(0x20, 0xff, &[1; 7]), Ok(Header::Local));
        let ignored = [&IPV4[..], &value(0x04, &[0; 9]), &value(0x05, b"id"), &value(0xe0, b"")].concat();
        let ignored = [ignored, value(0x04, b""), value(0xe0, b"more"), value(0x01, b"mqtt")].concat();
        check("values nobody asked for", &binary(0x21, 0x11, &ignored), Ok(of_ipv4.clone()));
        let longest = [&IPV4[..], &value(0x04, &[0; V2_BYTES_MAX - 16 - 12 - 3])].concat();
        check("longest", &binary(0x21, 0x11, &longest), Ok(of_ipv4));

        check("longer", &binary(0x21, 0x11, &[0; V2_BYTES_MAX - 15]), Err(Error::HeaderTooLong));
        check("version 1 in binary", &binary(0x11, 0x11, &IPV4), Err(Error::Command));
        check("command 2", &binary(0x22, 0x11, &IPV4), Err(Error::Command));
        check("datagrams", &binary(0x21, 0x12, &IPV4), Err(Error::Family));
        check("family 4", &binary(0x21, 0x41, &IPV4), Err(Error::Family));
        check("half an IPv4 address", &binary(0x21, 0x11, &IPV4[..11]), Err(Error::Addresses));
        check("IPv6 with addresses of IPv4", &binary(0x21, 0x21, &IPV4), Err(Error::Addresses));
        check("a short path", &binary(0x21, 0x31, &[b'/'; 215]), Err(Error::Addresses));
        check("half a value", &binary(0x21, 0x11, &[&IPV4[..], &[4, 0]].concat()), Err(Error::Value));
        check("a value beyond the end", &binary(0x21, 0x11, &[&IPV4[..], &[4, 0, 2, 0]].concat()), Err(Error::Value));
    }

    #[test]
    fn the_clients_tls() {
        let with = |tls: Vec<u8>| binary(0x21, 0x11, &[&IPV4[..], &value(SSL, &tls)].concat());
        let expected = |tls: Option<Tls>| {
            let Header::Proxied(plain) = addresses("192.0.2.7:49152", "10.0.0.1:1883") else { unreachable!() };
            Ok(Header::Proxied(Proxied { tls, ..plain }))
        };
        let names = [value(0x21, b"TLSv1.3"), value(0x23, b"cipher"), value(0x22, b"sensor")].concat();
        let tls = |certificate| {
            Some(Tls { version: Some("TLSv1.3".into()), certificate, common_name: Some("sensor".into()) })
        };
        let front = |client, verified| vec![client, 0, 0, 0, verified];
        check("verified", &with([front(0x07, 0), names.clone()].concat()), expected(tls(Certificate::Verified)));
        check("resumed", &with([front(0x05, 0), names.clone()].concat()), expected(tls(Certificate::Verified)));
        check("not verified", &with([front(0x03, 1), names.clone()].concat()), expected(tls(Certificate::Unverified)));
        check("no certificate", &with(front(0x01, 1)), expected(Some(Tls::default())));
        check("no TLS", &with(front(0x00, 1)), expected(None));
        check("too short", &with(vec![1, 0, 0, 0]), Err(Error::Value));
        check(
            "an inner value beyond the end",
            &with([front(1, 0), vec![0x22, 0, 9, b'x']].concat()),
            Err(Error::Value),
        );
        // The last one won: a proxy that passes on what its client sends would have let that choose its name.
        let named = |name: &[u8]| [front(7, 0), value(0x22, name)].concat();
        check("two names", &with([named(b"ann"), value(0x22, b"root")].concat()), Err(Error::Twice));
        check("two versions", &with([front(7, 0), value(0x21, b"a"), value(0x21, b"a")].concat()), Err(Error::Twice));
        for first in [named(b"ann"), front(0, 0)] {
            let both = [&IPV4[..], &value(SSL, &first), &value(SSL, &named(b"root"))].concat();
            check("TLS twice", &binary(0x21, 0x11, &both), Err(Error::Twice));
        }
        check("a name that is no text", &with([front(1, 0), value(0x22, &[0xff])].concat()), Err(Error::Value));
    }

    #[test]
    fn a_checksum_is_that_of_the_header_without_it() {
        // The check value of CRC-32C.
        assert_eq!(crc32c(b"123456789", 9), 0xe306_9283);
        let mut header = binary(0x21, 0x11, &[&IPV4[..], &value(CRC32C, &[0; 4]), &value(0x05, b"id")].concat());
        let at = 16 + 12 + 3;
        let sum = crc32c(&header, at);
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        check("right", &header, Ok(addresses("192.0.2.7:49152", "10.0.0.1:1883")));
        header[17] ^= 1;
        check("wrong", &header, Err(Error::Checksum));
        let two = [&IPV4[..], &value(CRC32C, &[0; 4]), &value(CRC32C, &[0; 4])].concat();
        let mut two = binary(0x21, 0x11, &two);
        let sum = crc32c(&two, at);
        two[at..at + 4].copy_from_slice(&sum.to_be_bytes());
        check("twice", &two, Err(Error::Twice));
        check("short", &binary(0x21, 0x11, &[&IPV4[..], &value(CRC32C, &[0; 3])].concat()), Err(Error::Value));
    }

    #[test]
    fn only_the_versions_that_are_taken_are_headers() {
        let line = b"PROXY UNKNOWN\r\n";
        let header = binary(0x20, 0, &[]);
        for (versions, first, second) in
            [(Versions::V1, true, false), (Versions::V2, false, true), (Versions::Any, true, true)]
        {
            assert_eq!(parse(versions, line).is_ok(), first, "{versions:?}");
            assert_eq!(parse(versions, &header).is_ok(), second, "{versions:?}");
            // The first wrong byte is enough: nobody waits for a header that does not come.
            assert_eq!(parse(versions, &[0x10]), Err(Error::Missing), "{versions:?}");
            assert_eq!(parse(versions, b"PROXX"), Err(Error::Missing), "{versions:?}");
            assert_eq!(parse(versions, b""), Ok(None), "{versions:?}");
        }
    }
}
