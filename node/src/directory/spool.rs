//! An answer on its way out: shared documents, compressed as they go if need be, never a copy of the whole.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::compress::{Effort, EncodeError, Encoder, Encoding};

/// A document, or a compressed form of one, shared by everyone who sends it.
pub type Blob = Arc<[u8]>;

/// An answer to a request.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// What the status line says besides.
    pub reason: Cow<'static, str>,
    /// Its headers, in their order.
    pub headers: Vec<(&'static str, String)>,
    /// The documents that make up its body, one after the other.
    pub body: Arc<[Blob]>,
    /// How to compress the body while it is sent; [`Encoding::Identity`] if it is as it should be.
    pub encoding: Encoding,
}

impl Response {
    /// Status line and headers as HTTP/1.0 writes them, up to and with the empty line.
    pub fn head(&self) -> String {
        let mut head = String::with_capacity(256);
        // Writing to a String does not fail.
        let _ = write!(head, "HTTP/1.0 {} {}\r\n", self.status, self.reason);
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

/// Gives out an answer piece by piece.
pub struct Spool {
    head: String,
    body: Arc<[Blob]>,
    /// What is given out next: 0 is the head, then the documents.
    part: usize,
    /// Where in that part.
    offset: usize,
    encoder: Option<Encoder>,
    finished: bool,
}

impl Spool {
    /// The first byte is that of the head.
    ///
    /// # Errors
    /// There is no memory for an encoder.
    pub fn new(response: Response) -> Result<Self, EncodeError> {
        let head = response.head();
        Spool::after(head, response)
    }

    /// The body alone, for whoever writes heads itself.
    ///
    /// # Errors
    /// There is no memory for an encoder.
    pub fn of_body(response: Response) -> Result<Self, EncodeError> {
        Spool::after(String::new(), response)
    }

    fn after(head: String, response: Response) -> Result<Self, EncodeError> {
        let encoder = match response.encoding {
            Encoding::Identity => None,
            encoding => Some(Encoder::new(encoding, Effort::Streamed)?),
        };
        Ok(Spool { head, body: response.body, part: 0, offset: 0, encoder, finished: false })
    }

    /// Whether everything was given out.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether it compresses as it goes, which takes memory.
    pub fn is_encoding(&self) -> bool {
        self.encoder.is_some()
    }

    /// Puts the next bytes into `out`, as many as fit; fewer only when the answer is finished.
    pub fn fill(&mut self, out: &mut [u8]) -> Result<usize, EncodeError> {
        self.fill_from(usize::MAX, out)
    }

    /// The same with fewer bytes, perhaps none, when it takes more than `most` bytes of documents to fill `out`: what
    /// repeats itself comes out of an encoder a thousand times shorter, and would keep the caller for as long.
    pub fn fill_from(&mut self, most: usize, out: &mut [u8]) -> Result<usize, EncodeError> {
        let (mut filled, mut left) = (0, most);
        while filled < out.len() && left > 0 && !self.finished {
            let (read, written) = self.step(left, &mut out[filled..])?;
            filled += written;
            // So that it ends whatever an encoder does.
            left = left.saturating_sub(read.max(1));
        }
        Ok(filled)
    }

    /// How much of at most `most` bytes was read, and how much was written.
    fn step(&mut self, most: usize, out: &mut [u8]) -> Result<(usize, usize), EncodeError> {
        let part = match self.part {
            0 => self.head.as_bytes(),
            n => self.body.get(n - 1).map_or(&[][..], |blob| blob),
        };
        let rest = &part[self.offset..];
        let is_last = self.part >= self.body.len();
        let (read, written) = match &mut self.encoder {
            // The head is never compressed.
            Some(encoder) if self.part > 0 => {
                let now = &rest[..rest.len().min(most)];
                let step = encoder.step(now, out, is_last && now.len() == rest.len())?;
                self.finished = step.finished;
                (step.read, step.written)
            }
            _ => {
                let n = rest.len().min(out.len());
                out[..n].copy_from_slice(&rest[..n]);
                self.finished = is_last && n == rest.len();
                (n, n)
            }
        };
        self.offset += read;
        if self.offset == part.len() && !is_last {
            self.part += 1;
            self.offset = 0;
        }
        Ok((read, written))
    }
}

#[cfg(test)]
mod tests {
    use crate::compress::decompress;
    use proptest::prelude::*;

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.0 200 OK\r\nName: value\r\n\r\n";

    fn response(documents: &[Vec<u8>], encoding: Encoding) -> Response {
        let body = documents.iter().map(|d| Blob::from(&d[..])).collect();
        let headers = vec![("Name", "value".into())];
        Response { status: 200, reason: "OK".into(), headers, body, encoding }
    }

    fn collect(response: Response, room: usize) -> Vec<u8> {
        let mut spool = Spool::new(response).unwrap();
        let (mut all, mut out) = (Vec::new(), vec![0; room]);
        while !spool.is_finished() {
            let n = spool.fill(&mut out).unwrap();
            assert!(n == room || spool.is_finished());
            all.extend_from_slice(&out[..n]);
        }
        assert_eq!(spool.fill(&mut out).unwrap(), 0);
        all
    }

    #[test]
    fn an_answer_without_documents_is_its_head() {
        for encoding in Encoding::STREAMED {
            let all = collect(response(&[], Encoding::Identity), 3);
            assert_eq!(all, HEAD, "{encoding}");
        }
    }

    #[test]
    fn what_compresses_well_is_taken_a_part_at_a_time() {
        let documents = vec![vec![b'x'; 1 << 20]; 4];
        for encoding in [Encoding::Deflate, Encoding::Zstd] {
            let mut spool = Spool::of_body(response(&documents, encoding)).unwrap();
            let (mut all, mut out, mut calls) = (Vec::new(), [0; 16 << 10], 0);
            while !spool.is_finished() {
                let n = spool.fill_from(1 << 18, &mut out).unwrap();
                all.extend_from_slice(&out[..n]);
                calls += 1;
            }
            assert!((16..64).contains(&calls), "{encoding}: {calls}");
            assert_eq!(decompress(encoding, &all, 1 << 23).unwrap(), documents.concat());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_comes_out_is_what_is_shared(
            documents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6),
            encoding in prop::sample::select(Encoding::STREAMED.to_vec()),
            room in 1usize..600,
        ) {
            let all = collect(response(&documents, encoding), room);
            let body = all.strip_prefix(HEAD).unwrap();
            prop_assert_eq!(decompress(encoding, body, 1 << 20).unwrap(), documents.concat());
            let mut alone = Spool::of_body(response(&documents, encoding)).unwrap();
            let mut out = vec![0; 1 << 16];
            let n = alone.fill(&mut out).unwrap();
            prop_assert!(alone.is_finished());
            prop_assert_eq!(&out[..n], body);
            let mut bounded = Spool::of_body(response(&documents, encoding)).unwrap();
            let mut pieces = Vec::new();
            while !bounded.is_finished() {
                let n = bounded.fill_from(room, &mut out).unwrap();
                pieces.extend_from_slice(&out[..n]);
            }
            prop_assert_eq!(decompress(encoding, &pieces, 1 << 20).unwrap(), documents.concat());
        }
    }
}
