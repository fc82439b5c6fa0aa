//! The content encodings of directory documents (dir-spec 6.1): which one to send, and both directions of each.
//!
//! All of them work piece by piece into memory of the caller's, so that a long answer needs neither a whole copy nor
//! a long stretch of time. Decoding is bounded: a few bytes of a hostile server's do not become gigabytes of ours.

use std::fmt;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use liblzma::stream::{Action, LzmaOptions, Stream};
use thiserror::Error;
use zstd::stream::raw::{self, CParameter, DParameter, InBuffer, Operation, OutBuffer};

/// A content encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// As it is.
    Identity,
    /// A zlib stream (RFC 1950), which HTTP calls `deflate`.
    Deflate,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// LZMA in the old container of the program `lzma`.
    Lzma,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Encoding; 5] =
        [Encoding::Identity, Encoding::Deflate, Encoding::Gzip, Encoding::Zstd, Encoding::Lzma];

    /// The order in which C tor prefers them for documents that it keeps compressed, and we too.
    pub const STORED: [Encoding; 5] =
        [Encoding::Lzma, Encoding::Zstd, Encoding::Deflate, Encoding::Gzip, Encoding::Identity];

    /// The order for what is compressed as it is sent: LZMA is too slow.
    pub const STREAMED: [Encoding; 4] =
        [Encoding::Zstd, Encoding::Deflate, Encoding::Gzip, Encoding::Identity];

    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    pub fn token(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Deflate => "deflate",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "x-zstd",
            Encoding::Lzma => "x-tor-lzma",
        }
    }

    /// The encoding with this name; upper and lower case matter, as they do to C tor.
    pub fn from_token(token: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|e| e.token() == token)
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.token())
    }
}

/// The encodings that a client can read. It can always read [`Encoding::Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted(u8);

impl Accepted {
    /// Nothing but identity.
    pub const IDENTITY: Accepted = Accepted(1 << Encoding::Identity as u8);

    /// Everything.
    pub const ALL: Accepted = Accepted((1 << Encoding::ALL.len()) - 1);

    /// Reads an `Accept-Encoding` header. Unknown names mean nothing; weights (`q=`) are not understood.
    pub fn from_header(value: &str) -> Self {
        let known = value.split(',').filter_map(|token| Encoding::from_token(token.trim()));
        known.fold(Self::IDENTITY, Self::with)
    }

    /// These and `encoding`.
    #[must_use]
    pub fn with(self, encoding: Encoding) -> Self {
        Accepted(self.0 | 1 << encoding as u8)
    }

    /// Whether `encoding` is among them.
    pub fn allows(self, encoding: Encoding) -> bool {
        self.0 & 1 << encoding as u8 != 0
    }

    /// The first of `preferences` among them, else identity.
    pub fn choose(self, preferences: &[Encoding]) -> Encoding {
        preferences.iter().copied().find(|e| self.allows(*e)).unwrap_or(Encoding::Identity)
    }
}

/// What an encoder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Compressed once, kept, and sent many times: small, at any price in time.
    Stored,
    /// Compressed for one client while it is sent: cheap in time and memory (under 1 MiB).
    Streamed,
}

/// The library behind an encoding failed for lack of memory; no input makes it fail otherwise.
#[derive(Debug, Error)]
#[error("compressing as {encoding} failed: {reason}")]
pub struct EncodeError {
    encoding: Encoding,
    reason: String,
}

/// What one step of an encoder did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Bytes taken from the input.
    pub read: usize,
    /// Bytes put into the output.
    pub written: usize,
    /// Whether this was the last of the output.
    pub finished: bool,
}

/// Compresses one document, piece by piece.
pub struct Encoder {
    encoding: Encoding,
    state: Encode,
}

enum Encode {
    Identity,
    Zlib(Compress),
    Zstd(Box<raw::Encoder<'static>>),
    Lzma(Stream),
}

const GZIP_WINDOW_BITS: u8 = 15;
/// 128 KiB: a stream's encoder keeps several times its window.
const STREAMED_ZSTD_WINDOW_LOG: u32 = 17;

impl Encoder {
    /// An encoder for one document. LZMA knows no cheap way and takes some 90 MiB: it is for [`Effort::Stored`].
    pub fn new(encoding: Encoding, effort: Effort) -> Result<Self, EncodeError> {
        let zlib_level = Compression::new(match effort {
            Effort::Stored => 9,
            Effort::Streamed => 4,
        });
        let failed = |reason: String| EncodeError { encoding, reason };
        let state = match encoding {
            Encoding::Identity => Encode::Identity,
            Encoding::Deflate => Encode::Zlib(Compress::new(zlib_level, true)),
            Encoding::Gzip => Encode::Zlib(Compress::new_gzip(zlib_level, GZIP_WINDOW_BITS)),
            Encoding::Zstd => {
                let zstd = match effort {
                    Effort::Stored => raw::Encoder::new(9),
                    Effort::Streamed => raw::Encoder::new(3).and_then(|mut zstd| {
                        zstd.set_parameter(CParameter::WindowLog(STREAMED_ZSTD_WINDOW_LOG))?;
                        Ok(zstd)
                    }),
                };
                Encode::Zstd(Box::new(zstd.map_err(|e| failed(e.to_string()))?))
            }
            Encoding::Lzma => {
                let lzma = LzmaOptions::new_preset(6).and_then(|options| Stream::new_lzma_encoder(&options));
                Encode::Lzma(lzma.map_err(|e| failed(e.to_string()))?)
            }
        };
        Ok(Encoder { encoding, state })
    }

