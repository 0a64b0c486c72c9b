//! Admin pages that every proxy has, and the parts of the dump that are the same everywhere. Metrics and readiness have
//! their own ports.

mod dump;
mod logging;

use std::{sync::Arc, time::Duration};

use telemetry::{
    http::{Request, Response, Router, text, typed},
    logging::Handle,
};
use tokio::sync::watch;

pub use dump::{CertificateDump, Version, certificates};

/// The pages' program, and the things that they change.
#[derive(Clone)]
pub struct Admin {
    /// Name of the program, for the index.
    pub program: &'static str,
    /// Log levels.
    pub logging: Handle,
    /// Asks the process to end.
    pub shutdown: Shutdown,
    /// Time that connections have to end.
    pub drain_deadline: Duration,
}

/// Asks the process to end, and sees it drained.
#[derive(Clone)]
pub struct Shutdown {
    /// Set to true to ask. The process watches it.
    pub request: Arc<watch::Sender<bool>>,
    /// True once the proxy has drained.
    pub drained: watch::Receiver<bool>,
}

impl Shutdown {
    /// Returns it with the two ends that the process keeps: the request to watch, and `drained` to set.
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
    /// The pages; `dump` answers `/config_dump`.
    #[must_use]
    pub fn router(self, dump: impl Fn() -> Response + Send + Sync + 'static) -> Router {
        let (index, logs, quit) = (index(self.program), self.logging.clone(), self);
        Router::new()
            .any("/", move |_: Request| {
                let index = index.clone();
                async { typed(200, "text/html; charset=utf-8", index) }
            })
            .any("/config_dump", move |_: Request| {
                let dump = dump();
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
        // Answered after the drain, so that a script that calls it may go on when it returns.
        self.shutdown.run(self.drain_deadline).await;
        text(200, "shutdown now\n")
    }
}

fn index(program: &str) -> String {
    format!(
        "<!DOCTYPE html><html><head><title>{program}</title></head><body><h1>{program}</h1><ul>\
         <li><a href=\"config_dump\">config_dump</a>: workloads, services, policies, certificates, connections</li>\
         <li>logging: POST shows the log level, ?level=L or ?level=scope=L sets it, ?reset sets it back</li>\
         <li>quitquitquit: POST ends the proxy</li>\
         </ul></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use telemetry::logging::{LogFormat, Sink, build};

    use super::*;

    #[tokio::test]
    async fn quitquitquit_asks_for_the_end_and_answers_when_it_has_come() {
        let (logging, _) = build(LogFormat::Plain, None, Sink::new(std::io::sink())).unwrap();
        let (shutdown, mut requested, drained) = Shutdown::channel();
        let admin = Admin { program: "proxy", logging, shutdown, drain_deadline: Duration::from_secs(5) };
        let router = admin.router(|| text(200, ""));
        let request = |method| {
            let mut request = Request::default();
            *request.method_mut() = method;
            *request.uri_mut() = "/quitquitquit".parse().unwrap();
            request
        };

        assert_eq!(router.answer(request(http::Method::GET)).await.status(), 405);
        assert!(!*requested.borrow());
        let ending = async {
            requested.wait_for(|requested| *requested).await.unwrap();
            drained.send_replace(true);
        };
        let (response, ()) = tokio::join!(router.answer(request(http::Method::POST)), ending);
        assert_eq!(telemetry::http::body_text(response).await, "shutdown now\n");
    }
}
