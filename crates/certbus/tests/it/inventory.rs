//! The inventory as its users meet it: real servers that are polled, files that are imported, processes that are killed.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use certbus_store::Store;
use certbus_store::tasks::{NewTask, TaskQueue};
use serde_json::Value;

use crate::shop::{Running, Shop, eventually, openssl};

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

impl Shop {
    fn rows(&self, args: &[&str]) -> Vec<Value> {
        lines(&self.ok(&[&["endpoint", "ls", "--json"], args].concat()).out)
    }

    fn shown(&self, endpoint: &str) -> Value {
        lines(&self.ok(&["endpoint", "show", endpoint, "--json"]).out).remove(0)
    }

    /// The kinds of what changed at an endpoint, the oldest first, each with its node.
    fn changes(&self, endpoint: &str) -> Vec<String> {
        let shown = self.shown(endpoint);
        let told =
            |change: &Value| format!("{} {}", change["address"].as_str().unwrap(), change["kind"].as_str().unwrap());
        let mut changes: Vec<String> = shown["changes"].as_array().unwrap().iter().map(told).collect();
        changes.reverse();
        changes
    }

    /// OpenSSL, serving what was exported to `folder`, on an address of loopback.
    fn s_server(&self, place: &str, folder: &Path) -> Running {
        let server = Command::new("openssl")
            .args(["s_server", "-accept", place, "-quiet"])
            .arg("-cert_chain")
            .arg(folder.join("fullchain.pem"))
            .arg("-cert")
            .arg(folder.join("cert.pem"))
            .arg("-key")
            .arg(folder.join("privkey.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Running::new(server);
        eventually("openssl listens", || TcpStream::connect(place).ok());
        server
    }

    fn inventory<T>(&self, act: impl AsyncFnOnce(&Store) -> T) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let store = Store::open(&self.data().join("inventory.db")).await.unwrap();
            act(&store).await
        })
    }

    fn serves_all(&self, args: &[&str]) -> Running {
        let child = self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Running::new(child)
    }
}

/// A port that is free on both addresses of loopback.
fn free_on_both() -> u16 {
    loop {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = four.local_addr().unwrap().port();
        if TcpListener::bind(("::1", port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn serve_alone_polls_what_is_watched_and_a_renewal_is_in_its_history_as_openssl_sees_it() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "shop.example"]);
    let (id, first) = shop.only();
    let (_server, port) = shop.serve(&[]);
    let endpoint = format!("127.0.0.1:{port}");
    // Polled at once, and not again by itself while this looks.
    shop.ok(&["endpoint", "add", &endpoint, "--sni", "shop.example", "--interval", "30d"]);
    let _serve = shop.serves_all(&["serve"]);
    let served = |shop: &Shop| shop.rows(&[]).remove(0)["fingerprint"].as_str().map(str::to_owned);
    assert_eq!(eventually("polled at once", || served(&shop)), first);
    let row = shop.rows(&[]).remove(0);
    assert_eq!(
        (&row["serves"], &row["managed"], &row["state"]),
        (&"current".into(), &format!("default/{id}").into(), &"ok".into())
    );
    shop.ok(&["cert", "renew", &id]);
    let (_, second) = shop.only();
    let roots = shop.path("roots.pem");
    eventually("openssl sees the new version", || {
        openssl(port, "shop.example", &roots).ok().filter(|seen| *seen == second)
    });
    // Before the next poll the inventory knows of the new version, and that it was not seen yet.
    let behind = || (shop.rows(&["--state", "older-version"]).len() == 1).then_some(());
    eventually("behind", behind);
    shop.ok(&["endpoint", "poll", &endpoint]);
    assert_eq!(served(&shop), Some(second.clone()));
    assert_eq!(shop.changes(&endpoint), ["127.0.0.1 first", "127.0.0.1 replaced"]);
    let shown = shop.shown(&endpoint);
    let stays: Vec<_> =
        shown["timeline"].as_array().unwrap().iter().map(|stay| &stay["certificate"]["fingerprint"]).collect();
    assert_eq!(stays, [second.as_str(), first.as_str()], "the newest first");
    assert!(shop.ok(&["cert", "explain", &id]).out.contains("served by its only node"));
}

#[test]
fn the_node_that_still_has_the_old_version_is_named_by_explain_and_found_by_its_state() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "shop.example"]);
    let (id, first) = shop.only();
    let (old, new) = (shop.path("old"), shop.path("new"));
    shop.ok(&["cert", "export", &id, "--out", old.to_str().unwrap()]);
    let port = free_on_both();
    let endpoint = format!("localhost:{port}");
    let servers = (shop.s_server(&format!("127.0.0.1:{port}"), &old), shop.s_server(&format!("[::1]:{port}"), &old));
    shop.ok(&["endpoint", "add", &endpoint, "--sni", "shop.example"]);
    shop.ok(&["serve", "--once"]);
    assert!(shop.ok(&["cert", "explain", &id]).out.contains("served by all 2 nodes"));
    shop.ok(&["cert", "renew", &id]);
    shop.ok(&["cert", "export", &id, "--out", new.to_str().unwrap()]);
    servers.0.kill();
    let _four = shop.s_server(&format!("127.0.0.1:{port}"), &new);
    shop.ok(&["endpoint", "poll", &endpoint]);
    let told = shop.ok(&["cert", "explain", &id]).out;
    assert!(told.contains("served by 1 of 2 nodes; node ::1 still has the old one"), "{told}");
    let rows = shop.rows(&["--state", "older-version"]);
    assert_eq!((rows.len(), &rows[0]["serves"]), (1, &"older-version".into()));
    let nodes = lines(&shop.ok(&["cert", "explain", &id, "--json"]).out);
    let behind = nodes.iter().find(|node| node["node"]["serves"] == "older-version").unwrap();
    assert_eq!((&behind["node"]["address"], &behind["node"]["fingerprint"]), (&"::1".into(), &first.as_str().into()));
    // The node goes away; what it served stays in the history, and its failure is told with its reason.
    servers.1.kill();
    shop.ok(&["endpoint", "poll", &endpoint]);
    let shown = shop.shown(&endpoint);
    assert!(shown["endpoint"]["failing_since"].is_string());
    let text = shown.to_string();
    assert!(text.contains("refused") && text.contains(&first), "{text}");
    let changes = shop.changes(&endpoint);
    assert_eq!(&changes[2..], ["127.0.0.1 replaced", "::1 failing"], "{changes:?}");
}

