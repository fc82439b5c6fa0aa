//! Voting as it happens: one [`Round`] after the other, the shared randomness that goes with them, and what both keep on
//! disk. What others send comes in here; what is to be sent and made leaves as [`Errand`]s.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use onionring_proto::netdoc::consensus::{Consensus, Flavor, Lifetime, UnverifiedConsensus};
use onionring_proto::netdoc::tally::{SharedRandomTerms, Terms};
use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::netdoc::vote::{Reveal, SignedVote};
use onionring_proto::time::Unix;
use rand::rngs::SysRng;
use rand_core::UnwrapErr;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, error, info, warn};

use super::tallies::Tallies;
use crate::directory::{Directory, Outcome, StoredVote, Voting};
use crate::files;
use crate::options::Timing;
use crate::shared_random::{Commit, Received, SharedRandom, Srv, VoteLines};
use crate::store::NEWEST_AGE;
use crate::voting::{Action, Alarm, Answer, Period, Round, Rules, STRANGER, Schedule, Signer, Whence};

/// The files; the second is C tor's.
const VOTING: &str = "voting-state";
const SHARED_RANDOM: &str = "sr-state";

/// What is to be done outside of the session.
#[derive(Clone, Debug)]
pub enum Errand {
    /// Make our vote, and hand it to [`Session::take_own_vote`].
    MakeVote(Period),
    /// Post our vote.
    PostVote {
        /// To whom.
        to: Fingerprint,
        /// The vote.
        text: Arc<str>,
    },
    /// Post a vote that is evidence against its maker.
    TellVote {
        /// To whom.
        to: Fingerprint,
        /// The vote.
        text: Arc<str>,
    },
    /// Get votes, and hand them to [`Session::take_fetched_votes`].
    FetchVotes {
        /// From whom.
        from: Fingerprint,
        /// Whose.
        of: Vec<Fingerprint>,
    },
    /// Post signatures.
    PostSignatures {
        /// To whom.
        to: Fingerprint,
        /// The document.
        text: Arc<str>,
    },
    /// Get signatures, and hand them to [`Session::take_fetched_signatures`].
    FetchSignatures {
        /// From whom.
        from: Fingerprint,
    },
    /// Serve this consensus.
    Publish {
        /// In its flavours.
        documents: Vec<(Flavor, String)>,
        /// The certificates of those who voted, and so of those who signed.
        certs: String,
    },
    /// There is none of this period: see whether others have one.
    CatchUp,
    /// A vote names relays of which we know nothing, or less: get their descriptors.
    FetchDescriptors {
        /// Who knows them.
        from: Fingerprint,
        /// The descriptors.
        named: Vec<Named>,
    },
}

/// A descriptor that others know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its relay.
    pub identity: Fingerprint,
    /// Its digest.
    pub digest: Fingerprint,
    /// When it was made.
    pub published: Unix,
}

/// What a session goes by. A reload may change it; it holds from the next period on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For each round; the part about shared randomness is the session's.
    pub rules: Rules,
    /// Whether we take part in shared randomness.
    pub shared_randomness: bool,
    /// When periods are.
    pub schedule: Schedule,
    /// What we sign with.
    pub signer: Signer,
}

/// The consensus in force, as far as voting goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Latest {
    lifetime: Lifetime,
    delays: (u32, u32),
    /// The shared random values: the one before, and the current one.
    values: [Option<Srv>; 2],
}

impl Latest {
    fn of(consensus: &Consensus) -> Latest {
        let values = [consensus.shared_random_previous, consensus.shared_random_current];
        Latest {
            lifetime: consensus.lifetime,
            delays: consensus.voting_delay,
            values: values.map(|value| value.map(|v| Srv { reveals: v.reveals, value: v.value })),
        }
    }
}

/// Voting, shared by all who take part in it.
pub struct Session {
    directory: Arc<Directory>,
    voting_file: PathBuf,
    shared_random_file: PathBuf,
    tallies: Arc<Tallies>,
    inner: Mutex<Inner>,
}

struct Inner {
    settings: Settings,
    /// What the present round is signed with: what its vote was.
    signer: Signer,
    round: Round,
    /// When the round was begun here.
    begun: Unix,
    shared_random: Option<SharedRandom>,
    latest: Option<Latest>,
    /// Whether the program was started in this period, perhaps after its vote had begun.
    is_first: bool,
    /// Digests of the votes of this round that were looked through.
    heard: BTreeSet<Fingerprint>,
    errands: UnboundedSender<Errand>,
}

