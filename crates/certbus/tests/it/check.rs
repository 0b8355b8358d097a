//! What would fail before a CA is asked: found by `cert check` and `cert mk --dry-run`, without an order.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::pebble::{fresh, service, shop_for, with_bind};
use crate::shop::Shop;

fn change(shop: &Shop, change: impl Fn(String) -> String) {
    let ran = shop.run_with_input(&["conf", "update"], &change(shop.ok(&["conf", "display", "--reveal"]).out));
    assert_eq!(ran.code, 0, "{ran:?}");
}

fn with_resolver(shop: &Shop) {
    change(shop, |conf| format!("resolver = \"{}\"\n{conf}", service("CERTBUS_TEST_BIND")));
}

fn nsupdate(lines: &str) {
    let (server, key) = (service("CERTBUS_TEST_BIND").replace(':', " "), service("CERTBUS_TEST_BIND_KEY"));
    let mut child =
        Command::new("nsupdate").args(["-y", &format!("hmac-sha256:{key}")]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("server {server}\n{lines}\nsend\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Whether it listens on port 80 or elsewhere is a local setting.
fn listen(shop: &Shop, address: &str) {
    let path = shop.path("certbus.toml");
    let mut local: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    local["http01"].as_table_mut().unwrap().insert("listen".into(), address.into());
    std::fs::write(path, local.to_string()).unwrap();
}

#[test]
fn a_name_that_is_ready_is_found_ready_and_pebble_gets_no_order() {
    let (shop, _turn) = shop_for("PEBBLE");
    with_resolver(&shop);
    let name = fresh("http.test");
    let found = shop.ok(&["cert", "check", &name]).out;
    for words in
        ["✓ ca: ", "knows the account https://", "✓ caa: ", "! http-01: ", "and not at port 80", "pass port 80"]
    {
        assert!(found.contains(words), "no `{words}` in {found}");
    }
    listen(&shop, "127.0.0.1:80");
    let rows = shop.ok(&["cert", "check", "--json", &name, &fresh("http.test")]).out;
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fetched = rows.iter().filter(|row| row["level"] == "ok" && row["about"] == "http-01");
    assert_eq!(fetched.count(), 2, "{rows:?}");
    assert!(rows.iter().all(|row| row["level"] == "ok" && row["what"].is_string()), "{rows:?}");
    assert_eq!((shop.count("OrderPlaced"), shop.count("CertificateRequested")), (0, 0));
    assert!(std::net::TcpStream::connect("127.0.0.1:80").is_err(), "the listener is closed again");
}

#[test]
fn no_address_and_a_web_server_that_answers_otherwise_are_problems_before_pebble_says_so() {
    let (shop, _turn) = shop_for("PEBBLE");
    with_resolver(&shop);
    let lost = fresh("nowhere.http.test");
    std::fs::write(shop.path("each"), format!("{lost}\n{}\n", fresh("http.test"))).unwrap();
    let each = ["cert", "mk", "--each", shop.path("each").to_str().unwrap(), "--dry-run"].map(str::to_owned);
    let each = shop.fails(&each.each_ref().map(String::as_str), 10, &["1 of 2 would fail"]).out;
    assert!(each.contains(&format!("✗ {lost}\n  http-01: ")) && each.contains("nothing of these 2"), "{each}");
    let found = shop.fails(&["cert", "check", &lost], 10, &["1 to mend"]);
    assert!(found.out.contains(&format!("✗ http-01: {lost} has no address in DNS")), "{}", found.out);
    // The folder is not what is served.
    let path = shop.path("certbus.toml");
    let mut local: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    let folder = shop.path("not-served");
    let way = toml::Table::from_iter([("webroot".to_owned(), folder.display().to_string().into())]);
    local.insert("http01".into(), way.into());
    std::fs::write(path, local.to_string()).unwrap();
    let server = std::net::TcpListener::bind("127.0.0.1:80").unwrap();
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream.try_clone().unwrap()), &mut line).unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        line
    });
    let found = shop.fails(&["cert", "check", &fresh("http.test")], 10, &["1 to mend"]);
    assert!(found.out.contains("answers HTTP 404, not the token"), "{}", found.out);
    assert!(answering.join().unwrap().starts_with("GET /.well-known/acme-challenge/certbus-check-"));
    assert_eq!(std::fs::read_dir(folder.join(".well-known/acme-challenge")).unwrap().count(), 0);
}

