//! The command line against a server, from a machine that has nothing but a token: it prints what it prints there.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

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
fn what_does_not_go_to_a_server_is_refused_with_what_to_do_instead() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "admin");
    laptop.fails(&["cert", "export", "AAAAAAAAAAA", "--out", "x"], 2, &["private keys"]);
    laptop.fails(&["cert", "renew", "--due"], 2, &["by itself"]);
    laptop.fails(&["cert", "renewable"], 2, &["cert ls"]);
    laptop.fails(&["cert", "mk", "a.example", "--dry-run"], 2, &["run it there"]);
    laptop.fails(&["user", "invite", "eve"], 2, &["people alone, and no token", "/users"]);
    laptop.fails(&["user", "rm", "ann"], 2, &["people alone, and no token"]);
    laptop.fails(&["token", "new", "more"], 2, &["people alone, and no token", "/tokens"]);
    laptop.fails(&["token", "rm", "laptop-admin"], 2, &["people alone, and no token"]);
    for command in [vec!["init"], vec!["conf", "display"], vec!["doctor"], vec!["serve"], vec!["scan", "127.0.0.1:9"]] {
        laptop.fails(&command, 2, &[&format!("`certbus {}` works on the machine it runs on", command[0])]);
    }
    laptop.has_nothing();
    // Named by the environment alone, a server is nothing to those.
    let ran = Ran::from(laptop.command(&["exit-codes"]).env("CERTBUS_SERVER", &laptop.url).output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let refused = Ran::from(laptop.command(&["conf", "display"]).env("CERTBUS_SERVER", &laptop.url).output().unwrap());
    assert!(refused.code == 3 && refused.err.contains("certbus init"), "{refused:?}");
    let there = Ran::from(laptop.command(&["user", "ls"]).env("CERTBUS_SERVER", &laptop.url).output().unwrap());
    assert_eq!(there.out, shop.ok(&["user", "ls"]).out);
}

#[test]
fn the_server_and_its_token_may_stand_in_the_settings_and_a_tokens_file_is_its_owners_alone() {
    let shop = Shop::internal();
    shop.ok(&["endpoint", "add", "a.test", "--paused"]);
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "read");
    let (file, conf) = (laptop.home.path().join("token"), laptop.home.path().join("certbus.toml"));
    std::fs::write(&file, format!("{}\n", laptop.token)).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(&conf, format!("[server]\nurl = \"{}\"\ntoken_file = \"{}\"\n", laptop.url, file.display()))
        .unwrap();
    let run = |args: &[&str]| {
        Ran::from(laptop.command(args).env_remove("CERTBUS_TOKEN").env("CERTBUS_CONFIG", &conf).output().unwrap())
    };
    let open = run(&["endpoint", "export"]);
    assert!(open.code == 2 && open.err.contains("chmod 600"), "{open:?}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run(&["endpoint", "export"]).out, shop.ok(&["endpoint", "export"]).out);
    // The token of one server is not shown to another.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("http://{}", listener.local_addr().unwrap());
    let refused = run(&["--server", &other, "endpoint", "ls"]);
    assert!(refused.code == 2 && refused.err.contains("wants a token"), "{refused:?}");
    let named = run(&["--server", &laptop.url, "--token-file", file.to_str().unwrap(), "endpoint", "export"]);
    assert_eq!(named.out, shop.ok(&["endpoint", "export"]).out);
}

/// Answers every request with these bytes, and keeps what was asked.
fn answering(answer: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            let _ = told.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (url, asked)
}

