//! Every bound of the relay, in one place, with what happens at it.

use std::time::Duration;

/// Parts of the table of clients that are counted against floods, each with a lock of its own.
pub const DOS_STRIPES: u16 = 64;

/// Clients in one part, some 140 bytes each: 262,144 in all. When it is full, those who come new take the place of others
/// that have neither connections nor a mark; if there are none, they are not counted.
pub const DOS_CLIENTS_PER_STRIPE: usize = 4096;

/// How often a part is looked through for clients that have no connections and are as good as new.
pub const DOS_SWEEP: Duration = Duration::from_secs(30);

/// The same for a part that is full.
pub const DOS_SWEEP_FULL: Duration = Duration::from_secs(1);

/// How many clients of a full part may be forgotten for others between two such looks.
pub const DOS_EVICTIONS: usize = 256;

/// How long a client without connections is remembered for what does not pass by itself: circuits that filled their queue,
/// and that it has been marked.
pub const DOS_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// Connections that the kernel holds for one shard's listener until they are accepted; it refuses more.
pub const LISTEN_BACKLOG: i32 = 4096;

/// How long a port may stay in use at start before the relay gives up: a relay that was killed a moment ago holds its
/// ports until the kernel has taken down its io_uring.
pub const BIND_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that the kernel takes for a connection and has not sent yet (TCP_NOTSENT_LOWAT); the rest waits in the
/// circuits' queues, where the choice of what goes next is still open.
pub const UNSENT_BYTES: u32 = 64 * 1024;

/// Memory that may be locked without which no shard starts: glommio looks for it, whatever it needs.
pub const MEMLOCK_NEEDED: u64 = 512 * 1024;

/// Memory that glommio locks for one shard: its rings, and its registered buffers, which are not used here and as
/// small as it lets them be. Newer kernels count little of it; with less than that for each shard, the relay warns.
pub const MEMLOCK_PER_SHARD: u64 = 512 * 1024;

/// Open files without which even a small relay does not start.
pub const OPEN_FILES_NEEDED: u64 = 1024;

/// Open files, local ports and tracked connections below which a busy relay is in trouble; with less, it starts and
/// warns.
pub const OPEN_FILES_ADVISED: u64 = 16 * 1024;
/// See [`OPEN_FILES_ADVISED`].
pub const LOCAL_PORTS_ADVISED: u16 = 25_000;
/// See [`OPEN_FILES_ADVISED`].
pub const TRACKED_CONNECTIONS_ADVISED: u64 = 256 * 1024;

/// Open files to ask for when the hard limit is unlimited.
pub const OPEN_FILES_WANTED: u64 = 1 << 20;

/// A cell of link protocols 4 and 5.
pub const CELL_BYTES: usize = 514;

/// Submissions that one of a shard's rings holds before it calls the kernel.
pub const RING_DEPTH: usize = 256;

/// Longest time between two looks at the sockets while cells keep coming: so much later a cell may be sent on, in exchange for
/// fewer wake-ups. C tor's scheduler waits up to 10 ms.
pub const LOOK_GAP: Duration = Duration::from_micros(500);

/// Bytes that one look has to bring for the next one to follow at once; with less, in proportion later.
pub const LOOK_BYTES: usize = 64 * 1024;

/// Sockets of which one look learns.
pub const READY_EVENTS: usize = 256;

/// Time between two arrivals of cells below which a trickle begins.
pub const PACE_GAP: Duration = Duration::from_millis(2);

/// Time without cells after which a trickle ends. Below the 10 ms of C tor's scheduler: between its batches it is
/// cheaper to sleep.
pub const PACE_PATIENCE: Duration = Duration::from_millis(5);

/// Time after which a shard that naps looks at its rings; they say what else there is: new connections, handshakes,
/// timers. A shard that always has something to do may take up to [`RING_INTERVAL_BUSY`].
pub const RING_INTERVAL: Duration = Duration::from_millis(2);

/// Longest time that a shard which always has something to do goes without that.
pub const RING_INTERVAL_BUSY: Duration = Duration::from_millis(10);

/// Time that public-key work gets beside cells when both want all of it, in parts of the 1000 that cells have.
pub const BACKGROUND_SHARES: usize = 200;

/// Circuit handshakes made in one turn, before cells have theirs: half a millisecond of work. To send each answer by itself
/// and to look for cells after each costs a sixth of the handshakes.
pub const HANDSHAKES_PER_TURN: usize = 8;

/// Batches under way from one shard to another; with more, the sender keeps them.
pub const CROSSING_RING: usize = 64;

/// Bytes that one read takes from a connection: four full TLS records.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes that a link holds at most of what came before: of a cell of variable length (65,542), and of a TLS record
/// (18,437). A multiple of a page, so that what comes after lies well.
pub const READ_LEAD: usize = 21 * 4096;

