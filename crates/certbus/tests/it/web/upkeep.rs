//! Alerts and settings on the web and by the API; and a real Prometheus that scrapes a running server.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::http::Web;
use super::{PASSWORD, served};
use crate::alerts::patiently;
use crate::shop::{Running, Shop, eventually};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_is_wrong_is_listed_told_muted_and_unmuted_on_the_web_and_by_the_api() {
    let shop = Shop::internal();
    shop.program("cat >>OUT");
    let name = shop.dead_ends(1, "ada@shop.example").remove(0);
    shop.add_user("carl", "viewer");
    let (_server, web) = served(&shop);
    let (ann, carl) = (web.login("ann", PASSWORD), web.login("carl", PASSWORD));
    let api = web.with_header(&format!("authorization: Bearer {}", shop.token("ci", "write")));
    let page = patiently("the problem is told", || {
        Some(ann.get("/alerts").body).filter(|page| page.contains("unreachable") && page.contains("delivered"))
    });
    assert!(page.contains(&name) && page.contains("ada@shop.example") && page.contains("<code>exec</code>"), "{page}");
    assert!(page.contains("href=\"/endpoints/1\"") && page.contains("Mute"), "{page}");
    assert!(!carl.get("/alerts").body.contains("Mute"));

    let list = parsed(&api.get("/api/v1/alerts").body);
    let key = list["items"][0]["key"].as_str().unwrap();
    assert_eq!((key, list["items"][0]["is_muted"].as_bool()), ("endpoint/1/unreachable", Some(false)));
    assert_eq!(ann.form("/alerts/mute", &[("subject", key), ("for", "soon")]).status, 400);
    assert_eq!(ann.form("/alerts/mute", &[("subject", "endpoint/77"), ("for", "")]).status, 404);
    assert_eq!(ann.form("/alerts/mute", &[("subject", key), ("for", "7d")]).status, 303);
    let page = ann.get("/alerts").body;
    assert!(page.contains("nobody: muted") && page.contains("Unmute") && page.contains("in 167 h"), "{page}");
    let mutes = parsed(&api.get("/api/v1/alerts/mutes").body);
    assert_eq!((mutes["items"][0]["subject"].as_str(), mutes["items"][0]["actor"].as_str()), (Some(key), Some("ann")));
    assert_eq!(api.json("DELETE", &format!("/api/v1/alerts/mutes?subject={key}"), &json!({})).status, 204);
    assert_eq!(api.json("DELETE", &format!("/api/v1/alerts/mutes?subject={key}"), &json!({})).status, 404);
    assert_eq!(api.json("POST", "/api/v1/alerts/mutes", &json!({ "subject": "endpoint/1" })).status, 204);
    assert_eq!(ann.form("/alerts/unmute", &[("subject", "endpoint/1")]).status, 303);
    assert_eq!(api.get("/api/v1/alerts/mutes").body, "{\"items\":[]}");

    let asked = api.json("POST", "/api/v1/alerts/test", &json!({}));
    assert_eq!(asked.status, 202, "{}", asked.body);
    let number = parsed(&asked.body)["message"].clone();
    let log = patiently("the test message is delivered", || {
        let log = parsed(&api.get("/api/v1/alerts/log?limit=1").body);
        (log["items"][0]["state"] == "delivered").then_some(log)
    });
    assert_eq!((&log["items"][0]["message"], log["items"][0]["event"].as_str()), (&number, Some("test")));
    let trail = shop.ok(&["audit", "--json"]).out;
    for action in ["alert mute", "alert unmute", "alert test"] {
        assert!(trail.contains(&format!("\"{action}\"")), "{action}: {trail}");
    }
}