#[test]
fn a_server_that_is_none_gone_elsewhere_or_does_not_want_this_token_is_told_from_the_others() {
    let shop = Shop::internal();
    let (server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "read");
    let ls = &["endpoint", "ls"];
    let wrong = Laptop { token: "certbus_no_such_token".into(), ..laptop.at(&laptop.url) };
    wrong.fails(ls, 1, &["does not take the token", "certbus token new"]);
    Laptop { token: String::new(), ..laptop.at(&laptop.url) }.run(ls);
    let metrics = Laptop::of(&shop, &laptop.url, "metrics");
    metrics.fails(ls, 1, &["a token of metrics", "--scope"]);
    laptop.fails(&["endpoint", "add", "a.test"], 1, &["this is for the role operator", "--scope"]);
    laptop.fails(&["audit"], 1, &["this is for the role admin"]);
    laptop.fails(&["--tenant", "other", "endpoint", "ls"], 2, &["of tenant `default`"]);
    laptop.at("http://certbus.example:8080").fails(ls, 2, &["in the clear", "https://", "ssh -L"]);
    laptop.at("http://10.9.8.7").fails(ls, 2, &["in the clear"]);
    laptop.at("certbus.example").fails(ls, 2, &["--server is `certbus.example`"]);
    let html = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>";
    laptop.at(&answering(html).0).fails(ls, 1, &["is no CertBus server", "text/html"]);
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]";
    laptop.at(&answering(json).0).fails(ls, 1, &["what this version does not read"]);
    let (elsewhere, asked) = answering(html);
    let moved = Box::leak(
        format!("HTTP/1.1 302 Found\r\nlocation: {elsewhere}/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .into_boxed_str(),
    );
    laptop.at(&answering(moved).0).fails(ls, 1, &["leads on to", "not followed"]);
    assert!(asked.try_recv().is_err(), "nobody was asked there");
    // TLS that is not trusted, and TLS that is.
    shop.ok(&["cert", "mk", "--subdomain", "localhost.shop.example", "-d", "localhost"]);
    let (_tls, port) = shop.serve(&[]);
    let tls = laptop.at(&format!("https://localhost:{port}"));
    tls.fails(ls, 1, &["is not trusted", "SSL_CERT_FILE"]);
    let mut command = tls.command(&["--server", &tls.url, "endpoint", "ls"]);
    let trusted = Ran::from(command.env("SSL_CERT_FILE", shop.path("roots.pem")).output().unwrap());
    assert!(trusted.code == 1 && trusted.err.contains("is no CertBus server"), "{trusted:?}");
    server.kill();
    laptop.fails(ls, 1, &["cannot be reached"]);
    laptop.has_nothing();
}

#[test]
fn fields_of_a_newer_server_are_passed_over() {
    let shop = Shop::internal();
    let laptop = Laptop::of(&shop, "", "read");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            let body = if String::from_utf8_lossy(&bytes[..count]).contains("whoami") {
                r#"{"name":"x","site":"default","planet":"earth"}"#
            } else {
                r#"{"items":[{"id":7,"at":"2026-01-01T00:00:00Z","actor":"a","source":"s","action":"x","subject":"y","detail":"","mood":"good"}],"more":1}"#
            };
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    let printed = laptop.at(&url).ok(&["audit"]).out;
    assert!(printed.starts_with("7  2026-01-01T00:00:00") && printed.contains("  a  s  x"), "{printed}");
}

#[test]
fn the_api_imports_exports_pages_and_counts() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let api = web.with_header(&format!("authorization: Bearer {}", shop.token("ci", "admin")));
    let read = |path: &str| -> Value {
        let answer = api.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    };
    let who = read("/api/v1/whoami");
    assert_eq!((&who["name"], &who["role"], &who["tenant"]), (&"token ci".into(), &"admin".into(), &"default".into()));
    let lines = "host,name\na.test,=1+1\nno host!,x\nb.test,\n";
    let done = api.text("POST", "/api/v1/endpoints/import", "text/csv", lines);
    let done: Value = serde_json::from_str(&done.body).unwrap();
    assert_eq!(
        (&done["added"], &done["refused"], &done["errors"][0]["line"]),
        (&2.into(), &1.into(), &3.into()),
        "{done}"
    );
    assert_eq!(api.text("POST", "/api/v1/endpoints/import", "application/json", "{}").status, 415);
    assert_eq!(api.text("POST", "/api/v1/endpoints/import", "text/csv", "").status, 400);
    let csv = api.get("/api/v1/endpoints/export?format=csv");
    assert_eq!(csv.header("content-type").unwrap(), "text/csv; charset=utf-8");
    assert!(csv.body.contains("a.test,443,,none,=1+1,"), "as it is: {}", csv.body);
    let both = [api.with_header("accept: text/csv").get("/api/v1/endpoints/export").body, csv.body];
    assert_eq!(both[0], both[1]);
    assert_eq!(api.get("/api/v1/endpoints/export").body, shop.ok(&["endpoint", "export"]).out);
    assert_eq!(api.get("/api/v1/endpoints/export?format=xml").status, 400);
    let bulk = |body: Value| api.json("POST", "/api/v1/endpoints/bulk", &body);
    let done: Value =
        serde_json::from_str(&bulk(serde_json::json!({"do": "tag", "ids": [1, 2, 99], "tag": "eu"})).body).unwrap();
    assert_eq!(done["done"], 2, "{done}");
    assert_eq!(bulk(serde_json::json!({"do": "tag", "ids": [1]})).status, 400);
    assert_eq!(bulk(serde_json::json!({"do": "burn", "ids": [1]})).status, 400);
    let done: Value =
        serde_json::from_str(&bulk(serde_json::json!({"do": "untag", "ids": [1], "tag": "eu"})).body).unwrap();
    assert_eq!(
        (done["done"].as_i64(), shop.ok(&["endpoint", "ls", "--tag", "eu", "--json"]).out.lines().count()),
        (Some(1), 1)
    );
    for name in 0..5 {
        shop.ok(&["token", "new", &format!("t{name}")]);
        shop.ok(&["cert", "mk", "--subdomain", &format!("n{name}.shop.example")]);
    }
    for (path, count) in [("tokens", 6), ("users", 1), ("managed", 5), ("audit", 12), ("changes", 0), ("endpoints", 2)]
    {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = read(&format!("/api/v1/{path}?limit=2{after}"));
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2, "{page}");
            found.extend(items.iter().map(Value::to_string));
            match page["next"].as_str() {
                None => break,
                Some(next) => after = format!("&after={}", next.replace('|', "%7C")),
            }
        }
        let (all, unique) = (found.len(), found.into_iter().collect::<std::collections::BTreeSet<_>>().len());
        assert_eq!(all, unique, "{path}: each once");
        assert!(if path == "audit" { all >= count } else { all == count }, "{path}: {all}");
    }
    assert_eq!(api.get("/api/v1/audit?after=x").status, 404);
    let expiries = read("/api/v1/expiries?days=7");
    assert_eq!((expiries["days"].as_array().unwrap().len(), expiries["life_left"].as_array().unwrap().len()), (7, 11));
    assert_eq!(api.get("/api/v1/expiries?days=0").status, 400);
    assert_eq!(api.get("/api/v1/endpoints?sort=mood").status, 400);
    assert_eq!(read("/api/v1/endpoints?sort=expiry")["items"].as_array().unwrap().len(), 0, "none has a certificate");
}

