//! From what the parts of the authority count to metrics, whenever somebody asks for them.

use std::sync::{Arc, Mutex};

use onionring_node::identity::Identity;
use onionring_node::metrics::http::Pages;
use onionring_node::metrics::{Exporter, from_zero, table};
use onionring_proto::netdoc::consensus::Lifetime;
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::time::Unix;

use super::authority::{Authority, lock};
use super::orport::Links;
use super::tallies::{Figures, Voted};
use crate::http::Desk;
use crate::http::tally::{Tally, Way};
use crate::reach::{Counts, Outcome, Prober, Standing, Test};
use crate::uploads::Received;

/// The pages of the metrics port.
pub struct Telemetry {
    pub exporter: Exporter,
    pub authority: Arc<Authority>,
    pub identity: Arc<Mutex<Identity>>,
    pub links: Arc<Links>,
    pub prober: Arc<Prober>,
    pub desk: Arc<Desk>,
}

impl Pages for Telemetry {
    /// Waits for uploads that are being judged.
    fn own(&self) -> String {
        self.publish();
        self.exporter.render()
    }
}

impl Telemetry {
    fn publish(&self) {
        let authority = &*self.authority;
        let certificate = authority.keys.load().signer.cert.expires;
        table::DIRAUTH_CERTIFICATE_EXPIRY.gauge(&[]).set(seconds(certificate));
        table::KEY_EXPIRY
            .gauge(&[("key", "signing")])
            .set(seconds(lock(&self.identity).keys.signing_expires));
        table::DIRAUTH_LINKS.gauge(&[]).set(self.links.open() as f64);
        let consensus = authority.press.consensus();
        publish_consensus(consensus.map(|consensus| (consensus.lifetime, consensus.relays.len())));
        publish_voting(&authority.tallies.figures(), &voters(authority));
        let (stored, waiting, received) = {
            let uploads = authority.directory.uploads();
            (uploads.store().newest().len(), uploads.pending().list().len(), uploads.received().clone())
        };
        publish_uploads(stored, waiting, &received);
        publish_tests(&self.prober.standing(), self.prober.counts());
        for way in Way::ALL {
            publish_answers(way, self.desk.tally(way));
        }
    }
}

/// An authority that votes.
struct Voter {
    name: String,
    v3_ident: Fingerprint,
    is_us: bool,
}

fn voters(authority: &Authority) -> Vec<Voter> {
    let us = Voter {
        name: authority.us.load().nickname.to_string(),
        v3_ident: authority.keys.load().signer.cert.identity,
        is_us: true,
    };
    let peers = authority.peers.iter();
    let peers = peers.map(|peer| Voter { name: peer.name.clone(), v3_ident: peer.v3_ident, is_us: false });
    std::iter::once(us).chain(peers).collect()
}

fn seconds(time: Unix) -> f64 {
    time.0 as f64
}

fn publish_consensus(consensus: Option<(Lifetime, usize)>) {
    let (lifetime, relays) = consensus.unzip();
    let time = |of: fn(&Lifetime) -> Unix| lifetime.as_ref().map_or(0.0, |lifetime| seconds(of(lifetime)));
    table::DIRAUTH_CONSENSUS_VALID_AFTER.gauge(&[]).set(time(|lifetime| lifetime.valid_after));
    table::DIRAUTH_CONSENSUS_FRESH_UNTIL.gauge(&[]).set(time(|lifetime| lifetime.fresh_until));
    table::DIRAUTH_CONSENSUS_VALID_UNTIL.gauge(&[]).set(time(|lifetime| lifetime.valid_until));
    table::DIRAUTH_CONSENSUS_RELAYS.gauge(&[]).set(relays.unwrap_or_default() as f64);
}

fn publish_voting(figures: &Figures, voters: &[Voter]) {
    table::DIRAUTH_AUTHORITIES.gauge(&[]).set(voters.len() as f64);
    for voter in voters {
        publish_voter(figures, voter);
    }
    for (about, outcome) in
        known::EXCHANGES.iter().flat_map(|a| known::OUTCOMES.iter().map(move |o| (*a, *o)))
    {
        let labels = [("about", about), ("outcome", outcome)];
        table::DIRAUTH_EXCHANGES.counter(&labels).absolute(0);
    }
    for ((about, outcome), n) in &figures.exchanges {
        table::DIRAUTH_EXCHANGES.counter(&[("about", about), ("outcome", outcome)]).absolute(*n);
    }
    for (alarm, n) in from_zero(&known::ALARMS, &figures.alarms) {
        table::DIRAUTH_ALARMS.counter(&[("alarm", alarm)]).absolute(n);
    }
    for (reason, n) in from_zero(&known::NO_CONSENSUS, &figures.no_consensus) {
        table::DIRAUTH_WITHOUT_CONSENSUS.counter(&[("reason", reason)]).absolute(n);
    }
    table::DIRAUTH_CONSENSUSES_PUBLISHED.counter(&[]).absolute(figures.consensuses);
    table::DIRAUTH_CONSENSUS_SECONDS.gauge(&[]).set(figures.computation.as_secs_f64());
    table::DIRAUTH_UNSAVED.counter(&[]).absolute(figures.unsaved);
    if let Some(Voted { relays, flags, measured, seconds }) = &figures.voted {
        table::DIRAUTH_VOTE_SECONDS.gauge(&[]).set(*seconds);
        table::DIRAUTH_VOTE_RELAYS.gauge(&[]).set(*relays as f64);
        table::DIRAUTH_VOTE_MEASURED.gauge(&[]).set(*measured as f64);
        for (flag, relays) in flags {
            table::DIRAUTH_VOTE_FLAGS.gauge(&[("flag", flag)]).set(*relays as f64);
        }
    }
}

