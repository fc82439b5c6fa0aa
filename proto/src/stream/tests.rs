use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::*;
use crate::flow::STREAM_WINDOW;

fn id(n: u16) -> StreamId {
    StreamId(n)
}

fn open_stream(table: &mut StreamTable<()>, n: u16) {
    table.insert(id(n), StreamState::Open, None, ());
}

#[test]
fn streams_of_a_circuit_are_bounded() {
    let mut table = StreamTable::new();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..STREAMS_PER_CIRCUIT {
        assert_ne!(table.open(&mut rng, StreamState::Connecting, None, ()).unwrap(), StreamId::CIRCUIT);
    }
    assert_eq!(table.len(), STREAMS_PER_CIRCUIT);
    let full = Some(OpenError::Full(STREAMS_PER_CIRCUIT));
    assert_eq!(table.open(&mut rng, StreamState::Connecting, None, ()).err(), full);
}

#[test]
fn connected_comes_once_and_only_where_it_was_asked_for() {
    let mut table = StreamTable::new();
    table.insert(id(1), StreamState::Connecting, None, ());
    table.insert(id(2), StreamState::Resolving, None, ());
    assert!(matches!(table.on_connected(id(1)), Ok(Target::Live(_))));
    assert_eq!(table.get(id(1)).unwrap().state, StreamState::Open);
    assert_eq!(table.on_connected(id(1)).err(), Some(StreamError::UnexpectedConnected(id(1))));
    assert_eq!(table.on_connected(id(2)).err(), Some(StreamError::UnexpectedConnected(id(2))));
    assert!(matches!(table.on_connected(id(3)), Ok(Target::Unknown)));
}

#[test]
fn resolved_ends_the_stream() {
    let mut table = StreamTable::new();
    table.insert(id(1), StreamState::Resolving, None, 'r');
    assert!(matches!(table.on_resolved(id(1)), Ok(Target::Live('r'))));
    assert!(matches!(table.on_resolved(id(1)), Ok(Target::Unknown)));
    table.insert(id(1), StreamState::Connecting, None, 'c');
    assert_eq!(table.on_resolved(id(1)).err(), Some(StreamError::UnexpectedResolved(id(1))));
}

#[test]
fn what_was_in_flight_when_we_closed_is_tolerated_up_to_the_window() {
    let mut table = StreamTable::new();
    open_stream(&mut table, 1);
    let stream = table.get_mut(id(1)).unwrap();
    (0..50).for_each(|_| stream.send.sent());
    stream.recv.on_data().unwrap();
    assert_eq!(table.close(id(1)), Some(()));
    assert_eq!(table.close(id(1)), None);
    assert!(table.get(id(1)).is_none() && table.is_empty());

    for _ in 1..STREAM_WINDOW {
        assert!(matches!(table.on_data(id(1)), Ok(Target::HalfClosed)));
    }
    assert_eq!(table.on_data(id(1)).err(), Some(StreamError::Flow(id(1), FlowError::StreamOverrun)));
    assert!(matches!(table.on_sendme(id(1)), Ok(Target::HalfClosed)));
    let unexpected = Some(StreamError::Flow(id(1), FlowError::UnexpectedStreamSendme));
    assert_eq!(table.on_sendme(id(1)).err(), unexpected);
    assert_eq!(table.on_connected(id(1)).err(), Some(StreamError::UnexpectedConnected(id(1))));

    assert!(matches!(table.on_end(id(1)), Target::HalfClosed));
    assert!(matches!(table.on_end(id(1)), Target::Unknown));
}

#[test]
fn an_answer_to_a_stream_closed_while_connecting_is_tolerated_once() {
    let mut table = StreamTable::new();
    table.insert(id(1), StreamState::Connecting, None, ());
    table.close(id(1));
    assert!(matches!(table.on_connected(id(1)), Ok(Target::HalfClosed)));
    assert!(table.on_connected(id(1)).is_err());
    table.insert(id(2), StreamState::Resolving, None, ());
    table.close(id(2));
    assert!(matches!(table.on_resolved(id(2)), Ok(Target::HalfClosed)));
    assert!(matches!(table.on_resolved(id(2)), Ok(Target::Unknown)));
}

