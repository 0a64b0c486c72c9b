//! Keys that are fetched: one task for each source fetches them, so requests never do, however many wait.
//!
//! A set is fetched again after 20 minutes, as istiod does; after a failure sooner, and the last good set stays in use for
//! up to 7 days. A token with an unknown `kid` asks for a fetch at once, but not more often than every 10 s.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::{JwksError, KeySet, KeySource, MAX_JWKS_BYTES};

/// Interval between fetches that succeed: istiod's.
pub const REFRESH: Duration = Duration::from_secs(20 * 60);

/// First interval after a fetch that failed; it doubles with each further one, up to [`REFRESH`].
pub const RETRY: Duration = Duration::from_secs(60);

/// Shortest interval between fetches, however many tokens with unknown keys arrive.
pub const MIN_REFETCH: Duration = Duration::from_secs(10);

/// Longest wait of a request for keys.
pub const REFETCH_WAIT: Duration = Duration::from_secs(5);

/// Time for which keys are used while no fetch succeeds. istiod gives up keys after the same time.
pub const MAX_STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A document that could not be fetched. The text says what failed, without any part of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Answer of a fetch that is under way.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, FetchError>> + Send + 'a>>;

/// HTTP client for key sets.
pub trait Fetcher: Send + Sync + 'static {
    /// Gets a document of at most `limit` bytes: a longer one, or a status other than 200, is an error. Redirects are not
    /// followed to another scheme. The caller bounds the time and drops the future when it is over.
    fn fetch<'a>(&'a self, uri: &'a str, limit: usize) -> Fetching<'a>;
}

/// Reason for which there is no new set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RefreshError {
    #[error("failed to fetch {uri}: {error}")]
    Fetch { uri: String, error: FetchError },
    #[error("no answer from {uri} within {waited:?}")]
    Timeout { uri: String, waited: Duration },
    #[error("{uri} is of issuer {found:?}, expected {expected:?}")]
    OtherIssuer { uri: String, found: String, expected: String },
    #[error("{uri} has no text jwks_uri")]
    NoJwksUri { uri: String },
    #[error("{uri}: {error}")]
    Jwks { uri: String, error: JwksError },
}

/// Keys of one source at a moment.
#[derive(Clone, Debug, Default)]
struct State {
    keys: Option<Arc<KeySet>>,
    /// Fetches that have ended.
    attempts: u64,
    phase: Phase,
}

/// Activity of the task that fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Fetching,
    /// For [`MIN_REFETCH`] after a fetch.
    Resting,
    /// Until it is time, or until a request wants a newer set.
    Waiting,
}

/// Keys of one source. The task that fetches them ends with the last reference.
pub struct RemoteKeys {
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    task: JoinHandle<()>,
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKeys").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RemoteKeys {
    /// The last good set; `None` if there is none, or if it is too old.
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        self.state.borrow().keys.clone()
    }

    /// Waits for a fetch that ends after this moment. Returns false at once if the last one ended less than
    /// [`MIN_REFETCH`] ago, and after [`REFETCH_WAIT`] without one.
    pub(crate) async fn refetch(&self) -> bool {
        let mut state = self.state.clone();
        let (attempts, phase) = {
            let state = state.borrow_and_update();
            (state.attempts, state.phase)
        };
        match phase {
            // To ask would leave a request for another fetch behind.
            Phase::Fetching => {}
            Phase::Resting => return false,
            Phase::Waiting => self.wanted.notify_one(),
        }
        matches!(timeout(REFETCH_WAIT, state.wait_for(|state| state.attempts > attempts)).await, Ok(Ok(_)))
    }
}

/// Key sets by source, shared by all rules that name it. A source keeps its keys over changes of configuration, as long as
/// one rule uses it.
pub struct KeyStore {
    fetcher: Arc<dyn Fetcher>,
    /// Runtime of the tasks that fetch.
    runtime: Handle,
    sources: Mutex<HashMap<KeySource, Weak<RemoteKeys>>>,
}

impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyStore").finish_non_exhaustive()
    }
}

impl KeyStore {
    pub fn new(fetcher: Arc<dyn Fetcher>, runtime: Handle) -> Self {
        Self { fetcher, runtime, sources: Mutex::default() }
    }

