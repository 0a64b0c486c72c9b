//! The server between clients and nameservers of this process, all on loopback.

mod stage;

use dns::{FORWARDED_QUESTIONS, IDLE_TIMEOUT};
use hickory_proto::op::{Edns, MessageType, ResponseCode};
use hickory_proto::rr::RecordType;
use stage::{Behaviour, Nameserver, Stage, address, asked, on_one_thread, question};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

#[test]
fn a_name_of_the_mesh_is_answered_here_and_any_other_by_the_nameserver() {
    on_one_thread(async {
        let nameserver = Nameserver::start(Behaviour::Answer).await;
        let stage = Stage::start(&[nameserver.address]).await;

        let own = stage.udp(&question("wEb.ns.")).await;
        let other = stage.udp(&question("eXample.com.")).await;

        assert_eq!(asked(&own), "wEb.ns.");
        assert_eq!((address(&own).as_str(), own.answers[0].ttl), ("10.96.0.1", 30));
        assert!(own.metadata.authoritative && own.metadata.recursion_available);
        assert_eq!((asked(&other).as_str(), address(&other).as_str()), ("eXample.com.", "192.0.2.1"));
        assert!(other.metadata.recursion_available && other.additionals.len() == 1);
        assert_eq!(nameserver.questions(), ["eXample.com."], "the name as it was asked, and no name of the mesh");
    });
}

