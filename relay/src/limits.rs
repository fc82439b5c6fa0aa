//! Every bound of the relay, in one place, with what happens at it.

/// Connections that the kernel holds for one shard's listener until they are accepted; it refuses more.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Bytes that the kernel takes for a connection and has not sent yet (TCP_NOTSENT_LOWAT); the rest waits in the
/// circuits' queues, where the choice of what goes next is still open.
pub const UNSENT_BYTES: u32 = 64 * 1024;

/// Memory that glommio locks for one shard: its rings, and its registered buffers, which are not used here and as
/// small as it lets them be. With less, the relay does not start.
pub const MEMLOCK_PER_SHARD: u64 = 512 * 1024;

/// Open files without which even a small relay does not start.
pub const OPEN_FILES_NEEDED: u64 = 1024;

/// Open files to ask for when the hard limit is unlimited.
pub const OPEN_FILES_WANTED: u64 = 1 << 20;
