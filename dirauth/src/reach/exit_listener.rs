//! Where exits are asked to connect to: a port of ours that answers what only we can know.
//!
//! A question is random, and so is its answer; both are known to the test alone until a stream brings the question. So a
//! relay cannot answer itself, and a stranger who connects learns nothing and is hung up on.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_core::Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::limits;

/// Bytes of a question and of an answer: several cells each.
pub const QUESTION: usize = 2048;
/// Bytes by which a question is found.
const NAME: usize = 32;
/// Time between attempts to accept after one has failed, for lack of files as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

type Name = [u8; NAME];
/// The questions that may come.
type Questions = Mutex<HashMap<Name, Question>>;

/// A whole question, and its answer.
#[derive(Debug)]
struct Question {
    question: Vec<u8>,
    answer: Vec<u8>,
}

/// The port. It closes when this is dropped.
#[derive(Debug)]
pub struct ExitListener {
    address: SocketAddrV4,
    questions: Arc<Questions>,
    task: JoinHandle<()>,
}

/// A question that is answered as long as this lives.
#[derive(Debug)]
pub struct Ticket {
    questions: Arc<Questions>,
    name: Name,
    /// What is to be sent.
    pub question: Vec<u8>,
    /// What must come back.
    pub answer: Vec<u8>,
}

impl ExitListener {
    /// Listens at `bind`, which the world reaches at `public` and the same port.
    pub async fn open(bind: SocketAddr, public: Ipv4Addr) -> io::Result<ExitListener> {
        let listener = TcpListener::bind(bind).await?;
        let address = SocketAddrV4::new(public, listener.local_addr()?.port());
        let questions = Arc::<Questions>::default();
        let task = tokio::spawn(serve(listener, questions.clone()));
        Ok(ExitListener { address, questions, task })
    }

    /// Where the world reaches it.
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// A new question.
    pub fn ask(&self, rng: &mut (impl Rng + ?Sized)) -> Ticket {
        let (mut question, mut answer, mut name) = (vec![0; QUESTION], vec![0; QUESTION], [0; NAME]);
        rng.fill_bytes(&mut question);
        rng.fill_bytes(&mut answer);
        name.copy_from_slice(&question[..NAME]);
        let known = Question { question: question.clone(), answer: answer.clone() };
        lock(&self.questions).insert(name, known);
        Ticket { questions: self.questions.clone(), name, question, answer }
    }
}

impl Drop for ExitListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.questions).remove(&self.name);
    }
}

/// A panic elsewhere leaves the table as consistent as every other moment does.
fn lock(questions: &Questions) -> MutexGuard<'_, HashMap<Name, Question>> {
    questions.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, questions: Arc<Questions>) {
    let room = Arc::new(Semaphore::new(limits::EXIT_CONNECTIONS));
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                // Beyond the bound it is closed at once.
                let Ok(place) = room.clone().try_acquire_owned() else { continue };
                let questions = questions.clone();
                tokio::spawn(async move {
                    match timeout(limits::EXIT_CONNECTION_TIME, answer(socket, &questions)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => debug!("a connection to the port for exits failed: {error}"),
                        Err(_) => debug!("a connection to the port for exits took too long"),
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!("the port for exits takes no connections: {error}; see to the limit of open files");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut socket: TcpStream, questions: &Questions) -> io::Result<()> {
    let mut question = [0; QUESTION];
    socket.read_exact(&mut question).await?;
    let answer = question.first_chunk::<NAME>().and_then(|name| {
        let known = lock(questions);
        let known = known.get(name)?;
        (known.question[..] == question).then(|| known.answer.clone())
    });
    match answer {
        Some(answer) => socket.write_all(&answer).await,
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "nobody has asked that")),
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng as _;

    use super::*;

    async fn open() -> ExitListener {
        ExitListener::open("127.0.0.1:0".parse().unwrap(), Ipv4Addr::LOCALHOST).await.unwrap()
    }

    /// All that comes back.
    async fn send(listener: &ExitListener, question: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(listener.address()).await.unwrap();
        socket.write_all(question).await.unwrap();
        let mut answer = Vec::new();
        // It may be reset, for nobody reads the rest of a wrong question.
        let _ = socket.read_to_end(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn only_what_was_asked_is_answered_and_only_while_it_is_asked() {
        let listener = open().await;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (one, other) = (listener.ask(&mut rng), listener.ask(&mut rng));
        assert_eq!(send(&listener, &one.question).await, one.answer);
        assert_eq!(send(&listener, &other.question).await, other.answer);
        assert_ne!(one.answer, other.answer);
        let mut wrong = one.question.clone();
        wrong[QUESTION - 1] ^= 1;
        assert!(send(&listener, &wrong).await.is_empty());
        assert!(send(&listener, &[0; QUESTION]).await.is_empty());
        let question = one.question.clone();
        drop(one);
        assert!(send(&listener, &question).await.is_empty());
    }

    #[tokio::test]
    async fn connections_are_counted() {
        let listener = open().await;
        let mut silent = Vec::new();
        for _ in 0..limits::EXIT_CONNECTIONS {
            silent.push(TcpStream::connect(listener.address()).await.unwrap());
        }
        let mut late = TcpStream::connect(listener.address()).await.unwrap();
        // Closed unanswered, in whatever way.
        assert_eq!(late.read(&mut [0]).await.unwrap_or(0), 0);
        // One that goes makes room again.
        let ticket = listener.ask(&mut ChaCha8Rng::seed_from_u64(1));
        silent.pop();
        while send(&listener, &ticket.question).await != ticket.answer {}
    }
}
