//! What relaying costs without sockets and TLS, on one shard and on several; what the rule for homes makes of it; and
//! what a model says of more shards than there are cores here.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use onionring_benches::model::Costs;
use onionring_benches::rig::{Homes, Identity, Rig, Size};
use onionring_benches::shard::{self, Done, Load};
use onionring_benches::tls::{CELLS_PER_RECORD, RecordPath};
use onionring_relay::engine::cross::Batch;
use onionring_relay::io::bell::Bell;
use onionring_relay::io::mesh::mesh;
use onionring_relay::limits::CROSSING_RING;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

/// Shards of a relay in memory: cells in, cells out, no sockets and no TLS.
#[derive(Debug, Parser)]
struct Arguments {
    /// Numbers of shards to compare, the first with each other one
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2")]
    shards: Vec<u16>,
    /// Where circuits live
    #[arg(long, value_enum, value_delimiter = ',', default_value = "hash,link")]
    home: Vec<Homes>,
    /// Cells per second on each shard, with shards that sleep in between; as many as they take, if not given
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Rounds; all combinations have their turn in each
    #[arg(long, value_name = "N", default_value_t = 9)]
    rounds: usize,
    /// Milliseconds of each measurement
    #[arg(long, value_name = "MS", default_value_t = 300)]
    time: u64,
    /// Links with clients on each shard, and as many with relays
    #[arg(long, value_name = "N", default_value_t = 4)]
    links: usize,
    /// Circuits on each link of a client
    #[arg(long, value_name = "N", default_value_t = 32)]
    circuits: usize,
    /// Cells that one read brings
    #[arg(long, value_name = "N", default_value_t = 64)]
    burst: usize,
    /// Cells under way at most, for each shard
    #[arg(long, value_name = "N", default_value_t = 512)]
    window: i64,
    /// Also say what 4, 16 and 64 shards would do
    #[arg(long)]
    model: bool,
    /// Cores that share a cache, as the model is to assume
    #[arg(long, value_name = "N", default_value_t = 8.0)]
    cores_per_cache: f64,
    /// What a crossing beyond those cores costs over one among them, as the model is to assume
    #[arg(long, value_name = "FACTOR", default_value_t = 3.0)]
    remote: f64,
}

/// Measurements of one combination.
type Rounds = Vec<Done>;

fn main() {
    let arguments = Arguments::parse();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let most = arguments.shards.iter().copied().max().unwrap_or(1);
    let relays: Vec<_> = (0..arguments.size(most).relays()).map(|_| Identity::generate(&mut rng)).collect();
    let bursts = if arguments.model { vec![2, 8, arguments.burst] } else { vec![arguments.burst] };

    let mut done: BTreeMap<(usize, u16, usize), Rounds> = BTreeMap::new();
    for _ in 0..arguments.rounds {
        for &burst in &bursts {
            for &shards in &arguments.shards {
                for (number, &homes) in arguments.home.iter().enumerate() {
                    let rig = Rig::new(arguments.size(shards), homes, &relays);
                    let round = shard::run(rig, arguments.load(burst));
                    done.entry((burst, shards, number)).or_default().push(round);
                }
            }
        }
    }
    println!(
        "burst  shards  home      cells/s  CPU ns/cell  least  crossings  batch  naps/1000  over {}",
        arguments.shards[0]
    );
    for (&(burst, shards, number), rounds) in &done {
        let base = &done[&(burst, arguments.shards[0], number)];
        let scaling = f64::from(shards) / f64::from(arguments.shards[0]);
        let of = |f: fn(&Done) -> f64| median(rounds, f);
        println!(
            "{burst:5}  {shards:6}  {:4} {:12.0}  {:11.0}  {:5.0}  {:9.2}  {:5.1}  {:9.2}  {:.2} by clock, {:.2} by CPU time ({:.2} by least)",
            format!("{:?}", arguments.home[number]).to_lowercase(),
            of(Done::rate),
            of(Done::cost),
            least(rounds),
            of(Done::crossings_per_cell),
            of(Done::batch),
            of(|done| 1000.0 * done.naps as f64 / done.cells as f64),
            of(Done::rate) / median(base, Done::rate),
            scaling * median(base, Done::cost) / of(Done::cost),
            scaling * least(base) / least(rounds),
        );
    }
    println!("\nBy clock, other load on the machine counts; by CPU time, only what it does to caches.");
    if arguments.model {
        model(&arguments, &done, &mut rng);
    }
}

