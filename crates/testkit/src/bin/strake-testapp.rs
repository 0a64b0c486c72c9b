//! The program of `testkit::app`.

use clap::Parser;

fn main() {
    std::process::exit(testkit::app::run(testkit::app::Cli::parse()));
}
