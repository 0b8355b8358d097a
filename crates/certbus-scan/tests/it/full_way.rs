//! More finished handshakes at a time than there are slots for, with servers that do not wait for who only connects.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use certbus_scan::found::Proof;
use certbus_scan::offer::Version;
use certbus_scan::starttls::Starttls;
use certbus_scan::ways::{Learnt, Method};
use certbus_scan::{Limits, Options, Target, Timeouts, most_in_flight, scan};
use socket2::{Domain, Socket, Type};

use crate::support::{listed, options, target};
use crate::tls::TlsServer;

const SLOTS: usize = 1024;
const MANY: usize = SLOTS + 300;
const PATIENCE: Duration = Duration::from_secs(1);
/// How long it thinks about a hello: meanwhile all that may connect do.
const THINKS: Duration = Duration::from_millis(700);

/// Finishes handshakes, after a greeting and the word for STARTTLS if `greets`. Who says nothing for a second is hung up on.
fn impatient(greets: bool) -> u16 {
    // With room for all: where it runs out, a kernel with SYN cookies forgets who waits for a greeting.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(4096).unwrap();
    let listener = TcpListener::from(listener);
    let port = listener.local_addr().unwrap().port();
    let server = TlsServer::new(&[Version::Tls12, Version::Tls13]);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            std::thread::spawn(move || serve(stream, &server, greets));
        }
    });
    port
}

fn serve(mut stream: TcpStream, server: &TlsServer, greets: bool) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    if greets {
        let mut heard = [0; 512];
        for said in ["220 hi\r\n", "250-a\r\n250 STARTTLS\r\n", "220 go\r\n"] {
            stream.write_all(said.as_bytes())?;
            if said != "220 go\r\n" && stream.read(&mut heard)? == 0 {
                return Ok(());
            }
        }
    }
    if stream.peek(&mut [0; 1])? == 1 {
        std::thread::sleep(THINKS);
    }
    let mut connection = server.connection();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    let _ = stream.read(&mut [0; 1]);
    Ok(())
}

fn all_finish(starttls: Option<Starttls>) {
    most_in_flight();
    let port = impatient(starttls.is_some());
    let limits = Limits { in_flight: 2 * MANY, rate: None, per_host: None, per_network: None };
    let timeouts = Timeouts::all(Duration::from_secs(60));
    let options = Options { limits, timeouts, ..options(Method::Auto, Proof::Finished) };
    let targets = listed((0..MANY).map(|_| Target { starttls, ..target(port) }));
    let mut finished = 0;
    let summary = scan(targets, &options, &mut Learnt::default(), &false.into(), |seen| match seen.result {
        Ok(found) if found.proof == Proof::Finished => finished += 1,
        other => panic!("{other:?}"),
    });
    let summary = summary.unwrap();
    assert_eq!((finished, summary.found), (MANY, MANY as u64));
    // Who waits for a slot is not connected; without slots all of them would be.
    assert!(summary.peak > SLOTS / 2 && summary.peak <= SLOTS, "{summary:?}");
}

#[test]
fn more_finished_handshakes_than_slots_all_finish_with_servers_that_hang_up_on_who_only_connects() {
    all_finish(None);
}

#[test]
fn more_finished_handshakes_than_slots_all_finish_after_a_greeting_too() {
    all_finish(Some(Starttls::Smtp));
}
