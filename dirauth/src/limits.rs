//! Every bound of the authority, in one place.
//!
//! What happens at each limit is written beside it.

use std::time::Duration;

/// Pairs of identities that are pinned; beyond that the pair of a new relay is not recorded, and the relay is taken
/// unpinned.
pub const PINS: usize = 2_000_000;

/// Bytes of a state file that is read; a longer one is refused with an error, as damaged.
pub const STATE_FILE: u64 = 512 << 20;

/// Bytes of a file with a key or certificate of an authority; a longer one is refused. They have about 2,500.
pub const AUTHORITY_KEY_FILE: u64 = 64 << 10;

/// Rounds of the derivation by which an identity key may be encrypted; with more it is refused. `tor-gencert` takes 2048.
pub const KDF_ITERATIONS: u32 = 10_000_000;

/// Relays whose ups and downs are remembered; beyond that new ones are not, until others have faded. Relays that are not
/// stored get no history.
pub const HISTORIES: usize = 500_000;

/// Relays of a bandwidth file that count; the rest is passed over.
pub const MEASURED_RELAYS: usize = 500_000;

/// Headers of a bandwidth file that go into the vote, its time among them, as in C tor; the rest is left out.
pub const BANDWIDTH_HEADERS: usize = 50;

/// Relays that wait to be approved; beyond that the one that was silent longest is dropped from the list.
pub const PENDING_RELAYS: usize = 1024;

/// Documents of one upload that are judged; the rest is refused. A relay sends two. Each costs up to six signatures.
pub const DOCUMENTS_PER_UPLOAD: usize = 32;

/// Characters of the reason in the status line of an answer; a longer one is cut off.
pub const ANSWER_REASON: usize = 400;

/// Characters that are kept of the contact of a relay that waits; the rest is cut off.
pub const PENDING_CONTACT: usize = 200;

/// Relays of which descriptors are stored; the upload of one more is refused until others have gone.
pub const STORED_RELAYS: usize = 50_000;

/// Relays that nobody has found to be reachable yet, uploaded from one /24 on the Internet (of IPv6, from one /48); the
/// upload of one more is refused until some are found, or have gone.
pub const STRANGERS_PER_NETWORK: usize = 64;

/// Relays at one address on the Internet that count as known when they are found to be reachable; further ones stay
/// strangers. Authorities vote for less than half as many.
pub const KNOWN_PER_ADDRESS: usize = 16;

/// Descriptors, and extra-infos, that are stored of one relay; beyond that its oldest goes.
pub const STORED_PER_RELAY: usize = 16;

/// Bytes of all descriptors that are stored, and of all extra-infos. Beyond that superseded ones go, the oldest first;
/// then relays that nobody has found and that arrived after the one that uploads, the last first; when there are none,
/// the upload is refused.
pub const STORED_BYTES: usize = 256 << 20;

/// Connections to the DirPort; one more is closed at once.
pub const HTTP_CONNECTIONS: usize = 1024;

/// Connections to the DirPort from one address on the Internet (of IPv6, from one /64); one more is closed at once.
/// Private addresses, where many relays of a test network may be, have no bound but the total.
pub const HTTP_CONNECTIONS_PER_ADDRESS: usize = 32;

/// Connections to the DirPort from one /48 of IPv6; one more is closed at once.
pub const HTTP_CONNECTIONS_PER_NETWORK: usize = 128;

/// Connections to the DirPort over IPv6, as whoever has a /32 has 65,536 such networks; one more is closed at once.
pub const HTTP_CONNECTIONS_IPV6: usize = HTTP_CONNECTIONS / 2;

/// Connections to the DirPort that only the addresses of configured authorities get.
pub const HTTP_CONNECTIONS_OF_AUTHORITIES: usize = 64;

/// Connections up to which answers are compressed while they are sent, which takes some 300 KiB each; further ones get
/// what is not kept compressed as it is.
pub const HTTP_ENCODERS: usize = HTTP_CONNECTIONS / 4;

/// Headers of a request; one with more is answered with 431, as is one whose head is longer than
/// [`onionring_node::limits::DIR_REQUEST_HEAD`]. That bounds the names in a request, too: some 1,200.
pub const HTTP_HEADERS: usize = 100;

/// Bytes of an upload of a relay; a longer one is answered with 413, unread. A relay sends 70,000 at most.
pub const HTTP_UPLOAD_BODY: usize = 256 << 10;

/// Bytes of uploads of relays that are being received, or wait to be judged; one beyond that is answered with 503.
pub const HTTP_UPLOAD_BYTES: usize = 32 << 20;

/// The same of votes and signatures from the addresses of configured authorities.
pub const HTTP_VOTE_BYTES: usize = 128 << 20;

/// The same of votes and signatures from elsewhere, and of whatever else is posted.
pub const HTTP_OTHER_BYTES: usize = 32 << 20;

/// Time for the head of a request; a slower connection is closed.
pub const HTTP_HEAD_TIME: Duration = Duration::from_secs(60);

/// Time for the body of a request; a slower connection is closed.
pub const HTTP_BODY_TIME: Duration = Duration::from_secs(300);

/// Time in which a client must take something of an answer; a stalled connection is closed (C tor's
/// `DirConnectionMaxStall`).
pub const HTTP_STALL: Duration = Duration::from_secs(300);

/// Time for a whole connection; a longer one is closed.
pub const HTTP_CONNECTION_TIME: Duration = Duration::from_secs(3600);

/// Bytes of an answer that are made at a time.
pub const HTTP_PIECE: usize = 16 * 1024;

