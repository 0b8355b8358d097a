//! `certbus cert mk`: from what a person types to an order. Everything is checked before anything is ordered.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use certbus_core::event::CertificateRequested;
use certbus_core::id::CertificateId;
use certbus_core::name::{DnsName, NameSet};
use certbus_core::spec::{Challenge, KeyType};
use certbus_manager::Issuers;
use certbus_manager::check::{Finding, Level, Plan};
use certbus_manager::issue::on_demand;
use certbus_manager::{Issuing, ManageError, Manager, View, clock};
use clap::Args;

use super::cert::print_outcome;
use super::exit::{Found, Mistake};
use super::renew::issue_due;
use super::{check, output};
use crate::settings::Settings;
use crate::wire;

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
    /// A file with a certificate for each line: its names, separated by spaces or commas
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domain", "names", "file"])]
    pub(super) each: Option<PathBuf>,
    /// How control is shown: dns-01 or http-01
    #[arg(long)]
    pub(super) challenge: Option<Challenge>,
    /// p256, p384, rsa2048, rsa3072 or rsa4096
    #[arg(long, default_value = "p256")]
    pub(super) key_type: KeyType,
    /// The CA's certificate profile
    #[arg(long)]
    pub(super) profile: Option<String>,
    /// Which CA of the issuing settings
    #[arg(long)]
    pub(super) ca: Option<String>,
    /// Show what would be ordered and what would fail, and order nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl Mk {
    pub(super) async fn run(self, settings: &Settings) -> Result<()> {
        if let Some(file) = &self.each {
            return self.each(file, settings).await;
        }
        let names = self.all_names()?;
        let manager = wire::manager(settings).await?;
        let issuing = manager.settings().await?;
        let ca = issuing.ca_name(self.ca.as_deref())?;
        check_signable(&issuing, &ca, &names)?;
        let challenge = self.challenge(&issuing, &ca, &names, settings)?;
        let asked = issuing.ca.get(&ca).is_some_and(|entry| entry.directory != "internal");
        print_wanted(&NameSet::new(&names).to_string(), &ca, asked.then(|| challenge.to_string()).as_deref());
        if self.dry_run {
            let existing = manager.view().await?.work.requested_for(&NameSet::new(&names)).map(|r| r.certificate);
            output::line(match existing {
                Some(id) => format!("nothing would be ordered: {id} has these names"),
                None => "dry run: nothing was ordered".into(),
            });
            let plan = Plan { names: &names, challenge, ca: self.ca.as_deref() };
            return check::look(&manager, issuing, settings, &plan, false).await;
        }
        let (id, new) = manager.request(&self.wanted(names, challenge)).await?;
        // One look for both: who issues it in between is not outdone by a renewal.
        let due = {
            let view = manager.view().await?;
            if view.catalog.newest(id).is_some() {
                print_there(id);
                return Ok(());
            }
            on_demand(&view, id)?
        };
        if !new {
            print_open(id);
        }
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

    /// Orders a certificate for each line. Every line is checked before the first is ordered.
    async fn each(&self, file: &Path, settings: &Settings) -> Result<()> {
        let manager = wire::manager(settings).await?;
        let issuing = manager.settings().await?;
        let ca = issuing.ca_name(self.ca.as_deref())?;
        let mut wanted = Vec::new();
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        for (number, line) in
            text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty() && !l.trim().starts_with('#'))
        {
            let read = || {
                let names = line.split([' ', ',', '\t']).filter(|name| !name.is_empty()).map(DnsName::parse);
                let names = limited(names.collect::<Result<Vec<_>, _>>()?)?;
                check_signable(&issuing, &ca, &names)?;
                let challenge = self.challenge(&issuing, &ca, &names, settings)?;
                Ok::<_, anyhow::Error>(self.wanted(names, challenge))
            };
            wanted.push(read().with_context(|| format!("{} line {}", file.display(), number + 1))?);
        }
        if self.dry_run {
            return self.rehearse(&manager, issuing, settings, &wanted).await;
        }
        let issuers = Issuers::new(issuing, &settings.solvers())?;
        let ids = manager.request_all(wanted).await?;
        let due = {
            let view = manager.view().await?;
            let missing = ids.into_iter().filter(|id| view.catalog.newest(*id).is_none());
            missing.map(|id| on_demand(&view, id)).collect::<Result<Vec<_>, _>>()?
        };
        issue_due(&manager, &issuers, due).await
    }

    /// Says what stands in the way of each, and orders nothing.
    async fn rehearse(
        &self,
        manager: &Manager,
        issuing: Issuing,
        settings: &Settings,
        wanted: &[CertificateRequested],
    ) -> Result<()> {
        let issuers = Issuers::new(issuing, &settings.solvers())?;
        let mut bad = 0;
        for one in wanted {
            let plan = Plan { names: &one.names, challenge: one.challenge, ca: self.ca.as_deref() };
            let found = manager.check(&plan, &issuers).await?;
            let says = |finding: &&Finding| finding.level != Level::Ok;
            let fails = found.iter().any(|finding| finding.level == Level::Problem);
            bad += usize::from(fails);
            let names = NameSet::new(&one.names).to_string();
            if fails {
                output::problem(names)
            } else {
                output::done(names)
            }
            found
                .iter()
                .filter(says)
                .for_each(|finding| output::line(format!("  {}: {}", finding.about, finding.what)));
        }
        output::line(format!("dry run: nothing of these {} was ordered", wanted.len()));
        match bad {
            0 => Ok(()),
            bad => bail!(Found::new(format!("{bad} of {} would fail", wanted.len()))),
        }
    }

    fn wanted(&self, names: Vec<DnsName>, challenge: Challenge) -> CertificateRequested {
        let (certificate, key_type) = (clock::certificate_id(), self.key_type);
        CertificateRequested {
            certificate,
            names,
            challenge,
            key_type,
            ca: self.ca.clone(),
            profile: self.profile.clone(),
        }
    }

    /// All names that were said, each a name.
    pub(super) fn all_names(&self) -> Result<Vec<DnsName>> {
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
        limited(names)
    }

    fn challenge(&self, issuing: &Issuing, ca: &str, names: &[DnsName], settings: &Settings) -> Result<Challenge> {
        let chosen = kind(self.challenge, issuing, names)?;
        if issuing.ca.get(ca).is_some_and(|entry| entry.directory == "internal") {
            return Ok(chosen);
        }
        let local = settings.solvers();
        let missing = match chosen {
            Challenge::Dns01 if issuing.dns01.is_none() => {
                Some("[dns01] in the issuing settings (`certbus conf edit`)")
            }
            Challenge::Http01
                if local.http01_listen.is_none() && local.http01_webroot.is_none() && issuing.s3.is_none() =>
            {
                Some("[http01] with `listen` or `webroot` in certbus.toml, or [s3] in the issuing settings")
            }
            _ => None,
        };
        match missing {
            None => Ok(chosen),
            Some(what) => bail!(Mistake::new(format!("{chosen} is not set up: it needs {what}"))),
        }
    }
}

