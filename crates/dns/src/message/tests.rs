//! Messages from bytes to bytes.

use super::*;
use hickory_proto::rr::{Name, RData, Record, rdata};
use std::net::Ipv4Addr;

fn query(name: &str) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.edns = Some(edns);
    message
}

fn question(message: &Message) -> Question {
    match parse(&message.to_vec().unwrap()) {
        Parsed::Question(question) => *question,
        other => panic!("{other:?}"),
    }
}

/// Code and id of the answer to what is no question.
fn refusal(packet: &[u8]) -> (ResponseCode, u16, Refusal) {
    match parse(packet) {
        Parsed::Refused(message, refusal) => {
            let bytes = encode(message, 512).unwrap();
            let metadata = Message::from_vec(&bytes).unwrap().metadata;
            assert_eq!(metadata.message_type, MessageType::Response);
            (metadata.response_code, metadata.id, refusal)
        }
        other => panic!("{other:?}"),
    }
}

fn address(n: u32) -> Record {
    let name = Name::from_ascii("headless.ns.svc.cluster.local.").unwrap();
    Record::from_rdata(name, 30, RData::A(rdata::A(Ipv4Addr::from(0x0a00_0000 + n))))
}

#[test]
fn an_answer_repeats_the_question_letter_by_letter() {
    let question = question(&query("wEb.Ns.SVC.cluster.LOCAL."));

    let bytes = encode(question.response(), 512).unwrap();

    let answer = Message::from_vec(&bytes).unwrap();
    assert_eq!(answer.queries[0].name.to_ascii(), "wEb.Ns.SVC.cluster.LOCAL.");
    assert_eq!((answer.metadata.id, answer.metadata.recursion_desired), (7, true));
    assert!(answer.metadata.recursion_available && answer.edns.is_none());
}

#[test]
fn edns_is_answered_with_edns_of_version_0_and_the_room_that_was_offered() {
    let room =
        |offered| question(&with_edns(query("a."), offered)).response().edns.map(|e| (e.version(), e.max_payload()));

    assert_eq!(room(4096), Some((0, 4096)));
    assert_eq!(room(100), Some((0, 512)), "less than every client must take");
    assert_eq!(question(&query("a.")).udp_bytes(), 512);
    assert_eq!(question(&with_edns(query("a."), 1232)).udp_bytes(), 1232);
}

#[test]
fn what_is_no_question_gets_the_error_that_says_so() {
    let bytes = |change: fn(&mut Message)| {
        let mut message = query("a.");
        change(&mut message);
        message.to_vec().unwrap()
    };
    let response = bytes(|m| m.metadata.message_type = MessageType::Response);
    let status = bytes(|m| m.metadata.op_code = OpCode::Status);
    let two = bytes(|m| m.queries.push(m.queries[0].clone()));
    let none = bytes(|m| m.queries.clear());
    let transfer = bytes(|m| m.queries[0].query_type = RecordType::AXFR);
    let later = bytes(|m| m.edns = Some(Edns::new().set_version(1).clone()));
    let mut garbage = bytes(|_| {});
    garbage.truncate(14);

    assert_eq!(refusal(&response), (ResponseCode::FormErr, 7, Refusal::Malformed));
    assert_eq!(refusal(&status), (ResponseCode::NotImp, 7, Refusal::Unsupported));
    for packet in [&two, &none, &garbage] {
        assert_eq!(refusal(packet), (ResponseCode::FormErr, 7, Refusal::Malformed));
    }
    assert_eq!(refusal(&transfer), (ResponseCode::NotImp, 7, Refusal::Unsupported));
    // 16 is BADVERS here, and BADSIG in other messages.
    let (code, id, refused) = refusal(&later);
    assert_eq!((u16::from(code), id, refused), (16, 7, Refusal::Unsupported));
    for packet in [&b""[..], b"\x00\x07", b"GET / HTTP/"] {
        assert!(matches!(parse(packet), Parsed::Unreadable), "{packet:?}");
    }
}

#[test]
fn an_answer_that_does_not_fit_has_as_many_records_as_do_and_says_that_some_are_missing() {
    let question = question(&with_edns(query("headless.ns.svc.cluster.local."), 600));
    let mut message = question.response();
    message.answers = (0..100).map(address).collect();

    let bytes = encode(message.clone(), question.udp_bytes()).unwrap();

    let answer = Message::from_vec(&bytes).unwrap();
    assert!(answer.metadata.truncation && answer.edns.is_some());
    // 16 bytes each, after the header, the question and the OPT record.
    assert_eq!(answer.answers.len(), (600 - 12 - 35 - 11) / 16, "{}", bytes.len());
    let whole = Message::from_vec(&encode(message, TCP_BYTES).unwrap()).unwrap();
    assert_eq!((whole.answers.len(), whole.metadata.truncation), (100, false));
}

#[test]
fn more_than_a_message_can_carry_is_said_to_be_missing() {
    let mut message = question(&query("headless.ns.svc.cluster.local.")).response();
    message.answers = (0..5000).map(address).collect();

    let bytes = encode(message, TCP_BYTES).unwrap();

    let answer = Message::from_vec(&bytes).unwrap();
    assert!(answer.metadata.truncation);
    assert!(bytes.len() > 60_000 && answer.answers.len() > 1000, "{} in {}", answer.answers.len(), bytes.len());
}

#[test]
fn additional_records_are_left_out_without_a_word_before_an_answer_is_cut() {
    let mut message = question(&query("headless.ns.svc.cluster.local.")).response();
    message.answers = (0..10).map(address).collect();
    message.additionals = (0..50).map(address).collect();

    let answer = Message::from_vec(&encode(message, 512).unwrap()).unwrap();

    assert_eq!((answer.answers.len(), answer.additionals.len(), answer.metadata.truncation), (10, 0, false));
}

#[test]
fn a_request_to_a_nameserver_keeps_the_name_and_the_wishes_but_not_the_options() {
    let mut asked = with_edns(query("wEb.test."), 4096);
    asked.metadata.checking_disabled = true;
    asked.edns.as_mut().unwrap().set_dnssec_ok(true);

    let request = question(&asked).request(99, 1232);

    assert_eq!((request.metadata.id, request.queries[0].name.to_ascii().as_str()), (99, "wEb.test."));
    assert!(request.metadata.recursion_desired && request.metadata.checking_disabled);
    let edns = request.edns.unwrap();
    assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, true));
    assert!(question(&query("a.")).request(1, 1232).edns.is_none());
}
