use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;
use crate::netdoc::consensus::UnverifiedConsensus;
use crate::netdoc::testdata::{self, CONSENSUS_MICRODESC, CONSENSUS_NS, NOW};

const M0: Mono = Mono(1_000_000);

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([3; 32])
}

fn consensus(text: &str) -> Consensus {
    UnverifiedConsensus::parse(text).unwrap().peek().clone()
}

fn fetcher(role: Role) -> Fetcher {
    Fetcher::new(role, testdata::authorities(), Delays::TESTING)
}

fn requests(f: &mut Fetcher, now: Mono, unix: Unix) -> Vec<Fetch> {
    std::iter::from_fn(|| f.poll(now, unix)).collect()
}

/// Makes a consensus of `n` relays with made-up microdescriptors.
fn large(n: usize) -> Consensus {
    let mut c = consensus(CONSENSUS_MICRODESC);
    let one = c.relays[0].clone();
    c.relays = (0..n)
        .map(|i| {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&(i as u64).to_be_bytes());
            crate::netdoc::consensus::RelayStatus {
                listed: crate::netdoc::consensus::Listed::Microdesc(digest),
                ..one.clone()
            }
        })
        .collect();
    c
}

#[test]
fn a_cache_starts_with_certificates_and_both_consensuses() {
    let mut f = fetcher(Role::Cache);
    f.check_certs(&CertStore::default(), None, NOW);
    let got: Vec<_> = requests(&mut f, M0, NOW).into_iter().map(|r| r.request).collect();
    let signers = testdata::authorities();
    let consensus = |flavor| DirRequest::Consensus { flavor, signers: signers.clone(), at_hand: None };
    assert_eq!(
        got,
        [consensus(Flavor::Ns), consensus(Flavor::Microdesc), DirRequest::CertsById(signers.clone())]
    );
    assert_eq!(f.next_timeout(M0, NOW), None, "all is under way");
    let plain: Vec<_> = requests(&mut fetcher(Role::Plain), M0, NOW).into_iter().map(|r| r.request).collect();
    assert_eq!(plain, [consensus(Flavor::Microdesc)]);
}

#[test]
fn certificates_that_a_consensus_was_signed_with_are_asked_by_key() {
    let mut f = fetcher(Role::Plain);
    let parsed = UnverifiedConsensus::parse(CONSENSUS_MICRODESC).unwrap();
    let first = testdata::certs().iter().next().unwrap().clone();
    let mut store = CertStore::default();
    store.insert(crate::netdoc::authcert::AuthCert { signing_key_id: Fingerprint([9; 20]), ..first.clone() });
    let short = parsed.check(&testdata::authorities(), &store, NOW).unwrap_err();
    f.check_certs(&store, Some(&short), NOW);
    let got: Vec<_> = requests(&mut f, M0, NOW).into_iter().map(|r| r.request).collect();
    // Of one authority there is a certificate, but not that one; of the others there is none at all.
    assert_eq!(got[1], DirRequest::CertsById(testdata::authorities()[1..].to_vec()));
    assert_eq!(got[2], DirRequest::CertsBySigningKey(vec![(first.identity, first.signing_key_id)]));
    f.check_certs(testdata::certs(), None, NOW);
    assert_eq!(f.missing(), 0);
    // When they have expired they are wanted again.
    f.check_certs(testdata::certs(), None, NOW + Duration::from_secs(400 * 24 * 3600));
    assert_eq!(f.missing(), 3);
}

