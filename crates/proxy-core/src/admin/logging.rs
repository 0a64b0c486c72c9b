//! `POST /logging`: shows and changes log levels.

use telemetry::{
    http::{Request, Response, query, text},
    logging::Handle,
};

const HELP: &str = "
usage: POST /logging\t\t\t\t\t(shows the current level)
usage: POST /logging?level=<level>\t\t\t(changes all levels)
usage: POST /logging?level=<scope>=<level>,<scope>=<level>\t(changes some)
usage: POST /logging?reset\t\t\t\t(back to the start)
levels: error, warn, info, debug, trace, off
";

pub(super) fn answer(handle: &Handle, request: &Request) -> Response {
    if request.method() != http::Method::POST {
        return text(405, format!("Invalid HTTP method\n{HELP}"));
    }
    if query(request, "reset").is_some() {
        handle.reset();
    }
    match query(request, "level").filter(|level| !level.is_empty()) {
        Some(level) => match handle.set(&level) {
            Ok(()) => current(handle),
            Err(error) => text(400, format!("{error}\n{HELP}")),
        },
        None => current(handle),
    }
}

fn current(handle: &Handle) -> Response {
    text(200, format!("current log level is {}\n", handle.current()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;
    use telemetry::logging::{LogFormat, Sink, build};

    async fn ask(handle: &Handle, method: Method, uri: &str) -> (u16, String) {
        let request = Request::new(Default::default());
        let (mut head, body) = request.into_parts();
        head.method = method;
        head.uri = uri.parse().unwrap();
        let response = answer(handle, &Request::from_parts(head, body));
        (response.status().as_u16(), telemetry::http::body_text(response).await)
    }

    #[tokio::test]
    async fn levels_are_shown_changed_and_reset() {
        let (handle, _subscriber) = build(LogFormat::Plain, None, Sink::new(std::io::sink())).unwrap();

        let start = ask(&handle, Method::POST, "/logging").await;
        assert_eq!(start, (200, "current log level is hickory_server::server=off,info\n".into()));
        let changed = ask(&handle, Method::POST, "/logging?level=access=debug").await;
        assert!(changed.1.contains("access=debug"), "{}", changed.1);
        assert_eq!(ask(&handle, Method::POST, "/logging?reset").await, start);
    }

    #[tokio::test]
    async fn a_wrong_level_gets_help_and_a_wrong_method_405() {
        let (handle, _subscriber) = build(LogFormat::Plain, None, Sink::new(std::io::sink())).unwrap();

        let (status, body) = ask(&handle, Method::POST, "/logging?level=loud").await;
        assert_eq!(status, 400);
        assert!(body.contains("usage: POST /logging"));
        let (status, body) = ask(&handle, Method::GET, "/logging").await;
        assert_eq!(status, 405);
        assert!(body.starts_with("Invalid HTTP method"));
    }
}
