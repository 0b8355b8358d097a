//! A message posted to a URL, signed so that its reader knows who wrote it and when. It follows no redirects.

use aws_lc_rs::hmac;
use certbus_acme::{innermost, text_of};
use certbus_core::time::Timestamp;
use certbus_store::outbox::Delivery;
use data_encoding::HEXLOWER;
use secrecy::ExposeSecret;

use super::settings::Webhook;
use super::{ANSWER_WITHIN, Undelivered, payload};

/// What is read of an answer.
const LARGEST_ANSWER: usize = 1 << 16;

/// The body itself is what is not wanted: with another the same URL may be well.
const REFUSALS: [u16; 4] = [400, 413, 415, 422];

pub(super) async fn send(webhook: &Webhook, delivery: &Delivery, now: Timestamp) -> Result<(), Undelivered> {
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).redirect(reqwest::redirect::Policy::none());
    let client = client.build().map_err(|error| Undelivered::away(error.to_string()))?;
    let body = payload::json(delivery);
    let url = webhook.url.expose();
    let mut request = client
        .post(url.expose_secret())
        .header("content-type", "application/json")
        .header("user-agent", concat!("certbus/", env!("CARGO_PKG_VERSION")));
    if let Some(secret) = &webhook.secret {
        let signature = signature(secret.expose().expose_secret(), now, &body);
        request = request.header("x-certbus-signature", signature);
    }
    // The URL may hold a token: the error's own words would quote it.
    let answer = request.body(body).send().await;
    let answer = answer.map_err(|error| Undelivered::away(innermost(&error.without_url())))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let said: String = text_of(answer, LARGEST_ANSWER).await.unwrap_or_default().chars().take(200).collect();
    let said = without(&said, url.expose_secret());
    let is_refused = REFUSALS.contains(&status.as_u16());
    Err(Undelivered { why: format!("HTTP {status}: {said}"), is_refused })
}

/// What was said, without what the path and the query of the URL have in them: they may hold a token.
fn without(said: &str, url: &str) -> String {
    let rest = url.splitn(4, '/').nth(3).unwrap_or_default();
    let parts = rest.split(['/', '?', '&', '=', '#']).filter(|part| part.len() >= 4);
    parts.fold(said.to_owned(), |said, part| said.replace(part, crate::issuing::MASK))
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 of `SECONDS.BODY`.
fn signature(secret: &str, now: Timestamp, body: &str) -> String {
    let seconds = now.millis().div_euclid(1000);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    format!("t={seconds},v1={}", HEXLOWER.encode(tag.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_has_nothing_of_the_urls_token() {
        let said = "there is no page /services/T0/s3cret-token?key=abcd";
        let shown = without(said, "https://chat.example/services/T0/s3cret-token?key=abcd");
        assert!(!shown.contains("s3cret") && !shown.contains("abcd"), "{shown}");
        assert_eq!(without("no such channel", "https://chat.example/"), "no such channel");
    }

    #[test]
    fn a_signature_is_the_hmac_of_time_and_body() {
        let now = Timestamp::from_millis(1_700_000_000_999);
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac hush
        let known = "763081ea12e3b1f903f958994c023cde07f1224b02a538ad6f959112a2f780ba";
        assert_eq!(signature("hush", now, "{}"), format!("t=1700000000,v1={known}"));
    }
}
