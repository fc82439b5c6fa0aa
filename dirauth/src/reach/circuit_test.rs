//! One round of circuit tests of a relay, as a client would use it.
//!
//! Circuits come to the relay from another relay, the helper, on a link on which we say nothing of ourselves; so the relay
//! cannot tell them from those of clients. Each of these has a circuit of its own:
//!
//! 1. The relay completes the handshake, extends the circuit to a relay beyond, and carries a directory request there and
//!    its answer back.
//! 2. If it says that it serves a directory: it serves the descriptor that it has published.
//! 3. If its policy lets streams out to our listener: it carries a question there and the answer back. If not: it refuses.
//!    A relay that lets out what its policy rejects is counted and logged, and is not to blame for more: it carries what
//!    it is given. This test names our address to the relay, so it comes last.
//!
//! A relay without the subprotocol Relay=2 says that it extends no circuits and is no exit, so that is not tested; nor is
//! anybody tested through it.
//!
//! **Who is to blame.** Between us and the relay is the helper, and behind it the relay beyond. So a round has failed only
//! if two ways to the relay failed in its hands, by different helpers; what fails in a helper's hands is no attempt, and
//! what fails beyond the relay counts only if the relay there is proven, i.e. passed its own last round. With fewer than
//! two helpers, which is so in a new or tiny network, one more way leads to the relay directly, as a client's to its guard:
//! there nobody is in between, and a single failure counts if there was no helper at all. If a relay fails by the only
//! helper and not directly, that is unclear. An exit that fails counts only if another relay has lately reached our
//! listener, and not if it ends the stream with MISC: stock exits say that to relays that their consensus does not know
//! yet (`RefuseUnknownExits`), as a helper may be.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use onionring_node::link::{Circuit, CircuitError, ConnectError, Dialer, Link, Stream, StreamError};
use onionring_proto::handshake::Terms;
use onionring_proto::link::ExpectedPeer;
use onionring_proto::netdoc::routerdesc::RouterDesc;
use onionring_proto::origin::{FirstHop, HandshakeKind, HopTarget, OriginConfig};
use onionring_proto::relay_msg::{Begin, BeginFlags, EndReason, Host, LinkSpecs};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::answer::{self, AnswerError};
use super::counts::{Outcome, Test};
use super::exit_listener::{ExitListener, Ticket};
use super::link_test::{address_v4, address_v6};
use super::results::Round;
use crate::limits;

/// How long each step of a test may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestTimes {
    /// The handshake with one hop.
    pub hop: Duration,
    /// Opening a stream; and again what it is to carry.
    pub stream: Duration,
}

/// A relay to which circuits are extended beyond the one that is tested.
#[derive(Clone, Debug)]
pub struct Beyond {
    /// Its descriptor.
    pub descriptor: Arc<RouterDesc>,
    /// Whether it is known to do its work.
    pub is_proven: bool,
}

/// Who takes part in a round.
#[derive(Clone, Debug)]
pub struct Cast {
    /// The relay that is tested.
    pub relay: Arc<RouterDesc>,
    /// Proven relays through which it is tested, in this order.
    pub helpers: Vec<Arc<RouterDesc>>,
    /// Relays beyond it.
    pub beyond: Vec<Beyond>,
}

/// The test of an exit: the question that it is to bring to our listener, and whether it counts that it does not.
#[derive(Debug)]
pub struct ExitTest {
    /// The listener.
    pub listener: Arc<ExitListener>,
    /// The question.
    pub ticket: Ticket,
    /// Whether another relay has lately reached the listener.
    pub counts: bool,
}

/// What a round is made with.
pub struct Tools {
    /// Opens links as a client does.
    pub dialer: Dialer,
    /// Their times.
    pub times: TestTimes,
    /// The test of exits.
    pub exit: Option<ExitTest>,
}

/// What came of a round.
#[derive(Debug)]
pub struct Report {
    /// The whole of it.
    pub round: Round,
    /// Each test that was made.
    pub tests: Vec<(Test, Outcome)>,
}

