//! One endpoint with all that is known of it, and what a poll just found.

use anyhow::Result;
use certbus_core::id::Hash;
use certbus_manager::clock;
use certbus_store::observations::Poll;
use certbus_store::shown::Stay;
use certbus_store::{Query, Store};
use serde_json::json;

use super::{left, one};
use crate::cli::output;

/// How much of the past is shown to people.
const SHOWN: i64 = 20;

pub(super) async fn run(store: &Store, text: &str, as_json: bool) -> Result<()> {
    let stored = one(store, text).await?;
    let now = clock::now();
    let limit = if as_json { 10_000 } else { SHOWN };
    let timeline = store.timeline(stored.id, limit).await?;
    let changes = store.changes(Some(stored.id), None, limit).await?;
    let listed = {
        // What lists say of it.
        let query = Query { id: Some(stored.id), limit: 1, ..Query::default() };
        store.endpoints(&query, now).await?.rows.pop()
    };
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

fn cells(stay: &Stay, now: certbus_core::time::Timestamp) -> Vec<String> {
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

/// What a poll found, each node on a line, with what it changed.
pub(super) async fn polled(store: &Store, poll: &Poll, name: &str, as_json: bool) -> Result<()> {
    let changes = store.changes(Some(poll.endpoint), None, 100).await?;
    for look in &poll.looks {
        let address = look.address.map_or_else(String::new, |address| address.to_string());
        let change: Vec<&str> = changes
            .iter()
            .filter(|change| change.at == poll.at && change.address == address && change.site == poll.site)
            .map(|change| change.kind.as_str())
            .collect();
        let print = look.outcome.as_ref().ok().and_then(|chain| chain.first()).map(|leaf| Hash::of(leaf));
        if as_json {
            output::json(&json!({ "endpoint": poll.endpoint, "name": name, "site": poll.site, "at": poll.at,
                "address": address, "fingerprint": print, "changes": change,
                "failure": look.outcome.as_ref().err().map(|failed| json!({ "kind": failed.kind, "why": failed.why })) }));
            continue;
        }
        let change = if change.is_empty() { "unchanged".to_owned() } else { change.join(", ") };
        match (&look.outcome, print) {
            (Ok(_), Some(print)) => {
                output::done(format!("{name}  {}  {}  {change}", node(&address, &poll.site), short(print)));
            }
            (Err(failed), _) => {
                output::problem(format!("{name}  {}  {}", node(&address, &poll.site), output::plain(&failed.why)))
            }
            _ => {}
        }
    }
    Ok(())
}

fn times(stay: &Stay) -> String {
    if stay.times == 1 { "failed once".to_owned() } else { format!("failed {} times", stay.times) }
}
