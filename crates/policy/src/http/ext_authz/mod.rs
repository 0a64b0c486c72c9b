//! External authorizers of CUSTOM policies (Envoy's `ext_authz`): the question about a request and the meaning of the answer,
//! as pure functions, and one function that asks. The caller brings the client for HTTP and gRPC, and reads the body.

mod answer;
mod ask;
mod check;
mod message;

pub use answer::{Answer, AnswerError, Denial, Edit, Edits, How, MAX_DENIAL_BYTES, grpc_answer, http_answer};
pub use ask::{Asked, Asking, Question, Reply, Transport, TransportError, ask, error_denial};
pub use check::{Body, CheckError, Checked, grpc_check, http_check};
