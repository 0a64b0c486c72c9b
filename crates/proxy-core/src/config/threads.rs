//! Number of threads that carry traffic.

use super::{proxy_config::ProxyConfig, source::Reader, values};

/// Share of the processors when nothing else is said.
const DEFAULT_SHARE_PERCENT: usize = 25;
/// Fewest threads when nothing else is said.
const DEFAULT_MIN: usize = 2;

enum Wanted {
    Threads(usize),
    Percent(f64),
}

/// Names of the variables that decide the number of threads: each program has its own.
#[derive(Debug, Clone, Copy)]
pub struct ThreadKeys {
    /// `N`, 0 for all processors, or `P%` of them.
    pub threads: &'static str,
    /// Number of processors that the program may use.
    pub cpu_limit: &'static str,
    /// Limit that Kubernetes sets for the pod, a quantity such as 500m.
    pub resource_cpu_limit: &'static str,
    /// Request that Kubernetes holds for the pod, a quantity.
    pub resource_cpu_request: &'static str,
}

/// Returns the number of threads: from `keys.threads`, then `concurrency` of ProxyConfig, then a default from what
/// Kubernetes gives the pod.
pub(super) fn parse(reader: &mut Reader<'_>, proxy: &ProxyConfig, keys: &ThreadKeys) -> usize {
    const QUANTITY: &str = "a quantity of processors, such as 500m or 2";
    let cores = reader.optional(keys.cpu_limit, "a number of processors, such as 4", |value| {
        values::number(value).filter(|n: &usize| *n > 0)
    });
    let cores = cores.unwrap_or(reader.environment.processors).max(1);
    let limit = reader.optional(keys.resource_cpu_limit, QUANTITY, values::processors);
    let request = reader.optional(keys.resource_cpu_request, QUANTITY, values::processors).unwrap_or(0);
    let wanted = reader.optional(keys.threads, "a number (0 for all processors) or a share such as 25%", wanted);
    match (wanted, proxy.concurrency, limit) {
        (Some(Wanted::Threads(0)), _, _) | (None, Some(0), _) => cores,
        (Some(Wanted::Threads(threads)), _, _) => threads,
        (Some(Wanted::Percent(percent)), _, _) => share(cores, percent),
        (None, Some(threads), _) => usize::from(threads),
        // With a limit the kernel gives the pod no more processor time than that: further threads would wait for it.
        (None, None, Some(limit)) => limit.max(request).max(1),
        // Without one the node belongs to its applications first.
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
