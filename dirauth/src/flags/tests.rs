use std::net::Ipv4Addr;

use onionring_proto::netdoc::routerdesc::{Bandwidth, split_documents};
use onionring_proto::policy::ExitPolicy;
use proptest::prelude::*;

use super::*;
use crate::approval::{Approvals, ApprovedRouters, Marks};
use crate::bandwidth_file::BandwidthFile;

/// What two authorities of C tor 0.4.9.11 voted at `VOTED` on these descriptors.
const DESCRIPTORS: &str = include_str!("../testdata/descriptors.txt");
const VOTED: Unix = Unix(1_795_801_460);
const HOUR: u64 = 3600;

fn recorded() -> Vec<RouterDesc> {
    split_documents(DESCRIPTORS).map(|text| RouterDesc::parse(text).unwrap()).collect()
}

/// One of them: its vote, and what it had to go by.
struct Voter {
    nickname: &'static str,
    vote: &'static str,
    history: &'static str,
    /// When it wrote that.
    stored: Unix,
    approvals: Approvals,
    measured: &'static [(&'static str, u32)],
    lists_bad_relays: bool,
}

impl Voter {
    fn lines(&self, keyword: &str) -> Vec<&str> {
        self.vote.lines().filter_map(|line| line.strip_prefix(keyword)).collect()
    }

    fn check(&self) {
        let descriptors = recorded();
        let standing = |descriptor: &RouterDesc| {
            let (rsa, ed25519) = (&descriptor.identity, &descriptor.ed_identity);
            let mut standing = self.approvals.standing(rsa, ed25519, descriptor.ipv4);
            // C tor forgets this mark with the next consensus in which others vote the relay Valid.
            standing.marks.invalid = false;
            standing
        };
        let relay = |descriptor| Relay {
            descriptor,
            standing: standing(descriptor),
            is_authority: descriptor.dir_port != 0,
            reached: Some(Unix(VOTED.0 - 60)),
            reached_v6: None,
        };
        let relays: Vec<_> = descriptors.iter().map(relay).collect();
        let of =
            |nickname: &str| descriptors.iter().find(|d| d.nickname.as_str() == nickname).unwrap().identity;
        let line = |(nickname, bandwidth): &(&str, u32)| format!("node_id={} bw={bandwidth}\n", of(nickname));
        let file = format!("{}\n{}", VOTED.0, self.measured.iter().map(line).collect::<String>());
        let mut measurements = Measurements::default();
        measurements.update(&BandwidthFile::read(file.as_bytes(), VOTED).unwrap(), VOTED);
        let options = FlagOptions {
            list_bad_exits: self.lists_bad_relays,
            list_middle_only: self.lists_bad_relays,
            max_servers_per_address: 0,
            hs_dir_uptime: Duration::ZERO,
            time_to_learn_reachability: Duration::ZERO,
            allow_private_addresses: true,
            testing: Some(TestingOptions::default()),
            ..FlagOptions::default()
        };
        let terms = Terms {
            options: &options,
            params: &ConsensusParams::default(),
            measurements: &measurements,
            us: of(self.nickname),
            hibernating: false,
            started: Unix(VOTED.0 - 79),
            now: VOTED,
        };
        let (mut stability, _) = Stability::read(self.history, self.stored).unwrap();
        let assessment = assess(&relays, &terms, &mut stability);

        assert_eq!(assessment.thresholds.to_string(), self.lines("flag-thresholds ")[0]);
        assert_eq!(assessment.known_flags.to_string(), self.lines("known-flags ")[0]);
        let nickname = |assessed: &Assessed| descriptors[assessed.relay].nickname.to_string();
        let ours: Vec<_> = assessment.relays.iter().map(|a| (nickname(a), a.flags.to_string())).collect();
        let names = self.lines("r ").into_iter().map(|r| r.split(' ').next().unwrap().to_owned());
        let theirs: Vec<_> = names.zip(self.lines("s ").into_iter().map(str::to_owned)).collect();
        assert_eq!(ours, theirs);
    }
}

#[test]
fn flags_and_thresholds_are_those_of_an_authority_with_history_and_measurements() {
    let decisions = include_str!("../testdata/approved-routers.txt");
    Voter {
        nickname: "a0",
        vote: include_str!("../testdata/vote-a0.txt"),
        history: include_str!("../testdata/router-stability-after.txt"),
        stored: Unix(VOTED.0 + 5),
        approvals: Approvals { routers: ApprovedRouters::read(decisions).0, ..Approvals::default() },
        measured: &[("r0", 300), ("r1", 42), ("a1", 777)],
        lists_bad_relays: true,
    }
    .check();
}