/// Time for which a shard takes of a bandwidth limit at once. What all shards together hold unused is at most this much
/// of the rate, and a shard that waits for bandwidth waits about so long.
pub const RATE_ROUND: Duration = Duration::from_millis(10);

/// Bytes that a shard moves at once if any are left of a bandwidth limit, and owes: a cell with its TLS record.
pub const RATE_LEAST: u64 = CELL_BYTES as u64 + 29;

/// Bytes that a connection moves in one go while others wait for bandwidth: 32 cells, as in C tor.
pub const RATE_TURN: usize = 32 * 514;

/// Full reads from one connection before other links have their turn.
pub const READS_PER_TURN: usize = 2;

/// Application data in one TLS record.
pub const RECORD_BYTES: usize = 16 * 1024;

/// Bytes of cells from which on no further cell is put into a record: the next one might not fit.
pub const RECORD_FILL: usize = RECORD_BYTES - 514 + 1;

/// Records sealed for one write: so many may wait for the socket that could no longer be chosen otherwise.
pub const RECORDS_PER_WRITE: usize = 4;

/// Writes to one connection before other links have their turn.
pub const WRITES_PER_TURN: usize = 2;

/// TLS handshakes of accepted connections that may be under way on one shard; the next one takes the place of the
/// oldest, which is closed.
pub const TLS_HANDSHAKES: usize = 1024;

/// Bytes that one read takes during a TLS handshake.
pub const TLS_HANDSHAKE_READ_BYTES: usize = 4096;

/// Time for a TLS handshake; a slower connection is closed.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a connection to one address; after that the next one is tried.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that a peer has to take the last bytes of a link that we close; after that they are dropped.
pub const LINK_LINGER: Duration = Duration::from_secs(5);

/// Pause after a failure to accept a connection, which has reasons that last (no more files).
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time between two warnings about the same thing.
pub const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// Cells of one circuit waiting on one link (C tor's `circ_max_cell_queue_size` default); one more closes the
/// circuit with RESOURCELIMIT.
pub const CELLS_PER_CIRCUIT: usize = 2500;

/// Cells of one circuit waiting for the client at which its streams are no longer read (C tor's `cellq_high` default).
pub const CELLS_HIGH: usize = 256;

/// Cells left at which they are read again (C tor's `cellq_low` default).
pub const CELLS_LOW: usize = 10;

/// Half-life of a circuit's average when links choose whom to serve (C tor's `CircuitPriorityHalflifeMsec`).
pub const CIRCUIT_PRIORITY_HALF_LIFE: Duration = Duration::from_secs(30);

/// Cells and messages in a batch that crosses to another shard; a fuller batch starts the next one.
pub const CROSSING_BATCH: usize = 64;

/// Batches waiting for one ring; with more, the shard reads from no link until the other shard has caught up.
pub const CROSSING_BACKLOG: usize = 256;

/// Batches waiting for one ring at which a cell more closes its circuit with RESOURCELIMIT. Stopping to read at
/// [`CROSSING_BACKLOG`] keeps an honest load far below it.
pub const CROSSING_LIMIT: usize = 4 * CROSSING_BACKLOG;

/// DESTROY cells waiting on one link for circuits that its peer asked for and did not get (8 bytes each); one more
/// closes the link, whose peer makes work and does not read.
pub const REFUSALS_PER_LINK: usize = 16 * 1024;

/// Circuits that a relay may have on one link, together with those of whose end it has not read yet; one more is
/// refused with RESOURCELIMIT.
pub const CIRCUITS_PER_LINK: usize = 1 << 16;

/// The same for a client. Busy onion services have some thousands.
pub const CIRCUITS_PER_CLIENT: usize = 1 << 13;

/// Circuits of one shard, some kilobytes each; one more is refused with RESOURCELIMIT.
pub const CIRCUITS_PER_SHARD: usize = 1 << 20;

/// CREATE cells waiting for their public-key work on one shard; at the limit the link that has most of them loses its
/// oldest, which is refused with RESOURCELIMIT.
pub const PENDING_CREATES: usize = 2048;

/// Time that a CREATE cell may wait for its public-key work (default of C tor's `onion_queue_wait_cutoff`); an older one
/// is refused with RESOURCELIMIT, because its client has given up.
pub const CREATE_WAIT: Duration = Duration::from_secs(5);

/// Circuits waiting for one dial; one more is closed with RESOURCELIMIT.
pub const WAITERS_PER_DIAL: usize = 1024;

