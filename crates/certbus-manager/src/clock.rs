//! The edge where time and randomness enter: everything below takes them as arguments.

use std::time::SystemTime;

use certbus_core::id::{BatchId, CertificateId, LogId, RingId};
use certbus_core::time::Timestamp;

/// The machine's clock.
pub fn now() -> Timestamp {
    Timestamp::default().plus(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    while aws_lc_rs::rand::fill(&mut bytes).is_err() {}
    bytes
}

/// A new certificate id.
pub fn certificate_id() -> CertificateId {
    loop {
        if let Some(id) = CertificateId::from_random(random()) {
            return id;
        }
    }
}

/// A new batch id.
pub fn batch_id() -> BatchId {
    BatchId::from_bytes(random())
}

/// A new log id.
pub fn log_id() -> LogId {
    LogId::from_bytes(random())
}

/// A new ring id.
pub fn ring_id() -> RingId {
    RingId::from_bytes(random())
}
