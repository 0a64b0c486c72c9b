//! The end of a stream that has become too old, or whose caller has lost the right to it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::Duration;

use tls::control_plane::{ShownCredential, Validity};
use tokio::time::Instant;

/// Time that a check of a credential may take, after which it says nothing.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams that the server has ended, by reason.
const ENDED: &str = "strake_control_streams_ended_total";

/// Bounds on the age of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// Age at which a stream ends in good order; the client comes back at once with a fresh token. Up to a tenth is added
    /// at random, so that the proxies of a mesh do not come back together. While tokens cannot be checked no stream ends.
    pub max_age: Duration,
    /// Time between two checks of the token that a stream began with.
    pub check_every: Duration,
}

impl Default for Ages {
    /// 30 minutes, as Istio's control plane; checks every 15 seconds.
    fn default() -> Self {
        Self { max_age: Duration::from_secs(30 * 60), check_every: Duration::from_secs(15) }
    }
}

/// Watches the age and the credential of one stream.
pub(crate) struct Watch {
    ages: Ages,
    credential: Option<ShownCredential>,
    ends: Instant,
    next_check: Instant,
    /// The last check said nothing.
    is_unchecked: bool,
}

/// Reason for the end of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The stream has reached its age; nothing is wrong with it.
    Age,
    /// Its token is no longer good.
    Token(String),
}

impl Watch {
    pub(crate) fn new(ages: Ages, credential: Option<ShownCredential>) -> Self {
        let now = Instant::now();
        let jitter = ages.max_age.mul_f64(random() / 10.0);
        Self {
            ages,
            credential,
            ends: now + ages.max_age + jitter,
            next_check: now + ages.check_every,
            is_unchecked: false,
        }
    }

    /// Waits until the stream must end. Dropping it is safe: what is due stays due.
    pub(crate) async fn ended(&mut self) -> Reason {
        loop {
            // Whoever cannot check this token cannot check that of the next stream: the client would have none until then.
            let is_due = self.is_unchecked || self.next_check < self.ends;
            let Some(credential) = self.credential.clone().filter(|_| is_due) else {
                tokio::time::sleep_until(self.ends).await;
                return ended(Reason::Age);
            };
            tokio::time::sleep_until(self.next_check).await;
            let checked = tokio::time::timeout(CHECK_TIMEOUT, credential.0.check()).await;
            // From the end of the check, so that a slow API server is not asked without a pause.
            self.next_check = Instant::now() + self.ages.check_every;
            match checked.unwrap_or_else(|_| Validity::Unknown(format!("no answer within {CHECK_TIMEOUT:?}"))) {
                Validity::Valid => self.is_unchecked = false,
                Validity::Revoked(reason) => return ended(Reason::Token(reason)),
                // A check that failed proves nothing about the token. Ending all streams then would cut off the mesh
                // with the API server.
                Validity::Unknown(reason) => {
                    self.is_unchecked = true;
                    metrics::counter!("strake_control_token_checks_failed_total").increment(1);
                    tracing::warn!(
                        reason,
                        code = "token_not_checked",
                        "failed to check the token of a discovery stream again; the stream stays open"
                    );
                }
            }
        }
    }
}

/// A number from 0 to 1.
pub(crate) fn random() -> f64 {
    // No generator of random numbers is linked for this: the keys of a hasher are random, too.
    (RandomState::new().hash_one(()) % 1000) as f64 / 1000.0
}

fn ended(reason: Reason) -> Reason {
    let label = match &reason {
        Reason::Age => "max_age",
        Reason::Token(_) => "token",
    };
    metrics::counter!(ENDED, "reason" => label).increment(1);
    reason
}
