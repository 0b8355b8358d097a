//! The web over TLS: with files, with a certificate of its own, with a managed one; and whoever dawdles.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::PASSWORD;
use crate::alerts::patiently;
use crate::shop::{Running, Shop, eventually};

impl Shop {
    /// Serves with this in certbus.toml. Returns where, once it is there.
    fn serving_over_tls(&self, port: u16, web: &str, log: &str) -> (Running, String) {
        let settings = std::fs::read_to_string(self.path("certbus.toml")).unwrap_or_default();
        let settings = settings.split("\n[web]").next().unwrap().to_owned();
        std::fs::write(self.path("certbus.toml"), format!("{settings}\n[web]\n{web}\n")).unwrap();
        let server = self.serving_at(&format!("127.0.0.1:{port}"), log);
        let place = eventually("the web is there", || {
            let text = std::fs::read_to_string(self.path(log)).ok()?;
            Some(text.split("the web is at https://").nth(1)?.split([';', '\n']).next()?.to_owned())
        });
        (server, place)
    }

    /// A certificate for 127.0.0.1 and its key, in these files.
    fn self_signed(&self, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"])
            .args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        (certificate, key)
    }
}

/// What curl gets, if it trusts what it meets; its words otherwise.
fn curl(roots: &Path, url: &str, more: &[&str]) -> Result<String, String> {
    let mut curl = Command::new("curl");
    let ran = curl.args(["-sS", "-i", "--max-time", "10", "--cacert"]).arg(roots).args(more).arg(url).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if ran.status.success() { Ok(text(&ran.stdout)) } else { Err(text(&ran.stderr)) }
}

#[test]
fn curl_meets_the_certificate_in_the_files_and_another_one_as_soon_as_it_is_there() {
    let shop = Shop::internal();
    let (certificate, key) = shop.self_signed("first");
    shop.add_user("ann", "admin");
    let web = format!("tls = \"files\"\ncertificate = \"{}\"\nkey = \"{}\"", certificate.display(), key.display());
    let (_server, place) = shop.serving_over_tls(0, &web, "serve.log");
    let url = format!("https://{place}");
    let form = format!("name=ann&password={}", PASSWORD.replace(' ', "+"));
    let login = curl(&certificate, &format!("{url}/login"), &["--data", &form]).unwrap();
    assert!(login.contains("__Host-certbus_session=") && login.contains("; Secure"), "{login}");

    let (other, other_key) = shop.self_signed("second");
    std::fs::write(&certificate, "no certificate").unwrap();
    let log = shop.path("serve.log");
    patiently("the bad file is told of", || {
        std::fs::read_to_string(&log).unwrap().contains("the web keeps its certificate").then_some(())
    });
    assert!(curl(&other, &format!("{url}/healthz"), &[]).is_err(), "still the first");
    std::fs::copy(&other_key, &key).unwrap();
    std::fs::copy(&other, &certificate).unwrap();
    patiently("the second is met", || curl(&other, &format!("{url}/healthz"), &[]).ok());
}

#[test]
fn curl_meets_a_certificate_of_its_own_which_stays_and_then_the_managed_one() {
    let shop = Shop::internal();
    shop.add_user("ann", "admin");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let web = "tls = \"own\"\npublic_url = \"https://certbus.shop.example:8443\"";
    let log = |name: &str| std::fs::read_to_string(shop.path(name)).unwrap_or_default();
    let settings = std::fs::read_to_string(shop.path("certbus.toml")).unwrap_or_default();
    std::fs::write(shop.path("certbus.toml"), format!("{settings}\n[web]\n{web}\n")).unwrap();
    let server = shop.serving_at(&format!("127.0.0.1:{port}"), "serve.log");
    eventually("it is told that the port is taken", || log("serve.log").contains("web.listen").then_some(()));
    drop(taken);
    let url = patiently("the port is taken no more", || {
        Some(log("serve.log").split("the web is at https://").nth(1)?.trim().to_owned())
    });
    assert!(!log("serve.log").contains("nobody has signed"), "{}", log("serve.log"));
    assert_eq!(url, "certbus.shop.example:8443");
    let own = shop.path("data/web.pem");
    let url = "https://certbus.shop.example:8443/healthz";
    let to = format!("certbus.shop.example:8443:127.0.0.1:{port}");
    let met = curl(&own, url, &["--connect-to", &to]);
    assert!(met.as_ref().is_ok_and(|met| met.contains("ok")), "{met:?} {}", log("serve.log"));
    let before = std::fs::read(&own).unwrap();
    drop(server);
    let (_server, _) = shop.serving_over_tls(port, web, "again.log");
    assert_eq!(std::fs::read(&own).unwrap(), before, "who accepted it is not asked again");
    shop.ok(&["cert", "mk", "certbus.shop.example"]);
    let conf = shop.ok(&["conf", "display"]).out;
    let root = conf.split("\"\"\"\n").nth(1).unwrap();
    std::fs::write(shop.path("root.pem"), root).unwrap();
    patiently("the managed certificate is met", || curl(&shop.path("root.pem"), url, &["--connect-to", &to]).ok());
    assert!(curl(&own, url, &["--connect-to", &to]).is_err());

    // Whoever begins no handshake is sent away, and holds up nobody.
    let begun = Instant::now();
    let mut silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
    silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert!(curl(&shop.path("root.pem"), url, &["--connect-to", &to]).is_ok());
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0);
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
}

