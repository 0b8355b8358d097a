//! Which addresses a scanned certificate may lead to. Whoever made it chose them: it is no way into the scanner's own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address can be reached from, the most open first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reach {
    /// Everywhere.
    Public,
    /// A private network (RFC 1918, RFC 4193, RFC 6598 and the like).
    Private,
    /// This machine.
    Loopback,
    /// One link (RFC 3927, RFC 4291), or whatever a cloud answers to its machines alone, credentials among it.
    Link,
    /// No host has it.
    Nowhere,
}

/// Services of clouds for their own machines, wherever their addresses lie: Alibaba, Oracle, Azure.
const CLOUDS_V4: [[u8; 4]; 3] = [[100, 100, 100, 200], [192, 0, 0, 192], [168, 63, 129, 16]];

/// Whether a port is one where lists and certificates stand. Below 1024 are mail, shells and the like.
pub(super) fn is_open(port: u16) -> bool {
    port == 80 || port >= 1024
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
            octets if CLOUDS_V4.contains(&octets) => Self::Link,
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
            [0x64, 0xff9b, 1, ..] => Self::translated(address.to_bits()),
            // Services of clouds for their own machines: Amazon, Google, Scaleway.
            [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..] | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => Self::Link,
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] | [0x2001, 0xdb8, ..] => Self::Private,
            [0xfe80..=0xfebf, ..] => Self::Link,
            // Teredo hides an address of IPv4 (RFC 4380).
            [0x2001, 0, ..] => Self::Nowhere,
            [0x2000..=0x3fff, ..] => Self::Public,
            _ => Self::Nowhere,
        }
    }

    /// Translated from IPv4 by a network's own translator (RFC 8215): private, unless it hides what is less open in any of the
    /// places where it may stand (RFC 6052 section 2.2).
    fn translated(bits: u128) -> Self {
        let places = [
            bits >> 64 << 16 & 0xffff_0000 | bits >> 40 & 0xffff,
            bits >> 64 << 24 & 0xff00_0000 | bits >> 32 & 0xff_ffff,
            bits >> 24,
            bits,
        ];
        let hidden = places.map(|bits| Self::of_v4(Ipv4Addr::from_bits(bits as u32)));
        hidden.into_iter().filter(|reach| *reach != Self::Nowhere).fold(Self::Private, Self::max)
    }

    /// Why an address is not connected to for a node that is itself of this reach; None if it is. `private`: those of private
    /// networks and of this machine are too.
    pub(super) fn refuses(self, address: IpAddr, private: bool) -> Option<String> {
        match Self::of(address) {
            Self::Public => None,
            Self::Link => Some(format!("{address} is a link-local address or a cloud's own, which are never asked")),
            Self::Nowhere => Some(format!("{address} is an address of no host")),
            its if its == self || private => None,
            its => {
                let told = if its == Self::Private { "a private address" } else { "an address of this machine" };
                Some(format!("{address} is {told}, and the node's is not; see --fetch-private"))
            }
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
            (Reach::Private, &["64:ff9b:1::909:909", "64:ff9b:1::a00:1", "64:ff9b:1:a00:0:100::"]),
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
    fn what_a_cloud_answers_to_its_machines_alone_is_never_asked_however_it_is_written() {
        let metadata = ["169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"];
        let others = ["fd20:ce::254", "fd00:42::42", "fe80::a9fe:a9fe", "::ffff:168.63.129.16", "2002:a83f:8110::"];
        // Behind translators: the well-known prefix, and a network's own of 48, 56, 64 and 96 bits.
        let translated = ["64:ff9b::6464:64c8", "64:ff9b:1:a9fe:a9:fe00::", "64:ff9b:1:a9:fe:a9fe::"];
        let more = ["64:ff9b:1:0:a9:fea9:fe00:0", "64:ff9b:1:5:6:7:a83f:8110", "2001:0:a9fe:a9fe::"];
        for address in metadata.into_iter().chain(others).chain(translated).chain(more) {
            let address = address.parse().unwrap();
            for node in [Reach::Public, Reach::Private, Reach::Loopback, Reach::Link, Reach::Nowhere] {
                assert!(node.refuses(address, true).is_some(), "{address} for {node:?}");
            }
        }
    }

    #[test]
    fn a_node_leads_to_public_addresses_and_to_those_of_its_own_kind_and_further_if_allowed() {
        let addresses: [IpAddr; 4] = ["9.9.9.9", "10.0.0.1", "::1", "169.254.1.1"].map(|text| text.parse().unwrap());
        let admitted = |reach: Reach, private| addresses.map(|address| reach.refuses(address, private).is_none());
        assert_eq!(admitted(Reach::Public, false), [true, false, false, false]);
        assert_eq!(admitted(Reach::Private, false), [true, true, false, false]);
        assert_eq!(admitted(Reach::Loopback, false), [true, false, true, false]);
        // Link-local addresses lead nowhere, not even to each other.
        assert_eq!(admitted(Reach::Link, false), [true, false, false, false]);
        assert_eq!(admitted(Reach::Public, true), [true, true, true, false]);
        assert!(Reach::Nowhere.refuses("0.0.0.0".parse().unwrap(), true).is_some());
    }

    #[test]
    fn no_port_of_mail_or_of_a_shell_is_asked() {
        assert!([80, 1024, 8080, 65_535].into_iter().all(is_open));
        assert!(![22, 25, 443, 1023].into_iter().any(is_open));
    }
}
