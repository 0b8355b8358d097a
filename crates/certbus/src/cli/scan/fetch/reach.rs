//! Which addresses a scanned certificate may lead to. Whoever made it chose them: it is no way into the scanner's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address can be reached from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Everywhere.
    Public,
    /// A private network (RFC 1918, RFC 4193, RFC 6598 and the like).
    Private,
    /// One link (RFC 3927, RFC 4291): clouds answer there with credentials.
    Link,
    /// This machine.
    Loopback,
    /// No host has it.
    Nowhere,
}

impl Reach {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [0, ..] | [224..=255, ..] => Self::Nowhere,
            [127, ..] => Self::Loopback,
            [169, 254, ..] => Self::Link,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            // Of protocols, of examples, of benchmarks (RFC 6890).
            [192, 0, 0 | 2, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => Self::Private,
            _ => Self::Public,
        }
    }

    fn of_v6(address: Ipv6Addr) -> Self {
        match address.segments() {
            _ if address == Ipv6Addr::LOCALHOST => Self::Loopback,
            // Translated from IPv4 (RFC 6052), and 6to4 (RFC 3056).
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                Self::of_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
            }
            [0x64, 0xff9b, 1, ..] | [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] | [0x2001, 0xdb8, ..] => {
                Self::Private
            }
            [0xfe80..=0xfebf, ..] => Self::Link,
            // Teredo hides an address of IPv4 (RFC 4380).
            [0x2001, 0, ..] => Self::Nowhere,
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Nowhere,
        }
    }

    /// Whether an address may be connected to for a node that is itself of this reach.
    pub(super) fn admits(self, address: IpAddr) -> bool {
        match Self::of(address) {
            Self::Public => true,
            Self::Nowhere => false,
            reach => reach == self,
        }
    }

    /// In words, for who is refused.
    pub(super) fn told(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::Link => "a link-local address",
            Self::Loopback => "an address of this machine",
            Self::Nowhere => "an address of no host",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_hides_another_is_of_the_reach_of_that_one() {
        for (reach, addresses) in [
            (Reach::Public, &["9.9.9.9", "2620:fe::9", "::ffff:9.9.9.9", "64:ff9b::909:909", "2002:909:909::1"][..]),
            (Reach::Private, &["10.1.2.3", "172.31.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1"]),
            (Reach::Private, &["64:ff9b::a00:1", "2002:a00:1::1", "64:ff9b:1::1", "2001:db8::1", "192.0.2.1"]),
            (Reach::Link, &["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"]),
            (Reach::Loopback, &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "2002:7f00:1::"]),
            (Reach::Nowhere, &["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::7f00:1"]),
        ] {
            for address in addresses {
                assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
            }
        }
    }

    #[test]
    fn a_node_leads_to_public_addresses_and_to_those_of_its_own_kind() {
        let (public, private): (IpAddr, IpAddr) = ("9.9.9.9".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let (metadata, itself): (IpAddr, IpAddr) = ("169.254.169.254".parse().unwrap(), "::1".parse().unwrap());
        let admitted = |reach: Reach| [public, private, metadata, itself].map(|address| reach.admits(address));
        assert_eq!(admitted(Reach::Public), [true, false, false, false]);
        assert_eq!(admitted(Reach::Private), [true, true, false, false]);
        assert_eq!(admitted(Reach::Link), [true, false, true, false]);
        assert_eq!(admitted(Reach::Loopback), [true, false, false, true]);
        assert!(!Reach::Nowhere.admits("0.0.0.0".parse().unwrap()));
    }
}
