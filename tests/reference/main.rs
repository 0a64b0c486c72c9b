//! The pages of `docs/reference`: each is generated from the code, and a test fails when the page in the repository is
//! another one. `cargo xtask docs` writes them.

mod codes;
mod command_line;
mod conditions;
mod crds;
mod environment;
mod kernel;
mod metrics;
mod packages;
mod page;
mod permissions;
mod ports_and_labels;
mod source;
