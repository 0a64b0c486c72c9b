//! Clusters for tests, and applications in them.

mod agent;
mod app;
mod cluster;
mod load;
mod machine;
pub(crate) mod mesh;
mod shared;
mod wire;

use std::time::Duration;

pub(crate) use self::{
    agent::{FakeAgent, RUN_DIR, enrolled, failed},
    app::{Workload, server_service},
    cluster::{Cluster, Options, script, unique},
    load::{Held, Load, Requests},
    machine::Leftovers,
    shared::{Shared, missing},
    wire::Wire,
};

/// A change of an object until it has its effect. Rollouts take some 3 s; machines that test are busy.
pub(crate) const TAKES_EFFECT: Duration = Duration::from_secs(60);

/// The cluster of all tests that disturb no others, or run alone.
pub(crate) static CLUSTER: Shared = Shared::new("all", || Options { audit: true, ..Options::default() });

/// Looks until `look` succeeds.
///
/// # Panics
/// After [`TAKES_EFFECT`], with `what` and the last reason.
pub(crate) fn eventually<T>(what: &str, look: impl Fn() -> anyhow::Result<T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(testkit::eventually(what, TAKES_EFFECT, async || look().map_err(|err| format!("{err:#}"))))
}

/// Fails with `found` unless it is `expected`.
pub(crate) fn expect_equal<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> anyhow::Result<()> {
    anyhow::ensure!(found == expected, "found {found:?}, expected {expected:?}");
    Ok(())
}
