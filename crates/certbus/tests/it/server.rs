//! The command line against a server, from a machine that has nothing but a token: it prints what it prints there.

mod api;
mod refusals;

use std::process::Command;

use serde_json::Value;

use crate::alerts::patiently;
use crate::shop::{Ran, Shop};
use crate::web::served;

/// A machine with an empty home, and the server that its commands go to.
struct Laptop {
    home: tempfile::TempDir,
    url: String,
    token: String,
}

impl Laptop {
    fn of(shop: &Shop, url: &str, scope: &str) -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            url: url.to_owned(),
            token: shop.token(&format!("laptop-{scope}"), scope),
        }
    }

    fn at(&self, url: &str) -> Self {
        Self { home: tempfile::tempdir().unwrap(), url: url.to_owned(), token: self.token.clone() }
    }

    /// The program there, with a token and no server.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certbus"));
        command
            .args(args)
            .env("HOME", self.home.path())
            .env("CERTBUS_TOKEN", &self.token)
            .current_dir(self.home.path());
        for name in ["CERTBUS_CONFIG", "CERTBUS_DATA", "CERTBUS_SERVER", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "RUST_LOG"]
        {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(&[&["--server", &self.url], args].concat()).output().unwrap())
    }

    fn ok(&self, args: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran
    }

    /// Expects an exit code and words, one error, and no token in it.
    fn fails(&self, args: &[&str], code: i32, words: &[&str]) -> Ran {
        let ran = self.run(args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "{args:?}: `{word}` is not in: {}", ran.err);
        }
        assert_eq!(ran.err.matches("error:").count(), 1, "one error: {}", ran.err);
        assert!(!ran.err.contains(&self.token), "the token is told: {}", ran.err);
        ran
    }

    fn has_nothing(&self) {
        let left: Vec<_> = std::fs::read_dir(self.home.path()).unwrap().flatten().map(|one| one.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// What was printed, without what passes from one moment to the next.
fn steady(text: &str) -> String {
    let line = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(mut value) => {
            for place in ["/slack", "/endpoint/slack"] {
                if let Some(slack) = value.pointer_mut(place) {
                    *slack = Value::Null;
                }
            }
            value.to_string()
        }
        Err(_) => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_list_is_printed_from_afar_as_it_is_printed_on_the_server() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    shop.ok(&["cert", "mk", "--subdomain", "a.shop.example", "-d", "b.shop.example"]);
    let (id, removed) = {
        let rows = shop.ok(&["cert", "ls", "--json"]).out;
        let id = |line: &str| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        let ids: Vec<String> = rows.lines().map(id).collect();
        (ids[1].clone(), ids[0].clone())
    };
    shop.ok(&["cert", "rm", &removed, "--yes"]);
    let (_example, port) = shop.serve(&[]);
    let place = format!("127.0.0.1:{port}");
    // Paused, so that nothing changes while it is compared.
    shop.ok(&[
        "endpoint",
        "add",
        &place,
        "--sni",
        "www.shop.example",
        "--name",
        "www",
        "--tags",
        "eu,web",
        "--owner",
        "me",
    ]);
    shop.ok(&["endpoint", "add", "127.0.0.1:9", "--name", "dead", "--interval", "10m"]);
    shop.ok(&["endpoint", "add", "[::1]:993", "smtp://mail.shop.example", "--paused"]);
    shop.ok(&["endpoint", "poll", "www", "dead"]);
    shop.ok(&["endpoint", "edit", "www", "dead", "--paused"]);
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "admin");
    // Used once, each token's line stays as it is for a minute.
    laptop.ok(&["task", "ls"]);
    let commands: Vec<Vec<&str>> = vec![
        vec!["endpoint", "ls"],
        vec!["endpoint", "ls", "--limit", "2"],
        vec!["endpoint", "ls", "--state", "paused", "--tag", "eu"],
        vec!["endpoint", "ls", "shop"],
        vec!["endpoint", "ls", "--owner", "nobody"],
        vec!["endpoint", "show", "www"],
        vec!["endpoint", "show", "dead"],
        vec!["endpoint", "show", "127.0.0.1:9"],
        vec!["endpoint", "export"],
        vec!["endpoint", "export", "--csv"],
        vec!["task", "ls"],
        vec!["audit"],
        vec!["audit", "--limit", "3"],
        vec!["audit", "--before", "3"],
        vec!["cert", "ls"],
        vec!["cert", "cat", &id],
        vec!["cert", "explain", &id],
        vec!["cert", "explain", &removed],
        vec!["user", "ls"],
        vec!["token", "ls"],
    ];
    let mut compared = 0;
    for command in &commands {
        for json in [false, true] {
            if json && command.contains(&"export") {
                continue;
            }
            let args = if json { [command.as_slice(), &["--json"]].concat() } else { command.clone() };
            let (here, there) = (shop.run(&args), laptop.run(&args));
            assert_eq!(
                (here.code, steady(&here.out)),
                (there.code, steady(&there.out)),
                "{args:?} {} {}",
                here.err,
                there.err
            );
            let said = [here.err.replace(shop.data().join("inventory.db").to_str().unwrap(), "PLACE"), there.err];
            assert_eq!(said[0], said[1].replace(&laptop.url, "PLACE"), "{args:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 38);
    for (args, code) in [
        (["endpoint", "show", "nobody"], 3),
        (["cert", "cat", "AAAAAAAAAAA"], 3),
        (["cert", "explain", "AAAAAAAAAAA"], 3),
        (["task", "retry", "99"], 3),
        (["endpoint", "show", "127.0.0.1"], 2),
    ] {
        let (here, there) = (shop.fails(&args, code, &[]), laptop.fails(&args, code, &[]));
        assert_eq!(here.err, there.err, "{args:?}");
    }
    laptop.has_nothing();
}

#[test]
fn endpoints_are_added_edited_imported_exported_and_removed_from_afar_and_the_trail_names_the_token() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "write");
    let added = laptop.ok(&["endpoint", "add", "a.test", "smtp://b.test", "127.0.0.1:9", "--tags", "eu", "--paused"]);
    assert_eq!(
        added.out,
        "✓ a.test:443 is watched, as number 1\n✓ smtp://b.test:25 is watched, as number 2\n✓ 127.0.0.1:9 is watched, as number 3\n"
    );
    // All or none.
    laptop.fails(&["endpoint", "add", "c.test", "a.test"], 2, &["is an endpoint already (number 1"]);
    laptop.fails(&["endpoint", "add", "c.test", "no host!"], 2, &["host: `no host!`"]);
    assert_eq!(laptop.ok(&["endpoint", "ls", "--json"]).out.lines().count(), 3);
    laptop.ok(&[
        "endpoint",
        "edit",
        "b.test",
        "--host",
        "d.test",
        "--owner",
        "me",
        "--interval",
        "10m",
        "--sni",
        "e.test",
    ]);
    let here = shop.ok(&["endpoint", "export"]).out;
    assert!(
        here.contains("\"host\":\"d.test\",\"port\":25,\"sni\":\"e.test\",\"starttls\":\"smtp\"")
            && here.contains("\"interval\":\"10m\""),
        "{here}"
    );
    assert!(laptop.ok(&["endpoint", "edit", "d.test", "--owner", "me"]).out.contains("is so already"));
    laptop.fails(&["endpoint", "edit", "a.test", "--port", "99999"], 2, &["port: `99999`"]);
    laptop.fails(&["endpoint", "rm", "a.test"], 2, &["--yes"]);
    laptop.fails(&["endpoint", "rm", "a.test", "zz.test", "--yes"], 3, &["zz.test"]);
    laptop.ok(&["endpoint", "rm", "a.test", "3", "--yes"]);
    let csv = laptop.home.path().join("in.csv");
    let mut text = String::from("host,port,tags\n");
    (0..2500).for_each(|number| text.push_str(&format!("n{number}.test,443,\"x,y\"\n")));
    text.push_str("bad host!,443,\nlast.test,70000,\nlast.test,443,z\n");
    std::fs::write(&csv, &text).unwrap();
    let file = csv.to_str().unwrap();
    let dry = laptop.run(&["endpoint", "import", file, "--dry-run"]);
    assert_eq!((dry.code, dry.out.as_str()), (1, "2501 endpoints could be read, 2 lines not; nothing was stored\n"));
    let ran = laptop.run(&["endpoint", "import", file]);
    assert_eq!((ran.code, ran.out.as_str()), (1, "2501 added, 0 changed, 0 as before\n"), "{ran:?}");
    for words in ["line 2502: host:", "line 2503: port: `70000`", "2 of 2503 lines were not imported"] {
        assert!(ran.err.contains(words), "{words}: {}", ran.err);
    }
    let (again, there) = (shop.run(&["endpoint", "import", file]), laptop.run(&["endpoint", "import", file]));
    assert_eq!((again.code, &again.out, &again.err), (there.code, &there.out, &there.err));
    assert!(there.out.contains("2501 as before"));
    assert_eq!(shop.ok(&["endpoint", "export", "--csv"]).out, laptop.ok(&["endpoint", "export", "--csv"]).out);
    assert_eq!(shop.ok(&["endpoint", "export"]).out.lines().count(), 2502);
    let trail = shop.ok(&["audit", "--limit", "5000", "--json"]).out;
    for action in ["endpoint add", "endpoint edit", "endpoint rm"] {
        let line = format!("\"actor\":\"token laptop-write\",\"source\":\"127.0.0.1\",\"action\":\"{action}\"");
        assert!(trail.contains(&line), "{line}");
    }
    // What a scan saw comes with it.
    let (_example, port) = shop.serve(&[]);
    let scanned = shop.run(&["scan", "--json", &format!("127.0.0.1:{port}")]);
    let seen = laptop.home.path().join("seen.json");
    std::fs::write(&seen, scanned.out).unwrap();
    laptop.ok(&["endpoint", "import", seen.to_str().unwrap()]);
    assert!(laptop.ok(&["endpoint", "show", &format!("127.0.0.1:{port}")]).out.contains("127.0.0.1"));
}

#[test]
fn a_poll_that_is_asked_for_from_afar_is_waited_for_and_printed_as_one_made_there() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    let (_example, port) = shop.serve(&[]);
    shop.ok(&[
        "endpoint",
        "add",
        &format!("127.0.0.1:{port}"),
        "--sni",
        "www.shop.example",
        "--name",
        "www",
        "--interval",
        "30d",
    ]);
    shop.ok(&["endpoint", "add", "127.0.0.1:9", "--name", "dead", "--interval", "30d"]);
    shop.ok(&["endpoint", "add", "127.0.0.1:8", "--name", "off", "--paused"]);
    shop.ok(&["endpoint", "poll", "www", "dead"]);
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "write");
    for args in [["endpoint", "poll", "www"], ["endpoint", "poll", "dead"], ["endpoint", "poll", "--all"]] {
        let (here, there) = (shop.ok(&args), laptop.ok(&args));
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&here.out), sorted(&there.out), "{args:?}");
        assert_eq!(here.err, there.err, "{args:?}");
    }
    let rows = |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let (mut here, mut there) = (
        rows(&shop.ok(&["endpoint", "poll", "dead", "--json"]).out),
        rows(&laptop.ok(&["endpoint", "poll", "dead", "--json"]).out),
    );
    assert!(there[0]["at"].as_str() > here[0]["at"].as_str(), "it was polled anew");
    assert_eq!(there[0]["failure"]["kind"], "refused", "{there:?}");
    here[0]["at"] = Value::Null;
    there[0]["at"] = Value::Null;
    assert_eq!(here, there);
    laptop.fails(&["endpoint", "poll", "off"], 2, &["off is paused"]);
    laptop.fails(&["endpoint", "poll", "nobody"], 3, &["nobody"]);
}

