//! Streams of applications on circuits: which exit is tried, how long, and where next when it fails.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use onionring_node::link::{Asked, CircuitError, Stream, StreamError};
use onionring_proto::netdoc::text::Fingerprint;
use onionring_proto::policy;
use onionring_proto::relay_msg::{
    self, Begin, BeginFlags, Connected, EndReason, Resolve, Resolved, ResolvedValue,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;
use tracing::debug;

use crate::circuits::exits::Lesson;
use crate::circuits::table::Target;
use crate::circuits::{Carrier, Circuits};
use crate::guards::Step;
use crate::isolation::Token;
use crate::limits;
use crate::network::{Destination, Early, Families, Host, Network, Question, Refusal, Tunnel};
use crate::tallies::Tallies;

/// Bytes that are read at once from an application whose stream is not open yet.
const EARLY_PIECE: usize = 4096;

/// What streams may do.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long an application waits for its stream (`SocksTimeout`).
    pub patience: Duration,
    /// How long an exit may take to answer (`CircuitStreamTimeout`); without it as long as [`limits::STREAM_TIMES`] say.
    pub stream_timeout: Option<Duration>,
    /// Exits are not believed that a name leads to an address that only means something on a host or its network
    /// (`ClientDNSRejectInternalAddresses`).
    pub reject_internal_answers: bool,
}

/// Opens streams through circuits.
pub struct Streams {
    circuits: Arc<Circuits>,
    settings: Mutex<Settings>,
    tallies: Arc<Tallies>,
}

/// How one try ended.
enum Tried {
    /// Nothing else would end otherwise.
    Final(Refusal),
    /// Another exit may do better.
    Exit(Refusal),
    /// Another circuit may, whatever its exit.
    Circuit(Refusal),
}

impl Streams {
    /// Streams through these circuits.
    pub fn new(circuits: Arc<Circuits>, settings: Settings, tallies: Arc<Tallies>) -> Streams {
        Streams { circuits, settings: Mutex::new(settings), tallies }
    }

    /// Changes what can change in a running proxy.
    pub fn set_settings(&self, settings: Settings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> Settings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to try circuits for something.
    fn tries<'a>(&'a self, target: &'a Target, token: &'a Token) -> Tries<'a> {
        let settings = self.settings();
        let deadline = Instant::now() + settings.patience;
        Tries {
            circuits: &self.circuits,
            tallies: &self.tallies,
            target,
            led_to: None,
            token,
            deadline,
            settings,
            made: 0,
            avoid: Vec::new(),
            last: None,
            refused: 0,
        }
    }
}

/// Circuit after circuit for one stream or question.
struct Tries<'a> {
    circuits: &'a Arc<Circuits>,
    tallies: &'a Tallies,
    target: &'a Target,
    /// The address at which it is, as an exit said that may not go there: another must be one that lets it out to there.
    led_to: Option<Target>,
    token: &'a Token,
    deadline: Instant,
    settings: Settings,
    made: usize,
    /// Exits that did not serve it.
    avoid: Vec<Fingerprint>,
    /// Why the last one did not.
    last: Option<Refusal>,
    /// Exits that answered and did not serve it, other than for want of room.
    refused: usize,
}

impl Tries<'_> {
    /// The next circuit, and how long its exit may take to answer.
    async fn next(&mut self) -> Result<(Carrier, Duration), Refusal> {
        if self.made >= limits::STREAM_TRIES || Instant::now() >= self.deadline {
            return Err(self.last.unwrap_or(Refusal::Timeout));
        }
        let target = self.led_to.as_ref().unwrap_or(self.target);
        let found = self.circuits.get(target, self.token, &self.avoid, self.deadline).await;
        // What exits said tells the application more than that there are no others.
        let carrier = found.map_err(|refusal| self.last.unwrap_or(refusal))?;
        let [first, later] = limits::STREAM_TIMES;
        let limit = self.settings.stream_timeout.unwrap_or(if self.made < 2 { first } else { later });
        self.made += 1;
        carrier.note(Step::Used);
        Ok((carrier, limit.min(self.deadline.saturating_duration_since(Instant::now()))))
    }

    /// A circuit did not serve it: whether to go on.
    fn failed(&mut self, carrier: &Carrier, error: &StreamError) -> Result<(), Refusal> {
        debug!("a stream failed on circuit {}: {error}", carrier.number);
        steps(error).iter().for_each(|step| carrier.note(*step));
        for lesson in lessons(error, self.target) {
            self.circuits.learn(carrier.exit, lesson);
        }
        if let StreamError::Forbidden(address) = error {
            self.led_to = self.settings.led_to(self.target, *address)?;
        }
        match judge(error) {
            Tried::Final(refusal) => return Err(refusal),
            Tried::Exit(refusal) => {
                self.refused += usize::from(!is_full(error));
                if self.refused >= limits::EXIT_TRIES {
                    return Err(refusal);
                }
                self.avoid.push(carrier.exit);
                self.last = Some(refusal);
            }
            Tried::Circuit(refusal) => {
                self.circuits.retire(carrier.number);
                self.last = Some(refusal);
            }
        }
        self.tallies.streams.retried.add(1);
        Ok(())
    }
}

