//! What Pebble refuses, and a CA that is not there: one error that names the thing, the cause and the next step.

use certbus_acme::{AcmeCa, DirectoryInfo, IssueError, OrderRequest, SolverError, Solvers};
use certbus_core::spec::Challenge;
use secrecy::{ExposeSecret, SecretString};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_the_cas_word_and_the_listener_closes() {
    let (ca, (solvers, _turn)) = (account().await, by_listener().await);
    let lost = fresh("nowhere.http.test");
    let error = issue(&ca, &request(std::slice::from_ref(&lost), Challenge::Http01), &solvers).await.unwrap_err();
    let IssueError::ChallengeFailed { name, challenge, problem } = &error else { panic!("{error}") };
    assert_eq!((name, *challenge), (&lost, Challenge::Http01));
    assert!(problem.detail.contains(lost.as_str()), "{problem}");
    let port: u16 = env("CERTBUS_TEST_HTTP01_PORT").parse().unwrap();
    tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the listener is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_name_is_a_problem_that_trying_again_does_not_mend() {
    let error = account().await.new_order(&request(&[name("blocked.http.test")], Challenge::Http01)).await.unwrap_err();
    let IssueError::Problem(problem) = &error else { panic!("{error}") };
    assert_eq!(problem.kind, "rejectedIdentifier");
    assert!(error.is_permanent() && error.to_string().contains("blocked.http.test"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_profile_is_named_by_the_ca() {
    let names = [fresh("bind.test")];
    let wrong = OrderRequest { profile: Some("everlasting"), ..request(&names, Challenge::Dns01) };
    let error = account().await.new_order(&wrong).await.unwrap_err();
    let IssueError::Problem(problem) = &error else { panic!("{error}") };
    assert!(problem.kind == "invalidProfile" && problem.detail.contains("everlasting"), "{error}");
    assert!(error.is_permanent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_cannot_be_shown_by_http_01() {
    let names = [name(&format!("*.{}", fresh("http.test")))];
    let error = account().await.new_order(&request(&names, Challenge::Http01)).await.unwrap_err();
    let IssueError::ChallengeNotOffered { wanted, offered, .. } = &error else { panic!("{error}") };
    assert_eq!(*wanted, Challenge::Http01);
    assert!(offered.contains("dns-01"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_configured_way_is_said_before_the_ca_is_told() {
    let ca = account().await;
    let error = issue(&ca, &request(&[fresh("bind.test")], Challenge::Dns01), &Solvers::default()).await.unwrap_err();
    assert!(matches!(error, IssueError::Solver(SolverError::NoSolver { challenge: Challenge::Dns01 })), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_what_would_be_right() {
    let (ca, (solvers, _turn)) = (account().await, by_listener().await);
    let port: u16 = env("CERTBUS_TEST_HTTP01_PORT").parse().unwrap();
    let _other = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let error = issue(&ca, &request(&[fresh("http.test")], Challenge::Http01), &solvers).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")) && text.contains("webroot"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_ca_does_not_know_is_not_found() {
    let ca = account().await;
    let known = ca.new_order(&request(&[fresh("bind.test")], Challenge::Dns01)).await.unwrap().url;
    let (folder, _) = known.rsplit_once('/').unwrap();
    let error = ca.resume(&format!("{folder}/never-placed"), Challenge::Dns01).await.unwrap_err();
    assert!(matches!(error, IssueError::OrderNotFound { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_cannot_be_reached_is_named_with_the_cause() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let directory = format!("https://{closed}/dir");
    let error = DirectoryInfo::fetch(&directory, Some(&root())).await.unwrap_err();
    assert!(matches!(&error, IssueError::Unreachable { url, .. } if *url == directory), "{error}");
    assert!(error.to_string().contains("refused") && !error.is_permanent(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_given_root_is_trusted() {
    let directory = env("CERTBUS_TEST_PEBBLE");
    for (what, roots) in [("another root", Some(manage("/roots/0", None))), ("the platform's roots", None)] {
        let error = DirectoryInfo::fetch(&directory, roots.as_deref()).await.expect_err(what);
        assert!(matches!(&error, IssueError::Unreachable { cause, .. } if cause.contains("certificate")), "{error}");
    }
    let error = DirectoryInfo::fetch(&directory, Some("no PEM at all")).await.unwrap_err();
    assert!(matches!(error, IssueError::Roots { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_directory_is_not_taken_for_one() {
    for url in [env("CERTBUS_TEST_PEBBLE_MANAGEMENT"), env("CERTBUS_TEST_PEBBLE").replace("/dir", "/elsewhere")] {
        let error = DirectoryInfo::fetch(&url, Some(&root())).await.unwrap_err();
        assert!(matches!(error, IssueError::NotAcme { .. }), "{error}");
    }
    let error = DirectoryInfo::fetch("http://127.0.0.1/dir", None).await.unwrap_err();
    assert!(error.to_string().contains("https://"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn terms_are_not_agreed_to_unasked() {
    let error = AcmeCa::register(&env("CERTBUS_TEST_PEBBLE"), Some(&root()), None, false, None).await.unwrap_err();
    assert!(matches!(&error, IssueError::TermsNotAgreed { url } if !url.is_empty()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_credentials_stay_secret_and_serve_one_ca_only() {
    let directory = env("CERTBUS_TEST_PEBBLE");
    let (ca, credentials) = AcmeCa::register(&directory, Some(&root()), None, true, None).await.unwrap();
    let parsed: serde_json::Value = serde_json::from_str(credentials.expose_secret()).unwrap();
    let key = parsed["key_pkcs8"].as_str().unwrap();
    assert!(!format!("{ca:?} {credentials:?}").contains(key));

    let other = AcmeCa::restore("https://example.com/dir", Some(&root()), &credentials).await.unwrap_err();
    assert!(matches!(&other, IssueError::Credentials { why } if why.contains(&directory)), "{other}");
    let half = SecretString::from(credentials.expose_secret()[..80].to_owned());
    let broken = AcmeCa::restore(&directory, Some(&root()), &half).await.unwrap_err();
    assert!(matches!(broken, IssueError::Credentials { .. }) && !broken.to_string().contains(&key[..20]), "{broken}");
}
