//! How a scan ends before its end: whoever runs it has enough.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Place, told};

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Interrupts a scan that hangs, and sees it end soon, with what is done so far.
fn ends_when_interrupted(mut child: Child) -> (String, String) {
    let stdin = child.stdin.take();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
    let began = Instant::now();
    interrupt(&child);
    let said = told(1, child.wait_with_output().unwrap());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(said.1.contains("interrupted"), "{}", said.1);
    drop(stdin);
    said
}

#[test]
fn an_interrupt_ends_a_scan_that_waits_for_standard_input() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let good = format!("127.0.0.1:{}", place.serve("a", ""));
    let (out, _) = ends_when_interrupted(start(&mut place.command(&[&good, "-"])));
    assert!(out.contains(&good), "{out}");
}

#[test]
fn an_interrupt_ends_a_scan_that_waits_for_dns() {
    let place = Place::new();
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = silent.local_addr().unwrap().to_string();
    // More names than are looked up at a time.
    let names: String = (0..300).map(|number| format!("n{number}.test\n")).collect();
    std::fs::write(place.path("names.txt"), names).unwrap();
    ends_when_interrupted(start(&mut place.command(&["@names.txt", "--resolver", &server, "--timeout", "60"])));
}

#[test]
fn an_interrupt_ends_a_scan_that_waits_for_what_it_fetches() {
    let mut place = Place::new();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let list = format!("crlDistributionPoints=URI:http://{}/list", silent.local_addr().unwrap());
    place.openssl(&format!(
        "req -x509 -newkey rsa:2048 -nodes -keyout a.key -out a.pem -subj /CN=a.test -addext {list}"
    ));
    let good = format!("127.0.0.1:{}", place.serve("a", ""));
    let (out, _) = ends_when_interrupted(start(&mut place.command(&[&good, "--revocation"])));
    assert!(out.contains("list: interrupted"), "{out}");
}

#[test]
fn a_second_interrupt_ends_a_scan_whose_reader_takes_nothing() {
    let place = Place::new();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let target = format!("127.0.0.1:{}", closed.port());
    let mut child = start(&mut place.command(&["-", "--json"]));
    let mut stdin = child.stdin.take().unwrap();
    // Lines of far more than a pipe holds.
    let feeding = std::thread::spawn(move || {
        let _ = stdin.write_all(format!("{target}\n").repeat(2000).as_bytes());
        stdin
    });
    std::thread::sleep(Duration::from_millis(1500));
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "it ended although nobody took its lines");
    interrupt(&child);
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(3));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(feeding.join());
}

#[test]
fn a_reader_that_goes_away_ends_a_scan_without_a_word() {
    let place = Place::new();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut child = start(&mut place.command(&["-", "--json"]));
    let mut stdin = child.stdin.take().unwrap();
    let target = format!("127.0.0.1:{}\n", closed.port());
    stdin.write_all(target.as_bytes()).unwrap();
    // As `head -1` does.
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    assert!(first.contains("refused"), "{first}");
    drop(out);
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        let _ = stdin.write_all(target.as_bytes());
        assert!(began.elapsed() < Duration::from_secs(5), "it goes on for nobody");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((said.as_str(), child.wait().unwrap().code()), ("", Some(0)));
}
