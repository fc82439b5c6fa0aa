//! Every bound of this crate, in one place, with what happens at it.

use std::time::Duration;

/// How long the connection to a relay may take; then it counts as not reached.
pub const DIAL_TIME: Duration = Duration::from_secs(15);

/// How long the TLS handshake with a relay may take, and the link handshake after it.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(15);

/// How long a link without circuits stays open.
pub const LINK_IDLE: Duration = Duration::from_secs(180);

/// Ports for which circuits are kept ready; the one that was wanted longest ago makes room.
pub const PREDICTED_PORTS: usize = 16;

/// Circuits that are kept ready for each of them.
pub const SPARE_PER_PORT: usize = 2;

/// Circuits that are kept ready in all, whatever the ports; there are no more until one is used.
pub const SPARE_CIRCUITS: usize = 14;

/// The shortest and the longest time between two attempts to build a circuit when nothing succeeds.
pub const BUILD_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Bytes that an application may have sent before its stream is open; it is read no further until then.
pub const EARLY_BYTES: usize = 16 * 1024;

/// Exits that one stream is tried at; then the application hears why the last of them failed.
pub const STREAM_TRIES: usize = 8;

/// How long an exit may take to answer a stream; then another circuit is tried. The first two, and all after them.
pub const STREAM_TIMES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(15)];

/// Exits that may refuse a stream or a name, other than for want of room; then the application hears why the last did.
pub const EXIT_TRIES: usize = 3;

/// How long an exit may take to refuse what it is asked to see whether its circuit carries anything; then it does not.
pub const PROBE_TIME: Duration = Duration::from_secs(60);

/// Exits of which it is remembered what they refused; the one that refused longest ago is forgotten.
pub const REFUSING_EXITS: usize = 256;

/// Refusals that are remembered of each; the oldest is forgotten. That there are many says nothing of the rest: who makes
/// streams be refused must not shut the exit out by that.
pub const REFUSALS_PER_EXIT: usize = 16;

/// How long an exit that has refused a stream by its policy is not asked for the like, unless its microdescriptor changes
/// before. Relays publish at least every 18 hours.
pub const EXIT_POLICY_TIME: Duration = Duration::from_secs(24 * 3600);

/// How long an exit without room is asked only if there is no other. By then authorities may have noticed.
pub const EXIT_FULL_TIME: Duration = Duration::from_secs(3600);

/// Time between two looks at which circuits are worn, and which will be wanted.
pub const CIRCUIT_LOOK: Duration = Duration::from_secs(1);

/// Bytes of the state file; a longer one is an error, read no further. C tor's have 100 KiB.
pub const STATE_BYTES: u64 = 8 << 20;

/// Connections of applications at one port, and questions under way at one DNSPort. One more is closed at once, and a
/// question answered with SERVFAIL, with a warning now and then.
pub const APPLICATIONS: usize = 4096;

/// Bytes of an HTTP request before the empty line; a longer one is refused (431). As C tor.
pub const HTTP_REQUEST: usize = 8192;

/// Headers of an HTTP request; with more it is refused (431).
pub const HTTP_HEADERS: usize = 64;

/// Bytes that are read at once from an application while its request arrives, and at first from a stream in each
/// direction.
pub const CARRY_BUFFER: usize = 16 * 1024;

/// The same in a direction that has filled that once: fewer and larger writes cost bulk streams much less.
pub const CARRY_BULK_BUFFER: usize = 64 * 1024;

/// Buffers that one direction of a stream moves before others get their turn.
pub const CARRY_ROUNDS: usize = 16;

/// How long a stream stays open on which nothing comes, after its application has ended what it sends. An application that is
/// gone looks no different, so it is not long.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_secs(15);

/// The same of a stream whose directions end one by one, for whichever goes on alone: its exit has been told, and whoever has
/// ended its half may wait long for the other's. One that has forgotten to end it must not keep a stream for ever.
pub const HALF_ALONE_IDLE: Duration = Duration::from_secs(600);

/// Bytes that are read and dropped from an application whose connection is being closed, so that it sees the last answer.
pub const GOODBYE_BYTES: usize = 64 * 1024;

/// How long the same may take.
pub const GOODBYE_TIME: Duration = Duration::from_secs(2);

/// Bytes of a question to a DNSPort; what is longer is cut, and is then no question.
pub const DNS_QUESTION: usize = 1500;

/// Seconds for which an answer of a DNSPort may be kept, whatever the exit says: the time says nothing of who else asked.
pub const DNS_TTL: u32 = 60;

/// Bytes that are read at once while a SOCKS request arrives; all of them together are bounded by
/// `onionring_proto::limits::SOCKS_MESSAGE` for each message.
pub const SOCKS_HELLO: usize = 1024;

/// How long a directory may take until it expects a request, link and circuit included; then another is asked.
pub const DIR_OPEN_TIME: Duration = Duration::from_secs(60);

/// How long a directory may send nothing, or take nothing; then another is asked.
pub const DIR_STALL: Duration = Duration::from_secs(30);

/// How long the whole answer of a directory may take; then another is asked.
pub const DIR_ANSWER_TIME: Duration = Duration::from_secs(300);

/// Requests to directories under way at once; what else is due waits.
pub const DIR_FETCHES: usize = 8;

/// Relays that are not asked again soon, because as directories they failed; the one that failed first is forgotten.
pub const DIR_FAILED_RELAYS: usize = 256;

/// How long a relay that failed as a directory is not asked again.
pub const DIR_FAILED_TIME: Duration = Duration::from_secs(600);

/// Connections to the control socket that are served at the same time; one more is closed.
pub const CONTROL_CONNECTIONS: usize = 8;

/// Bytes of a request on the control socket, its line end included; a longer one is refused.
pub const CONTROL_REQUEST: usize = 64;

/// Time that reading and answering one request on the control socket may take; a longer one is closed. Who asks waits as
/// long for each step.
pub const CONTROL_TIME: Duration = Duration::from_secs(5);

/// Bytes of an answer of the control socket that who asks reads; the rest is cut off.
pub const CONTROL_ANSWER: u64 = 1 << 20;

/// Time between attempts to accept after one has failed, for lack of files as a rule.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the end of the program waits for work under way.
pub const SHUTDOWN: Duration = Duration::from_secs(5);

/// How long a command waits for the proxy's answer to a SOCKS request; then it fails. The proxy itself gives up a little
/// earlier, by default.
pub const COMMAND_TIME: Duration = Duration::from_secs(150);

/// Bytes that `check --url` reads of what comes back; the rest is not read.
pub const CHECK_ANSWER: u64 = 1 << 20;

/// Bytes of that before the empty line; what is longer, by less than is read at once, is no answer of a web server.
pub const CHECK_HEAD: usize = 64 * 1024;

/// Headers there; with more it is none.
pub const CHECK_HEADERS: usize = 256;

/// How long a circuit waits for its first stream, up to twice that, where the configuration does not say.
pub const SPARE_TIME: Duration = Duration::from_secs(1800);

/// How long a worn circuit without streams waits to be cut and extended to another exit (`TruncateCircuits`).
pub const WORN_TIME: Duration = Duration::from_secs(600);

/// Circuits that took too long to be used and are built on to learn how long they take; one more is closed.
pub const LATE_CIRCUITS: usize = 32;

/// How much longer than `SocksTimeout` the network may take to say why a stream does not open.
pub const NETWORK_SLACK: Duration = Duration::from_secs(2);

/// How long somebody for whom no path was found waits until he looks again, unless something changes before.
pub const PLAN_PAUSE: Duration = Duration::from_secs(1);
