//! The ClientHello of the quick look (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2), written by hand: wide enough for
//! servers of the year 2000, small enough for one segment. The TLS 1.3 key share is made from private scalar 1.

use certbus_core::name::DnsName;

use crate::bytes::vec16;
use crate::offer::{Hello, Keys, Version};

/// The random of the client and its session id, 32 bytes each, fresh for every connection.
pub(crate) type Random = [u8; 64];

/// The generator of P-256, uncompressed (SEC 2 section 2.4.2): the public key of private scalar 1. The shared secret is then
/// the X coordinate of the server's share, and this client multiplies no point.
const GENERATOR: [u8; 65] = [
    0x04, 0x6b, 0x17, 0xd1, 0xf2, 0xe1, 0x2c, 0x42, 0x47, 0xf8, 0xbc, 0xe6, 0xe5, 0x63, 0xa4, 0x40, 0xf2, 0x77, 0x03,
    0x7d, 0x81, 0x2d, 0xeb, 0x33, 0xa0, 0xf4, 0xa1, 0x39, 0x45, 0xd8, 0x98, 0xc2, 0x96, 0x4f, 0xe3, 0x42, 0xe2, 0xfe,
    0x1a, 0x7f, 0x9b, 0x8e, 0xe7, 0xeb, 0x4a, 0x7c, 0x0f, 0x9e, 0x16, 0x2b, 0xce, 0x33, 0x57, 0x6b, 0x31, 0x5e, 0xce,
    0xcb, 0xb6, 0x40, 0x68, 0x37, 0xbf, 0x51, 0xf5,
];

/// P-256 (RFC 8446 section 4.2.7).
pub(crate) const SECP256R1: u16 = 0x0017;
const GROUPS: [u16; 4] = [SECP256R1, 0x001d, 0x0018, 0x0019];

pub(crate) const TLS13_SUITES: [u16; 3] = [0x1301, 0x1303, 0x1302];
/// Signed by ECDSA, forward secret first, then what old servers have.
const ECDSA_SUITES: [u16; 9] = [0xc02b, 0xcca9, 0xc02c, 0xc023, 0xc009, 0xc00a, 0xc024, 0xc008, 0xc007];
/// Signed by RSA, or its key encrypts: down to 3DES and RC4.
const RSA_SUITES: [u16; 24] = [
    0xc02f, 0xcca8, 0xc030, 0xc027, 0xc013, 0xc014, 0xc028, 0x009e, 0xccaa, 0x009f, 0x0067, 0x0033, 0x006b, 0x0039,
    0x009c, 0x009d, 0x003c, 0x002f, 0x003d, 0x0035, 0xc012, 0x000a, 0x0005, 0x0004,
];
/// No renegotiation is meant (RFC 5746 section 3.3).
const EMPTY_RENEGOTIATION_INFO: u16 = 0x00ff;

/// Appends the record with the ClientHello. The handshake message begins 5 bytes after the record does.
pub(crate) fn write(out: &mut Vec<u8>, hello: &Hello, server_name: Option<&DnsName>, random: &Random) {
    let (client_random, session_id) = random.split_at(32);
    // Records before the ServerHello say 1.0, which every server takes (RFC 8446 section 5.1).
    out.extend([22, 3, 1]);
    vec16(out, |out| {
        out.extend([1, 0]);
        vec16(out, |out| {
            out.extend(hello.highest.min(Version::Tls12).number().to_be_bytes());
            out.extend(client_random);
            out.push(32);
            out.extend(session_id);
            vec16(out, |out| {
                for suite in suites(hello) {
                    out.extend(suite.to_be_bytes());
                }
            });
            out.extend([1, 0]);
            vec16(out, |out| extensions(out, hello, server_name));
        });
    });
}

/// Whether a suite is within the offer.
pub(crate) fn offers(hello: &Hello, suite: u16) -> bool {
    suite != EMPTY_RENEGOTIATION_INFO && suites(hello).any(|offered| offered == suite)
}

fn suites(hello: &Hello) -> impl Iterator<Item = u16> {
    let Hello { lowest, highest, keys } = *hello;
    let when = |wanted: bool, suites: &'static [u16]| if wanted { suites } else { &[] };
    let old = lowest <= Version::Tls12;
    when(highest == Version::Tls13, &TLS13_SUITES)
        .iter()
        .chain(when(old && keys != Keys::Rsa, &ECDSA_SUITES))
        .chain(when(old && keys != Keys::Ecdsa, &RSA_SUITES))
        .chain(when(old, &[EMPTY_RENEGOTIATION_INFO]))
        .copied()
}

fn extensions(out: &mut Vec<u8>, hello: &Hello, server_name: Option<&DnsName>) {
    let mut extension = |number: u16, write: &dyn Fn(&mut Vec<u8>)| {
        out.extend(number.to_be_bytes());
        vec16(out, write);
    };
    if let Some(name) = server_name {
        extension(0, &|out| {
            vec16(out, |out| {
                out.push(0);
                vec16(out, |out| out.extend(name.as_str().as_bytes()));
            });
        });
    }
    // TLS 1.0 and 1.1 have no signature algorithms, but a server that would speak 1.2 reads them.
    extension(13, &|out| {
        vec16(out, |out| hello.signature_algorithms().for_each(|number| out.extend(number.to_be_bytes())));
    });
    extension(10, &|out| vec16(out, |out| GROUPS.iter().for_each(|group| out.extend(group.to_be_bytes()))));
    if hello.lowest <= Version::Tls12 {
        // Points are uncompressed; the master secret would be the extended one (RFC 7627).
        extension(11, &|out| out.extend([1, 0]));
        extension(23, &|_| {});
    }
    if hello.highest == Version::Tls13 {
        extension(43, &|out| {
            let versions: Vec<u8> = hello.versions().flat_map(|version| version.number().to_be_bytes()).collect();
            out.push(u8::try_from(versions.len()).unwrap_or_default());
            out.extend(versions);
        });
        extension(45, &|out| out.extend([1, 1]));
        extension(51, &|out| {
            vec16(out, |out| {
                out.extend(SECP256R1.to_be_bytes());
                vec16(out, |out| out.extend(GENERATOR));
            });
        });
    }
}
