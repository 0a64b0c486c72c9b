//! The program is asked to end by its admin interface: what it answers meanwhile, and at the end.

mod pods;
mod program;

use pods::observe::eventually;
use pods::{Pod, echo_server, two_pods};
use program::Program;
use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// Time that connections have to end.
const DEADLINE: Duration = Duration::from_secs(2);

/// Sends a request to the admin interface in the pod's namespace. Empty: it does not answer.
fn admin(pod: &Pod, method: &str, path: &str) -> String {
    let Ok(mut socket) = pod.connect("127.0.0.1:15000") else { return String::new() };
    let mut answer = String::new();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    if socket.write_all(request.as_bytes()).is_ok() {
        let _ = socket.read_to_string(&mut answer);
    }
    answer
}

fn without_space(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn quitquitquit_answers_when_all_is_over_and_the_dump_shows_what_is_left_until_then() {
    let Some((client, server)) = two_pods("quit") else { return };
    assert!(client.exec("nft flush chain ip istio nat_output"));
    echo_server(server.listen("0.0.0.0:8080"));
    let mut program = Program::start(&server, DEADLINE);
    eventually("the proxy serves", || {
        without_space(&admin(&server, "GET", "/config_dump")).contains(r#""state":"Up""#)
    });
    let mut open = client.connect("10.77.0.2:8080").unwrap();
    open.read_exact(&mut [0; 10]).unwrap();

    let begun = Instant::now();
    let (answer, dumps) = thread::scope(|scope| {
        let asked = scope.spawn(|| admin(&server, "POST", "/quitquitquit"));
        let mut dumps = Vec::new();
        while !asked.is_finished() {
            let dump = admin(&server, "GET", "/config_dump");
            if !asked.is_finished() {
                dumps.push(dump);
            }
        }
        (asked.join().unwrap(), dumps)
    });

    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("shutdown now\n"), "{answer:?}");
    assert!(begun.elapsed() >= DEADLINE, "it did not wait for the open connection");
    let listed = |dump: &String| {
        let text = without_space(dump);
        text.contains(r#""inbound":[{"src":"10.77.0.1:"#) && text.contains(r#""actualDst":"10.77.0.2:8080""#)
    };
    // The last one may have been asked for when all was over.
    let first = &dumps[..dumps.len() - 1];
    assert!(first.len() > 1 && first[..first.len() / 2].iter().all(listed), "{:?}", first.first());
    assert!(first.iter().all(|dump| dump.starts_with("HTTP/1.1 200")), "not all were answered");
    eventually("the process has ended", || program.has_ended());
}
