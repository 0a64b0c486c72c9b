//! The kubelet's question before a pod's first process starts, which a CNI plugin asks in a cluster: the node agent enrols the
//! pod, or the pod does not start. Which pods are asked for is the supervisor's decision; see [`Setup::selected`].

use std::{io, path::Path, time::Duration};

use cni::{
    AskError, MAX_ANSWER_BYTES,
    http::{Answer, Malformed},
};
use contract::cni::{AddRequest, AddResponse, IpConfig, Outcome, PLUGIN_TIMEOUT};
use runtime::Backoff;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    select,
    sync::watch,
    time::{sleep, timeout},
};

use super::{Setup, state::Shared, stopped};

/// Pauses between two questions. A kubelet's are longer; tests wait for these.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Reason why a pod may not start yet.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unanswered(#[from] AskError),
    /// The agent's own words.
    #[error("the node agent refuses: {0}")]
    Refused(String),
}

/// Waits until the pod may start: it is enrolled, or does not belong into the mesh any more. False when it is to stop instead.
pub(super) async fn passed(setup: &Setup, shared: &Shared, stop: &mut watch::Receiver<bool>) -> bool {
    let mut selected = setup.selected.clone();
    let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
    // The decision is read anew in each round: a pod whose labels changed while it waits must be let in without the
    // agent, or it waits for ever.
    while *selected.borrow_and_update() {
        let refusal = select! {
            // Safe to drop: the agent goes on, and is asked again or not any more.
            answer = ask(setup) => match answer {
                Ok(()) => break,
                Err(refusal) => refusal,
            },
            () = stopped(stop) => return false,
            () = changed(&mut selected) => continue,
        };
        tracing::debug!(pod = setup.pod.metadata.name, %refusal, "a pod waits for its enrolment");
        shared.update(|state| state.failure = Some(format!("not enrolled before its start: {refusal}")));
        select! {
            // Each is safe to drop: they only wait.
            () = sleep(backoff.pause()) => {}
            () = stopped(stop) => return false,
            () = changed(&mut selected) => {}
        }
    }
    shared.update(|state| state.failure = None);
    !*stop.borrow()
}

/// Waits for another decision of the supervisor's; for ever once it has forgotten the pod, which it asks to stop then.
async fn changed(selected: &mut watch::Receiver<bool>) {
    if selected.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Asks once.
async fn ask(setup: &Setup) -> Result<(), Refusal> {
    let meta = &setup.pod.metadata;
    let request = AddRequest {
        netns: setup.netns_path().display().to_string(),
        pod_name: meta.name.clone(),
        pod_namespace: meta.namespace.clone(),
        pod_uid: Some(setup.uid.clone()),
        ips: setup.ips.iter().copied().map(IpConfig::host).collect(),
    };
    let socket = setup.context.run.plugin_socket(&setup.node);
    let answer = timeout(PLUGIN_TIMEOUT, post(&socket, &request)).await.map_err(|_| AskError::Timeout)??;
    match answer.outcome {
        Outcome::Enrolled => Ok(()),
        // The agent knows another state of the labels than the supervisor: one of them will follow.
        Outcome::NotSelected | Outcome::Invalid | Outcome::Failed => Err(Refusal::Refused(answer.reason)),
    }
}

async fn post(socket: &Path, request: &AddRequest) -> Result<AddResponse, AskError> {
    let mut stream = UnixStream::connect(socket).await.map_err(AskError::Unreachable)?;
    let malformed = |error: Malformed| AskError::Broken(io::Error::new(io::ErrorKind::InvalidData, error));
    let bytes = cni::request(request).map_err(|error| AskError::Broken(error.into()))?;
    stream.write_all(&bytes).await.map_err(AskError::Broken)?;
    let (mut answer, mut buffer) = (Answer::new(MAX_ANSWER_BYTES), vec![0; 4096]);
    let response = loop {
        let count = stream.read(&mut buffer).await.map_err(AskError::Broken)?;
        if count == 0 {
            break answer.end().map_err(malformed)?;
        }
        if let Some(response) = answer.push(&buffer[..count]).map_err(malformed)? {
            break response;
        }
    };
    cni::read_answer(&response)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::UnixListener,
    };

    use super::*;

    fn request() -> AddRequest {
        AddRequest {
            netns: "/proc/1/ns/net".to_owned(),
            pod_name: "web".to_owned(),
            pod_namespace: "shop".to_owned(),
            pod_uid: Some("u1".to_owned()),
            ips: vec![IpConfig::host([10, 0, 0, 1].into())],
        }
    }

    /// The outcome of a question to a socket that gives this answer, and what it was asked.
    async fn answered(answer: &str) -> (Result<AddResponse, AskError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answer = answer.to_owned();
        let agent = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            // Head and body come in pieces; the body is the only object, and nothing follows it.
            while !asked.ends_with(b"]}") {
                assert!(stream.read_buf(&mut asked).await.unwrap() > 0, "half a request: {asked:?}");
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let outcome = post(&path, &request()).await;
        (outcome, agent.await.unwrap())
    }

    fn http(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn the_question_is_the_plugins_request() {
        let (outcome, asked) = answered(&http("200 OK", r#"{"outcome":"enrolled"}"#)).await;

        assert_eq!(outcome.unwrap().outcome, Outcome::Enrolled);
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /cmdadd HTTP/1.1\r\n"), "{head}");
        assert_eq!(serde_json::from_str::<AddRequest>(body).unwrap(), request());
    }

    #[tokio::test]
    async fn an_answer_that_is_not_whole_or_contradicts_itself_is_no_permission() {
        for answer in [
            http("500 Internal Server Error", r#"{"outcome":"failed","reason":"no proxy is connected"}"#),
            http("500 Internal Server Error", r#"{"outcome":"enrolled"}"#),
            http("200 OK", r#"{"outcome":"failed","reason":"x"}"#),
            http("200 OK", ""),
            http("404 Not Found", "not found\n"),
            "HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"outcome\":".to_owned(),
            String::new(),
        ] {
            let (outcome, _) = answered(&answer).await;

            let allowed = outcome.as_ref().is_ok_and(|answer| answer.outcome == Outcome::Enrolled);
            assert!(!allowed, "{answer:?}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_not_there_is_named() {
        let refusal = post(Path::new("/nowhere/pluginevent.sock"), &request()).await.unwrap_err();

        assert!(refusal.to_string().starts_with("cannot reach the node agent: "), "{refusal}");
    }
}
