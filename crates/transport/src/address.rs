//! Networks of addresses: who may connect, and whose word about others is believed.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address, or all that begin with the same bits: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`.
///
/// An IPv4 address that came over an IPv6 socket (`::ffff:10.1.2.3`) is the IPv4 address, here as in what is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// What stands before the slash is no address.
    #[error("not an IP address; one looks like 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32")]
    Address,
    /// What stands behind the slash is no number of bits.
    #[error("what follows the slash is the number of leading bits: 0 to 32 for IPv4, 0 to 128 for IPv6")]
    Prefix,
    /// Bits behind the prefix are set, so that more was meant than is written, or less.
    #[error("the address has bits set behind its prefix")]
    Bits,
}

impl Network {
    /// The network of all addresses of this kind.
    #[must_use]
    pub fn all(kind: IpAddr) -> Self {
        match kind {
            IpAddr::V4(_) => Self { address: Ipv4Addr::UNSPECIFIED.into(), prefix_bits: 0 },
            IpAddr::V6(_) => Self { address: Ipv6Addr::UNSPECIFIED.into(), prefix_bits: 0 },
        }
    }

    /// Whether the address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= u32::from(self.prefix_bits)
            }
            _ => false,
        }
    }
}

/// Whether one of the networks has the address.
#[must_use]
pub fn contains(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix_bits: bits(address) }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(before, after)| (before, Some(after)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let prefix_bits = match prefix {
            None => bits(address),
            // `parse` would take a plus sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= bits(address)).ok_or(NetworkError::Prefix)?
            }
            Some(_) => return Err(NetworkError::Prefix),
        };
        let beyond = match address {
            IpAddr::V4(address) => address.to_bits().checked_shl(prefix_bits.into()).unwrap_or(0) != 0,
            IpAddr::V6(address) => address.to_bits().checked_shl(prefix_bits.into()).unwrap_or(0) != 0,
        };
        if beyond {
            return Err(NetworkError::Bits);
        }
        // A network within ::ffff:0:0/96 is one of IPv4.
        let network = match address.to_canonical() {
            canonical @ IpAddr::V4(_) if address.is_ipv6() => {
                prefix_bits.checked_sub(96).map(|prefix_bits| Self { address: canonical, prefix_bits })
            }
            _ => None,
        };
        Ok(network.unwrap_or(Self { address, prefix_bits }))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix_bits == bits(self.address) {
            return write!(f, "{}", self.address);
        }
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS as u8,
        IpAddr::V6(_) => Ipv6Addr::BITS as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_begins_as_they_do() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.128/25", "192.0.2.200", "192.0.2.127"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            // Attack L20: the same client by either kind of socket.
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("::ffff:192.0.2.1", "192.0.2.1", "::192.0.2.1"),
        ] {
            let parsed: Network = network.parse().expect(network);
            assert!(parsed.contains(inside.parse().unwrap()), "{network} has {inside}");
            assert!(!parsed.contains(outside.parse().unwrap()), "{network} has not {outside}");
            assert_eq!(parsed.to_string().parse::<Network>(), Ok(parsed));
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for (text, error) in [
            ("", NetworkError::Address),
            ("localhost", NetworkError::Address),
            ("10.0.0/8", NetworkError::Address),
            ("10.0.0.0/", NetworkError::Prefix),
            ("10.0.0.0/33", NetworkError::Prefix),
            ("10.0.0.0/+8", NetworkError::Prefix),
            ("::/129", NetworkError::Prefix),
            ("10.0.0.1/8", NetworkError::Bits),
            ("2001:db8::1/32", NetworkError::Bits),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }
}