/// What the end of a try means for the next.
fn judge(error: &StreamError) -> Tried {
    match error {
        StreamError::Ended(reason) => match reason {
            EndReason::ConnectRefused
            | EndReason::ConnReset
            | EndReason::Done
            | EndReason::Timeout
            | EndReason::Internal => Tried::Final((*reason).into()),
            EndReason::ResolveFailed
            | EndReason::ExitPolicy
            | EndReason::Misc
            | EndReason::NoRoute
            | EndReason::Hibernating
            | EndReason::ResourceLimit => Tried::Exit((*reason).into()),
            _ => Tried::Circuit((*reason).into()),
        },
        StreamError::Forbidden(_) => Tried::Exit(Refusal::NotAllowed),
        StreamError::Timeout(_) => Tried::Circuit(Refusal::Timeout),
        StreamError::Shut | StreamError::Circuit(CircuitError::Refused(_)) => Tried::Circuit(Refusal::Failed),
        StreamError::Circuit(_) => Tried::Circuit(Refusal::Failed),
    }
}

/// Whether the exit had no room.
fn is_full(error: &StreamError) -> bool {
    matches!(error, StreamError::Ended(EndReason::Hibernating | EndReason::ResourceLimit))
}

/// What the end of a try tells of the exit, for others that want the same.
fn lessons(error: &StreamError, target: &Target) -> Vec<Lesson> {
    match (error, target) {
        (error, _) if is_full(error) => vec![Lesson::Full],
        // Who forbids a destination says where it is; who lets nothing out to its port does not.
        (StreamError::Ended(EndReason::ExitPolicy), Target::Stream { port, .. }) => {
            vec![Lesson::NoPort(*port)]
        }
        (StreamError::Ended(EndReason::ExitPolicy), Target::LookUp) => vec![Lesson::NoLookUps],
        (StreamError::Forbidden(address), Target::Stream { host: Host::Name(name), port, .. }) => {
            let host = Host::Name(name.clone());
            vec![Lesson::Forbids(host, *port), Lesson::Forbids(Host::Address(*address), *port)]
        }
        (StreamError::Forbidden(_), Target::Stream { host, port, .. }) => {
            vec![Lesson::Forbids(host.clone(), *port)]
        }
        _ => Vec::new(),
    }
}

/// What the end of a try tells of the circuit, as C tor reads it: that its exit says why shows that cells come there as they
/// were sent, unless it complains of them.
fn steps(error: &StreamError) -> &'static [Step] {
    match error {
        StreamError::Ended(EndReason::TorProtocol | EndReason::Destroy) => &[Step::Garbled],
        StreamError::Ended(EndReason::Internal) => &[],
        StreamError::Ended(_) | StreamError::Forbidden(_) => match judge(error) {
            Tried::Final(_) => &[Step::Answered],
            Tried::Exit(_) | Tried::Circuit(_) => &[Step::Answered, Step::Left],
        },
        StreamError::Timeout(_) => &[Step::Left],
        StreamError::Shut | StreamError::Circuit(_) => &[],
    }
}

impl Settings {
    /// What is to be looked for from now on, when an exit says that it may not go to this address for a target. Where a name
    /// leads is the exit's to say, where an address leads is not.
    fn led_to(&self, target: &Target, address: IpAddr) -> Result<Option<Target>, Refusal> {
        match target {
            // As C tor: no other exit is asked for what only means something where the exit is.
            _ if !self.believe(target, address) => Err(EndReason::TorProtocol.into()),
            Target::Stream { host: Host::Name(_), .. } => Ok(target.at(address)),
            Target::Stream { .. } | Target::LookUp => Ok(None),
        }
    }

    /// Whether an exit is believed that what was asked for is at this address.
    fn believe(&self, target: &Target, address: IpAddr) -> bool {
        let Target::Stream { host: Host::Name(_), families, .. } = target else { return true };
        let is_wanted = if address.is_ipv4() { families.v4 } else { families.v6 };
        let is_internal = self.reject_internal_answers && policy::is_internal(address);
        is_wanted && !address.is_unspecified() && !is_internal
    }
}

impl Tunnel for Stream {
    fn has_halves(&self) -> bool {
        Stream::has_halves(self)
    }
}

impl Network for Streams {
    type Tunnel = Stream;

    async fn connect(&self, destination: &Destination, early: &mut Early<'_>) -> Result<Stream, Refusal> {
        let outcome = self.connect_to(destination, early).await;
        self.tallies.streams.connected(&outcome);
        outcome
    }

    async fn resolve(&self, question: &Question, token: &Token) -> Result<Resolved, Refusal> {
        let outcome = self.look_up(question, token).await;
        self.tallies.streams.answered(&outcome);
        outcome
    }
}

