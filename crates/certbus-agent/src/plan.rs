//! Which versions belong into the files of a target: a pure function of what is served and what the settings say.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use certbus_client::Live;
use certbus_core::id::{CertificateId, Hash};

use crate::target::Target;

/// A certificate that is left out, since another one has its file.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{path} is the file of {holder} already, so {left_out} is left out; put {{id}} into `{key}` (now `{template}`), or \
     choose among them by `names`"
)]
pub struct Conflict {
    /// The file.
    pub path: String,
    /// Id and names of the certificate that has it, or the target that writes it.
    pub holder: String,
    /// Id and names of the one that would have it too.
    pub left_out: String,
    /// The key of the settings.
    pub key: &'static str,
    /// What it says.
    pub template: String,
}

/// What a target is to hold.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) wanted: Vec<Arc<Live>>,
    pub(crate) conflicts: Vec<Conflict>,
}

/// Which target writes a file, by the hash of its path: ten thousand paths would be most of the agent's memory.
pub(crate) type Taken = HashMap<Hash, usize>;

/// What target number `number` is to hold. Of two managed certificates for the same names the newer version is taken; of
/// two others that would stand in one file, the one that stands there stays. Files of other targets are left to them.
pub(crate) fn plan(
    number: usize,
    target: &Target,
    served: Vec<Arc<Live>>,
    lies: impl Fn(CertificateId) -> bool,
    taken: &mut Taken,
) -> Plan {
    // What this target does not want any more is free for another.
    taken.retain(|_, writer| *writer != number);
    let templates = target.layout.templates();
    let mut meant = served;
    meant.retain(|live| target.select.takes(&live.version().names));
    meant.sort_unstable_by_key(|live| std::cmp::Reverse(live.version().place));
    let mut plan = Plan { wanted: Vec::with_capacity(meant.len()), conflicts: Vec::new() };
    let mut holders: HashMap<Hash, usize> = HashMap::with_capacity(meant.len() * templates.len());
    for live in meant {
        let paths = target.layout.paths(live.version());
        let hashes: Vec<Hash> = paths.iter().map(|path| hash(path)).collect();
        let conflict = |at: usize, holder: String, left_out: &Live| {
            let (key, template) = templates.get(at).map_or(("", ""), |(key, template)| (*key, template.as_str()));
            let path = paths.get(at).map(|path| path.display().to_string()).unwrap_or_default();
            Conflict { path, holder, left_out: told(left_out), key, template: template.to_owned() }
        };
        let theirs = |hash: &Hash| taken.get(hash).is_some_and(|other| *other != number);
        if let Some(at) = hashes.iter().position(theirs) {
            plan.conflicts.push(conflict(at, "another target".to_owned(), &live));
            continue;
        }
        let held = hashes.iter().enumerate().find_map(|(at, hash)| Some((at, *holders.get(hash)?)));
        let place = match held.and_then(|(at, place)| Some((at, place, plan.wanted.get_mut(place)?))) {
            None => {
                plan.wanted.push(live.clone());
                plan.wanted.len() - 1
            }
            Some((_, _, newer)) if newer.version().names == live.version().names => continue,
            Some((at, place, newer)) => {
                if lies(newer.version().certificate) || !lies(live.version().certificate) {
                    plan.conflicts.push(conflict(at, told(newer), &live));
                    continue;
                }
                plan.conflicts.push(conflict(at, told(&live), newer));
                *newer = live;
                place
            }
        };
        for hash in hashes {
            holders.insert(hash, place);
            taken.insert(hash, number);
        }
    }
    plan
}

fn hash(path: &Path) -> Hash {
    Hash::of(path.as_os_str().as_encoded_bytes())
}

fn told(live: &Live) -> String {
    format!("{} ({})", live.version().certificate, live.version().names)
}
