//! Streams whose directions end one by one.

use onionring_proto::handshake::Terms;
use onionring_proto::relay_msg::{EndReason, RelayCmd, StreamId};

use super::by_hand::{ByHand, Heard};
use super::net::{Net, NetConfig};
use super::sink::{Exchange, Order};

const ON: Terms = Terms { half_close: true };

/// Relays of one shard each that grant what is asked for, and a client of the first.
fn granting(seed: u64, relays: usize) -> (Net, usize) {
    let mut config = NetConfig::new(&vec![1; relays]);
    config.params.offer = ON;
    let mut net = Net::new(seed, config);
    let client = net.client(0);
    (net, client)
}

/// A circuit of two hops, the second of which has agreed.
fn by_hand(seed: u64) -> (Net, ByHand) {
    let (mut net, client) = granting(seed, 2);
    let mut circuit = ByHand::create(&mut net, client);
    assert_eq!(circuit.extend_asking(&mut net, 1, ON), ON);
    (net, circuit)
}

/// What the second hop says for a stream, DATA by its length.
fn said(circuit: &mut ByHand, net: &mut Net) -> Vec<(RelayCmd, u16, usize)> {
    let message = |heard| match heard {
        Heard::Message { hop: 1, cmd: RelayCmd::DATA, stream, data } => {
            (RelayCmd::DATA, stream.0, data.len())
        }
        Heard::Message { hop: 1, cmd: RelayCmd::END, stream, data } => {
            (RelayCmd::END, stream.0, usize::from(data[0]))
        }
        Heard::Message { hop: 1, cmd, stream: StreamId(stream), .. } => (cmd, stream, 0),
        other => panic!("{other:?}"),
    };
    circuit.heard(net).into_iter().map(message).collect()
}

const DONE: &[u8] = &[6];
const MISC: &[u8] = &[1];

fn end(stream: u16, reason: EndReason) -> (RelayCmd, u16, usize) {
    (RelayCmd::END, stream, reason.to_wire().into())
}

fn connected(stream: u16) -> (RelayCmd, u16, usize) {
    (RelayCmd::CONNECTED, stream, 0)
}

/// Begins an exchange.
fn begin(net: &mut Net, circuit: &mut ByHand, stream: u16, plan: Exchange) {
    circuit.say(net, 1, RelayCmd::BEGIN, stream, format!("{}:80\0", plan.host_name()).as_bytes());
}

/// Begins it, and says the client's part once the service has answered: before that, END would refuse the stream.
fn say(net: &mut Net, circuit: &mut ByHand, stream: u16, plan: Exchange) {
    begin(net, circuit, stream, plan);
    net.settle();
    say_up(net, circuit, stream, plan);
}

fn say_up(net: &mut Net, circuit: &mut ByHand, stream: u16, plan: Exchange) {
    let mut up = vec![0; plan.up];
    plan.fill_up(0, &mut up);
    for piece in up.chunks(498) {
        circuit.say(net, 1, RelayCmd::DATA, stream, piece);
    }
}

#[test]
fn each_side_answers_after_the_end_of_the_other() {
    for seed in 0..8 {
        let (mut net, client) = granting(seed, 3);
        net.ask = ON;
        let order = |order, plan| Exchange { order, ..plan };
        let plans = [
            order(Order::ClientFirst, Exchange::new(1, 300_000, 600_000)),
            order(Order::ClientFirst, Exchange::new(2, 0, 5)),
            order(Order::ClientFirst, Exchange::new(3, 5, 0)),
            order(Order::ServiceFirst, Exchange::new(4, 400_000, 300_000)),
            order(Order::ServiceFirst, Exchange::new(5, 5, 0)),
            order(Order::ServiceFirst, Exchange::new(6, 0, 0)),
            Exchange::new(7, 4000, 4000),
            Exchange::directory(2),
        ];
        let id = net.build(client, &[0, 1, 2], &plans);
        let orders: Vec<_> = net.circuit(client, id).exchanges.values().map(|e| e.plan.order).collect();
        assert_eq!(orders.iter().filter(|order| **order != Order::Together).count(), 6, "it was agreed on");
        assert_eq!(net.count(2, |c| c.streams), 0);
        net.assert_nothing_left();
    }
}

#[test]
fn a_relay_that_does_not_offer_it_grants_nothing() {
    let (mut net, client) = super::by_hand::small(1, 2);
    let mut circuit = ByHand::create(&mut net, client);
    assert_eq!(circuit.extend_asking(&mut net, 1, ON), Terms::default());
    say(&mut net, &mut circuit, 5, Exchange { order: Order::ClientFirst, ..Exchange::new(1, 3, 9) });
    circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
    assert!(said(&mut circuit, &mut net).iter().all(|message| *message == connected(5)));
    assert_eq!(net.count(1, |c| c.streams), 0, "END ends both directions");
}

