//! The dead man's switch: after each round the manager says elsewhere that it is at work, and whoever is told raises an
//! alarm when that stops. Nothing here fails a round.

use std::collections::BTreeMap;
use std::time::Duration;

use certbus_acme::{innermost, text_of};
use certbus_core::id::LogId;
use certbus_core::time::{Span, Timestamp};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::issuing::Secret;

/// The alert that fires when a round is missed.
pub const ALERT: &str = "CertBusRenewalMissed";

const USUAL_DEADLINE: Duration = Duration::from_secs(48 * 3600);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Alertmanager lists all its silences.
const LARGEST_ANSWER: usize = 1 << 24;
const A_YEAR: Duration = Duration::from_secs(365 * 86400);

/// Alertmanager takes the start of a silence that has passed as its own now: clocks may differ this much.
const CLOCKS_DIFFER: Duration = Duration::from_secs(600);

/// Where rounds are reported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckInSettings {
    /// A URL that is fetched: whoever serves it knows the deadline. Masked, since most have a token in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// The base URL of an Alertmanager: `CertBusRenewalMissed` fires there unless a round puts it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alertmanager: Option<String>,
    /// For how long a round puts it off: `48h` unless this says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
}

/// Who was told could not be told.
#[derive(Debug, thiserror::Error)]
#[error("check-in at {place} failed: {why}; the alarm there will be raised unless a later round is heard")]
pub struct CheckInError {
    place: String,
    why: String,
}

impl CheckInSettings {
    /// What is wrong with them, if anything is.
    pub(crate) fn problem(&self) -> Option<String> {
        let is_url = |url: &str| url.starts_with("http://") || url.starts_with("https://");
        let url = self.url.as_ref().is_none_or(|url| url.is_masked() || is_url(url.expose().expose_secret()));
        let alertmanager = self.alertmanager.as_deref().is_none_or(is_url);
        // Not quoted: a URL may hold a token.
        let bad = [("url", url), ("alertmanager", alertmanager)].into_iter().find(|(_, good)| !good);
        bad.map(|(key, _)| format!("check_in.{key} is no URL; write an http:// or https:// URL"))
    }

    /// Reports a round of the tenant's log that ended at `now`.
    ///
    /// # Errors
    /// [`CheckInError`], one for each place.
    pub async fn report(&self, tenant: &str, log: LogId, now: Timestamp) -> Vec<CheckInError> {
        let mut failed = Vec::new();
        let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).build();
        let client = match client {
            Ok(client) => client,
            Err(error) => return vec![CheckInError { place: "any place".into(), why: error.to_string() }],
        };
        if let Some(url) = self.url.as_ref().map(Secret::expose)
            && let Err(why) = fetch(client.get(url.expose_secret())).await
        {
            failed.push(CheckInError { place: host(url.expose_secret()), why });
        }
        if let Some(base) = &self.alertmanager {
            let switch = Switch { client, base: base.trim_end_matches('/'), tenant, log: log.to_string() };
            let until = now.plus(self.deadline.map_or(USUAL_DEADLINE, Span::duration));
            if let Err(why) = switch.put_off(until, now).await {
                failed.push(CheckInError { place: host(base), why });
            }
        }
        failed
    }
}

/// An alert that always fires, and a silence over it that each round makes longer: an alert alone, with a start in the
/// future, is notified at once. Alertmanager keeps silences over a restart and alerts not: each round sends both.
struct Switch<'a> {
    client: reqwest::Client,
    base: &'a str,
    tenant: &'a str,
    log: String,
}

/// As Alertmanager lists them (its API, version 2).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Silence {
    id: String,
    status: State,
    created_by: String,
    matchers: Vec<Matcher>,
    starts_at: String,
    ends_at: String,
}

#[derive(Deserialize)]
struct State {
    state: String,
}

#[derive(Deserialize)]
struct Matcher {
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alert {
    labels: BTreeMap<String, String>,
    starts_at: String,
}

impl Silence {
    /// Which miss a silence of ours is about.
    fn since(&self) -> Option<&str> {
        let ours = self.status.state == "active" && self.created_by == "certbus";
        self.matchers.iter().find(|matcher| ours && matcher.name == "since").map(|matcher| matcher.value.as_str())
    }
}

impl Switch<'_> {
    async fn put_off(&self, until: Timestamp, now: Timestamp) -> Result<(), String> {
        let silences: Vec<Silence> = self.list("silences").await?;
        let alerts: Vec<Alert> = self.list("alerts").await?;
        let ours = silences.iter().filter_map(|silence| Some((silence, silence.since()?)));
        let longest = ours.max_by_key(|(silence, _)| silence.ends_at.as_str());
        // The label changes only after a miss: what was notified once is not notified again with the same labels.
        let since = longest.map_or_else(|| now.to_string(), |(_, since)| since.to_owned());
        let labels = [("alertname", ALERT), ("tenant", self.tenant), ("log", &self.log), ("since", &since)];
        let matchers = labels.map(|(n, v)| json!({ "name": n, "value": v, "isRegex": false, "isEqual": true }));
        let starts = longest.map_or_else(|| now.minus(CLOCKS_DIFFER).to_string(), |(first, _)| first.starts_at.clone());
        // The silence first: the alert fires as soon as it is there without one.
        let silence = json!({
            "id": longest.map(|(silence, _)| silence.id.as_str()), "matchers": matchers, "startsAt": starts,
            "endsAt": until, "createdBy": "certbus",
            "comment": "the last renewal round ended well; the alert fires when this ends",
        });
        self.post("silences", &silence).await?;
        let annotations = json!({ "summary": "CertBus has not reported a renewal round in time" });
        let firing = json!({
            "labels": BTreeMap::from(labels), "annotations": annotations, "startsAt": since, "endsAt": now.plus(A_YEAR),
        });
        // Whatever fired for an earlier miss is over.
        let over = alerts.iter().filter(|alert| alert.labels.get("since") != Some(&since));
        let over = over.map(|a| json!({ "labels": a.labels, "startsAt": a.starts_at, "endsAt": now }));
        self.post("alerts", &std::iter::once(firing).chain(over).collect()).await?;
        Ok(())
    }

    async fn list<T: DeserializeOwned>(&self, what: &str) -> Result<Vec<T>, String> {
        let filters = [("alertname", ALERT), ("tenant", self.tenant), ("log", &self.log)];
        let filters = filters.map(|(name, value)| format!("filter={name}%3D%22{value}%22")).join("&");
        let answer = fetch(self.client.get(format!("{}/api/v2/{what}?{filters}", self.base))).await?;
        serde_json::from_str(&answer).map_err(|_| format!("/api/v2/{what} is not answered as Alertmanager does"))
    }

    async fn post(&self, what: &str, body: &Value) -> Result<String, String> {
        let request = self.client.post(format!("{}/api/v2/{what}", self.base));
        fetch(request.header("content-type", "application/json").body(body.to_string())).await
    }
}

async fn fetch(request: reqwest::RequestBuilder) -> Result<String, String> {
    // The URL may hold a token: the error's own words would quote it.
    let answer = request.send().await.map_err(|error| innermost(&error.without_url()))?;
    let status = answer.status();
    let body = text_of(answer, LARGEST_ANSWER).await.unwrap_or_default();
    let said: String = body.chars().take(200).collect();
    if status.is_success() { Ok(body) } else { Err(format!("HTTP {status}: {said}")) }
}

/// The place without what may be a secret: its path is often a token.
fn host(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_owned()
}
