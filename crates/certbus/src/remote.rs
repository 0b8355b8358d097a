//! A CertBus server on another machine, asked over its API with a token. Whatever goes wrong is said with what would be right.

use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::cli::exit::{Missing, Mistake};

/// How long a connection may take.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer may take, an import's included.
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);

/// Longer answers are none.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;

/// Items of a page.
const PAGE: usize = 500;

/// Which server, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// As people type it.
    pub(crate) url: String,
    /// The file with the token; None: as the environment says.
    pub(crate) token_file: Option<PathBuf>,
}

/// A server that knows who asks.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    client: Client,
    url: String,
    /// What it says of itself and of who asks.
    pub(crate) who: Who,
}

/// Who asks, and of what server.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Who {
    /// Whose managed certificates it has.
    pub(crate) tenant: Option<String>,
    /// From where it polls.
    pub(crate) site: String,
}

#[derive(Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Server {
    /// Finds a server, and that it is one which takes the token. `tenant` is the one that is meant, if that was said.
    pub(crate) async fn connect(address: &Address, tenant: Option<&str>) -> Result<Self> {
        let url = checked(&address.url)?;
        let here = is_here(&url);
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", &*token(address.token_file.as_deref())?))
            .map_err(|_| Mistake::new("the token has characters that no token has; give it as it was printed"))?;
        bearer.set_sensitive(true);
        let builder = Client::builder()
            .user_agent(concat!("certbus/", env!("CARGO_PKG_VERSION")))
            .default_headers([(AUTHORIZATION, bearer)].into_iter().collect())
            .redirect(Policy::none())
            .connect_timeout(CONNECTED_WITHIN)
            .timeout(ANSWERED_WITHIN);
        // Nothing stands between this machine and itself, and what is said there is said in plain.
        let client = if here { builder.no_proxy() } else { builder }.build()?;
        let url = url.as_str().trim_end_matches('/').to_owned();
        let mut server = Self { client, url, who: Who::default() };
        server.who = server.get("whoami", &[]).await?;
        if let (Some(wanted), Some(its)) = (tenant, &server.who.tenant)
            && wanted != its
        {
            bail!(Mistake::new(format!(
                "the server {} is of tenant `{its}`, and --tenant says `{wanted}`",
                server.url
            )));
        }
        Ok(server)
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What is at a path.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        self.read(self.at(Method::GET, path).query(query)).await
    }

    /// The same; None if there is no such thing.
    pub(crate) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        match self.get(path, &[]).await {
            Err(error) if error.is::<Missing>() => Ok(None),
            found => found.map(Some),
        }
    }

    /// What a list has, page by page, up to `most` items.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        after: Option<String>,
        most: usize,
    ) -> Result<Vec<T>> {
        let (mut items, mut after) = (Vec::new(), after);
        loop {
            let limit = PAGE.min(most.saturating_sub(items.len())).max(1).to_string();
            let mut query = vec![("limit", limit.as_str())];
            query.extend(after.as_deref().map(|after| ("after", after)));
            let page: Page<T> = self.get(path, &query).await?;
            if page.next.is_some() && (page.next == after || page.items.is_empty()) {
                bail!("the server {} answers with pages that lead nowhere: {path}", self.url);
            }
            items.extend(page.items);
            after = page.next;
            if after.is_none() || items.len() >= most {
                return Ok(items);
            }
        }
    }

    /// Sends JSON, and reads the answer.
    pub(crate) async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: &Value) -> Result<T> {
        let request = self.at(method, path).header(CONTENT_TYPE, "application/json");
        self.read(request.body(serde_json::to_vec(body)?)).await
    }

    /// Sends lines, and reads the answer.
    pub(crate) async fn send_lines<T: DeserializeOwned>(&self, path: &str, lines: String) -> Result<T> {
        self.read(self.at(Method::POST, path).header(CONTENT_TYPE, "text/plain").body(lines)).await
    }

    /// Sends JSON that is answered by nothing.
    pub(crate) async fn tell(&self, method: Method, path: &str, body: &Value) -> Result<()> {
        let request = self.at(method, path).header(CONTENT_TYPE, "application/json");
        self.answer(request.body(serde_json::to_vec(body)?)).await.map(drop)
    }

    /// Has something done that is answered by nothing.
    pub(crate) async fn act(&self, method: Method, path: &str) -> Result<()> {
        self.act_on(method, path, &[]).await
    }

    /// The same, of what `query` says.
    pub(crate) async fn act_on(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Result<()> {
        self.answer(self.at(method, path).query(query)).await.map(drop)
    }

    fn at(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}/api/v1/{path}", self.url))
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let body = self.answer(request).await?;
        let what = || format!("the server {} answers what this version does not read: another version?", self.url);
        serde_json::from_slice(&body).with_context(what)
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Vec<u8>> {
        let url = &self.url;
        let mut response = request.send().await.map_err(|error| self.unreached(&error))?;
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if status.is_redirection() {
            let to = header(LOCATION).unwrap_or("nowhere");
            bail!(
                "{url} leads on to {to}, which is not followed: a token goes nowhere by itself; give the server's own URL"
            );
        }
        let kind = header(CONTENT_TYPE).unwrap_or("nothing").to_owned();
        let json = kind.starts_with("application/json") || kind.starts_with("application/problem+json");
        if !json && !matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            bail!("{url} is no CertBus server: it answers {status} and {kind}; give the URL at which its dashboard is");
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreached(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_ANSWER {
                bail!("the server {url} answers more than {} MB, which is not read", LARGEST_ANSWER >> 20);
            }
        }
        if status.is_success() {
            return Ok(body);
        }
        let problem = serde_json::from_slice::<Problem>(&body);
        let detail = problem.map_or_else(|_| format!("it answers {status}"), |problem| problem.detail);
        Err(match status {
            StatusCode::UNAUTHORIZED => anyhow!(
                "the server {url} does not take the token: it is wrong, was removed, or has ended; `certbus token new` there \
                 makes one"
            ),
            StatusCode::FORBIDDEN => anyhow!(
                "the server {url} says: {detail}; `certbus token new NAME --scope read|write|admin` there makes a token that may"
            ),
            StatusCode::NOT_FOUND => Missing::new(detail).into(),
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT => Mistake::new(detail).into(),
            _ => anyhow!("the server {url} says: {detail}"),
        })
    }

    /// Why there is no answer.
    fn unreached(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut cause: &dyn Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let (url, cause) = (&self.url, cause.to_string());
        if cause.contains("certificate") {
            return anyhow!(
                "the certificate of {url} is not trusted: {cause}; if its CA is your own, SSL_CERT_FILE names a file with its root"
            );
        }
        match error.is_timeout() {
            true => anyhow!("the server {url} does not answer in time"),
            false => anyhow!("the server {url} cannot be reached: {cause}"),
        }
    }
}

