//! What a web server answers, as far as `check` wants to know: how it begins, and whether all of it comes.

use std::io::{self, Read};

use httparse::{EMPTY_HEADER, Header, Response, Status, parse_chunk_size};
use thiserror::Error;

use crate::limits;

/// Bytes that are read at once.
const PIECE: usize = 4096;

/// Bytes of the line before a chunk, with whatever it says besides the length.
const CHUNK_LINE: usize = 4096;

/// Characters of the reason in an answer's first line that are shown.
const SHOWN: usize = 80;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its first line, such as `HTTP/1.1 200 OK`, for people to read.
    pub head: String,
    /// Bytes of its body that were read.
    pub bytes: u64,
    /// Whether these are all. If not, there are more than [`limits::CHECK_ANSWER`].
    pub is_whole: bool,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AnswerError {
    /// What came is none.
    #[error("{0} bytes came back, which are no answer of a web server")]
    NotHttp(usize),
    /// It is not told where it ends, or in two ways.
    #[error("the web server does not tell clearly where its answer ends")]
    Length,
    /// It ended too early.
    #[error("the answer breaks off after {0} bytes")]
    CutOff(u64),
    /// Reading failed.
    #[error("the stream fails: {0}")]
    Io(#[from] io::Error),
}

/// Reads the answer to a GET, and no further than where it says that it ends (RFC 9112, 6.3).
pub fn read(stream: impl Read) -> Result<Answer, AnswerError> {
    let mut incoming = Incoming { stream: stream.take(limits::CHECK_ANSWER), unread: Vec::new(), body: 0 };
    let (head, framing) = incoming.head()?;
    let is_complete = match framing {
        Framing::Length(length) => incoming.skip(length)?,
        Framing::Chunked => incoming.skip_chunks()?,
        Framing::ToTheEnd => {
            incoming.skip(u64::MAX)?;
            incoming.stream.limit() > 0
        }
    };
    if !is_complete && incoming.stream.limit() > 0 {
        return Err(AnswerError::CutOff(incoming.body));
    }
    Ok(Answer { head, bytes: incoming.body, is_whole: is_complete })
}

/// How it is told where a body ends.
enum Framing {
    Length(u64),
    Chunked,
    ToTheEnd,
}

impl Framing {
    fn of(status: u16, headers: &[Header<'_>]) -> Result<Framing, AnswerError> {
        let values = |name| {
            let named = headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            named.map(|header| str::from_utf8(header.value).unwrap_or_default())
        };
        if matches!(status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if let Some(codings) = values("Transfer-Encoding").next_back() {
            let last = codings.rsplit(',').next().unwrap_or_default().trim();
            let is_chunked = last.eq_ignore_ascii_case("chunked");
            return Ok(if is_chunked { Framing::Chunked } else { Framing::ToTheEnd });
        }
        let mut lengths = values("Content-Length").flat_map(|value| value.split(',')).map(|value| {
            let digits = value.trim();
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u64>().ok().filter(|_| is_number).ok_or(AnswerError::Length)
        });
        let Some(length) = lengths.next().transpose()? else { return Ok(Framing::ToTheEnd) };
        match lengths.all(|other| other.is_ok_and(|other| other == length)) {
            true => Ok(Framing::Length(length)),
            false => Err(AnswerError::Length),
        }
    }
}

/// What comes, and how far it is read.
struct Incoming<R> {
    stream: io::Take<R>,
    unread: Vec<u8>,
    /// Bytes of the body that were read.
    body: u64,
}

impl<R: Read> Incoming<R> {
    /// Reads more; `false` at the end.
    fn more(&mut self) -> io::Result<bool> {
        let before = self.unread.len();
        self.unread.resize(before + PIECE, 0);
        let read = loop {
            match self.stream.read(&mut self.unread[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.unread.truncate(before + *read.as_ref().unwrap_or(&0));
        read.map(|n| n > 0)
    }

    /// Reads the head of the answer, and of those that only announce it.
    fn head(&mut self) -> Result<(String, Framing), AnswerError> {
        loop {
            let mut headers = [EMPTY_HEADER; limits::CHECK_HEADERS];
            let mut answer = Response::new(&mut headers);
            match answer.parse(&self.unread) {
                Ok(Status::Complete(length)) => {
                    let status = answer.code.unwrap_or_default();
                    let reason: String = answer.reason.unwrap_or_default().chars().take(SHOWN).collect();
                    let head = format!("HTTP/1.{} {status} {reason}", answer.version.unwrap_or_default());
                    let framing = Framing::of(status, answer.headers);
                    self.unread.drain(..length);
                    if status >= 200 {
                        return Ok((head, framing?));
                    }
                }
                Ok(Status::Partial) if self.unread.len() < limits::CHECK_HEAD && self.more()? => {}
                Ok(Status::Partial) | Err(_) => return Err(AnswerError::NotHttp(self.unread.len())),
            }
        }
    }

    /// Reads `length` bytes of the body; `false` if there are fewer.
    fn skip(&mut self, mut length: u64) -> Result<bool, AnswerError> {
        while length > 0 {
            if self.unread.is_empty() && !self.more()? {
                return Ok(false);
            }
            let here = self.unread.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.unread.drain(..here);
            self.body += here as u64;
            length -= here as u64;
        }
        Ok(true)
    }

    /// Reads the chunks of the body up to the last, which is empty; `false` if it is not there.
    fn skip_chunks(&mut self) -> Result<bool, AnswerError> {
        loop {
            match parse_chunk_size(&self.unread) {
                Ok(Status::Complete((_, 0))) => return Ok(true),
                Ok(Status::Complete((line, length))) => {
                    self.unread.drain(..line);
                    if !self.skip(length)? {
                        return Ok(false);
                    }
                    while self.unread.len() < 2 {
                        if !self.more()? {
                            return Ok(false);
                        }
                    }
                    if !self.unread.starts_with(b"\r\n") {
                        return Err(AnswerError::Length);
                    }
                    self.unread.drain(..2);
                }
                Ok(Status::Partial) if self.unread.len() < CHUNK_LINE => {
                    if !self.more()? {
                        return Ok(false);
                    }
                }
                Ok(Status::Partial) | Err(_) => return Err(AnswerError::Length),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// A server that keeps the connection open: reading on after `says` fails.
    struct Open(Cursor<Vec<u8>>);

    impl Read for Open {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buf)? {
                0 => Err(io::ErrorKind::TimedOut.into()),
                n => Ok(n),
            }
        }
    }

    fn read_open(says: &str) -> Result<Answer, AnswerError> {
        read(Open(Cursor::new(says.into())))
    }

    fn whole(head: &str, bytes: u64) -> Answer {
        Answer { head: head.to_owned(), bytes, is_whole: true }
    }

    #[test]
    fn an_answer_ends_where_it_says_though_the_connection_does_not() {
        for (says, bytes) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 5),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\nX: y\r\n\r\nhello and more", 5),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n",
                11,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 9\r\n\r\n0\r\n\r\n", 0),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 1),
        ] {
            assert_eq!(read_open(says).unwrap(), whole("HTTP/1.1 200 OK", bytes), "{says}");
        }
        let not_modified = read_open("HTTP/1.0 304 Not Modified\r\nContent-Length: 5\r\n\r\n");
        assert_eq!(not_modified.unwrap(), whole("HTTP/1.0 304 Not Modified", 0));
    }

    #[test]
    fn one_that_does_not_say_ends_with_the_connection() {
        let says = "HTTP/1.0 404 Not Found\r\n\r\nnothing here";
        assert_eq!(read(says.as_bytes()).unwrap(), whole("HTTP/1.0 404 Not Found", 12));
        assert!(matches!(read_open(says), Err(AnswerError::Io(_))));
    }

    #[test]
    fn what_is_cut_off_or_unclear_is_no_answer() {
        for says in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n5\r\nll",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhell\r\n",
        ] {
            assert!(matches!(read(says.as_bytes()), Err(AnswerError::CutOff(4))), "{says}");
        }
        for says in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        ] {
            assert!(matches!(read(says.as_bytes()), Err(AnswerError::Length)), "{says}");
        }
        for says in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 200 OK\r\nContent-Le"] {
            let Err(AnswerError::NotHttp(bytes)) = read(says.as_bytes()) else { panic!("{says}") };
            assert_eq!(bytes, says.len());
        }
    }

    #[test]
    fn no_more_is_read_than_is_wanted() {
        for head in ["HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n"] {
            let answer = read(head.as_bytes().chain(io::repeat(b'x'))).unwrap();
            assert_eq!((answer.is_whole, answer.bytes), (false, limits::CHECK_ANSWER - head.len() as u64));
        }
        let endless = read(b"HTTP/1.1 200 OK\r\nX: ".chain(io::repeat(b'x')));
        assert!(matches!(endless, Err(AnswerError::NotHttp(bytes)) if bytes < limits::CHECK_HEAD + PIECE));
    }

    proptest! {
        #[test]
        fn chunks_add_up(chunks in prop::collection::vec(1usize..9000, 0..20)) {
            let mut says = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for length in &chunks {
                says.extend(format!("{length:x}\r\n").bytes());
                says.resize(says.len() + length, b'x');
                says.extend(b"\r\n");
            }
            says.extend(b"0\r\n\r\n");
            prop_assert_eq!(read(&*says).unwrap(), whole("HTTP/1.1 200 OK", chunks.iter().sum::<usize>() as u64));
        }

        #[test]
        fn no_bytes_do_harm(
            head in "(HTTP/1\\.[01] [1-5][0-9]{2} [a-z\u{0}-\u{ff}]{0,5}(\r\n(Content-Length|Transfer-Encoding): ?(chunked|[0-9]{1,20}|x))*\r\n\r\n)?",
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let says = [head.as_bytes(), &body].concat();
            if let Ok(answer) = read(&*says) {
                prop_assert!(answer.is_whole && answer.bytes <= says.len() as u64);
            }
        }
    }
}