#[test]
fn scheduler_and_worker_run_apart_and_each_site_polls_its_own() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "shop.example"]);
    let (_server, port) = shop.serve(&[]);
    let endpoint = format!("127.0.0.1:{port}");
    shop.ok(&["endpoint", "add", &endpoint, "--sni", "shop.example", "--sites", "tokyo,paris"]);
    assert!(shop.ok(&["scheduler", "--once"]).out.contains("2 polls"));
    assert!(shop.ok(&["scheduler", "--once"]).out.contains("0 polls"));
    assert!(shop.ok(&["worker", "--once"]).out.contains("0 polls"), "nothing is to be polled from here");
    assert!(shop.ok(&["worker", "--once", "--site", "tokyo"]).out.contains("1 polls"));
    let shown = shop.shown(&endpoint);
    let sites: Vec<_> = shown["timeline"].as_array().unwrap().iter().map(|stay| stay["site"].clone()).collect();
    assert_eq!(sites, ["tokyo"]);
    let _worker = shop.serves_all(&["worker", "--site", "paris"]);
    let both = || (shop.shown(&endpoint)["timeline"].as_array().unwrap().len() == 2).then_some(());
    eventually("paris has polled it", both);
    shop.fails(&["worker", "--site", "no/such site"], 2, &["a-z"]);
}

