//! Downloads and uploads whose every byte is checked.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::pattern::{CHUNK_LEN, Digest, each_chunk};
use super::server::line;
use super::socks::{Socks, SocksError};

/// Stack of a thread that moves one transfer: hundreds run side by side.
const STACK_LEN: usize = 512 * 1024;

/// Why a transfer failed.
#[derive(Debug, Error)]
pub enum TrafficError {
    /// No stream could be opened.
    #[error(transparent)]
    Socks(#[from] SocksError),
    /// The stream broke.
    #[error("the stream ended after {bytes} bytes of {total}: {source}")]
    Broken {
        /// Bytes of the body that had passed.
        bytes: u64,
        /// Bytes of the whole body.
        total: u64,
        /// What happened.
        source: io::Error,
    },
    /// Other bytes arrived than were sent.
    #[error("{bytes} bytes arrived changed: SHA-256 is {found}, not {expected}")]
    Corrupted {
        /// Bytes of the body.
        bytes: u64,
        /// Digest of what was sent.
        expected: Digest,
        /// Digest of what arrived, as far as known.
        found: String,
    },
    /// The server answered something else than was asked for.
    #[error("the server answered `{0}`")]
    Answer(String),
    /// Files or threads.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl TrafficError {
    /// Whether nothing came for longer than it was to be waited.
    pub fn is_silence(&self) -> bool {
        let source = match self {
            TrafficError::Socks(SocksError::Io(source)) => source,
            TrafficError::Broken { source, .. } | TrafficError::Io(source) => source,
            _ => return false,
        };
        matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
    }
}

/// A finished transfer; its bytes are the ones that were sent.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes of the body.
    pub bytes: u64,
    /// From opening the stream to the first byte of the body (for uploads: of the answer).
    pub time_to_first_byte: Duration,
    /// From opening the stream to the last byte.
    pub elapsed: Duration,
    /// SHA-256 of the body.
    pub sha256: Digest,
}

impl Transfer {
    /// Bytes per second over the whole transfer.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A transfer in the making, for those who want to choose the seed or watch.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Through which SOCKS port.
    pub socks: &'a Socks,
    /// Host and port of a [`Server`](super::Server), as the exit shall see them.
    pub target: (&'a str, u16),
    /// Bytes of the body.
    pub bytes: u64,
    /// Which bytes.
    pub seed: u64,
}

/// Downloads `bytes` from the server at `target`.
pub fn download(socks: &Socks, target: (&str, u16), bytes: u64) -> Result<Transfer, TrafficError> {
    Order { socks, target, bytes, seed: rand::random() }.download(&mut |_| Ok(()))
}

/// Uploads `bytes` to the server at `target`.
pub fn upload(socks: &Socks, target: (&str, u16), bytes: u64) -> Result<Transfer, TrafficError> {
    Order { socks, target, bytes, seed: rand::random() }.upload(&mut |_| Ok(()))
}

/// Runs `count` transfers side by side (each gets its number from 0) and returns them all, or the first error.
pub fn parallel(
    count: usize,
    transfer: impl Fn(usize) -> Result<Transfer, TrafficError> + Sync,
) -> Result<Vec<Transfer>, TrafficError> {
    thread::scope(|scope| {
        let transfer = &transfer;
        let threads: io::Result<Vec<_>> = (0..count)
            .map(|n| thread::Builder::new().stack_size(STACK_LEN).spawn_scoped(scope, move || transfer(n)))
            .collect();
        let join =
            |t: thread::ScopedJoinHandle<'_, _>| t.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        threads?.into_iter().map(join).collect()
    })
}

impl Order<'_> {
    /// Downloads. `moved` is told after every piece how many bytes of the body have passed so far; an error of it
    /// breaks the transfer off.
    pub fn download(self, moved: &mut dyn FnMut(u64) -> io::Result<()>) -> Result<Transfer, TrafficError> {
        let (started, stream) = (Instant::now(), self.socks.connect(self.target.0, self.target.1)?);
        fetch(stream, started, self.target, (self.bytes, self.seed), moved)
    }

