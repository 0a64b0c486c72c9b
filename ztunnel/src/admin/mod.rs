//! The admin pages: what the proxy knows, and the few things it can be told. Metrics and readiness have their own ports.

mod dump;
mod logging;

use std::{sync::Arc, time::Duration};

use ca_client::CertificateManager;
use model::State;
use telemetry::{
    http::{Request, Response, Router, json, text, typed},
    logging::Handle,
};
use tokio::sync::watch;

use crate::{config::Config, inpod};

const INDEX: &str = concat!(
    "<!DOCTYPE html><html><head><title>ztunnel</title></head><body><h1>ztunnel</h1><ul>",
    "<li><a href=\"config_dump\">config_dump</a>: workloads, services, policies, certificates, connections</li>",
    "<li>logging: POST shows the log level, ?level=L or ?level=scope=L sets it, ?reset sets it back</li>",
    "<li>quitquitquit: POST ends the proxy</li>",
    "</ul></body></html>\n",
);

/// What the pages show.
#[derive(Clone)]
pub struct Admin {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The mesh.
    pub state: State,
    /// Certificates held.
    pub certificates: CertificateManager,
    /// Pods and their connections.
    pub pods: watch::Receiver<inpod::Status>,
    /// Levels.
    pub logging: Handle,
    /// Asks the process to end.
    pub shutdown: Shutdown,
}

/// Asks the process to end, and sees it begin.
#[derive(Clone)]
pub struct Shutdown {
    /// Set to true to ask. Whoever runs the process watches it.
    pub request: Arc<watch::Sender<bool>>,
    /// Over when the proxy has drained.
    pub drained: watch::Receiver<bool>,
}

impl Shutdown {
    /// The pair of senders that whoever runs the process keeps: `request` to watch, `drained` to set.
    #[must_use]
    pub fn channel() -> (Self, watch::Receiver<bool>, watch::Sender<bool>) {
        let (request, requested) = watch::channel(false);
        let (done, drained) = watch::channel(false);
        (Self { request: Arc::new(request), drained }, requested, done)
    }

    async fn run(&self, within: Duration) {
        self.request.send_replace(true);
        let mut drained = self.drained.clone();
        // Too late or sender gone: the process ends in any case.
        let _ = tokio::time::timeout(within, drained.wait_for(|drained| *drained)).await;
    }
}

impl Admin {
    /// The pages.
    #[must_use]
    pub fn router(self) -> Router {
        let (logs, quit) = (self.logging.clone(), self.clone());
        Router::new()
            .any("/", |_: Request| async { typed(200, "text/html; charset=utf-8", INDEX) })
            .any("/config_dump", move |_: Request| {
                let dump = json(200, &dump::dump(&self));
                async move { dump }
            })
            .any("/logging", move |request: Request| {
                let answer = logging::answer(&logs, &request);
                async move { answer }
            })
            .any("/quitquitquit", move |request: Request| {
                let quit = quit.clone();
                async move { quit.quit(&request).await }
            })
    }

    async fn quit(&self, request: &Request) -> Response {
        if request.method() != http::Method::POST {
            return text(405, "Invalid HTTP method\n");
        }
        self.shutdown.run(self.config.drain_deadline).await;
        text(200, "shutdown now\n")
    }
}
