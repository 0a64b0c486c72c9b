//! Random frames against random use: nothing panics, no window is lost, and every stream ends in a defined way.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Payload {
    /// A request or an answer, by role.
    Message,
    /// Fields that are neither.
    Trailers,
    Number(u32),
    /// A parameter of SETTINGS with a value.
    Parameter(u16, u32),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone)]
enum Step {
    Frame {
        kind: u8,
        flags: u8,
        stream: u32,
        payload: Payload,
    },
    /// Calls of a user of a stream.
    Send {
        line: usize,
        bytes: usize,
        end: bool,
    },
    Reset {
        line: usize,
    },
    Leave {
        line: usize,
    },
    Read {
        line: usize,
    },
    Open,
    Drain,
    Ping,
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        3 => Just(Payload::Message),
        1 => Just(Payload::Trailers),
        2 => prop_oneof![0..10_u32, Just(MAX_WINDOW_SIZE), any::<u32>()].prop_map(Payload::Number),
        1 => (1..7_u16, prop_oneof![0..70_000_u32, any::<u32>()]).prop_map(|(id, value)| Payload::Parameter(id, value)),
        3 => vec(any::<u8>(), 0..60).prop_map(Payload::Bytes),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![Just(0), Just(1), Just(4), Just(5), any::<u8>()];
    let line = 0..6_usize;
    prop_oneof![
        12 => (0..11_u8, flags, 0..12_u32, payload())
            .prop_map(|(kind, flags, stream, payload)| Step::Frame { kind, flags, stream, payload }),
        2 => (line.clone(), 0..3000_usize, any::<bool>()).prop_map(|(line, bytes, end)| Step::Send { line, bytes, end }),
        1 => line.clone().prop_map(|line| Step::Reset { line }),
        1 => line.clone().prop_map(|line| Step::Leave { line }),
        2 => line.prop_map(|line| Step::Read { line }),
        1 => Just(Step::Open),
        1 => Just(Step::Drain),
        1 => Just(Step::Ping),
    ]
}

/// A peer and what its other end has.
struct Run {
    peer: Peer,
    streams: Vec<StreamRef>,
}

impl Run {
    fn step(&mut self, step: &Step) -> Result<(), Error> {
        let line = |line: &usize| self.streams.get(*line).cloned();
        let connection = &mut self.peer.connection;
        match step {
            Step::Frame { kind, flags, stream, payload } => return self.frame(*kind, *flags, *stream, payload),
            Step::Send { line: at, bytes, end } => {
                if let Some(line) = line(at).filter(|line| !line.borrow().is_send_finished()) {
                    self.peer.sends(&line, *bytes, *end);
                }
            }
            Step::Reset { line: at } => drop(line(at).map(|line| connection.reset(&line, Reason::Cancel))),
            Step::Leave { line: at } => drop(line(at).map(|line| connection.discard_data(&line))),
            Step::Read { line: at } => {
                if let Some(line) = line(at) {
                    let read = line.borrow_mut().pop_data().map_or(0, |piece| piece.len());
                    connection.release_capacity(&mut line.borrow_mut(), read);
                }
            }
            Step::Open => {
                if self.peer.role == Role::Client && matches!(connection.can_open(), Ok(true)) {
                    self.streams.push(connection.connect("10.0.0.1:80", &HeaderMap::new()));
                }
            }
            Step::Drain if self.peer.role == Role::Server => connection.drain(),
            Step::Drain => {}
            Step::Ping => connection.send_ping(),
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &Payload) -> Result<(), Error> {
        let message: &[_] = match self.peer.role {
            Role::Server => &[(":method", "CONNECT"), (":authority", "a:1")],
            Role::Client => &[(":status", "200")],
        };
        let payload = match payload {
            Payload::Message => self.peer.block(message),
            Payload::Trailers => self.peer.block(&[("x", "y")]),
            Payload::Number(number) => number.to_be_bytes().to_vec(),
            Payload::Parameter(id, value) => [&id.to_be_bytes()[..], &value.to_be_bytes()].concat(),
            Payload::Bytes(bytes) => bytes.clone(),
        };
        self.peer.says(|out| encode(out, kind, flags, stream, &payload))?;
        while let Some((line, _)) = self.peer.connection.next_request() {
            self.peer.connection.send_response(&line, StatusCode::OK, &HeaderMap::new(), false);
            self.streams.push(line);
        }
        Ok(())
    }
}

fn check(role: Role, steps: &[Step]) {
    let settings = Settings {
        max_concurrent_streams: 4,
        stream_window_bytes: 500,
        connection_window_bytes: 70_000,
        ..Settings::default()
    };
    let mut run = Run { peer: Peer::of(role, &settings), streams: Vec::new() };
    let mut window = i64::from(DEFAULT_INITIAL_WINDOW_SIZE);
    let mut fault = None;

    for step in steps {
        if let Step::Frame { kind: kind::WINDOW_UPDATE, stream: 0, payload, .. } = step {
            window += match payload {
                Payload::Number(number) => i64::from(number & MAX_WINDOW_SIZE),
                Payload::Bytes(bytes) => {
                    bytes[..].try_into().map_or(0, |b| i64::from(u32::from_be_bytes(b) & MAX_WINDOW_SIZE))
                }
                Payload::Message | Payload::Trailers | Payload::Parameter(..) => 0,
            };
        }
        fault = run.step(step).err();
        let sent: usize = data(&run.peer.hears()).into_iter().map(|(_, bytes)| bytes).sum();
        window -= i64::try_from(sent).unwrap();
        assert!(window >= 0, "more DATA than the window of the connection");
        if fault.is_some() {
            break;
        }
    }

    // Whoever has a stream gives it up; then all of the window is there again, or on its way.
    for line in &run.streams {
        run.peer.connection.discard_data(line);
    }
    let held: u32 = run.streams.iter().map(|line| line.borrow().recv.held_bytes).sum();
    let expected = i64::from(settings.connection_window_bytes);
    if fault.is_none() {
        assert_eq!((held, run.peer.connection.free_window_bytes()), (0, expected));
    }
    let fault = Arc::new(fault.unwrap_or(Error::UnexpectedEof));
    run.peer.connection.fail(&fault);
    assert!(!run.peer.connection.has_streams() && !run.peer.connection.is_usable());
    for line in &run.streams {
        let stream = line.borrow();
        assert!(stream.is_end_stream_received() || stream.abort_cause().is_some(), "{stream:?}");
        assert!(stream.state.is_closed(), "{stream:?}");
    }
}

proptest! {
    #[test]
    fn any_frames_and_any_use_leave_a_server_in_a_defined_state(steps in vec(step(), 1..80)) {
        check(Role::Server, &steps);
    }

    #[test]
    fn any_frames_and_any_use_leave_a_client_in_a_defined_state(steps in vec(step(), 1..80)) {
        check(Role::Client, &steps);
    }
}
