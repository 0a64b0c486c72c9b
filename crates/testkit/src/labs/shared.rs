//! Hands out labs: one that the tests of a file share, or one made anew. Methods of a lab in a test are in `labs`.

use std::sync::OnceLock;

use lab::Options;
use tokio::runtime::Runtime;

use super::TestLab;
use crate::prerequisites;

/// A lab that the tests of one file share: started by the first of them.
#[derive(Debug)]
pub struct Shared {
    name: &'static str,
    manifests: fn() -> String,
    mesh: bool,
    cell: OnceLock<Result<TestLab, String>>,
}

/// The runtime of every test of the process; a shared lab's connections live on it.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
    })
}

impl Shared {
    /// A lab of these manifests, once somebody needs it.
    #[must_use]
    pub const fn new(name: &'static str, manifests: fn() -> String) -> Self {
        Self { name, manifests, mesh: true, cell: OnceLock::new() }
    }

    /// The same without the mesh's programs.
    #[must_use]
    pub const fn plain(name: &'static str, manifests: fn() -> String) -> Self {
        Self { name, manifests, mesh: false, cell: OnceLock::new() }
    }

    /// Runs a test in the lab, or skips it where no lab can run.
    ///
    /// # Panics
    /// When the lab does not start, or the test panics.
    pub fn run<T: Future<Output = ()>>(&'static self, test: impl FnOnce(&'static TestLab) -> T) {
        if !prerequisites::met(prerequisites::missing(self.mesh)) {
            return;
        }
        // The text of the error is kept for all tests of the file, of which each fails with it.
        let start = || {
            runtime().block_on(TestLab::up(self.name, &(self.manifests)(), self.mesh)).map_err(|err| format!("{err:#}"))
        };
        match self.cell.get_or_init(start) {
            Ok(lab) => runtime().block_on(test(lab)),
            Err(err) => panic!("the lab {} did not start: {err}", self.name),
        }
    }
}

/// Runs a test in a lab of its own that is down when this returns.
///
/// # Panics
/// When the lab does not start or leaves something behind, or the test panics.
pub fn run_alone(name: &str, manifests: &str, test: impl AsyncFnOnce(&TestLab)) {
    run_alone_with(name, manifests, |_| (), test);
}

/// Runs a test in a lab of its own whose options it changes first.
///
/// # Panics
/// As [`run_alone`].
pub fn run_alone_with(
    name: &str,
    manifests: &str,
    configure: impl FnOnce(&mut Options),
    test: impl AsyncFnOnce(&TestLab),
) {
    if !prerequisites::met(prerequisites::missing(true)) {
        return;
    }
    runtime().block_on(async {
        let lab = TestLab::up_with(name, manifests, true, configure).await;
        let lab = lab.unwrap_or_else(|err| panic!("the lab did not start: {err:#}"));
        test(&lab).await;
        // Not in a `Drop`: what a lab leaves behind has to fail the test.
        lab.lab.down().await.expect("the lab goes down");
    });
}

/// Runs a test that starts labs by other means, or skips it where no lab can run.
///
/// # Panics
/// When the test does.
pub fn run(test: impl AsyncFnOnce()) {
    if prerequisites::met(prerequisites::missing(true)) {
        runtime().block_on(test());
    }
}
