//! The web and the API as a browser and a program meet them: over a socket, with cookies and tokens.

mod browser;
mod hardened;
pub(crate) mod http;
mod peers;
mod roles;
mod tls;
mod upkeep;

use std::process::{Command, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::shop::{Running, Shop, eventually};
use http::{Answer, Web};

pub(crate) const PASSWORD: &str = "correct horse battery";

/// A server with an admin `ann`; what it prints is in `serve.log`.
pub(crate) fn served(shop: &Shop) -> (Running, Web) {
    shop.add_user("ann", "admin");
    let server = shop.serving("serve.log");
    (server, shop.web("serve.log"))
}

impl Shop {
    pub(crate) fn add_user(&self, name: &str, role: &str) {
        let ran = self.run_with_input(&["user", "add", name, "--role", role], &format!("{PASSWORD}\n"));
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    pub(crate) fn serving(&self, log: &str) -> Running {
        self.serving_at("127.0.0.1:0", log)
    }

    pub(crate) fn serving_at(&self, listen: &str, log: &str) -> Running {
        self.serving_by(self.command(&["serve", "--listen", listen]), log)
    }

    /// What it prints is in `log`.
    pub(crate) fn serving_by(&self, mut command: Command, log: &str) -> Running {
        let out = std::fs::File::create(self.path(log)).unwrap();
        let err = out.try_clone().unwrap();
        Running::new(command.stdout(Stdio::from(out)).stderr(Stdio::from(err)).spawn().unwrap())
    }

    /// Where it serves, from what it printed.
    pub(crate) fn web(&self, log: &str) -> Web {
        let log = self.path(log);
        let place = eventually("the web is there", || {
            let text = std::fs::read_to_string(&log).ok()?;
            let url = text.split("the web is at http://").nth(1)?;
            Some(url.split([';', '\n']).next()?.to_owned())
        });
        Web::at(&place)
    }

    pub(crate) fn token(&self, name: &str, scope: &str) -> String {
        self.ok(&["token", "new", name, "--scope", scope]).out.trim().to_owned()
    }
}

#[test]
fn the_first_login_is_by_a_link_that_works_once() {
    let shop = Shop::internal();
    let _server = shop.serving("serve.log");
    let web = shop.web("serve.log");
    let log = std::fs::read_to_string(shop.path("serve.log")).unwrap();
    let link = format!("/welcome/{}", log.split("/welcome/").nth(1).unwrap().trim());
    assert_eq!(web.get("/").location(), "/login");
    assert!(web.get(&link).body.contains("Welcome, admin"));
    let short = web.form(&link, &[("password", "short"), ("again", "shorter")]);
    assert_eq!(short.status, 400);
    assert!(short.body.contains("at least 12") && short.body.contains("not the same"), "{}", short.body);
    let done = web.form(&link, &[("password", PASSWORD), ("again", PASSWORD)]);
    assert_eq!((done.status, done.location().as_str()), (303, "/"));
    let session = web.with_cookie(&done.cookie());
    assert!(session.get("/").body.contains("Nothing is watched yet"));
    assert_eq!(web.get(&link).status, 404, "used up");
    assert_eq!(web.form(&link, &[("password", PASSWORD), ("again", PASSWORD)]).status, 404);
    let cookie = done.header("set-cookie").unwrap();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    // Who has a password needs no link at the next start.
    let again = shop.serving("again.log");
    shop.web("again.log");
    assert!(!std::fs::read_to_string(shop.path("again.log")).unwrap().contains("/welcome/"));
    drop(again);
}

#[test]
fn who_guesses_a_password_is_slowed_logged_and_told_nothing() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let login = |name: &str, password: &str| web.form("/login", &[("name", name), ("password", password)]);
    let (wrong, nobody) = (login("ann", "guess number one"), login("nobody", "guess number one"));
    assert_eq!((wrong.status, nobody.status), (401, 401));
    assert_eq!(wrong.body.replace("ann", "nobody"), nobody.body, "no hint which part was wrong");
    let all: Vec<Answer> = (0..10).map(|n| login("ann", &format!("guess number {n}"))).collect();
    let slowed = all.last().unwrap();
    assert_eq!(slowed.status, 429);
    assert!(slowed.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(login("ann", PASSWORD).status, 429, "the right one too, for now");
    let refused = shop.ok(&["audit", "--json"]).out.matches("login refused").count();
    assert!((3..=12).contains(&refused), "{refused}");
    let log = std::fs::read_to_string(shop.path("serve.log")).unwrap();
    assert_eq!(refused + log.matches("not looked at").count(), 13, "{log}");
    let done =
        eventually("it is looked at again", || Some(login("ann", PASSWORD)).filter(|answer| answer.status == 303));
    assert!(done.cookie().starts_with("certbus_session="));
}

#[test]
fn a_form_that_another_site_sends_changes_nothing() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    let fields = [("host", "127.0.0.1"), ("port", "9")];
    assert_eq!(ann.without_csrf().form("/endpoints", &fields).status, 403);
    let elsewhere = ann.with_header("sec-fetch-site: cross-site").form("/endpoints", &fields);
    assert_eq!(elsewhere.status, 403);
    assert_eq!(
        web.with_header("sec-fetch-site: cross-site").form("/login", &[("name", "ann"), ("password", PASSWORD)]).status,
        403
    );
    assert_eq!(shop.ok(&["endpoint", "ls", "--json"]).out, "");
    assert_eq!(ann.form("/endpoints", &fields).status, 303);
}

#[test]
fn a_bad_form_names_each_field_keeps_what_was_typed_and_stores_nothing() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    let answer =
        ann.form("/endpoints", &[("host", "no host!"), ("port", "70000"), ("owner", "it is me"), ("interval", "soon")]);
    assert_eq!(answer.status, 400);
    for word in ["host-error", "port-error", "interval-error", "no host!", "70000", "it is me"] {
        assert!(answer.body.contains(word), "{word} in {}", answer.body);
    }
    assert_eq!(shop.ok(&["endpoint", "ls", "--json"]).out, "");
    ann.form("/endpoints", &[("host", "127.0.0.1"), ("port", "9")]);
    let again = ann.form("/endpoints", &[("host", "127.0.0.1"), ("port", "9")]);
    assert_eq!(again.status, 400);
    assert!(again.body.contains("is an endpoint already"), "{}", again.body);
}

