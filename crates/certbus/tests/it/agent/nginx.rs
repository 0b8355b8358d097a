//! Debian's nginx.

use std::process::Command;

use super::load::{Load, Protocol, once};
use super::{Server, contents, free_port, look, open_to_servers, within};
use crate::shop::{Shop, openssl};

/// A target for an nginx whose configuration lies in the shop's folder.
pub(super) const TARGET: &str = r#"
[[target]]
kind = "nginx"
chain = "DIR/certs/{name}.crt"
key = "DIR/certs/{name}.key"
group = "www-data"
check = ["nginx", "-t", "-c", "DIR/nginx.conf", "-e", "DIR/nginx.err"]
reload = ["nginx", "-s", "reload", "-c", "DIR/nginx.conf", "-e", "DIR/nginx.err"]
"#;

/// Writes the configuration of an nginx that serves shop.example.
pub(super) fn configure(shop: &Shop, port: u16) {
    let text = r#"
daemon off;
worker_processes 1;
pid DIR/nginx.pid;
error_log DIR/nginx.err;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path DIR/t1; proxy_temp_path DIR/t2; fastcgi_temp_path DIR/t3; uwsgi_temp_path DIR/t4;
    scgi_temp_path DIR/t5;
    server {
        listen 127.0.0.1:PORT ssl;
        ssl_certificate DIR/certs/shop.example.crt;
        ssl_certificate_key DIR/certs/shop.example.key;
        ssl_session_cache off;
        location / { return 200 "ok\n"; }
    }
}
"#;
    let text = text.replace("DIR", shop.folder.path().to_str().unwrap()).replace("PORT", &port.to_string());
    std::fs::write(shop.path("nginx.conf"), text).unwrap();
}

pub(super) fn start(shop: &Shop, port: u16) -> Server {
    let mut command = Command::new("nginx");
    command.arg("-c").arg(shop.path("nginx.conf")).arg("-e").arg(shop.path("nginx.err"));
    Server::start(&mut command, port, &shop.path("nginx.log"))
}

/// Before nginx is started its first files are written, and stay although nobody can be told.
pub(super) fn shop() -> (Shop, Server, u16) {
    let shop = Shop::with_targets(&["shop.example"], TARGET);
    let port = free_port();
    configure(&shop, port);
    shop.once(1, &["the reload failed", "first ones stay"]);
    let server = start(&shop, port);
    shop.once(0, &[]);
    (shop, server, port)
}

#[test]
fn nginx_serves_twenty_renewals_and_no_new_connection_fails() {
    let (shop, _nginx, port) = shop();
    let _agent = shop.agent();
    let roots = shop.path("roots.pem");
    assert_eq!(openssl(port, "shop.example", &roots).unwrap(), shop.only().1);
    let load = Load::start(Protocol::Https, port, "shop.example", &roots);
    shop.swaps(&load, 20);
    drop(load);
    // A worker of before the reload may still take a connection for a moment.
    let last = shop.only().1;
    within(5, "openssl sees the last", || openssl(port, "shop.example", &roots).ok().filter(|seen| *seen == last));
    assert_eq!(contents(&shop.path("certs")).len(), 2, "nothing lies beside them");
    assert!(shop.status("nginx")["last_success"].is_string());
}

