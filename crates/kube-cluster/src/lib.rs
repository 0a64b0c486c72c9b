//! The API server as a source of resources: [`open`] lists and watches kinds, [`status()`] writes what programs have to say
//! about objects, [`Election`] tells which replica of a program writes, [`rules()`] names the permissions that all of this
//! needs, [`TokenReviewer`] whose a token is, [`Objects`] reads and writes single objects, `once` has requests that are more
//! than one object's, [`pod_page()`] and [`Log`] read what pods serve and print, [`server_facts()`] and [`may()`] ask the API
//! server about itself. It does not know what the resources mean for the mesh.

mod answer;
mod api;
mod changes;
mod collector;
mod connect;
mod decode;
mod election;
mod inquiry;
mod known;
mod lease;
mod limit;
mod list;
mod liveness;
mod merge;
mod meter;
mod objects;
mod once;
mod page;
mod path;
mod pod_log;
mod pod_page;
mod problems;
mod reader;
mod rules;
mod source;
mod status;
mod token_review;
mod verb;
mod watch;
mod watched;
mod write;
mod writer;

pub use connect::{ApiServer, ConnectError, Credentials};
pub use election::{Election, ElectionConfig, Leadership};
pub use inquiry::{ServerFacts, may, server_facts};
pub use known::Versions;
pub use objects::{Collection, Deletion, Location, Objects, RequestError};
pub use once::{
    Presence, ServiceAccountToken, daemon_set_rule, find_daemon_set, remove_taint, request_token, taint_rule,
    token_rule,
};
pub use pod_log::{Log, LogOptions};
pub use pod_page::{PageError, PodPort, pod_page};
pub use rules::{Access, Rule, rules};
pub use source::{ClusterConfig, ConfigError, open};
pub use status::{Owned, StatusConfig, WriteError, status};
pub use token_review::{BoundPod, ReviewError, TokenOwner, TokenReviewer};
pub use verb::Verb;
pub use watched::Watched;