    /// Keys of a source; the first call starts to fetch them.
    pub(crate) fn keys(&self, source: &KeySource) -> Arc<RemoteKeys> {
        let mut sources = self.sources.lock();
        if let Some(keys) = sources.get(source).and_then(Weak::upgrade) {
            return keys;
        }
        sources.retain(|_, keys| keys.strong_count() > 0);
        let (sender, state) = watch::channel(State::default());
        let wanted = Arc::new(Notify::new());
        let task = self.runtime.spawn(refresh(self.fetcher.clone(), source.clone(), sender, wanted.clone()));
        let keys = Arc::new(RemoteKeys { state, wanted, task });
        sources.insert(source.clone(), Arc::downgrade(&keys));
        keys
    }
}

/// Fetches again and again, until it is aborted.
async fn refresh(fetcher: Arc<dyn Fetcher>, source: KeySource, state: watch::Sender<State>, wanted: Arc<Notify>) {
    let mut failures = 0;
    let mut expiry = Box::pin(sleep(MAX_STALE));
    loop {
        state.send_modify(|state| state.phase = Phase::Fetching);
        let result = fetch(&*fetcher, &source).await;
        let next = match &result {
            Ok(_) => {
                failures = 0;
                expiry = Box::pin(sleep(MAX_STALE));
                REFRESH
            }
            Err(error) => {
                let is_kept = state.borrow().keys.is_some();
                tracing::warn!(%error, is_kept, "failed to refresh keys of an issuer; keeping the old ones, if any");
                failures += 1;
                RETRY.saturating_mul(1 << u32::min(failures - 1, 5)).min(REFRESH)
            }
        };
        state.send_modify(|state| {
            state.attempts += 1;
            state.phase = Phase::Resting;
            if let Ok(keys) = result {
                state.keys = Some(Arc::new(keys));
            }
        });
        sleep(MIN_REFETCH).await;
        state.send_modify(|state| state.phase = Phase::Waiting);
        // Every arm may be dropped: a request whose wish is lost sees the fetch that is about to begin.
        tokio::select! {
            () = sleep(next - MIN_REFETCH) => {}
            () = wanted.notified() => {}
            () = &mut expiry => {
                state.send_modify(|state| state.keys = None);
                tracing::error!("keys of an issuer could not be refreshed for {MAX_STALE:?}; its tokens are refused");
                expiry = Box::pin(sleep(MAX_STALE));
            }
        }
    }
}

async fn fetch(fetcher: &dyn Fetcher, source: &KeySource) -> Result<KeySet, RefreshError> {
    match source {
        KeySource::Uri { uri, timeout } => fetch_keys(fetcher, uri, *timeout).await,
        KeySource::Discovery { issuer, timeout } => {
            let uri = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let document = fetch_document(fetcher, &uri, *timeout).await?;
            let jwks_uri = jwks_uri(&document, &uri, issuer)?;
            fetch_keys(fetcher, &jwks_uri, *timeout).await
        }
        // Nothing to fetch: the caller has them, or nobody has.
        KeySource::Inline { .. } | KeySource::Unusable { .. } => std::future::pending().await,
    }
}

/// Address of the keys in a discovery document, which has to be of the issuer (OpenID Connect Discovery 1.0 section 4.3).
fn jwks_uri(document: &[u8], uri: &str, expected: &str) -> Result<String, RefreshError> {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let text = |name| document.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let found = text("issuer").unwrap_or_default();
    if found != expected {
        return Err(RefreshError::OtherIssuer { uri: uri.to_owned(), found, expected: expected.to_owned() });
    }
    text("jwks_uri").ok_or_else(|| RefreshError::NoJwksUri { uri: uri.to_owned() })
}

async fn fetch_keys(fetcher: &dyn Fetcher, uri: &str, wait: Duration) -> Result<KeySet, RefreshError> {
    let document = fetch_document(fetcher, uri, wait).await?;
    let keys = KeySet::parse(&document).map_err(|error| RefreshError::Jwks { uri: uri.to_owned(), error })?;
    for (index, error) in keys.refused() {
        tracing::warn!(uri, key = index, %error, "a key of an issuer is not used");
    }
    Ok(keys)
}

async fn fetch_document(fetcher: &dyn Fetcher, uri: &str, wait: Duration) -> Result<Vec<u8>, RefreshError> {
    match timeout(wait, fetcher.fetch(uri, MAX_JWKS_BYTES)).await {
        Ok(Ok(document)) => Ok(document),
        Ok(Err(error)) => Err(RefreshError::Fetch { uri: uri.to_owned(), error }),
        Err(_) => Err(RefreshError::Timeout { uri: uri.to_owned(), waited: wait }),
    }
}

#[cfg(test)]
#[path = "remote_tests.rs"]
mod tests;
