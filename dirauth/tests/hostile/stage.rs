//! The program as one of three authorities, and time as it goes by.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use onionring_dirauth::keys::{CERTIFICATE, SIGNING_KEY};
use onionring_dirauth::options::Timing;
use onionring_dirauth::voting::{DoublePolicy, Period};
use onionring_proto::netdoc::consensus::{Consensus, ConsensusDigest, Flavor, UnverifiedConsensus};
use onionring_proto::netdoc::tally::{SharedRandomTerms, Tally, Terms};
use onionring_proto::netdoc::text::{Fingerprint, format_time};
use onionring_proto::netdoc::vote::{SignedVote, split};
use onionring_proto::time::Unix;

use crate::http::{self, Answer};
use crate::played::{self, Played};
use crate::{now, wait};

/// From one consensus to the next, and for votes and for signatures to go round, in seconds.
pub const INTERVAL: u64 = 15;
pub const DELAY: u64 = 3;

const AUTHORITIES: usize = 3;

/// The program; it does not outlive the test.
pub struct Stage {
    child: Child,
    home: tempfile::TempDir,
    pub identity: Fingerprint,
    /// Its fingerprint as a relay.
    pub relay: Fingerprint,
    pub dir: SocketAddr,
    metrics: SocketAddr,
    pub played: [Played; 2],
    shared_random: bool,
}

impl Stage {
    /// Starts it, with these further lines in its torrc.
    pub fn start(more: &str) -> Stage {
        let home = tempfile::tempdir().unwrap();
        let address = address();
        let played = [Played::start(1, "one", address), Played::start(2, "two", address)];
        let certificate = played::certificate(played::key(0));
        let identity = certificate.cert().identity;
        let keys = home.path().join("data/keys");
        fs::create_dir_all(&keys).unwrap();
        fs::write(keys.join(SIGNING_KEY), &*played::key(0).to_pem()).unwrap();
        fs::write(keys.join(CERTIFICATE), certificate.text()).unwrap();
        // Its own line must name its ports: three that are free now, of an address where nobody else looks for any.
        let free = [(); 3].map(|()| TcpListener::bind((address, 0)).unwrap());
        let [or, dir, metrics] = free.each_ref().map(|listener| listener.local_addr().unwrap());
        drop(free);
        let shared_random = more.contains("AuthDirSharedRandomness 1");
        let mut stage = Stage {
            child: Command::new("true").spawn().unwrap(),
            home,
            identity,
            relay: Fingerprint([0; 20]),
            dir,
            metrics,
            played,
            shared_random,
        };
        stage.write_torrc(address, or.port(), more);
        let listed = stage.command().args(["--list-fingerprint", "--quiet"]).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
        let listed = String::from_utf8(listed.stdout).unwrap();
        let (_, fingerprint) = listed.trim().split_once(' ').unwrap();
        stage.relay = Fingerprint::from_hex(&fingerprint.replace(' ', "")).unwrap();
        stage.write_torrc(address, or.port(), more);
        stage.restart();
        stage
    }

    fn write_torrc(&self, address: Ipv4Addr, or_port: u16, more: &str) {
        let data = self.file("");
        let timing = ["V3Auth", "TestingV3AuthInitial"].map(|prefix| {
            let interval = format!("{prefix}VotingInterval {INTERVAL}\n");
            format!("{interval}{prefix}VoteDelay {DELAY}\n{prefix}DistDelay {DELAY}\n")
        });
        let timing = timing.concat();
        let shared_random = if self.shared_random { "" } else { "AuthDirSharedRandomness 0\n" };
        let others: String = self
            .played
            .iter()
            .map(|other| authority(other.name, 9, other.identity(), other.dir, Fingerprint([7; 20])))
            .collect();
        let us = authority("ours", or_port, self.identity, self.dir, self.relay);
        let torrc = format!(
            "TestingTorNetwork 1\n{us}{others}AuthoritativeDirectory 1\nV3AuthoritativeDirectory 1\nNickname ours\n\
             Address {address}\nORPort {address}:{or_port}\nDirPort {}\nMetricsPort {}\n\
             MetricsPortPolicy accept *\nDataDirectory {}\nSafeLogging 0\nLog info file {}\n\
             AuthDirTestReachability 0\n{timing}{shared_random}{more}",
            self.dir,
            self.metrics,
            data.display(),
            self.home.path().join("log").display(),
        );
        fs::write(self.home.path().join("torrc"), torrc).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_onionring-dirauth"));
        command.arg("-f").arg(self.home.path().join("torrc"));
        command
    }

