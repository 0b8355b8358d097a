//! A shop for the measurement: a log with many certificates, the settings of an agent, and an nginx that serves some of
//! them.

use std::fmt::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certbus_bus::EventLog;
use certbus_bus::sqlite::{SqliteFile, SqliteLog};
use certbus_core::event::{CertificateObtained, CertificateOffered, Event, Reason};
use certbus_core::id::{CertificateId, Fingerprint, StreamKind};
use certbus_core::identity::{Identity, Role};
use certbus_core::name::DnsName;
use certbus_core::seal::{Purpose, SealedKey, seal};
use certbus_core::testing::{World, identity};
use certbus_core::time::Timestamp;
use certbus_core::x509::ParsedChain;

/// The manager's side, and where everything lies.
pub(crate) struct Shop {
    pub(crate) folder: PathBuf,
    world: World,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    ca: String,
    key: rcgen::KeyPair,
    log: SqliteLog,
}

/// Which hosts nginx serves.
pub(crate) enum Sites {
    /// So many, each with a `server` of its own: every file is read for a check and for a reload.
    First(usize),
    /// All, by one `server` that finds the files of the name asked for at the handshake.
    ByName,
}

pub(crate) fn host(number: usize) -> String {
    format!("host-{number}.shop-{}.example.com", number % 977)
}

impl Shop {
    /// A log with `count` certificates, a node's identity, and the settings of a target for an nginx on `port`.
    pub(crate) async fn make(folder: &Path, count: usize, port: u16) -> Self {
        let (mut world, first) = World::new(StreamKind::Certs);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        world.now = Timestamp::default().plus(now).minus(Duration::from_secs(86_400));
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let data = folder.join("data");
        std::fs::create_dir_all(&data).unwrap();
        let log = SqliteFile::open(&data.join("log.db"), true).await.unwrap().stream("default/certs");
        log.append(first.expected(), first).await.unwrap();
        let node = Identity { pin: Some(world.pins()[0]), ..identity(Role::Node, "nodes", 3) };
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(data.join("nodes.key"));
        std::io::Write::write_all(&mut file.unwrap(), node.to_file().as_bytes()).unwrap();
        let (issuer, key) = (rcgen::Issuer::new(params, ca_key), rcgen::KeyPair::generate().unwrap());
        let mut shop = Self { folder: folder.to_owned(), world, issuer, ca, key, log };
        let numbers: Vec<usize> = (0..count).collect();
        for some in numbers.chunks(32) {
            let events = some.iter().flat_map(|number| shop.issue(*number, Reason::New)).collect();
            shop.append(events).await;
        }
        shop.settings(port);
        shop
    }

    async fn append(&mut self, events: Vec<Event>) {
        let batch = self.world.append(events);
        self.log.append(batch.expected(), batch).await.unwrap();
    }

    /// Appends a renewal; returns the version.
    pub(crate) async fn renew(&mut self, number: usize) -> Fingerprint {
        let events = self.issue(number, Reason::Renewal);
        let Event::CertificateOffered(offered) = &events[1] else { unreachable!("obtained, then offered") };
        let version = offered.version;
        self.append(events.into()).await;
        version
    }

    fn issue(&self, number: usize, reason: Reason) -> [Event; 2] {
        let name = host(number);
        let mut params = rcgen::CertificateParams::new(vec![name.clone()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2049, 1, 1);
        let chain = params.signed_by(&self.key, &self.issuer).unwrap().pem() + &self.ca;
        let parsed = ParsedChain::parse(&chain).unwrap();
        let id = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let certificate = CertificateId::from_bytes(id);
        let ring = self.world.chain.current_ring().unwrap();
        let purpose = Purpose::CertificateKey { tenant: "default", ring: ring.id, certificate, spki: parsed.spki };
        let sealed = seal(&ring.public, purpose, self.key.serialized_der()).unwrap();
        let version = parsed.fingerprint;
        let obtained = CertificateObtained {
            certificate,
            version,
            reason,
            names: vec![DnsName::parse(&name).unwrap()],
            not_before: parsed.not_before,
            not_after: parsed.not_after,
            chain,
            spki: parsed.spki,
            key: SealedKey { ring: ring.id, sealed },
        };
        [
            Event::CertificateObtained(Arc::new(obtained)),
            Event::CertificateOffered(CertificateOffered { certificate, version, to: None }),
        ]
    }

    fn settings(&self, port: u16) {
        let folder = self.folder.display();
        let target = format!(
            "[[target]]\nkind = \"nginx\"\nchain = \"{folder}/certs/{{name}}.crt\"\nkey = \"{folder}/certs/{{name}}.key\"\n\
             check = [\"nginx\", \"-t\", \"-c\", \"{folder}/nginx.conf\", \"-e\", \"{folder}/nginx.err\"]\n\
             reload = [\"nginx\", \"-s\", \"reload\", \"-c\", \"{folder}/nginx.conf\", \"-e\", \"{folder}/nginx.err\"]\n"
        );
        std::fs::write(self.folder.join("certbus.toml"), target).unwrap();
        self.sites(port, Sites::First(1));
    }

    /// Has nginx serve these hosts.
    pub(crate) fn sites(&self, port: u16, sites: Sites) {
        let folder = self.folder.display();
        let mut text = String::new();
        let mut site = |name: &str, file: &str| {
            let _ = writeln!(
                text,
                "server {{ listen 127.0.0.1:{port} ssl; server_name {name}; ssl_certificate {folder}/certs/{file}.crt; \
                 ssl_certificate_key {folder}/certs/{file}.key; return 200 \"ok\"; }}"
            );
        };
        match sites {
            Sites::First(count) => (0..count).map(host).for_each(|host| site(&host, &host)),
            Sites::ByName => site("_", "$ssl_server_name"),
        }
        let sites = text;
        let text = format!(
            "user root root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n\
             events {{ worker_connections 512; }}\nhttp {{ access_log off; server_names_hash_max_size 65536;\n\
             server_names_hash_bucket_size 128; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;\n\
             fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n{sites}}}\n"
        );
        std::fs::write(self.folder.join("nginx.conf"), text).unwrap();
    }

    /// Starts the agent as its users do.
    pub(crate) fn agent(&self) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certbus"));
        // As its unit runs it (packaging/certbus-agent.service).
        command.arg("agent").env("MALLOC_ARENA_MAX", "1").env("CERTBUS_CONFIG", self.folder.join("certbus.toml"));
        command.env("CERTBUS_DATA", self.folder.join("data")).stdout(Stdio::null()).stderr(Stdio::null());
        Process(command.spawn().unwrap())
    }

    pub(crate) fn nginx(&self) -> Process {
        let mut command = Command::new("nginx");
        command.arg("-c").arg(self.folder.join("nginx.conf")).arg("-e").arg(self.folder.join("nginx.err"));
        Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

/// Asked to end when it is dropped, and waited for.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
