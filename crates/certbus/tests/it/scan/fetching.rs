//! What certificates name is fetched: when asked for, once, side by side, within bounds, and never from where a scanned
//! certificate may not lead.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Place, names};

#[test]
fn missing_intermediates_and_revocation_lists_are_fetched_only_when_asked_for() {
    let mut place = Place::new();
    let web = Web::start(place.folder.path());
    let url = web.url();
    let named =
        format!("authorityInfoAccess=caIssuers;URI:{url}/middle.der\ncrlDistributionPoints=URI:{url}/middle.crl\n");
    let ca = Ca::new(&place);
    ca.sign("middle", "root", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n");
    ca.sign("leaf", "middle", &named);
    place.openssl("x509 -in middle.pem -outform DER -out middle.der");
    let target = format!("127.0.0.1:{}", place.serve("leaf", ""));
    let judge = |place: &Place, arguments: &[&str]| {
        let seen = place.json(0, &[&[&*target, "--roots", "root.pem"], arguments].concat());
        let verdict = seen.into_iter().next().unwrap().verdict.unwrap();
        (verdict.trusted, serde_json::to_value(&verdict).unwrap())
    };
    let (trusted, verdict) = judge(&place, &[]);
    assert_eq!((trusted, &verdict["problems"][0]["kind"]), (false, &"missing_intermediate".into()), "{verdict}");
    assert_eq!(verdict["problems"][0]["aia"], format!("{url}/middle.der"));
    assert_eq!(web.asked(), 0, "nothing is fetched unasked");
    let (trusted, verdict) = judge(&place, &["--aia"]);
    assert_eq!((trusted, &verdict["problems"][0]["mends"]), (false, &true.into()), "{verdict}");
    // A bundle does as well.
    place.openssl("crl2pkcs7 -nocrl -certfile middle.pem -outform DER -out middle.der");
    let (_, verdict) = judge(&place, &["--aia"]);
    assert_eq!(verdict["problems"][0]["mends"], true, "{verdict}");
    ca.list("middle");
    let (_, verdict) = judge(&place, &["--aia", "--revocation"]);
    assert_eq!(verdict["revocation"]["status"], "good", "{verdict}");
    place.openssl("ca -config ca.cnf -cert middle.pem -keyfile middle.key -revoke leaf.pem");
    ca.list("middle");
    let (_, verdict) = judge(&place, &["--aia", "--revocation"]);
    assert_eq!(verdict["revocation"]["status"], "revoked", "{verdict}");
    place.scan(10, &[&target, "--roots", "root.pem", "--aia", "--revocation", "--fail-on", "revoked"]);
}

#[test]
fn lists_are_fetched_side_by_side_and_each_address_once() {
    let mut place = Place::new();
    let web = Web::slow(place.folder.path(), Duration::from_millis(1500));
    let ca = Ca::new(&place);
    ca.list("root");
    ca.sign("other", "root", "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n");
    ca.list("other");
    let mut targets = Vec::new();
    for number in 0..8 {
        // Another CA's, which says nothing.
        std::fs::copy(place.path("other.crl"), place.path(&format!("{number}.crl"))).unwrap();
        let (name, url) = (format!("leaf{number}"), web.url());
        ca.sign(&name, "root", &format!("crlDistributionPoints=URI:{url}/{number}.crl,URI:{url}/root.crl\n"));
        targets.push(format!("127.0.0.1:{}", place.serve(&name, "")));
    }
    let all: Vec<&str> = targets.iter().chain(&targets).chain(&targets).map(String::as_str).collect();
    let began = Instant::now();
    let seen = place.json(0, &[&all[..], &["--roots", "root.pem", "--revocation"]].concat());
    // One after the other they take 9 times 1.5 seconds.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!((seen.len(), web.asked()), (24, 9));
    for line in seen {
        let verdict = serde_json::to_value(line.verdict.unwrap()).unwrap();
        assert_eq!((&verdict["revocation"]["status"], &verdict["trusted"]), (&"good".into(), &true.into()));
    }
}

#[test]
fn a_list_that_was_not_had_is_told_in_the_table_and_can_fail_a_scan() {
    let mut place = Place::new();
    let (web, ca) = (Web::start(place.folder.path()), Ca::new(&place));
    ca.list("root");
    let url = web.url();
    let named = ["missing.crl", "elsewhere", "endless", "secret", "root.crl"];
    let mut named: Vec<_> = named.iter().map(|path| format!("URI:{url}/{path}")).collect();
    named[3] = named[3].replace("http:", "https:");
    ca.sign("leaf", "root", &format!("crlDistributionPoints={}\n", named.join(",")));
    let target = format!("127.0.0.1:{}", place.serve("leaf", ""));
    let arguments = [&*target, "--roots", "root.pem", "--revocation"];
    let (table, _) = place.scan(0, &arguments);
    assert!(table.contains("! trusted, revocation unchecked: no list could be fetched"), "{table}");
    assert!(table.contains(&format!("{url}/missing.crl: HTTP 404")), "{table}");
    // A redirect is not followed, what has no end is not taken, and a fifth list is not asked for.
    assert!(table.contains(&format!("{url}/elsewhere: HTTP 302")), "{table}");
    assert!(table.contains(&format!("{url}/endless: more than 67108864 bytes")), "{table}");
    assert!(table.contains("/secret: only http:// is fetched"), "{table}");
    assert_eq!(web.asked(), 3);
    let (_, err) = place.scan(10, &[&arguments[..], &["--fail-on", "unchecked"]].concat());
    assert!(err.contains("1 to look at (unchecked)"), "{err}");
    let (_, err) = place.scan(2, &[&target, "--fail-on", "unchecked"]);
    assert!(err.contains("wants --revocation"), "{err}");
    ca.sign("bare", "root", "");
    let bare = format!("127.0.0.1:{}", place.serve("bare", ""));
    let (table, _) = place.scan(10, &[&bare, "--roots", "root.pem", "--revocation", "--fail-on", "unchecked"]);
    assert!(table.contains("revocation unchecked: the certificate names no list"), "{table}");
}

#[test]
fn a_server_of_lists_that_never_answers_ends_no_scan_late() {
    let mut place = Place::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let ca = Ca::new(&place);
    let named: Vec<_> = (0..4).map(|number| format!("URI:{url}/{number}")).collect();
    ca.sign("leaf", "root", &format!("crlDistributionPoints={}\n", named.join(",")));
    let target = format!("127.0.0.1:{}", place.serve("leaf", ""));
    let began = Instant::now();
    let (table, _) = place.scan(0, &[&target, "--roots", "root.pem", "--revocation"]);
    let took = began.elapsed();
    assert!(took > Duration::from_secs(10) && took < Duration::from_secs(26), "{took:?}");
    assert!(table.contains("no answer within 10s") && table.contains("no answer within 20s"), "{table}");
}

#[test]
fn a_list_that_says_nothing_hides_none_that_does_and_after_that_nobody_is_asked() {
    let mut place = Place::new();
    let (web, ca) = (Web::start(place.folder.path()), Ca::new(&place));
    ca.list_until("root", "-crl_lastupdate 20200101000000Z -crl_nextupdate 20200201000000Z");
    std::fs::rename(place.path("root.crl"), place.path("old.crl")).unwrap();
    ca.list("root");
    std::fs::write(place.path("none.crl"), "<html>").unwrap();
    let url = web.url();
    let named = ["none", "old", "root", "missing"].map(|name| format!("URI:{url}/{name}.crl")).join(",");
    ca.sign("leaf", "root", &format!("crlDistributionPoints={named}\n"));
    let target = format!("127.0.0.1:{}", place.serve("leaf", ""));
    let seen = place.json(0, &[&target, "--roots", "root.pem", "--revocation"]);
    let verdict = serde_json::to_value(seen[0].verdict.as_ref().unwrap()).unwrap();
    assert_eq!(verdict["revocation"]["status"], "good", "{verdict}");
    assert_eq!(verdict["unfetched"], serde_json::json!([format!("{url}/none.crl: no revocation list is there")]));
    assert_eq!(web.asked(), 3);
}

#[test]
fn many_results_are_not_kept_waiting_by_what_is_fetched() {
    let mut place = Place::new();
    let (web, ca) = (Web::start(place.folder.path()), Ca::new(&place));
    ca.list("root");
    ca.sign("leaf", "root", &format!("crlDistributionPoints=URI:{}/root.crl\n", web.url()));
    let targets = format!("127.0.0.1:{}\n", place.serve("leaf", "")).repeat(2000);
    std::fs::write(place.path("targets.txt"), targets).unwrap();
    let began = Instant::now();
    place.scan(0, &["@targets.txt", "--roots", "root.pem", "--fail-on", "unchecked,failed", "--revocation", "--json"]);
    // One a turn they would take 4 ms each, and more.
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(web.asked(), 1);
}

#[test]
fn a_large_list_is_read_once_for_all_certificates_that_name_it() {
    let mut place = Place::new();
    let (web, ca) = (Web::start(place.folder.path()), Ca::new(&place));
    let revoked = |number| format!("R\t400101000000Z\t200101000000Z\t{:08X}\tunknown\t/CN=x\n", number);
    std::fs::write(place.path("index.txt"), (0x1000_0000..0x1000_0000 + 60_000).map(revoked).collect::<String>())
        .unwrap();
    ca.list("root");
    ca.sign("leaf", "root", &format!("crlDistributionPoints=URI:{}/root.crl\n", web.url()));
    let target = format!("127.0.0.1:{}", place.serve("leaf", ""));
    // Seconds of the processor.
    let spent = |times: usize| {
        std::fs::write(place.path("targets.txt"), format!("{target}\n").repeat(times)).unwrap();
        let mut shell = Command::new("sh");
        let scan =
            "\"$0\" scan @targets.txt --json --roots root.pem --revocation --fail-on unchecked >seen.json && times";
        shell.args(["-c", scan, env!("CARGO_BIN_EXE_certbus")]).current_dir(place.folder.path());
        shell.env("HOME", place.path("home")).env_remove("CERTBUS_CONFIG").env_remove("CERTBUS_DATA");
        let (out, _) = super::told(0, shell.output().unwrap());
        // The second line is of what the shell ran: `0m1.25s 0m0.10s`.
        let user = out.lines().nth(1).unwrap().split(['m', 's']).nth(1).unwrap().to_owned();
        user.parse::<f64>().unwrap()
    };
    let (once, often) = (spent(1), spent(30));
    assert!(often < 4.0 * once, "{once} s for one, {often} s for thirty");
}

#[test]
fn a_server_of_lists_whose_first_address_is_dead_is_asked_at_the_next() {
    let mut place = Place::new();
    let (web, ca) = (Web::at([127, 0, 0, 3], place.folder.path(), Duration::ZERO), Ca::new(&place));
    // Whoever connects there waits: nobody accepts, and nobody else fits in.
    let dead = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 2], web.port));
    dead.bind(&address.into()).unwrap();
    dead.listen(0).unwrap();
    let waits = || TcpStream::connect_timeout(&address, Duration::from_millis(300));
    let _fill: Vec<_> = (0..3).map(|_| waits()).collect();
    assert!(waits().is_err());
    let names = names(&[[127, 0, 0, 2], [127, 0, 0, 3]], 0);
    ca.list("root");
    ca.sign("leaf", "root", &format!("crlDistributionPoints=URI:http://lists.test:{}/root.crl\n", web.port));
    let target = format!("127.0.0.1:{}", place.serve("leaf", ""));
    let began = Instant::now();
    let arguments = [&*target, "--roots", "root.pem", "--revocation", "--resolver", &names, "--fail-on", "unchecked"];
    place.scan(0, &arguments);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn the_way_to_a_root_is_found_among_certificates_of_the_same_name() {
    let mut place = Place::new();
    let (web, ca) = (Web::start(place.folder.path()), Ca::new(&place));
    let url = web.url();
    let is_ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n";
    let led = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|path| format!("caIssuers;URI:{url}/{path}")).collect();
        format!("authorityInfoAccess={}\n", paths.join(","))
    };
    ca.sign("middle", "root", is_ca);
    // Of the same name as the one that signed, and with other keys: the first of a bundle, and all of one.
    for (name, kept) in [("lower", "namesake"), ("lower", "stranger")] {
        ca.sign(name, "root", &format!("{is_ca}{}", led(&["nowhere"])));
        std::fs::rename(place.path(&format!("{name}.pem")), place.path(&format!("{kept}.pem"))).unwrap();
    }
    ca.sign("lower", "middle", &format!("{is_ca}{}", led(&["middle.der"])));
    ca.sign("leaf", "lower", &led(&["strangers", "bundle"]));
    place.openssl("x509 -in middle.pem -outform DER -out middle.der");
    place.openssl("crl2pkcs7 -nocrl -certfile stranger.pem -outform DER -out strangers");
    place.openssl("crl2pkcs7 -nocrl -certfile namesake.pem -certfile lower.pem -outform DER -out bundle");
    let target = format!("127.0.0.1:{}", place.serve("leaf", ""));
    let seen = place.json(0, &[&target, "--roots", "root.pem", "--aia"]);
    let verdict = serde_json::to_value(seen[0].verdict.as_ref().unwrap()).unwrap();
    assert_eq!(verdict["problems"][0]["mends"], true, "{verdict}");
}

