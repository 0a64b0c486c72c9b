//! L7 authorization: policies on requests, and their evaluation with the reason. Everything here is a pure function of the
//! policies and the request. Tokens are verified elsewhere; which policies are for a request is the caller's choice.

mod condition;
mod decide;
mod evaluate;
pub mod ext_authz;
mod path;
mod provider;
mod request;
mod rule;
mod serialise;
#[cfg(test)]
mod testing;
mod trace;
mod truth;
mod values;

pub use condition::Condition;
pub use decide::{DENIED_BODY, DENIED_STATUS, Decision, DenyReason, RuleRef, Verdict, custom, decide};
pub use path::{PathMatch, PathTemplate, TemplateError};
pub use provider::{BodyCheck, HttpProtocol, Protocol, Provider};
pub use request::{Authentication, Http, Request, Token};
pub use rule::{Action, HttpPolicy, Operation, Rule, Source};
pub use trace::{PolicyTrace, RuleTrace, Unmet, trace};
pub use truth::Truth;
pub use values::Values;
