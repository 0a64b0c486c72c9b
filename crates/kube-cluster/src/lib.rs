//! The API server as a source of resources: [`open`] lists and watches kinds, [`status()`] writes what programs have to say
//! about objects, [`Election`] tells which replica of a program writes, [`rules()`] names the permissions that all of this
//! needs. It does not know what the resources mean for the mesh.

mod answer;
mod api;
mod changes;
mod collector;
mod connect;
mod decode;
mod election;
mod known;
mod lease;
mod limit;
mod list;
mod liveness;
mod page;
mod path;
mod problems;
mod reader;
mod rules;
mod source;
mod status;
mod verb;
mod watch;
mod watched;
mod write;
mod writer;

pub use connect::{ApiServer, ConnectError, Credentials};
pub use election::{Election, ElectionConfig, Leadership};
pub use known::Versions;
pub use rules::{Access, Rule, rules};
pub use source::{ClusterConfig, ConfigError, open};
pub use status::{StatusConfig, WriteError, status};
pub use verb::Verb;
pub use watched::Watched;
