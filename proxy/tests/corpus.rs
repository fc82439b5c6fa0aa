//! The fuzz targets without the fuzzer: every kept input, and mutations of each, must do no harm.

use std::path::Path;

#[path = "../../proto/tests/fuzz/replay.rs"]
mod replay;
#[path = "fuzz/targets.rs"]
mod targets;

#[test]
fn kept_inputs_and_mutations_of_them_do_no_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    replay::replay(&corpus, targets::TARGETS);
}
