//! Many who want something at the same time: relays that upload, clients that fetch.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use onionring_proto::netdoc::consensus::UnverifiedConsensus;
use onionring_proto::netdoc::text::{base64_unpadded, hex_upper};

use super::AuthorityError;
use super::rounds::Outcome;
use super::subject::Subject;
use crate::net::netns;
use crate::synthetic::Directory;

/// The block that is local in a network namespace, a /15.
const UPLOAD_NETWORKS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// Fewer than an authority takes.
const RELAYS_PER_NETWORK: usize = 32;
/// Relays that upload at a time.
const UPLOADERS: usize = 8;
/// Microdescriptors of one request, as clients ask for them.
const MICRODESCS: usize = 90;
const CONSENSUS: &str = "/tor/status-vote/current/consensus-microdesc";

/// A request, and how it must be answered.
#[derive(Clone, Debug)]
pub(super) struct Request {
    path: String,
    headers: String,
    status: u16,
}

/// Uploads the descriptor and the extra-info of every relay, as each does for itself.
pub(super) fn upload(
    subject: &Subject,
    directory: &Directory,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(), AuthorityError> {
    let relays = &directory.relays;
    side_by_side(relays.len(), UPLOADERS, stop, |n| {
        let body = [relays[n].descriptor.as_str(), &relays[n].extra_info].concat();
        subject.post_from("a descriptor", uploader(n), "/tor/", body.as_bytes())
    })
}

/// Where a relay uploads from. An authority takes only so many from one network before it has found them; in a network
/// namespace there are as many networks as are wanted, and elsewhere it is loopback, which is not counted.
fn uploader(relay: usize) -> Option<Ipv4Addr> {
    if !netns::inside() {
        return None;
    }
    let [a, b, ..] = UPLOAD_NETWORKS.octets();
    let [.., high, low] = (relay / RELAYS_PER_NETWORK).to_be_bytes();
    Some(Ipv4Addr::new(a, b | high & 1, low, 1))
}

/// What clients ask for: of twenty, seven want the difference to the consensus before, six a whole one, two know the newest,
/// and five fetch microdescriptors. Encodings are those that stock clients and older ones accept.
pub(super) fn requests(outcome: &Outcome, count: usize) -> Vec<Request> {
    const ALL: &str = "Accept-Encoding: deflate, gzip, x-tor-lzma, x-zstd\r\n";
    const ZSTD: &str = "Accept-Encoding: x-zstd, gzip, deflate\r\n";
    let parsed = outcome.consensuses.each_ref().map(|text| UnverifiedConsensus::parse(text).ok());
    let base = parsed[0].as_ref().map(|before| hex_upper(&before.peek().signed_sha3)).unwrap_or_default();
    let digests: Vec<String> = parsed[1]
        .iter()
        .flat_map(|now| &now.peek().relays)
        .filter_map(|relay| relay.microdesc().map(|digest| base64_unpadded(digest)))
        .collect();
    let batches: Vec<String> = digests.chunks(MICRODESCS).map(|batch| batch.join("-")).collect();
    let began = parsed[1].as_ref().map_or(0, |now| now.peek().lifetime.valid_after.0);
    let known = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(began + 1));
    let whole = |headers: &str| Request { path: CONSENSUS.into(), headers: headers.into(), status: 200 };
    let request = |n: usize| match n % 20 {
        0..7 => whole(&format!("{ALL}X-Or-Diff-From-Consensus: {base}\r\n")),
        7 | 8 => whole(ALL),
        9 | 10 => whole(ZSTD),
        11 => whole("Accept-Encoding: gzip\r\n"),
        12 => whole(""),
        13 | 14 => Request { status: 304, ..whole(&format!("{ALL}If-Modified-Since: {known}\r\n")) },
        _ => {
            let batch = batches.get(n % batches.len().max(1)).map_or("", String::as_str);
            Request { path: format!("/tor/micro/d/{batch}"), headers: ALL.into(), status: 200 }
        }
    };
    (0..count).map(request).collect()
}

/// Sends all requests, so many at a time, and says how many bytes came.
pub(super) fn serve(
    subject: &Subject,
    requests: &[Request],
    concurrency: usize,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<u64, AuthorityError> {
    let bytes = AtomicU64::new(0);
    side_by_side(requests.len(), concurrency, stop, |n| {
        let request = &requests[n];
        let answer = subject.ask(&request.path, &request.headers)?;
        bytes.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
        if answer.status == request.status { Ok(()) } else { Err(subject.refused("a request", &answer)) }
    })?;
    Ok(bytes.into_inner())
}

/// Does `count` things, `threads` at a time, until one fails.
fn side_by_side(
    count: usize,
    threads: usize,
    stop: &(dyn Fn() -> bool + Sync),
    work: impl Fn(usize) -> Result<(), AuthorityError> + Sync,
) -> Result<(), AuthorityError> {
    let next = AtomicUsize::new(0);
    let worker = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return Ok(());
            }
            if stop() {
                return Err(AuthorityError::Interrupted);
            }
            if let Err(error) = work(n) {
                // The others have nothing left to do.
                next.store(count, Ordering::Relaxed);
                return Err(error);
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })
}