#[test]
fn flags_and_thresholds_are_those_of_an_authority_that_is_ten_minutes_old() {
    Voter {
        nickname: "a1",
        vote: include_str!("../testdata/vote-a1.txt"),
        history: include_str!("../testdata/router-stability-young.txt"),
        stored: Unix(VOTED.0 + 6),
        approvals: Approvals::default(),
        measured: &[],
        lists_bad_relays: false,
    }
    .check();
}

/// A network of relays that are all alike, to be changed.
struct Net {
    descriptors: Vec<RouterDesc>,
    standings: Vec<Standing>,
    reached: Vec<Option<Unix>>,
    authorities: Vec<usize>,
    options: FlagOptions,
    params: ConsensusParams,
    measurements: Measurements,
    stability: Stability,
    started: Unix,
    now: Unix,
}

impl Net {
    fn of(count: u8) -> Net {
        let base = recorded().into_iter().find(|d| d.nickname.as_str() == "r1").unwrap();
        let now = Unix(base.published.0 + HOUR);
        let alike = |n: u8| RouterDesc {
            identity: Fingerprint([n; 20]),
            ed_identity: [n; 32],
            ipv4: Ipv4Addr::new(192, 0, 2, n),
            uptime: Some(1000 * HOUR),
            bandwidth: Bandwidth {
                rate: 1_000_000,
                burst: 1_000_000,
                observed: 50_000 + u32::from(n) * 1000,
            },
            hidden_service_dir: true,
            tunnelled_dir_server: true,
            ..base.clone()
        };
        let listed = Standing { marks: Marks::default(), identity_rejected: false, listed: true };
        let started = Unix(now.0 - 1000 * HOUR);
        let mut stability = Stability::default();
        for n in 0..count {
            stability.reached(&Fingerprint([n; 20]), None, started, Duration::ZERO);
        }
        Net {
            descriptors: (0..count).map(alike).collect(),
            standings: vec![listed; count.into()],
            reached: vec![Some(Unix(now.0 - 60)); count.into()],
            authorities: Vec::new(),
            options: FlagOptions::default(),
            params: ConsensusParams::default(),
            measurements: Measurements::default(),
            stability,
            started,
            now,
        }
    }

    fn measure(&mut self, measured: &[(u8, u32)]) {
        let line = |(n, bandwidth): &(u8, u32)| format!("node_id={} bw={bandwidth}\n", Fingerprint([*n; 20]));
        let file = format!("{}\n{}", self.now.0, measured.iter().map(line).collect::<String>());
        self.measurements.update(&BandwidthFile::read(file.as_bytes(), self.now).unwrap(), self.now);
    }

    fn assess(&mut self) -> Assessment {
        let relays: Vec<_> = (0..self.descriptors.len())
            .map(|n| Relay {
                descriptor: &self.descriptors[n],
                standing: self.standings[n],
                is_authority: self.authorities.contains(&n),
                reached: self.reached[n],
                reached_v6: None,
            })
            .collect();
        let terms = Terms {
            options: &self.options,
            params: &self.params,
            measurements: &self.measurements,
            us: Fingerprint([255; 20]),
            hibernating: false,
            started: self.started,
            now: self.now,
        };
        assess(&relays, &terms, &mut self.stability)
    }

    /// The relays with the flag.
    fn with(&mut self, flag: Flag) -> Vec<usize> {
        self.assess().relays.iter().filter(|a| a.flags.contains(flag)).map(|a| a.relay).collect()
    }
}

#[test]
fn relays_that_are_alike_have_all_flags() {
    let mut net = Net::of(8);
    let assessment = net.assess();
    // The eighth part of 8 is below the second one.
    assert_eq!(assessment.thresholds.fast, 51);
    let flags: BTreeSet<_> = assessment.relays[1..].iter().map(|a| a.flags.to_string()).collect();
    let all = "Fast HSDir Running Stable V2Dir Valid";
    assert_eq!(flags, BTreeSet::from([all.to_owned(), format!("Fast Guard {}", &all[5..])]));
    assert_eq!(
        assessment.known_flags.to_string(),
        "Authority Exit Fast Guard HSDir Running Stable StaleDesc Sybil V2Dir Valid"
    );
    // The quarter with the most bandwidth.
    assert_eq!(net.with(Flag::Guard), [6, 7]);
}

