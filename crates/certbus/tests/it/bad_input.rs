//! What bad input gets: one error that names the thing, the cause and the next step, an exit code, nothing half written.

use std::os::unix::fs::PermissionsExt;

use certbus_bus::EventLog;
use certbus_bus::sqlite::SqliteFile;
use certbus_core::batch::{Batch, Draft};
use certbus_core::id::{BatchId, Cursor, StreamKind};
use certbus_core::identity::Identity;
use certbus_core::time::Timestamp;

use crate::shop::{Shop, eventually, openssl};

#[test]
fn settings_that_are_missing_broken_or_misplaced_are_named_with_their_line() {
    let shop = Shop::empty();
    let nowhere = shop.path("nowhere.toml");
    let output =
        shop.command(&["--config", nowhere.to_str().unwrap(), "cert", "ls"]).env_remove("CERTBUS_DATA").output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("certbus init"), "{output:?}");

    let shop = Shop::internal();
    let settings = shop.path("certbus.toml");
    let good = std::fs::read_to_string(&settings).unwrap();
    for (bad, words) in [
        ("data = [", &["certbus.toml", "line"][..]),
        ("[log]\nurl = \"oracle://x:secret@y\"\n", &["log.url", "sqlite:"]),
        ("[http01]\nlisten = \"80\"\n", &["line 2"]),
        ("[http01]\nlisten = \"127.0.0.1:80\"\nwebroot = \"/x\"\n", &["listen", "webroot"]),
        ("datta = \"/x\"\n", &["datta", "line 1"]),
        ("[dns01]\nprovider = \"exec\"\n", &["dns01", "issuing setting", "conf edit", "line 1"]),
    ] {
        std::fs::write(&settings, bad).unwrap();
        let ran = shop.fails(&["cert", "ls"], 2, words);
        assert!(!ran.err.contains("secret"), "{}", ran.err);
    }
    std::fs::write(&settings, good).unwrap();
    for (bad, words) in [
        ("[http01]\nlisten = \"127.0.0.1:80\"\n", &["http01", "local setting", "certbus.toml", "line 1"][..]),
        ("[ca.x]\ndirectory = \"http://insecure\"\n", &["ca.x.directory", "https://"]),
        ("default_ca = \"x\"\n", &["default_ca", "[ca.x]"]),
        ("[dns01]\nprovider = \"telepathy\"\n", &["telepathy", "rfc2136"]),
        ("[dns01]\nprovider = \"rfc2136\"\nserver = \"127.0.0.1\"\nkey_name = \"k\"\n", &["key_secret"]),
        (
            "[dns01]\nprovider = \"rfc2136\"\nserver = \"127.0.0.1\"\nkey_name = \"k\"\nkey_secret = \"?hush?\"\n",
            &["key_secret"],
        ),
        ("[ca.x]\ndirectry = \"https://x\"\n", &["directry", "line 2"]),
    ] {
        let before = shop.ok(&["conf", "display", "--reveal"]).out;
        let ran = shop.run_with_input(&["conf", "update"], bad);
        assert_eq!(ran.code, 2, "{bad}: {ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "{bad}: `{word}` is not in: {}", ran.err);
        }
        assert!(!ran.err.contains("hush"), "a secret in an error: {}", ran.err);
        assert_eq!(shop.ok(&["conf", "display", "--reveal"]).out, before, "nothing was stored");
    }
}

#[test]
fn names_that_no_ca_would_sign_are_refused_before_anything_is_ordered() {
    let shop = Shop::internal();
    for (name, words) in [
        ("b..example.com", &["empty"][..]),
        ("192.0.2.1", &["IP address"]),
        ("https://example.com/", &["URL"]),
        ("example.com:443", &["port"]),
        ("a_b.example.com", &["a-z"]),
        ("*.*.example.com", &["first label"]),
    ] {
        shop.fails(&["cert", "mk", name], 2, words);
    }
    shop.fails(&["cert", "mk"], 2, &["no name"]);
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let public = format!("{conf}\n[ca.le]\ndirectory = \"https://acme-v02.api.letsencrypt.org/directory\"\n");
    let public = public.replace("default_ca = \"internal\"", "default_ca = \"le\"");
    assert_eq!(shop.run_with_input(&["conf", "update"], &public).code, 0);
    for (name, word) in [("co.uk", "public suffix"), ("localhost", "single label"), ("x.test", "reserved")] {
        shop.fails(&["cert", "mk", "--subdomain", name], 2, &[word]);
    }
    assert!(shop.ok(&["cert", "ls", "--json"]).out.is_empty());
}

