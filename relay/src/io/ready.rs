//! Which sockets have something to read or room to write, told by one epoll instance for each shard.
//!
//! A shard that sleeps waits for its sockets in io_uring, through glommio. That is the right thing for a shard with
//! nothing to do, and far too dear for one that gets a handful of cells at a time: the poll, two timers, a barrier over
//! all threads and two task switches cost several times what the cells do. So while cells keep coming, [`Pace`](super::pace)
//! has the shard nap instead, and naps wait here: for any socket, at the price of one system call. What a socket has
//! had is told once (edges), so nothing has to be armed again.
//!
//! All sockets are watched from their first to their last moment. Who finds a socket empty or full while the shard
//! naps leaves it at that ([`Watch::rely`]); when the shard is about to sleep, [`Ready::hand_back`] wakes those, and
//! they wait with glommio.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use slab::Slab;

use super::bell::Bell;
use crate::limits;

/// The token of the bell; those of sockets are places in a slab.
const BELL: u64 = u64::MAX;

/// What a shard's naps wait for. Made before the shard's thread is, where it can still fail.
pub(super) struct Sources {
    epoll: Epoll,
}

impl Sources {
    /// Nothing but the bell.
    pub(super) fn new(bell: &Bell) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let alarm = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let alarm = bell.set_alarm(alarm);
        epoll.add(alarm, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        Ok(Sources { epoll })
    }
}

/// The watched sockets of one shard.
pub(super) struct Ready {
    epoll: Epoll,
    sockets: RefCell<Slab<Rc<Watched>>>,
    /// Those whose tasks nothing else would wake.
    relying: RefCell<BTreeSet<usize>>,
    /// Whether the shard naps, and so looks here.
    on: Cell<bool>,
    /// A socket was full since the last look.
    full: Cell<bool>,
    events: RefCell<Vec<EpollEvent>>,
}

#[derive(Default)]
struct Watched {
    task: RefCell<Option<Waker>>,
    /// There may be something to read.
    readable: Cell<bool>,
    relies: Cell<bool>,
}

impl Watched {
    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }
}

impl Ready {
    pub(super) fn new(sources: Sources) -> Rc<Self> {
        Rc::new(Ready {
            epoll: sources.epoll,
            sockets: RefCell::default(),
            relying: RefCell::default(),
            on: Cell::new(false),
            full: Cell::new(false),
            events: RefCell::new(vec![EpollEvent::empty(); limits::READY_EVENTS]),
        })
    }

    /// Watches a socket that outlives the watch. `None` if the system has no memory for it: then glommio has to do.
    pub(super) fn watch(self: &Rc<Self>, socket: &impl AsRawFd) -> Option<Watch> {
        let fd = socket.as_raw_fd();
        let watched = Rc::new(Watched::default());
        let mut sockets = self.sockets.borrow_mut();
        let entry = sockets.vacant_entry();
        let key = entry.key();
        let what = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        self.epoll.add(borrow(&fd), EpollEvent::new(what, key as u64)).ok()?;
        entry.insert(watched.clone());
        Some(Watch { ready: self.clone(), key, fd, watched })
    }

    /// Whether the shard naps, and so looks here.
    pub(super) fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Whether a socket was full since the last look: what it has room for then is not to wait.
    pub(super) fn is_any_full(&self) -> bool {
        self.full.get()
    }

    /// From now on the shard looks here.
    pub(super) fn take_over(&self) {
        self.on.set(true);
    }

    /// From now on the shard does not look here: wakes those that rely on it.
    pub(super) fn hand_back(&self) {
        self.on.set(false);
        let sockets = self.sockets.borrow();
        for key in std::mem::take(&mut *self.relying.borrow_mut()) {
            if let Some(watched) = sockets.get(key) {
                watched.relies.set(false);
                watched.wake();
            }
        }
    }

    /// Looks what has happened to the sockets, and wakes whom it concerns.
    pub(super) fn look(&self) {
        self.collect(EpollTimeout::ZERO);
    }

    /// Sleeps until something happens to a socket or the bell rings, for about `most` at the longest. To be called in
    /// [`Bell::nap`].
    pub(super) fn nap(&self, most: Duration, bell: &Bell) {
        // Rounded up: a nap of no time would be none.
        let most = u16::try_from(most.as_millis() + 1).unwrap_or(u16::MAX);
        if self.collect(EpollTimeout::from(most)) {
            bell.clear_alarm();
        }
    }

    /// Returns whether the bell was rung.
    fn collect(&self, wait: EpollTimeout) -> bool {
        let events = &mut *self.events.borrow_mut();
        // Interrupted is as good as nothing.
        let found = self.epoll.wait(events, wait).unwrap_or(0);
        let sockets = self.sockets.borrow();
        let mut rung = false;
        self.full.set(false);
        for event in events.iter().take(found) {
            let Some(watched) = sockets.get(event.data() as usize) else {
                rung |= event.data() == BELL;
                continue;
            };
            if event.events() != EpollFlags::EPOLLOUT {
                watched.readable.set(true);
            }
            watched.wake();
        }
        rung
    }
}