impl Session {
    /// Goes on where the state in `data` ends. `latest` is the consensus in force, if there is one.
    pub fn open(
        data: &Path,
        settings: Settings,
        latest: Option<&Consensus>,
        directory: Arc<Directory>,
        tallies: Arc<Tallies>,
        errands: UnboundedSender<Errand>,
        now: Unix,
    ) -> Result<Session, files::FileError> {
        let (voting_file, shared_random_file) = (data.join(VOTING), data.join(SHARED_RANDOM));
        let latest = latest.map(Latest::of);
        let interval = interval(&settings.schedule, latest, now);
        let shared_random = match settings.shared_randomness {
            true => Some(read_shared_random(&shared_random_file, now, interval)?),
            false => None,
        };
        let period = period(&settings.schedule, latest, now);
        let mut inner = Inner {
            round: Round::new(settings.rules.clone(), period),
            signer: settings.signer.clone(),
            begun: now,
            settings,
            shared_random,
            latest,
            is_first: true,
            heard: BTreeSet::new(),
            errands,
        };
        inner.begin(period, now);
        if let Some(shared_random) = &inner.shared_random {
            // What we commit to must not be another number after a restart.
            files::replace(&shared_random_file, &shared_random.write())?;
        }
        let snapshot = files::read(&voting_file)?.unwrap_or_default();
        if !snapshot.is_empty() {
            let text = String::from_utf8_lossy(&snapshot);
            match Round::from_snapshot(inner.round_rules(), period, &text) {
                Ok(round) => {
                    info!("going on with the vote for {}", text::format_time(period.valid_after));
                    inner.round = round;
                }
                Err(error) => info!("{error}"),
            }
        }
        let session =
            Session { directory, voting_file, shared_random_file, tallies, inner: Mutex::new(inner) };
        session.settle(&mut session.lock(), now);
        session.show(&session.lock());
        Ok(session)
    }

    /// A panic elsewhere leaves a round that is at worst short of a vote.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what is due. To be called every second; blocks for as long as a consensus takes to compute.
    pub fn tick(&self, now: Unix) {
        let inner = &mut *self.lock();
        let period = period(&inner.settings.schedule, inner.latest, now);
        if inner.round.gives_way_to(&period) {
            // What went by while we did not run is not held against others.
            if inner.round.is_over() && inner.begun <= inner.round.period().voting_starts {
                self.tallies.period_over(&inner.settings.rules.authorities);
            }
            inner.is_first = false;
            inner.take_values();
            inner.begin(period, now);
            self.save_shared_random(inner);
            self.show(inner);
        }
        let (began, had_consensus) = (Instant::now(), inner.round.has_consensus());
        inner.round.handle_timeout(now, &inner.signer, &mut UnwrapErr(SysRng));
        if inner.round.has_consensus() && !had_consensus {
            self.tallies.computed(began.elapsed());
        }
        self.settle(inner, now);
    }

    /// Takes other settings, from the next period on.
    pub fn set_settings(&self, settings: Settings) {
        self.lock().settings = settings;
    }

    /// What to vote about shared randomness.
    pub fn shared_random_lines(&self) -> Option<VoteLines> {
        self.lock().shared_random.as_ref().map(SharedRandom::vote)
    }

    /// Takes our own vote.
    pub fn take_own_vote(&self, vote: &str, now: Unix) {
        let inner = &mut *self.lock();
        if let Err(error) = inner.round.handle_own_vote(now, vote) {
            error!("our vote does not count: {error}");
        }
        self.settle(inner, now);
    }

    /// Takes votes that an authority sent when it was asked.
    pub fn take_fetched_votes(&self, votes: &[u8], from: Fingerprint, now: Unix) {
        let inner = &mut *self.lock();
        let answer = inner.round.handle_vote(now, votes, Whence::Fetched(from));
        debug!(%from, "fetched votes: {}", answer.reason);
        self.settle(inner, now);
    }

    /// Takes signatures that an authority sent when it was asked.
    pub fn take_fetched_signatures(&self, signatures: &[u8], from: Fingerprint, now: Unix) {
        let inner = &mut *self.lock();
        let answer = inner.round.handle_signatures(now, signatures);
        debug!(%from, "fetched signatures: {}", answer.reason);
        self.settle(inner, now);
    }