#[test]
fn pages_of_tasks_begin_where_the_one_before_ended_the_given_up_first() {
    let shop = Shop::internal();
    let store = shop.data().join("inventory.db");
    let put = async {
        use certbus_store::tasks::{ATTEMPTS, NewTask, TaskQueue};
        let store = certbus_store::Store::open(&store).await.unwrap();
        let now = certbus_manager::clock::now();
        let task = |n: usize| NewTask { lane: format!("lane/{n}"), key: None, body: "{}".into() };
        store.add(&(0..5).map(task).collect::<Vec<_>>(), now).await.unwrap();
        let mut now = now;
        for _ in 0..ATTEMPTS {
            let leased = store.lease("lane/3", 1, now, std::time::Duration::from_secs(60)).await.unwrap();
            store.failed(&leased[0], "no way there", now).await.unwrap();
            now = now.plus(std::time::Duration::from_secs(3600));
        }
    };
    tokio::runtime::Runtime::new().unwrap().block_on(put);
    let (_server, web) = served(&shop);
    let laptop = Laptop::of(&shop, &format!("http://{}", web.place), "write");
    let lanes = |text: &str| -> Vec<String> {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["lane"].as_str().unwrap().to_owned())
            .collect()
    };
    let all = laptop.ok(&["task", "ls", "--json"]).out;
    let mine: Vec<String> = lanes(&all).into_iter().filter(|lane| lane.starts_with("lane/")).collect();
    assert_eq!(mine, ["lane/3", "lane/0", "lane/1", "lane/2", "lane/4"]);
    let api = web.with_header(&format!("authorization: Bearer {}", laptop.token));
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = serde_json::from_str(&api.get(&format!("/api/v1/tasks?limit=1{after}")).body).unwrap();
        paged.extend(page["items"].as_array().unwrap().iter().map(|one| one["lane"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            None => break,
            Some(next) => after = format!("&after={next}"),
        }
    }
    assert_eq!(paged.into_iter().filter(|lane| lane.starts_with("lane/")).collect::<Vec<_>>(), mine);
    let dead = serde_json::from_str::<Value>(all.lines().next().unwrap()).unwrap()["id"].to_string();
    assert_eq!(laptop.ok(&["task", "retry", &dead]).out, format!("✓ task {dead} is tried again\n"));
    laptop.fails(&["task", "retry", &dead], 3, &["no task that was given up"]);
    assert!(
        shop.ok(&["audit", "--json"])
            .out
            .contains("\"actor\":\"token laptop-write\",\"source\":\"127.0.0.1\",\"action\":\"task retry\"")
    );
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