#[test]
fn a_certificate_is_ordered_renewed_explained_and_removed_from_afar() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "write");
    let ordered = laptop.ok(&["cert", "mk", "shop.example", "--key-type", "p384"]);
    let (id, first) = shop.only();
    assert!(
        ordered.out.starts_with("names      shop.example, www.shop.example\nCA         internal\n"),
        "{}",
        ordered.out
    );
    assert!(
        ordered.out.contains(&format!("✓ {id} ")) && ordered.out.contains(&format!("  version {first}\n")),
        "{}",
        ordered.out
    );
    let again = laptop.ok(&["cert", "mk", "shop.example"]);
    assert_eq!(again.out, shop.ok(&["cert", "mk", "shop.example"]).out);
    let renewed = laptop.ok(&["cert", "renew", &id]);
    let (_, second) = shop.only();
    assert_ne!(first, second);
    assert!(renewed.out.contains(&format!("  version {second}\n")), "{}", renewed.out);
    assert_eq!(laptop.ok(&["cert", "explain", &id, "--json"]).out, shop.ok(&["cert", "explain", &id, "--json"]).out);
    laptop.fails(&["cert", "mk", "*.shop.example", "--challenge", "http-01"], 2, &["wildcard"]);
    laptop.fails(&["cert", "mk", "x.example", "--ca", "nobody"], 2, &["there is no CA named `nobody`"]);
    laptop.fails(&["cert", "mk", "no name!"], 2, &["no name!"]);
    laptop.fails(&["cert", "renew", "AAAAAAAAAAA"], 3, &["AAAAAAAAAAA"]);
    laptop.fails(&["cert", "rm", &id], 2, &["--yes"]);
    assert!(laptop.ok(&["cert", "rm", &id, "--yes"]).out.contains("nothing was revoked"));
    laptop.fails(&["cert", "rm", &id, "--yes"], 3, &[&id]);
    assert!(laptop.ok(&["cert", "explain", &id]).out.contains("managed no more"));
}

