//! The issuing settings: CA accounts and solver credentials of a tenant, sealed on the log. What runs programs or opens
//! sockets on this machine is local, and comes in beside them.

mod challenges;
pub mod seed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use certbus_core::budget::{self, Limits};
use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::alerts::settings::AlertSettings;
use crate::check_in::CheckInSettings;

pub use challenges::{Dns01Settings, S3Settings};

/// Directories of CAs that have a word.
pub const KNOWN_CAS: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];

/// How long a certificate of the internal CA lives unless the settings say otherwise.
pub const INTERNAL_LIFETIME_DAYS: u32 = 30;

/// What is shown in place of a secret.
pub const MASK: &str = "********";

fn differing(one: &toml::Table, other: &toml::Table, within: &str, names: &mut Vec<String>) {
    let keys: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    for key in keys {
        match (one.get(key), other.get(key)) {
            (Some(toml::Value::Table(one)), Some(toml::Value::Table(other))) => {
                differing(one, other, &format!("{within}{key}."), names);
            }
            (before, after) if before != after => names.push(format!("{within}{key}")),
            _ => {}
        }
    }
}

/// The settings of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuing {
    /// The CA that is used unless a certificate names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_ca: Option<String>,
    /// CAs that are asked in this order when that one does not issue. A certificate that names its CA has no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<String>,
    /// How control is shown unless a certificate names another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// CAs by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ca: BTreeMap<String, CaSettings>,
    /// Who is told of each renewal round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_in: Option<CheckInSettings>,
    /// Who is told when something is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<AlertSettings>,
    /// Who changes DNS zones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns01: Option<Dns01Settings>,
    /// The bucket that answers HTTP-01 where a machine has no way of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Settings>,
    /// The resolver that is asked about names: who may sign for them, and where they lead; absent: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolver: Option<SocketAddr>,
}

/// One CA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaSettings {
    /// The ACME directory; `internal` for a root of one's own.
    pub directory: String,
    /// Whom the CA writes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Whether the CA's terms of service are agreed to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agree_tos: bool,
    /// PEM of the roots that the CA's own API is trusted by; absent: the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// External account binding, which some CAs want for registering: the key's identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eab_key_id: Option<String>,
    /// External account binding: the MAC key in base64url. Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eab_key: Option<Secret>,
    /// What the CA lets an account order; absent: Let's Encrypt's for Let's Encrypt, none for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// The account, as registering gave it. Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Secret>,
    /// Internal CA: its root certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Internal CA: its private key. Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// Internal CA: how many days its certificates live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_days: Option<u32>,
}

