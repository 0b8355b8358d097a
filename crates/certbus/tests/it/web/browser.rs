//! A person at Debian's Chromium, driven by Playwright: with a script and without, by keyboard alone, on a phone, in the dark.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::shop::{Ran, Running, Shop, eventually};

/// How much time has passed when the browser comes, so that there is something to see.
const LATER: &str = "+25d";

/// A shop after some weeks: certificates of several ages, polled now and then, of which the oldest are just renewed; and a
/// server that is gone, of which somebody was told.
fn weeks(shop: &Shop) -> Running {
    let (example, port) = shop.serve(&[]);
    let at = |offset: &str, args: &[&str]| {
        let ran = Ran::from(shop.command_at(offset, args).output().unwrap());
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
    };
    for (offset, names) in [
        ("+0", &["www", "api", "pay"][..]),
        ("+9d", &["auth", "cdn-eu", "cdn-us", "docs"]),
        ("+17d", &["mail", "status"]),
        ("+22d", &["blog", "search"]),
    ] {
        for name in names {
            let full = format!("{name}.shop.example");
            at(offset, &["cert", "mk", "--subdomain", &full]);
            let owner = if name.starts_with("cdn") { "edge@shop.example" } else { "web@shop.example" };
            let tags = if name.ends_with("us") { "prod,us" } else { "prod,eu" };
            let more = ["--sni", &full, "--name", &full, "--owner", owner, "--tags", tags];
            at(offset, &[&["endpoint", "add", &format!("127.0.0.1:{port}")][..], &more].concat());
        }
        std::thread::sleep(Duration::from_millis(300));
        at(offset, &["endpoint", "poll", "--all"]);
    }
    at("+24d", &["endpoint", "add", "127.0.0.1:13", "--name", "old.shop.example", "--owner", "ops@shop.example"]);
    for offset in ["+24d", "+24d10h", LATER] {
        at(offset, &["endpoint", "poll", "--all"]);
    }
    example
}

/// A server of that shop; then a scenario of `browser.mjs`.
fn scenario(name: &str) {
    let shop = Shop::internal();
    shop.program("true");
    let _example = weeks(&shop);
    shop.add_user("ann", "admin");
    let _server = shop.serving_by(shop.command_at(LATER, &["serve"]), "serve.log");
    let web = shop.web("serve.log");
    eventually("what was due is renewed", || {
        let cert = Ran::from(shop.command_at(LATER, &["cert", "ls", "--json"]).output().unwrap());
        (!cert.out.contains("\"due\"")).then_some(())
    });
    let polled = shop.command_at(LATER, &["endpoint", "poll", "--all"]).output().unwrap();
    assert!(polled.status.success(), "{polled:?}");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name}: run this by ci/services.py"));
    let pictures = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("screenshots");
    let ran = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/web/browser.mjs"))
        .args([name, &format!("http://{}", web.place)])
        .arg(pictures)
        .env("CERTBUS_NODE_MODULES", variable("CERTBUS_NODE_MODULES"))
        .env("CERTBUS_CHROMIUM", variable("CERTBUS_CHROMIUM"))
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn in_chromium_a_person_goes_from_the_login_to_a_polls_result_which_comes_by_itself() {
    scenario("person");
}

#[test]
fn in_chromium_without_a_script_all_of_it_works_too() {
    scenario("plain");
}

#[test]
fn in_chromium_a_keyboard_is_enough() {
    scenario("keyboard");
}

#[test]
fn in_chromium_axe_core_finds_nothing_on_any_page_light_dark_or_on_a_phone() {
    scenario("axe");
}
