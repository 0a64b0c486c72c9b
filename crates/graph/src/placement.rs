//! Place of each workload, and the resources that its node proxy needs to enforce the policies that are for it.

use kube_types::ObjectRef;

/// The workloads that a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of the mesh.
    Mesh,
    /// All of this namespace.
    Namespace(String),
    /// Those whose [`Placement`] names the policy.
    Named(ObjectRef),
}

/// A pod that is a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Name of its discovery resource.
    pub uid: String,
    pub namespace: String,
    /// Empty when nobody has scheduled it.
    pub node: String,
    /// The agent has read its enrolment back from the kernel.
    pub in_mesh: bool,
    /// The AuthorizationPolicies that select it by labels. It refers to each by [`ObjectRef::path`].
    pub policies: Vec<ObjectRef>,
    /// The PeerAuthentications whose modes hold for it.
    pub peers: Vec<ObjectRef>,
    /// Name of the resource that refuses plaintext for `peers`; it refers to this one, too. None when plaintext is let in
    /// on every port.
    pub strictness: Option<String>,
}
