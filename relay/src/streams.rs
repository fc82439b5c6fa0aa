//! Streams that end at this relay: who serves which, on one shard.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use onionring_node::metrics::table;

use crate::dir;
use crate::dir::clock::Clocks;
use crate::dir::directory::Directory;
use crate::dir::stream::{DirStreams, EngineIo};
use crate::engine::event::{StreamEvent, StreamRef};
use crate::exit::{Exit, ExitSettings};
use crate::io::shard::{Shard, StreamHandler};
use crate::limits;

/// What all shards serve.
#[derive(Clone)]
pub struct Served {
    /// To the outside.
    pub exit: Arc<ArcSwap<ExitSettings>>,
    /// To the directory; `None` with `DirCache 0`.
    pub directory: Option<Arc<Directory>>,
}

/// The streams of one shard.
pub struct Streams {
    shard: Rc<Shard>,
    exit: Exit<Rc<Shard>>,
    directory: Option<Arc<Directory>>,
    requests: Rc<RefCell<DirStreams<StreamRef>>>,
}

impl Streams {
    /// Serves the streams of `shard`. To be called on its executor.
    pub fn new(shard: &Rc<Shard>, number: usize, served: &Served) -> Streams {
        let requests = Rc::new(RefCell::new(DirStreams::default()));
        shard.spawn(sweep(shard.clone(), number, requests.clone()));
        Streams {
            exit: Exit::new(shard.clone(), served.exit.clone(), number),
            directory: served.directory.clone(),
            shard: shard.clone(),
            requests,
        }
    }

    fn directory_event(&self, event: StreamEvent) {
        let directory = self.directory.as_ref().map(|directory| directory.documents());
        let requests = &mut *self.requests.borrow_mut();
        let unix = self.shard.unix();
        self.shard.engine(|engine, mono| {
            let now = Clocks { mono, unix };
            let io = &mut EngineIo { engine, now: mono };
            match event {
                StreamEvent::BeginDir { at } => {
                    let client = io.engine.previous_hop(at.circuit);
                    requests.begin(io, now, directory.as_deref(), at, client);
                }
                StreamEvent::Readable(at) => {
                    if let Some(directory) = directory.as_deref() {
                        requests.readable(io, now, directory, at);
                    }
                }
                StreamEvent::Writable(at) => requests.writable(io, now, at),
                StreamEvent::Closed { at, .. } => requests.closed(io, at),
                // The exit takes these.
                StreamEvent::Begin { .. } | StreamEvent::Resolve { .. } | StreamEvent::Finished(_) => {}
            }
        });
    }
}

impl StreamHandler for Streams {
    fn handle(&mut self, event: StreamEvent) {
        if let Some(event) = self.exit.handle(event) {
            self.directory_event(event);
        }
    }
}

/// Ends directory streams on which nothing moves, and shows what they did as metrics.
async fn sweep(shard: Rc<Shard>, number: usize, requests: Rc<RefCell<DirStreams<StreamRef>>>) {
    let shard_label = number.to_string();
    let served = table::DIRECTORY_SERVED_BYTES.counter(&[("shard", &shard_label)]);
    for status in dir::serve::STATUSES {
        let labels = [("shard", shard_label.as_str()), ("status", &status.to_string())];
        table::DIRECTORY_REQUESTS.counter(&labels).absolute(0);
    }
    loop {
        glommio::timer::sleep(limits::DIR_SWEEP).await;
        shard.engine(|engine, now| requests.borrow_mut().handle_timeout(&mut EngineIo { engine, now }, now));
        let requests = requests.borrow();
        served.absolute(requests.counters().bytes);
        let counters = requests.counters();
        for (reason, n) in [("refused", counters.refused), ("timed_out", counters.timed_out)] {
            let labels = [("shard", shard_label.as_str()), ("reason", reason)];
            table::DIRECTORY_STREAMS_DROPPED.counter(&labels).absolute(n);
        }
        for (status, count) in &requests.counters().answers {
            let labels = [("shard", shard_label.as_str()), ("status", &status.to_string())];
            table::DIRECTORY_REQUESTS.counter(&labels).absolute(*count);
        }
    }
}
