//! `endpoint poll`: endpoints are asked for their certificates now, from this machine or by whoever polls for a server.

use std::time::Duration;

use anyhow::{Result, bail};
use certbus_core::id::Hash;
use certbus_core::time::Timestamp;
use certbus_manager::clock;
use certbus_manager::inventory::poller::Poller;
use certbus_store::shown::Stay;
use certbus_store::{Listed, Query, Store};
use tokio::time::Instant;

use super::meant;
use super::show::{Found, polled};
use crate::cli::exit::{Missing, Mistake};
use crate::cli::output;
use crate::inventory::{Inventory, ask_for_polls};
use crate::remote::Server;

/// Endpoints that are polled at a time.
const AT_ONCE: usize = 256;

/// Changes of one endpoint among which those of its poll are.
const CHANGES: i64 = 100;

/// Nodes of one endpoint that are told.
const NODES: i64 = 1000;

/// A poll that a server was asked for is waited for so long.
const WAITED: Duration = Duration::from_secs(60);

/// And looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(300);

pub(super) async fn run(inventory: &Inventory, names: &[String], all: bool, json: bool) -> Result<()> {
    let ids = if all { every(inventory).await? } else { meant(inventory, names).await? };
    if ids.is_empty() {
        output::remark(format!("nothing in {} is watched from site {}", inventory.place(), inventory.site()));
        return Ok(());
    }
    let mut failed = 0;
    match inventory {
        Inventory::Here { store, site } => {
            let poller = Poller::new(site);
            for some in ids.chunks(AT_ONCE) {
                failed += here(inventory, (store, site, &poller), some, all, json).await?;
            }
        }
        Inventory::There(server) => {
            for some in ids.chunks(AT_ONCE) {
                failed += there(inventory, server, some, json).await?;
            }
        }
    }
    if failed > 0 && !json {
        output::remark(format!("{failed} of {} showed no certificate", ids.len()));
    }
    Ok(())
}

/// Every endpoint that is polled: of this machine those of its site, of a server all.
async fn every(inventory: &Inventory) -> Result<Vec<i64>> {
    let site = match inventory {
        Inventory::Here { site, .. } => Some(site.clone()),
        Inventory::There(_) => None,
    };
    let mut ids = Vec::new();
    let mut query = Query { site, limit: 1000, ..Query::default() };
    loop {
        let page = inventory.endpoints(&query).await?;
        let active = |row: &Listed| row.stored.endpoint.active.then_some(row.stored.id);
        ids.extend(page.rows.iter().filter_map(active));
        match page.next {
            None => return Ok(ids),
            next => query.after = next,
        }
    }
}

/// Polls from this machine. Returns how many showed nothing.
async fn here(
    inventory: &Inventory,
    (store, site, poller): (&Store, &str, &Poller),
    ids: &[i64],
    all: bool,
    json: bool,
) -> Result<usize> {
    for id in ids.iter().filter(|_| !all) {
        let Some(stored) = store.endpoint(*id).await? else { continue };
        if !stored.endpoint.sites.iter().any(|one| one.as_str() == site) {
            bail!(Mistake::new(format!(
                "{} is not watched from site {site}; say so with `endpoint edit {id} --sites`, or poll it from there",
                stored.endpoint.name
            )));
        }
    }
    let endpoints = store.to_poll(ids).await?;
    let polls = poller.poll(&endpoints, clock::now()).await.map_err(anyhow::Error::msg)?;
    if polls.is_empty() {
        bail!(Missing::new("the endpoint was removed meanwhile"));
    }
    let recorded = store.record(&polls, clock::now()).await?;
    let mut failed = 0;
    for poll in &polls {
        failed += usize::from(poll.looks.iter().all(|look| look.outcome.is_err()));
        let Some((_, endpoint)) = endpoints.iter().find(|(id, _)| *id == poll.endpoint) else { continue };
        let changes = inventory.changes(poll.endpoint, CHANGES).await?;
        for look in &poll.looks {
            let found = Found {
                endpoint: poll.endpoint,
                name: endpoint.name.clone(),
                site: poll.site.clone(),
                at: poll.at,
                address: look.address.map_or_else(String::new, |address| address.to_string()),
                fingerprint: look.outcome.as_ref().ok().and_then(|chain| chain.first()).map(|leaf| Hash::of(leaf)),
                failure: look.outcome.as_ref().err().map(|failed| (failed.kind.clone(), failed.why.clone())),
            };
            polled(&found, &changes, json);
        }
    }
    if recorded.passed_over > 0 {
        output::remark(format!(
            "{} looks were not kept: newer ones are, or the endpoint was changed",
            recorded.passed_over
        ));
    }
    Ok(failed)
}

/// Has a server see to the polls, and waits for what they find. Returns how many showed nothing.
async fn there(inventory: &Inventory, server: &Server, ids: &[i64], json: bool) -> Result<usize> {
    let asked = ask_for_polls(server, ids).await?;
    let until = Instant::now() + WAITED;
    let mut failed = 0;
    for id in ids {
        let Some(stored) = inventory.endpoint(*id).await? else { continue };
        let (endpoint, name) = (&stored.endpoint, &stored.endpoint.name);
        if !endpoint.active {
            bail!(Mistake::new(format!("{name} is paused; `endpoint edit {id} --active` has it polled again")));
        }
        let stays = loop {
            let stays = since(inventory.timeline(*id, NODES).await?, asked.at);
            let missing: Vec<&str> = endpoint
                .sites
                .iter()
                .map(|site| site.as_str())
                .filter(|site| stays.iter().all(|stay| stay.site != **site))
                .collect();
            if missing.is_empty() {
                break stays;
            }
            if Instant::now() >= until {
                bail!(
                    "{name} was not polled from {} within {} s; `task ls` says whether its poll still waits, and \
                     `certbus serve` or `certbus worker` of that site makes it",
                    missing.join(", "),
                    WAITED.as_secs()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        failed += usize::from(stays.iter().all(|stay| stay.certificate.is_none()));
        let changes = inventory.changes(*id, CHANGES).await?;
        for stay in stays {
            let found = Found {
                endpoint: *id,
                name: name.clone(),
                site: stay.site,
                at: stay.last,
                address: stay.address,
                fingerprint: stay.certificate.map(|one| one.fingerprint),
                failure: stay.failure.map(|why| (stay.failure_kind.unwrap_or_default(), why)),
            };
            polled(&found, &changes, json);
        }
    }
    Ok(failed)
}

/// What was seen from then on, of nodes that are there still.
fn since(stays: Vec<Stay>, at: Timestamp) -> Vec<Stay> {
    stays.into_iter().filter(|stay| stay.still && stay.gone.is_none() && stay.last >= at).collect()
}
