//! DNS questions of a pod, redirected as Istio's agent does: answered by its proxy from the mesh, or by a nameserver that sees
//! the pod's address. Skipped without root, `ip` or `nft`.

mod pods;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use model::{Address, Change};
use pods::observe::eventually;
use pods::{PATIENCE, Pod, Proxy, calm, two_pods};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use ztunnel::inpod::DnsOptions;
use ztunnel::workers::DNS_CONNECTIONS;

/// Address of a nameserver that nobody has: questions to it are answered by the proxy or not at all.
const NOBODY: &str = "10.77.0.53:53";
/// The proxy's listener in each pod.
const LISTENER: &str = "127.0.0.1:15053";

fn dns(nameservers: &[&str]) -> DnsOptions {
    let settings = dns::Settings {
        cluster_domain: "cluster.local".into(),
        preferred_namespace: None,
        ipv6: true,
        search: None,
        nameservers: nameservers.iter().map(|address| address.parse().unwrap()).collect(),
    };
    let listen = [LISTENER, "[::1]:15053"].map(|address| address.parse().unwrap());
    DnsOptions { listen: listen.into(), settings: Arc::new(settings) }
}

/// A proxy that answers for the client, whose questions are redirected to it; the other pod has nameservers of the test.
fn start(client: &Pod, server: &Pod, nameservers: &[&str]) -> Proxy {
    start_for(&[client], client, server, nameservers)
}

/// As [`start`], with one worker that answers for both pods, so that nothing but the budgets keeps them apart. The server asks
/// at [`LISTENER`].
fn start_for_both(client: &Pod, server: &Pod, nameservers: &[&str]) -> Proxy {
    start_for(&[client, server], client, server, nameservers)
}

fn start_for(pods: &[&Pod], client: &Pod, server: &Pod, nameservers: &[&str]) -> Proxy {
    // As istio-cni's, before the rules for TCP.
    for rule in [
        "oifname != lo udp dport 53 meta mark and 0xfff != 0x539 redirect to :15053",
        "ip daddr != 127.0.0.1 tcp dport 53 meta mark and 0xfff != 0x539 redirect to :15053",
    ] {
        assert!(client.exec(&format!("nft insert rule ip istio nat_output {rule}")), "{rule}");
    }
    // Its nameservers are not in the mesh: nothing takes their connections before them.
    assert!(server.exec("nft flush ruleset"));
    let state = pods::state(client, server, "HBONE");
    let web = serde_json::json!({
        "name": "web", "namespace": "test", "hostname": "web.test.svc.cluster.local", "vips": ["/10.96.0.1"],
    });
    state.apply_addresses(vec![Change::Upsert(Address::Service(serde_json::from_value(web).unwrap()))]);
    let workers = if pods.len() > 1 { 1 } else { 2 };
    Proxy::start_with_dns(workers, state, pods, dns(nameservers))
}

fn question(name: &str) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

fn udp_socket(pod: &Pod, to: &str) -> UdpSocket {
    let to: SocketAddr = to.parse().unwrap();
    let socket = pod.netns.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn receive(socket: &UdpSocket) -> io::Result<Message> {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer)?;
    Ok(Message::from_vec(&buffer[..length]).unwrap())
}

fn ask(pod: &Pod, to: &str, name: &str) -> Message {
    let (socket, question) = (udp_socket(pod, to), question(name));
    socket.send(&question.to_vec().unwrap()).unwrap();
    let answer = receive(&socket).unwrap();
    assert_eq!(answer.metadata.id, question.metadata.id);
    answer
}

fn framed(message: &Message) -> Vec<u8> {
    let bytes = message.to_vec().unwrap();
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

fn ask_over(connection: &mut TcpStream, name: &str) -> Message {
    connection.write_all(&framed(&question(name))).unwrap();
    read(connection).unwrap()
}

fn read(connection: &mut TcpStream) -> io::Result<Message> {
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    connection.read_exact(&mut bytes)?;
    Ok(Message::from_vec(&bytes).unwrap())
}

fn address(answer: &Message) -> Option<Ipv4Addr> {
    match answer.answers.first().map(|record| &record.data) {
        Some(RData::A(a)) => Some(a.0),
        _ => None,
    }
}

fn answer(question: &Message) -> Message {
    let mut message = Message::response(question.metadata.id, OpCode::Query);
    message.queries.clone_from(&question.queries);
    let data = RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, 1)));
    message.answers.push(Record::from_rdata(question.queries[0].name.clone(), 60, data));
    message
}