/// Dials to one peer by addresses or identities that the consensus does not list; at the limit the link whose circuits
/// asked for most of them loses its oldest, whose waiters are closed with RESOURCELIMIT. Those by what the consensus
/// lists are alike, and so share one dial.
pub const UNLISTED_DIALS_PER_PEER: usize = 4;

/// Links to one peer that new circuits choose among; further ones carry only what the peer opens on them.
pub const LINKS_PER_PEER: usize = 16;

/// Links being dialed by one shard; at the limit the link whose circuits asked for most of them loses its oldest, whose
/// waiters are closed with RESOURCELIMIT, so that whoever sends us to places that do not answer harms itself.
pub const DIALS_PER_SHARD: usize = 1024;

/// Time from an EXTEND2 to its CREATED2; a slower extend closes the circuit with TIMEOUT.
pub const EXTEND_TIMEOUT: Duration = Duration::from_secs(60);

/// Time from the first byte of a connection to the end of the link handshake; a slower one is closed.
pub const LINK_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

/// A link with a client, or one that is not canonical, is closed when it carried no circuit for this long; each
/// link draws a point in the range, so that they do not all end at once (as C tor does).
pub const IDLE_LINK: std::ops::Range<Duration> = Duration::from_secs(180)..Duration::from_secs(270);

/// The same for canonical links with relays, a quarter more or less (default of C tor's `nf_conntimeout_relays`).
pub const IDLE_CANONICAL_LINK: Duration = Duration::from_secs(3600);

/// Bytes of a stream that wait to be packed are never taken: a driver may offer at most this many at a time.
pub const STREAM_WRITE_CHUNK: usize = 498 * 128;

/// Cells of a circuit's window that a stream gets at least when its turn has come, if there are so many: to read less from
/// a destination costs more than it carries.
pub const STREAM_TURN: u16 = 25;

/// Bytes of memory that a stream keeps for what its client sends, while nothing waits in it.
pub const INBOX_KEPT: usize = 2048;

/// Names a shard resolves at the same time; one more fails at once with a transient error, so that a flood of names
/// costs neither memory nor file descriptors (each lookup holds at most one socket).
pub const DNS_LOOKUPS: usize = 2048;

/// Streams that wait for the same name; one more fails at once with a transient error.
pub const DNS_WAITERS_PER_LOOKUP: usize = 512;

/// Answers a shard remembers; the one that expires first makes room. At most about 1 KiB each.
pub const DNS_CACHE_ENTRIES: usize = 8192;

/// Longest time an answer is remembered, whatever its TTL says.
pub const DNS_CACHE_TTL_MAX: Duration = Duration::from_secs(3600);

/// Longest time "no such name" is remembered (RFC 2308 leaves the choice to the resolver).
pub const DNS_NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);

/// Time a failing name (no resolver answered) is remembered, so that clients who retry do not multiply the load.
pub const DNS_FAILURE_TTL: Duration = Duration::from_secs(5);

/// Addresses kept of each family of one answer; the rest are ignored. Both families together fit a RESOLVED cell.
pub const DNS_ADDRESSES_PER_FAMILY: usize = 8;

/// CNAME records followed in one answer; a longer chain, or a loop, counts as a failure of the resolver.
pub const DNS_CNAME_CHAIN: usize = 16;

/// Records of an answer that are looked at; an answer with more counts as a failure of the resolver.
pub const DNS_ANSWER_RECORDS: usize = 256;

/// Datagrams read for one question; if none of them answers it, the question goes over TCP, where nobody off the path
/// can answer.
pub const DNS_DATAGRAMS_PER_QUESTION: u32 = 8;

/// Largest answer read over UDP; without EDNS a server sends no more than 512.
pub const DNS_DATAGRAM_LEN: usize = 1232;

/// Largest answer read over TCP; a longer one counts as a failure of the resolver.
pub const DNS_TCP_LEN: usize = 16 * 1024;

/// Name servers used of resolv.conf; the rest are ignored.
pub const DNS_SERVERS: usize = 8;

/// Search domains used of resolv.conf; the rest are ignored.
pub const DNS_SEARCH_DOMAINS: usize = 6;

/// Time one lookup may take in all, over all servers and attempts: clients give a stream up after 10 to 15 seconds.
pub const DNS_LOOKUP_TIME: Duration = Duration::from_secs(12);

/// Time a lookup waits for IPv6 addresses once it has IPv4 ones.
pub const DNS_OTHER_FAMILY_TIME: Duration = Duration::from_millis(250);

/// Failures in a row after which a name server is passed over while others work.
pub const DNS_SERVER_FAILURES: u32 = 3;

/// First and longest time a failing name server is passed over; the time doubles with each further failure.
pub const DNS_SERVER_REST: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// Streams to the outside and lookups of one shard at the same time; one more ends with RESOURCELIMIT, or is answered
/// with a transient error.
pub const EXIT_STREAMS: usize = 1 << 16;

