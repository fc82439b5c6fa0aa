//! What the proxy consists of, put together: started, told of changes, asked how it is, stopped.
//!
//! The order is that in which the parts need each other: links, the directory, guards, circuits, streams, ports.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::task::JoinSet;

use super::DaemonError;
use crate::config::Config;
use crate::control::{Port, Report, Status};
use crate::links::Links;
use crate::tallies::Tallies;

/// The parts of a running proxy.
pub struct Parts {
    config: Arc<ArcSwap<Config>>,
    tallies: Arc<Tallies>,
    links: Arc<Links>,
    ports: Vec<Port>,
}

impl Parts {
    /// Starts all of them. What runs for as long as the program does goes into `tasks`, each task with a name that it
    /// returns if it ends, which it must not. `ports` are the sockets that listen already.
    pub async fn start(
        config: Config,
        ports: &mut Vec<Port>,
        _tasks: &mut JoinSet<&'static str>,
    ) -> Result<Parts, DaemonError> {
        let config = Arc::new(ArcSwap::from_pointee(config));
        let tallies = Arc::new(Tallies::default());
        let links = Arc::new(Links::new()?);
        Ok(Parts { config, tallies, links, ports: std::mem::take(ports) })
    }

    /// The configuration in force. Options that can change while the proxy runs are to be read here when they count, and
    /// not kept.
    pub fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }

    /// What is counted.
    pub fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Links to relays that are open or being opened.
    pub fn links(&self) -> usize {
        self.links.len()
    }

    /// Puts a configuration in force, in which nothing differs that cannot change.
    pub fn reload(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// Does what is due every half minute.
    pub fn keep_house(&self) {
        self.links.sweep();
    }

    /// Writes what a restart must know. Tasks end with the runtime.
    pub async fn stop(&self) {}
}

impl Status for Parts {
    fn report(&self) -> Report {
        Report { pid: std::process::id(), ports: self.ports.clone(), ..Report::default() }
    }

    fn circuits(&self) -> String {
        String::new()
    }

    fn new_identity(&self) {}
}
