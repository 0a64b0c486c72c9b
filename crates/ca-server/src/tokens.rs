//! The tokens of node proxies in directory mode: a file with their hashes.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use identity::{Caller, Identity, IdentityError, TrustDomain};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::authenticate::{Authenticator, Unauthenticated};

/// Reason why the file is unusable.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error("{path}: {cause}")]
    File { path: PathBuf, cause: io::Error },
    /// Others than the owner may read or write it.
    #[error("{path} has mode {mode:04o}, it must be 0600")]
    Open { path: PathBuf, mode: u32 },
    /// The file is not the YAML that is expected.
    #[error("{path}: {reason}")]
    Syntax { path: PathBuf, reason: String },
    /// A hash that is not 64 hex digits.
    #[error("{path}: sha256 of node {node} is not 64 hex digits")]
    Hash { path: PathBuf, node: String },
    /// Names that make no identity.
    #[error("{path}: node {node}: {cause}")]
    Identity { path: PathBuf, node: String, cause: IdentityError },
}

impl TokensError {
    /// Stable name for logs and metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "tokens_file",
            Self::Open { .. } => "tokens_open",
            Self::Syntax { .. } => "tokens_syntax",
            Self::Hash { .. } => "tokens_hash",
            Self::Identity { .. } => "tokens_identity",
        }
    }
}

/// A list of `{node, namespace, serviceAccount, sha256}`, read again whenever the file has changed.
///
/// While the file is missing or wrong nobody is let in: what it said before may have been revoked. A list that ends
/// between two rows cannot be told from a shorter one: whoever writes the file replaces it as a whole (`rename`).
#[derive(Debug)]
pub struct NodeTokens {
    path: PathBuf,
    trust_domain: TrustDomain,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    tokens: Vec<(Vec<u8>, Caller)>,
}

/// Changes whenever the file does.
type Stamp = (u64, u64, i64, i64);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Row {
    node: String,
    namespace: String,
    service_account: String,
    sha256: String,
}

impl NodeTokens {
    /// Reads the file; it must belong to its owner alone (0600).
    pub fn open(path: &Path, trust_domain: TrustDomain) -> Result<Self, TokensError> {
        let known = load(path, &trust_domain)?;
        Ok(Self { path: path.to_owned(), trust_domain, known: Mutex::new(known) })
    }

    /// Caller that `token` belongs to. Takes the same time wherever in the list it is found, or is not.
    pub fn caller(&self, token: &str) -> Result<Option<Caller>, TokensError> {
        let mut known = self.known.lock();
        let metadata = fs::metadata(&self.path).map_err(|cause| self.unreadable(cause))?;
        if stamp(&metadata) != known.stamp {
            // An error returns here with the old stamp, so the file is read again at the next request and nobody is let
            // in until it is right.
            *known = load(&self.path, &self.trust_domain)?;
            tracing::info!(path = %self.path.display(), tokens = known.tokens.len(), "node tokens read again");
        }
        let hash = digest(&SHA256, token.as_bytes());
        let mut found = None;
        // No early return: the time must not depend on the position in the list.
        for (expected, caller) in &known.tokens {
            if verify_slices_are_equal(expected, hash.as_ref()).is_ok() {
                found = Some(caller);
            }
        }
        Ok(found.cloned())
    }

    fn unreadable(&self, cause: io::Error) -> TokensError {
        TokensError::File { path: self.path.clone(), cause }
    }
}

impl Authenticator for NodeTokens {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Caller, Unauthenticated>> {
        let result = match self.caller(token) {
            Ok(Some(caller)) => Ok(caller),
            Ok(None) => Err(Unauthenticated::Invalid("token is not among the node tokens".to_owned())),
            Err(error) => Err(Unauthenticated::Unchecked(error.to_string())),
        };
        futures::future::ready(result).boxed()
    }
}

fn load(path: &Path, trust_domain: &TrustDomain) -> Result<Known, TokensError> {
    let unreadable = |cause| TokensError::File { path: path.to_owned(), cause };
    // Before the content: a change in between has another stamp, and is read at the next request.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o7777;
    // Whoever may write the file can be any node; one that others may read shows that nobody has taken care.
    if mode & 0o077 != 0 {
        return Err(TokensError::Open { path: path.to_owned(), mode });
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    // Emptied before it is written again. No token at all is `[]`.
    if text.trim().is_empty() {
        return Err(TokensError::Syntax { path: path.to_owned(), reason: "the file is empty".to_owned() });
    }
    let rows: Vec<Row> = serde_saphyr::from_str(&text)
        .map_err(|error| TokensError::Syntax { path: path.to_owned(), reason: error.to_string() })?;
    let tokens = rows.into_iter().map(|row| checked(path, trust_domain, row)).collect::<Result<_, _>>()?;
    Ok(Known { stamp: stamp(&metadata), tokens })
}

fn checked(path: &Path, trust_domain: &TrustDomain, row: Row) -> Result<(Vec<u8>, Caller), TokensError> {
    let Row { node, namespace, service_account, sha256 } = row;
    let Some(hash) = unhex(&sha256) else {
        return Err(TokensError::Hash { path: path.to_owned(), node });
    };
    match Identity::new(trust_domain, &namespace, &service_account) {
        Ok(identity) => Ok((hash, Caller { node, identity })),
        Err(cause) => Err(TokensError::Identity { path: path.to_owned(), node, cause }),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    let bytes = digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().ok()?;
    (digits.len() == 64).then_some(bytes)
}

fn stamp(metadata: &Metadata) -> Stamp {
    (metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec())
}
