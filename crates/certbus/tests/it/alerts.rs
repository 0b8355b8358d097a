//! Alerts at a real mail server (aiosmtpd), a small web server and programs: told once, over once, in order, through outages
//! and kills.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::check_in::Ear;
use crate::pebble::service;
use crate::shop::{Ran, Running, Shop, eventually};

/// aiosmtpd, with what it took.
struct Mail {
    port: u16,
    took: Arc<Mutex<Vec<Value>>>,
    _running: Running,
}

impl Mail {
    fn start(port: u16, more: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/alerts/mail.py");
        let mut child = Command::new(service("CERTBUS_TEST_AIOSMTPD"))
            .arg(script)
            .arg(port.to_string())
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let running = Running::new(child);
        let port = lines.next().expect("aiosmtpd starts").unwrap().parse().unwrap();
        let took = Arc::new(Mutex::new(Vec::new()));
        let into = took.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Self { port, took, _running: running }
    }

    fn took(&self) -> Vec<Value> {
        self.took.lock().unwrap().clone()
    }

    fn subjects(&self) -> Vec<String> {
        self.took().iter().map(|mail| mail["subject"].as_str().unwrap().to_owned()).collect()
    }

    fn settings(port: u16) -> String {
        format!(
            "[alerts.smtp]\nhost = \"127.0.0.1\"\nport = {port}\nsecurity = \"none\"\nfrom = \"CertBus <certbus@shop.example>\"\n\
             to = [\"ops@shop.example\"]\n"
        )
    }
}

impl Shop {
    /// Adds sections to the issuing settings.
    fn configure(&self, sections: &str) -> Ran {
        let conf = self.ok(&["conf", "display", "--reveal"]).out;
        let conf = conf.split("\n[alerts").next().unwrap().split("\n[[alerts").next().unwrap().to_owned();
        self.run_with_input(&["conf", "update"], &format!("{conf}\n{sections}"))
    }

