//! The DirPort: the same answers as on BEGIN_DIR streams, over plain TCP.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::{TcpListener, TcpStream};
use onionring_node::limits::DIR_REQUEST_BODY;
use onionring_node::metrics::table;
use tracing::{debug, warn};

use super::clock::Clock;
use super::directory::Directory;
use super::http::RequestReader;
use super::serve::{self, Asker};
use super::spool::Spool;
use crate::engine::rate::Direction;
use crate::limits;

mod bandwidth;
pub use bandwidth::Bandwidth;

/// Time for a client to close after the last byte, while what it still sends is read past: closing earlier could cost
/// it the end of the answer.
const LINGER: Duration = Duration::from_secs(10);
/// Time between attempts to accept after one has failed, for lack of files as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves requests for ever; drop it to stop listening. Answers under way go on.
pub async fn serve(listener: TcpListener, directory: Arc<Directory>, clock: Clock, bandwidth: Rc<Bandwidth>) {
    let open = Rc::new(Cell::new(0usize));
    let statuses = serve::STATUSES.map(|status| status.to_string());
    for status in statuses.iter().map(String::as_str).chain(["busy"]) {
        table::DIRECTORY_PORT_REQUESTS.counter(&[("status", status)]).absolute(0);
    }
    table::DIRECTORY_PORT_SERVED_BYTES.counter(&[]).absolute(0);
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                warn!("the DirPort takes no connections at the moment: {error}");
                glommio::timer::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if open.get() >= limits::DIR_PORT_CONNECTIONS {
            debug!("too many connections to the DirPort");
            table::DIRECTORY_PORT_REQUESTS.counter(&[("status", "busy")]).increment(1);
            continue;
        }
        let taken = Taken::new(open.clone());
        // Compressing takes memory: a quarter of the connections may have it.
        let may_encode = open.get() <= limits::DIR_PORT_CONNECTIONS / 4;
        let (directory, bandwidth) = (directory.clone(), bandwidth.clone());
        glommio::spawn_local(async move {
            let _taken = taken;
            let client = stream.peer_addr().ok().map(|address| address.ip());
            let connection = Connection { stream, client, bandwidth };
            if let Err(error) = connection.run(&directory, clock, may_encode).await {
                debug!("a connection to the DirPort failed: {error}");
            }
        })
        .detach();
    }
}

/// A connection that counts for as long as it lives.
struct Taken(Rc<Cell<usize>>);

impl Taken {
    fn new(open: Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Taken(open)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Connection {
    stream: TcpStream,
    client: Option<IpAddr>,
    bandwidth: Rc<Bandwidth>,
}

impl Connection {
    /// Answers a request.
    async fn run(mut self, directory: &Directory, clock: Clock, may_encode: bool) -> io::Result<()> {
        let answer = self.answer(directory, clock, may_encode);
        let Some(mut spool) = within(limits::DIR_REQUEST_TIMEOUT, answer).await? else {
            return Ok(());
        };
        let mut piece = vec![0; limits::DIR_PIECE];
        while !spool.is_finished() {
            let n = spool.fill(&mut piece).map_err(io::Error::other)?;
            // Not a stall of the client's.
            self.bandwidth.wait(Direction::Write, self.client).await;
            self.bandwidth.charge(Direction::Write, self.client, n);
            within(limits::DIR_STALL_TIMEOUT, self.stream.write_all(&piece[..n])).await?;
            table::DIRECTORY_PORT_SERVED_BYTES.counter(&[]).increment(n as u64);
        }
        self.stream.flush().await?;
        self.stream.shutdown(std::net::Shutdown::Write).await?;
        within(LINGER, async {
            let mut left = DIR_REQUEST_BODY;
            while left > 0 {
                match self.read(&mut piece).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            Ok(())
        })
        .await
    }

    /// Reads a request and finds the answer; `None` if it is not to be answered.
    async fn answer(
        &mut self,
        directory: &Directory,
        clock: Clock,
        may_encode: bool,
    ) -> io::Result<Option<Spool>> {
        let mut reader = RequestReader::default();
        let mut piece = vec![0; 4096];
        loop {
            let n = self.read(&mut piece).await?;
            if n == 0 {
                return Ok(None);
            }
            let now = clock.now().unix;
            let response = match reader.push(&piece[..n]) {
                Ok(None) => continue,
                Ok(Some((request, _))) => {
                    let asker = Asker { address: self.client, now, may_encode };
                    Some(serve::respond(&directory.documents(), &request, asker))
                }
                Err(refusal) => serve::refuse(refusal, now),
            };
            if let Some(response) = &response {
                let status = response.status.to_string();
                table::DIRECTORY_PORT_REQUESTS.counter(&[("status", &status)]).increment(1);
            }
            return response.map(Spool::new).transpose().map_err(io::Error::other);
        }
    }

    /// Reads what there is, as soon as the bandwidth allows; 0 at the end.
    async fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        self.bandwidth.wait(Direction::Read, self.client).await;
        let n = self.stream.read(piece).await?;
        self.bandwidth.charge(Direction::Read, self.client, n);
        Ok(n)
    }
}

async fn within<R>(after: Duration, work: impl Future<Output = io::Result<R>>) -> io::Result<R> {
    let result = glommio::timer::timeout(after, async { Ok(work.await) }).await;
    result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests;
