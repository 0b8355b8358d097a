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

/// One version of a managed certificate, as far as a node may serve it: its place on the log, and whether it was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Later is newer.
    pub order: i64,
    /// Load balancers may serve it.
    pub offered: bool,
}

/// What a node serves, of `versions`, where `served` is the place of the one it presented (None: it presented none of
/// them). A version that is not offered yet makes no other one old.
pub fn serves(versions: &[Version], served: Option<i64>) -> Option<Serves> {
    let newest = versions.iter().filter(|version| version.offered).map(|version| version.order).max()?;
    Some(match served {
        None => Serves::Another,
        Some(order) if order >= newest => Serves::Current,
        Some(_) => Serves::OlderVersion,
    })
}

/// What an endpoint serves, of what its nodes do: the worst.
pub fn worst(nodes: impl IntoIterator<Item = Serves>) -> Option<Serves> {
    nodes.into_iter().max()
}

/// Which nodes serve the version last offered, and which do not, in one line. None: no node is known.
pub fn sentence(nodes: &[(&str, Serves)]) -> Option<String> {
    let of = |which: Serves| nodes.iter().filter(move |(_, serves)| *serves == which).map(|(node, _)| *node);
    let (all, current) = (nodes.len(), of(Serves::Current).count());
    let mut line = match (all, current) {
        (0, _) => return None,
        (1, 1) => "served by its only node".to_owned(),
        (_, current) if current == all => format!("served by all {all} nodes"),
        (_, current) => format!("served by {current} of {all} nodes"),
    };
    for (which, one, many) in [
        (Serves::OlderVersion, "still has the old one", "still have the old one"),
        (Serves::Another, "has another certificate", "have another certificate"),
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
    fn a_version_is_old_when_a_later_one_is_offered_and_not_before() {
        let versions = |newest: bool| {
            [
                Version { order: 1, offered: true },
                Version { order: 2, offered: true },
                Version { order: 3, offered: newest },
            ]
        };
        assert_eq!(serves(&versions(false), Some(2)), Some(Serves::Current));
        assert_eq!(serves(&versions(true), Some(2)), Some(Serves::OlderVersion));
        assert_eq!(serves(&versions(false), Some(1)), Some(Serves::OlderVersion));
        assert_eq!(serves(&versions(false), Some(3)), Some(Serves::Current), "offered to some, and they serve it");
        assert_eq!(serves(&versions(true), None), Some(Serves::Another));
        assert_eq!(serves(&[Version { order: 1, offered: false }], None), None, "nothing to serve yet");
    }

    #[test]
    fn a_line_says_who_serves_the_new_version_and_names_who_does_not() {
        let (new, old) = (Serves::Current, Serves::OlderVersion);
        let said = |nodes: &[(&str, Serves)]| sentence(nodes).unwrap();
        assert_eq!(
            said(&[("10.2.0.4", new), ("10.2.0.5", new), ("10.2.0.6", new), ("10.2.0.7", old)]),
            "served by 3 of 4 nodes; node 10.2.0.7 still has the old one"
        );
        assert_eq!(said(&[("a", new), ("b", new)]), "served by all 2 nodes");
        assert_eq!(
            said(&[("a", old), ("b", old), ("c", Serves::Another)]),
            "served by 0 of 3 nodes; nodes a, b still have the old one; node c has another certificate"
        );
        assert_eq!(said(&[("n", old); 7]).matches(" n").count() - 1, 5, "and 2 more");
        assert_eq!(sentence(&[]), None);
    }

    #[test]
    fn one_node_with_the_old_version_makes_the_endpoint_serve_an_older_version() {
        assert_eq!(worst([Serves::Current, Serves::OlderVersion, Serves::Current]), Some(Serves::OlderVersion));
        assert_eq!(worst([]), None);
    }
}
