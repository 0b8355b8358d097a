//! `certbus scan` as people run it: against OpenSSL's server, without settings, with every kind of target and exit code.

mod ending;
mod fetching;
mod told;

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use certbus_scan::failure::Failure;
use certbus_scan::observation::Observation;
use certbus_scan::verdict::Verdict;

/// A folder with certificates and servers, and nothing of CertBus in it.
struct Place {
    folder: tempfile::TempDir,
    servers: Vec<Child>,
}

/// One line of `--json`.
#[derive(Debug)]
struct Line {
    seen: Observation,
    verdict: Option<Verdict>,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), servers: Vec::new() };
        std::fs::create_dir(place.path("home")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let ran = Command::new("openssl").args(arguments.split_whitespace()).current_dir(self.folder.path()).output();
        let ran = ran.unwrap();
        assert!(ran.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&ran.stderr));
    }

    /// A self-signed certificate for `a.test` and 127.0.0.1.
    fn self_signed(&self, name: &str, days: u32, kind: &str) {
        self.openssl(&format!(
            "req -x509 -newkey {kind} -nodes -keyout {name}.key -out {name}.pem -days {days} -subj /CN=a.test \
             -addext subjectAltName=DNS:a.test,DNS:localhost,IP:127.0.0.1"
        ));
    }

    /// A certificate that is so many days old, and has so many left.
    fn aged(&self, name: &str, before: i64, left: i64) {
        let mut params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        let now = std::time::SystemTime::now();
        let day = |days: i64| match u64::try_from(days) {
            Ok(later) => now + Duration::from_secs(later * 86_400),
            Err(_) => now - Duration::from_secs(days.unsigned_abs() * 86_400),
        };
        (params.not_before, params.not_after) = (day(-before).into(), day(left).into());
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(self.path(&format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// OpenSSL's server with a certificate of this place.
    fn serve(&mut self, name: &str, arguments: &str) -> u16 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let accept = format!("127.0.0.1:{port}");
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-accept", &accept, "-cert", &format!("{name}.pem")]);
        command.args(["-key", &format!("{name}.key")]).args(arguments.split_whitespace());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.servers.push(command.spawn().unwrap());
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(Instant::now() < until, "openssl s_server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        port
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certbus"));
        command.arg("scan").args(arguments).current_dir(self.folder.path());
        command.env("HOME", self.path("home")).env_remove("CERTBUS_CONFIG").env_remove("CERTBUS_DATA");
        command.stdin(Stdio::null());
        command
    }

    fn scan(&self, code: i32, arguments: &[&str]) -> (String, String) {
        told(code, self.command(arguments).output().unwrap())
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Vec<Line> {
        lines(&self.scan(code, &[arguments, &["--json"]].concat()).0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// A name server on loopback, as `--resolver` takes it: every name has these addresses, and AAAA is answered with a code (RFC
/// 1035 section 4.1.1) and nothing else.
fn names(addresses: &[[u8; 4]], code_for_six: u8) -> String {
    slow_names(addresses, code_for_six, Duration::ZERO)
}

fn slow_names(addresses: &[[u8; 4]], code_for_six: u8, pause: Duration) -> String {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = socket.local_addr().unwrap().to_string();
    let record = |address: &[u8; 4]| [&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4][..], address].concat();
    let records: Vec<_> = addresses.iter().map(record).collect();
    std::thread::spawn(move || {
        let mut asked = [0; 512];
        while let Ok((count, who)) = socket.recv_from(&mut asked) {
            // The name ends with an empty label, and type and class follow.
            let end = 12 + asked[12..count].iter().position(|byte| *byte == 0).unwrap() + 5;
            let four = asked[end - 4..end - 2] == [0, 1];
            let (code, records) = if four { (0, &records[..]) } else { (code_for_six, &[][..]) };
            let header = [&asked[..2], &[0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]].concat();
            let answer = [&header, &asked[12..end], &records.concat()].concat();
            let socket = socket.try_clone().unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(pause);
                socket.send_to(&answer, who).unwrap();
            });
        }
    });
    server
}

fn told(code: i32, output: Output) -> (String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    (out, err)
}

fn lines(out: &str) -> Vec<Line> {
    let line = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let verdict = value.get("verdict").map(|verdict| serde_json::from_value(verdict.clone()).unwrap());
        Line { seen: serde_json::from_value(value).unwrap(), verdict }
    };
    out.lines().map(line).collect()
}

#[test]
fn a_scan_of_openssl_needs_no_settings_and_writes_nothing_but_lines_that_can_be_read_back() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let port = place.serve("a", "");
    let target = format!("127.0.0.1:{port}");
    let seen = place.json(0, &[&target, "--roots", "a.pem", "--proof", "finished"]);
    let [Line { seen, verdict: Some(verdict) }] = seen.as_slice() else { panic!("{seen:?}") };
    let found = seen.result.as_ref().unwrap();
    let served = std::fs::read(place.path("a.pem")).unwrap();
    let served = <rustls::pki_types::CertificateDer<'_> as rustls::pki_types::pem::PemObject>::from_pem_slice(&served);
    assert_eq!(found.chain, [served.unwrap()]);
    assert_eq!((&*found.proof.to_string(), seen.port, verdict.trusted), ("finished", port, true));
    assert_eq!(verdict.leaf.as_ref().unwrap().names, ["a.test", "localhost", "127.0.0.1"]);
    // Read back and written again, a line is the same.
    let (out, _) = place.scan(0, &[&target, "--json", "--raw"]);
    let again: Observation = serde_json::from_str(&out).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), out.trim());
    assert_eq!(std::fs::read_dir(place.path("home")).unwrap().count(), 0, "a scan wrote something");
}