    fn tells(&self, sections: &str) {
        let ran = self.configure(sections);
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    /// Endpoints where nobody listens, after three polls. Returns their names.
    pub(crate) fn dead_ends(&self, many: usize, owner: &str) -> Vec<String> {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let names: Vec<String> = (0..many).map(|number| format!("127.0.0.1:{}", silent + number as u16)).collect();
        for name in &names {
            let more = ["--sni", "shop.example", "--interval", "30d", "--owner", owner, "--name", name];
            self.ok(&[&["endpoint", "add", name][..], &more].concat());
        }
        for _ in 0..3 {
            self.ok(&[&["endpoint", "poll"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat());
        }
        names
    }

    fn once_at(&self, offset: &str) {
        let ran = Ran::from(self.command_at(offset, &["serve", "--once"]).output().unwrap());
        assert_eq!(ran.code, 0, "{ran:?}");
    }

    fn listed(&self, what: &str) -> Vec<Value> {
        let listed = self.ok(&["alert", what, "--json"]).out;
        listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A program that appends what it is told to a file. Returns that file.
    pub(crate) fn program(&self, script: &str) -> std::path::PathBuf {
        let (program, out) = (self.path("tell"), self.path("told.jsonl"));
        std::fs::write(&program, format!("#!/bin/sh\n{}\n", script.replace("OUT", out.to_str().unwrap()))).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
        let mut settings = std::fs::read_to_string(self.path("certbus.toml")).unwrap_or_default();
        settings.push_str(&format!("\n[alert]\nexec = \"{}\"\n", program.display()));
        std::fs::write(self.path("certbus.toml"), settings).unwrap();
        out
    }

    fn background(&self, offset: &str) -> Running {
        let args = ["serve", "--listen", "127.0.0.1:0"];
        let mut command = self.command_at(offset, &args);
        Running::new(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

pub(crate) fn patiently<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "not within 90 s: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn aiosmtpd_gets_one_mail_for_a_problem_and_one_when_it_is_over() {
    let (shop, mail) = (Shop::internal(), Mail::start(0, &[]));
    shop.ok(&["cert", "mk", "shop.example"]);
    shop.tells(&format!("{}to_owner = true\n", Mail::settings(mail.port)));
    let name = shop.dead_ends(1, "ada@shop.example").remove(0);
    shop.ok(&["serve", "--once"]);
    let told = format!("[certbus] {name}: unreachable");
    assert_eq!(mail.subjects(), [told.as_str()]);
    for offset in ["+0", "+1m", "+23h"] {
        shop.once_at(offset);
    }
    let first = mail.took().remove(0);
    assert_eq!(first["to"], serde_json::json!(["ops@shop.example", "ada@shop.example"]), "its owner too");
    assert_eq!(first["from"], "CertBus <certbus@shop.example>");
    assert!(first["body"].as_str().unwrap().contains("refused"), "{first}");
    assert!(first["id"].as_str().unwrap().ends_with("@shop.example>"), "{first}");
    shop.once_at("+25h");
    assert_eq!(mail.subjects()[1..], [format!("[certbus] still: {name}: unreachable")], "once a day");
    let port = name.rsplit_once(':').unwrap().1;
    let server =
        shop.command(&["example-server", "--listen", &format!("127.0.0.1:{port}")]).stdout(Stdio::null()).spawn();
    let _server = Running::new(server.unwrap());
    eventually("it listens", || std::net::TcpStream::connect(&name).ok());
    shop.ok(&["endpoint", "poll", &name]);
    shop.once_at("+26h");
    assert_eq!(mail.took().len(), 2, "it may come back");
    shop.once_at("+1571m");
    assert_eq!(mail.subjects()[2..], [format!("[certbus] over: {name}: unreachable")]);
    shop.once_at("+1600m");
    assert_eq!(mail.took().len(), 3, "once");
    assert!(shop.listed("log").iter().all(|one| one["state"] == "delivered" && one["destination"] == "smtp"));
    assert!(shop.listed("ls").is_empty());
}

#[test]
fn aiosmtpd_that_hangs_gets_all_of_it_later_in_order_and_once() {
    let shop = Shop::internal();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    // It accepts, and says nothing.
    let held = std::thread::spawn(move || {
        let begun = Instant::now();
        let streams: Vec<_> = silent.incoming().take(2).collect();
        (streams, begun)
    });
    shop.tells(&Mail::settings(port));
    let told = shop.program("cat >>OUT; echo >>OUT");
    let names = shop.dead_ends(3, "");
    let serve = shop.background("+0");
    patiently("it was tried twice", || held.is_finished().then_some(()));
    let log = shop.listed("log");
    let waiting: Vec<_> = log.iter().filter(|one| one["destination"] == "smtp").collect();
    assert!(waiting.len() == 3 && waiting.iter().all(|one| one["state"] == "waiting"), "{log:?}");
    assert!(log.iter().any(|one| one["attempts"] == 1), "{log:?}");
    assert_eq!(std::fs::read_to_string(&told).unwrap().lines().count(), 3, "others need not wait");
    drop(held.join().unwrap());
    let mail = Mail::start(port, &[]);
    patiently("all arrive", || (mail.took().len() >= 3).then_some(()));
    std::thread::sleep(Duration::from_secs(12));
    let expected: Vec<String> = names.iter().map(|name| format!("[certbus] {name}: unreachable")).collect();
    assert_eq!(mail.subjects(), expected);
    serve.kill();
}

#[test]
fn killed_between_looking_and_sending_aiosmtpd_misses_nothing_and_doubles_are_known_by_their_id() {
    const KILLS: usize = 8;
    const PROBLEMS: usize = 12;
    let (shop, mail) = (Shop::internal(), Mail::start(0, &[]));
    shop.tells(&Mail::settings(mail.port));
    let names = shop.dead_ends(PROBLEMS, "");
    for kill in 0..KILLS {
        // Another two minutes later, so that the killed one's role has ended.
        let serve = shop.background(&format!("+{}m", 2 * kill));
        std::thread::sleep(Duration::from_millis(120 + 90 * kill as u64));
        serve.kill();
    }
    shop.once_at("+30m");
    let took = mail.took();
    let ids: BTreeSet<_> = took.iter().map(|mail| mail["id"].as_str().unwrap()).collect();
    let subjects: BTreeSet<_> = took.iter().map(|mail| mail["subject"].as_str().unwrap().to_owned()).collect();
    assert_eq!(subjects, names.iter().map(|name| format!("[certbus] {name}: unreachable")).collect());
    assert_eq!(ids.len(), PROBLEMS, "one message for each, whoever was killed");
    assert!(took.len() <= PROBLEMS + KILLS, "at most the one under way is sent again: {}", took.len());
    let mut order: Vec<_> = took.iter().map(|mail| mail["subject"].as_str().unwrap()).collect();
    order.dedup();
    assert_eq!(order.len(), PROBLEMS, "in order: {order:?}");
}

#[test]
fn a_muted_problem_is_listed_and_not_told_until_it_is_unmuted() {
    let (shop, mail) = (Shop::internal(), Mail::start(0, &[]));
    shop.tells(&Mail::settings(mail.port));
    let name = shop.dead_ends(1, "").remove(0);
    shop.fails(&["alert", "mute", "endpoint/99"], 3, &["endpoint/99", "alert ls"]);
    shop.ok(&["alert", "mute", "endpoint/1", "--for", "7d"]);
    shop.ok(&["serve", "--once"]);
    assert!(mail.took().is_empty());
    let listed = shop.listed("ls");
    assert_eq!((&listed[0]["key"], &listed[0]["is_muted"]), (&"endpoint/1/unreachable".into(), &true.into()));
    assert!(shop.ok(&["alert", "ls"]).err.contains("endpoint/1 is muted until"));
    shop.ok(&["alert", "unmute", "endpoint/1"]);
    shop.fails(&["alert", "unmute", "endpoint/1"], 3, &["endpoint/1"]);
    shop.ok(&["serve", "--once"]);
    assert_eq!(mail.subjects(), [format!("[certbus] {name}: unreachable")]);
    let trail = shop.ok(&["audit"]).out;
    assert!(trail.contains("alert mute") && trail.contains("alert unmute"), "{trail}");
}

#[test]
fn aiosmtpd_over_starttls_wants_the_right_name_and_password_and_an_owner_that_is_refused_keeps_it_from_nobody() {
    let shop = Shop::internal();
    let (certificate, key) = (shop.path("mail.pem"), shop.path("mail.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mail = Mail::start(0, &[certificate.to_str().unwrap(), key.to_str().unwrap(), "certbus", "hush-hush"]);
    std::fs::write(shop.path("password"), "hush-hush\n").unwrap();
    let roots = std::fs::read_to_string(&certificate).unwrap();
    let settings = |password: &str, roots: &str| {
        format!(
            "[alerts.smtp]\nhost = \"localhost\"\nport = {}\nuser = \"certbus\"\n{password}\nfrom = \"certbus@shop.example\"\n\
             to = [\"ops@shop.example\"]\nto_owner = true\n{roots}\n",
            mail.port
        )
    };
    let trusted = format!("roots = '''\n{roots}'''");
    let file = format!("password_file = \"{}\"", shop.path("password").display());
    shop.tells(&settings(&file, ""));
    let untrusted = shop.run(&["alert", "test"]);
    assert!(untrusted.code == 1 && untrusted.out.contains("smtp:") && mail.took().is_empty(), "{untrusted:?}");
    shop.tells(&settings("password = \"wrong\"", &trusted));
    let refused = shop.run(&["alert", "test"]);
    assert!(refused.code == 1 && refused.out.contains("535"), "{refused:?}");
    shop.tells(&settings(&file, &trusted));
    shop.ok(&["alert", "test", "smtp"]);
    shop.dead_ends(1, "refused@shop.example");
    shop.ok(&["serve", "--once"]);
    let took = mail.took();
    assert_eq!(took.len(), 2, "{took:?}");
    assert!(took.iter().all(|mail| mail["tls"] == true && mail["user"] == "certbus"), "{took:?}");
    assert_eq!(took[1]["to"], serde_json::json!(["ops@shop.example"]));
    let log = shop.listed("log");
    assert!(log[0]["state"] == "delivered" && log[0]["why"].as_str().unwrap().contains("not to refused@"), "{log:?}");
    // The secret is sealed, masked, and kept where its mask stays.
    let shown = shop.ok(&["conf", "display"]).out;
    assert!(shown.contains("password = ") && !shown.contains("hush"), "{shown}");
    assert!(shop.run_with_input(&["conf", "update"], &shown).out.contains("nothing changes"));
    let files = std::fs::read(shop.data().join("log.db")).unwrap();
    assert!(!files.windows(9).any(|bytes| bytes == b"hush-hush"), "invariant 1: sealed");
}

#[test]
fn a_webhook_is_signed_as_the_documentation_checks_it_and_one_that_wants_it_no_more_is_named() {
    let (shop, ear) = (Shop::internal(), Ear::new());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hook = |name: &str, url: String| format!("[[alerts.webhook]]\nname = \"{name}\"\nurl = \"{url}\"\n");
    shop.tells(&format!(
        "{}secret = \"s3cr3t\"\n{}",
        hook("chat", format!("http://127.0.0.1:{}/hook/t0ken", ear.port)),
        hook("away", format!("http://{taken}/t0ken"))
    ));
    let ran = shop.run(&["alert", "test"]);
    assert!(ran.code == 1 && ran.out.contains("webhook/chat took it") && ran.err.contains("webhook/away"), "{ran:?}");
    assert!(!format!("{ran:?}").contains("t0ken"), "{ran:?}");
    shop.fails(&["alert", "test", "webhook/none"], 3, &["webhook/none", "webhook/chat"]);
    shop.ok(&["alert", "test", "webhook/chat"]);
    let heard = ear.heard();
    let (head, body) = heard[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook/t0ken HTTP/1.1"), "{head}");
    let header = head.lines().find_map(|line| line.strip_prefix("x-certbus-signature: ")).unwrap();
    let json: Value = serde_json::from_str(body).unwrap();
    assert!(json["event"] == "test" && json["text"].as_str().unwrap().starts_with("*test*"), "{json}");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/ALERTS.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let check = docs.split("```python\n").nth(1).unwrap().split("```").next().unwrap();
    let checked = |secret: &str, body: &str| {
        let script = format!(
            "{check}\nimport sys\nprint(genuine(*[a.encode() for a in sys.argv[1:2]], sys.argv[2], sys.argv[3].encode()))"
        );
        let ran = Command::new("python3").args(["-c", &script, secret, header, body]).output().unwrap();
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(checked("s3cr3t", body), "True");
    assert_eq!(checked("other", body), "False");
    assert_eq!(checked("s3cr3t", &body.replace("test", "text")), "False");
    let shown = shop.ok(&["conf", "display"]).out;
    assert!(shown.contains("chat") && !shown.contains("s3cr3t") && !shown.contains("t0ken"), "{shown}");
    let states: Vec<_> = shop.listed("log").iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["delivered", "given-up", "delivered"]);
}

#[test]
fn a_program_gets_the_message_as_json_and_in_its_environment_and_without_a_shell() {
    let shop = Shop::internal();
    let told = shop.program("cat >>OUT; echo \"|$CERTBUS_ALERT_EVENT|$CERTBUS_ALERT_KIND|$CERTBUS_ALERT_NAME\" >>OUT");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    shop.ok(&["endpoint", "add", &silent.to_string(), "--name", "$(touch /tmp/x); `id`", "--interval", "30d"]);
    for _ in 0..3 {
        shop.ok(&["endpoint", "poll", &silent.to_string()]);
    }
    shop.ok(&["serve", "--once"]);
    let told = std::fs::read_to_string(told).unwrap();
    let (json, words) = told.trim_end().split_once('|').unwrap();
    let json: Value = serde_json::from_str(json).unwrap();
    assert_eq!(json["problem"]["key"], "endpoint/1/unreachable");
    assert_eq!(words, "opened|unreachable|$(touch /tmp/x); `id`");
}

#[test]
fn a_renewal_that_fails_or_comes_too_late_is_told_with_why() {
    let (shop, mail) = (Shop::internal(), Mail::start(0, &[]));
    shop.ok(&["cert", "mk", "shop.example"]);
    shop.tells(&Mail::settings(mail.port));
    // No CA any more: nothing is renewed, and it gets late.
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let away = format!(
        "[ca.away]\ndirectory = \"https://127.0.0.1:9/dir\"\n{}",
        conf.split("\n[alerts").nth(1).map(|rest| format!("\n[alerts{rest}")).unwrap()
    );
    assert_eq!(shop.run_with_input(&["conf", "update"], &away).code, 0);
    let _ = shop.command_at("+27d", &["serve", "--once"]).output().unwrap();
    let subjects = mail.subjects();
    for kind in ["renewal failing", "renewal overdue"] {
        assert!(subjects.contains(&format!("[certbus] shop.example and 1 more: {kind}")), "{subjects:?}");
    }
    let body = mail.took()[0]["body"].as_str().unwrap().to_owned();
    assert!(body.contains("managed/default/"), "{body}");
}

#[test]
fn invariant_9_alert_settings_that_cannot_be_are_refused_by_the_name_of_their_field() {
    let shop = Shop::internal();
    let smtp =
        "[alerts.smtp]\nhost = \"mail.shop.example\"\nfrom = \"certbus@shop.example\"\nto = [\"ops@shop.example\"]\n";
    let hook = "[[alerts.webhook]]\nname = \"chat\"\nurl = \"https://chat.example/t0ken\"\n";
    let good = format!("{smtp}{hook}");
    for (settings, words) in [
        (good.replace("mail.shop.example", "mail shop"), "alerts.smtp.host"),
        (format!("{smtp}port = 0\n"), "alerts.smtp.port"),
        (format!("{smtp}security = \"none\"\n"), "alerts.smtp.security"),
        (format!("{smtp}security = \"ssl\"\n"), "starttls"),
        (format!("{smtp}user = \"ada\"\n"), "alerts.smtp.user"),
        (format!("{smtp}password = \"hush\"\n"), "alerts.smtp.password"),
        (format!("{smtp}user = \"ada\"\npassword = \"hush\"\npassword_file = \"/x\"\n"), "`_file`"),
        (format!("{smtp}user = \"ada\"\npassword_file = \"/no/such/file\"\n"), "/no/such/file"),
        (good.replace("from = \"certbus@shop.example\"", "from = \"certbus\""), "alerts.smtp.from"),
        (good.replace("ops@shop.example", "ops"), "alerts.smtp.to"),
        (good.replace("[\"ops@shop.example\"]", "[]"), "alerts.smtp.to"),
        (format!("{smtp}roots = \"none\"\n"), "alerts.smtp.roots"),
        (format!("{smtp}hsot = \"x\"\n"), "hsot"),
        (good.replace("\"chat\"", "\"My chat\""), "alerts.webhook.name"),
        (format!("{good}{hook}"), "twice"),
        (good.replace("https://", "ftp://"), "alerts.webhook.url"),
        ("[alerts]\nexec = \"/bin/true\"\n".into(), "exec"),
        ("[alert]\nexec = \"/bin/true\"\n".into(), "certbus.toml"),
    ] {
        let ran = shop.configure(&settings);
        assert!(ran.code == 2 && ran.err.contains(words), "`{words}`: {ran:?}");
        assert!(!ran.err.contains("hush") && !ran.err.contains("t0ken"), "{ran:?}");
    }
    assert_eq!(shop.configure(&good).code, 0);
    shop.fails(&["alert", "log", "--limit", "0"], 2, &["--limit"]);
    let settings = std::fs::read_to_string(shop.path("certbus.toml")).unwrap_or_default();
    std::fs::write(shop.path("certbus.toml"), format!("{settings}\n[alerts.smtp]\nhost = \"x\"\n")).unwrap();
    shop.fails(&["alert", "ls"], 2, &["alerts", "conf edit"]);
    let other = Shop::internal();
    other.fails(&["alert", "test"], 2, &["alerts.smtp", "exec"]);
}

#[test]
fn prometheus_takes_the_rules_and_what_they_and_the_dashboard_ask_for_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rules = root.join("deploy/prometheus/certbus.rules.yml");
    let ran = Command::new("promtool").args(["check", "rules"]).arg(&rules).output().expect("promtool is installed");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("9 rules found"), "{ran:?}");
    let metrics = std::fs::read_to_string(root.join("crates/certbus-manager/src/web/metrics.rs")).unwrap();
    let dashboard = std::fs::read_to_string(root.join("deploy/grafana/certbus.json")).unwrap();
    let _: Value = serde_json::from_str(&dashboard).unwrap();
    let text = format!("{}{dashboard}", std::fs::read_to_string(&rules).unwrap());
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: BTreeSet<&str> = words.filter_map(|word| word.strip_prefix("certbus_")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let there =
            [format!("\"{name}\""), format!("certbus_{name}{{of}}")].iter().any(|known| metrics.contains(known));
        assert!(there, "certbus_{name} is no metric");
    }
}
