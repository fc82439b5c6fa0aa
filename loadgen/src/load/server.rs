//! Where exit streams lead: a source, from which so many bytes come, and a sink that takes as many and says so.
//!
//! Each connection has a thread that blocks, so that the kernel moves large pieces and loadgen's lanes know nothing of
//! it. The threads end with their connections.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use super::error::{LoadError, own};
use super::settings::Direction;

/// Bytes moved at once, and the length after which the source begins again.
const CHUNK_LEN: usize = 64 * 1024;
/// What the source waits for. C tor sends DATA of a server that speaks first before it has sent CONNECTED, sometimes.
pub(super) const REQUEST: &[u8] = b"?";
const STACK_LEN: usize = 128 * 1024 + CHUNK_LEN;
/// How long a connection may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the source sends, over and over.
pub(super) fn chunk() -> Arc<[u8]> {
    // A step of an odd number of bytes: no cell and no record begins where another did for a long time.
    let byte = |n: usize| (n.wrapping_mul(2_654_435_761) >> 13) as u8;
    (0..CHUNK_LEN).map(byte).collect()
}

/// Source or sink, until dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    ending: Arc<AtomicBool>,
}

impl Server {
    /// Listens on `ip` for connections that carry `bytes` each.
    pub(super) fn start(ip: IpAddr, direction: Direction, bytes: u64) -> Result<Server, LoadError> {
        let doing = "listening as the server behind the exit (--listen says where)";
        let listener = TcpListener::bind((ip, 0)).map_err(own(doing))?;
        let address = listener.local_addr().map_err(own(doing))?;
        let server = Server { address, ending: Arc::default() };
        let (ending, chunk) = (server.ending.clone(), chunk());
        let serve = move || {
            for socket in listener.incoming() {
                if ending.load(Relaxed) {
                    return;
                }
                let (Ok(socket), chunk) = (socket, chunk.clone()) else { continue };
                let thread = thread::Builder::new().name("served".into()).stack_size(STACK_LEN);
                // What goes wrong with a connection is seen at the other end of its stream.
                let _ = thread.spawn(move || match direction {
                    Direction::Down => pour(&socket, &chunk, bytes),
                    Direction::Up => swallow(&socket, bytes),
                });
            }
        };
        thread::Builder::new().name("server".into()).spawn(serve).map_err(own("starting a thread"))?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.store(true, Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn pour(mut socket: &TcpStream, chunk: &[u8], bytes: u64) -> io::Result<()> {
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.read_exact(&mut [0; REQUEST.len()])?;
    let mut left = bytes;
    while left > 0 {
        let len = left.min(chunk.len() as u64) as usize;
        socket.write_all(&chunk[..len])?;
        left -= len as u64;
    }
    Ok(())
}

fn swallow(mut socket: &TcpStream, bytes: u64) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; CHUNK_LEN];
    let mut left = bytes;
    while left > 0 {
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            len => left = left.saturating_sub(len as u64),
        }
    }
    socket.write_all(b"!")
}
