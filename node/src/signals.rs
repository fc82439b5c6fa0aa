//! Signals by which people and supervisors steer a program, on tokio.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To end (TERM, INT).
    End,
    /// To read the configuration again (HUP).
    Reload,
    /// To write a heartbeat to the log (USR1).
    Report,
    /// To log everything until the configuration is read again (USR2).
    LogAll,
}

/// The signals that a program listens to.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    report: Signal,
    log_all: Signal,
}

impl Signals {
    /// Listens from now on. To be called within a runtime.
    pub fn install() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            report: signal(SignalKind::user_defined1())?,
            log_all: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.reload.recv() => Wish::Reload,
            _ = self.report.recv() => Wish::Report,
            _ = self.log_all.recv() => Wish::LogAll,
        }
    }
}
