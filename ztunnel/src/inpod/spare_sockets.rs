//! Sockets made in a pod's namespace ahead of the dials that take them: to enter and leave a namespace costs more than
//! a socket. It makes none itself.

use socket2::{Domain, Socket};
use std::io;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

/// Most sockets of a family that are made at once; all but the first may be left over.
const BATCH: usize = 16;
/// A batch that was used up within this time is followed by one of twice its size. A pod that dials more seldom has no
/// spare sockets.
const BUSY: Duration = Duration::from_secs(1);

/// Unused sockets of one pod, of both families. Shared by all workers.
#[derive(Debug, Default)]
pub(super) struct SpareSockets {
    v4: Mutex<Spares>,
    v6: Mutex<Spares>,
}

#[derive(Debug, Default)]
struct Spares {
    sockets: Vec<Socket>,
    last_batch: Option<LastBatch>,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
struct LastBatch {
    size: usize,
    at: Instant,
}

impl SpareSockets {
    /// Takes a spare socket, or the first of those that `make` makes now: as many as it is asked for, or fewer, but one.
    pub(super) fn take<F>(&self, domain: Domain, make: F) -> io::Result<Socket>
    where
        F: FnOnce(usize) -> io::Result<(Socket, Vec<Socket>)>,
    {
        let mut spares = self.of(domain);
        if let Some(socket) = spares.sockets.pop() {
            return Ok(socket);
        }
        let now = Instant::now();
        // 1, 2, 4, 8, 16 while each batch is used up within a second; else one by one, so that an idle pod holds none.
        let size = match spares.last_batch {
            Some(last) if now.duration_since(last.at) < BUSY && !spares.closed => (last.size * 2).min(BATCH),
            Some(_) | None => 1,
        };
        let (first, others) = make(size)?;
        spares.last_batch = Some(LastBatch { size, at: now });
        spares.sockets = others;
        Ok(first)
    }

    /// Closes the spare sockets; none are kept from here on.
    pub(super) fn close(&self) {
        for spares in [&self.v4, &self.v6] {
            let mut spares = lock(spares);
            spares.closed = true;
            spares.sockets = Vec::new();
        }
    }

    fn of(&self, domain: Domain) -> MutexGuard<'_, Spares> {
        lock(if domain == Domain::IPV6 { &self.v6 } else { &self.v4 })
    }
}

fn lock(spares: &Mutex<Spares>) -> MutexGuard<'_, Spares> {
    spares.lock()
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Type;
    use std::cell::Cell;

    fn make(n: usize) -> io::Result<(Socket, Vec<Socket>)> {
        let one = || Socket::new(Domain::IPV4, Type::STREAM, None);
        Ok((one()?, (1..n).map(|_| one()).collect::<io::Result<_>>()?))
    }

    #[test]
    fn batches_grow_while_they_are_used_up_and_not_beyond_their_bound() {
        let (spares, batches) = (SpareSockets::default(), Cell::new(Vec::new()));
        for _ in 0..100 {
            let counted = |n| {
                batches.set([batches.take(), vec![n]].concat());
                make(n)
            };
            spares.take(Domain::IPV4, counted).unwrap();
        }

        assert_eq!(batches.take(), [1, 2, 4, 8, 16, 16, 16, 16, 16, 16]);
    }

    #[test]
    fn once_closed_none_are_kept() {
        let spares = SpareSockets::default();
        for _ in 0..3 {
            spares.take(Domain::IPV4, make).unwrap();
        }
        assert!(spares.of(Domain::IPV4).sockets.is_empty(), "of one and of two nothing is left");
        spares.take(Domain::IPV4, make).unwrap();
        assert_eq!(spares.of(Domain::IPV4).sockets.len(), 3);

        spares.close();

        assert!(spares.of(Domain::IPV4).sockets.is_empty());
        spares.take(Domain::IPV4, make).unwrap();
        assert!(spares.of(Domain::IPV4).sockets.is_empty());
    }

    #[test]
    fn a_failure_is_returned_and_the_next_may_succeed() {
        let spares = SpareSockets::default();

        assert!(spares.take(Domain::IPV6, |_| Err(io::ErrorKind::PermissionDenied.into())).is_err());
        assert!(spares.take(Domain::IPV6, make).is_ok());
    }
}
