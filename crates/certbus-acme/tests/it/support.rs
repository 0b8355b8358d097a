//! What the tests share: where the counterparties are, an account, solvers, and a look at what they left behind.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use certbus_acme::{
    AcmeCa, Ca, CertificateKey, Dns01, Dns01Provider, Http01, IssueError, Issued, OrderRequest, Propagation, Rfc2136,
    Solvers, TsigAlgorithm, TsigKey,
};
use certbus_core::name::DnsName;
use certbus_core::spec::{Challenge, KeyType};
use certbus_core::time::Timestamp;
use tokio::sync::{Mutex, MutexGuard};

/// One at a time may listen where Pebble asks.
static HTTP01_PORT: Mutex<()> = Mutex::const_new(());

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run through ci/services.py -- cargo test"))
}

pub(crate) fn address(name: &str) -> SocketAddr {
    env(name).parse().unwrap()
}

pub(crate) fn root() -> String {
    std::fs::read_to_string(env("CERTBUS_TEST_PEBBLE_ROOT")).unwrap()
}

pub(crate) async fn account_at(directory: &str) -> Ca {
    let (ca, _) = AcmeCa::register(directory, Some(&root()), Some("a@example.com"), true, None).await.unwrap();
    Ca::Acme(Box::new(ca))
}

pub(crate) async fn account() -> Ca {
    account_at(&env("CERTBUS_TEST_PEBBLE")).await
}

/// A name that no other test uses.
pub(crate) fn fresh(zone: &str) -> DnsName {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    name(&format!("t{}-{}.{zone}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn name(text: &str) -> DnsName {
    DnsName::parse(text).unwrap()
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis() as i64)
}

pub(crate) fn request(names: &[DnsName], challenge: Challenge) -> OrderRequest<'_> {
    OrderRequest { names, challenge, profile: None, replaces: None }
}

pub(crate) fn csr(names: &[DnsName]) -> Vec<u8> {
    CertificateKey::generate(KeyType::P256).unwrap().csr(names).unwrap()
}

/// Order, then complete, as a manager does with a log in between.
pub(crate) async fn issue(ca: &Ca, request: &OrderRequest<'_>, solvers: &Solvers) -> Result<Issued, IssueError> {
    let order = ca.new_order(request).await?;
    ca.complete(order, &csr(request.names), solvers, now()).await
}

pub(crate) async fn by_listener() -> (Solvers, MutexGuard<'static, ()>) {
    let turn = HTTP01_PORT.lock().await;
    let port: u16 = env("CERTBUS_TEST_HTTP01_PORT").parse().unwrap();
    (Solvers::new(Some(Http01::listen(([127, 0, 0, 1], port).into())), None), turn)
}

pub(crate) fn by_update(server: &str, key: &str) -> Solvers {
    by_dns(Dns01Provider::Rfc2136(rfc2136(server, &env(key))), propagation(vec![address(server)]))
}

pub(crate) fn by_dns(provider: Dns01Provider, propagation: Propagation) -> Solvers {
    Solvers::new(None, Some(Dns01::new(provider, propagation)))
}

pub(crate) fn rfc2136(server: &str, key: &str) -> Rfc2136 {
    let (name, secret) = key.split_once(':').unwrap();
    let key = TsigKey::new(name, secret.into(), TsigAlgorithm::HmacSha256).unwrap();
    Rfc2136::new(&env(server), key, None).unwrap()
}

pub(crate) fn propagation(authoritative: Vec<SocketAddr>) -> Propagation {
    let resolver = Some(address("CERTBUS_TEST_BIND"));
    Propagation { resolver, authoritative, timeout: Duration::from_secs(2) }
}

/// The TXT values at a name, asked by dig.
pub(crate) fn txt(server: &str, name: &str) -> Vec<String> {
    let (host, port) = env(server).rsplit_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).unwrap();
    let said = run("dig", &["+tcp", "+short", "-p", &port, &format!("@{host}"), name, "TXT"]);
    said.lines().map(|line| line.trim_matches('"').to_owned()).collect()
}

/// `openssl x509` about the first certificate of a chain.
pub(crate) fn x509(chain_pem: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("chain.pem");
    std::fs::write(&file, chain_pem).unwrap();
    let mut all = vec!["x509", "-in", file.to_str().unwrap(), "-noout"];
    all.extend(arguments);
    run("openssl", &all)
}

/// Whether OpenSSL builds a path from the chain to the root for a TLS server of that name.
pub(crate) fn openssl_verify(chain_pem: &str, root_pem: &str, host: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let (chain, root) = (folder.path().join("chain.pem"), folder.path().join("root.pem"));
    std::fs::write(&chain, chain_pem).unwrap();
    std::fs::write(&root, root_pem).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let output = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", host])
        .args(["-CAfile", &text(&root), "-untrusted", &text(&chain), &text(&chain)])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

/// The management API of Pebble, asked by curl.
pub(crate) fn manage(path: &str, post: Option<&str>) -> String {
    let url = format!("{}{path}", env("CERTBUS_TEST_PEBBLE_MANAGEMENT"));
    let root = env("CERTBUS_TEST_PEBBLE_ROOT");
    let mut arguments = vec!["-sS", "--fail-with-body", "--cacert", &root, &url];
    arguments.extend(post.into_iter().flat_map(|body| ["--data-binary", body]));
    run("curl", &arguments)
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let (said, erred) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {said}{erred}");
    said.into_owned()
}
