//! Managed certificates: make, list, show, renew, remove, export.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use certbus_core::event::CertificateRequested;
use certbus_core::id::CertificateId;
use certbus_core::name::{DnsName, NameSet};
use certbus_core::plan::{self, Due};
use certbus_core::spec::{Challenge, KeyType};
use certbus_core::time::Timestamp;
use certbus_core::x509::ParsedChain;
use certbus_manager::issue::{Outcome, on_demand};
use certbus_manager::issuing::Issuers;
use certbus_manager::{Issuing, ManageError, Manager, View, clock};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::{Missing, Mistake};
use super::{export, output};
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Order a certificate: for DOMAIN and www.DOMAIN, unless told otherwise.
    Mk(Mk),
    /// List managed certificates.
    Ls {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one, with its chain.
    Cat {
        /// Its id, as `cert ls` prints it
        id: CertificateId,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// List what is due for renewal; renew it if told to.
    Renewable {
        /// What will be due by then [default: now]
        date: Option<String>,
        /// Renew the one that is due the longest
        #[arg(long, conflicts_with = "renew_all")]
        renew_first: bool,
        /// Renew all that are due
        #[arg(long)]
        renew_all: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Renew one now, or all that are due.
    Renew {
        /// Its id
        #[arg(required_unless_present = "due")]
        id: Option<CertificateId>,
        /// All that are due
        #[arg(long, conflicts_with = "id")]
        due: bool,
    },
    /// Stop renewing and serving one. Revokes nothing.
    Rm {
        /// Its id
        id: CertificateId,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Write a certificate and its private key to files.
    Export(export::Export),
}

#[derive(Debug, Args)]
pub(crate) struct Mk {
    /// The domain
    domain: Option<String>,
    /// *.DOMAIN and DOMAIN (needs dns-01)
    #[arg(long, conflicts_with = "subdomain", requires = "domain")]
    wildcard: bool,
    /// Only DOMAIN, without www
    #[arg(long, requires = "domain")]
    subdomain: bool,
    /// One more name (may be repeated)
    #[arg(short = 'd', long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// A file of names, one a line
    #[arg(long, value_name = "NAMES")]
    file: Option<PathBuf>,
    /// How control is shown: dns-01 or http-01
    #[arg(long)]
    challenge: Option<Challenge>,
    /// p256, p384, rsa2048, rsa3072 or rsa4096
    #[arg(long, default_value = "p256")]
    key_type: KeyType,
    /// The CA's certificate profile
    #[arg(long)]
    profile: Option<String>,
    /// Which CA of the issuing settings
    #[arg(long)]
    ca: Option<String>,
    /// Show what would be ordered, and order nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Row {
    id: String,
    names: Vec<String>,
    version: Option<String>,
    not_after: Option<Timestamp>,
    renewal: Option<Timestamp>,
    state: &'static str,
    problem: Option<String>,
}

impl Cert {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        match self {
            Self::Mk(mk) => mk.run(settings).await,
            Self::Ls { json } => list(&wire::manager(settings).await?, json).await,
            Self::Cat { id, json } => show(&wire::manager(settings).await?, id, json).await,
            Self::Renewable { date, renew_first, renew_all, json } => {
                let manager = wire::manager(settings).await?;
                let at = match &date {
                    Some(date) => Timestamp::parse(date).map_err(Mistake::new)?,
                    None => clock::now(),
                };
                refresh_windows(&manager).await?;
                let mut due = {
                    let view = manager.view().await?;
                    plan::all_due(&view.catalog, &view.work, &view.certs, at)
                };
                if renew_first || renew_all {
                    due = ready(due);
                }
                if renew_first {
                    due.truncate(1);
                }
                for one in &due {
                    if json {
                        output::json(&serde_json::json!({
                            "id": one.request.certificate, "names": one.request.names, "since": one.since,
                        }));
                    } else {
                        output::line(format!("{} {}", one.request.certificate, NameSet::new(&one.request.names)));
                    }
                }
                if renew_first || renew_all { renew(settings, &manager, due, true).await } else { Ok(()) }
            }
            Self::Renew { id, .. } => {
                let manager = wire::manager(settings).await?;
                let by_due = id.is_none();
                let due = match id {
                    Some(id) => vec![on_demand(&*manager.view().await?, id)?],
                    None => {
                        refresh_windows(&manager).await?;
                        let view = manager.view().await?;
                        ready(plan::all_due(&view.catalog, &view.work, &view.certs, clock::now()))
                    }
                };
                renew(settings, &manager, due, by_due).await
            }
            Self::Rm { id, yes } => remove(settings, id, yes).await,
            Self::Export(export) => export.run(settings).await,
        }
    }
}

impl Mk {
    async fn run(self, settings: &Settings) -> Result<()> {
        let names = self.all_names()?;
        let manager = wire::manager(settings).await?;
        let issuing = manager.settings().await?;
        let ca = issuing.ca_name(self.ca.as_deref())?;
        if issuing.is_public_ca(&ca) {
            for name in &names {
                if let Some(why) = name.public_obstacle() {
                    bail!(Mistake::new(format!("no public CA signs `{name}`: {why}")));
                }
            }
        }
        let challenge = self.challenge(&issuing, &ca, &names, settings)?;
        output::line(format!("names      {}", NameSet::new(&names)));
        output::line(format!("CA         {ca}"));
        if issuing.ca.get(&ca).is_some_and(|entry| entry.directory != "internal") {
            output::line(format!("challenge  {challenge}"));
        }
        if self.dry_run {
            let existing = manager.view().await?.work.requested_for(&NameSet::new(&names)).map(|r| r.certificate);
            output::line(match existing {
                Some(id) => format!("nothing would be ordered: {id} has these names"),
                None => "dry run: nothing was ordered".into(),
            });
            return Ok(());
        }
        let wanted = CertificateRequested {
            certificate: clock::certificate_id(),
            names,
            challenge,
            key_type: self.key_type,
            ca: self.ca.clone(),
            profile: self.profile.clone(),
        };
        let (id, new) = manager.request(&wanted).await?;
        let obtained = manager.view().await?.catalog.newest(id).is_some();
        if obtained {
            output::line(format!("{id} has these names already; nothing was ordered"));
            return Ok(());
        }
        if !new {
            output::line(format!("{id} has these names and no certificate yet: going on with it"));
        }
        let due = on_demand(&*manager.view().await?, id)?;
        let issuers = Issuers::new(issuing, &settings.solvers())?;
        let outcome = manager.issue(&due, &issuers, &|step| output::remark(format!("  {step} …"))).await;
        match outcome {
            Ok(outcome) => print_outcome(&outcome),
            Err(error) if new && manager.view().await.is_ok_and(|view| nothing_was_ordered(&view, id)) => {
                // A first order that the CA would not even take leaves nothing behind (invariant 9).
                if let Err(left) = manager.remove(id).await {
                    output::remark(format!("{id} is left behind, `cert rm {id}` ends it: {left}"));
                }
                return Err(error.into());
            }
            Err(error @ ManageError::Claimed { .. }) => return Err(error.into()),
            Err(error) => {
                return Err(error).with_context(|| format!("{id} is kept and tried again; `cert rm {id}` ends it"));
            }
        }
        Ok(())
    }

    fn all_names(&self) -> Result<Vec<DnsName>> {
        let mut names = Vec::new();
        if let Some(domain) = &self.domain {
            let domain = DnsName::parse(domain)?;
            if self.wildcard {
                names.push(DnsName::parse(&format!("*.{}", domain.base()))?);
                names.push(DnsName::parse(domain.base())?);
            } else {
                if !self.subdomain && domain.is_registered_domain() {
                    names.push(DnsName::parse(&format!("www.{domain}"))?);
                }
                names.push(domain);
            }
        }
        for name in &self.names {
            names.push(DnsName::parse(name)?);
        }
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            for (number, line) in text.lines().enumerate() {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with('#') {
                    let name = DnsName::parse(line);
                    names.push(name.with_context(|| format!("{} line {}", path.display(), number + 1))?);
                }
            }
        }
        names.sort();
        names.dedup();
        match names.len() {
            0 => bail!(Mistake::new("no name was given; write `certbus cert mk example.com`")),
            1..=100 => Ok(names),
            many => bail!(Mistake::new(format!("{many} names are more than a certificate of a public CA takes (100)"))),
        }
    }

    fn challenge(&self, issuing: &Issuing, ca: &str, names: &[DnsName], settings: &Settings) -> Result<Challenge> {
        let wildcard = names.iter().find(|name| name.is_wildcard());
        let usual = if wildcard.is_some() { Challenge::Dns01 } else { Challenge::Http01 };
        let chosen = self.challenge.or(issuing.challenge.filter(|c| wildcard.is_none() || *c == Challenge::Dns01));
        let chosen = chosen.unwrap_or(usual);
        if let (Some(name), Challenge::Http01) = (wildcard, chosen) {
            bail!(Mistake::new(format!(
                "`{name}` is a wildcard, which is shown by dns-01 only; leave --challenge out"
            )));
        }
        if issuing.ca.get(ca).is_some_and(|entry| entry.directory == "internal") {
            return Ok(chosen);
        }
        let local = settings.solvers();
        let missing = match chosen {
            Challenge::Dns01 if issuing.dns01.is_none() => {
                Some("[dns01] in the issuing settings (`certbus conf edit`)")
            }
            Challenge::Http01 if local.http01_listen.is_none() && local.http01_webroot.is_none() => {
                Some("[http01] with `listen` or `webroot` in certbus.toml")
            }
            _ => None,
        };
        match missing {
            None => Ok(chosen),
            Some(what) => bail!(Mistake::new(format!("{chosen} is not set up: it needs {what}"))),
        }
    }
}

fn nothing_was_ordered(view: &View, id: CertificateId) -> bool {
    view.catalog.timeline(id).is_none() && !view.work.open_orders().any(|order| order.certificate == id)
}

fn print_outcome(outcome: &Outcome) {
    output::done(format!("{} {}", outcome.certificate, outcome.names));
    output::line(format!("  version {}", outcome.version));
    output::line(format!("  valid until {}, renewed after {}", outcome.not_after.date(), outcome.renewal.date()));
}

async fn list(manager: &Manager, json: bool) -> Result<()> {
    let view = manager.view().await?;
    let now = clock::now();
    let mut rows: Vec<Row> = view.work.requests().into_iter().map(|request| row(&view, request, now)).collect();
    rows.sort_by(|a, b| a.names.cmp(&b.names));
    if rows.is_empty() && !json {
        output::remark(format!(
            "no managed certificates in {}; `certbus cert mk DOMAIN` orders one",
            manager.tenant().certs.log.place()
        ));
    }
    if json {
        rows.iter().for_each(output::json);
        return Ok(());
    }
    let cells = rows.into_iter().map(|row| {
        let date = |time: Option<Timestamp>| time.map_or("-".to_owned(), Timestamp::date);
        vec![row.id, row.names.join(", "), date(row.not_after), date(row.renewal), row.state.to_owned()]
    });
    output::table(&["id", "names", "valid until", "renewal", "state"], cells.collect());
    Ok(())
}

fn row(view: &View, request: &CertificateRequested, now: Timestamp) -> Row {
    let id = request.certificate;
    let version = view.catalog.newest(id);
    let failure = view.work.failure(id);
    let due = plan::due(&view.catalog, &view.work, &view.certs, request, now);
    let state = match (version, failure, due) {
        (None, Some(_), _) => "failing",
        (None, None, _) => "requested",
        (Some(version), _, _) if version.not_after < now => "expired",
        (_, Some(_), _) => "renewal failing",
        (_, None, Some(_)) => "due",
        _ => "ok",
    };
    Row {
        id: id.to_string(),
        names: request.names.iter().map(ToString::to_string).collect(),
        version: version.map(|v| v.fingerprint.to_string()),
        not_after: version.map(|v| v.not_after),
        renewal: version.map(|v| plan::renewal_point(v, view.work.window(id))),
        state,
        problem: failure.map(|f| f.problem.clone()),
    }
}

async fn show(manager: &Manager, id: CertificateId, json: bool) -> Result<()> {
    let view = manager.view().await?;
    let request = view.work.request(id).cloned();
    let Some(request) = request else {
        bail!(Missing::new(format!("there is no managed certificate {id}; `certbus cert ls` lists them")));
    };
    let found = row(&view, &request, clock::now());
    let obtained = match view.catalog.newest(id) {
        Some(version) => manager.tenant().obtained(&view, version).await?,
        None => None,
    };
    let chain = obtained.as_ref().map(|o| o.chain.clone());
    if json {
        let mut value = serde_json::to_value(&found).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.insert("challenge".into(), serde_json::json!(request.challenge));
            object.insert("key_type".into(), serde_json::json!(request.key_type));
            object.insert("chain".into(), serde_json::json!(chain));
        }
        output::json(&value);
        return Ok(());
    }
    let mut rows = vec![
        ("id", found.id),
        ("names", found.names.join(", ")),
        ("state", found.state.to_owned()),
        ("key", request.key_type.to_string()),
        ("challenge", request.challenge.to_string()),
    ];
    if let Some(obtained) = &obtained {
        let parsed = ParsedChain::parse(&obtained.chain)?;
        rows.push(("version", obtained.version.to_string()));
        rows.push(("issuer", parsed.issuer.to_string()));
        rows.push(("serial", parsed.serial.to_string()));
        rows.push(("valid", format!("{} to {}", obtained.not_before, obtained.not_after)));
    }
    if let Some(renewal) = found.renewal {
        rows.push(("renewal", renewal.to_string()));
    }
    let newest = view.catalog.newest(id).map(|version| version.fingerprint);
    if let Some(window) = view.work.window(id).filter(|window| Some(window.version) == newest) {
        rows.push(("CA's window", format!("{} to {}", window.start, window.end)));
    }
    if let Some(problem) = found.problem {
        rows.push(("last problem", problem));
    }
    for (name, value) in rows {
        output::line(format!("{name:<13}{value}"));
    }
    if let Some(chain) = chain {
        output::line(format!("\n{}", chain.trim_end()));
    }
    Ok(())
}

