//! Onion layers at relay, client and exit, and the handshakes of circuits and links.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onionring_benches::rig::{Identity, NoTls, UNIX};
use onionring_proto::cell::{BODY_LEN, Body, LinkVersion};
use onionring_proto::crypto::tor1::{ClientOnion, KeyMaterial, RelayLayer};
use onionring_proto::handshake::{OnionKey, OnionKeyRing, fast, ntor};
use onionring_proto::link::{ExpectedPeer, Handshake, LinkParams};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

/// Cells that are made ready at a time where each can be used once only.
const CHUNK: u64 = 64;

fn keys(hop: u8) -> KeyMaterial {
    KeyMaterial { df: [hop; 20], db: [hop + 1; 20], kf: [hop + 2; 16], kb: [hop + 3; 16], kh: [0; 20] }
}

fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layers");
    group.throughput(Throughput::Elements(1));
    let mut body: Body = [0x5a; BODY_LEN];

    let mut relay = RelayLayer::new(&keys(1));
    group.bench_function("relay_outbound", |bencher| {
        bencher.iter(|| black_box(relay.decrypt_outbound(black_box(&mut body))));
    });
    group.bench_function("relay_inbound", |bencher| {
        bencher.iter(|| relay.encrypt_inbound(black_box(&mut body)));
    });

    // The client's running digest and the exit's go together, so they are made and used in step.
    let mut client = ClientOnion::new();
    client.push_hop(&keys(1));
    let mut exit = RelayLayer::new(&keys(1));
    group.bench_function("exit_outbound", |bencher| {
        bencher.iter_custom(|cells| {
            let mut time = Duration::ZERO;
            for start in (0..cells).step_by(CHUNK as usize) {
                let mut bodies = vec![[0; BODY_LEN]; CHUNK.min(cells - start) as usize];
                for body in &mut bodies {
                    client.encrypt_outbound(0, body);
                }
                let begin = Instant::now();
                for body in &mut bodies {
                    assert!(exit.decrypt_outbound(body).is_some(), "a cell for this relay");
                }
                time += begin.elapsed();
            }
            time
        });
    });
    group.bench_function("exit_inbound", |bencher| {
        bencher.iter(|| {
            body[1..3].fill(0);
            black_box(exit.originate_inbound(black_box(&mut body)));
        });
    });

    let mut client = ClientOnion::new();
    (0..3).for_each(|hop| client.push_hop(&keys(hop)));
    group.bench_function("client_outbound", |bencher| {
        bencher.iter(|| {
            body[1..3].fill(0);
            black_box(client.encrypt_outbound(2, black_box(&mut body)));
        });
    });
    let mut hops = [0, 1, 2].map(|hop| RelayLayer::new(&keys(hop)));
    group.bench_function("client_inbound", |bencher| {
        bencher.iter_custom(|cells| {
            let mut time = Duration::ZERO;
            for start in (0..cells).step_by(CHUNK as usize) {
                let mut bodies = vec![[0; BODY_LEN]; CHUNK.min(cells - start) as usize];
                for body in &mut bodies {
                    hops[2].originate_inbound(body);
                    hops[1].encrypt_inbound(body);
                    hops[0].encrypt_inbound(body);
                }
                let begin = Instant::now();
                for body in &mut bodies {
                    assert!(matches!(client.decrypt_inbound(body), Some((2, _))), "a cell of the last hop");
                }
                time += begin.elapsed();
            }
            time
        });
    });
}

fn circuits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshakes");
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let rsa_id = [9; 20];
    let key = OnionKey::generate(&mut rng);
    let public = *key.public();
    let ring = OnionKeyRing::new(key, None, &mut rng);
    let (_, message) = ntor::Client::start(&mut rng, &rsa_id, &public);
    group.bench_function("ntor_relay", |bencher| {
        bencher.iter(|| ntor::server(&mut rng, &rsa_id, &ring, black_box(&message)).expect("a reply"));
    });
    group.bench_function("ntor_both", |bencher| {
        bencher.iter(|| {
            let (client, message) = ntor::Client::start(&mut rng, &rsa_id, &public);
            let (reply, _) = ntor::server(&mut rng, &rsa_id, &ring, &message).expect("a reply");
            client.finish(&reply).expect("keys")
        });
    });
    group.bench_function("create_fast_relay", |bencher| {
        bencher.iter(|| fast::server(&mut rng, black_box(&[7; 20])));
    });
}

/// Both sides of the handshake inside TLS, between relays that prove who they are.
fn links(criterion: &mut Criterion) {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let [initiator, responder] = [(); 2].map(|()| Identity::generate(&mut rng));
    let params = LinkParams {
        versions: LinkVersion::ALL.to_vec(),
        peer_address: Ipv4Addr::LOCALHOST.into(),
        own_addresses: vec![Ipv4Addr::LOCALHOST.into()],
    };
    let mut group = criterion.benchmark_group("handshakes");
    group.bench_function("link_both", |bencher| {
        bencher.iter(|| {
            let me = Some(initiator.link.clone());
            let mut ends = [
                Handshake::initiator(me, ExpectedPeer::default(), &responder.leaf, params.clone()),
                Handshake::responder(responder.link.clone(), params.clone()),
            ];
            let mut open = 0;
            while open < 2 {
                for [from, to] in [[0, 1], [1, 0]] {
                    let mut bytes = Vec::new();
                    ends[from].poll_transmit(&mut bytes);
                    if !bytes.is_empty() {
                        let (_, established) =
                            ends[to].handle(UNIX, &mut bytes, &NoTls, &mut rng).expect("cells");
                        open += usize::from(established.is_some());
                    }
                }
            }
        });
    });
}

fn config() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group! { name = crypto; config = config(); targets = layers, circuits, links }
criterion_main!(crypto);
