//! Rates of the pieces whose instructions `counts` counts, and of the TLS record path.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use onionring_benches::kernels::KERNELS;
use onionring_benches::tls::{CELLS_PER_RECORD, RecordPath};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;

fn kernels(criterion: &mut Criterion) {
    for kernel in KERNELS {
        let mut group = criterion.benchmark_group("pieces");
        group.throughput(Throughput::Elements(kernel.units.into()));
        let mut work = (kernel.prepare)();
        group.bench_function(kernel.name, |bencher| bencher.iter(&mut work));
    }
}

/// Sealing and opening one full record.
fn tls(criterion: &mut Criterion) {
    let mut path = RecordPath::new(&mut ChaCha20Rng::seed_from_u64(1));
    let mut group = criterion.benchmark_group("pieces");
    group.throughput(Throughput::Elements(CELLS_PER_RECORD as u64));
    group.bench_function("tls_record", |bencher| bencher.iter(|| path.record()));
}

fn config() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group! { name = pieces; config = config(); targets = kernels, tls }
criterion_main!(pieces);