/// In a network namespace of its own, where this machine has a private address beside loopback.
#[test]
fn a_node_leads_to_no_address_of_this_machine_unless_allowed() {
    let place = Place::new();
    let ca = Ca::new(&place);
    ca.list("root");
    let named = ["169.254.169.254:8080", "127.0.0.1:25", "127.0.0.1:8080", "localhost:8080"];
    let named = named.map(|server| format!("URI:http://{server}/root.crl")).join(",");
    ca.sign("leaf", "root", &format!("crlDistributionPoints={named}\n"));
    let script = format!(
        "ip link set lo up && ip addr add 10.9.9.9/32 dev lo && ip addr add 169.254.169.254/32 dev lo
        python3 -m http.server 8080 --bind 127.0.0.1 >web.log 2>asked.log & web=$!
        python3 -m http.server 8080 --bind 169.254.169.254 >web.log 2>never.log & metadata=$!
        python3 -m http.server 25 --bind 127.0.0.1 >web.log 2>>never.log & mail=$!
        openssl s_server -quiet -accept 10.9.9.9:4433 -cert leaf.pem -key leaf.key & tls=$!
        for wait in $(seq 100); do [ $(ss -ltn | grep -cE ':(8080|25|4433) ') = 4 ] && break; sleep 0.1; done
        scan() {{ {} scan 10.9.9.9:4433 --roots root.pem --revocation \"$@\"; }}
        scan; cp asked.log before.log; scan --fetch-private; kill $web $metadata $mail $tls",
        env!("CARGO_BIN_EXE_certbus")
    );
    let mut command = Command::new("unshare");
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    command.args(["-n", "sh", "-c", &script]).current_dir(place.folder.path()).env("HOME", place.path("home"));
    command.env("PATH", path).env_remove("CERTBUS_CONFIG").env_remove("CERTBUS_DATA");
    let (out, err) = super::told(0, command.output().unwrap());
    let [refused, allowed] = out.lines().collect::<Vec<_>>()[..] else { panic!("{out}{err}") };
    for name in ["127.0.0.1", "localhost"] {
        let why = format!("http://{name}:8080/root.crl: 127.0.0.1 is an address of this machine");
        assert!(refused.contains(&why), "{out}{err}");
    }
    assert!(refused.contains("see --fetch-private") && refused.contains("revocation unchecked"), "{out}{err}");
    assert!(allowed.contains("trusted") && !allowed.contains("unchecked"), "{out}{err}");
    assert_eq!(std::fs::read_to_string(place.path("before.log")).unwrap(), "", "it was asked");
    assert!(std::fs::read_to_string(place.path("asked.log")).unwrap().contains("GET /root.crl"));
    assert!(
        allowed.contains("169.254.169.254 is a link-local address or a cloud's own, which are never asked"),
        "{out}"
    );
    assert!(allowed.contains("port 25: only port 80 and those from 1024 on are asked"), "{out}");
    assert_eq!(std::fs::read_to_string(place.path("never.log")).unwrap(), "", "it was asked");
}

/// A root in the folder of a place, and what it and those below it sign.
struct Ca(PathBuf);

impl Ca {
    fn new(place: &Place) -> Self {
        let ca = Self(place.folder.path().to_owned());
        ca.openssl(&format!(
            "req -x509 {EC} -keyout root.key -out root.pem -days 90 -subj /CN=root -addext keyUsage=critical,keyCertSign,cRLSign"
        ));
        let config =
            "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=7\n";
        for (name, text) in [("ca.cnf", config), ("index.txt", ""), ("number", "01\n")] {
            std::fs::write(ca.0.join(name), text).unwrap();
        }
        ca
    }

    /// A certificate for the addresses of the tests' servers, with these extensions beside.
    fn sign(&self, name: &str, by: &str, extensions: &str) {
        let usual = "subjectAltName=IP:127.0.0.1,IP:10.9.9.9\nextendedKeyUsage=serverAuth\n";
        let all = if extensions.contains("CA:TRUE") { extensions.to_owned() } else { usual.to_owned() + extensions };
        std::fs::write(self.0.join(format!("{name}.ext")), all).unwrap();
        self.openssl(&format!("req {EC} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let by = format!("-CA {by}.pem -CAkey {by}.key -CAcreateserial -days 60 -extfile {name}.ext");
        self.openssl(&format!("x509 -req -in {name}.csr {by} -out {name}.pem"));
    }

    /// Its list, as `NAME.crl`.
    fn list(&self, name: &str) {
        self.list_until(name, "");
    }

    fn list_until(&self, name: &str, dates: &str) {
        self.openssl(&format!("ca -config ca.cnf -gencrl {dates} -cert {name}.pem -keyfile {name}.key -out crl.pem"));
        self.openssl(&format!("crl -in crl.pem -outform DER -out {name}.crl"));
    }

    fn openssl(&self, arguments: &str) {
        let ran = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.0).output().unwrap();
        assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
    }
}

const EC: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Files over HTTP; `/elsewhere` leads to another address, and `/endless` never ends.
struct Web {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Web {
    fn start(folder: &Path) -> Self {
        Self::slow(folder, Duration::ZERO)
    }

    fn slow(folder: &Path, pause: Duration) -> Self {
        Self::at([127, 0, 0, 1], folder, pause)
    }

    fn at(address: [u8; 4], folder: &Path, pause: Duration) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((address, 0))).unwrap();
        let web = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let (folder, asked) = (folder.to_owned(), web.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                asked.fetch_add(1, Ordering::Relaxed);
                let folder = folder.clone();
                std::thread::spawn(move || answer(stream, &folder, pause));
            }
        });
        web
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream, folder: &Path, pause: Duration) -> std::io::Result<()> {
    let mut request = [0; 2048];
    let count = stream.read(&mut request)?;
    std::thread::sleep(pause);
    let text = String::from_utf8_lossy(&request[..count]).into_owned();
    let name = text.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    match name.as_str() {
        "elsewhere" => stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /root.crl\r\ncontent-length: 0\r\n\r\n"),
        "endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            loop {
                stream.write_all(&[0; 65_536])?;
            }
        }
        name => {
            let body = std::fs::read(folder.join(name)).unwrap_or_default();
            let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat())
        }
    }
}
