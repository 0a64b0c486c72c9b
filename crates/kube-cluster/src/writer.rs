//! Order of writes: the newest patch of each object, one request at a time for each, at a limited rate, and only while this
//! replica leads.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube_types::{ObjectRef, Patch};
use runtime::Backoff;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::answer::ApiError;
use crate::api::Api;
use crate::election::Leadership;
use crate::known::{Versions, is_after};
use crate::limit::Limit;
use crate::reader::RECHECK;
use crate::status::{Owned, StatusConfig, WriteError};
use crate::verb::Verb;
use crate::write::{Outcome, Request, checks_uid};

/// Objects that are written at a time.
const IN_FLIGHT: usize = 8;

/// Writes of a program in the long run: 50 a second; and at once, for instance when a node's pods are enrolled.
const INTERVAL: Duration = Duration::from_millis(20);
const BURST: u32 = 100;

/// Pauses after failures.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Time between two reviews of what was written. Another writer may have replaced a list as a whole; one that does so again and
/// again costs no more than a write in this time.
const REVIEW: Duration = Duration::from_secs(600);

/// Answer to a caller.
type Reply = oneshot::Sender<Result<(), WriteError>>;

/// A write that a caller asks for.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) key: ObjectRef,
    pub(crate) patch: Option<Patch>,
    pub(crate) reply: Reply,
}

/// A patch that is to be written.
#[derive(Debug)]
struct Job {
    patch: Option<Patch>,
    /// Nobody waits any more for one that is late.
    reply: Option<Reply>,
    due: Instant,
}

/// A patch that an object has.
#[derive(Debug)]
struct Written {
    patch: Patch,
    /// resourceVersion of the object with it.
    version: String,
}

pub(crate) struct Writer {
    api: Api,
    manager: String,
    owned: Arc<Owned>,
    versions: Versions,
    leadership: Option<Leadership>,
    limit: Limit,
    jobs: HashMap<ObjectRef, Job>,
    written: HashMap<ObjectRef, Written>,
    /// Jobs whose request is under way.
    in_flight: HashMap<ObjectRef, Job>,
    /// Objects of the requests, by task: one that panics says nothing itself.
    tasks: HashMap<task::Id, ObjectRef>,
    requests: JoinSet<Outcome>,
    backoff: Backoff,
    /// Text of the last failure, while nothing has succeeded since.
    failing: Option<String>,
    /// Time of the next review.
    review: Instant,
}

impl Writer {
    pub(crate) fn new(config: StatusConfig) -> Self {
        let StatusConfig { server, manager, kinds: _, owned, versions, leadership } = config;
        Self {
            api: Api::new(server.client()),
            manager,
            owned: Arc::new(owned),
            versions,
            leadership,
            limit: Limit::new(INTERVAL, BURST),
            jobs: HashMap::new(),
            written: HashMap::new(),
            in_flight: HashMap::new(),
            tasks: HashMap::new(),
            requests: JoinSet::new(),
            backoff: Backoff::new(PAUSE_MIN, PAUSE_MAX),
            failing: None,
            review: Instant::now() + REVIEW,
        }
    }

