//! Names whose servers say nothing, or half of it: one deadline for all of it, and what is missing is told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use certbus_core::name::DnsName;
use certbus_scan::failure::Failure;
use certbus_scan::resolve::{Nodes, Resolver};

const WITHIN: Duration = Duration::from_millis(900);
/// What a busy machine may take beside.
const SLACK: Duration = Duration::from_millis(600);

/// What a name server does with a question.
#[derive(Clone, Copy)]
enum Does {
    /// It gives 127.0.0.9.
    Answer,
    /// It has nothing of this type.
    Nothing,
    /// It says no: a code (RFC 1035 section 4.1.1).
    Refuse(u8),
    /// It leads to another name, after a while: nobody waits long for one answer, and there is no end of them.
    LeadOn,
}

const A: u16 = 1;
const NO_SUCH_NAME: u8 = 3;
const REFUSED: u8 = 5;
/// Shorter than a question is waited for. Eight of them, as far as a resolver follows, take longer than the deadline.
const A_WHILE: Duration = Duration::from_millis(250);

/// A name server on loopback that treats A one way and AAAA another.
fn server(four: Does, six: Does) -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut asked = [0; 512];
        while let Ok((count, who)) = socket.recv_from(&mut asked) {
            let (socket, asked) = (socket.try_clone().unwrap(), asked[..count].to_vec());
            std::thread::spawn(move || {
                // The name ends with an empty label, and type and class follow.
                let end = 12 + asked[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
                let does = if u16::from_be_bytes([asked[end - 4], asked[end - 3]]) == A { four } else { six };
                let (code, answer) = match does {
                    Does::Answer => (0, vec![0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 9]),
                    Does::Nothing => (0, Vec::new()),
                    Does::Refuse(code) => (code, Vec::new()),
                    // A CNAME: one more label before the name that was asked for.
                    Does::LeadOn => (0, vec![0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 1, 0, 4, 1, b'x', 0xc0, 12]),
                };
                if matches!(does, Does::LeadOn) {
                    std::thread::sleep(A_WHILE);
                }
                let header =
                    [&asked[..2], &[0x81, 0x80 | code, 0, 1, 0, u8::from(!answer.is_empty()), 0, 0, 0, 0]].concat();
                socket.send_to(&[&header, &asked[12..end], &answer].concat(), who).unwrap();
            });
        }
    });
    address
}

fn nodes(four: Does, six: Does) -> (Result<Nodes, Failure>, Duration) {
    let (server, began) = (server(four, six), Instant::now());
    let asking = async { Resolver::at(server, WITHIN).unwrap().nodes(&DnsName::parse("a.test").unwrap()).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    (runtime.block_on(asking), began.elapsed())
}

#[test]
fn name_servers_that_lead_on_for_ever_end_a_look_up_at_its_deadline() {
    let (nodes, took) = nodes(Does::LeadOn, Does::LeadOn);
    assert_eq!(nodes, Err(Failure::Dns { why: "no answer within 900ms".into() }));
    assert!(took >= WITHIN && took < WITHIN + SLACK, "{took:?}");
}

#[test]
fn a_family_that_is_not_answered_before_the_deadline_is_told_beside_the_nodes_of_the_other() {
    let (nodes, took) = nodes(Does::Answer, Does::LeadOn);
    let Nodes { addresses, unanswered } = nodes.unwrap();
    assert_eq!(addresses, [IpAddr::from([127, 0, 0, 9])]);
    assert_eq!(unanswered.unwrap(), "AAAA: no answer within 900ms");
    assert!(took < WITHIN + SLACK, "{took:?}");
}

#[test]
fn a_family_that_is_refused_is_told_and_one_that_is_not_there_is_not() {
    let unanswered = |six| nodes(Does::Answer, six).0.unwrap().unanswered;
    assert!(unanswered(Does::Refuse(REFUSED)).unwrap().contains("AAAA: "));
    // Some servers say of a family that they do not have that the name is not there.
    for six in [Does::Nothing, Does::Refuse(NO_SUCH_NAME)] {
        assert_eq!(unanswered(six), None);
    }
}

#[test]
fn a_name_without_nodes_is_a_failure_that_says_why() {
    for (four, six, words) in [
        (Does::Nothing, Does::Nothing, "the name has no address"),
        (Does::Refuse(NO_SUCH_NAME), Does::Refuse(NO_SUCH_NAME), "there is no such name"),
        (Does::Nothing, Does::Refuse(REFUSED), "refused"),
    ] {
        let (nodes, _) = nodes(four, six);
        let Err(Failure::Dns { why }) = nodes else { panic!("{nodes:?}") };
        assert!(why.to_lowercase().contains(words), "{why}");
    }
}
