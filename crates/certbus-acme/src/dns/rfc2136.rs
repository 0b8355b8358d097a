//! Dynamic updates (RFC 2136) signed by TSIG (RFC 8945). Single values are added and removed, never a whole record
//! set: apex and wildcard have two values at one name at once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use data_encoding::BASE64;
use dns_update::{DnsRecord, DnsRecordType, DnsUpdater};
use secrecy::{ExposeSecret, SecretString};

use crate::dns::lookup;
use crate::solver::SolverError;

const TTL: u32 = 60;

/// A DNS server that takes our updates.
#[derive(Debug)]
pub struct Rfc2136 {
    server: String,
    key: TsigKey,
    zone: Option<String>,
}

/// The key shared with the server.
pub struct TsigKey {
    name: String,
    secret: SecretString,
    algorithm: TsigAlgorithm,
}

/// RFC 8945 section 6: those that are not to be avoided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TsigAlgorithm {
    /// `hmac-sha256`: what `tsig-keygen` makes.
    #[default]
    HmacSha256,
    /// `hmac-sha384`.
    HmacSha384,
    /// `hmac-sha512`.
    HmacSha512,
}

impl TsigKey {
    /// A key as the server's configuration has it: `secret` is base64.
    ///
    /// # Errors
    /// [`SolverError::Settings`] if the secret is not base64.
    pub fn new(name: &str, secret: SecretString, algorithm: TsigAlgorithm) -> Result<Self, SolverError> {
        decode(&secret)?;
        Ok(Self { name: name.to_owned(), secret, algorithm })
    }
}

impl Rfc2136 {
    /// `server` is an address or name, with port where it is not 53. The zone of a name is asked of the server unless
    /// it is given.
    ///
    /// # Errors
    /// [`SolverError::Settings`] if `server` cannot be one.
    pub fn new(server: &str, key: TsigKey, zone: Option<&str>) -> Result<Self, SolverError> {
        let server = with_port(server.trim());
        if server.starts_with(':') || server.contains(['/', ' ']) {
            return Err(SolverError::Settings {
                what: format!("`{server}` is no DNS server; write 192.0.2.1 or ns1.example.com:53"),
            });
        }
        let zone = zone.map(|zone| format!("{}.", zone.trim_end_matches('.').to_ascii_lowercase()));
        Ok(Self { server, key, zone })
    }

    pub(crate) async fn address(&self) -> Result<SocketAddr, SolverError> {
        let unreachable = |cause: String| SolverError::ServerUnreachable { server: self.server.clone(), cause };
        let mut found = tokio::net::lookup_host(&self.server).await.map_err(|error| unreachable(error.to_string()))?;
        found.next().ok_or_else(|| unreachable("its name has no address".into()))
    }

    pub(crate) async fn zone_of(&self, name: &str) -> Result<String, SolverError> {
        match &self.zone {
            Some(zone) => Ok(zone.clone()),
            None => lookup::zone_of(self.address().await?, name).await,
        }
    }

    pub(crate) async fn add(&self, zone: &str, name: &str, value: &str) -> Result<(), SolverError> {
        let records = vec![DnsRecord::TXT(value.to_owned())];
        let updater = self.updater().await?;
        let done = updater.add_to_rrset(name, DnsRecordType::TXT, TTL, records, zone).await;
        done.map_err(|error| self.explain(zone, name, error))
    }

    pub(crate) async fn remove(&self, zone: &str, name: &str, value: &str) -> Result<(), SolverError> {
        let records = vec![DnsRecord::TXT(value.to_owned())];
        let updater = self.updater().await?;
        let done = updater.remove_from_rrset(name, DnsRecordType::TXT, records, zone).await;
        done.map_err(|error| self.explain(zone, name, error))
    }

    async fn updater(&self) -> Result<DnsUpdater, SolverError> {
        let address = self.address().await?;
        let secret = decode(&self.key.secret)?;
        DnsUpdater::new_rfc2136_tsig(format!("udp://{address}"), &self.key.name, secret, self.key.algorithm.into())
            .map_err(|error| SolverError::Settings {
                what: format!("the TSIG key {} cannot be used: {error}", self.key.name),
            })
    }

    fn explain(&self, zone: &str, name: &str, error: dns_update::Error) -> SolverError {
        let server = self.server.clone();
        let answer = match error {
            // An error about our key cannot be signed with it (RFC 8945 section 5.2), which the library reports as a
            // failure of the exchange, and only in words.
            dns_update::Error::Client(cause) if cause.contains("TSIG") => {
                "NOTAUTH: it does not know the key by this name, secret and algorithm, or the clocks differ".into()
            }
            dns_update::Error::Client(cause) => return SolverError::ServerUnreachable { server, cause },
            dns_update::Error::Response(answer) => answer,
            other => other.to_string(),
        };
        SolverError::UpdateRefused { server, zone: zone.to_owned(), name: name.to_owned(), answer }
    }
}

impl fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsigKey").field("name", &self.name).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl TsigAlgorithm {
    /// The word of RFC 8945.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::HmacSha384 => "hmac-sha384",
            Self::HmacSha512 => "hmac-sha512",
        }
    }
}

impl FromStr for TsigAlgorithm {
    type Err = SolverError;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::HmacSha256, Self::HmacSha384, Self::HmacSha512]
            .into_iter()
            .find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(word))
            .ok_or_else(|| SolverError::Settings {
                what: format!("`{word}` is not a TSIG algorithm; write one of: hmac-sha256, hmac-sha384, hmac-sha512"),
            })
    }
}

impl From<TsigAlgorithm> for dns_update::TsigAlgorithm {
    fn from(algorithm: TsigAlgorithm) -> Self {
        match algorithm {
            TsigAlgorithm::HmacSha256 => Self::HmacSha256,
            TsigAlgorithm::HmacSha384 => Self::HmacSha384,
            TsigAlgorithm::HmacSha512 => Self::HmacSha512,
        }
    }
}

fn decode(secret: &SecretString) -> Result<Vec<u8>, SolverError> {
    BASE64.decode(secret.expose_secret().trim().as_bytes()).map_err(|_| SolverError::Settings {
        what: "the TSIG secret is not base64; copy it from the server's `key` statement".into(),
    })
}

fn with_port(server: &str) -> String {
    match server.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, 53).to_string(),
        Err(_) if server.contains(':') => server.to_owned(),
        Err(_) => format!("{server}:53"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_print_its_secret() {
        let key = TsigKey::new("certbus", "c2VjcmV0IQ==".into(), TsigAlgorithm::HmacSha256).unwrap();
        assert!(!format!("{:?}", Rfc2136::new("192.0.2.1", key, None).unwrap()).contains("c2Vj"));
        assert!(TsigKey::new("certbus", "not base64".into(), TsigAlgorithm::HmacSha256).is_err());
    }

    #[test]
    fn port_53_is_meant_where_none_is_given() {
        assert_eq!(with_port("192.0.2.1"), "192.0.2.1:53");
        assert_eq!(with_port("2001:db8::1"), "[2001:db8::1]:53");
        assert_eq!(with_port("ns1.example.com"), "ns1.example.com:53");
        assert_eq!(with_port("ns1.example.com:5353"), "ns1.example.com:5353");
    }
}
