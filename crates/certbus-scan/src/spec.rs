//! Targets as people write them: names, addresses, ranges, ports. It looks nothing up and expands nothing into memory.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use certbus_core::name::DnsName;

use crate::starttls::Starttls;

/// `[PROTOCOL://]HOST[:PORT[-PORT][,PORT…]]`, where a host is a name, an address, or a range of addresses (CIDR).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Who.
    pub hosts: Hosts,
    /// First and last port of each range; empty if none was written.
    pub ports: Vec<(u16, u16)>,
    /// The protocol, if one was written: what is spoken before TLS.
    pub starttls: Option<Starttls>,
}

/// Who is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Every node of a name.
    Name(DnsName),
    /// Addresses from the first to the last, of one family.
    Addresses(IpAddr, IpAddr),
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no target: {why}")]
pub struct SpecError {
    /// What was given.
    pub text: String,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// No range is larger: four billion addresses are IPv4 as a whole.
const LARGEST_RANGE: u32 = 24;

impl Spec {
    /// Reads one target.
    ///
    /// # Errors
    /// [`SpecError`] naming the part at fault.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let refuse = |why: String| SpecError { text: text.to_owned(), why };
        let trimmed = text.trim();
        let (starttls, url, rest) = match trimmed.split_once("://") {
            None => (None, false, trimmed),
            Some((protocol, rest)) => match protocol.to_ascii_lowercase().as_str() {
                "https" | "tls" => (None, true, rest),
                protocol => (Some(protocol.parse().map_err(refuse)?), true, rest),
            },
        };
        // What is pasted from a browser has a path; a range has one that is a number.
        let is_range = |path: &str| path.starts_with(|c: char| c.is_ascii_digit());
        let rest = match rest.split_once('/') {
            Some((host, path)) if url && !(host.parse::<std::net::IpAddr>().is_ok() && is_range(path)) => host,
            _ => rest,
        };
        let (host, ports) = split(rest).map_err(|why| refuse(why.to_owned()))?;
        let ports = ports.map_or(Ok(Vec::new()), read_ports).map_err(refuse)?;
        Ok(Self { hosts: Hosts::read(host).map_err(refuse)?, ports, starttls })
    }

    /// Its ports, or the ones that are meant where none was written.
    pub fn each_port(&self, usual: u16) -> impl Iterator<Item = u16> {
        let usual = self.starttls.map_or(usual, Starttls::port);
        let ports = if self.ports.is_empty() { vec![(usual, usual)] } else { self.ports.clone() };
        ports.into_iter().flat_map(|(first, last)| first..=last)
    }

    /// How many hosts and ports it means, a name counted once.
    pub fn count(&self) -> u64 {
        let ports: u64 = self.ports.iter().map(|(first, last)| u64::from(last - first) + 1).sum();
        self.hosts.count() * ports.max(1)
    }
}

impl Hosts {
    fn read(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Addresses(address, address));
        }
        if let Some((_, zone)) = text.split_once('%') {
            let why = "link-local addresses are not scanned; write another address of that host, or its name";
            return Err(format!("it has a zone (%{zone}), and {why}"));
        }
        if let Some((address, bits)) = text.split_once('/') {
            return range(address, bits);
        }
        let name = DnsName::parse(text).map_err(|error| error.why)?;
        if name.is_wildcard() {
            return Err("a wildcard is no host; name one that it covers".into());
        }
        Ok(Self::Name(name))
    }

    /// How many there are, a name counted once.
    pub fn count(&self) -> u64 {
        match self {
            Self::Name(_) => 1,
            Self::Addresses(first, last) => {
                u64::try_from(number(*last) - number(*first)).unwrap_or(u64::MAX).saturating_add(1)
            }
        }
    }

    /// The addresses; none of a name.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (from, to, four) = match self {
            Self::Name(_) => (1, 0, true),
            Self::Addresses(first, last) => (number(*first), number(*last), first.is_ipv4()),
        };
        (from..=to).map(move |number| {
            if four { Ipv4Addr::from_bits(number as u32).into() } else { Ipv6Addr::from_bits(number).into() }
        })
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Addresses(first, last) if first == last => write!(f, "{first}"),
            Self::Addresses(first, last) => write!(f, "{first} to {last}"),
        }
    }
}