#[test]
fn named_things_that_do_not_exist_exit_with_3_and_mistakes_with_2() {
    let shop = Shop::internal();
    for args in [&["cert", "cat"][..], &["cert", "renew"], &["cert", "rm", "--yes"]] {
        shop.fails(&[args, &["AAAAAAAAAAA"]].concat(), 3, &["AAAAAAAAAAA", "cert ls"]);
    }
    let ran = shop.run(&["cert", "cat", "short"]);
    assert!(ran.code == 2 && ran.err.contains("11 characters"), "{ran:?}");
    shop.fails(&["cert", "renewable", "tomorrow"], 2, &["tomorrow", "2026-11-22"]);
    shop.fails(&["cert", "mk", "a.shop.example", "--ca", "x"], 2, &["no CA named `x`", "internal"]);
    let ran = shop.run(&["cert", "mk", "a.shop.example", "--key-type", "dsa"]);
    assert!(ran.code == 2 && ran.err.contains("p256"), "{ran:?}");
    assert_eq!(shop.run(&["frobnicate"]).code, 2);
    assert_eq!(shop.ok(&["exit-codes"]).out.lines().count(), 5);
}

#[test]
fn an_identity_that_others_may_read_or_that_is_damaged_is_refused_by_name() {
    let shop = Shop::internal();
    let key = shop.data().join("manager.key");
    let text = std::fs::read_to_string(&key).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    shop.fails(&["cert", "ls"], 2, &["manager.key", "0644", "chmod 600"]);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&key, &text[..text.len() / 2]).unwrap();
    let ran = shop.fails(&["cert", "ls"], 1, &["manager.key", "not an identity file"]);
    let secret = serde_json::from_str::<serde_json::Value>(&text).unwrap()["sign_private"].as_str().unwrap().to_owned();
    assert!(!ran.err.contains(&secret));
    std::fs::remove_file(&key).unwrap();
    shop.fails(&["cert", "ls"], 3, &["manager.key", "certbus init"]);
    std::fs::copy(shop.data().join("nodes.key"), &key).unwrap();
    shop.fails(&["cert", "ls"], 1, &["identity of a node"]);
}

#[test]
fn a_log_that_is_missing_or_no_database_is_named() {
    let shop = Shop::internal();
    let log = shop.data().join("log.db");
    for file in ["log.db", "log.db-wal", "log.db-shm"] {
        let _ = std::fs::remove_file(shop.data().join(file));
    }
    shop.fails(&["cert", "ls"], 1, &["log.db", "certbus init"]);
    assert!(!log.exists(), "nothing was made");
    std::fs::write(&log, vec![b'x'; 5000]).unwrap();
    shop.fails(&["cert", "ls"], 1, &["log.db", "not a SQLite database"]);
}

