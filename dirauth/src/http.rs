//! The directory over HTTP/1.0, one request per connection, as C tor has it: on the DirPort, and on streams that come
//! through circuits.
//!
//! hyper reads heads and frames bodies; what is answered is [`crate::directory`]'s. Everything a client can take is
//! bounded in [`crate::limits`].

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use onionring_node::directory::http::{Method, Refusal, Request};
use onionring_node::directory::serve::{self, Asker, short};
use onionring_node::directory::spool::Response;
use onionring_node::limits::DIR_REQUEST_HEAD;
use onionring_proto::time::Unix;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::directory::Directory;
use crate::limits;

mod guests;
mod lanes;
mod sent;
mod stall;
pub mod tally;

use guests::{Guest, Guests};
use lanes::{Lane, Lanes};
use sent::Sent;
use stall::Stalling;
use tally::{Tally, Way};

/// Time between attempts to accept after one has failed, for lack of files as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Why a request gets no answer: its connection is closed.
#[derive(Debug, Error)]
enum Unanswered {
    #[error("the request is of another method, or announces too long a body")]
    Refused,
    #[error("the body does not come in time")]
    Slow,
    #[error("the body does not come: {0}")]
    Body(#[from] hyper::Error),
    #[error("the answer failed: {0}")]
    Answer(String),
}

/// What all connections share.
pub struct Desk {
    directory: Arc<Directory>,
    guests: Arc<Guests>,
    /// Places for requests that come through circuits.
    circuits: Arc<Semaphore>,
    lanes: Lanes,
    tallies: [Tally; Way::ALL.len()],
}

impl Desk {
    /// Where requests to `directory` are answered. What is posted from the addresses of the configured `authorities` has
    /// room reserved for it.
    pub fn new(directory: Arc<Directory>, authorities: Arc<[IpAddr]>) -> Desk {
        let tallies = Default::default();
        Desk {
            directory,
            guests: Arc::default(),
            circuits: Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS / 2)),
            lanes: Lanes::new(authorities),
            tallies,
        }
    }

    /// What came of the requests that came one way.
    pub fn tally(&self, way: Way) -> &Tally {
        // The index of a variant, and there are as many as variants.
        &self.tallies[way as usize]
    }
}

