//! The nodes of a name: every address that its A and AAAA records give, before one deadline. It connects to none of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use certbus_core::name::DnsName;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ResolverBuilder, TokioResolver};

use crate::failure::Failure;

type Builder = ResolverBuilder<TokioRuntimeProvider>;

/// How often a question is asked again.
const ATTEMPTS: usize = 2;

/// Asks for the nodes of names. Many may be asked for at a time.
#[derive(Clone)]
pub struct Resolver {
    four: TokioResolver,
    six: TokioResolver,
    /// For all that is asked for one name.
    within: Duration,
}

impl Resolver {
    /// The system's: /etc/hosts, and the servers of /etc/resolv.conf.
    ///
    /// # Errors
    /// [`Failure::Dns`] if the system's settings cannot be read.
    pub fn system(within: Duration) -> Result<Self, Failure> {
        Self::new(within, || TokioResolver::builder_tokio().map_err(dns))
    }

    /// One server, and nothing that this machine believes.
    ///
    /// # Errors
    /// [`Failure::Dns`] if there is no socket to be had.
    pub fn at(server: SocketAddr, within: Duration) -> Result<Self, Failure> {
        let connection = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
        let mut config = ResolverConfig::default();
        config.name_servers = vec![NameServerConfig::new(server.ip(), true, connections)];
        Self::new(within, || {
            let mut builder = TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder.options_mut().attempts = ATTEMPTS;
            Ok(builder)
        })
    }

    fn new(within: Duration, builder: impl Fn() -> Result<Builder, Failure>) -> Result<Self, Failure> {
        let of = |strategy| {
            let mut builder = builder()?;
            let options = builder.options_mut();
            options.ip_strategy = strategy;
            // A lost question is asked again before the deadline.
            options.timeout = options.timeout.min(within / 3);
            builder.build().map_err(dns)
        };
        Ok(Self { four: of(LookupIpStrategy::Ipv4Only)?, six: of(LookupIpStrategy::Ipv6Only)?, within })
    }

    /// Every node of a name, each once, IPv4 first: what was answered of A and AAAA before one deadline.
    ///
    /// # Errors
    /// [`Failure::Dns`]
    pub async fn nodes(&self, name: &DnsName) -> Result<Vec<IpAddr>, Failure> {
        let (four, six) = tokio::join!(self.ask(&self.four, name), self.ask(&self.six, name));
        let mut nodes: Vec<IpAddr> = [&four, &six].into_iter().flatten().flatten().copied().collect();
        nodes.sort_unstable();
        nodes.dedup();
        match (four, six) {
            _ if !nodes.is_empty() => Ok(nodes),
            (Err(failure), _) | (_, Err(failure)) => Err(failure),
            _ => Err(Failure::Dns { why: "the name has no address".into() }),
        }
    }

    /// The addresses of one family; none is no failure.
    async fn ask(&self, resolver: &TokioResolver, name: &DnsName) -> Result<Vec<IpAddr>, Failure> {
        match tokio::time::timeout(self.within, resolver.lookup_ip(name.as_str())).await {
            Err(_) => Err(Failure::Dns { why: format!("no answer within {:?}", self.within) }),
            Ok(Err(error)) if error.is_nx_domain() => Err(Failure::Dns { why: "there is no such name".into() }),
            Ok(Err(error)) if error.is_no_records_found() => Ok(Vec::new()),
            Ok(found) => Ok(found.map_err(dns)?.iter().collect()),
        }
    }
}

fn dns(error: impl std::fmt::Display) -> Failure {
    Failure::Dns { why: error.to_string() }
}
