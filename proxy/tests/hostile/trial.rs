//! One manner after the other, and what must hold of the proxy whatever relays do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::manners::{Asks, Manner};
use crate::network::{Network, Role};
use crate::nothing_has_leaked;
use crate::paper::current;
use crate::program::{Answer, Program};

/// How many seconds people wait for a page, at the most: then the proxy says that there will be none (`SocksTimeout`).
/// Longer than an exit or a guard may be silent, so that another one is tried; and when no other will be.
const SOCKS_TIMEOUT: [u64; 2] = [15, 5];
/// What a busy machine adds.
const SLACK: Duration = Duration::from_secs(20);
/// Requests at a time, each on a circuit of its own.
const AT_ONCE: usize = 4;
/// Rounds of those until a relay of two must have been chosen, and until one of them must have succeeded: half of all
/// circuits do.
const ROUNDS: usize = 12;
/// CPU time that a manner may cost the program, in hundredths of a second; a client that does what it does in a loop
/// uses as much in a few seconds.
const TICKS: u64 = 500;
/// What may be open at the end: links to relays, sockets and files of the program's own.
const FILES: usize = 40;
/// Memory at the end, in KiB.
const MEMORY: u64 = 150 << 10;
/// Connections to guards for one manner: a relay that fails is not asked again and again.
const KNOCKS: usize = 60;

/// A proxy in a network.
struct Trial {
    network: Network,
    program: Program,
    users: usize,
    /// How long an answer may take.
    bound: Duration,
}

impl Trial {
    async fn start(seconds: u64, before: impl FnOnce(&Network)) -> Trial {
        let network = Network::start(current()).await;
        before(&network);
        let program = Program::start(&network, &format!("SocksTimeout {seconds}\n")).await;
        Trial { network, program, users: 0, bound: Duration::from_secs(seconds) + SLACK }
    }

    /// A few requests at the same time; all must be answered in time.
    async fn ask(&mut self, manner: &Manner) -> Vec<Answer> {
        let users: Vec<String> = (0..AT_ONCE).map(|n| format!("user{}", self.users + n)).collect();
        self.users += AT_ONCE;
        let (program, bound) = (&self.program, self.bound);
        let asked = users.iter().map(|user| async move {
            let (answer, took) = match manner.asks {
                Asks::Stream => program.fetch(user).await,
                Asks::Name => program.resolve(user).await,
            };
            assert!(took < bound, "{}: {answer:?} after {took:?}", manner.name);
            answer
        });
        let [a, b, c, d] =
            asked.collect::<Vec<_>>().try_into().unwrap_or_else(|_| unreachable!("so many at once"));
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        vec![a, b, c, d]
    }

    /// Asks until the hostile relay has had its turn, and something has succeeded besides, if it has to.
    async fn suffer(&mut self, role: Role, manner: &Manner) {
        let recovers = role != Role::Guard || manner.recovers;
        let (ticks, knocks) = (self.program.cpu_ticks(), self.network.scene.knocks());
        let mut answers = Vec::new();
        for _ in 0..ROUNDS {
            answers.extend(self.ask(manner).await);
            let has_recovered = !recovers || answers.contains(&Answer::Whole);
            if self.network.scene.done() > 0 && has_recovered {
                break;
            }
        }
        let done = self.network.scene.done();
        let about = || format!("{}, done {done} times: {answers:?}\n{}", manner.name, self.program.log());
        assert!(done > 0, "{}", about());
        assert!(!recovers || answers.contains(&Answer::Whole), "{}", about());
        // An exit can say what it likes in the server's name, and nobody else can.
        assert!(role == Role::Exit || !answers.contains(&Answer::Forged), "{}", about());
        let ticks = self.program.cpu_ticks() - ticks;
        assert!(ticks < TICKS, "{ticks} ticks of CPU time: {}", about());
        let knocks = self.network.scene.knocks() - knocks;
        assert!(knocks < KNOCKS, "{knocks} connections: {}", about());
        println!(
            "{role:?}: {}: done {done} times, {knocks} connections, {ticks} ticks, {answers:?}",
            manner.name
        );
        self.program.is_well();
    }

    /// All relays are honest again, or those that are not are known.
    async fn works_again(&mut self, manner: &Manner) {
        self.network.scene.end();
        for _ in 0..ROUNDS {
            if self.ask(manner).await.contains(&Answer::Whole) {
                return;
            }
        }
        panic!("{}: it does not work again\n{}", manner.name, self.program.log());
    }

    async fn finish(mut self) {
        self.program.rests(FILES).await;
        let memory = self.program.memory();
        assert!(memory < MEMORY, "{memory} KiB");
        self.program.is_well();
        nothing_has_leaked().await;
    }
}

/// A relay further on than the guard behaves in each of these manners, one after the other.
pub async fn beyond(role: Role, manners: Vec<&'static Manner>) {
    let mut trial = Trial::start(SOCKS_TIMEOUT[0], |_| {}).await;
    for manner in manners {
        trial.network.scene.play(role, manner);
        trial.suffer(role, manner).await;
        trial.works_again(manner).await;
    }
    trial.finish().await;
}

/// The first guard that a new proxy chooses behaves so from the start.
pub async fn guard_of_links(manner: &'static Manner) {
    guard(manner).await.finish().await;
}

/// The same, and once that is over the one in use does, with the links and circuits that there are.
pub async fn guard_of_circuits(manner: &'static Manner) {
    let mut trial = guard(manner).await;
    trial.network.scene.play(Role::Guard, manner);
    trial.suffer(Role::Guard, manner).await;
    trial.finish().await;
}

async fn guard(manner: &'static Manner) -> Trial {
    let seconds = if manner.recovers { SOCKS_TIMEOUT[0] } else { SOCKS_TIMEOUT[1] };
    let mut trial = Trial::start(seconds, |network| network.scene.play(Role::Guard, manner)).await;
    trial.suffer(Role::Guard, manner).await;
    trial.works_again(manner).await;
    trial
}

/// Runs these, so many at once, and all of them even if some fail.
pub async fn all<F: Future<Output = ()> + Send + 'static>(
    at_once: usize,
    trials: impl IntoIterator<Item = F>,
) {
    let places = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    for trial in trials {
        let places = places.clone();
        running.spawn(async move {
            let _place = places.acquire().await;
            trial.await;
        });
    }
    let mut failed = 0;
    while let Some(ended) = running.join_next().await {
        failed += usize::from(ended.is_err());
    }
    assert_eq!(failed, 0, "each says above why it fails");
}