#[test]
fn running_is_who_was_reached_lately() {
    let mut net = Net::of(6);
    let at = |seconds: u64| Some(Unix(net.now.0 - seconds));
    net.reached = vec![at(45 * 60 - 1), at(45 * 60), None, at(60), at(60), at(60)];
    net.descriptors[3].hibernating = true;
    net.descriptors[4].hibernating = true;
    net.descriptors[4].published = Unix(net.now.0 - 60 - HOUR);
    net.descriptors[5].identity = Fingerprint([255; 20]);
    net.reached[5] = None;
    assert_eq!(net.with(Flag::Running), [0, 4, 5]);
    // Those that are not running were down since the probe that should have reached them.
    assert_eq!(net.stability.uptime(&Fingerprint([0; 20]), net.now), Duration::from_secs(1000 * HOUR));
    let down = |net: &Net, n: u8| net.stability.time_known(&Fingerprint([n; 20]), net.now);
    assert_eq!((down(&net, 1), down(&net, 2)), (1000.0 * 3600.0, 1000.0 * 3600.0));
    let wfu = net.stability.fractional_uptime(&Fingerprint([1; 20]), net.now);
    assert_eq!(wfu, (1000.0 * 3600.0 - (45.0 * 60.0 - 1280.0)) / (1000.0 * 3600.0));

    net.options.test_reachability = false;
    assert_eq!(net.with(Flag::Running), [0, 1, 2, 4, 5]);
}

#[test]
fn an_authority_that_just_started_has_no_opinion_about_running() {
    let mut net = Net::of(2);
    net.reached[1] = None;
    net.started = Unix(net.now.0 - 30 * 60);
    let assessment = net.assess();
    assert!(!assessment.known_flags.contains(Flag::Running));
    assert!(assessment.relays.iter().all(|a| !a.flags.contains(Flag::Running)));
    assert_eq!(net.stability.uptime(&Fingerprint([1; 20]), net.now), Duration::from_secs(1000 * HOUR));
    net.started = Unix(net.started.0 - 1);
    assert_eq!(net.with(Flag::Running), [0]);
    assert_eq!(net.stability.uptime(&Fingerprint([1; 20]), net.now), Duration::ZERO);
}

#[test]
fn ipv6_is_voted_if_we_reach_it() {
    let mut net = Net::of(1);
    net.descriptors[0].ipv6 = Some(("2001:db8::1".parse().unwrap(), 9001));
    assert_eq!(net.with(Flag::Running), [0]);
    net.options.has_ipv6 = true;
    let assess = |net: &mut Net, reached_v6| {
        let relay = Relay {
            descriptor: &net.descriptors[0],
            standing: net.standings[0],
            is_authority: false,
            reached: net.reached[0],
            reached_v6,
        };
        let terms = Terms {
            options: &net.options,
            params: &net.params,
            measurements: &net.measurements,
            us: Fingerprint([255; 20]),
            hibernating: false,
            started: net.started,
            now: net.now,
        };
        let assessed = assess(&[relay], &terms, &mut net.stability.clone()).relays[0];
        (assessed.flags.contains(Flag::Running), assessed.with_ipv6)
    };
    assert_eq!(assess(&mut net, None), (false, false));
    let reached = Some(Unix(net.now.0 - 60));
    assert_eq!(assess(&mut net, reached), (true, true));
    net.options.has_ipv6 = false;
    assert_eq!(assess(&mut net, reached), (true, false));
}

#[test]
fn stable_is_by_mtbf_or_by_uptime() {
    let mut net = Net::of(5);
    for n in 0..2u8 {
        net.stability.unreachable(&Fingerprint([n; 20]), Unix(net.now.0 - 2), net.now);
        net.stability.reached(&Fingerprint([n; 20]), None, Unix(net.now.0 - 1), Duration::ZERO);
    }
    // Half of 1000 hours is more than the guarantee of 5 days.
    assert_eq!(net.with(Flag::Stable), [0, 1, 2, 3, 4]);
    net.options.stable_mtbf_guarantee = Duration::from_secs(501 * HOUR);
    assert_eq!(net.with(Flag::Stable), [2, 3, 4]);
    assert_eq!(net.assess().thresholds.stable_mtbf, 1000.0 * 3600.0);

    // Without history, by what relays say of themselves.
    net.stability = Stability::default();
    for (n, descriptor) in net.descriptors.iter_mut().enumerate() {
        descriptor.uptime = Some(n as u64 * 24 * HOUR);
    }
    assert_eq!(net.with(Flag::Stable), [2, 3, 4]);
    assert_eq!(net.assess().thresholds.stable_uptime, Duration::from_secs(49 * HOUR));
    net.options.stable_uptime_guarantee = Duration::from_secs(25 * HOUR);
    assert_eq!(net.with(Flag::Stable), [1, 2, 3, 4]);
}