#[test]
fn a_client_does_not_reuse_an_id_that_may_have_data_in_flight() {
    let mut table = StreamTable::new();
    (1..=500).for_each(|n| open_stream(&mut table, n));
    for n in 1..=500 {
        table.close(id(n));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for _ in 0..1000 {
        assert!(table.open(&mut rng, StreamState::Connecting, None, ()).unwrap() > id(500));
    }
}

#[test]
fn a_relay_takes_an_id_again_that_only_it_has_closed() {
    let mut table = StreamTable::new();
    open_stream(&mut table, 1);
    table.close(id(1));
    open_stream(&mut table, 1);
    assert!(matches!(table.on_data(id(1)), Ok(Target::Live(_))));
}

#[test]
fn records_of_closed_streams_are_bounded_and_the_oldest_goes_first() {
    let mut table = StreamTable::new();
    open_stream(&mut table, 1);
    table.close(id(1));
    // The first record of 1 ends, and 1 is closed again: that record is the younger one.
    table.on_end(id(1));
    for n in 2..=3 {
        open_stream(&mut table, n);
        table.close(id(n));
    }
    open_stream(&mut table, 1);
    table.close(id(1));
    for n in 4..HALF_CLOSED_PER_CIRCUIT as u16 + 2 {
        open_stream(&mut table, n);
        table.close(id(n));
    }
    assert!(matches!(table.on_data(id(2)), Ok(Target::Unknown)), "the oldest is forgotten");
    assert!(matches!(table.on_data(id(1)), Ok(Target::HalfClosed)), "the younger record of 1 stays");
    for n in 10_000..20_000 {
        open_stream(&mut table, n);
        table.close(id(n));
        assert!(
            table.slots.len() <= HALF_CLOSED_PER_CIRCUIT && table.closed.len() <= HALF_CLOSED_PER_CIRCUIT
        );
    }
}

fn open_halves(table: &mut StreamTable<()>, n: u16) {
    table.insert(id(n), StreamState::Open, Some(Halves::default()), ());
}

#[test]
fn each_direction_ends_by_itself_where_that_was_agreed() {
    let mut table = StreamTable::new();
    open_stream(&mut table, 1);
    assert!(matches!(table.on_done(id(1)), Ok(None)), "an END like all");
    table.insert(id(2), StreamState::Connecting, Some(Halves::default()), ());
    assert!(matches!(table.on_done(id(2)), Ok(None)), "before CONNECTED it refuses");
    assert!(matches!(table.on_done(id(3)), Ok(None)));

    open_halves(&mut table, 4);
    table.get_mut(id(4)).unwrap().send.sent();
    assert!(matches!(table.on_data(id(4)), Ok(Target::Live(_))));
    assert!(matches!(table.on_done(id(4)), Ok(Some(Target::Live(_)))));
    assert_eq!(table.on_data(id(4)).err(), Some(StreamError::Over(id(4))));
    assert_eq!(table.on_done(id(4)).err(), Some(StreamError::Over(id(4))));
    let halves = table.get(id(4)).unwrap().halves.unwrap();
    assert!(halves.theirs_over && !halves.are_over());
    assert!(matches!(table.on_end(id(4)), Target::Live(())), "any other END ends the rest");
    assert!(matches!(table.on_end(id(4)), Target::Unknown));
}

#[test]
fn a_record_outlives_the_end_of_one_direction() {
    let mut table = StreamTable::new();
    open_halves(&mut table, 1);
    (0..50).for_each(|_| table.get_mut(id(1)).unwrap().send.sent());
    table.close(id(1));
    assert!(matches!(table.on_data(id(1)), Ok(Target::HalfClosed)), "the peer does not know yet");
    assert!(matches!(table.on_done(id(1)), Ok(Some(Target::HalfClosed))));
    assert!(matches!(table.on_sendme(id(1)), Ok(Target::HalfClosed)), "it may still have read ours");
    assert_eq!(table.on_data(id(1)).err(), Some(StreamError::Over(id(1))));
    assert_eq!(table.on_done(id(1)).err(), Some(StreamError::Over(id(1))));
    assert!(matches!(table.on_end(id(1)), Target::HalfClosed));
    assert!(matches!(table.on_end(id(1)), Target::Unknown));
}

proptest! {
    /// Whatever happens in whatever order, the count of live streams is right and nothing grows without bound.
    #[test]
    fn bookkeeping_holds(steps in prop::collection::vec((0u8..9, 0u16..12), 0..2000)) {
        let mut table = StreamTable::new();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for (step, n) in steps {
            match step {
                0 if !table.slots.contains_key(&id(n)) => {
                    table.insert(id(n), StreamState::Connecting, None, ());
                }
                1 => drop(table.open(&mut rng, StreamState::Resolving, None, ())),
                7 if !table.slots.contains_key(&id(n)) => open_halves(&mut table, n),
                8 => drop(table.on_done(id(n))),
                2 => drop(table.on_data(id(n))),
                3 => drop(table.on_connected(id(n))),
                4 => drop(table.on_resolved(id(n))),
                5 => drop(table.on_end(id(n))),
                _ => drop(table.close(id(n))),
            }
            prop_assert_eq!(table.len(), table.iter_mut().count());
            prop_assert!(table.closed.len() <= HALF_CLOSED_PER_CIRCUIT);
        }
    }
}
