//! The HTTPS client under the ACME library: given roots and nothing else, bounded waits, and errors that keep what
//! the library drops (Retry-After, answers that are no problem documents). It knows no ACME resource.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::error::{IssueError, Problem, innermost};

const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const REPLAY_NONCE: &str = "replay-nonce";
const LARGEST_ANSWER: usize = 1 << 20;
const OUR_NAME: &str = concat!("certbus/", env!("CARGO_PKG_VERSION"));

/// Asked again after this long where the CA does not say (RFC 9773 section 4.3.3).
pub(crate) const DEFAULT_RETRY_AFTER: HeaderValue = HeaderValue::from_static("21600");

/// Nonces kept at most: more than requests are ever in flight.
const NONCES: usize = 1024;

/// A pooled HTTPS client, with the nonces that the CA gave and nobody has used yet (RFC 8555 section 6.5): all orders of
/// an account share them, so that only the first request of all asks for one.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    nonces: Arc<Mutex<Vec<HeaderValue>>>,
}

impl Http {
    /// Trusts exactly `roots_pem` where given, else what the platform trusts.
    pub(crate) fn new(roots_pem: Option<&str>) -> Result<Self, IssueError> {
        let refuse = |why: String| IssueError::Roots { why };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let builder = match roots_pem {
            Some(pem) => {
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .map_err(|error| refuse(error.to_string()))?
                    .with_root_certificates(roots(pem)?)
                    .with_no_client_auth();
                builder.with_tls_config(config)
            }
            None => builder.with_provider_and_platform_verifier(provider).map_err(|error| refuse(error.to_string()))?,
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // Small requests that each wait for the last: Nagle's algorithm would cost 40 ms apiece.
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECTED_WITHIN));
        let connector = builder.https_only().enable_http1().enable_http2().wrap_connector(tcp);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector), nonces: Arc::default() })
    }

    fn nonces(&self) -> MutexGuard<'_, Vec<HeaderValue>> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request, answered in whole. Refusals other than of a nonce are errors here.
    pub(crate) async fn send(
        &self,
        mut request: Request<BodyWrapper<Bytes>>,
    ) -> Result<(http::response::Parts, Bytes), IssueError> {
        let url = request.uri().to_string();
        let get = request.method() == Method::GET;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(OUR_NAME));
        let unreachable = |cause: String| IssueError::Unreachable { url: url.clone(), cause };
        let whole = async {
            let answer = self.client.request(request).await.map_err(|e| unreachable(innermost(&e)))?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(|e| unreachable(e.to_string()))?;
            Ok::<_, IssueError>((parts, body.to_bytes()))
        };
        let (mut parts, body) = tokio::time::timeout(ANSWER_WITHIN, whole)
            .await
            .map_err(|_| unreachable(format!("no answer within {} s", ANSWER_WITHIN.as_secs())))??;
        if parts.status.is_client_error() || parts.status.is_server_error() {
            let problem = refusal(&url, &parts, &body)?;
            // The library signs again with a fresh nonce; anything else is final for this request.
            if !(parts.status == StatusCode::BAD_REQUEST && problem.kind == "badNonce") {
                return Err(IssueError::Problem(problem));
            }
        }
        // The only GETs are for the directory and for renewal windows, and the library reads no window without it.
        if get {
            parts.headers.entry(RETRY_AFTER).or_insert(DEFAULT_RETRY_AFTER);
        }
        Ok((parts, body))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            // The library sends HEAD for nonces alone.
            let for_nonce = request.method() == Method::HEAD;
            if for_nonce && let Some(nonce) = client.nonces().pop() {
                let (mut parts, ()) = http::Response::new(()).into_parts();
                parts.headers.insert(REPLAY_NONCE, nonce);
                return Ok(BytesResponse { parts, body: Box::new(Bytes::new()) });
            }
            match client.send(request).await {
                Ok((mut parts, body)) => {
                    if !for_nonce && let Some(nonce) = parts.headers.remove(REPLAY_NONCE) {
                        let mut nonces = client.nonces();
                        if nonces.len() < NONCES {
                            nonces.push(nonce);
                        }
                    }
                    Ok(BytesResponse { parts, body: Box::new(body) })
                }
                Err(error) => Err(instant_acme::Error::Other(Box::new(error))),
            }
        })
    }
}

fn roots(pem: &str) -> Result<RootCertStore, IssueError> {
    let refuse = |why: String| IssueError::Roots { why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
        roots.add(certificate).map_err(|e| refuse(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("no certificate in it".into()));
    }
    Ok(roots)
}

fn refusal(url: &str, parts: &http::response::Parts, body: &[u8]) -> Result<Problem, IssueError> {
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type");
    let parsed = serde_json::from_slice::<instant_acme::Problem>(body);
    match parsed {
        Ok(problem) if kind.contains("json") => Ok(Problem {
            status: Some(parts.status.as_u16()),
            retry_after: retry_after(&parts.headers),
            ..problem.into()
        }),
        _ => Err(IssueError::NotAcme {
            url: url.to_owned(),
            status: Some(parts.status.as_u16()),
            what: format!("HTTP {} with {kind}", parts.status.as_u16()),
        }),
    }
}

/// Seconds, or a date (RFC 9110 section 10.2.3): how far off that is, the answer's own Date says.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let wait = text(RETRY_AFTER)?;
    let until =
        || httpdate::parse_http_date(wait).ok()?.duration_since(httpdate::parse_http_date(text(DATE)?).ok()?).ok();
    u64::from_str(wait).ok().map(Duration::from_secs).or_else(until)
}

/// What an answer says, read no further than `most` bytes: whoever answers may never end.
///
/// # Errors
/// What the connection says.
pub async fn text_of(mut answer: reqwest::Response, most: usize) -> Result<String, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        body.extend(chunk.iter().take(most - body.len()));
        if body.len() == most {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_may_say_how_long_to_wait_in_seconds_or_by_a_date() {
        let headers = |wait: &'static str| {
            let date = (DATE, HeaderValue::from_static("Sun, 22 Nov 2026 09:00:00 GMT"));
            HeaderMap::from_iter([date, (RETRY_AFTER, HeaderValue::from_static(wait))])
        };
        assert_eq!(retry_after(&headers(" 120 ")), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(&headers("Sun, 22 Nov 2026 10:30:00 GMT")), Some(Duration::from_secs(5400)));
        assert_eq!(retry_after(&headers("Sun, 22 Nov 2026 08:00:00 GMT")), None);
        assert_eq!(retry_after(&headers("soon")), None);
    }
}
