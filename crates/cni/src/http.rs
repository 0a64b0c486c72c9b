//! An HTTP/1.1 request and its answer (RFC 9112), on a connection that serves nothing else. It reads and writes no socket:
//! see `exchange`.

/// Headers of an answer that are read, of any kind.
const MAX_HEADERS: usize = 64;

/// An answer that has arrived completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Defect of an answer. Nothing of it is used.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error("the answer is not HTTP: {0}")]
    Head(#[from] httparse::Error),
    #[error("the answer has no valid length")]
    Length,
    #[error("the answer broke off")]
    Truncated,
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// Bytes of an answer so far. However the answer is cut in pieces, what was read is not read again; but for the line that begins a
/// chunk, until the chunk is there.
#[derive(Debug)]
pub struct Answer {
    bytes: Vec<u8>,
    max: usize,
    part: Part,
}

/// Part of an answer that is still to come.
#[derive(Debug)]
enum Part {
    /// The head, which is read again when there are so many bytes, or at its empty line.
    Head { again_at: usize },
    /// The body, which begins at this byte and whose end the head tells.
    Body { status: u16, start: usize, length: Length },
}

/// End of a body, as its head says.
#[derive(Debug)]
enum Length {
    Bytes(usize),
    Chunked(Chunks),
    UntilClose,
}

/// Body of chunks, without their extensions and trailers.
#[derive(Debug, Default)]
struct Chunks {
    body: Vec<u8>,
    /// Bytes of the chunks and trailers that were read, from the start of the body.
    read: usize,
    /// Bytes in which no end of a trailer was found.
    searched: usize,
    /// The last chunk was read, and trailers follow.
    is_last: bool,
}

impl Answer {
    /// Nothing so far; head and body may have `max` bytes together.
    pub const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max, part: Part::Head { again_at: 0 } }
    }

    /// Adds bytes as they arrive. The answer, once it is complete: what follows it is ignored.
    ///
    /// # Errors
    /// When it is no answer, or too long.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Response>, Malformed> {
        // An empty line may have begun in what was there.
        let unseen = self.bytes.len().saturating_sub(2);
        self.bytes.extend_from_slice(bytes);
        if let Part::Head { again_at } = self.part {
            // Between two empty lines only when the bytes have doubled: nonsense is refused early, and bytes that come one by
            // one are not read again each time.
            if self.bytes.len() >= again_at || has_empty_line(&self.bytes[unseen..]) {
                self.read_head()?;
            }
        }
        match self.read_body()? {
            None if self.bytes.len() > self.max => Err(Malformed::TooLong(self.max)),
            response => Ok(response),
        }
    }

    /// The answer, when the peer has closed the connection.
    ///
    /// # Errors
    /// When it is not complete.
    pub fn end(mut self) -> Result<Response, Malformed> {
        if matches!(self.part, Part::Head { .. }) {
            self.read_head()?;
        }
        if let Part::Body { status, start, length: Length::UntilClose } = self.part {
            // Without a length the end of the connection is the end of the body (RFC 9112, section 6.3).
            return Ok(Response { status, body: self.bytes.split_off(start) });
        }
        self.read_body()?.ok_or(Malformed::Truncated)
    }

    /// Reads the head, if it is complete.
    fn read_head(&mut self) -> Result<(), Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        self.part = match head.parse(&self.bytes)? {
            httparse::Status::Partial => Part::Head { again_at: self.bytes.len() * 2 },
            httparse::Status::Complete(start) => {
                Part::Body { status: head.code.unwrap_or_default(), start, length: length(head.headers)? }
            }
        };
        Ok(())
    }

    /// Reads what has arrived of the body; `None` while more has to.
    fn read_body(&mut self) -> Result<Option<Response>, Malformed> {
        let Part::Body { status, start, length } = &mut self.part else { return Ok(None) };
        let rest = &self.bytes[*start..];
        let body = match length {
            Length::Bytes(length) => rest.get(..*length).map(<[u8]>::to_vec),
            Length::Chunked(chunks) => chunks.read(rest)?,
            Length::UntilClose => None,
        };
        Ok(body.map(|body| Response { status: *status, body }))
    }
}

/// Returns whether a line that ends here is followed by an empty one.
fn has_empty_line(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|window| window == b"\n\r\n") || bytes.windows(2).any(|window| window == b"\n\n")
}

