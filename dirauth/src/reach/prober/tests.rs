use std::net::Ipv6Addr;

use onionring_proto::netdoc::params::ConsensusParams;
use tokio::time::{sleep, timeout};

use super::super::circuit_test::tests::client;
use super::super::counts::{Outcome, Test};
use super::super::puppet::{Keys, Puppet, Vice, now, rng};
use super::*;
use crate::approval::{self, Marks};
use crate::bandwidth_file::Measurements;
use crate::flags::{self, Flag, FlagOptions, Terms};

/// Long enough for a busy machine; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(120);
const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// What the prober is told of relays.
#[derive(Default)]
struct Known {
    newest: Mutex<BTreeMap<Fingerprint, Arc<RouterDesc>>>,
    probes: Mutex<BTreeMap<Fingerprint, Arc<RouterDesc>>>,
}

impl Known {
    fn of(relays: &[&Puppet]) -> Arc<Known> {
        let known = Known::default();
        for relay in relays {
            known.newest.lock().unwrap().insert(relay.id(), relay.descriptor.clone());
        }
        Arc::new(known)
    }
}

impl Relays for Known {
    fn newest(&self) -> BTreeMap<Fingerprint, Arc<RouterDesc>> {
        self.newest.lock().unwrap().clone()
    }

    fn take_probes(&self) -> BTreeMap<Fingerprint, Arc<RouterDesc>> {
        std::mem::take(&mut self.probes.lock().unwrap())
    }
}

/// A prober and what it works with.
struct Bench {
    keys: Keys,
    known: Arc<Known>,
    stability: Arc<Mutex<Stability>>,
    home: tempfile::TempDir,
}

impl Bench {
    fn new(known: Arc<Known>) -> Bench {
        let home = tempfile::tempdir().unwrap();
        Bench { keys: Keys::generate(), known, stability: Arc::default(), home }
    }

    fn setup(&self) -> Setup {
        let relay_dialer = Dialer { identity: Some(self.keys.link.clone()), ..client() };
        Setup {
            us: Fingerprint(self.keys.id().rsa_id),
            options: Options {
                test_reachability: true,
                ipv6: false,
                ed25519_link_keys: true,
                circuits: true,
                testing: true,
            },
            paces: fast(),
            relays: self.known.clone(),
            relay_dialer,
            client_dialer: client(),
            listen: None,
            stability: self.stability.clone(),
            state: self.home.path().join("relay-reachability"),
            clock: Arc::new(now),
            rng: Box::new(rng()),
        }
    }
}

fn fast() -> Paces {
    let pace = Pace { cycle: SECOND, repeat: SECOND / 10, gap: SECOND / 100, at_once: 16 };
    Paces {
        links: pace,
        circuits: pace,
        times: TestTimes { hop: 2 * SECOND, stream: 2 * SECOND },
        look: SECOND / 20,
        list: SECOND / 10,
        save: SECOND / 4,
    }
}

/// The relays that are voted Running.
fn running(prober: &Prober, relays: &[&Puppet], stability: &Mutex<Stability>) -> Vec<bool> {
    let options = FlagOptions {
        time_to_learn_reachability: Duration::ZERO,
        max_servers_per_address: 0,
        ..FlagOptions::default()
    };
    let terms = Terms {
        options: &options,
        params: &ConsensusParams::default(),
        measurements: &Measurements::default(),
        us: Fingerprint([0; 20]),
        hibernating: false,
        started: now() - HOUR,
        now: now(),
    };
    let relays: Vec<flags::Relay<'_>> = relays
        .iter()
        .map(|relay| {
            let Reached { v4: reached, v6: reached_v6 } = prober.reached(&relay.id());
            let standing =
                approval::Standing { marks: Marks::default(), identity_rejected: false, listed: true };
            flags::Relay { descriptor: &relay.descriptor, standing, is_authority: false, reached, reached_v6 }
        })
        .collect();
    let assessment = flags::assess(&relays, &terms, &mut stability.lock().unwrap());
    let mut running = vec![false; relays.len()];
    for assessed in assessment.relays {
        running[assessed.relay] = assessed.flags.contains(Flag::Running);
    }
    running
}

