//! What stands in a file: PEM as servers read it, and PKCS#12. Here a private key leaves its seal, for the files that a
//! target names or `cert export` writes (invariant 1); it is wiped when the text is dropped.

use certbus_core::id::CertificateId;
use certbus_core::x509::ParsedChain;
use data_encoding::BASE64;
use zeroize::Zeroizing;

/// The private key as PEM, from PKCS#8 DER.
pub fn key_pem(der: &[u8]) -> Zeroizing<String> {
    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";
    const END: &str = "-----END PRIVATE KEY-----\n";
    let body = Zeroizing::new(BASE64.encode(der));
    // Room for all of it: a text that grows leaves copies behind that nobody wipes.
    let mut pem = Zeroizing::new(String::with_capacity(BEGIN.len() + body.len() + body.len() / 64 + 1 + END.len()));
    pem.push_str(BEGIN);
    for line in body.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str(END);
    pem
}

/// Key, then chain, in one text: the order that Postfix wants, and HAProxy takes any.
pub fn combined_pem(chain: &str, key: &[u8]) -> Zeroizing<String> {
    let key = key_pem(key);
    let mut text = Zeroizing::new(String::with_capacity(key.len() + chain.len() + 1));
    text.push_str(&key);
    text.push_str(&chain_pem(chain));
    text
}

/// The chain, leaf first, ending with a line break.
pub fn chain_pem(chain: &str) -> String {
    format!("{}\n", chain.trim())
}

/// Chain and key as PKCS#12 under a password. Different bytes each time: it is salted.
///
/// # Errors
/// What the writer refuses, in words.
pub fn pkcs12(
    certificate: CertificateId,
    alias: &str,
    chain: &str,
    key: &[u8],
    password: &str,
) -> Result<Zeroizing<Vec<u8>>, String> {
    use p12_keystore::{Certificate, KeyStore, KeyStoreEntry, PrivateKey, PrivateKeyChain};
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let chain = ParsedChain::parse(chain).map_err(|e| text(&e))?;
    let certificates = chain.certificates.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
    let key = PrivateKey::from_der(key).map_err(|e| text(&e))?;
    let entry = PrivateKeyChain::new(certificate.as_bytes().to_vec(), key, certificates.map_err(|e| text(&e))?);
    let mut store = KeyStore::new();
    store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(entry));
    store.writer(password).write().map(Zeroizing::new).map_err(|e| text(&e))
}
