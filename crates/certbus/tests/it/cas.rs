//! Several CAs, what they want of an account, and what they let it order.

use crate::ca_proxy::Faulty;
use crate::pebble::{fresh, service, shop_for};
use crate::shop::Shop;

fn conf(shop: &Shop, change: impl Fn(String) -> String) {
    let text = shop.ok(&["conf", "display", "--reveal"]).out;
    let ran = shop.run_with_input(&["conf", "update"], &change(text));
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn a_ca_that_wants_an_external_account_gets_it_and_pebble_registers() {
    let shop = Shop::empty();
    let (directory, roots) = (service("CERTBUS_TEST_PEBBLE_EAB"), service("CERTBUS_TEST_PEBBLE_ROOT"));
    let key = service("CERTBUS_TEST_PEBBLE_EAB_KEY");
    let (id, mac) = key.split_once(':').unwrap();
    let init = ["init", "--ca", &directory, "--ca-roots", &roots, "--agree-tos"];
    shop.fails(&init, 2, &["external", "--eab-key-id"]);
    let file = shop.path("eab");
    std::fs::write(&file, format!("{mac}\n")).unwrap();
    let with =
        |id: &str| [&init[..], &["--eab-key-id", id, "--eab-key-file", file.to_str().unwrap()]].concat().join("\n");
    let with = |id: &str| with(id).lines().map(str::to_owned).collect::<Vec<_>>();
    let wrong = with("nobody");
    shop.fails(&wrong.iter().map(String::as_str).collect::<Vec<_>>(), 1, &["the CA refused"]);
    let right = with(id);
    let ran = shop.ok(&right.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(ran.out.contains("registered an account"), "{}", ran.out);
    let shown = shop.ok(&["conf", "display"]).out;
    assert!(shown.contains("eab_key_id") && !shown.contains(mac), "the key is masked: {shown}");
}

#[test]
fn when_the_first_ca_does_not_issue_the_next_one_does_and_all_words_are_kept_if_none_does_at_pebble() {
    let (shop, _turn) = shop_for("PEBBLE");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // A CA that is gone, with an account of before.
    conf(&shop, |text| {
        let table: toml::Table = text.parse().unwrap();
        let (name, pebble) = table["ca"].as_table().unwrap().iter().next().unwrap();
        let mut gone = pebble.as_table().unwrap().clone();
        let old = gone["directory"].as_str().unwrap().to_owned();
        let new = format!("https://{taken}/dir");
        gone.insert("directory".into(), new.clone().into());
        let account = gone["account"].as_str().unwrap().replace(&old, &new);
        gone.insert("account".into(), account.into());
        let mut all = table.clone();
        all.insert("default_ca".into(), "gone".into());
        all.insert("fallback".into(), vec![toml::Value::from(name.as_str())].into());
        all["ca"].as_table_mut().unwrap().insert("gone".into(), gone.into());
        all.to_string()
    });
    let name = fresh("http.test");
    let ran = shop.ok(&["cert", "mk", &name]);
    assert!(ran.err.contains("gone does not issue: cannot reach the CA"), "{}", ran.err);
    let (_, version) = shop.only();
    assert_eq!(version.len(), 64);
    // It is renewed in the window of the CA that issued it, although another is asked first.
    let shown = shop.ok(&["cert", "cat", &shop.only().0]).out;
    assert!(shown.contains("CA's window"), "{shown}");

    let failed = shop.run(&["cert", "mk", &fresh("nowhere.http.test")]);
    assert_eq!(failed.code, 1);
    for words in ["gone: cannot reach the CA", "could not verify"] {
        assert!(failed.err.contains(words), "{}", failed.err);
    }
    shop.fails(&["cert", "mk", &fresh("http.test"), "--ca", "gone"], 1, &["cannot reach the CA"]);
    let ran = shop.run_with_input(&["conf", "update"], "default_ca = \"nobody\"\n");
    assert!(ran.code == 2 && ran.err.contains("[ca.nobody]"), "{ran:?}");
}

#[test]
fn what_a_ca_would_refuse_for_its_limits_waits_and_says_for_what() {
    let shop = Shop::internal();
    conf(&shop, |text| format!("{text}\n[ca.internal.limits]\nnames = \"2 in 7d\"\ndomain = \"3 in 1d\"\n"));
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let compromise = |name: &str| {
        shop.ok(&["recipient", "add", name]);
        shop.ok(&["cert", "renew", &shop.only().0]);
        shop.ok(&["recipient", "rm", name, "--compromised"]);
    };
    compromise("edge");
    let waits = shop.ok(&["cert", "renew", "--due"]);
    assert!(waits.err.contains("2 in 7d certificates for exactly these names"), "{}", waits.err);
    assert_eq!(shop.count("CertificateObtained"), 2, "the CA is not asked");
    let bad = shop.ok(&["conf", "display", "--reveal"]).out.replace("2 in 7d", "two a week");
    let ran = shop.run_with_input(&["conf", "update"], &bad);
    assert!(ran.code == 2 && ran.err.contains("50 in 7d"), "what would be right is said: {ran:?}");
}

#[test]
fn a_name_that_failed_for_one_certificate_is_not_tried_again_for_another_at_pebble() {
    let (shop, _turn) = shop_for("PEBBLE");
    let bad = fresh("nowhere.http.test");
    let good = fresh("http.test");
    std::fs::write(shop.path("names"), format!("{bad}\n")).unwrap();
    assert_eq!(shop.run(&["cert", "mk", "--each", shop.path("names").to_str().unwrap()]).code, 1);
    // The second is killed before it reaches the CA: it is wanted, and nothing was tried for it.
    let mut killed = shop.command(&["cert", "mk", "--subdomain", &good, "--name", &bad]);
    assert!(!killed.env("CERTBUS_CRASH_AT", "claimed").output().unwrap().status.success());
    let placed = shop.count("OrderPlaced");
    let ran = shop.ok(&["cert", "renew", "--due"]);
    assert!(ran.err.contains(&format!("another certificate failed for {bad}")), "{ran:?}");
    assert!(ran.err.contains("its last attempt failed"), "{ran:?}");
    assert_eq!(shop.count("OrderPlaced"), placed, "the CA is not asked");
}

#[test]
fn a_window_in_the_past_is_an_incident_that_is_acted_on_at_once_at_pebble_and_curl_sets_it() {
    let (shop, _turn) = shop_for("PEBBLE");
    shop.ok(&["cert", "mk", &fresh("http.test")]);
    let (id, before) = shop.only();
    let chain: serde_json::Value = serde_json::from_str(&shop.ok(&["cert", "cat", &id, "--json"]).out).unwrap();
    let window = r#"{"suggestedWindow":{"start":"2026-01-01T00:00:00Z","end":"2026-01-02T00:00:00Z"},"explanationURL":"https://ca.example/incident"}"#;
    let set = serde_json::json!({ "certificate": chain["chain"], "ariResponse": window }).to_string();
    let url = format!("{}/set-renewal-info/", service("CERTBUS_TEST_PEBBLE_MANAGEMENT"));
    let curl = std::process::Command::new("curl").args(["-sfk", "--data", &set, &url]).output().unwrap();
    assert!(curl.status.success(), "{curl:?}");
    assert!(shop.ok(&["cert", "renewable"]).out.contains(&id));
    let row: serde_json::Value = serde_json::from_str(shop.ok(&["cert", "ls", "--json"]).out.trim()).unwrap();
    assert_eq!(row["state"], "CA wants it replaced now");
    assert!(shop.ok(&["cert", "cat", &id]).out.contains("https://ca.example/incident"), "with the CA's reason");
    assert_eq!(shop.ok(&["serve", "--once"]).out, "1 issued\n");
    assert_ne!(shop.only().1, before);
    assert_eq!(shop.ok(&["serve", "--once"]).out, "nothing was due\n");
}

/// Invariant 3: the order that a CA gives twice has one key, the one on the log.
#[test]
fn invariant_3_a_ca_that_gives_two_attempts_the_same_order_finalizes_it_once_at_pebble() {
    let ca = Faulty::new();
    let shop = &ca.shop;
    ca.fault(&serde_json::json!({ "at": "newOrder", "same": true }));
    let domain = fresh("bind.test");
    let mk = ["cert", "mk", "--subdomain", &domain, "--challenge", "dns-01"];
    // Killed when the CA has its order and the log has not; the next attempt is given the same order, with another key.
    let mut killed = shop.command(&mk);
    assert!(!killed.env("CERTBUS_CRASH_AT", "ordered").output().unwrap().status.success());
    let at_once: Vec<_> =
        (0..3).map(|_| shop.command(&mk).stderr(std::process::Stdio::piped()).spawn().unwrap()).collect();
    for child in at_once {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(shop.count("CertificateObtained"), 1);
    assert_eq!(shop.count("OrderPlaced"), 1, "one order");
    shop.only();
    let said = std::fs::read_to_string(service("CERTBUS_TEST_PEBBLE_LOG")).unwrap();
    let placed = shop.events().into_iter().find_map(|event| match event {
        certbus_core::event::Event::OrderPlaced(placed) => Some(placed.order.rsplit('/').next().unwrap().to_owned()),
        _ => None,
    });
    let placed = placed.unwrap();
    assert_eq!(said.lines().filter(|line| line.contains("Issued") && line.contains(&placed)).count(), 1);
}
