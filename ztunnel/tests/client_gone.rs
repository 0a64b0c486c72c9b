//! Clients that vanish, or end their half, while the proxy still connects to the server for them.

mod pods;

use pods::observe::{eventually, open_connections};
use pods::{Pod, Proxy, calm, echo_server, state, two_pods};
use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;
use ztunnel::proxy::dial::CONNECT_TIMEOUT;

/// A table of the server pod that loses what comes for this port, so that connections to it stay unanswered.
const SILENCE: &str =
    "table ip silence { chain raw { type filter hook prerouting priority raw; tcp dport 8081 drop; }; }";
/// A dial that is given up by its client ends sooner than one that is given up for its time.
const SOON: Duration = Duration::from_secs(5);

/// The pods and their proxy; nobody answers on port 8081 of the server.
fn silent(test: &str, protocol: &str) -> Option<(Pod, Pod, Proxy)> {
    const { assert!(SOON.as_secs() < CONNECT_TIMEOUT.as_secs()) };
    calm::recorder();
    let (client, server) = two_pods(test)?;
    let rules = std::env::temp_dir().join(format!("{}-{}.nft", server.namespace, std::process::id()));
    std::fs::write(&rules, SILENCE).unwrap();
    assert!(server.exec(&format!("nft -f {}", rules.display())));
    std::fs::remove_file(&rules).unwrap();
    let served: &[&Pod] = if protocol == "HBONE" { &[&client, &server] } else { &[&client] };
    let proxy = Proxy::start(state(&client, &server, protocol), served);
    Some((client, server, proxy))
}

/// Waits until a proxy has counted a connection as one that failed before it was open.
fn assert_failed(reporter: &str) {
    let is_failure = |line: &str| {
        line.starts_with("istio_tcp_connections_failed_total{")
            && line.contains(&format!("reporter=\"{reporter}\""))
            && line.contains("response_flags=\"CONNECT\"")
    };
    eventually("the failure is counted", || calm::recorder().render().lines().any(is_failure));
}

fn reset(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

#[test]
fn a_client_that_resets_while_its_server_is_dialled_ends_the_dial() {
    let Some((client, _server, proxy)) = silent("dial", "TCP") else { return };
    let socket = client.connect("10.77.0.2:8081").unwrap();
    eventually("the server is dialled", || open_connections(&proxy, &client) == 1);

    reset(socket);

    let took = eventually("the dial ends", || open_connections(&proxy, &client) == 0);
    assert!(took < SOON, "the dial went on for {took:?}");
    assert_failed("source");
}

#[test]
fn a_client_that_resets_before_the_answer_to_connect_ends_the_dials_of_both_proxies() {
    let Some((client, server, proxy)) = silent("answer", "HBONE") else { return };
    let socket = client.connect("10.77.0.2:8081").unwrap();
    eventually("the application is dialled", || open_connections(&proxy, &server) == 1);

    reset(socket);

    let both = || open_connections(&proxy, &client) + open_connections(&proxy, &server);
    let took = eventually("both dials end", || both() == 0);
    assert!(took < SOON, "a dial went on for {took:?}");
    assert_failed("destination");
}

#[test]
fn a_client_that_has_only_ended_its_half_still_gets_its_answer() {
    for protocol in ["TCP", "HBONE"] {
        let Some((client, server, proxy)) = silent(&format!("half-{protocol}").to_lowercase(), protocol) else {
            return;
        };
        echo_server(server.listen("0.0.0.0:8081"));
        if protocol == "TCP" {
            assert!(server.exec("nft flush chain ip istio nat_prerouting"));
        }
        let mut socket = client.connect("10.77.0.2:8081").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        eventually("the server is dialled", || open_connections(&proxy, &client) == 1);

        // The kernel sends the SYN again after a second.
        assert!(server.exec("nft delete table ip silence"));

        let mut line = String::new();
        socket.read_to_string(&mut line).unwrap();
        assert_eq!(line, "10.77.0.1\n", "{protocol}");
    }
}
