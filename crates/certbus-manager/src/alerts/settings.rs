//! What is written under `[alerts]` in the issuing settings, sealed on the log. Programs to run are no part of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use lettre::Address;
use lettre::message::Mailbox;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use crate::issuing::{Secret, SettingsError, wrong};

/// Where messages go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertSettings {
    /// A mail server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<Smtp>,
    /// URLs that are posted to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhook: Vec<Webhook>,
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Its name: its certificate is for that.
    pub host: String,
    /// Its port: 587, 465 or 25 unless this says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How mail is kept from others on the way.
    #[serde(default)]
    pub security: Security,
    /// Who logs in there; absent: nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The file that `conf update` takes it from.
    #[serde(default, skip_serializing)]
    pub password_file: Option<PathBuf>,
    /// PEM of the roots that it is trusted by; absent: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// Who writes.
    pub from: String,
    /// Who is written to.
    pub to: Vec<String>,
    /// Whether an endpoint's owner is written to as well, if that is an address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub to_owner: bool,
}

/// How mail is kept from others on the way to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// Nothing is said before TLS was begun (port 587).
    #[default]
    Starttls,
    /// TLS from the first byte (port 465).
    Tls,
    /// In plain, on this machine alone (port 25).
    None,
}

/// A URL that is posted to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// What the delivery log calls it.
    pub name: String,
    /// The URL. Masked, since most have a token in them.
    pub url: Secret,
    /// What posts are signed with; absent: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// The file that `conf update` takes it from.
    #[serde(default, skip_serializing)]
    pub secret_file: Option<PathBuf>,
}

impl Smtp {
    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.security {
            Security::Starttls => 587,
            Security::Tls => 465,
            Security::None => 25,
        })
    }
}

impl AlertSettings {
    /// Takes secrets out of the files that are named, so that they are sealed with the rest. Once: a file that changes is
    /// taken again by the next `conf update`.
    ///
    /// # Errors
    /// [`SettingsError`] naming the key and the file.
    pub fn take_files(&mut self) -> Result<(), SettingsError> {
        if let Some(smtp) = &mut self.smtp
            && let Some(file) = smtp.password_file.take()
        {
            smtp.password = Some(first_line("alerts.smtp.password_file", &file)?);
        }
        for webhook in &mut self.webhook {
            if let Some(file) = webhook.secret_file.take() {
                webhook.secret = Some(first_line(&format!("alerts.webhook.{}.secret_file", webhook.name), &file)?);
            }
        }
        Ok(())
    }

    /// Whether a secret is to be read from a file of the machine where the settings were written.
    pub fn names_files(&self) -> bool {
        self.smtp.as_ref().is_some_and(|smtp| smtp.password_file.is_some())
            || self.webhook.iter().any(|webhook| webhook.secret_file.is_some())
    }

    /// Every secret, by its key.
    pub(crate) fn secrets(&mut self) -> impl Iterator<Item = (String, &mut Secret)> {
        let password = self.smtp.as_mut().and_then(|smtp| smtp.password.as_mut());
        let webhooks = self.webhook.iter_mut().flat_map(|Webhook { name, url, secret, .. }| {
            let url = (format!("alerts.webhook.{name}.url"), url);
            std::iter::once(url).chain(secret.as_mut().map(|secret| (format!("alerts.webhook.{name}.secret"), secret)))
        });
        password.map(|password| ("alerts.smtp.password".to_owned(), password)).into_iter().chain(webhooks)
    }

    /// What is wrong with them, if anything is. Nothing of a secret is quoted.
    pub(crate) fn check(&self) -> Result<(), SettingsError> {
        if let Some(smtp) = &self.smtp {
            smtp.check()?;
        }
        let mut names = BTreeSet::new();
        for webhook in &self.webhook {
            let Webhook { name, url, secret, secret_file } = webhook;
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
            if name.is_empty() || name.len() > 64 || !name.chars().all(good) {
                return Err(wrong(format!(
                    "alerts.webhook.name is `{name}`; write up to 64 of a-z, 0-9, `-`, `_` and `.`"
                )));
            }
            if !names.insert(name) {
                return Err(wrong(format!("alerts.webhook.name is `{name}` twice; give each a name of its own")));
            }
            if !url.is_masked() && !is_url(url.expose().expose_secret()) {
                return Err(wrong(format!(
                    "alerts.webhook.url of `{name}` is no URL; write an http:// or https:// URL"
                )));
            }
            one_of(&format!("alerts.webhook.secret of `{name}`"), secret, secret_file)?;
        }
        Ok(())
    }
}

impl Smtp {
    fn check(&self) -> Result<(), SettingsError> {
        let at = |key: &str, what: &str| Err(wrong(format!("alerts.smtp.{key} {what}")));
        if self.host.is_empty() || !self.host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)) {
            return at("host", &format!("is `{}`; write the mail server's name, its port into `port`", self.host));
        }
        if self.port == Some(0) {
            return at("port", "is 0; write 587, 465 or 25");
        }
        if self.security == Security::None && !is_loopback(&self.host) {
            return at(
                "security",
                "is `none`, which is for a server on this machine alone (127.0.0.1); write `starttls` or `tls`",
            );
        }
        one_of("alerts.smtp.password", &self.password, &self.password_file)?;
        match (&self.user, self.password.is_some() || self.password_file.is_some()) {
            (Some(_), false) => return at("user", "is there without `password` or `password_file`"),
            (None, true) => return at("password", "is there without `user`"),
            _ => {}
        }
        if let Err(error) = self.from.parse::<Mailbox>() {
            return at(
                "from",
                &format!("is `{}`, which is no address: {error}; write certbus@shop.example", self.from),
            );
        }
        if self.to.is_empty() && !self.to_owner {
            return at("to", "names nobody; write [\"ops@shop.example\"]");
        }
        for to in &self.to {
            if let Err(error) = to.parse::<Mailbox>() {
                return at("to", &format!("has `{to}`, which is no address: {error}; write ops@shop.example"));
            }
        }
        if let Some(roots) = &self.roots
            && super::smtp::roots(roots).is_none()
        {
            return at("roots", "is no PEM of certificates");
        }
        Ok(())
    }
}

fn is_url(text: &str) -> bool {
    reqwest::Url::parse(text).is_ok_and(|url| url.has_host() && ["http", "https"].contains(&url.scheme()))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn one_of(key: &str, secret: &Option<Secret>, file: &Option<PathBuf>) -> Result<(), SettingsError> {
    match secret.is_some() && file.is_some() {
        true => Err(wrong(format!("{key} stands there beside its `_file`; write one of them"))),
        false => Ok(()),
    }
}

fn first_line(key: &str, file: &Path) -> Result<Secret, SettingsError> {
    let text = std::fs::read_to_string(file).map(zeroize::Zeroizing::new);
    let text = text.map_err(|error| wrong(format!("{key} {}: {error}", file.display())))?;
    match text.lines().next().map(str::trim_end).filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret::new(line)),
        None => Err(wrong(format!("{key} {}: its first line is empty, and is to be the secret", file.display()))),
    }
}

/// An owner that can be written to.
pub(super) fn address(owner: &str) -> Option<Mailbox> {
    let found = owner.parse::<Mailbox>().ok().or_else(|| owner.parse::<Address>().ok().map(Mailbox::from))?;
    owner.contains('@').then_some(found)
}
