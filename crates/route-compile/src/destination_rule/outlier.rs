//! Outlier detection.

use kube_types::istio::OutlierDetection as Settings;
use route::Origin;
use route::traffic::OutlierDetection;

use super::layers::Part;
use crate::finding::{Findings, Reason};
use crate::http_policy::time;

pub(super) fn compile(part: &Part<'_, Settings>, findings: &mut Findings) -> OutlierDetection {
    let default = OutlierDetection::default();
    let settings = part.value;
    let at = part.at.at(format!("{}.outlierDetection", part.at.field));
    if settings.consecutive_errors.is_some() {
        let message = "replaced by consecutive5xxErrors and consecutiveGatewayErrors: it has no effect";
        findings.add(Reason::Ignored, &at, "consecutiveErrors", message);
    }
    let split = settings.split_external_local_origin_errors;
    if settings.consecutive_local_origin_failures.is_some() && !split {
        let message = "needs splitExternalLocalOriginErrors: it has no effect";
        findings.add(Reason::Ignored, &at, "consecutiveLocalOriginFailures", message);
    }
    let mut error_codes = Vec::new();
    for code in &settings.outlier_detection_http_error_codes {
        match u16::try_from(*code).ok().filter(|code| (100..=599).contains(code)) {
            Some(code) => error_codes.push(code),
            None => {
                let message = format!("invalid status {code}, expected 100 to 599: it has no effect");
                findings.add(Reason::Invalid, &at, "outlierDetectionHttpErrorCodes", message);
            }
        }
    }
    let mut duration = |text: &Option<String>, field: &str, default, instead: &str| {
        let time = text.as_deref().and_then(|text| time(text, &at, field, instead, findings));
        time.filter(|time| !time.is_zero()).unwrap_or(default)
    };
    let interval = duration(&settings.interval, "interval", default.interval, "10s are used");
    let base = default.base_ejection_time;
    let base_ejection_time = duration(&settings.base_ejection_time, "baseEjectionTime", base, "30s are used");
    let (max, min) = (settings.max_ejection_percent, settings.min_health_percent);
    let on = |number: Option<u32>, default| number.map_or(default, |number| (number > 0).then_some(number));
    OutlierDetection {
        consecutive_5xx: on(settings.consecutive_5xx_errors, default.consecutive_5xx),
        consecutive_gateway_errors: on(settings.consecutive_gateway_errors, default.consecutive_gateway_errors),
        split_local_origin: split,
        consecutive_local_origin_failures: on(
            settings.consecutive_local_origin_failures,
            default.consecutive_local_origin_failures,
        ),
        error_codes,
        interval,
        base_ejection_time,
        max_ejection_percent: percent(max, default.max_ejection_percent, &at, "maxEjectionPercent", findings),
        min_health_percent: percent(min, default.min_health_percent, &at, "minHealthPercent", findings),
    }
}

fn percent(value: Option<i32>, default: u8, at: &Origin, field: &str, findings: &mut Findings) -> u8 {
    let Some(value) = value else { return default };
    u8::try_from(value).ok().filter(|percent| *percent <= 100).unwrap_or_else(|| {
        let message = format!("invalid percentage {value}, expected 0 to 100: {default} is used");
        findings.add(Reason::Invalid, at, field, message);
        default
    })
}
