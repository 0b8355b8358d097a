//! Cloudflare, which has no server for tests: by the contract that its documentation records, on a real zone of BIND.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::pebble::{fresh, service};
use crate::shop::{Ran, Running, Shop};

struct Contract {
    folder: tempfile::TempDir,
    proxy: String,
    _server: Running,
}

impl Contract {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cloudflare.py"))
            .arg(folder.path())
            .args([service("CERTBUS_TEST_BIND"), service("CERTBUS_TEST_BIND_KEY"), "bind.test".into()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut proxy = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut proxy).unwrap();
        assert!(proxy.starts_with("http://"), "{proxy}");
        Self { folder, proxy: proxy.trim().to_owned(), _server: Running::new(server) }
    }

    fn run(&self, shop: &Shop, args: &[&str]) -> Ran {
        let mut command = shop.command(args);
        command.env("HTTPS_PROXY", &self.proxy).env("SSL_CERT_FILE", self.file("root.pem"));
        Ran::from(command.output().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }
}

/// A shop with an account at Pebble and Cloudflare's token.
fn shop(token: &str) -> Shop {
    let shop = Shop::empty();
    let (directory, roots) = (service("CERTBUS_TEST_PEBBLE"), service("CERTBUS_TEST_PEBBLE_ROOT"));
    shop.ok(&["init", "--ca", &directory, "--ca-roots", &roots, "--agree-tos"]);
    let server = service("CERTBUS_TEST_BIND");
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let conf = format!(
        "challenge = \"dns-01\"\n{conf}\n[dns01]\nprovider = \"cloudflare\"\ntoken = \"{token}\"\nresolver = \"{server}\"\n\
         authoritative = [\"{server}\"]\n"
    );
    let ran = shop.run_with_input(&["conf", "update"], &conf);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.out.contains(token), "the diff masks the token: {}", ran.out);
    assert!(!shop.ok(&["conf", "display"]).out.contains(token));
    shop
}

#[test]
fn pebble_validates_apex_and_wildcard_through_cloudflare_by_its_recorded_contract_and_bind() {
    let contract = Contract::start();
    let shop = shop("good-token");
    let apex = fresh("bind.test");
    // Of another: it must stay.
    let other = format!("_acme-challenge.{apex}");
    let ran = contract.run(&shop, &["cert", "mk", "--wildcard", &apex]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(contract.said("breaches"), "");
    let asked = contract.said("asked");
    let count = |what: &str| asked.lines().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("POST"), count("DELETE"), count("PUT")), (2, 2, 0), "single values, each once: {asked}");
    assert!(asked.contains(&other) && !asked.contains("good-token"), "{asked}");
    let left = Command::new("dig").args(["+tcp", "+short", "TXT", &other]).args(at_bind()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}

#[test]
fn a_token_that_is_none_a_foreign_zone_and_a_rate_limit_are_told_apart_by_cloudflares_recorded_contract() {
    let contract = Contract::start();
    for (token, zone, words) in [
        ("no-such-token", "bind.test", &["does not take the credentials", "zone bind.test"][..]),
        ("not-for-this", "bind.test", &["does not take the credentials"]),
        ("mangled token", "bind.test", &["does not take the credentials"]),
        ("good-token", "http.test", &["zone http.test", "add the zone there"]),
        ("always-busy", "bind.test", &["HTTP 429", "too many requests"]),
    ] {
        let ran = contract.run(&shop(token), &["cert", "mk", "--subdomain", &fresh(zone)]);
        assert_eq!(ran.code, 1, "{token}: {ran:?}");
        for word in [words, &["cloudflare", "_acme-challenge."]].concat() {
            assert!(ran.err.contains(word), "{token}: no `{word}` in {}", ran.err);
        }
        assert!(!ran.err.contains(token), "the token is never said: {}", ran.err);
    }
    let ran = contract.run(&shop("busy-then-good"), &["cert", "mk", "--subdomain", &fresh("bind.test")]);
    assert_eq!(ran.code, 0, "it waits as long as it was told: {ran:?}");
    assert_eq!(contract.said("breaches"), "");
}

#[test]
fn a_check_finds_the_zone_or_what_is_wrong_with_the_token_by_cloudflares_recorded_contract() {
    let contract = Contract::start();
    let check = ["cert", "check", &fresh("bind.test")];
    let good = contract.run(&shop("good-token"), &check);
    assert!(good.code == 0 && good.out.contains("✓ dns-01: cloudflare has the zone bind.test."), "{good:?}");
    let bad = contract.run(&shop("no-such-token"), &check);
    assert!(bad.code == 10 && bad.out.contains("does not take the credentials"), "{bad:?}");
    assert_eq!(contract.said("breaches"), "");
    assert!(!contract.said("asked").contains("POST"), "nothing is changed");
}

#[test]
fn a_provider_that_is_none_and_words_that_are_not_its_own_are_refused_with_what_there_is() {
    let shop = Shop::internal();
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    for (dns01, words) in [
        ("provider = \"telepathy\"", &["telepathy", "rfc2136", "httpreq", "cloudflare", "route53"][..]),
        ("provider = \"cloudflare\"", &["dns01.token is missing", "cloudflare"]),
        ("provider = \"cloudflare\"\ntokn = \"hush\"", &["dns01.tokn", "it takes: token"]),
        ("provider = \"cloudflare\"\ntoken = 5", &["string"]),
        ("provider = \"rfc2136\"\nservr = \"hush\"", &["dns01.servr", "line ", "it takes: server"]),
        ("provider = \"exec\"\ntoken = \"hush\"", &["dns01.token"]),
        ("provider = \"httpreq\"\nendpoint = \"ftp://x\"", &["dns01.endpoint", "https://"]),
    ] {
        let ran = shop.run_with_input(&["conf", "update"], &format!("{conf}\n[dns01]\n{dns01}\n"));
        assert_eq!(ran.code, 2, "{ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "no `{word}` in {}", ran.err);
        }
        assert!(!ran.err.contains("hush"), "{}", ran.err);
    }
    let first = format!("{conf}\n[dns01]\nprovider = \"cloudflare\"\ntoken = \"hush\"\n");
    assert_eq!(shop.run_with_input(&["conf", "update"], &first).code, 0);
    let masked = shop.ok(&["conf", "display"]).out;
    let ran = shop.run_with_input(&["conf", "update"], &format!("challenge = \"dns-01\"\n{masked}"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(shop.ok(&["conf", "display", "--reveal"]).out.contains("token = \"hush\""), "a mask that stays keeps it");
}

fn at_bind() -> Vec<String> {
    let server = service("CERTBUS_TEST_BIND");
    let (host, port) = server.split_once(':').unwrap();
    vec!["-p".into(), port.into(), format!("@{host}")]
}