    /// A consensus is in force, ours or one that others made.
    pub fn adopt(&self, consensus: &Consensus, now: Unix) {
        let inner = &mut *self.lock();
        inner.adopt(consensus);
        self.save_shared_random(inner);
        self.settle(inner, now);
    }

    /// Carries out what the round asks for, in its order: each save before what follows it.
    fn settle(&self, inner: &mut Inner, now: Unix) {
        if inner.hear(now) {
            self.save_shared_random(inner);
        }
        let mut changed = false;
        while let Some(action) = inner.round.poll_action() {
            changed = true;
            match action {
                Action::Save => self.save(inner),
                Action::Store { name, contents } => self.store(&name, &contents),
                Action::Alarm(Alarm::TooLateToVote) if inner.is_first => {
                    info!("the vote for this period began before the start; we take part in the next");
                }
                Action::Alarm(alarm) => self.alarm(&alarm),
                Action::NoConsensus(reason) if inner.is_first => {
                    info!("the period of the start ends without a consensus of ours: {reason}");
                    inner.send(Errand::CatchUp);
                }
                Action::NoConsensus(reason) => {
                    error!("there is no new consensus: {reason}");
                    // They say why.
                    self.show_votes_of(inner);
                    self.tallies.no_consensus(&reason);
                    inner.send(Errand::CatchUp);
                }
                Action::Publish(documents) => {
                    inner.publish(&documents);
                    self.save_shared_random(inner);
                    self.show_votes_of(inner);
                    let certs = inner.round.votes().map(|(_, vote)| vote.vote.certificate.text()).collect();
                    inner.send(Errand::Publish { documents, certs });
                }
                Action::MakeVote(period) => inner.send(Errand::MakeVote(period)),
                Action::PostVote { to, text } => inner.send(Errand::PostVote { to, text }),
                Action::TellVote { to, text } => inner.send(Errand::TellVote { to, text }),
                Action::FetchVotes { from, of } => inner.send(Errand::FetchVotes { from, of }),
                Action::PostSignatures { to, text } => inner.send(Errand::PostSignatures { to, text }),
                Action::FetchSignatures { from } => inner.send(Errand::FetchSignatures { from }),
            }
        }
        if changed {
            self.show(inner);
        }
    }

    fn save(&self, inner: &Inner) {
        if let Err(error) = files::replace_parts(&self.voting_file, &inner.round.snapshot_parts()) {
            error!("a restart within this period would vote a second time: {error}");
            self.tallies.unsaved();
        }
    }

    fn save_shared_random(&self, inner: &Inner) {
        let Some(shared_random) = &inner.shared_random else { return };
        if let Err(error) = files::replace(&self.shared_random_file, &shared_random.write()) {
            error!("a restart would forget our part in the shared randomness: {error}");
            self.tallies.unsaved();
        }
    }

    /// Evidence lies beside the state.
    fn store(&self, name: &str, contents: &str) {
        let path = self.voting_file.with_file_name(name);
        match files::replace(&path, contents) {
            Ok(()) => info!("kept {}", path.display()),
            Err(error) => error!("evidence is lost: {error}"),
        }
    }

    fn alarm(&self, alarm: &Alarm) {
        error!("{alarm}");
        self.tallies.alarm(alarm);
    }

    /// Shows others what there is of the vote under way.
    fn show(&self, inner: &Inner) {
        let votes: Vec<StoredVote> = inner.round.votes().map(stored).collect();
        let signatures = inner.round.signatures().map(|text| text.into_bytes().into());
        let consensus = inner.round.consensus().map(|text| text.into_bytes().into());
        self.tallies.votes(votes.iter().map(|vote| vote.identity));
        self.tallies.signers(inner.round.signers());
        self.directory.change(|documents| {
            documents.next.votes.clone_from(&votes);
            documents.next.signatures.clone_from(&signatures);
            documents.next.consensus.clone_from(&consensus);
        });
    }

    /// The votes of this round are those of the period that is over.
    fn show_votes_of(&self, inner: &Inner) {
        let votes: Vec<StoredVote> = inner.round.votes().map(stored).collect();
        self.directory.change(|documents| documents.votes.clone_from(&votes));
    }
}

impl Session {
    /// Whether a vote says itself that it is nobody's: then it need not be read, which keeps others waiting.
    fn is_of_a_stranger(&self, vote: &[u8]) -> bool {
        let source = std::str::from_utf8(vote).ok().and_then(|text| text.split_once("\ndir-source "));
        let identity = source.and_then(|(_, rest)| rest.split(' ').nth(1)).and_then(Fingerprint::from_hex);
        identity.is_some_and(|identity| !self.lock().settings.rules.authorities.contains(&identity))
    }
}