#[test]
fn of_two_who_edit_one_endpoint_the_second_is_told_what_the_first_wrote() {
    let shop = Shop::internal();
    shop.ok(&["endpoint", "add", "127.0.0.1:9", "--name", "one"]);
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    let page = ann.get("/endpoints/1/edit");
    let revision = page.field("revision");
    let edit = |name: &str, revision: &str| {
        let fields =
            [("host", "127.0.0.1"), ("port", "9"), ("name", name), ("sites", "default"), ("revision", revision)];
        ann.form("/endpoints/1/edit", &fields)
    };
    assert_eq!(edit("first", &revision).status, 303);
    let second = edit("second", &revision);
    assert_eq!(second.status, 400);
    assert!(
        second.body.contains("changed by somebody else") && second.body.contains("name `first`"),
        "{}",
        second.body
    );
    assert!(second.body.contains("value=\"second\""), "what was typed is still there");
    assert_eq!(edit("second", &second.field("revision")).status, 303, "on purpose it counts");
    assert_eq!(shop.ok(&["endpoint", "ls"]).out.matches("second").count(), 1);
}

#[test]
fn script_formula_and_line_breaks_in_what_is_stored_are_shown_as_text() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    let nasty = "<script>alert(1)</script>\"'{{7*7}}";
    let fields = [("host", "127.0.0.1"), ("port", "9"), ("name", nasty), ("owner", "=1+1"), ("tags", "a")];
    assert_eq!(ann.form("/endpoints", &fields).status, 303);
    assert_eq!(ann.form("/endpoints", &[("host", "127.0.0.1"), ("port", "8"), ("name", "a\nb")]).status, 400);
    for page in ["/", "/endpoints", "/endpoints/1", "/endpoints/1/edit", "/audit"] {
        let answer = ann.get(page);
        assert_eq!(answer.status, 200, "{page}");
        assert!(!answer.body.contains("<script>alert"), "{page}");
        assert!(answer.header("content-security-policy").unwrap().contains("script-src 'self'"), "{page}");
    }
    let found = ann.get("/endpoints?q=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    assert!(!found.body.contains("<script>alert"), "{}", found.body);
    let csv = ann.get("/endpoints/export").body;
    assert!(csv.contains("'=1+1"), "{csv}");
    let log = std::fs::read_to_string(shop.path("serve.log")).unwrap();
    assert!(!log.contains("alert(1)"), "{log}");
}

