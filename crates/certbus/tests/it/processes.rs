//! Manager, example server and command line on one SQLite file, as processes of their own; asked from outside.

use crate::shop::{Shop, curl, eventually, openssl};

#[test]
fn openssl_sees_a_renewal_without_a_restart_and_curl_is_greeted() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--wildcard", "shop.example"]);
    let (id, first) = shop.only();
    let (_server, port) = shop.serve(&[]);
    let roots = shop.path("roots.pem");
    let seen = || openssl(port, "shop.example", &roots).ok();
    assert_eq!(eventually("first version", seen), first);
    assert_eq!(curl(port, "api.shop.example", "/x", &roots), "greetings from /x\n");

    shop.ok(&["cert", "renew", &id]);
    let second = shop.only().1;
    eventually("second version", || seen().filter(|v| *v == second));

    shop.ok(&["cert", "mk", "late.example.org"]);
    eventually("a new name", || openssl(port, "late.example.org", &roots).ok());
    shop.ok(&["cert", "rm", &id, "--yes"]);
    eventually("removed", || openssl(port, "shop.example", &roots).err());
    assert!(openssl(port, "late.example.org", &roots).is_ok(), "the others stay");
}

#[test]
fn invariant_4_openssl_is_served_while_the_log_is_gone_and_across_a_restart() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--wildcard", "shop.example"]);
    let (_, version) = shop.only();
    let roots = shop.path("roots.pem");
    let (server, port) = shop.serve(&[]);
    assert_eq!(eventually("served", || openssl(port, "shop.example", &roots).ok()), version);
    for file in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = std::fs::remove_file(shop.data().join(file));
    }
    assert_eq!(openssl(port, "shop.example", &roots).unwrap(), version, "the log is gone");
    server.kill();
    let (_server, port) = shop.serve(&[]);
    assert_eq!(openssl(port, "shop.example", &roots).unwrap(), version, "and it was restarted");
}

#[test]
fn eight_commands_at_once_make_eight_certificates() {
    let shop = Shop::internal();
    let spawned: Vec<_> = (0..8)
        .map(|n| {
            let mut command = shop.command(&["cert", "mk", &format!("m{n}.shop.example")]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in spawned {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(shop.ok(&["cert", "ls", "--json"]).out.lines().count(), 8);
    let ran = shop.ok(&["stream", "verify"]);
    assert_eq!(ran.out.lines().count(), 2, "{ran:?}");
}

/// Invariant 3, with processes: whoever loses drops its order and key, and says so by exit code 0.
#[test]
fn invariant_3_commands_at_once_for_the_same_names_issue_once() {
    for _ in 0..4 {
        let shop = Shop::internal();
        let at_once = |args: &[&str]| {
            let spawned: Vec<_> = (0..4)
                .map(|_| {
                    let mut command = shop.command(args);
                    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
                })
                .collect();
            for child in spawned {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
        };
        at_once(&["cert", "mk", "same.shop.example"]);
        shop.only();
        assert_eq!(shop.count("CertificateObtained"), 1);
        assert_eq!(shop.count("CertificateRequested"), 1);
        shop.ok(&["recipient", "add", "edge"]);
        shop.ok(&["cert", "renew", &shop.only().0]);
        assert_eq!(shop.count("CertificateObtained"), 2);
        // Due once: done once, however many rounds run at the same time.
        shop.ok(&["recipient", "rm", "edge", "--compromised"]);
        at_once(&["cert", "renew", "--due"]);
        assert_eq!(shop.count("CertificateObtained"), 3);
    }
}

#[test]
fn inits_at_once_make_one_log_whose_keys_lie_on_disk() {
    for _ in 0..5 {
        let shop = Shop::empty();
        let spawned: Vec<_> = (0..3)
            .map(|_| {
                let mut command = shop.command(&["init", "--ca", "internal"]);
                command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut child in spawned {
            let _ = child.wait().unwrap();
        }
        shop.ok(&["init", "--ca", "internal"]);
        shop.ok(&["doctor"]);
        shop.ok(&["cert", "mk", "a.shop.example"]);
        let out = shop.path("out");
        shop.ok(&["cert", "export", &shop.only().0, "--out", out.to_str().unwrap()]);
        shop.ok(&["recipient", "add", "edge"]);
    }
}

#[test]
fn a_snapshot_on_the_log_lets_a_new_load_balancer_start_and_openssl_sees_it() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let (id, _) = shop.only();
    for _ in 0..3 {
        shop.ok(&["cert", "renew", &id]);
    }
    shop.ok(&["stream", "snapshot"]);
    shop.ok(&["stream", "verify"]);
    shop.ok(&["cert", "renew", &id]);
    let (_, version) = shop.only();
    let (_server, port) = shop.serve(&[]);
    eventually("served", || openssl(port, "a.shop.example", &shop.path("roots.pem")).ok().filter(|v| *v == version));
    assert!(shop.ok(&["cert", "cat", &id]).out.contains("BEGIN CERTIFICATE"));
}