impl Voting for Session {
    fn take_vote(&self, vote: &[u8], from: Option<IpAddr>, now: Unix) -> Outcome {
        if self.is_of_a_stranger(vote) {
            return outcome(STRANGER);
        }
        let inner = &mut *self.lock();
        let whence = Whence::Posted(from.unwrap_or(IpAddr::from([0, 0, 0, 0])));
        let answer = inner.round.handle_vote(now, vote, whence);
        self.settle(inner, now);
        outcome(answer)
    }

    fn take_signatures(&self, signatures: &[u8], _from: Option<IpAddr>, now: Unix) -> Outcome {
        let inner = &mut *self.lock();
        let answer = inner.round.handle_signatures(now, signatures);
        self.settle(inner, now);
        outcome(answer)
    }
}

impl Inner {
    fn send(&self, errand: Errand) {
        // Without a receiver the program is ending.
        let _ = self.errands.send(errand);
    }

    /// Begins the round of a period.
    fn begin(&mut self, period: Period, now: Unix) {
        let Settings { schedule, rules, .. } = &self.settings;
        if let Some(shared_random) = &mut self.shared_random {
            let interval = interval(schedule, self.latest, now);
            let rng = &mut UnwrapErr(SysRng);
            shared_random.prepare(period.valid_after, interval, rules.us, &rules.authorities, rng);
        }
        self.heard.clear();
        self.signer = self.settings.signer.clone();
        self.round = Round::new(self.round_rules(), period);
        self.begun = now;
        info!("the next consensus begins at {}", text::format_time(period.valid_after));
    }

    fn round_rules(&self) -> Rules {
        let fresh = |s: &SharedRandom| SharedRandomTerms { fresh: s.is_fresh() };
        let rules = self.settings.rules.clone();
        Rules {
            terms: Terms { shared_random: self.shared_random.as_ref().map(fresh), ..rules.terms },
            ..rules
        }
    }

    /// At the end of each period, with or without a consensus of its own, the values of the newest one hold, whatever we
    /// computed. One that comes late, between periods, changes none: others would not have it.
    fn take_values(&mut self) {
        if let (Some(shared_random), Some(latest)) = (&mut self.shared_random, self.latest) {
            let [previous, current] = latest.values;
            shared_random.adopt(previous, current);
        }
    }

    fn publish(&mut self, documents: &[(Flavor, String)]) {
        // We made them, so they parse.
        let parsed = documents.iter().find_map(|(_, text)| UnverifiedConsensus::parse(text).ok());
        if let Some(unverified) = parsed {
            self.adopt(unverified.peek());
        }
    }

    fn adopt(&mut self, consensus: &Consensus) {
        let lifetime = consensus.lifetime;
        if self.latest.is_some_and(|latest| lifetime.valid_after <= latest.lifetime.valid_after) {
            return;
        }
        self.latest = Some(Latest::of(consensus));
    }

    /// Looks through votes that are new; says whether shared randomness learned from them.
    fn hear(&mut self, now: Unix) -> bool {
        let mut learned = false;
        let Settings { rules, .. } = &self.settings;
        for (_, vote) in self.round.votes() {
            let voter = vote.vote.authority.identity;
            if voter == rules.us || !self.heard.insert(vote.digest) {
                continue;
            }
            if let Some(shared_random) = &mut self.shared_random {
                for commit in commits(vote) {
                    let received = shared_random.receive(&voter, &commit, &rules.authorities);
                    learned |= matches!(received, Received::Committed | Received::Revealed);
                }
            }
            let news = news(vote, now);
            if !news.is_empty() {
                let errand = Errand::FetchDescriptors { from: voter, named: news };
                let _ = self.errands.send(errand);
            }
        }
        learned
    }
}

/// The descriptors that a vote names and that are not too old to be of use.
fn news(vote: &SignedVote, now: Unix) -> Vec<Named> {
    let named = vote.vote.relays.iter().map(|relay| Named {
        identity: relay.identity,
        digest: relay.descriptor,
        published: relay.published,
    });
    named.filter(|named| now.since(named.published) <= NEWEST_AGE).collect()
}

