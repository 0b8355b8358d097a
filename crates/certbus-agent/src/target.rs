//! A target: which certificates, in which files, and how the load balancer takes them. Parsed once from the settings, then
//! trusted. It refuses what could be read in two ways, and keys that everyone may read.

mod settings;

use std::path::PathBuf;
use std::time::Duration;

use certbus_core::catalog::Version;
use certbus_core::name::{DnsName, NameSet};
use zeroize::Zeroizing;

use crate::account;
use crate::template::Template;

pub use settings::{Kind, TargetSettings};

/// The mode of files when the settings give none: for the owner, and for the group to read.
const USUAL_MODE: u32 = 0o640;

/// The time that a check or a reload may take when the settings give none.
const USUAL_LIMIT: Duration = Duration::from_secs(30);

/// One `[[target]]` of the settings.
#[derive(Clone, Debug)]
pub struct Target {
    pub(crate) name: String,
    pub(crate) select: Select,
    pub(crate) layout: Layout,
    pub(crate) access: Access<String>,
    /// Empty: none.
    pub(crate) check: Vec<String>,
    /// Empty: none.
    pub(crate) reload: Vec<String>,
    /// HAProxy's stats socket.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) limit: Duration,
}

/// What is wrong with a target, by the key at fault.
#[derive(Debug, Clone, thiserror::Error)]
#[error("target `{target}`: {key}: {why}")]
pub struct TargetError {
    /// The target's name.
    pub target: String,
    /// The key of the settings.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// Which certificates.
#[derive(Clone, Debug)]
pub(crate) enum Select {
    All,
    Names(Vec<DnsName>),
}

/// In which files.
#[derive(Clone, Debug)]
pub(crate) enum Layout {
    /// The chain, leaf first, and the key in a file of its own.
    Separate { chain: Template, key: Template },
    /// Key and chain in one PEM file.
    Combined { pem: Template },
    /// PKCS#12.
    Pkcs12 { file: Template, password_file: PathBuf },
}

/// Whose the files are, and who may read them: by name as the settings say, by number as the machine knows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<Id = u32> {
    pub(crate) mode: u32,
    pub(crate) owner: Option<Id>,
    pub(crate) group: Option<Id>,
}

impl Access<String> {
    /// Looked up for each round: an account may be made, and the service that knows it may be away for a while.
    pub(crate) fn resolve(&self) -> Result<Access, String> {
        let id = |key: &str, text: &Option<String>, look: fn(&str) -> Result<u32, String>| {
            text.as_deref().map(look).transpose().map_err(|why| format!("{key}: {why}"))
        };
        let (owner, group) = (id("owner", &self.owner, account::user)?, id("group", &self.group, account::group)?);
        Ok(Access { mode: self.mode, owner, group })
    }
}

impl Target {
    /// Its name: as the settings say, else its kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Parses all targets of the settings: each on its own, then that no two have one name or one file.
    ///
    /// # Errors
    /// The number of the target, counted from 0, and [`TargetError`].
    pub fn parse_all(all: &[TargetSettings]) -> Result<Vec<Self>, (usize, TargetError)> {
        let mut targets: Vec<Self> = Vec::with_capacity(all.len());
        for (number, settings) in all.iter().enumerate() {
            let target = Self::parse(settings).map_err(|error| (number, error))?;
            let wrong = |key, why| (number, TargetError { target: target.name.clone(), key, why });
            for other in &targets {
                if other.name == target.name {
                    let why = "another target has this name; give each a `name` of its own".to_owned();
                    return Err(wrong("name", why));
                }
                let theirs = other.layout.templates();
                let mut own = target.layout.templates().into_iter();
                if let Some((key, shared)) = own.find(|(_, t)| theirs.iter().any(|(_, their)| t == their)) {
                    let why =
                        format!("target `{}` writes `{}` too; give each its own files", other.name, shared.as_str());
                    return Err(wrong(key, why));
                }
            }
            targets.push(target);
        }
        Ok(targets)
    }

