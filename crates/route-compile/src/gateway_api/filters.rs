//! Filters of rules and backends. A filter that is not supported must not be skipped: its requests are answered with 500.

use kube_types::gateway::{
    GrpcRouteFilter, HeaderModifier, HttpCors, HttpRouteFilter, PathModifier, RequestMirror, RequestRedirect,
    UrlRewrite,
};
use route::{
    Cors, HeaderChanges, Mirror, Origin, OriginMatch, PathRewrite, Percent, Redirect, RedirectPath, RedirectPort,
    Regex, TextMatch,
};

use super::backends::Reference;
use crate::finding::{Findings, Reason};
use crate::headers::{line, removals};
use crate::http_policy::list;
use crate::world::{Place, World};

/// Seconds for which a preflight's answer holds where a route names no time.
const MAX_AGE: u64 = 5;

/// Filters of one rule or backend.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    pub(crate) request: HeaderChanges,
    pub(crate) response: HeaderChanges,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) path: Option<PathRewrite>,
    pub(crate) authority: Option<String>,
    pub(crate) cors: Option<Cors>,
    /// True if a filter cannot be applied.
    pub(crate) is_refused: bool,
}

/// Compiles the filters of an HTTPRoute's rule or backend; `at` is the field that has them.
pub(crate) fn http(
    world: &World,
    place: Place<'_>,
    of: &[HttpRouteFilter],
    at: &Origin,
    findings: &mut Findings,
) -> Filters {
    let mut filters = Filters::default();
    for (index, filter) in of.iter().enumerate() {
        let at = &at.at(format!("{}.filters[{index}]", at.field));
        let is_applied = match filter.r#type.as_str() {
            "RequestHeaderModifier" => filters.modify_request(filter.request_header_modifier.as_ref(), at, findings),
            "ResponseHeaderModifier" => filters.modify_response(filter.response_header_modifier.as_ref(), at, findings),
            "RequestMirror" => filters.mirror(world, filter.request_mirror.as_ref(), at, findings),
            "RequestRedirect" => filters.redirect(place, filter.request_redirect.as_ref()),
            "URLRewrite" => filters.rewrite(filter.url_rewrite.as_ref()),
            "CORS" => filters.cors(filter.cors.as_ref(), at, findings),
            _ => None,
        };
        filters.check(is_applied, &filter.r#type, at, findings);
    }
    if filters.redirect.is_some() && (filters.path.is_some() || filters.authority.is_some()) {
        let message = "RequestRedirect and URLRewrite exclude each other: requests that match are answered with 500";
        findings.add(Reason::Invalid, at, "filters", message);
        filters.is_refused = true;
    }
    filters
}

/// Compiles the filters of a GRPCRoute's rule or backend.
pub(crate) fn grpc(world: &World, of: &[GrpcRouteFilter], at: &Origin, findings: &mut Findings) -> Filters {
    let mut filters = Filters::default();
    for (index, filter) in of.iter().enumerate() {
        let at = &at.at(format!("{}.filters[{index}]", at.field));
        let is_applied = match filter.r#type.as_str() {
            "RequestHeaderModifier" => filters.modify_request(filter.request_header_modifier.as_ref(), at, findings),
            "ResponseHeaderModifier" => filters.modify_response(filter.response_header_modifier.as_ref(), at, findings),
            "RequestMirror" => filters.mirror(world, filter.request_mirror.as_ref(), at, findings),
            _ => None,
        };
        filters.check(is_applied, &filter.r#type, at, findings);
    }
    filters
}

impl Filters {
    /// Refuses a filter that could not be applied.
    fn check(&mut self, is_applied: Option<()>, kind: &str, at: &Origin, findings: &mut Findings) {
        if is_applied.is_none() {
            let message = format!(
                "filter {kind} is not supported, or lacks its settings: requests that match are answered with 500"
            );
            findings.add(Reason::Unsupported, at, "", message);
            self.is_refused = true;
        }
    }

    fn modify_request(&mut self, of: Option<&HeaderModifier>, at: &Origin, findings: &mut Findings) -> Option<()> {
        modify(&mut self.request, of?, &at.at(format!("{}.requestHeaderModifier", at.field)), findings);
        Some(())
    }

    fn modify_response(&mut self, of: Option<&HeaderModifier>, at: &Origin, findings: &mut Findings) -> Option<()> {
        modify(&mut self.response, of?, &at.at(format!("{}.responseHeaderModifier", at.field)), findings);
        Some(())
    }