/// Waits until `is_so`.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            sleep(SECOND / 50).await;
        }
    };
    timeout(LONG, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_only_answers_links_is_found_out_in_three_rounds() {
    let bad = Puppet::start(Vice::DropsCells).await;
    let good = [
        Puppet::start(Vice::None).await,
        Puppet::start(Vice::None).await,
        Puppet::with(Vice::None, "accept *:*", |_| {}).await,
    ];
    let bench = Bench::new(Known::of(&[&bad, &good[0], &good[1], &good[2]]));
    let listen = ListenAt { bind: "127.0.0.1:0".parse().unwrap(), public: Ipv4Addr::LOCALHOST };
    let prober = Prober::start(Setup { listen: Some(listen), ..bench.setup() }).unwrap();
    let relays = [&bad, &good[0], &good[1], &good[2]];
    until("its links are good", || running(&prober, &relays, &bench.stability) == [true; 4]).await;
    until("it is found out", || prober.standing().condemned == 1).await;
    assert_eq!(prober.reached(&bad.id()), Reached::default());
    let counts = prober.counts();
    assert_eq!(counts.get(Test::Round, Outcome::Failed), u64::from(super::super::results::FAILED_ROUNDS));
    until("the others are proven", || prober.standing().proven == 3).await;
    for relay in &good {
        assert!(prober.reached(&relay.id()).v4.is_some());
    }
    assert_eq!(running(&prober, &relays, &bench.stability), [false, true, true, true]);
    // Links go on, and neither count nor are told.
    let links = counts.get(Test::LinkV4, Outcome::Passed);
    until("links go on", || counts.get(Test::LinkV4, Outcome::Passed) > links + 8).await;
    assert_eq!(prober.reached(&bad.id()), Reached::default());
    let later = now() + HOUR;
    let links = counts.get(Test::LinkV4, Outcome::Passed);
    until("links go on", || counts.get(Test::LinkV4, Outcome::Passed) > links + 8).await;
    let uptime = |relay: &Puppet| bench.stability.lock().unwrap().uptime(&relay.id(), later);
    assert_eq!(uptime(&bad), Duration::ZERO);
    assert!(uptime(&good[0]) >= HOUR);
    until("the exit is tested", || counts.get(Test::Exit, Outcome::Passed) > 0).await;
    until("the others refuse", || counts.get(Test::ExitRefusal, Outcome::Passed) > 0).await;

    // A restart forgets nothing.
    prober.stop().await;
    let prober = Prober::start(Setup { paces: slow(), ..bench.setup() }).unwrap();
    assert_eq!(prober.reached(&bad.id()), Reached::default());
    assert!(good.iter().all(|relay| prober.reached(&relay.id()).v4.is_some()));
    prober.stop().await;

    // It mends its ways.
    bad.set_vice(Vice::None);
    let prober = Prober::start(bench.setup()).unwrap();
    until("it is cleared", || prober.reached(&bad.id()).v4.is_some()).await;
    until("it is up again", || uptime(&bad) > Duration::ZERO).await;
    prober.stop().await;
}

/// Nothing comes of itself.
fn slow() -> Paces {
    let pace = Pace { cycle: 1000 * HOUR, repeat: 1000 * HOUR, ..fast().links };
    Paces { links: pace, circuits: pace, ..fast() }
}

#[tokio::test]
async fn relays_that_are_new_come_first_and_see_a_relay_on_links() {
    let (old, new) = (Puppet::start(Vice::None).await, Puppet::start(Vice::None).await);
    let bench = Bench::new(Known::of(&[&old]));
    let prober = Prober::start(Setup { paces: slow(), ..bench.setup() }).unwrap();
    bench.known.probes.lock().unwrap().insert(new.id(), new.descriptor.clone());
    bench.known.newest.lock().unwrap().insert(new.id(), new.descriptor.clone());
    until("the new one is reached", || prober.reached(&new.id()).v4.is_some()).await;
    assert_eq!(prober.reached(&old.id()), Reached::default());
    assert_eq!(new.seen.peers.lock().unwrap().first(), Some(&bench.keys.id()));
    // It is used as by clients, soon after.
    until("it is tested", || prober.standing().proven == 1).await;
    assert_eq!((new.seen.circuits_of_relays(), new.seen.circuits_of_clients()), (0, 2));
    // Gone relays are forgotten.
    bench.known.newest.lock().unwrap().remove(&new.id());
    until("it is forgotten", || prober.reached(&new.id()) == Reached::default()).await;
}

#[tokio::test]
async fn who_is_not_reached() {
    let relay = Puppet::start(Vice::None).await;
    let other = Puppet::start(Vice::None).await;
    let named = |edit: &dyn Fn(&mut RouterDesc)| {
        let mut descriptor = RouterDesc::clone(&relay.descriptor);
        edit(&mut descriptor);
        Arc::new(descriptor)
    };
    let impostor = named(&|desc| desc.or_port = other.descriptor.or_port);
    let wrong_ed = named(&|desc| (desc.identity, desc.ed_identity) = (other.id(), [9; 32]));
    let wrong_ed = Arc::new(RouterDesc { or_port: other.descriptor.or_port, ..RouterDesc::clone(&wrong_ed) });
    let known = Arc::new(Known::default());
    *known.newest.lock().unwrap() = BTreeMap::from([(impostor.identity, impostor), (other.id(), wrong_ed)]);
    let bench = Bench::new(known);
    let prober = Prober::start(bench.setup()).unwrap();
    let failed = |prober: &Prober| prober.counts().get(Test::LinkV4, Outcome::Failed);
    until("both are tested", || failed(&prober) >= 4).await;
    for relay in [&relay, &other] {
        assert_eq!(prober.reached(&relay.id()), Reached::default());
    }
    assert!(bench.stability.lock().unwrap().is_empty());
    prober.stop().await;

    // Without AuthDirTestEd25519LinkKeys, only the RSA identity counts.
    let mut setup = bench.setup();
    setup.options.ed25519_link_keys = false;
    let prober = Prober::start(setup).unwrap();
    until("one is reached", || prober.reached(&other.id()).v4.is_some()).await;
    until("the other is not", || failed(&prober) >= 2).await;
    assert_eq!(prober.reached(&relay.id()), Reached::default());
    prober.stop().await;

    // Without AuthDirTestReachability, nobody is tested.
    let mut setup = Bench::new(bench.known.clone()).setup();
    setup.options.test_reachability = false;
    let links = other.seen.links[0].load(std::sync::atomic::Ordering::SeqCst);
    let prober = Prober::start(setup).unwrap();
    sleep(SECOND / 2).await;
    prober.stop().await;
    assert_eq!(other.seen.links[0].load(std::sync::atomic::Ordering::SeqCst), links);
}

#[tokio::test]
async fn ipv6_is_tested_by_those_who_have_it() {
    let with = |port| {
        Puppet::with(Vice::None, "reject *:*", move |new| new.ipv6 = Some((Ipv6Addr::LOCALHOST, port)))
    };
    // One listens at the IPv6 port that it names; at the other's, nobody does.
    let (both, half) = (with(0).await, with(1).await);
    let bench = Bench::new(Known::of(&[&both, &half]));
    for ipv6 in [false, true] {
        let mut setup = bench.setup();
        setup.options.ipv6 = ipv6;
        let prober = Prober::start(setup).unwrap();
        let tests = |test| Outcome::ALL.map(|outcome| prober.counts().get(test, outcome)).iter().sum::<u64>();
        let is_up = |relay: &Puppet| prober.reached(&relay.id()).v4.is_some();
        until("both are tested", || tests(Test::LinkV4) >= 6 && is_up(&both) && is_up(&half)).await;
        if ipv6 {
            // Not by counting: who fails is tested more often, the other perhaps not yet.
            until("one is reached", || prober.reached(&both.id()).v6.is_some()).await;
            until("one fails", || prober.counts().get(Test::LinkV6, Outcome::Failed) >= 1).await;
        } else {
            assert_eq!(tests(Test::LinkV6), 0);
        }
        let (both, half) = (prober.reached(&both.id()), prober.reached(&half.id()));
        assert_eq!((both.v4.is_some(), both.v6.is_some()), (true, ipv6));
        assert_eq!((half.v4.is_some(), half.v6.is_some()), (true, false));
        prober.stop().await;
    }
}

#[tokio::test]
async fn who_failed_before_a_restart_need_not_wait_for_its_turn() {
    let relay = Puppet::start(Vice::None).await;
    let bench = Bench::new(Known::of(&[&relay]));
    let setup = Setup { paces: slow(), ..bench.setup() };
    std::fs::write(&setup.state, format!("format 1\nR {} v4={} failed=3\n", relay.id(), now().0)).unwrap();
    let prober = Prober::start(setup).unwrap();
    assert_eq!(prober.reached(&relay.id()), Reached::default());
    until("it is cleared", || prober.reached(&relay.id()).v4.is_some()).await;
    assert_eq!(prober.counts().get(Test::LinkV4, Outcome::Passed), 0);
    prober.stop().await;
}

#[tokio::test]
async fn a_state_that_cannot_be_used() {
    let bench = Bench::new(Arc::default());
    let path = bench.setup().state;
    std::fs::write(&path, "something else").unwrap();
    let prober = Prober::start(bench.setup()).unwrap();
    prober.stop().await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "format 1\n");
    let state = bench.home.path().to_owned();
    assert!(Prober::start(Setup { state, ..bench.setup() }).is_err());
}
