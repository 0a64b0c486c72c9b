//! One type of resources: which versions are held, what a response changes, who waits for a name.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;

use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::demand::{DemandError, Waiter};
use crate::handler::{Handler, Rejection, Resource};
use crate::link::Interest;
use crate::progress::{MissingPart, Progress, Standing};
use crate::questions::{NameChanges, Names, Questions};
use proto::snapshot::Mark;

/// Length of a refusal after which the rest is only counted, in bytes: servers take messages of 4 MiB.
const NACK_BYTES: usize = 32 * 1024;

/// A type and everything that is known about it across connections.
pub(crate) struct Watched {
    pub(crate) type_url: String,
    interest: Interest,
    handler: Box<dyn Apply>,
    /// Name to version of what was accepted. A demanded name that was not answered yet has an empty version.
    versions: HashMap<String, String>,
    waiters: HashMap<String, Vec<Waiter>>,
    /// Names that are asked for besides the whole type.
    questions: Questions,
    progress: Progress,
}

/// A handler whose message type is known to itself only.
trait Apply: Send {
    fn apply(
        &mut self,
        type_url: &str,
        resources: Vec<proto::discovery::Resource>,
        removed: Vec<String>,
    ) -> Vec<Rejection>;

    fn complete(&mut self);
}

struct Decoding<T, H> {
    handler: H,
    message: PhantomData<fn() -> T>,
}

impl<T: prost::Message + Default + 'static, H: Handler<T>> Apply for Decoding<T, H> {
    fn apply(
        &mut self,
        type_url: &str,
        resources: Vec<proto::discovery::Resource>,
        removed: Vec<String>,
    ) -> Vec<Rejection> {
        let mut rejections = Vec::new();
        let mut decoded = Vec::with_capacity(resources.len());
        for resource in resources {
            match decode(type_url, resource) {
                Ok(resource) => decoded.push(resource),
                Err(rejection) => rejections.push(rejection),
            }
        }
        // Before the others are applied: a policy that cannot be decoded denies from the same moment on.
        self.handler.unreadable(&rejections);
        rejections.extend(self.handler.apply(decoded, removed));
        rejections
    }

    fn complete(&mut self) {
        self.handler.complete();
    }
}

fn decode<T: prost::Message + Default>(
    type_url: &str,
    resource: proto::discovery::Resource,
) -> Result<Resource<T>, Rejection> {
    let proto::discovery::Resource { name, version, resource, .. } = resource;
    let Some(any) = resource else {
        return Err(Rejection { name, reason: "no contents".to_owned() });
    };
    // A resource of another type could decode by accident, as protobuf skips unknown fields.
    if any.type_url != type_url {
        return Err(Rejection { name, reason: format!("unexpected type {:?} in a {type_url} response", any.type_url) });
    }
    match T::decode(any.value.as_slice()) {
        Ok(message) => Ok(Resource { name, version, message }),
        Err(error) => Err(Rejection { name, reason: error.to_string() }),
    }
}