#[test]
fn an_order_at_pebble_from_afar_ends_with_what_the_ca_said() {
    let (shop, _turn) = crate::pebble::shop_for("PEBBLE");
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "write");
    let name = crate::pebble::fresh("http.test");
    let ordered = laptop.ok(&["cert", "mk", "--subdomain", &name]);
    assert!(ordered.out.contains("challenge  http-01\n") && ordered.out.contains("  version "), "{}", ordered.out);
    assert_eq!(laptop.ok(&["cert", "ls"]).out, shop.ok(&["cert", "ls"]).out);
    let other = crate::pebble::fresh("http.test");
    laptop.fails(
        &["cert", "mk", "--subdomain", &other, "--profile", "nonesuch"],
        1,
        &["nonesuch", "is kept and tried again"],
    );
}

#[test]
fn alerts_are_muted_and_settings_changed_from_afar() {
    let shop = Shop::internal();
    shop.program("cat >>OUT");
    shop.dead_ends(1, "ada@shop.example");
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "admin");
    patiently("the problem is told", || Some(()).filter(|()| laptop.ok(&["alert", "log"]).out.contains("delivered")));
    for list in [["alert", "ls"], ["alert", "log"], ["conf", "display"]] {
        assert_eq!(laptop.ok(&list).out, shop.ok(&list).out, "{list:?}");
    }
    laptop.ok(&["alert", "mute", "endpoint/1", "--for", "7d"]);
    let muted = laptop.ok(&["alert", "ls"]);
    assert!(muted.out.contains("muted") && muted.err.contains("endpoint/1 is muted until"), "{muted:?}");
    assert!(muted.err.contains("by token laptop-admin"), "{muted:?}");
    laptop.fails(&["alert", "mute", "endpoint/77"], 3, &["endpoint/77"]);
    laptop.ok(&["alert", "unmute", "endpoint/1"]);
    laptop.fails(&["alert", "unmute", "endpoint/1"], 3, &["endpoint/1"]);
    assert!(laptop.ok(&["alert", "test"]).out.contains("exec took it"));

    let file = laptop.home.path().join("issuing.toml");
    // A mask where a URL, a key or a login belongs is one of those too.
    let masked = "[dns01]\nprovider = \"rfc2136\"\nserver = \"192.0.2.1:53\"\nkey_name = \"k\"\nkey_secret = \"c2VjcmV0LWtleQ==\"\n\
        [check_in]\nurl = \"https://check.example/t1cket\"\nalertmanager = \"http://me:hushhush@127.0.0.1:1\"\n";
    let revealed = shop.ok(&["conf", "display", "--reveal"]).out;
    assert_eq!(shop.run_with_input(&["conf", "update"], &format!("{revealed}\n{masked}")).code, 0);
    let conf = laptop.ok(&["conf", "display"]).out;
    assert_eq!(conf, shop.ok(&["conf", "display"]).out);
    for secret in ["c2VjcmV0", "t1cket", "hushhush"] {
        assert!(
            !conf.contains(secret) && shop.ok(&["conf", "display", "--reveal"]).out.contains(secret),
            "{secret}: {conf}"
        );
    }
    assert!(conf.contains("http://********@127.0.0.1:1"), "{conf}");
    assert_eq!(shop.run_with_input(&["conf", "update"], &conf).code, 0, "as it was shown");
    assert!(shop.ok(&["audit", "--json"]).out.contains("\"detail\":\"check_in, dns01\""));
    let hook = |url: &str| format!("{conf}\n[[alerts.webhook]]\nname = \"chat\"\nurl = \"{url}\"\n");
    let update = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        laptop.run(&[&["conf", "update", file.to_str().unwrap()], more].concat())
    };
    let dry = update(&hook("https://chat.example/t0ken"), &["--dry-run"]);
    assert!(dry.code == 0 && dry.out.contains("+ name = \"chat\"") && !dry.out.contains("t0ken"), "{dry:?}");
    assert_eq!(shop.ok(&["conf", "display"]).out, conf, "nothing was sealed");
    assert_eq!(update(&hook("https://chat.example/t0ken"), &[]).code, 0);
    let revealed = shop.ok(&["conf", "display", "--reveal"]).out;
    assert!(["t0ken", "c2VjcmV0", "t1cket", "hushhush"].iter().all(|secret| revealed.contains(secret)), "{revealed}");
    let shown = laptop.ok(&["conf", "display"]).out;
    assert!(shown.contains("chat") && !shown.contains("t0ken"), "{shown}");
    assert_eq!(update(&shown.replace("chat", "talk"), &[]).code, 2, "the secret was of another");
    let wrong = update("default_ca = 7\n", &[]);
    assert!(wrong.code == 2 && wrong.err.contains("line 1"), "{wrong:?}");
    assert!(shop.ok(&["conf", "display", "--reveal"]).out.contains("t0ken"), "it is as it was");
    std::fs::remove_file(&file).unwrap();
    laptop.has_nothing();
}
