//! The admin pages of the node proxy: those of every proxy, and its dump.

mod dump;

pub use dump::DumpSource;

use proxy_core::admin::Admin;
use telemetry::http::{Router, json};

/// The pages.
pub fn router(admin: Admin, source: DumpSource) -> Router {
    admin.router(move || json(200, &dump::dump(&source)))
}
