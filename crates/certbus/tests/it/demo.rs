//! The demo, checked from outside while it runs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::shop::{Running, Shop, curl, openssl};
use crate::web::PASSWORD;
use crate::web::http::Web;

#[test]
fn demo_once_checks_itself_and_leaves_nothing_behind() {
    let shop = Shop::empty();
    let temporary = shop.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let output = shop.command(&["demo", "--once", "--json"]).env("TMPDIR", &temporary).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let steps: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let names: Vec<&str> = steps.iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["init", "ca", "issued", "serving", "observed", "renewed", "replaced", "web", "restarted", "done"]
    );
    let print = |step: usize| steps[step]["fingerprint"].as_str().unwrap();
    assert_eq!(print(3), print(4), "what is served is observed");
    assert_ne!(print(4), print(5));
    assert_eq!(print(5), print(6), "and what was renewed");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn openssl_and_curl_see_what_the_demo_says_it_serves() {
    let shop = Shop::empty();
    let folder = shop.path("demo");
    let mut child =
        shop.command(&["demo", "--json", "--folder", folder.to_str().unwrap()]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let running = Running::new(child);
    let mut serving = serde_json::Value::Null;
    for line in lines {
        let step: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        match step["step"].as_str().unwrap() {
            "serving" => serving = step,
            // The renewal it made is on the endpoint's timeline.
            "web" => {
                let login = step["login"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
                let (place, link) = login.split_once('/').unwrap();
                let web = Web::at(place);
                let fields = [("password", PASSWORD), ("again", PASSWORD)];
                let session = web.with_cookie(&web.form(&format!("/{link}"), &fields).cookie());
                let page = session.get("/endpoints/1").body;
                assert!(page.contains("renewed") && page.contains("served by its only node"), "{page}");
                let dashboard = session.get("/").body;
                assert!(dashboard.contains("headline good"), "{dashboard}");
            }
            "restarted" => break,
            "renewed" => {
                let address = serving["address"].as_str().unwrap();
                let port: u16 = address.rsplit(':').next().unwrap().parse().unwrap();
                let roots = serving["roots_file"].as_str().unwrap();
                let name = serving["name"].as_str().unwrap();
                let seen = openssl(port, name, roots.as_ref()).unwrap();
                assert_eq!(seen, step["fingerprint"].as_str().unwrap());
                assert_ne!(seen, serving["fingerprint"].as_str().unwrap());
                assert_eq!(curl(port, name, "/hello", roots.as_ref()), "greetings from /hello\n");
                assert_eq!(curl(port, &format!("www.{name}"), "/w", roots.as_ref()), "greetings from /w\n");
            }
            _ => {}
        }
    }
    assert!(!serving.is_null());
    running.kill();
}
