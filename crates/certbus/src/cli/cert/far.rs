//! Managed certificates of a server: ordered, renewed and removed there, and waited for here.

use std::time::Duration;

use anyhow::{Result, bail};
use certbus_core::id::CertificateId;
use certbus_core::name::{DnsName, NameSet};
use certbus_manager::issue::Outcome;
use certbus_manager::managed::Managed;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{confirm, print_outcome, print_removed};
use crate::cli::exit::{Missing, Mistake};
use crate::cli::mk::{Mk, print_open, print_there, print_wanted};
use crate::cli::output;
use crate::remote::Server;

/// What a server was asked to order is waited for so long: it goes on with it in any case.
const WAITED: Duration = Duration::from_secs(5 * 60);

/// And looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A managed certificate as it was ordered.
#[derive(Deserialize)]
struct Ordered {
    #[serde(flatten)]
    managed: Managed,
    ca: String,
    challenge: Option<String>,
}

/// Orders a certificate, and waits for it.
pub(super) async fn order(server: &Server, mk: &Mk) -> Result<()> {
    if mk.dry_run || mk.each.is_some() {
        bail!(Mistake::new(format!(
            "`cert mk --dry-run` and `--each` do not go to the server {}: what would fail is looked for from where it is \
             ordered; run it there, or order one by one",
            server.url()
        )));
    }
    let names = mk.all_names()?;
    let body = json!({
        "names": names,
        "challenge": mk.challenge.map_or_else(String::new, |challenge| challenge.to_string()),
        "key_type": mk.key_type.to_string(),
        "ca": mk.ca,
        "profile": mk.profile,
    });
    let Ordered { managed, ca, challenge } = server.send(Method::POST, "managed", &body).await?;
    print_wanted(&NameSet::new(&names).to_string(), &ca, challenge.as_deref());
    match (&managed.version, managed.state.as_ref()) {
        (Some(_), _) => print_there(managed.id),
        (None, "requested") if managed.problem.is_none() => return ended(server, &managed).await,
        (None, _) => {
            print_open(managed.id);
            return ended(server, &managed).await;
        }
    }
    Ok(())
}

/// Renews one, and waits for it.
pub(super) async fn renew(server: &Server, id: CertificateId) -> Result<()> {
    let before = one(server, id).await?;
    server.act(Method::POST, &format!("managed/{id}/renew")).await?;
    ended(server, &before).await
}

/// Ends one.
pub(super) async fn remove(server: &Server, id: CertificateId, yes: bool) -> Result<()> {
    let names = spelt(&one(server, id).await?)?.to_string();
    confirm(&names, yes)?;
    server.act(Method::DELETE, &format!("managed/{id}")).await?;
    print_removed(id, &names);
    Ok(())
}

async fn one(server: &Server, id: CertificateId) -> Result<Managed> {
    let found = server.find(&format!("managed/{id}")).await?;
    let missing = || Missing::new(format!("there is no managed certificate {id}; `certbus cert ls` lists them"));
    Ok(found.ok_or_else(missing)?)
}

/// Waits for another version than there was, or for what the CA says against it.
async fn ended(server: &Server, before: &Managed) -> Result<()> {
    let (id, until) = (before.id, Instant::now() + WAITED);
    output::remark(format!("  the server {} sees to it …", server.url()));
    loop {
        let now = one(server, id).await?;
        if let (Some(version), Some(not_after), Some(renewal)) = (now.version, now.not_after, now.renewal)
            && now.version != before.version
        {
            print_outcome(&Outcome { certificate: id, version, names: spelt(&now)?, not_after, renewal });
            return Ok(());
        }
        if let Some(problem) = now.problem.as_ref().filter(|_| now.retry_at != before.retry_at) {
            bail!("{problem}; {id} is kept and tried again; `cert rm {id}` ends it");
        }
        if Instant::now() >= until {
            bail!(
                "nothing came of {id} within {} s; `cert explain {id}` tells how far it is, and the server's log why it did \
                 not begin",
                WAITED.as_secs()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn spelt(managed: &Managed) -> Result<NameSet> {
    let names: Result<Vec<DnsName>, _> = managed.names.iter().map(|name| DnsName::parse(name)).collect();
    Ok(NameSet::new(&names?))
}
