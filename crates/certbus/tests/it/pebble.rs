//! The command line on a real ACME CA (Pebble, which resolves through BIND): from `init` to the handshake.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use crate::shop::{Shop, eventually, openssl};

/// Pebble asks one port for HTTP-01: one test at a time listens there.
pub(crate) static HTTP01: Mutex<()> = Mutex::new(());

pub(crate) fn service(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run through ci/services.py -- cargo test"))
}

/// To be asked by HTTP-01: one test at a time has the port.
pub(crate) fn turn() -> std::sync::MutexGuard<'static, ()> {
    HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A shop with an account at one of the Pebbles, and its turn to be asked by HTTP-01.
pub(crate) fn shop_for(instance: &str) -> (Shop, std::sync::MutexGuard<'static, ()>) {
    let turn = turn();
    let port = match instance {
        "PEBBLE" => "CERTBUS_TEST_HTTP01_PORT",
        "PEBBLE_HALF" => "CERTBUS_TEST_HALF_HTTP01_PORT",
        _ => "CERTBUS_TEST_NONCE_HTTP01_PORT",
    };
    (shop(instance, port), turn)
}

/// A shop with an account at Pebble, and Pebble's issuing root in roots.pem.
pub(crate) fn shop(instance: &str, http01_port: &str) -> Shop {
    let shop = Shop::empty();
    let directory = service(&format!("CERTBUS_TEST_{instance}"));
    let api_root = service("CERTBUS_TEST_PEBBLE_ROOT");
    let listen = format!("listen=127.0.0.1:{}", service(http01_port));
    shop.ok(&[
        "init",
        "--ca",
        &directory,
        "--ca-roots",
        &api_root,
        "--email",
        "ops@shop.test",
        "--agree-tos",
        "--http01",
        &listen,
    ]);
    let management = service(&format!("CERTBUS_TEST_{instance}_MANAGEMENT"));
    let root = Command::new("curl").args(["-sk", &format!("{management}/roots/0")]).output().unwrap();
    std::fs::write(shop.path("roots.pem"), root.stdout).unwrap();
    shop
}

pub(crate) fn fresh(zone: &str) -> String {
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("t{stamp:x}.{zone}")
}

/// Adds the DNS settings for the test's BIND.
pub(crate) fn with_bind(shop: &Shop, secret: Option<&str>) {
    let key = service("CERTBUS_TEST_BIND_KEY");
    let (name, real) = key.split_once(':').unwrap();
    let server = service("CERTBUS_TEST_BIND");
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let conf = format!(
        "{conf}\n[dns01]\nprovider = \"rfc2136\"\nserver = \"{server}\"\nkey_name = \"{name}\"\nkey_secret = \"{}\"\n\
         resolver = \"{server}\"\nauthoritative = [\"{server}\"]\n",
        secret.unwrap_or(real)
    );
    let ran = shop.run_with_input(&["conf", "update"], &conf);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.out.contains(real), "the diff masks secrets: {}", ran.out);
}

#[test]
fn http01_from_init_to_a_handshake_that_openssl_verifies() {
    for (instance, port) in [("PEBBLE", "CERTBUS_TEST_HTTP01_PORT"), ("PEBBLE_NONCE", "CERTBUS_TEST_NONCE_HTTP01_PORT")]
    {
        let _turn = HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let shop = shop(instance, port);
        let name = fresh("http.test");
        let ran = shop.ok(&["cert", "mk", &name]);
        assert!(ran.out.contains("http-01"), "names and challenge are shown: {}", ran.out);
        let (id, first) = shop.only();
        let (_server, port) = shop.serve(&[]);
        let roots = shop.path("roots.pem");
        assert_eq!(eventually("served", || openssl(port, &name, &roots).ok()), first);
        shop.ok(&["cert", "renew", &id]);
        let (_, second) = shop.only();
        assert_ne!(first, second);
        eventually("renewed", || openssl(port, &name, &roots).ok().filter(|v| *v == second));
        let shown = shop.ok(&["cert", "cat", &id]).out;
        assert!(shown.contains("CA's window"), "the renewal window is read and kept: {shown}");
    }
}

#[test]
fn dns01_at_bind_gives_a_wildcard_that_openssl_verifies_and_leaves_no_record() {
    let shop = shop("PEBBLE", "CERTBUS_TEST_HTTP01_PORT");
    with_bind(&shop, None);
    let domain = fresh("bind.test");
    let ran = shop.ok(&["cert", "mk", "--wildcard", &domain, "--key-type", "p384"]);
    assert!(ran.out.contains("dns-01"), "{}", ran.out);
    let (_, version) = shop.only();
    let (_server, port) = shop.serve(&[]);
    let roots = shop.path("roots.pem");
    assert_eq!(eventually("apex", || openssl(port, &domain, &roots).ok()), version);
    assert_eq!(openssl(port, &format!("www.{domain}"), &roots).unwrap(), version);
    let server = service("CERTBUS_TEST_BIND");
    let (address, dns_port) = server.split_once(':').unwrap();
    let dig = Command::new("dig")
        .args([&format!("@{address}"), "-p", dns_port, "+tcp", "+short", "TXT", &format!("_acme-challenge.{domain}")])
        .output()
        .unwrap();
    assert!(dig.status.success() && dig.stdout.is_empty(), "{dig:?}");
}

