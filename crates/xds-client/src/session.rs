//! Messages of one connection: first requests, answers, demands. State that outlives it is in `watched`.

use std::collections::VecDeque;

use prost::Message as _;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::mpsc;

use crate::config::Node;
use crate::demand::Demand;
use crate::metrics;
use crate::progress::{MissingPart, Standing};
use crate::questions::Names;
use crate::watched::Watched;
use proto::snapshot::Mark;

/// Requests that wait for the transport; beyond them nothing is read.
const MAX_WAITING: usize = 64;

pub(crate) struct Session {
    outbound: mpsc::Sender<DeltaDiscoveryRequest>,
    waiting: VecDeque<DeltaDiscoveryRequest>,
    useful: bool,
    names: Names,
}

impl Session {
    pub(crate) fn new(outbound: mpsc::Sender<DeltaDiscoveryRequest>) -> Self {
        Self { outbound, waiting: VecDeque::new(), useful: false, names: Names::default() }
    }

    /// Puts the first request of every type into the stream. They must be there before the call is made: some servers
    /// answer nothing, not even headers, before they are asked something.
    pub(crate) fn greet(&mut self, node: &Node, types: &mut [Watched]) {
        for watched in types {
            // Every type names the node: a server may keep its types apart, and the first request is the one that it
            // reads.
            let request = DeltaDiscoveryRequest { node: Some(node.message()), ..watched.first_request() };
            if let Err(mpsc::error::TrySendError::Full(request)) = self.outbound.try_send(request) {
                self.waiting.push_back(request);
            }
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    pub(crate) fn has_requests(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Has the server said anything?
    pub(crate) fn is_useful(&self) -> bool {
        self.useful
    }

    /// Does the server answer for single names?
    pub(crate) fn names(&self) -> Names {
        self.names
    }

    /// Hands one request to the transport; false when the stream is closed. Dropping it loses no request.
    pub(crate) async fn flush(&mut self) -> bool {
        // Reserved first, so that a dropped future has not taken the request out of the queue.
        let Ok(permit) = self.outbound.reserve().await else { return false };
        if let Some(request) = self.waiting.pop_front() {
            permit.send(request);
        }
        true
    }

    /// Applies a response and queues the answer. Returns the type, if it is watched, and how far it has come.
    ///
    /// # Errors
    /// When a part of a snapshot is missing: the stream must end.
    pub(crate) fn respond(
        &mut self,
        types: &mut [Watched],
        response: DeltaDiscoveryResponse,
    ) -> Result<Option<(String, Standing)>, MissingPart> {
        if !self.useful {
            self.useful = true;
            self.decide_names(types, &response);
        }
        metrics::received(&response.type_url, response.encoded_len());
        let Some(watched) = types.iter_mut().find(|watched| watched.type_url == response.type_url) else {
            // Answered all the same: a server that waits for the answer of each response would send nothing more.
            tracing::error!(type_url = response.type_url, "received a type that was not requested; rejecting it");
            self.waiting.push_back(DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                ..DeltaDiscoveryRequest::default()
            });
            return Ok(None);
        };
        let (resources, removed) = (response.resources.len(), response.removed_resources.len());
        let (answer, standing) = watched.respond(response)?;
        match &answer.error_detail {
            None => {
                tracing::debug!(type_url = watched.type_url, resources, removed, ?standing, "response applied");
            }
            Some(error) => {
                let reasons = &error.message;
                tracing::error!(type_url = watched.type_url, resources, removed, reasons, "resources rejected");
            }
        }
        self.waiting.push_back(answer);
        let type_url = watched.type_url.clone();
        self.ask_questions(types);
        Ok(Some((type_url, standing)))
    }

    /// The first response of a stream shows what kind of server it comes from.
    fn decide_names(&mut self, types: &mut [Watched], response: &DeltaDiscoveryResponse) {
        let is_marked = response.system_version_info.parse::<Mark>().is_ok();
        self.names = if is_marked { Names::Supported } else { Names::Unsupported };
        for watched in types {
            watched.decide_names(self.names);
        }
    }

    /// Asks for resources. A type that is not known here has nobody who would answer: its waiter sees that at once.
    pub(crate) fn demand(&mut self, types: &mut [Watched], demands: impl Iterator<Item = Demand>) {
        for Demand { type_url, name, waiter } in demands {
            match types.iter_mut().find(|watched| watched.type_url == type_url) {
                Some(watched) => self.waiting.extend(watched.demand(name, waiter)),
                None => tracing::error!(type_url, name, "request for a type that is not subscribed"),
            }
        }
        self.ask_questions(types);
    }

    /// Questions of the same moment go out in one request.
    fn ask_questions(&mut self, types: &mut [Watched]) {
        self.waiting.extend(types.iter_mut().filter_map(Watched::next_question));
    }
}
