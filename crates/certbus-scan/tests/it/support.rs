//! What the tests share: certificates, servers that end with their test, one probe, and what `openssl s_client` shows.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use certbus_core::name::DnsName;
use certbus_scan::found::{Found, Proof};
use certbus_scan::observation::Observation;
use certbus_scan::offer::Hello;
use certbus_scan::starttls::Starttls;
use certbus_scan::ways::Method;
use certbus_scan::{Options, Target, Targets, Timeouts, feed, probe};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A folder with a CA and what it signed, gone when the test is.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
}

/// A kind of key, as `openssl genpkey` calls it.
#[derive(Clone, Copy)]
pub(crate) enum Key {
    Rsa,
    Ecdsa,
    Ed25519,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let all = Self { folder };
        openssl(
            &all,
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 \
            -subj /CN=scan-test-ca -addext keyUsage=critical,keyCertSign,cRLSign",
        );
        all
    }

    /// A certificate of the CA for one name: chain and key files.
    pub(crate) fn make(&self, name: &str, key: Key) -> (PathBuf, PathBuf) {
        let (file, kind) = match key {
            Key::Rsa => (format!("{name}-rsa"), "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
            Key::Ecdsa => (format!("{name}-ecdsa"), "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
            Key::Ed25519 => (format!("{name}-ed25519"), "-algorithm ED25519"),
        };
        openssl(self, &format!("genpkey {kind} -out {file}.key"));
        openssl(
            self,
            &format!("req -new -key {file}.key -out {file}.csr -subj /CN={name} -addext subjectAltName=DNS:{name}"),
        );
        openssl(
            self,
            &format!(
                "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 20 -copy_extensions copy -out {file}.crt"
            ),
        );
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), read(&format!("{file}.crt")) + &read("ca.pem")).unwrap();
        (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn openssl(all: &Certificates, arguments: &str) {
    let made =
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(all.folder.path()).output().unwrap();
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A server of the system, ended when the test is.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

impl Server {
    /// Starts a program and waits until it listens on `port`.
    pub(crate) fn start(command: &mut Command, port: u16, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let path = format!("{}:/usr/sbin:/sbin:/usr/local/go/bin", std::env::var("PATH").unwrap_or_default());
        let spawned =
            command.env("PATH", path).stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).spawn();
        let child = spawned.unwrap_or_else(|e| panic!("{command:?}: {e}; ci/install-counterparties installs it"));
        let mut server = Self { child, port };
        let until = Instant::now() + Duration::from_secs(60);
        while !listens(port) {
            if let Some(ended) = server.child.try_wait().unwrap() {
                panic!("{command:?} {ended}: {}", std::fs::read_to_string(log).unwrap_or_default());
            }
            assert!(
                Instant::now() < until,
                "{command:?} does not listen: {}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked, so that it ends its own children.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        for _ in 0..100 {
            if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks without connecting: some servers take one connection for the one they were started for.
fn listens(port: u16) -> bool {
    let wanted = format!(":{port:04X} ");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        // Local address, remote address, state 0A: listening.
        table.lines().any(|line| line.contains(&wanted) && line.split_whitespace().nth(3) == Some("0A"))
    }) || (!Path::new("/proc/net/tcp").exists() && TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

pub(crate) const ANY: Hello = Hello::ANY;

pub(crate) fn target(port: u16) -> Target {
    Target {
        host: "localhost".into(),
        address: Ipv4Addr::LOCALHOST.into(),
        port,
        server_name: Some(DnsName::parse("a.test").unwrap()),
        starttls: None,
        hello: ANY,
        unanswered: None,
    }
}

pub(crate) fn options(method: Method, proof: Proof) -> Options {
    Options { method, proof, timeouts: Timeouts::all(Duration::from_secs(10)), ..Options::default() }
}

/// Targets of a scan, all there before it begins.
pub(crate) fn listed(targets: impl IntoIterator<Item = Target>) -> Targets {
    let all: Vec<Target> = targets.into_iter().collect();
    let (feed, targets) = feed(all.len()).unwrap();
    all.into_iter().for_each(|target| assert!(feed.send(target)));
    targets
}

/// One probe that must find something.
pub(crate) fn found(target: Target, options: &Options) -> (Found, Observation) {
    let seen = probe(target, options);
    match &seen.result {
        Ok(found) => (found.clone(), seen),
        Err(failure) => panic!("{failure}: {seen:?}"),
    }
}

/// What `openssl s_client` shows: the chain, the version and the suite.
#[derive(Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) version: String,
    pub(crate) suite: String,
}

pub(crate) fn s_client(port: u16, starttls: Option<Starttls>, arguments: &[&str]) -> Shown {
    let mut command = Command::new("timeout");
    command.args(["20", "openssl", "s_client", "-connect", &format!("127.0.0.1:{port}"), "-showcerts"]);
    if let Some(protocol) = starttls {
        command.args(["-starttls", &protocol.to_string(), "-xmpphost", "a.test"]);
    }
    let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let chain = CertificateDer::pem_slice_iter(text.split("Server certificate").next().unwrap().as_bytes())
        .map(|certificate| certificate.unwrap())
        .collect();
    let line = text.lines().find(|line| line.starts_with("New, ")).unwrap_or_else(|| panic!("{output:?}"));
    let mut words = line.trim_start_matches("New, ").split(", Cipher is ");
    Shown { chain, version: words.next().unwrap().into(), suite: words.next().unwrap().into() }
}
