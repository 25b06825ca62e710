//! Ranges of addresses.

use std::net::IpAddr;
use std::str::FromStr;

/// The addresses that share a prefix, written `10.0.0.0/8` or `fd00::/8`; without a length it is one address.
///
/// An IPv4 address and the same one in IPv6 (`::ffff:10.0.0.1`) are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

/// A text that is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is an address, or an address, '/' and the bits of its prefix, with no bit set behind them")]
pub struct NetworkError;

impl Network {
    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(self.length)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length.parse::<u8>().map_err(|_| NetworkError)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let canonical = address.to_canonical();
        let bits: u8 = if canonical.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => bits,
            // The prefix of an IPv4 address in IPv6 counts the 96 bits before it.
            Some(length) if address.is_ipv6() && canonical.is_ipv4() => length.checked_sub(96).ok_or(NetworkError)?,
            Some(length) => length,
        };
        let has_rest = match canonical {
            _ if length > bits => return Err(NetworkError),
            IpAddr::V4(address) => address.to_bits().checked_shl(u32::from(length)).is_some_and(|rest| rest != 0),
            IpAddr::V6(address) => address.to_bits().checked_shl(u32::from(length)).is_some_and(|rest| rest != 0),
        };
        if has_rest {
            return Err(NetworkError);
        }
        Ok(Self { address: canonical, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_network() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "2001:db8::1", true),
            ("192.0.2.128/25", "192.0.2.127", false),
        ];
        for (network, address, inside) in cases {
            let network: Network = network.parse().expect(network);
            assert_eq!(network.contains(address.parse().expect(address)), inside, "{network:?} {address}");
        }
    }

    #[test]
    fn what_is_no_network() {
        for text in ["", "10.0.0.0/33", "10.0.0.1/8", "::1/64", "::/129", "10/8", "a", "10.0.0.0/", "::ffff:10.0.0.0/8"]
        {
            assert_eq!(text.parse::<Network>(), Err(NetworkError), "{text}");
        }
    }
}
