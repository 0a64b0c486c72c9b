//! Output of the story: numbered steps, the commands of a user, and proofs with their evidence.

use std::{
    io::{IsTerminal as _, stdout},
    time::Instant,
};

/// The story as far as it was told.
#[derive(Debug)]
pub(super) struct Report {
    begun: Instant,
    steps: u32,
    proofs: u32,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), steps: 0, proofs: 0 }
    }

    /// Begins the next step.
    pub(super) fn step(&mut self, title: &str) {
        self.steps += 1;
        println!("\n{}. {title}", self.steps);
    }

    /// A command that a user would type.
    pub(super) fn command(&self, command: &str) {
        println!("   $ {command}");
    }

    /// One proof that holds. One that does not hold ends the story with a panic before it comes here.
    pub(super) fn proved(&mut self, what: &str, evidence: &[String]) {
        self.proofs += 1;
        let mark = if stdout().is_terminal() { "\x1b[32mok\x1b[0m" } else { "ok" };
        println!("   {mark}     {what}");
        for line in evidence {
            println!("            {line}");
        }
    }

    pub(super) fn finish(&self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        println!("\n{} steps, {} proofs: all hold ({seconds:.0} s)", self.steps, self.proofs);
    }
}
