//! Load balancing.

use kube_types::istio::{LoadBalancerSettings, SimpleLoadBalancer, Warmup};
use route::Origin;
use route::traffic::{Algorithm, LoadBalancer, LocalityBalancing, Millionths, WarmUp};

use super::layers::Part;
use super::{hash, locality};
use crate::finding::{Findings, Reason};
use crate::http_policy::time;

pub(super) fn compile(
    part: Option<&Part<'_, LoadBalancerSettings>>,
    has_outliers: bool,
    findings: &mut Findings,
) -> LoadBalancer {
    let Some(part) = part else { return LoadBalancer::default() };
    let settings = part.value;
    let at = part.at.at(format!("{}.loadBalancer", part.at.field));
    let algorithm = algorithm(settings, &at, findings);
    if settings.zone_aware_lb_setting.is_some() {
        let message = "waypoints balance by locality only: the setting has no effect";
        findings.add(Reason::Unsupported, &at, "zoneAwareLbSetting", message);
    }
    let locality = match &settings.locality_lb_setting {
        Some(setting) => locality::compile(setting, has_outliers, &at, findings),
        None => LocalityBalancing::Service,
    };
    let warm_up = warm_up(settings, &at, findings);
    let grows = matches!(algorithm, Algorithm::LeastRequest | Algorithm::RoundRobin | Algorithm::Passthrough);
    if warm_up.is_some() && !grows {
        let message = "only ROUND_ROBIN and LEAST_REQUEST have a warm-up: the setting has no effect";
        findings.add(Reason::Ignored, &at, "warmup", message);
    }
    LoadBalancer { algorithm, locality, warm_up: warm_up.filter(|_| grows) }
}

fn algorithm(settings: &LoadBalancerSettings, at: &Origin, findings: &mut Findings) -> Algorithm {
    if let Some(consistent) = &settings.consistent_hash {
        if settings.simple.is_some() {
            findings.add(Reason::Invalid, at, "simple", "consistentHash is there too, and is used");
        }
        return hash::compile(consistent, at, findings);
    }
    match settings.simple.unwrap_or_default() {
        SimpleLoadBalancer::Unspecified | SimpleLoadBalancer::LeastConn | SimpleLoadBalancer::LeastRequest => {
            Algorithm::LeastRequest
        }
        SimpleLoadBalancer::Random => Algorithm::Random,
        SimpleLoadBalancer::RoundRobin => Algorithm::RoundRobin,
        SimpleLoadBalancer::Passthrough => {
            let message = "clients of a waypoint connect to the address of the service: LEAST_REQUEST is used";
            findings.add(Reason::Ignored, at, "simple", message);
            Algorithm::Passthrough
        }
    }
}

fn warm_up(settings: &LoadBalancerSettings, at: &Origin, findings: &mut Findings) -> Option<WarmUp> {
    const NONE: &str = "there is no warm-up";
    if let Some(warmup) = &settings.warmup {
        if settings.warmup_duration_secs.is_some() {
            findings.add(Reason::Ignored, at, "warmupDurationSecs", "warmup is there too, and is used");
        }
        let Some(text) = &warmup.duration else {
            findings.add(Reason::Invalid, at, "warmup.duration", format!("there is no duration: {NONE}"));
            return None;
        };
        let duration = time(text, at, "warmup.duration", NONE, findings).filter(|duration| !duration.is_zero())?;
        return Some(curve(WarmUp::new(duration), warmup, at, findings));
    }
    let text = settings.warmup_duration_secs.as_deref()?;
    let duration = time(text, at, "warmupDurationSecs", NONE, findings)?;
    (!duration.is_zero()).then(|| WarmUp::new(duration))
}

fn curve(default: WarmUp, warmup: &Warmup, at: &Origin, findings: &mut Findings) -> WarmUp {
    let minimum = warmup.minimum_percent.map_or(Some(default.minimum), |percent| {
        (0.0..=100.0).contains(&percent.0).then(|| Millionths::new(percent.0 / 100.0)).flatten()
    });
    if minimum.is_none() {
        findings.add(Reason::Invalid, at, "warmup.minimumPercent", "expected 0 to 100: 10 is used");
    }
    let aggression = warmup.aggression.map_or(Some(default.aggression), |aggression| {
        Millionths::new(aggression.0).filter(|aggression| *aggression >= Millionths::ONE)
    });
    if aggression.is_none() {
        findings.add(Reason::Invalid, at, "warmup.aggression", "expected 1 to 4294: 1 is used");
    }
    WarmUp {
        minimum: minimum.unwrap_or(default.minimum),
        aggression: aggression.unwrap_or(default.aggression),
        ..default
    }
}