impl Streams {
    async fn connect_to(&self, destination: &Destination, early: &mut Early<'_>) -> Result<Stream, Refusal> {
        let Destination { host, port, families, token } = destination;
        let begin = Begin {
            host: match host {
                Host::Name(name) => relay_msg::Host::Name(name),
                Host::Address(address) => relay_msg::Host::Addr(*address),
            },
            port: *port,
            flags: flags(*families),
        };
        let target = Target::Stream { host: host.clone(), port: *port, families: *families };
        let believe = |connected: &Connected| {
            connected.addr.is_none_or(|(address, _)| self.settings().believe(&target, address))
        };
        let mut tries = self.tries(&target, token);
        loop {
            let (carrier, limit) = read_on(early, tries.next()).await?;
            let opened = match carrier.circuit().ask(carrier.hop, &begin) {
                Ok(asked) => open(asked, early, limit, believe).await,
                Err(error) => Err(error),
            };
            match opened {
                Ok(stream) => {
                    carrier.note(Step::Answered);
                    self.circuits.network_seen();
                    return Ok(stream);
                }
                Err(error) => tries.failed(&carrier, &error)?,
            }
        }
    }

    async fn look_up(&self, question: &Question, token: &Token) -> Result<Resolved, Refusal> {
        let resolve = match question {
            Question::Addresses(name) => Resolve::Name(name),
            Question::Name(address) => Resolve::Reverse(*address),
        };
        let reject_internal = self.settings().reject_internal_answers;
        let leads_home = |value: &ResolvedValue| match value {
            ResolvedValue::Addr(address) => reject_internal && policy::is_internal(*address),
            _ => false,
        };
        let mut tries = self.tries(&Target::LookUp, token);
        loop {
            let (carrier, limit) = tries.next().await?;
            let error = match carrier.circuit().resolve(carrier.hop, &resolve, limit).await {
                Ok(resolved) => {
                    carrier.note(Step::Answered);
                    match judge_answers(&resolved, leads_home) {
                        Ok(()) => return Ok(resolved),
                        Err(Tried::Final(refusal)) => return Err(refusal),
                        // Another exit may know it.
                        Err(_) => StreamError::Ended(EndReason::ResolveFailed),
                    }
                }
                Err(error) => error,
            };
            tries.failed(&carrier, &error)?;
        }
    }
}

/// Whether there is an answer to a question among these.
fn judge_answers(resolved: &Resolved, leads_home: impl Fn(&ResolvedValue) -> bool) -> Result<(), Tried> {
    let values = || resolved.answers.iter().map(|(value, _)| value);
    let is_answer = |value: &ResolvedValue| matches!(value, ResolvedValue::Addr(_) | ResolvedValue::Name(_));
    if values().any(|value| *value == ResolvedValue::TransientError || leads_home(value)) {
        Err(Tried::Exit(Refusal::NotFound))
    } else if values().any(is_answer) {
        Ok(())
    } else {
        Err(Tried::Final(Refusal::NotFound))
    }
}

/// Waits for something, and reads on what the application sends meanwhile: if it is gone, there is nothing to wait for.
async fn read_on<T>(
    early: &mut Early<'_>,
    wanted: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    tokio::pin!(wanted);
    let mut piece = [0; EARLY_PIECE];
    loop {
        let room = early.room().min(piece.len());
        tokio::select! {
            biased;
            found = &mut wanted => return found,
            read = early.reader.read(&mut piece[..room]), if room > 0 => match read {
                Ok(n) => early.note(piece.get(..n).unwrap_or_default()),
                Err(_) => return Err(Refusal::Failed),
            }
        }
    }
}

/// Waits until the stream is open, while what the application sends is sent along.
async fn open(
    asked: Asked,
    early: &mut Early<'_>,
    limit: Duration,
    believe: impl Fn(&Connected) -> bool,
) -> Result<Stream, StreamError> {
    let Asked { mut stream, answer } = asked;
    let answer = answer.wait(limit);
    tokio::pin!(answer);
    let mut sent = 0;
    let mut piece = [0; EARLY_PIECE];
    let connected = loop {
        let unsent = early.read.get(sent..).unwrap_or_default();
        let room = early.room().min(piece.len());
        tokio::select! {
            biased;
            answered = &mut answer => break answered?,
            written = stream.write(unsent), if !unsent.is_empty() => match written {
                Ok(n) => sent += n,
                // Why it failed is in the answer.
                Err(_) => break answer.await?,
            },
            read = early.reader.read(&mut piece[..room]), if room > 0 => {
                // An application that is gone is noticed when the stream is open.
                early.note(piece.get(..read.unwrap_or(0)).unwrap_or_default());
            }
        }
    };
    if !believe(&connected) {
        return Err(StreamError::Ended(EndReason::ResolveFailed));
    }
    let rest = early.read.get(sent..).unwrap_or_default();
    // A stream that ends now is one that was open.
    let _ = stream.write_all(rest).await;
    Ok(stream)
}

/// What an exit is told of the addresses that will do.
fn flags(families: Families) -> BeginFlags {
    let set = |is_set, flag| if is_set { flag } else { BeginFlags::default() };
    set(families.v6, BeginFlags::IPV6_OK)
        | set(!families.v4, BeginFlags::IPV4_NOT_OK)
        | set(families.v6 && families.prefer_v6, BeginFlags::IPV6_PREFERRED)
}

#[cfg(test)]
mod tests;
