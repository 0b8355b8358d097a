//! Local settings: certbus.toml of this machine. What belongs on the log is refused here, with its home named.

mod log;
mod web;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use certbus_agent::{Target, TargetSettings};
use certbus_core::chain::Pin;
use certbus_core::endpoint::{USUAL_SITE, Word};
use certbus_manager::LocalSolvers;
use certbus_manager::alerts::LocalAlerts;
use certbus_manager::issuing::{ISSUING_KEYS, without_values};
use serde::Deserialize;

use crate::cli::exit::Mistake;
pub(crate) use log::LogPlace;
use log::LogSection;
use web::WebSection;
pub(crate) use web::{Tls, Web};

/// The file, as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct File {
    data: Option<PathBuf>,
    log: LogSection,
    identity: IdentitySection,
    trust: Vec<Pin>,
    http01: Http01Section,
    exec: ExecSection,
    inventory: InventorySection,
    web: WebSection,
    server: ServerSection,
    alert: AlertSection,
    target: Vec<toml::Spanned<TargetSettings>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IdentitySection {
    owner: Option<PathBuf>,
    manager: Option<PathBuf>,
    node: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Http01Section {
    listen: Option<SocketAddr>,
    webroot: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ExecSection {
    dns01: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct AlertSection {
    exec: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InventorySection {
    url: Option<String>,
    site: Option<Word>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ServerSection {
    url: Option<String>,
    token_file: Option<PathBuf>,
}

/// Settings with every default filled in.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where they were read, or would be.
    pub(crate) path: PathBuf,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// The tenant at hand.
    pub(crate) tenant: String,
    file: File,
    targets: Vec<Target>,
}

/// What flags and environment say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) config: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) tenant: String,
    pub(crate) system: bool,
}

impl Settings {
    /// Reads the file, if there is one. Flags count over the environment, that over the file.
    pub(crate) fn load(overrides: &Overrides) -> Result<Self> {
        let path = match &overrides.config {
            Some(path) => path.clone(),
            None => default_path(overrides.system),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                if overrides.config.is_some() {
                    bail!(Mistake::new(format!(
                        "the settings {} are not there; `certbus init --config {0}` makes them",
                        path.display()
                    )));
                }
                String::new()
            }
            Err(e) => return Err(e).with_context(|| format!("settings {}", path.display())),
        };
        Self::parse(&path, &text, overrides)
    }

    /// As [`Settings::load`], where a missing file is only natural: for `init`.
    pub(crate) fn load_or_default(overrides: &Overrides) -> Result<Self> {
        let path = overrides.config.clone().unwrap_or_else(|| default_path(overrides.system));
        if path.exists() {
            return Self::load(&Overrides { config: Some(path), ..overrides.clone() });
        }
        Self::parse(&path, "", overrides)
    }

    fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self> {
        check_tenant(&overrides.tenant)?;
        let wrong = |line: Option<usize>, what: &str| {
            let line = line.map(|l| format!(" line {l}")).unwrap_or_default();
            Mistake::new(format!("settings {}{line}: {what}", path.display()))
        };
        let located = |e: &toml::de::Error| {
            let line = e.span().map(|s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
            wrong(line, &without_values(e.message()))
        };
        let table: toml::Table = text.parse().map_err(|e| located(&e))?;
        if let Some(key) = table.keys().find(|key| ISSUING_KEYS.contains(&key.as_str())) {
            let named = |l: &str| l.trim_start_matches('[').trim_start().starts_with(key.as_str());
            let line = text.lines().position(named).map(|l| l + 1);
            bail!(wrong(
                line,
                &format!("`{key}` is an issuing setting: it lives sealed on the log; give it to `certbus conf edit`")
            ));
        }
        let file: File = toml::from_str(text).map_err(|e| located(&e))?;
        if file.http01.listen.is_some() && file.http01.webroot.is_some() {
            bail!(wrong(None, "http01 has both `listen` and `webroot`; one of them answers challenges"));
        }
        let written: Vec<TargetSettings> = file.target.iter().map(|target| target.get_ref().clone()).collect();
        let targets = Target::parse_all(&written).map_err(|(number, error)| {
            let span = file.target.get(number).map(toml::Spanned::span);
            wrong(span.map(|span| line_of(text, span, error.key)), &error.to_string())
        })?;
        let system = overrides.system || path == Path::new("/etc/certbus/certbus.toml");
        let data = overrides.data.clone().or_else(|| file.data.clone()).unwrap_or_else(|| default_data(system));
        Ok(Self { path: path.to_owned(), data, tenant: overrides.tenant.clone(), file, targets })
    }

    /// The same for another tenant.
    pub(crate) fn for_tenant(&self, name: &str) -> Result<Self> {
        check_tenant(name)?;
        Ok(Self { tenant: name.to_owned(), ..self.clone() })
    }

    /// Where the log is.
    pub(crate) fn log(&self) -> Result<LogPlace> {
        let wrong = |what: String| Mistake::new(format!("settings {}: log.{what}", self.path.display()));
        Ok(self.file.log.place(&self.data).map_err(wrong)?)
    }

    /// The place of the inventory: a path, for SQLite.
    pub(crate) fn inventory_path(&self) -> Result<PathBuf> {
        self.sqlite_path("inventory", self.file.inventory.url.as_deref(), "inventory.db")
    }

    /// From where this machine polls.
    pub(crate) fn site(&self) -> &str {
        self.file.inventory.site.as_ref().map_or(USUAL_SITE, Word::as_str)
    }

    /// The server that commands go to, and the file with the token for it.
    pub(crate) fn server(&self) -> (Option<&str>, Option<PathBuf>) {
        (self.file.server.url.as_deref(), self.file.server.token_file.clone())
    }

    /// Where and how the web is served; `listen` counts over the file.
    pub(crate) fn web(&self, listen: Option<SocketAddr>) -> Result<Web> {
        let wrong = |what: String| Mistake::new(format!("settings {}: web.{what}", self.path.display()));
        Ok(self.file.web.parsed(listen).map_err(wrong)?)
    }

    fn sqlite_path(&self, section: &str, url: Option<&str>, usual: &str) -> Result<PathBuf> {
        let Some(url) = url else { return Ok(self.data.join(usual)) };
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
        match path {
            Some(path) if !path.is_empty() => Ok(self.under_data(Path::new(path))),
            _ => bail!(Mistake::new(format!(
                "settings {}: {section}.url is `{}`; write sqlite:/path/to/{usual}",
                self.path.display(),
                url.split('@').next_back().unwrap_or_default()
            ))),
        }
    }

    /// The folder of the tenant's identities: the data folder for `default`.
    pub(crate) fn identities(&self) -> PathBuf {
        if self.tenant == "default" { self.data.clone() } else { self.data.join("tenants").join(&self.tenant) }
    }

    /// The owner file.
    pub(crate) fn owner_key(&self) -> PathBuf {
        self.identity(self.file.identity.owner.as_deref(), "owner.key")
    }

    /// The manager's identity.
    pub(crate) fn manager_key(&self) -> PathBuf {
        self.identity(self.file.identity.manager.as_deref(), "manager.key")
    }

    /// The node's identity.
    pub(crate) fn node_key(&self) -> PathBuf {
        self.identity(self.file.identity.node.as_deref(), "nodes.key")
    }

    fn identity(&self, named: Option<&Path>, usual: &str) -> PathBuf {
        match named.filter(|_| self.tenant == "default") {
            Some(path) => self.under_data(path),
            None => self.identities().join(usual),
        }
    }

    fn under_data(&self, path: &Path) -> PathBuf {
        if path.is_absolute() { path.to_owned() } else { self.data.join(path) }
    }

    /// Logs and authorities that these settings trust beside an identity's own.
    pub(crate) fn pins(&self) -> &[Pin] {
        &self.file.trust
    }

    /// What the agent keeps in line on this machine.
    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// What this machine brings for alerts.
    pub(crate) fn alerts(&self) -> LocalAlerts {
        LocalAlerts { exec: self.file.alert.exec.clone() }
    }

    /// What this machine brings for challenges.
    pub(crate) fn solvers(&self) -> LocalSolvers {
        LocalSolvers {
            http01_listen: self.file.http01.listen,
            http01_webroot: self.file.http01.webroot.clone(),
            dns01_exec: self.file.exec.dns01.clone(),
        }
    }
}

/// The line of `key` in the table that stands at `span`; the table's own where the key is not written.
fn line_of(text: &str, span: std::ops::Range<usize>, key: &str) -> usize {
    let first = text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
    let table = text.get(span.start..).unwrap_or_default().lines().enumerate();
    let own = table.take_while(|(at, line)| *at == 0 || !line.trim_start().starts_with('['));
    let named = |line: &str| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    own.into_iter().find(|(_, line)| named(line)).map_or(first, |(at, _)| first + at)
}

fn check_tenant(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        && !name.starts_with('-');
    if good {
        return Ok(());
    }
    bail!(Mistake::new(format!("`{name}` is not a tenant's name; write up to 64 of a-z, 0-9, `-` and `_`")))
}

fn default_path(system: bool) -> PathBuf {
    let global = PathBuf::from("/etc/certbus/certbus.toml");
    if system || global.exists() {
        return global;
    }
    xdg("XDG_CONFIG_HOME", ".config").join("certbus/certbus.toml")
}

fn default_data(system: bool) -> PathBuf {
    if system { PathBuf::from("/var/lib/certbus") } else { xdg("XDG_DATA_HOME", ".local/share").join("certbus") }
}

fn xdg(variable: &str, below_home: &str) -> PathBuf {
    let set = std::env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
    set.unwrap_or_else(|| std::env::home_dir().unwrap_or_default().join(below_home))
}