#[test]
fn invariant_9_csv_lines_that_are_wrong_are_named_with_their_number_and_the_others_are_stored() {
    let shop = Shop::empty();
    shop.ok(&["init", "--ca", "internal"]);
    let file = shop.path("endpoints.csv");
    let text = "\u{feff}name,host,port,tags\nShop,shop.example,443,\"web, eu\"\n,mail.example,70000,\nBad,not a host,443,\n\
                # a remark\n\nMail,mail.example,25,\nShort,a.example\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let dry = shop.run(&["endpoint", "import", path, "--dry-run"]);
    assert!(dry.code == 1 && dry.out.contains("nothing was stored"), "{dry:?}");
    assert!(shop.rows(&[]).is_empty());
    let ran = shop.run(&["endpoint", "import", path]);
    assert_eq!(ran.code, 1);
    for words in [
        "line 3: port: `70000` is no port",
        "line 4: host: `not a host`",
        "line 8: it has 2 fields, and the heading 4",
        "3 of 5 lines",
    ] {
        assert!(ran.err.contains(words), "`{words}` is not in {}", ran.err);
    }
    assert!(ran.out.contains("2 added, 0 changed, 0 as before"), "{ran:?}");
    let rows = shop.rows(&[]);
    let spelt =
        |row: &Value| format!("{} {} {}", row["name"].as_str().unwrap(), row["host"].as_str().unwrap(), row["port"]);
    assert_eq!(rows.iter().map(spelt).collect::<Vec<_>>(), ["Mail mail.example 25", "Shop shop.example 443"]);
    assert_eq!(rows[0]["starttls"], "smtp", "guessed from the port");
    let again = shop.run(&["endpoint", "import", path]);
    assert!(again.out.contains("0 added, 0 changed, 2 as before"), "{again:?}");
    for (text, words) in [
        ("name,port\nShop,443\n", "no heading with a column `host`"),
        ("host,prot\na.example,443\n", "no column is called `prot`"),
        ("host,host\na.example,b.example\n", "twice"),
    ] {
        std::fs::write(&file, text).unwrap();
        shop.fails(&["endpoint", "import", path], 2, &["line 1", words]);
    }
    shop.fails(&["endpoint", "import", "/no/such/file"], 1, &["/no/such/file"]);
    let plain = shop.run_with_input(&["endpoint", "import", "-"], "b.example\nimap://c.example\n");
    assert!(plain.code == 0 && plain.out.contains("2 added"), "{plain:?}");
}

#[test]
fn what_is_exported_is_imported_elsewhere_as_it_was() {
    let shop = Shop::empty();
    shop.ok(&["init", "--ca", "internal"]);
    let add = |args: &[&str]| shop.ok(&[&["endpoint", "add"], args].concat());
    add(&[
        "shop.example:8443",
        "--name",
        "The \"Shop\", web",
        "--owner",
        "ada",
        "--tags",
        "eu,web",
        "--interval",
        "30m",
    ]);
    add(&["192.0.2.7", "--sni", "shop.example", "--sites", "tokyo", "--paused"]);
    add(&["mail.example:25", "--starttls", "none"]);
    let without = |rows: Vec<Value>| -> Vec<Value> {
        let strip = |mut row: Value| {
            for key in ["id", "added_at", "revision"] {
                row.as_object_mut().unwrap().remove(key);
            }
            row
        };
        rows.into_iter().map(strip).collect()
    };
    for format in [&["--csv"][..], &[]] {
        let exported = shop.ok(&[&["endpoint", "export"], format].concat()).out;
        let other = Shop::empty();
        other.ok(&["init", "--ca", "internal"]);
        let ran = other.run_with_input(&["endpoint", "import", "-"], &exported);
        assert!(ran.code == 0 && ran.out.contains("3 added"), "{ran:?}");
        assert_eq!(without(other.rows(&[])), without(shop.rows(&[])));
    }
}

#[test]
fn lines_of_a_scan_become_endpoints_with_what_was_seen() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "shop.example"]);
    let (_, version) = shop.only();
    let (_server, port) = shop.serve(&[]);
    let place = format!("127.0.0.1:{port}");
    let scanned = shop.ok(&["scan", "--json", "--sni", "shop.example", &place, "127.0.0.1:9"]).out;
    for (added, same) in [(2, 0), (0, 2)] {
        let ran = shop.run_with_input(&["endpoint", "import", "-"], &scanned);
        assert!(ran.code == 0 && ran.out.contains(&format!("{added} added, 0 changed, {same} as before")), "{ran:?}");
    }
    let row = shop.rows(&["--state", "ok"]).remove(0);
    assert_eq!((&row["host"], &row["fingerprint"]), (&"127.0.0.1".into(), &version.as_str().into()));
    assert_eq!(shop.changes(&place), ["127.0.0.1 first"], "and it is there once");
    let broken = scanned.replace("\"schema\":1", "\"schema\":99");
    let ran = shop.run_with_input(&["endpoint", "import", "-"], &broken);
    assert!(ran.code == 1 && ran.err.contains("line 1") && ran.err.contains("schema 99"), "{ran:?}");
}

