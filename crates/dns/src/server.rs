//! From a client's message to the bytes of its answer, for one pod. It reads and writes no socket of the client; see `udp` and
//! `tcp`.

use crate::exchange::Exchange;
use crate::forward::forward;
use crate::local::{self, Found};
use crate::message::{self, Parsed, Question, Refusal, TCP_BYTES};
use crate::own_sockets::OwnSockets;
use crate::report::{self, Labels, Reason};
use crate::{PodNetwork, Protocol, Settings};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, rdata};
use model::{LOCAL_WORKLOAD_WAIT, State, Workload};
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::time::Instant;

/// Questions of one pod that nameservers have not answered yet. Further ones are answered with SERVFAIL at once.
pub const FORWARDED_QUESTIONS: usize = 512;

/// Seconds for which an answer of the mesh may be kept.
const TTL: u32 = 30;

/// Names by which discovery knows the pod that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    pub namespace: String,
    pub name: String,
    pub service_account: String,
}

/// Answers the questions of one pod.
pub struct Server<N> {
    state: State,
    settings: Arc<Settings>,
    client: Client,
    network: N,
    own: OwnSockets,
    /// See [`FORWARDED_QUESTIONS`].
    under_way: Cell<usize>,
}

/// Counts a question as under way.
struct UnderWay<'a>(&'a Cell<usize>);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<N: PodNetwork> Server<N> {
    /// For `client`, whose nameservers are reached through `network`.
    pub fn new(state: State, settings: Arc<Settings>, client: Client, network: N) -> Self {
        Self { state, settings, client, network, own: OwnSockets::default(), under_way: Cell::new(0) }
    }

    /// Returns the answer to a message that came from `from`; `None` for one that is not to be answered. It may be dropped at
    /// any point.
    pub(crate) async fn answer(&self, packet: &[u8], from: SocketAddr, protocol: Protocol) -> Option<Vec<u8>> {
        let question = match message::parse(packet) {
            Parsed::Question(question) => question,
            Parsed::Refused(answer, refusal) => {
                report::refused(refusal.into(), protocol);
                return message::encode(answer, message::PLAIN_UDP_BYTES.into());
            }
            Parsed::Unreadable => {
                report::refused(Reason::Malformed, protocol);
                return None;
            }
        };
        let answer = self.answer_question(&question, from, protocol).await.unwrap_or_else(|reason| {
            report::refused(reason, protocol);
            question.error(ResponseCode::ServFail)
        });
        let limit = match protocol {
            Protocol::Udp => question.udp_bytes(),
            Protocol::Tcp => TCP_BYTES,
        };
        message::encode(answer, limit)
    }

    async fn answer_question(
        &self,
        question: &Question,
        from: SocketAddr,
        protocol: Protocol,
    ) -> Result<Message, Reason> {
        if self.own.contains(from) {
            tracing::warn!(
                name = self.client.name,
                namespace = self.client.namespace,
                code = "dns_loop",
                "a question of this proxy to a nameserver came back to it; answered with SERVFAIL"
            );
            return Err(Reason::Loop);
        }
        let client = self.workload().await?;
        let labels = Labels::new(question.query.query_type, protocol, &client);
        labels.request();
        if let Some((found, answer)) = self.local(question, &client) {
            let result = if found.addresses.is_empty() { "no data" } else { "success" };
            report::log(&client, &question.query, result, found.addresses.len());
            return Ok(answer);
        }
        let _under_way = self.begin()?;
        labels.upstream_request();
        let exchange = Exchange { network: &self.network, own: &self.own };
        let begun = Instant::now();
        // Boxed: most questions are about names of the mesh, and need no room for it.
        let result = Box::pin(forward(exchange, &self.settings.nameservers, question, protocol)).await;
        labels.upstream_duration(begun.elapsed());
        let answer = match result {
            Ok(upstream) => pass_on(question, upstream),
            Err(error) => {
                report::log(&client, &question.query, &format!("failed: {error}"), 0);
                labels.upstream_failure();
                return Ok(question.error(ResponseCode::ServFail));
            }
        };
        let code = answer.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            labels.upstream_failure();
        }
        report::log(&client, &question.query, code.to_str(), answer.answers.len());
        Ok(answer)
    }

    /// The pod as discovery knows it. A pod that has just started may have to wait for it.
    async fn workload(&self) -> Result<Arc<Workload>, Reason> {
        let Client { namespace, name, service_account } = &self.client;
        if let Some(known) = self.state.local(namespace, name, service_account) {
            return Ok(known);
        }
        let _under_way = self.begin()?;
        let found = self.state.wait_for_local(namespace, name, service_account, LOCAL_WORKLOAD_WAIT).await;
        found.ok_or(Reason::UnknownClient)
    }

    fn begin(&self) -> Result<UnderWay<'_>, Reason> {
        if self.under_way.get() >= FORWARDED_QUESTIONS {
            self.network.refused();
            return Err(Reason::Busy);
        }
        self.under_way.set(self.under_way.get() + 1);
        Ok(UnderWay(&self.under_way))
    }

    /// The answer of the mesh, if the name is one of it.
    fn local(&self, question: &Question, client: &Workload) -> Option<(Found, Message)> {
        let query = &question.query;
        let family = local::family(query.query_type).filter(|_| query.query_class == DNSClass::IN)?;
        let found = local::find(&self.state, &self.settings, client, &query.name, family)?;
        let mut answer = question.response();
        answer.metadata.authoritative = true;
        answer.answers = records(&query.name, &found);
        Some((found, answer))
    }
}

fn records(asked: &Name, found: &Found) -> Vec<Record> {
    if found.addresses.is_empty() {
        return Vec::new();
    }
    let canonical = found.alias_of.and_then(|labels| Name::from_labels(asked.iter().take(labels)).ok());
    let alias =
        canonical.iter().map(|name| Record::from_rdata(asked.clone(), TTL, RData::CNAME(rdata::CNAME(name.clone()))));
    let owner = canonical.as_ref().unwrap_or(asked);
    let addresses = found.addresses.iter().map(|ip| {
        let data = match ip {
            IpAddr::V4(v4) => RData::A(rdata::A(*v4)),
            IpAddr::V6(v6) => RData::AAAA(rdata::AAAA(*v6)),
        };
        Record::from_rdata(owner.clone(), TTL, data)
    });
    alias.chain(addresses).collect()
}

/// A nameserver's answer as the client gets it: with its records when there are some, else its code alone.
fn pass_on(question: &Question, upstream: Message) -> Message {
    let mut answer = question.response();
    let code = upstream.metadata.response_code;
    // More than four bits of a code are in the EDNS record, which not every client has asked for.
    let fits = code.high() == 0 || question.has_edns();
    answer.metadata.response_code = if fits { code } else { ResponseCode::ServFail };
    answer.metadata.authentic_data = upstream.metadata.authentic_data;
    answer.metadata.authoritative = upstream.metadata.authoritative;
    answer.metadata.truncation = upstream.metadata.truncation;
    if code == ResponseCode::NoError && !upstream.answers.is_empty() {
        answer.answers = upstream.answers;
        answer.authorities = upstream.authorities;
        answer.additionals = upstream.additionals;
    }
    answer
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::Malformed,
            Refusal::Unsupported => Self::Unsupported,
        }
    }
}
