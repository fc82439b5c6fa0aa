//! How a directory is reached: through a circuit of one hop to its ORPort, or plainly at its DirPort.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onionring_node::directory::answer::{Answer, get_request};
use onionring_node::directory::exchange::{ExchangeError, Patience, exchange};
use onionring_node::directory::keeper::bytes_max;
use onionring_node::link::{CircuitError, ConnectError, LinkFailure, StreamError};
use onionring_proto::dir::request::DirRequest;
use onionring_proto::origin::{FirstHop, OriginConfig};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits;
use crate::links::{Links, Place};

/// How to reach a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// At its ORPort, through a circuit of one hop.
    Tunnel(Place),
    /// At its DirPort, where everyone on the way sees what is asked: for authorities of which no ORPort is known.
    DirPort(SocketAddr),
}

impl Route {
    fn address(&self) -> SocketAddr {
        match self {
            Route::Tunnel(place) => place.address,
            Route::DirPort(address) => *address,
        }
    }
}

/// A connection on which a directory expects an HTTP request; closed when dropped.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// An open connection to a directory.
pub struct Opened {
    /// The connection.
    pub stream: Box<dyn Duplex>,
    /// How many seconds its clock is ahead of ours, if it has said.
    pub clock_ahead: Option<i64>,
}

/// Opens connections to directories.
pub trait Transport: Send + Sync + 'static {
    /// Opens one. The caller bounds the time.
    fn open(&self, route: &Route) -> impl Future<Output = Result<Opened, OpenError>> + Send;
}

impl Transport for Arc<Links> {
    async fn open(&self, route: &Route) -> Result<Opened, OpenError> {
        match route {
            Route::Tunnel(place) => {
                let link = self.get(place).await?;
                let circuit = link.create(FirstHop::Fast, OriginConfig::default()).await?;
                // The stream keeps the circuit.
                let stream = circuit.begin_dir(0, limits::DIR_OPEN_TIME).await?;
                Ok(Opened { stream: Box::new(stream), clock_ahead: link.established().peer_clock_skew })
            }
            Route::DirPort(address) => {
                let stream = TcpStream::connect(address).await.map_err(OpenError::Connect)?;
                Ok(Opened { stream: Box::new(stream), clock_ahead: None })
            }
        }
    }
}

/// Why a directory cannot be reached.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no link to it.
    #[error(transparent)]
    Link(#[from] Arc<ConnectError>),
    /// It makes no circuit.
    #[error("no circuit: {0}")]
    Circuit(#[from] CircuitError),
    /// It opens no stream.
    #[error("no stream to its directory: {0}")]
    Stream(#[from] StreamError),
    /// Its DirPort takes no connection.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
}

impl OpenError {
    /// By how many seconds our clock is ahead of the time in which the directory's certificates hold, negative if it is
    /// behind; `None` if it was not that.
    pub fn clock_ahead(&self) -> Option<i64> {
        match self {
            OpenError::Link(error) => match &error.failure {
                LinkFailure::Protocol(error) => error.clock_ahead(),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Why there is no usable answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// It cannot be reached.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be reached in time.
    #[error("not reached within {0:?}")]
    NotReached(Duration),
    /// The exchange failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
}

impl AskError {
    /// A word for it, as a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            AskError::Open(OpenError::Link(_) | OpenError::Connect(_)) => "connect",
            AskError::Open(OpenError::Circuit(_) | OpenError::Stream(_)) => "circuit",
            AskError::NotReached(_) => "timeout",
            AskError::Exchange(error) => error.label(),
        }
    }
}

/// Asks a directory; calls `opened` once it is reached, with how far its clock is ahead of ours, if that is known.
pub async fn ask(
    transport: &impl Transport,
    route: &Route,
    request: &DirRequest,
    opened: impl FnOnce(Option<i64>) + Send,
) -> Result<Answer, AskError> {
    let reached = timeout(limits::DIR_OPEN_TIME, transport.open(route)).await;
    let mut connection = reached.map_err(|_| AskError::NotReached(limits::DIR_OPEN_TIME))??;
    opened(connection.clock_ahead);
    let head = get_request(&route.address().to_string(), &request.path(), request.at_hand());
    let patience = Patience { stall: limits::DIR_STALL, total: limits::DIR_ANSWER_TIME };
    Ok(exchange(&mut connection.stream, &head, bytes_max(request), patience).await?)
}
