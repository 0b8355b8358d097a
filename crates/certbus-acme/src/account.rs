//! ACME accounts (RFC 8555 section 7.3) and what a CA's directory says of it (section 7.1.1). It keeps no
//! credentials: they are handed out once, for the caller to seal.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use http::Request;
use instant_acme::{Account, AccountCredentials, BodyWrapper, ExternalAccountKey, Key, NewAccount};
use rustls::pki_types::PrivatePkcs8KeyDer;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::{IssueError, from_acme};
use crate::http::Http;
use crate::nonce::with_nonce;
use crate::order::Pace;

/// An account at one ACME CA, ready to order. Cheap to clone.
#[derive(Clone)]
pub struct AcmeCa {
    pub(crate) account: Account,
    directory_url: String,
    directory: DirectoryInfo,
    /// How long its validations lately took, and its signatures.
    pub(crate) validated: Pace,
    pub(crate) signed: Pace,
}

/// What the CA's directory says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryInfo {
    /// The terms of service, to be read before agreeing.
    pub terms_of_service: Option<String>,
    /// Certificate profiles: name and what the CA says of it.
    pub profiles: BTreeMap<String, String>,
    /// Whether it says when to renew (RFC 9773).
    pub renewal_windows: bool,
    /// Whether accounts must be bound to one made elsewhere.
    pub external_account_required: bool,
    /// By what names CAA records mean it (RFC 8659). None where it does not say.
    pub caa_identities: Vec<String>,
}

/// External account binding (RFC 8555 section 7.3.4), as the CA's account page shows it.
pub struct Eab {
    /// The key's identifier.
    pub key_id: String,
    /// The MAC key in base64url.
    pub hmac_key_b64url: SecretString,
}

impl DirectoryInfo {
    /// Asks the CA, without an account.
    ///
    /// # Errors
    /// [`IssueError::Unreachable`], [`IssueError::NotAcme`] or [`IssueError::Roots`].
    pub async fn fetch(directory: &str, roots_pem: Option<&str>) -> Result<Self, IssueError> {
        fetch(&Http::new(roots_pem)?, directory).await
    }
}

impl AcmeCa {
    fn new(account: Account, directory_url: &str, directory: DirectoryInfo) -> Self {
        let directory_url = directory_url.to_owned();
        Self { account, directory_url, directory, validated: Pace::default(), signed: Pace::default() }
    }