/// A URL to which a token may go.
fn checked(text: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
    let Some(url) = url else {
        let shown = if text.contains('@') { "no URL of a server" } else { text };
        bail!(Mistake::new(format!(
            "--server is `{shown}`; write https://certbus.example.com, as its dashboard has it"
        )));
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        bail!(Mistake::new("--server has a login, a query or a fragment in it; write https://certbus.example.com"));
    }
    if url.scheme() == "http" && !is_here(&url) {
        bail!(Mistake::new(format!(
            "{text} is not on this machine, and over http:// the token would go there in the clear; write https://, or go \
             through `ssh -L 8080:127.0.0.1:8080 HOST` to http://127.0.0.1:8080"
        )));
    }
    Ok(url)
}

/// Whether a URL is of this machine.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The token: of the file that was named, else of the environment.
fn token(file: Option<&Path>) -> Result<Zeroizing<String>> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let text = match file {
        Some(file) => from_file(file)?,
        None => Zeroizing::new(set("CERTBUS_TOKEN").unwrap_or_default()),
    };
    let text = Zeroizing::new(text.trim().to_owned());
    if text.is_empty() {
        bail!(Mistake::new(
            "a server wants a token: put it into a file of your own and name it with --token-file, or into CERTBUS_TOKEN; \
             `certbus token new NAME --scope write` on the server makes one"
        ));
    }
    Ok(text)
}

fn from_file(file: &Path) -> Result<Zeroizing<String>> {
    let said = || format!("the token's file {}", file.display());
    let mode = std::fs::metadata(file).with_context(said)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!(Mistake::new(format!(
            "{} has mode {mode:04o}, so others may read it; run `chmod 600 {}`",
            said(),
            file.display()
        )));
    }
    std::fs::read_to_string(file).map(Zeroizing::new).with_context(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_over_tls_or_to_this_machine_alone() {
        for good in ["https://certbus.example", "http://127.0.0.1:8080", "http://[::1]:8080/", "http://localhost:1"] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in [
            "http://certbus.example",
            "http://10.0.0.1:8080",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "certbus.example:8080",
            "ftp://certbus.example",
            "https://me:secret@certbus.example",
            "",
        ] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
