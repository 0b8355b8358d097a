//! `certbus init`: from nothing to a log with its identities and a CA account. Asks nothing; may be run again.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use certbus_acme::IssueError;
use certbus_core::id::Cursor;
use certbus_core::identity::Role;
use certbus_core::spec::Challenge;
use certbus_manager::ceremony::{Founding, is_taken};
use certbus_manager::issuing::{CaSettings, Dns01Settings, KNOWN_CAS, Secret};
use certbus_manager::{Issuing, ManageError, Manager};
use clap::Args;

use super::exit::Mistake;
use super::{doctor, output};
use crate::settings::{Overrides, Settings};
use crate::wire;

#[derive(Debug, Default, Args)]
pub(crate) struct Init {
    /// For the whole machine: /etc/certbus and /var/lib/certbus
    #[arg(long)]
    system: bool,
    /// letsencrypt, letsencrypt-staging, internal, or the URL of an ACME directory
    #[arg(long, value_name = "CA")]
    pub(crate) ca: Option<String>,
    /// Whom the CA writes to
    #[arg(long)]
    email: Option<String>,
    /// Agree to the CA's terms of service
    #[arg(long)]
    agree_tos: bool,
    /// PEM of the roots that the CA's own API is trusted by (for a private CA)
    #[arg(long, value_name = "FILE")]
    ca_roots: Option<PathBuf>,
    /// External account binding, which some CAs want: the key's identifier
    #[arg(long, value_name = "ID", requires = "eab_key_file")]
    eab_key_id: Option<String>,
    /// External account binding: a file with the MAC key, in base64url
    #[arg(long, value_name = "FILE", requires = "eab_key_id")]
    eab_key_file: Option<PathBuf>,
    /// Answer HTTP-01 by a listener (`listen`, `listen=ADDRESS:PORT`) or files (`webroot=DIR`)
    #[arg(long, value_name = "HOW")]
    http01: Option<String>,
    /// Answer DNS-01 by `exec=PROGRAM` (lego's convention) or `rfc2136` (then `certbus conf edit` for server and key)
    #[arg(long, value_name = "PROVIDER")]
    dns01: Option<String>,
}

impl Init {
    pub(crate) async fn run(self, overrides: &Overrides) -> Result<()> {
        let overrides = Overrides { system: self.system, ..overrides.clone() };
        let ca = self.ca.as_deref().map(parse_ca).transpose()?;
        let local = self.local_settings()?;
        let roots = self
            .ca_roots
            .as_ref()
            .map(|path| std::fs::read_to_string(path).with_context(|| format!("--ca-roots {}", path.display())));
        let roots = roots.transpose()?;
        let settings = Settings::load_or_default(&overrides)?;
        if write_settings(&settings, &local)? {
            output::done(format!("wrote the settings {}", settings.path.display()));
        }
        let settings = Settings::load(&Overrides { config: Some(settings.path.clone()), ..overrides })?;
        found(&settings).await?;
        if ca.is_some() || self.dns01.is_some() {
            self.set_up_ca(&settings, ca, roots).await?;
        }
        output::heading("doctor");
        doctor::look(&settings).await?;
        output::heading("next");
        let manager = wire::manager(&settings).await?;
        output::line(if manager.settings().await?.ca.is_empty() {
            "  certbus init --ca internal            a CA of your own, for trying out and for inside names\n  \
             certbus init --ca letsencrypt --email YOU --agree-tos --http01 listen"
        } else {
            "  certbus cert mk YOUR.DOMAIN           order the first certificate\n  \
             certbus example-server                serve it on https://localhost:8443"
        });
        Ok(())
    }

    /// Lines for certbus.toml.
    fn local_settings(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        if let Some(how) = &self.http01 {
            lines.push("[http01]".into());
            match how.split_once('=').unwrap_or((how, "")) {
                ("listen", "") => lines.push("listen = \"0.0.0.0:80\"".into()),
                ("listen", address) => {
                    let address: SocketAddr = address.parse().map_err(|_| {
                        Mistake::new(format!("--http01 listen={address}: write an address with port, as 0.0.0.0:80"))
                    })?;
                    lines.push(format!("listen = \"{address}\""));
                }
                ("webroot", folder) if !folder.is_empty() => {
                    lines.push(format!("webroot = {}", absolute(folder)));
                }
                _ => bail!(Mistake::new(format!(
                    "--http01 {how}: write `listen`, `listen=ADDRESS:PORT` or `webroot=DIR`"
                ))),
            }
        }
        match self.dns01.as_deref().map(|p| p.split_once('=').unwrap_or((p, ""))) {
            None | Some(("rfc2136", "")) => {}
            Some(("exec", program)) if !program.is_empty() => {
                lines.push("[exec]".into());
                lines.push(format!("dns01 = {}", absolute(program)));
            }
            Some((other, _)) => bail!(Mistake::new(format!(
                "--dns01 {other}: write `exec=PROGRAM` or `rfc2136`; other providers are set up by `certbus conf edit`"
            ))),
        }
        Ok(lines)
    }

