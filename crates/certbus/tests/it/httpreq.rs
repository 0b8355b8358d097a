//! The user's own HTTP service by lego's convention, which changes a real zone of BIND.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::pebble::{fresh, service};
use crate::shop::{Running, Shop};

/// Starts the service. Returns its URL and the folder of its notes.
fn start(mode: &str) -> (String, tempfile::TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/httpreq.py"))
        .arg(folder.path())
        .args([service("CERTBUS_TEST_BIND"), service("CERTBUS_TEST_BIND_KEY"), mode.into()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
    (url.trim().to_owned(), folder, Running::new(server))
}

fn shop(words: &str) -> Shop {
    let shop = Shop::empty();
    let (directory, roots) = (service("CERTBUS_TEST_PEBBLE"), service("CERTBUS_TEST_PEBBLE_ROOT"));
    shop.ok(&["init", "--ca", &directory, "--ca-roots", &roots, "--agree-tos"]);
    let server = service("CERTBUS_TEST_BIND");
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let conf = format!(
        "challenge = \"dns-01\"\n{conf}\n[dns01]\nprovider = \"httpreq\"\n{words}\nresolver = \"{server}\"\n\
         authoritative = [\"{server}\"]\npropagation_seconds = 5\n"
    );
    let ran = shop.run_with_input(&["conf", "update"], &conf);
    assert_eq!(ran.code, 0, "{ran:?}");
    let shown = shop.ok(&["conf", "display"]).out;
    assert!(shown.contains("endpoint = \"http") && !shown.contains("hush"), "the password alone is masked: {shown}");
    shop
}

#[test]
fn pebble_validates_through_a_service_of_legos_convention_that_changes_bind() {
    for (mode, word) in [("DEFAULT", "\"fqdn\""), ("RAW", "\"keyAuth\"")] {
        let (url, folder, _service) = start(mode);
        let raw = if mode == "RAW" { "mode = \"RAW\"\n" } else { "" };
        let shop = shop(&format!("{raw}endpoint = \"{url}\"\nusername = \"shop\"\npassword = \"hush-hush\""));
        shop.ok(&["cert", "mk", "--wildcard", &fresh("bind.test")]);
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        let count = |path: &str| asked.lines().filter(|line| line.starts_with(path)).count();
        assert_eq!((count("/acme/present"), count("/acme/cleanup")), (2, 2), "{asked}");
        assert!(asked.contains(word) && !folder.path().join("breaches").exists(), "{asked}");
    }
}

#[test]
fn a_service_that_refuses_or_is_gone_is_quoted_without_the_password_at_pebble() {
    let (url, _folder, running) = start("DEFAULT");
    let wrong = shop(&format!("endpoint = \"{url}\"\nusername = \"shop\"\npassword = \"hush-wrong\""));
    let mk = ["cert", "mk", "--subdomain", &fresh("bind.test")];
    let ran = wrong.fails(&mk, 1, &[&format!("{url}/present"), "HTTP 401", "dns01.password"]);
    // "shop:hush-wrong" in base64: the service quotes the header.
    assert!(ran.err.contains("who is Basic") && !ran.err.contains("c2hvcDpodXNoLXdyb25n"), "{}", ran.err);
    assert!(!ran.err.contains("hush-wrong"), "{}", ran.err);
    let kept = format!("{:?}", wrong.events());
    assert!(
        kept.contains("the httpreq service refused") && !kept.contains("who is Basic"),
        "nor is it on the log: {kept}"
    );
    running.kill();
    wrong.fails(&mk, 1, &[&url, "refused"]);
}
