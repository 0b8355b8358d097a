//! What a server or its token is not for, and what is wrong with either: each told from the others.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use super::Laptop;
use crate::shop::{Ran, Shop};
use crate::web::served;

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
    laptop.fails(&["conf", "display", "--reveal"], 2, &["shows no secret", "on it does"]);
    laptop.fails(&["alert", "test", "exec"], 2, &["every destination"]);
    laptop.fails(&["alert", "test"], 2, &["alerts.smtp"]);
    for command in [vec!["init"], vec!["stream", "verify"], vec!["doctor"], vec!["serve"], vec!["scan", "127.0.0.1:9"]]
    {
        laptop.fails(&command, 2, &[&format!("`certbus {}` works on the machine it runs on", command[0])]);
    }
    laptop.has_nothing();
    // Named by the environment alone, a server is nothing to those.
    let ran = Ran::from(laptop.command(&["exit-codes"]).env("CERTBUS_SERVER", &laptop.url).output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let refused = Ran::from(laptop.command(&["stream", "verify"]).env("CERTBUS_SERVER", &laptop.url).output().unwrap());
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
fn pages_that_lead_nowhere_are_not_followed() {
    let shop = Shop::internal();
    let laptop = Laptop::of(&shop, "", "admin");
    for (path, page) in [("audit", r#"{"items":[],"next":"7"}"#), ("task", r#"{"items":[],"next":"8"}"#)] {
        let url = saying(move |asked| match asked.contains("whoami") {
            true => r#"{"name":"x","site":"default"}"#,
            false => page,
        });
        let command: &[&str] = if path == "task" { &["task", "ls"] } else { &["audit"] };
        laptop.at(&url).fails(command, 1, &["pages that lead nowhere", path]);
    }
}

#[test]
fn fields_of_a_newer_server_are_passed_over() {
    let shop = Shop::internal();
    let laptop = Laptop::of(&shop, "", "read");
    let url = saying(|asked| match asked.contains("whoami") {
        true => r#"{"name":"x","site":"default","planet":"earth"}"#,
        false => {
            r#"{"items":[{"id":7,"at":"2026-01-01T00:00:00Z","actor":"a","source":"s","action":"x","subject":"y","detail":"","mood":"good"}],"more":1}"#
        }
    });
    let printed = laptop.at(&url).ok(&["audit"]).out;
    assert!(printed.starts_with("7  2026-01-01T00:00:00") && printed.contains("  a  s  x"), "{printed}");
}

/// Answers every request with the JSON that this makes of it.
fn saying(answer: impl Fn(&str) -> &'static str + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).unwrap_or(0);
            let body = answer(&String::from_utf8_lossy(&bytes[..count]));
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    url
}
