//! Result of one run of a test program, read from what libtest prints.

use std::fmt;

/// Name under which a run counts that printed no summary: the program crashed or was killed.
const UNFINISHED: &str = "(the suite did not finish)";

/// Name under which a run counts that executed no test although it should: it proves nothing.
const NOTHING_RAN: &str = "(no test ran)";

/// Result of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    passed: u32,
    failures: Vec<String>,
}

impl Outcome {
    /// Reads the summary line `test result: ...` and the names behind the last line `failures:`. A run without a test
    /// fails unless `may_be_empty`.
    pub(super) fn parse(output: &str, may_be_empty: bool) -> Self {
        // A crash prints none, and neither does a suite that is killed for want of memory.
        let Some(summary) = output.lines().find(|line| line.starts_with("test result: ")) else {
            return Self { passed: 0, failures: vec![UNFINISHED.to_owned()] };
        };
        // libtest prints `failures:` twice: with the output of each test, then with the names alone.
        let listed = output.lines().skip(last_list(output)).take_while(|line| line.starts_with("    "));
        let mut failures: Vec<String> = listed.map(|line| line.trim().to_owned()).collect();
        if failures.is_empty() && count(summary, "failed") != Some(0) {
            failures.push(UNFINISHED.to_owned());
        }
        let passed = count(summary, "passed").unwrap_or(0);
        if passed == 0 && failures.is_empty() && !may_be_empty {
            failures.push(NOTHING_RAN.to_owned());
        }
        Self { passed, failures }
    }

    /// Number of tests that passed.
    pub(super) fn passed(&self) -> u32 {
        self.passed
    }

    /// Names of the tests that failed.
    pub(super) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// True when every test that ran has passed, and at least one ran unless the run may be empty.
    pub(super) fn is_success(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failures.len())?;
        self.failures.iter().try_for_each(|test| write!(f, "\n  {test}"))
    }
}

/// Index of the line behind the last `failures:`; past the end when there is none.
fn last_list(output: &str) -> usize {
    let last = output.lines().enumerate().filter(|(_, line)| *line == "failures:").last();
    last.map_or(usize::MAX, |(index, _)| index + 1)
}

/// The number in front of a word of `test result: ok. 12 passed; 0 failed; ...`.
fn count(summary: &str, word: &str) -> Option<u32> {
    let before = summary.split(word).next()?.trim_end();
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "running 3 tests
test a::good ... ok
test a::bad ... FAILED

failures:

---- a::bad stdout ----
thread 'a::bad' panicked: it says
failures:
    not::a::test

failures:
    a::bad

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s
";

    #[test]
    fn the_last_list_names_the_tests_that_failed() {
        let outcome = Outcome::parse(FAILED, false);

        assert_eq!(outcome, Outcome { passed: 2, failures: vec!["a::bad".to_owned()] });
        assert!(!outcome.is_success());
    }

    #[test]
    fn a_run_without_failures_succeeds() {
        let outcome =
            Outcome::parse("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out\n", false);

        assert_eq!(outcome, Outcome { passed: 12, failures: Vec::new() });
        assert!(outcome.is_success());
    }

    #[test]
    fn a_run_that_was_cut_fails() {
        assert_eq!(Outcome::parse("running 3 tests\ntest a ... ok\n", true).failures(), [UNFINISHED]);
    }

    #[test]
    fn a_run_without_a_test_fails_unless_a_filter_excludes_all() {
        let empty = "test result: ok. 0 passed; 0 failed; 0 ignored\n";

        assert_eq!(Outcome::parse(empty, false).failures(), [NOTHING_RAN]);
        assert!(Outcome::parse(empty, true).is_success());
    }
}
