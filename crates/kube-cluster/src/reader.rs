//! Reader of one kind: lists it, watches it, and tries again for ever. A failure changes nothing but what is reported.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use kube_types::SourceProblem;
use runtime::Backoff;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::answer::{ApiError, Resources};
use crate::api::Api;
use crate::changes::Changes;
use crate::known::Shared;
use crate::list::list;
use crate::liveness::{Liveness, PATIENCE};
use crate::meter::Meter;
use crate::path;
use crate::problems;
use crate::verb::Verb;
use crate::watch::{Step, Watch};
use crate::watched::Watched;

/// Pauses between attempts. An API server that restarts meets hundreds of nodes.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Longest pause that the API server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// Time between two looks for a kind that is not served.
pub(crate) const RECHECK: Duration = Duration::from_secs(30);

/// Watches in a row that break at the same place before everything is listed anew: the list shows what the watch cannot.
const STUCK: u32 = 3;

/// The source was dropped.
pub(crate) struct Closed;

/// The kind of a failure that is reported, so that a text which differs each time is not reported each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reported {
    verb: Verb,
    code: Option<u16>,
}

/// Number of the reader in its source, and what changed.
pub(crate) type Batch = (usize, Changes);

pub(crate) struct Reader {
    index: usize,
    watched: Watched,
    api: Api,
    batches: mpsc::Sender<Batch>,
    liveness: Liveness,
    /// Version of the group that the API server serves.
    group_version: &'static str,
    known: Shared,
    meter: Meter,
    /// Last time at which everything that is known was up to date.
    last: Option<SystemTime>,
    backoff: Backoff,
    failing_since: Option<Instant>,
    reported: Option<Reported>,
}

impl Reader {
    pub(crate) fn new(
        index: usize,
        watched: Watched,
        api: Api,
        batches: mpsc::Sender<Batch>,
        liveness: Liveness,
        known: Shared,
    ) -> Self {
        let (group_version, meter) = (path::preferred(watched.kind), Meter::new(watched.kind));
        Self {
            index,
            watched,
            api,
            batches,
            liveness,
            group_version,
            known,
            meter,
            last: None,
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            failing_since: None,
            reported: None,
        }
    }

