//! The dead man's switch, at the real Alertmanager and at a plain URL.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::shop::{Running, Shop, eventually};

/// Hears HTTP requests and answers each with 200; keeps head and body.
#[derive(Clone)]
pub(crate) struct Ear {
    pub(crate) port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ear = Self { port: listener.local_addr().unwrap().port(), heard: Arc::default() };
        let heard = ear.heard.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let request = read(&mut stream.unwrap());
                heard.lock().unwrap().push(request);
            }
        });
        ear
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

fn read(stream: &mut TcpStream) -> String {
    let (mut text, mut space) = (Vec::new(), [0; 4096]);
    loop {
        let said = String::from_utf8_lossy(&text).into_owned();
        let length =
            said.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if let Some((_, body)) = said.split_once("\r\n\r\n")
            && body.len() >= length.unwrap_or(0)
        {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            return said;
        }
        match stream.read(&mut space).unwrap() {
            0 => return said,
            many => text.extend_from_slice(&space[..many]),
        }
    }
}

/// An Alertmanager that notifies an ear at once.
struct Alertmanager {
    _running: Running,
    base: String,
    ear: Ear,
    _folder: tempfile::TempDir,
}

impl Alertmanager {
    fn start() -> Self {
        let (folder, ear) = (tempfile::tempdir().unwrap(), Ear::new());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.path().join("alertmanager.yml");
        std::fs::write(
            &config,
            format!(
                "route: {{receiver: ear, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}\n\
                 receivers:\n- name: ear\n  webhook_configs:\n  - url: 'http://127.0.0.1:{}/'\n    send_resolved: true\n",
                ear.port
            ),
        )
        .unwrap();
        let child = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let base = format!("http://127.0.0.1:{port}");
        let ready = Self { _running: Running::new(child), base, ear, _folder: folder };
        eventually("Alertmanager", || TcpStream::connect(("127.0.0.1", port)).ok());
        ready
    }

    /// What was notified: `firing` and `resolved`, in order.
    fn notified(&self) -> Vec<&'static str> {
        let status = |said: &String| {
            let body: serde_json::Value = serde_json::from_str(said.split_once("\r\n\r\n").unwrap().1).unwrap();
            assert_eq!(body["commonLabels"]["alertname"], "CertBusRenewalMissed", "{body}");
            if body["status"] == "firing" { "firing" } else { "resolved" }
        };
        self.ear.heard().iter().map(status).collect()
    }
}

fn check_in(shop: &Shop, section: &str) {
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let conf = conf.split("\n[check_in]").next().unwrap().to_owned();
    let ran = shop.run_with_input(&["conf", "update"], &format!("{conf}\n[check_in]\n{section}\n"));
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[test]
fn alertmanager_fires_only_when_rounds_stop_and_again_when_they_stop_again() {
    let (shop, alertmanager) = (Shop::internal(), Alertmanager::start());
    check_in(&shop, &format!("alertmanager = \"{}/\"\ndeadline = \"6s\"", alertmanager.base));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        let ran = shop.ok(&["serve", "--once"]);
        assert!(ran.err.is_empty(), "{ran:?}");
        std::thread::sleep(Duration::from_secs(2));
    }
    assert!(alertmanager.notified().is_empty(), "each round puts it off: {:?}", alertmanager.notified());
    let stopped = Instant::now();
    eventually("it fires", || (alertmanager.notified() == ["firing"]).then_some(()));
    assert!(stopped.elapsed() > Duration::from_secs(2), "not before the deadline");
    // A round by cron ends the alarm, and the next miss raises it again.
    shop.ok(&["cert", "renew", "--due"]);
    eventually("it is resolved", || (alertmanager.notified() == ["firing", "resolved"]).then_some(()));
    eventually("it fires again", || (alertmanager.notified() == ["firing", "resolved", "firing"]).then_some(()));
}

#[test]
fn a_url_is_fetched_after_each_round_and_one_that_fails_spoils_nothing_but_is_named_without_its_token() {
    let (shop, ear) = (Shop::internal(), Ear::new());
    shop.ok(&["cert", "mk", "a.shop.example"]);
    check_in(&shop, &format!("url = \"http://127.0.0.1:{}/ping/s3cr3t\"", ear.port));
    shop.ok(&["cert", "renew", "--due"]);
    shop.ok(&["serve", "--once"]);
    assert_eq!(ear.heard().len(), 2);
    // The line that README gives for cron.
    shop.ok(&["cert", "renewable", "--renew-all"]);
    assert_eq!(ear.heard().len(), 3);
    let shown = shop.ok(&["conf", "display"]).out;
    assert!(shown.contains("[check_in]") && !shown.contains("s3cr3t"), "{shown}");
    assert!(ear.heard()[0].starts_with("GET /ping/s3cr3t HTTP/1.1\r\n"), "{:?}", ear.heard());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check_in(&shop, &format!("url = \"http://{taken}/ping/s3cr3t\""));
    let ran = shop.ok(&["cert", "renew", "--due"]);
    assert!(ran.err.contains(&format!("check-in at {taken} failed")), "{}", ran.err);
    assert!(!ran.err.contains("s3cr3t"), "{}", ran.err);
    let bad = shop.ok(&["conf", "display", "--reveal"]).out.replace("http://", "ftp://");
    let ran = shop.run_with_input(&["conf", "update"], &bad);
    assert!(ran.code == 2 && ran.err.contains("check_in.url") && ran.err.contains("https://"), "{ran:?}");
    assert!(!ran.err.contains("s3cr3t"), "{ran:?}");
}
