//! The certificate of the web itself: from files, or a managed one of the log, and until there is one, its own.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use certbus_client::Resolver;
use certbus_core::certificate::Facts;
use certbus_manager::clock;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret;

use crate::settings::{Settings, Tls, Web};
use crate::wire;

/// How often files are looked at for another certificate.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A self-signed certificate that ends sooner is made anew.
const MADE_ANEW: Duration = Duration::from_secs(30 * 86_400);

/// How long it lasts: browsers take no longer ones.
const LASTS: Duration = Duration::from_secs(397 * 86_400);

/// How the web secures its connections; None: it does not.
///
/// # Errors
/// If the files cannot be used, or no certificate can be made.
pub(crate) fn config(settings: &Settings, web: &Web) -> Result<Option<Arc<ServerConfig>>> {
    let resolver: Arc<dyn ResolvesServerCert> = match &web.tls {
        Tls::Off | Tls::Proxy => return Ok(None),
        Tls::Files { certificate, key } => Files::watched(certificate, key)?,
        Tls::Own => Arc::new(Own::open(settings, web)?),
    };
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn read(certificate: &Path, key: &Path) -> Result<Arc<CertifiedKey>> {
    let shown = certificate.display();
    let chain: Vec<CertificateDer> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| anyhow!("web.certificate {shown}: {error}"))?;
    if chain.is_empty() {
        return Err(anyhow!("web.certificate {shown}: it has no certificate; write the chain in PEM, the leaf first"));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| anyhow!("web.key {}: {error}", key.display()))?;
    certified(chain, private)
        .with_context(|| format!("web.certificate {shown} and web.key {} do not go together", key.display()))
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<CertifiedKey>> {
    let provider = CryptoProvider::get_default().context("no cryptography is set up")?;
    Ok(Arc::new(CertifiedKey::from_der(chain, key, provider)?))
}

/// A certificate and its key in files, read again when they change.
#[derive(Debug)]
struct Files(RwLock<Arc<CertifiedKey>>);

impl Files {
    /// Reads them, and looks after them for as long as somebody resolves.
    fn watched(certificate: &Path, key: &Path) -> Result<Arc<Self>> {
        // The time of the last change of anything about it: also of who may read it.
        let when = |file: &Path| file.metadata().map(|it| (it.ino(), it.ctime(), it.ctime_nsec())).ok();
        let paths = [certificate.to_owned(), key.to_owned()];
        let mut seen = paths.each_ref().map(|file| when(file));
        let files = Arc::new(Self(RwLock::new(read(certificate, key)?)));
        if key.metadata().is_ok_and(|it| it.mode() & 0o007 != 0) {
            tracing::warn!("web.key can be read by everybody on this machine: run `chmod o= {}`", key.display());
        }
        let still_used = Arc::downgrade(&files);
        tokio::spawn(async move {
            let mut said = String::new();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let Some(files) = still_used.upgrade() else { return };
                let now = paths.each_ref().map(|file| when(file));
                if now == seen {
                    continue;
                }
                let [certificate, key] = &paths;
                match read(certificate, key) {
                    Ok(read) => {
                        *files.0.write().unwrap_or_else(PoisonError::into_inner) = read;
                        seen = now;
                        said.clear();
                    }
                    // One of the two may be on its way: they are read again until they go together.
                    Err(error) if format!("{error:#}") == said => {}
                    Err(error) => {
                        said = format!("{error:#}");
                        tracing::warn!("the web keeps its certificate: {said}");
                    }
                }
            }
        });
        Ok(files)
    }
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The managed certificate for the name that is asked for, else one of its own.
#[derive(Debug)]
struct Own {
    managed: Arc<OnceLock<Arc<Resolver>>>,
    own: Arc<CertifiedKey>,
}

impl Own {
    fn open(settings: &Settings, web: &Web) -> Result<Self> {
        let own = self_signed(&settings.identities().join("web.pem"), web.host())?;
        let managed = Arc::new(OnceLock::new());
        tokio::spawn(open_managed(settings.clone(), Arc::downgrade(&managed)));
        Ok(Self { managed, own })
    }
}

/// Opens what is managed, as soon as this machine has a node's identity, for as long as somebody wants it.
async fn open_managed(settings: Settings, wanted: Weak<OnceLock<Arc<Resolver>>>) {
    let (key, folder, mut said) = (settings.node_key(), settings.identities().join("web"), String::new());
    while wanted.strong_count() > 0 {
        match wire::client(&settings, &key, &folder).await {
            Ok(client) => {
                if let Some(managed) = wanted.upgrade() {
                    let _ = managed.set(client.resolver());
                }
                return;
            }
            Err(error) if format!("{error:#}") == said => {}
            Err(error) => {
                said = format!("{error:#}");
                tracing::warn!("the web shows a certificate that nobody has signed: {said}");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let managed = self.managed.get().and_then(|managed| managed.resolve(hello));
        Some(managed.unwrap_or_else(|| self.own.clone()))
    }
}

/// The self-signed certificate in this file, made anew if it is missing, open to others, for another name, or about to end: people who
/// have accepted it once are not asked at each start.
fn self_signed(file: &Path, name: &str) -> Result<Arc<CertifiedKey>> {
    let now = clock::now();
    let kept = || {
        let leaf = CertificateDer::from_pem_file(file).ok()?;
        let facts = Facts::read(&leaf);
        let is_ours_alone = file.metadata().is_ok_and(|it| it.mode() & 0o077 == 0);
        let good =
            is_ours_alone && facts.names.iter().any(|known| known == name) && facts.not_after > now.plus(MADE_ANEW);
        certified(vec![leaf], PrivateKeyDer::from_pem_file(file).ok()?).ok().filter(|_| good)
    };
    if let Some(kept) = kept() {
        return Ok(kept);
    }
    let (certificate, key) = certbus_acme::self_signed(name, LASTS, now)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut half = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    half.write_all(certificate.as_bytes())?;
    half.write_all(key.expose_secret().as_bytes())?;
    half.persist(file).with_context(|| file.display().to_string())?;
    let leaf = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    certified(vec![leaf], PrivateKeyDer::from_pem_slice(key.expose_secret().as_bytes())?)
}
