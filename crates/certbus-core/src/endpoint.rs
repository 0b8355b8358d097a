//! Endpoints: what can be asked for its certificate, and what people say of it. Parsed once, each field with its own error;
//! nothing here asks anybody.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::DnsName;
use crate::starttls::Starttls;
use crate::time::Span;

/// The port that is meant where none is written.
pub const USUAL_PORT: u16 = 443;

/// The site of a program that was told no other.
pub const USUAL_SITE: &str = "default";

/// A name with all its nodes, or one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Host {
    /// Every address of a name.
    Name(DnsName),
    /// One address.
    Address(IpAddr),
}

/// What makes an endpoint this one and no other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Whom to ask.
    pub host: Host,
    /// On which port.
    pub port: u16,
    /// The name in the ClientHello, if it is not the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<DnsName>,
    /// What is spoken before TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starttls: Option<Starttls>,
}

/// An endpoint as a person describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What people call it.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub key: Key,
    /// Words to group by.
    pub tags: BTreeSet<Word>,
    /// Who is to be told. Empty: nobody in particular.
    pub owner: String,
    /// From where it is polled.
    pub sites: BTreeSet<Word>,
    /// Whether it is polled.
    pub active: bool,
    /// How often, if not as often as usual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
}

/// An endpoint as it was written, field by field; None: not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// `[PROTOCOL://]HOST[:PORT]`, or the host alone.
    pub host: Option<String>,
    /// 1 to 65535.
    pub port: Option<String>,
    /// A DNS name; empty: the host's.
    pub sni: Option<String>,
    /// A protocol; empty or `none`: TLS from the begin.
    pub starttls: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// Words, separated by commas or spaces.
    pub tags: Option<String>,
    /// Any text of one line.
    pub owner: Option<String>,
    /// Words, separated by commas or spaces.
    pub sites: Option<String>,
    /// `yes` or `no`.
    pub active: Option<String>,
    /// `1h`; empty: as often as usual.
    pub interval: Option<String>,
}

/// What is wrong with a field, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{field}: {why}")]
pub struct FieldError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// A tag or a site: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, `:`, `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Word(Box<str>);

const LONGEST_TEXT: usize = 128;
const SHORTEST_INTERVAL: u64 = 60;
const LONGEST_INTERVAL: u64 = 30 * 86_400;

impl Endpoint {
    /// From what was written: every field at fault is named, not only the first.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn parse(written: &Written) -> Result<Self, Vec<FieldError>> {
        let blank = Self {
            name: String::new(),
            key: Key { host: Host::Address(IpAddr::from([0, 0, 0, 0])), port: 0, sni: None, starttls: None },
            tags: BTreeSet::new(),
            owner: String::new(),
            sites: BTreeSet::from([Word(USUAL_SITE.into())]),
            active: true,
            interval: None,
        };
        let written = Written { host: Some(written.host.clone().unwrap_or_default()), ..written.clone() };
        let mut endpoint = blank.with(&written)?;
        if endpoint.key.port == 0 {
            endpoint.key.port = endpoint.key.starttls.map_or(USUAL_PORT, Starttls::port);
        } else if written.starttls.is_none() && endpoint.key.starttls.is_none() {
            endpoint.key.starttls = Starttls::of_port(endpoint.key.port);
        }
        if endpoint.name.is_empty() {
            endpoint.name = endpoint.key.to_string();
        }
        Ok(endpoint)
    }

    /// The same with what was written now; what was not stays. A name that nobody gave follows what it names.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn edited(&self, written: &Written) -> Result<Self, Vec<FieldError>> {
        let mut edited = self.with(written)?;
        if edited.name.is_empty() || edited.name == self.key.to_string() {
            edited.name = edited.key.to_string();
        }
        Ok(edited)
    }

    fn with(&self, written: &Written) -> Result<Self, Vec<FieldError>> {
        let mut edited = self.clone();
        let mut errors = Vec::new();
        let mut set =
            |field: &'static str, given: &Option<String>, read: &mut dyn FnMut(&str) -> Result<(), String>| {
                if let Some(Err(why)) = given.as_deref().map(|text| read(text.trim())) {
                    errors.push(FieldError { field, why });
                }
            };
        set("host", &written.host, &mut |text| {
            let (starttls, host, port) = parse_place(text)?;
            edited.key.host = host;
            edited.key.port = port.unwrap_or(edited.key.port);
            edited.key.starttls = starttls.or(edited.key.starttls);
            Ok(())
        });
        set("port", &written.port, &mut |text| parse_port(text).map(|port| edited.key.port = port));
        set("sni", &written.sni, &mut |text| {
            edited.key.sni = match text {
                "" => None,
                text => Some(DnsName::parse(text).map_err(|error| error.to_string())?),
            };
            match &edited.key.sni {
                // The host is asked for anyway: two endpoints that ask the same are one.
                Some(name) if Host::Name(name.clone()) == edited.key.host => {
                    edited.key.sni = None;
                    Ok(())
                }
                Some(name) if name.is_wildcard() => Err("a wildcard is no name to ask for; write one it covers".into()),
                _ => Ok(()),
            }
        });
        set("starttls", &written.starttls, &mut |text| {
            edited.key.starttls = match text {
                "" | "none" => None,
                text => Some(text.parse()?),
            };
            Ok(())
        });
        set("name", &written.name, &mut |text| one_line(text).map(|text| edited.name = text));
        set("tags", &written.tags, &mut |text| Word::all(text).map(|tags| edited.tags = tags));
        set("owner", &written.owner, &mut |text| one_line(text).map(|text| edited.owner = text));
        set("sites", &written.sites, &mut |text| {
            let sites = Word::all(text)?;
            if sites.is_empty() {
                return Err(format!("it is polled from nowhere; write a site, such as {USUAL_SITE}"));
            }
            edited.sites = sites;
            Ok(())
        });
        set("active", &written.active, &mut |text| {
            edited.active = match text.to_ascii_lowercase().as_str() {
                "yes" | "true" | "1" | "on" => true,
                "no" | "false" | "0" | "off" => false,
                _ => return Err(format!("`{text}` is neither; write yes or no")),
            };
            Ok(())
        });
        set("interval", &written.interval, &mut |text| {
            edited.interval = match text {
                "" => None,
                text => {
                    let span: Span = text.parse()?;
                    if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&span.duration().as_secs()) {
                        return Err(format!("{span} is not from 1m to 30d"));
                    }
                    Some(span)
                }
            };
            Ok(())
        });
        if errors.is_empty() { Ok(edited) } else { Err(errors) }
    }
}

