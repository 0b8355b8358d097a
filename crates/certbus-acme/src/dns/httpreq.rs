//! The user's own HTTP service, asked as lego asks it: `POST ENDPOINT/present` and `ENDPOINT/cleanup`. It sends each
//! change to one place, follows no redirect, and does not say what else an answer held.

use std::fmt;
use std::time::Duration;

use data_encoding::BASE64;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use crate::ca::PlannedChallenge;
use crate::dns::api::{Key, Words, check_words, hide, optional, word};
use crate::error::innermost;
use crate::http::text_of;
use crate::solver::SolverError;

const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const LONGEST_QUOTE: usize = 200;

/// What the settings may say.
pub const HTTPREQ_KEYS: &[Key] = &[
    word("endpoint"),
    optional("mode"),
    optional("username"),
    Key { name: "password", secret: true, required: false },
];

/// A service that sets and removes TXT records.
pub struct HttpReq {
    client: Client,
    endpoint: Url,
    raw: bool,
    login: Option<(String, SecretString)>,
}

impl HttpReq {
    /// From the words of the settings. Asks nobody yet.
    ///
    /// # Errors
    /// [`SolverError::Settings`] naming the word.
    pub fn new(words: &Words) -> Result<Self, SolverError> {
        check_words("httpreq", HTTPREQ_KEYS, words)?;
        let text = |name: &str| words.get(name).map(|word| word.expose_secret().trim().to_owned());
        let wrong = |what: String| SolverError::Settings { what };
        let mut endpoint = text("endpoint")
            .and_then(|endpoint| Url::parse(&endpoint).ok())
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| wrong("dns01.endpoint is no URL; write https://dns.example.com/acme".into()))?;
        if !endpoint.username().is_empty() || endpoint.password().is_some() {
            return Err(wrong("dns01.endpoint has a login in it; write dns01.username and dns01.password".into()));
        }
        if !endpoint.path().ends_with('/') {
            let path = format!("{}/", endpoint.path());
            endpoint.set_path(&path);
        }
        let raw = match text("mode").as_deref() {
            None | Some("") => false,
            Some(mode) if mode.eq_ignore_ascii_case("raw") => true,
            Some(mode) => return Err(wrong(format!("dns01.mode is `{mode}`; write RAW, or leave it out"))),
        };
        let login = match (text("username"), words.get("password")) {
            (Some(name), Some(password)) => Some((name, password.clone())),
            (None, None) => None,
            _ => return Err(wrong("dns01 has one of `username` and `password`; it takes both or none".into())),
        };
        let client = Client::builder().redirect(Policy::none()).timeout(ANSWER_WITHIN).build();
        let client = client.map_err(|error| wrong(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { client, endpoint, raw, login })
    }

    pub(crate) async fn present(&self, planned: &PlannedChallenge, name: &str) -> Result<(), SolverError> {
        self.post("present", planned, name).await
    }

    pub(crate) async fn clean_up(&self, planned: &PlannedChallenge, name: &str) -> Result<(), SolverError> {
        self.post("cleanup", planned, name).await
    }

    async fn post(&self, action: &'static str, planned: &PlannedChallenge, name: &str) -> Result<(), SolverError> {
        let failed = |why: String, permanent| SolverError::HttpReq {
            endpoint: self.endpoint.to_string(),
            action,
            name: name.to_owned(),
            why: self.without_login(&why),
            permanent,
        };
        let url = self.endpoint.join(action).map_err(|error| failed(error.to_string(), true))?;
        let body = match self.raw {
            true => json!({
                "domain": planned.name.base(), "token": planned.token, "keyAuth": planned.key_authorization,
            }),
            false => json!({ "fqdn": name, "value": planned.dns_value }),
        };
        let mut request = self.client.post(url).header("content-type", "application/json").body(body.to_string());
        if let Some((name, password)) = &self.login {
            request = request.basic_auth(name, Some(password.expose_secret()));
        }
        let answer = request.send().await.map_err(|error| failed(innermost(&error), false))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let said = text_of(answer, 4 * LONGEST_QUOTE).await.unwrap_or_default();
        let said: String = said.trim().chars().take(LONGEST_QUOTE).collect();
        let login = matches!(status.as_u16(), 401 | 403);
        let next = match login {
            true => "; check dns01.username and dns01.password",
            false => "",
        };
        let said = if said.is_empty() { "nothing more".into() } else { said };
        Err(failed(format!("it answered HTTP {} and said: {said}{next}", status.as_u16()), login))
    }

    /// Nor as the header says it: a service may quote what it was sent.
    fn without_login(&self, text: &str) -> String {
        let Some((name, password)) = &self.login else { return text.to_owned() };
        let header = BASE64.encode(format!("{name}:{}", password.expose_secret()).as_bytes());
        hide(text, [&header.into(), password])
    }
}

impl fmt::Debug for HttpReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpReq")
            .field("endpoint", &self.endpoint.as_str())
            .field("raw", &self.raw)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_an_endpoint_or_half_a_login_is_refused() {
        let words =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(n, w)| ((*n).to_owned(), (*w).into())).collect::<Words>();
        for (bad, says) in [
            (words(&[]), "endpoint is missing"),
            (words(&[("endpoint", "dns.example.com")]), "https://"),
            (words(&[("endpoint", "https://me:hush@dns.example.com")]), "dns01.password"),
            (words(&[("endpoint", "https://dns.example.com"), ("mode", "cooked")]), "RAW"),
            (words(&[("endpoint", "https://dns.example.com"), ("username", "me")]), "both or none"),
        ] {
            let error = HttpReq::new(&bad).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hush"), "{error}");
        }
    }
}
