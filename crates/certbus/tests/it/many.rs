//! Many certificates at once on a real CA, and managers that are left alone.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::pebble::{fresh, service, shop_for};
use crate::shop::{Ran, Running, Shop};

fn rows(shop: &Shop) -> Vec<serde_json::Value> {
    shop.ok(&["cert", "ls", "--json"]).out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn serve(shop: &Shop, settings: &str) -> Running {
    let mut command = shop.command(&["serve"]);
    command.env("CERTBUS_CONFIG", shop.path(settings)).stdout(Stdio::null()).stderr(Stdio::inherit());
    Running::new(command.spawn().unwrap())
}

/// Asks until the answer is yes, for at most half a minute.
fn within_half_a_minute(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is() {
        assert!(Instant::now() < until, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn sixty_certificates_at_once_at_a_pebble_that_refuses_half_of_all_nonces_and_one_failure_stops_no_other() {
    let (shop, _turn) = shop_for("PEBBLE_HALF");
    let base = fresh("http.test");
    let mut lines: Vec<String> = (0..60).map(|n| format!("n{n}.{base}")).collect();
    lines.push(format!("lost.{}", fresh("nowhere.http.test")));
    std::fs::write(shop.path("names"), lines.join("\n")).unwrap();
    let names = shop.path("names");
    let ran = shop.run(&["cert", "mk", "--each", names.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "one of them fails: {ran:?}");
    assert!(ran.err.contains("1 of 61 not renewed"), "{}", ran.err);
    assert!(ran.out.contains("could not verify"), "the CA's words: {}", ran.out);
    let rows = rows(&shop);
    assert_eq!(rows.iter().filter(|row| row["state"] == "ok").count(), 60);
    assert_eq!(rows.iter().filter(|row| row["state"] == "failing").count(), 1);
    assert_eq!(shop.count("CertificateObtained"), 60);
    shop.ok(&["stream", "verify"]);
    let again = shop.ok(&["cert", "renew", "--due"]);
    assert!(again.err.contains("waits until"), "what failed waits: {again:?}");
}

#[test]
fn serve_issues_what_is_due_by_itself_and_two_managers_share_the_work() {
    let shop = Shop::internal();
    shop.ok(&["manager", "add", "second"]);
    let settings = std::fs::read_to_string(shop.path("certbus.toml")).unwrap();
    std::fs::write(shop.path("second.toml"), format!("{settings}\n[identity]\nmanager = \"second.key\"\n")).unwrap();
    shop.ok(&["recipient", "add", "edge"]);
    let lines: Vec<String> = (0..100).map(|n| format!("n{n}.shop.example")).collect();
    std::fs::write(shop.path("names"), lines.join("\n")).unwrap();
    shop.ok(&["cert", "mk", "--each", shop.path("names").to_str().unwrap()]);
    assert_eq!(shop.count("CertificateObtained"), 100);
    let told = shop.ok(&["stream", "verify"]).out;
    let batches = told.split("default/certs): ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(batches.parse::<usize>().unwrap() < 50, "what comes at one time goes into one batch: {told}");
    let _servers = ["certbus.toml", "second.toml"].map(|settings| serve(&shop, settings));
    std::thread::sleep(Duration::from_secs(1));
    // All hundred are due at once: nobody types anything.
    shop.ok(&["recipient", "rm", "edge", "--compromised"]);
    within_half_a_minute("all are renewed", || shop.count("CertificateObtained") >= 200);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(shop.count("CertificateObtained"), 200, "each once");
    assert!(rows(&shop).iter().all(|row| row["state"] == "ok"));
    assert!(shop.obtained_by().len() > 1, "both did some: {:?}", shop.obtained_by());
    shop.ok(&["stream", "verify"]);
}

#[test]
fn serve_once_does_a_round_says_what_it_did_and_exits_with_1_if_something_failed() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    assert_eq!(shop.ok(&["serve", "--once"]).out, "nothing was due\n");
    shop.ok(&["recipient", "add", "edge"]);
    shop.ok(&["cert", "mk", "b.shop.example"]);
    shop.ok(&["recipient", "rm", "edge", "--compromised"]);
    assert_eq!(shop.ok(&["serve", "--once"]).out, "2 issued\n");
    shop.ok(&["recipient", "add", "rim"]);
    shop.ok(&["cert", "mk", "c.shop.example"]);
    shop.ok(&["recipient", "rm", "rim", "--compromised"]);
    shop.ok(&["recipient", "rm", "nodes"]);
    shop.fails(&["serve", "--once"], 1, &["not issued"]);
}

#[test]
fn an_order_that_hangs_holds_nothing_else_up_at_pebble() {
    let (shop, _turn) = shop_for("PEBBLE");
    let server = service("CERTBUS_TEST_BIND");
    let hook = shop.path("hook");
    std::fs::write(&hook, "#!/bin/sh\nexec sleep 50\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let settings = std::fs::read_to_string(shop.path("certbus.toml")).unwrap();
    std::fs::write(shop.path("certbus.toml"), format!("{settings}\n[exec]\ndns01 = \"{}\"\n", hook.display())).unwrap();
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let conf =
        format!("{conf}\n[dns01]\nprovider = \"exec\"\nresolver = \"{server}\"\nauthoritative = [\"{server}\"]\n");
    assert_eq!(shop.run_with_input(&["conf", "update"], &conf).code, 0);
    // Left open by a manager that was killed, so that it is due: one hangs in its hook, the other does not.
    for (name, challenge) in [(fresh("bind.test"), "dns-01"), (fresh("http.test"), "http-01")] {
        let args = ["cert", "mk", "--subdomain", &name, "--challenge", challenge];
        let ran = Ran::from(shop.command(&args).env("CERTBUS_CRASH_AT", "placed").output().unwrap());
        assert_eq!(ran.code, -1, "{ran:?}");
    }
    let _server = serve(&shop, "certbus.toml");
    within_half_a_minute("the other is issued", || shop.count("CertificateObtained") == 1);
}

#[test]
fn serve_tells_a_service_manager_that_it_is_ready_alive_and_stopping() {
    let shop = Shop::internal();
    let socket = std::os::unix::net::UnixDatagram::bind(shop.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let hear = || {
        let mut heard = [0; 256];
        let length = socket.recv(&mut heard).unwrap();
        String::from_utf8(heard[..length].to_vec()).unwrap()
    };
    let mut command = shop.command(&["serve"]);
    command.env("NOTIFY_SOCKET", shop.path("notify")).env("WATCHDOG_USEC", "200000").stdout(Stdio::null());
    let mut serve = command.spawn().unwrap();
    assert_eq!([hear(), hear(), hear()], ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
    let ended = std::process::Command::new("kill").args(["-TERM", &serve.id().to_string()]).status().unwrap();
    assert!(ended.success());
    let mut said = hear();
    while said == "WATCHDOG=1" {
        said = hear();
    }
    assert_eq!(said, "STOPPING=1");
    assert!(serve.wait().unwrap().success());
}