#[test]
fn data_after_the_end_is_ignored_and_a_second_end_ends_the_rest() {
    let (mut net, mut circuit) = by_hand(2);
    say(&mut net, &mut circuit, 5, Exchange { order: Order::ClientFirst, ..Exchange::new(1, 3, 9) });
    net.settle();
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = true);
    circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
    circuit.say(&mut net, 1, RelayCmd::DATA, 5, b"late");
    assert_eq!(said(&mut circuit, &mut net), [connected(5)]);
    let ignored =
        |net: &mut Net, what| net.count(1, |c| c.cells_ignored.get(what).copied().unwrap_or(0) as usize);
    assert_eq!((ignored(&mut net, "data_on_closed_stream"), net.count(1, |c| c.streams)), (1, 1));
    circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
    net.settle();
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = false);
    assert_eq!(said(&mut circuit, &mut net), []);
    assert_eq!(net.count(1, |c| c.streams), 0);
    circuit.say(&mut net, 1, RelayCmd::DATA, 5, b"later");
    assert_eq!(said(&mut circuit, &mut net), []);
    assert_eq!(ignored(&mut net, "unknown_stream"), 1);
}

#[test]
fn a_client_that_gives_up_ends_both_halves() {
    for order in [Order::ClientFirst, Order::ServiceFirst] {
        let (mut net, mut circuit) = by_hand(3);
        say(&mut net, &mut circuit, 5, Exchange { order, ..Exchange::new(1, 3, 2_000_000) });
        circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
        let all = said(&mut circuit, &mut net);
        assert_eq!(all.iter().filter(|(cmd, ..)| *cmd == RelayCmd::DATA).count(), 500, "a window of it");
        assert_eq!(net.count(1, |c| c.streams), 1);
        circuit.say(&mut net, 1, RelayCmd::END, 5, MISC);
        assert_eq!(said(&mut circuit, &mut net), []);
        assert_eq!(net.count(1, |c| c.streams), 0);
    }
}

#[test]
fn before_connected_an_end_is_an_end() {
    let (mut net, mut circuit) = by_hand(4);
    net.sinks_stuck = true;
    say(&mut net, &mut circuit, 5, Exchange { order: Order::ClientFirst, ..Exchange::new(1, 3, 3) });
    circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
    assert_eq!(said(&mut circuit, &mut net), []);
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = false);
    assert_eq!(said(&mut circuit, &mut net), []);
    assert_eq!(net.count(1, |c| c.streams), 0);
}

#[test]
fn an_id_serves_another_stream_when_both_halves_have_ended() {
    let (mut net, mut circuit) = by_hand(5);
    let first = Exchange { order: Order::ServiceFirst, ..Exchange::new(1, 600, 7) };
    say(&mut net, &mut circuit, 5, first);
    assert_eq!(
        said(&mut circuit, &mut net),
        [connected(5), (RelayCmd::DATA, 5, 7), end(5, EndReason::Done)],
        "the service has ended its half"
    );
    // What the client sent waits for the service, while the stream is over for the client and its id is taken again.
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = true);
    circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
    say(&mut net, &mut circuit, 5, Exchange { order: Order::ClientFirst, ..Exchange::new(2, 4, 3) });
    circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
    let answer = said(&mut circuit, &mut net);
    assert_eq!(answer, [connected(5), (RelayCmd::DATA, 5, 3), end(5, EndReason::Done)]);
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = false);
    assert_eq!(said(&mut circuit, &mut net), []);
    assert_eq!(net.count(1, |c| c.streams), 0);
    net.assert_nothing_left();
}

#[test]
fn what_a_client_sent_before_its_end_is_not_acknowledged_any_more() {
    let (mut net, mut circuit) = by_hand(6);
    let plan = Exchange { order: Order::ClientFirst, ..Exchange::new(1, 100 * 498, 1) };
    begin(&mut net, &mut circuit, 5, plan);
    assert_eq!(said(&mut circuit, &mut net), [connected(5)]);
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = true);
    say_up(&mut net, &mut circuit, 5, plan);
    circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
    assert_eq!(said(&mut circuit, &mut net), [(RelayCmd::SENDME, 0, 0)], "that of the circuit");
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = false);
    assert_eq!(said(&mut circuit, &mut net), [(RelayCmd::DATA, 5, 1), end(5, EndReason::Done)]);
}

#[test]
fn a_circuit_that_goes_takes_streams_along_that_deliver_what_is_left() {
    let (mut net, mut circuit) = by_hand(7);
    say(&mut net, &mut circuit, 5, Exchange { order: Order::ServiceFirst, ..Exchange::new(1, 3000, 1) });
    said(&mut circuit, &mut net);
    net.relays[1].sinks.values_mut().for_each(|sink| sink.stuck = true);
    circuit.say(&mut net, 1, RelayCmd::END, 5, DONE);
    net.settle();
    assert_eq!(net.relays[1].sinks.len(), 1);
    net.hang_up(circuit.peer);
    net.settle();
    assert_eq!(net.relays[1].sinks.len(), 0, "the service hears of it");
    net.assert_nothing_left();
}