#[test]
fn what_cannot_be_an_endpoint_is_refused_with_why() {
    let shop = Shop::empty();
    shop.ok(&["init", "--ca", "internal"]);
    shop.ok(&["endpoint", "add", "shop.example"]);
    shop.fails(&["endpoint", "add", "https://shop.example/path"], 2, &["already", "number 1"]);
    shop.fails(&["endpoint", "add", "a.example", "--port", "70000"], 2, &["port", "1 to 65535"]);
    shop.fails(&["endpoint", "add", "a..example"], 2, &["host", "empty label"]);
    shop.fails(&["endpoint", "add", "b.example", "a example"], 2, &["host"]);
    assert_eq!(shop.rows(&[]).len(), 1, "all or none");
    shop.fails(&["endpoint", "edit", "shop.example"], 2, &["nothing to change"]);
    shop.fails(&["endpoint", "edit", "nobody.example", "--owner", "ada"], 3, &["nobody.example", "endpoint ls"]);
    shop.fails(&["endpoint", "rm", "shop.example"], 2, &["--yes"]);
    shop.fails(&["endpoint", "ls", "--state", "sad"], 2, &["older-version"]);
    shop.fails(&["endpoint", "poll", "nobody.example"], 3, &["nobody.example"]);
    shop.ok(&["endpoint", "edit", "shop.example", "--owner", "ada", "--interval", "10m"]);
    shop.ok(&["endpoint", "rm", "shop.example", "--yes"]);
    let trail = lines(&shop.ok(&["audit", "--json"]).out);
    let actions: Vec<_> = trail.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["endpoint rm", "endpoint edit", "endpoint add"]);
    assert!(trail[1]["detail"].as_str().unwrap().contains("ada"), "{trail:?}");
}

#[test]
fn a_killed_worker_and_a_killed_scheduler_lose_nothing_and_change_nothing_twice() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "*.shop.example"]);
    let (_server, port) = shop.serve(&[]);
    // Names that differ in their SNI lead to the one server; some to nobody.
    let mut csv = String::from("host,port,sni,interval\n");
    for number in 0..600 {
        let port = if number % 10 == 0 { 9 } else { port };
        csv.push_str(&format!("127.0.0.1,{port},n{number}.shop.example,1m\n"));
    }
    let ran = shop.run_with_input(&["endpoint", "import", "-"], &csv);
    assert_eq!(ran.code, 0, "{ran:?}");
    let begun = std::time::Instant::now();
    let mut kills = 0;
    while begun.elapsed() < Duration::from_secs(12) {
        let pair = (shop.serves_all(&["scheduler"]), shop.serves_all(&["worker"]));
        std::thread::sleep(Duration::from_millis(150 + kills * 37 % 400));
        pair.0.kill();
        pair.1.kill();
        kills += 1;
    }
    // What a killed worker had is another's when its lease has ended.
    let (_scheduler, _worker) = (shop.serves_all(&["scheduler"]), shop.serves_all(&["worker"]));
    let unseen = || shop.rows(&["--state", "unseen"]).is_empty().then_some(());
    crate::inventory::patiently("every endpoint is polled", unseen);
    let rows = shop.rows(&[]);
    assert_eq!(rows.len(), 600);
    assert_eq!(rows.iter().filter(|row| row["state"] == "failing").count(), 60);
    let firsts = shop.inventory(async |store| store.changes(None, None, 10_000).await.unwrap());
    let kinds: Vec<&str> = firsts.iter().map(|change| change.kind.as_str()).collect();
    let count = |kind: &str| kinds.iter().filter(|one| **one == kind).count();
    eprintln!("{kills} kills, {} changes", kinds.len());
    assert_eq!((count("failing"), count("first") + count("failing")), (60, kinds.len()), "each once");
    let mut places: Vec<_> = firsts.iter().map(|change| (change.endpoint, &change.kind)).collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), kinds.len(), "nothing is told twice");
}

/// As [`eventually`], for what waits for a lease to end.
fn patiently<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "not within two minutes: {what}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_task_that_was_given_up_is_listed_with_why_and_tried_again_when_a_person_says_so() {
    let shop = Shop::empty();
    shop.ok(&["init", "--ca", "internal"]);
    shop.ok(&["endpoint", "add", "127.0.0.1:9"]);
    let poison = NewTask { lane: "poll/default".into(), key: None, body: "no task at all".into() };
    shop.inventory(async |store| {
        let now = certbus_manager::clock::now();
        store.add(&[poison], now).await.unwrap();
        let mut at = now;
        for _ in 0..certbus_store::tasks::ATTEMPTS {
            let task = store.lease("poll/default", 1, at, Duration::from_secs(1)).await.unwrap().remove(0);
            store.failed(&task, "the task is not one of polls", at).await.unwrap();
            at = store.list(at, None, 1).await.unwrap()[0].ready_at;
        }
    });
    let listed = shop.ok(&["task", "ls"]).out;
    assert!(listed.contains("dead") && listed.contains("not one of polls"), "{listed}");
    shop.fails(&["task", "retry", "99"], 3, &["99", "task ls"]);
    shop.ok(&["task", "retry", "1"]);
    shop.ok(&["worker", "--once"]);
    let task = lines(&shop.ok(&["task", "ls", "--json"]).out).remove(0);
    assert_eq!((&task["state"], &task["attempts"]), (&"waiting".into(), &1.into()), "it failed again, and waits");
    assert!(shop.ok(&["audit"]).out.contains("task retry"));
}

