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
    fn one_node_with_the_old_version_makes_the_endpoint_serve_an_older_version() {
        assert_eq!(worst([Serves::Current, Serves::OlderVersion, Serves::Current]), Some(Serves::OlderVersion));
        assert_eq!(worst([]), None);
    }
}
