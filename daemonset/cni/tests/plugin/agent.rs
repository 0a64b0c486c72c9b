//! An agent that answers as the test wants, and what the plugin makes of it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use contract::cni::AddRequest;

use crate::Plugin;

/// One answer of an agent.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    /// These bytes, then the end of the connection.
    Answers(&'static str),
    /// These bytes one by one, and the connection stays open.
    AnswersInPieces(&'static str),
    /// Nothing; the connection stays open.
    IsSilent,
    /// The end of the connection, without reading.
    Closes,
}

pub(crate) const ENROLLED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"outcome\":\"enrolled\"}";
const NOT_SELECTED: &str =
    "HTTP/1.1 500 x\r\ncontent-length: 45\r\n\r\n{\"outcome\":\"notSelected\",\"reason\":\"no label\"}";
const FAILED: &str = "HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n\
                      14\r\n{\"outcome\":\"failed\",\r\n1b\r\n\"reason\":\"no ztunnel here\"}\r\n0\r\n\r\n";

/// Serves one connection in a thread; the request, and what keeps the connection open.
pub(crate) fn serve(socket: &Path, behaviour: Behaviour) -> JoinHandle<(String, Option<UnixStream>)> {
    let listener = UnixListener::bind(socket).unwrap();
    spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        if matches!(behaviour, Behaviour::Closes) {
            return (String::new(), None);
        }
        let mut asked = Vec::new();
        let mut byte = [0];
        // Head and body; the body is an object whose last field is a list, and a request without one ends with its head.
        while !(asked.ends_with(b"]}") || asked.starts_with(b"GET") && asked.ends_with(b"\r\n\r\n")) {
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "half a request: {}", String::from_utf8_lossy(&asked));
            asked.push(byte[0]);
        }
        let asked = String::from_utf8(asked).unwrap();
        match behaviour {
            Behaviour::Answers(text) => {
                stream.write_all(text.as_bytes()).unwrap();
                (asked, None)
            }
            Behaviour::AnswersInPieces(text) => {
                for byte in text.as_bytes() {
                    stream.write_all(&[*byte]).unwrap();
                }
                (asked, Some(stream))
            }
            Behaviour::IsSilent | Behaviour::Closes => (asked, Some(stream)),
        }
    })
}

#[test]
fn a_pod_starts_when_the_agent_says_that_it_is_enrolled_or_not_selected() {
    for behaviour in [
        Behaviour::Answers(ENROLLED),
        Behaviour::AnswersInPieces(ENROLLED),
        Behaviour::Answers(NOT_SELECTED),
        Behaviour::AnswersInPieces(NOT_SELECTED),
    ] {
        let plugin = Plugin::new();
        let agent = serve(&plugin.socket(), behaviour);

        let answer = plugin.run("ADD");

        assert!(answer.starts(), "{answer:?}");
        let (asked, _open) = agent.join().unwrap();
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /cmdadd HTTP/1.1\r\n"), "{head}");
        let request: AddRequest = serde_json::from_str(body).unwrap();
        assert_eq!((request.netns.as_str(), request.pod_uid.as_deref()), ("/var/run/netns/x", Some("u1")));
        assert_eq!((request.pod_namespace.as_str(), request.pod_name.as_str()), ("shop", "web"));
        assert_eq!(request.ips[0].address.ip.to_string(), "10.244.1.7");
        assert_eq!(request.ips[0].address.mask.as_deref(), Some("////AA=="));
        assert_eq!(plugin.log(), "", "nothing that somebody has to know");
    }
}

#[test]
fn a_refusal_is_the_kubelets_to_show_and_to_try_again() {
    let plugin = Plugin::new();
    let agent = serve(&plugin.socket(), Behaviour::Answers(FAILED));

    let (code, message) = plugin.run("ADD").error();

    assert_eq!(code, 11);
    assert!(message.contains("shop/web is not enrolled in the mesh yet: no ztunnel here"), "{message}");
    assert!(plugin.log().contains("refused pod=shop/web"), "{}", plugin.log());
    agent.join().unwrap();
}

#[test]
fn half_an_answer_or_none_is_no_permission() {
    for behaviour in [
        Behaviour::Closes,
        Behaviour::Answers(""),
        Behaviour::Answers("HTTP/1.1 200 OK\r\ncontent-length: 22\r\n\r\n{\"outcome\":"),
        Behaviour::Answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        Behaviour::Answers("HTTP/1.1 500 x\r\ncontent-length: 22\r\n\r\n{\"outcome\":\"enrolled\"}"),
        Behaviour::Answers("HTTP/1.1 404 Not Found\r\n\r\nnot found\n"),
        Behaviour::Answers("\0\u{1}garbage\r\n\r\n"),
    ] {
        let plugin = Plugin::new();
        let agent = serve(&plugin.socket(), behaviour);

        let (code, message) = plugin.run("ADD").error();

        assert_eq!(code, 11, "{message}");
        agent.join().unwrap();
    }
}

#[test]
fn an_agent_that_does_not_answer_is_waited_for_and_no_longer_than_it_may_take() {
    let plugin = Plugin::new();
    let agent = serve(&plugin.socket(), Behaviour::IsSilent);
    let begun = Instant::now();

    let (code, message) = plugin.run("ADD").error();

    assert_eq!(code, 11);
    assert!(message.starts_with("the node agent did not answer within 5s"), "{message}");
    assert!(begun.elapsed() >= Duration::from_secs(5));
    agent.join().unwrap();
}

#[test]
fn a_check_asks_as_well() {
    let plugin = Plugin::new();
    let agent = serve(&plugin.socket(), Behaviour::Answers(ENROLLED));
    let answer = plugin.run("CHECK");
    assert!(answer.is_success && answer.stdout.is_empty(), "{answer:?}");
    agent.join().unwrap();
    std::fs::remove_file(plugin.socket()).unwrap();

    let agent = serve(&plugin.socket(), Behaviour::Answers(FAILED));
    assert!(plugin.run("CHECK").error().1.contains("no ztunnel here"));
    agent.join().unwrap();
}
