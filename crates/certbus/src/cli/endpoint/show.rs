//! One endpoint with all that is known of it, and what a poll just found.

use anyhow::Result;
use certbus_core::id::Hash;
use certbus_core::time::Timestamp;
use certbus_manager::clock;
use certbus_store::shown::{Changed, Stay};
use serde_json::json;

use super::{left, one};
use crate::cli::output;
use crate::inventory::Inventory;

/// How much of the past is shown to people.
const SHOWN: i64 = 20;

pub(super) async fn run(inventory: &Inventory, text: &str, as_json: bool) -> Result<()> {
    let stored = one(inventory, text).await?;
    let now = clock::now();
    let limit = if as_json { 10_000 } else { SHOWN };
    let timeline = inventory.timeline(stored.id, limit).await?;
    let changes = inventory.changes(stored.id, limit).await?;
    // What lists say of it.
    let listed = inventory.listed(stored.id).await?;
    if as_json {
        output::json(&json!({ "endpoint": listed.as_ref().map_or_else(|| json!(stored), |row| json!(row)),
            "timeline": timeline, "changes": changes }));
        return Ok(());
    }
    let endpoint = &stored.endpoint;
    output::line(format!("{} ({})", endpoint.name, endpoint.key));
    let fact = |what: &str, value: String| output::line(format!("  {what:<12} {value}"));
    fact("number", stored.id.to_string());
    if let Some(row) = &listed {
        fact("state", row.state.as_str().to_owned());
        if let (Some(managed), Some(serves)) = (&row.managed, row.serves) {
            fact("issued here", format!("{managed}, served: {serves}"));
        }
    }
    if !endpoint.owner.is_empty() {
        fact("owner", endpoint.owner.clone());
    }
    let words = |set: &std::collections::BTreeSet<certbus_core::endpoint::Word>| {
        set.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(" ")
    };
    if !endpoint.tags.is_empty() {
        fact("tags", words(&endpoint.tags));
    }
    fact("polled from", words(&endpoint.sites));
    if let Some(interval) = endpoint.interval {
        fact("every", interval.to_string());
    }
    let (now_served, past): (Vec<&Stay>, Vec<&Stay>) = timeline.iter().partition(|stay| stay.still);
    output::heading("nodes");
    if now_served.is_empty() {
        output::line("  never polled; `certbus endpoint poll` polls it now");
    }
    output::table(&NODE, now_served.into_iter().map(|stay| cells(stay, now)).collect());
    if !past.is_empty() {
        output::heading("before");
        output::table(&NODE, past.into_iter().map(|stay| cells(stay, now)).collect());
    }
    if !changes.is_empty() {
        output::heading("changes");
        let rows = changes.iter().map(|change| {
            let short = |print: Option<Hash>| print.map_or_else(String::new, short);
            let what = match (change.before, change.after) {
                (Some(_), Some(_)) => format!("{} → {}", short(change.before), short(change.after)),
                _ => short(change.after),
            };
            vec![
                change.at.to_string(),
                node(&change.address, &change.site),
                change.kind.clone(),
                what,
                change.why.clone(),
            ]
        });
        output::table(&["when", "node", "what", "certificate", "why"], rows.collect());
    }
    Ok(())
}

const NODE: [&str; 6] = ["node", "certificate", "expires", "issuer", "first seen", "last seen"];

fn cells(stay: &Stay, now: Timestamp) -> Vec<String> {
    let mut place = node(&stay.address, &stay.site);
    if stay.gone.is_some() {
        place.push_str(" (gone)");
    }
    match &stay.certificate {
        Some(one) => vec![
            place,
            short(one.fingerprint),
            left(one.not_after, now),
            one.issuer.clone(),
            stay.first.to_string(),
            stay.last.to_string(),
        ],
        None => {
            let why = stay.failure.clone().unwrap_or_default();
            vec![place, times(stay), String::new(), why, stay.first.to_string(), stay.last.to_string()]
        }
    }
}

fn node(address: &str, site: &str) -> String {
    let address = if address.is_empty() { "(no address)" } else { address };
    if site == certbus_core::endpoint::USUAL_SITE { address.to_owned() } else { format!("{address} from {site}") }
}

fn short(fingerprint: Hash) -> String {
    fingerprint.to_string().chars().take(12).collect()
}

/// What a poll found at a node.
pub(super) struct Found {
    pub(super) endpoint: i64,
    pub(super) name: String,
    pub(super) site: String,
    pub(super) at: Timestamp,
    pub(super) address: String,
    pub(super) fingerprint: Option<Hash>,
    /// The kind of a failure, and why.
    pub(super) failure: Option<(String, String)>,
}

/// What a poll found, with what it changed.
pub(super) fn polled(found: &Found, changes: &[Changed], as_json: bool) {
    let Found { endpoint, name, site, at, address, fingerprint, failure } = found;
    let same = |change: &&Changed| change.at == *at && change.address == *address && change.site == *site;
    let changes: Vec<&str> = changes.iter().filter(same).map(|change| change.kind.as_str()).collect();
    if as_json {
        output::json(&json!({ "endpoint": endpoint, "name": name, "site": site, "at": at, "address": address,
            "fingerprint": fingerprint, "changes": changes,
            "failure": failure.as_ref().map(|(kind, why)| json!({ "kind": kind, "why": why })) }));
        return;
    }
    let change = if changes.is_empty() { "unchanged".to_owned() } else { changes.join(", ") };
    match (failure, fingerprint) {
        (Some((_, why)), _) => output::problem(format!("{name}  {}  {}", node(address, site), output::plain(why))),
        (None, Some(print)) => output::done(format!("{name}  {}  {}  {change}", node(address, site), short(*print))),
        (None, None) => {}
    }
}

fn times(stay: &Stay) -> String {
    if stay.times == 1 { "failed once".to_owned() } else { format!("failed {} times", stay.times) }
}
