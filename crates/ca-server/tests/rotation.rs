//! The root is replaced in the steps of docs/guide/root-rotation.md: at each of them proxies with a certificate of this step
//! and proxies with one of the step before accept each other.

use std::fs;
use std::path::Path;

use ca_server::Issuer;
use identity::{Identity, TrustDomain};
use rustls::{ClientConnection, ServerConnection};
use tls::{WorkloadCertificate, client_config, server_config, server_name};

fn identity() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

/// A certificate as a proxy gets it from the control plane on this directory.
fn member(dir: &Path) -> WorkloadCertificate {
    let issuer = Issuer::open_or_create(dir, TrustDomain::default()).unwrap();
    let (key, csr) = identity::csr::generate(&identity()).unwrap();
    let issued = issuer.sign(&csr, &identity(), None).unwrap();
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let certificates =
        |pem: &str| CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    WorkloadCertificate::new(certificates(&issued.leaf), &key, certificates(&issued.roots)).unwrap()
}

/// Returns true if these proxies accept each other.
fn meet(client: &WorkloadCertificate, server: &WorkloadCertificate) -> Result<(), rustls::Error> {
    let mut client = ClientConnection::new(client_config(client, &[identity()]).unwrap(), server_name()).unwrap();
    let mut server = ServerConnection::new(server_config(server).unwrap()).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..10 {
        bytes.clear();
        client.write_tls(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
        }
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
        }
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn both_ways(a: &WorkloadCertificate, b: &WorkloadCertificate) -> bool {
    meet(a, b).is_ok() && meet(b, a).is_ok()
}

#[test]
fn proxies_of_neighbouring_steps_accept_each_other_and_the_old_root_is_out_at_the_end() {
    let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, new) = (dir.path(), new.path());
    let before = member(dir);
    Issuer::open_or_create(new, TrustDomain::default()).unwrap();
    let (certificate, key, trusted) = ("root-cert.pem", "root-key.pem", "trusted-roots.pem");

    // 1. the new root is trusted
    fs::copy(new.join(certificate), dir.join(trusted)).unwrap();
    let trusts = member(dir);
    assert_eq!(trusts.roots().len(), 2);
    assert!(both_ways(&before, &trusts));

    // 2. the new root signs
    fs::copy(dir.join(certificate), dir.join(trusted)).unwrap();
    fs::copy(new.join(certificate), dir.join(certificate)).unwrap();
    fs::copy(new.join(key), dir.join(key)).unwrap();
    let signs = member(dir);
    assert!(both_ways(&trusts, &signs));
    assert!(!both_ways(&before, &signs), "so step 2 must wait until no certificate of before is left");

    // 3. the old root is no longer trusted
    fs::remove_file(dir.join(trusted)).unwrap();
    let after = member(dir);
    assert_eq!(after.roots().len(), 1);
    assert!(both_ways(&signs, &after));
    assert!(!both_ways(&trusts, &after), "so step 3 must wait until the old root's certificates have expired");
}

#[test]
fn a_file_of_further_roots_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let leaf = {
        let issuer = Issuer::open_or_create(dir.path(), TrustDomain::default()).unwrap();
        let (_, csr) = identity::csr::generate(&identity()).unwrap();
        issuer.sign(&csr, &identity(), None).unwrap().leaf
    };

    for (text, words) in [("", "remove the file"), ("nonsense", "remove the file"), (leaf.as_str(), "an authority")] {
        fs::write(dir.path().join("trusted-roots.pem"), text).unwrap();
        let error = Issuer::open_or_create(dir.path(), TrustDomain::default()).unwrap_err();
        assert_eq!(error.code(), "ca_trusted_roots");
        assert!(error.to_string().contains("trusted-roots.pem") && error.to_string().contains(words), "{error}");
    }
}
