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

/// The nodes of a name, as far as its servers told them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// Each once, IPv4 first; never none.
    pub addresses: Vec<IpAddr>,
    /// Which of A and AAAA nobody answered, and why: the nodes that it gives are missing.
    pub unanswered: Option<String>,
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

    /// Every node of a name: what was answered of A and AAAA before one deadline.
    ///
    /// # Errors
    /// [`Failure::Dns`] if no node is known.
    pub async fn nodes(&self, name: &DnsName) -> Result<Nodes, Failure> {
        let (four, six) = tokio::join!(self.ask(&self.four, name), self.ask(&self.six, name));
        let mut addresses: Vec<IpAddr> = [&four, &six].into_iter().flatten().flatten().flatten().copied().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let why = |why: &str| Failure::Dns { why: why.to_owned() };
        if !addresses.is_empty() {
            let unanswered = four.err().map(|why| format!("A: {why}")).or(six.err().map(|why| format!("AAAA: {why}")));
            return Ok(Nodes { addresses, unanswered });
        }
        match (four, six) {
            (Err(error), _) | (_, Err(error)) => Err(why(&error)),
            (Ok(None), _) | (_, Ok(None)) => Err(why("there is no such name")),
            _ => Err(why("the name has no address")),
        }
    }

    /// The addresses of one family: Ok(None) if there is no such name, and words if nobody answered.
    async fn ask(&self, resolver: &TokioResolver, name: &DnsName) -> Result<Option<Vec<IpAddr>>, String> {
        match tokio::time::timeout(self.within, resolver.lookup_ip(name.as_str())).await {
            Err(_) => Err(format!("no answer within {:?}", self.within)),
            Ok(Err(error)) if error.is_nx_domain() => Ok(None),
            Ok(Err(error)) if error.is_no_records_found() => Ok(Some(Vec::new())),
            Ok(Err(error)) => Err(error.to_string()),
            Ok(Ok(found)) => Ok(Some(found.iter().collect())),
        }
    }
}

fn dns(error: impl std::fmt::Display) -> Failure {
    Failure::Dns { why: error.to_string() }
}
