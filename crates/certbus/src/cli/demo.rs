//! `certbus demo`: the main job on this machine, before the reader's eyes, each step checked by a real TLS handshake.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use certbus_client::Client;
use certbus_core::drift;
use certbus_core::endpoint::{Endpoint, USUAL_SITE, Written};
use certbus_core::event::CertificateRequested;
use certbus_core::id::{CertificateId, Fingerprint};
use certbus_core::identity::Role;
use certbus_core::name::DnsName;
use certbus_core::spec::{Challenge, KeyType};
use certbus_manager::Issuers;
use certbus_manager::inventory::poller::Poller;
use certbus_manager::inventory::projector::Projector;
use certbus_manager::issue::on_demand;
use certbus_manager::{LocalSolvers, Manager, clock};
use certbus_store::Store;
use clap::Args;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::audit::actor;
use super::{example_server, init, output, serve};
use crate::settings::{Overrides, Settings, Web};
use crate::wire;

const NAME: &str = "shop.example";

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// In a fresh temporary folder; check each step, and end
    #[arg(long)]
    once: bool,
    /// One JSON object a step
    #[arg(long)]
    json: bool,
    /// Where to serve [default: a free port]
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where the demo keeps its files [default: a temporary folder, removed at the end]
    #[arg(long, value_name = "DIR", conflicts_with = "once")]
    folder: Option<PathBuf>,
}

/// Says each step, to people or to programs.
struct Story {
    json: bool,
    began: Instant,
}

impl Story {
    fn tell(&self, step: &str, text: &str, facts: serde_json::Value) {
        if self.json {
            let mut line = serde_json::json!({ "step": step });
            if let (Some(line), serde_json::Value::Object(facts)) = (line.as_object_mut(), facts) {
                line.extend(facts);
            }
            return output::json(&line);
        }
        output::done(format!("{:>6.0?} ms  {text}", self.began.elapsed().as_secs_f64() * 1000.0));
    }
}

