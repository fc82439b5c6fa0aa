use super::*;

const LIMITS: DosLimits = DosLimits {
    connections: Some(ConnectionLimits {
        concurrent: 3,
        connects: Rate { per_second: 2, burst: 10 },
        refuse: true,
        period: Duration::from_secs(100),
    }),
    circuits: Some(CircuitLimits {
        min_connections: 2,
        creates: Rate { per_second: 3, burst: 9 },
        max_outq: 3,
        refuse: true,
        period: Duration::from_secs(60),
    }),
    streams: None,
};

fn clients() -> Arc<Clients> {
    Arc::new(Clients::new([7; 16]))
}

fn at(seconds: u64) -> Mono {
    Mono(seconds * 1_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn above_the_limit_of_connections_no_further_one_is_accepted() {
    let clients = clients();
    let connect = |address: &str| clients.connect(at(0), ip(address), &LIMITS, 0).result;
    let mut held: Vec<_> = (0..4).map(|_| connect("192.0.2.1").unwrap()).collect();
    assert_eq!(connect("192.0.2.1").unwrap_err(), Refused::Concurrent);
    // Others are others; an address in the other notation is the same.
    assert!(connect("192.0.2.2").is_ok());
    assert_eq!(connect("::ffff:192.0.2.1").unwrap_err(), Refused::Concurrent);
    held.pop();
    assert!(connect("192.0.2.1").is_ok());
}

#[test]
fn an_ipv6_client_is_a_network_of_64_bits() {
    let clients = clients();
    let connect = |address: &str| clients.connect(at(0), ip(address), &LIMITS, 0).result;
    let _held: Vec<_> = (0..4).map(|n| connect(&format!("2001:db8::{n}:1")).unwrap()).collect();
    assert_eq!(connect("2001:db8::ffff").unwrap_err(), Refused::Concurrent);
    assert!(connect("2001:db8:0:1::1").is_ok());
}

#[test]
fn too_many_connects_mark_a_client_for_a_time() {
    let clients = clients();
    // A spread of 20 seconds, out of up to 50.
    let connect = |now| clients.connect(at(now), ip("192.0.2.1"), &LIMITS, 70_000_000);
    for n in 1..=10 {
        let verdict = connect(0);
        assert_eq!((verdict.result.is_ok(), verdict.over, verdict.marks), (true, None, n == 10));
    }
    for now in [0, 1, 100, 119] {
        let verdict = connect(now);
        assert_eq!((verdict.result.unwrap_err(), verdict.marks), (Refused::Connects, false));
        assert_eq!(verdict.over, Some(Refused::Connects));
    }
    // It starts again with what came in meanwhile.
    for n in 1..=10 {
        assert_eq!(connect(120).marks, n == 10);
    }
    assert_eq!(connect(121).result.unwrap_err(), Refused::Connects);
}

#[test]
fn slow_clients_are_never_marked() {
    let clients = clients();
    for now in 0..1000 {
        for _ in 0..2 {
            let verdict = clients.connect(at(now), ip("192.0.2.1"), &LIMITS, 0);
            assert!(verdict.result.is_ok() && verdict.over.is_none() && !verdict.marks);
        }
    }
}

#[test]
fn too_many_circuits_mark_a_client_that_has_enough_connections() {
    let clients = clients();
    let limits = LIMITS.circuits.unwrap();
    let address = ip("192.0.2.1");
    let create = |now| clients.create(at(now), address, &limits, 0);
    // Nobody knows it yet.
    assert_eq!(create(0), (false, false));
    let _first = clients.connect(at(0), address, &LIMITS, 0).result.unwrap();
    for _ in 0..20 {
        assert_eq!(create(0), (false, false));
    }
    let second = clients.connect(at(0), address, &LIMITS, 0).result.unwrap();
    assert_eq!(create(0), (true, true));
    assert_eq!(create(0), (true, false));
    // Whoever pauses for long enough is free again, whoever goes on is not.
    assert_eq!(create(59), (true, false));
    assert_eq!(create(61), (false, false));
    // A client is counted only when it is marked for the first time.
    let again: Vec<_> = (0..20).map(|_| create(61)).collect();
    assert!(again.iter().all(|(_, first)| !first));
    assert_eq!(again.iter().filter(|(flood, _)| *flood).count(), 13);
    assert_eq!(create(61), (true, false));
    drop(second);
    assert_eq!(create(100), (true, false));
    assert_eq!(create(200), (false, false));
}

#[test]
fn full_queues_mark_a_client_however_few_connections_it_has() {
    let clients = clients();
    let limits = LIMITS.circuits.unwrap();
    let address = ip("192.0.2.1");
    let note = |now| clients.note_outq(at(now), address, &limits, 0);
    let is_marked = |now| clients.create(at(now), address, &limits, 0).0;
    // Nobody knows it yet.
    assert!((0..5).all(|now| !note(now)));
    let connect = |now| clients.connect(at(now), address, &LIMITS, 0).result.unwrap();
    drop(connect(5));
    // The number stays with the client, also when it has left.
    let hour = 3600;
    assert_eq!([note(6), note(hour)], [false; 2]);
    drop(connect(20 * hour));
    assert!(!is_marked(20 * hour));
    assert!(note(20 * hour));
    assert!(is_marked(20 * hour + 59));
    // While it is marked nothing is counted, and afterwards it begins at 0; it is counted as marked only once.
    assert!(!note(20 * hour + 1));
    assert_eq!([61, 62].map(|n| note(20 * hour + n)), [false; 2]);
    assert!(!is_marked(20 * hour + 62));
    assert!(!note(20 * hour + 63));
    assert!(is_marked(20 * hour + 64));

    let never = CircuitLimits { max_outq: 0, ..limits };
    let other = ip("192.0.2.2");
    let _held = clients.connect(at(0), other, &LIMITS, 0).result.unwrap();
    assert!((0..100).all(|_| !clients.note_outq(at(0), other, &never, 0)));
    assert!(!clients.create(at(0), other, &never, 0).0);
}

#[test]
fn without_a_defence_it_only_counts() {
    let clients = clients();
    let mut limits = LIMITS;
    limits.connections.as_mut().unwrap().refuse = false;
    let verdicts: Vec<_> = (0..30).map(|_| clients.connect(at(0), ip("192.0.2.1"), &limits, 0)).collect();
    assert!(verdicts.iter().all(|verdict| verdict.result.is_ok()));
    assert_eq!(verdicts.iter().filter(|verdict| verdict.marks).count(), 1);
    let over = |why| verdicts.iter().filter(|verdict| verdict.over == Some(why)).count();
    // The fifth to the tenth came while there were more than three, the others after the mark of the tenth.
    assert_eq!((over(Refused::Concurrent), over(Refused::Connects)), (6, 20));
}

#[test]
fn a_client_is_counted_again_when_it_was_long_gone() {
    let clients = clients();
    let circuits = LIMITS.circuits.unwrap();
    let flood = |now| {
        let held: Vec<_> =
            (0..2).map(|_| clients.connect(at(now), ip("192.0.2.1"), &LIMITS, 0).result.unwrap()).collect();
        let firsts = (0..20).filter(|_| clients.create(at(now), ip("192.0.2.1"), &circuits, 0).1).count();
        drop(held);
        firsts
    };
    let memory = limits::DOS_MEMORY.as_secs();
    assert_eq!([0, memory - 100, 2 * memory].map(flood), [1, 0, 1]);
}

#[test]
fn clients_are_forgotten_when_nothing_is_lost_by_it() {
    let clients = clients();
    let connect = |now, n: u32| {
        clients.connect(at(now), IpAddr::from((0x0a00_0000 + n).to_be_bytes()), &LIMITS, 0).result.unwrap()
    };
    let held = connect(0, 0);
    for n in 1..1000 {
        drop(connect(0, n));
    }
    assert_eq!(clients.len(), 1000);
    // Each stripe is swept when someone comes to it.
    let later = limits::DOS_SWEEP.as_secs() + 1;
    for n in 2000..4000 {
        drop(connect(later, n));
    }
    assert_eq!(clients.len(), 2001);
    drop(held);
    for n in 2000..4000 {
        drop(connect(3 * later, n));
    }
    assert!(clients.len() <= 2000, "{}", clients.len());
}

#[test]
fn the_table_is_bounded() {
    let clients = clients();
    let most = usize::from(limits::DOS_STRIPES) * limits::DOS_CLIENTS_PER_STRIPE;
    let mut held = Vec::new();
    for n in 0..most as u32 * 5 / 4 {
        let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        held.push(clients.connect(at(1), address, &LIMITS, 0).result.unwrap());
    }
    assert!(clients.len() <= most);
    assert!(held.iter().filter(|admission| admission.0.is_none()).count() >= most / 4);
    drop(held);
    let later = at(2 * limits::DOS_SWEEP.as_secs());
    assert!(clients.connect(later, ip("192.0.2.1"), &LIMITS, 0).result.unwrap().0.is_some());
}

#[test]
fn who_comes_new_takes_the_place_of_who_is_gone_and_has_no_mark() {
    let clients = clients();
    let in_first_stripe = |address: &IpAddr| {
        let hash = clients.stripes.hash_one(Source::from(*address));
        clients.stripes.pick(hash).0 == 0
    };
    let mut addresses = (0x0a00_0000_u32..).map(|n| IpAddr::from(n.to_be_bytes())).filter(in_first_stripe);
    let connect = |now, address| clients.connect(at(now), address, &LIMITS, 0).result;
    let is_known = |address: IpAddr| {
        let source = Source::from(address);
        clients.table(source).clients.contains_key(&source)
    };
    let (marked, here) = (addresses.next().unwrap(), addresses.next().unwrap());
    for _ in 0..10 {
        drop(connect(10, marked).unwrap());
    }
    let _held = connect(10, here).unwrap();
    for address in addresses.by_ref().take(limits::DOS_CLIENTS_PER_STRIPE - 2) {
        for _ in 0..3 {
            drop(connect(10, address).unwrap());
        }
    }
    // Nobody is as good as new a second later, but so many may be forgotten.
    let counted = addresses.by_ref().take(300).filter(|&new| connect(11, new).unwrap().0.is_some());
    assert_eq!(counted.count(), limits::DOS_EVICTIONS);
    assert_eq!(clients.len(), limits::DOS_CLIENTS_PER_STRIPE);
    assert!(is_known(marked) && is_known(here));
    // A full part is looked through long before its time.
    assert!(connect(12, addresses.next().unwrap()).unwrap().0.is_some());
    assert!(clients.len() < limits::DOS_CLIENTS_PER_STRIPE / 2);
    assert!(is_known(marked) && is_known(here));
}

#[test]
fn shards_count_together() {
    let clients = clients();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let clients = clients.clone();
            std::thread::spawn(move || {
                let all = (0..3).map(|_| clients.connect(at(0), ip("192.0.2.1"), &LIMITS, 0).result);
                all.collect::<Vec<_>>()
            })
        })
        .collect();
    let results: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 4);
}
