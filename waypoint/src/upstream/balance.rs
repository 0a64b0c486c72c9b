//! Choice of an endpoint among those of a service.

use std::cell::Cell;
use std::rc::Rc;

use model::Text;
use route::retry::HOST_SELECTION_ATTEMPTS;

use super::Upstream;

/// Endpoints by turns.
#[derive(Debug, Default)]
pub struct RoundRobin(Cell<usize>);

impl RoundRobin {
    /// Next endpoint; one of `avoid` (uids) only if a few draws find no other. `None` without any endpoint.
    pub fn choose<'a>(&self, upstreams: &'a [Rc<Upstream>], avoid: &[Text]) -> Option<&'a Rc<Upstream>> {
        let draws = if avoid.is_empty() { 1 } else { HOST_SELECTION_ATTEMPTS };
        let mut chosen = None;
        for _ in 0..draws {
            chosen = Some(self.next(upstreams)?);
            if chosen.is_some_and(|upstream| !avoid.contains(&upstream.endpoint.workload.uid)) {
                break;
            }
        }
        chosen
    }

    fn next<'a>(&self, upstreams: &'a [Rc<Upstream>]) -> Option<&'a Rc<Upstream>> {
        let turn = self.0.get();
        self.0.set(turn.wrapping_add(1));
        upstreams.get(turn.checked_rem(upstreams.len())?)
    }
}
