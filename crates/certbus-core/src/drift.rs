//! Issued against observed: whether what a node serves is what was issued for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an endpoint or a node serves, held against the managed certificate that is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serves {
    /// The version that was last offered.
    Current,
    /// A version of before.
    OlderVersion,
    /// A certificate of another origin.
    Another,
}

/// One version of a managed certificate, by its places on the log: later is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Where it was obtained.
    pub obtained: i64,
    /// Where it was last offered to all, if it was.
    pub offered: Option<i64>,
}

/// What a node serves, of `versions`, where `served` is the one it presented (None: it presented none of them). The version
/// that was offered last is the current one, whichever is newest: an operator may go back. One that was obtained after that
/// is not behind: it was offered to some.
pub fn serves(versions: &[Version], served: Option<Version>) -> Option<Serves> {
    let current = versions.iter().filter(|version| version.offered.is_some()).max_by_key(|version| version.offered)?;
    Some(match served {
        None => Serves::Another,
        Some(served) if served.obtained == current.obtained || Some(served.obtained) > current.offered => {
            Serves::Current
        }
        Some(_) => Serves::OlderVersion,
    })
}

/// What an endpoint serves, of what its nodes do: the worst.
pub fn worst(nodes: impl IntoIterator<Item = Serves>) -> Option<Serves> {
    nodes.into_iter().max()
}

/// Which nodes serve the version last offered, and which do not, in one line. A node with None does not answer. None: no
/// node is known.
pub fn sentence(nodes: &[(&str, Option<Serves>)]) -> Option<String> {
    let of = |which: Option<Serves>| nodes.iter().filter(move |(_, serves)| *serves == which).map(|(node, _)| *node);
    let (all, current) = (nodes.len(), of(Some(Serves::Current)).count());
    let mut line = match (all, current) {
        (0, _) => return None,
        (1, 1) => "served by its only node".to_owned(),
        (_, current) if current == all => format!("served by all {all} nodes"),
        (_, current) => format!("served by {current} of {all} nodes"),
    };
    for (which, one, many) in [
        (Some(Serves::OlderVersion), "still has the old one", "still have the old one"),
        (Some(Serves::Another), "has another certificate", "have another certificate"),
        (None, "does not answer", "do not answer"),
    ] {
        let behind: Vec<&str> = of(which).collect();
        match behind.as_slice() {
            [] => {}
            [node] => line.push_str(&format!("; node {node} {one}")),
            some => {
                let (first, rest) = some.split_at(some.len().min(SPELT));
                let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                line.push_str(&format!("; nodes {}{more} {many}", first.join(", ")));
            }
        }
    }
    Some(line)
}

/// Nodes that are named in a line; the others are counted.
const SPELT: usize = 5;

impl Serves {
    /// As it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::OlderVersion => "older-version",
            Self::Another => "another",
        }
    }
}

impl Serves {
    /// As people say it: it serves …
    pub const fn words(self) -> &'static str {
        match self {
            Self::Current => "the current version",
            Self::OlderVersion => "an older version",
            Self::Another => "another certificate",
        }
    }
}

impl fmt::Display for Serves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Serves {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Current, Self::OlderVersion, Self::Another]
            .into_iter()
            .find(|one| one.as_str() == text)
            .ok_or_else(|| format!("`{text}` is none of current, older-version, another"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_old_when_another_was_offered_since_and_not_before() {
        let version = |obtained: i64, offered: Option<i64>| Version { obtained, offered };
        let (one, two) = (version(1, Some(2)), version(3, Some(4)));
        let newest = |offered| [one, two, version(5, offered)];
        assert_eq!(serves(&newest(None), Some(two)), Some(Serves::Current));
        assert_eq!(serves(&newest(Some(6)), Some(two)), Some(Serves::OlderVersion));
        assert_eq!(serves(&newest(None), Some(one)), Some(Serves::OlderVersion));
        assert_eq!(serves(&newest(None), Some(version(5, None))), Some(Serves::Current), "offered to some");
        assert_eq!(serves(&newest(Some(6)), None), Some(Serves::Another));
        assert_eq!(serves(&[version(1, None)], None), None, "nothing to serve yet");
        // The first is offered again.
        let back = [version(1, Some(9)), two];
        assert_eq!(serves(&back, Some(back[0])), Some(Serves::Current));
        assert_eq!(serves(&back, Some(two)), Some(Serves::OlderVersion), "who does not go back is behind");
    }

    #[test]
    fn a_line_says_who_serves_the_new_version_and_names_who_does_not() {
        let (new, old, other) = (Some(Serves::Current), Some(Serves::OlderVersion), Some(Serves::Another));
        let said = |nodes: &[(&str, Option<Serves>)]| sentence(nodes).unwrap();
        assert_eq!(
            said(&[("10.2.0.4", new), ("10.2.0.5", new), ("10.2.0.6", new), ("10.2.0.7", old)]),
            "served by 3 of 4 nodes; node 10.2.0.7 still has the old one"
        );
        assert_eq!(said(&[("a", new), ("b", new)]), "served by all 2 nodes");
        assert_eq!(
            said(&[("a", old), ("b", old), ("c", other), ("d", None)]),
            "served by 0 of 4 nodes; nodes a, b still have the old one; node c has another certificate; \
             node d does not answer"
        );
        assert!(said(&[("n", old); 7]).ends_with("nodes n, n, n, n, n and 2 more still have the old one"));
        assert_eq!(sentence(&[]), None);
    }

    #[test]
    fn one_node_with_the_old_version_makes_the_endpoint_serve_an_older_version() {
        assert_eq!(worst([Serves::Current, Serves::OlderVersion, Serves::Current]), Some(Serves::OlderVersion));
        assert_eq!(worst([]), None);
    }
}
