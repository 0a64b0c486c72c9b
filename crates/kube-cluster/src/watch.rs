//! A watch: changes after a position, until it ends.

use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use serde_json::Value;
use tokio::time::timeout;

use crate::answer::{ApiError, InvalidAnswer, Refusal, WatchEvent};
use crate::api::{Api, Lines};
use crate::changes::Changes;
use crate::decode;
use crate::known::{Known, Shared, is_after};
use crate::path;
use crate::watched::Watched;

/// Seconds after which the API server ends a watch, drawn at random so that the watches of many nodes do not end together.
/// client-go's are 300 to 600.
const SECONDS: std::ops::Range<u64> = 300..600;

/// Longest silence of a watch. An API server sends a bookmark every minute; after two that did not come the connection is
/// treated as dead, and the watch is opened again at its position.
pub(crate) const QUIET: Duration = Duration::from_secs(150);

/// An open watch.
pub(crate) struct Watch {
    lines: Lines,
    /// Version of the last change or bookmark: the next watch continues here.
    pub(crate) position: String,
}

/// Answer to a wait.
pub(crate) enum Step {
    /// Something has arrived; there may be no changes in it.
    Arrived,
    /// The API server has ended the watch.
    Ended,
}

impl Watch {
    pub(crate) async fn open(api: &Api, watched: &Watched, version: &str, position: &str) -> Result<Self, ApiError> {
        let seconds = rand::rng().random_range(SECONDS);
        let lines = api.stream(&path::watch(watched, version, position, seconds)).await?;
        Ok(Self { lines, position: position.to_owned() })
    }

    /// Waits for the next events and adds what they change. After an error those before it count.
    pub(crate) async fn step(
        &mut self,
        watched: &Watched,
        known: &Shared,
        changes: &mut Changes,
    ) -> Result<Step, ApiError> {
        let lines = timeout(QUIET, self.lines.next()).await.unwrap_or(Err(ApiError::Timeout(QUIET)))?;
        let Some(lines) = lines else { return Ok(Step::Ended) };
        for line in lines {
            self.on_line(&line, watched, &mut known.lock(), changes)?;
        }
        Ok(Step::Arrived)
    }

    fn on_line(
        &mut self,
        line: &[u8],
        watched: &Watched,
        known: &mut Known,
        changes: &mut Changes,
    ) -> Result<(), ApiError> {
        let WatchEvent { r#type, object } = serde_json::from_slice(line)?;
        match r#type.as_str() {
            "ADDED" | "MODIFIED" | "DELETED" => {
                let head = decode::head(watched.kind, &object)?;
                // Sent before the position, or twice: applied again it would bring back an older state.
                if !is_after(&head.version, &self.position) {
                    return Ok(());
                }
                self.position.clone_from(&head.version);
                if r#type == "DELETED" {
                    known.on_removed(&head.key, changes);
                } else {
                    known.on_read(head, decode::object(watched.kind, object), SystemTime::now(), changes);
                }
                Ok(())
            }
            "BOOKMARK" => {
                let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                if version.is_empty() {
                    return Err(InvalidAnswer::NoVersion.into());
                }
                if is_after(version, &self.position) {
                    // Bookmarks move the position on while nothing happens to this kind, so that a watch which breaks
                    // need not list again.
                    version.clone_into(&mut self.position);
                }
                Ok(())
            }
            // For instance 410: the position is older than what the API server still has.
            "ERROR" => Err(ApiError::Refused(refusal(object)?)),
            other => Err(InvalidAnswer::UnknownEvent(other.to_owned()).into()),
        }
    }
}

fn refusal(object: Value) -> Result<Refusal, ApiError> {
    Ok(serde_json::from_value(object)?)
}
