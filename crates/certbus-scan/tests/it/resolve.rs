//! Names whose servers say nothing, or half of it: one deadline for all of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use certbus_core::name::DnsName;
use certbus_scan::failure::Failure;
use certbus_scan::resolve::Resolver;

const WITHIN: Duration = Duration::from_millis(900);
/// What a busy machine may take beside.
const SLACK: Duration = Duration::from_millis(700);

/// A name server on loopback that answers questions of one type with 127.0.0.9, and no others.
fn answers(kind: Option<u16>) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut asked = [0; 512];
        while let Ok((count, who)) = socket.recv_from(&mut asked) {
            // The name ends with an empty label, and type and class follow.
            let end = 12 + asked[12..count].iter().position(|byte| *byte == 0).unwrap() + 5;
            if Some(u16::from_be_bytes([asked[end - 4], asked[end - 3]])) != kind {
                continue;
            }
            let header = [&asked[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
            let answer = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 9];
            socket.send_to(&[&header, &asked[12..end], &answer].concat(), who).unwrap();
        }
    });
    address
}

fn nodes(server: SocketAddr) -> (Result<Vec<IpAddr>, Failure>, Duration) {
    let began = Instant::now();
    let asking = async { Resolver::at(server, WITHIN).unwrap().nodes(&DnsName::parse("a.test").unwrap()).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    (runtime.block_on(asking), began.elapsed())
}

#[test]
fn a_name_server_that_never_answers_ends_a_look_up_at_its_deadline() {
    let (nodes, took) = nodes(answers(None));
    let Err(Failure::Dns { why }) = nodes else { panic!("{nodes:?}") };
    assert!(took < WITHIN + SLACK, "{took:?}: {why}");
}

#[test]
fn a_name_server_that_answers_for_ipv4_only_gives_those_nodes_at_the_deadline() {
    let (nodes, took) = nodes(answers(Some(1)));
    assert_eq!(nodes, Ok(vec![IpAddr::from([127, 0, 0, 9])]));
    assert!(took < WITHIN + SLACK, "{took:?}");
}