    /// Uploads; `moved` as for [`download`](Self::download).
    pub fn upload(self, moved: &mut dyn FnMut(u64) -> io::Result<()>) -> Result<Transfer, TrafficError> {
        let (started, stream) = (Instant::now(), self.socks.connect(self.target.0, self.target.1)?);
        let (host, port) = self.target;
        write!(&stream, "POST / HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {}\r\n\r\n", self.bytes)?;
        let broken = |bytes| move |source| TrafficError::Broken { bytes, total: self.bytes, source };
        let mut hash = Sha256::new();
        let mut sent = 0;
        each_chunk(self.seed, self.bytes, |chunk| {
            hash.update(chunk);
            (&stream).write_all(chunk).map_err(broken(sent))?;
            sent += chunk.len() as u64;
            moved(sent).map_err(broken(sent))
        })?;
        let mut reader = BufReader::new(stream);
        read_header(&mut reader, broken(sent))?;
        let time_to_first_byte = started.elapsed();
        let expected = Digest::of(hash);
        let mut found = String::new();
        reader.take(64).read_to_string(&mut found).map_err(broken(sent))?;
        if found != expected.to_string() {
            return Err(TrafficError::Corrupted { bytes: self.bytes, expected, found });
        }
        Ok(Transfer { bytes: self.bytes, time_to_first_byte, elapsed: started.elapsed(), sha256: expected })
    }
}

/// Downloads `bytes` of the pattern of `seed` from the server, without anything in between; `moved` as for
/// [`Order::download`]. The server may be silent for so long.
pub fn download_directly(
    server: SocketAddr,
    bytes: u64,
    seed: u64,
    patience: Duration,
    moved: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Transfer, TrafficError> {
    let (started, stream) = (Instant::now(), TcpStream::connect(server)?);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    fetch(stream, started, (&server.ip().to_string(), server.port()), (bytes, seed), moved)
}

/// Asks for the first bytes of the pattern of a seed over a connection to the server, and checks them.
fn fetch(
    stream: TcpStream,
    started: Instant,
    (host, port): (&str, u16),
    (bytes, seed): (u64, u64),
    moved: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Transfer, TrafficError> {
    write!(&stream, "GET /{}?seed={} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n", bytes, seed)?;
    let mut reader = BufReader::with_capacity(CHUNK_LEN, stream);
    let broken = |passed| move |source| TrafficError::Broken { bytes: passed, total: bytes, source };
    read_header(&mut reader, broken(0))?;
    let time_to_first_byte = started.elapsed();

    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_LEN];
    let mut received = 0;
    let mut body = reader.take(bytes);
    while received < bytes {
        let length = body.read(&mut chunk).map_err(broken(received))?;
        if length == 0 {
            return Err(broken(received)(io::ErrorKind::UnexpectedEof.into()));
        }
        hash.update(&chunk[..length]);
        received += length as u64;
        moved(received).map_err(broken(received))?;
    }
    let elapsed = started.elapsed();
    let (sha256, expected) = (Digest::of(hash), Digest::of_pattern(seed, bytes));
    if sha256 != expected {
        return Err(TrafficError::Corrupted { bytes, expected, found: sha256.to_string() });
    }
    Ok(Transfer { bytes, time_to_first_byte, elapsed, sha256 })
}

/// Reads the header of the answer, which must be a 200.
fn read_header(
    reader: &mut impl BufRead,
    broken: impl Fn(io::Error) -> TrafficError,
) -> Result<(), TrafficError> {
    let status = line(reader).map_err(&broken)?;
    if status.is_empty() {
        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
    }
    if status.split(' ').nth(1) != Some("200") {
        return Err(TrafficError::Answer(status));
    }
    while !line(reader).map_err(&broken)?.is_empty() {}
    Ok(())
}
