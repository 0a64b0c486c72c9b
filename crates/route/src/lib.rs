//! Route model of a waypoint: which route a request takes, and what the route does with it. Everything here is a pure
//! function of the model, the request and random numbers that the caller draws. It reads no objects of Kubernetes, opens no
//! connection and knows no clock.
#![cfg_attr(not(test), deny(clippy::disallowed_methods, reason = "time is a parameter in this crate"))]

mod action;
mod answer;
mod condition;
mod cors;
mod destination;
mod fault;
pub mod grpc;
mod headers;
mod index;
mod normalise;
mod path;
mod percent;
mod re2;
mod redirect;
mod regex;
mod request;
pub mod retry;
mod rewrite;
mod serialise;
mod table;
#[cfg(test)]
mod testing;
mod text;
pub mod traffic;

pub use action::{Action, Forward, Mirror, Rule};
pub use answer::{LocalAnswer, Rendered};
pub use condition::{ClaimMatch, Conditions, HeaderMatch, QueryMatch, Unmet};
pub use cors::{Cors, CorsDecision, OriginMatch};
pub use destination::{Destination, Target, Weighted, choose};
pub use fault::{Abort, AbortStatus, Delay, Fault, Faults};
pub use headers::HeaderChanges;
pub use normalise::{PathError, normalise};
pub use path::PathMatch;
pub use percent::Percent;
pub use redirect::{Redirect, RedirectPath, RedirectPort};
pub use regex::{MAX_PATTERN_BYTES, PatternError, Regex, Substitution};
pub use request::{Labels, Request, Source};
pub use rewrite::{NotAbsolute, PathRewrite};
pub use table::{Origin, PortRoutes, Route, RouteTable};
pub use text::{TextMatch, ValueMatch};
