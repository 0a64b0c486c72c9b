//! Sockets made in a pod's namespace ahead of the dials that take them: to enter and leave a namespace costs more than
//! a socket. It makes none itself.

use socket2::{Domain, Socket};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most sockets of a family that are made at once; one less may be left over.
const BATCH: usize = 16;
/// A batch that was used up within this time is followed by one of twice its size. A pod that dials more seldom has no
/// sockets in stock.
const BUSY: Duration = Duration::from_secs(1);

/// Sockets of one pod that nobody has used, of both families. Shared by all workers.
#[derive(Debug, Default)]
pub(super) struct Stock {
    v4: Mutex<Shelf>,
    v6: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    sockets: Vec<Socket>,
    /// How many were made last, and when.
    made: Option<(usize, Instant)>,
    closed: bool,
}

impl Stock {
    /// One of the stock, or the first of those that `make` makes now: as many as it is asked for, or fewer, but one.
    pub(super) fn take<F>(&self, domain: Domain, make: F) -> io::Result<Socket>
    where
        F: FnOnce(usize) -> io::Result<(Socket, Vec<Socket>)>,
    {
        let mut shelf = self.shelf(domain);
        if let Some(socket) = shelf.sockets.pop() {
            return Ok(socket);
        }
        let now = Instant::now();
        let batch = match shelf.made {
            Some((before, at)) if now.duration_since(at) < BUSY && !shelf.closed => (before * 2).min(BATCH),
            Some(_) | None => 1,
        };
        let (first, others) = make(batch)?;
        shelf.made = Some((batch, now));
        shelf.sockets = others;
        Ok(first)
    }

    /// Closes what is there; nothing is kept from here on.
    pub(super) fn close(&self) {
        for shelf in [&self.v4, &self.v6] {
            let mut shelf = lock(shelf);
            shelf.closed = true;
            shelf.sockets = Vec::new();
        }
    }

    fn shelf(&self, domain: Domain) -> MutexGuard<'_, Shelf> {
        lock(if domain == Domain::IPV6 { &self.v6 } else { &self.v4 })
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
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
        let (stock, batches) = (Stock::default(), Cell::new(Vec::new()));
        for _ in 0..100 {
            let counted = |n| {
                batches.set([batches.take(), vec![n]].concat());
                make(n)
            };
            stock.take(Domain::IPV4, counted).unwrap();
        }

        assert_eq!(batches.take(), [1, 2, 4, 8, 16, 16, 16, 16, 16, 16]);
    }

    #[test]
    fn a_closed_stock_keeps_nothing() {
        let stock = Stock::default();
        for _ in 0..3 {
            stock.take(Domain::IPV4, make).unwrap();
        }
        assert!(stock.shelf(Domain::IPV4).sockets.is_empty(), "of one and of two nothing is left");
        stock.take(Domain::IPV4, make).unwrap();
        assert_eq!(stock.shelf(Domain::IPV4).sockets.len(), 3);

        stock.close();

        assert!(stock.shelf(Domain::IPV4).sockets.is_empty());
        stock.take(Domain::IPV4, make).unwrap();
        assert!(stock.shelf(Domain::IPV4).sockets.is_empty());
    }

    #[test]
    fn a_failure_is_told_and_the_next_may_succeed() {
        let stock = Stock::default();

        assert!(stock.take(Domain::IPV6, |_| Err(io::ErrorKind::PermissionDenied.into())).is_err());
        assert!(stock.take(Domain::IPV6, make).is_ok());
    }
}