    /// Runs until the source is dropped.
    pub(crate) async fn run(mut self) {
        let Err(Closed) = self.follow().await;
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Closed> {
        loop {
            let position = self.list().await?;
            self.watch(position).await?;
        }
    }

    /// Lists until a list is complete, and returns its position.
    async fn list(&mut self) -> Result<String, Closed> {
        loop {
            match list(&self.api, &self.watched, self.group_version, &self.known).await {
                Ok(listing) => {
                    let position = listing.position.clone();
                    let mut changes = self.first_list();
                    let now = SystemTime::now();
                    self.known.lock().on_list(listing, now, &mut changes);
                    self.up_to_date(now);
                    self.meter.listed();
                    self.send(changes).await?;
                    return Ok(position);
                }
                // Kinds of Kubernetes itself are always served.
                Err(error) if error.is_absent() && self.watched.kind.group().contains('.') => self.look_for().await?,
                Err(error) => self.failed(Verb::List, &error).await?,
            }
        }
    }

    /// No changes yet, marked if they complete the first list.
    fn first_list(&mut self) -> Changes {
        let is_first_list = self.last.is_none();
        self.last.get_or_insert_with(SystemTime::now);
        Changes::of_list(is_first_list)
    }

    /// Looks for a version of the kind that is served, until there is one. Meanwhile there are no objects, or nothing is known
    /// of them: an API server that starts does not serve custom resources at once.
    async fn look_for(&mut self) -> Result<(), Closed> {
        loop {
            match self.served_version().await {
                Ok(Some(version)) => {
                    // An API server that starts may name a kind before it serves it.
                    if std::mem::replace(&mut self.group_version, version) == version {
                        sleep(self.backoff.pause()).await;
                    }
                    return Ok(());
                }
                Ok(None) => {
                    // Spread, as hundreds of agents may wait for the same definition.
                    let pause = RECHECK.mul_f64(0.8 + 0.2 * rand::random::<f64>());
                    self.liveness.idle(pause);
                    // A kind that is not served counts as listed: the source would never be in sync otherwise.
                    let mut changes = self.first_list();
                    let absent = problems::absent(&self.watched, self.known.lock().in_force());
                    self.report(&mut changes, Reported { verb: Verb::Get, code: Some(404) }, absent);
                    // The API server has answered.
                    self.failing_since = None;
                    self.send(changes).await?;
                    sleep(pause).await;
                }
                Err(error) => self.failed(Verb::Get, &error).await?,
            }
        }
    }

    async fn served_version(&self) -> Result<Option<&'static str>, ApiError> {
        for version in self.watched.kind.versions() {
            match self.api.get::<Resources>(&path::group(self.watched.kind, version)).await {
                Ok(group) if group.resources.iter().any(|served| served.name == self.watched.kind.plural()) => {
                    return Ok(Some(version));
                }
                // The group is served, and the definition of this kind is not installed.
                Ok(_) => {}
                // Not this version; the next one may be.
                Err(error) if error.is_absent() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Watches from a position until a new list is needed.
    async fn watch(&mut self, mut position: String) -> Result<(), Closed> {
        let mut stuck = 0;
        loop {
            let before = position.clone();
            let Err(error) = self.watch_once(&mut position).await? else {
                self.liveness.interrupted();
                self.meter.watch_ended(None);
                // A server that ends every watch at once is not asked in a loop.
                if position == before {
                    sleep(self.backoff.pause()).await;
                }
                continue;
            };
            self.liveness.interrupted();
            self.meter.watch_ended(Some(&error));
            // Known objects may be gone with their kind; the list finds out.
            if error.is_expired() || error.is_absent() {
                tracing::info!(kind = %self.watched.kind, position, "the API server has forgotten the position of a watch; listing again");
                sleep(self.backoff.pause()).await;
                return Ok(());
            }
            let is_stuck = position == before && matches!(error, ApiError::Invalid(_));
            stuck = if is_stuck { stuck + 1 } else { 0 };
            self.failed(Verb::Watch, &error).await?;
            if stuck == STUCK {
                tracing::warn!(kind = %self.watched.kind, position, %error, "a watch breaks at the same event again and again; listing instead");
                return Ok(());
            }
        }
    }

    /// Opens a watch and follows it to its end. `position` is that of the last event then.
    async fn watch_once(&mut self, position: &mut String) -> Result<Result<(), ApiError>, Closed> {
        let opened = Watch::open(&self.api, &self.watched, self.group_version, position).await;
        let mut watch = match opened {
            Ok(watch) => watch,
            Err(error) => return Ok(Err(error)),
        };
        self.liveness.open();
        self.works().await?;
        let opened = Instant::now();
        loop {
            let mut changes = Changes::default();
            let step = watch.step(&self.watched, &self.known, &mut changes).await;
            // Only progress counts as success: a watch that opens and breaks at once would be opened in a loop
            // otherwise.
            if *position != watch.position || opened.elapsed() >= PATIENCE {
                position.clone_from(&watch.position);
                self.backoff.reset();
            }
            // Before the error is looked at: events that came before it count.
            self.send(changes).await?;
            match step {
                Ok(Step::Arrived) => self.up_to_date(SystemTime::now()),
                Ok(Step::Ended) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// All that is known is the state of the API server at this time.
    fn up_to_date(&mut self, now: SystemTime) {
        self.last = Some(now);
        self.meter.heard(now);
        let known = self.known.lock();
        self.meter.objects(known.in_force(), known.unreadable());
    }

    /// A watch is open: problems with the kind as a whole are over.
    async fn works(&mut self) -> Result<(), Closed> {
        self.failing_since = None;
        if self.reported.take().is_none() {
            return Ok(());
        }
        let mut changes = Changes::default();
        changes.report(problems::place(&self.watched), Vec::new());
        self.send(changes).await
    }

    /// Reports a failure, at once when waiting does not help and else when it lasts, and pauses.
    async fn failed(&mut self, verb: Verb, error: &ApiError) -> Result<(), Closed> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        tracing::debug!(kind = %self.watched.kind, "{}", error.explain(verb, &problems::resource(&self.watched)));
        // A restart of the API server takes seconds, and nobody needs to hear of it. A refused permission stays until
        // somebody acts.
        if error.is_denied() || since.elapsed() >= PATIENCE {
            let problem = problems::failed(&self.watched, verb, error, self.last);
            let mut changes = Changes::default();
            self.report(&mut changes, Reported { verb, code: error.code() }, problem);
            self.send(changes).await?;
        }
        // An overloaded API server says how long it wants to be left alone; bounded, as a wrong answer must not silence
        // a reader for a day.
        let asked = error.retry_after().unwrap_or_default().min(RETRY_AFTER_MAX);
        sleep(self.backoff.pause().max(asked)).await;
        Ok(())
    }

    fn report(&mut self, changes: &mut Changes, sort: Reported, problem: SourceProblem) {
        // Texts differ in ports and times; the same failure is reported once.
        if self.reported.replace(sort) != Some(sort) {
            let place: PathBuf = problems::place(&self.watched);
            changes.report(place, vec![problem]);
        }
    }

    /// Waits while the consumer is slow: then the API server ends the watch, and nothing is lost but time.
    async fn send(&mut self, changes: Changes) -> Result<(), Closed> {
        if changes.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let sent = self.batches.send((self.index, changes)).await.map_err(|_| Closed);
        self.meter.delivered(began.elapsed());
        sent
    }
}
