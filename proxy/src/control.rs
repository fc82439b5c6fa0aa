//! The control socket: how a person's commands reach a running proxy, and what it tells them.
//!
//! `proxy.sock` in the data directory, for the proxy's own user only. Who connects writes one line, [`Request`], reads text
//! up to the end, and that is all. There is nothing in it that the person could not see or do otherwise, and no secret.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::limits;

pub mod report;

pub use report::{Phase, Port, Report};

#[cfg(test)]
mod tests;

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// How things are: a [`Report`].
    Status,
    /// The circuits, one a line: number, state (`building`, `spare` or `used`), streams, and the nicknames of the relays
    /// with commas between.
    Circuits,
    /// That new streams take circuits that no stream has used before.
    NewIdentity,
}

impl Request {
    /// All of them.
    pub const ALL: [Request; 3] = [Request::Status, Request::Circuits, Request::NewIdentity];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Request::Status => "status",
            Request::Circuits => "circuits",
            Request::NewIdentity => "new-identity",
        }
    }

    fn parse(line: &str) -> Option<Request> {
        Request::ALL.into_iter().find(|request| request.word() == line)
    }
}

/// Whoever answers.
pub trait Status: Send + Sync + 'static {
    /// How things are.
    fn report(&self) -> Report;
    /// The circuits, one a line.
    fn circuits(&self) -> String;
    /// From now on, new streams take circuits that no stream has used before.
    fn new_identity(&self);
}

/// Where the socket of a data directory is.
pub fn path(data: &Path) -> PathBuf {
    data.join("proxy.sock")
}

/// The socket file, which goes with this.
pub struct Socket {
    listener: StdListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket in a data directory whose lock is ours: what is left there is of a proxy that is gone.
    pub fn bind(data: &Path) -> io::Result<Socket> {
        let path = path(data);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = StdListener::bind(&path)?;
        // Until here the directory, which is closed to others, keeps them out.
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Socket { listener, path })
    }

    /// Answers for ever.
    pub async fn serve(self, status: Arc<dyn Status>) -> io::Result<Infallible> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let room = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!("cannot accept a connection to {}: {error}", self.path.display());
                    sleep(limits::ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = room.clone().try_acquire_owned() else { continue };
            let status = status.clone();
            tokio::spawn(async move {
                // Who asked hears nothing of an error but the end.
                let _ = timeout(limits::CONTROL_TIME, answer(stream, &*status)).await;
                drop(place);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

async fn answer(mut stream: UnixStream, status: &dyn Status) -> io::Result<()> {
    let mut line = Vec::with_capacity(limits::CONTROL_REQUEST);
    while !line.contains(&b'\n') && line.len() < limits::CONTROL_REQUEST {
        let room = (limits::CONTROL_REQUEST - line.len()) as u64;
        if (&mut stream).take(room).read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let request = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = reply(&String::from_utf8_lossy(request), status);
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// How an answer begins that is none.
const ERROR: &str = "error ";

fn reply(line: &str, status: &dyn Status) -> String {
    match Request::parse(line.trim_end_matches('\r')) {
        Some(Request::Status) => status.report().to_string(),
        Some(Request::Circuits) => status.circuits(),
        Some(Request::NewIdentity) => {
            status.new_identity();
            "new streams take new circuits\n".to_owned()
        }
        None => {
            let words = Request::ALL.map(Request::word).join(", ");
            format!("{ERROR}no such request; write one of: {words}\n")
        }
    }
}

/// Why a running proxy gave no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// None listens.
    #[error("no proxy runs with the data directory {}; start it, or name its torrc with -f", .0.display())]
    NotRunning(PathBuf),
    /// It cannot be asked.
    #[error("cannot ask the proxy at {}: {source}; run this as the proxy's user or as root", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It does not know what was asked.
    #[error("the proxy does not understand: {0}; is it of another version?")]
    Refused(String),
}

/// Asks the proxy that runs with this data directory. Waits, for a few seconds at most.
pub fn ask(data: &Path, request: Request) -> Result<String, AskError> {
    let path = path(data);
    let exchange = || -> io::Result<String> {
        let mut stream = StdStream::connect(&path)?;
        stream.set_read_timeout(Some(limits::CONTROL_TIME))?;
        stream.set_write_timeout(Some(limits::CONTROL_TIME))?;
        stream.write_all(format!("{}\n", request.word()).as_bytes())?;
        let mut answer = String::new();
        stream.take(limits::CONTROL_ANSWER).read_to_string(&mut answer)?;
        Ok(answer)
    };
    match exchange() {
        Ok(answer) => match answer.strip_prefix(ERROR) {
            Some(error) => Err(AskError::Refused(error.trim_end().to_owned())),
            None => Ok(answer),
        },
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(AskError::NotRunning(data.to_owned()))
        }
        Err(source) => Err(AskError::Failed { path, source }),
    }
}
