//! Debian's HAProxy: by reload, and over its runtime API.

use std::process::Command;

use super::load::{Load, Protocol, once};
use super::{Server, contents, free_port, look, within};
use crate::shop::{Shop, openssl};

const BY_RELOAD: &str = r#"
[[target]]
kind = "haproxy"
combined = "DIR/certs/{name}.pem"
check = ["haproxy", "-c", "-f", "DIR/haproxy.cfg"]
reload = ["sh", "-c", "kill -USR2 $(cat DIR/haproxy.pid)"]
"#;

/// A reload would be a failure.
const BY_SOCKET: &str = r#"
[[target]]
kind = "haproxy"
combined = "DIR/certs/{name}.pem"
check = ["haproxy", "-c", "-f", "DIR/haproxy.cfg"]
socket = "DIR/haproxy.sock"
reload = ["false"]
"#;

fn configure(shop: &Shop, port: u16, crt: &str) {
    let text = r#"
global
    stats socket DIR/haproxy.sock level admin expose-fd listeners
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend shop
    bind 127.0.0.1:PORT ssl crt DIR/CRT
    http-request return status 200 content-type text/plain string ok
"#;
    let text = text.replace("DIR", shop.folder.path().to_str().unwrap());
    std::fs::write(shop.path("haproxy.cfg"), text.replace("PORT", &port.to_string()).replace("CRT", crt)).unwrap();
}

fn start(shop: &Shop, port: u16) -> Server {
    let mut command = Command::new("haproxy");
    command.arg("-W").arg("-f").arg(shop.path("haproxy.cfg")).arg("-p").arg(shop.path("haproxy.pid"));
    Server::start(&mut command, port, &shop.path("haproxy.log"))
}

/// Before HAProxy is started its first files are written, and stay although nobody can be told.
fn shop(targets: &str, crt: &str) -> (Shop, Server, u16) {
    let shop = Shop::with_targets(&["shop.example"], targets);
    let port = free_port();
    configure(&shop, port, crt);
    shop.once(1, &["first ones stay"]);
    let server = start(&shop, port);
    shop.once(0, &[]);
    (shop, server, port)
}

#[test]
fn haproxy_reloads_twenty_renewals_and_no_new_connection_fails() {
    let (shop, _haproxy, port) = shop(BY_RELOAD, "certs/shop.example.pem");
    let _agent = shop.agent();
    let load = Load::start(Protocol::Https, port, "shop.example", &shop.path("roots.pem"));
    shop.swaps(&load, 20);
}

#[test]
fn haproxy_takes_twenty_renewals_over_its_socket_without_a_reload_and_no_new_connection_fails() {
    let (shop, _haproxy, port) = shop(BY_SOCKET, "certs/shop.example.pem");
    let _agent = shop.agent();
    let roots = shop.path("roots.pem");
    let load = Load::start(Protocol::Https, port, "shop.example", &roots);
    shop.swaps(&load, 20);
    drop(load);
    let last = shop.only().1;
    assert_eq!(openssl(port, "shop.example", &roots).unwrap(), last);
    assert!(shop.status("haproxy")["failures"] == 0, "{}", shop.status("haproxy"));
    // The file is what memory is.
    drop(_haproxy);
    let _haproxy = start(&shop, port);
    assert_eq!(openssl(port, "shop.example", &roots).unwrap(), last);
}

#[test]
fn what_haproxy_does_not_hold_yet_it_learns_by_a_reload() {
    let targets = BY_SOCKET.replace("[\"false\"]", "[\"sh\", \"-c\", \"kill -USR2 $(cat DIR/haproxy.pid)\"]");
    let (shop, _haproxy, port) = shop(&targets, "certs/");
    shop.ok(&["cert", "mk", "late.shop.example"]);
    let ran = shop.once(0, &[]);
    assert!(ran.out.contains("1 of 2 certificates written, reloaded"), "{ran:?}");
    let roots = shop.path("roots.pem");
    within(5, "served", || once(Protocol::Https, port, "late.shop.example", &roots).ok());
}

#[test]
fn a_haproxy_socket_that_is_gone_leaves_the_old_file_and_mends_itself() {
    let (shop, haproxy, port) = shop(BY_SOCKET, "certs/shop.example.pem");
    let (id, first) = shop.only();
    let before = look(&shop.path("certs"));
    std::fs::rename(shop.path("haproxy.sock"), shop.path("elsewhere.sock")).unwrap();
    shop.ok(&["cert", "renew", &id]);
    shop.once(1, &["target `haproxy`", "haproxy.sock", "does not answer", "old files are back", "level admin"]);
    let roots = shop.path("roots.pem");
    assert_eq!(look(&shop.path("certs")), before);
    assert_eq!(once(Protocol::Https, port, "shop.example", &roots).unwrap(), first);
    let _agent = shop.agent();
    within(10, "in the log", || shop.read("agent.err").contains("does not answer").then_some(()));
    std::fs::rename(shop.path("elsewhere.sock"), shop.path("haproxy.sock")).unwrap();
    let second = shop.only().1;
    within(30, "mended", || once(Protocol::Https, port, "shop.example", &roots).ok().filter(|seen| *seen == second));
    assert_eq!(contents(&shop.path("certs")).len(), 1);
    drop(haproxy);
}

#[test]
fn a_certificate_that_haproxy_refuses_is_not_left_half_taken() {
    let targets = BY_SOCKET.replace("check = [\"haproxy\", \"-c\", \"-f\", \"DIR/haproxy.cfg\"]", "check = []");
    let (shop, _haproxy, port) = shop(&targets, "certs/shop.example.pem");
    let (id, first) = shop.only();
    let before = look(&shop.path("certs"));
    // HAProxy's socket may look, but not change.
    drop(_haproxy);
    let text = shop.read("haproxy.cfg");
    std::fs::write(shop.path("haproxy.cfg"), text.replace("level admin", "level user")).unwrap();
    let haproxy = start(&shop, port);
    shop.ok(&["cert", "renew", &id]);
    shop.once(1, &["HAProxy refused", "Permission denied"]);
    assert_eq!(look(&shop.path("certs")), before);
    assert_eq!(once(Protocol::Https, port, "shop.example", &shop.path("roots.pem")).unwrap(), first);
    drop(haproxy);
}

#[test]
fn a_haproxy_socket_that_never_accepts_is_given_up_in_time_and_the_agent_can_be_stopped() {
    let targets = BY_SOCKET.replace("check = [\"haproxy\", \"-c\", \"-f\", \"DIR/haproxy.cfg\"]\n", "time_limit = 1\n");
    let shop = Shop::with_targets(&["shop.example"], &targets);
    // Two wait to be accepted for ever; the next would be made to wait for them.
    let _deaf = std::os::unix::net::UnixListener::bind(shop.path("haproxy.sock")).unwrap();
    let begun = std::time::Instant::now();
    for _ in 0..4 {
        shop.once(1, &["haproxy.sock does not answer"]);
    }
    assert!(begun.elapsed().as_secs() < 30);
    let mut agent = shop.agent_command(&["agent"]).spawn().unwrap();
    within(20, "it tried", || shop.read("agent.err").contains("does not answer").then_some(()));
    Command::new("kill").arg(agent.id().to_string()).status().unwrap();
    within(10, "stopped", || agent.try_wait().unwrap());
}
