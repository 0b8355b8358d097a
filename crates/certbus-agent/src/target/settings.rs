//! A `[[target]]` as it is written, and what its kind fills in. Unknown keys are refused.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// What a target is for. Each but `files` fills in what its load balancer usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Whatever reads files: nothing is filled in.
    Files,
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
}

/// One `[[target]]`, as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSettings {
    pub(crate) kind: Kind,
    pub(crate) name: Option<String>,
    pub(crate) names: Option<Vec<String>>,
    pub(crate) chain: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) combined: Option<String>,
    pub(crate) pkcs12: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) owner: Option<String>,
    pub(crate) group: Option<String>,
    #[serde(default, deserialize_with = "octal")]
    pub(crate) mode: Option<String>,
    #[serde(default, deserialize_with = "program")]
    pub(crate) check: Option<Vec<String>>,
    #[serde(default, deserialize_with = "program")]
    pub(crate) reload: Option<Vec<String>>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) time_limit: Option<u64>,
}

/// What a kind fills in where the settings say nothing.
#[derive(Clone, Copy)]
pub(crate) struct Usual {
    pub(crate) separate: Option<(&'static str, &'static str)>,
    pub(crate) combined: Option<&'static str>,
    pub(crate) check: &'static [&'static str],
    pub(crate) reload: &'static [&'static str],
}

impl Kind {
    /// As written in the settings.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    pub(crate) fn usual(self) -> Usual {
        match self {
            Self::Files => Usual { separate: None, combined: None, check: &[], reload: &[] },
            Self::Nginx => Usual {
                separate: Some(("/etc/nginx/certbus/{name}.crt", "/etc/nginx/certbus/{name}.key")),
                combined: None,
                check: &["nginx", "-t"],
                reload: &["nginx", "-s", "reload"],
            },
            Self::Haproxy => Usual {
                separate: None,
                combined: Some("/etc/haproxy/certbus/{name}.pem"),
                check: &["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"],
                reload: &["systemctl", "reload", "haproxy"],
            },
        }
    }
}

fn program<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    struct Words;
    impl<'de> Visitor<'de> for Words {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of the program and its arguments, such as [\"nginx\", \"-t\"] (there is no shell)")
        }

        fn visit_str<E: Error>(self, _: &str) -> Result<Vec<String>, E> {
            Err(E::custom("a program is a list of it and its arguments, such as ['nginx', '-t']; there is no shell"))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut words = Vec::new();
            while let Some(word) = seq.next_element()? {
                words.push(word);
            }
            Ok(words)
        }
    }
    deserializer.deserialize_any(Words).map(Some)
}

fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Mode;
    impl Visitor<'_> for Mode {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a mode in octal, in quotes, such as \"0640\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E: Error>(self, _: i64) -> Result<String, E> {
            Err(E::custom("a mode is written in octal and in quotes, such as '0640'"))
        }
    }
    deserializer.deserialize_any(Mode).map(Some)
}