/// Bytes of documents that are compressed for a piece, before others have a turn.
pub const HTTP_PIECE_SOURCE: usize = 256 * 1024;

/// Bytes of a vote; a longer one is refused as if it did not parse. Those of the public network have 4 million.
pub const VOTE: usize = 16 << 20;

/// Votes of one body that are read; the rest is refused.
pub const VOTES_PER_BODY: usize = 64;

/// Votes of one authority that are kept as evidence in a period besides the one that counts; beyond that no further ones
/// are.
pub const OTHER_VOTES: usize = 3;

/// Bytes of a document of signatures; a longer one is taken for garbage. A signature has up to 800, and there are two of
/// each authority.
pub const SIGNATURES: usize = 256 << 10;

/// Different consensuses whose signatures are queued before ours is computed; signatures on others are dropped, as one may
/// ask for them later.
pub const QUEUED_CONSENSUSES: usize = 16;

/// Time to connect to another authority; a slower one is given up.
pub const PEER_CONNECT_TIME: Duration = Duration::from_secs(30);

/// Time in which another authority must take or send something; a stalled exchange is given up.
pub const PEER_STALL: Duration = Duration::from_secs(60);

/// Time for a whole exchange with another authority; a slower one is given up.
pub const PEER_TIME: Duration = Duration::from_secs(300);

/// Bytes of the diffs to one consensus, in all encodings; from the oldest bases there are none then. In a network of 9,000
/// relays, the diff over an hour takes 0.3 MiB, over a day 4 MiB.
pub const DIFF_BYTES: usize = 32 << 20;

/// Descriptors that are asked for at a time.
pub const DESCRIPTORS_PER_REQUEST: usize = 96;

/// Bytes of the answer.
pub const DESCRIPTORS: usize = DESCRIPTORS_PER_REQUEST * onionring_proto::limits::ROUTER_DESCRIPTOR;

/// Such requests to one authority in a row; the rest waits for the next period. There are fewer new relays than that, but
/// for a network that is new to us.
pub const DESCRIPTOR_REQUESTS: usize = 128;

/// Bytes of all votes of a period as one authority sends them; nothing of a longer answer is used.
pub const VOTES: usize = 64 << 20;

/// Bytes of an answer with certificates: some of each authority, with 2 KiB each.
pub const CERTS: usize = 1 << 20;

/// Time in which the links of every relay are tested once, as in C tor.
pub const LINK_CYCLE: Duration = Duration::from_secs(1280);

/// The same in a testing network, where relays must be found reachable within seconds.
pub const TESTING_LINK_CYCLE: Duration = Duration::from_secs(20);

/// Time until a failed test of links is repeated in a testing network.
pub const TESTING_LINK_REPEAT: Duration = Duration::from_secs(2);

/// Time between the beginnings of two tests of links: enough for [`STORED_RELAYS`] in a [`LINK_CYCLE`]. What is due
/// before waits in order.
pub const LINK_TEST_GAP: Duration = Duration::from_millis(20);

/// Tests of links that are under way, each with a connection for IPv4 and IPv6; further ones wait in order. If all stored
/// relays take as long as they can, 30 seconds, a cycle takes 25 minutes.
pub const LINK_TESTS: usize = 1024;

/// Time in which every relay has a round of circuit tests.
pub const CIRCUIT_CYCLE: Duration = Duration::from_secs(4 * 3600);

/// Time until a round that did not pass is repeated: one that carries nothing is found out within half an hour.
pub const CIRCUIT_REPEAT: Duration = Duration::from_secs(600);

/// The same two in a testing network.
pub const TESTING_CIRCUIT_CYCLE: Duration = Duration::from_secs(60);
/// See [`TESTING_CIRCUIT_CYCLE`].
pub const TESTING_CIRCUIT_REPEAT: Duration = Duration::from_secs(5);

/// Time between the beginnings of two rounds: enough for [`STORED_RELAYS`] in a [`CIRCUIT_CYCLE`].
pub const CIRCUIT_ROUND_GAP: Duration = Duration::from_millis(250);

/// Rounds that are under way; further ones wait in order. Each has one link and one circuit at a time, and takes some ten
/// minutes if all relays in it take as long as they can.
pub const CIRCUIT_ROUNDS: usize = 64;

/// Relays through which a relay is tested in one round, until it is clear how it does.
pub const CIRCUIT_HELPERS: usize = 3;

/// Time for the handshake with one hop of a circuit test, and for each half of what a stream does there.
pub const CIRCUIT_STEP_TIME: Duration = Duration::from_secs(15);

/// Bytes of the answer to a directory request of a circuit test; a longer one is no descriptor.
pub const CIRCUIT_TEST_ANSWER: u64 = 64 << 10;

/// Connections to the port to which exits are asked to connect; one more is closed at once.
pub const EXIT_CONNECTIONS: usize = 64;

/// Time for such a connection; a longer one is closed.
pub const EXIT_CONNECTION_TIME: Duration = Duration::from_secs(60);

/// Links on the ORPort; one more is closed at once.
pub const LINKS: usize = 8192;

/// Handshakes of links under way; one more is closed at once.
pub const LINK_HANDSHAKES: usize = 256;

/// How long a link stays open without a circuit, at least.
pub const LINK_IDLE: Duration = Duration::from_secs(180);

/// Directory requests on circuits that wait to be answered; one more is refused.
pub const CIRCUIT_REQUESTS: usize = 256;

/// Bytes of the page for people who look at the DirPort; a longer one is not shown.
pub const FRONT_PAGE: u64 = 1 << 20;

/// How long the end of the program waits for work under way.
pub const SHUTDOWN: Duration = Duration::from_secs(5);