impl Report {
    /// Whether a test of this kind had this outcome.
    pub fn found(&self, test: Test, outcome: Outcome) -> bool {
        self.tests.contains(&(test, outcome))
    }
}

/// What fails.
#[derive(Debug, Error)]
enum Fault {
    #[error(transparent)]
    Link(#[from] ConnectError),
    #[error(transparent)]
    Circuit(#[from] CircuitError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("a stream failed: {0}")]
    Io(#[from] io::Error),
    #[error("a stream carried nothing for {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("the answer has more than {} bytes", limits::CIRCUIT_TEST_ANSWER)]
    TooLong,
    #[error("the answer is not what was expected: {0}")]
    Answer(#[from] AnswerError),
    #[error("the stream did not bring back what our listener answers")]
    WrongEcho,
}

/// How one way to the relay went.
enum Attempt {
    Passed,
    /// The relay has failed.
    Failed(Fault),
    /// It did not come to a test of the relay.
    Missed(Fault),
}

/// Makes a round.
pub async fn run(tools: &Tools, cast: &Cast) -> Report {
    let mut tests = Vec::new();
    let round = ways(tools, cast, &mut tests).await;
    let outcome = match round {
        Round::Passed => Outcome::Passed,
        Round::Failed => Outcome::Failed,
        Round::Unclear => Outcome::Unclear,
    };
    tests.push((Test::Round, outcome));
    Report { round, tests }
}

/// Tries ways until it is clear how the relay does.
async fn ways(tools: &Tools, cast: &Cast, tests: &mut Vec<(Test, Outcome)>) -> Round {
    let has_helpers = !cast.helpers.is_empty();
    let direct = (cast.helpers.len() < 2).then_some(None);
    let mut failed = 0;
    for (n, helper) in cast.helpers.iter().map(Some).chain(direct).enumerate() {
        let mut way = Way { tools, cast, helper, beyond: cast.beyond_of(helper, n), tests };
        match way.walk().await {
            // What passes directly may be what is shown to us alone.
            Attempt::Passed if helper.is_none() && failed > 0 => return Round::Unclear,
            Attempt::Passed => return Round::Passed,
            Attempt::Failed(fault) => {
                debug!("the relay {} fails {}: {fault}", cast.relay.identity, way.name());
                failed += 1;
            }
            Attempt::Missed(fault) => {
                debug!("the relay {} is not tested {}: {fault}", cast.relay.identity, way.name());
            }
        }
        if failed >= if has_helpers { 2 } else { 1 } {
            return Round::Failed;
        }
    }
    Round::Unclear
}

impl Cast {
    /// A relay beyond for way number `n`: another than the helper, a proven one if there is one, and another each time
    /// if there are several.
    fn beyond_of(&self, helper: Option<&Arc<RouterDesc>>, n: usize) -> Option<&Beyond> {
        let is_other =
            |beyond: &&Beyond| helper.is_none_or(|helper| helper.identity != beyond.descriptor.identity);
        let (proven, unproven): (Vec<_>, Vec<_>) =
            self.beyond.iter().filter(is_other).partition(|beyond| beyond.is_proven);
        let fit = if proven.is_empty() { unproven } else { proven };
        fit.get(n % fit.len().max(1)).copied()
    }
}

/// One way to the relay: by a helper, or without one.
struct Way<'a> {
    tools: &'a Tools,
    cast: &'a Cast,
    helper: Option<&'a Arc<RouterDesc>>,
    beyond: Option<&'a Beyond>,
    tests: &'a mut Vec<(Test, Outcome)>,
}

impl Way<'_> {
    fn name(&self) -> String {
        match self.helper {
            Some(helper) => format!("by way of {}", helper.identity),
            None => "directly".to_owned(),
        }
    }

    async fn walk(&mut self) -> Attempt {
        let link = match self.link().await {
            Ok(link) => link,
            Err(error) => return Attempt::Missed(error.into()),
        };
        match self.tests(&link).await {
            Ok(()) => Attempt::Passed,
            Err(attempt) => attempt,
        }
    }

    async fn link(&self) -> Result<Link, ConnectError> {
        let first = self.helper.unwrap_or(&self.cast.relay);
        let expected = ExpectedPeer { rsa_id: Some(first.identity.0), ed_id: Some(first.ed_identity) };
        self.tools.dialer.connect(SocketAddr::V4(address_v4(first)), expected).await
    }

    async fn tests(&mut self, link: &Link) -> Result<(), Attempt> {
        self.carry(link).await?;
        if self.cast.relay.tunnelled_dir_server {
            self.directory(link).await?;
        }
        // Relays let nobody out who is connected to them directly.
        if let (Some(exit), Some(_)) = (&self.tools.exit, self.helper)
            && is_for_circuits(&self.cast.relay)
        {
            self.exit(link, exit).await?;
        }
        Ok(())
    }

    /// A circuit whose last hop is the relay.
    async fn circuit(&mut self, link: &Link) -> Result<Circuit, Attempt> {
        let config =
            OriginConfig { hop_timeout: self.tools.times.hop, early_data: true, ..OriginConfig::default() };
        let first = target(self.helper.unwrap_or(&self.cast.relay));
        let mut built = link.create(FirstHop::Relay(&first), config).await;
        if self.helper.is_some() {
            let circuit = built.map_err(|error| Attempt::Missed(error.into()))?;
            built = circuit.extend(&target(&self.cast.relay)).await.map(|()| circuit);
        }
        match built {
            Ok(circuit) => {
                self.tests.push((Test::Handshake, Outcome::Passed));
                Ok(circuit)
            }
            // The helper has gone.
            Err(error @ CircuitError::Link(_)) if self.helper.is_some() => Err(Attempt::Missed(error.into())),
            Err(error) => {
                self.tests.push((Test::Handshake, Outcome::Failed));
                Err(Attempt::Failed(error.into()))
            }
        }
    }

    /// Notes what came of a test. A failure for which others may be to `blame` is none, and other tests go on.
    fn judge<T>(&mut self, test: Test, blame: Blame, result: Result<T, Fault>) -> Result<Option<T>, Attempt> {
        let outcome = match (&result, blame) {
            (Ok(_), _) => Outcome::Passed,
            (Err(_), Blame::Relay) => Outcome::Failed,
            (Err(_), Blame::Others) => Outcome::Unclear,
        };
        self.tests.push((test, outcome));
        match result {
            Ok(good) => Ok(Some(good)),
            Err(fault) if blame == Blame::Relay => Err(Attempt::Failed(fault)),
            Err(fault) => {
                debug!("a test of the relay {} says nothing: {fault}", self.cast.relay.identity);
                Ok(None)
            }
        }
    }

    /// The relay extends, and carries what goes beyond.
    async fn carry(&mut self, link: &Link) -> Result<(), Attempt> {
        let circuit = self.circuit(link).await?;
        let beyond = self.beyond.filter(|_| is_for_circuits(&self.cast.relay));
        let Some(Beyond { descriptor, is_proven }) = beyond else { return Ok(()) };
        let blame = if *is_proven { Blame::Relay } else { Blame::Others };
        let extended = circuit.extend(&target(descriptor)).await.map_err(Fault::from);
        if self.judge(Test::Extend, blame, extended)?.is_none() || !descriptor.tunnelled_dir_server {
            return Ok(());
        }
        let answer = self.fetch(&circuit).await;
        // Who is in between can drop an answer, and cannot change it.
        let blame = if answer.is_ok() { Blame::Others } else { blame };
        let right = answer.and_then(|answer| Ok(answer::check(&answer, descriptor)?));
        self.judge(Test::Carry, blame, right).map(drop)
    }

    /// The relay serves the descriptor that it has published.
    async fn directory(&mut self, link: &Link) -> Result<(), Attempt> {
        let circuit = self.circuit(link).await?;
        let answer = self.fetch(&circuit).await;
        let right = answer.and_then(|answer| Ok(answer::check(&answer, &self.cast.relay)?));
        self.judge(Test::Directory, Blame::Relay, right).map(drop)
    }

    /// What the last hop answers when it is asked for its descriptor.
    async fn fetch(&self, circuit: &Circuit) -> Result<Vec<u8>, Fault> {
        let limit = self.tools.times.stream;
        let mut stream = circuit.begin_dir(circuit.hops().saturating_sub(1), limit).await?;
        let exchange = async {
            stream.write_all(answer::REQUEST).await?;
            let mut answer = Vec::new();
            (&mut stream).take(limits::CIRCUIT_TEST_ANSWER + 1).read_to_end(&mut answer).await?;
            match answer.len() as u64 > limits::CIRCUIT_TEST_ANSWER {
                true => Err(Fault::TooLong),
                false => Ok(answer),
            }
        };
        timeout(limit, exchange).await.unwrap_or(Err(Fault::Silent(limit)))
    }

    /// The relay lets out what its policy says, and nothing else.
    async fn exit(&mut self, link: &Link, exit: &ExitTest) -> Result<(), Attempt> {
        let circuit = self.circuit(link).await?;
        let address = exit.listener.address();
        let begin = Begin {
            host: Host::Addr(IpAddr::V4(*address.ip())),
            port: address.port(),
            flags: BeginFlags::default(),
        };
        let last = circuit.hops().saturating_sub(1);
        let stream = circuit.begin(last, &begin, self.tools.times.stream).await;
        if self.cast.relay.policy.permits(IpAddr::V4(*address.ip()), address.port()) {
            let blame = match &stream {
                Err(StreamError::Ended(EndReason::Misc)) => Blame::Others,
                _ if exit.counts => Blame::Relay,
                _ => Blame::Others,
            };
            let carried = match stream {
                Ok(stream) => self.ask(stream, &exit.ticket).await,
                Err(error) => Err(error.into()),
            };
            return self.judge(Test::Exit, blame, carried).map(drop);
        }
        let outcome = match stream {
            Ok(_) => {
                warn!(
                    "the relay {} lets a stream out to {address}, which its exit policy rejects; its policy is not to \
                     be relied on: think about AuthDirBadExit",
                    self.cast.relay.identity
                );
                Outcome::Failed
            }
            Err(StreamError::Ended(_) | StreamError::Forbidden(_)) => Outcome::Passed,
            Err(_) => Outcome::Unclear,
        };
        self.tests.push((Test::ExitRefusal, outcome));
        Ok(())
    }

    /// Brings the question to our listener, and the answer back.
    async fn ask(&self, mut stream: Stream, ticket: &Ticket) -> Result<(), Fault> {
        let limit = self.tools.times.stream;
        let exchange = async {
            stream.write_all(&ticket.question).await?;
            let mut answer = vec![0; ticket.answer.len()];
            stream.read_exact(&mut answer).await?;
            if answer == ticket.answer { Ok(()) } else { Err(Fault::WrongEcho) }
        };
        timeout(limit, exchange).await.unwrap_or(Err(Fault::Silent(limit)))
    }
}

/// Who can be to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// Nobody but the relay, given that two helpers agree.
    Relay,
    /// Others, too.
    Others,
}

/// Whether a relay says that it extends circuits. Authorities need not.
pub fn is_for_circuits(relay: &RouterDesc) -> bool {
    relay.protocols().is_ok_and(|protocols| protocols.supports("Relay", 2))
}

/// What a circuit needs to be extended to a relay, as clients do it.
fn target(relay: &RouterDesc) -> HopTarget {
    let has_v3 = relay.protocols().is_ok_and(|protocols| protocols.supports("Relay", 4));
    HopTarget {
        specs: LinkSpecs {
            ipv4: Some(address_v4(relay)),
            ipv6: address_v6(relay),
            rsa_id: relay.identity.0,
            ed_id: Some(relay.ed_identity),
        },
        onion_key: relay.ntor_onion_key,
        handshake: if has_v3 { HandshakeKind::NtorV3 } else { HandshakeKind::Ntor },
        ask: Terms::default(),
    }
}

#[cfg(test)]
pub(super) mod tests;
