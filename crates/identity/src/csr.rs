//! Makes keys and the signing requests for them. Signing is the issuer's business: see `ca`.

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::Identity;

/// The key or the request could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("signing request for {identity}: {cause}")]
pub struct CsrError {
    identity: Identity,
    cause: String,
}

/// A new ECDSA P-256 key (PKCS#8) and the request for it (PEM).
///
/// The request has the identity as its only name, a URI SAN; no common name.
pub fn generate(identity: &Identity) -> Result<(PrivateKeyDer<'static>, String), CsrError> {
    let request = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        // rcgen would put a common name of its own there. Peers read the URI only.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        let pem = params.serialize_request(&key)?.pem()?;
        Ok((PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())), pem))
    };
    request().map_err(|cause| CsrError { identity: identity.clone(), cause: cause.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateSigningRequestParams, PublicKeyData};

    #[test]
    fn a_request_names_the_identity_and_nothing_else() {
        let identity: Identity = "spiffe://td/ns/a/sa/b".parse().unwrap();

        let (key, pem) = generate(&identity).unwrap();

        let request = CertificateSigningRequestParams::from_pem(&pem).unwrap();
        assert_eq!(request.params.subject_alt_names, [SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap())]);
        assert_eq!(request.params.distinguished_name.iter().count(), 0);
        assert!(matches!(key, PrivateKeyDer::Pkcs8(_)));
        let pair = KeyPair::try_from(&key).unwrap();
        assert_eq!(pair.der_bytes(), request.public_key.der_bytes());
    }

    #[test]
    fn every_request_has_a_new_key() {
        let identity: Identity = "spiffe://td/ns/a/sa/b".parse().unwrap();

        let (first, _) = generate(&identity).unwrap();
        let (second, _) = generate(&identity).unwrap();

        assert_ne!(first, second);
    }
}