#[test]
fn an_inventory_that_is_newer_damaged_or_no_database_is_named_and_made_no_worse() {
    let shop = Shop::empty();
    shop.ok(&["init", "--ca", "internal"]);
    // Enough rows that a page in the middle is a table's.
    let csv: String = (0..200).map(|n| format!("host-{n}.example\n")).collect();
    assert_eq!(shop.run_with_input(&["endpoint", "import", "-"], &csv).code, 0);
    let file = shop.data().join("inventory.db");
    // All of it in the one file.
    let checkpoint =
        "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()";
    assert!(Command::new("python3").args(["-c", checkpoint]).arg(&file).status().unwrap().success());
    let good = std::fs::read(&file).unwrap();
    let put = |bytes: &[u8]| {
        for beside in ["inventory.db-wal", "inventory.db-shm"] {
            let _ = std::fs::remove_file(shop.data().join(beside));
        }
        std::fs::write(&file, bytes).unwrap();
    };
    // `user_version` stands at byte 60 of the header (SQLite's file format, section 1.3).
    let mut newer = good.clone();
    newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
    put(&newer);
    shop.fails(&["endpoint", "ls"], 1, &["inventory.db", "newer program", "upgrade"]);
    assert_eq!(std::fs::read(&file).unwrap(), newer, "left as it is");
    put(&vec![b'x'; 9000]);
    shop.fails(&["endpoint", "ls"], 1, &["inventory.db", "not a SQLite database"]);
    let mut damaged = good.clone();
    let length = damaged.len();
    damaged[8192..length].fill(0xaa);
    put(&damaged);
    shop.fails(&["endpoint", "add", "more.example"], 1, &["inventory.db", "damaged", "restore"]);
    assert_eq!(std::fs::read(&file).unwrap(), damaged, "nothing is made worse");
    // Renewals do not need it.
    let once = shop.run(&["serve", "--once"]);
    assert!(once.code == 1 && once.out.contains("nothing was due") && once.out.contains("inventory.db"), "{once:?}");
    put(&good);
    assert_eq!(shop.rows(&[]).len(), 200);
    // The log is a SQLite file too, and not this one.
    let log = std::fs::read(shop.data().join("log.db")).unwrap();
    put(&log);
    shop.fails(&["endpoint", "ls"], 1, &["inventory.db", "something else"]);
    assert_eq!(std::fs::read(&file).unwrap(), log, "left as it is");
}

#[test]
fn a_full_disk_under_the_inventory_is_named_and_nothing_is_half_written() {
    let shop = Shop::empty();
    shop.ok(&["init", "--ca", "internal"]);
    let disk = shop.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"]).arg(&disk).status();
    assert!(mounted.unwrap().success(), "this test mounts a small disk, which takes root");
    let _unmount = Unmount(disk.clone());
    let mut settings = std::fs::OpenOptions::new().append(true).open(shop.path("certbus.toml")).unwrap();
    write!(settings, "\n[inventory]\nurl = \"sqlite:{}/inventory.db\"\n", disk.display()).unwrap();
    shop.ok(&["endpoint", "add", "first.example"]);
    let csv: String = (0..5000).map(|n| format!("host-{n}.with-a-long-name.example\n")).collect();
    let file = shop.path("many.txt");
    std::fs::write(&file, csv).unwrap();
    let ran = shop.run(&["endpoint", "import", file.to_str().unwrap()]);
    assert!(ran.code == 1 && ran.err.contains("inventory.db") && ran.err.contains("disk is full"), "{ran:?}");
    let rows = shop.rows(&[]).len();
    assert!(rows >= 1 && (rows - 1).is_multiple_of(1000), "whole transactions: {rows}");
    let counts = shop.ok(&["endpoint", "ls", "first.example"]).out;
    assert!(counts.contains("first.example"), "{counts}");
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
