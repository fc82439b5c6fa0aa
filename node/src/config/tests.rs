use std::path::Path;
use std::time::Duration;

use onionring_proto::torrc::log::Severity;

use super::*;

#[test]
fn home_directories_are_expanded() {
    let expand = |path| expand_home(path, Some(Path::new("/home/op")));
    assert_eq!(expand("~/x"), Path::new("/home/op/x"));
    assert_eq!(expand("~"), Path::new("/home/op"));
    assert_eq!(expand("~other/x"), Path::new("~other/x"));
    assert_eq!(expand("/x~"), Path::new("/x~"));
}

#[test]
fn without_log_lines_the_command_line_says_how_much_is_printed() {
    let config = LogConfig {
        lines: Vec::new(),
        granularity: Duration::from_secs(1),
        domains: false,
        truncate: false,
        syslog_tag: None,
        safe: true,
    };
    for (quiet, lowest) in
        [(Quiet::No, Severity::Notice), (Quiet::Hush, Severity::Warn), (Quiet::Quiet, Severity::Err)]
    {
        assert_eq!(config.options(quiet).lines[0].lowest(), lowest);
        assert_eq!(config.everything(quiet).lines[0].lowest(), Severity::Debug);
    }
}