#[test]
fn what_a_consensus_names_and_is_not_there_is_fetched() {
    let (mut f, mut rng) = (fetcher(Role::Cache), rng());
    let (md, ns) = (consensus(CONSENSUS_MICRODESC), consensus(CONSENSUS_NS));
    let have = *md.relays[2].microdesc().unwrap();
    f.got_consensus(&md, |d| *d == have, |_| false, NOW, &mut rng);
    f.got_consensus(&ns, |_| false, |_| false, NOW, &mut rng);
    assert_eq!(f.missing(), 6 + 7);
    let got = requests(&mut f, M0, NOW);
    let [
        Fetch { id: md_id, request: DirRequest::Microdescs(mds) },
        Fetch { id: ns_id, request: DirRequest::Descriptors(ds) },
    ] = &got[..]
    else {
        panic!("{got:?}")
    };
    assert_eq!((mds.len(), ds.len()), (6, 7));
    // One does not arrive: it is asked again, after a delay.
    mds[1..].iter().for_each(|d| f.got_microdesc(d));
    f.finished(*md_id, Outcome::Answered, M0, NOW, &mut rng);
    assert_eq!(f.poll(M0, NOW), None);
    let wait = f.next_timeout(M0, NOW).unwrap();
    assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(20));
    assert_eq!(f.poll(M0 + wait, NOW).unwrap().request, DirRequest::Microdescs(vec![mds[0]]));
    // A directory that fails says nothing about the documents.
    f.finished(*ns_id, Outcome::Failed, M0, NOW, &mut rng);
    let again = f.poll(M0, NOW).unwrap();
    assert_eq!(again.request, DirRequest::Descriptors(ds.clone()));
    ds.iter().for_each(|d| f.got_descriptor(d));
    f.finished(again.id, Outcome::Answered, M0, NOW, &mut rng);
    f.want_extra_infos([Fingerprint([1; 20])]);
    let extra = f.poll(M0, NOW).unwrap();
    assert_eq!(extra.request, DirRequest::ExtraInfos(vec![Fingerprint([1; 20])]));
    f.got_extra_info(&Fingerprint([1; 20]));
    assert_eq!(f.missing(), 1);
}

#[test]
fn the_next_consensus_is_asked_for_when_it_is_due() {
    let (mut f, mut rng) = (fetcher(Role::Plain), rng());
    let first = f.poll(M0, NOW).unwrap();
    let md = consensus(CONSENSUS_MICRODESC);
    f.got_consensus(&md, |_| true, |_| true, NOW, &mut rng);
    f.finished(first.id, Outcome::Answered, M0, NOW, &mut rng);
    assert_eq!(f.poll(M0, NOW), None);
    let wait = f.next_timeout(M0, NOW).unwrap();
    let due = NOW + wait;
    assert!(due > md.lifetime.fresh_until && due < md.lifetime.valid_until);
    let again = f.poll(M0 + wait, due).unwrap();
    let at_hand = AtHand { valid_after: md.lifetime.valid_after, diff_from: Some(md.signed_sha3) };
    assert_eq!(again.request.at_hand(), Some(at_hand));
    // The same one again is no news: ask later, not at once.
    f.got_consensus(&md, |_| true, |_| true, due, &mut rng);
    f.finished(again.id, Outcome::Answered, M0 + wait, due, &mut rng);
    assert_eq!(f.poll(M0 + wait, due), None);
    assert!(f.next_timeout(M0 + wait, due).unwrap() >= Duration::from_secs(1));
}

#[test]
fn diffs_are_asked_for_from_what_is_recent_and_while_they_are_of_use() {
    let (mut f, mut rng) = (fetcher(Role::Plain), rng());
    let md = consensus(CONSENSUS_MICRODESC);
    f.got_consensus(&md, |_| true, |_| true, NOW, &mut rng);
    let valid_after = md.lifetime.valid_after;
    let asked_at = |f: &mut Fetcher, now| f.clone().poll(M0, now).unwrap().request.at_hand();
    let with = |diff_from| Some(AtHand { valid_after, diff_from });
    let old = valid_after + Duration::from_secs(72 * 3600);
    assert_eq!(asked_at(&mut f, old), with(Some(md.signed_sha3)));
    assert_eq!(asked_at(&mut f, old + Duration::from_secs(1)), with(None));
    f.refuse_diffs(Flavor::Microdesc);
    assert_eq!(asked_at(&mut f, old), with(None));
    let mut next = md.clone();
    next.lifetime.valid_after = valid_after + Duration::from_secs(3600);
    next.signed_sha3 = [7; 32];
    f.got_consensus(&next, |_| true, |_| true, NOW, &mut rng);
    assert_eq!(asked_at(&mut f, old).and_then(|at_hand| at_hand.diff_from), Some([7; 32]));
}