    /// Takes some of `input` and puts some output into `out`. With `last`, nothing follows `input`: call again, with
    /// what is left of it, until the step is finished.
    pub fn step(&mut self, input: &[u8], out: &mut [u8], last: bool) -> Result<Step, EncodeError> {
        let failed = |reason: String| EncodeError { encoding: self.encoding, reason };
        match &mut self.state {
            Encode::Identity => {
                let n = input.len().min(out.len());
                out[..n].copy_from_slice(&input[..n]);
                Ok(Step { read: n, written: n, finished: last && n == input.len() })
            }
            Encode::Zlib(zlib) => {
                let before = (zlib.total_in(), zlib.total_out());
                let flush = if last { FlushCompress::Finish } else { FlushCompress::None };
                let status = zlib.compress(input, out, flush).map_err(|e| failed(e.to_string()))?;
                Ok(Step {
                    read: (zlib.total_in() - before.0) as usize,
                    written: (zlib.total_out() - before.1) as usize,
                    finished: status == flate2::Status::StreamEnd,
                })
            }
            Encode::Zstd(zstd) => {
                let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(out));
                // Once the end has begun, only the end may go on.
                if !input.is_empty() {
                    zstd.run(&mut from, &mut to).map_err(|e| failed(e.to_string()))?;
                }
                let read = from.pos();
                let mut finished = false;
                if last && read == input.len() {
                    finished = zstd.finish(&mut to, true).map_err(|e| failed(e.to_string()))? == 0;
                }
                Ok(Step { read, written: to.pos(), finished })
            }
            Encode::Lzma(lzma) => {
                let before = (lzma.total_in(), lzma.total_out());
                let action = if last { Action::Finish } else { Action::Run };
                let status = lzma.process(input, out, action).map_err(|e| failed(e.to_string()))?;
                Ok(Step {
                    read: (lzma.total_in() - before.0) as usize,
                    written: (lzma.total_out() - before.1) as usize,
                    finished: status == liblzma::stream::Status::StreamEnd,
                })
            }
        }
    }
}

/// Compresses a document whole, to be kept.
pub fn compress(encoding: Encoding, mut input: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut encoder = Encoder::new(encoding, Effort::Stored)?;
    let mut out = Vec::with_capacity(input.len() / 2);
    let mut piece = [0; PIECE];
    loop {
        let step = encoder.step(input, &mut piece, true)?;
        input = &input[step.read..];
        out.extend_from_slice(&piece[..step.written]);
        if step.finished {
            out.shrink_to_fit();
            return Ok(out);
        }
    }
}

/// Why a compressed document was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// It is longer than it may be.
    #[error("the document has more than the {max} bytes allowed once decompressed")]
    TooLarge {
        /// Bytes it may have.
        max: usize,
    },
    /// It grows so much that it must be made to exhaust memory.
    #[error("{read} bytes of {encoding} became more than {written}: a compression bomb")]
    Bomb {
        /// How it is compressed.
        encoding: Encoding,
        /// Bytes taken.
        read: usize,
        /// Bytes that came of them.
        written: usize,
    },
    /// It does not decompress.
    #[error("the document is not {encoding}: {reason}")]
    Corrupt {
        /// How it should be compressed.
        encoding: Encoding,
        /// What is wrong.
        reason: String,
    },
    /// Its end is missing.
    #[error("the {encoding} document is cut off after {read} bytes")]
    Truncated {
        /// How it is compressed.
        encoding: Encoding,
        /// Bytes there are.
        read: usize,
    },
}

/// Decompressed bytes up to which nothing is called a bomb.
pub const BOMB_SUSPICION: usize = 5 << 20;
/// Times by which a document may grow, beyond that; the same as in C tor. Directory documents grow about 5 times.
pub const BOMB_RATIO: usize = 25;
/// Largest window that a zstd document may ask for, as a power of two: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Memory for decoding LZMA; documents of C tor's have 8 MiB of dictionary.
const LZMA_MEMORY: u64 = 16 << 20;
/// Documents that may follow each other: votes of all authorities, and more. Each takes a decoder of its own.
const DOCUMENTS: usize = 1024;
/// Bytes that come out of a decoder at a time.
const PIECE: usize = 16 * 1024;

/// Decompresses one document, piece by piece and within limits.
pub struct Decoder {
    encoding: Encoding,
    state: Decode,
    max: usize,
    read: usize,
    written: usize,
    finished: bool,
    /// Documents that have ended.
    documents: usize,
}

