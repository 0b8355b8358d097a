//! The ServerHello (RFC 8446 section 4.1.3, RFC 5246 section 7.4.1.3), checked against what was offered.

use super::client_hello::{self, Random, SECP256R1};
use crate::bytes::Reader;
use crate::failure::{Failure, Part};
use crate::offer::{Hello, Version};

/// What the server chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerHello {
    pub(crate) version: Version,
    pub(crate) suite: u16,
    pub(crate) random: [u8; 32],
    /// The X coordinate of its P-256 share: the shared secret (TLS 1.3 only).
    pub(crate) secret: Option<[u8; 32]>,
}

/// What a ServerHello means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Chosen(ServerHello),
    /// The server wants a share of another group (RFC 8446 section 4.1.4).
    Retry,
}

/// SHA-256 of "HelloRetryRequest": the random of a ServerHello that is one.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Reads the body of a ServerHello. `sent` is what the ClientHello said.
pub(crate) fn read(body: &[u8], hello: &Hello, sent: &Random) -> Result<Answer, Failure> {
    let bad = |why: &'static str| Failure::malformed(Part::ServerHello, why);
    let fields = Fields::read(body).ok_or_else(|| bad("it ends too early"))?;
    let version = fields.selected.unwrap_or(fields.legacy_version);
    if let Some(version) = Version::from_number(version).filter(|version| *version < hello.lowest) {
        // Nobody can tell a server the lowest version but by TLS 1.3's extension.
        return Err(Failure::Incompatible { why: format!("the server would speak TLS {version} instead").into() });
    }
    let version = Version::from_number(version)
        .filter(|version| hello.has(*version) && fields.selected.is_none_or(|_| *version == Version::Tls13))
        .ok_or_else(|| bad("it chooses a version that was not offered"))?;
    if !client_hello::offers(hello, fields.suite)
        || client_hello::TLS13_SUITES.contains(&fields.suite) != (version == Version::Tls13)
    {
        return Err(bad("it chooses a cipher suite that was not offered"));
    }
    if fields.compression != 0 {
        return Err(bad("it chooses a compression that was not offered"));
    }
    if version < Version::Tls13 {
        return Ok(Answer::Chosen(ServerHello { version, suite: fields.suite, random: fields.random, secret: None }));
    }
    if !sent.ends_with(fields.session_id) || fields.session_id.len() != 32 {
        return Err(bad("it answers another client hello: the session id is not ours"));
    }
    if fields.random == RETRY {
        return Ok(Answer::Retry);
    }
    let secret = match fields.key_share {
        Some((SECP256R1, share)) => x_coordinate(share),
        Some(_) => return Err(bad("its key share is of a group that was not offered")),
        None => return Err(bad("it has no key share")),
    };
    let secret = Some(secret.ok_or_else(|| bad("its key share is no point of P-256"))?);
    Ok(Answer::Chosen(ServerHello { version, suite: fields.suite, random: fields.random, secret }))
}

struct Fields<'a> {
    legacy_version: u16,
    random: [u8; 32],
    session_id: &'a [u8],
    suite: u16,
    compression: u8,
    selected: Option<u16>,
    key_share: Option<(u16, &'a [u8])>,
}

impl<'a> Fields<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let mut body = Reader::new(body);
        let mut fields = Fields {
            legacy_version: body.u16()?,
            random: body.take(32)?.try_into().ok()?,
            session_id: body.vec8()?,
            suite: body.u16()?,
            compression: body.u8()?,
            selected: None,
            key_share: None,
        };
        // Servers before RFC 3546 send no extensions at all.
        if body.is_empty() {
            return Some(fields);
        }
        let mut extensions = Reader::new(body.vec16()?);
        while !extensions.is_empty() {
            let (number, value) = (extensions.u16()?, extensions.vec16()?);
            let mut value = Reader::new(value);
            match number {
                43 => fields.selected = Some(value.u16()?),
                // A HelloRetryRequest names the group alone.
                51 => fields.key_share = Some((value.u16()?, value.vec16().unwrap_or_default())),
                _ => {}
            }
        }
        Some(fields)
    }
}

fn x_coordinate(share: &[u8]) -> Option<[u8; 32]> {
    let mut share = Reader::new(share);
    let uncompressed = share.u8()? == 4;
    let x = share.take(32)?.try_into().ok()?;
    (share.rest().len() == 32 && uncompressed).then_some(x)
}
