//! Waking a shard from another thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering, fence};
use std::task::{Context, Waker};
use std::time::Duration;

use nix::sys::eventfd::EventFd;

/// The listener's executor does what it does: a waker reaches it.
const AWAKE: u8 = 0;
/// The listener's thread naps: only the alarm reaches it.
const NAPPING: u8 = 1;
/// The listener's thread dozes, and looks afterwards by itself.
const DOZING: u8 = 2;

/// A bell that any thread may ring and one task listens to.
///
/// However often it is rung before the task looks, the task is woken once: glommio bounds the wakers that may be under
/// way to one task, and a wake-up of a sleeping executor costs a system call.
#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    listener: OnceLock<Waker>,
    /// What the listener's thread does, one of the constants above.
    state: AtomicU8,
    alarm: OnceLock<EventFd>,
}

impl Bell {
    /// Has the listener look once more. What it is to see must have been put in place before.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Pairs with the fences in `listen` and `away`: the listener sees the ring, or we see its waker, or that it
            // is away.
            fence(Ordering::SeqCst);
            match (self.state.load(Ordering::SeqCst), self.alarm.get(), self.listener.get()) {
                (DOZING, _, _) => {}
                // Comes too late for a nap that is just over, and then cuts the next one short. Fails only when it has
                // been given already, over and over.
                (NAPPING, Some(alarm), _) => _ = alarm.write(1),
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

    /// What ends naps, from now on; for a listener that naps. It must not block.
    pub fn set_alarm(&self, alarm: EventFd) -> &EventFd {
        self.alarm.get_or_init(|| alarm)
    }

    /// Has the listener's thread, with all its tasks, sleep for a time during which ringing costs nothing, and is not
    /// heard. Returns at once if the bell has rung: then the listener is to look first.
    pub fn doze(&self, time: Duration) -> bool {
        self.away(DOZING, || std::thread::sleep(time))
    }

    /// Has the listener's thread, with all its tasks, sleep in `sleep`, which ends at the latest when the alarm is
    /// given; not at all if the bell has rung. Costs a fraction of what it takes an executor to sleep. Returns whether it
    /// slept.
    pub fn nap(&self, sleep: impl FnOnce()) -> bool {
        self.away(NAPPING, sleep)
    }

    fn away(&self, state: u8, sleep: impl FnOnce()) -> bool {
        self.state.store(state, Ordering::SeqCst);
        // Pairs with the fence in `ring`: we see the ring, or the ringer sees that we are away.
        fence(Ordering::SeqCst);
        let sleeps = !self.rung.load(Ordering::SeqCst);
        if sleeps {
            sleep();
        }
        self.state.store(AWAKE, Ordering::SeqCst);
        sleeps
    }

    /// Takes the alarm back.
    pub fn clear_alarm(&self) {
        if let Some(alarm) = self.alarm.get() {
            // Fails if it was not given.
            let _ = alarm.read();
        }
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

    /// Now and then the nap is over by itself, or the executor sleeps, or nothing is heard for a while.
    #[test]
    fn a_foreign_thread_ends_a_nap() {
        let slept = Arc::new(AtomicUsize::new(0));
        let count = slept.clone();
        hears_all(move |bell, cx, now| {
            let alarm = bell.set_alarm(EventFd::new().unwrap());
            let slept = match now % 4 {
                0 => bell.nap(|| _ = alarm.read()),
                1 => bell.nap(|| std::thread::sleep(Duration::from_micros(20))),
                2 => bell.doze(Duration::from_micros(20)),
                _ => return,
            };
            count.fetch_add(usize::from(slept), Ordering::Relaxed);
            cx.waker().wake_by_ref();
        });
        assert_ne!(slept.load(Ordering::Relaxed), 0);
    }
}