fn publish_voter(figures: &Figures, voter: &Voter) {
    let v3_ident = voter.v3_ident.to_string();
    let labels = [("authority", &*voter.name), ("identity", &v3_ident)];
    let holds = |at_hand: &[Fingerprint]| f64::from(at_hand.contains(&voter.v3_ident));
    table::DIRAUTH_VOTE_HELD.gauge(&labels).set(holds(&figures.votes));
    table::DIRAUTH_SIGNATURE_HELD.gauge(&labels).set(holds(&figures.signers));
    let missed = figures.missed.get(&voter.v3_ident).copied().unwrap_or_default();
    table::DIRAUTH_VOTES_MISSED.gauge(&labels).set(missed.votes as f64);
    table::DIRAUTH_SIGNATURES_MISSED.gauge(&labels).set(missed.signatures as f64);
    if voter.is_us {
        table::DIRAUTH_OWN_VOTES_MISSED.gauge(&[]).set(missed.votes as f64);
    }
    if let Some(ahead) = figures.skews.get(&voter.v3_ident) {
        table::DIRAUTH_CLOCK_AHEAD.gauge(&labels).set(*ahead as f64);
    }
}

fn publish_uploads(stored: usize, waiting: usize, received: &Received) {
    table::DIRAUTH_RELAYS_STORED.gauge(&[]).set(stored as f64);
    table::DIRAUTH_RELAYS_PENDING.gauge(&[]).set(waiting as f64);
    let Received { stored, pending, not_new, unsaved, refused } = received;
    let verdicts = [
        ("stored", *stored),
        ("pending", *pending),
        ("not_new", *not_new),
        ("refused", refused.values().sum()),
        ("unsaved", *unsaved),
    ];
    for (verdict, n) in verdicts {
        table::DIRAUTH_DOCUMENTS.counter(&[("verdict", verdict)]).absolute(n);
    }
    for (reason, n) in from_zero(&known::REFUSALS, refused) {
        table::DIRAUTH_DOCUMENTS_REFUSED.counter(&[("reason", reason)]).absolute(n);
    }
}

fn publish_tests(standing: &Standing, counts: &Counts) {
    let Standing { relays, up, proven, condemned, under_way } = *standing;
    table::DIRAUTH_RELAYS_TESTED.gauge(&[]).set(relays as f64);
    table::DIRAUTH_RELAYS_UP.gauge(&[]).set(up as f64);
    table::DIRAUTH_RELAYS_PROVEN.gauge(&[]).set(proven as f64);
    table::DIRAUTH_RELAYS_CONDEMNED.gauge(&[]).set(condemned as f64);
    table::DIRAUTH_TESTS_UNDER_WAY.gauge(&[]).set(under_way as f64);
    for (test, outcome) in Test::ALL.iter().flat_map(|test| Outcome::ALL.iter().map(move |o| (*test, *o))) {
        let labels = [("test", test.label()), ("outcome", outcome.label())];
        table::DIRAUTH_TESTS.counter(&labels).absolute(counts.get(test, outcome));
    }
}

fn publish_answers(way: Way, tally: &Tally) {
    let way = way.label();
    for (status, n) in tally.requests() {
        table::DIRAUTH_ANSWERS.counter(&[("way", way), ("status", &status)]).absolute(n);
    }
    table::DIRAUTH_SERVED_BYTES.counter(&[("way", way)]).absolute(tally.bytes());
}

/// Labels to expect.
mod known {
    pub const EXCHANGES: [&str; 7] =
        ["vote", "votes", "signatures", "certs", "consensus", "descriptors", "evidence"];
    pub const OUTCOMES: [&str; 4] = ["ok", "refused", "connect", "timeout"];
    pub const ALARMS: [&str; 5] =
        ["double_vote", "second_vote", "other_consensus", "too_late_to_vote", "signing"];
    pub const NO_CONSENSUS: [&str; 4] = ["no_tally", "too_few_signatures", "stopped", "missed"];
    pub const REFUSALS: [&str; 9] = [
        "unreadable",
        "no_tap_key",
        "keys_changed",
        "old_version",
        "identity_rejected",
        "address_rejected",
        "ahead",
        "expired",
        "private_address",
    ];
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use onionring_node::metrics::page::Page;
    use onionring_node::metrics::page_of;

