//! Recipients, managers, tenants and the owner file, as their commands handle them.

use crate::shop::{Shop, eventually, openssl};

#[test]
fn a_recipient_made_on_its_own_node_serves_once_the_owner_added_it_and_the_settings_trust_the_log() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let key = shop.path("edge.key");
    let made = shop.ok(&["identity", "new", "edge", "--out", key.to_str().unwrap()]).out;
    let public = made.split_whitespace().last().unwrap();

    let state = shop.path("edge-state");
    let serve = ["--identity", key.to_str().unwrap(), "--state", state.to_str().unwrap()];
    let refused = shop.run(&[&["example-server", "--listen", "127.0.0.1:0"][..], &serve].concat());
    assert!(refused.code != 0 && refused.err.contains("no trust on first use"), "{refused:?}");

    let added = shop.ok(&["recipient", "add", "edge", "--key", public]).out;
    let trust = added.split("on that machine:").nth(1).unwrap();
    let settings = shop.path("certbus.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\n{trust}")).unwrap();
    let (_server, port) = shop.serve(&serve);
    eventually("served", || openssl(port, "a.shop.example", &shop.path("roots.pem")).ok());
    assert!(shop.ok(&["recipient", "ls"]).out.contains("edge"));
}

#[test]
fn a_removed_recipient_keeps_what_it_had_and_opens_nothing_new() {
    let shop = Shop::internal();
    shop.ok(&["recipient", "add", "edge"]);
    shop.ok(&["cert", "mk", "old.shop.example"]);
    let ran = shop.ok(&["recipient", "rm", "edge"]);
    assert!(ran.out.contains("still can"), "it says what it does not protect: {}", ran.out);
    shop.ok(&["cert", "mk", "new.shop.example"]);
    let edge = shop.data().join("edge.key");
    let export = |name: &str| {
        let listed = shop.ok(&["cert", "ls", "--json"]).out;
        let rows = listed.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
        let id = rows.into_iter().find(|r| r["names"][0] == name).unwrap()["id"].as_str().unwrap().to_owned();
        let out = shop.path("out");
        shop.run(&["cert", "export", &id, "--identity", edge.to_str().unwrap(), "--out", out.to_str().unwrap()])
    };
    assert_eq!(export("old.shop.example").code, 0);
    let refused = export("new.shop.example");
    assert!(refused.code == 1 && refused.err.contains("does not open with this identity"), "{refused:?}");
    shop.fails(&["recipient", "rm", "edge"], 3, &["no recipient named `edge`"]);
}

#[test]
fn a_compromised_recipient_makes_what_it_could_open_due_again() {
    let shop = Shop::internal();
    shop.ok(&["recipient", "add", "edge"]);
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let (id, before) = shop.only();
    shop.ok(&["recipient", "rm", "edge", "--compromised"]);
    assert!(shop.ok(&["cert", "renewable"]).out.contains(&id));
    shop.ok(&["cert", "renew", "--due"]);
    assert_ne!(shop.only().1, before);
    assert!(shop.ok(&["cert", "renewable"]).out.is_empty(), "once is enough");
}

#[test]
fn issuing_with_no_recipient_is_refused_with_the_command_that_mends_it() {
    let shop = Shop::internal();
    shop.ok(&["recipient", "rm", "nodes"]);
    shop.fails(&["cert", "mk", "a.shop.example"], 2, &["certbus recipient add"]);
    assert!(shop.ok(&["cert", "ls", "--json"]).out.is_empty(), "nothing half written");
    shop.fails(&["doctor"], 10, &["to mend"]);
}

#[test]
fn a_second_manager_writes_until_it_is_retired() {
    let shop = Shop::internal();
    shop.ok(&["manager", "add", "second"]);
    let first = shop.data().join("manager.key");
    let second = shop.data().join("second.key");
    std::fs::rename(&first, shop.path("first.key")).unwrap();
    std::fs::rename(&second, &first).unwrap();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    std::fs::rename(&first, &second).unwrap();
    std::fs::rename(shop.path("first.key"), &first).unwrap();
    let retired = shop.ok(&["manager", "rm", "second"]).out;
    assert!(retired.contains("change") && retired.contains("internal"), "it lists what to change: {retired}");
    assert!(shop.ok(&["manager", "ls"]).out.contains("retired at batch"));
    std::fs::rename(&second, &first).unwrap();
    shop.fails(&["cert", "mk", "b.shop.example"], 1, &["retired", "certbus manager add"]);
}

#[test]
fn the_owner_file_may_lie_elsewhere_and_without_it_the_owner_cannot_speak() {
    let shop = Shop::internal();
    let away = shop.path("usb-stick.key");
    std::fs::rename(shop.data().join("owner.key"), &away).unwrap();
    shop.fails(&["recipient", "add", "edge"], 3, &["--owner FILE"]);
    assert!(!shop.data().join("edge.key").exists());
    shop.ok(&["recipient", "add", "edge", "--owner", away.to_str().unwrap()]);
    shop.ok(&["cert", "mk", "a.shop.example"]);
    shop.fails(
        &["recipient", "add", "x", "--owner", shop.data().join("manager.key").to_str().unwrap()],
        1,
        &["manager", "owner"],
    );
    shop.fails(&["manager", "rm", &host()], 3, &["owner"]);
    let owner = ["--owner", away.to_str().unwrap()];
    shop.fails(&[&["manager", "rm", &host()][..], &owner].concat(), 1, &["last manager"]);
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

#[test]
fn tenants_share_a_file_and_nothing_else() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    shop.ok(&["tenant", "add", "inside"]);
    assert_eq!(shop.ok(&["tenant", "ls"]).out, "default\ninside\n");
    shop.ok(&["--tenant", "inside", "init", "--ca", "internal"]);
    shop.ok(&["--tenant", "inside", "cert", "mk", "b.shop.example"]);
    assert!(!shop.ok(&["cert", "ls"]).out.contains("b.shop.example"));
    let inside = shop.ok(&["--tenant", "inside", "cert", "ls", "--json"]).out;
    let id = serde_json::from_str::<serde_json::Value>(inside.trim()).unwrap()["id"].as_str().unwrap().to_owned();
    let nodes = shop.data().join("nodes.key");
    let out = shop.path("out");
    let args = ["--tenant", "inside", "cert", "export", &id, "--out", out.to_str().unwrap(), "--identity"];
    let refused = shop.run(&[&args[..], &[nodes.to_str().unwrap()]].concat());
    assert!(refused.code != 0 && !out.join("privkey.pem").exists(), "{refused:?}");
    shop.fails(&["--tenant", "../x", "cert", "ls"], 2, &["tenant"]);
}
