//! DNS-01 by way of Knot, which Pebble reaches through BIND.

use certbus_acme::{Dns01Provider, IssueError, SolverError};
use certbus_core::spec::Challenge;

use crate::support::*;

const KNOT: &str = "CERTBUS_TEST_KNOT";
const KEY: &str = "CERTBUS_TEST_KNOT_KEY";

#[tokio::test(flavor = "multi_thread")]
async fn apex_and_wildcard_are_shown_by_two_values() {
    let (ca, solvers) = (account().await, by_update(KNOT, KEY));
    let apex = fresh("knot.test");
    let names = [apex.clone(), name(&format!("*.{apex}"))];
    let issued = issue(&ca, &request(&names, Challenge::Dns01), &solvers).await.unwrap();
    openssl_verify(&issued.chain_pem, &manage("/roots/0", None), &format!("www.{apex}")).unwrap();
    assert!(txt(KNOT, &format!("_acme-challenge.{apex}")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_no_zone_of_the_server_is_said() {
    let (ca, solvers) = (account().await, by_update(KNOT, KEY));
    let names = [fresh("bind.test")];
    let error = issue(&ca, &request(&names, Challenge::Dns01), &solvers).await.unwrap_err();
    let IssueError::Solver(SolverError::NoZone { server, answer, .. }) = &error else { panic!("{error:?}") };
    assert_eq!((server, answer.as_str()), (&env(KNOT), "REFUSED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_and_the_server_is_named() {
    let wrong = rfc2136(KNOT, "certbus-knot:bm90IHRoZSByaWdodCBrZXk=");
    let solvers = by_dns(Dns01Provider::Rfc2136(wrong), propagation(vec![address(KNOT)]));
    let names = [fresh("knot.test")];
    let error = issue(&account().await, &request(&names, Challenge::Dns01), &solvers).await.unwrap_err();
    let IssueError::Solver(SolverError::UpdateRefused { server, answer, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(server, &env(KNOT));
    assert!(answer.starts_with("NOTAUTH"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (name, secret) = ("certbus-knot", "c2VjcmV0");
    let key = certbus_acme::TsigKey::new(name, secret.into(), certbus_acme::TsigAlgorithm::HmacSha256).unwrap();
    let gone = certbus_acme::Rfc2136::new(&closed.to_string(), key, Some("knot.test")).unwrap();
    let solvers = by_dns(Dns01Provider::Rfc2136(gone), propagation(vec![address(KNOT)]));
    let names = [fresh("knot.test")];
    let error = issue(&account().await, &request(&names, Challenge::Dns01), &solvers).await.unwrap_err();
    let IssueError::Solver(SolverError::ServerUnreachable { server, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(*server, closed.to_string());
    assert!(!error.is_permanent());
}