/// A secret in the settings: never shown by `Debug`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether a mask stands in its place.
    pub(crate) fn is_masked(&self) -> bool {
        self.0 == MASK
    }

    /// For the library that needs it.
    pub fn expose(&self) -> SecretString {
        self.0.clone().into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(MASK)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// What is wrong with the settings, where, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("issuing settings{}: {what}", line.map(|l| format!(", line {l}")).unwrap_or_default())]
pub struct SettingsError {
    /// The line, if it can be said.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
}

pub(crate) fn wrong(what: impl Into<String>) -> SettingsError {
    SettingsError { line: None, what: what.into() }
}

/// Keys of certbus.toml: here they are in the wrong place.
pub const LOCAL_KEYS: [&str; 8] = ["data", "log", "identity", "trust", "http01", "exec", "web", "alert"];

/// Keys of the issuing settings: in certbus.toml they are in the wrong place.
pub const ISSUING_KEYS: [&str; 9] =
    ["default_ca", "fallback", "challenge", "check_in", "alerts", "ca", "dns01", "s3", "resolver"];

impl Issuing {
    /// Parses TOML. Errors name the line and never quote it: it may hold a secret.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        Self::parse_masked(text)?.checked(text)
    }

    /// Settings as [`Issuing::masked`] shows them: what their words mean is not looked at, for some are masks.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn parse_masked(text: &str) -> Result<Self, SettingsError> {
        let table: toml::Table = text.parse().map_err(|e| located(text, &e))?;
        if let Some(key) = table.keys().find(|key| LOCAL_KEYS.contains(&key.as_str())) {
            let line = text.lines().position(|l| l.trim_start_matches('[').trim_start().starts_with(key.as_str()));
            return Err(SettingsError {
                line: line.map(|l| l + 1),
                what: format!("`{key}` is a local setting: it belongs into certbus.toml of this machine"),
            });
        }
        toml::from_str(text).map_err(|e| located(text, &e))
    }

    fn checked(self, text: &str) -> Result<Self, SettingsError> {
        let located = |error: SettingsError| SettingsError { line: error.line.or(line_of(text, &error.what)), ..error };
        self.check().map_err(located).map(|()| self)
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Which settings are others in `other`, by their names in TOML. Values may be secret and are not said.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let table = |settings: &Self| toml::Table::try_from(settings).unwrap_or_default();
        let mut names = Vec::new();
        differing(&table(self), &table(other), "", &mut names);
        names
    }

    /// The same with every secret masked, for people.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mut shown = self.clone();
        let mask = |secret: &mut Option<Secret>| {
            if secret.is_some() {
                *secret = Some(Secret::new(MASK));
            }
        };
        for ca in shown.ca.values_mut() {
            mask(&mut ca.account);
            mask(&mut ca.eab_key);
            mask(&mut ca.key);
        }
        if let Some(dns01) = &mut shown.dns01 {
            mask(&mut dns01.key_secret);
            dns01.secret_words().for_each(|(_, word)| *word = Secret::new(MASK));
        }
        if let Some(s3) = &mut shown.s3 {
            mask(&mut s3.secret_access_key);
        }
        if let Some(check_in) = &mut shown.check_in {
            mask(&mut check_in.url);
            check_in.alertmanager = check_in.alertmanager.as_deref().map(without_login);
        }
        for (_, secret) in shown.alerts.iter_mut().flat_map(AlertSettings::secrets) {
            *secret = Secret::new(MASK);
        }
        shown
    }

    /// What `text` makes of `before`: TOML in which a mask that stayed keeps its secret.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn changed(before: &Self, text: &str) -> Result<Self, SettingsError> {
        Self::edited(before, text)?.checked(text)
    }

    /// The same where `before` is known with its secrets masked: masks that stay are masks still, and whoever has the
    /// secrets looks at what the words mean.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn edited(before: &Self, text: &str) -> Result<Self, SettingsError> {
        let mut after = Self::parse_masked(text)?;
        after.unmask(before)?;
        Ok(after)
    }

    /// Puts the secrets of `before` where these settings have masks: so that an edited display loses none.
    ///
    /// # Errors
    /// [`SettingsError`] naming a mask behind which there was no secret.
    pub fn unmask(&mut self, before: &Self) -> Result<(), SettingsError> {
        let mut missing = None;
        let mut restore = |at: String, secret: &mut Option<Secret>, old: Option<&Secret>| {
            if secret.as_ref().is_some_and(|s| s.0 == MASK) {
                *secret = old.cloned();
                if secret.is_none() {
                    missing.get_or_insert(at);
                }
            }
        };
        // A secret stays only with whom it was for: else a mask would carry it to a server of somebody's choice.
        for (name, ca) in &mut self.ca {
            let old = before.ca.get(name);
            restore(format!("ca.{name}.account"), &mut ca.account, old.and_then(|ca| ca.account.as_ref()));
            restore(format!("ca.{name}.key"), &mut ca.key, old.and_then(|ca| ca.key.as_ref()));
            restore(format!("ca.{name}.eab_key"), &mut ca.eab_key, old.and_then(|ca| ca.eab_key.as_ref()));
        }
        let goes = |settings: &Self| {
            let dns01 = settings.dns01.as_ref()?;
            Some((dns01.provider.clone(), dns01.server.clone(), dns01.words.get("endpoint").cloned()))
        };
        let before_dns01 = before.dns01.as_ref().filter(|_| goes(self) == goes(before));
        if let Some(dns01) = &mut self.dns01 {
            let old = before_dns01.and_then(|d| d.key_secret.as_ref());
            restore("dns01.key_secret".into(), &mut dns01.key_secret, old);
            for (name, word) in dns01.secret_words() {
                let mut kept = Some(word.clone());
                restore(format!("dns01.{name}"), &mut kept, before_dns01.and_then(|d| d.words.get(name)));
                *word = kept.unwrap_or_else(|| Secret::new(""));
            }
        }
        if let Some(s3) = &mut self.s3 {
            let old = before.s3.as_ref().and_then(|s3| s3.secret_access_key.as_ref());
            restore("s3.secret_access_key".into(), &mut s3.secret_access_key, old);
        }
        if let Some(check_in) = &mut self.check_in {
            let old = before.check_in.as_ref().and_then(|check_in| check_in.url.as_ref());
            restore("check_in.url".into(), &mut check_in.url, old);
            let old = before.check_in.as_ref().and_then(|check_in| check_in.alertmanager.as_deref());
            if let Some(old) = old.filter(|old| check_in.alertmanager.as_deref() == Some(&without_login(old))) {
                check_in.alertmanager = Some(old.to_owned());
            }
        }
        let goes = |settings: &Self| {
            let smtp = settings.alerts.as_ref().and_then(|alerts| alerts.smtp.as_ref());
            smtp.map(|smtp| (smtp.host.clone(), smtp.port, smtp.security, smtp.user.clone(), smtp.roots.clone()))
        };
        let moved = goes(self) != goes(before);
        let mut old = before.alerts.clone().unwrap_or_default();
        if let Some(smtp) = old.smtp.as_mut().filter(|_| moved) {
            smtp.password = None;
        }
        let old: BTreeMap<String, Secret> = old.secrets().map(|(key, secret)| (key, secret.clone())).collect();
        for (key, secret) in self.alerts.iter_mut().flat_map(AlertSettings::secrets) {
            let mut kept = Some(secret.clone());
            restore(key.clone(), &mut kept, old.get(&key));
            *secret = kept.unwrap_or_else(|| Secret::new(""));
        }
        match missing {
            None => Ok(()),
            Some(at) => Err(wrong(format!(
                "{at} is masked, and there is no secret of that name to keep, or it was for somewhere else; write it out"
            ))),
        }
    }

    /// The CA's name to use.
    ///
    /// # Errors
    /// [`SettingsError`] if there is none of that name, or none at all.
    pub fn ca_name(&self, wanted: Option<&str>) -> Result<String, SettingsError> {
        let only = || (self.ca.len() == 1).then(|| self.ca.keys().next()).flatten();
        let name = wanted.or(self.default_ca.as_deref()).or_else(|| only().map(String::as_str));
        let name =
            name.ok_or_else(|| wrong("no CA is set up; run `certbus init --ca internal` or `--ca letsencrypt`"))?;
        if !self.ca.contains_key(name) {
            let known: Vec<&str> = self.ca.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(wrong(format!("there is no CA named `{name}`; known: {known}")));
        }
        Ok(name.to_owned())
    }

    /// The CAs to ask, in order: the one that a certificate names alone, else the default and its fallbacks.
    ///
    /// # Errors
    /// As [`Issuing::ca_name`].
    pub fn ca_names(&self, wanted: Option<&str>) -> Result<Vec<String>, SettingsError> {
        let first = self.ca_name(wanted)?;
        let others = self.fallback.iter().filter(|name| wanted.is_none() && **name != first).cloned();
        Ok(std::iter::once(first.clone()).chain(others).collect())
    }

    /// How control of these names is shown where nobody says it: as these settings say, as far as the names allow it.
    pub fn usual_challenge(&self, names: &[DnsName]) -> Challenge {
        let wildcard = names.iter().any(DnsName::is_wildcard);
        let usual = if wildcard { Challenge::Dns01 } else { Challenge::Http01 };
        self.challenge.filter(|challenge| !wildcard || *challenge == Challenge::Dns01).unwrap_or(usual)
    }

    /// What the CA of that name lets an account order, if that is known.
    pub fn limits(&self, name: &str) -> Limits {
        let Some(ca) = self.ca.get(name) else { return Limits::default() };
        let lets_encrypt = KNOWN_CAS.iter().find(|(known, _)| *known == "letsencrypt").map(|(_, url)| *url);
        let known = (lets_encrypt == Some(ca.directory.as_str())).then_some(budget::LETS_ENCRYPT);
        ca.limits.or(known).unwrap_or_default()
    }

    /// Whether the CA of that name is a public one, which signs no reserved names: its API needs no roots of one's own.
    pub fn is_public_ca(&self, name: &str) -> bool {
        self.ca.get(name).is_some_and(|ca| ca.directory != "internal" && ca.roots.is_none())
    }

    /// The resolver that is asked about names; the system's where None.
    pub fn name_resolver(&self) -> Option<SocketAddr> {
        self.resolver.or_else(|| self.dns01.as_ref()?.resolver)
    }

    fn check(&self) -> Result<(), SettingsError> {
        for (name, ca) in &self.ca {
            let internal = ca.directory == "internal";
            if !internal && !ca.directory.starts_with("https://") {
                return Err(wrong(format!(
                    "ca.{name}.directory is `{}`; write an https:// URL of an ACME directory, or `internal`",
                    ca.directory
                )));
            }
            if internal && (ca.certificate.is_none() || ca.key.is_none()) {
                return Err(wrong(format!("ca.{name} is internal and lacks `certificate` or `key`")));
            }
            if ca.lifetime_days == Some(0) {
                return Err(wrong(format!("ca.{name}.lifetime_days is 0; write how many days certificates live")));
            }
        }
        let named = self.default_ca.iter().map(|name| ("default_ca is", name));
        for (what, name) in named.chain(self.fallback.iter().map(|name| ("fallback names", name))) {
            if !self.ca.contains_key(name) {
                return Err(wrong(format!("{what} `{name}`, and there is no [ca.{name}]")));
            }
        }
        if let Some(problem) = self.check_in.as_ref().and_then(CheckInSettings::problem) {
            return Err(wrong(problem));
        }
        if let Some(alerts) = &self.alerts {
            alerts.check()?;
        }
        if let Some(dns01) = &self.dns01 {
            dns01.check()?;
        }
        if let Some(s3) = &self.s3 {
            s3.bucket()?;
        }
        Ok(())
    }
}

