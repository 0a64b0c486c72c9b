//! The process has no descriptor left: nothing spins, and all goes on once there are some again. Alone in its program, as
//! it lowers the limit of the process.

mod pods;

use pods::{PATIENCE, Proxy, echo_server, state, two_pods};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use std::fs::File;
use std::io::{Read, Seek};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Time that the process is left without descriptors, and processor time that it may use meanwhile.
const WITHOUT: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_millis(300);

#[test]
fn a_process_without_descriptors_does_not_spin_and_serves_again_afterwards() {
    let Some((client, server)) = two_pods("emfile") else { return };
    let _proxy = Proxy::start(state(&client, &server, "HBONE"), &[&client, &server]);
    let listener = server.listen("0.0.0.0:8080");
    let to: SocketAddr = "10.77.0.2:8080".parse().unwrap();
    let socket = || client.netns.run(|| Socket::new(Domain::IPV4, Type::STREAM, None)).unwrap();
    // Made before there are no more.
    let sockets: Vec<_> = (0..20).map(|_| socket()).collect();
    let mut time = ProcessorTime(File::open("/proc/self/stat").unwrap());
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(4), maximum: before.maximum }).unwrap();
    for socket in &sockets {
        socket.connect_timeout(&to.into(), PATIENCE).unwrap();
    }

    let (begun, before_it) = (Instant::now(), time.read());
    while let Some(left) = WITHOUT.checked_sub(begun.elapsed()) {
        std::thread::park_timeout(left);
    }
    let busy = time.read() - before_it;
    setrlimit(Resource::Nofile, before).unwrap();
    // Not before: it has descriptors of this process.
    echo_server(listener);

    assert!(busy < BUSY, "{busy:?} of a processor within {WITHOUT:?}");
    let deadline = Instant::now() + PATIENCE;
    let served = || {
        let mut socket = socket();
        let connected = socket.connect_timeout(&to.into(), PATIENCE);
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        connected.is_ok() && socket.read_exact(&mut [0; 4]).is_ok()
    };
    while !served() {
        assert!(Instant::now() < deadline, "not served again");
    }
}

/// Time that all threads of this process have used, user and system. Opened before there is no descriptor left.
struct ProcessorTime(File);

impl ProcessorTime {
    fn read(&mut self) -> Duration {
        let mut text = String::new();
        self.0.rewind().unwrap();
        self.0.read_to_string(&mut text).unwrap();
        // Fields 14 and 15 of proc_pid_stat(5), ticks of 10 ms; the name before them may have spaces.
        let fields: Vec<_> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |n: usize| fields[n - 3].parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(14) + ticks(15)))
    }
}
