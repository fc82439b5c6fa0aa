//! Where lines go: a file, a standard stream or the system log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use onionring_proto::torrc::log::{LogLine, Severity, Target};

use super::{LogError, LogOptions};

/// One destination, with what it takes.
pub struct Sink {
    line: LogLine,
    output: Output,
}

enum Output {
    Stdout,
    Stderr,
    File(File),
    Syslog { socket: UnixDatagram, identity: String },
}

impl Sink {
    /// Opens what `line` names.
    pub fn open(line: &LogLine, options: &LogOptions) -> Result<Self, LogError> {
        let output = match &line.target {
            Target::Stdout => Output::Stdout,
            Target::Stderr => Output::Stderr,
            Target::File(name) => {
                let path = PathBuf::from(name);
                Output::File(
                    open_file(&path, options.truncate).map_err(|source| LogError::File { path, source })?,
                )
            }
            Target::Syslog => Output::Syslog {
                socket: connect_syslog(Path::new(SYSLOG)).map_err(LogError::Syslog)?,
                identity: options.syslog_identity.clone(),
            },
        };
        Ok(Sink { line: line.clone(), output })
    }

    /// Whether messages of this severity and domain go here.
    pub fn wants(&self, severity: Severity, domain: &str) -> bool {
        self.line.accepts(severity, domain)
    }

    /// Writes one message: `line` is it with time and severity, and ends in a newline. A destination that fails (a full
    /// disk) loses the message and nothing else: there is nowhere to complain.
    pub fn write(&self, severity: Severity, message: &str, line: &str) {
        // One write per line: lines of several threads do not mix.
        let _ = match &self.output {
            Output::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            Output::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Output::File(file) => (&*file).write_all(line.as_bytes()),
            Output::Syslog { socket, identity } => send(socket, identity, severity, message),
        };
    }
}

fn open_file(path: &Path, truncate: bool) -> io::Result<File> {
    if truncate {
        // Emptied first, because a file cannot be opened to be both truncated and appended to.
        File::options().write(true).create(true).truncate(true).mode(LOG_MODE).open(path)?;
    }
    OpenOptions::new().append(true).create(true).mode(LOG_MODE).open(path)
}

/// For the owner and its group, as C tor creates them.
const LOG_MODE: u32 = 0o640;

const SYSLOG: &str = "/dev/log";

/// The facility "daemon" of syslog(3).
const DAEMON: u8 = 3 << 3;

fn connect_syslog(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    // A system log that is behind must not stop the relay.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn send(socket: &UnixDatagram, identity: &str, severity: Severity, message: &str) -> io::Result<()> {
    let level = match severity {
        Severity::Err => 3,
        Severity::Warn => 4,
        Severity::Notice => 5,
        Severity::Info => 6,
        Severity::Debug => 7,
    };
    // The daemon adds the time.
    let datagram = format!("<{}>{identity}[{}]: {message}", DAEMON | level, std::process::id());
    if socket.send(datagram.as_bytes()).is_err() {
        // It may have been restarted since.
        socket.connect(SYSLOG)?;
        socket.send(datagram.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_log_gets_priority_identity_and_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let socket = connect_syslog(&path).unwrap();
        send(&socket, "onionring-relay", Severity::Warn, "careful").unwrap();
        let mut buf = [0; 100];
        let len = daemon.recv(&mut buf).unwrap();
        let expected = format!("<28>onionring-relay[{}]: careful", std::process::id());
        assert_eq!(std::str::from_utf8(&buf[..len]).unwrap(), expected);
    }
}