/// What is wanted, of which CA, and how control is shown if it asks.
pub(super) fn print_wanted(names: &str, ca: &str, challenge: Option<&str>) {
    output::line(format!("names      {names}"));
    output::line(format!("CA         {ca}"));
    if let Some(challenge) = challenge {
        output::line(format!("challenge  {challenge}"));
    }
}

pub(super) fn print_there(id: CertificateId) {
    output::line(format!("{id} has these names already; nothing was ordered"));
}

pub(super) fn print_open(id: CertificateId) {
    output::line(format!("{id} has these names and no certificate yet: going on with it"));
}

/// How control is shown: as it was said, else as the settings say it, as far as the names allow it.
pub(super) fn kind(said: Option<Challenge>, issuing: &Issuing, names: &[DnsName]) -> Result<Challenge> {
    let wildcard = names.iter().find(|name| name.is_wildcard());
    let chosen = said.unwrap_or_else(|| issuing.usual_challenge(names));
    if let (Some(name), Challenge::Http01) = (wildcard, chosen) {
        bail!(Mistake::new(format!("`{name}` is a wildcard, which is shown by dns-01 only; leave --challenge out")));
    }
    Ok(chosen)
}

/// Sorted, each once, and not more than a CA takes.
pub(super) fn limited(mut names: Vec<DnsName>) -> Result<Vec<DnsName>> {
    names.sort();
    names.dedup();
    match names.len() {
        0 => bail!(Mistake::new("no name was given; write `certbus cert mk example.com`")),
        1..=100 => Ok(names),
        many => bail!(Mistake::new(format!("{many} names are more than a certificate of a public CA takes (100)"))),
    }
}

fn check_signable(issuing: &Issuing, ca: &str, names: &[DnsName]) -> Result<()> {
    for name in names.iter().filter(|_| issuing.is_public_ca(ca)) {
        if let Some(why) = name.public_obstacle() {
            bail!(Mistake::new(format!("no public CA signs `{name}`: {why}")));
        }
    }
    Ok(())
}

fn nothing_was_ordered(view: &View, id: CertificateId) -> bool {
    view.catalog.timeline(id).is_none() && view.work.open_order(id).is_none()
}
