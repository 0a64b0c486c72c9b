//! Questions about single names, beside a subscription of the whole type, to a server that the test plays itself.

mod common;
mod talk;

use common::{Seen, client, names, run, soon};
use proto::discovery::{DeltaDiscoveryResponse, Resource};
use proto::{ADDRESS_TYPE_URL as ADDRESS, AUTHORIZATION_TYPE_URL as POLICY};
use runtime::drain::Trigger;
use talk::{Talk, held, next, resource, response, serve};
use tls::control_plane::Token;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Status;
use xds_client::{DemandError, Demander, Interest, Link, Names};

const IP: &str = "/10.0.0.1";
const MARK: &str = "strake.snapshot/1/end";

/// A client of everything, and the server's first stream of it.
struct Meeting {
    talks: mpsc::Receiver<Talk>,
    talk: Talk,
    seen: Seen,
    demander: Demander,
    link: watch::Receiver<Link>,
    _running: Trigger,
}

impl Meeting {
    /// Before the server has said anything.
    async fn begin() -> Self {
        let (mut talks, port) = serve().await;
        let seen = Seen::new();
        let client = client(port, Token::None, &seen, Interest::All);
        let (demander, link) = (client.demander(), client.link());
        let (running, _) = run(client);
        let mut talk = next(&mut talks).await;
        talk.greetings().await;
        Self { talks, talk, seen, demander, link, _running: running }
    }

    /// The server marks its snapshots, as Strake's do.
    async fn with_marks() -> Self {
        let mut meeting = Self::begin().await;
        assert_eq!(meeting.talk.answer(marked(response("n1", vec![resource("a", "1")]))).await, None);
        meeting
    }

    /// The server ends the stream, and the client opens the next one.
    async fn next_stream(&mut self) {
        let closing = Err(Status::unavailable("transport is closing"));
        self.talk.responses.send(closing).await.unwrap();
        self.talk = next(&mut self.talks).await;
    }

    fn ask(&self, name: &str) -> JoinHandle<Result<(), DemandError>> {
        let (demander, name) = (self.demander.clone(), name.to_owned());
        tokio::spawn(async move { demander.demand(ADDRESS, &name).await })
    }

    /// The names of the next request, and those that it lets go.
    async fn hears(&mut self) -> (Vec<String>, Vec<String>) {
        let request = self.talk.request().await;
        assert_eq!((request.type_url.as_str(), request.response_nonce.as_str()), (ADDRESS, ""));
        (request.resource_names_subscribe, request.resource_names_unsubscribe)
    }

    /// Answers, and returns the names that the client lets go with its ACK.
    async fn answers(&mut self, response: DeltaDiscoveryResponse) -> Vec<String> {
        let nonce = response.nonce.clone();
        self.talk.say(response).await;
        let ack = self.talk.request().await;
        assert_eq!((ack.response_nonce, ack.error_detail), (nonce, None));
        assert!(ack.resource_names_subscribe.is_empty());
        ack.resource_names_unsubscribe
    }
}

fn marked(response: DeltaDiscoveryResponse) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { system_version_info: MARK.to_owned(), ..response }
}

fn found(nonce: &str, name: &str) -> DeltaDiscoveryResponse {
    response(nonce, vec![Resource { aliases: names(&[IP]), ..resource(name, "1") }])
}

fn nobody(nonce: &str, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse { removed_resources: names(removed), ..response(nonce, vec![]) }
}

#[tokio::test]
async fn an_answer_by_alias_wakes_those_who_asked_after_it_was_applied_and_the_name_is_let_go() {
    let mut meeting = Meeting::with_marks().await;
    let (first, second) = (meeting.ask(IP), meeting.ask(IP));
    assert_eq!(meeting.hears().await, (names(&[IP]), vec![]));

    let let_go = meeting.answers(found("n2", "pod")).await;

    assert_eq!((soon(first).await.unwrap(), soon(second).await.unwrap()), (Ok(()), Ok(())));
    assert!(meeting.seen.state().held.contains_key("pod"), "applied before anybody is woken");
    assert_eq!(let_go, [IP]);
}

