//! `[web]` of certbus.toml: where the web is served, and how people come there without being overheard.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use tokio::net::TcpListener;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebSection {
    listen: Option<SocketAddr>,
    tls: Word,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    trusted_proxies: Vec<IpAddr>,
    public_url: Option<String>,
}

/// As `tls` is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Off,
    Own,
    Files,
    Proxy,
}

/// How people come to the web.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    /// In plain, from this machine alone.
    Off,
    /// Over TLS, with a managed certificate of the log, and until there is one, a self-signed one.
    Own,
    /// Over TLS, with the certificate and key in these files.
    Files {
        /// The chain, in PEM.
        certificate: PathBuf,
        /// Its key, in PEM.
        key: PathBuf,
    },
    /// Over a proxy that speaks TLS with them.
    Proxy,
}

/// Where and how the web is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Web {
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// How people come.
    pub(crate) tls: Tls,
    /// Who says from where they come.
    pub(crate) proxies: Vec<IpAddr>,
    /// What people type to come here, without a slash at its end.
    pub(crate) url: String,
}

impl WebSection {
    /// Checked, with every default filled in; the error begins with the key that is wrong.
    pub(super) fn parsed(&self, listen: Option<SocketAddr>) -> Result<Web, String> {
        let listen = listen.or(self.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
        let tls = match (self.tls, &self.certificate, &self.key) {
            (Word::Files, Some(certificate), Some(key)) => {
                Tls::Files { certificate: certificate.clone(), key: key.clone() }
            }
            (Word::Files, ..) => {
                return Err("tls is `files`, and `certificate` or `key` is missing: write the path of each".into());
            }
            (_, Some(_), _) | (_, _, Some(_)) => {
                return Err("certificate and web.key are for tls = \"files\"; write that, or take them out".into());
            }
            (Word::Off, ..) => Tls::Off,
            (Word::Own, ..) => Tls::Own,
            (Word::Proxy, ..) => Tls::Proxy,
        };
        if tls == Tls::Off && !listen.ip().is_loopback() {
            return Err(format!(
                "listen is {listen}, which others can reach, in plain: listen on 127.0.0.1, or set `tls` to \"own\", \
                 \"files\" or, with `trusted_proxies` and `public_url`, \"proxy\""
            ));
        }
        if tls == Tls::Proxy && self.trusted_proxies.is_empty() {
            return Err(
                "tls is `proxy`, and `trusted_proxies` names none: write the addresses that it connects from".into()
            );
        }
        let url = match self.public_url.as_deref().map(|url| url.trim_end_matches('/')) {
            Some(url) if url.starts_with(if tls == Tls::Off { "http://" } else { "https://" }) => url.to_owned(),
            Some(url) if tls == Tls::Off => {
                return Err(format!(
                    "public_url is `{url}`, and tls is `off`: say who speaks TLS, `tls` = \"own\", \"files\" or \"proxy\""
                ));
            }
            Some(url) => return Err(format!("public_url is `{url}`; write https://certbus.example.com")),
            None if tls == Tls::Off => format!("http://{listen}"),
            None if tls == Tls::Proxy || listen.ip().is_unspecified() => {
                return Err("public_url is missing: what people type to come here, https://certbus.example.com".into());
            }
            None => format!("https://{listen}"),
        };
        Ok(Web { listen, tls, proxies: self.trusted_proxies.clone(), url })
    }
}

impl Web {
    /// Listens. Returns what people type, too: port 0 is any that is free.
    pub(crate) async fn open(&self) -> std::io::Result<(TcpListener, String)> {
        let listener = TcpListener::bind(self.listen).await?;
        let url = match listener.local_addr() {
            Ok(address) if self.listen.port() == 0 => self.url.replace(&self.listen.to_string(), &address.to_string()),
            _ => self.url.clone(),
        };
        Ok((listener, url))
    }

    /// The name or address in what people type.
    pub(crate) fn host(&self) -> &str {
        let authority = self.url.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
        match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => authority.split(':').next().unwrap_or_default(),
        }
    }
}
