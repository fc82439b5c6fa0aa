//! The directory as the network's owner sees it: authority keys, and documents over plain HTTP.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, SystemTime};

use base64ct::{Base64Unpadded, Encoding};
use onionring_proto::netdoc::consensus::Flavor;
use onionring_proto::netdoc::text::Fingerprint;

use super::node::Node;
use super::process;
use super::spec::Role;

/// How long an authority may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bandwidth of every relay, in kilobytes per second, as the authorities are told to believe.
const RELAY_BANDWIDTH_KILOBYTES: u32 = 10_000;
/// The most that is read of an answer.
const DOCUMENT_LEN_MAX: u64 = 64 << 20;

/// Makes an authority's identity key, signing key and certificate in `keys` and returns the fingerprint of the
/// identity key (`v3ident`). `address` is what the certificate says.
pub(super) fn make_authority_keys(keys: &Path, address: SocketAddr) -> io::Result<Fingerprint> {
    let file = |name: &str| keys.join(name).display().to_string();
    let (identity, signing) = (file("authority_identity_key"), file("authority_signing_key"));
    let certificate = file("authority_certificate");
    let address = address.to_string();
    let arguments = [
        &["--create-identity-key", "-m", "12", "--passphrase-fd", "0", "-a", &address][..],
        &["-i", &identity, "-s", &signing, "-c", &certificate],
    ];
    // The passphrase guards nothing: the key lives as long as the network.
    process::run(Path::new("tor-gencert"), &arguments.concat(), "private network\n")?;
    let text = std::fs::read_to_string(&certificate)?;
    let fingerprint = text.lines().find_map(|line| line.strip_prefix("fingerprint "));
    fingerprint
        .and_then(|f| Fingerprint::from_hex(f.trim()))
        .ok_or_else(|| io::Error::other(format!("{certificate} holds no fingerprint")))
}

/// What the authorities vote on bandwidths (bandwidth-file-spec): all relays alike, so that clients choose evenly.
/// Otherwise a young relay has no bandwidth, and who has any gets all circuits. Authorities get next to none.
///
/// It takes votes of three authorities to make them count.
pub(super) fn bandwidth_file<'n>(nodes: impl Iterator<Item = &'n Node>) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let line = |node: &Node| {
        let kilobytes = if node.role() == Role::Authority { 1 } else { RELAY_BANDWIDTH_KILOBYTES };
        format!("node_id=${} bw={kilobytes} nick={}\n", node.fingerprint(), node.nickname())
    };
    format!("{now}\nversion=1.2.0\n=====\n{}", nodes.map(line).collect::<String>())
}

/// Fetches `path` (such as `/tor/server/all`) from a directory port and returns the body.
pub fn get(from: SocketAddr, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&from, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {from}\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(DOCUMENT_LEN_MAX).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let end = end.ok_or_else(|| io::Error::other(format!("{from}{path}: no HTTP header in the answer")))?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(io::Error::other(format!("{from}{path}: {status}")));
    }
    Ok(answer.split_off(end + 4))
}

/// What an authority serves at its directory port, besides descriptors (dir-spec 3.4 to 3.11 and appendix B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// The consensus in force.
    Consensus(Flavor),
    /// The vote of an authority, by its v3 identity, that went into the consensus in force.
    Vote(Fingerprint),
    /// The vote of an authority, by its v3 identity, for the consensus to come.
    NextVote(Fingerprint),
    /// The consensus to come, of the flavour `ns`, once it is computed.
    NextConsensus,
    /// The signatures that the consensus to come has so far, of both flavours.
    NextSignatures,
    /// The certificates of all authorities.
    Keys,
}

/// The path of its URL.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Document::Consensus(Flavor::Ns) => f.write_str("/tor/status-vote/current/consensus"),
            Document::Consensus(Flavor::Microdesc) => {
                f.write_str("/tor/status-vote/current/consensus-microdesc")
            }
            Document::Vote(authority) => write!(f, "/tor/status-vote/current/{authority}"),
            Document::NextVote(authority) => write!(f, "/tor/status-vote/next/{authority}"),
            Document::NextConsensus => f.write_str("/tor/status-vote/next/consensus"),
            Document::NextSignatures => f.write_str("/tor/status-vote/next/consensus-signatures"),
            Document::Keys => f.write_str("/tor/keys/all"),
        }
    }
}

impl Document {
    /// Fetches it from a directory port.
    pub fn fetch(self, from: SocketAddr) -> io::Result<String> {
        String::from_utf8(get(from, &self.to_string())?).map_err(io::Error::other)
    }
}

/// What a consensus says about one relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its nickname.
    pub nickname: String,
    /// Fingerprint of its identity, upper-case hex.
    pub fingerprint: String,
    /// Its flags: `Running`, `Guard`, ...
    pub flags: Vec<String>,
}

impl Listed {
    /// Whether the authorities gave it this flag.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }
}

/// The part of a consensus that tells who is in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consensus {
    /// `YYYY-MM-DD HH:MM:SS`, which sorts by time.
    pub valid_after: String,
    /// Every relay listed.
    pub relays: Vec<Listed>,
    /// The whole document (flavour `ns`).
    pub text: String,
}

impl Consensus {
    /// The current consensus of the authority with this directory port.
    pub fn fetch(from: SocketAddr) -> io::Result<Consensus> {
        let text = Document::Consensus(Flavor::Ns).fetch(from)?;
        Consensus::parse(text).ok_or_else(|| io::Error::other(format!("{from} sent no consensus")))
    }

    /// Reads it out of a document.
    pub fn parse(text: String) -> Option<Consensus> {
        let valid_after = text.lines().find_map(|l| l.strip_prefix("valid-after "))?.to_owned();
        let mut relays: Vec<Listed> = Vec::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("r ") {
                let mut words = rest.split(' ');
                let (nickname, identity) = (words.next()?, words.next()?);
                let identity = Base64Unpadded::decode_vec(identity).ok()?;
                let fingerprint = identity.iter().map(|byte| format!("{byte:02X}")).collect();
                relays.push(Listed { nickname: nickname.to_owned(), fingerprint, flags: Vec::new() });
            } else if let (Some(flags), Some(relay)) = (line.strip_prefix("s "), relays.last_mut()) {
                relay.flags = flags.split(' ').map(str::to_owned).collect();
            }
        }
        Some(Consensus { valid_after, relays, text })
    }

    /// The entry of the relay with this fingerprint, if it is listed as running.
    pub fn running(&self, fingerprint: &str) -> Option<&Listed> {
        self.relays.iter().find(|relay| relay.fingerprint == fingerprint && relay.has("Running"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consensus_entries() {
        let text = "network-status-version 3\nvalid-after 2026-01-02 03:04:05\n\
                    r one AAAAAAAAAAAAAAAAAAAAAAAAAAA x 2026-01-01 00:00:00 127.1.1.1 9001 0\ns Fast Running\n\
                    r two //////////////////////////8 x 2026-01-01 00:00:00 127.1.1.2 9001 0\ns Fast\n";
        let consensus = Consensus::parse(text.into()).unwrap();
        assert_eq!(consensus.valid_after, "2026-01-02 03:04:05");
        assert!(consensus.running(&"00".repeat(20)).unwrap().has("Fast"));
        assert_eq!(consensus.relays[1].fingerprint, "FF".repeat(20));
        assert_eq!(consensus.running(&"FF".repeat(20)), None);
        assert_eq!(Consensus::parse("garbage".into()), None);
    }
}