#[test]
fn a_poll_asked_for_on_the_web_ends_on_the_endpoints_page_while_it_is_watched() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    let (_example, port) = shop.serve(&[]);
    shop.ok(&["endpoint", "add", &format!("127.0.0.1:{port}"), "--sni", "www.shop.example"]);
    let (server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    eventually("the first poll", || Some(()).filter(|()| ann.get("/endpoints/1").body.contains("/certificates/")));
    let events = ann.events("/endpoints/1/events");
    assert_eq!(ann.form("/endpoints/1/poll", &[]).status, 303);
    let told = events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(told.contains("/certificates/") && told.contains("127.0.0.1"), "{told}");
    let page = ann.get("/endpoints/1").body;
    assert!(page.contains("served by its only node"), "{page}");
    let fingerprint = page.split("/certificates/").nth(1).unwrap().get(..64).unwrap().to_owned();
    let certificate = ann.get(&format!("/certificates/{fingerprint}")).body;
    for word in ["www.shop.example", "Issuer", "Serial", "BEGIN CERTIFICATE", "serves it"] {
        assert!(certificate.contains(word), "{word} in {certificate}");
    }
    let pem = ann.get(&format!("/certificates/{fingerprint}/pem")).body;
    assert_eq!(pem.matches("BEGIN CERTIFICATE").count(), 1, "the chain as it was served: the CA's root is not sent");

    // Whoever is let in no longer sees no more of it, and nobody who watches holds up the server's end.
    shop.add_user("bob", "viewer");
    let of_bob = web.login("bob", PASSWORD).events("/endpoints/1/events");
    shop.ok(&["user", "rm", "bob"]);
    let of_ann = ann.events("/endpoints/1/events");
    ann.form("/endpoints/1/poll", &[]);
    assert_eq!(of_bob.recv_timeout(Duration::from_secs(20)), Err(RecvTimeoutError::Disconnected));
    of_ann.recv_timeout(Duration::from_secs(20)).unwrap();
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(4), "it waited for who watches: {:?}", begun.elapsed());
}

#[test]
fn a_certificate_is_ordered_renewed_and_removed_on_the_web_and_tells_its_story() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    assert_eq!(ann.form("/managed", &[("names", "not a name!")]).status, 400);
    let ordered = ann.form("/managed", &[("names", "a.shop.example, b.shop.example")]);
    assert_eq!(ordered.status, 303, "{}", ordered.body);
    let one = ordered.location();
    let version = |before: Option<&str>| {
        eventually("a version", || {
            let body = ann.get(&one).body;
            let found = body.split("/certificates/").nth(1)?.get(..64)?.to_owned();
            Some(found).filter(|found| Some(found.as_str()) != before)
        })
    };
    let first = version(None);
    assert_eq!(ann.form(&format!("{one}/renew"), &[]).status, 303);
    let second = version(Some(&first));
    assert_ne!(first, second);
    assert_eq!(ann.form(&format!("{one}/remove"), &[]).location(), "/managed");
    assert_eq!(ann.get(&one).status, 404);
    let trail = shop.ok(&["audit", "--json"]).out;
    for word in ["cert mk", "cert renew", "cert rm"] {
        assert!(
            trail.contains(&format!("\"actor\":\"ann\",\"source\":\"127.0.0.1\",\"action\":\"{word}\"")),
            "{word}: {trail}"
        );
    }
}

