//! Rings between shards: for every ordered pair one bounded ring there, and one back for the emptied memory.
//!
//! Nobody waits for another shard. A sender that finds a ring full keeps what it wanted to send, and its bell rings
//! when there is room again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;

use super::bell::Bell;

/// The way from one shard to another. Only the one pushes to `there` and pops from `back`, and only the other the
/// reverse, so no compare-and-swap of the queues ever has to be repeated.
struct Lane<T> {
    there: ArrayQueue<T>,
    back: ArrayQueue<T>,
    /// The sender found no room.
    starved: AtomicBool,
}

/// One shard's end of the mesh.
pub struct Port<T> {
    me: usize,
    /// Lanes by sender, then by receiver; a lane from a shard to itself stays empty.
    lanes: Arc<[Vec<Lane<T>>]>,
    bells: Arc<[Arc<Bell>]>,
}

/// The ports of all shards, connected by rings of `capacity` batches. `bells[i]` wakes shard `i`.
pub fn mesh<T>(bells: &[Arc<Bell>], capacity: usize) -> Vec<Port<T>> {
    let shards = bells.len();
    let lane = |from: usize, to: usize| {
        let capacity = if from == to { 1 } else { capacity };
        Lane {
            there: ArrayQueue::new(capacity),
            back: ArrayQueue::new(capacity),
            starved: AtomicBool::new(false),
        }
    };
    let lanes: Arc<[Vec<Lane<T>>]> =
        (0..shards).map(|from| (0..shards).map(|to| lane(from, to)).collect()).collect();
    let bells: Arc<[Arc<Bell>]> = bells.into();
    (0..shards).map(|me| Port { me, lanes: lanes.clone(), bells: bells.clone() }).collect()
}

impl<T> Port<T> {
    /// Which shard's port this is.
    pub fn me(&self) -> usize {
        self.me
    }

    /// The other shards.
    pub fn others(&self) -> impl Iterator<Item = usize> + use<T> {
        let me = self.me;
        (0..self.bells.len()).filter(move |&shard| shard != me)
    }

    /// Sends a batch without waking the receiver; [`ring`](Self::ring) after the last one. With no room in the ring,
    /// the batch comes back, and our bell will ring when there is.
    pub fn send(&self, to: usize, batch: T) -> Result<(), T> {
        let lane = &self.lanes[self.me][to];
        lane.there.push(batch).or_else(|batch| {
            lane.starved.store(true, Ordering::SeqCst);
            // Room that was made before the receiver could see the flag would go unnoticed.
            lane.there.push(batch)
        })
    }

    /// Wakes the receiver of what was sent.
    pub fn ring(&self, to: usize) {
        self.bells[to].ring();
    }

    /// The next batch from another shard.
    pub fn receive(&self, from: usize) -> Option<T> {
        self.lanes[from][self.me].there.pop()
    }

    /// Returns the memory of a received batch to its sender, or drops it when too much is on its way back.
    pub fn give_back(&self, from: usize, batch: T) {
        let lane = &self.lanes[from][self.me];
        drop(lane.back.push(batch));
        if lane.starved.load(Ordering::SeqCst) && lane.starved.swap(false, Ordering::SeqCst) {
            self.bells[from].ring();
        }
    }

    /// Memory of a batch sent to another shard that has come back.
    pub fn take_back(&self, to: usize) -> Option<T> {
        self.lanes[self.me][to].back.pop()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;

    #[test]
    fn batches_keep_their_order_and_a_full_ring_gives_back() {
        let bells: Vec<_> = (0..2).map(|_| Arc::new(Bell::default())).collect();
        let ports = mesh::<u32>(&bells, 2);
        assert_eq!(ports[0].others().collect::<Vec<_>>(), [1]);
        assert_eq!((ports[0].send(1, 1), ports[0].send(1, 2), ports[0].send(1, 3)), (Ok(()), Ok(()), Err(3)));
        assert_eq!(ports[1].send(0, 9), Ok(()));
        assert_eq!((ports[1].receive(0), ports[1].receive(0), ports[1].receive(0)), (Some(1), Some(2), None));
        ports[1].give_back(0, 10);
        assert_eq!((ports[0].take_back(1), ports[0].take_back(1)), (Some(10), None));
        assert_eq!(ports[0].receive(1), Some(9));
    }

    /// Three shards send to each other as much as the rings take, sleeping in between; all of it arrives in order.
    #[test]
    fn shards_that_sleep_lose_nothing() {
        const SHARDS: usize = 3;
        const LAST: usize = 5_000;
        let bells: Vec<_> = (0..SHARDS).map(|_| Arc::new(Bell::default())).collect();
        let handles: Vec<_> = mesh::<Vec<usize>>(&bells, 4)
            .into_iter()
            .map(|port| {
                let bell = bells[port.me()].clone();
                let (mut sent, mut got) = ([0; SHARDS], [0; SHARDS]);
                (sent[port.me()], got[port.me()]) = (LAST, LAST);
                let run = move || {
                    poll_fn(move |cx| {
                        bell.listen(cx);
                        for other in port.others() {
                            while let Some(mut batch) = port.receive(other) {
                                assert_eq!(batch.pop(), Some(got[other]));
                                got[other] += 1;
                                port.give_back(other, batch);
                            }
                            while sent[other] < LAST {
                                let mut batch = port.take_back(other).unwrap_or_default();
                                batch.push(sent[other]);
                                if port.send(other, batch).is_err() {
                                    break;
                                }
                                sent[other] += 1;
                            }
                            port.ring(other);
                        }
                        if sent == [LAST; SHARDS] && got == [LAST; SHARDS] {
                            Poll::Ready(())
                        } else {
                            Poll::Pending
                        }
                    })
                };
                LocalExecutorBuilder::new(Placement::Unbound).io_memory(0).spawn(run).unwrap()
            })
            .collect();
        for handle in handles {
            handle.join().unwrap();
        }
    }
}