#[test]
fn nothing_is_written_and_nginx_is_not_reloaded_when_nothing_changed() {
    let (shop, _nginx, _) = shop();
    let (before, log) = (look(&shop.path("certs")), shop.read("nginx.err"));
    let modes: Vec<u32> = before.values().map(|(.., mode)| *mode).collect();
    assert_eq!(modes, [0o640, 0o640]);
    let ran = shop.once(0, &[]);
    assert!(ran.out.contains("unchanged"), "{ran:?}");
    assert_eq!(shop.read("nginx.err"), log, "nginx logs each reload");
    // An agent that lost its state compares with what lies there, and does not know whether nginx was told.
    std::fs::remove_file(shop.data().join("agent/agent.json")).unwrap();
    let ran = shop.once(0, &[]);
    assert!(ran.out.contains("unchanged, reloaded"), "{ran:?}");
    assert!(shop.once(0, &[]).out.trim_end().ends_with("unchanged"));
    assert_eq!(look(&shop.path("certs")), before);
    // And what somebody else did to a file is mended.
    std::fs::write(shop.path("certs/shop.example.crt"), "scratched").unwrap();
    let ran = shop.once(0, &[]);
    assert!(ran.out.contains("1 of 1 certificates written, reloaded"), "{ran:?}");
    let wanted: Vec<_> = before.into_values().map(|(bytes, ..)| bytes).collect();
    assert_eq!(contents(&shop.path("certs")).into_values().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_check_that_nginx_fails_leaves_the_old_files_byte_for_byte_and_mends_itself_when_the_cause_is_gone() {
    let (shop, _nginx, port) = shop();
    let roots = shop.path("roots.pem");
    let (id, first) = shop.only();
    let before = look(&shop.path("certs"));
    let good = shop.read("nginx.conf");
    std::fs::write(shop.path("nginx.conf"), good.replace("events", "evnts")).unwrap();
    shop.ok(&["cert", "renew", &id]);
    let cause = "unknown directive \"evnts\"";
    shop.once(1, &["target `nginx`", "the check failed", "old files are back", cause]);
    assert_eq!(look(&shop.path("certs")), before, "the same files, not only the same bytes");
    assert_eq!(once(Protocol::Https, port, "shop.example", &roots).unwrap(), first);
    let status = shop.status("nginx");
    assert!(status["last_failure"]["causes"][0].as_str().unwrap().contains(cause), "{status}");
    let _agent = shop.agent();
    within(10, "the failure is in the log", || shop.read("agent.err").contains(cause).then_some(()));
    assert!(shop.run(&["agent", "--status"]).out.contains(cause));
    assert_eq!(look(&shop.path("certs")), before);
    std::fs::write(shop.path("nginx.conf"), good).unwrap();
    let second = shop.only().1;
    within(30, "mended", || once(Protocol::Https, port, "shop.example", &roots).ok().filter(|seen| *seen == second));
    within(5, "said so", || shop.status("nginx")["next_try"].is_null().then_some(()));
}

#[test]
fn invariant_4_a_log_that_is_gone_does_not_keep_the_agent_from_nginx() {
    let (shop, _nginx, port) = shop();
    let roots = shop.path("roots.pem");
    let version = shop.only().1;
    for file in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = std::fs::remove_file(shop.data().join(file));
    }
    std::fs::remove_dir_all(shop.path("certs")).unwrap();
    shop.once(1, &["log.db", "deployed from the snapshot on disk"]);
    assert_eq!(contents(&shop.path("certs")).len(), 2, "written from the local snapshot");
    std::fs::remove_dir_all(shop.path("certs")).unwrap();
    let _agent = shop.agent();
    within(10, "written without a log", || shop.path("certs/shop.example.key").exists().then_some(()));
    assert_eq!(once(Protocol::Https, port, "shop.example", &roots).unwrap(), version);
}

#[test]
fn an_nginx_that_finds_its_files_by_the_name_asked_for_serves_renewals_and_new_names_without_a_reload() {
    let target = TARGET.lines().filter(|line| !line.starts_with("reload =")).collect::<Vec<_>>().join("\n");
    let shop = Shop::with_targets(&["shop.example"], &format!("{target}\nreload = []\n"));
    shop.ok(&["cert", "mk", "*.shop.example"]);
    shop.ok(&["cert", "mk", "other.example"]);
    let port = free_port();
    configure(&shop, port);
    let by_name = r#"
    map $ssl_server_name $pair {
        hostnames;
        *.shop.example _.shop.example;
        ~^[A-Za-z0-9._-]+$ $ssl_server_name;
        default none;
    }
    server {"#;
    let text = shop.read("nginx.conf").replace("    server {", by_name).replace("certs/shop.example", "certs/$pair");
    // Its workers read the files: they are of the target's group.
    std::fs::write(shop.path("nginx.conf"), format!("user www-data;{text}")).unwrap();
    open_to_servers(&shop);
    assert!(shop.once(0, &[]).out.contains("3 of 3 certificates written"));
    let _nginx = start(&shop, port);
    let roots = shop.path("roots.pem");
    let all_are_served = |what: &str| {
        let listed = shop.ok(&["cert", "ls", "--json"]).out;
        for row in listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            let name = row["names"][0].as_str().unwrap().replace('*', "www");
            assert_eq!(openssl(port, &name, &roots).unwrap(), row["version"], "{name} {what}");
        }
    };
    all_are_served("at first");
    for _ in 0..3 {
        let listed = shop.ok(&["cert", "ls", "--json"]).out;
        for row in listed.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            shop.ok(&["cert", "renew", row["id"].as_str().unwrap()]);
        }
        assert!(shop.once(0, &[]).out.contains("3 of 3 certificates written"));
        all_are_served("after a renewal");
    }
    shop.ok(&["cert", "mk", "new.example"]);
    assert!(shop.once(0, &[]).out.contains("1 of 4 certificates written"));
    all_are_served("after a new one came");
    assert!(!shop.read("nginx.err").contains("reconfiguring"), "nginx logs each reload: {}", shop.read("nginx.err"));
    for name in ["nobody.example", "../certs/shop.example"] {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name]);
        let seen = client.stdin(std::process::Stdio::null()).output().unwrap().stdout;
        assert!(String::from_utf8_lossy(&seen).contains("no peer certificate"), "{name} is nobody's");
    }
}