#[test]
fn who_sends_half_a_request_is_sent_away_and_holds_up_nobody() {
    let shop = Shop::internal();
    let (_server, web) = super::served(&shop);
    let half_head = "GET / HTTP/1.1\r\nhost: localhost\r\n".to_owned();
    let half_body = "POST /login HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: \
                     application/x-www-form-urlencoded\r\ncontent-length: 9\r\n\r\nname"
        .to_owned();
    let open = |text: &String| {
        let mut stream = TcpStream::connect(&web.place).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let waiting: Vec<TcpStream> = [half_head, half_body].iter().map(open).collect();
    assert_eq!(web.get("/healthz").status, 200);
    for mut stream in waiting {
        let mut said = String::new();
        let ended = stream.read_to_string(&mut said);
        assert!(ended.is_ok() && !said.contains("200 OK"), "{ended:?} {said}");
    }
}

#[test]
fn who_asks_and_does_not_read_is_sent_away() {
    let shop = Shop::internal();
    let (_server, web) = super::served(&shop);
    let mut stream = TcpStream::connect(&web.place).unwrap();
    let style = web.get("/login").body.split("href=\"").find_map(|part| Some(part.split_once(".css")?.0.to_owned()));
    let ask = format!("GET {}.css HTTP/1.1\r\nhost: localhost\r\n\r\n", style.unwrap());
    // More answers than any buffer between the two holds.
    let asked = (0..5000).map_while(|_| stream.write_all(ask.as_bytes()).ok()).count();
    assert!(asked > 100, "{asked}");
    let begun = Instant::now();
    while stream.write_all(b"G").is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(90), "it still waits to be read");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(web.get("/healthz").status, 200);
}

#[test]
fn one_address_cannot_take_all_places() {
    let shop = Shop::internal();
    let (_server, web) = super::served(&shop);
    let _many: Vec<TcpStream> = (0..128).map(|_| TcpStream::connect(&web.place).unwrap()).collect();
    let url = format!("http://{}/healthz", web.place);
    let from = |address: &str| {
        let ran = Command::new("curl").args(["-sS", "--max-time", "5", "--interface", address, &url]).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    eventually("the first has enough", || from("127.0.0.1").is_empty().then_some(()));
    assert_eq!(from("127.0.0.2"), "ok\n");
}

#[test]
fn web_settings_that_would_be_overheard_or_cannot_be_are_refused() {
    let shop = Shop::internal();
    let before = std::fs::read_to_string(shop.path("certbus.toml")).unwrap_or_default();
    for (listen, web, words) in [
        ("127.0.0.1:0", "tls = \"files\"", "certificate"),
        ("127.0.0.1:0", "certificate = \"/x\"", "tls = \"files\""),
        ("127.0.0.1:0", "tls = \"ssl\"", "own"),
        ("0.0.0.0:0", "", "\"own\""),
        ("0.0.0.0:0", "tls = \"own\"", "public_url"),
        ("127.0.0.1:0", "tls = \"own\"\npublic_url = \"http://certbus.example\"", "https://"),
        ("127.0.0.1:0", "public_url = \"https://certbus.example\"", "who speaks TLS"),
    ] {
        std::fs::write(shop.path("certbus.toml"), format!("{before}\n[web]\n{web}\n")).unwrap();
        shop.fails(&["serve", "--listen", listen], 2, &[words]);
    }
    let web = "tls = \"files\"\ncertificate = \"/no/such.crt\"\nkey = \"/no/such.key\"";
    std::fs::write(shop.path("certbus.toml"), format!("{before}\n[web]\n{web}\n")).unwrap();
    let _server = shop.serving("serve.log");
    let log = shop.path("serve.log");
    eventually("it says why, and renews all the same", || {
        std::fs::read_to_string(&log).ok().filter(|text| text.contains("/no/such.crt"))
    });
}
