//! DNS providers with an API of their own, through the library `dns-update`. Single values are added and removed, never a
//! whole record set.

mod table;

use std::collections::BTreeMap;
use std::fmt;

use dns_update::{DnsRecord, DnsRecordType, DnsUpdater, Error};
use secrecy::{ExposeSecret, SecretString};

use crate::solver::SolverError;

pub use crate::dns::api::table::PROVIDERS;

/// One provider: its word in the settings, what it wants to know, and how it is made.
pub struct ApiKind {
    /// Its word.
    pub word: &'static str,
    /// What the settings may say.
    pub keys: &'static [Key],
    /// The shortest time to live it takes, of those worth having.
    ttl: u32,
    make: fn(&Words) -> dns_update::Result<DnsUpdater>,
}

/// One word of a provider's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The word.
    pub name: &'static str,
    /// Whether it is to be masked.
    pub secret: bool,
    /// Whether it can be left out.
    pub required: bool,
}

/// What the settings say, by word.
pub type Words = BTreeMap<String, SecretString>;

/// A required secret.
pub const fn secret(name: &'static str) -> Key {
    Key { name, secret: true, required: true }
}

/// A required word that is no secret.
pub const fn word(name: &'static str) -> Key {
    Key { name, secret: false, required: true }
}

/// A word that is no secret and can be left out.
pub const fn optional(name: &'static str) -> Key {
    Key { name, secret: false, required: false }
}

/// A provider at work.
pub struct Api {
    kind: &'static ApiKind,
    updater: DnsUpdater,
    secrets: Vec<SecretString>,
    zone: Option<String>,
}

impl Api {
    /// The provider of that word, asked nothing yet. None if there is none. The zone of a name is found by DNS unless given.
    ///
    /// # Errors
    /// [`SolverError::Settings`] naming the word that is missing or not known to the provider.
    pub fn new(provider: &str, words: &Words, zone: Option<&str>) -> Option<Result<Self, SolverError>> {
        let kind = PROVIDERS.iter().find(|kind| kind.word == provider)?;
        let made = check_words(provider, kind.keys, words).and_then(|()| {
            (kind.make)(words)
                .map_err(|error| SolverError::Settings { what: hide(&format!("{provider}: {error}"), words.values()) })
        });
        let zone = zone.map(|zone| format!("{}.", zone.trim_end_matches('.').to_ascii_lowercase()));
        let secrets = words.iter().filter(|(name, _)| kind.is_secret(name)).map(|(_, word)| word.clone()).collect();
        Some(made.map(|updater| Self { kind, updater, secrets, zone }))
    }

    /// The provider's word.
    pub(crate) fn word(&self) -> &'static str {
        self.kind.word
    }

    /// The zone that the settings name.
    pub(crate) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    pub(crate) async fn add(&self, zone: &str, name: &str, value: &str) -> Result<(), SolverError> {
        let records = vec![DnsRecord::TXT(value.to_owned())];
        let done = self.updater.add_to_rrset(name, DnsRecordType::TXT, self.kind.ttl, records, zone).await;
        done.map_err(|error| self.explain(zone, name, error))
    }

    pub(crate) async fn remove(&self, zone: &str, name: &str, value: &str) -> Result<(), SolverError> {
        let records = vec![DnsRecord::TXT(value.to_owned())];
        match self.updater.remove_from_rrset(name, DnsRecordType::TXT, records, zone).await {
            // What is not there need not be removed.
            Ok(()) | Err(Error::NotFound) => Ok(()),
            Err(error) => Err(self.explain(zone, name, error)),
        }
    }

    /// Whether the provider lets us in and has the zone: reads, changes nothing.
    pub(crate) async fn look(&self, zone: &str, name: &str) -> Result<(), SolverError> {
        match self.updater.list_rrset(name, DnsRecordType::TXT, zone).await {
            // Some cannot list, which says nothing about writing.
            Ok(_) | Err(Error::Unsupported(_)) => Ok(()),
            Err(error) => Err(self.explain(zone, name, error)),
        }
    }

    fn explain(&self, zone: &str, name: &str, error: Error) -> SolverError {
        let said = hide(&error.to_string(), &self.secrets);
        let bare: String = said.chars().filter(|c| !matches!(c, ' ' | '"')).collect();
        let (why, permanent) = match &error {
            Error::Unauthorized => {
                ("it does not take the credentials; make new ones with the right to edit this zone", true)
            }
            Error::NotFound => {
                ("it has no such zone or record for these credentials; look at the zone and their scope", true)
            }
            _ if said.contains("HTTP 403") || CREDENTIALS.iter().any(|code| bare.contains(code)) => {
                ("it does not take the credentials; make new ones with the right to edit this zone", true)
            }
            _ if said.contains("HTTP 429") => ("it has had too many requests; it is tried again later", false),
            _ if said.to_ascii_lowercase().contains("zone found") => {
                ("add the zone there, or widen what the credentials may see", true)
            }
            Error::Api(_) if said.contains("Failed to send") => {
                ("check the network, and that its API can be reached", false)
            }
            _ => ("see whether the name, the zone and the credentials belong together", false),
        };
        let (provider, zone, name) = (self.kind.word, zone.to_owned(), name.to_owned());
        SolverError::Provider { provider, zone, name, said: said.into(), next: why, permanent }
    }
}

