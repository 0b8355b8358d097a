//! HTTP-01 (RFC 8555 section 8.3): a listener of our own that serves tokens only while an order needs them, files in a
//! web server's folder, or objects in a bucket. It serves nothing else and redirects nobody.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::ca::PlannedChallenge;
use crate::solver::SolverError;
use crate::solver::bucket::Bucket;

pub(crate) const FOLDER: &str = ".well-known/acme-challenge";
/// How long a port that is taken is waited for.
const OTHERS_HAVE_IT: Duration = Duration::from_secs(5);
/// And then not again for this long.
const FOUND_TAKEN: Duration = Duration::from_secs(60);
const HEADERS_WITHIN: Duration = Duration::from_secs(10);

/// How HTTP-01 is answered.
#[derive(Debug)]
pub enum Http01 {
    /// By a listener of our own.
    Listen(Listener),
    /// By a web server that serves a folder.
    Webroot(Webroot),
    /// By a web server or CDN that serves an S3 bucket.
    Bucket(Box<Bucket>),
}

/// A listener that is open while any order of this process needs it.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    tokens: Arc<RwLock<HashMap<String, String>>>,
    running: Mutex<Option<JoinHandle<()>>>,
    /// When its port was found taken, and had been waited for.
    taken: std::sync::Mutex<Option<Instant>>,
}

/// A folder that a web server serves as `/` of the names.
#[derive(Debug)]
pub struct Webroot {
    folder: PathBuf,
}

impl Http01 {
    /// Listens on `address` (public CAs ask port 80), as long as an order needs it.
    pub fn listen(address: SocketAddr) -> Self {
        let (tokens, running, taken) = Default::default();
        Self::Listen(Listener { address, tokens, running, taken })
    }

    /// Writes files below `folder`, which a web server serves on port 80.
    pub fn webroot(folder: impl Into<PathBuf>) -> Self {
        Self::Webroot(Webroot { folder: folder.into() })
    }

    pub(crate) async fn set_up(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        match self {
            Self::Listen(listener) => listener.set_up(planned).await,
            Self::Webroot(webroot) => webroot.set_up(planned).await,
            Self::Bucket(bucket) => bucket.set_up(planned).await,
        }
    }

    pub(crate) async fn take_down(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        match self {
            Self::Listen(listener) => listener.take_down(planned).await,
            Self::Webroot(webroot) => webroot.take_down(planned).await,
            Self::Bucket(bucket) => bucket.take_down(planned).await,
        }
    }
}

impl Listener {
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    async fn set_up(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let mut running = self.running.lock().await;
        self.write(|tokens| tokens.insert(planned.token.clone(), planned.key_authorization.clone()));
        if running.is_none() {
            let listener = self.bind().await.map_err(|cause| self.explain(cause))?;
            *running = Some(tokio::spawn(serve(listener, self.tokens.clone())));
        }
        Ok(())
    }

    async fn take_down(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let mut running = self.running.lock().await;
        let empty = self.write(|tokens| {
            tokens.remove(&planned.token);
            tokens.is_empty()
        });
        if empty && let Some(task) = running.take() {
            task.abort();
            // Waited for, so that the port is free when this returns.
            let _ = task.await;
        }
        Ok(())
    }

    /// Another process of ours (`cert mk` beside `serve`) has the port for moments only.
    async fn bind(&self) -> io::Result<TcpListener> {
        let now = Instant::now();
        let known = *self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // Hundreds of orders wait for it once, not one after the other.
        let until = if known.is_some_and(|at| now < at + FOUND_TAKEN) { now } else { now + OTHERS_HAVE_IT };
        loop {
            match TcpListener::bind(self.address).await {
                Err(cause) if cause.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                bound => {
                    let taken = bound.is_err().then(Instant::now);
                    *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = taken;
                    return bound;
                }
            }
        }
    }

    fn write<T>(&self, change: impl FnOnce(&mut HashMap<String, String>) -> T) -> T {
        change(&mut self.tokens.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn explain(&self, cause: io::Error) -> SolverError {
        let hint = match cause.kind() {
            ErrorKind::PermissionDenied => {
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE; or let a web server serve a folder (webroot)"
            }
            ErrorKind::AddrInUse => {
                "another program has it; let it serve a folder (webroot), or pass /.well-known/acme-challenge/ on to another address"
            }
            _ => "give an address of this machine with a free port",
        };
        SolverError::Listen { address: self.address, cause, hint }
    }
}

impl Webroot {
    async fn set_up(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let path = self.path(planned);
        write_whole(&path, &planned.key_authorization).await.map_err(|cause| SolverError::Webroot { path, cause })
    }

    async fn take_down(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let path = self.path(planned);
        match tokio::fs::remove_file(&path).await {
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(SolverError::Webroot { path, cause }),
            _ => Ok(()),
        }
    }

    fn path(&self, planned: &PlannedChallenge) -> PathBuf {
        self.folder.join(FOLDER).join(&planned.token)
    }
}

/// A web server must not serve half a file: it is written beside and renamed. It runs as another user: whatever the umask, it
/// may read what is made here.
async fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let folders: Vec<&Path> = path.ancestors().skip(1).take(2).collect();
    let missing: Vec<&Path> = folders.into_iter().filter(|folder| !folder.exists()).collect();
    if let Some(folder) = path.parent() {
        tokio::fs::create_dir_all(folder).await?;
    }
    for folder in missing {
        tokio::fs::set_permissions(folder, Permissions::from_mode(0o755)).await?;
    }
    let part = path.with_extension("part");
    tokio::fs::write(&part, text).await?;
    tokio::fs::set_permissions(&part, Permissions::from_mode(0o644)).await?;
    tokio::fs::rename(&part, path).await
}

async fn serve(listener: TcpListener, tokens: Arc<RwLock<HashMap<String, String>>>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others will be closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let tokens = tokens.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let response = respond(&request, &tokens);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // A client that goes away is no concern of ours.
            let _ = connection.await;
        });
    }
}

fn respond(request: &Request<Incoming>, tokens: &RwLock<HashMap<String, String>>) -> Response<Full<Bytes>> {
    let token = request.uri().path().strip_prefix('/').and_then(|path| path.strip_prefix(FOLDER)?.strip_prefix('/'));
    let tokens = tokens.read().unwrap_or_else(PoisonError::into_inner);
    let answer = token.and_then(|token| tokens.get(token));
    let mut response = Response::new(Full::from(answer.cloned().unwrap_or_default()));
    if answer.is_none() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}
