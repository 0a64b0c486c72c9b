//! External authorizers of the mesh configuration to the providers that CUSTOM policies name.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use kube_types::istio::{ExtAuthzBody, ExtAuthzGrpc, ExtAuthzHttp, MeshExtensionProvider};
use model::StringMatch;
use policy::http::{BodyCheck, HttpProtocol, Protocol, Provider};
use route::Origin;

use super::value;
use crate::duration;
use crate::finding::{Finding, Findings, Reason};

/// Longest wait for an answer where the provider names none, as in Istio.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// Status of the answer when the provider cannot be asked, where it names none.
const DEFAULT_STATUS_ON_ERROR: u16 = 403;

/// Compiles the external authorizers among the providers of a mesh configuration, whose place is `at`. One that cannot be
/// asked is reported and left out: requests for which a CUSTOM policy names it are denied.
#[must_use]
pub fn external_authorizers(providers: &[MeshExtensionProvider], at: &Origin) -> (Vec<Provider>, Vec<Finding>) {
    let mut findings = Findings::default();
    let mut compiled: Vec<Provider> = Vec::new();
    for (index, provider) in providers.iter().enumerate() {
        let name = &provider.name;
        let entry = format!("extensionProviders[{index}]");
        let mut compiler = Compiler { at: at.at(&entry), name, findings: &mut findings };
        let is_taken = compiled.iter().any(|earlier| earlier.name == name.as_str());
        let found = match (&provider.envoy_ext_authz_http, &provider.envoy_ext_authz_grpc) {
            // A provider of telemetry.
            (None, None) => continue,
            _ if name.is_empty() => Err(("name", "expected a name".to_owned())),
            _ if is_taken => Err(("name", format!("an earlier provider has the name {name:?}"))),
            (Some(_), Some(_)) => {
                Err(("", "only one of envoyExtAuthzHttp and envoyExtAuthzGrpc may be set".to_owned()))
            }
            (Some(of), None) => compiler.within("envoyExtAuthzHttp").http(of),
            (None, Some(of)) => compiler.within("envoyExtAuthzGrpc").grpc(of),
        };
        match found {
            Ok(found) => compiled.push(found),
            Err((field, message)) => {
                let message = format!("{message}; requests that need this provider are denied");
                compiler.add(Reason::Invalid, field, message);
            }
        }
    }
    (compiled, findings.into_sorted())
}

/// Field, and why the provider cannot be asked.
type Unusable = (&'static str, String);

struct Compiler<'a> {
    at: Origin,
    name: &'a str,
    findings: &'a mut Findings,
}

/// Fields that both kinds of providers have.
struct Common<'a> {
    service: &'a str,
    port: u32,
    timeout: Option<&'a str>,
    fail_open: bool,
    clear_route_cache: bool,
    status_on_error: &'a str,
    body: Option<ExtAuthzBody>,
}

