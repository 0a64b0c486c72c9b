//! How many threads carry traffic.

use super::{proxy_config::ProxyConfig, source::Reader, values};

/// Share of the processors when nothing else is said.
const DEFAULT_SHARE_PERCENT: usize = 25;
/// Fewest threads when nothing else is said.
const DEFAULT_MIN: usize = 2;

enum Wanted {
    Threads(usize),
    Percent(f64),
}

/// `ZTUNNEL_WORKER_THREADS` (`N`, 0 for all processors, or `P%`), then `concurrency` of ProxyConfig, then a default from
/// what Kubernetes gives the pod: `ZTUNNEL_CPU_LIMIT` (processors), `ZTUNNEL_RESOURCE_CPU_LIMIT` and
/// `ZTUNNEL_RESOURCE_CPU_REQUEST` (quantities, such as 500m).
pub(super) fn parse(reader: &mut Reader<'_>, proxy: &ProxyConfig) -> usize {
    const QUANTITY: &str = "a quantity of processors, such as 500m or 2";
    let cores = reader.optional("ZTUNNEL_CPU_LIMIT", "a number of processors, such as 4", |value| {
        values::number(value).filter(|n: &usize| *n > 0)
    });
    let cores = cores.unwrap_or(reader.environment.processors).max(1);
    let limit = reader.optional("ZTUNNEL_RESOURCE_CPU_LIMIT", QUANTITY, values::processors);
    let request = reader.optional("ZTUNNEL_RESOURCE_CPU_REQUEST", QUANTITY, values::processors).unwrap_or(0);
    let wanted =
        reader.optional("ZTUNNEL_WORKER_THREADS", "a number (0 for all processors) or a share such as 25%", wanted);
    match (wanted, proxy.concurrency, limit) {
        (Some(Wanted::Threads(0)), _, _) | (None, Some(0), _) => cores,
        (Some(Wanted::Threads(threads)), _, _) => threads,
        (Some(Wanted::Percent(percent)), _, _) => share(cores, percent),
        (None, Some(threads), _) => usize::from(threads),
        (None, None, Some(limit)) => limit.max(request).max(1),
        (None, None, None) => cores.div_ceil(100 / DEFAULT_SHARE_PERCENT).max(request).max(DEFAULT_MIN),
    }
}

fn wanted(value: &str) -> Option<Wanted> {
    match value.strip_suffix('%') {
        Some(percent) => {
            let percent: f64 = percent.parse().ok()?;
            (percent > 0.0 && percent <= 100.0).then_some(Wanted::Percent(percent))
        }
        None => values::number(value).map(Wanted::Threads),
    }
}

/// Rounded up, at least one.
fn share(cores: usize, percent: f64) -> usize {
    // Far below the limits of both types.
    ((cores as f64 * percent / 100.0).ceil() as usize).max(1)
}
