use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::*;

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn params(params: &[(&'static str, i32)]) -> ConsensusParams {
    params.iter().copied().collect()
}

/// Learns with these parameters, on a network that is there.
fn learner(changes: &[(&'static str, i32)]) -> BuildTimes {
    let mut times = BuildTimes::new(&params(changes), &BuildTimeSettings::default());
    times.network_seen(at(1));
    times
}

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000)
}

fn build(times: &mut BuildTimes, ms: u64) {
    times.built(Duration::from_millis(ms), false);
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[track_caller]
fn close_to(got: f64, wanted: f64) {
    assert!((got - wanted).abs() < 0.01, "{got}, not {wanted}");
}

#[test]
fn nothing_is_estimated_before_there_are_enough_times() {
    let mut times = learner(&[]);
    for _ in 0..99 {
        build(&mut times, 500);
        assert_eq!(
            (times.timeout(3), times.close_after()),
            (Duration::from_secs(60), Duration::from_secs(60))
        );
    }
    assert!(!times.is_estimated());
    times.built(Duration::from_millis(700), true);
    assert!(times.is_estimated());
    assert!(times.timeout(3) < Duration::from_secs(1));
    assert_eq!(times.close_after(), Duration::from_secs(60));
}

#[test]
fn the_curve_is_the_one_computed_by_hand() {
    // Two bins: 3 times in 100 to 110 ms, 1 in 400 to 410. The start is the mean of their middles,
    // (3 * 105 + 405) / 4 = 180. Shorter times count as 180, so alpha = 4 / ln(400 / 180) = 4 / 0.798508 = 5.009344.
    let curve = Curve::fit(|| [101, 102, 103, 400].into_iter(), 10).unwrap();
    assert_eq!(curve.start, 180.0);
    close_to(curve.alpha, 5.009_344);
    // 180 / 0.2 ^ (1 / 5.009344) = 180 * e ^ (1.609438 / 5.009344) = 180 * 1.378901
    close_to(curve.quantile(0.8), 248.202);
    close_to(curve.quantile(0.0), 180.0);
    // With one mode only the commonest bin counts: alpha = 4 / (ln(400 / 105)) = 4 / 1.337504.
    let curve = Curve::fit(|| [101, 102, 103, 400].into_iter(), 1).unwrap();
    assert_eq!(curve.start, 105.0);
    close_to(curve.alpha, 2.990_645);
    // Of two bins as common, the shorter times.
    assert_eq!(Curve::fit(|| [299, 101].into_iter(), 1).unwrap().start, 105.0);
    // No spread at all, and nothing to fit.
    let flat = Curve::fit(|| [105, 105].into_iter(), 10).unwrap();
    assert_eq!(flat.quantile(0.99), 105.0);
    assert_eq!(Curve::fit(|| [].into_iter(), 10), None);
}

#[test]
fn the_estimate_finds_the_quantile_of_a_pareto_network() {
    // Times by the inverse of the distribution function: start 300 ms, alpha 2.5.
    let mut times = learner(&[("cbtnummodes", 1)]);
    for n in 0..1000 {
        let quantile = (f64::from(n) + 0.5) / 1000.0;
        build(&mut times, (300.0 / (1.0 - quantile).powf(1.0 / 2.5)) as u64);
    }
    let wanted = 300.0 / 0.2f64.powf(1.0 / 2.5);
    let got = ms(times.timeout(3));
    assert!((got / wanted - 1.0).abs() < 0.03, "{got}, not {wanted}");
    let late =
        times.samples.iter().filter(|s| matches!(s, Sample::Built(ms) if f64::from(*ms) > got)).count();
    assert!((180..220).contains(&late), "{late} of 1000 are later");
}

#[test]
fn longer_circuits_get_more_time() {
    let times = learner(&[]);
    for (hops, wanted) in [(1, 60_000.0), (3, 60_000.0), (4, 101_000.0), (5, 151_000.0)] {
        close_to(ms(times.timeout(hops)), wanted);
    }
    assert!(times.timeout(usize::MAX) >= times.timeout(100));
}

#[test]
fn times_beyond_all_that_was_seen_are_not_believed() {
    let changes = [("cbtmincircs", 1), ("cbtquantile", 99), ("cbtinitialtimeout", 10)];
    let mut times = learner(&changes);
    // One short and one long: a curve with a long tail.
    times.add(Sample::Built(100));
    times.add(Sample::Built(9000));
    times.estimate();
    close_to(ms(times.timeout(3)), 9000.0);
    assert!(times.close_after() <= Duration::from_secs(18));
    // Never below the least either.
    let mut times = learner(&[("cbtmincircs", 1), ("cbtmintimeout", 2000)]);
    build(&mut times, 100);
    close_to(ms(times.timeout(3)), 2000.0);
}

#[test]
fn abandoned_circuits_count_as_known_but_not_in_the_curve() {
    let mut times = learner(&[("cbtmincircs", 4)]);
    times.network_seen(at(50));
    for _ in 0..4 {
        times.closed(at(10));
    }
    assert_eq!((times.len(), times.is_estimated()), (4, false));
    build(&mut times, 105);
    close_to(ms(times.timeout(3)), 105.0);
}

#[test]
fn nothing_is_recorded_while_the_network_is_down() {
    let mut times = learner(&[("cbtmincircs", 1)]);
    // The last that came was at 1 s.
    times.closed(at(2));
    assert!(!times.is_live());
    times.closed(at(3));
    build(&mut times, 100);
    assert!(times.is_empty());
    times.network_seen(at(70));
    build(&mut times, 100);
    assert_eq!((times.is_live(), times.len()), (true, 1));
    // This circuit had begun before.
    times.closed(at(60));
    assert_eq!((times.is_live(), times.len()), (true, 2));
}

#[test]
fn a_time_far_beyond_the_close_time_is_a_sleep_of_the_machine() {
    let mut times = learner(&[]);
    build(&mut times, 121_000);
    assert_eq!(times.len(), 1);
    build(&mut times, 121_001);
    assert_eq!(times.len(), 1);
}

#[test]
fn when_nearly_all_time_out_all_is_forgotten() {
    let mut times = learner(&[("cbtmincircs", 10)]);
    (0..20).for_each(|_| build(&mut times, 200));
    assert!(times.timeout(3) < Duration::from_secs(1));
    assert!((0..17).all(|_| !times.timed_out(true)));
    // Without a first hop it does not count, and one that is built makes room.
    assert!((0..50).all(|_| !times.timed_out(false)));
    assert_eq!(times.len(), 20);
    assert!(times.timed_out(true));
    assert!(times.is_empty() && !times.is_estimated());
    assert_eq!(times.timeout(3), Duration::from_secs(60));
    // If that is too short too, it is doubled, and a new consensus does not undo that.
    for seconds in [120, 240] {
        assert_eq!((0..18).filter(|_| times.timed_out(true)).count(), 1);
        times.set_params(&params(&[("cbtmincircs", 10)]), &BuildTimeSettings::default());
        assert_eq!(times.timeout(3), Duration::from_secs(seconds));
        assert_eq!(times.close_after(), Duration::from_secs(seconds));
    }
    for _ in 0..1000 {
        times.timed_out(true);
    }
    assert!(ms(times.timeout(3)) <= f64::from(MS_MAX));
}

#[test]
fn successes_keep_what_is_known() {
    let mut times = learner(&[("cbtmincircs", 10)]);
    for n in 0..200 {
        if n % 4 == 0 {
            build(&mut times, 200);
        } else {
            assert!(!times.timed_out(true));
            // That it came late does not count as success.
            times.built(Duration::from_millis(900), true);
        }
    }
    assert_eq!(times.len(), 200);
}

#[test]
fn circuits_are_built_only_to_learn_while_too_little_is_known() {
    let mut times = learner(&[("cbtmincircs", 2)]);
    assert!(times.wants_test_circuit(0, at(100)));
    assert!(!times.wants_test_circuit(10, at(100)));
    times.launched(at(100));
    assert!(!times.wants_test_circuit(0, at(110)));
    assert!(times.wants_test_circuit(9, at(111)));
    assert_eq!(times.idle_timeout(), Some(Duration::from_secs(180)));
    build(&mut times, 200);
    build(&mut times, 200);
    assert!(!times.wants_test_circuit(0, at(500)));
    assert_eq!(times.idle_timeout(), None);
}

#[test]
fn configuration_and_consensus_can_switch_it_off() {
    let fixed = BuildTimeSettings { timeout: Some(Duration::from_millis(1500)), learn: false };
    let mut times = BuildTimes::new(&params(&[]), &fixed);
    times.network_seen(at(1));
    for _ in 0..200 {
        build(&mut times, 200);
        assert!(!times.timed_out(true));
        times.closed(at(0));
    }
    assert!(times.is_empty() && !times.is_learning() && !times.wants_test_circuit(0, at(900)));
    assert_eq!(times.timeout(3), Duration::from_millis(1500));
    // With learning, it is where it begins, but not below the least.
    let learn = BuildTimeSettings { learn: true, ..fixed };
    times.set_params(&params(&[("cbtmintimeout", 2000)]), &learn);
    assert_eq!(times.timeout(3), Duration::from_millis(2000));
    let mut times = learner(&[("cbtmincircs", 1)]);
    build(&mut times, 200);
    assert!(times.is_estimated());
    times.set_params(&params(&[("cbtdisabled", 1)]), &BuildTimeSettings::default());
    assert!(!times.is_estimated());
    assert_eq!(times.timeout(3), Duration::from_secs(60));
    // What was known is still there.
    times.set_params(&params(&[("cbtmincircs", 1)]), &BuildTimeSettings::default());
    assert!(times.is_estimated() && times.timeout(3) < Duration::from_secs(1));
}

/// As stock tor writes them.
const FILE: &str = "Dormant 0\nTotalBuildTimes 7\nCircuitBuildAbandonedCount 1\n\
    CircuitBuildTimeBin 105 3\nCircuitBuildTimeBin 205 2\nCircuitBuildTimeBin 4005 1\nTorVersion Tor 0.4.9.11\n";

fn read(text: &str, changes: &[(&'static str, i32)]) -> (BuildTimes, Option<Damage>) {
    BuildTimes::read(&StateFile::read(text), &params(changes), &BuildTimeSettings::default(), &mut rng(1))
}

#[test]
fn what_stock_tor_wrote_is_read_and_written_as_it_was() {
    let (times, damage) = read(FILE, &[("cbtmincircs", 5)]);
    assert_eq!((times.len(), damage), (7, None));
    assert!(times.is_estimated());
    let mut file = StateFile::read(FILE);
    times.write(&mut file);
    assert_eq!(file.to_string(), FILE);
    assert_eq!(read("", &[]).0.len(), 0);
    let mut file = StateFile::read(FILE);
    BuildTimes::new(&params(&[]), &BuildTimeSettings::default()).write(&mut file);
    assert_eq!(file.to_string(), "Dormant 0\nTorVersion Tor 0.4.9.11\n");
}

#[test]
fn damaged_times_are_forgotten() {
    for (good, bad, line) in [
        ("TotalBuildTimes 7", "TotalBuildTimes 8", 2),
        ("TotalBuildTimes 7\n", "", 0),
        ("TotalBuildTimes 7", "TotalBuildTimes seven", 2),
        ("Count 1", "Count 4294967296", 3),
        ("Bin 205 2", "Bin 205", 5),
        ("Bin 205 2", "Bin 0 2", 5),
        ("Bin 205 2", "Bin 2147483648 2", 5),
        ("Bin 205 2", "Bin 205 4294967295", 2),
    ] {
        let (times, damage) = read(&FILE.replace(good, bad), &[]);
        let damage = damage.unwrap_or_else(|| panic!("{bad} passed"));
        assert_eq!((times.len(), damage.line, damage.outcome), (0, line, Outcome::Forgotten), "{bad}");
    }
    let many = "TotalBuildTimes 1001\nCircuitBuildTimeBin 105 1001\n";
    assert!(read(many, &[]).1.is_some());
}

proptest! {
    #[test]
    fn time_outs_grow_with_the_quantile_and_keep_their_bounds(
        samples in prop::collection::vec(1u64..100_000, 1..1200),
        quantiles in (10i32..=99, 10i32..=99),
        least in 10i32..5000,
        modes in 1i32..=20,
    ) {
        let estimate = |quantile| {
            let changes =
                [("cbtmincircs", 1), ("cbtquantile", quantile), ("cbtmintimeout", least), ("cbtnummodes", modes)];
            let mut times = learner(&changes);
            for ms in &samples {
                times.add(Sample::Built(*ms as u32));
            }
            times.estimate();
            times
        };
        let (low, high) = (quantiles.0.min(quantiles.1), quantiles.0.max(quantiles.1));
        let (low, high) = (estimate(low), estimate(high));
        prop_assert!(low.timeout(3) <= high.timeout(3));
        for times in [low, high] {
            let longest = samples.iter().rev().take(BUILD_TIMES).max().unwrap();
            prop_assert!(times.len() == samples.len().min(BUILD_TIMES));
            prop_assert!(ms(times.timeout(3)) >= f64::from(least) - 0.01);
            prop_assert!(ms(times.timeout(3)) <= (*longest as f64).max(f64::from(least)) + 0.01);
            prop_assert!(times.close_after() >= times.timeout(3));
            prop_assert!(times.close_after() >= Duration::from_secs(60));
        }
    }

    #[test]
    fn what_is_written_reads_the_same_to_the_bin(
        samples in prop::collection::vec(prop::option::weighted(0.9, 1u32..1_000_000), 0..1100),
        seed: u64,
    ) {
        let mut times = learner(&[]);
        for sample in samples {
            times.add(sample.map_or(Sample::Abandoned, Sample::Built));
        }
        let mut file = StateFile::default();
        times.write(&mut file);
        let settings = BuildTimeSettings::default();
        let (again, damage) = BuildTimes::read(&file, &params(&[]), &settings, &mut rng(seed));
        prop_assert_eq!(damage, None);
        let bins = |times: &BuildTimes| {
            let mut bins: Vec<_> = times.samples.iter().map(|sample| match sample {
                Sample::Built(ms) => ms / BIN_MS,
                Sample::Abandoned => u32::MAX,
            }).collect();
            bins.sort();
            bins
        };
        prop_assert_eq!(bins(&again), bins(&times));
        let mut file_again = file.clone();
        again.write(&mut file_again);
        prop_assert_eq!(file_again, file);
    }

    #[test]
    fn any_lines_are_read_or_refused(text in "((TotalBuildTimes|CircuitBuildAbandonedCount|CircuitBuildTimeBin) [0-9]{0,3}( [0-9]{0,2})?\n){0,6}") {
        let (times, damage) = read(&text, &[]);
        prop_assert!(damage.is_none() || times.is_empty());
        prop_assert!(times.len() <= BUILD_TIMES);
    }
}
