//! Every bound of the protocol crate, in one place.
//!
//! What happens at each limit is written beside it.

/// RELAY_EARLY cells a circuit may carry outbound (tor-spec 5.6); one more closes the circuit.
pub const RELAY_EARLY_PER_CIRCUIT: u8 = 8;

/// Bytes of a host name in BEGIN or RESOLVE; a longer one is refused as unresolvable.
pub const MAX_HOSTNAME_LEN: usize = 255;

/// Live streams of one circuit (at a client: of one of its hops). A relay ends one more with
/// `EndReason::ResourceLimit`; a client opens it on another circuit.
pub const STREAMS_PER_CIRCUIT: usize = 4096;

/// Records of streams that we closed and the peer has not, or that each side has ended for itself, per circuit; beyond
/// that the oldest is forgotten, so that what still arrives for it counts as sent for an unknown stream.
pub const HALF_CLOSED_PER_CIRCUIT: usize = 4096;

/// Bytes that a client has written to a stream and that are not sent yet; a write takes no more than that.
pub const ORIGIN_STREAM_BUFFER: usize = 64 * 1024;

/// Messages of a client (BEGIN, END and the like) that are not sent yet, per circuit; beyond that no stream is opened.
pub const ORIGIN_QUEUED_MESSAGES: usize = 8192;

/// Characters of a policy summary that we make, as C tor's, and entries of one that we read; a longer one is refused.
pub const POLICY_SUMMARY_LEN: usize = 1000;

/// Bytes of the body of a variable-length cell we accept; a longer one closes the link at its header during the link
/// handshake, and is dropped unseen afterwards. The largest in use, CERTS of C tor, has about 3 KiB.
pub const VARIABLE_CELL_BODY: usize = 16 * 1024;

/// Bytes a peer may send before the link handshake is over; more closes the link. An honest flight takes 3 to 5 KiB.
pub const HANDSHAKE_BYTES: usize = 64 * 1024;

/// Addresses of our own in a NETINFO cell; the rest is left out. A relay has two.
pub const NETINFO_ADDRESSES: usize = 8;

/// Bytes of one message of a SOCKS client, as in C tor; a longer one refuses the connection. The longest that makes sense
/// is a SOCKS 4a request with a user name and a host name of 255 bytes each.
pub const SOCKS_MESSAGE: usize = 520;

/// Random circuit IDs to try before a circuit fails with RESOURCELIMIT, as in C tor.
pub const CIRC_ID_TRIES: u32 = 64;

/// Shortest RSA modulus, in bits: relay identity keys (tor-spec 0.3). Shorter keys are refused when parsed.
pub const RSA_MODULUS_BITS_MIN: usize = 1024;

/// Longest RSA modulus, in bits; authorities use 3072. Longer keys are refused before any arithmetic.
pub const RSA_MODULUS_BITS_MAX: usize = 4096;

/// Bytes of DER that an RSA key may take; a private key of 4096 bits has about 2,350. More is refused unread.
pub const RSA_DER_MAX: usize = 2_560;

/// Bytes of handshake data in CREATE2: what its body leaves. A longer HLEN refuses the circuit.
pub const CREATE2_DATA: usize = 505;

/// Bytes of handshake data in CREATED2: what its body leaves. A longer HLEN closes the circuit.
pub const CREATED2_DATA: usize = 507;

/// Bytes of handshake data in EXTENDED2: what a relay message leaves. A CREATED2 with more closes the circuit both ways.
pub const EXTENDED2_DATA: usize = 496;

/// Bytes of one line of a network document (C tor's tokenizer has the same bound); a longer one refuses the document.
pub const NETDOC_LINE: usize = 128 * 1024;
/// Arguments of one line of a vote (C tor's tokenizer has the same bound); with more the vote is refused.
pub const NETDOC_ARGUMENTS: usize = 512;
/// Encoded bytes of one object of a network document; a longer one refuses the document.
pub const NETDOC_OBJECT: usize = 128 * 1024;
/// Bytes of a router descriptor (dir-spec 2.1); a larger one is refused, as authorities do.
pub const ROUTER_DESCRIPTOR: usize = 20_000;
/// Bytes of an extra-info document (dir-spec 2.1.2); a larger one is refused, as authorities do.
pub const EXTRA_INFO: usize = 50_000;
/// Relays in one consensus; a longer one is refused. The public network has about 10,000.
pub const CONSENSUS_RELAYS: usize = 100_000;
/// Lines of a consensus that has diffs; from and to a longer one none are made, and the whole is sent. The largest
/// consensus allowed has fewer.
pub const CONSENSUS_DIFF_LINES: usize = 1 << 20;
/// Pairs of lines that are compared to find what two versions of one part of a consensus have in common; of longer
/// parts, all between the first and the last change is sent. A relay has up to 10 lines, the preamble about 60.
pub const CONSENSUS_DIFF_CELLS: usize = 1 << 16;
/// Authorities, and likewise signatures, in one consensus; a longer list refuses the consensus.
pub const CONSENSUS_AUTHORITIES: usize = 64;
/// Lines of known keywords in one document, or in one entry of a vote or consensus; with more it is refused. A descriptor
/// of the largest size has some 1,800 lines of policy.
pub const SECTION_ITEMS: usize = 4096;
/// Flags that one authority votes on, as many as C tor takes; a longer list refuses the vote.
pub const VOTE_KNOWN_FLAGS: usize = 64;

/// Guards of one selection, whatever the consensus says of the sample's size; the sample grows no further. Of a state
/// file with more, those that were sampled last are left out. C tor's samples have 60 at most.
pub const GUARD_SAMPLE: usize = 1024;
/// Circuits and directory requests whose guards are watched; beyond that the oldest that may be used already is forgotten,
/// or else the oldest.
pub const GUARD_ATTEMPTS: usize = 4096;
/// Circuit build times that are remembered (path-spec 2.4.2); the newest takes the place of the oldest.
pub const BUILD_TIMES: usize = 1000;

const _: () = {
    // Ten lines for each relay, and the lengths of common subsequences fit 16 bits.
    assert!(CONSENSUS_DIFF_LINES >= 10 * CONSENSUS_RELAYS);
    assert!(CONSENSUS_DIFF_CELLS <= 1 << 16);
};