impl Watched {
    pub(crate) fn new<T: prost::Message + Default + 'static>(
        type_url: &str,
        interest: Interest,
        handler: impl Handler<T>,
    ) -> Self {
        Self {
            type_url: type_url.to_owned(),
            interest,
            handler: Box::new(Decoding { handler, message: PhantomData }),
            versions: HashMap::new(),
            waiters: HashMap::new(),
            questions: Questions::default(),
            progress: Progress::default(),
        }
    }

    /// Readiness waits for it.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.interest == Interest::All
    }

    /// The first request on a connection: names that are wanted, and versions that are held.
    pub(crate) fn first_request(&mut self) -> DeltaDiscoveryRequest {
        self.progress.begin_stream();
        self.questions.begin_stream();
        let (subscribe, unsubscribe) = match self.interest {
            Interest::All => (Vec::new(), Vec::new()),
            // Both together mean: none but those that are named.
            Interest::Demanded => {
                let star = || "*".to_owned();
                (std::iter::once(star()).chain(self.versions.keys().cloned()).collect(), vec![star()])
            }
        };
        DeltaDiscoveryRequest {
            type_url: self.type_url.clone(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: self.versions.clone(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Has the handler apply a response; then notes versions and wakes those who wait for a name.
    /// Returns the answer for the control plane, an ACK when its error is empty, and how far the type has come.
    ///
    /// # Errors
    /// When a part of a snapshot is missing. Nothing of the response is applied then.
    pub(crate) fn respond(
        &mut self,
        response: DeltaDiscoveryResponse,
    ) -> Result<(DeltaDiscoveryRequest, Standing), MissingPart> {
        let DeltaDiscoveryResponse { resources, removed_resources, nonce, system_version_info, .. } = response;
        // Strake's control plane marks the parts of a snapshot; istiod has other text here, and sends its snapshot
        // whole.
        let mark = system_version_info.parse::<Mark>().ok();
        self.progress.check(mark)?;
        let held: Vec<(String, String)> =
            resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
        // Of most responses nobody waits for anything.
        let names = if self.questions.is_empty() { Vec::new() } else { resources.iter().map(Named::from).collect() };
        let rejections = self.handler.apply(&self.type_url, resources, removed_resources.clone());
        let refused: HashSet<&str> = rejections.iter().map(|rejection| rejection.name.as_str()).collect();
        for (name, version) in held {
            if refused.contains(name.as_str()) {
                // Held by name, so that the next connection hears when it is gone.
                self.versions.entry(name).or_default();
            } else {
                self.wake(&name);
                // Sent back in the first request of the next connection, so that only differences come.
                self.versions.insert(name, version);
            }
        }
        self.answer_questions(&names, &refused, &removed_resources);
        for name in removed_resources {
            self.versions.remove(&name);
            self.wake(&name);
        }
        runtime::collections::shrink_sparse(&mut self.versions);
        let (standing, is_first) = self.progress.applied(mark, rejections.is_empty());
        // After the response is applied: the handler may act on a complete state.
        if is_first {
            self.handler.complete();
        }
        let answer = DeltaDiscoveryRequest {
            type_url: self.type_url.clone(),
            response_nonce: nonce,
            error_detail: error_detail(&rejections),
            resource_names_unsubscribe: self.questions.take_finished(),
            ..DeltaDiscoveryRequest::default()
        };
        Ok((answer, standing))
    }

    /// Wakes those who asked, after the response is applied: who looks then finds what it brought. A resource that was
    /// accepted counts more than another one of the same address that was refused.
    fn answer_questions(&mut self, names: &[Named], refused: &HashSet<&str>, removed: &[String]) {
        let (bad, good): (Vec<_>, Vec<_>) = names.iter().partition(|named| refused.contains(named.name.as_str()));
        for (named, answer) in good
            .into_iter()
            .map(|named| (named, Ok(())))
            .chain(bad.into_iter().map(|named| (named, Err(DemandError::Unreadable))))
        {
            for name in std::iter::once(&named.name).chain(&named.aliases) {
                self.questions.answer(name, answer);
            }
        }
        for name in removed {
            self.questions.answer(name, Ok(()));
        }
    }

    /// Notes whether the control plane of this stream answers for single names of a whole type.
    pub(crate) fn decide_names(&mut self, names: Names) {
        self.questions.decide(names);
    }

    /// Notes that somebody waits for `name`; a request when the type is not subscribed as a whole and the name was not
    /// asked for yet.
    pub(crate) fn demand(&mut self, name: String, waiter: Waiter) -> Option<DeltaDiscoveryRequest> {
        if self.is_wildcard() {
            self.questions.ask(name, waiter);
            return None;
        }
        if self.versions.get(&name).is_some_and(|version| !version.is_empty()) {
            // Already here: whoever asks has raced the answer. A closed waiter has given up.
            let _ = waiter.send(Ok(()));
            return None;
        }
        // Remembered with an empty version, so that a new connection asks for it again.
        let asked = self.versions.insert(name.clone(), String::new()).is_some();
        let waiters = self.waiters.entry(name.clone()).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(waiter);
        (!asked).then(|| self.request(NameChanges { subscribe: vec![name], unsubscribe: Vec::new() }))
    }

    /// The request with all names that wait to be asked about; see [`Questions`].
    pub(crate) fn next_question(&mut self) -> Option<DeltaDiscoveryRequest> {
        let changes = self.questions.next_changes()?;
        Some(self.request(changes))
    }

    fn request(&self, NameChanges { subscribe, unsubscribe }: NameChanges) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: self.type_url.clone(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn wake(&mut self, name: &str) {
        for waiter in self.waiters.remove(name).into_iter().flatten() {
            let _ = waiter.send(Ok(()));
        }
    }
}

/// Names of a resource.
struct Named {
    name: String,
    aliases: Vec<String>,
}

impl From<&proto::discovery::Resource> for Named {
    fn from(resource: &proto::discovery::Resource) -> Self {
        Self { name: resource.name.clone(), aliases: resource.aliases.clone() }
    }
}

/// Every refusal, or as many as fit.
fn error_detail(rejections: &[Rejection]) -> Option<proto::discovery::Status> {
    let mut message = String::new();
    for (number, Rejection { name, reason }) in rejections.iter().enumerate() {
        if message.len() > NACK_BYTES {
            message = format!("{message}; and {} more", rejections.len() - number);
            break;
        }
        let separator = if message.is_empty() { "" } else { "; " };
        message = format!("{message}{separator}{name}: {reason}");
    }
    (!rejections.is_empty()).then(|| proto::discovery::Status { message, ..proto::discovery::Status::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_told_in_part() {
        let reject = |n: usize| Rejection { name: format!("n{n}"), reason: "x".repeat(1000) };
        let few: Vec<Rejection> = (0..2).map(reject).collect();
        let many: Vec<Rejection> = (0..50_000).map(reject).collect();

        let few = error_detail(&few).unwrap().message;
        let many = error_detail(&many).unwrap().message;

        assert!(few.starts_with("n0: xx") && few.contains("; n1: xx") && !few.contains("more"));
        assert!(many.len() < 2 * NACK_BYTES && many.ends_with(" more"), "{}", many.len());
        assert_eq!(error_detail(&[]), None);
    }
}