#[test]
fn only_addresses_are_answered_here() {
    on_one_thread(async {
        let nameserver = Nameserver::start(Behaviour::Answer).await;
        let stage = Stage::start(&[nameserver.address]).await;
        let (mut mail, mut v6) = (question("web.ns."), question("web.ns."));
        mail.queries[0].query_type = RecordType::MX;
        v6.queries[0].query_type = RecordType::AAAA;

        stage.udp(&mail).await;
        let no_data = stage.udp(&v6).await;

        assert_eq!((no_data.metadata.response_code, no_data.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(nameserver.questions(), ["web.ns."], "the question for mail");
    });
}

#[test]
fn codes_of_nameservers_are_passed_on_without_records() {
    on_one_thread(async {
        for code in [ResponseCode::NXDomain, ResponseCode::NoError, ResponseCode::Refused, ResponseCode::ServFail] {
            let nameserver = Nameserver::start(Behaviour::Code(code)).await;
            let stage = Stage::start(&[nameserver.address]).await;

            let answer = stage.udp(&question("nobody.test.")).await;

            assert_eq!(answer.metadata.response_code, code);
            let records = answer.answers.len() + answer.authorities.len() + answer.additionals.len();
            assert_eq!(records, 0, "{code}: {answer}");
            assert_eq!(nameserver.questions().len(), 1, "asked once: {code}");
        }
    });
}

#[test]
fn a_nameserver_that_refuses_or_is_gone_is_followed_by_the_next_at_once() {
    on_one_thread(async {
        let refusing = Nameserver::start(Behaviour::Code(ResponseCode::Refused)).await;
        // Connected elsewhere, so that its port is taken and refuses everybody else.
        let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        deaf.connect(refusing.address).await.unwrap();
        let gone = deaf.local_addr().unwrap();
        let good = Nameserver::start(Behaviour::Answer).await;
        let stage = Stage::start(&[refusing.address, gone, good.address]).await;
        let begun = std::time::Instant::now();

        let answer = stage.udp(&question("example.com.")).await;

        assert_eq!(address(&answer), "192.0.2.1");
        assert!(begun.elapsed() < Duration::from_millis(1500), "waited {:?}", begun.elapsed());
    });
}

#[test]
fn silence_is_followed_by_another_attempt_and_in_the_end_by_servfail() {
    on_one_thread(async {
        let first_lost = Nameserver::start(Behaviour::AnswerAfter(1)).await;
        let stage = Stage::start(&[first_lost.address]).await;
        assert_eq!(address(&stage.udp(&question("example.com.")).await), "192.0.2.1");
        assert_eq!(first_lost.questions().len(), 2);

        let silent = Nameserver::start(Behaviour::Silent).await;
        let stage = Stage::start(&[silent.address]).await;
        let answer = stage.udp(&question("example.com.")).await;

        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(silent.questions().len(), 3);
    });
}

#[test]
fn without_a_nameserver_other_names_are_servfail() {
    on_one_thread(async {
        let stage = Stage::start(&[]).await;

        assert_eq!(stage.udp(&question("example.com.")).await.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(address(&stage.udp(&question("web.ns.")).await), "10.96.0.1");
    });
}

#[test]
fn answers_to_other_questions_do_not_count() {
    on_one_thread(async {
        let forging = Nameserver::start(Behaviour::Forge).await;
        let stage = Stage::start(&[forging.address]).await;

        let answer = stage.udp(&question("example.com.")).await;

        assert_eq!(address(&answer), "192.0.2.1", "neither another number nor another name");
    });
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_over_tcp() {
    on_one_thread(async {
        let long = Nameserver::start(Behaviour::Long).await;
        let stage = Stage::start(&[long.address]).await;
        let mut with_room = question("example.com.");
        with_room.edns = Some(Edns::new().set_max_payload(4096).clone());

        let cut = stage.udp(&question("example.com.")).await;
        let whole = stage.udp(&with_room).await;
        let over_tcp = stage.tcp(&question("example.com.")).await;

        assert!(cut.metadata.truncation && cut.answers.len() < 100 && cut.edns.is_none());
        assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 100));
        assert_eq!(whole.edns.map(|edns| edns.max_payload()), Some(4096));
        assert_eq!((over_tcp.metadata.truncation, over_tcp.answers.len()), (false, 100));
    });
}

#[test]
fn a_nameserver_without_tcp_leaves_the_answer_cut() {
    on_one_thread(async {
        let long = Nameserver::start(Behaviour::LongWithoutTcp).await;
        let stage = Stage::start(&[long.address]).await;

        let answer = stage.udp(&question("example.com.")).await;

        assert!(answer.metadata.truncation);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    });
}

#[test]
fn two_hundred_questions_at_once_are_answered_each_with_its_own_answer() {
    on_one_thread(async {
        let nameserver = Nameserver::start(Behaviour::Answer).await;
        let stage = Stage::start(&[nameserver.address]).await;
        let client = stage.client().await;
        let name = |n: u16| if n.is_multiple_of(2) { format!("host-{n}.example.com.") } else { "web.ns.".to_owned() };
        for n in 0..200 {
            let mut message = question(&name(n));
            message.metadata.id = n;
            client.send(&message.to_vec().unwrap()).await.unwrap();
        }

        let mut seen = std::collections::HashSet::new();
        while seen.len() < 200 {
            let answer = stage::receive(&client).await;
            let id = answer.metadata.id;
            let ip = if id.is_multiple_of(2) { "192.0.2.1" } else { "10.96.0.1" };
            assert_eq!((asked(&answer), address(&answer).as_str()), (name(id), ip));
            seen.insert(id);
        }
    });
}

#[test]
fn more_than_may_be_under_way_are_servfail_at_once_and_the_mesh_s_are_still_answered() {
    on_one_thread(async {
        let silent = Nameserver::start(Behaviour::Silent).await;
        let stage = Stage::start(&[silent.address]).await;
        let client = stage.client().await;
        for _ in 0..FORWARDED_QUESTIONS {
            client.send(&question("example.com.").to_vec().unwrap()).await.unwrap();
            // The socket's buffer is the kernel's: it must not lose what the test counts.
            tokio::task::yield_now().await;
        }
        stage.until_forwarded(FORWARDED_QUESTIONS).await;

        let refused = stage.udp(&question("example.com.")).await;
        let own = stage.udp(&question("web.ns.")).await;

        assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(stage.refused(), 1);
        assert_eq!(address(&own), "10.96.0.1");
    });
}

#[test]
fn garbage_gets_an_error_or_nothing_and_the_next_question_its_answer() {
    on_one_thread(async {
        let stage = Stage::start(&[]).await;
        let client = stage.client().await;
        let mut response = question("web.ns.");
        response.metadata.message_type = MessageType::Response;
        for packet in [&b""[..], b"\x01", b"GET / HTTP/1.1\r\n\r\n", &[0xff; 600], &response.to_vec().unwrap()] {
            client.send(packet).await.unwrap();
        }
        client.send(&question("web.ns.").to_vec().unwrap()).await.unwrap();

        loop {
            let answer = stage::receive(&client).await;
            if answer.metadata.response_code == ResponseCode::NoError {
                assert_eq!(address(&answer), "10.96.0.1");
                break;
            }
            let code = answer.metadata.response_code;
            assert!([ResponseCode::FormErr, ResponseCode::NotImp].contains(&code), "{code}");
        }
    });
}

#[test]
fn a_question_of_the_proxy_that_comes_back_to_it_ends_there() {
    on_one_thread(async {
        // The server is its own nameserver: redirection has caught the proxy's question.
        let stage = Stage::start_looped().await;

        let answer = stage.udp(&question("example.com.")).await;

        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert!(stage.sockets_made() <= 3, "{}", stage.sockets_made());
    });
}

#[test]
fn questions_over_one_connection_overtake_a_slow_one() {
    on_one_thread(async {
        let silent = Nameserver::start(Behaviour::Silent).await;
        let stage = Stage::start(&[silent.address]).await;
        let mut connection = TcpStream::connect(stage.tcp).await.unwrap();
        let mut bytes = stage::framed(&question("example.com."));
        bytes.extend(stage::framed(&question("web.ns.")));
        // Split anywhere, also within the length.
        for piece in [&bytes[..1], &bytes[1..20], &bytes[20..]] {
            connection.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }

        let first = stage::read(&mut connection).await;

        assert_eq!(asked(&first), "web.ns.");
    });
}

#[test]
fn a_client_that_has_closed_its_side_gets_its_answer_and_an_idle_one_is_closed() {
    on_one_thread(async {
        let stage = Stage::start(&[]).await;
        let mut connection = TcpStream::connect(stage.tcp).await.unwrap();
        connection.write_all(&stage::framed(&question("web.ns."))).await.unwrap();
        connection.shutdown().await.unwrap();
        assert_eq!(address(&stage::read(&mut connection).await), "10.96.0.1");
        assert_eq!(connection.read(&mut [0]).await.unwrap(), 0, "closed after its last answer");

        let mut idle = TcpStream::connect(stage.tcp).await.unwrap();
        let begun = std::time::Instant::now();
        // Not a whole question: sending bytes now and then keeps nothing open.
        idle.write_all(&[0]).await.unwrap();
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        assert!(begun.elapsed() >= IDLE_TIMEOUT - Duration::from_millis(50), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_question_that_is_too_long_ends_its_connection() {
    on_one_thread(async {
        let stage = Stage::start(&[]).await;
        let mut connection = TcpStream::connect(stage.tcp).await.unwrap();

        connection.write_all(&[0xff; 100]).await.unwrap();

        assert!(matches!(connection.read(&mut [0]).await, Ok(0) | Err(_)));
    });
}

#[test]
fn a_drain_answers_what_is_under_way_and_takes_nothing_new() {
    on_one_thread(async {
        let slow = Nameserver::start(Behaviour::AnswerAfter(1)).await;
        let stage = Stage::start(&[slow.address]).await;
        let client = stage.client().await;
        let mut connection = TcpStream::connect(stage.tcp).await.unwrap();
        client.send(&question("example.com.").to_vec().unwrap()).await.unwrap();
        stage.until_forwarded(1).await;

        stage.drain.start(Duration::from_secs(10));
        let answer = stage::receive(&client).await;

        assert_eq!(address(&answer), "192.0.2.1");
        assert_eq!(connection.read(&mut [0]).await.unwrap(), 0, "an idle connection is closed");
        stage.until_ended().await;
    });
}

#[test]
fn a_client_that_discovery_does_not_know_waits_for_it() {
    on_one_thread(async {
        let stage = Stage::start_unknown().await;
        let client = stage.client().await;
        client.send(&question("web.ns.").to_vec().unwrap()).await.unwrap();
        let nothing = tokio::time::timeout(Duration::from_millis(100), stage::receive(&client)).await;
        assert!(nothing.is_err(), "answered before it is known who asks");

        stage.discover_client();

        assert_eq!(address(&stage::receive(&client).await), "10.96.0.1");
    });
}

#[test]
fn each_question_to_a_nameserver_has_a_port_and_a_number_of_its_own() {
    on_one_thread(async {
        let nameserver = Nameserver::start(Behaviour::Answer).await;
        let stage = Stage::start(&[nameserver.address]).await;
        for _ in 0..50 {
            stage.udp(&question("example.com.")).await;
        }

        let (ids, ports): (std::collections::HashSet<u16>, std::collections::HashSet<SocketAddr>) =
            nameserver.origins().into_iter().unzip();

        assert!(ids.len() > 45 && ports.len() > 25, "{} numbers, {} ports", ids.len(), ports.len());
    });
}
