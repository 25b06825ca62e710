//! SOCKS5 (RFC 1928) with user name and password (RFC 1929).

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// A SOCKS5 proxy. It resolves the broker's name itself, as `socks5h` says.
#[derive(Clone, PartialEq, Eq)]
pub struct Socks5 {
    /// Its host.
    pub host: String,
    /// Its port, 1080 as a rule.
    pub port: u16,
    /// User name and password; each 1 to 255 bytes. Default: none.
    pub credentials: Option<(String, String)>,
}

// The password stays out of logs.
impl std::fmt::Debug for Socks5 {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Socks5").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// Why a proxy did not help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocksError {
    /// The connection to it failed.
    #[error("is not to be talked to: {0}")]
    Io(#[from] io::Error),
    /// It speaks something else.
    #[error("does not speak SOCKS5")]
    NotSocks,
    /// It wants credentials of a kind that we do not have.
    #[error("wants a way of authentication that was not given; user name and password may be missing")]
    NoMethod,
    /// Wrong credentials.
    #[error("refuses the user name or the password")]
    Credentials,
    /// A name or credential is longer than 255 bytes, or empty.
    #[error("takes names and credentials of 1 to 255 bytes")]
    Length,
    /// It could not connect.
    #[error("cannot connect to the broker: {}", reply(*.0))]
    Refused(u8),
}

fn reply(code: u8) -> &'static str {
    match code {
        2 => "its rules forbid it",
        3 => "the network cannot be reached",
        4 => "the host cannot be reached",
        5 => "the connection was refused",
        6 => "it took too long",
        7 => "it does not know the command",
        8 => "it does not know the kind of address",
        _ => "it failed",
    }
}

/// Has the proxy at the other end of `stream` connect to a broker.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &Socks5,
    host: &str,
    port: u16,
) -> Result<(), SocksError> {
    let methods: &[u8] =
        if proxy.credentials.is_some() { &[NO_AUTHENTICATION, USER_AND_PASSWORD] } else { &[NO_AUTHENTICATION] };
    let mut hello = vec![VERSION, methods.len() as u8];
    hello.extend_from_slice(methods);
    stream.write_all(&hello).await?;
    let [version, method] = read(stream).await?;
    match (version, method, &proxy.credentials) {
        (VERSION, NO_AUTHENTICATION, _) => {}
        (VERSION, USER_AND_PASSWORD, Some((user_name, password))) => {
            let mut packet = vec![1];
            put_short(&mut packet, user_name.as_bytes())?;
            put_short(&mut packet, password.as_bytes())?;
            stream.write_all(&packet).await?;
            let [_, status] = read(stream).await?;
            if status != 0 {
                return Err(SocksError::Credentials);
            }
        }
        (VERSION, NONE_ACCEPTABLE | USER_AND_PASSWORD, _) => return Err(SocksError::NoMethod),
        _ => return Err(SocksError::NotSocks),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match host.parse() {
        Ok(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        Err(_) => {
            request.push(NAME);
            put_short(&mut request, host.as_bytes())?;
        }
    }
    request.extend_from_slice(&port.to_be_bytes());
    stream.write_all(&request).await?;
    let [version, code, _, kind] = read(stream).await?;
    if version != VERSION {
        return Err(SocksError::NotSocks);
    }
    if code != 0 {
        return Err(SocksError::Refused(code));
    }
    // Where the proxy connected from says nothing to us, but has to be read.
    let address_bytes = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(read::<1, _>(stream).await?[0]),
        _ => return Err(SocksError::NotSocks),
    };
    let mut bound = [0; 255 + 2];
    stream.read_exact(&mut bound[..address_bytes + 2]).await?;
    Ok(())
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn put_short(packet: &mut Vec<u8>, bytes: &[u8]) -> Result<(), SocksError> {
    let length = u8::try_from(bytes.len()).ok().filter(|length| *length > 0).ok_or(SocksError::Length)?;
    packet.push(length);
    packet.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(credentials: Option<(&str, &str)>) -> Socks5 {
        let credentials = credentials.map(|(user, password)| (user.to_owned(), password.to_owned()));
        Socks5 { host: "proxy".to_owned(), port: 1080, credentials }
    }

    /// Runs a handshake with a proxy that says `answers`; what we said, and how it went.
    async fn dialogue(proxy: Socks5, host: &str, answers: &[u8]) -> (Vec<u8>, Result<(), SocksError>) {
        let (mut near, mut far) = tokio::io::duplex(1_024);
        far.write_all(answers).await.unwrap();
        let result = connect(&mut near, &proxy, host, 1883).await;
        drop(near);
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.unwrap();
        (said, result)
    }

    #[tokio::test]
    async fn a_name_is_left_to_the_proxy() {
        let answers = [5, 0, 5, 0, 0, 1, 127, 0, 0, 1, 0, 80];
        let (said, result) = dialogue(proxy(None), "broker.example", &answers).await;
        result.unwrap();
        assert_eq!(said, b"\x05\x01\x00\x05\x01\x00\x03\x0ebroker.example\x07\x5b");
    }

    #[tokio::test]
    async fn credentials_are_given_when_asked_for() {
        let answers = [5, 2, 1, 0, 5, 0, 0, 3, 1, b'x', 0, 80];
        let (said, result) = dialogue(proxy(Some(("user", "secret"))), "::1", &answers).await;
        result.unwrap();
        let expected =
            b"\x05\x02\x00\x02\x01\x04user\x06secret\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x07\x5b";
        assert_eq!(said, expected);
    }

    #[tokio::test]
    async fn what_goes_wrong_is_named() {
        let cases: [(&[u8], &str); 6] = [
            (&[5, 0xff], "wants a way of authentication"),
            (b"HTTP/1.1 400", "does not speak SOCKS5"),
            (&[5, 2, 1, 1], "refuses the user name"),
            (&[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0], "the connection was refused"),
            (&[5, 0, 5, 0, 0, 9, 0, 0], "does not speak SOCKS5"),
            (&[5, 0, 4, 0, 0, 1], "does not speak SOCKS5"),
        ];
        for (answers, words) in cases {
            let (_, result) = dialogue(proxy(Some(("user", "secret"))), "127.0.0.1", answers).await;
            let error = result.unwrap_err().to_string();
            assert!(error.contains(words), "{answers:?}: {error}");
        }
    }
}
