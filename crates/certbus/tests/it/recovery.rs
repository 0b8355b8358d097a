//! After a loss: each procedure of docs/RECOVERY.md, as it is written there.

use std::path::Path;

use crate::shop::{Shop, eventually, openssl};

fn copy(from: &Path, to: &Path) {
    for file in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = std::fs::remove_file(to.join(file));
        if from.join(file).exists() {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
    }
}

fn rows(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_owner_file_is_taken_offline_and_brought_when_it_is_needed() {
    let shop = Shop::internal();
    let usb = shop.path("usb.key");
    std::fs::rename(shop.data().join("owner.key"), &usb).unwrap();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    shop.fails(&["recipient", "add", "edge"], 3, &["owner", "--owner FILE"]);
    assert!(!shop.data().join("edge.key").exists(), "nothing half written");
    shop.ok(&["recipient", "add", "edge", "--owner", usb.to_str().unwrap()]);
    shop.ok(&["manager", "add", "second", "--owner", usb.to_str().unwrap()]);
}

#[test]
fn a_lost_manager_is_replaced_by_the_owners_word_alone_and_openssl_sees_its_renewals() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let lost = rows(&shop.ok(&["manager", "ls", "--json"]).out)[0]["name"].as_str().unwrap().to_owned();
    let (_server, port) = shop.serve(&[]);
    let key = shop.data().join("manager.key");
    std::fs::remove_file(&key).unwrap();
    shop.fails(&["cert", "ls"], 3, &["manager.key"]);
    shop.fails(&["manager", "add", &lost, "--alone"], 1, &["admitted already"]);
    shop.ok(&["manager", "add", "rescue", "--alone", "--out", key.to_str().unwrap()]);
    shop.ok(&["manager", "rm", &lost]);
    assert!(shop.ok(&["conf", "display"]).out.contains("[ca.internal]"), "the settings are sealed to it");
    let (id, _) = shop.only();
    shop.ok(&["cert", "renew", &id]);
    let (_, version) = shop.only();
    let roots = shop.path("roots.pem");
    eventually("its renewal", || openssl(port, "a.shop.example", &roots).ok().filter(|seen| *seen == version));
    shop.ok(&["stream", "verify"]);
}

#[test]
fn a_lost_node_key_is_replaced_and_opens_nothing_of_what_comes_after() {
    let shop = Shop::internal();
    shop.ok(&["recipient", "add", "edge"]);
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let (id, before) = shop.only();
    let lost = shop.data().join("edge.key");
    shop.ok(&["recipient", "rm", "edge", "--compromised"]);
    shop.ok(&["recipient", "add", "edge-2"]);
    shop.ok(&["cert", "renew", "--due"]);
    let (_, version) = shop.only();
    assert_ne!(before, version);
    let out = shop.path("out");
    let export = |key: &Path| {
        let (key, out) = (key.to_str().unwrap().to_owned(), out.to_str().unwrap().to_owned());
        shop.run(&["cert", "export", &id, "--identity", &key, "--out", &out])
    };
    assert_eq!(export(&lost).code, 1, "the lost one opens it not");
    assert_eq!(export(&shop.data().join("edge-2.key")).code, 0, "the new one does");
}

#[test]
fn a_stolen_owner_file_is_replaced_while_openssl_is_served_and_says_nothing_more() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let (_, before) = shop.only();
    let (_server, port) = shop.serve(&[]);
    let (stolen, new) = (shop.data().join("owner.key"), shop.path("new-owner.key"));
    let printed = shop.ok(&["owner", "change", "--compromised", "--out", new.to_str().unwrap()]).out;
    assert!(printed.contains("[[trust]]"), "{printed}");
    shop.fails(&["recipient", "add", "spy", "--owner", stolen.to_str().unwrap()], 1, &["not the authority"]);
    assert!(!shop.data().join("spy.key").exists());
    shop.ok(&["cert", "renew", "--due"]);
    let (id, version) = shop.only();
    assert_ne!(before, version, "what the stolen file could recover is replaced");
    let roots = shop.path("roots.pem");
    eventually("the replacement", || openssl(port, "a.shop.example", &roots).ok().filter(|seen| *seen == version));
    let out = shop.path("out");
    let export = |key: &Path| {
        let (key, out) = (key.to_str().unwrap().to_owned(), out.to_str().unwrap().to_owned());
        shop.run(&["cert", "export", &id, "--identity", &key, "--out", &out]).code
    };
    assert_ne!(export(&stolen), 0, "the stolen file does not open it");
    shop.ok(&["recipient", "add", "edge", "--owner", new.to_str().unwrap()]);
    shop.ok(&["manager", "add", "second", "--owner", new.to_str().unwrap()]);
    shop.ok(&["stream", "verify"]);
}

