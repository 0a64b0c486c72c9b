//! The root certificate is replaced, in the steps of `docs/guide/root-rotation.md`, without a failed request.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::json;

use super::{
    Story, outage,
    shop::{self, SHOP},
};
use crate::stage::eventually;

/// A root, PEM.
struct Root {
    certificate: String,
    key: String,
}

impl Root {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, "cluster.local");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        Ok(Self { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
    }

    /// The root that the control plane has made for itself.
    fn of_the_mesh(story: &Story) -> Result<Self> {
        let read = |key: &str| {
            let value = story.cluster.field("istio-system", "secret/istio-ca-secret", &format!(".data.{key}"))?;
            anyhow::Ok(String::from_utf8(STANDARD.decode(value)?)?)
        };
        let (certificate, key) = (read("ca-cert\\.pem")?, read("ca-key\\.pem")?);
        Ok(Self { certificate, key })
    }
}

/// Number of times that the control plane has changed its authority.
fn replaced(story: &Story) -> Result<usize> {
    let log = story.cluster.kubectl(&["--namespace=istio-system", "logs", "deployment/strake-control", "--tail=-1"])?;
    Ok(log.matches("authority replaced").count())
}

/// Has the control plane sign with one root and trust others, waits until the roots are in the namespace, and has the
/// proxies get new certificates.
fn follow(story: &Story, signing: &Root, trusted: &[&Root]) -> Result<()> {
    let roots: String = trusted.iter().map(|root| root.certificate.as_str()).collect();
    let secret = json!({"stringData": {
        "ca-cert.pem": signing.certificate, "ca-key.pem": signing.key, "root-cert.pem": roots,
    }});
    let earlier = replaced(story)?;
    let patch = ["--namespace=istio-system", "patch", "secret/istio-ca-secret", "--type=merge", "--patch"];
    story.cluster.kubectl(&[&patch[..], &[&secret.to_string()]].concat())?;
    // The roots may be the same as before, with another one that signs.
    eventually("the control plane has read the Secret", || {
        ensure!(replaced(story)? > earlier, "its log does not say so");
        Ok(())
    });
    eventually("the roots are in the namespace", || {
        let found = story.cluster.field(SHOP, "configmap/istio-ca-root-cert", ".data.root-cert\\.pem")?;
        // Line ends may differ, and the order.
        let bodies = |text: &str| {
            let mut bodies: Vec<String> =
                text.split("-----BEGIN CERTIFICATE-----").map(|body| body.split_whitespace().collect()).collect();
            bodies.sort();
            bodies
        };
        crate::stage::expect_equal(bodies(&found), bodies(&roots))
    });
    outage::restart(story, "daemonset/ztunnel")
}

pub(super) fn rotate(story: &mut Story) -> Result<()> {
    story.report.step("The root certificate is replaced under traffic");
    let pods = shop::addresses(&story.cluster, SHOP)?;
    let (old, new) = (Root::of_the_mesh(story).context("the mesh's root")?, Root::new()?);
    let plan: [(&str, &Root, &[&Root]); 3] = [
        ("the new root is trusted", &old, &[&old, &new]),
        ("the new root signs", &new, &[&new, &old]),
        ("the old root is trusted no longer", &new, &[&new]),
    ];
    for (what, signing, trusted) in plan {
        story.report.command("kubectl patch -n istio-system secret/istio-ca-secret ...");
        story.report.command("kubectl rollout restart -n istio-system daemonset/ztunnel");
        let ((), requests, wire) = story.under_load(|| follow(story, signing, trusted))?;
        ensure!(requests.failed.is_empty(), "{what}: {requests:?}");
        ensure!(wire.audit(&pods).plain.is_empty(), "{what}: plaintext on the wire");
        let evidence = format!("{} requests over new connections, 0 failed, none in plaintext", requests.answered);
        story.report.proved(what, &[evidence]);
    }
    Ok(())
}