/// Serves requests for ever; drop it to stop listening. Answers under way go on.
pub async fn serve(listener: TcpListener, desk: Arc<Desk>) -> Infallible {
    loop {
        let (stream, client) = match listener.accept().await {
            Ok((stream, client)) => (stream, client.ip().to_canonical()),
            Err(error) => {
                warn!(
                    "the DirPort takes no connections at the moment: {error}; see to the limit of open files"
                );
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match desk.guests.admit(client, desk.lanes.is_authority(client)) {
            Some(guest) => {
                let connection = connection(stream, Way::DirPort, Some(client), guest, desk.clone());
                tokio::spawn(connection);
            }
            None => {
                desk.tally(Way::DirPort).unanswered();
                debug!("too many connections to the DirPort: one is closed unanswered");
            }
        }
    }
}

/// Serves the request on a stream of a circuit; `client` is known only if the circuit has no hop before us. All of them
/// together leave half of the room to the DirPort.
pub async fn serve_stream<S>(stream: S, client: Option<IpAddr>, desk: Arc<Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // As whoever is next door, who counts for the total alone.
    let admit = || desk.guests.admit(Ipv4Addr::LOCALHOST.into(), false);
    match desk.circuits.clone().try_acquire_owned().ok().and_then(|place| Some((place, admit()?))) {
        Some((place, guest)) => {
            connection(stream, Way::Circuit, client, guest, desk).await;
            drop(place);
        }
        None => {
            desk.tally(Way::Circuit).unanswered();
            debug!("too many requests: one that came through a circuit is not answered");
        }
    }
}

async fn connection<S>(stream: S, way: Way, client: Option<IpAddr>, guest: Guest, desk: Arc<Desk>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let may_encode = guest.number() <= limits::HTTP_ENCODERS;
    let service = service_fn(|request| exchange(request, way, client, may_encode, &desk));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HTTP_HEAD_TIME)
        .max_buf_size(DIR_REQUEST_HEAD)
        .max_headers(limits::HTTP_HEADERS)
        // C tor looks for `Content-Encoding` and `Date` in this case.
        .title_case_headers(true)
        .keep_alive(false)
        // A client may say with a FIN that its request is whole.
        .half_close(true)
        .serve_connection(TokioIo::new(Stalling::new(stream, limits::HTTP_STALL)), service);
    match timeout(limits::HTTP_CONNECTION_TIME, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a request failed: {error}"),
        Err(_) => debug!("a request took too long"),
    }
    drop(guest);
}

/// One request and its answer.
async fn exchange(
    request: hyper::Request<Incoming>,
    way: Way,
    client: Option<IpAddr>,
    may_encode: bool,
    desk: &Desk,
) -> Result<hyper::Response<Sent>, Unanswered> {
    let tally = desk.tally(way);
    let response = respond(request, client, may_encode, desk).await;
    let response = response.and_then(|r| sent::response(r, tally.meter()).map_err(Unanswered::Answer));
    match &response {
        Ok(response) => tally.answered(response.status().as_u16()),
        Err(_) => tally.unanswered(),
    }
    response
}

async fn respond(
    request: hyper::Request<Incoming>,
    client: Option<IpAddr>,
    may_encode: bool,
    desk: &Desk,
) -> Result<Response, Unanswered> {
    let now = clock();
    let asker = Asker { address: client, now, may_encode };
    let (head, body) = request.into_parts();
    let header = |name: &str| head.headers.get(name).map(|value| value.as_bytes());
    match Request::new(head.method.as_str(), &target(&head.uri), header) {
        Ok(request) => answer(request, body, asker, desk).await,
        Err(refusal @ Refusal::BadRequest) => serve::refuse(refusal, now).ok_or(Unanswered::Refused),
        Err(Refusal::Unanswered) => Err(Unanswered::Refused),
    }
}

fn clock() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
}

/// The path with all that follows; hyper has understood what stands before it.
fn target(uri: &hyper::Uri) -> String {
    uri.path_and_query().map_or_else(|| "/".to_owned(), |path| path.as_str().to_owned())
}

async fn answer(request: Request, body: Incoming, asker: Asker, desk: &Desk) -> Result<Response, Unanswered> {
    let (body, _room, turn) = match request.method {
        Method::Get => (Vec::new(), None, None),
        Method::Post => {
            // Without a length nobody knows whether it is whole.
            let Some(length) = body.size_hint().exact() else {
                return Ok(short(400, "Bad request", asker.now));
            };
            let lane = desk.lanes.of(&request.path, asker.address);
            if length > lane.body as u64 {
                return Ok(short(413, "Too long", asker.now));
            }
            let receive = receive(body, lane);
            let Some((body, room)) =
                timeout(limits::HTTP_BODY_TIME, receive).await.map_err(|_| Unanswered::Slow)??
            else {
                return Ok(serve::busy(asker.now));
            };
            (body, room, lane.turn.acquire().await.ok())
        }
    };
    let directory = desk.directory.clone();
    // Now that all of it is there and has its turn: a vote that takes its time is late.
    let judge = move || directory.answer(&request, &body, Asker { now: clock(), ..asker });
    let answer = tokio::task::spawn_blocking(judge).await;
    drop(turn);
    answer.map_err(|error| Unanswered::Answer(error.to_string()))
}

/// A body, and its room for as long as it is needed; nothing if there is no more room for it.
async fn receive(
    mut body: Incoming,
    lane: &Lane,
) -> Result<Option<(Vec<u8>, Option<OwnedSemaphorePermit>)>, Unanswered> {
    let mut received = Vec::new();
    let mut room: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame?.into_data() else { continue };
        // hyper's pieces are shorter than its buffer.
        let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let Ok(more) = lane.room.clone().try_acquire_many_owned(bytes) else { return Ok(None) };
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        received.extend_from_slice(&piece);
    }
    Ok(Some((received, room)))
}

#[cfg(test)]
mod tests;
