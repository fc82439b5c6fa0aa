//! Waking a shard from another thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

/// A bell that any thread may ring and one task listens to.
///
/// However often it is rung before the task looks, the task is woken once: glommio bounds the wakers that may be under
/// way to one task, and a wake-up of a sleeping executor costs a system call.
#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    listener: OnceLock<Waker>,
    /// The listener's thread naps: no waker would reach it.
    napping: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Bell {
    /// Has the listener look once more. What it is to see must have been put in place before.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Pairs with the fences in `listen` and `nap`: the listener sees the ring, or we see its waker, or its nap.
            fence(Ordering::SeqCst);
            match (self.napping.load(Ordering::SeqCst), self.thread.get(), self.listener.get()) {
                // Comes too late for a nap that is just over, and then cuts the next one short.
                (true, Some(thread), _) => thread.unpark(),
                (_, _, Some(listener)) => listener.wake_by_ref(),
                _ => {}
            }
        }
    }

    /// Clears the bell; the caller then looks at everything that ringers put in place. Always called by one task,
    /// which is woken by every ring from now on.
    pub fn listen(&self, cx: &Context<'_>) {
        self.listener.get_or_init(|| cx.waker().clone());
        fence(Ordering::SeqCst);
        self.rung.swap(false, Ordering::AcqRel);
    }

    /// Has the listener's thread, with all its tasks, sleep for at most `time`, or until the bell rings. The listener
    /// looks again afterwards. Costs a fraction of what it takes an executor to sleep.
    pub fn nap(&self, time: Duration) {
        self.thread.get_or_init(thread::current);
        self.napping.store(true, Ordering::SeqCst);
        // Pairs with the fence in `ring`: we see the ring, or the ringer sees that we nap.
        fence(Ordering::SeqCst);
        if !self.rung.load(Ordering::SeqCst) {
            thread::park_timeout(time);
        }
        self.napping.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Poll;

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    /// Another thread puts numbers in place and rings; the listener sees every one, with `rest` after each that is not the
    /// last.
    fn hears_all(rest: impl Fn(&Bell, &Context<'_>, usize) + Send + 'static) {
        const LAST: usize = 2_000;
        let bell = Arc::new(Bell::default());
        let said = Arc::new(AtomicUsize::new(0));
        let heard = Arc::new(AtomicUsize::new(0));
        let listener = {
            let (bell, said, heard) = (bell.clone(), said.clone(), heard.clone());
            LocalExecutorBuilder::new(Placement::Unbound)
                .io_memory(0)
                .spawn(move || {
                    poll_fn(move |cx| {
                        bell.listen(cx);
                        let now = said.load(Ordering::Acquire);
                        heard.store(now, Ordering::Release);
                        if now == LAST {
                            return Poll::Ready(());
                        }
                        rest(&bell, cx, now);
                        Poll::Pending
                    })
                })
                .unwrap()
        };
        for number in 1..=LAST {
            said.store(number, Ordering::Release);
            bell.ring();
            bell.ring();
            // Every other time the listener gets to sleep first.
            while number % 2 == 0 && heard.load(Ordering::Acquire) < number {
                std::thread::yield_now();
            }
        }
        listener.join().unwrap();
    }

    #[test]
    fn a_foreign_thread_wakes_a_sleeping_executor() {
        hears_all(|_, _, _| {});
    }

    /// Now and then the nap is over by itself, or the executor sleeps.
    #[test]
    fn a_foreign_thread_ends_a_nap() {
        hears_all(|bell, cx, now| {
            match now % 3 {
                0 => bell.nap(Duration::from_secs(600)),
                1 => bell.nap(Duration::from_micros(20)),
                _ => return,
            }
            cx.waker().wake_by_ref();
        });
    }
}