/// One watched socket. To be dropped before the socket.
pub(super) struct Watch {
    ready: Rc<Ready>,
    key: usize,
    fd: RawFd,
    watched: Rc<Watched>,
}

impl Watch {
    /// Whether the shard looks at what is watched.
    pub(super) fn is_on(&self) -> bool {
        self.ready.is_on()
    }

    /// Whether there may be something to read.
    pub(super) fn is_readable(&self) -> bool {
        self.watched.readable.get()
    }

    /// There was nothing more to read.
    pub(super) fn is_empty(&self) {
        self.watched.readable.set(false);
    }

    /// There was no room to write.
    pub(super) fn is_full(&self) {
        self.ready.full.set(true);
    }

    /// Has the task, and no longer another one, woken at whatever happens to the socket, if the shard looks.
    pub(super) fn listen(&self, cx: &Context<'_>) {
        let mut task = self.watched.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Has the task that listens woken also when the shard is about to look no longer.
    pub(super) fn rely(&self) {
        if !self.watched.relies.replace(true) {
            self.ready.relying.borrow_mut().insert(self.key);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The socket is still open; and of one that is not, nothing would be heard.
        let _ = self.ready.epoll.delete(borrow(&self.fd));
        self.ready.sockets.borrow_mut().remove(self.key);
        self.ready.relying.borrow_mut().remove(&self.key);
    }
}

/// Glommio's sockets give their descriptor only as a number.
fn borrow(fd: &RawFd) -> BorrowedFd<'_> {
    // SAFETY: of the callers, `watch` holds a reference to the socket, and a `Watch` is dropped before its socket. Were it
    // not, epoll would answer for a descriptor that is closed or another's: an error, or a wake-up too many.
    unsafe { BorrowedFd::borrow_raw(*fd) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often its task was woken.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Wakes {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::Relaxed)
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        near.set_nonblocking(true).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn ready() -> (Rc<Ready>, Bell) {
        let bell = Bell::default();
        (Ready::new(Sources::new(&bell).unwrap()), bell)
    }

    #[test]
    fn what_happens_to_a_socket_is_told_once() {
        let (ready, bell) = ready();
        let (mut near, mut far) = pair();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let watch = ready.watch(&near).unwrap();
        watch.listen(&Context::from_waker(&waker));
        // There is room to write, and nothing to read.
        ready.look();
        assert_eq!((wakes.take(), watch.is_readable()), (1, false));
        ready.look();
        assert_eq!(wakes.take(), 0);

        far.write_all(b"cell").unwrap();
        ready.nap(Duration::from_secs(60), &bell);
        assert_eq!((wakes.take(), watch.is_readable()), (1, true));
        watch.is_empty();
        ready.look();
        assert_eq!((wakes.take(), watch.is_readable()), (0, false));

        // Full, and read by the peer: there is room again.
        let mut written = 0;
        while let Ok(some) = near.write(&[0; 65536]) {
            written += some;
        }
        let reader = std::thread::spawn(move || {
            far.read_exact(&mut vec![0; written]).unwrap();
            far
        });
        while wakes.take() == 0 {
            ready.nap(Duration::from_secs(60), &bell);
        }
        // The end is something to read.
        drop(reader.join().unwrap());
        while !watch.is_readable() {
            ready.nap(Duration::from_secs(60), &bell);
        }
    }

    #[test]
    fn the_bell_ends_a_nap() {
        let (ready, bell) = ready();
        let bell = Arc::new(bell);
        let ringer = bell.clone();
        let thread = std::thread::spawn(move || ringer.ring());
        // Rung before or after it begins.
        bell.nap(|| ready.nap(Duration::from_secs(60), &bell));
        thread.join().unwrap();
    }

    #[test]
    fn those_who_rely_on_naps_are_woken_at_their_end() {
        let (ready, _) = ready();
        let ((one, _far), (two, _too)) = (pair(), pair());
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(wakes.clone());
        let watches = [&one, &two].map(|socket| {
            let watch = ready.watch(socket).unwrap();
            watch.listen(&Context::from_waker(&waker));
            watch
        });
        ready.take_over();
        assert!(watches[0].is_on());
        watches[0].rely();
        watches[0].rely();
        ready.hand_back();
        assert!(!watches[0].is_on());
        assert_eq!(wakes.take(), 1);
        ready.hand_back();
        assert_eq!(wakes.take(), 0);

        // Those that are gone are forgotten.
        watches.iter().for_each(Watch::rely);
        drop(watches);
        assert!(ready.relying.borrow().is_empty() && ready.sockets.borrow().is_empty());
        ready.look();
        ready.hand_back();
        assert_eq!(wakes.take(), 0);
    }
}
