//! Who is the relay? A link says its identity, and a directory stream on it says its onion key.

use std::time::Instant;

use onionring_proto::cell::{Body, CircId, Command};
use onionring_proto::link::PeerIdentity;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::origin::{Event, FirstHop, OriginCircuit, OriginConfig, StreamKey};
use onionring_proto::time::Mono;

use super::error::LoadError;
use super::lane::{Core, Job};

const CIRCUIT: CircId = CircId(1 << 31 | 1);
/// Every relay serves its own descriptor here.
const REQUEST: &[u8] = b"GET /tor/server/authority HTTP/1.0\r\n\r\n";
/// More than any descriptor with its HTTP header has.
const ANSWER_MAX: usize = 128 * 1024;

/// The job of asking. It fails for a link that does not open; that the descriptor is missing is an answer.
pub(super) struct Ask {
    since: Instant,
    circuit: OriginCircuit,
    answer: Vec<u8>,
    /// The identity, once the link is open.
    pub(super) peer: Option<PeerIdentity>,
    /// The descriptor, or why there is none.
    pub(super) descriptor: Result<Box<RouterDesc>, String>,
}

impl Ask {
    pub(super) fn new() -> Ask {
        Ask {
            since: Instant::now(),
            circuit: OriginCircuit::new(OriginConfig::default()),
            answer: Vec::new(),
            peer: None,
            descriptor: Err("no answer".to_owned()),
        }
    }

    fn now(&self) -> Mono {
        Mono(self.since.elapsed().as_micros() as u64)
    }

    fn fail(&mut self, core: &mut Core, why: String) {
        self.descriptor = Err(why);
        core.finished = true;
    }

    /// Acts on what has happened on the circuit, and sends what it has to send.
    fn go_on(&mut self, core: &mut Core, link: usize) {
        while let Some(event) = self.circuit.poll_event() {
            match event {
                Event::Extended { .. } => match self.circuit.begin_dir(&mut core.rng, 0) {
                    Ok(stream) => {
                        self.circuit.write_stream(stream, REQUEST);
                    }
                    Err(e) => self.fail(core, e.to_string()),
                },
                Event::Readable(stream) => self.read(stream),
                Event::Ended { stream, .. } => {
                    self.read(stream);
                    self.descriptor = parse(&self.answer);
                    core.finished = true;
                }
                Event::Closed(reason) => self.fail(core, reason.to_string()),
                _ => {}
            }
        }
        while let Some((command, body)) = self.circuit.poll_transmit(&mut core.rng) {
            core.send(link, CIRCUIT, command, &body);
        }
        if self.answer.len() > ANSWER_MAX {
            self.fail(core, format!("its answer is longer than {ANSWER_MAX} bytes"));
        }
    }

    fn read(&mut self, stream: StreamKey) {
        let data = self.circuit.readable(stream);
        let len = data.len();
        self.answer.extend_from_slice(data);
        self.circuit.consume(stream, len);
    }
}

/// The descriptor in an answer over HTTP.
fn parse(answer: &[u8]) -> Result<Box<RouterDesc>, String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("its answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(format!("it says {status}"));
    }
    RouterDesc::parse(body).map(Box::new).map_err(|e| e.to_string())
}

impl Job for Ask {
    fn start(&mut self, core: &mut Core) -> Result<(), LoadError> {
        core.connect().map(drop)
    }

    fn link_up(&mut self, core: &mut Core, link: usize) -> Result<(), LoadError> {
        self.peer = core.links[link].established.as_ref().and_then(|link| link.peer);
        let now = self.now();
        match self.circuit.create(now, &mut core.rng, FirstHop::Fast) {
            Ok(()) => self.go_on(core, link),
            Err(e) => self.fail(core, e.to_string()),
        }
        Ok(())
    }

    fn cell(
        &mut self,
        core: &mut Core,
        link: usize,
        circ: CircId,
        command: Command,
        body: &mut Body,
    ) -> Result<(), LoadError> {
        if circ == CIRCUIT {
            self.circuit.handle_cell(self.now(), command, body);
            self.go_on(core, link);
        }
        Ok(())
    }
}