    /// A mirror that cannot be used is left out: the request does not depend on it.
    fn mirror(
        &mut self,
        world: &World,
        of: Option<&RequestMirror>,
        at: &Origin,
        findings: &mut Findings,
    ) -> Option<()> {
        let of = of?;
        let share = match (of.percent, &of.fraction) {
            (None, None) => Some(Percent::ALL),
            (Some(percent), None) => Percent::of(percent, 100),
            (None, Some(fraction)) => Percent::of(fraction.numerator, fraction.denominator.unwrap_or(100)),
            (Some(_), Some(_)) => None,
        };
        let at = at.at(format!("{}.requestMirror", at.field));
        let Some(share) = share else {
            let message = "expected either a percent from 0 to 100 or a fraction of at most 1: nothing is mirrored";
            findings.add(Reason::Invalid, &at, "", message);
            return Some(());
        };
        let backend = at.at(format!("{}.backendRef", at.field));
        let destination =
            Reference::from(&of.backend_ref).destination(world, &backend, "nothing is mirrored", findings);
        self.mirrors
            .extend(destination.filter(|_| share > Percent::NONE).map(|destination| Mirror { destination, share }));
        Some(())
    }

    fn redirect(&mut self, place: Place<'_>, of: Option<&RequestRedirect>) -> Option<()> {
        let of = of?;
        let status = of.status_code.unwrap_or(302);
        let port = match (of.port, of.scheme.as_deref()) {
            (Some(port), _) => RedirectPort::UnlessDefault(port),
            (None, Some("http")) => RedirectPort::UnlessDefault(80),
            (None, Some("https")) => RedirectPort::UnlessDefault(443),
            (None, _) => RedirectPort::UnlessDefault(place.port),
        };
        let path = match &of.path {
            None => None,
            Some(path) => Some(match path_rewrite(path)? {
                PathRewrite::Full(path) => RedirectPath::Full(path),
                rewrite => RedirectPath::Rewrite(rewrite),
            }),
        };
        // The authority without a port of its own: the port above is the whole truth.
        let redirect = Redirect { status, scheme: of.scheme.clone(), authority: of.hostname.clone(), port, path };
        (matches!(status, 301 | 302 | 303 | 307 | 308)).then(|| self.redirect = Some(redirect))
    }

    fn rewrite(&mut self, of: Option<&UrlRewrite>) -> Option<()> {
        let of = of?;
        self.authority.clone_from(&of.hostname);
        if let Some(path) = &of.path {
            self.path = Some(path_rewrite(path)?);
        }
        Some(())
    }

    fn cors(&mut self, of: Option<&HttpCors>, at: &Origin, findings: &mut Findings) -> Option<()> {
        let of = of?;
        let at = at.at(format!("{}.cors", at.field));
        let mut origins = Vec::new();
        for (index, text) in of.allow_origins.iter().enumerate() {
            match origin(text) {
                Ok(origin) => origins.push(origin),
                Err(error) => {
                    let field = format!("allowOrigins[{index}]");
                    findings.add(Reason::Invalid, &at, &field, format!("{error}: no origin is allowed by it"));
                }
            }
        }
        self.cors = Some(Cors {
            origins,
            allow_methods: list(&of.allow_methods, &at, "allowMethods", findings),
            allow_headers: list(&of.allow_headers, &at, "allowHeaders", findings),
            expose_headers: list(&of.expose_headers, &at, "exposeHeaders", findings),
            max_age: Some(of.max_age.map_or(MAX_AGE, u64::from)),
            allow_credentials: of.allow_credentials.unwrap_or_default(),
            ignore_unmatched_preflights: false,
        });
        Some(())
    }
}

fn modify(changes: &mut HeaderChanges, of: &HeaderModifier, at: &Origin, findings: &mut Findings) {
    changes.remove.extend(removals(&of.remove, at, findings));
    for (lines, compiled, field) in [(&of.set, &mut changes.set, "set"), (&of.add, &mut changes.add, "add")] {
        for (index, of) in lines.iter().enumerate() {
            compiled.extend(line(&of.name, &of.value, at, &format!("{field}[{index}]"), findings));
        }
    }
}

fn path_rewrite(of: &PathModifier) -> Option<PathRewrite> {
    match of.r#type.as_str() {
        "ReplaceFullPath" => of.replace_full_path.clone().map(PathRewrite::Full),
        "ReplacePrefixMatch" => of.replace_prefix_match.clone().map(PathRewrite::Elements),
        _ => None,
    }
}

/// An origin; `*` in it stands for any letters of a host name.
fn origin(text: &str) -> Result<OriginMatch, route::PatternError> {
    if text == "*" {
        return Ok(OriginMatch::Any);
    }
    if !text.contains('*') {
        return Ok(OriginMatch::Text(TextMatch::exact(text)));
    }
    let literal = |part: &str| format!(r"\Q{part}\E");
    let pattern = text.split('*').map(literal).collect::<Vec<_>>().join("[^/:]*");
    Regex::new(&pattern).map(|regex| OriginMatch::Text(TextMatch::Regex(regex)))
}