    /// Runs until nobody can ask for a write any more; what waits then is dropped.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        let mut election = self.leadership.clone();
        loop {
            let next = self.start_due();
            let review = self.review;
            let waits_for_leadership = !self.leads() && !self.jobs.is_empty();
            // Every arm is cancel-safe.
            tokio::select! {
                command = queue.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(done) = self.requests.join_next_with_id() => match done {
                    Ok((task, outcome)) => {
                        if let Some((key, job)) = self.take_in_flight(task) {
                            self.on_outcome(key, job, outcome);
                        }
                    }
                    Err(error) => self.on_panic(&error),
                },
                // `select!` makes the future also when its condition is false, hence the unused time.
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = sleep_until(review) => self.review(),
                leads = acquired(&mut election), if waits_for_leadership => {
                    if leads {
                        // Everything that waited is due now, and every other replica's watch hears of each write.
                        self.limit.exhaust(Instant::now());
                    } else {
                        // The election has ended, and asking again would answer at once for ever.
                        election = None;
                    }
                }
            }
        }
    }

    fn leads(&self) -> bool {
        self.leadership.as_ref().is_none_or(Leadership::is_leading)
    }

    fn on_command(&mut self, Command { key, patch, reply }: Command) {
        let mut reply = Some(reply);
        if !self.leads() {
            // The leader writes the same; this replica would if it led.
            answer(&mut reply, Ok(()));
        } else if let Some(failure) = &self.failing {
            // Without this every caller would wait while the API server is away.
            // The job itself stays and is tried.
            answer(&mut reply, Err(WriteError::Late(failure.clone())));
        }
        let job = Job { patch, reply, due: Instant::now() };
        if let Some(mut replaced) = self.jobs.insert(key, job) {
            // Replaced by a newer patch of the same object: what the first caller wanted is no longer wanted.
            answer(&mut replaced.reply, Ok(()));
        }
    }

    /// Looks again at objects that have changed since their conditions were written.
    fn review(&mut self) {
        self.review = Instant::now() + REVIEW;
        if !self.leads() {
            return;
        }
        let is_changed = |key: &ObjectRef, written: &Written| {
            let is_later = |seen: String| is_after(&seen, &written.version);
            !checks_uid(key.kind) && !self.in_flight.contains_key(key) && self.versions.of(key).is_some_and(is_later)
        };
        let changed = self.written.iter().filter(|(key, written)| is_changed(key, written));
        let changed: Vec<_> = changed.map(|(key, written)| (key.clone(), written.patch.clone())).collect();
        for (key, patch) in changed {
            // A newer patch, if there is one, is the one that counts.
            self.jobs.entry(key).or_insert_with(|| Job { patch: Some(patch), reply: None, due: Instant::now() });
        }
    }

    /// Sends what is due, and returns the time of the next job.
    fn start_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        if !self.leads() {
            self.jobs.values_mut().for_each(|job| answer(&mut job.reply, Ok(())));
            // There is no object to clear, as far as this program's source knows.
            self.jobs.retain(|key, job| job.patch.is_some() || self.versions.of(key).is_some());
            return None;
        }
        let is_due = |key: &ObjectRef, job: &Job| job.due <= now && !self.in_flight.contains_key(key);
        let due = self.jobs.iter().filter(|(key, job)| is_due(key, job));
        let due: Vec<_> = due.map(|(key, _)| key.clone()).collect();
        for key in due {
            if self.in_flight.len() == IN_FLIGHT {
                // The end of a request wakes the task.
                return None;
            }
            let Some(mut job) = self.jobs.remove(&key) else { continue };
            if self.is_written(&key, &job) {
                answer(&mut job.reply, Ok(()));
                continue;
            }
            if let Err(later) = self.limit.take(now) {
                self.jobs.insert(key, job);
                return Some(later);
            }
            self.send(key, job);
        }
        // A job whose object is in flight is looked at when that request ends.
        self.jobs.iter().filter(|(key, _)| !self.in_flight.contains_key(key)).map(|(_, job)| job.due).min()
    }

    /// Returns true if the object has the patch already: it was written, and nobody has changed the object since.
    fn is_written(&self, key: &ObjectRef, job: &Job) -> bool {
        let Some(written) = self.written.get(key).filter(|written| Some(&written.patch) == job.patch.as_ref()) else {
            return false;
        };
        // Of an object that is not read nobody knows.
        self.versions.of(key).is_some_and(|seen| !is_after(&seen, &written.version))
    }

    fn send(&mut self, key: ObjectRef, job: Job) {
        let request = Request::new(&key, job.patch.clone(), &self.manager, &self.owned);
        let (api, leadership) = (self.api.clone(), self.leadership.clone());
        let started = self.requests.spawn(async move { request.send(&api, leadership.as_ref()).await });
        self.tasks.insert(started.id(), key.clone());
        self.in_flight.insert(key, job);
    }

    fn take_in_flight(&mut self, task: task::Id) -> Option<(ObjectRef, Job)> {
        let key = self.tasks.remove(&task)?;
        self.in_flight.remove_entry(&key)
    }

    /// A defect of this program, met with this object or its answer: the others are written, and this one is tried again.
    fn on_panic(&mut self, error: &JoinError) {
        let Some((key, mut job)) = self.take_in_flight(error.id()) else { return };
        tracing::error!(object = %key, %error, code = "status_write_panicked", "a write of a status panicked; trying again");
        metrics::counter!("strake_api_status_writes_total", "outcome" => "panicked").increment(1);
        answer(&mut job.reply, Err(WriteError::Late(format!("the write of {key} panicked"))));
        job.due = Instant::now() + PAUSE_MAX;
        self.put_back(key, job);
    }

    fn on_outcome(&mut self, key: ObjectRef, mut job: Job, outcome: Outcome) {
        metrics::counter!("strake_api_status_writes_total", "outcome" => outcome.name()).increment(1);
        match outcome {
            Outcome::Written { version } | Outcome::Same { version } => {
                self.works();
                match job.patch {
                    Some(patch) => self.written.insert(key, Written { patch, version }),
                    None => self.written.remove(&key),
                };
                answer(&mut job.reply, Ok(()));
            }
            Outcome::Gone | Outcome::Superseded => {
                self.works();
                self.written.remove(&key);
                answer(&mut job.reply, Ok(()));
            }
            // Not tried again: the API server would refuse the same patch again.
            Outcome::Refused(verb, error) => {
                self.works();
                let text = explain(verb, &error, &key);
                tracing::warn!(object = %key, "{text}");
                answer(&mut job.reply, Err(WriteError::Refused(text)));
            }
            Outcome::NotLeading => self.put_back(key, job),
            Outcome::Failed(verb, error) => {
                job.due = Instant::now() + self.on_failure(verb, &error, &key);
                self.put_back(key, job);
            }
        }
    }

    fn put_back(&mut self, key: ObjectRef, mut job: Job) {
        // A newer patch replaces this one.
        match self.jobs.contains_key(&key) {
            true => answer(&mut job.reply, Ok(())),
            false => {
                self.jobs.insert(key, job);
            }
        }
    }

    fn works(&mut self) {
        self.backoff.reset();
        if self.failing.take().is_some() {
            tracing::info!("statuses are written again");
        }
    }

    /// Returns the pause before the next attempt. A conflict says nothing about the API server.
    fn on_failure(&mut self, verb: Verb, error: &ApiError, key: &ObjectRef) -> Duration {
        if error.is_conflict() {
            return PAUSE_MIN;
        }
        // The kind is not served now; other kinds may be.
        if error.is_absent() {
            tracing::debug!("{}", explain(verb, error, key));
            return RECHECK;
        }
        let text = explain(verb, error, key);
        if self.failing.is_none() {
            tracing::warn!("{text}; trying again");
        }
        self.failing = Some(text);
        self.backoff.pause().max(error.retry_after().unwrap_or_default().min(PAUSE_MAX))
    }
}

fn explain(verb: Verb, error: &ApiError, key: &ObjectRef) -> String {
    error.explain(verb, &format!("{}/status of {}", key.kind.plural(), key.path()))
}

/// A caller that has gone needs no answer.
fn answer(reply: &mut Option<Reply>, result: Result<(), WriteError>) {
    if let Some(reply) = reply.take() {
        let _: Result<(), Result<(), WriteError>> = reply.send(result);
    }
}

async fn acquired(election: &mut Option<Leadership>) -> bool {
    match election {
        Some(election) => election.acquired().await,
        None => std::future::pending().await,
    }
}
