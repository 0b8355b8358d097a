//! Managed certificates: make, list, show, renew, remove, export.

mod far;

use anyhow::{Result, bail};
use certbus_core::drift;
use certbus_core::id::CertificateId;
use certbus_core::name::NameSet;
use certbus_core::time::Timestamp;
use certbus_core::x509::ParsedChain;
use certbus_manager::Issuers;
use certbus_manager::inventory::projector::Projector;
use certbus_manager::issue::Outcome;
use certbus_manager::managed::{Detail, Explained, Managed};
use certbus_manager::{ManageError, Manager, clock};
use certbus_store::issued::ServedAt;
use clap::Subcommand;

use super::check::Check;
use super::exit::{Missing, Mistake};
use super::mk::Mk;
use super::reach::Reach;
use super::renew::{Renew, Renewable};
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
    /// Tell a certificate's whole story: what was ordered, what the CA said, what comes next.
    Explain {
        /// Its id, also of one that was removed
        id: CertificateId,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Find what would fail before a CA is asked: accounts, CAA, limits, and the way to show control.
    Check(Check),
    /// List what is due for renewal; renew it if told to.
    Renewable(Renewable),
    /// Renew one now, or all that are due.
    Renew(Renew),
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

impl Cert {
    pub(crate) async fn run(self, reach: &Reach) -> Result<()> {
        match self {
            Self::Mk(mk) => match reach.server().await? {
                Some(server) => far::order(&server, &mk).await,
                None => mk.run(reach.settings()).await,
            },
            Self::Ls { json } => list(reach, json).await,
            Self::Cat { id, json } => show(&detail(reach, id).await?, json),
            Self::Explain { id, json } => explain(id, explained(reach, id).await?, json),
            Self::Check(check) => check.run(reach.here("cert check", FROM_THERE)?).await,
            Self::Renewable(renewable) => renewable.run(reach.here("cert renewable", DUE)?).await,
            Self::Renew(renew) => match (renew.id, reach.server().await?) {
                (Some(id), Some(server)) => far::renew(&server, id).await,
                _ => renew.run(reach.here("cert renew --due", DUE)?).await,
            },
            Self::Rm { id, yes } => match reach.server().await? {
                Some(server) => far::remove(&server, id, yes).await,
                None => remove(reach.settings(), id, yes).await,
            },
            Self::Export(export) => export.run(reach.here("cert export", KEYS)?).await,
        }
    }
}

const DUE: &str = "`certbus serve` renews there what is due, by itself; `cert ls` lists what is `due`, and `cert renew ID` \
                   renews one now";
const KEYS: &str = "private keys leave it for the recipients alone; run it, or `certbus agent`, where the key is to be";
const FROM_THERE: &str = "what would fail is looked for from where it is ordered; run it there";

pub(super) fn print_outcome(outcome: &Outcome) {
    output::done(format!("{} {}", outcome.certificate, outcome.names));
    output::line(format!("  version {}", outcome.version));
    output::line(format!("  valid until {}, renewed after {}", outcome.not_after.date(), outcome.renewal.date()));
}

async fn list(reach: &Reach, json: bool) -> Result<()> {
    let (rows, place) = match reach.server().await? {
        Some(server) => {
            let mut rows: Vec<Managed> = server.list("managed", None, usize::MAX).await?;
            rows.sort_by(|a, b| a.names.cmp(&b.names));
            (rows, server.url().to_owned())
        }
        None => {
            let manager = wire::manager(reach.settings()).await?;
            let rows = Managed::all(&*manager.view().await?, clock::now());
            (rows, manager.tenant().certs.log.place())
        }
    };
    if rows.is_empty() && !json {
        output::remark(format!("no managed certificates in {place}; `certbus cert mk DOMAIN` orders one"));
    }
    output::listing(json, &["id", "names", "valid until", "renewal", "state"], rows, |row| {
        let date = |time: Option<Timestamp>| time.map_or("-".to_owned(), Timestamp::date);
        vec![row.id.to_string(), row.names.join(", "), date(row.not_after), date(row.renewal), row.state.into_owned()]
    });
    Ok(())
}

async fn detail(reach: &Reach, id: CertificateId) -> Result<Detail> {
    let found = match reach.server().await? {
        Some(server) => server.find(&format!("managed/{id}")).await?,
        None => match wire::manager(reach.settings()).await?.detail(id).await {
            Err(ManageError::UnknownCertificate(_)) => None,
            found => Some(found?),
        },
    };
    let missing = || Missing::new(format!("there is no managed certificate {id}; `certbus cert ls` lists them"));
    Ok(found.ok_or_else(missing)?)
}

fn show(found: &Detail, json: bool) -> Result<()> {
    if json {
        output::json(found);
        return Ok(());
    }
    let Detail { managed, challenge, key_type, chain, window } = found;
    let mut rows = vec![
        ("id", managed.id.to_string()),
        ("names", managed.names.join(", ")),
        ("state", managed.state.to_string()),
        ("key", key_type.to_string()),
        ("challenge", challenge.to_string()),
    ];
    if let Some(chain) = chain {
        let parsed = ParsedChain::parse(chain)?;
        rows.push(("version", parsed.fingerprint.to_string()));
        rows.push(("issuer", parsed.issuer.to_string()));
        rows.push(("serial", parsed.serial.to_string()));
        rows.push(("valid", format!("{} to {}", parsed.not_before, parsed.not_after)));
    }
    if let Some(renewal) = managed.renewal {
        rows.push(("renewal", renewal.to_string()));
    }
    if let Some(window) = window {
        rows.push(("CA's window", format!("{} to {}", window.start, window.end)));
        if let Some(page) = &window.explanation {
            rows.push(("its reason", page.clone()));
        }
    }
    if let Some(problem) = &managed.problem {
        rows.push(("last problem", problem.clone()));
    }
    for (name, value) in rows {
        output::line(format!("{name:<13}{value}"));
    }
    if let Some(chain) = chain {
        output::line(format!("\n{}", chain.trim_end()));
    }
    Ok(())
}

async fn explained(reach: &Reach, id: CertificateId) -> Result<Explained> {
    let found = match reach.server().await? {
        Some(server) => server.find(&format!("managed/{id}/story")).await?,
        None => {
            let manager = wire::manager(reach.settings()).await?;
            let served = served_at(reach.settings(), &manager, id).await.unwrap_or_else(|error| {
                output::remark(format!("where it is served is not known: {error:#}"));
                Vec::new()
            });
            Some(manager.explained(id, served).await?).filter(|found| !found.story.is_empty())
        }
    };
    let missing = || Missing::new(format!("the log never heard of a certificate {id}; `certbus cert ls` lists them"));
    Ok(found.ok_or_else(missing)?)
}

fn explain(id: CertificateId, found: Explained, json: bool) -> Result<()> {
    let Explained { managed, story, served, next } = found;
    if json {
        story.iter().for_each(output::json);
        served.iter().for_each(|node| output::json(&serde_json::json!({ "kind": "served_at", "node": node })));
        return Ok(());
    }
    let offered = story.iter().rev().find(|told| told.kind == "CertificateOffered").map(|told| told.at);
    match managed {
        Some(row) => output::line(format!("{id}  {}  {}", row.names.join(", "), row.state)),
        None => output::line(format!("{id}  managed no more")),
    }
    let rows = story.into_iter().map(|told| vec![told.at.to_string(), told.actor, told.what]).collect();
    output::table(&["when", "who", "what"], rows);
    let nodes: Vec<_> = served.iter().map(|node| (node.address.as_str(), node.serves)).collect();
    match (drift::sentence(&nodes), offered) {
        (Some(line), Some(offered)) => output::line(format!("offered {offered}, {line}")),
        (None, Some(_)) => output::line("no endpoint that is watched has it; `certbus endpoint add NAME` watches one"),
        _ => {}
    }
    if let Some(next) = next {
        output::line(format!("next: {next}"));
    }
    Ok(())
}

/// Every node that is watched and has to do with a certificate. An inventory that nobody made knows of none.
async fn served_at(settings: &Settings, manager: &Manager, id: CertificateId) -> Result<Vec<ServedAt>> {
    if !settings.inventory_path()?.exists() {
        return Ok(Vec::new());
    }
    let store = wire::inventory(settings).await?;
    Projector::new(manager.tenant().clone(), store.clone()).catch_up().await?;
    Ok(store.served_at(&settings.tenant, id).await?)
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
    confirm(&names.to_string(), yes)?;
    // What an order that was left open has set up goes with it, as far as it can be reached.
    if let Ok(issuers) = Issuers::new(manager.settings().await?, &settings.solvers()) {
        manager.clean_up(id, &issuers).await?;
    }
    manager.remove(id).await?;
    print_removed(id, &names.to_string());
    Ok(())
}

fn confirm(names: &str, yes: bool) -> Result<()> {
    let question =
        format!("stop renewing and serving {names}? Load balancers drop it at once; nothing is revoked at the CA.");
    match if yes { Some(true) } else { output::ask(&question) } {
        Some(true) => Ok(()),
        Some(false) => bail!("nothing was removed"),
        None => bail!(Mistake::new(format!("{question} Say --yes"))),
    }
}

fn print_removed(id: CertificateId, names: &str) {
    output::done(format!("removed {id} {names}: it is renewed and served no more; nothing was revoked"));
}
