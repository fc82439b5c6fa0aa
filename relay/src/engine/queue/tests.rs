use super::*;
use onionring_proto::cell::Command;

const HALF_LIFE: Duration = Duration::from_secs(30);

fn body(tag: u8) -> Body {
    [tag; BODY_LEN]
}

fn queue() -> (CellPool, LinkQueue) {
    (CellPool::new(1000), LinkQueue::new(HomeRule::new([1; 16], 1), HALF_LIFE, Mono(0)))
}

fn push(pool: &mut CellPool, q: &mut LinkQueue, circ: u32, tag: u8) {
    q.push(pool, Mono(0), CircId(circ), Command::RELAY, &body(tag), 100).unwrap();
}

/// The circuit ids of the cells that `fill` gives, in order.
fn sent(pool: &mut CellPool, q: &mut LinkQueue, now: Mono, cells: usize) -> Vec<u32> {
    let mut out = Vec::new();
    q.fill(pool, now, LinkVersion::V4, &mut out, cells * 514);
    out.chunks(514).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]])).collect()
}

#[test]
fn a_quiet_circuit_overtakes_a_busy_one() {
    let (mut pool, mut q) = queue();
    for _ in 0..10 {
        push(&mut pool, &mut q, 1, 0);
    }
    assert_eq!(sent(&mut pool, &mut q, Mono(0), 5), [1; 5]);
    push(&mut pool, &mut q, 2, 0);
    push(&mut pool, &mut q, 2, 0);
    assert_eq!(sent(&mut pool, &mut q, Mono(0), 100), [2, 2, 1, 1, 1, 1, 1]);
    assert!(q.is_empty());
    assert_eq!(pool.used(), 0);
}

#[test]
fn says_since_when_the_last_cell_waited() {
    let (mut pool, mut q) = queue();
    for (at, circ) in [(5, 1), (7, 2), (9, 2)] {
        q.push(&mut pool, Mono(at), CircId(circ), Command::RELAY, &body(0), 100).unwrap();
    }
    let mut fill = |until| q.fill(&mut pool, Mono(10), LinkVersion::V4, &mut Vec::new(), until);
    assert_eq!(fill(2 * 514), (2, Some(Mono(7))));
    assert_eq!(fill(2 * 514), (1, Some(Mono(9))));
    assert_eq!(fill(2 * 514), (0, None));
}

#[test]
fn activity_fades_with_time() {
    let (mut pool, mut q) = queue();
    for _ in 0..8 {
        push(&mut pool, &mut q, 1, 0);
    }
    sent(&mut pool, &mut q, Mono(0), 8);
    // Ten half-lives later eight cells weigh less than one fresh one, also across a rescaling of all averages.
    for now in [Mono(300_000_000), Mono(300_000_000 * 40)] {
        push(&mut pool, &mut q, 2, 0);
        sent(&mut pool, &mut q, now, 1);
        push(&mut pool, &mut q, 2, 0);
        push(&mut pool, &mut q, 1, 0);
        assert_eq!(sent(&mut pool, &mut q, now, 2), [1, 2]);
    }
}

#[test]
fn urgent_bytes_go_first_and_removed_circuits_leave_nothing() {
    let (mut pool, mut q) = queue();
    push(&mut pool, &mut q, 1, 0);
    push(&mut pool, &mut q, 2, 0);
    q.push_urgent(&[9; 514]);
    q.remove(&mut pool, CircId(1));
    assert_eq!(sent(&mut pool, &mut q, Mono(0), 10), [0x0909_0909, 2]);
    // The slot is used again, by another circuit: the old place in the heap must not serve it twice.
    push(&mut pool, &mut q, 3, 0);
    q.remove(&mut pool, CircId(3));
    push(&mut pool, &mut q, 4, 0);
    assert_eq!(sent(&mut pool, &mut q, Mono(0), 10), [4]);
    assert!(q.is_empty());
    assert_eq!((q.cells(), pool.used()), (0, 0));
}

#[test]
fn limits_of_circuit_and_pool_hold() {
    let mut pool = CellPool::new(3);
    let mut q = LinkQueue::new(HomeRule::new([1; 16], 1), HALF_LIFE, Mono(0));
    let mut push =
        |q: &mut LinkQueue, circ| q.push(&mut pool, Mono(0), CircId(circ), Command::RELAY, &body(0), 2);
    assert_eq!(push(&mut q, 1), Ok(()));
    assert_eq!(push(&mut q, 1), Ok(()));
    assert_eq!(push(&mut q, 1), Err(QueueFull::Circuit));
    assert_eq!(push(&mut q, 2), Ok(()));
    assert_eq!(push(&mut q, 2), Err(QueueFull::Pool));
    q.clear(&mut pool);
    assert_eq!((q.cells(), pool.used(), q.is_empty()), (0, 0, true));
}

