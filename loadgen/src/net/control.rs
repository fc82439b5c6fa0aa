//! A small client for the control port (control-spec): what tests ask of a stock tor.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use thiserror::Error;

/// How long a reply may take. Replies are immediate; what takes time is reported by events.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a circuit's state is asked for while waiting.
const POLL: Duration = Duration::from_millis(50);

/// What can go wrong on a control connection.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The connection failed.
    #[error("control port: {0}")]
    Io(#[from] io::Error),
    /// Tor answered with an error.
    #[error("control port: `{command}` was answered with `{reply}`")]
    Refused {
        /// What was asked.
        command: String,
        /// The status line of the answer.
        reply: String,
    },
    /// Tor answered with something this client does not understand.
    #[error("control port: `{command}`: cannot understand `{reply}`")]
    Unexpected {
        /// What was asked.
        command: String,
        /// The answer.
        reply: String,
    },
    /// A circuit was closed before it was built.
    #[error("circuit {id} over {path} failed; its last state was {state}")]
    CircuitFailed {
        /// The circuit's number at the client.
        id: u32,
        /// The relays asked for.
        path: String,
        /// The last line of `circuit-status` that named it, or the event that ended it.
        state: String,
    },
    /// Something did not happen in time.
    #[error("control port: waited {after:?} in vain for {what}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// For how long.
        after: Duration,
    },
}

/// One line of `GETINFO circuit-status` (control-spec 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// The client's number for the circuit; not the circID on the wire.
    pub id: u32,
    /// `LAUNCHED`, `EXTENDED`, `BUILT`, ...
    pub state: String,
    /// Fingerprints of the hops so far, upper-case hex, the first hop first.
    pub path: Vec<String>,
    /// `GENERAL`, `HS_CLIENT_REND`, ...; empty if not said.
    pub purpose: String,
}

/// An authenticated control connection.
#[derive(Debug)]
pub struct Control {
    reader: BufReader<TcpStream>,
    /// The beginning of a line whose rest had not arrived when time was up.
    partial: Vec<u8>,
    events: VecDeque<String>,
}

impl Control {
    /// Connects to `address` and authenticates with the cookie in the file `cookie`.
    pub fn connect(address: SocketAddr, cookie: &Path) -> Result<Control, ControlError> {
        let stream = TcpStream::connect_timeout(&address, REPLY_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(REPLY_TIMEOUT))?;
        let mut control =
            Control { reader: BufReader::new(stream), partial: Vec::new(), events: VecDeque::new() };
        let cookie = fs::read(cookie).map_err(|e| {
            io::Error::new(e.kind(), format!("cannot read the cookie {}: {e}", cookie.display()))
        })?;
        let hex: String = cookie.iter().map(|byte| format!("{byte:02x}")).collect();
        control.command(&format!("AUTHENTICATE {hex}"))?;
        Ok(control)
    }

    /// Another handle on the connection; shutting it down ends a wait in another thread.
    pub fn stream(&self) -> io::Result<TcpStream> {
        self.reader.get_ref().try_clone()
    }

    /// Sends a command and returns the lines of its reply, without status codes. Multi-line data follow their line.
    pub fn command(&mut self, command: &str) -> Result<Vec<String>, ControlError> {
        self.reader.get_mut().write_all(format!("{command}\r\n").as_bytes())?;
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let mut reply = Vec::new();
        loop {
            let line = self.line(deadline)?.ok_or_else(|| ControlError::TimedOut {
                what: format!("a reply to `{command}`"),
                after: REPLY_TIMEOUT,
            })?;
            let (Some(code), Some(kind), Some(text)) = (line.get(..3), line.get(3..4), line.get(4..)) else {
                return Err(ControlError::Unexpected { command: command.into(), reply: line });
            };
            if code == "650" {
                self.event(kind, text.to_owned(), deadline)?;
                continue;
            }
            reply.push(text.to_owned());
            if kind == "+" {
                self.data(&mut reply, deadline)?;
            }
            if kind == " " {
                return match code {
                    "250" => Ok(reply),
                    _ => Err(ControlError::Refused { command: command.into(), reply: line }),
                };
            }
        }
    }