impl Arguments {
    fn size(&self, shards: u16) -> Size {
        Size { shards, links: self.links, circuits: self.circuits }
    }

    fn load(&self, burst: usize) -> Load {
        Load {
            burst,
            rate: self.rate,
            window: self.window,
            warm_up: Duration::from_millis(100),
            time: Duration::from_millis(self.time),
        }
    }
}

fn median(rounds: &Rounds, of: impl Fn(&Done) -> f64) -> f64 {
    let mut figures: Vec<f64> = rounds.iter().map(of).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The least CPU time of a cell: the round that others disturbed least.
fn least(rounds: &Rounds) -> f64 {
    rounds.iter().map(Done::cost).fold(f64::INFINITY, f64::min)
}

/// Prints the constants of the model, and what follows.
fn model(arguments: &Arguments, done: &BTreeMap<(usize, u16, usize), Rounds>, rng: &mut ChaCha20Rng) {
    let mut points = Vec::new();
    for (&(burst, shards, number), rounds) in done.iter().filter(|((_, shards, _), _)| *shards == 2) {
        let Some(alone) = done.get(&(burst, 1, number)) else { continue };
        let crossings = median(rounds, Done::crossings_per_cell);
        let cost = (least(rounds) - least(alone)) / crossings;
        println!("burst {burst}, {shards} shards, {:?}: a crossing {cost:.0} ns", arguments.home[number]);
        points.push((median(rounds, Done::batch), cost));
    }
    let Some(alone) = done.get(&(arguments.burst, 1, 0)).filter(|_| points.len() > 1) else {
        return println!("the model needs measurements of 1 and 2 shards");
    };
    let (crossing, batch) = Costs::fit(&points);
    let costs = Costs {
        cell: least(alone),
        tls: tls(rng),
        crossing,
        batch,
        lane: lane(),
        turn: arguments.window as f64,
        cores_per_cache: arguments.cores_per_cache,
        remote: arguments.remote,
    };
    println!("\n{costs:#.1?}\n");
    println!("shards  home  crossings  batch  crossing ns  lanes ns  balance  engine  with TLS  rings, full");
    for shards in [2, 4, 16, 64] {
        for homes in [Homes::Hash, Homes::Link] {
            let p = costs.predict(shards, homes);
            println!(
                "{shards:6}  {:4}  {:9.2}  {:5.1}  {:11.0}  {:8.1}  {:7.2}  {:6.1}  {:8.1}  {:7.0} MiB",
                format!("{homes:?}").to_lowercase(),
                p.crossings,
                p.batch,
                p.crossing,
                p.lanes,
                p.balance,
                p.engine,
                p.relay,
                p.ring_bytes / f64::from(1 << 20),
            );
        }
    }
}

/// Nanoseconds of TLS for a cell, sealed and opened.
fn tls(rng: &mut ChaCha20Rng) -> f64 {
    let mut path = RecordPath::new(rng);
    quickest(2_000, || path.record()) / CELLS_PER_RECORD as f64
}

/// Nanoseconds of a look at the lane to another shard that has nothing.
fn lane() -> f64 {
    const SHARDS: usize = 64;
    let bells: Vec<_> = (0..SHARDS).map(|_| Arc::new(Bell::default())).collect();
    let ports = mesh::<Batch>(&bells, CROSSING_RING);
    let look = || {
        for other in ports[0].others() {
            black_box((ports[0].receive(other), ports[0].take_back(other)));
        }
    };
    quickest(10_000, look) / (SHARDS - 1) as f64
}

/// Nanoseconds of one call, in the quickest of ten rounds.
fn quickest(calls: u32, mut call: impl FnMut()) -> f64 {
    let round = |_| {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    (0..10).map(round).fold(f64::INFINITY, f64::min)
}
