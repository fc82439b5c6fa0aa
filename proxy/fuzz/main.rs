//! One fuzzer for all targets; `FUZZ_TARGET` says which. `scripts/fuzz` builds and runs it.
#![no_main]

use std::env;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

#[path = "../tests/fuzz/targets.rs"]
mod targets;

fn chosen() -> fn(&[u8]) {
    let name = env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    let (_, target) =
        targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target that exists");
    *target
}

fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();
    TARGET.get_or_init(chosen)(data);
});