#[test]
fn nothing_follows_a_cell_that_was_lost() {
    let (mut pool, mut q) = queue();
    push(&mut pool, &mut q, 1, 0);
    push(&mut pool, &mut q, 2, 0);
    q.condemn(&mut pool, CircId(1));
    push(&mut pool, &mut q, 1, 1);
    assert_eq!((q.cells(), pool.used()), (1, 1));
    assert_eq!(sent(&mut pool, &mut q, Mono(0), 10), [2]);
    // Once its end is on the way, the id may serve another.
    assert!(q.push_destroy(&mut pool, CircId(1), DestroyReason::ResourceLimit));
    push(&mut pool, &mut q, 1, 2);
    assert_eq!(q.circuit_cells(CircId(1)), 1);
}

#[test]
fn waiting_cells_tell_their_age() {
    let (mut pool, mut q) = queue();
    q.push(&mut pool, Mono(5), CircId(1), Command::RELAY, &body(0), 100).unwrap();
    q.push(&mut pool, Mono(3), CircId(2), Command::RELAY, &body(0), 100).unwrap();
    let mut waiting: Vec<_> = q.waiting(&pool).collect();
    waiting.sort();
    assert_eq!(waiting, [(CircId(1), Mono(5)), (CircId(2), Mono(3))]);
}

#[test]
fn circuits_that_come_and_go_leave_nothing_while_the_link_is_blocked() {
    let (mut pool, mut q) = queue();
    push(&mut pool, &mut q, 1, 0);
    for circ in 2..10_000 {
        push(&mut pool, &mut q, circ, 0);
        q.remove(&mut pool, CircId(circ));
    }
    assert!(q.ready.len() < 50, "{}", q.ready.len());
    assert_eq!(sent(&mut pool, &mut q, Mono(0), 10), [1]);
}

#[test]
fn destroys_overtake_cells_and_are_bounded() {
    let (mut pool, mut q) = queue();
    push(&mut pool, &mut q, 1, 0);
    push(&mut pool, &mut q, 2, 0);
    assert!(q.push_destroy(&mut pool, CircId(2), DestroyReason::Finished));
    assert_eq!(q.destroys(), 1);
    assert_eq!(sent(&mut pool, &mut q, Mono(0), 10), [2, 1]);
    assert_eq!((q.take_told(), q.take_told()), (Some(CircId(2)), None));
    for circ in 0..limits::REFUSALS_PER_LINK as u32 {
        assert!(q.push_refusal(CircId(circ), DestroyReason::None));
    }
    assert!(!q.push_refusal(CircId(1), DestroyReason::None));
    assert_eq!(q.destroys(), 0);
    // What has been sent makes room.
    let mut out = Vec::new();
    q.fill(&mut pool, Mono(0), LinkVersion::V4, &mut out, 1);
    assert!(q.push_refusal(CircId(1), DestroyReason::None));
    q.clear(&mut pool);
    assert!(q.is_empty() && q.push_refusal(CircId(1), DestroyReason::None));
}

#[test]
fn a_peer_that_was_not_told_of_a_circuit_is_not_told_of_its_end() {
    let (mut pool, mut q) = queue();
    let created = |q: &mut LinkQueue, pool: &mut CellPool| {
        q.push(pool, Mono(0), CircId(5), Command::CREATE2, &body(0), 9).unwrap();
    };
    created(&mut q, &mut pool);
    push(&mut pool, &mut q, 5, 0);
    assert!(!q.push_destroy(&mut pool, CircId(5), DestroyReason::None));
    assert!(q.is_empty());
    created(&mut q, &mut pool);
    push(&mut pool, &mut q, 5, 0);
    let mut out = Vec::new();
    q.fill(&mut pool, Mono(0), LinkVersion::V4, &mut out, 1);
    assert!(q.push_destroy(&mut pool, CircId(5), DestroyReason::None));
    assert_eq!(q.destroys(), 1);
}

#[test]
fn charged_bytes_share_the_limit() {
    let (mut pool, mut q) = (CellPool::new(2), queue().1);
    pool.charge(2 * CellPool::BYTES_PER_CELL);
    let result = q.push(&mut pool, Mono(0), CircId(1), Command::RELAY, &body(0), 9);
    assert_eq!(result, Err(QueueFull::Pool));
    pool.release(CellPool::BYTES_PER_CELL);
    push(&mut pool, &mut q, 1, 0);
    assert!(pool.is_full());
}
