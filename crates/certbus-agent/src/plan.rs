//! Which version belongs into which files of a target: a pure function of what is served and what the settings say.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use certbus_client::Live;

use crate::target::Target;

/// A version and the files of a target that are to hold it, in the order of the layout.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) live: Arc<Live>,
    pub(crate) paths: Vec<PathBuf>,
}

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
pub(crate) fn plan(target: &Target, served: &[Arc<Live>]) -> Result<Vec<Wanted>, Conflict> {
    let templates = target.layout.templates();
    let mut meant: Vec<&Arc<Live>> = served.iter().filter(|l| target.select.takes(&l.version().names)).collect();
    meant.sort_unstable_by_key(|live| std::cmp::Reverse(live.version().place));
    let mut taken: HashMap<PathBuf, &Arc<Live>> = HashMap::with_capacity(meant.len() * templates.len());
    let mut wanted = Vec::with_capacity(meant.len());
    'next: for live in meant {
        let paths: Vec<PathBuf> = templates.iter().map(|(_, template)| template.path(live.version())).collect();
        for ((key, template), path) in templates.iter().zip(&paths) {
            let Some(newer) = taken.get(path) else { continue };
            if newer.version().names == live.version().names {
                continue 'next;
            }
            return Err(Conflict {
                target: target.name.clone(),
                path: path.display().to_string(),
                both: format!("{} and {}", told(newer), told(live)),
                key,
                template: template.as_str().to_owned(),
            });
        }
        taken.extend(paths.iter().map(|path| (path.clone(), live)));
        wanted.push(Wanted { live: live.clone(), paths });
    }
    Ok(wanted)
}

fn told(live: &Live) -> String {
    format!("{} ({})", live.version().certificate, live.version().names)
}
