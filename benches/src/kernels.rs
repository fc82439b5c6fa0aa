//! Small pieces of work, each with a name: what the criterion benchmarks time, and what `counts` counts instructions of.

use std::hint::black_box;
use std::sync::Arc;

use onionring_proto::cell::{BODY_LEN, Body, CircId, Command, LinkVersion, next_frame, write_fixed};
use onionring_proto::link::judge;
use onionring_proto::netdoc::consensus::UnverifiedConsensus;
use onionring_proto::netdoc::tokenize::Tokenizer;
use onionring_proto::relay_msg::{self, MAX_DATA_LEN, RelayCmd, StreamId};
use onionring_proto::time::Mono;
use onionring_relay::engine::ids::{HomeRule, Leg, LinkId, ShardIndex};
use onionring_relay::engine::queue::{CellPool, LinkQueue};
use onionring_relay::io::bell::Bell;
use onionring_relay::io::mesh::mesh;
use onionring_relay::limits;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

use crate::rig::CELL_LEN;
use crate::tls::CELLS_PER_RECORD;

/// A piece of work.
pub struct Kernel {
    /// Its name.
    pub name: &'static str,
    /// What it does a number of times in one call, in the singular.
    pub unit: &'static str,
    /// That number.
    pub units: u32,
    /// Prepares it; what is returned does it.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

/// All of them: framing, queues, rings and parsing. None has a cipher or much of a digest in it: the counter of
/// instructions does not know the instructions that processors have for those.
pub const KERNELS: &[Kernel] = &[
    Kernel { name: "frame_in", unit: "cell", units: 127, prepare: frame_in },
    Kernel { name: "frame_out", unit: "cell", units: CELLS_PER_RECORD as u32, prepare: frame_out },
    Kernel { name: "relay_message", unit: "cell", units: 1, prepare: relay_message },
    Kernel { name: "home", unit: "leg", units: 64, prepare: home },
    Kernel { name: "queue_quiet", unit: "cell", units: 64, prepare: || queue(64, 1) },
    Kernel { name: "queue_busy", unit: "cell", units: 4_096, prepare: || queue(512, 8) },
    Kernel { name: "ring", unit: "batch", units: 32, prepare: ring },
    Kernel { name: "tokenize", unit: "relay", units: RELAYS, prepare: tokenize },
    Kernel { name: "consensus", unit: "relay", units: RELAYS, prepare: consensus },
];

/// Relays in the consensus of the kernels.
const RELAYS: u32 = 250;

fn cells(count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(count * CELL_LEN);
    for id in 0..count {
        write_fixed(LinkVersion::V5, CircId(id as u32 + 1), Command::RELAY, &[0x5a; BODY_LEN], &mut out);
    }
    out
}

/// Takes the cells of one read off it, one by one.
fn frame_in() -> Box<dyn FnMut()> {
    let mut buf = cells(127);
    Box::new(move || {
        let mut used = 0;
        while let Ok(Some((len, frame))) = next_frame(LinkVersion::V5.into(), &mut buf[used..]) {
            black_box(judge(LinkVersion::V5, &frame)).expect("a relay cell");
            black_box(&frame);
            used += len;
        }
        assert_eq!(used, buf.len());
    })
}

/// Writes the cells of one record.
fn frame_out() -> Box<dyn FnMut()> {
    let mut out = Vec::with_capacity(limits::RECORD_BYTES);
    let body: Body = [0x5a; BODY_LEN];
    Box::new(move || {
        out.clear();
        for id in 0..CELLS_PER_RECORD as u32 {
            write_fixed(LinkVersion::V5, CircId(id), Command::RELAY, black_box(&body), &mut out);
        }
        black_box(&out);
    })
}

/// Makes DATA of a full cell, and reads it.
fn relay_message() -> Box<dyn FnMut()> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let mut body = [0; BODY_LEN];
    let data = [0x5a; MAX_DATA_LEN];
    Box::new(move || {
        relay_msg::encode(RelayCmd::DATA, StreamId(7), black_box(&data), &mut rng, &mut body);
        black_box(relay_msg::decode(black_box(&body)).expect("a message"));
    })
}

