//! A thread that writes lines in batches, behind a bounded queue. No line is lost: when the queue is full, who logs waits.

use std::{
    io::{self, IoSlice, Write},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Lines that may wait.
const QUEUE: usize = 10_000;
/// Lines per system call.
const BATCH: usize = 64;

/// Time for which a first line waits for others. Whoever logs meanwhile need not wake the thread.
const GATHER: Duration = Duration::from_millis(2);

enum Item {
    Line(String),
    Flush(SyncSender<()>),
}

/// Destination of lines. Clones share the queue; the thread ends when the last of them is gone.
#[derive(Clone)]
pub struct Sink(Arc<SyncSender<Item>>);

impl Sink {
    /// Standard output.
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(io::stdout())
    }

    /// Anything else.
    #[must_use]
    pub fn new(output: impl Write + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(QUEUE);
        // Without the thread the queue is closed, and lines are dropped: there is nowhere to say so.
        let _ = thread::Builder::new().name("log".into()).spawn(move || run(&receiver, output));
        Self(Arc::new(sender))
    }

    pub(super) fn write(&self, line: String) {
        // Blocks while the queue is full. It fails only without the thread, see `new`.
        let _ = self.0.send(Item::Line(line));
    }

    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.0.send(Item::Flush(done)).is_ok() {
            // Fails when the thread has ended: nothing is left to wait for.
            let _ = wait.recv();
        }
    }
}

fn run(receiver: &Receiver<Item>, mut output: impl Write) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        // Under load the next lines are there already; else the thread waits, then gives others time to join the first.
        let first = match receiver.try_recv() {
            Ok(first) => first,
            Err(_) => {
                let Ok(first) = receiver.recv() else { return };
                if matches!(first, Item::Line(_)) {
                    thread::sleep(GATHER);
                }
                first
            }
        };
        let mut flushed = None;
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line(line) => batch.push(line),
                Item::Flush(done) => {
                    // The batch ends here: `flush` waits for lines that were logged before it, not after.
                    flushed = Some(done);
                    break;
                }
            }
            next = if batch.len() < BATCH { receiver.try_recv().ok() } else { None };
        }
        // An output that is gone (a closed pipe) must not stop the program.
        let _ = write_all(&mut output, &batch);
        batch.clear();
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

/// All lines, with as few calls as the output allows.
fn write_all(output: &mut impl Write, lines: &[String]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = lines.iter().map(|line| IoSlice::new(line.as_bytes())).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match output.write_vectored(rest) {
            // Else an output that takes nothing would be asked for ever.
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    output.flush()
}

#[cfg(test)]
pub(super) use tests::Memory;

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Memory {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes three bytes at a time, across the borders of slices.
    struct Slow(Memory);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(&bytes[..bytes.len().min(3)])
        }
        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let joined: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).take(3).collect();
            self.0.write(&joined)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_survive_partial_writes() {
        let memory = Memory::default();
        let sink = Sink::new(Slow(memory.clone()));

        for i in 0..200 {
            sink.write(format!("line {i}\n"));
        }
        sink.flush();

        let expected: String = (0..200).map(|i| format!("line {i}\n")).collect();
        assert_eq!(memory.text(), expected);
    }

    #[test]
    fn lines_of_many_threads_stay_whole_and_none_is_lost() {
        let memory = Memory::default();
        let sink = Sink::new(memory.clone());

        thread::scope(|scope| {
            for t in 0..8 {
                let sink = sink.clone();
                scope.spawn(move || (0..5_000).for_each(|i| sink.write(format!("{t}:{i}\n"))));
            }
        });
        sink.flush();

        let mut lines: Vec<String> = memory.text().lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 40_000);
    }
}