    /// Makes an account with a new key. Returns it with its credentials: a secret, JSON, for [`AcmeCa::restore`].
    ///
    /// # Errors
    /// [`IssueError::TermsNotAgreed`] if the CA has terms and they are not agreed to,
    /// [`IssueError::ExternalAccount`], and whatever the CA says.
    pub async fn register(
        directory: &str,
        roots_pem: Option<&str>,
        contact: Option<&str>,
        terms_agreed: bool,
        eab: Option<Eab>,
    ) -> Result<(Self, SecretString), IssueError> {
        let http = Http::new(roots_pem)?;
        let info = fetch(&http, directory).await?;
        if let (Some(url), false) = (&info.terms_of_service, terms_agreed) {
            return Err(IssueError::TermsNotAgreed { url: url.clone() });
        }
        if info.external_account_required && eab.is_none() {
            return Err(IssueError::ExternalAccount { why: format!("{directory} wants one and none was given") });
        }
        let binding = eab.map(external_key).transpose()?;
        let contact: Vec<String> = contact.into_iter().map(mailto).collect();
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: terms_agreed, only_return_existing: false };
        let create = || {
            let builder = Account::builder_with_http(Box::new(http.clone()));
            builder.create(&new, directory.to_owned(), binding.as_ref())
        };
        let (account, credentials) = with_nonce!(create()).map_err(|error| from_acme(directory, error))?;
        let json = serde_json::to_string(&credentials).map_err(|error| unusable(error.to_string()))?;
        Ok((Self::new(account, directory, info), json.into()))
    }

    /// The account that [`AcmeCa::register`] made.
    ///
    /// # Errors
    /// [`IssueError::Credentials`] if they cannot be read or are another CA's, and if the CA cannot be reached.
    pub async fn restore(
        directory: &str,
        roots_pem: Option<&str>,
        credentials: &SecretString,
    ) -> Result<Self, IssueError> {
        #[derive(Deserialize)]
        struct MadeFor {
            directory: String,
        }
        let json = credentials.expose_secret();
        // serde's own words would quote the secret.
        let unreadable = |_| unusable("they are not the JSON that registering gave".into());
        let made_for: MadeFor = serde_json::from_str(json).map_err(unreadable)?;
        if made_for.directory != directory {
            return Err(unusable(format!("they are for {}, not for {directory}", made_for.directory)));
        }
        let credentials: AccountCredentials = serde_json::from_str(json).map_err(unreadable)?;
        let http = Http::new(roots_pem)?;
        let info = fetch(&http, directory).await?;
        let account = Account::builder_with_http(Box::new(http))
            .from_credentials(credentials)
            .await
            .map_err(|error| from_acme(directory, error))?;
        Ok(Self::new(account, directory, info))
    }

    /// Asks the CA for the account that [`AcmeCa::register`] made. Returns its URL.
    ///
    /// # Errors
    /// As [`AcmeCa::restore`], and the CA's words if it does not know the account.
    pub async fn look(
        directory: &str,
        roots_pem: Option<&str>,
        credentials: &SecretString,
    ) -> Result<String, IssueError> {
        #[derive(Deserialize)]
        struct WithKey<'a> {
            key_pkcs8: &'a str,
        }
        let unreadable = || unusable("they have no key that can be read".into());
        let kept: WithKey<'_> = serde_json::from_str(credentials.expose_secret()).map_err(|_| unreadable())?;
        let text = kept.key_pkcs8.trim_end_matches('=').as_bytes();
        let key = Zeroizing::new(BASE64URL_NOPAD.decode(text).map_err(|_| unreadable())?);
        let http = Http::new(roots_pem)?;
        let ask = || async {
            let der = PrivatePkcs8KeyDer::from(key.to_vec());
            let pair = (Key::from_pkcs8_der(der.clone_key())?, der.into());
            Account::builder_with_http(Box::new(http.clone())).from_key(pair, directory.to_owned()).await
        };
        let (account, _) = with_nonce!(ask()).map_err(|error| from_acme(directory, error))?;
        Ok(account.id().to_owned())
    }

    /// The account's URL: its identity at the CA.
    pub fn account_url(&self) -> &str {
        self.account.id()
    }

    /// Where the CA's directory is.
    pub fn directory_url(&self) -> &str {
        &self.directory_url
    }

    /// What the CA said of itself when this account was made or restored.
    pub fn directory(&self) -> &DirectoryInfo {
        &self.directory
    }
}

impl fmt::Debug for AcmeCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeCa").field("directory", &self.directory_url).field("account", &self.account.id()).finish()
    }
}

impl fmt::Debug for Eab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eab").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

async fn fetch(http: &Http, directory: &str) -> Result<DirectoryInfo, IssueError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Directory {
        #[serde(rename = "newOrder")]
        _new_order: String,
        renewal_info: Option<String>,
        #[serde(default)]
        meta: Meta,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Meta {
        terms_of_service: Option<String>,
        profiles: BTreeMap<String, String>,
        external_account_required: bool,
        caa_identities: Vec<String>,
    }

    let not_acme = |what: String| IssueError::NotAcme { url: directory.to_owned(), status: None, what };
    if !directory.starts_with("https://") {
        return Err(not_acme("nothing: it is not an https:// URL".into()));
    }
    let request = Request::get(directory)
        .body(BodyWrapper::<Bytes>::default())
        .map_err(|error| not_acme(format!("nothing: it is not a URL ({error})")))?;
    let (_, body) = http.send(request).await?;
    let parsed: Directory =
        serde_json::from_slice(&body).map_err(|_| not_acme("something other than an ACME directory".into()))?;
    Ok(DirectoryInfo {
        terms_of_service: parsed.meta.terms_of_service,
        profiles: parsed.meta.profiles,
        renewal_windows: parsed.renewal_info.is_some(),
        external_account_required: parsed.meta.external_account_required,
        caa_identities: parsed.meta.caa_identities,
    })
}

fn external_key(eab: Eab) -> Result<ExternalAccountKey, IssueError> {
    let text = eab.hmac_key_b64url.expose_secret().trim().as_bytes();
    let key = BASE64URL_NOPAD
        .decode(text)
        .or_else(|_| BASE64URL.decode(text))
        .map_err(|_| IssueError::ExternalAccount { why: "the HMAC key is not base64url".into() })?;
    Ok(ExternalAccountKey::new(eab.key_id, &key))
}

fn mailto(contact: &str) -> String {
    if contact.contains(':') { contact.to_owned() } else { format!("mailto:{contact}") }
}

fn unusable(why: String) -> IssueError {
    IssueError::Credentials { why }
}
