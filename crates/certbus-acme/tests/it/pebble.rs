//! What Pebble signs, and how.

use std::time::Duration;

use certbus_acme::{
    AcmeCa, Ca, CertificateKey, Eab, Http01, OrderRequest, OrderStatus, RevocationReason, Solvers, ari_certificate_id,
};
use certbus_core::spec::{Challenge, KeyType};
use instant_acme::{Account, Identifier, NewOrder};
use secrecy::ExposeSecret;
use tokio::process::Command;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn http_01_by_our_listener_gives_a_chain_that_openssl_verifies() {
    let (ca, (solvers, _turn)) = (account().await, by_listener().await);
    let names = [fresh("http.test"), fresh("http.test")];
    let issued = issue(&ca, &request(&names, Challenge::Http01), &solvers).await.unwrap();
    for name in &names {
        openssl_verify(&issued.chain_pem, &manage("/roots/0", None), name.as_str()).unwrap();
    }
    assert!(openssl_verify(&issued.chain_pem, &manage("/roots/0", None), "other.http.test").is_err());
    let port: u16 = env("CERTBUS_TEST_HTTP01_PORT").parse().unwrap();
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err(), "the listener is still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_orders_at_once_share_one_listener() {
    let (ca, (solvers, _turn)) = (account().await, by_listener().await);
    let orders = (0..5).map(async |_| issue(&ca, &request(&[fresh("http.test")], Challenge::Http01), &solvers).await);
    for issued in futures::future::join_all(orders).await {
        issued.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_01_by_a_web_servers_folder_leaves_no_file_behind() {
    let (ca, (_, _turn)) = (account().await, by_listener().await);
    let folder = tempfile::tempdir().unwrap();
    let port = env("CERTBUS_TEST_HTTP01_PORT");
    let mut server = Command::new("python3")
        .args(["-m", "http.server", &port, "--bind", "127.0.0.1", "--directory", folder.path().to_str().unwrap()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    while tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let solvers = Solvers::new(Some(Http01::webroot(folder.path())), None);
    let issued = issue(&ca, &request(&[fresh("http.test")], Challenge::Http01), &solvers).await;
    server.kill().await.unwrap();
    issued.unwrap();
    let left = std::fs::read_dir(folder.path().join(".well-known/acme-challenge")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_type_is_signed() {
    let (ca, solvers) = (account().await, by_update("CERTBUS_TEST_BIND", "CERTBUS_TEST_BIND_KEY"));
    for (kind, words) in [
        (KeyType::P256, "prime256v1"),
        (KeyType::P384, "secp384r1"),
        (KeyType::Rsa2048, "(2048 bit)"),
        (KeyType::Rsa3072, "(3072 bit)"),
        (KeyType::Rsa4096, "(4096 bit)"),
    ] {
        let names = [fresh("bind.test")];
        let key = tokio::task::spawn_blocking(move || CertificateKey::generate(kind)).await.unwrap().unwrap();
        let order = ca.new_order(&request(&names, Challenge::Dns01)).await.unwrap();
        let issued = ca.complete(order, &key.csr(&names).unwrap(), &solvers, now()).await.unwrap();
        assert!(x509(&issued.chain_pem, &["-text"]).contains(words), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profile_is_passed_on() {
    let (ca, solvers) = (account().await, by_update("CERTBUS_TEST_BIND", "CERTBUS_TEST_BIND_KEY"));
    let date = |line: &str| {
        let text = line.trim().split_once('=').unwrap().1.replace(' ', "T");
        certbus_core::time::Timestamp::parse(&text).unwrap()
    };
    // Pebble takes any profile where none is asked for: several of each, so that chance does not pass for asking.
    for (profile, days) in [("shortlived", 6), ("default", 90)].repeat(4) {
        let names = [fresh("bind.test")];
        let asked = OrderRequest { profile: Some(profile), ..request(&names, Challenge::Dns01) };
        let issued = issue(&ca, &asked, &solvers).await.unwrap();
        let ends = x509(&issued.chain_pem, &["-enddate", "-dateopt", "iso_8601"]);
        let begins = x509(&issued.chain_pem, &["-startdate", "-dateopt", "iso_8601"]);
        let lives = date(&ends).since(date(&begins)).as_secs().div_ceil(24 * 3600);
        assert_eq!(lives, days, "{profile}: {begins}{ends}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_renewal_window_is_read_as_the_ca_says_it() {
    let (ca, solvers) = (account().await, by_update("CERTBUS_TEST_BIND", "CERTBUS_TEST_BIND_KEY"));
    let issued = issue(&ca, &request(&[fresh("bind.test")], Challenge::Dns01), &solvers).await.unwrap();
    let window = ca.renewal_window(&issued.chain_pem).await.unwrap().expect("Pebble says when to renew");
    assert!(window.start > now() && window.start < window.end, "{window:?}");
    assert!(window.retry_after > Duration::ZERO);

    let said = serde_json::json!({
        "certificate": issued.chain_pem,
        "ariResponse": serde_json::json!({
            "suggestedWindow": { "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" },
            "explanationURL": "https://example.com/incident",
        })
        .to_string(),
    });
    manage("/set-renewal-info/", Some(&said.to_string()));
    let window = ca.renewal_window(&issued.chain_pem).await.unwrap().unwrap();
    assert_eq!(window.start.date(), "2020-01-01");
    assert_eq!(window.end.date(), "2020-01-02");
    assert_eq!(window.explanation_url.as_deref(), Some("https://example.com/incident"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_says_what_it_replaces_and_a_second_one_is_placed_without() {
    let directory = env("CERTBUS_TEST_PEBBLE");
    let (acme, credentials) = AcmeCa::register(&directory, Some(&root()), None, true, None).await.unwrap();
    let ca = Ca::Acme(Box::new(acme));
    let solvers = by_update("CERTBUS_TEST_BIND", "CERTBUS_TEST_BIND_KEY");
    let names = [fresh("bind.test")];
    let first = issue(&ca, &request(&names, Challenge::Dns01), &solvers).await.unwrap();
    let id = ari_certificate_id(&first.chain_pem).unwrap();
    let renewal = OrderRequest { replaces: Some(&id), ..request(&names, Challenge::Dns01) };
    issue(&ca, &renewal, &solvers).await.unwrap();

    // Pebble lets a certificate be replaced once: that it refuses now shows that the renewal named it.
    let account = Account::builder_with_root(env("CERTBUS_TEST_PEBBLE_ROOT"))
        .unwrap()
        .from_credentials(serde_json::from_str(credentials.expose_secret()).unwrap())
        .await
        .unwrap();
    let identifiers = [Identifier::Dns(names[0].to_string())];
    let text = format!("\"{id}\"");
    let again = NewOrder::new(&identifiers).replaces(serde_json::from_str(&text).unwrap());
    let mut refused = String::new();
    // Under load Pebble may not find the order of a certificate that it has just issued, and says `serverInternal`.
    for _ in 0..20 {
        refused = account.new_order(&again).await.err().expect("replaced twice").to_string();
        if !refused.contains("serverInternal") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    assert!(refused.contains("alreadyReplaced"), "{refused}");

    issue(&ca, &renewal, &solvers).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_2_an_order_is_resumed_by_its_url_in_another_process() {
    let directory = env("CERTBUS_TEST_PEBBLE");
    let (acme, credentials) = AcmeCa::register(&directory, Some(&root()), None, true, None).await.unwrap();
    let restore = async || Ca::Acme(Box::new(AcmeCa::restore(&directory, Some(&root()), &credentials).await.unwrap()));
    let names = [fresh("bind.test")];
    let kept_csr = csr(&names);
    let solvers = || by_update("CERTBUS_TEST_BIND", "CERTBUS_TEST_BIND_KEY");

    // Ended before any challenge was set up.
    let placed = Ca::Acme(Box::new(acme)).new_order(&request(&names, Challenge::Dns01)).await.unwrap();
    let (url, planned) = (placed.url.clone(), placed.challenges.clone());
    drop(placed);
    let ca = restore().await;
    let order = ca.resume(&url, Challenge::Dns01).await.unwrap();
    assert_eq!((order.status, &order.challenges), (OrderStatus::Pending, &planned));

    // Ended between the challenges and the certificate: the CA refuses another name's request, the order stays.
    let wrong = ca.complete(order, &csr(&[fresh("bind.test")]), &solvers(), now()).await.unwrap_err();
    assert!(wrong.to_string().contains("the CA refused"), "{wrong}");
    let ca = restore().await;
    let order = ca.resume(&url, Challenge::Dns01).await.unwrap();
    assert_eq!((order.status, order.challenges.len()), (OrderStatus::Ready, 0));
    let issued = ca.complete(order, &kept_csr, &Solvers::default(), now()).await.unwrap();

    // Ended after the CA signed, before anything was kept: the same certificate is fetched.
    let ca = restore().await;
    let order = ca.resume(&url, Challenge::Dns01).await.unwrap();
    assert_eq!(order.status, OrderStatus::Valid);
    let again = ca.complete(order, &kept_csr, &Solvers::default(), now()).await.unwrap();
    assert_eq!(again.chain_pem, issued.chain_pem);

    // With another key than the stored one it is not taken for ours.
    let order = ca.resume(&url, Challenge::Dns01).await.unwrap();
    let mixed = ca.complete(order, &csr(&names), &Solvers::default(), now()).await.unwrap_err();
    assert!(mixed.to_string().contains("another key"), "{mixed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_refuses_a_fifth_of_all_nonces_still_signs() {
    let ca = account_at(&env("CERTBUS_TEST_PEBBLE_NONCE")).await;
    let solvers = by_update("CERTBUS_TEST_BIND", "CERTBUS_TEST_BIND_KEY");
    // So many that the library's three attempts would not do.
    let orders = (0..40).map(async |_| issue(&ca, &request(&[fresh("bind.test")], Challenge::Dns01), &solvers).await);
    for issued in futures::future::join_all(orders).await {
        issued.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_account_is_bound() {
    let (directory, key) = (env("CERTBUS_TEST_PEBBLE_EAB"), env("CERTBUS_TEST_PEBBLE_EAB_KEY"));
    let (key_id, mac) = key.split_once(':').unwrap();
    let eab = |mac: &str| Some(Eab { key_id: key_id.to_owned(), hmac_key_b64url: mac.into() });
    let (ca, _) = AcmeCa::register(&directory, Some(&root()), None, true, eab(mac)).await.unwrap();
    assert!(ca.account_url().starts_with("https://"));
    assert!(ca.directory().external_account_required && ca.directory().renewal_windows);
    assert!(ca.directory().profiles.contains_key("shortlived"));

    let none = AcmeCa::register(&directory, Some(&root()), None, true, None).await.unwrap_err();
    assert!(none.to_string().contains("external account binding"), "{none}");
    let other = AcmeCa::register(&directory, Some(&root()), None, true, eab("AAAA")).await.unwrap_err();
    assert!(other.is_permanent() && other.to_string().contains("the CA refused"), "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_known_as_revoked() {
    let (ca, solvers) = (account().await, by_update("CERTBUS_TEST_BIND", "CERTBUS_TEST_BIND_KEY"));
    let issued = issue(&ca, &request(&[fresh("bind.test")], Challenge::Dns01), &solvers).await.unwrap();
    ca.revoke(&issued.chain_pem, RevocationReason::Superseded).await.unwrap();
    let serial = x509(&issued.chain_pem, &["-serial"]).trim().split_once('=').unwrap().1.to_ascii_lowercase();
    let status = manage(&format!("/cert-status-by-serial/{}", serial.trim_start_matches('0')), None);
    assert!(status.contains("Revoked"), "{status}");
}
