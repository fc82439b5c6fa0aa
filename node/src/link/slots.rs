//! What a circuit keeps for the handles of its streams: how each stands, and whom to wake.

use std::collections::HashMap;
use std::net::IpAddr;
use std::task::{Context, Waker};

use onionring_proto::origin::StreamKey;
use onionring_proto::relay_msg::{Connected, End, EndReason, Resolved};

/// Names a handle. IDs of streams serve again when a stream has ended, and its handle may outlive that.
pub(super) type StreamNo = u64;

/// How the stream of one handle stands.
pub(super) struct Slot {
    /// Its name in the circuit; another stream may have it once this one is over.
    pub key: StreamKey,
    /// CONNECTED has come.
    pub connected: Option<Connected>,
    /// RESOLVED has come.
    pub resolved: Option<Resolved>,
    /// Something was written, and it has not been seen yet that all is sent.
    pub has_unsent: bool,
    /// The other side has ended what it sends, and all of it is read.
    pub is_read: bool,
    /// We have ended what we send.
    pub is_written: bool,
    /// Why it is over.
    pub over: Option<Over>,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
}

/// Why a stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The other side has ended it, and all before that is read.
    Ended(EndReason),
    /// The same, because its policy forbids the address that was asked for or that a name leads to.
    Forbidden(IpAddr),
    /// We have ended it.
    Shut,
}

impl Slot {
    pub fn await_reading(&mut self, cx: &Context<'_>) {
        self.reader = Some(cx.waker().clone());
    }

    pub fn await_writing(&mut self, cx: &Context<'_>) {
        self.writer = Some(cx.waker().clone());
    }

    pub fn end_reading(&mut self) {
        self.is_read = true;
        self.wake_reader();
    }

    pub fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    pub fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

/// The streams of one circuit that have a handle.
///
/// Invariant: `live` names the slots that are not over, by their keys.
#[derive(Default)]
pub(super) struct Slots {
    slots: HashMap<StreamNo, Slot>,
    live: HashMap<StreamKey, StreamNo>,
    next: StreamNo,
}

impl Slots {
    pub fn open(&mut self, key: StreamKey) -> StreamNo {
        let no = self.next;
        self.next += 1;
        let slot = Slot {
            key,
            connected: None,
            resolved: None,
            has_unsent: false,
            is_read: false,
            is_written: false,
            over: None,
            reader: None,
            writer: None,
        };
        self.slots.insert(no, slot);
        self.live.insert(key, no);
        no
    }

    pub fn get_mut(&mut self, no: StreamNo) -> Option<&mut Slot> {
        self.slots.get_mut(&no)
    }

    pub fn by_key(&mut self, key: StreamKey) -> Option<&mut Slot> {
        self.slots.get_mut(self.live.get(&key)?)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.values_mut()
    }

    /// The other side has ended the stream.
    pub fn ended(&mut self, key: StreamKey, end: End) {
        if let Some(slot) = self.by_key(key) {
            slot.over = Some(match end.addr {
                Some((address, _)) => Over::Forbidden(address),
                None => Over::Ended(end.reason),
            });
            slot.wake_reader();
            slot.wake_writer();
            self.live.remove(&key);
        }
    }

    /// We end the stream; returns its key unless it is over.
    pub fn shut(&mut self, no: StreamNo) -> Option<StreamKey> {
        let slot = self.slots.get_mut(&no).filter(|slot| slot.over.is_none())?;
        slot.over = Some(Over::Shut);
        slot.wake_reader();
        let key = slot.key;
        self.live.remove(&key);
        Some(key)
    }

    /// The handle is gone; returns the key of the stream unless it is over.
    pub fn remove(&mut self, no: StreamNo) -> Option<StreamKey> {
        let key = self.shut(no);
        self.slots.remove(&no);
        key
    }

    pub fn wake_all(&mut self) {
        for slot in self.slots.values_mut() {
            slot.wake_reader();
            slot.wake_writer();
        }
    }
}