impl Key {
    /// The name that visitors ask for, if there is one: what its certificate has to be for.
    pub fn asked_for(&self) -> Option<&DnsName> {
        self.sni.as_ref().or(match &self.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        })
    }
}

/// `[PROTOCOL://]HOST[:PORT]`.
fn parse_place(text: &str) -> Result<(Option<Starttls>, Host, Option<u16>), String> {
    let text = text.trim();
    let (starttls, url, rest) = match text.split_once("://") {
        None => (None, false, text),
        Some(("https" | "tls", rest)) => (None, true, rest),
        Some((protocol, rest)) => (Some(protocol.parse()?), true, rest),
    };
    let rest = if url { rest.split('/').next().unwrap_or(rest) } else { rest };
    let (host, port) = match rest.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((host, ""))) => (host, None),
        Some(Some((host, port))) if port.starts_with(':') => (host, port.get(1..)),
        Some(_) => return Err(format!("`{rest}` is half an address; write [2001:db8::1]:443")),
        None => match rest.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (rest, None),
        },
    };
    Ok((starttls, host.parse()?, port.map(parse_port).transpose()?))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = text.trim().bytes().all(|b| b.is_ascii_digit());
    let port = text.trim().parse::<u16>().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| format!("`{text}` is no port; write a number from 1 to 65535"))
}

fn one_line(text: &str) -> Result<String, String> {
    if text.chars().count() > LONGEST_TEXT {
        return Err(format!("it is longer than {LONGEST_TEXT} characters"));
    }
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.chars().any(|c| c.is_control() || turns(c)) {
        return Err("it has a line break or another character that cannot be seen; write one line of text".into());
    }
    Ok(text.to_owned())
}

impl FromStr for Host {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return match address.to_canonical() {
                address if address.is_unspecified() || address.is_multicast() => {
                    Err(format!("`{text}` is nobody's address; write the address of a server"))
                }
                address => Ok(Self::Address(address)),
            };
        }
        if text.is_empty() {
            return Err("it is empty; write a name such as www.example.com, or an address".into());
        }
        let name = DnsName::parse(text).map_err(|error| format!("`{text}` is no host: {}", error.why))?;
        if name.is_wildcard() {
            return Err(format!("`{text}` is a wildcard, which is no host; write a name that it covers"));
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.to_string()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(starttls) = self.starttls {
            write!(f, "{starttls}://")?;
        }
        match &self.host {
            Host::Address(address @ IpAddr::V6(_)) => write!(f, "[{address}]:{}", self.port)?,
            host => write!(f, "{host}:{}", self.port)?,
        }
        match &self.sni {
            Some(sni) => write!(f, " as {sni}"),
            None => Ok(()),
        }
    }
}