/// A request without a body, or with one of JSON. The peer is asked to close the connection after its answer. `headers` are
/// lines that end with CRLF.
pub fn request(method: &str, path: &str, host: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}").into_bytes();
    if !body.is_empty() {
        let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        request.extend_from_slice(head.as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// Length of the body. A head that says two things says none (RFC 9112, section 6.3).
fn length(headers: &[httparse::Header<'_>]) -> Result<Length, Malformed> {
    let mut found = None;
    for header in headers {
        let value = std::str::from_utf8(header.value).map_err(|_| Malformed::Length)?.trim();
        let length = if header.name.eq_ignore_ascii_case("content-length") {
            // `parse` alone would take a sign.
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            Length::Bytes(value.parse().ok().filter(|_| digits).ok_or(Malformed::Length)?)
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            let is_chunked = value.eq_ignore_ascii_case("chunked");
            is_chunked.then(|| Length::Chunked(Chunks::default())).ok_or(Malformed::Length)?
        } else {
            continue;
        };
        if found.replace(length).is_some() {
            return Err(Malformed::Length);
        }
    }
    Ok(found.unwrap_or(Length::UntilClose))
}

impl Chunks {
    /// Reads further; `bytes` is what has arrived of the body. `None` while more has to arrive.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        while !self.is_last {
            let rest = &bytes[self.read..];
            let httparse::Status::Complete((head, size)) =
                httparse::parse_chunk_size(rest).map_err(|_| Malformed::Length)?
            else {
                return Ok(None);
            };
            if size == 0 {
                (self.is_last, self.read, self.searched) = (true, self.read + head, 0);
                break;
            }
            let size = usize::try_from(size).map_err(|_| Malformed::Length)?;
            // The peer chooses the size.
            let end = head.checked_add(size).ok_or(Malformed::Length)?;
            let (Some(chunk), Some(after)) = (rest.get(head..end), rest.get(end..)) else { return Ok(None) };
            match after {
                [b'\r', b'\n', ..] => {}
                [] | [b'\r'] => return Ok(None),
                _ => return Err(Malformed::Length),
            }
            self.body.extend_from_slice(chunk);
            self.read += end + 2;
        }
        // An empty line ends the trailers.
        let trailers = &bytes[self.read..];
        let unseen = self.searched.saturating_sub(3);
        self.searched = trailers.len();
        let is_ended =
            trailers.starts_with(b"\r\n") || trailers[unseen..].windows(4).any(|window| window == b"\r\n\r\n");
        Ok(is_ended.then(|| std::mem::take(&mut self.body)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHUNKED: &[u8] =
        b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n";

    /// The answer in pieces of `size` bytes, then the end of the connection.
    fn read(bytes: &[u8], size: usize) -> Result<Response, Malformed> {
        let mut answer = Answer::new(1000);
        for piece in bytes.chunks(size) {
            if let Some(response) = answer.push(piece)? {
                return Ok(response);
            }
        }
        answer.end()
    }

    #[test]
    fn an_answer_is_whole_by_its_length_its_last_chunk_or_the_end_of_the_connection() {
        let sized = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}and more".as_slice();
        let open = b"HTTP/1.0 404 x\r\n\r\nabc".as_slice();
        for size in [1, 2, 7, 1000] {
            assert_eq!(read(sized, size).unwrap(), Response { status: 200, body: b"{}".to_vec() });
            assert_eq!(read(CHUNKED, size).unwrap(), Response { status: 500, body: b"abcde".to_vec() });
            assert_eq!(read(open, size).unwrap(), Response { status: 404, body: b"abc".to_vec() });
        }
    }

    #[test]
    fn an_answer_that_ends_early_is_none() {
        let sized = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".as_slice();
        for whole in [sized, CHUNKED] {
            for end in 0..whole.len() {
                assert!(matches!(read(&whole[..end], 1000), Err(Malformed::Truncated)), "{end}");
            }
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_or_are_none_are_refused() {
        for head in [
            "content-length: 2\r\ncontent-length: 2",
            "content-length: 2\r\ntransfer-encoding: chunked",
            "content-length: +2",
            "content-length: -2",
            "content-length: 99999999999999999999999",
            "transfer-encoding: gzip, chunked",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{{}}");
            assert!(matches!(read(text.as_bytes(), 1000), Err(Malformed::Length)), "{head}");
        }
        let chunk = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n";
        assert!(matches!(read(chunk, 1000), Err(Malformed::Length)));
    }

    #[test]
    fn an_answer_that_arrives_byte_by_byte_is_read_once() {
        // Minutes if each byte led to reading all before it again.
        const BYTES: usize = 1 << 20;
        let header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "y".repeat(BYTES));
        let sized = format!("{header}Content-Length: {BYTES}\r\n\r\n{}", "x".repeat(BYTES));
        let chunks = "1\r\nx\r\n".repeat(BYTES / 6);
        let chunked =
            format!("{header}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\nT: {}\r\n\r\n", "z".repeat(BYTES));

        for (text, length) in [(sized, BYTES), (chunked, BYTES / 6)] {
            let mut answer = Answer::new(4 * BYTES);
            let whole = text.bytes().find_map(|byte| answer.push(&[byte]).unwrap());
            assert_eq!(whole.unwrap().body.len(), length);
        }
    }

    #[test]
    fn nonsense_is_refused_before_the_connection_ends() {
        assert!(matches!(Answer::new(1000).push(b"SSH-2.0-OpenSSH\r\n"), Err(Malformed::Head(_))));
    }

    #[test]
    fn an_answer_without_end_is_refused() {
        let mut answer = Answer::new(100);
        answer.push(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();

        assert!(matches!(answer.push(&[b'x'; 100]), Err(Malformed::TooLong(100))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..50) {
            let _: Result<Response, Malformed> = read(&bytes, cut);
        }

        #[test]
        fn pieces_of_any_size_make_the_same_answer(body in "[ -~]{0,200}", cut in 1usize..50) {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());

            prop_assert_eq!(read(text.as_bytes(), cut).unwrap(), Response { status: 200, body: body.into_bytes() });
        }
    }
}