    fn parse(settings: &TargetSettings) -> Result<Self, TargetError> {
        let name = settings.name.clone().unwrap_or_else(|| settings.kind.as_str().to_owned());
        let wrong = |key, why: String| TargetError { target: name.clone(), key, why };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(wrong("name", format!("`{name}` is no name; write up to 64 letters, digits, `-` and `_`")));
        }
        let usual = settings.kind.usual();
        let words = |given: &Option<Vec<String>>, usual: &[&str]| {
            given.clone().unwrap_or_else(|| usual.iter().map(|word| (*word).to_owned()).collect())
        };
        let (check, reload) = (words(&settings.check, usual.check), words(&settings.reload, usual.reload));
        for (key, program) in [("check", &check), ("reload", &reload)] {
            runnable(program).map_err(|why| wrong(key, why))?;
        }
        let socket = settings.socket.clone();
        if let Some(socket) = &socket {
            if settings.kind != Kind::Haproxy {
                return Err(wrong("socket", "only the kind `haproxy` has one; remove it, or change `kind`".into()));
            }
            if !socket.is_absolute() {
                return Err(wrong("socket", format!("`{}` is relative; write the whole path", socket.display())));
            }
        }
        let layout = Layout::parse(settings, &usual).map_err(|(key, why)| wrong(key, why))?;
        if socket.is_some() && !matches!(layout, Layout::Combined { .. }) {
            return Err(wrong("socket", "HAProxy takes one PEM file for each certificate; write `combined`".into()));
        }
        let limit = match settings.time_limit {
            None => USUAL_LIMIT,
            Some(seconds @ 1..=3600) => Duration::from_secs(seconds),
            Some(other) => return Err(wrong("time_limit", format!("`{other}` is out of 1 to 3600 seconds"))),
        };
        let access = Access {
            mode: mode(settings.mode.as_deref()).map_err(|why| wrong("mode", why))?,
            owner: settings.owner.clone(),
            group: settings.group.clone(),
        };
        let select = Select::parse(settings.names.as_deref()).map_err(|why| wrong("names", why))?;
        Ok(Self { select, layout, access, check, reload, socket, limit, name })
    }
}

impl Select {
    fn parse(names: Option<&[String]>) -> Result<Self, String> {
        let Some(names) = names else { return Ok(Self::All) };
        if names.is_empty() {
            return Err("the list is empty, so no certificate is meant; write names, or [\"*\"] for all".into());
        }
        if names.iter().any(|name| name == "*") {
            return Ok(Self::All);
        }
        let parsed: Result<Vec<_>, _> = names.iter().map(|name| DnsName::parse(name)).collect();
        parsed.map(Self::Names).map_err(|e| format!("{e}; write names such as shop.example, *.shop.example, or \"*\""))
    }

    /// Whether a certificate of these names is meant: one of its names is listed, or a listed wildcard answers for it.
    pub(crate) fn takes(&self, names: &NameSet) -> bool {
        match self {
            Self::All => true,
            Self::Names(listed) => names.names().iter().any(|name| listed.iter().any(|one| one.covers(name))),
        }
    }
}

