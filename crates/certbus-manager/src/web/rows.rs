//! What lists have in their lines: endpoints, nodes and changes, in words.

use certbus_core::drift::Serves;
use certbus_core::time::Timestamp;
use certbus_store::shown::Changed;
use certbus_store::{Listed, State as Is};

use super::page::{When, when};

/// An endpoint in a list.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) place: String,
    pub(super) state: &'static str,
    pub(super) kind: &'static str,
    pub(super) expires: Option<When>,
    pub(super) issuer: String,
    pub(super) serves: &'static str,
    pub(super) owner: String,
    pub(super) tags: Vec<String>,
}

/// In words, and how bad.
pub(super) fn state_words(state: Is) -> (&'static str, &'static str) {
    match state {
        Is::Expired => ("expired", "bad"),
        Is::OlderVersion => ("older version", "warn"),
        Is::Another => ("another certificate", "warn"),
        Is::Overdue => ("overdue", "warn"),
        Is::Failing => ("failing", "bad"),
        Is::Unseen => ("not seen yet", "off"),
        Is::Paused => ("paused", "off"),
        Is::Unmanaged => ("not managed", "good"),
        Is::Current | Is::Ok => ("ok", "good"),
    }
}

impl Row {
    pub(super) fn of(row: &Listed, now: Timestamp) -> Self {
        let (state, kind) = state_words(row.state);
        let endpoint = &row.stored.endpoint;
        let place = endpoint.key.to_string();
        Self {
            id: row.stored.id,
            name: endpoint.name.clone(),
            place: if place == endpoint.name { String::new() } else { place },
            state,
            kind,
            expires: row.expires_at.map(|at| when(at, now)),
            issuer: row.issuer.as_deref().map(short_name).unwrap_or_default(),
            serves: row.serves.map_or("", Serves::words),
            owner: endpoint.owner.clone(),
            tags: endpoint.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
        }
    }
}

/// The part of a distinguished name that people call somebody by.
pub(super) fn short_name(name: &str) -> String {
    let part = |key: &str| name.split(", ").find_map(|part| part.strip_prefix(key)).map(str::to_owned);
    match (part("CN="), part("O=")) {
        (Some(common), Some(organization)) if common.len() <= 4 => format!("{organization} {common}"),
        (Some(common), _) => common,
        (None, Some(organization)) => organization,
        (None, None) => name.to_owned(),
    }
}

/// A change in a list.
pub(super) struct ChangeRow {
    pub(super) at: When,
    pub(super) endpoint: i64,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) words: &'static str,
    pub(super) kind: &'static str,
    pub(super) before: Option<(String, String)>,
    pub(super) after: Option<(String, String)>,
    pub(super) why: String,
}

pub(super) fn change_rows(changes: Vec<Changed>, now: Timestamp) -> Vec<ChangeRow> {
    let short = |print: certbus_core::id::Fingerprint| {
        let text = print.to_string();
        (text.get(..12).unwrap_or_default().to_owned(), text)
    };
    let row = |one: Changed| {
        let (words, kind) = match one.kind.as_str() {
            "first" => ("first seen", "off"),
            "replaced" | "otherwise" if !one.surprise.is_empty() => ("surprise", "warn"),
            "replaced" => ("renewed", "good"),
            "otherwise" => ("looked at otherwise", "off"),
            "chain" => ("other chain", "off"),
            "failing" => ("fails", "bad"),
            "recovered" => ("answers again", "good"),
            "gone" => ("left the name", "off"),
            "back" => ("is back", "off"),
            _ => ("changed", "off"),
        };
        ChangeRow {
            at: when(one.at, now),
            endpoint: one.endpoint,
            name: one.name,
            node: node_words(&one.address, &one.site),
            words,
            kind,
            before: one.before.map(short),
            after: one.after.map(short),
            why: if one.surprise.is_empty() { one.why } else { one.surprise.join(", ") },
        }
    };
    changes.into_iter().map(row).collect()
}

/// A node as people say it.
pub(super) fn node_words(address: &str, site: &str) -> String {
    let address = if address.is_empty() { "no address" } else { address };
    if site == certbus_core::endpoint::USUAL_SITE { address.to_owned() } else { format!("{address} from {site}") }
}
