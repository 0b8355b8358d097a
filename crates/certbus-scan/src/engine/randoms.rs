//! The randoms of ClientHellos: fresh bytes of the system's, asked for many at a time. No secret is made from them. The TLS
//! library's own generator would do, but takes 40 ms of CPU before its first byte.

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

pub(super) struct Randoms {
    pool: Box<[u8]>,
    used: usize,
}

/// For so many connections by one call of the system.
const AT_ONCE: usize = 64;

impl Randoms {
    pub(super) fn new() -> Self {
        let pool = vec![0; 64 * AT_ONCE].into_boxed_slice();
        Self { used: pool.len(), pool }
    }

    pub(super) fn next(&mut self) -> io::Result<[u8; 64]> {
        if self.used >= self.pool.len() {
            self.fill()?;
        }
        let next = self.pool.get(self.used..).and_then(<[u8]>::first_chunk).copied();
        self.used += 64;
        next.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut rest = &mut *self.pool;
        while !rest.is_empty() {
            match getrandom(&mut *rest, GetRandomFlags::empty()) {
                Ok(count) => rest = rest.split_at_mut_checked(count).unwrap_or_default().1,
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.used = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_random_comes_twice_and_none_is_left_empty() {
        let mut randoms = Randoms::new();
        let all: std::collections::HashSet<_> = (0..1000).map(|_| randoms.next().unwrap()).collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|random| random.chunks(16).all(|part| part != [0; 16])));
    }
}
