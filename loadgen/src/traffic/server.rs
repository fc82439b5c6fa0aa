//! The far end of test traffic: a small HTTP/1.1 server, and an echo.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /N?seed=S` | serves the first N bytes of the pattern of seed S (default 0) |
//! | `POST /` with `Content-Length` | swallows the body and answers its SHA-256 in hex |
//! | `ECHO` (one line, no HTTP) | sends back whatever comes, until the sender has finished |
//!
//! It keeps the connection for more requests unless one says `Connection: close` or is of HTTP/1.0.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::pattern::{CHUNK_LEN, Digest, each_chunk};

/// Longest line of a request that is read.
const LINE_LEN_MAX: u64 = 8192;
/// Longest that a connection may be idle.
const IDLE: Duration = Duration::from_secs(120);
/// Stack of the thread that serves a connection: hundreds run side by side.
const STACK_LEN: usize = 256 * 1024;

/// A connection the server has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Where it came from: the exit's address.
    pub from: IpAddr,
    /// Its first line.
    pub request: String,
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    ending: Arc<AtomicBool>,
    served: Arc<Mutex<Vec<Served>>>,
}

impl Server {
    /// Serves on `address`.
    pub fn start(address: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        let server =
            Server { address: listener.local_addr()?, ending: Arc::default(), served: Arc::default() };
        let (ending, served) = (Arc::clone(&server.ending), Arc::clone(&server.served));
        thread::Builder::new().name("server".into()).spawn(move || {
            for stream in listener.incoming() {
                if ending.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), served) = (stream, Arc::clone(&served)) else { continue };
                let thread = thread::Builder::new().name("served".into()).stack_size(STACK_LEN);
                // What goes wrong on one connection is seen, and reported, by who made it.
                let _ = thread.spawn(move || serve(&stream, &served));
            }
        })?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every connection so far that has sent its first line.
    pub fn served(&self) -> Vec<Served> {
        lock(&self.served).clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection to its end.
fn serve(stream: &TcpStream, served: &Mutex<Vec<Served>>) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let from = stream.peer_addr()?.ip();
    let mut reader = BufReader::with_capacity(CHUNK_LEN, stream);
    loop {
        let request = line(&mut reader)?;
        if request.is_empty() {
            return Ok(());
        }
        lock(served).push(Served { from, request: request.clone() });
        if request == "ECHO" {
            return echo(reader, stream);
        }
        let mut content_length = 0;
        let mut is_last = request.ends_with("HTTP/1.0");
        loop {
            let header = line(&mut reader)?;
            if header.is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':') {
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => content_length = value.trim().parse().unwrap_or(0),
                    "connection" => is_last |= value.trim().eq_ignore_ascii_case("close"),
                    _ => {}
                }
            }
        }
        let mut words = request.split(' ');
        match (words.next(), words.next().and_then(pattern_of)) {
            (Some("GET"), Some((bytes, seed))) => send_pattern(stream, bytes, seed)?,
            (Some("POST"), _) => swallow(&mut reader, stream, content_length)?,
            _ => answer(stream, "404 Not Found", "GET /BYTES?seed=N or POST /\n")?,
        }
        if is_last {
            return Ok(());
        }
    }
}

/// `/N?seed=S` to `(N, S)`.
fn pattern_of(target: &str) -> Option<(u64, u64)> {
    let (bytes, query) = target.strip_prefix('/')?.split_once('?').unwrap_or((target.strip_prefix('/')?, ""));
    let seed = if query.is_empty() { 0 } else { query.strip_prefix("seed=")?.parse().ok()? };
    Some((bytes.parse().ok()?, seed))
}

fn send_pattern(mut stream: &TcpStream, bytes: u64, seed: u64) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {bytes}\r\n\r\n"
    )?;
    each_chunk(seed, bytes, |chunk| stream.write_all(chunk))
}

fn swallow(reader: &mut impl Read, stream: &TcpStream, bytes: u64) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_LEN];
    let mut body = reader.take(bytes);
    loop {
        match body.read(&mut chunk)? {
            0 if body.limit() > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            0 => break,
            length => hash.update(&chunk[..length]),
        }
    }
    answer(stream, "200 OK", &Digest::of(hash).to_string())
}

fn answer(mut stream: &TcpStream, status: &str, body: &str) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn echo(mut reader: impl BufRead, mut stream: &TcpStream) -> io::Result<()> {
    loop {
        let chunk = reader.fill_buf()?;
        let length = chunk.len();
        if length == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(chunk)?;
        reader.consume(length);
    }
}

/// One line without its end; empty at the end of the stream.
pub(super) fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.take(LINE_LEN_MAX).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back for these bytes, up to the end of the connection.
    fn exchange(requests: &str) -> String {
        let server = Server::start(([127, 0, 0, 1], 0).into()).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        String::from_utf8_lossy(&answers).into_owned()
    }

    #[test]
    fn the_connection_is_kept_until_a_request_says_otherwise() {
        let count = |requests: &str| exchange(requests).matches("HTTP/1.1 200 OK").count();
        assert_eq!(count("GET /0 HTTP/1.1\r\n\r\nGET /0 HTTP/1.0\r\n\r\n"), 2);
        assert_eq!(count("GET /0 HTTP/1.1\r\nconnection: Close\r\n\r\nGET /0 HTTP/1.1\r\n\r\n"), 1);
    }
}
