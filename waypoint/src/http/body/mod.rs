//! Bodies on their way: requests that several tries and mirrors may read, and answers whose end is reported.

mod request;
mod response;
mod source;

pub use request::RequestBody;
pub use response::ResponseBody;
pub use source::{Cut, MAX_REPLAY_BYTES, Source};

/// Error type of bodies, as hyper wants it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