#[test]
fn a_full_disk_is_named_and_nothing_is_half_written() {
    let shop = Shop::empty();
    let disk = shop.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"])
        .arg(&disk)
        .status()
        .unwrap();
    assert!(mounted.success(), "this test mounts a small disk, which takes root");
    let _unmount = Unmount(disk.clone());
    let run = |args: &[&str]| {
        let output = shop.command(args).env("CERTBUS_DATA", &disk).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(run(&["init", "--ca", "internal"]).0, Some(0));
    assert_eq!(run(&["cert", "mk", "a.shop.example"]).0, Some(0));
    let fill = disk.join("fill");
    let mut size = 1 << 20;
    let mut filled = Vec::new();
    while size >= 512 {
        // Fill to the last page.
        filled.resize(filled.len() + size, 0_u8);
        if std::fs::write(&fill, &filled).is_err() {
            filled.truncate(filled.len() - size);
            size /= 2;
        }
    }
    std::fs::write(&fill, vec![0_u8; 1 << 20]).unwrap_err();
    let (code, error) = run(&["cert", "mk", "b.shop.example"]);
    assert!(code == Some(1) && error.contains("disk is full") && error.contains("log.db"), "{code:?} {error}");
    std::fs::remove_file(&fill).unwrap();
    assert_eq!(run(&["stream", "verify"]).0, Some(0), "nothing half written");
    assert_eq!(run(&["cert", "mk", "b.shop.example"]).0, Some(0), "and it goes on");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_snapshot_cut_in_half_is_named_and_openssl_is_served_again_from_the_log() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let (_, version) = shop.only();
    let roots = shop.path("roots.pem");
    let (server, port) = shop.serve(&[]);
    eventually("served", || openssl(port, "a.shop.example", &roots).ok());
    server.kill();
    let tail = shop.data().join("client/certs.tail");
    let bytes = std::fs::read(&tail).unwrap();
    std::fs::write(&tail, &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(shop.data().join("client/certs.snapshot"), "certbus client snapshot 1\n{\"chain\":").unwrap();
    let (_server, port) = shop.serve(&[]);
    assert_eq!(eventually("served", || openssl(port, "a.shop.example", &roots).ok()), version);
    assert!(shop.data().join("client/certs.snapshot.damaged").exists());
}

/// Appends a batch with a critical event of a newer program, as the manager.
async fn append_from_the_future(shop: &Shop) {
    let text = std::fs::read_to_string(shop.data().join("manager.key")).unwrap();
    let manager = Identity::from_file(&text).unwrap();
    let log = SqliteFile::open(&shop.data().join("log.db"), false).await.unwrap().stream("default/certs");
    let head = log.read(Cursor::START, 1000).await.unwrap().batches.last().unwrap().cursor();
    let draft = Draft {
        log: manager.pin.unwrap().log,
        stream: StreamKind::Certs,
        id: BatchId::from_bytes([1; 16]),
        time: Timestamp::from_millis(0),
        actor: "future".into(),
        source: "test".into(),
        events: vec![],
    };
    let line = r#"{"kind":"CertificateTeleported","format":1,"critical":true,"data":{}}"#.to_owned();
    let batch = Batch::sign_lines(draft, head, manager.sign.as_ref().unwrap(), &[line]);
    log.append(head, batch).await.unwrap();
}

#[test]
fn a_log_of_a_newer_program_is_served_on_by_readers_and_refused_by_writers_and_openssl_sees_no_gap() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let (_, version) = shop.only();
    let roots = shop.path("roots.pem");
    let (_server, port) = shop.serve(&[]);
    eventually("served", || openssl(port, "a.shop.example", &roots).ok());
    tokio::runtime::Runtime::new().unwrap().block_on(append_from_the_future(&shop));
    shop.fails(&["cert", "mk", "b.shop.example"], 1, &["CertificateTeleported", "upgrade"]);
    shop.fails(&["stream", "verify"], 10, &["certs"]);
    shop.run(&["stream", "verify", "--cut", "--yes"]);
    shop.fails(&["stream", "verify"], 10, &["certs"]);
    assert_eq!(openssl(port, "a.shop.example", &roots).unwrap(), version);
}

#[test]
fn a_forged_tail_stops_writers_until_verify_cuts_it_off() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    // A log whose beginning is a snapshot, so that a cut that forgot where it is would take everything.
    shop.ok(&["stream", "snapshot"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = SqliteFile::open(&shop.data().join("log.db"), false).await.unwrap().stream("default/certs");
        let head = log.read(Cursor::START, 1000).await.unwrap().batches.last().unwrap().clone();
        let thief = certbus_core::key::SigningKey::from_seed([7; 32]).unwrap();
        let draft = Draft {
            log: head.envelope().log,
            stream: StreamKind::Certs,
            id: BatchId::from_bytes([2; 16]),
            time: Timestamp::from_millis(0),
            actor: "manager:first".into(),
            source: "cli".into(),
            events: vec![],
        };
        log.append(head.cursor(), Batch::sign(draft, head.cursor(), &thief)).await.unwrap();
    });
    shop.fails(&["cert", "mk", "b.shop.example"], 1, &["never admitted"]);
    let ran = shop.run(&["stream", "verify"]);
    assert!(ran.code == 10 && ran.out.contains("never admitted") && ran.err.contains("--cut"), "{ran:?}");
    shop.run(&["stream", "verify", "--cut"]);
    assert_eq!(shop.run(&["stream", "verify"]).code, 10, "nobody was there to say yes");
    shop.ok(&["stream", "verify", "--cut", "--yes"]);
    shop.ok(&["stream", "verify"]);
    shop.ok(&["cert", "mk", "b.shop.example"]);
    assert_eq!(shop.ok(&["cert", "ls", "--json"]).out.lines().count(), 2, "nothing good was cut");
}

#[test]
fn verify_cuts_nothing_off_a_log_that_is_another() {
    let (shop, other) = (Shop::internal(), Shop::internal());
    shop.ok(&["cert", "mk", "a.shop.example"]);
    let mine = shop.data().join("manager.key");
    std::fs::rename(&mine, shop.path("mine.key")).unwrap();
    std::fs::copy(other.data().join("manager.key"), &mine).unwrap();
    let ran = shop.run(&["stream", "verify", "--cut", "--yes"]);
    assert!(ran.code != 0 && ran.err.contains("pinned"), "{ran:?}");
    std::fs::rename(shop.path("mine.key"), &mine).unwrap();
    shop.ok(&["stream", "verify"]);
    assert_eq!(shop.ok(&["cert", "ls", "--json"]).out.lines().count(), 1);
}
