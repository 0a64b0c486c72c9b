//! Pages about the server itself, for tools: state-of-the-world discovery of type `istio.io/debug` and those below it. Proxies
//! do not ask for them, and nothing else is served this way.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use identity::Caller;
use prost_types::Any;
use proto::DEBUG_TYPE;
use proto::discovery::{ControlPlane, DiscoveryRequest, DiscoveryResponse};
use runtime::drain;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

/// Longest pause between two requests of a tool. It asks once and leaves.
const IDLE: Duration = Duration::from_secs(60);

/// A page that a tool asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// `istio.io/debug/PAGE`, which has messages of its own: `syncz` is what `istioctl proxy-status` asks.
    Typed(&'a str),
    /// `istio.io/debug` with this name, which is answered with JSON.
    Named(&'a str),
}

/// Resources of a page, or why the caller does not get them.
pub type Pages = Arc<dyn Fn(&Caller, Question<'_>) -> Result<Vec<Any>, Status> + Send + Sync>;

/// Pages, and who answers.
#[derive(Clone)]
pub struct Debug {
    pub pages: Pages,
    /// Identifier in every answer. Istio's tools expect a JSON object with `Component`, `ID` and `Info`.
    pub control_plane: String,
}

impl fmt::Debug for Debug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debug").field("control_plane", &self.control_plane).finish_non_exhaustive()
    }
}

pub(crate) type Outbound = mpsc::Sender<Result<DiscoveryResponse, Status>>;

/// Answers requests until the tool leaves, is silent, or asks for what is not served.
pub(crate) async fn serve(
    debug: Debug,
    caller: Caller,
    mut requests: Streaming<DiscoveryRequest>,
    responses: Outbound,
    mut drain: drain::Watch,
) {
    for nonce in 1_u64.. {
        let request = loop {
            // Both may be dropped: nothing of the stream is lost that would be answered.
            let request = tokio::select! {
                request = timeout(IDLE, requests.message()) => request,
                _ = drain.started() => return,
            };
            match request {
                // An acknowledgement needs no answer.
                Ok(Ok(Some(request))) if request.response_nonce.is_empty() => break request,
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            }
        };
        let answer = answer(&debug, &caller, request, nonce);
        let is_over = answer.is_err();
        if responses.send(answer).await.is_err() || is_over {
            return;
        }
    }
}

fn answer(debug: &Debug, caller: &Caller, request: DiscoveryRequest, nonce: u64) -> Result<DiscoveryResponse, Status> {
    let question = match request.type_url.strip_prefix(DEBUG_TYPE) {
        Some("") => request.resource_names.first().map(|name| Question::Named(name)),
        Some(page) => page.strip_prefix('/').map(Question::Typed),
        None => None,
    };
    let Some(question) = question else {
        let message = format!("{:?} is served by delta discovery only (DeltaAggregatedResources)", request.type_url);
        return Err(Status::unimplemented(message));
    };
    let resources = (debug.pages)(caller, question)?;
    Ok(DiscoveryResponse {
        resources,
        nonce: nonce.to_string(),
        control_plane: Some(ControlPlane { identifier: debug.control_plane.clone() }),
        type_url: request.type_url,
        ..DiscoveryResponse::default()
    })
}