#[test]
fn a_line_that_is_no_target_is_named_and_the_others_are_scanned() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let port = place.serve("a", "");
    let text = format!("# hosts\n\nbad host\n127.0.0.1:{port}  # good\n127.0.0.1:99999\n");
    std::fs::write(place.path("hosts.txt"), &text).unwrap();
    for from in ["@hosts.txt", "./hosts.txt", "-"] {
        let mut command = place.command(&[from, "--json"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let (out, err) = told(2, child.wait_with_output().unwrap());
        assert!(lines(&out)[0].seen.result.is_ok() && lines(&out).len() == 1, "{out}");
        assert!(err.contains("line 3: `bad host` is no target"), "{err}");
        assert!(err.contains("line 5: `127.0.0.1:99999`") && err.contains("write 443"), "{err}");
        assert!(err.contains("2 of the targets could not be read; the others were scanned"), "{err}");
    }
    let (_, err) = place.scan(1, &["@nowhere.txt"]);
    assert!(err.contains("targets from nowhere.txt"), "{err}");
    for (arguments, words) in [
        (&["a.test", "--fail-on", "late"][..], "write expired, untrusted"),
        (&["a.test", "--starttls", "telnet"], "one of smtp"),
        (&["a.test", "--timeout", "0"], "from 0.01"),
        (&["a.test", "--resolver", "here"], "192.0.2.53:53"),
        (&["a.test", "--sni", "a..b"], "empty label"),
        (&["a.test", "--roots", "nowhere.pem"], "platform, mozilla or a PEM file"),
    ] {
        let ran = place.command(arguments).output().unwrap();
        let err = String::from_utf8_lossy(&ran.stderr);
        assert!(!ran.status.success() && err.contains(words), "{arguments:?}: {err}");
    }
}

#[test]
fn failures_are_typed_and_findings_fail_a_scan_only_where_asked_for() {
    let mut place = Place::new();
    place.self_signed("a", 20, "rsa:2048");
    let good = format!("127.0.0.1:{}", place.serve("a", ""));
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
    let (out, _) = place.scan(0, &[&good, &closed, "--json"]);
    assert!(out.contains(r#""failure":{"kind":"refused"}"#), "{out}");
    let refused = lines(&out).into_iter().filter(|line| line.seen.result == Err(Failure::Refused)).count();
    assert_eq!(refused, 1);
    place.aged("old", 85, 15);
    place.aged("over", 85, -5);
    let old = format!("127.0.0.1:{}", place.serve("old", ""));
    let over = format!("127.0.0.1:{}", place.serve("over", ""));
    // For each: a new certificate, one with 15 % of its 100 days left, and one that is 5 days over.
    for (what, codes) in [
        ("expired", [0, 0, 10]),
        ("untrusted", [10, 10, 10]),
        ("overdue", [0, 10, 10]),
        ("revoked", [0, 0, 0]),
        ("weak", [0, 0, 0]),
        ("20%", [0, 10, 10]),
        ("10%", [0, 0, 10]),
        ("16d", [0, 10, 10]),
        ("30d", [10, 10, 10]),
        ("expired,10%,16d", [0, 10, 10]),
    ] {
        for (target, code) in [&good, &old, &over].into_iter().zip(codes) {
            let (_, err) = place.scan(code, &[target, "--fail-on", what]);
            assert!(code == 0 || err.contains("1 to look at"), "{what}: {err}");
        }
    }
    place.scan(0, &[&good, "--roots", "a.pem", "--fail-on", "untrusted"]);
    place.scan(10, &[&good, &closed, "--fail-on", "failed"]);
}

#[test]
fn openssl_is_asked_for_each_version_and_each_key_by_itself_and_with_another_name() {
    let mut place = Place::new();
    place.self_signed("rsa", 90, "rsa:2048");
    place.self_signed("ec", 90, "ec -pkeyopt ec_paramgen_curve:P-256");
    place.self_signed("other", 90, "ec -pkeyopt ec_paramgen_curve:P-256");
    let two = "-no_tls1_1 -no_tls1 -dcert rsa.pem -dkey rsa.key -servername b.test -cert2 other.pem -key2 other.key";
    let target = format!("127.0.0.1:{}", place.serve("ec", two));
    let (out, _) = place.scan(0, &[&target, "--versions"]);
    assert!(out.contains("  1.2 1.3  "), "{out}");
    assert_eq!(place.json(0, &[&target, "--versions"]).len(), 4);
    let (out, _) = place.scan(0, &[&target, "--each-key"]);
    assert!(out.contains("RSA 2048") && out.contains("P-256"), "{out}");
    let leaf = |sni: &str| place.json(0, &[&target, "--sni", sni])[0].seen.fingerprint().unwrap();
    assert_ne!(leaf("b.test"), leaf("none"));
}

#[test]
fn an_interrupted_scan_prints_what_is_done_so_far() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let good = format!("127.0.0.1:{}", place.serve("a", ""));
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = silent.local_addr().map(|address| (address.to_string(), silent)).unwrap();
    let mut command = place.command(&[&good, &silent.0, "--timeout", "60"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let began = Instant::now();
    let (out, err) = told(1, child.wait_with_output().unwrap());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(out.contains(&good) && out.contains("a.test and 2 more"), "{out}");
    assert!(err.contains("interrupted: 1 probes were under way"), "{err}");
}

#[test]
fn few_file_descriptors_make_a_scan_slower_and_lose_nothing() {
    let mut place = Place::new();
    place.self_signed("a", 90, "ec -pkeyopt ec_paramgen_curve:P-256");
    let port = place.serve("a", "");
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let targets: String =
        (0..300).map(|number| format!("127.0.0.1:{}\n", if number % 10 == 0 { port } else { closed })).collect();
    std::fs::write(place.path("targets.txt"), targets).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 90; exec \"$0\" scan @targets.txt --json --raw --concurrency 500 --per-host 0"]);
    command.arg(env!("CARGO_BIN_EXE_certbus")).current_dir(place.folder.path()).env("HOME", place.path("home"));
    let (out, err) = told(0, command.output().unwrap());
    assert!(err.contains("26 probes at a time: the system's limit of open files allows no more"), "{err}");
    let seen = lines(&out);
    let refused = seen.iter().filter(|line| line.seen.result == Err(Failure::Refused)).count();
    // Read by people, a large scan lists who is there; JSON has everybody.
    let (table, told) = place.scan(0, &["@targets.txt"]);
    assert_eq!(table.lines().count(), 30, "{table}");
    assert!(told.contains("not listed: 270 addresses"), "{told}");
    let found = seen.iter().filter(|line| line.seen.result.is_ok()).count();
    assert_eq!((seen.len(), refused, found), (300, 270, 30), "{out}");
}

#[test]
fn look_ups_of_names_and_of_servers_of_lists_fit_into_few_file_descriptors() {
    let mut place = Place::new();
    let names = slow_names(&[[127, 0, 0, 1]], 0, Duration::from_millis(500));
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut targets: Vec<_> = (0..40).map(|number| format!("n{number}.test:{closed}")).collect();
    for number in 0..12 {
        place.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {number}.key -out {number}.pem \
             -subj /CN=a.test -addext crlDistributionPoints=URI:http://l{number}.test:{closed}/list"
        ));
        targets.insert(0, format!("127.0.0.1:{}", place.serve(&number.to_string(), "")));
    }
    // What is left is full of probes all the time.
    targets.extend(vec![silent.local_addr().unwrap().to_string(); 300]);
    std::fs::write(place.path("targets.txt"), targets.join("\n")).unwrap();
    let mut command = Command::new("sh");
    let scan =
        "ulimit -n 224; exec \"$0\" scan @targets.txt --json --revocation --per-host 0 --timeout 3 --resolver $1";
    command.args(["-c", scan, env!("CARGO_BIN_EXE_certbus"), &names]).current_dir(place.folder.path());
    command.env("HOME", place.path("home")).env_remove("CERTBUS_CONFIG").env_remove("CERTBUS_DATA");
    let (out, _) = told(0, command.output().unwrap());
    let refused = lines(&out).iter().filter(|line| line.seen.result == Err(Failure::Refused)).count();
    assert_eq!((refused, out.matches("/list: Connection refused").count()), (40, 12), "{out}");
}