#[test]
fn a_log_restored_from_a_backup_is_followed_again_once_the_owner_says_so_and_openssl_is_served_throughout() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let backup = shop.path("backup");
    std::fs::create_dir(&backup).unwrap();
    copy(&shop.data(), &backup);
    shop.ok(&["cert", "mk", "b.shop.example"]);
    let roots = shop.path("roots.pem");
    let (server, port) = shop.serve(&[]);
    eventually("both are served", || openssl(port, "b.shop.example", &roots).ok());
    server.kill();
    copy(&backup, &shop.data());
    let (server, port) = shop.serve(&[]);
    assert!(openssl(port, "b.shop.example", &roots).is_ok(), "what it has seen is served on");
    shop.ok(&["cert", "mk", "c.shop.example"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(openssl(port, "c.shop.example", &roots).is_err(), "an older copy is not followed");
    shop.fails(&["stream", "restored"], 2, &["--yes"]);
    shop.ok(&["stream", "restored", "--yes"]);
    let seen = eventually("the copy is followed", || openssl(port, "c.shop.example", &roots).ok());
    server.kill();
    let (_server, port) = shop.serve(&[]);
    assert_eq!(eventually("also after a start", || openssl(port, "c.shop.example", &roots).ok()), seen);
    shop.ok(&["stream", "verify"]);
}

#[test]
fn a_lost_owner_file_is_left_behind_with_its_log_and_a_new_log_serves_openssl_with_the_nodes_old_key() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    std::fs::remove_file(shop.data().join("owner.key")).unwrap();
    shop.fails(&["recipient", "add", "edge"], 3, &["owner"]);

    // A new log beside the old one; the nodes keep their identity, and trust both.
    let new = shop.path("new");
    let in_new = |args: &[&str]| {
        let mut command = shop.command(args);
        command.env("CERTBUS_DATA", &new).env("CERTBUS_CONFIG", shop.path("new.toml"));
        let ran = crate::shop::Ran::from(command.output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
        ran.out
    };
    in_new(&["init", "--ca", "internal"]);
    let nodes = rows(&shop.ok(&["recipient", "ls", "--json"]).out)[0]["key"].as_str().unwrap().to_owned();
    let trust = in_new(&["recipient", "add", "old-nodes", "--key", &nodes]);
    in_new(&["cert", "mk", "a.shop.example"]);
    let conf: toml::Table = in_new(&["conf", "display"]).parse().unwrap();
    std::fs::write(shop.path("new-roots.pem"), conf["ca"]["internal"]["certificate"].as_str().unwrap()).unwrap();

    let trust = trust.split("on that machine:").nth(1).unwrap();
    let settings = std::fs::read_to_string(shop.path("certbus.toml")).unwrap();
    let log = format!("[log]\nurl = \"sqlite:{}\"\n", new.join("log.db").display());
    std::fs::write(shop.path("certbus.toml"), format!("{settings}\n{log}\n{trust}")).unwrap();
    let state = shop.path("new-state");
    let (_server, port) = shop.serve(&["--state", state.to_str().unwrap()]);
    let roots = shop.path("new-roots.pem");
    eventually("the new log's", || openssl(port, "a.shop.example", &roots).ok());
}
