//! `[log]` of certbus.toml: on which engine the log is, and with what it is opened.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

/// How each engine's URL is written.
const URLS: &str = "sqlite:PATH, postgres://USER:PASSWORD@HOST/DATABASE, mariadb://USER:PASSWORD@HOST/DATABASE, \
                    dynamodb://TABLE, nats://USER:PASSWORD@HOST, or https://HOST of a CertBus server";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LogSection {
    url: Option<Secret>,
    url_file: Option<PathBuf>,
    token: Option<Secret>,
    token_file: Option<PathBuf>,
}

/// Not to be printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Secret(Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// The engine that the log is on.
pub(crate) enum LogPlace {
    /// A file.
    Sqlite(PathBuf),
    /// A database.
    Postgres(Zeroizing<String>),
    /// A database.
    Mariadb(Zeroizing<String>),
    /// A table.
    Dynamodb(Zeroizing<String>),
    /// A server.
    Nats(Zeroizing<String>),
    /// A CertBus server, asked with a token.
    Http { url: Zeroizing<String>, token: Zeroizing<String> },
}

impl LogSection {
    /// What is said, checked; a path is under `data`.
    pub(super) fn place(&self, data: &Path) -> Result<LogPlace, String> {
        let Some(url) = secret("url", self.url.as_ref(), self.url_file.as_deref())? else {
            return Ok(LogPlace::Sqlite(data.join("log.db")));
        };
        let token = secret("token", self.token.as_ref(), self.token_file.as_deref())?;
        LogPlace::parse(&url, token, data).map_err(|what| format!("url {what}"))
    }
}

impl LogPlace {
    /// What a URL says; a path is under `data`. The error goes on after what it is of, and does not quote it: there may be a
    /// password in it.
    pub(crate) fn parse(url: &str, token: Option<Zeroizing<String>>, data: &Path) -> Result<Self, String> {
        let scheme = url.split(':').next().unwrap_or_default();
        if token.is_some() && !scheme.starts_with("http") {
            return Err("is none of a CertBus server, for which alone token is".into());
        }
        let owned = || Zeroizing::new(url.to_owned());
        Ok(match scheme {
            "sqlite" => {
                let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or_default();
                if path.is_empty() {
                    return Err("names no file; write sqlite:/path/to/log.db".into());
                }
                Self::Sqlite(if Path::new(path).is_absolute() { path.into() } else { data.join(path) })
            }
            "postgres" | "postgresql" => Self::Postgres(owned()),
            "mariadb" | "mysql" => Self::Mariadb(owned()),
            "dynamodb" => Self::Dynamodb(owned()),
            "nats" | "tls" => Self::Nats(owned()),
            "http" | "https" => {
                let wants = "is of a CertBus server, which wants a token: put it into a file of your own and name that with \
                             token_file; `certbus token new NAME --scope certs` there makes one";
                Self::Http { url: owned(), token: token.ok_or(wants)? }
            }
            _ => return Err(format!("is none of {URLS}")),
        })
    }
}

/// What stands there, or in the file beside it.
fn secret(key: &str, written: Option<&Secret>, file: Option<&Path>) -> Result<Option<Zeroizing<String>>, String> {
    let Some(file) = file else { return Ok(written.map(|secret| secret.0.clone())) };
    if written.is_some() {
        return Err(format!("{key} and {key}_file both stand there; one of them says it"));
    }
    let fault = |what: String| format!("{key}_file {}: {what}", file.display());
    let mode = std::fs::metadata(file).map_err(|e| fault(e.to_string()))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(fault(format!("it has mode {mode:04o}, so others may read it; run `chmod 600` on it")));
    }
    let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|e| fault(e.to_string()))?;
    match text.trim() {
        "" => Err(fault("it is empty".into())),
        text => Ok(Some(Zeroizing::new(text.to_owned()))),
    }
}