    async fn set_up_ca(&self, settings: &Settings, ca: Option<(String, String)>, roots: Option<String>) -> Result<()> {
        let manager = wire::manager(settings).await?;
        let before = manager.settings().await?;
        let mut issuing = before.clone();
        if let Some((name, directory)) = &ca {
            let name = &name_for(&issuing, name, directory);
            let entry = issuing.ca.entry(name.clone()).or_insert_with(CaSettings::default);
            entry.directory.clone_from(directory);
            entry.agree_tos |= self.agree_tos;
            entry.email = self.email.clone().or(entry.email.take());
            entry.roots = roots.or(entry.roots.take());
            if let (Some(id), Some(path)) = (&self.eab_key_id, &self.eab_key_file) {
                let key =
                    std::fs::read_to_string(path).with_context(|| format!("--eab-key-file {}", path.display()))?;
                entry.eab_key_id = Some(id.clone());
                entry.eab_key = Some(Secret::new(key.trim()));
            }
            issuing.default_ca = Some(name.clone());
            let registered = issuing.register(name).await;
            if let Err(ManageError::Issue(IssueError::TermsNotAgreed { url })) = &registered {
                bail!(Mistake::new(format!("the CA's terms of service: read {url}, then say --agree-tos")));
            }
            if let Err(ManageError::Issue(IssueError::ExternalAccount { why })) = &registered {
                bail!(Mistake::new(format!(
                    "external account binding: {why}; say --eab-key-id and --eab-key-file, as the CA's account page shows them"
                )));
            }
            if registered? {
                output::done(if directory == "internal" {
                    "made the root of an internal CA".to_owned()
                } else {
                    format!("registered an account at {directory}")
                });
            }
        }
        self.choose_challenge(&mut issuing);
        if issuing != before {
            manager.set_settings(&before, &issuing).await?;
            output::done("sealed the issuing settings onto the log");
        }
        Ok(())
    }

    fn choose_challenge(&self, issuing: &mut Issuing) {
        let provider = self.dns01.as_deref().map(|p| p.split('=').next().unwrap_or(p));
        if let Some(provider) = provider {
            issuing.challenge = Some(Challenge::Dns01);
            if provider == "exec" && issuing.dns01.as_ref().is_none_or(|dns01| dns01.provider != provider) {
                issuing.dns01 = Some(Dns01Settings { provider: provider.to_owned(), ..Dns01Settings::default() });
            }
        } else if self.http01.is_some() {
            issuing.challenge = Some(Challenge::Http01);
        }
    }
}

/// A path as TOML, for a program that is started elsewhere.
fn absolute(path: &str) -> toml::Value {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    toml::Value::String(path.display().to_string())
}

fn parse_ca(word: &str) -> Result<(String, String)> {
    if let Some((name, url)) = KNOWN_CAS.iter().find(|(name, _)| *name == word) {
        return Ok(((*name).to_owned(), (*url).to_owned()));
    }
    if word == "internal" {
        return Ok((word.to_owned(), word.to_owned()));
    }
    let authority = word.strip_prefix("https://").and_then(|rest| rest.split('/').next()).filter(|a| !a.is_empty());
    match authority {
        // A key of TOML without quotes has no dots.
        Some(authority) => Ok((authority.replace(['.', ':', '[', ']'], "-"), word.to_owned())),
        None => bail!(Mistake::new(format!(
            "--ca {word}: write letsencrypt, letsencrypt-staging, internal, or an https:// URL of an ACME directory"
        ))),
    }
}

/// The name under which a directory stands in the settings: the one it has, else one that no other directory has.
fn name_for(issuing: &Issuing, name: &str, directory: &str) -> String {
    if let Some((known, _)) = issuing.ca.iter().find(|(_, ca)| ca.directory == directory) {
        return known.clone();
    }
    let mut free = name.to_owned();
    let mut number = 2;
    while issuing.ca.contains_key(&free) {
        free = format!("{name}-{number}");
        number += 1;
    }
    free
}