impl Layout {
    fn parse(settings: &TargetSettings, usual: &settings::Usual) -> Result<Self, (&'static str, String)> {
        let (chain, key, combined, pkcs12) = (&settings.chain, &settings.key, &settings.combined, &settings.pkcs12);
        let template = |key: &'static str, text: &str| Template::parse(text).map_err(|why| (key, why));
        if settings.password_file.is_some() && pkcs12.is_none() {
            return Err(("password_file", "it is of no use without `pkcs12`; remove it".into()));
        }
        match (chain.as_deref(), key.as_deref(), combined.as_deref(), pkcs12.as_deref()) {
            (None, None, None, None) => match *usual {
                settings::Usual { combined: Some(pem), .. } => Ok(Self::Combined { pem: template("combined", pem)? }),
                settings::Usual { separate: Some((chain, key)), .. } => {
                    Ok(Self::Separate { chain: template("chain", chain)?, key: template("key", key)? })
                }
                _ => Err(("chain", "no file is named; write `chain` and `key`, or `combined`, or `pkcs12`".into())),
            },
            (Some(chain), Some(key), None, None) => {
                let (chain, key) = (template("chain", chain)?, template("key", key)?);
                if chain == key {
                    return Err(("key", "it is the same file as `chain`; for one file write `combined`".into()));
                }
                Ok(Self::Separate { chain, key })
            }
            (Some(_), None, None, None) => {
                Err(("chain", "the key's file is missing; write `key`, or `combined` for one file".into()))
            }
            (None, Some(_), None, None) => {
                Err(("key", "the chain's file is missing; write `chain`, or `combined` for one file".into()))
            }
            (None, None, Some(pem), None) => Ok(Self::Combined { pem: template("combined", pem)? }),
            (None, None, None, Some(file)) => {
                let password = settings.password_file.as_deref();
                let password = password.ok_or(("pkcs12", "its password is missing; write `password_file`".into()))?;
                if !password.is_absolute() {
                    let why = format!("`{}` is relative; write the whole path", password.display());
                    return Err(("password_file", why));
                }
                Ok(Self::Pkcs12 { file: template("pkcs12", file)?, password_file: password.to_owned() })
            }
            _ => {
                Err(("combined", "one of `chain` with `key`, `combined`, `pkcs12`; for more write more targets".into()))
            }
        }
    }

    /// The files of a version, in the order of the layout.
    pub(crate) fn paths(&self, version: &Version) -> Vec<PathBuf> {
        self.templates().into_iter().map(|(_, template)| template.path(version)).collect()
    }

    /// Its files, each with its key in the settings.
    pub(crate) fn templates(&self) -> Vec<(&'static str, &Template)> {
        match self {
            Self::Separate { chain, key } => vec![("chain", chain), ("key", key)],
            Self::Combined { pem } => vec![("combined", pem)],
            Self::Pkcs12 { file, .. } => vec![("pkcs12", file)],
        }
    }
}

/// The password of PKCS#12 stores.
pub(crate) fn read_password(path: &std::path::Path) -> Result<Zeroizing<String>, String> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| format!("password_file: {} cannot be read: {error}", path.display()))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(format!("password_file: {} is empty; its first line is the password", path.display())),
    }
}

fn runnable(program: &[String]) -> Result<(), String> {
    match program.first().map(String::as_str) {
        None => Ok(()),
        Some("") => Err("the program's name is empty; write it first, then its arguments".into()),
        Some(first) if first.contains('/') && !first.starts_with('/') => {
            Err(format!("`{first}` is relative; write the whole path, or a name that is found in PATH"))
        }
        Some(first) if first.contains(' ') => Err(format!(
            "`{first}` has blanks; there is no shell: write each word on its own, such as [\"nginx\", \"-t\"]"
        )),
        Some(_) => Ok(()),
    }
}

fn mode(text: Option<&str>) -> Result<u32, String> {
    let Some(text) = text else { return Ok(USUAL_MODE) };
    let octal = (text.len() == 3 || text.len() == 4).then(|| u32::from_str_radix(text, 8).ok()).flatten();
    match octal {
        None => Err(format!("`{text}` is no mode; write it in octal, such as \"0640\"")),
        Some(mode) if mode & 0o007 != 0 => {
            Err(format!("\"{text}\" lets everyone at the private key; write \"0640\" and give the reader's `group`"))
        }
        Some(mode) if mode & !0o660 != 0 || mode & 0o400 == 0 => {
            Err(format!("\"{text}\" is not of use for a file that is read; write \"0640\", \"0600\" or \"0660\""))
        }
        Some(mode) => Ok(mode),
    }
}