/// How Cloudflare says that a token is not one, beside HTTP 403.
const CREDENTIALS: [&str; 3] = ["code:6003", "code:9109", "code:10000"];

impl ApiKind {
    fn is_secret(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name && key.secret)
    }
}

/// Whether `words` are what a provider wants.
pub(crate) fn check_words(provider: &str, keys: &[Key], words: &Words) -> Result<(), SolverError> {
    let takes = || keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
    if let Some(other) = words.keys().find(|name| !keys.iter().any(|key| key.name == name.as_str())) {
        let what = match keys {
            [] => format!("dns01.{other} is no word of `{provider}`"),
            _ => format!("dns01.{other} is no word of `{provider}`; it takes: {}", takes()),
        };
        return Err(SolverError::Settings { what });
    }
    let empty = |key: &&Key| words.get(key.name).is_none_or(|word| word.expose_secret().trim().is_empty());
    match keys.iter().filter(|key| key.required).find(empty) {
        Some(missing) => {
            Err(SolverError::Settings { what: format!("dns01.{} is missing; `{provider}` needs it", missing.name) })
        }
        None => Ok(()),
    }
}

/// `text` without any of the secrets: what a server says may quote what it was sent.
pub(crate) fn hide<'a>(text: &str, secrets: impl IntoIterator<Item = &'a SecretString>) -> String {
    let mut text = text.to_owned();
    for secret in secrets.into_iter().map(|secret| secret.expose_secret().trim()).filter(|secret| secret.len() > 3) {
        text = text.replace(secret, "********");
    }
    text
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("provider", &self.kind.word).field("zone", &self.zone).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_is_made_from_its_own_words_and_no_others() {
        for kind in PROVIDERS {
            let mut words: Words = kind.keys.iter().map(|key| (key.name.to_owned(), "eu-west-1".into())).collect();
            words.retain(|name, _| kind.word != "ovh" || name != "region");
            let api =
                Api::new(kind.word, &words, None).unwrap().unwrap_or_else(|error| panic!("{}: {error}", kind.word));
            assert!(!format!("{api:?}").contains("eu-west-1"), "{}", kind.word);
            let first = kind.keys[0].name.to_owned();
            let without =
                words.iter().filter(|(name, _)| **name != first).map(|(n, w)| (n.clone(), w.clone())).collect();
            let missing = Api::new(kind.word, &without, None).unwrap().unwrap_err().to_string();
            assert!(missing.contains(&format!("dns01.{first} is missing")), "{missing}");
            words.insert("tokn".into(), "hush".into());
            let unknown = Api::new(kind.word, &words, None).unwrap().unwrap_err().to_string();
            assert!(
                unknown.contains("dns01.tokn") && unknown.contains(&first) && !unknown.contains("hush"),
                "{unknown}"
            );
        }
        assert!(Api::new("telepathy", &Words::new(), None).is_none());
    }
}
