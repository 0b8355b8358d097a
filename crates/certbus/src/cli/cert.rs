//! Managed certificates: make, list, show, renew, remove, export.

use anyhow::{Result, bail};
use certbus_core::drift;
use certbus_core::id::CertificateId;
use certbus_core::name::NameSet;
use certbus_core::time::Timestamp;
use certbus_core::x509::ParsedChain;
use certbus_manager::Issuers;
use certbus_manager::inventory::projector::Projector;
use certbus_manager::issue::Outcome;
use certbus_manager::managed::Managed;
use certbus_manager::{Manager, clock};
use certbus_store::issued::ServedAt;
use clap::Subcommand;

use super::check::Check;
use super::exit::{Missing, Mistake};
use super::mk::Mk;
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
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        match self {
            Self::Mk(mk) => mk.run(settings).await,
            Self::Ls { json } => list(&wire::manager(settings).await?, json).await,
            Self::Cat { id, json } => show(&wire::manager(settings).await?, id, json).await,
            Self::Explain { id, json } => explain(settings, id, json).await,
            Self::Check(check) => check.run(settings).await,
            Self::Renewable(renewable) => renewable.run(settings).await,
            Self::Renew(renew) => renew.run(settings).await,
            Self::Rm { id, yes } => remove(settings, id, yes).await,
            Self::Export(export) => export.run(settings).await,
        }
    }
}

pub(super) fn print_outcome(outcome: &Outcome) {
    output::done(format!("{} {}", outcome.certificate, outcome.names));
    output::line(format!("  version {}", outcome.version));
    output::line(format!("  valid until {}, renewed after {}", outcome.not_after.date(), outcome.renewal.date()));
}

async fn list(manager: &Manager, json: bool) -> Result<()> {
    let view = manager.view().await?;
    let now = clock::now();
    let rows = Managed::all(&view, now);
    if rows.is_empty() && !json {
        output::remark(format!(
            "no managed certificates in {}; `certbus cert mk DOMAIN` orders one",
            manager.tenant().certs.log.place()
        ));
    }
    output::listing(json, &["id", "names", "valid until", "renewal", "state"], rows, |row| {
        let date = |time: Option<Timestamp>| time.map_or("-".to_owned(), Timestamp::date);
        vec![row.id.to_string(), row.names.join(", "), date(row.not_after), date(row.renewal), row.state.to_owned()]
    });
    Ok(())
}

async fn show(manager: &Manager, id: CertificateId, json: bool) -> Result<()> {
    let view = manager.view().await?;
    let request = view.work.request(id).cloned();
    let Some(request) = request else {
        bail!(Missing::new(format!("there is no managed certificate {id}; `certbus cert ls` lists them")));
    };
    let found = Managed::of(&view, &request, clock::now());
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
        ("id", found.id.to_string()),
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
        if let Some(page) = &window.explanation {
            rows.push(("its reason", page.clone()));
        }
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

async fn explain(settings: &Settings, id: CertificateId, json: bool) -> Result<()> {
    let manager = &wire::manager(settings).await?;
    let story = manager.story(id).await?;
    if story.is_empty() {
        bail!(Missing::new(format!("the log never heard of a certificate {id}; `certbus cert ls` lists them")));
    }
    let served = served_at(settings, manager, id).await.unwrap_or_else(|error| {
        output::remark(format!("where it is served is not known: {error:#}"));
        Vec::new()
    });
    if json {
        story.iter().for_each(output::json);
        served.iter().for_each(|node| output::json(&serde_json::json!({ "kind": "served_at", "node": node })));
        return Ok(());
    }
    let offered = story.iter().rev().find(|told| told.kind == "CertificateOffered").map(|told| told.at);
    let next = manager.next_step(id, &manager.settings().await?).await?;
    let view = manager.view().await?;
    if let Some(request) = view.work.request(id) {
        let row = Managed::of(&view, request, clock::now());
        output::line(format!("{id}  {}  {}", row.names.join(", "), row.state));
    } else {
        output::line(format!("{id}  managed no more"));
    }
    drop(view);
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