#[test]
fn an_outdated_consensus_names_nothing_worth_fetching() {
    let (mut f, mut rng) = (fetcher(Role::Plain), rng());
    let md = consensus(CONSENSUS_MICRODESC);
    let late = md.lifetime.valid_until + Duration::from_secs(24 * 3600 + 1);
    f.got_consensus(&md, |_| false, |_| false, late, &mut rng);
    assert_eq!(f.missing(), 0);
    assert!(matches!(f.poll(M0, late).unwrap().request, DirRequest::Consensus { .. }));
}

#[test]
fn many_documents_are_batched_within_the_limits() {
    for (n, want) in [(1, vec![1]), (40, vec![32, 8]), (120, vec![40, 32, 32, 16]), (1000, vec![92; 8])] {
        let mut f = fetcher(Role::Plain);
        f.got_consensus(&large(n), |_| false, |_| false, NOW, &mut rng());
        let sizes: Vec<usize> = requests(&mut f, M0, NOW)
            .into_iter()
            .map(|r| match r.request {
                DirRequest::Microdescs(d) => d.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sizes.iter().sum::<usize>(), n);
        assert_eq!(sizes[..want.len().min(sizes.len())], want, "{n}: {sizes:?}");
    }
}

#[test]
fn a_new_consensus_forgets_what_it_does_not_name() {
    let (mut f, mut rng) = (fetcher(Role::Plain), rng());
    f.got_consensus(&large(1000), |_| false, |_| false, NOW, &mut rng);
    let mut next = consensus(CONSENSUS_MICRODESC);
    next.lifetime.valid_after = next.lifetime.valid_after + Duration::from_secs(1);
    f.got_consensus(&next, |_| false, |_| false, NOW, &mut rng);
    assert_eq!(f.missing(), 7);
}

#[test]
fn windows_for_the_next_consensus() {
    let l = Lifetime { valid_after: Unix(0), fresh_until: Unix(3600), valid_until: Unix(10_800) };
    let times = |role, l: &Lifetime, now| {
        let mut rng = rng();
        let all: Vec<u64> = (0..2000).map(|_| next_consensus_fetch(role, Some(l), now, &mut rng).0).collect();
        (*all.iter().min().unwrap(), *all.iter().max().unwrap())
    };
    let (low, high) = times(Role::Cache, &l, Unix(5));
    assert!((3720..3740).contains(&low) && (5500..5520).contains(&high), "{low} {high}");
    let (low, high) = times(Role::Plain, &l, Unix(5));
    assert!((6300..6320).contains(&low) && (10_200..10_238).contains(&high), "{low} {high}");
    assert_eq!(times(Role::Plain, &l, Unix(10_801)), (10_801, 10_801));
    assert_eq!(next_consensus_fetch(Role::Cache, None, Unix(7), &mut rng()), Unix(7));
}

proptest! {
    #[test]
    fn the_next_fetch_lies_within_the_lifetime(
        start in 0u64..1_000_000, interval in 2u64..100_000, more in 2u64..200_000, cache: bool, seed: u8,
    ) {
        let l = Lifetime {
            valid_after: Unix(start), fresh_until: Unix(start + interval), valid_until: Unix(start + interval + more),
        };
        let role = if cache { Role::Cache } else { Role::Plain };
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let at = next_consensus_fetch(role, Some(&l), l.valid_after, &mut rng);
        prop_assert!(at < l.valid_until, "{at:?} {l:?}");
    }
}
