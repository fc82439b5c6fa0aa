//! Signals, as the control executor sees them.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use crossbeam::channel::{self, Receiver, TryRecvError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::io::bell::Bell;

/// What a person or a supervisor asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM, SIGINT: finish what is under way, then end. A second one ends at once.
    Shutdown,
    /// SIGHUP: read the configuration again, open the logs anew.
    Reload,
    /// SIGUSR1: say in the log how things are.
    Report,
    /// SIGUSR2: log everything, until the configuration is read again.
    LogAll,
}

/// The signals of this process. Lives as long as the process.
pub struct SignalQueue {
    received: Receiver<Signal>,
    bell: Arc<Bell>,
}

impl SignalQueue {
    /// Takes signals from now on.
    pub fn install() -> io::Result<SignalQueue> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
        let (sender, received) = channel::unbounded();
        let bell = Arc::new(Bell::default());
        let ring = bell.clone();
        thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                let signal = match signal {
                    SIGHUP => Signal::Reload,
                    SIGUSR1 => Signal::Report,
                    SIGUSR2 => Signal::LogAll,
                    _ => Signal::Shutdown,
                };
                if sender.send(signal).is_err() {
                    return;
                }
                ring.ring();
            }
        })?;
        Ok(SignalQueue { received, bell })
    }

    /// The next signal. To be awaited by one task.
    pub async fn next(&self) -> Signal {
        poll_fn(|cx| {
            self.bell.listen(cx);
            match self.received.try_recv() {
                Ok(signal) => Poll::Ready(signal),
                // The thread that sends ends with the process.
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => Poll::Pending,
            }
        })
        .await
    }
}