/// A nameserver in a pod, over UDP and TCP. It says from where each question came; it answers when `answers`.
fn nameserver(pod: &Pod, answers: bool) -> Receiver<IpAddr> {
    let (seen, questions) = channel();
    let udp = pod.netns.run(|| UdpSocket::bind("0.0.0.0:53")).unwrap();
    let tcp = pod.listen("0.0.0.0:53");
    let over_tcp = seen.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            if seen.send(from.ip()).is_err() {
                return;
            }
            let question = Message::from_vec(&buffer[..length]).unwrap();
            if answers {
                udp.send_to(&answer(&question).to_vec().unwrap(), from).unwrap();
            }
        }
    });
    thread::spawn(move || {
        while let Ok((mut connection, from)) = tcp.accept() {
            if over_tcp.send(from.ip()).is_err() {
                return;
            }
            if let Ok(question) = read(&mut connection) {
                connection.write_all(&framed(&answer(&question))).unwrap();
            }
        }
    });
    questions
}

#[test]
fn names_of_the_mesh_are_answered_by_the_proxy_whatever_nameserver_is_asked() {
    let Some((client, server)) = two_pods("dnsown") else { return };
    let _proxy = start(&client, &server, &[]);

    let over_udp = ask(&client, NOBODY, "WEB.test.");
    let over_tcp = ask_over(&mut client.connect(NOBODY).unwrap(), "web.test.svc.cluster.local.");

    for answer in [over_udp, over_tcp] {
        assert_eq!(address(&answer), Some(Ipv4Addr::new(10, 96, 0, 1)), "{answer}");
    }
    if let Ok(v6) = client.netns.run(|| UdpSocket::bind("[::1]:0")) {
        v6.set_read_timeout(Some(PATIENCE)).unwrap();
        v6.send_to(&question("web.").to_vec().unwrap(), "[::1]:15053").unwrap();
        assert_eq!(address(&receive(&v6).unwrap()), Some(Ipv4Addr::new(10, 96, 0, 1)));
    }
}

#[test]
fn other_names_are_asked_from_the_pods_address_and_do_not_come_back_to_the_proxy() {
    let Some((client, server)) = two_pods("dnsother") else { return };
    let questions = nameserver(&server, true);
    let _proxy = start(&client, &server, &["10.77.0.2:53"]);

    // The resolver of the pod is another one than the proxy's, and not there.
    let over_udp = ask(&client, NOBODY, "example.com.");
    let over_tcp = ask_over(&mut client.connect(NOBODY).unwrap(), "example.com.");

    for answer in [over_udp, over_tcp] {
        assert_eq!(address(&answer), Some(Ipv4Addr::new(192, 0, 2, 1)), "{answer}");
        let from = questions.recv_timeout(PATIENCE).unwrap();
        assert_eq!(from, client.ip.parse::<IpAddr>().unwrap());
    }
    assert!(questions.try_recv().is_err(), "asked more than once");
}

#[test]
fn two_hundred_questions_at_once_are_answered() {
    let Some((client, server)) = two_pods("dnsmany") else { return };
    let _questions = nameserver(&server, true);
    let _proxy = start(&client, &server, &["10.77.0.2:53"]);
    let sockets: Vec<_> = (0..200).map(|_| udp_socket(&client, NOBODY)).collect();

    let asked: Vec<_> =
        (0..200).map(|n| question(&if n % 2 == 0 { "web.".into() } else { format!("h{n}.com.") })).collect();
    for (socket, question) in sockets.iter().zip(&asked) {
        socket.send(&question.to_vec().unwrap()).unwrap();
    }

    for (socket, question) in sockets.iter().zip(&asked) {
        let answer = receive(socket).unwrap();
        assert_eq!((answer.metadata.id, &answer.queries), (question.metadata.id, &question.queries));
        assert!(address(&answer).is_some(), "{answer}");
    }
}

