//! What a person sees: progress on a terminal (nothing in a pipe), figures in units, and Ctrl-C.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::{CliError, EXIT_INTERRUPTED};
use crate::net::{BootError, Network, NetworkSpec, Progress};

/// Whether the user wants to stop. The first Ctrl-C, SIGTERM or SIGHUP asks for an orderly end, the second ends the
/// program at once (and the kernel ends the nodes).
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(super) fn watch() -> io::Result<Interrupt> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED.into(), Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Interrupt(asked))
    }

    pub(super) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.asked() { Err(CliError::Interrupted) } else { Ok(()) }
    }

    /// The same for callbacks that speak of I/O.
    pub(super) fn check_io(&self) -> io::Result<()> {
        if self.asked() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

/// Boots with a spinner on the terminal.
pub(super) fn boot(spec: NetworkSpec, interrupt: &Interrupt) -> Result<Network, BootError> {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let booted = spec.boot_with(&mut |progress| {
        spinner.set_message(match progress {
            Progress::Keys => "making keys".to_owned(),
            Progress::Consensus { listed, expected } => {
                format!("waiting for a consensus: {listed} of {expected} relays")
            }
            Progress::Client { nickname, percent } => format!("{nickname}: bootstrapped {percent} %"),
            Progress::Ready => "ready".to_owned(),
        });
        if interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    spinner.finish_and_clear();
    booted
}

/// A bar for bytes.
pub(super) fn byte_bar(label: &'static str, bytes: u64) -> ProgressBar {
    let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
    let style = ProgressStyle::with_template(template).expect("a constant that the tests draw");
    ProgressBar::new(bytes).with_style(style).with_prefix(label)
}

/// `7340032` to `7.0 MiB`.
pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Seconds of CPU per GiB carried.
pub(super) fn cpu_seconds_per_gib(cpu_seconds: f64, bytes: u64) -> f64 {
    cpu_seconds / (bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        byte_bar("x", 5).tick();
        assert_eq!(mib(7 << 20), "7.0 MiB");
        assert_eq!(cpu_seconds_per_gib(1.5, 512 << 20), 3.0);
    }
}
