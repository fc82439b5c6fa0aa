//! Authorities that are killed, or held up, before each of the four rounds of a vote.
//!
//! As long as more than half of all authorities are left, they publish a consensus. With fewer left they publish none, and
//! keep serving the last one, unless the others' signatures were there already.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use onionring_loadgen::net::agreement::{Agreement, Disagreement};
use onionring_loadgen::net::directory::{Consensus, Document};
use onionring_loadgen::net::{Network, Node, Role};
use onionring_proto::netdoc::consensus::Flavor;
use onionring_proto::netdoc::detached::DetachedSignatures;
use onionring_proto::netdoc::text::{self, Fingerprint};
use onionring_proto::netdoc::vote::SignedVote;
use onionring_proto::time::Unix;
use rustix::process::Signal;

use super::{PATIENCE, boot, spec};

/// From one consensus to the next, and for votes and for signatures to go round. A round lasts half a delay; stock
/// authorities begin it up to a second late, so that with the least delays there is no time between two rounds.
const INTERVAL: u64 = 20;
const DELAY: u64 = 4;
const LATE: Duration = Duration::from_secs(1);
/// A blow takes that long at most.
const BLOW: Duration = Duration::from_millis(100);

/// What the victims still take part in, and what not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// Nothing: they have not voted.
    BeforeVotes,
    /// Everybody has their votes; nobody has asked for missing ones.
    AfterVotes,
    /// Missing votes have been asked for; nobody has signed.
    BeforeSignatures,
    /// Everybody has their signatures; the consensus is not in force.
    AfterSignatures,
}

const MOMENTS: [Moment; 4] =
    [Moment::BeforeVotes, Moment::AfterVotes, Moment::BeforeSignatures, Moment::AfterSignatures];

/// What happens to the victims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// They are gone, with all they had in memory, until they are started again.
    Kill,
    /// They take connections and do not answer.
    HoldUp,
}

fn network(ours: usize, stock: usize) -> Network {
    let delays = ["V3AuthVoteDelay", "V3AuthDistDelay"].map(|option| format!("{option} {DELAY}"));
    let spec = spec(ours, stock).voting_interval(u32::try_from(INTERVAL).expect("seconds"));
    boot(delays.iter().fold(spec, |spec, line| spec.torrc_of(Role::Authority, line)))
}

#[test]
fn without_votes() {
    strike_mixed(Moment::BeforeVotes);
}

#[test]
fn with_votes() {
    strike_mixed(Moment::AfterVotes);
}

#[test]
fn without_signatures() {
    strike_mixed(Moment::BeforeSignatures);
}

#[test]
fn with_signatures() {
    strike_mixed(Moment::AfterSignatures);
}

/// What is asked of ours holds among stock ones.
#[test]
fn stock_ones_alone() {
    let network = network(0, 3);
    strike(&network, Moment::AfterVotes, Blow::Kill, 1);
    strike(&network, Moment::BeforeVotes, Blow::HoldUp, 2);
}

#[test]
#[ignore = "takes half an hour: `make soak`"]
fn every_combination() {
    for (ours, stock) in [(3, 2), (4, 0), (0, 5)] {
        let network = network(ours, stock);
        let survivable = (ours + stock - 1) / 2;
        for moment in MOMENTS {
            for blow in [Blow::Kill, Blow::HoldUp] {
                strike(&network, moment, blow, survivable);
                strike(&network, moment, blow, survivable + 1);
            }
        }
    }
}

/// Of three of ours and two stock ones two are killed, which the rest survives, and three are held up.
fn strike_mixed(moment: Moment) {
    let network = network(3, 2);
    strike(&network, moment, Blow::Kill, 2);
    strike(&network, moment, Blow::HoldUp, 3);
}

/// Deals a blow to the first `count` authorities, checks what the others make of it, and waits until all is well again.
fn strike(network: &Network, moment: Moment, blow: Blow, count: usize) {
    let all = network.authorities();
    let (victims, survivors) = all.split_at(count);
    let what = format!("{moment:?}, {blow:?} {count} of {}", all.len());
    // From where all is well: the last consensus is everybody's.
    settle(network, Unix(0));
    let valid_after = moment.meet(network, &all, survivors, || blow.deal(victims));
    let enough = survivors.len() > all.len() / 2 || moment == Moment::AfterSignatures;
    if enough {
        let voters = if moment == Moment::BeforeVotes { survivors } else { &all };
        let signers = if moment == Moment::AfterSignatures { &all } else { survivors };
        let agreement = network.wait_ok(&what, PATIENCE, || {
            let agreement = Agreement::of(survivors).map_err(Box::new)?;
            match agreement.lifetime.valid_after {
                newest if newest < valid_after => Err(Box::new(Disagreement::Old { valid_after: newest })),
                _ => Ok(agreement),
            }
        });
        let agreement = agreement.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(agreement.lifetime.valid_after, valid_after, "{what}");
        assert_eq!(agreement.voters, identities(voters), "{what}");
        agreement.check_signed_by(signers).unwrap_or_else(|error| panic!("{what}: {error}"));
        let relays: Vec<&Node> =
            network.nodes().iter().filter(|node| matches!(node.role(), Role::Relay | Role::Exit)).collect();
        agreement.check_lists(&relays).unwrap_or_else(|error| panic!("{what}: {error}"));
    } else {
        // Who votes again is through with it.
        wait(network, &format!("{what}: the next vote"), || {
            survivors
                .iter()
                .all(|node| voted_for(node, node.v3_identity()).is_some_and(|next| next > valid_after))
        });
        let last = Agreement::of(survivors).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(last.lifetime.valid_after < valid_after, "{what}: there is a consensus: {last:#?}");
        assert!(last.signers.iter().all(|signers| signers.len() > all.len() / 2), "{what}: {last:#?}");
    }
    blow.undo(victims);
    settle(network, valid_after);
}

