//! What a worker keeps besides what the path needs: its pods with their listeners, and the other workers.

use super::Handle;
use crate::inpod::Pod;
use crate::proxy::{PodContext, Tasks, WorkerContext};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::watch;

/// A worker, on its thread.
pub(super) struct Worker {
    pub(super) index: usize,
    pub(super) handles: Arc<[Handle]>,
    pub(super) context: Rc<WorkerContext>,
    /// By serial.
    pub(super) pods: RefCell<HashMap<u64, Rc<ServedPod>>>,
    pub(super) draining: Cell<bool>,
    /// Told that this worker is of no more use.
    pub(super) lost: watch::Sender<Option<usize>>,
}

/// One pod on one worker.
pub(super) struct ServedPod {
    pub(super) context: Rc<PodContext>,
    /// Accept loops; only on the worker that the pod belongs to.
    pub(super) listeners: Tasks,
}

impl Worker {
    /// This worker as others see it.
    pub(super) fn handle(&self) -> &Handle {
        &self.handles[self.index]
    }

    /// The part of `pod` on this worker, made when there is none.
    pub(super) fn pod(&self, pod: &Arc<Pod>) -> Rc<ServedPod> {
        let mut pods = self.pods.borrow_mut();
        let served = pods.entry(pod.serial).or_insert_with(|| {
            let context = Rc::new(PodContext::new(self.context.clone(), pod.clone()));
            Rc::new(ServedPod { context, listeners: Tasks::default() })
        });
        served.clone()
    }

    /// All pods on this worker.
    pub(super) fn pods(&self) -> Vec<Rc<ServedPod>> {
        self.pods.borrow().values().cloned().collect()
    }
}
