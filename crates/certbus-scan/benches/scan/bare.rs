//! The bare limit: TCP connect, write 300 bytes, read the answer, close. It parses nothing and keeps nothing: who looks at
//! certificates cannot be faster.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use certbus_scan::offer::Hello;
use certbus_scan::quick::QuickLook;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use socket2::{Domain, Socket, Type};

/// The answer to a hello for TLS 1.2 or 1.3 is longer, whatever the certificate of the farm.
const ENOUGH: usize = 2000;

pub(crate) fn run(targets: &[SocketAddr], in_flight: usize) {
    let mut hello = Vec::new();
    QuickLook::start(Hello::ANY, None, false, [7; 64], &mut hello);
    hello.truncate(300.max(hello.len()));
    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(1024);
    let mut open: Slab<(TcpStream, bool, usize)> = Slab::new();
    let mut buffer = vec![0; 32 * 1024];
    let (mut next, mut found) = (targets.iter(), 0);
    loop {
        for _ in 0..256 {
            if open.len() >= in_flight {
                break;
            }
            let Some(server) = next.next() else { break };
            let socket = Socket::new(Domain::for_address(*server), Type::STREAM.nonblocking(), None).unwrap();
            socket.set_linger(Some(Duration::ZERO)).unwrap();
            let _ = socket.connect(&(*server).into());
            let mut stream = TcpStream::from_std(StdStream::from(socket));
            let entry = open.vacant_entry();
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(entry.key()), interest).unwrap();
            entry.insert((stream, false, 0));
        }
        if open.is_empty() {
            break;
        }
        poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
        for event in &events {
            let key = event.token().0;
            let Some((stream, written, read)) = open.get_mut(key) else { continue };
            if !*written && event.is_writable() {
                let _ = stream.write(&hello);
                *written = true;
            }
            if event.is_readable() {
                match stream.read(&mut buffer) {
                    Ok(count) if count > 0 && *read + count < ENOUGH => *read += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    answer => {
                        found += usize::from(answer.is_ok_and(|count| count > 0));
                        open.remove(key);
                    }
                }
            }
        }
    }
    println!("{{\"found\":{found}}}");
}