    /// Kills it at once, and starts it again.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.child = self.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait("the DirPort answers", || {
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended:\n{}", self.log());
            self.get("/tor/keys/all")
        });
    }

    /// A file in its data directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join("data").join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// The lines of the log that are errors.
    pub fn errors(&self) -> Vec<String> {
        self.log().lines().filter(|line| line.contains("[err]")).map(str::to_owned).collect()
    }

    /// What it serves there, if it does.
    pub fn get(&self, path: &str) -> Option<String> {
        http::get(self.dir, path).ok().filter(|answer| answer.status == 200).map(|answer| answer.body)
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        http::post(self.dir, path, body).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()))
    }

    /// Posts a vote: the status and the reason.
    pub fn post_vote(&self, vote: &str) -> (u16, String) {
        let Answer { status, reason, .. } = self.post("/tor/post/vote", vote);
        (status, reason)
    }

    /// Posts signatures.
    pub fn post_signatures(&self, signatures: &str) -> (u16, String) {
        let Answer { status, reason, .. } = self.post("/tor/post/consensus-signature", signatures);
        (status, reason)
    }

    /// How many alarms of a kind the metrics count.
    pub fn alarms(&self, kind: &str) -> u64 {
        let page = http::get(self.metrics, "/metrics").unwrap().body;
        let name = format!("onionring_dirauth_alarms_total{{alarm=\"{kind}\"}} ");
        let count = page.lines().find_map(|line| line.strip_prefix(name.as_str()));
        count.unwrap_or_else(|| panic!("{name} in {page}")).parse().unwrap()
    }

    /// Names of the files that keep two votes of one authority.
    pub fn evidence(&self) -> Vec<String> {
        let files = fs::read_dir(self.file("")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("two-votes-")).collect()
    }

    /// The period under way.
    pub fn period(&self) -> Period {
        Period::after(now(), timing(), Duration::ZERO)
    }

    /// Waits until it takes votes for a period whose votes are not fetched yet for a while.
    pub fn next_period(&self) -> Period {
        wait("a period begins", || {
            let period = self.period();
            let begun = format!("the next consensus begins at {}", format_time(period.valid_after));
            (now().0 + 5 < period.fetch_votes.0 && self.log().contains(&begun)).then_some(period)
        })
    }

    /// Posts the vote of an authority that is played, which is taken, and returns it.
    pub fn vote_well(&self, n: usize, period: &Period) -> String {
        let vote = self.played[n].vote(period, 1, "well");
        assert_eq!(self.post_vote(&vote), (200, "Vote stored".to_owned()));
        vote
    }

    /// The votes that it has for the consensus under way.
    pub fn votes(&self) -> Vec<SignedVote> {
        let ids = [self.identity, self.played[0].identity(), self.played[1].identity()];
        let list = ids.map(|id| id.to_string()).join("+");
        let text = self.get(&format!("/tor/status-vote/next/{list}")).unwrap_or_default();
        split(&text).map(|vote| SignedVote::parse(vote).unwrap()).collect()
    }

    /// What comes of votes.
    pub fn tally<'a>(&self, votes: impl IntoIterator<Item = &'a SignedVote>) -> Tally {
        let shared_random = self.shared_random.then_some(SharedRandomTerms { fresh: false });
        Tally::of(votes, &Terms { authorities: AUTHORITIES, shared_random }).unwrap()
    }

    /// Waits until it has signed the consensus of a period, which must be the tally of the votes that it serves.
    pub fn signed(&self, period: &Period) -> (Vec<SignedVote>, Tally) {
        let signed = wait("signatures are posted", || {
            let mut posted =
                self.played.each_ref().map(|played| played.signatures_for(period.valid_after).pop());
            posted[1].as_ref()?;
            posted[0].take()
        });
        let votes = self.votes();
        let tally = self.tally(&votes);
        for (flavor, digest) in
            [(Flavor::Ns, tally.ns.digest()), (Flavor::Microdesc, tally.microdesc.digest())]
        {
            assert_eq!(signed.digest(flavor), Some::<ConsensusDigest>(digest), "{flavor:?} of {votes:#?}");
        }
        (votes, tally)
    }

    /// Signs what the program has signed as both others, and waits until the consensus is in force.
    pub fn finish(&self, period: &Period) -> Consensus {
        let (votes, tally) = self.signed(period);
        for played in &self.played {
            let has_voted = votes.iter().any(|vote| vote.vote.authority.identity == played.identity());
            let answer = self.post_signatures(&played.signatures(&tally).encode());
            let expected = if has_voted { "Signatures added" } else { "Signatures ignored" };
            assert_eq!(answer, (200, expected.to_owned()));
        }
        self.published(period, &tally)
    }

    /// Waits until this consensus is in force.
    pub fn published(&self, period: &Period, tally: &Tally) -> Consensus {
        let consensus = wait("the consensus is in force", || {
            let text = self.get("/tor/status-vote/current/consensus")?;
            let consensus = UnverifiedConsensus::parse(&text).unwrap().peek().clone();
            (consensus.lifetime.valid_after >= period.valid_after).then_some((text, consensus))
        });
        let (text, consensus) = consensus;
        assert_eq!(consensus.lifetime.valid_after, period.valid_after, "{}", self.log());
        let signatures = text.strip_prefix(&*tally.ns.text).expect("it is the one that was signed");
        let voters = tally.ns.sources.len();
        assert_eq!(signatures.matches("directory-signature ").count(), voters);
        consensus
    }

    /// Waits until a period is over.
    pub fn over(&self, period: &Period) {
        wait("the period is over", || (now().0 > period.valid_after.0 + 1).then_some(()));
    }

    /// When the consensus in force began.
    pub fn in_force(&self) -> Option<Unix> {
        let text = self.get("/tor/status-vote/current/consensus")?;
        Some(UnverifiedConsensus::parse(&text).unwrap().peek().lifetime.valid_after)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn authority(name: &str, or_port: u16, v3: Fingerprint, dir: SocketAddr, relay: Fingerprint) -> String {
    format!("DirAuthority {name} orport={or_port} v3ident={v3} {dir} {relay}\n")
}

/// An address of this test alone.
fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | high & 63, low, NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn timing() -> Timing {
    let [interval, delay] = [INTERVAL, DELAY].map(Duration::from_secs);
    Timing { interval, vote_delay: delay, dist_delay: delay }
}

/// A word of the torrc.
pub fn word(policy: DoublePolicy) -> &'static str {
    match policy {
        DoublePolicy::Alert => "alert",
        DoublePolicy::Exclude => "exclude",
        DoublePolicy::Stop => "stop",
    }
}