impl Word {
    /// Words separated by commas, semicolons or spaces.
    fn all(text: &str) -> Result<BTreeSet<Self>, String> {
        text.split([',', ';', ' ']).filter(|word| !word.is_empty()).map(str::parse).collect()
    }

    /// As written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Word {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.trim().to_lowercase();
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-:/".contains(&b);
        if word.is_empty() || word.len() > 64 || !word.bytes().all(plain) {
            return Err(format!("`{text}` is no word; write up to 64 of a-z, 0-9, `.`, `_`, `-`, `:`, `/`"));
        }
        Ok(Self(word.into()))
    }
}

impl TryFrom<String> for Word {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Word> for String {
    fn from(word: Word) -> Self {
        word.0.into()
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Written {
        Written { host: Some(text.into()), ..Written::default() }
    }

    #[test]
    fn an_endpoint_is_read_as_people_write_it_and_has_one_spelling() {
        for (written, spelt) in [
            ("shop.example", "shop.example:443"),
            ("Shop.Example:8443", "shop.example:8443"),
            ("https://shop.example/login", "shop.example:443"),
            ("smtp://mail.shop.example", "smtp://mail.shop.example:25"),
            ("mail.shop.example:25", "smtp://mail.shop.example:25"),
            ("192.0.2.7", "192.0.2.7:443"),
            ("2001:db8::7", "[2001:db8::7]:443"),
            ("[2001:db8::7]:8443", "[2001:db8::7]:8443"),
            ("::ffff:192.0.2.7", "192.0.2.7:443"),
        ] {
            let endpoint = Endpoint::parse(&host(written)).unwrap();
            assert_eq!(endpoint.key.to_string(), spelt, "{written}");
            assert_eq!(endpoint.name, spelt);
        }
        let plain = Written { starttls: Some("none".into()), ..host("mail.shop.example:25") };
        assert_eq!(Endpoint::parse(&plain).unwrap().key.to_string(), "mail.shop.example:25", "as it was said");
        let same = Written { sni: Some("shop.example".into()), ..host("shop.example") };
        assert_eq!(Endpoint::parse(&same).unwrap(), Endpoint::parse(&host("shop.example")).unwrap());
    }

    #[test]
    fn invariant_9_every_field_at_fault_is_named_with_what_would_be_right() {
        let written = Written {
            host: Some("no host".into()),
            port: Some("70000".into()),
            sni: Some("*.shop.example".into()),
            starttls: Some("gopher".into()),
            name: Some("two\nlines".into()),
            tags: Some("fine, n\u{f6}t".into()),
            sites: Some(" ".into()),
            active: Some("perhaps".into()),
            interval: Some("3s".into()),
            owner: Some("x".repeat(200)),
        };
        let errors = Endpoint::parse(&written).unwrap_err();
        let fields: Vec<&str> = errors.iter().map(|error| error.field).collect();
        let all = ["host", "port", "sni", "starttls", "name", "tags", "owner", "sites", "active", "interval"];
        assert_eq!(fields, all, "{errors:?}");
        for (text, word) in [("", "www.example.com"), ("*.a.example", "wildcard"), ("a.example:0", "65535")] {
            let error = Endpoint::parse(&host(text)).unwrap_err();
            assert!(error[0].to_string().contains(word), "{error:?}");
        }
    }

    #[test]
    fn an_edit_changes_what_it_says_and_nothing_else() {
        let first = Endpoint::parse(&host("shop.example")).unwrap();
        let edited = first.edited(&Written { tags: Some("web, eu".into()), ..Written::default() }).unwrap();
        assert_eq!(edited.tags.len(), 2);
        assert_eq!(Endpoint { tags: BTreeSet::new(), ..edited.clone() }, first);
        let moved = edited.edited(&Written { port: Some("8443".into()), ..Written::default() }).unwrap();
        assert_eq!(moved.name, "shop.example:8443", "a name that nobody gave follows");
        let named = first.edited(&Written { name: Some("Shop".into()), ..Written::default() }).unwrap();
        assert_eq!(named.edited(&Written { port: Some("8443".into()), ..Written::default() }).unwrap().name, "Shop");
    }
}