#[test]
fn every_node_of_a_name_in_bind_is_seen_and_a_name_without_any_is_a_dns_failure() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let port = place.serve("a", "");
    let env =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name}: run through ci/services.py -- cargo test"));
    let (bind, key) = (env("CERTBUS_TEST_BIND"), env("CERTBUS_TEST_BIND_KEY"));
    let (address, bind_port) = bind.split_once(':').unwrap();
    let name = format!("nodes{}.bind.test", std::process::id());
    let mut update = format!("server {address} {bind_port}\nzone bind.test\n");
    for record in ["A 127.0.0.1", "A 127.0.0.9", "AAAA ::1"] {
        update += &format!("update add {name} 1 {record}\n");
    }
    let mut nsupdate = Command::new("nsupdate");
    let mut child = nsupdate.args(["-y", &format!("hmac-sha256:{key}")]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{update}send\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let target = format!("{name}:{port}");
    let mut seen = place.json(0, &[&target, "nowhere.bind.test", "--resolver", &bind]);
    seen.sort_by_key(|line| line.seen.address);
    let nodes: Vec<_> = seen.iter().map(|line| line.seen.address.map(|node| node.to_string())).collect();
    assert_eq!(nodes, [None, Some("127.0.0.1".into()), Some("127.0.0.9".into()), Some("::1".into())]);
    let Err(Failure::Dns { why }) = &seen[0].seen.result else { panic!("{seen:?}") };
    assert!(why.contains("no such name"), "{why}");
    assert_eq!(seen[1].seen.server_name.as_ref().unwrap().as_str(), name);
    assert!(seen[1].seen.result.is_ok());
    assert_eq!(seen[2].seen.result, Err(Failure::Refused));
}