impl Compiler<'_> {
    fn within(&mut self, field: &str) -> &mut Self {
        self.at = self.at.at(format!("{}.{field}", self.at.field));
        self
    }

    fn add(&mut self, reason: Reason, field: &str, message: impl Into<String>) {
        self.findings.add(reason, &self.at, field, message);
    }

    fn grpc(&mut self, of: &ExtAuthzGrpc) -> Result<Provider, Unusable> {
        let common = Common {
            service: &of.service,
            port: of.port,
            timeout: of.timeout.as_deref(),
            fail_open: of.fail_open,
            clear_route_cache: of.clear_route_cache,
            status_on_error: &of.status_on_error,
            body: of.include_request_body_in_check,
        };
        self.provider(&common, Protocol::Grpc)
    }

    fn http(&mut self, of: &ExtAuthzHttp) -> Result<Provider, Unusable> {
        let common = Common {
            service: &of.service,
            port: of.port,
            timeout: of.timeout.as_deref(),
            fail_open: of.fail_open,
            clear_route_cache: of.clear_route_cache,
            status_on_error: &of.status_on_error,
            body: of.include_request_body_in_check,
        };
        if !of.path_prefix.is_empty() && !of.path_prefix.starts_with('/') {
            return Err(("pathPrefix", format!("invalid pathPrefix {:?}: expected a slash first", of.path_prefix)));
        }
        let mut request_headers = self.names("includeRequestHeadersInCheck", &of.include_request_headers_in_check);
        request_headers.extend(self.names("includeHeadersInCheck", &of.include_headers_in_check));
        let protocol = HttpProtocol {
            path_prefix: of.path_prefix.clone(),
            request_headers,
            added_headers: self.added_headers(of),
            upstream_on_allow: self.names("headersToUpstreamOnAllow", &of.headers_to_upstream_on_allow),
            downstream_on_allow: self.names("headersToDownstreamOnAllow", &of.headers_to_downstream_on_allow),
            downstream_on_deny: self.names("headersToDownstreamOnDeny", &of.headers_to_downstream_on_deny),
        };
        self.provider(&common, Protocol::Http(protocol))
    }

    fn provider(&mut self, of: &Common<'_>, protocol: Protocol) -> Result<Provider, Unusable> {
        // The namespace says which of several services of a host is meant; here a host is one service.
        let host = of.service.split_once('/').map_or(of.service, |(_, host)| host);
        if host.is_empty() || host.contains(['*', '/', ':']) {
            return Err(("service", format!("invalid service {:?}: expected HOST or NAMESPACE/HOST", of.service)));
        }
        let port = u16::try_from(of.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| ("port", format!("invalid port {}: expected 1 to 65535", of.port)))?;
        if of.clear_route_cache {
            let message = "a route is chosen once, before the provider is asked: the setting has no effect";
            self.add(Reason::Unsupported, "clearRouteCache", message);
        }
        Ok(Provider {
            name: self.name.into(),
            host: host.into(),
            port,
            timeout: self.timeout(of.timeout),
            fail_open: of.fail_open,
            status_on_error: self.status_on_error(of.status_on_error),
            body: self.body(of.body),
            protocol,
        })
    }

    fn timeout(&mut self, text: Option<&str>) -> Duration {
        let Some(text) = text else { return DEFAULT_TIMEOUT };
        duration::parse(text).filter(|timeout| !timeout.is_zero()).unwrap_or_else(|| {
            let message = format!("invalid duration {text:?}: expected one as 5s; {DEFAULT_TIMEOUT:?} is used");
            self.add(Reason::Invalid, "timeout", message);
            DEFAULT_TIMEOUT
        })
    }

    fn status_on_error(&mut self, text: &str) -> u16 {
        if text.is_empty() {
            return DEFAULT_STATUS_ON_ERROR;
        }
        // A status below 400 would tell a client that its request was done.
        text.parse().ok().filter(|status| (400..=599).contains(status)).unwrap_or_else(|| {
            let message = format!("invalid status {text:?}: expected 400 to 599; {DEFAULT_STATUS_ON_ERROR} is used");
            self.add(Reason::Invalid, "statusOnError", message);
            DEFAULT_STATUS_ON_ERROR
        })
    }

    fn body(&mut self, of: Option<ExtAuthzBody>) -> Option<BodyCheck> {
        let ExtAuthzBody { max_request_bytes: max_bytes, allow_partial_message: allow_partial, pack_as_bytes } = of?;
        if max_bytes == 0 {
            let message = "expected maxRequestBytes above 0: the provider does not get the body";
            self.add(Reason::Invalid, "includeRequestBodyInCheck.maxRequestBytes", message);
            return None;
        }
        Some(BodyCheck { max_bytes, allow_partial, pack_as_bytes })
    }

    fn names(&mut self, field: &str, names: &[String]) -> Vec<StringMatch> {
        let mut read = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match value::text(name) {
                Ok(name) => read.push(name),
                Err(expected) => {
                    let message = format!("invalid header name {name:?}: {expected}; it is left out");
                    self.add(Reason::Invalid, &format!("{field}[{index}]"), message);
                }
            }
        }
        read
    }

    fn added_headers(&mut self, of: &ExtAuthzHttp) -> Vec<(String, String)> {
        let mut read = Vec::new();
        for (name, value) in &of.include_additional_headers_in_check {
            if name.parse::<HeaderName>().is_ok() && HeaderValue::from_str(value).is_ok() {
                read.push((name.clone(), value.clone()));
            } else {
                let field = format!("includeAdditionalHeadersInCheck[{name:?}]");
                self.add(Reason::Invalid, &field, "invalid name or value of a header; it is left out");
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::security::tests::codes;

    fn compile(providers: Value) -> (Vec<Provider>, Vec<String>) {
        let providers: Vec<MeshExtensionProvider> = serde_json::from_value(providers).unwrap();
        let (compiled, findings) = external_authorizers(&providers, &Origin::default());
        (compiled, codes(&findings))
    }

    #[test]
    fn both_kinds_of_providers_are_compiled_and_others_left_alone() {
        let (compiled, findings) = compile(json!([
            {"name": "traces", "opentelemetry": {"service": "otel", "port": 4317}},
            {"name": "opa", "envoyExtAuthzGrpc": {"service": "opa.shop.svc.cluster.local", "port": 9000}},
            {"name": "login", "envoyExtAuthzHttp": {
                "service": "shop/login.example", "port": 80, "timeout": "2s", "pathPrefix": "/check", "failOpen": true,
                "statusOnError": "503", "includeRequestHeadersInCheck": ["cookie", "x-*"],
                "includeAdditionalHeadersInCheck": {"x-mesh": "m"},
                "includeRequestBodyInCheck": {"maxRequestBytes": 100, "allowPartialMessage": true},
                "headersToUpstreamOnAllow": ["authorization"], "headersToDownstreamOnDeny": ["set-cookie"],
            }},
        ]));

        assert_eq!(findings, [""; 0]);
        let [opa, login] = &compiled[..] else { panic!("{compiled:?}") };
        assert_eq!((opa.protocol.clone(), opa.timeout, opa.status_on_error), (Protocol::Grpc, DEFAULT_TIMEOUT, 403));
        assert_eq!(
            (login.host.as_str(), login.port, login.fail_open, login.status_on_error),
            ("login.example", 80, true, 503)
        );
        assert_eq!(login.body, Some(BodyCheck { max_bytes: 100, allow_partial: true, pack_as_bytes: false }));
        let Protocol::Http(http) = &login.protocol else { panic!() };
        assert_eq!(http.request_headers, [StringMatch::Exact("cookie".into()), StringMatch::Prefix("x-".into())]);
    }

    #[test]
    fn a_provider_that_cannot_be_asked_is_left_out() {
        let good = json!({"name": "a", "envoyExtAuthzGrpc": {"service": "a.b", "port": 1}});
        for (bad, field) in [
            (json!({"name": "b", "envoyExtAuthzGrpc": {"service": "", "port": 1}}), ".envoyExtAuthzGrpc.service"),
            (json!({"name": "b", "envoyExtAuthzGrpc": {"service": "*.b", "port": 1}}), ".envoyExtAuthzGrpc.service"),
            (json!({"name": "b", "envoyExtAuthzGrpc": {"service": "a.b", "port": 0}}), ".envoyExtAuthzGrpc.port"),
            (json!({"name": "b", "envoyExtAuthzHttp": {"service": "a.b", "port": 70000}}), ".envoyExtAuthzHttp.port"),
            (
                json!({"name": "b", "envoyExtAuthzHttp": {"service": "a.b", "port": 1, "pathPrefix": "x"}}),
                ".envoyExtAuthzHttp.pathPrefix",
            ),
            (json!({"name": "b", "envoyExtAuthzHttp": {}, "envoyExtAuthzGrpc": {}}), ""),
            (json!({"name": "a", "envoyExtAuthzGrpc": {"service": "a.b", "port": 1}}), ".name"),
            (json!({"envoyExtAuthzGrpc": {"service": "a.b", "port": 1}}), ".name"),
        ] {
            let (compiled, findings) = compile(json!([good, bad]));
            assert_eq!(compiled.len(), 1, "{bad}");
            assert_eq!(findings, [format!("extensionProviders[1]{field} invalid_value")], "{bad}");
        }
    }

    #[test]
    fn a_setting_that_cannot_be_used_is_reported() {
        for (members, field) in [
            (json!({"timeout": "x"}), "timeout invalid_value"),
            (json!({"statusOnError": "200"}), "statusOnError invalid_value"),
            (json!({"clearRouteCache": true}), "clearRouteCache unsupported"),
            (json!({"includeRequestBodyInCheck": {}}), "includeRequestBodyInCheck.maxRequestBytes invalid_value"),
            (json!({"headersToUpstreamOnAllow": ["*a*"]}), "headersToUpstreamOnAllow[0] invalid_value"),
            (
                json!({"includeAdditionalHeadersInCheck": {"a b": "c"}}),
                "includeAdditionalHeadersInCheck[\"a b\"] invalid_value",
            ),
        ] {
            let mut of = json!({"service": "a.b", "port": 1});
            of.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            let (compiled, findings) = compile(json!([{"name": "a", "envoyExtAuthzHttp": of}]));
            assert_eq!(compiled.len(), 1);
            assert_eq!(findings, [format!("extensionProviders[0].envoyExtAuthzHttp.{field}")]);
        }
    }
}
