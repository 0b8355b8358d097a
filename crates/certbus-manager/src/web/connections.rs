//! Connections: accepted, secured where people come over TLS, answered, and ended. There is room for so many, and whoever
//! dawdles is sent away, so that nobody holds up the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::DAWDLING;

/// Connections at once; more wait to be accepted.
const MOST: usize = 1024;

/// Requests that are under way when it is told to stop are given this long.
const ENDING: Duration = Duration::from_secs(5);

/// A listener that cannot accept, most likely for want of file descriptors, is left alone for so long: it passes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Answers with `router` until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    router: Router,
    stop: impl Future<Output = ()>,
) {
    let (room, ending, tls) = (Arc::new(Semaphore::new(MOST)), GracefulShutdown::new(), tls.map(TlsAcceptor::from));
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
            let (tls, router, watcher) = (tls.clone(), router.clone(), ending.watcher());
            tokio::spawn(async move {
                let _place = place;
                match tls {
                    None => answer(stream, peer, router, watcher).await,
                    Some(tls) => match timeout(DAWDLING, tls.accept(stream)).await {
                        Ok(Ok(secured)) => answer(secured, peer, router, watcher).await,
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
    drop(listener);
    tokio::select! {
        () = ending.shutdown() => {}
        () = sleep(ENDING) => {}
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    router: Router,
    watcher: Watcher,
) {
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
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