#[test]
fn settings_are_changed_on_the_web_with_their_secrets_masked_and_by_one_at_a_time() {
    let shop = Shop::internal();
    let (_server, web) = served(&shop);
    let ann = web.login("ann", PASSWORD);
    let nobody = ann.form("/alerts/test", &[]);
    assert!(nobody.status == 409 && nobody.body.contains("alerts.smtp"), "{}", nobody.body);
    assert!(ann.get("/alerts").body.contains("Nobody is told"));
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let hook = "\n[[alerts.webhook]]\nname = \"chat\"\nurl = \"https://chat.example/t0ken\"\n";
    assert_eq!(shop.run_with_input(&["conf", "update"], &format!("{conf}{hook}")).code, 0);
    let page = ann.get("/settings");
    assert!(page.body.contains("webhook") && page.body.contains("********"), "{}", page.body);
    assert!(!page.body.contains("t0ken"), "{}", page.body);
    let follows = page.field("follows");
    let text = shop.ok(&["conf", "display"]).out;
    let set = |text: &str, follows: &str| ann.form("/settings", &[("text", text), ("follows", follows)]);

    let wrong = text
        .replace("name = \"chat\"", "name = \"My chat\"")
        .replace("url = \"********\"", "url = \"https://c.example\"");
    let wrong = set(&wrong, &follows);
    assert!(wrong.status == 400 && wrong.body.contains("alerts.webhook.name") && wrong.body.contains("My chat"));
    let file = set(&format!("{text}secret_file = \"/etc/passwd\"\n"), &follows);
    assert!(file.status == 400 && file.body.contains("conf edit"), "{}", file.body);
    let local = set(&format!("web = 1\n{text}"), &follows);
    assert!(local.status == 400 && local.body.contains("certbus.toml"), "{}", local.body);
    assert_eq!(set("", &follows).status, 400);
    assert_eq!(shop.ok(&["conf", "display"]).out, text, "nothing was stored");

    // As a browser sends it.
    let with = |name: &str| {
        format!("{text}\n[[alerts.webhook]]\nname = \"{name}\"\nurl = \"https://talk.example/{name}-s3cret\"\n")
    };
    let done = set(&with("talk").replace('\n', "\r\n"), &follows);
    assert_eq!(done.location(), "/settings", "{}", done.body);
    let now = shop.ok(&["conf", "display", "--reveal"]).out;
    assert!(now.contains("talk-s3cret") && now.contains("t0ken"), "a mask that stays keeps its secret: {now}");
    let late = set(&with("late"), &follows);
    assert!(late.status == 409 && late.body.contains("meanwhile") && late.body.contains("late"), "{}", late.body);
    let trail = shop.ok(&["audit", "--json"]).out;
    assert!(trail.contains("\"conf change\"") && trail.contains("\"detail\":\"alerts.webhook\""), "{trail}");

    // A secret stays with whom it was for.
    let mail = "[alerts.smtp]\nhost = \"mail.shop.example\"\nfrom = \"a@shop.example\"\nto = [\"b@shop.example\"]\nuser = \"ada\"\n";
    let mail = |password: &str| format!("{}\n{mail}password = \"{password}\"\n", conf);
    assert_eq!(shop.run_with_input(&["conf", "update"], &mail("hush-hush")).code, 0);
    let page = ann.get("/settings");
    let (follows, text) = (page.field("follows"), shop.ok(&["conf", "display"]).out);
    let elsewhere = set(&text.replace("mail.shop.example", "mail.evil.example"), &follows);
    assert!(elsewhere.status == 400 && elsewhere.body.contains("write it out"), "{}", elsewhere.body);
    let other = set(&text.replace("b@shop.example", "c@shop.example"), &follows);
    assert_eq!(other.location(), "/settings", "{}", other.body);
    assert!(shop.ok(&["conf", "display", "--reveal"]).out.contains("hush-hush"));

    let api = web.with_header(&format!("authorization: Bearer {}", shop.token("boss", "admin")));
    let found = parsed(&api.get("/api/v1/settings").body);
    let toml = found["issuing"].as_str().unwrap();
    let changed = json!({ "issuing": toml.split("\n[alerts").next().unwrap(), "mark": found["mark"] });
    let answer = api.json("PUT", "/api/v1/settings", &changed);
    assert!(answer.status == 200 && !answer.body.contains("smtp"), "{}", answer.body);
    assert_eq!(api.json("PUT", "/api/v1/settings", &changed).status, 409);
    assert_eq!(api.json("PUT", "/api/v1/settings", &json!({ "issuing": "colour = 1", "mark": "x" })).status, 409);
    assert_eq!(api.json("PUT", "/api/v1/settings", &json!({ "issuing": "colour = 1" })).status, 400);
}

#[test]
fn prometheus_scrapes_a_running_server_and_loads_the_rules_and_answers_what_grafana_asks() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--subdomain", "www.shop.example"]);
    let (_example, port) = shop.serve(&[]);
    shop.ok(&["endpoint", "add", &format!("127.0.0.1:{port}"), "--sni", "www.shop.example", "--name", "www"]);
    shop.ok(&["endpoint", "poll", "www"]);
    let (_server, web) = served(&shop);
    let token = shop.path("prometheus.token");
    std::fs::write(&token, shop.token("prometheus", "metrics")).unwrap();
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [\"{deploy}/prometheus/certbus.rules.yml\"]\n\
         scrape_configs:\n  - job_name: certbus\n    authorization: {{credentials_file: \"{}\"}}\n    \
         static_configs: [{{targets: [\"{}\"]}}]\n",
        token.display(),
        web.place
    );
    std::fs::write(shop.path("prometheus.yml"), config).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut prometheus = Command::new("prometheus");
    prometheus
        .arg(format!("--config.file={}", shop.path("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", shop.path("prometheus").display()))
        .arg(format!("--web.listen-address={free}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _prometheus = Running::new(prometheus.spawn().expect("prometheus is installed"));
    let there = Web::at(&free.to_string());
    let ready = || std::net::TcpStream::connect(free).is_ok() && there.get("/-/ready").status == 200;
    patiently("Prometheus is ready", || ready().then_some(()));
    let ask = |query: &str| {
        let query = query.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        parsed(&there.get(&format!("/api/v1/query?query={query}")).body)
    };
    let ends = eventually("the expiry is scraped", || {
        let answer = ask("certbus_endpoint_not_after_timestamp_seconds{endpoint=\"www\"} - time()");
        answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
    });
    assert!((1.0..90.0 * 86_400.0).contains(&ends), "{ends}");
    let targets = parsed(&there.get("/api/v1/targets").body);
    assert_eq!(targets["data"]["activeTargets"][0]["health"], "up", "{targets}");
    let rules = eventually("the rules are evaluated", || {
        let rules = parsed(&there.get("/api/v1/rules").body)["data"]["groups"][0]["rules"].clone();
        let well = |rule: &Value| rule["health"] == "ok" && rule["state"] == "inactive";
        rules.as_array()?.iter().all(well).then_some(rules)
    });
    assert_eq!(rules.as_array().unwrap().len(), 9);
    let dashboard = parsed(&std::fs::read_to_string(format!("{deploy}/grafana/certbus.json")).unwrap());
    let panels = dashboard["panels"].as_array().unwrap();
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut answered = 0;
    for query in queries {
        let query = query["expr"].as_str().unwrap().replace("$__rate_interval", "5s").replace("$__interval", "5s");
        let answer = ask(&query);
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answered += usize::from(!answer["data"]["result"].as_array().unwrap().is_empty());
    }
    assert!(answered >= 8, "{answered} of the dashboard's queries have an answer");
}
