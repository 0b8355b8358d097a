//! The configuration of the first CertBus, as JSON: its Let's Encrypt account goes on to be used here. What these settings
//! have no place for is named, never dropped in silence.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{Issuing, KNOWN_CAS, S3Settings, Secret, SettingsError, wrong};

#[derive(Deserialize)]
struct Seed {
    lets_encrypt: LetsEncrypt,
    #[serde(default)]
    cloudflare_credentials: Option<serde_json::Value>,
    #[serde(default)]
    alertmanager_baseurl: Option<String>,
    #[serde(default)]
    acme_http01_challenges: Option<Bucket>,
}

#[derive(Deserialize)]
struct Bucket {
    bucket: String,
    #[serde(default)]
    region: Option<String>,
}

#[derive(Deserialize)]
struct LetsEncrypt {
    email: String,
    private_key: Secret,
    registration: Registration,
}

#[derive(Deserialize)]
struct Registration {
    uri: String,
}

/// Whether `text` is meant as that JSON rather than as TOML.
pub fn looks_like_seed(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

/// Takes the account over into `settings`. Returns what has no place yet, for people.
///
/// # Errors
/// [`SettingsError`] naming the field; never with a secret in it.
pub fn take_over(text: &str, settings: &mut Issuing) -> Result<Vec<String>, SettingsError> {
    let seed: Seed = serde_json::from_str(text).map_err(|e| SettingsError {
        line: Some(e.line()),
        what: if e.is_data() {
            "a field of `lets_encrypt` or `acme_http01_challenges` is missing or of another type".into()
        } else {
            "not JSON".into()
        },
    })?;
    let account = seed.lets_encrypt;
    let host = account.registration.uri.split("://").nth(1).and_then(|rest| rest.split('/').next());
    let host = host.ok_or_else(|| wrong("lets_encrypt.registration.uri is not a URL"))?;
    let known = KNOWN_CAS.iter().find(|(_, url)| url.contains(host));
    let (name, directory) = known.map_or_else(
        || (host.replace(['.', ':'], "-"), format!("https://{host}/directory")),
        |(name, url)| ((*name).to_owned(), (*url).to_owned()),
    );
    let pkcs8 = p256_as_pkcs8(&account.private_key)?;
    let credentials = Zeroizing::new(
        serde_json::json!({
            "id": account.registration.uri, "key_pkcs8": BASE64URL_NOPAD.encode(&pkcs8), "directory": directory,
        })
        .to_string(),
    );
    let entry = settings.ca.entry(name.clone()).or_default();
    entry.directory = directory;
    entry.email = Some(account.email);
    entry.agree_tos = true;
    entry.account = Some(Secret::new(credentials.as_str()));
    settings.default_ca = Some(name);
    if let Some(base) = seed.alertmanager_baseurl {
        settings.check_in.get_or_insert_default().alertmanager = Some(base);
    }
    if let Some(Bucket { bucket, region }) = seed.acme_http01_challenges {
        settings.s3 = Some(S3Settings { bucket, region, ..S3Settings::default() });
    }
    settings.check()?;
    // It is the key of the whole Cloudflare account.
    let left = "cloudflare_credentials: make an API token that may edit the zone's DNS, and set up [dns01] with provider = \
                \"cloudflare\" and token = \"…\"";
    Ok(seed.cloudflare_credentials.is_some().then(|| left.to_owned()).into_iter().collect())
}

/// The PKCS#8 form (RFC 5958) of a PEM key in SEC 1 or PKCS#8. ACME accounts here sign with P-256.
fn p256_as_pkcs8(pem: &Secret) -> Result<Zeroizing<Vec<u8>>, SettingsError> {
    let not_p256 = || {
        wrong(
            "lets_encrypt.private_key is not an ECDSA P-256 key in PEM; leave it out and register a new account with \
             `certbus init --ca letsencrypt`",
        )
    };
    let body: Zeroizing<String> = Zeroizing::new(pem.0.lines().filter(|line| !line.starts_with("-----")).collect());
    let der = Zeroizing::new(BASE64.decode(body.trim().as_bytes()).map_err(|_| not_p256())?);
    let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &der).map_err(|_| not_p256())?;
    let pkcs8 = key.to_pkcs8v1().map_err(|_| not_p256())?;
    Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with `openssl ecparam -name prime256v1 -genkey -noout` for this test alone.
    const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MHcCAQEEIE49kEcoaQBmlBsG/l3eLH2SbPVCThIq+KeTqPIs+81hoAoGCCqGSM49\n\
        AwEHoUQDQgAEpKIhnbk7kKnmujZ0D/9XR1F/PXU9yA7u+lEQRm1eUrKYGmAjVsss\n\
        XmS14Fwgnw7hbcVWAJxftcgfc5TlSkBUGw==\n\
        -----END EC PRIVATE KEY-----\n";

    fn seed(key: &str) -> String {
        serde_json::json!({
            "lets_encrypt": { "email": "ops@example.com", "private_key": key, "registration": {
                "body": { "status": "valid" }, "uri": "https://acme-v02.api.letsencrypt.org/acme/acct/123" } },
            "cloudflare_credentials": { "email": "ops@example.com", "api_key": "hush" },
            "kek_public_key": "-----BEGIN RSA PUBLIC KEY-----",
            "acme_http01_challenges": { "bucket": "challenges.example.com", "region": "eu-central-1" },
        })
        .to_string()
    }

    #[test]
    fn the_account_is_taken_over_and_what_is_left_is_named() {
        let mut settings = Issuing::default();
        let left = take_over(&seed(SEC1), &mut settings).unwrap();
        assert_eq!(left.len(), 1);
        assert!(left[0].contains("cloudflare") && !left[0].contains("hush"));
        let s3 = settings.s3.as_ref().unwrap();
        assert_eq!((s3.bucket.as_str(), s3.region.as_deref()), ("challenges.example.com", Some("eu-central-1")));
        let ca = &settings.ca["letsencrypt"];
        assert_eq!(
            (ca.email.as_deref(), settings.default_ca.as_deref()),
            (Some("ops@example.com"), Some("letsencrypt"))
        );
        assert!(ca.account.as_ref().unwrap().0.contains("acct/123"));
        assert_eq!(Issuing::parse(&settings.to_toml()).unwrap(), settings);
    }

    #[test]
    fn a_key_of_another_kind_and_a_missing_field_are_named_without_their_content() {
        let mut settings = Issuing::default();
        for bad in
            [seed("-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0\n"), "{\"lets_encrypt\":{\"email\":1}}".into(), "{".into()]
        {
            let error = take_over(&bad, &mut settings).unwrap_err().to_string();
            assert!(error.contains("lets_encrypt") || error.contains("JSON"), "{error}");
            assert!(!error.contains("c2VjcmV0"));
        }
        assert_eq!(settings, Issuing::default(), "nothing half written");
    }
}
