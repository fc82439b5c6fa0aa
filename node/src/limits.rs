//! Every bound of this crate, in one place.
//!
//! What happens at each limit is written beside it.

use std::time::Duration;

/// Nested `%include` lines, as in C tor; deeper ones are an error.
pub const INCLUDE_DEPTH: usize = 31;

/// Files that one torrc may bring in through `%include`, so that files which include each other many times over cannot
/// occupy the program; more are an error.
pub const INCLUDED_FILES: usize = 1_000;

/// Bytes of one configuration file; a longer one is an error, read no further.
pub const TORRC_BYTES: u64 = 8 << 20;

/// Bytes of one key file; a longer one is an error, read no further. The largest in use, an RSA key, has 900.
pub const KEY_FILE_BYTES: u64 = 16 << 10;

/// Bytes read from a link's connection at once: a few TLS records of the largest size.
pub const LINK_READ: usize = 64 * 1024;

/// Bytes of cells that are made for a link and sealed into one record.
pub const LINK_BATCH: usize = 31 * 514;

/// Such records that are offered to a link's socket at once; no more are made while the socket takes none.
pub const LINK_BATCHES: usize = 4;

/// Cells that one circuit may send before the next circuit of its link has its turn.
pub const CIRCUIT_TURN: usize = 8;

/// Circuits of one link on which we may still build one; the next fails with an error that says to open another link.
pub const LINK_CIRCUITS: usize = 4096;

/// How long a link that is closed waits for its peer to take what is left to send; then it just ends.
pub const LINK_CLOSE: Duration = Duration::from_secs(5);

/// How long an open link's peer may take nothing of what there is to send; then the link fails, and with it all circuits.
pub const LINK_STALL: Duration = Duration::from_secs(300);

/// Circuits of a link on which a peer may still build one to us; it gets DESTROY and `ResourceLimit`.
pub const SERVED_CIRCUITS: usize = 1024;

/// Refusals of circuits that wait for a link's socket; while there are more, nothing is read from it.
pub const LINK_REFUSALS: usize = 256;

/// Streams to the directory on one circuit that somebody has built to us; one more is ended with `ResourceLimit`.
pub const SERVED_STREAMS: usize = 128;

/// Messages to the client of such a circuit that wait for the link: CONNECTED and END of each stream, and half as many
/// again; the circuit of a client that makes more due is destroyed.
pub const SERVED_MESSAGES: usize = 3 * SERVED_STREAMS;

/// Bytes written to such a stream and not sent yet; a write takes no more than that.
pub const SERVED_UNSENT: usize = 64 * 1024;

/// Bytes of the head of a directory request, C tor's bound; a longer one is closed unanswered.
pub const DIR_REQUEST_HEAD: usize = 50_000;

/// Bytes of the body of a directory request, C tor's bound; one that announces more is closed unanswered. A
/// cache reads past bodies and keeps none.
pub const DIR_REQUEST_BODY: usize = (1 << 24) - 1;

/// Consensuses that a client may say it has; it has no use for saying more, and what follows is not read.
pub const DIR_DIFF_BASES: usize = 64;

/// Bytes of a consensus; a longer one is refused. The public network's has 3 MiB.
pub const DIR_CONSENSUS: usize = 32 << 20;

/// Earlier consensuses of a flavour from which there are diffs to the newest; the oldest makes room.
pub const DIR_PAST_CONSENSUSES: usize = 24;

/// Bytes of those, compressed; the oldest make room. A network of 9,000 relays needs 16 MiB.
pub const DIR_PAST_BYTES: usize = 32 << 20;

/// Bytes of the head of a directory server's answer; a longer one is refused.
pub const DIR_ANSWER_HEAD: usize = 50_000;

/// Connections to the metrics port that are served at the same time; one more is closed.
pub const METRICS_CONNECTIONS: usize = 16;

/// Time that reading and answering one request for metrics may take; a longer one is closed.
pub const METRICS_TIME: Duration = Duration::from_secs(10);
