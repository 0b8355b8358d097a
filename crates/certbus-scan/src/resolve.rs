//! The nodes of a name: every address that its A and AAAA records give. It connects to none of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use certbus_core::name::DnsName;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::failure::Failure;

/// Asks for the nodes of names. Many may be asked for at a time.
#[derive(Clone)]
pub struct Resolver(TokioResolver);

impl Resolver {
    /// The system's: /etc/hosts, and the servers of /etc/resolv.conf.
    ///
    /// # Errors
    /// [`Failure::Dns`] if the system's settings cannot be read.
    pub fn system() -> Result<Self, Failure> {
        let mut builder = TokioResolver::builder_tokio().map_err(dns)?;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(Self(builder.build().map_err(dns)?))
    }

    /// One server, and nothing that this machine believes.
    ///
    /// # Errors
    /// [`Failure::Dns`] if there is no socket to be had.
    pub fn at(server: SocketAddr, timeout: Duration) -> Result<Self, Failure> {
        let connection = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
        let mut config = ResolverConfig::default();
        config.name_servers = vec![NameServerConfig::new(server.ip(), true, connections)];
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = timeout;
        options.attempts = 2;
        Ok(Self(builder.build().map_err(dns)?))
    }

    /// Every node of a name, each once, IPv4 first.
    ///
    /// # Errors
    /// [`Failure::Dns`]
    pub async fn nodes(&self, name: &DnsName) -> Result<Vec<IpAddr>, Failure> {
        let found = match self.0.lookup_ip(name.as_str()).await {
            Err(error) if error.is_nx_domain() => return Err(Failure::Dns { why: "there is no such name".into() }),
            Err(error) if error.is_no_records_found() => return Err(no_address()),
            found => found.map_err(dns)?,
        };
        let mut nodes: Vec<IpAddr> = found.iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.is_empty() {
            return Err(no_address());
        }
        Ok(nodes)
    }
}

fn no_address() -> Failure {
    Failure::Dns { why: "the name has no address".into() }
}

fn dns(error: impl std::fmt::Display) -> Failure {
    Failure::Dns { why: error.to_string() }
}
