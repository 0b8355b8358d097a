//! A person at Debian's Chromium, driven by Playwright: with a script and without, by keyboard alone, on a phone, in the dark.

use std::path::PathBuf;
use std::process::Command;

use super::served;
use crate::shop::Shop;

/// A server with one endpoint that serves, one that does not, and a managed certificate; then a scenario of `browser.mjs`.
fn scenario(name: &str) {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    let (_example, port) = shop.serve(&[]);
    let place = format!("127.0.0.1:{port}");
    shop.ok(&[
        "endpoint",
        "add",
        &place,
        "--sni",
        "www.shop.example",
        "--name",
        "www.shop.example",
        "--tags",
        "shop,eu",
    ]);
    shop.ok(&["endpoint", "add", "127.0.0.1:13", "--name", "dead.shop.example", "--owner", "ops@shop.example"]);
    shop.ok(&["endpoint", "poll", "--all"]);
    let (_server, web) = served(&shop);
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
