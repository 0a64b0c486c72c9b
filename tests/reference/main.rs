//! The pages of `docs/reference`: each is generated from the code, and a test fails when the page in the repository is
//! another one. `cargo xtask docs` writes them.

mod command_line;
mod environment;
mod metrics;
mod packages;
mod page;