/// A URL with a mask in place of a login.
fn without_login(url: &str) -> String {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        let (_, host) = authority.rsplit_once('@')?;
        Some(format!("{scheme}://{MASK}@{host}{path}"))
    });
    parts.unwrap_or_else(|| url.to_owned())
}

fn located(text: &str, error: &toml::de::Error) -> SettingsError {
    let line = error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
    SettingsError { line, what: without_values(error.message()) }
}

/// The line of the key that a message begins with, as `dns01.token`.
fn line_of(text: &str, what: &str) -> Option<usize> {
    let (table, key) = what.split(' ').next()?.trim_end_matches(':').rsplit_once('.')?;
    let heading = format!("[{table}]");
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| line.trim() != heading);
    let (first, _) = lines.next()?;
    let mut own = lines.take_while(|(_, line)| !line.trim_start().starts_with('['));
    let at = own
        .find(|(_, line)| line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('=')));
    Some(at.map_or(first, |(line, _)| line) + 1)
}

/// A parser's message with what it quotes of a value left out: it may be a secret.
pub fn without_values(message: &str) -> String {
    match message.split_once("string \"") {
        Some((before, rest)) => {
            let after = rest.rfind('"').and_then(|end| rest.get(end + 1..)).unwrap_or_default();
            format!("{before}a string{after}")
        }
        None => message.to_owned(),
    }
}