/// Host and ports: an IPv6 address with ports stands in brackets.
fn split(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("the `[` is never closed; write [2001:db8::1]:443")?;
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((host, Some(ports))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("only `:` and ports may follow the `]`; write [2001:db8::1]:443"),
        };
    }
    match text.split_once(':') {
        _ if text.is_empty() => Err("it is empty; write a name or an address"),
        None => Ok((text, None)),
        // More than one colon: IPv6.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((host, ports)) => Ok((host, Some(ports))),
    }
}

fn read_ports(text: &str) -> Result<Vec<(u16, u16)>, String> {
    let port = |text: &str| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{text}` is no port; write 443, 443,8443 or 8000-8100")),
    };
    let range = |text: &str| match text.split_once('-') {
        None => port(text).map(|port| (port, port)),
        Some((first, last)) => match (port(first)?, port(last)?) {
            (first, last) if first <= last => Ok((first, last)),
            _ => Err(format!("the ports `{text}` end before they begin")),
        },
    };
    text.split(',').map(range).collect()
}

fn range(address: &str, bits: &str) -> Result<Hosts, String> {
    let address: IpAddr = address.parse().map_err(|_| format!("`{address}` is no address; write 192.0.2.0/24"))?;
    let length = if address.is_ipv4() { 32 } else { 128 };
    let bits: u32 = bits
        .parse()
        .ok()
        .filter(|bits| *bits <= length)
        .ok_or_else(|| format!("`/{bits}` is no length of a prefix; write a number up to {length}"))?;
    let free = length - bits;
    if free > LARGEST_RANGE {
        return Err(format!(
            "more than 2^{LARGEST_RANGE} addresses; write a prefix of at least /{}",
            length - LARGEST_RANGE
        ));
    }
    let first = number(address) >> free << free;
    let last = first | ((1 << free) - 1);
    Ok(if address.is_ipv4() {
        Hosts::Addresses(Ipv4Addr::from_bits(first as u32).into(), Ipv4Addr::from_bits(last as u32).into())
    } else {
        Hosts::Addresses(Ipv6Addr::from_bits(first).into(), Ipv6Addr::from_bits(last).into())
    })
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Spec {
        Spec::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn ports(text: &str) -> Vec<u16> {
        parse(text).each_port(443).collect()
    }

    fn addresses(text: &str) -> Vec<String> {
        parse(text).hosts.addresses().map(|address| address.to_string()).collect()
    }

    #[test]
    fn names_addresses_ranges_and_ports_are_read_as_people_write_them() {
        assert_eq!(parse("Example.COM").hosts, Hosts::Name(DnsName::parse("example.com").unwrap()));
        assert_eq!(ports("example.com"), [443]);
        assert_eq!(ports("example.com:8443,9000-9002"), [8443, 9000, 9001, 9002]);
        assert_eq!(addresses("192.0.2.9"), ["192.0.2.9"]);
        assert_eq!(addresses("192.0.2.9/30"), ["192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11"]);
        assert_eq!(addresses("2001:db8::1"), ["2001:db8::1"]);
        assert_eq!((addresses("[2001:db8::1]:25"), ports("[2001:db8::1]:25")), (vec!["2001:db8::1".into()], vec![25]));
        assert_eq!(addresses("2001:db8::/127"), ["2001:db8::", "2001:db8::1"]);
        assert_eq!((parse("smtp://mx.test").starttls, ports("smtp://mx.test")), (Some(Starttls::Smtp), vec![25]));
        assert_eq!(ports("https://example.com:8443/a/path?b"), [8443]);
        assert_eq!(parse("10.0.0.0/8").count(), 1 << 24);
        assert_eq!(parse("10.0.0.0/24:1-10").count(), 2560);
    }

    #[test]
    fn what_is_no_target_is_refused_with_what_would_be_right() {
        for (text, words) in [
            ("", "it is empty"),
            ("exa mple", "character"),
            ("example.com:0", "`0` is no port"),
            ("example.com:99999", "is no port; write 443"),
            ("example.com:", "`` is no port"),
            ("example.com:20-10", "end before they begin"),
            ("10.0.0.0/33", "up to 32"),
            ("10.0.0.0/x", "up to 32"),
            ("2001:db8::/64", "at least /104"),
            ("0.0.0.0/0", "at least /8"),
            ("[2001:db8::1", "never closed"),
            ("[2001:db8::1]443", "may follow"),
            ("fe80::1%lo", "it has a zone (%lo)"),
            ("[fe80::1%eth0]:443", "write another address"),
            ("*.example.com", "a wildcard is no host"),
            ("gopher://example.com", "one of smtp"),
            ("example.com/24", "is no address"),
        ] {
            let error = Spec::parse(text).expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