#[test]
fn the_api_does_what_the_pages_do_and_answers_problems() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let api = web.with_header(&format!("authorization: Bearer {}", shop.token("ci", "write")));
    let made = api.json("POST", "/api/v1/endpoints", &json!({ "host": "127.0.0.1", "port": 9, "tags": ["eu"] }));
    assert_eq!(made.status, 201, "{}", made.body);
    let made: Value = serde_json::from_str(&made.body).unwrap();
    assert_eq!((made["id"].as_i64(), made["tags"][0].as_str()), (Some(1), Some("eu")));
    let wrong = api.json("POST", "/api/v1/endpoints", &json!({ "host": "a b", "interval": "soon" }));
    let problem: Value = serde_json::from_str(&wrong.body).unwrap();
    assert_eq!((wrong.status, wrong.header("content-type").unwrap()), (400, "application/problem+json".into()));
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    assert_eq!(api.json("POST", "/api/v1/endpoints", &json!({ "host": "127.0.0.1", "port": 9 })).status, 409);
    assert_eq!(api.json("POST", "/api/v1/endpoints", &json!({ "host": "x.test", "colour": 1 })).status, 400);
    let edited = api.json("PATCH", "/api/v1/endpoints/1", &json!({ "owner": "me", "revision": 1 }));
    assert_eq!(edited.status, 200, "{}", edited.body);
    assert_eq!(api.json("PATCH", "/api/v1/endpoints/1", &json!({ "owner": "you", "revision": 1 })).status, 409);
    for number in 0..7 {
        api.json("POST", "/api/v1/endpoints", &json!({ "host": format!("n{number}.test") }));
    }
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page: Value = serde_json::from_str(&api.get(&format!("/api/v1/endpoints?limit=3{after}")).body).unwrap();
        names.extend(page["items"].as_array().unwrap().iter().map(|one| one["name"].to_string()));
        match page["next"].as_str() {
            None => break,
            Some(next) => after = format!("&after={}", next.replace('|', "%7C").replace(':', "%3A")),
        }
    }
    assert_eq!(names.len(), 8);
    assert_eq!(api.get("/api/v1/endpoints?limit=0").status, 400);
    assert_eq!(api.get("/api/v1/endpoints/99").status, 404);
    assert_eq!(api.json("DELETE", "/api/v1/endpoints/1", &json!({})).status, 204);
    assert_eq!(web.get("/api/v1/endpoints").status, 401);
    let metrics = web.get("/metrics").body;
    assert!(metrics.contains("certbus_endpoints 7\n"), "{metrics}");
}

#[test]
fn what_has_expired_keeps_its_line_among_the_metrics() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    let (_example, port) = shop.serve(&[]);
    shop.ok(&["endpoint", "add", &format!("127.0.0.1:{port}"), "--sni", "www.shop.example", "--name", "www"]);
    shop.ok(&["endpoint", "poll", "www"]);
    shop.add_user("ann", "admin");
    let out = std::fs::File::create(shop.path("late.log")).unwrap();
    let server = shop.command_at("+400d", &["worker", "--help"]).output().unwrap();
    assert!(server.status.success());
    let late = shop.command_at("+400d", &["serve"]).stdout(Stdio::from(out)).stderr(Stdio::null()).spawn().unwrap();
    let _late = Running::new(late);
    let web = shop.web("late.log");
    let line = eventually("the metric", || {
        let metrics = web.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("certbus_endpoint_not_after_timestamp_seconds{"))?;
        Some(line.to_owned())
    });
    assert!(line.contains("endpoint=\"www\",id=\"1\""), "{line}");
}

#[test]
fn killed_in_the_middle_of_forms_each_was_stored_whole_or_not_at_all() {
    let shop = Shop::internal();
    let (server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let ann = &ann;
            scope.spawn(move || {
                for number in 0..200 {
                    let host = format!("h{thread}-{number}.test");
                    let fields = [("host", host.as_str()), ("tags", "x,y"), ("name", host.as_str())];
                    if ann.try_form("/endpoints", &fields).is_none() {
                        break;
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(400));
        server.kill();
    });
    let rows = shop.ok(&["endpoint", "ls", "--json"]).out;
    let trail = shop.ok(&["audit", "--limit", "10000", "--json"]).out;
    let (stored, told) = (rows.lines().count(), trail.matches("endpoint add").count());
    assert!(stored > 0 && stored < 800, "{stored}");
    assert_eq!(stored, told, "each with its line of the trail");
    assert_eq!(rows.matches("\"tags\":[\"x\",\"y\"]").count(), stored, "each with its tags");
}

#[test]
fn what_is_ordered_on_the_web_is_looked_at_as_what_is_ordered_elsewhere() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    let wildcard = ann.form("/managed", &[("names", "*.wild.example"), ("challenge", "http-01")]);
    assert!(wildcard.status == 400 && wildcard.body.contains("shown by dns-01 only"), "{}", wildcard.body);
    assert!(wildcard.body.contains("*.wild.example"), "what was typed is there: {}", wildcard.body);
    assert_eq!(shop.count("CertificateRequested"), 0);
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    assert_eq!(shop.run_with_input(&["conf", "update"], &format!("challenge = \"dns-01\"\n{conf}")).code, 0);
    assert_eq!(ann.form("/managed", &[("names", "www.shop.example")]).status, 303);
    let wanted = shop.events().into_iter().find_map(|event| match event {
        certbus_core::event::Event::CertificateRequested(wanted) => Some(wanted.challenge),
        _ => None,
    });
    assert_eq!(wanted, Some(certbus_core::spec::Challenge::Dns01), "as the settings say");
}
