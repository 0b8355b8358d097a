//! Answers that Pebble does not give: no Retry-After with a renewal window, a rate limit, a gateway's error page. A
//! server of ours with canned answers over real TLS; the account is Pebble's.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use certbus_acme::{AcmeCa, Ca, InternalCa, IssueError, OrderRequest};
use certbus_core::spec::Challenge;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::CertifiedKey;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_window_without_retry_after_is_read_and_asked_again_in_six_hours() {
    let ca = quiet_ca("window").await;
    let chain = some_chain();
    let window = ca.renewal_window(&chain).await.unwrap().unwrap();
    assert_eq!(window.start.date(), "2030-01-01");
    let wait = window.retry_after;
    assert!(wait > Duration::from_secs(21_590) && wait <= Duration::from_secs(21_600), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_renewal_window_is_the_cas_problem() {
    let error = quiet_ca("problem").await.renewal_window(&some_chain()).await.unwrap_err();
    let IssueError::Problem(problem) = &error else { panic!("{error}") };
    assert_eq!((problem.status, problem.detail.as_str()), (Some(404), "no such certificate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_says_how_long_to_wait() {
    let ca = quiet_ca("window").await;
    let names = [name("a.example.com")];
    // Not tried again without `replaces`: that would only be refused again.
    let renewal =
        OrderRequest { replaces: Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"), ..request(&names, Challenge::Dns01) };
    let error = ca.new_order(&renewal).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert!(!error.is_permanent() && error.to_string().contains("too many certificates"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateways_error_page_is_not_taken_for_the_cas_word() {
    let ca = quiet_ca("window").await;
    let error = ca.resume("https://127.0.0.1:1/never", Challenge::Dns01).await.unwrap_err();
    assert!(matches!(error, IssueError::Unreachable { .. }), "{error}");
    let url = match &ca {
        Ca::Acme(ca) => ca.directory_url().replace("/dir", "/gateway"),
        Ca::Internal(_) => panic!(),
    };
    let error = ca.resume(&url, Challenge::Dns01).await.unwrap_err();
    assert!(matches!(&error, IssueError::NotAcme { status: Some(502), .. }), "{error}");
    assert!(error.to_string().contains("text/html") && !error.is_permanent(), "{error}");
}

/// An account at a CA that answers with `window` to questions about renewal, and with a rate limit to orders.
async fn quiet_ca(window: &'static str) -> Ca {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("https://{}", listener.local_addr().unwrap());
    let directory = format!("{base}/dir");
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, base) = (acceptor.clone(), base.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let answer = service_fn(move |request| {
                    let response = answer(&request, &base, window);
                    async move { Ok::<_, Infallible>(response) }
                });
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
            });
        }
    });

    let (_, credentials) =
        AcmeCa::register(&env("CERTBUS_TEST_PEBBLE"), Some(&root()), None, true, None).await.unwrap();
    let moved = credentials.expose_secret().replace(&env("CERTBUS_TEST_PEBBLE"), &directory);
    let ca = AcmeCa::restore(&directory, Some(&cert.pem()), &moved.into()).await.unwrap();
    Ca::Acme(Box::new(ca))
}

fn answer(request: &Request<Incoming>, base: &str, window: &str) -> Response<Full<Bytes>> {
    let (status, kind, body) = match request.uri().path() {
        "/dir" => {
            let all = ["newNonce", "newAccount", "newOrder", "renewalInfo"]
                .map(|name| format!("\"{name}\":\"{base}/{name}\""));
            (200, "application/json", format!("{{{}}}", all.join(",")))
        }
        "/newNonce" => (200, "text/plain", String::new()),
        "/newOrder" => (429, "application/problem+json", problem("rateLimited", "too many certificates")),
        "/gateway" => (502, "text/html", "<h1>Bad Gateway</h1>".to_owned()),
        _ if window == "problem" => (404, "application/problem+json", problem("malformed", "no such certificate")),
        _ => {
            let text = r#"{"suggestedWindow":{"start":"2030-01-01T00:00:00Z","end":"2030-01-02T00:00:00Z"}}"#;
            (200, "application/json", text.to_owned())
        }
    };
    let response = Response::builder().status(status).header("Content-Type", kind).header("Replay-Nonce", "AAAA");
    let response = if status == 429 { response.header("Retry-After", "3600") } else { response };
    response.body(Full::from(body)).unwrap()
}

fn problem(kind: &str, detail: &str) -> String {
    format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"{detail}"}}"#)
}

fn some_chain() -> String {
    let ca = InternalCa::generate("any", Duration::from_secs(3600), now()).unwrap();
    ca.issue(&csr(&[name("a.example.com")]), None, now()).unwrap().chain_pem
}