/// Reads or writes that one stream does before it is another's turn.
pub const STREAM_CHUNKS_PER_TURN: usize = 4;

/// Time that a stream which one side has ended may take to deliver what the client sent before; the rest is dropped.
pub const STREAM_FLUSH_TIME: Duration = Duration::from_secs(15);

/// Time without a byte after which a stream is ended of which one direction has ended and the other goes on
/// (`HalfClosedStreams`); up to twice that if it moved before. Both sides may be silent for as long as an answer takes to be
/// made, but one that has forgotten to end its half must not keep a socket here for ever.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(600);

/// Time a connection to a stream's destination may take, over all addresses tried.
pub const EXIT_CONNECT_TIME: Duration = Duration::from_secs(30);

/// Time one address may take before the next is tried.
pub const EXIT_CONNECT_TIME_PER_ADDRESS: Duration = Duration::from_secs(15);

/// Addresses of a name that are tried; the rest are ignored.
pub const EXIT_ADDRESSES_TRIED: usize = 4;

/// Connections to the metrics port that are served at the same time; one more is closed.
pub const METRICS_CONNECTIONS: usize = 16;

/// Time that reading and answering one request for metrics may take.
pub const METRICS_TIME: Duration = Duration::from_secs(10);

const _: () = {
    // Type 1, length 1, TTL 4 around each value: all addresses of a name fit the 498 bytes of one relay message.
    assert!(DNS_ADDRESSES_PER_FAMILY * (6 + 4) + DNS_ADDRESSES_PER_FAMILY * (6 + 16) <= 498);
    assert!(DNS_DATAGRAMS_PER_QUESTION > 0);
};

/// Time for each step of building a circuit of the relay's own: the connection with the first hop, and every further
/// hop; a slower one is given up.
pub const OWN_CIRCUIT_STEP: Duration = Duration::from_secs(60);

/// Time for a directory request over such a circuit; a slower one is given up.
pub const OWN_CIRCUIT_REQUEST: Duration = Duration::from_secs(600);

/// Bytes read at once from the connection of such a circuit.
pub const OWN_CIRCUIT_READ: usize = 16 * 1024;

/// Directory streams of one shard; one more ends with RESOURCELIMIT.
pub const DIR_STREAMS: usize = 4096;

/// Bytes of incomplete directory requests that one shard keeps; a stream that adds more ends with RESOURCELIMIT.
pub const DIR_REQUEST_BYTES: usize = 4 << 20;

/// Answers that one shard compresses while it sends them, some 300 KiB each; further ones go out uncompressed, which
/// every client understands.
pub const DIR_ENCODERS: usize = 64;

/// Bytes of an answer that are made at a time: a whole number of cells.
pub const DIR_PIECE: usize = 498 * 32;

/// Time for a directory request to arrive; a slower stream is ended.
pub const DIR_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Time in which a client must take something of an answer (C tor's `DirConnectionMaxStall`); a stalled stream is
/// ended.
pub const DIR_STALL_TIMEOUT: Duration = Duration::from_secs(300);

/// How often directory streams are looked through for stalled ones.
pub const DIR_SWEEP: Duration = Duration::from_secs(10);

/// Connections to the DirPort; one more is closed at once.
pub const DIR_PORT_CONNECTIONS: usize = 512;

/// Time to connect to a directory server; a slower one is given up.
pub const DIR_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time in which a directory server must send something; a stalled one is given up.
pub const DIR_FETCH_STALL: Duration = Duration::from_secs(60);

/// Time for a whole answer of a directory server; a slower one is given up.
pub const DIR_FETCH_TIMEOUT: Duration = Duration::from_secs(600);

/// Bytes of the diffs to one consensus, in all encodings; from the oldest bases there are none then, and whoever has
/// those gets the whole consensus. In a network of 9,000 relays, the diff over an hour takes 0.3 MiB, over a day 4 MiB.
pub const DIR_DIFF_BYTES: usize = 32 << 20;

/// Directory requests under way at a time; further ones wait.
pub const DIR_FETCHES: usize = 16;

/// Time for the shards to end once told to, [`LINK_LINGER`] included; the process ends without those that take longer.
pub const STOP_TIME: Duration = Duration::from_secs(10);

/// Bytes of `DirPortFrontPage`; a longer one is not shown.
pub const DIR_FRONT_PAGE: u64 = 1 << 20;

/// How often a shard looks how late its timers fire.
pub const PULSE: Duration = Duration::from_secs(1);

/// How often a shutdown says how many circuits it still waits for.
pub const DRAIN_PROGRESS: Duration = Duration::from_secs(5);
