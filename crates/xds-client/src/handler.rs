//! Interface of the reader of resources. It receives decoded messages, never the stream.

/// A decoded resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource<T> {
    /// The control plane's name of it.
    pub name: String,
    /// Empty for types that have no versions.
    pub version: String,
    /// The message itself.
    pub message: T,
}

/// A resource that cannot be used; what was known under that name stays in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Name of the resource.
    pub name: String,
    /// Told to the control plane.
    pub reason: String,
}

/// Applies the responses of one type.
///
/// Runs on the client's task and must not block for long. Readers should see all of a response or nothing:
/// first the resources in order (a name that occurs twice: the later one counts), then the removals.
/// State is never cleared when the connection is lost. A removed name may be unknown.
pub trait Handler<T>: Send + 'static {
    /// Returns the resources it refuses; all others count as taken over.
    fn apply(&mut self, resources: Vec<Resource<T>>, removed: Vec<String>) -> Vec<Rejection>;

    /// Resources that could not even be decoded; called before [`apply`](Self::apply) of the same response.
    fn unreadable(&mut self, _refused: &[Rejection]) {}

    /// All resources of this type have been taken over once, without a refusal. Called once, after
    /// [`apply`](Self::apply) of the response that completed them; never after a part of a snapshot.
    fn complete(&mut self) {}
}

impl<T, F> Handler<T> for F
where
    F: FnMut(Vec<Resource<T>>, Vec<String>) -> Vec<Rejection> + Send + 'static,
{
    fn apply(&mut self, resources: Vec<Resource<T>>, removed: Vec<String>) -> Vec<Rejection> {
        self(resources, removed)
    }
}
