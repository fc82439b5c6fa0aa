//! A relayed cell costs no allocation: not in its home shard, not on the way to another, not on the way out.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use onionring_proto::cell::{Command, write_fixed};
use onionring_proto::relay_msg::RelayCmd;
use onionring_relay::engine::event::{Event, LinkEvent};
use onionring_relay::engine::ids::ShardIndex;

use super::by_hand::ByHand;
use super::keys::EPOCH;
use super::net::{FakeTls, Net, NetConfig};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting for each thread what it is asked for.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting touches nothing but a `const` thread-local
// without a destructor, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is this one's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this layout.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: `ptr` came from `System` with this layout, and the caller keeps the rest of the contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Cells in one read.
const CELLS: usize = 200;

#[test]
fn relayed_cells_allocate_nothing() {
    for shards in [1, 2] {
        let mut net = Net::new(1, NetConfig::new(&[shards, 1]));
        let client = net.client(0);
        let mut circuit = ByHand::create(&mut net, client);
        circuit.extend(&mut net, 1);
        let (link, entry) = net.link_of(client);
        let version = net.peers[client].link().unwrap().version;
        let mut out = Vec::with_capacity(2 * CELLS * 514);
        let mut rounds = Vec::new();
        for _ in 0..10 {
            let mut cells = Vec::new();
            for _ in 0..CELLS {
                let body = circuit.seal(&mut net, 1, RelayCmd::DROP, 0, &[]);
                write_fixed(version, circuit.id, Command::RELAY, &body, &mut cells);
            }
            let now = net.now;
            let engines = &mut net.relays[0].engines;
            let before = allocations();
            let tls = FakeTls(net.peers[client].wire.unwrap().0);
            assert_eq!(engines[entry].handle_link_data(now, EPOCH, link, &mut cells, &tls), cells.len());
            // Twice: to the circuit's home, and from there to the link.
            for _ in 0..2 {
                for (from, to) in [(0, 1), (1, 0)] {
                    while shards == 2
                        && let Some(mut batch) = engines[from].take_batch(ShardIndex(to))
                    {
                        engines[usize::from(to)].handle_batch(now, &mut batch);
                        engines[from].recycle_batch(batch);
                    }
                }
            }
            out.clear();
            for engine in engines.iter_mut() {
                while let Some(event) = engine.poll_event() {
                    let Event::Link(LinkEvent::Writable(link)) = event else { panic!("{event:?}") };
                    while engine.poll_transmit(now, link, &mut out, 2 * CELLS * 514) {}
                }
            }
            rounds.push(allocations() - before);
            assert_eq!(out.len(), CELLS * 514);
        }
        // The first reads grow the buffers that the later ones use.
        assert_eq!(rounds[3..], [0; 7], "{rounds:?}");
    }
}