#[test]
fn a_caa_record_at_bind_stops_the_order_and_is_found_by_a_dry_run_and_pebble_gets_no_order() {
    let (shop, _turn) = shop_for("PEBBLE");
    with_resolver(&shop);
    let name = fresh("bind.test");
    nsupdate(&format!("update add {name} 1 A 127.0.0.1\nupdate add {name} 1 CAA 0 issue \"other.example\""));
    let words = [&format!("the CAA record of {name} forbids"), "issue \"other.example\"", "pebble.letsencrypt.org"];
    let ran = shop.fails(&["cert", "mk", "--subdomain", &name], 1, &words);
    assert!(ran.err.contains("use another CA"), "{}", ran.err);
    assert_eq!((shop.count("OrderPlaced"), shop.ok(&["cert", "ls", "--json"]).out.len()), (0, 0), "nothing is left");
    let dry = shop.fails(&["cert", "mk", "--dry-run", "--subdomain", &name], 10, &["1 to mend"]);
    for words in ["nothing was ordered", "✗ caa: the CAA record"] {
        assert!(dry.out.contains(words), "no `{words}` in {}", dry.out);
    }
}

#[test]
fn a_ca_that_is_forbidden_by_caa_at_bind_is_passed_over_for_the_next_pebble() {
    let (shop, _turn) = shop_for("PEBBLE");
    with_resolver(&shop);
    // Another account at the same CA: the record lets in only that one.
    let (directory, roots) = (service("CERTBUS_TEST_PEBBLE"), service("CERTBUS_TEST_PEBBLE_ROOT"));
    let other = Shop::empty();
    other.ok(&["init", "--ca", &directory, "--ca-roots", &roots, "--agree-tos"]);
    let theirs: toml::Table = other.ok(&["conf", "display", "--reveal"]).out.parse().unwrap();
    let theirs = theirs["ca"].as_table().unwrap().values().next().unwrap().clone();
    let account: serde_json::Value = serde_json::from_str(theirs["account"].as_str().unwrap()).unwrap();
    change(&shop, |conf| {
        let mut table: toml::Table = conf.parse().unwrap();
        table["ca"].as_table_mut().unwrap().insert("second".into(), theirs.clone());
        table.insert("fallback".into(), vec![toml::Value::from("second")].into());
        table.to_string()
    });
    with_bind(&shop, None);
    let (name, id) = (fresh("bind.test"), account["id"].as_str().unwrap());
    nsupdate(&format!("update add {name} 1 CAA 0 issue \"pebble.letsencrypt.org; accounturi={id}\""));
    let ran = shop.ok(&["cert", "mk", "--subdomain", &name, "--challenge", "dns-01"]);
    assert!(ran.err.contains("does not issue: the CAA record") && ran.err.contains("another account"), "{}", ran.err);
    assert_eq!((shop.only().1.len(), shop.count("OrderPlaced")), (64, 1));
}

#[test]
fn an_account_pebble_does_not_know_and_a_nameserver_that_is_gone_are_found() {
    let (shop, _turn) = shop_for("PEBBLE");
    with_bind(&shop, None);
    let name = fresh("bind.test");
    let check = ["cert", "check", "--challenge", "dns-01", &name];
    let found = shop.ok(&check).out;
    for words in ["has the zone bind.test.", "✓ dns-01: the nameserver"] {
        assert!(found.contains(words), "no `{words}` in {found}");
    }
    // The account of one Pebble, brought to another.
    let (here, there) = (service("CERTBUS_TEST_PEBBLE"), service("CERTBUS_TEST_PEBBLE_NONCE"));
    let gone = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    change(&shop, |conf| {
        let conf = conf.replace(&here, &there);
        let (before, after) = conf.split_once("authoritative = [").unwrap();
        format!("{before}authoritative = [\"{gone}\", {after}")
    });
    let found = shop.fails(&check, 10, &["2 to mend"]).out;
    assert!(found.contains("✗ ca: ") && found.contains("the CA refused"), "{found}");
    assert!(found.contains(&format!("✗ dns-01: the DNS server {gone} does not answer")), "{found}");
}

#[test]
fn what_the_limits_forbid_and_what_no_public_ca_signs_is_found() {
    let shop = Shop::internal();
    change(&shop, |conf| format!("{conf}\n[ca.internal.limits]\nnames = \"1 in 7d\"\n"));
    assert!(shop.ok(&["cert", "check", "a.shop.example"]).out.contains("✓ ca: internal signs here"));
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let found = shop.fails(&["cert", "check", "a.shop.example"], 10, &["1 to mend"]).out;
    assert!(found.contains("✗ limits: internal would refuse a new order until"), "{found}");
    shop.fails(&["cert", "check", "a..b"], 2, &["a..b"]);
    shop.fails(&["cert", "check", "*.shop.example", "--challenge", "http-01"], 2, &["wildcard"]);
    let nobody = format!("https://{}/dir", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    change(&shop, |conf| format!("{conf}\n[ca.public]\ndirectory = \"{nobody}\"\naccount = \"none\"\n"));
    let found = shop.fails(&["cert", "check", "--ca", "public", "printer.local"], 10, &["to mend"]).out;
    for words in ["✗ name: no public CA signs `printer.local`", "✗ ca: public: ", "✗ http-01: no way to meet http-01"]
    {
        assert!(found.contains(words), "no `{words}` in {found}");
    }
}
