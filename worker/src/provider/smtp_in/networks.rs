//! Networks in CIDR notation: who may relay without a password. Pure.

use std::fmt;
use std::net::IpAddr;

/// Networks with fewer bits hold strangers, whatever else they hold.
const OPEN_BITS_V4: u8 = 8;
const OPEN_BITS_V6: u8 = 16;

/// One network, such as `192.0.2.0/24`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `address/bits`, or an address alone. Bits behind the prefix must be 0, as they are a slip of the pen otherwise.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().ok()?;
        let width = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        let network = Self { base, bits };
        (bits <= width && network.prefix(base) == number(base)).then_some(network)
    }

    /// Whether an address is inside. An IPv4 address mapped into IPv6 counts as what it is.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && self.prefix(address) == number(self.base)
    }

    /// Whether it is so large that strangers are in it.
    pub(super) fn is_open(&self) -> bool {
        self.bits < if self.base.is_ipv4() { OPEN_BITS_V4 } else { OPEN_BITS_V6 }
    }

    fn prefix(&self, address: IpAddr) -> u128 {
        let width: u8 = if address.is_ipv4() { 32 } else { 128 };
        let host_bits = u32::from(width.saturating_sub(self.bits));
        let kept = number(address).checked_shr(host_bits).unwrap_or(0);
        kept.checked_shl(host_bits).unwrap_or(0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership() {
        let cases = [
            ("127.0.0.0/8", "127.3.4.5", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
            ("127.0.0.0/8", "::1", false),
            ("::1/128", "::1", true),
            ("::1", "::2", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("192.0.2.7", "192.0.2.7", true),
        ];
        for (network, address, inside) in cases {
            let network_of = Network::parse(network).unwrap();
            assert_eq!(network_of.contains(address.parse().unwrap()), inside, "{address} in {network}");
        }
    }

    #[test]
    fn slips_are_refused() {
        for text in ["", "127.0.0.0/33", "::/129", "127.0.0.1/8", "localhost", "127.0.0.0/", "127.0.0.0/+8", "10/8"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
