//! What the internal CA signs, as OpenSSL sees it.

use std::time::Duration;

use certbus_acme::{Ca, CertificateKey, InternalCa, IssueError, Solvers};
use certbus_core::spec::{Challenge, KeyType};
use secrecy::ExposeSecret;

use crate::support::*;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

#[tokio::test]
async fn a_leaf_of_the_internal_ca_verifies_strictly_for_its_names_only() {
    let ca = InternalCa::generate("CertBus internal CA", WEEK, now()).unwrap();
    let root = ca.certificate_pem().to_owned();
    let ca = Ca::Internal(Box::new(ca));
    for kind in [KeyType::P256, KeyType::P384, KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096] {
        let names = [name("demo.example.test"), name("*.demo.example.test")];
        let csr = CertificateKey::generate(kind).unwrap().csr(&names).unwrap();
        let order = ca.new_order(&request(&names, Challenge::Http01)).await.unwrap();
        assert!(order.challenges.is_empty() && order.url.starts_with("internal:"));
        let issued = ca.complete(order, &csr, &Solvers::default(), now()).await.unwrap();
        openssl_verify(&issued.chain_pem, &root, "www.demo.example.test").unwrap();
        openssl_verify(&issued.chain_pem, &root, "demo.example.test").unwrap();
        assert!(openssl_verify(&issued.chain_pem, &root, "a.b.demo.example.test").is_err());
        let text = x509(&issued.chain_pem, &["-text"]);
        assert!(text.contains("CA:FALSE") && text.contains("TLS Web Server Authentication"), "{text}");
    }
    assert!(x509(&root, &["-text"]).contains("CA:TRUE, pathlen:0"));
}

#[tokio::test]
async fn a_kept_root_goes_on_signing_and_a_foreign_key_is_refused() {
    let made = InternalCa::generate("CertBus internal CA", WEEK, now()).unwrap();
    let kept = InternalCa::load(made.certificate_pem(), &made.key_pem(), WEEK).unwrap();
    let names = [name("demo.example.test")];
    let issued = kept.issue(&csr(&names), Some(&names), now()).unwrap();
    openssl_verify(&issued.chain_pem, made.certificate_pem(), "demo.example.test").unwrap();
    let key = made.key_pem();
    assert!(!format!("{kept:?}").contains(key.expose_secret().lines().nth(1).unwrap()));

    let other = InternalCa::generate("Another", WEEK, now()).unwrap();
    let error = InternalCa::load(made.certificate_pem(), &other.key_pem(), WEEK).unwrap_err();
    assert!(error.to_string().contains("not its certificate's"), "{error}");
}

#[tokio::test]
async fn a_request_for_other_names_than_were_ordered_is_refused() {
    let ca = Ca::Internal(Box::new(InternalCa::generate("CertBus internal CA", WEEK, now()).unwrap()));
    let order = ca.new_order(&request(&[name("a.example.test")], Challenge::Dns01)).await.unwrap();
    let url = order.url.clone();
    let wrong = csr(&[name("b.example.test")]);
    let error = ca.complete(order, &wrong, &Solvers::default(), now()).await.unwrap_err();
    assert!(matches!(error, IssueError::Key(_)) && error.to_string().contains("b.example.test"), "{error}");
    // Found again by its URL, as after a crash.
    let order = ca.resume(&url, Challenge::Dns01).await.unwrap();
    ca.complete(order, &csr(&[name("a.example.test")]), &Solvers::default(), now()).await.unwrap();
    assert!(ca.renewal_window("").await.unwrap().is_none());
    assert!(ca.resume("https://example.com/order/1", Challenge::Dns01).await.is_err());
}