/// Finds the homes of legs.
fn home() -> Box<dyn FnMut()> {
    let rule = HomeRule::new([7; 16], 16);
    Box::new(move || {
        for id in 0..64 {
            let leg =
                Leg { link: LinkId::new(ShardIndex(3), 12_345), circ: CircId(black_box(0x8000_0000 + id)) };
            black_box(rule.home(leg));
        }
    })
}

/// Queues cells of many circuits on one link, and takes them out again a record at a time.
fn queue(circuits: u32, each: u32) -> Box<dyn FnMut()> {
    let half_life = limits::CIRCUIT_PRIORITY_HALF_LIFE;
    let mut pool = CellPool::new(1 << 20);
    let mut queue = LinkQueue::new(HomeRule::new([7; 16], 1), half_life, Mono(0));
    let mut out = Vec::with_capacity(2 * limits::RECORD_BYTES);
    let body: Body = [0x5a; BODY_LEN];
    Box::new(move || {
        for _ in 0..each {
            for circ in (1..=circuits).map(CircId) {
                queue
                    .push(&mut pool, Mono(1), circ, Command::RELAY, &body, limits::CELLS_PER_CIRCUIT)
                    .expect("room");
            }
        }
        while !queue.is_empty() {
            out.clear();
            queue.fill(&mut pool, Mono(1), LinkVersion::V5, &mut out, limits::RECORD_FILL);
            black_box(&out);
        }
    })
}

/// Sends batches to another shard, which gives their memory back, on one thread.
fn ring() -> Box<dyn FnMut()> {
    let bells = [Arc::new(Bell::default()), Arc::new(Bell::default())];
    let ports = mesh::<Vec<u64>>(&bells, limits::CROSSING_RING);
    let mut batches: Vec<Vec<u64>> = (0..32).map(|_| Vec::with_capacity(1)).collect();
    Box::new(move || {
        for batch in batches.drain(..) {
            ports[0].send(1, batch).expect("room");
        }
        ports[0].ring(1);
        while let Some(batch) = ports[1].receive(0) {
            ports[1].give_back(0, batch);
        }
        while let Some(batch) = ports[0].take_back(1) {
            batches.push(batch);
        }
        assert_eq!(batches.len(), 32);
    })
}

/// Splits a consensus into its lines and their words.
fn tokenize() -> Box<dyn FnMut()> {
    let text = consensus_text();
    Box::new(move || {
        for item in Tokenizer::new(black_box(&text)) {
            black_box(&item).as_ref().expect("a consensus");
        }
    })
}

/// Reads a consensus, its digests included.
fn consensus() -> Box<dyn FnMut()> {
    let text = consensus_text();
    let listed = UnverifiedConsensus::parse(&text).expect("a consensus").peek().relays.len();
    assert_eq!(listed, RELAYS as usize);
    Box::new(move || {
        black_box(UnverifiedConsensus::parse(black_box(&text)).expect("a consensus"));
    })
}

/// A consensus as authorities made it, its first relay many times under other names.
fn consensus_text() -> String {
    const MADE: &str = include_str!("../../proto/src/netdoc/testdata/consensus_microdesc.txt");
    let (head, rest) = MADE.split_once("\nr ").expect("a relay");
    let (relays, foot) = rest.split_once("\ndirectory-footer").expect("a footer");
    let (first, _) = relays.split_once("\nr ").expect("several relays");
    let [name, _identity, others] = first.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("an r line") };
    let mut text = format!("{head}\n");
    for number in 0..RELAYS {
        // 27 digits of base64, in the order of the numbers.
        let digit = |shift: u32| char::from(b'A' + (number >> shift & 15) as u8);
        let identity = format!("{}{}{}{}", digit(8), digit(4), digit(0), "A".repeat(24));
        text += &format!("r {name} {identity} {others}\n");
    }
    text + "directory-footer" + foot
}
