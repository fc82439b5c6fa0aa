use std::path::PathBuf;

use onionring_node::private_dir::PrivateDirError;
use onionring_proto::torrc::log::Severity;

use super::*;
use crate::cli::Quiet;
use crate::config::LogConfig;

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

#[test]
fn without_log_lines_the_command_line_says_how_much_is_printed() {
    let config = LogConfig {
        lines: Vec::new(),
        granularity: std::time::Duration::from_secs(1),
        domains: false,
        truncate: false,
        syslog_tag: None,
        safe: true,
    };
    for (quiet, lowest) in
        [(Quiet::No, Severity::Notice), (Quiet::Hush, Severity::Warn), (Quiet::Quiet, Severity::Err)]
    {
        assert_eq!(log_options(&config, quiet).lines[0].lowest(), lowest);
    }
}
