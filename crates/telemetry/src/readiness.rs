//! Is the program fit for traffic? A list of tasks that must be done, and probes that must answer.

use std::{collections::BTreeMap, fmt, future::Future, pin::Pin, sync::Arc};

use parking_lot::Mutex;

use crate::http::{Request, Response, Router, text};

type Answer = Pin<Box<dyn Future<Output = bool> + Send>>;
type Probe = Arc<dyn Fn() -> Answer + Send + Sync>;

/// Tasks that are still to be done. Clones share it.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Tasks by name, with how many of that name are open.
    tasks: BTreeMap<&'static str, usize>,
    probes: Vec<(&'static str, Probe)>,
}

/// A task that is not done. Dropping it means done.
#[derive(Debug)]
#[must_use = "dropping a task says that it is done"]
pub struct Task {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Nothing pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until the returned task is dropped.
    pub fn task(&self, name: &'static str) -> Task {
        // Counted: several parts of a program may wait for a thing of one name.
        *self.0.lock().tasks.entry(name).or_default() += 1;
        Task { name, readiness: self.clone() }
    }

    /// Not ready whenever `probe` answers false. It must bound its own time.
    pub fn probe<F>(&self, name: &'static str, probe: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.0.lock().probes.push((name, Arc::new(move || Box::pin(probe()))));
    }

    /// Names of what is not done and of probes that failed; empty: ready.
    pub async fn pending(&self) -> Vec<&'static str> {
        // Copied out of the lock: probes take up to a second.
        let (mut pending, probes) = {
            let inner = self.0.lock();
            (inner.tasks.keys().copied().collect::<Vec<_>>(), inner.probes.clone())
        };
        for (name, probe) in probes {
            if !probe().await {
                pending.push(name);
            }
        }
        pending
    }

    /// Adds `GET /healthz/ready` to a router.
    #[must_use]
    pub fn routes(&self, router: Router) -> Router {
        let readiness = self.clone();
        router.get("/healthz/ready", move |_: Request| {
            let readiness = readiness.clone();
            async move { readiness.answer().await }
        })
    }

    async fn answer(&self) -> Response {
        let pending = self.pending().await;
        if pending.is_empty() {
            text(200, "ready\n")
        } else {
            // Istio's status for this; the kubelet takes all but 200 to 399 as a failure.
            text(500, format!("not ready, pending: {}\n", pending.join(", ")))
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Readiness").field(&self.0.lock().tasks).finish()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut inner = self.readiness.0.lock();
        if let Some(open) = inner.tasks.get_mut(self.name) {
            *open -= 1;
            if *open == 0 {
                inner.tasks.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(readiness: &Readiness) -> (u16, String) {
        let router = readiness.routes(Router::new());
        let request = ::http::Request::get("/healthz/ready").body(bytes::Bytes::new()).unwrap();
        let response = router.answer(request).await;
        (response.status().as_u16(), crate::http::body_text(response).await)
    }

    #[tokio::test]
    async fn ready_once_every_task_is_done() {
        let readiness = Readiness::new();
        let state = readiness.task("state manager");
        let proxy = readiness.task("proxy");

        assert_eq!(get(&readiness).await, (500, "not ready, pending: proxy, state manager\n".into()));
        drop(state);
        drop(proxy);
        assert_eq!(get(&readiness).await, (200, "ready\n".into()));
    }

    #[tokio::test]
    async fn a_task_can_be_armed_again() {
        let readiness = Readiness::new();
        drop(readiness.task("workload proxy manager"));

        let again = readiness.task("workload proxy manager");

        assert_eq!(get(&readiness).await.0, 500);
        drop(again);
        assert_eq!(get(&readiness).await.0, 200);
    }

    #[tokio::test]
    async fn a_probe_that_fails_makes_it_unready() {
        let readiness = Readiness::new();
        readiness.probe("workers", || async { false });

        assert_eq!(get(&readiness).await, (500, "not ready, pending: workers\n".into()));
    }
}
