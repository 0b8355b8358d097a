//! Load: threads that open a new TLS connection for each request, and record every fingerprint and every failure.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use certbus_core::id::Hash;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const THREADS: usize = 3;

/// How a connection comes to TLS, and what is asked then.
#[derive(Clone, Copy)]
pub(super) enum Protocol {
    Https,
    Smtp,
    Postgres,
}

/// What was seen.
#[derive(Clone, Default)]
pub(super) struct Tally {
    pub(super) connections: usize,
    /// How often each version was presented, in finished and verified handshakes.
    pub(super) versions: BTreeMap<String, usize>,
    pub(super) failures: Vec<String>,
}

/// Runs until it is dropped.
pub(super) struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    pub(super) fn start(protocol: Protocol, port: u16, name: &str, roots: &Path) -> Self {
        let (tally, stop) = (Arc::new(Mutex::new(Tally::default())), Arc::new(AtomicBool::new(false)));
        let config = trusting(roots);
        let threads = (0..THREADS)
            .map(|_| {
                let (tally, stop, config, name) = (tally.clone(), stop.clone(), config.clone(), name.to_owned());
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let seen = request(protocol, port, &name, &config);
                        let mut tally = tally.lock().unwrap();
                        tally.connections += 1;
                        match seen {
                            Ok(version) => *tally.versions.entry(version).or_default() += 1,
                            Err(error) => tally.failures.push(error.to_string()),
                        }
                        drop(tally);
                        // The two cores are the server's and the agent's as well.
                        std::thread::sleep(Duration::from_millis(2));
                    }
                })
            })
            .collect();
        Self { tally, stop, threads }
    }

    pub(super) fn has_seen(&self, version: &str) -> bool {
        self.tally.lock().unwrap().versions.contains_key(version)
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One connection that trusts only `roots`; the version that was presented.
pub(super) fn once(protocol: Protocol, port: u16, name: &str, roots: &Path) -> Result<String, Error> {
    request(protocol, port, name, &trusting(roots))
}

fn trusting(roots: &Path) -> Arc<ClientConfig> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_file(roots).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
    // A resumed session presents no certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

fn request(protocol: Protocol, port: u16, name: &str, config: &Arc<ClientConfig>) -> Result<String, Error> {
    let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    tcp.set_write_timeout(Some(Duration::from_secs(10)))?;
    tcp.set_nodelay(true)?;
    match protocol {
        Protocol::Https => {}
        Protocol::Smtp => {
            expect(&mut tcp, "220")?;
            tcp.write_all(b"EHLO load.test\r\n")?;
            expect(&mut tcp, "250")?;
            tcp.write_all(b"STARTTLS\r\n")?;
            expect(&mut tcp, "220")?;
        }
        Protocol::Postgres => {
            tcp.write_all(&[0, 0, 0, 8, 4, 210, 22, 47])?;
            let mut answer = [0];
            tcp.read_exact(&mut answer)?;
            if answer != *b"S" {
                return Err(Error::other("no TLS here"));
            }
        }
    }
    let server = ServerName::try_from(name.to_owned()).map_err(Error::other)?;
    let mut connection = ClientConnection::new(config.clone(), server).map_err(Error::other)?;
    connection.complete_io(&mut tcp)?;
    let version = connection.peer_certificates().and_then(|chain| chain.first()).map(|leaf| Hash::of(leaf).to_string());
    let mut tls = StreamOwned::new(connection, tcp);
    match protocol {
        Protocol::Https => {
            write!(tls, "GET / HTTP/1.0\r\nHost: {name}\r\n\r\n")?;
            let mut said = Vec::new();
            match tls.read_to_end(&mut said) {
                Err(e) if e.kind() != ErrorKind::UnexpectedEof => return Err(e),
                _ => {}
            }
            let said = String::from_utf8_lossy(&said);
            if !said.contains(" 200 ") {
                return Err(Error::other(format!("answered `{said}`")));
            }
        }
        Protocol::Smtp => {
            tls.write_all(b"EHLO load.test\r\n")?;
            expect(&mut tls, "250")?;
            tls.write_all(b"QUIT\r\n")?;
            expect(&mut tls, "221")?;
        }
        // TLS 1.3: the server has finished only when it says something. It refuses this user, and says so.
        Protocol::Postgres => {
            let parameters = b"\0\x03\0\0user\0nobody\0\0";
            tls.write_all(&(parameters.len() as u32 + 4).to_be_bytes())?;
            tls.write_all(parameters)?;
            tls.read_exact(&mut [0])?;
        }
    }
    version.ok_or_else(|| Error::other("no certificate"))
}

/// Reads one SMTP answer, of several lines perhaps.
fn expect(from: &mut impl Read, code: &str) -> Result<(), Error> {
    let mut said = Vec::new();
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        said.push(byte[0]);
        if byte[0] != b'\n' {
            continue;
        }
        let text = String::from_utf8_lossy(&said).into_owned();
        let last = text.lines().last().unwrap_or_default();
        if !last.starts_with(code) {
            return Err(Error::other(format!("answered `{last}`")));
        }
        if last.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}
