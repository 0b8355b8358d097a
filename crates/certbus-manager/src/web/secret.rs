//! Secrets that are shown once: cookies, one-time links, tokens. The store keeps what they hash to.

use certbus_core::id::Hash;
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use crate::clock;

/// 32 random bytes, as text.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// A new one.
    #[expect(clippy::new_without_default, reason = "a default is the same each time, and this never is")]
    pub fn new() -> Self {
        Self(Zeroizing::new(BASE64URL_NOPAD.encode(&clock::random::<32>())))
    }

    /// A new one of an API token, which says what it is to those who look for leaked ones.
    pub fn token() -> Self {
        Self(Zeroizing::new(format!("certbus_{}", *Self::new().0)))
    }

    /// As it is shown, once.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn hash(&self) -> Hash {
        hash(&self.0)
    }
}

/// What is kept of a secret.
pub fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}
