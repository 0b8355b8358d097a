//! All that is said over one connection: the dialogue before TLS if there is one, then the quick or the full look. It keeps
//! no time and touches no socket.

use std::net::IpAddr;

use certbus_core::name::DnsName;

use crate::failure::{Failure, Phase};
use crate::found::{Found, Proof};
use crate::full::FullLook;
use crate::offer::{Hello, Version};
use crate::quick::QuickLook;
use crate::starttls::{Dialogue, Starttls};

/// How a connection goes about it, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// The quick look at TLS 1.2 and below: the certificate comes in the clear.
    Clear,
    /// The quick look with one hello for all versions: the server chooses.
    Combined,
    /// A handshake by rustls.
    Full,
}

/// What a conversation is about.
#[derive(Clone, Copy, Debug)]
pub struct Topic<'a> {
    /// For protocols that name the server before TLS.
    pub host: &'a str,
    /// Where it is.
    pub address: IpAddr,
    /// Where it is.
    pub port: u16,
    /// The name in the ClientHello.
    pub server_name: Option<&'a DnsName>,
    /// What is spoken before TLS.
    pub starttls: Option<Starttls>,
    /// What may be offered.
    pub hello: Hello,
    /// How it is gone about.
    pub way: Way,
    /// How much is to be proved.
    pub proof: Proof,
}

/// One conversation.
pub struct Conversation(Stage);

enum Stage {
    /// With the random of the hello that comes after.
    Starttls(Box<(Dialogue, [u8; 64])>),
    Quick(Box<QuickLook>),
    Full(FullLook),
}

impl Conversation {
    /// Begins, and appends the bytes to send to `out`. `random` must be fresh.
    ///
    /// # Errors
    /// As [`FullLook::start`].
    pub fn start(topic: &Topic<'_>, random: [u8; 64], out: &mut Vec<u8>) -> Result<Self, Failure> {
        Ok(Self(match topic.starttls {
            Some(protocol) => Stage::Starttls(Box::new((Dialogue::start(protocol, topic.name(), out), random))),
            None => Stage::tls(topic, random, out)?,
        }))
    }

    /// Takes what the server sent, and appends what it is to be sent to `out`. None: more is needed. `topic` is the one it
    /// began with.
    ///
    /// # Errors
    /// Why the server shows no certificate.
    pub fn read(&mut self, topic: &Topic<'_>, input: &mut [u8], out: &mut Vec<u8>) -> Result<Option<Found>, Failure> {
        match &mut self.0 {
            Stage::Starttls(before) => {
                let (dialogue, random) = before.as_mut();
                if dialogue.read(input, out)? {
                    self.0 = Stage::tls(topic, *random, out)?;
                }
                Ok(None)
            }
            Stage::Quick(look) => look.read(input),
            Stage::Full(look) => look.read(input, out),
        }
    }

    /// The certificate that was read although its proof did not come, because of `why`.
    pub fn presented(&mut self, why: &str) -> Option<Found> {
        match &mut self.0 {
            Stage::Starttls(_) => None,
            Stage::Quick(look) => look.presented(why),
            Stage::Full(look) => look.presented(why),
        }
    }

    /// Where it is: before TLS or in it.
    pub fn phase(&self) -> Phase {
        match self.0 {
            Stage::Starttls(_) => Phase::Starttls,
            Stage::Quick(_) | Stage::Full(_) => Phase::Handshake,
        }
    }

    /// Bytes of memory held for what is incomplete.
    pub fn held(&self) -> usize {
        match &self.0 {
            Stage::Starttls(before) => before.0.held(),
            Stage::Quick(look) => look.held(),
            Stage::Full(look) => look.held(),
        }
    }
}

impl Stage {
    fn tls(topic: &Topic<'_>, random: [u8; 64], out: &mut Vec<u8>) -> Result<Self, Failure> {
        let hello = topic.way.hello(topic.hello);
        Ok(match topic.way {
            Way::Clear | Way::Combined => {
                let signed = topic.proof > Proof::Presented;
                Self::Quick(Box::new(QuickLook::start(hello, topic.server_name, signed, random, out)))
            }
            Way::Full => {
                let http = topic.offers_http();
                Self::Full(FullLook::start(&hello, topic.server_name, topic.address, http, topic.proof, out)?)
            }
        })
    }
}

impl Topic<'_> {
    /// What the server is called where it must be called something.
    fn name(&self) -> &str {
        self.server_name.map_or(self.host, DnsName::as_str)
    }

    /// Whether the protocols of the web are offered: not to a server of something else, which may end the handshake for it.
    pub(crate) fn offers_http(&self) -> bool {
        const OTHERS: [u16; 16] =
            [465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 3269, 5061, 5223, 5671, 6514, 8883];
        self.starttls.is_none() && !OTHERS.contains(&self.port)
    }
}

impl Way {
    /// What this way offers of what may be offered.
    pub(crate) fn hello(self, hello: Hello) -> Hello {
        match self {
            Self::Clear => Hello { highest: hello.highest.min(Version::Tls12), ..hello },
            Self::Combined | Self::Full => hello,
        }
    }
}