/// What an authority says about its own part in shared randomness, and repeats of others.
fn commits(vote: &SignedVote) -> impl Iterator<Item = Commit> + '_ {
    let commits = vote.vote.shared_random.iter().flat_map(|part| &part.commits);
    commits.filter_map(|commit| {
        let mut arguments =
            format!("1 sha3-256 {} {}", commit.authority, text::base64_padded(&commit.commit));
        if let Reveal::Known(reveal) = &commit.reveal {
            arguments.push(' ');
            arguments.push_str(&text::base64_padded(reveal));
        }
        Commit::parse(&arguments).ok()
    })
}

fn stored((text, vote): (&Arc<str>, &SignedVote)) -> StoredVote {
    StoredVote { identity: vote.vote.authority.identity, digest: vote.digest, text: Arc::clone(text).into() }
}

fn outcome(answer: Answer) -> Outcome {
    Outcome { status: answer.status, reason: answer.reason.to_owned() }
}

fn period(schedule: &Schedule, latest: Option<Latest>, now: Unix) -> Period {
    schedule.next(now, latest.map(|latest| (latest.lifetime, latest.delays)))
}

/// From one consensus to the next, at present.
fn interval(schedule: &Schedule, latest: Option<Latest>, now: Unix) -> Duration {
    let Timing { interval, .. } = schedule.initial;
    let in_force = latest.map(|latest| latest.lifetime).filter(|lifetime| lifetime.is_valid(now));
    in_force.map_or(interval, |lifetime| lifetime.fresh_until.since(lifetime.valid_after))
}

fn read_shared_random(path: &Path, now: Unix, interval: Duration) -> Result<SharedRandom, files::FileError> {
    let Some(state) = files::read(path)? else { return Ok(SharedRandom::new(now, interval)) };
    Ok(SharedRandom::read(&String::from_utf8_lossy(&state), now, interval).unwrap_or_else(|error| {
        warn!("{error}");
        SharedRandom::new(now, interval)
    }))
}

/// The clock.
pub fn clock() -> Unix {
    Unix(SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()))
}

#[cfg(test)]
mod tests {
    use onionring_proto::netdoc::consensus::SharedRandom as Value;

    use super::*;
    use crate::admission::tests::options;
    use crate::approval::Approvals;
    use crate::uploads::Uploads;
    use crate::voting::DoublePolicy;
    use crate::voting::tests::maker::{VALID_AFTER, identities, maker};

    const CONSENSUS: &str = include_str!("../../../proto/src/netdoc/testdata/consensus.txt");

    /// What others would not have yet, we must not vote: a consensus that comes late says nothing before its period ends.
    #[test]
    fn the_values_of_a_consensus_hold_from_the_end_of_a_period_on() {
        let home = tempfile::tempdir().unwrap();
        let start = Unix(VALID_AFTER);
        let uploads = Uploads::open(home.path(), options(), Approvals::default(), start).unwrap();
        let [interval, delay] = [20, 4].map(Duration::from_secs);
        let authorities = identities(3);
        let settings = Settings {
            rules: Rules {
                us: authorities[0],
                terms: Terms { authorities: 3, shared_random: None },
                authorities,
                doubles: DoublePolicy::Alert,
                compare: true,
                testing: true,
            },
            shared_randomness: true,
            schedule: Schedule {
                initial: Timing { interval, vote_delay: delay, dist_delay: delay },
                start_offset: Duration::ZERO,
            },
            signer: maker(0).signer.clone(),
        };
        let directory = Arc::new(Directory::new(uploads));
        let (errands, _to_do) = tokio::sync::mpsc::unbounded_channel();
        let session =
            Session::open(home.path(), settings, None, directory, Arc::default(), errands, start).unwrap();
        let current = || session.shared_random_lines().unwrap().current;
        assert_eq!(current(), None);

        let mut consensus = UnverifiedConsensus::parse(CONSENSUS).unwrap().peek().clone();
        consensus.lifetime =
            Lifetime { valid_after: start, fresh_until: start + interval, valid_until: start + interval * 3 };
        consensus.shared_random_current = Some(Value { reveals: 3, value: [5; 32] });
        session.adopt(&consensus, start + delay);
        session.tick(start + delay);
        assert_eq!(current(), None);
        // The first tick ends the period, the next begins another.
        session.tick(start + interval);
        session.tick(start + interval);
        assert_eq!(current(), Some(Srv { reveals: 3, value: [5; 32] }));
    }
}