#[test]
fn fast_has_bounds() {
    let mut net = Net::of(16);
    let fast = |net: &mut Net| net.assess().thresholds.fast;
    assert_eq!(fast(&mut net), 52);
    net.measure(&(0..16).map(|n| (n, 200 + u32::from(n))).collect::<Vec<_>>());
    // What is guaranteed to be enough is 100 KiB.
    assert_eq!(fast(&mut net), 102);
    net.options.fast_guarantee = 0;
    assert_eq!(fast(&mut net), 202);
    net.params = [("FastFlagMinThreshold", 300_000)].into_iter().collect();
    assert_eq!(fast(&mut net), 300);
    net.params = [("FastFlagMaxThreshold", 150_000)].into_iter().collect();
    assert_eq!(fast(&mut net), 150);
    net.params = [("FastFlagMaxThreshold", 1), ("FastFlagMinThreshold", 300_000)].into_iter().collect();
    assert_eq!(fast(&mut net), 300);
    net.options.testing = Some(TestingOptions { min_fast: 350_000, ..TestingOptions::default() });
    assert_eq!(fast(&mut net), 350);

    // Where an eighth has next to nothing, a fourth counts; what has less than 4 kilobytes does not at all.
    let mut net = Net::of(16);
    net.measure(&[(0, 3), (1, 3), (2, 10), (3, 20), (4, 30)]);
    assert_eq!(fast(&mut net), 55);
    net.options.testing = Some(TestingOptions::default());
    assert_eq!(fast(&mut net), 30);
    assert_eq!(net.with(Flag::Fast), (4..16).collect::<Vec<_>>());
}

#[test]
fn measured_bandwidths_come_before_advertised_ones() {
    let mut net = Net::of(8);
    net.descriptors[0].bandwidth = Bandwidth { rate: 30_000_000, burst: 30_000_000, observed: 20_000_000 };
    assert_eq!(net.assess().thresholds.guard_with_exits, 57);
    net.options.min_measured = 2;
    net.measure(&[(1, 500), (2, 600)]);
    let assessment = net.assess();
    assert!(!assessment.thresholds.ignoring_advertised);
    assert_eq!(assessment.thresholds.guard_with_exits, 600);
    // An unmeasured one is believed up to 10 megabytes.
    assert_eq!(net.with(Flag::Guard), [0, 2]);
    net.measure(&[(3, 700)]);
    let assessment = net.assess();
    assert!(assessment.thresholds.ignoring_advertised);
    assert_eq!(assessment.thresholds.guard_with_exits, 700);
    assert_eq!(net.with(Flag::Fast), [1, 2, 3]);
}

#[test]
fn guards_need_standing() {
    let mut net = Net::of(8);
    for descriptor in &mut net.descriptors {
        descriptor.bandwidth = Bandwidth { rate: 5_000_000, burst: 5_000_000, observed: 5_000_000 };
    }
    assert_eq!(net.with(Flag::Guard).len(), 8);
    // One that is down often, one that is new, one that serves no directory.
    net.stability.unreachable(&Fingerprint([0; 20]), Unix(net.now.0 - 500 * HOUR), net.now);
    net.stability.reached(&Fingerprint([0; 20]), None, Unix(net.now.0 - 300 * HOUR), Duration::ZERO);
    net.descriptors[1].identity = Fingerprint([100; 20]);
    net.stability.reached(&Fingerprint([100; 20]), None, Unix(net.now.0 - 190 * HOUR), Duration::ZERO);
    net.descriptors[2].tunnelled_dir_server = false;
    let assessment = net.assess();
    assert_eq!(
        (assessment.thresholds.guard_wfu, assessment.thresholds.guard_time_known),
        (0.98, 8.0 * 86_400.0)
    );
    assert_eq!(net.with(Flag::Guard), [3, 4, 5, 6, 7]);
    // In the order of identities.
    assert_eq!(net.with(Flag::HsDir), [0, 3, 4, 5, 6, 7, 1]);
    // A DirPort serves as well.
    net.descriptors[2].dir_port = 80;
    assert!(net.with(Flag::V2Dir).contains(&2) && net.with(Flag::Guard).contains(&2));
}

