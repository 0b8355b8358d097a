//! What a service manager is told (`sd_notify`): one datagram each, to the socket that `NOTIFY_SOCKET` names. Without one
//! nothing is said.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where a service manager listens.
#[derive(Debug)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Half of the time after which silence counts as death.
    pub watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let to = std::env::var_os("NOTIFY_SOCKET").and_then(|socket| {
            let address = match socket.as_encoded_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&socket),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| mine && *usec > 0).map(|u| Duration::from_micros(u / 2));
        Self { to, watchdog }
    }

    /// Tells it that this process is alive, for as long as it is polled.
    pub async fn keep_alive(&self) {
        let Some(pace) = self.watchdog else { return std::future::pending().await };
        loop {
            self.say("WATCHDOG=1");
            tokio::time::sleep(pace).await;
        }
    }

    /// Tells it, such as `READY=1`.
    pub fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::debug!("the service manager's socket: {error}");
        }
    }
}
