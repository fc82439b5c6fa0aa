//! Waking a shard from another thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::task::{Context, Waker};

/// A bell that any thread may ring and one task listens to.
///
/// However often it is rung before the task looks, the task is woken once: glommio bounds the wakers that may be under
/// way to one task, and a wake-up of a sleeping executor costs a system call.
#[derive(Default)]
pub struct Bell {
    rung: AtomicBool,
    listener: OnceLock<Waker>,
}

impl Bell {
    /// Has the listener look once more. What it is to see must have been put in place before.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Pairs with the fence in `listen`: the listener sees the ring, or we see its waker.
            fence(Ordering::SeqCst);
            if let Some(listener) = self.listener.get() {
                listener.wake_by_ref();
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
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Poll;

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    /// Every number that another thread puts in place is seen, though the executor sleeps in between.
    #[test]
    fn a_foreign_thread_wakes_a_sleeping_executor() {
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
                        if now == LAST { Poll::Ready(()) } else { Poll::Pending }
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
}