    /// The value of one `GETINFO` key.
    pub fn get_info(&mut self, key: &str) -> Result<String, ControlError> {
        let command = format!("GETINFO {key}");
        let mut lines = self.command(&command)?;
        lines.pop(); // the final OK
        let reply = lines.join("\n");
        match reply.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
            Some(value) => Ok(value.trim_start_matches('\n').to_owned()),
            None => Err(ControlError::Unexpected { command, reply }),
        }
    }

    /// How far the client has come, in percent, and what it is doing.
    pub fn bootstrap(&mut self) -> Result<(u8, String), ControlError> {
        let phase = self.get_info("status/bootstrap-phase")?;
        let value = |key: &str| {
            let rest = phase.split_once(key)?.1;
            Some(rest.trim_start_matches('"').split(['"', ' ']).next()?.to_owned())
        };
        let percent = value("PROGRESS=").and_then(|p| p.parse().ok()).unwrap_or(0);
        Ok((percent, value("TAG=").unwrap_or_default()))
    }

    /// All circuits of this client.
    pub fn circuits(&mut self) -> Result<Vec<Circuit>, ControlError> {
        Ok(self.get_info("circuit-status")?.lines().filter_map(parse_circuit).collect())
    }

    /// Asks for a new circuit over exactly these relays (fingerprints, the first hop first) and returns its number
    /// at once; [`wait_built`](Self::wait_built) waits for it.
    pub fn extend_circuit(&mut self, path: &[&str]) -> Result<u32, ControlError> {
        self.extend(0, path)
    }

    /// Extends the circuit `id` by these relays.
    pub fn extend(&mut self, id: u32, path: &[&str]) -> Result<u32, ControlError> {
        let path: Vec<String> = path.iter().map(|fingerprint| format!("${fingerprint}")).collect();
        let command = format!("EXTENDCIRCUIT {id} {}", path.join(","));
        let reply = self.command(&command)?.join(" ");
        let id = reply.strip_prefix("EXTENDED ").and_then(|id| id.parse().ok());
        id.ok_or(ControlError::Unexpected { command, reply })
    }

    /// Waits until the circuit `id` is built and returns it.
    pub fn wait_built(&mut self, id: u32, patience: Duration) -> Result<Circuit, ControlError> {
        let deadline = Instant::now() + patience;
        let mut last = None;
        loop {
            match self.circuits()?.into_iter().find(|c| c.id == id) {
                Some(circuit) if circuit.state == "BUILT" => return Ok(circuit),
                Some(circuit) if circuit.state != "FAILED" && circuit.state != "CLOSED" => {
                    last = Some(circuit)
                }
                other => {
                    let last = other.or(last);
                    let path = last.as_ref().map_or_else(String::new, |c| c.path.join(","));
                    let state = last.map_or_else(|| "never listed".into(), |c| c.state);
                    return Err(ControlError::CircuitFailed { id, path, state });
                }
            }
            if Instant::now() >= deadline {
                let reached = last.map_or(0, |c| c.path.len());
                let what = format!("circuit {id} to be built (reached {reached} hops)");
                return Err(ControlError::TimedOut { what, after: patience });
            }
            thread::sleep(POLL);
        }
    }

    /// Closes a circuit. It is no error if it is closed already.
    pub fn close_circuit(&mut self, id: u32) -> Result<(), ControlError> {
        match self.command(&format!("CLOSECIRCUIT {id}")) {
            Ok(_) => Ok(()),
            Err(ControlError::Refused { reply, .. }) if reply.starts_with("552") => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Attaches a stream to a circuit; circuit 0 lets tor choose.
    pub fn attach_stream(&mut self, stream: u32, circuit: u32) -> Result<(), ControlError> {
        self.command(&format!("ATTACHSTREAM {stream} {circuit}")).map(drop)
    }

    /// `SIGNAL`: `NEWNYM`, `RELOAD`, `HEARTBEAT`, ... (control-spec 3.7).
    pub fn signal(&mut self, name: &str) -> Result<(), ControlError> {
        self.command(&format!("SIGNAL {name}")).map(drop)
    }

    /// Sets a configuration option, as in torrc.
    pub fn set_conf(&mut self, option: &str, value: &str) -> Result<(), ControlError> {
        self.command(&format!("SETCONF {option}=\"{value}\"")).map(drop)
    }

    /// Subscribes to these kinds of events, and to no others.
    pub fn set_events(&mut self, kinds: &[&str]) -> Result<(), ControlError> {
        self.command(&format!("SETEVENTS {}", kinds.join(" "))).map(drop)
    }

    /// The next event, without its `650`; `None` if none came in time.
    pub fn next_event(&mut self, patience: Duration) -> Result<Option<String>, ControlError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(line) = self.line(deadline)? else { return Ok(None) };
            if let (Some("650"), Some(kind), Some(text)) = (line.get(..3), line.get(3..4), line.get(4..)) {
                self.event(kind, text.to_owned(), deadline)?;
            }
        }
    }

    /// Queues one event together with the lines that continue it.
    fn event(&mut self, kind: &str, first: String, deadline: Instant) -> Result<(), ControlError> {
        let mut lines = vec![first];
        let mut kind = kind.to_owned();
        while kind != " " {
            if kind == "+" {
                self.data(&mut lines, deadline)?;
            }
            let Some(line) = self.line(deadline)? else { break };
            kind = line.get(3..4).unwrap_or(" ").to_owned();
            lines.push(line.get(4..).unwrap_or_default().to_owned());
        }
        self.events.push_back(lines.join("\n"));
        Ok(())
    }

    /// Reads the lines of a data block up to its lone dot.
    fn data(&mut self, into: &mut Vec<String>, deadline: Instant) -> Result<(), ControlError> {
        while let Some(line) = self.line(deadline)? {
            if line == "." {
                break;
            }
            into.push(line.strip_prefix('.').map_or(line.clone(), str::to_owned));
        }
        Ok(())
    }

    /// One line without its CRLF; `None` when the deadline passes.
    fn line(&mut self, deadline: Instant) -> Result<Option<String>, ControlError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // A zero time-out would mean forever.
            self.reader.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.reader.read_until(b'\n', &mut self.partial) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(_) if self.partial.ends_with(b"\n") => {
                    let line =
                        String::from_utf8_lossy(&self.partial).trim_end_matches(['\r', '\n']).to_owned();
                    self.partial.clear();
                    return Ok(Some(line));
                }
                Ok(_) => continue,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Parses a line of `circuit-status`, or the text of a `CIRC` event after its first word.
