//! Connections: accepted, secured where people come over TLS, answered, and ended. There is room for so many, and whoever
//! dawdles is sent away, so that nobody holds up the others.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::DAWDLING;

/// Connections at once; more wait to be accepted.
const MOST: usize = 1024;

/// Those of one address, unless it is a proxy's; more are closed at once.
const MOST_OF_ONE: usize = 128;

/// An answer of which nothing is read for so long is given up.
const UNREAD: Duration = Duration::from_secs(30);

/// Requests that are under way when it is told to stop are given this long.
const ENDING: Duration = Duration::from_secs(5);

/// A listener that cannot accept, most likely for want of file descriptors, is left alone for so long: it passes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The place that a connection takes among those of whom little is known.
#[derive(Clone)]
pub(super) struct Seat(Arc<Mutex<Option<Taken>>>);

/// One place of all, and one of those of its address.
type Taken = (OwnedSemaphorePermit, Option<Guest>);

impl Seat {
    /// Gives it to another: who sits here is known, and counted elsewhere.
    pub(super) fn leave(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Whether the server is told to stop: an answer that goes on and on ends then.
#[derive(Clone, Debug)]
pub(super) struct Stopping(watch::Receiver<()>);

impl Stopping {
    /// Waits for it.
    pub(super) async fn told(&mut self) {
        // The other end is dropped when it is told.
        let _ = self.0.changed().await;
    }
}

/// How many connections each address has.
#[derive(Clone, Default)]
struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection among those of its address, for as long as it lasts.
struct Guest(Guests, IpAddr);

impl Guests {
    /// None: it has as many as it may.
    fn enter(&self, address: IpAddr) -> Option<Guest> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        (*count < MOST_OF_ONE).then(|| {
            *count += 1;
            Guest(self.clone(), address)
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

/// Answers with `router` until `stop`. `proxies` may have as many connections as there are.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    proxies: &[IpAddr],
    stop: impl Future<Output = ()>,
) {
    let (room, ending, tls) = (Arc::new(Semaphore::new(MOST)), GracefulShutdown::new(), tls.map(TlsAcceptor::from));
    let guests = Guests::default();
    let (going, stopping) = watch::channel(());
    let stopping = Stopping(stopping);
    let accepting = async {
        while let Ok(place) = room.clone().acquire_owned().await {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("no connection can be accepted: {error}");
                    sleep(LOOK_AGAIN).await;
                    continue;
                }
            };
            let address = peer.ip().to_canonical();
            let guest = guests.enter(address);
            if guest.is_none() && !proxies.contains(&address) {
                tracing::debug!(%peer, "has {MOST_OF_ONE} connections already");
                continue;
            }
            let (tls, router, watcher) = (tls.clone(), router.clone(), ending.watcher());
            let about = (peer, Seat(Arc::new(Mutex::new(Some((place, guest))))), stopping.clone());
            // Whoever does not read what he asked for keeps no place either.
            let mut stream = Box::pin(TimeoutStream::new(stream));
            stream.as_mut().set_write_timeout_pinned(Some(UNREAD));
            tokio::spawn(async move {
                match tls {
                    None => answer(stream, about, router, watcher).await,
                    Some(tls) => match timeout(DAWDLING, tls.accept(stream)).await {
                        Ok(Ok(secured)) => answer(secured, about, router, watcher).await,
                        Ok(Err(error)) => tracing::debug!(%peer, "no handshake: {error}"),
                        Err(_) => tracing::debug!(%peer, "no handshake within {} s", DAWDLING.as_secs()),
                    },
                }
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop => {}
    }
    drop((listener, going));
    tokio::select! {
        () = ending.shutdown() => {}
        () = sleep(ENDING) => {}
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    about: (SocketAddr, Seat, Stopping),
    router: Router,
    watcher: Watcher,
) {
    let (peer, seat, stopping) = about;
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(stopping.clone());
        request.extensions_mut().insert(seat.clone());
        router.clone().oneshot(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(DAWDLING)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%peer, "the connection ended: {error}");
    }
}