#[tokio::test]
async fn an_answer_that_there_is_no_such_resource_is_an_answer_and_each_question_gets_its_own() {
    let mut meeting = Meeting::with_marks().await;
    let first = meeting.ask(IP);
    meeting.hears().await;
    let second = meeting.ask("/10.0.0.2");
    meeting.hears().await;

    assert_eq!(meeting.answers(nobody("n2", &["/10.0.0.2"])).await, ["/10.0.0.2"]);
    assert_eq!(soon(second).await.unwrap(), Ok(()));
    assert!(!first.is_finished(), "the other half of a split answer is still to come");
    assert_eq!(meeting.answers(found("n3", "pod")).await, [IP]);

    assert_eq!(soon(first).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn an_answer_that_comes_twice_or_after_nobody_waits_is_applied_and_nothing_else() {
    let mut meeting = Meeting::with_marks().await;
    let asked = meeting.ask(IP);
    meeting.hears().await;
    asked.abort();
    let _ = asked.await;

    // The answer is late: nobody waits, so the question is let go at once.
    assert_eq!(meeting.answers(found("n2", "pod")).await, [IP]);
    assert!(meeting.answers(found("n3", "pod")).await.is_empty());

    meeting.seen.holds(&[("a", "1"), ("pod", "1")]).await;
    let again = meeting.ask(IP);
    assert_eq!(meeting.hears().await, (names(&[IP]), vec![]), "asked freshly");
    meeting.answers(nobody("n4", &[IP, "pod"])).await;
    assert_eq!(soon(again).await.unwrap(), Ok(()));
    meeting.seen.holds(&[("a", "1")]).await;
}

#[tokio::test]
async fn a_name_that_was_given_up_is_let_go_with_the_next_question() {
    let mut meeting = Meeting::with_marks().await;
    let asked = meeting.ask(IP);
    meeting.hears().await;
    asked.abort();
    let _ = asked.await;

    let _other = meeting.ask("/10.0.0.2");

    assert_eq!(meeting.hears().await, (names(&["/10.0.0.2"]), names(&[IP])));
}

#[tokio::test]
async fn a_resource_that_is_refused_is_no_answer_that_there_is_none() {
    let mut meeting = Meeting::with_marks().await;
    let asked = meeting.ask(IP);
    meeting.hears().await;

    meeting.talk.answer(found("n2", "bad-pod")).await.expect("a refusal");

    assert_eq!(soon(asked).await.unwrap(), Err(DemandError::Unreadable));
}

#[tokio::test]
async fn a_question_is_asked_again_on_a_new_stream_once_that_has_shown_what_it_is() {
    let mut meeting = Meeting::with_marks().await;
    let asked = meeting.ask(IP);
    meeting.hears().await;

    meeting.next_stream().await;
    let (addresses, _) = meeting.talk.greetings().await;
    assert!(addresses.resource_names_subscribe.is_empty(), "the whole type, as before");
    assert_eq!(addresses.initial_resource_versions, held(&[("a", "1")]));
    let snapshot = marked(DeltaDiscoveryResponse { type_url: POLICY.to_owned(), ..response("p1", vec![]) });
    assert_eq!(meeting.talk.answer(snapshot).await, None);

    assert_eq!(meeting.hears().await, (names(&[IP]), vec![]));
    meeting.answers(marked(found("n1", "pod"))).await;
    assert_eq!(soon(asked).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_control_plane_like_istios_is_never_asked() {
    let mut meeting = Meeting::begin().await;
    let early = meeting.ask(IP);

    let version =
        DeltaDiscoveryResponse { system_version_info: "2026-11-30T10:00:00Z/14".to_owned(), ..found("n1", "a") };
    assert!(meeting.answers(version).await.is_empty());

    assert_eq!(soon(early).await.unwrap(), Err(DemandError::Unsupported));
    assert_eq!(soon(meeting.ask(IP)).await.unwrap(), Err(DemandError::Unsupported));
    // The next thing that the server hears is an answer, no question.
    assert_eq!(meeting.talk.answer(response("n2", vec![resource("b", "1")])).await, None);
    assert_eq!(*meeting.link.borrow(), Link::Up { stream: 1, names: Names::Unsupported });
}

#[tokio::test]
async fn the_link_says_whether_there_is_a_stream_and_what_it_answers() {
    let mut meeting = Meeting::begin().await;
    let up = |stream, names| move |link: &Link| *link == Link::Up { stream, names };
    soon(meeting.link.wait_for(up(1, Names::Undecided))).await.unwrap();
    meeting.talk.answer(marked(response("n1", vec![]))).await;
    soon(meeting.link.wait_for(up(1, Names::Supported))).await.unwrap();

    meeting.next_stream().await;
    soon(meeting.link.wait_for(up(2, Names::Undecided))).await.unwrap();

    // From here on the server refuses every stream.
    drop((meeting.talk, meeting.talks));
    soon(meeting.link.wait_for(|link| matches!(link, Link::Down { .. }))).await.unwrap();
}
