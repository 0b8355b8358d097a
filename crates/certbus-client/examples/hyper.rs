//! HTTPS with managed certificates in hyper: `cargo run --example hyper -- nodes.key log.db STATE-FOLDER 127.0.0.1:8443`.

use std::sync::Arc;

use certbus_client::Client;
use certbus_core::identity::Identity;
use http_body_util::Full;
use hyper::{Response, body::Bytes, service::service_fn};
use hyper_util::rt::TokioIo;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [key, log, state, listen] = args.as_slice() else {
        return Err("give KEY LOG STATE LISTEN".into());
    };

    // The three lines that make a server use CertBus.
    let client = Client::open(Identity::from_file(&std::fs::read_to_string(key)?)?, vec![], state.as_ref())?;
    let log = Arc::new(certbus_bus::sqlite::SqliteFile::open(log.as_ref(), false).await?.stream("default/certs"));
    tokio::spawn(client.clone().follow(log.clone(), log));

    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(client.resolver());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind(listen).await?;
    loop {
        let (connection, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(secured) = acceptor.accept(connection).await else {
                return;
            };
            let hello = service_fn(async |_| {
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from("hello\n"))))
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(secured), hello).await;
        });
    }
}
