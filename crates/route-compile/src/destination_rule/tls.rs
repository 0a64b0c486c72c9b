//! TLS that a waypoint begins with an application.

use kube_types::istio::{ClientTlsMode, ClientTlsSettings};
use route::traffic::{ClientCertificate, ClientTls, Trust};

use super::layers::Part;
use crate::finding::{Findings, Reason};

pub(super) fn compile(part: &Part<'_, ClientTlsSettings>, findings: &mut Findings) -> Option<ClientTls> {
    let settings = part.value;
    let at = part.at.at(format!("{}.tls", part.at.field));
    let certificate = match settings.mode {
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => {
            let message = "waypoints reach endpoints in the mesh by HBONE with mutual TLS, whatever the mode";
            findings.add(Reason::Ignored, &at, "mode", message);
            return None;
        }
        ClientTlsMode::Simple => {
            for (field, value) in
                [("clientCertificate", &settings.client_certificate), ("privateKey", &settings.private_key)]
            {
                if !value.is_empty() {
                    findings.add(Reason::Ignored, &at, field, "only mode MUTUAL sends a certificate");
                }
            }
            None
        }
        ClientTlsMode::Mutual => {
            let certificate = certificate(settings);
            if certificate.is_none() {
                let message = "expected credentialName, or clientCertificate and privateKey: no certificate is sent";
                findings.add(Reason::Invalid, &at, "mode", message);
            }
            certificate
        }
    };
    let has_secret = !settings.credential_name.is_empty();
    for (field, value) in [
        ("clientCertificate", &settings.client_certificate),
        ("privateKey", &settings.private_key),
        ("caCertificates", &settings.ca_certificates),
    ] {
        if has_secret && !value.is_empty() {
            findings.add(Reason::Ignored, &at, field, "credentialName is there too, and is used");
        }
    }
    let trust = match (settings.insecure_skip_verify.unwrap_or_default(), has_secret) {
        (true, _) => Trust::Unverified,
        (false, true) => Trust::Secret(settings.credential_name.clone()),
        (false, false) if settings.ca_certificates.is_empty() => Trust::System,
        (false, false) => Trust::File(settings.ca_certificates.clone()),
    };
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    Some(ClientTls {
        certificate,
        trust,
        crl: text(&settings.ca_crl),
        subject_alt_names: settings.subject_alt_names.clone(),
        sni: text(&settings.sni),
    })
}

fn certificate(settings: &ClientTlsSettings) -> Option<ClientCertificate> {
    if !settings.credential_name.is_empty() {
        return Some(ClientCertificate::Secret(settings.credential_name.clone()));
    }
    let (certificate, key) = (settings.client_certificate.clone(), settings.private_key.clone());
    (!certificate.is_empty() && !key.is_empty()).then_some(ClientCertificate::Files { certificate, key })
}