#[test]
fn an_exec_hook_with_the_usual_convention_works_and_lives_in_local_settings() {
    let shop = Shop::empty();
    let server = service("CERTBUS_TEST_BIND");
    let (address, port) = server.split_once(':').unwrap();
    let key = service("CERTBUS_TEST_BIND_KEY");
    let hook: PathBuf = shop.path("hook");
    let script = format!(
        "#!/bin/sh\nverb=add; [ \"$1\" = cleanup ] && verb=delete\nttl=1; [ $verb = delete ] && ttl=\n\
         printf 'server {address} {port}\\nupdate %s %s %s TXT \"%s\"\\nsend\\n' $verb \"$2\" \"$ttl\" \"$3\" \
         | nsupdate -y hmac-sha256:{key}\n"
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    shop.ok(&[
        "init",
        "--ca",
        &service("CERTBUS_TEST_PEBBLE"),
        "--ca-roots",
        &service("CERTBUS_TEST_PEBBLE_ROOT"),
        "--agree-tos",
        "--dns01",
        &format!("exec={}", hook.display()),
    ]);
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    assert!(!conf.contains("hook"), "no command is on the log: {conf}");
    let conf = conf.replace(
        "provider = \"exec\"",
        &format!("provider = \"exec\"\nresolver = \"{server}\"\nauthoritative = [\"{server}\"]"),
    );
    assert_eq!(shop.run_with_input(&["conf", "update"], &conf).code, 0);
    shop.ok(&["cert", "mk", "--wildcard", &fresh("bind.test")]);
}

#[test]
fn what_the_ca_or_a_server_refuses_is_told_in_their_words_and_leaves_nothing_half_written() {
    let _turn = HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shop = shop("PEBBLE", "CERTBUS_TEST_HTTP01_PORT");
    let profile = shop.fails(&["cert", "mk", &fresh("http.test"), "--profile", "nonesuch"], 1, &["nonesuch"]);
    assert!(profile.err.contains("the CA refused"), "{}", profile.err);
    assert!(shop.ok(&["cert", "ls", "--json"]).out.is_empty(), "an order that was never placed leaves nothing");

    let name = fresh("nowhere.http.test");
    shop.fails(&["cert", "mk", &name], 1, &["could not verify", &name]);
    assert!(shop.ok(&["cert", "ls", "--json"]).out.is_empty(), "nor does a first order that the CA gave up");

    with_bind(&shop, Some("bm90IHRoZSByaWdodCBrZXkgYXQgYWxsIQ=="));
    let domain = fresh("bind.test");
    let server = service("CERTBUS_TEST_BIND");
    let refused = shop.fails(&["cert", "mk", "--wildcard", &domain], 1, &[&server, "cert rm"]);
    assert!(refused.err.contains("NOTAUTH") || refused.err.contains("refused"), "{}", refused.err);
    let listed = shop.ok(&["cert", "ls", "--json"]).out;
    let row: serde_json::Value = serde_json::from_str(listed.trim()).unwrap();
    assert_eq!(row["state"], "failing");
    assert!(row["problem"].as_str().unwrap().contains(&server), "the server's words are kept: {row}");
    // With the right key the same command goes on with the order that is open.
    let key = service("CERTBUS_TEST_BIND_KEY");
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let conf = conf.replace("bm90IHRoZSByaWdodCBrZXkgYXQgYWxsIQ==", key.split_once(':').unwrap().1);
    assert_eq!(shop.run_with_input(&["conf", "update"], &conf).code, 0);
    let ran = shop.ok(&["cert", "mk", "--wildcard", &domain]);
    assert!(ran.err.contains("resuming order"), "{ran:?}");
    shop.fails(&["cert", "mk", "--wildcard", &fresh("bind.test"), "--challenge", "http-01"], 2, &["dns-01"]);
}

#[test]
fn a_ca_that_is_unreachable_untrusted_or_wants_its_terms_agreed_to_is_named() {
    let shop = Shop::empty();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("https://{taken}/dir");
    shop.fails(&["init", "--ca", &nobody, "--agree-tos"], 1, &["cannot reach the CA", &nobody]);
    let pebble = service("CERTBUS_TEST_PEBBLE");
    shop.fails(&["init", "--ca", &pebble, "--agree-tos"], 1, &[&pebble, "roots"]);
    let root = service("CERTBUS_TEST_PEBBLE_ROOT");
    shop.fails(&["init", "--ca", &pebble, "--ca-roots", &root], 2, &["terms of service", "--agree-tos"]);
    shop.fails(&["init", "--ca", "letsencript"], 2, &["letsencript", "https://"]);
    shop.fails(&["cert", "mk", "a.http.test"], 2, &["no CA is set up", "certbus init"]);
    shop.ok(&["init", "--ca", &pebble, "--ca-roots", &root, "--agree-tos"]);
    shop.fails(&["cert", "mk", "a.http.test"], 2, &["http-01 is not set up", "[http01]"]);
}

#[test]
fn the_same_names_again_order_nothing_and_a_port_that_is_taken_is_named() {
    let _turn = HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shop = shop("PEBBLE", "CERTBUS_TEST_HTTP01_PORT");
    let name = fresh("http.test");
    shop.ok(&["cert", "mk", &name, "--profile", "shortlived"]);
    let (id, version) = shop.only();
    assert!(shop.ok(&["cert", "mk", &name]).out.contains(&id));
    assert_eq!(shop.only().1, version);
    let port = service("CERTBUS_TEST_HTTP01_PORT");
    let _taken = std::net::TcpListener::bind(format!("127.0.0.1:{port}")).unwrap();
    shop.fails(&["cert", "mk", &fresh("http.test")], 1, &[&port]);
}

/// Invariants 2 and 3: a manager is killed while a challenge is set up; the next one ends the same order.
#[test]
fn an_order_of_a_killed_manager_is_finished_by_the_next_and_its_record_is_gone() {
    let shop = Shop::empty();
    let server = service("CERTBUS_TEST_BIND");
    let (address, port) = server.split_once(':').unwrap();
    let key = service("CERTBUS_TEST_BIND_KEY");
    let (hook, mark, hang) = (shop.path("hook"), shop.path("presented"), shop.path("hang"));
    let script = format!(
        "#!/bin/sh\nverb=add; [ \"$1\" = cleanup ] && verb=delete\nttl=1; [ $verb = delete ] && ttl=\n\
         printf 'server {address} {port}\\nupdate %s %s %s TXT \"%s\"\\nsend\\n' $verb \"$2\" \"$ttl\" \"$3\" \
         | nsupdate -y hmac-sha256:{key}\necho \"$1 $2 $3\" >> {mark}\n\
         [ -e {hang} ] && [ \"$1\" = present ] && exec sleep 30\nexit 0\n",
        mark = mark.display(),
        hang = hang.display()
    );
    std::fs::write(&hook, script).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ca = service("CERTBUS_TEST_PEBBLE");
    let (roots, exec) = (service("CERTBUS_TEST_PEBBLE_ROOT"), format!("exec={}", hook.display()));
    shop.ok(&["init", "--ca", &ca, "--ca-roots", &roots, "--agree-tos", "--dns01", &exec]);
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let place = format!("provider = \"exec\"\nresolver = \"{server}\"\nauthoritative = [\"{server}\"]");
    assert_eq!(shop.run_with_input(&["conf", "update"], &conf.replace("provider = \"exec\"", &place)).code, 0);

    let domain = fresh("bind.test");
    std::fs::write(&hang, "").unwrap();
    let mut killed = shop.command(&["cert", "mk", "--subdomain", &domain]).spawn().unwrap();
    eventually("a challenge is set up", || mark.exists().then_some(()));
    killed.kill().unwrap();
    killed.wait().unwrap();
    std::fs::remove_file(&hang).unwrap();
    assert!(shop.ok(&["cert", "renewable"]).out.contains(&domain), "an open order is due");

    let ran = shop.ok(&["cert", "mk", "--subdomain", &domain]);
    assert!(ran.err.contains("resuming order"), "the order of then, with the request of then: {ran:?}");
    let (id, version) = shop.only();
    assert_eq!(version.len(), 64);
    assert!(shop.ok(&["cert", "renewable"]).out.is_empty(), "nothing is left open for {id}");
    let dig = Command::new("dig")
        .args([&format!("@{address}"), "-p", port, "+tcp", "+short", "TXT", &format!("_acme-challenge.{domain}")])
        .output()
        .unwrap();
    assert!(dig.status.success() && dig.stdout.is_empty(), "{dig:?}");
}

#[test]
fn a_web_server_of_another_user_serves_the_token_whatever_the_umask_and_pebble_sees_it() {
    use std::os::unix::process::CommandExt;
    let _turn = HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shop = Shop::empty();
    let web = shop.path("web");
    std::fs::create_dir(&web).unwrap();
    std::fs::set_permissions(shop.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (directory, roots) = (service("CERTBUS_TEST_PEBBLE"), service("CERTBUS_TEST_PEBBLE_ROOT"));
    let webroot = format!("webroot={}", web.display());
    shop.ok(&["init", "--ca", &directory, "--ca-roots", &roots, "--agree-tos", "--http01", &webroot]);
    let port = service("CERTBUS_TEST_HTTP01_PORT");
    let mut server = Command::new("python3");
    server.args(["-m", "http.server", "--bind", "127.0.0.1", &port]).current_dir(&web).uid(65534);
    let server = server.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let _server = crate::shop::Running::new(server);
    eventually("the web server listens", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).ok());
    let line = format!("umask 077; exec {} cert mk {}", env!("CARGO_BIN_EXE_certbus"), fresh("http.test"));
    let mut strict = Command::new("sh");
    strict.args(["-c", &line]).env("CERTBUS_CONFIG", shop.path("certbus.toml")).env("CERTBUS_DATA", shop.data());
    let ran = strict.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}