    use super::super::tallies::Missed;
    use super::*;

    const US: Fingerprint = Fingerprint([1; 20]);
    const OTHER: Fingerprint = Fingerprint([2; 20]);

    fn figures() -> Figures {
        Figures {
            alarms: BTreeMap::from([("double_vote", 1)]),
            no_consensus: BTreeMap::from([("missed", 2)]),
            consensuses: 3,
            computation: Duration::from_millis(1500),
            votes: vec![US],
            signers: vec![US, OTHER],
            missed: BTreeMap::from([
                (OTHER, Missed { votes: 4, signatures: 5 }),
                (US, Missed { votes: 1, signatures: 0 }),
            ]),
            unsaved: 6,
            exchanges: BTreeMap::from([(("votes", "ok"), 7)]),
            skews: BTreeMap::from([(OTHER, -8)]),
            voted: Some(Voted {
                relays: 9,
                flags: BTreeMap::from([("Running".to_owned(), 8), ("Exit".to_owned(), 0)]),
                measured: 7,
                seconds: 0.25,
            }),
        }
    }

    /// A page on which everything is set.
    fn page() -> String {
        let voter = |name: &str, v3_ident, is_us| Voter { name: name.to_owned(), v3_ident, is_us };
        let received = Received {
            stored: 10,
            pending: 11,
            not_new: 12,
            unsaved: 13,
            refused: BTreeMap::from([("ahead", 14)]),
        };
        let counts = Counts::default();
        counts.add(Test::Round, Outcome::Failed);
        let standing = Standing { relays: 15, up: 14, proven: 13, condemned: 1, under_way: 2 };
        let lifetime = Lifetime { valid_after: Unix(100), fresh_until: Unix(200), valid_until: Unix(400) };
        page_of(|| {
            publish_consensus(Some((lifetime, 16)));
            publish_voting(&figures(), &[voter("us", US, true), voter("other", OTHER, false)]);
            publish_uploads(17, 18, &received);
            publish_tests(&standing, &counts);
            Way::ALL.into_iter().for_each(|way| publish_answers(way, &Tally::default()));
        })
    }

    #[test]
    fn every_metric_of_authorities_is_set_and_explained() {
        // Read off where they are counted.
        let elsewhere = [table::DIRAUTH_CERTIFICATE_EXPIRY.name, table::DIRAUTH_LINKS.name];
        let page = page();
        let of_authorities = table::ALL.iter().filter(|metric| metric.name.starts_with("onionring_dirauth_"));
        let mut found = 0;
        for metric in of_authorities.filter(|metric| !elsewhere.contains(&metric.name)) {
            assert!(page.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
            assert!(
                Page::parse(&page).values(metric.name, &[]).next().is_some(),
                "{} has no value",
                metric.name
            );
            found += 1;
        }
        assert!(found > 30, "{found}");
    }

    #[test]
    fn figures_are_found_under_their_labels() {
        let page = page();
        let page = Page::parse(&page);
        let other = [("authority", "other"), ("identity", &*OTHER.to_string())];
        for (name, labels, value) in [
            ("vote_held", &other[..], 0.0),
            ("vote_held", &[("authority", "us")], 1.0),
            ("signature_held", &other, 1.0),
            ("votes_missed_in_a_row", &other, 4.0),
            ("signatures_missed_in_a_row", &other, 5.0),
            ("own_votes_missed_in_a_row", &[], 1.0),
            ("clock_ahead_seconds", &[], -8.0),
            ("alarms_total", &[("alarm", "double_vote")], 1.0),
            ("alarms_total", &[("alarm", "signing")], 0.0),
            ("periods_without_consensus_total", &[("reason", "missed")], 2.0),
            ("exchanges_total", &[("about", "votes"), ("outcome", "ok")], 7.0),
            ("exchanges_total", &[], 7.0),
            ("vote_flag_relays", &[("flag", "Running")], 8.0),
            ("documents_total", &[("verdict", "refused")], 14.0),
            ("documents_total", &[], 60.0),
            ("documents_refused_total", &[("reason", "ahead")], 14.0),
            ("tests_total", &[("test", "round"), ("outcome", "failed")], 1.0),
            ("consensus_fresh_until_timestamp_seconds", &[], 200.0),
            ("authorities", &[], 2.0),
        ] {
            assert_eq!(page.sum(&format!("onionring_dirauth_{name}"), labels), value, "{name} {labels:?}");
        }
    }

    #[test]
    fn without_a_consensus_its_times_are_0() {
        let page = page_of(|| publish_consensus(None));
        let page = Page::parse(&page);
        let values = page.values(table::DIRAUTH_CONSENSUS_FRESH_UNTIL.name, &[]);
        assert_eq!(values.collect::<Vec<_>>(), [0.0]);
    }
}