/// Waits until all authorities have agreed on a newer consensus than this.
fn settle(network: &Network, valid_after: Unix) {
    network.wait_agreement(valid_after, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
}

impl Moment {
    /// Does something at this moment of some period, and says when the consensus of that period is to come into force.
    fn meet(self, network: &Network, all: &[&Node], survivors: &[&Node], act: impl FnOnce()) -> Unix {
        let mut period = Unix(0);
        wait(network, &format!("{self:?}"), || {
            let now = now();
            let begin_of_vote = Duration::from_secs(period.0.saturating_sub(2 * DELAY));
            let (earliest, latest) = match self {
                Moment::BeforeVotes => {
                    (Duration::from_secs(period.0.saturating_sub(INTERVAL)), begin_of_vote)
                }
                Moment::AfterVotes => (begin_of_vote, begin_of_vote + Duration::from_secs(DELAY / 2)),
                Moment::BeforeSignatures => {
                    let asked = Duration::from_secs(DELAY / 2) + LATE + BLOW;
                    (begin_of_vote + asked, begin_of_vote + Duration::from_secs(DELAY))
                }
                Moment::AfterSignatures => (begin_of_vote, Duration::from_secs(period.0)),
            };
            if now + BLOW >= latest {
                // Missed: the next period whose vote has not begun.
                period = Unix(((now.as_secs() + 2 * DELAY) / INTERVAL + 1) * INTERVAL);
                return false;
            }
            let voters: BTreeSet<_> = identities(all);
            let have_votes = || {
                let voted = |node: &Node, voter| voted_for(node, Some(voter)) == Some(period);
                survivors.iter().all(|node| voters.iter().all(|voter| voted(node, *voter)))
            };
            let last = text::format_time(Unix(period.0 - INTERVAL));
            let have_last = || all.iter().all(|node| in_force(node).as_ref() == Some(&last));
            let have_signatures =
                || survivors.iter().all(|node| signed_by(node, period) == Some(voters.clone()));
            now >= earliest
                && match self {
                    Moment::BeforeVotes => have_last(),
                    Moment::AfterVotes | Moment::BeforeSignatures => have_votes(),
                    Moment::AfterSignatures => have_signatures(),
                }
                && self::now() + BLOW < latest
        });
        act();
        period
    }
}

impl Blow {
    fn deal(self, victims: &[&Node]) {
        let signal = if self == Blow::Kill { Signal::KILL } else { Signal::STOP };
        victims.iter().for_each(|node| node.signal(signal).unwrap());
    }

    fn undo(self, victims: &[&Node]) {
        for node in victims {
            match self {
                Blow::Kill => {
                    node.kill().unwrap();
                    node.start().unwrap();
                }
                Blow::HoldUp => node.signal(Signal::CONT).unwrap(),
            }
        }
    }
}

/// When the consensus that an authority serves came into force, as documents write it.
fn in_force(authority: &Node) -> Option<String> {
    Some(Consensus::fetch(authority.dir_addr()?).ok()?.valid_after)
}

/// For when the vote of `voter` is that an authority has for the next consensus.
fn voted_for(authority: &Node, voter: Option<Fingerprint>) -> Option<Unix> {
    let vote = Document::NextVote(voter?).fetch(authority.dir_addr()?).ok()?;
    Some(SignedVote::parse(&vote).ok()?.vote.lifetime.valid_after)
}

/// Whose signatures an authority has under both flavours of the consensus of this period.
fn signed_by(authority: &Node, period: Unix) -> Option<BTreeSet<Fingerprint>> {
    let text = Document::NextSignatures.fetch(authority.dir_addr()?).ok()?;
    let known = DetachedSignatures::parse(&text).ok().filter(|known| known.lifetime.valid_after == period)?;
    let of = |flavor| -> BTreeSet<Fingerprint> {
        known.signatures.iter().filter(|s| s.flavor == flavor).map(|s| s.identity).collect()
    };
    let [ns, microdesc] = Flavor::ALL.map(of);
    Some(ns.intersection(&microdesc).copied().collect())
}

fn identities(authorities: &[&Node]) -> BTreeSet<Fingerprint> {
    authorities.iter().filter_map(|node| node.v3_identity()).collect()
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().expect("it is after 1970")
}

fn wait(network: &Network, what: &str, condition: impl FnMut() -> bool) {
    network.wait(what, PATIENCE, condition).unwrap_or_else(|error| panic!("{error}"));
}