#[test]
fn a_proxy_whose_own_questions_are_redirected_to_it_ends_the_loop_with_servfail() {
    let Some((client, server)) = two_pods("dnsloop") else { return };
    let _proxy = start(&client, &server, &["10.77.0.53:53"]);
    // Rules that do not know the proxy's mark.
    assert!(client.exec("nft insert rule ip istio nat_output oifname != lo udp dport 53 redirect to :15053"));

    let answer = ask(&client, NOBODY, "example.com.");

    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn a_pod_that_is_stopped_is_answered_no_more_and_a_drain_ends_with_the_last_answer() {
    let Some((client, server)) = two_pods("dnsstop") else { return };
    let questions = nameserver(&server, false);
    let mut proxy = start(&client, &server, &["10.77.0.2:53"]);
    let waiting = udp_socket(&client, NOBODY);
    waiting.send(&question("example.com.").to_vec().unwrap()).unwrap();
    questions.recv_timeout(PATIENCE).unwrap();

    proxy.drain.start(Duration::from_secs(20));
    let workers = proxy.workers.clone();
    let cut = proxy.runtime.block_on(async move { workers.threads().drain().await });

    // No nameserver has answered: the proxy says so before it ends.
    assert_eq!((cut, receive(&waiting).unwrap().metadata.response_code), (0, ResponseCode::ServFail));
    let (runtime, pods) = (&proxy.runtime, &mut proxy.pods);
    runtime.block_on(pods.del(&client.namespace));
    assert!(client.refuses("127.0.0.1:15053"));
}

#[test]
fn a_pod_with_as_many_connections_as_it_may_have_waits_with_the_next() {
    let Some((client, server)) = two_pods("dnsconns") else { return };
    calm::recorder();
    let _proxy = start_for_both(&client, &server, &[]);
    let hold = || {
        let mut held: Vec<_> = (0..DNS_CONNECTIONS).map(|_| client.connect(NOBODY).unwrap()).collect();
        // The last one is accepted after all others.
        assert!(address(&ask_over(held.last_mut().unwrap(), "web.")).is_some());
        held
    };

    let neighbour = calm::by_turns(
        || {
            let begun = Instant::now();
            assert!(address(&ask_over(&mut server.connect(LISTENER).unwrap(), "web.")).is_some());
            begun.elapsed()
        },
        hold,
    );
    let begun = Instant::now();
    let held = hold();
    let mut further = client.connect(NOBODY).unwrap();
    further.set_read_timeout(Some(Duration::from_millis(500))).unwrap();

    further.write_all(&framed(&question("web."))).unwrap();

    // On a machine so busy that the first ones are idle by now, there is room again.
    assert!(read(&mut further).is_err() || begun.elapsed() > dns::IDLE_TIMEOUT, "answered beyond the budget");
    drop(held);
    calm::assert_undisturbed("connections with DNS questions", neighbour);
    calm::assert_counted("strake_budget_exceeded_total{budget=\"dns_connections\",owner=\"pod\"}");
    // Another connection: what was read of the first one's answer is not known.
    assert!(address(&ask_over(&mut client.connect(NOBODY).unwrap(), "web.")).is_some());
}

/// Counts the questions that a pod was refused because it had asked too many.
const REFUSED_QUESTIONS: &str = "strake_budget_exceeded_total{budget=\"questions\",owner=\"pod\"}";

/// A pod that asks a nameserver that does not answer, again and again until it is dropped.
struct Asking {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Asking {
    /// Returns when the pod is refused questions.
    fn start(pod: &Pod) -> Self {
        let socket = udp_socket(pod, NOBODY);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let before = calm::counted(REFUSED_QUESTIONS);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // 2500 a second, so that more than 512 are under way in the 5 s that each lives.
                for _ in 0..50 {
                    socket.send(&question("example.com.").to_vec().unwrap()).unwrap();
                }
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        let asking = Self { stop, thread: Some(thread) };
        eventually("the pod is refused questions", || calm::counted(REFUSED_QUESTIONS) > before);
        asking
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the pod could not ask");
    }
}

#[test]
fn a_pod_that_asks_more_than_it_may_leaves_its_neighbours_questions_to_nameservers() {
    let Some((client, server)) = two_pods("dnsshare") else { return };
    calm::recorder();
    let seen = nameserver(&server, false);
    let _proxy = start_for_both(&client, &server, &["10.77.0.2:53"]);

    let of_the_mesh = calm::by_turns(
        || {
            let begun = Instant::now();
            assert!(address(&ask(&server, LISTENER, "web.")).is_some());
            begun.elapsed()
        },
        || Asking::start(&client),
    );
    let asking = Asking::start(&client);
    let waiting = udp_socket(&server, LISTENER);
    waiting.send(&question("example.com.").to_vec().unwrap()).unwrap();

    let deadline = Instant::now() + PATIENCE;
    let until_then = || if Instant::now() < deadline { seen.recv_timeout(PATIENCE).ok() } else { None };
    let forwarded = std::iter::from_fn(until_then).any(|from| from.to_string() != client.ip);

    assert!(forwarded, "the neighbour's question was refused");
    drop(asking);
    calm::assert_undisturbed("DNS questions that are not answered", of_the_mesh);
}

#[test]
fn a_pod_whose_dns_port_is_taken_does_not_start_by_halves() {
    let Some((client, server)) = two_pods("dnstaken") else { return };
    let state = pods::state(&client, &server, "HBONE");
    let mut proxy = Proxy::start_with_dns(2, state, &[], dns(&[]));
    let _taken = client.netns.run(|| UdpSocket::bind("127.0.0.1:15053")).unwrap();

    let refused = proxy.add("uid", &client).unwrap_err();

    assert!(refused.starts_with("failed to bind to address 127.0.0.1:15053"), "{refused}");
    assert_eq!(proxy.status(), (0, 1, true));
    assert!(client.refuses("127.0.0.1:15008"), "half a pod was started");
}

#[test]
fn a_pod_without_ipv6_on_its_loopback_is_answered_on_ipv4() {
    let Some((client, server)) = two_pods("dnsv4") else { return };
    assert!(client.exec("sysctl -q -w net.ipv6.conf.lo.disable_ipv6=1"));
    let _proxy = start(&client, &server, &[]);

    assert_eq!(address(&ask(&client, NOBODY, "web.")), Some(Ipv4Addr::new(10, 96, 0, 1)));
}
