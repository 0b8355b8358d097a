//! `certbus example-server`: HTTPS with managed certificates, answering `greetings from PATH`. A model for one's own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use certbus_client::Client;
use clap::Args;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::output;
use crate::settings::Settings;
use crate::wire;

#[derive(Debug, Args)]
pub(crate) struct ExampleServer {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The node's identity [default: nodes.key in the data folder]
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Where the snapshot is kept [default: client in the data folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl ExampleServer {
    pub(crate) async fn run(self, settings: &Settings) -> Result<()> {
        let key = self.identity.unwrap_or_else(|| settings.node_key());
        let folder = self.state.unwrap_or_else(|| settings.identities().join("client"));
        let client = wire::client(settings, &key, &folder).await?;
        let listener = TcpListener::bind(self.listen).await;
        let listener =
            listener.with_context(|| format!("cannot listen on {}; choose another with --listen", self.listen))?;
        output::line(format!(
            "serving {} certificates on https://{}",
            client.status().certificates,
            listener.local_addr()?
        ));
        tokio::select! {
            () = serve(listener, client) => {}
            () = until_ended() => {}
        }
        Ok(())
    }
}

/// Returns at Ctrl-C, or when a service manager ends it.
pub(crate) async fn until_ended() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}

/// Answers HTTPS on `listener` with what `client` serves, for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, client: Arc<Client>) {
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(client.resolver());
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    loop {
        let (connection, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: it passes.
                tracing::warn!("cannot accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
        };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let secured = match acceptor.accept(connection).await {
                Ok(secured) => secured,
                Err(error) => return tracing::debug!(%from, "handshake failed: {error}"),
            };
            let answered =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(secured), service_fn(greet));
            if let Err(error) = answered.await {
                tracing::debug!(%from, "connection ended: {error}");
            }
        });
    }
}

async fn greet(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    Ok(Response::new(Full::from(format!("greetings from {}\n", request.uri().path()))))
}
