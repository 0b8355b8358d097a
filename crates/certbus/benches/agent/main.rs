//! The figures of the agent, each beside its goal: `ci/bench agent`. The real program, a real nginx, 10,000 certificates.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement: a failure here is a failed measurement"
)]

mod world;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certbus_core::id::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use world::{Shop, Sites, host};

const CERTIFICATES: usize = 10_000;
const RENEWALS: usize = 200;
const RENEWALS_OF_MANY: usize = 20;
const IDLE: Duration = Duration::from_secs(30);

fn main() {
    // `cargo test --all-targets` comes here too.
    if !std::env::args().any(|arg| arg == "agent") {
        return println!("name one: agent");
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = tempfile::tempdir_in(cache()).unwrap();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut shop = runtime.block_on(Shop::make(folder.path(), CERTIFICATES, port));
    println!("The agent with {CERTIFICATES} certificates, target nginx (two files each)");

    // The first time: read from the log, written, with nobody to reload yet.
    let begun = Instant::now();
    let agent = shop.agent();
    let last = folder.path().join("data/agent/agent.json");
    let done = |name: std::ffi::OsString| !name.as_encoded_bytes().starts_with(b".");
    let files = || {
        std::fs::read_dir(folder.path().join("certs"))
            .map_or(0, |all| all.filter(|entry| entry.as_ref().is_ok_and(|entry| done(entry.file_name()))).count())
    };
    until(|| files() == CERTIFICATES * 2);
    println!("  first start, log to {} files written: {:.1} s", CERTIFICATES * 2, begun.elapsed().as_secs_f64());
    let nginx = shop.nginx();
    until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    until(|| std::fs::read_to_string(&last).is_ok_and(|text| text.contains("\"next_try\":null")));
    println!(
        "  memory after that: {:.1} MB, at most {:.1} MB",
        memory(agent.id(), "VmRSS"),
        memory(agent.id(), "VmHWM")
    );
    drop(agent);

    let begun = Instant::now();
    let agent = shop.agent();
    // All is as it should be, so nothing tells that the start is over but that the processor is left alone.
    let mut spent = processor(agent.id());
    until(|| {
        std::thread::sleep(Duration::from_millis(300));
        let before = std::mem::replace(&mut spent, processor(agent.id()));
        (spent - before).as_millis() <= 20
    });
    println!("  next start, all compared: at most {:.1} s", begun.elapsed().as_secs_f64());
    let before = processor(agent.id());
    std::thread::sleep(IDLE);
    let idle = (processor(agent.id()) - before).as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!("  idle: {idle:.2} % of one core over {} s", IDLE.as_secs());
    let (first, by_name, many) = runtime.block_on(async {
        let one = served(&mut shop, port, RENEWALS).await;
        let resident = memory(agent.id(), "VmRSS");
        let peak = memory(agent.id(), "VmHWM");
        println!("  memory after {RENEWALS} renewals: {resident:.1} MB, at most {peak:.1} MB");
        goal("memory", resident, " MB", resident <= 40.0, "≤ 40 MB");
        println!("append to nginx serving it, one of its sites, {RENEWALS} renewals:");
        let first = show(one);
        shop.sites(port, Sites::ByName);
        drop(nginx);
        let nginx = shop.nginx();
        until(|| presented(&anybody(), port).is_some());
        let by_name = served(&mut shop, port, RENEWALS).await;
        println!("the same, nginx serves all {CERTIFICATES} by the name asked for (docs/AGENT.md):");
        let by_name = show(by_name);
        shop.sites(port, Sites::First(CERTIFICATES));
        drop(nginx);
        let _nginx = shop.nginx();
        until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        let many = served(&mut shop, port, RENEWALS_OF_MANY).await;
        println!("the same, nginx with {CERTIFICATES} servers (it reads every file for a check and for a reload):");
        (first, by_name, show(many))
    });
    goal("p99 to served with reload", first, " ms", first <= 1000.0, "≤ 1 s");
    goal("the same, nginx serves 10,000 by name", by_name, " ms", by_name <= 1000.0, "≤ 1 s");
    goal("the same, nginx with 10,000 servers", many, " ms", many <= 1000.0, "≤ 1 s");
}

/// From just before an append until the file is another, and until nginx presents the new version.
async fn served(shop: &mut Shop, port: u16, count: usize) -> Vec<(f64, f64)> {
    let (config, file) = (anybody(), shop.folder.join(format!("certs/{}.crt", host(0))));
    let mut times = Vec::new();
    for at in 0..count {
        tokio::time::sleep(Duration::from_millis(20 + (at as u64 * 37) % 100)).await;
        let inode = inode(&file);
        let begun = Instant::now();
        let version = shop.renew(0).await;
        let mut written = None;
        loop {
            if written.is_none() && self::inode(&file) != inode {
                written = Some(begun.elapsed());
            }
            if presented(&config, port) == Some(version) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "not served within a minute");
            std::thread::sleep(Duration::from_millis(2));
        }
        let served = begun.elapsed();
        times.push((written.unwrap_or(served).as_secs_f64() * 1e3, served.as_secs_f64() * 1e3));
    }
    times
}

fn show(times: Vec<(f64, f64)>) -> f64 {
    let print = |what: &str, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        println!("  {what}: p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms", at(0.5), at(0.99), at(1.0));
        at(0.99)
    };
    print("file written", times.iter().map(|(written, _)| *written).collect());
    print("nginx presents it to a new connection", times.iter().map(|(_, served)| *served).collect())
}

fn inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap())
}

fn presented(config: &Arc<ClientConfig>, port: u16) -> Option<Fingerprint> {
    let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    tcp.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let mut tls = ClientConnection::new(config.clone(), ServerName::try_from(host(0)).ok()?).ok()?;
    tls.complete_io(&mut tcp).ok()?;
    tls.peer_certificates()?.first().map(|leaf| Fingerprint::of(leaf))
}

/// Takes any certificate: what is measured is which one comes.
fn anybody() -> Arc<ClientConfig> {
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = config.with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// A line of `/proc/PID/status`, in MB.
fn memory(pid: u32, line: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let found = text.lines().find(|l| l.starts_with(line)).unwrap();
    found.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

/// What the process spent of processors so far (in hundredths of a second, as the kernel counts).
fn processor(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(300), "not within five minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A real disk, as the other figures use.
fn cache() -> std::path::PathBuf {
    let var = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    let base = var("CERTBUS_CACHE").or_else(|| Some(var("XDG_CACHE_HOME")?.join("certbus-ci")));
    let cache = base.unwrap_or_else(|| var("HOME").unwrap().join(".cache/certbus-ci")).join("bench");
    std::fs::create_dir_all(&cache).unwrap();
    cache
}

/// A figure with its goal, and whether it is met.
fn goal(what: &str, figure: f64, unit: &str, met: bool, goal: &str) {
    let met = if met { "met" } else { "NOT MET" };
    println!("  {what}: {figure:.1}{unit} (goal {goal}): {met}");
}
