//! Blocks of IP addresses, for `cidrMatch`.

use std::net::IpAddr;

/// A block such as `10.0.0.0/8`; a lone address is a block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Left-aligned in 128 bits, cut to the prefix.
    network: u128,
    mask: u128,
    v4: bool,
}

/// An address as text; an IPv4 address mapped into IPv6 is an IPv4 address.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

impl Block {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            // `parse` would take a sign.
            Some(prefix) if prefix.bytes().all(|b| b.is_ascii_digit()) => {
                prefix.parse().ok().filter(|prefix| *prefix <= width)?
            }
            Some(_) => return None,
            None => width,
        };
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        let (bits, v4) = bits(address);
        Some(Self {
            network: bits & mask,
            mask,
            v4,
        })
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        let (bits, v4) = bits(address);
        v4 == self.v4 && bits & self.mask == self.network
    }
}

fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, true),
        IpAddr::V6(address) => (address.to_bits(), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_contain_their_addresses() {
        let cases = [
            ("192.168.0.0/16", "192.168.152.12", true),
            ("10.0.0.0/8", "192.168.152.12", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.4", false),
            ("10.1.2.3/8", "10.9.9.9", true),
            ("2001:db8::/32", "2001:db8:1::5", true),
            ("::/0", "2001:db8:1::5", true),
            ("fe80::/10", "fec0::1", false),
            ("127.0.0.0/8", "::ffff:127.0.0.1", true),
        ];
        for (block, text, expected) in cases {
            let block = Block::parse(block).unwrap();
            assert_eq!(block.contains(address(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_no_block() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
        ] {
            assert_eq!(Block::parse(text), None, "{text}");
        }
    }
}
