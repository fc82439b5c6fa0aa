use std::path::PathBuf;

use onionring_node::private_dir::PrivateDirError;

use super::*;

#[test]
fn exit_codes_are_those_of_the_help() {
    let store = onionring_node::lock::LockError::Taken(PathBuf::from("/x"));
    let errors: [(RunError, u8); 4] = [
        (SystemLacks::IoUringBarred(2).into(), 3),
        (RunError::Fatal("a shard ended".to_owned()), 3),
        (PrepareError::Lock(store).into(), 2),
        (KeyError::Empty(PathBuf::from("/x")).into(), 2),
    ];
    for (error, code) in errors {
        assert_eq!(error.exit_code(), code, "{error}");
    }
    let _: fn(PrivateDirError) -> PrepareError = PrepareError::from;
}

#[test]
fn link_protocols_that_mean_nothing_are_ignored() {
    assert_eq!(link_versions("4,5").unwrap().len(), 2);
    assert_eq!(link_versions("x, 99,"), None);
}
