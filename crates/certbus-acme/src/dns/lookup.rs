//! Questions to one DNS server, answered by what that server says now (RFC 1035). No cache, no search list.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::net::client::{Client, ClientHandle};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::DnsMultiplexer;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::solver::SolverError;

/// How long each attempt waits: a datagram that was lost is missed soon.
const ANSWER_WITHIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), LONGEST_WAIT];
const LONGEST_WAIT: Duration = Duration::from_secs(3);
const LONGEST_CHAIN: usize = 8;

/// Asks one server, over TCP where the answer does not fit a datagram.
pub(crate) async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Result<Message, SolverError> {
    let unreachable = |cause: String| SolverError::ServerUnreachable { server: server.to_string(), cause };
    let name = Name::from_ascii(name).map_err(|error| unreachable(format!("`{name}` cannot be asked for: {error}")))?;
    let mut last = String::new();
    for within in ANSWER_WITHIN {
        match tokio::time::timeout(within, exchange(server, name.clone(), kind)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(cause)) => last = cause,
            Err(_) => last = format!("nothing within {} s", ANSWER_WITHIN.iter().sum::<Duration>().as_secs()),
        }
    }
    Err(unreachable(last))
}

/// The zone that a name is in, as `server` sees it: the owner of the SOA record that it answers with, or that stands
/// beside a negative answer (RFC 2308 section 3).
pub(crate) async fn zone_of(server: SocketAddr, name: &str) -> Result<String, SolverError> {
    let answer = ask(server, name, RecordType::SOA).await?;
    let asked = Name::from_ascii(name).unwrap_or_default();
    let records = answer.answers.iter().chain(&answer.authorities);
    let soa =
        records.filter(|record| record.record_type() == RecordType::SOA).find(|record| record.name.zone_of(&asked));
    match soa {
        Some(record) => Ok(record.name.to_ascii()),
        None => Err(SolverError::NoZone { server: server.to_string(), name: name.to_owned(), answer: code(&answer) }),
    }
}

/// Where CNAMEs at `name` lead. Asks `own`, which must answer, and, unless that answers with authority, the resolvers.
/// A name that nobody can tell about stays as it is: the provider's error will say more.
pub(crate) async fn canonical(
    name: String,
    own: Option<SocketAddr>,
    resolvers: &[SocketAddr],
) -> Result<String, SolverError> {
    let mut name = name;
    for _ in 0..LONGEST_CHAIN {
        match alias(&name, own, resolvers).await? {
            Some(target) => name = target,
            None => break,
        }
    }
    Ok(name)
}

/// The TXT values at a name.
pub(crate) fn texts(answer: &Message) -> Vec<String> {
    let text = |record: &Record| match &record.data {
        RData::TXT(text) => {
            Some(text.txt_data.iter().map(|part| String::from_utf8_lossy(part).into_owned()).collect::<String>())
        }
        _ => None,
    };
    answer.answers.iter().filter_map(text).collect()
}

/// The nameservers' names of a zone.
pub(crate) fn nameservers(answer: &Message) -> Vec<String> {
    let name = |record: &Record| match &record.data {
        RData::NS(name) => Some(name.0.to_ascii()),
        _ => None,
    };
    answer.answers.iter().filter_map(name).collect()
}

/// The addresses in an answer.
pub(crate) fn addresses(answer: &Message) -> Vec<IpAddr> {
    let address = |record: &Record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    answer.answers.iter().filter_map(address).collect()
}

/// The response code in the words of RFC 1035 and RFC 2136.
pub(crate) fn code(answer: &Message) -> String {
    match answer.metadata.response_code {
        ResponseCode::NoError => "NOERROR without such a record".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::Refused => "REFUSED".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        other => other.to_str().to_owned(),
    }
}

async fn alias(name: &str, own: Option<SocketAddr>, resolvers: &[SocketAddr]) -> Result<Option<String>, SolverError> {
    if let Some(own) = own {
        let answer = ask(own, name, RecordType::CNAME).await?;
        let target = cname(&answer);
        if target.is_some() || answer.metadata.authoritative {
            return Ok(target);
        }
    }
    for resolver in resolvers {
        if let Ok(answer) = ask(*resolver, name, RecordType::CNAME).await {
            return Ok(cname(&answer));
        }
    }
    Ok(None)
}

fn cname(answer: &Message) -> Option<String> {
    answer.answers.iter().find_map(|record| match &record.data {
        RData::CNAME(target) => Some(target.0.to_ascii()),
        _ => None,
    })
}

async fn exchange(server: SocketAddr, name: Name, kind: RecordType) -> Result<Message, String> {
    let stream = UdpClientStream::builder(server, TokioRuntimeProvider::new()).with_timeout(Some(LONGEST_WAIT)).build();
    let (mut client, background) = Client::<TokioRuntimeProvider>::from_sender(stream);
    tokio::spawn(background);
    let answer = client.query(name.clone(), DNSClass::IN, kind).await.map_err(|error| error.to_string())?;
    if !answer.metadata.truncation {
        return Ok(answer.into_message());
    }
    let (connecting, sender) = TcpClientStream::new(server, None, Some(LONGEST_WAIT), TokioRuntimeProvider::new());
    let stream = connecting.await.map_err(|error| error.to_string())?;
    let (mut client, background) = Client::<TokioRuntimeProvider>::from_sender(DnsMultiplexer::new(stream, sender));
    tokio::spawn(background);
    let answer = client.query(name, DNSClass::IN, kind).await.map_err(|error| error.to_string())?;
    Ok(answer.into_message())
}