pub fn parse_circuit(line: &str) -> Option<Circuit> {
    let mut words = line.split(' ');
    let id = words.next()?.parse().ok()?;
    let state = words.next()?.to_owned();
    let rest: Vec<&str> = words.collect();
    let path = match rest.first() {
        Some(path) if path.starts_with('$') => path.split(',').filter_map(fingerprint_of).collect(),
        _ => Vec::new(),
    };
    let purpose = rest.iter().find_map(|w| w.strip_prefix("PURPOSE=")).unwrap_or_default().to_owned();
    Some(Circuit { id, state, path, purpose })
}

/// `$FINGERPRINT~nickname` to `FINGERPRINT`.
fn fingerprint_of(long_name: &str) -> Option<String> {
    Some(long_name.strip_prefix('$')?.split(['~', '=']).next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuit_lines() {
        let line =
            "7 BUILT $AA11~one,$BB22=two,$CC33 BUILD_FLAGS=NEED_CAPACITY PURPOSE=GENERAL TIME_CREATED=x";
        let circuit = parse_circuit(line).unwrap();
        assert_eq!((circuit.id, circuit.state.as_str(), circuit.purpose.as_str()), (7, "BUILT", "GENERAL"));
        assert_eq!(circuit.path, ["AA11", "BB22", "CC33"]);
        let launched = parse_circuit("8 LAUNCHED BUILD_FLAGS=IS_INTERNAL PURPOSE=HS_CLIENT_REND").unwrap();
        assert!(launched.path.is_empty());
        assert_eq!(parse_circuit("nonsense"), None);
    }
}