#[test]
fn exits_do_not_raise_the_bar_for_guards() {
    let mut net = Net::of(8);
    for n in 4..8 {
        net.descriptors[n].policy = ExitPolicy::open();
        net.descriptors[n].bandwidth.observed = 900_000;
    }
    assert_eq!(net.with(Flag::Exit), [4, 5, 6, 7]);
    let thresholds = net.assess().thresholds;
    assert_eq!((thresholds.guard_with_exits, thresholds.guard_without_exits), (900, 53));
    assert_eq!(net.with(Flag::Guard), [3, 4, 5, 6, 7]);
    for standing in &mut net.standings[4..] {
        standing.marks.bad_exit = true;
    }
    assert_eq!(net.assess().thresholds.guard_without_exits, 900);
}

#[test]
fn hs_dirs_have_been_up_for_long() {
    let mut net = Net::of(4);
    net.descriptors[0].uptime = Some(95 * HOUR - 1);
    net.descriptors[1].uptime = Some(95 * HOUR);
    net.descriptors[2].hidden_service_dir = false;
    assert_eq!(net.with(Flag::HsDir), [1, 3]);
    // We have seen ourselves when the last one came up, if we have run for long.
    net.stability.unreachable(&Fingerprint([3; 20]), Unix(net.now.0 - 91 * HOUR), net.now);
    net.stability.reached(&Fingerprint([3; 20]), None, Unix(net.now.0 - 90 * HOUR), Duration::ZERO);
    assert_eq!(net.with(Flag::HsDir), [1]);
    net.started = Unix(net.now.0 - 105 * HOUR);
    assert_eq!(net.with(Flag::HsDir), [1, 3]);
}

#[test]
fn marks_give_and_take_flags() {
    let mut net = Net::of(8);
    for descriptor in &mut net.descriptors {
        descriptor.bandwidth = Bandwidth { rate: 5_000_000, burst: 5_000_000, observed: 5_000_000 };
        descriptor.policy = ExitPolicy::open();
    }
    let all = "Exit Fast Guard HSDir Running Stable V2Dir Valid";
    let mut flags = |list: bool, mark: fn(&mut Marks)| {
        net.options.list_bad_exits = list;
        net.options.list_middle_only = list;
        net.standings[0].marks = Marks::default();
        mark(&mut net.standings[0].marks);
        net.assess().relays[0].flags.to_string()
    };
    assert_eq!(flags(true, |_| {}), all);
    assert_eq!(flags(true, |m| m.bad_exit = true), format!("BadExit {all}"));
    assert_eq!(flags(false, |m| m.bad_exit = true), all);
    assert_eq!(flags(true, |m| m.middle_only = true), "BadExit Fast MiddleOnly Running Stable Valid");
    assert_eq!(flags(false, |m| m.middle_only = true), all);
    assert_eq!(flags(true, |m| m.strip_guard = true), all.replace("Guard ", ""));
    assert_eq!(flags(true, |m| m.strip_hs_dir = true), all.replace("HSDir ", ""));
    assert_eq!(flags(true, |m| m.strip_v2_dir = true), all.replace("V2Dir ", ""));
    assert_eq!(flags(true, |m| m.invalid = true), "Exit Fast Guard Running Stable V2Dir");
}

#[test]
fn old_descriptors_are_stale_and_then_left_out() {
    let mut net = Net::of(4);
    for (n, age) in [18 * HOUR, 18 * HOUR + 1, 24 * HOUR, 24 * HOUR + 1].into_iter().enumerate() {
        net.descriptors[n].published = Unix(net.now.0 - age);
    }
    assert_eq!(net.with(Flag::StaleDesc), [1, 2]);
    assert_eq!(net.assess().relays.len(), 3);
}

#[test]
fn only_what_may_be_listed_is_voted_on() {
    let mut net = Net::of(6);
    net.standings[0].listed = false;
    net.descriptors[1].proto = "Link=foo".into();
    // Of two with one Ed25519 identity the newer one, of the same age the one with the smaller digest.
    net.descriptors[3].ed_identity = net.descriptors[2].ed_identity;
    net.descriptors[3].published = Unix(net.descriptors[2].published.0 + 1);
    net.descriptors[5].ed_identity = net.descriptors[4].ed_identity;
    net.descriptors[5].digest.0[0] = net.descriptors[4].digest.0[0] - 1;
    let voted: Vec<_> = net.assess().relays.iter().map(|a| a.relay).collect();
    assert_eq!(voted, [3, 5]);
}

