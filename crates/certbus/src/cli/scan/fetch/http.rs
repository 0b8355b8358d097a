//! One GET over plain HTTP, from an address that may be asked. It follows nobody: not to another address than the one that was
//! checked, and no redirect.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use certbus_core::name::DnsName;
use certbus_scan::failure::Failure;
use certbus_scan::resolve::Resolver;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::reach::is_open;

/// Connections that are tried at a time, each this long after the one before: a dead address keeps nobody.
pub(crate) const MOST_CONNECTIONS: usize = 4;
const STAGGER: Duration = Duration::from_millis(300);

/// Gets what stands at an address, and gives it to `take` part by part.
pub(super) async fn get(
    url: &str,
    resolver: &Result<Resolver, Failure>,
    refuse: impl Fn(IpAddr) -> Option<String>,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let url: Uri = url.parse().context("no URL")?;
    ensure!(url.scheme_str() == Some("http"), "only http:// is fetched");
    let host = url.host().context("a URL without a host")?;
    let port = url.port_u16().unwrap_or(80);
    ensure!(is_open(port), "port {port}: only port 80 and those from 1024 on are asked");
    let stream = connect(&nodes(host, resolver).await?, port, refuse).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ended with this function, however that ends.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let named = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let request = Request::get(path).header(HOST, named).header(USER_AGENT, "certbus-scan");
    let mut answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    ensure!(answer.status().is_success(), "HTTP {}", answer.status());
    while let Some(part) = answer.frame().await {
        if let Ok(data) = part?.into_data() {
            take(&data)?;
        }
    }
    Ok(())
}

async fn nodes(host: &str, resolver: &Result<Resolver, Failure>) -> Result<Vec<IpAddr>> {
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match (literal, resolver) {
        (Ok(address), _) => Ok(vec![address]),
        (Err(_), Ok(resolver)) => Ok(resolver.nodes(&DnsName::parse(host)?).await?.addresses),
        (Err(_), Err(failure)) => Err(failure.clone().into()),
    }
}

/// Connects to the first that answers, of those that may be asked.
async fn connect(nodes: &[IpAddr], port: u16, refuse: impl Fn(IpAddr) -> Option<String>) -> Result<TcpStream> {
    let (mut failed, mut attempts) = (None, JoinSet::new());
    for node in nodes {
        match refuse(*node) {
            Some(why) => failed = failed.or(Some(anyhow::anyhow!(why))),
            None if attempts.len() == MOST_CONNECTIONS => break,
            None => {
                let (node, turn) = (SocketAddr::new(*node, port), STAGGER * attempts.len() as u32);
                attempts.spawn(async move {
                    tokio::time::sleep(turn).await;
                    TcpStream::connect(node).await
                });
            }
        }
    }
    while let Some(attempt) = attempts.join_next().await {
        match attempt? {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = Some(error.into()),
        }
    }
    bail!(failed.unwrap_or_else(|| anyhow::anyhow!("the name has no address")))
}
