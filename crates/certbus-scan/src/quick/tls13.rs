//! As much of TLS 1.3's key schedule (RFC 8446 section 7.1) as opens a server's handshake flight, over a shared secret that
//! is public. It protects nothing and never writes.

use std::sync::LazyLock;

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{self, Context};
use aws_lc_rs::hmac::{self, Key};

/// A cipher suite of TLS 1.3 as this reader needs it.
#[derive(Debug)]
pub(crate) struct Suite {
    aead: &'static aead::Algorithm,
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    /// HKDF-Extract is HMAC with this key: Derive-Secret(early secret, "derived", "").
    salt: &'static LazyLock<Key>,
}

/// Opens the records of one server's handshake flight, in order.
#[derive(Debug)]
pub(crate) struct Opener {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

static SALT_SHA256: LazyLock<Key> = LazyLock::new(|| derived_salt(hmac::HMAC_SHA256, &digest::SHA256));
static SALT_SHA384: LazyLock<Key> = LazyLock::new(|| derived_salt(hmac::HMAC_SHA384, &digest::SHA384));

/// TLS_AES_128_GCM_SHA256.
static AES_128: Suite =
    Suite { aead: &aead::AES_128_GCM, digest: &digest::SHA256, hmac: hmac::HMAC_SHA256, salt: &SALT_SHA256 };
/// TLS_AES_256_GCM_SHA384.
static AES_256: Suite =
    Suite { aead: &aead::AES_256_GCM, digest: &digest::SHA384, hmac: hmac::HMAC_SHA384, salt: &SALT_SHA384 };
/// TLS_CHACHA20_POLY1305_SHA256.
static CHACHA20: Suite =
    Suite { aead: &aead::CHACHA20_POLY1305, digest: &digest::SHA256, hmac: hmac::HMAC_SHA256, salt: &SALT_SHA256 };

impl Suite {
    pub(crate) fn find(number: u16) -> Option<&'static Self> {
        match number {
            0x1301 => Some(&AES_128),
            0x1302 => Some(&AES_256),
            0x1303 => Some(&CHACHA20),
            _ => None,
        }
    }

    /// An empty transcript.
    pub(crate) fn transcript(&self) -> Context {
        Context::new(self.digest)
    }

    /// From the shared secret and the hash of ClientHello and ServerHello. None if the library refuses a key.
    pub(crate) fn opener(&self, secret: &[u8], transcript: &[u8]) -> Option<Opener> {
        let handshake = hmac::sign(self.salt, secret);
        let traffic = self.expand(handshake.as_ref(), "s hs traffic", transcript, self.digest.output_len());
        let key = self.expand(traffic.as_ref(), "key", &[], self.aead.key_len());
        let iv = self.expand(traffic.as_ref(), "iv", &[], 12);
        let key = UnboundKey::new(self.aead, key.as_ref().get(..self.aead.key_len())?).ok()?;
        Some(Opener { key: LessSafeKey::new(key), iv: *iv.as_ref().first_chunk()?, sequence: 0 })
    }

    /// HKDF-Expand-Label; the length is never above the hash's, so one block is all of it.
    fn expand(&self, secret: &[u8], label: &str, context: &[u8], length: usize) -> hmac::Tag {
        hmac::sign(&Key::new(self.hmac, secret), &hkdf_label(label, context, length))
    }
}

impl Opener {
    /// Opens a record in place: its content type and the length of its content (RFC 8446 section 5.2). None if it is not
    /// sealed with this key.
    pub(crate) fn open(&mut self, header: [u8; 5], record: &mut [u8]) -> Option<(u8, usize)> {
        let mut nonce = self.iv;
        for (byte, count) in nonce.iter_mut().skip(4).zip(self.sequence.to_be_bytes()) {
            *byte ^= count;
        }
        self.sequence += 1;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let inner = self.key.open_in_place(nonce, Aad::from(header), record).ok()?;
        let kind_at = inner.iter().rposition(|byte| *byte != 0)?;
        Some((*inner.get(kind_at)?, kind_at))
    }
}

fn derived_salt(algorithm: hmac::Algorithm, digest: &'static digest::Algorithm) -> Key {
    let zeroes = vec![0; digest.output_len()];
    let early = hmac::sign(&Key::new(algorithm, &zeroes), &zeroes);
    let empty = digest::digest(digest, &[]);
    let label = hkdf_label("derived", empty.as_ref(), digest.output_len());
    Key::new(algorithm, hmac::sign(&Key::new(algorithm, early.as_ref()), &label).as_ref())
}

/// The HkdfLabel of RFC 8446 section 7.1, and the 1 that counts HKDF's first block.
fn hkdf_label(label: &str, context: &[u8], length: usize) -> Vec<u8> {
    let short = |length: usize| u8::try_from(length).unwrap_or(u8::MAX);
    let mut info = Vec::with_capacity(80);
    info.extend([0, short(length), short(6 + label.len())]);
    info.extend(b"tls13 ");
    info.extend(label.as_bytes());
    info.push(short(context.len()));
    info.extend(context);
    info.push(1);
    info
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// RFC 8448 section 3: the simple 1-RTT handshake, whose secrets are printed there.
    #[test]
    fn the_key_schedule_is_that_of_rfc_8448() {
        let secret = hex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d");
        let transcript = hex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8");
        let handshake = hmac::sign(AES_128.salt, &secret);
        assert_eq!(
            HEXLOWER.encode(handshake.as_ref()),
            "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac"
        );
        let traffic = AES_128.expand(handshake.as_ref(), "s hs traffic", &transcript, 32);
        assert_eq!(
            HEXLOWER.encode(traffic.as_ref()),
            "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38"
        );
        assert_eq!(
            HEXLOWER.encode(AES_128.expand(traffic.as_ref(), "key", &[], 16).as_ref().get(..16).unwrap()),
            "3fce516009c21727d0f2e4e86ee403bc"
        );
        assert_eq!(AES_128.opener(&secret, &transcript).unwrap().iv.as_slice(), hex("5d313eb2671276ee13000b30"));
    }
}