#[test]
fn too_many_at_one_address_are_sybils() {
    let mut net = Net::of(8);
    for n in 0..5 {
        net.descriptors[n].ipv4 = Ipv4Addr::new(192, 0, 2, 200);
    }
    net.reached[4] = None;
    net.measure(&[(1, 1000)]);
    // The fastest and the next; the one that is not running comes after all that are.
    assert_eq!(net.with(Flag::Sybil), [0, 2, 4]);
    assert_eq!(net.assess().relays[0].flags.to_string(), "Sybil");
    assert_eq!(net.stability.mtbf(&Fingerprint([0; 20]), net.now), 0.0);
    assert!(net.stability.mtbf(&Fingerprint([3; 20]), net.now) > 0.0);
    net.authorities = vec![4];
    assert_eq!(net.with(Flag::Sybil), [0, 2, 3]);
    // IPv6 addresses count alike.
    for n in 5..8 {
        net.descriptors[n].ipv6 = Some(("2001:db8::1".parse().unwrap(), n as u16));
    }
    assert_eq!(net.with(Flag::Sybil), [0, 2, 3, 5]);
    // What cannot be told apart otherwise is told apart by identity.
    for descriptor in &mut net.descriptors[5..] {
        descriptor.bandwidth.observed = 5;
    }
    assert_eq!(net.with(Flag::Sybil), [0, 2, 3, 7]);
    net.options.max_servers_per_address = 0;
    assert_eq!(net.with(Flag::Sybil).len(), 0);
}

#[test]
fn testing_networks_give_flags_by_name() {
    let mut net = Net::of(4);
    net.descriptors[3].policy = ExitPolicy::open();
    let set = |strict, relays: &str| TestingFlag { relays: RelaySet::parse(relays).unwrap(), strict };
    let one = format!("${}", Fingerprint([1; 20]));
    net.options.testing = Some(TestingOptions {
        exit: set(false, &one),
        guard: set(true, &one),
        hs_dir: set(true, ""),
        ..TestingOptions::default()
    });
    net.reached[1] = None;
    assert_eq!(net.with(Flag::Exit), [1, 3]);
    assert_eq!(net.with(Flag::Guard), [1]);
    assert_eq!(net.with(Flag::HsDir).len(), 0);
    net.options.testing = None;
    net.options.vote_guard = RelaySet::parse(&one).unwrap();
    assert!(net.with(Flag::Guard).contains(&1));
}

#[test]
fn an_empty_network_has_thresholds() {
    let assessment = Net::of(0).assess();
    assert_eq!(
        assessment.thresholds.to_string(),
        "stable-uptime=0 stable-mtbf=0 fast-speed=0 guard-wfu=0.000% guard-tk=0 guard-bw-inc-exits=0 \
         guard-bw-exc-exits=0 enough-mtbf=0 ignoring-advertised-bws=0"
    );
    assert_eq!(assessment.relays.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_network_is_assessed(
        relays in prop::collection::vec((any::<u32>(), any::<u64>(), any::<Option<u64>>(), any::<bool>(), 0u8..4), 0..12),
        fraction in 0.0..=1.0f64,
        now: u64,
    ) {
        let mut net = Net::of(relays.len() as u8);
        net.options.guard_bandwidth_fraction = fraction;
        net.now = Unix(now);
        for (n, (observed, uptime, reached, hibernating, address)) in relays.into_iter().enumerate() {
            net.descriptors[n].bandwidth.observed = observed;
            net.descriptors[n].uptime = Some(uptime);
            net.descriptors[n].hibernating = hibernating;
            net.descriptors[n].ipv4 = Ipv4Addr::new(192, 0, 2, address);
            net.reached[n] = reached.map(Unix);
        }
        let assessment = net.assess();
        for assessed in assessment.relays {
            let sybil = assessed.flags.contains(Flag::Sybil);
            prop_assert!(!sybil || !assessed.flags.contains(Flag::Valid));
            for flag in assessed.flags.iter() {
                prop_assert!(assessment.known_flags.contains(flag), "{:?}", flag);
            }
        }
    }
}