/// Asks CAs that offer renewal windows for those of their certificates. One that does not answer spoils nothing.
async fn refresh_windows(manager: &Manager) -> Result<()> {
    let issuing = manager.settings().await?;
    let requests: Vec<CertificateRequested> = {
        let view = manager.view().await?;
        view.work.requests().into_iter().filter(|r| view.catalog.newest(r.certificate).is_some()).cloned().collect()
    };
    let mut connected = std::collections::HashMap::new();
    for request in requests {
        let Ok(name) = issuing.ca_name(request.ca.as_deref()) else {
            continue;
        };
        if issuing.ca.get(&name).is_some_and(|ca| ca.directory == "internal") {
            continue;
        }
        if !connected.contains_key(&name) {
            match issuing.connect(&name).await {
                Ok(ca) => drop(connected.insert(name.clone(), Some(ca))),
                Err(error) => {
                    output::remark(format!("renewal windows of {name} not read: {error}"));
                    connected.insert(name.clone(), None);
                }
            }
        }
        if let Some(Some(ca)) = connected.get(&name) {
            manager.refresh_window(&request, ca).await?;
        }
    }
    Ok(())
}

async fn renew(settings: &Settings, manager: &Manager, due: Vec<Due>, by_due: bool) -> Result<()> {
    // A round of a manager: clients tell a quiet log from a dead one by this.
    manager.say_alive().await?;
    if due.is_empty() {
        output::remark("nothing is due");
        return Ok(());
    }
    let issuers = Issuers::new(manager.settings().await?, &settings.solvers())?;
    let count = due.len();
    let mut failed = Vec::new();
    for one in due {
        match manager.issue(&one, &issuers, &|step| output::remark(format!("  {step} …"))).await {
            Ok(outcome) => print_outcome(&outcome),
            // Another manager is at it: this round has nothing to do for it.
            Err(error @ ManageError::Claimed { .. }) if by_due => output::remark(error.to_string()),
            Err(error) if count == 1 => return Err(error.into()),
            Err(error) => {
                output::error(&format!("{}: {error}", one.request.certificate));
                failed.push(one.request.certificate.to_string());
            }
        }
    }
    if !failed.is_empty() {
        bail!("{} of {count} were not renewed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

/// Those whose last failure lets them be tried again by now; the others are named.
fn ready(due: Vec<Due>) -> Vec<Due> {
    let now = clock::now();
    let (waiting, ready): (Vec<Due>, Vec<Due>) =
        due.into_iter().partition(|one| one.not_before.is_some_and(|not_before| not_before > now));
    for one in waiting {
        let (id, until) = (one.request.certificate, one.not_before.unwrap_or(now));
        output::remark(format!("{id} failed before and waits until {until}; `cert renew {id}` tries now"));
    }
    ready
}

async fn remove(settings: &Settings, id: CertificateId, yes: bool) -> Result<()> {
    let manager = wire::manager(settings).await?;
    let names = {
        let view = manager.view().await?;
        let Some(request) = view.work.request(id) else {
            bail!(Missing::new(format!("there is no managed certificate {id}; `certbus cert ls` lists them")));
        };
        NameSet::new(&request.names)
    };
    let question =
        format!("stop renewing and serving {names}? Load balancers drop it at once; nothing is revoked at the CA.");
    if !yes {
        match output::ask(&question) {
            Some(true) => {}
            Some(false) => bail!("nothing was removed"),
            None => bail!(Mistake::new(format!("{question} Say --yes"))),
        }
    }
    // What an order that was left open has set up goes with it, as far as it can be reached.
    if let Ok(issuers) = Issuers::new(manager.settings().await?, &settings.solvers()) {
        manager.clean_up(id, &issuers).await?;
    }
    manager.remove(id).await?;
    output::done(format!("removed {id} {names}: it is renewed and served no more; nothing was revoked"));
    Ok(())
}
