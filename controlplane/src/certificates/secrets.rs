//! Certificate and key of the authority in Secrets: those that the user has plugged in, or a root that the first replica makes.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_server::{Issuer, IssuerError, IssuerSlot, Material};
use contract::manifests::{PLUGGED_IN_SECRET as PLUGGED_IN, ROOT_SECRET as OWN};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use identity::TrustDomain;
use kube_cluster::{Collection, Location, Objects, RequestError};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Type of the Secret of an own root. Name, type and keys are Istio's: either control plane continues with the other's root.
const OWN_TYPE: &str = "istio.io/ca-root";

/// The Secrets that are read, in this order.
pub(super) const NAMES: [&str; 2] = [PLUGGED_IN, OWN];

const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";

/// Time between two looks at the Secrets; a Secret that is mounted is a minute late.
const LOOK: Duration = Duration::from_secs(10);

/// Pause at the start while the API server does not answer.
const RETRY: Duration = Duration::from_secs(2);

/// Reason why the Secrets give no authority.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A key of the Secret is absent, or not text.
    #[error("secret {secret}: expected PEM in the key {key}, {found}")]
    Key { secret: String, key: &'static str, found: &'static str },
    #[error("secret {secret}: {cause}")]
    Material { secret: String, cause: IssuerError },
}

/// Reads the authority from Secrets of one namespace.
pub(super) struct Secrets {
    objects: Objects,
    namespace: String,
    trust_domain: TrustDomain,
    max_ttl: Duration,
}

/// Texts of an authority, and the Secret that they are from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    secret: String,
    material: Material,
}

impl Secrets {
    pub(super) fn new(objects: Objects, namespace: String, trust_domain: TrustDomain, max_ttl: Duration) -> Self {
        Self { objects, namespace, trust_domain, max_ttl }
    }

    /// Waits until the API server has answered; makes a root when there is none.
    ///
    /// # Errors
    /// When a Secret is there and cannot be used: it is never replaced.
    pub(super) async fn wait(&self) -> Result<(IssuerSlot, Found), SecretsError> {
        let mut is_told = false;
        loop {
            match self.find_or_make().await {
                Ok(found) => {
                    let issuer = self.issuer(&found)?;
                    tracing::info!(secret = found.secret, "authority opened");
                    return Ok((IssuerSlot::new(issuer), found));
                }
                Err(SecretsError::Request(error)) if error.is_transient() => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, code = "ca_secret_unread", "failed to read the authority; trying again");
                    }
                    sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Replaces the issuer whenever the Secrets have changed. What cannot be read or used changes nothing.
    pub(super) fn follow(self, slot: IssuerSlot, mut current: Found) -> BoxFuture<'static, ()> {
        async move {
            let mut told = String::new();
            loop {
                sleep(LOOK).await;
                let failure = match self.look(&current).await {
                    Ok(Some((found, issuer))) => {
                        tracing::info!(secret = found.secret, "authority replaced");
                        slot.replace(issuer);
                        current = found;
                        String::new()
                    }
                    Ok(None) => String::new(),
                    Err(error) => error.to_string(),
                };
                if !failure.is_empty() && failure != told {
                    tracing::error!(
                        error = failure,
                        secret = current.secret,
                        code = "ca_secret",
                        "failed to read the authority again; signing continues with what was read before"
                    );
                }
                told = failure;
            }
        }
        .boxed()
    }

    /// The authority if it is no longer `current`. A Secret that is gone is no change: whoever deletes it by mistake must not
    /// end the trust of running proxies.
    async fn look(&self, current: &Found) -> Result<Option<(Found, Issuer)>, SecretsError> {
        match self.find().await? {
            Some(found) if found != *current => {
                let issuer = self.issuer(&found)?;
                Ok(Some((found, issuer)))
            }
            Some(_) => Ok(None),
            None => Err(SecretsError::Key { secret: current.secret.clone(), key: KEY, found: "the Secret is gone" }),
        }
    }

    async fn find_or_make(&self) -> Result<Found, SecretsError> {
        if let Some(found) = self.find().await? {
            return Ok(found);
        }
        let unusable = |cause| SecretsError::Material { secret: OWN.to_owned(), cause };
        let material = Material::generate(&self.trust_domain).map_err(unusable)?;
        let at = self.secret(OWN);
        if self.objects.create(&at, &self.own_secret(&material)).await? {
            tracing::info!(secret = OWN, "new root certificate");
        }
        // Another replica may have been faster: its root is everybody's.
        match self.find().await? {
            Some(found) => Ok(found),
            None => Err(SecretsError::Key { secret: OWN.to_owned(), key: KEY, found: "the Secret is gone" }),
        }
    }

    async fn find(&self) -> Result<Option<Found>, SecretsError> {
        for name in NAMES {
            if let Some(secret) = self.objects.get(&self.secret(name)).await? {
                let material = material(name, &secret["data"])?;
                return Ok(Some(Found { secret: name.to_owned(), material }));
            }
        }
        Ok(None)
    }

    fn issuer(&self, found: &Found) -> Result<Issuer, SecretsError> {
        let issuer = Issuer::new(&found.material, self.trust_domain.clone());
        let issuer = issuer.map_err(|cause| SecretsError::Material { secret: found.secret.clone(), cause })?;
        let end = issuer.not_after().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        metrics::gauge!("strake_ca_expiry_timestamp_seconds").set(end.as_secs_f64());
        Ok(issuer.with_max_ttl(self.max_ttl))
    }

    fn secret(&self, name: &str) -> Location {
        Collection::namespaced("v1", "secrets", &self.namespace).named(name)
    }

    fn own_secret(&self, material: &Material) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": OWN_TYPE,
            "metadata": {"name": OWN, "namespace": self.namespace},
            "stringData": {CERTIFICATE: material.certificate, KEY: material.key},
        })
    }
}

/// Texts in the `data` of a Secret.
fn material(secret: &str, data: &Value) -> Result<Material, SecretsError> {
    let text = |key: &'static str| -> Result<Option<String>, SecretsError> {
        let unusable = |found| SecretsError::Key { secret: secret.to_owned(), key, found };
        let Some(value) = data[key].as_str().filter(|value| !value.is_empty()) else { return Ok(None) };
        let bytes = STANDARD.decode(value).map_err(|_| unusable("found no base64"))?;
        String::from_utf8(bytes).map(Some).map_err(|_| unusable("found no text"))
    };
    let needed = |key: &'static str| {
        text(key)?.ok_or_else(|| SecretsError::Key { secret: secret.to_owned(), key, found: "found nothing" })
    };
    let mut material = Material::root(&needed(CERTIFICATE)?, &needed(KEY)?);
    material.chain = text(CHAIN)?.unwrap_or_default();
    // Without it the certificate is a root.
    if let Some(roots) = text(ROOTS)? {
        material.roots = roots;
    }
    Ok(material)
}

#[cfg(test)]
mod tests;
