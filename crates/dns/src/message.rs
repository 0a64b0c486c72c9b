//! DNS messages of clients: reads questions, and writes answers that fit. RFC 1035, RFC 6891 (EDNS), RFC 2181 (truncation).

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Most bytes of an answer over UDP without EDNS (RFC 1035, section 4.2.1).
pub(crate) const PLAIN_UDP_BYTES: u16 = 512;
/// Most bytes of any message: over TCP its length has two bytes.
pub(crate) const TCP_BYTES: usize = 65_535;

/// A question that can be answered.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    metadata: Metadata,
    pub(crate) query: Query,
    edns: Option<Edns>,
}

/// A message of a client.
#[derive(Debug)]
pub(crate) enum Parsed {
    Question(Box<Question>),
    /// To be answered with an error.
    Refused(Message, Refusal),
    /// Too short for a header: nobody can tell whom an answer would be for.
    Unreadable,
}

/// Reason for which a message is answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not a question that can be read: FORMERR.
    Malformed,
    /// Another operation than a query, a zone transfer, or a later version of EDNS: NOTIMP, BADVERS.
    Unsupported,
}

/// Reads a message of a client.
pub(crate) fn parse(packet: &[u8]) -> Parsed {
    // First alone: what cannot be read behind it gets an answer.
    let Ok(header) = Header::read(&mut BinDecoder::new(packet)) else { return Parsed::Unreadable };
    let refused = |code, refusal| {
        let mut message = Message::response(header.metadata.id, header.metadata.op_code);
        message.metadata = Metadata::response_from_request(&header.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        Parsed::Refused(message, refusal)
    };
    if header.metadata.message_type == MessageType::Response {
        return refused(ResponseCode::FormErr, Refusal::Malformed);
    }
    if header.metadata.op_code != OpCode::Query {
        return refused(ResponseCode::NotImp, Refusal::Unsupported);
    }
    let Ok(Message { metadata, mut queries, edns, .. }) = Message::from_vec(packet) else {
        return refused(ResponseCode::FormErr, Refusal::Malformed);
    };
    // No server answers several questions of one message (RFC 9619).
    let (Some(query), true) = (queries.pop(), queries.is_empty()) else {
        return refused(ResponseCode::FormErr, Refusal::Malformed);
    };
    let question = Question { metadata, query, edns };
    let refused = |code| {
        let mut message = question.response();
        message.metadata.response_code = code;
        Parsed::Refused(message, Refusal::Unsupported)
    };
    if question.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return refused(ResponseCode::BADVERS);
    }
    // Their answers are many messages.
    if matches!(question.query.query_type, RecordType::AXFR | RecordType::IXFR) {
        return refused(ResponseCode::NotImp);
    }
    Parsed::Question(Box::new(question))
}

impl Question {
    /// An answer without records. Its question is the client's, letter by letter: some compare case as well.
    pub(crate) fn response(&self) -> Message {
        let mut message = Message::response(self.metadata.id, self.metadata.op_code);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        message.edns = self.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().max(PLAIN_UDP_BYTES));
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        message
    }

    /// An answer that says only that the question cannot be answered.
    pub(crate) fn error(&self, code: ResponseCode) -> Message {
        let mut message = self.response();
        message.metadata.response_code = code;
        message
    }

    /// The same question as this proxy asks it, with `id`; it has EDNS if the client's has, with room for `payload` bytes.
    pub(crate) fn request(&self, id: u16, payload: u16) -> Message {
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = self.metadata.recursion_desired;
        message.metadata.checking_disabled = self.metadata.checking_disabled;
        message.metadata.authentic_data = self.metadata.authentic_data;
        message.add_query(self.query.clone());
        // Options are not passed on: they are between two neighbours (RFC 6891, section 6.2.6).
        message.edns = self.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        message
    }

    /// Most bytes of an answer over UDP.
    pub(crate) fn udp_bytes(&self) -> usize {
        self.edns.as_ref().map_or(PLAIN_UDP_BYTES, |edns| edns.max_payload().max(PLAIN_UDP_BYTES)).into()
    }

    /// Returns whether an error code of more than four bits can be told to the client.
    pub(crate) const fn has_edns(&self) -> bool {
        self.edns.is_some()
    }
}

/// Writes `message` in at most `limit` bytes: without additional records, then without authority records, at last with fewer
/// answers and the mark that some are missing (TC).
pub(crate) fn encode(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let whole = encode_whole(&message, limit);
    if whole.is_some() {
        return whole;
    }
    for section in [&mut message.additionals, &mut message.authorities] {
        section.clear();
    }
    let answers_only = encode_whole(&message, limit);
    if answers_only.is_some() {
        return answers_only;
    }
    message.metadata.truncation = true;
    let answers = std::mem::take(&mut message.answers);
    let mut best = encode_whole(&message, limit);
    // The largest number that fits, by halves: about ten attempts for a thousand.
    let (mut fits, mut too_many) = (0, answers.len());
    while fits + 1 < too_many {
        let middle = fits + (too_many - fits) / 2;
        message.answers = answers[..middle].to_vec();
        match encode_whole(&message, limit) {
            Some(bytes) => (best, fits) = (Some(bytes), middle),
            None => too_many = middle,
        }
    }
    best
}

fn encode_whole(message: &Message, limit: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok().filter(|bytes| bytes.len() <= limit)?;
    // The encoder leaves out what would be beyond 64 KiB: the header then counts less.
    let counts: usize = bytes.get(6..12)?.chunks_exact(2).map(|n| usize::from(n[0]) << 8 | usize::from(n[1])).sum();
    let wanted = message.all_sections().count() + usize::from(message.edns.is_some());
    (counts == wanted).then_some(bytes)
}

#[cfg(test)]
mod tests;
