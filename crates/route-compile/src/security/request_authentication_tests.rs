use serde_json::{Value, json};

use super::*;
use crate::security::tests::{codes, read, settings};

/// Compiles a rule of a RequestAuthentication.
fn authenticate(rule: &Value) -> (JwtRule, Vec<String>) {
    let target = json!({"group": "", "kind": "Service", "name": "reviews"});
    let spec = json!({"targetRefs": [target], "jwtRules": [rule]});
    let object = json!({"metadata": {"namespace": "shop", "name": "jwt"}, "spec": spec});
    let mut compiled = request_authentication(&settings(), &serde_json::from_value(object).unwrap());
    (compiled.value.remove(0), codes(&compiled.findings))
}

const EC_KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"TFOJZa5joDd70eGhb_rla3V4keuueMIFWSv-A83epaM","y":"QVj-x3d1vrc41gTaFrOnrlmIG1Lqvt1B0kQS8vgRfgU"}"#;

#[test]
fn a_rule_of_the_documentation_is_compiled() {
    let manifest = r#"
metadata: {namespace: istio-system, name: jwt}
spec:
  targetRefs: [{kind: GatewayClass, group: gateway.networking.k8s.io, name: istio-waypoint}]
  jwtRules:
  - issuer: https://id.example
    jwksUri: https://id.example/keys
    timeout: 2s
    audiences: [shop]
    fromHeaders: [{name: X-Jwt, prefix: "Token "}]
    fromParams: [t]
    forwardOriginalToken: true
    outputPayloadToHeader: x-payload
    outputClaimToHeaders: [{header: x-role, claim: realm.role}]
    spaceDelimitedClaims: [roles]
  - issuer: https://other.example
"#;
    let compiled = request_authentication(&settings(), &read::<RequestAuthentication>(manifest));

    assert_eq!(codes(&compiled.findings), [""; 0]);
    assert_eq!(compiled.targets, [Target::GatewayClass { name: "istio-waypoint".into() }]);
    let [first, second] = &compiled.value[..] else { panic!() };
    assert_eq!(first.origin, "istio-system/jwt jwtRules[0]");
    assert_eq!(first.keys, KeySource::Uri { uri: "https://id.example/keys".into(), timeout: Duration::from_secs(2) });
    assert_eq!(first.from_headers[0].name, "x-jwt");
    assert_eq!(first.output_claims[0].claim, ["realm", "role"]);
    let timeout = Duration::from_secs(5);
    assert_eq!(second.keys, KeySource::Discovery { issuer: "https://other.example".into(), timeout });
}

#[test]
fn keys_that_cannot_be_used_are_reported_and_do_not_travel() {
    let private = EC_KEY.replace("}", r#","d":"c2VjcmV0"}"#);
    let jwks = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    let oct = r#"{"kty":"oct","k":"c2VjcmV0"}"#;
    let (rule, findings) = authenticate(&json!({"issuer": "a", "jwks": jwks(&[&private, EC_KEY, oct])}));

    assert_eq!(findings, ["spec.jwtRules[0].jwks invalid_value", "spec.jwtRules[0].jwks unsupported"]);
    let KeySource::Inline { jwks: sent } = &rule.keys else { panic!("{rule:?}") };
    assert!(!sent.contains("c2VjcmV0"));

    for (rule, finding) in [
        (json!({"issuer": "a", "jwks": "x"}), "jwks invalid_value"),
        (json!({"issuer": "a", "jwks": jwks(&[oct])}), "jwks invalid_value"),
        (json!({"issuer": "a", "jwksUri": "id.example/keys"}), "jwksUri invalid_value"),
        (json!({"issuer": "a", "jwksUri": "file:///etc/keys"}), "jwksUri invalid_value"),
        (json!({"issuer": "accounts.example"}), "issuer invalid_value"),
        (json!({}), "issuer invalid_value"),
        (json!({"issuer": "https://a", "fromHeaders": [{"name": "a b"}]}), "fromHeaders[0].name invalid_value"),
    ] {
        let (compiled, findings) = authenticate(&rule);
        assert!(matches!(compiled.keys, KeySource::Unusable { .. }), "{rule}");
        assert_eq!(findings, [format!("spec.jwtRules[0].{finding}")], "{rule}");
    }
}

#[test]
fn settings_of_a_rule_without_effect_are_reported() {
    let base = json!({"issuer": "https://a"});
    for (members, finding) in [
        (json!({"jwks": format!(r#"{{"keys":[{EC_KEY}]}}"#), "jwksUri": "https://a/k"}), "jwksUri ignored"),
        (json!({"timeout": "soon"}), "timeout invalid_value"),
        (json!({"timeout": "0s"}), "timeout invalid_value"),
        (json!({"fromCookies": ["session"]}), "forwardOriginalToken ignored"),
        (json!({"outputPayloadToHeader": "a b"}), "outputPayloadToHeader invalid_value"),
        (json!({"outputPayloadToHeader": "Host"}), "outputPayloadToHeader invalid_value"),
        (
            json!({"outputClaimToHeaders": [{"header": "content-length", "claim": "a"}]}),
            "outputClaimToHeaders[0].header invalid_value",
        ),
        (
            json!({"outputClaimToHeaders": [{"header": "x-a", "claim": "a..b"}]}),
            "outputClaimToHeaders[0].claim invalid_value",
        ),
    ] {
        let mut rule = base.clone();
        rule.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        let (compiled, findings) = authenticate(&rule);
        assert_eq!(findings, [format!("spec.jwtRules[0].{finding}")], "{rule}");
        assert!(compiled.output_claims.is_empty() && compiled.output_payload_header.is_none());
    }
    let object = json!({"metadata": {"namespace": "shop", "name": "jwt"}, "spec": {"jwtRules": [base]}});
    let compiled = request_authentication(&settings(), &serde_json::from_value(object).unwrap());
    assert_eq!(codes(&compiled.findings), ["spec ignored"]);
}
