//! Output of the demo: numbered steps, marks and evidence; and the count of what failed.

use std::{
    io::{IsTerminal as _, stdout},
    time::Instant,
};

/// Evidence for a person to see beside a proof, line by line.
pub(crate) type Evidence = Vec<String>;

/// Steps of the whole story.
pub(crate) const STEPS: u32 = 9;

/// The story as far as it was told.
#[derive(Debug)]
pub(crate) struct Report {
    begun: Instant,
    colour: bool,
    steps: u32,
    proofs: u32,
    failed: u32,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), colour: stdout().is_terminal(), steps: 0, proofs: 0, failed: 0 }
    }

    /// Begins the next step.
    pub(crate) fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}. {title}", self.steps);
    }

    /// Next action, in a sentence, or the command that a user would type.
    pub(crate) fn say(&self, text: &str) {
        println!("   {text}");
    }

    /// Marks one proof, with its evidence or with the reason why it failed.
    pub(crate) fn prove(&mut self, what: &str, result: anyhow::Result<Evidence>) {
        self.proofs += 1;
        let (mark, lines) = match result {
            Ok(evidence) => (self.paint("32", "ok    "), evidence),
            Err(err) => {
                self.failed += 1;
                (self.paint("31", "FAILED"), format!("{err:#}").lines().map(ToOwned::to_owned).collect())
            }
        };
        println!("   {mark} {what}");
        for line in lines {
            println!("            {line}");
        }
    }

    /// Says where the story ended before its end.
    pub(crate) fn stopped(&self) {
        let failed = if self.failed > 0 { format!(", {} FAILED", self.failed) } else { String::new() };
        match self.steps {
            0 => println!("\nstopped before step 1 of {STEPS}"),
            step => println!("\nstopped in step {step} of {STEPS}, after {} proofs{failed}", self.proofs),
        }
    }

    /// Says how it went; whether every proof held of every step up to `last`.
    pub(crate) fn finish(&self, last: u32) -> bool {
        let seconds = self.begun.elapsed().as_secs_f64();
        let verdict = match self.failed {
            0 => self.paint("32", "all hold"),
            n => self.paint("31", &format!("{n} FAILED")),
        };
        println!("\n{} steps, {} proofs: {verdict} ({seconds:.1} s)", self.steps, self.proofs);
        self.failed == 0 && self.steps == last
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
