//! Lines about what long work waits for.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

/// Pause between two lines of progress where there is no terminal.
const PROGRESS: Duration = Duration::from_secs(5);

/// Shows what a command waits for, on standard error: one line that changes on a terminal, else a line every few seconds.
pub(crate) struct Progress {
    terminal: bool,
    said: Instant,
    shown: String,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), said: Instant::now(), shown: String::new() }
    }

    /// Shows what is missing, if it is time to.
    pub(crate) fn show(&mut self, waiting: &[String]) {
        let Some(first) = waiting.first() else { return };
        let more = match waiting.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        // Nobody may be reading: that changes nothing about what is waited for.
        if self.terminal {
            let line = format!("waiting for {}{more}", shorten(first, 100 - more.len()));
            if line != self.shown {
                let _ = write!(io::stderr(), "\r\x1b[K{line}");
                self.shown = line;
            }
        } else if self.said.elapsed() >= PROGRESS {
            let _ = writeln!(io::stderr(), "waiting for {first}{more}");
            self.said = Instant::now();
        }
    }

    /// Removes the line from a terminal, before something else is printed.
    pub(crate) fn clear(&mut self) {
        if !std::mem::take(&mut self.shown).is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// The text, cut so that it has no more characters than this.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    let text = text.lines().next().unwrap_or_default();
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(3)).collect();
    format!("{}...", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut() {
        assert_eq!(shorten("short", 10), "short");
        assert_eq!(shorten("one two three", 10), "one two...");
        assert_eq!(shorten("first\nsecond", 10), "first");
    }
}
