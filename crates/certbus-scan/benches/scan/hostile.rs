//! Servers that hold on to whoever connects: they accept, and say nothing, or half of a large message, and go on slowly.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use certbus_scan::most_in_flight;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

/// Listens on ports from `first` until it is ended. `silent`, or `half`: 15 KB of a record of 16 KB, of a message of 60 KB.
pub(crate) fn serve(behaviour: &str, first: u16, ports: u16) {
    most_in_flight();
    let half = {
        let mut half = vec![22, 3, 3, 0x40, 0, 2, 0, 0, 38, 3, 3];
        half.extend([9; 32]);
        half.extend([0, 0xc0, 0x2f, 0, 11, 0, 0xea, 0x60]);
        half.resize(15_000, 0);
        half
    };
    let mut poll = Poll::new().unwrap();
    let mut listeners = Vec::new();
    for number in 0..ports {
        let listener = TcpListener::bind(("127.0.0.1", first + number)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry().register(&mut listener, Token(number.into()), Interest::READABLE).unwrap();
        listeners.push(listener);
    }
    println!("listening");
    let mut open = Slab::new();
    let mut events = Events::with_capacity(1024);
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(1))).unwrap();
        for event in &events {
            if let Some(listener) = listeners.get(event.token().0) {
                while let Ok((mut stream, _)) = listener.accept() {
                    let entry = open.vacant_entry();
                    let token = Token(listeners.len() + entry.key());
                    poll.registry().register(&mut stream, token, Interest::READABLE).unwrap();
                    entry.insert(stream);
                }
                continue;
            }
            let key = event.token().0 - listeners.len();
            let Some(stream) = open.get_mut(key) else { continue };
            let mut buffer = [0; 4096];
            match stream.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    if behaviour == "half" {
                        let _ = stream.write(&half);
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                _ => drop(open.remove(key)),
            }
        }
    }
}
