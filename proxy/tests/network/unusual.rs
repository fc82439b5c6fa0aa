//! What no deployed client does, and ours only if it is told to.

use onionring_loadgen::net::{Kind, NetworkSpec, NodeSpec, Role, directory};
use onionring_node::metrics::page::Page;

use super::{Echo, Mix, boot, circuits, client, opened, spec, wait};

#[test]
fn paths_are_as_long_as_is_wanted() {
    let network = boot(spec(Mix::Both, client().torrc("CircuitLength 4")));
    let (mut echo, circuit) = opened(&network, &network.node("client").socks().unwrap());
    echo.say(b"a long way");
    assert_eq!(circuit.path.len(), 4, "{circuit:?}");
}

#[test]
fn a_worn_circuit_is_cut_and_extended_to_another_exit() {
    // Without circuits that wait, every new one is begun because somebody wants it.
    let lines = ["TruncateCircuits 1", "MaxCircuitDirtiness 10", "__DisablePredictedCircuits 1"];
    let client = lines.into_iter().fold(client(), NodeSpec::torrc);
    let network = boot(spec(Mix::Both, client));
    let client = network.node("client");
    let socks = client.socks().unwrap();
    wait(&network, "the circuit that booting has used to be free", || {
        circuits(client).iter().all(|circuit| circuit.streams == 0)
    });
    let first = circuits(client).remove(0);
    wait(&network, "it to be worn, and the next stream to have another exit", || {
        let Ok(mut echo) = Echo::open(&network, &socks) else { return false };
        echo.say(b"by another exit");
        circuits(client)
            .iter()
            .any(|c| c.streams > 0 && c.path[..2] == first.path[..2] && c.path[2] != first.path[2])
    });
    let page = directory::get(client.metrics_addr().unwrap(), "/metrics").unwrap();
    let cut =
        Page::parse(&String::from_utf8_lossy(&page)).sum("onionring_proxy_circuits_truncated_total", &[]);
    assert!(cut >= 1.0, "{cut}");
}

#[test]
fn streams_leak_out_of_the_middle_of_a_circuit() {
    // One exit lets out web pages alone, the other only what the test asks for; and that one may only be in the middle.
    let exit = |name: &str, policy: &str| {
        NodeSpec::new(Role::Exit, Kind::ONIONRING)
            .named(name)
            .torrc(&format!("ExitPolicy {policy}, reject *:*"))
    };
    let leaky = client().pinned("guard", "leak", "").torrc("LeakyPipe 1");
    let spec = NetworkSpec::new()
        .add(Role::Authority, Kind::ONIONRING, 3)
        .node(NodeSpec::new(Role::Relay, Kind::ONIONRING).named("guard"))
        .node(exit("leak", "accept *:8000-8999"))
        .node(exit("web", "accept *:80, accept *:443"))
        .node(leaky)
        .shards(1);
    let network = boot(spec);
    let (mut echo, circuit) = opened(&network, &network.node("client").socks().unwrap());
    echo.say(b"out in the middle");
    assert_eq!(circuit.path, ["guard", "leak", "web"]);
    let from = network.server().served().pop().unwrap().from;
    assert_eq!(from, network.node("leak").address());
}
