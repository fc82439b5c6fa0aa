//! The ports with real sockets, and a network that does what the test says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use onionring_proto::relay_msg::{Resolved, ResolvedValue};
use onionring_proto::torrc::lines::{self, Line};
use onionring_proto::torrc::port::ClientKind;
use onionring_proto::torrc::{Note, Problem, Settings};
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex,
};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;

use super::*;
use crate::network::Tunnel;

mod carry;
mod config;
mod dns;
mod http;
mod isolation;
mod listen;
mod rules;
mod socks;
mod transparent;

/// What the network does with streams.
#[derive(Clone, Copy, Debug)]
enum Plan {
    /// Opens them, once the application has sent so many bytes in all, or has ended.
    Open(usize),
    Refuse(Refusal),
    /// Says nothing, ever.
    Hang,
}

/// A stream that was opened, and where it leads.
struct Opened {
    destination: Destination,
    far: DuplexStream,
}

/// A stream that was opened, as the ports have it.
struct FakeTunnel {
    io: DuplexStream,
    halves: bool,
}

impl Tunnel for FakeTunnel {
    fn has_halves(&self) -> bool {
        self.halves
    }
}

impl AsyncRead for FakeTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for FakeTunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

struct Fake {
    /// Whether streams end by halves.
    halves: AtomicBool,
    plan: Mutex<Plan>,
    answer: Mutex<Result<Vec<ResolvedValue>, Refusal>>,
    questions: Mutex<Vec<(Question, Token)>>,
    opened: mpsc::UnboundedSender<Opened>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network for Fake {
    type Tunnel = FakeTunnel;

    async fn connect(&self, destination: &Destination, early: &mut Early<'_>) -> Result<FakeTunnel, Refusal> {
        let plan = *lock(&self.plan);
        match plan {
            Plan::Refuse(refusal) => Err(refusal),
            Plan::Hang => std::future::pending().await,
            Plan::Open(bytes) => {
                while early.read.len() < bytes && !early.is_over {
                    early.is_over =
                        early.reader.read_buf(&mut early.read).await.map_err(|_| Refusal::Failed)? == 0;
                }
                let (mut near, far) = duplex(64 * 1024);
                near.write_all(&early.read).await.map_err(|_| Refusal::Failed)?;
                let opened = Opened { destination: destination.clone(), far };
                self.opened.send(opened).map_err(|_| Refusal::Failed)?;
                Ok(FakeTunnel { io: near, halves: self.halves.load(Relaxed) })
            }
        }
    }

    async fn resolve(&self, question: &Question, token: &Token) -> Result<Resolved, Refusal> {
        lock(&self.questions).push((question.clone(), token.clone()));
        let plan = *lock(&self.plan);
        if let Plan::Hang = plan {
            return std::future::pending().await;
        }
        let answers = lock(&self.answer).clone()?;
        Ok(Resolved { answers: answers.into_iter().map(|answer| (answer, 300)).collect() })
    }
}

/// Ports that are answered on.
struct Bench {
    fake: Arc<Fake>,
    opened: mpsc::UnboundedReceiver<Opened>,
    counters: Arc<Counters>,
    places: Vec<(ClientKind, Place)>,
    _serving: Serving,
}

/// Reads a torrc, all of it.
fn read(torrc: &str) -> (Config, Vec<Problem>, Vec<Note>) {
    let (mut problems, mut notes) = (Vec::new(), Vec::new());
    let items =
        lines::parse(torrc.as_bytes(), &"torrc".into(), &mut problems).into_iter().map(|line| match line {
            Line::Item(item) => item,
            Line::Include { .. } => panic!("{line:?}"),
        });
    let mut settings = Settings::default();
    settings.assign(items.collect(), &mut problems, &mut notes);
    let config = Config::read(&settings, &mut problems, &mut notes);
    (config, problems, notes)
}

fn config(torrc: &str) -> Config {
    let (config, problems, _) = read(torrc);
    assert_eq!(problems, []);
    config
}

impl Bench {
    fn new(torrc: &str) -> Bench {
        Bench::with(config(torrc))
    }

    fn with(config: Config) -> Bench {
        let bound = bind(&config).unwrap();
        let places = bound.places().collect();
        let (sender, opened) = mpsc::unbounded_channel();
        let fake = Arc::new(Fake {
            halves: AtomicBool::new(false),
            plan: Mutex::new(Plan::Open(0)),
            answer: Mutex::new(Err(Refusal::NotFound)),
            questions: Mutex::default(),
            opened: sender,
        });
        let counters = Arc::new(Counters::default());
        let serving = bound.serve(fake.clone(), counters.clone()).unwrap();
        Bench { fake, opened, counters, places, _serving: serving }
    }

    fn plan(&self, plan: Plan) {
        *lock(&self.fake.plan) = plan;
    }

    fn answer(&self, answer: Result<Vec<ResolvedValue>, Refusal>) {
        *lock(&self.fake.answer) = answer;
    }

    fn questions(&self) -> Vec<Question> {
        lock(&self.fake.questions).iter().map(|(question, _)| question.clone()).collect()
    }

    fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let address = |(_, place): &(ClientKind, Place)| match place {
            Place::Address(address) => Some(*address),
            Place::File(_) => None,
        };
        self.places.iter().filter_map(address).collect()
    }

    fn of(&self, kind: ClientKind) -> &PortCounters {
        self.counters.of(kind)
    }

    /// An application that has sent this.
    async fn app(&self, sent: &[u8]) -> TcpStream {
        let mut app = TcpStream::connect(self.address()).await.unwrap();
        app.write_all(sent).await.unwrap();
        app
    }

    /// All that an application gets which sends this, until the proxy closes.
    async fn ask(&self, sent: &[u8]) -> Vec<u8> {
        let mut app = self.app(sent).await;
        let mut answer = Vec::new();
        app.read_to_end(&mut answer).await.unwrap();
        answer
    }

    async fn opened(&mut self) -> Opened {
        self.opened.recv().await.unwrap()
    }
}

/// Reads exactly so many bytes.
async fn take(from: &mut (impl AsyncRead + Unpin), len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// Waits for what comes soon.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addr(text: &str) -> ResolvedValue {
    ResolvedValue::Addr(ip(text))
}

fn name(text: &str) -> Host {
    Host::Name(text.into())
}
