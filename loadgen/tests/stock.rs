//! A network of nothing but stock tor: what the library promises, held against the implementation everyone knows.

use std::net::IpAddr;
use std::time::Duration;

use onionring_loadgen::net::agreement::Disagreement;
use onionring_loadgen::net::directory::Document;
use onionring_loadgen::net::dns::Answer;
use onionring_loadgen::net::{Kind, Network, NetworkSpec, NodeSpec, Paths, Role, list};
use onionring_loadgen::traffic::{Order, SocksError, parallel};
use onionring_proto::time::Unix;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

fn boot() -> Network {
    let spec = NetworkSpec::stock()
        .add(Role::Relay, Kind::TOR, 2)
        .add(Role::Exit, Kind::TOR, 2)
        .node(NodeSpec::new(Role::Client, Kind::TOR).named("pinned").pinned("relay2", "relay1", "exit2"));
    spec.boot().unwrap_or_else(|e| panic!("{e}"))
}

/// One network for all of it: booting is what takes time.
#[test]
fn a_stock_network() {
    let net = boot();
    println!("booted in {:?}", net.boot_time());
    listed_by_authorities(&net);
    authorities_agree(&net);
    moves_bytes(&net);
    resolves(&net);
    takes_explicit_paths(&net);
    obeys_pins(&net);
    survives_a_restart(&net);
    let directory = net.info().directory;
    assert!(list().unwrap().iter().any(|(name, info)| name == net.name() && info.is_some()));
    drop(net);
    assert!(!directory.exists());
}

fn listed_by_authorities(net: &Network) {
    let consensus = net.consensus().unwrap();
    assert_eq!(consensus.relays.len(), 7);
    for node in net.nodes().iter().filter(|n| n.role() != Role::Client) {
        let listed = consensus.running(node.fingerprint()).unwrap();
        assert_eq!(listed.nickname, node.nickname());
        assert_eq!(listed.has("Exit"), node.role() == Role::Exit, "{node:?}");
        assert!(node.usage().unwrap().rss_bytes > 1 << 20);
    }
    let descriptors = String::from_utf8(net.document("/tor/server/all").unwrap()).unwrap();
    assert_eq!(descriptors.matches("\nrouter-signature\n").count(), 7);
}

/// In two periods, one after the other as a rule; and their documents are there.
fn authorities_agree(net: &Network) {
    let first = net.wait_agreement(Unix(0), PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    let second = net.wait_agreement(first.lifetime.valid_after, PATIENCE).unwrap_or_else(|e| panic!("{e}"));
    assert_ne!(first.texts, second.texts);
    let authorities = net.authorities();
    assert_eq!(second.voters, authorities.iter().filter_map(|node| node.v3_identity()).collect());
    // What is not so is told.
    let error = second.check_signed_by(&authorities[1..]).unwrap_err();
    assert!(matches!(error, Disagreement::Signers { .. }), "{error}");
    let error = second.check_lists(&[net.node("client1")]).unwrap_err();
    assert!(error.to_string().contains("does not list client1 as Running"), "{error}");

    for authority in &authorities {
        let from = authority.dir_addr().unwrap();
        let holds = |document: Document, words: &str| {
            let text = net.wait_ok(&document.to_string(), PATIENCE, || document.fetch(from)).unwrap();
            assert!(text.contains(words), "{document}: {text}");
        };
        holds(Document::Keys, "\nfingerprint ");
        for voter in &second.voters {
            holds(Document::Vote(*voter), &format!("\nfingerprint {voter}\n"));
            holds(Document::NextVote(*voter), &format!("\nfingerprint {voter}\n"));
        }
        holds(Document::NextConsensus, "\nvote-status consensus\n");
        holds(Document::NextSignatures, "\ndirectory-signature ");
    }
}

fn moves_bytes(net: &Network) {
    assert_eq!(net.download("client1", 4 * MIB).unwrap().bytes, 4 * MIB);
    assert_eq!(net.upload("client1", MIB + 1).unwrap().bytes, MIB + 1);
    let socks = net.node("client1").socks().unwrap();
    let order = |n| Order { socks: &socks, target: net.target(), bytes: 20_000 + n, seed: n };
    let transfers = parallel(200, |n| order(n as u64).download(&mut |_| Ok(()))).unwrap();
    assert_eq!(transfers.len(), 200);
    match socks.connect("nowhere.test", 80) {
        Err(SocksError::Refused(_)) => {}
        other => panic!("{other:?}"),
    }
}

fn resolves(net: &Network) {
    let socks = net.node("client1").socks().unwrap();
    let server = net.server().address().ip();
    assert_eq!(socks.resolve("sink.test").unwrap(), server);
    // C tor's exits refuse reverse look-ups of internal addresses, so this one is from a block for documentation.
    let documented: IpAddr = "198.51.100.7".parse().unwrap();
    net.dns().set("public.test", Answer::Addresses(vec![documented]));
    assert_eq!(socks.resolve_ptr(documented).unwrap(), "public.test");
    assert!(net.dns().questions().iter().any(|(name, _)| name == "sink.test"));
}

fn takes_explicit_paths(net: &Network) {
    let paths = Paths::of(net.node("client1")).unwrap();
    for hops in [["relay1", "relay2", "exit1"], ["exit1", "relay1", "exit2"]] {
        let hops = hops.map(|hop| net.node(hop));
        let path = paths.build(&hops).unwrap();
        let order = Order { socks: &path.socks(), target: net.target(), bytes: MIB, seed: 5 };
        order.download(&mut |_| Ok(())).unwrap();
        let circuits = paths.control().circuits().unwrap();
        let circuit = circuits.iter().find(|c| c.id == path.circuit()).unwrap();
        assert_eq!(circuit.path, hops.map(|hop| hop.fingerprint()));
        let streams = paths.control().get_info("stream-status").unwrap();
        assert!(streams.is_empty() || streams.contains(&format!(" {} ", path.circuit())), "{streams}");
    }
    // Whoever names no path is served as before.
    net.download("client1", 1000).unwrap();
}

fn obeys_pins(net: &Network) {
    net.download("pinned", 1000).unwrap();
    let circuits = net.node("pinned").control().unwrap().circuits().unwrap();
    let pinned: Vec<&str> = ["relay2", "relay1", "exit2"].map(|n| net.node(n).fingerprint()).into();
    assert!(circuits.iter().any(|c| c.path == pinned), "{circuits:?}");
}

fn survives_a_restart(net: &Network) {
    let relay = net.node("relay1");
    let before = relay.pid();
    relay.stop(PATIENCE).unwrap();
    assert_eq!(relay.pid(), None);
    relay.start().unwrap();
    assert_ne!(relay.pid(), before);
    let now = net.consensus().unwrap().valid_after;
    net.wait_consensus("relay1 to be listed again", PATIENCE, |c| {
        c.valid_after > now && c.running(relay.fingerprint()).is_some()
    })
    .unwrap();
}