/// Writes certbus.toml if there is none. True if it did.
pub(crate) fn write_settings(settings: &Settings, local: &[String]) -> Result<bool> {
    let path = &settings.path;
    if path.exists() {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        if !local.iter().all(|line| text.contains(line.as_str())) {
            bail!(Mistake::new(format!(
                "{} is there already and is not written over; put this into it yourself:\n{}",
                path.display(),
                local.join("\n")
            )));
        }
        return Ok(false);
    }
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let data = std::path::absolute(&settings.data).unwrap_or_else(|_| settings.data.clone());
    let mut text = format!(
        "# Local settings of CertBus on this machine. CA accounts and credentials are not here: `certbus conf edit`.\n\n\
         data = {}\n",
        toml::Value::String(data.display().to_string())
    );
    for line in local {
        if line.starts_with('[') {
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// Makes the identities and the log, each if it is missing, and says what it made.
pub(crate) async fn found(settings: &Settings) -> Result<()> {
    for made in make(settings).await? {
        output::done(made);
    }
    Ok(())
}

/// Makes the identities and the log, each if it is missing. Returns what it made, for people.
pub(crate) async fn make(settings: &Settings) -> Result<Vec<String>> {
    let mut said = Vec::new();
    wire::make_folder(&settings.data)?;
    // One init at a time: two would each make keys, and one's would win the log while the other's stay on disk.
    let _lock = wire::lock(&settings.data.join(".init.lock"))?;
    let tenant = wire::tenant(settings, Vec::new(), true).await?;
    let empty = tenant.certs.log.read(Cursor::START, 1).await.is_ok_and(|page| page.batches.is_empty());
    if !empty {
        finish_founding(settings, &tenant.certs.log.place()).await?;
        return Ok(said);
    }
    let place = tenant.certs.log.place();
    let paths = [settings.owner_key(), settings.node_key(), settings.manager_key()];
    let roles = [Role::Owner, Role::Node, Role::Manager];
    let mut there = Vec::new();
    for (path, role) in paths.iter().zip(roles) {
        there.push(if path.exists() { Some(wire::identity(path, role)?) } else { None });
    }
    let (manager, nodes, owner) = (there.pop().flatten(), there.pop().flatten(), there.pop().flatten());
    if owner.is_none() && (manager.is_some() || nodes.is_some()) {
        bail!(Mistake::new(format!(
            "the log {} is empty, but identities of another log are in {} and no owner file that could start it; look at \
             --data and --config",
            place,
            settings.identities().display()
        )));
    }
    let founding = Founding::prepare(&settings.tenant, &host_name(), owner, manager, nodes)?;
    let purposes = [
        "the authority and recovery; best taken offline",
        "opens certificates; give it to your load balancers",
        "writes the log",
    ];
    let made = [&founding.owner, &founding.nodes, &founding.manager];
    for ((path, identity), purpose) in paths.iter().zip(made).zip(purposes) {
        if !path.exists() {
            wire::write_identity(path, identity)?;
            said.push(format!("made {} ({purpose})", path.display()));
        }
        // What is founded is what lies there, or nothing.
        if wire::identity(path, identity.role)?.open.public() != identity.open.public() {
            bail!("{} was changed meanwhile; run init again", path.display());
        }
    }
    match founding.found(&tenant).await {
        Err(error) if is_taken(&error) => bail!("another init was at work on the same log; run it again"),
        other => other?,
    }
    said.push(format!("started the log {place}"));
    Ok(said)
}

/// The log is there: either all of it, or an init stopped after the first of the two streams.
async fn finish_founding(settings: &Settings, place: &str) -> Result<()> {
    if !settings.manager_key().exists() {
        bail!(Mistake::new(format!(
            "the log {place} is there already, and the manager identity {} is not; for one more manager let the owner run \
             `certbus manager add`",
            settings.manager_key().display()
        )));
    }
    let identity = wire::identity(&settings.manager_key(), Role::Manager)?;
    let pins = identity.pin.into_iter().collect();
    let tenant = wire::tenant(settings, pins, false).await?;
    drop(Manager::open(tenant, identity, "init").await?);
    Ok(())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "manager".into() } else { name.to_owned() }
}