impl Demo {
    pub(crate) async fn run(self) -> Result<()> {
        let temporary = tempfile::Builder::new().prefix("certbus-demo-").tempdir()?;
        let folder = self.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
        let overrides = Overrides {
            config: Some(folder.join("certbus.toml")),
            data: Some(folder.clone()),
            tenant: "default".into(),
            system: false,
        };
        let settings = Settings::load_or_default(&overrides)?;
        let story = Story { json: self.json, began: Instant::now() };
        if !self.json {
            output::line(
                "CertBus demo: a CA, a log and a load balancer on this machine. Nothing outside is touched.\n",
            );
        }
        wire::make_folder(&settings.data)?;
        init::write_settings(&settings, &[])?;
        init::make(&settings).await?;
        story.tell(
            "init",
            "started a signed log, with its owner, manager and node identities",
            serde_json::json!({
                "folder": folder,
            }),
        );

        let manager = Arc::new(wire::manager(&settings).await?);
        let roots_file = folder.join("roots.pem");
        set_up_ca(&manager, &roots_file).await?;
        story.tell(
            "ca",
            "made an internal CA; its key is sealed on the log",
            serde_json::json!({ "roots_file": roots_file }),
        );

        let id = request(&manager).await?;
        let first = issue(&manager, id).await?;
        story.tell(
            "issued",
            &format!("issued {NAME} and *.{NAME}: {id}, version {}", short(first)),
            serde_json::json!({
                "certificate": id, "fingerprint": first,
            }),
        );

        let client = wire::client(&settings, &settings.node_key(), &folder.join("client")).await?;
        let listener = TcpListener::bind(self.listen).await;
        let listener =
            listener.with_context(|| format!("cannot listen on {}; choose another with --listen", self.listen))?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(example_server::serve(listener, client.clone()));
        wait_until_served(address, &roots_file, first).await?;
        story.tell(
            "serving",
            &format!("a load balancer opened the key and serves it on https://{address}: checked by a TLS handshake"),
            serde_json::json!({
                "address": address, "name": NAME, "roots_file": roots_file, "fingerprint": first,
            }),
        );

        let watch = Watch::begin(&settings, &manager, address).await?;
        watch.poll().await?;
        story.tell(
            "observed",
            &format!("registered {address} as an endpoint and polled it: it serves version {}", short(first)),
            serde_json::json!({ "endpoint": watch.endpoint, "fingerprint": watch.served().await? }),
        );

        let renewal = Instant::now();
        let second = issue(&manager, id).await?;
        let issued = renewal.elapsed();
        wait_until_served(address, &roots_file, second).await?;
        story.tell(
            "renewed",
            &format!(
                "renewed: version {} issued in {} ms, and pushed, opened and served {} ms later, without a restart",
                short(second),
                issued.as_millis(),
                (renewal.elapsed() - issued).as_millis()
            ),
            serde_json::json!({ "fingerprint": second }),
        );

        watch.poll().await?;
        let (change, line) = watch.change(id).await?;
        story.tell(
            "replaced",
            &format!("polled it again: {change}; the new version is {line}"),
            serde_json::json!({ "endpoint": watch.endpoint, "fingerprint": watch.served().await?, "change": change }),
        );

        let (stop, stopped) = watch::channel(false);
        let web = settings.web(Some(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let (url, link, serving) = show(&settings, &web, manager.clone(), watch.store.clone(), stopped.clone()).await?;
        story.tell(
            "web",
            &format!("the dashboard is at {url}; log in, once and within the hour, by {url}{link}"),
            serde_json::json!({ "url": url, "login": format!("{url}{link}") }),
        );

        self.without_a_log(&story, &settings, &client, &roots_file, second).await?;
        if self.once {
            server.abort();
            let _ = stop.send(true);
            serving.await?;
            story.tell("done", "every step was checked by a TLS handshake", serde_json::json!({}));
            return Ok(());
        }
        if !self.json {
            print_next(&settings, address, &roots_file, self.folder.is_some());
        }
        tokio::select! {
            () = serve::work(&settings, manager, watch.store.clone(), stopped) => {}
            () = example_server::until_ended() => {}
        }
        server.abort();
        let _ = stop.send(true);
        serving.await?;
        Ok(())
    }

    /// Invariant 4: a second load balancer, started from the snapshot alone, serves although the log is gone.
    async fn without_a_log(
        &self,
        story: &Story,
        settings: &Settings,
        client: &Arc<Client>,
        roots: &Path,
        expected: Fingerprint,
    ) -> Result<()> {
        let folder = settings.data.join("client");
        let copy = settings.data.join("client-alone");
        std::fs::create_dir_all(&copy)?;
        for file in std::fs::read_dir(&folder)? {
            let file = file?;
            std::fs::copy(file.path(), copy.join(file.file_name()))?;
        }
        let identity = wire::identity(&settings.node_key(), Role::Node)?;
        let alone = Client::open(identity, vec![], &copy)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(example_server::serve(listener, alone));
        wait_until_served(address, roots, expected).await?;
        server.abort();
        let cursor = client.status().cursor;
        story.tell(
            "restarted",
            "started a second load balancer with no log at all: it serves from its sealed snapshot",
            serde_json::json!({ "fingerprint": expected, "batch": cursor.seq }),
        );
        Ok(())
    }
}

/// Serves the web in the background; returns where, and by which link to log in. That it answers is checked.
async fn show(
    settings: &Settings,
    web: &Web,
    manager: Arc<Manager>,
    store: Store,
    mut stopped: watch::Receiver<bool>,
) -> Result<(String, String, JoinHandle<()>)> {
    let (listener, url) = web.open().await?;
    let address = listener.local_addr()?;
    let link = certbus_manager::web::first_login(&store).await?.context("somebody can log in already")?;
    let ended = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let serving = tokio::spawn(serve::face(settings, web, url.clone(), manager, store).serve(listener, None, ended));
    let mut asked = TcpStream::connect(address).await?;
    asked.write_all(format!("GET {link} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    asked.read_to_string(&mut answer).await?;
    if !answer.starts_with("HTTP/1.0 200") && !answer.starts_with("HTTP/1.1 200") {
        bail!("the web answers {}", answer.lines().next().unwrap_or_default());
    }
    Ok((url, link, serving))
}

/// The demo's own server, watched.
struct Watch {
    store: Store,
    projector: Mutex<Projector>,
    endpoint: i64,
    key: Endpoint,
}

impl Watch {
    async fn begin(settings: &Settings, manager: &Manager, server: SocketAddr) -> Result<Self> {
        let store = wire::inventory(settings).await?;
        let written = Written { host: Some(server.to_string()), sni: Some(NAME.into()), ..Written::default() };
        let key = Endpoint::parse(&written).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
        let added = store.add_endpoints(std::slice::from_ref(&key), &actor(), clock::now()).await?;
        let endpoint = *added.first().context("the endpoint was not added")?;
        let projector = Mutex::new(Projector::new(manager.tenant().clone(), store.clone()));
        Ok(Self { store, projector, endpoint, key })
    }

    async fn poll(&self) -> Result<()> {
        self.projector.lock().await.catch_up().await?;
        let polls = Poller::new(USUAL_SITE).poll(&[(self.endpoint, self.key.clone())], clock::now()).await;
        self.store.record(&polls.map_err(anyhow::Error::msg)?, clock::now()).await?;
        Ok(())
    }

    async fn served(&self) -> Result<Option<Fingerprint>> {
        let timeline = self.store.timeline(self.endpoint, 10).await?;
        Ok(timeline.into_iter().find(|stay| stay.still).and_then(|stay| Some(stay.certificate?.fingerprint)))
    }

    /// The last change of the endpoint's history, and who serves what was issued.
    async fn change(&self, id: CertificateId) -> Result<(String, String)> {
        let changes = self.store.changes(Some(self.endpoint), None, 1).await?;
        let last = changes.first().context("the poll saw no change")?;
        let (Some(before), Some(after)) = (last.before, last.after) else {
            bail!("the poll saw `{}`, and a replaced certificate was expected", last.kind);
        };
        let served = self.store.served_at("default", id).await?;
        let nodes: Vec<_> = served.iter().map(|node| (node.address.as_str(), node.serves)).collect();
        let line = drift::sentence(&nodes).context("nobody is known to serve it")?;
        Ok((format!("{} {} by {}", short(before), last.kind, short(after)), line))
    }
}

async fn set_up_ca(manager: &Manager, roots_file: &Path) -> Result<()> {
    let before = manager.settings().await?;
    let mut issuing = before.clone();
    let entry = issuing.ca.entry("internal".into()).or_default();
    entry.directory = "internal".into();
    issuing.register("internal").await?;
    let root = issuing.ca.get("internal").and_then(|ca| ca.certificate.clone()).context("the CA has no root")?;
    manager.set_settings(&before, &issuing).await?;
    std::fs::write(roots_file, root).with_context(|| roots_file.display().to_string())
}

async fn request(manager: &Manager) -> Result<CertificateId> {
    let wanted = CertificateRequested {
        certificate: clock::certificate_id(),
        names: vec![DnsName::parse(&format!("*.{NAME}"))?, DnsName::parse(NAME)?],
        challenge: Challenge::Dns01,
        key_type: KeyType::P256,
        ca: None,
        profile: None,
    };
    Ok(manager.request(&wanted).await?.0)
}

async fn issue(manager: &Manager, id: CertificateId) -> Result<Fingerprint> {
    let issuers = Issuers::new(manager.settings().await?, &LocalSolvers::default())?;
    let due = on_demand(&*manager.view().await?, id)?;
    Ok(manager.issue(&due, &issuers, &|_| {}).await?.version)
}

/// Shakes hands, trusting the CA's root alone, until `expected` is presented.
async fn wait_until_served(address: SocketAddr, roots: &Path, expected: Fingerprint) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match handshake(address, roots).await {
            Ok(found) if found == expected => return Ok(()),
            Ok(found) if Instant::now() > until => bail!("{address} serves {found}, and {expected} was expected"),
            Err(error) if Instant::now() > until => return Err(error),
            _ => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn handshake(address: SocketAddr, roots: &Path) -> Result<Fingerprint> {
    let mut store = rustls::RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots)? {
        store.add(root?)?;
    }
    let tls = rustls::ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let connection = TcpStream::connect(address).await?;
    let mut secured = connector.connect(ServerName::try_from(NAME)?, connection).await?;
    let request = format!("GET /demo HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    secured.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    secured.read_to_string(&mut answer).await?;
    if !answer.contains("greetings from /demo") {
        bail!("{address} answered something else than greetings");
    }
    let leaf = secured.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    Ok(Fingerprint::of(leaf.context("no certificate was presented")?))
}

fn short(fingerprint: Fingerprint) -> String {
    fingerprint.to_string().chars().take(12).collect()
}

fn print_next(settings: &Settings, address: SocketAddr, roots: &Path, kept: bool) {
    output::heading("look at it from outside");
    output::line(format!(
        "  curl --cacert {} --resolve {NAME}:{}:{} https://{NAME}:{1}/hello",
        roots.display(),
        address.port(),
        address.ip()
    ));
    let certbus = std::env::args().next().unwrap_or_else(|| "certbus".into());
    let at = format!("{certbus} --config {}", settings.path.display());
    output::heading("try next, in another terminal");
    output::line(format!("  {at} cert ls"));
    output::line(format!("  {at} cert mk --wildcard other.example      (served at once)"));
    output::line(format!("  {at} stream verify"));
    output::heading("for real");
    output::line("  certbus init --ca letsencrypt --email YOU --agree-tos --http01 listen");
    output::line(format!(
        "\nserving on https://{address} until Ctrl-C{}",
        if kept { "" } else { "; the demo's files are removed then" }
    ));
}
