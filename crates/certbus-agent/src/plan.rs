//! Which versions belong into the files of a target: a pure function of what is served and what the settings say.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use certbus_client::Live;
use certbus_core::id::Hash;

use crate::target::Target;

/// Two certificates that would stand in one file.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "{path} would hold both {both}; put {{name}} or {{id}} into `{key}` (now `{template}`), or choose among \
     them by `names`; nothing was written"
)]
pub struct Conflict {
    /// The target's name.
    pub target: String,
    /// The file.
    pub path: String,
    /// Ids and names of the two.
    pub both: String,
    /// The key of the settings.
    pub key: &'static str,
    /// What it says.
    pub template: String,
}

/// What a target is to hold. Of two managed certificates for the same names the newer version is taken.
pub(crate) fn plan(target: &Target, served: Vec<Arc<Live>>) -> Result<Vec<Arc<Live>>, Conflict> {
    let templates = target.layout.templates();
    let mut meant = served;
    meant.retain(|live| target.select.takes(&live.version().names));
    meant.sort_unstable_by_key(|live| std::cmp::Reverse(live.version().place));
    // By the hash of the path: ten thousand paths at once would be most of the agent's memory.
    let mut taken: HashMap<Hash, usize> = HashMap::with_capacity(meant.len() * templates.len());
    let mut wanted: Vec<Arc<Live>> = Vec::with_capacity(meant.len());
    'next: for live in meant {
        let paths = target.layout.paths(live.version());
        for ((key, template), path) in templates.iter().zip(&paths) {
            let Some(newer) = taken.get(&hash(path)).and_then(|at| wanted.get(*at)) else { continue };
            if newer.version().names == live.version().names {
                continue 'next;
            }
            return Err(Conflict {
                target: target.name.clone(),
                path: path.display().to_string(),
                both: format!("{} and {}", told(newer), told(&live)),
                key,
                template: template.as_str().to_owned(),
            });
        }
        taken.extend(paths.iter().map(|path| (hash(path), wanted.len())));
        wanted.push(live);
    }
    Ok(wanted)
}

fn hash(path: &Path) -> Hash {
    Hash::of(path.as_os_str().as_encoded_bytes())
}

fn told(live: &Live) -> String {
    format!("{} ({})", live.version().certificate, live.version().names)
}