enum Decode {
    Identity,
    Zlib(Decompress),
    Zstd(Box<raw::Decoder<'static>>),
    Lzma(Stream),
}

impl Decode {
    fn new(encoding: Encoding) -> Result<Self, DecodeError> {
        let failed = |reason: String| DecodeError::Corrupt { encoding, reason };
        Ok(match encoding {
            Encoding::Identity => Decode::Identity,
            Encoding::Deflate => Decode::Zlib(Decompress::new(true)),
            Encoding::Gzip => Decode::Zlib(Decompress::new_gzip(GZIP_WINDOW_BITS)),
            Encoding::Zstd => {
                let zstd = raw::Decoder::new().and_then(|mut zstd| {
                    zstd.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
                    Ok(zstd)
                });
                Decode::Zstd(Box::new(zstd.map_err(|e| failed(e.to_string()))?))
            }
            Encoding::Lzma => {
                Decode::Lzma(Stream::new_lzma_decoder(LZMA_MEMORY).map_err(|e| failed(e.to_string()))?)
            }
        })
    }
}

impl Decoder {
    /// A decoder for a document of at most `max` bytes.
    pub fn new(encoding: Encoding, max: usize) -> Result<Self, DecodeError> {
        let state = Decode::new(encoding)?;
        Ok(Decoder {
            encoding,
            state,
            max,
            read: 0,
            written: 0,
            // What is not compressed has no end mark.
            finished: encoding == Encoding::Identity,
            documents: 0,
        })
    }

    /// Takes all of `input` and appends what comes of it to `out`. After an error the decoder is of no more use.
    pub fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        if self.encoding == Encoding::Identity {
            out.extend_from_slice(&input[..input.len().min(self.max - self.written)]);
            return self.account(input.len(), input.len());
        }
        let mut piece = [0; PIECE];
        // A full piece may leave output waiting inside the decoder after the input is used up.
        let mut more = !input.is_empty();
        while more {
            if self.finished {
                self.documents += 1;
                if self.documents > DOCUMENTS {
                    return Err(self.corrupt("there are too many in one"));
                }
                // Authorities compress votes once, and send them one after the other.
                self.state = Decode::new(self.encoding)?;
            }
            let step = self.step(input, &mut piece)?;
            input = &input[step.read..];
            self.account(step.read, step.written)?;
            out.extend_from_slice(&piece[..step.written]);
            self.finished = step.finished;
            more = !step.finished && step.written == PIECE || !input.is_empty();
            if more && step.read == 0 && step.written == 0 {
                return Err(self.corrupt("it makes no progress"));
            }
        }
        Ok(())
    }

    /// Checks that the document is complete.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.finished {
            true => Ok(()),
            false => Err(DecodeError::Truncated { encoding: self.encoding, read: self.read }),
        }
    }

    fn corrupt(&self, reason: &str) -> DecodeError {
        DecodeError::Corrupt { encoding: self.encoding, reason: reason.into() }
    }

    fn account(&mut self, read: usize, written: usize) -> Result<(), DecodeError> {
        self.read += read;
        self.written += written;
        if self.written > self.max {
            return Err(DecodeError::TooLarge { max: self.max });
        }
        if self.written > BOMB_SUSPICION && self.written / BOMB_RATIO > self.read {
            return Err(DecodeError::Bomb {
                encoding: self.encoding,
                read: self.read,
                written: self.written,
            });
        }
        Ok(())
    }

    fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, DecodeError> {
        let encoding = self.encoding;
        let failed = |reason: String| DecodeError::Corrupt { encoding, reason };
        match &mut self.state {
            Decode::Identity => Ok(Step::default()),
            Decode::Zlib(zlib) => {
                let before = (zlib.total_in(), zlib.total_out());
                let status =
                    zlib.decompress(input, out, FlushDecompress::None).map_err(|e| failed(e.to_string()))?;
                Ok(Step {
                    read: (zlib.total_in() - before.0) as usize,
                    written: (zlib.total_out() - before.1) as usize,
                    finished: status == flate2::Status::StreamEnd,
                })
            }
            Decode::Zstd(zstd) => {
                let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(out));
                let hint = zstd.run(&mut from, &mut to).map_err(|e| failed(e.to_string()))?;
                Ok(Step { read: from.pos(), written: to.pos(), finished: hint == 0 })
            }
            Decode::Lzma(lzma) => {
                let before = (lzma.total_in(), lzma.total_out());
                let status = lzma.process(input, out, Action::Run).map_err(|e| failed(e.to_string()))?;
                Ok(Step {
                    read: (lzma.total_in() - before.0) as usize,
                    written: (lzma.total_out() - before.1) as usize,
                    finished: status == liblzma::stream::Status::StreamEnd,
                })
            }
        }
    }
}

/// Decompresses a document of at most `max` bytes whole.
pub fn decompress(encoding: Encoding, input: &[u8], max: usize) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new(encoding, max)?;
    let mut out = Vec::new();
    decoder.push(input, &mut out)?;
    decoder.finish()?;
    Ok(out)
}

#[cfg(test)]
mod tests;
