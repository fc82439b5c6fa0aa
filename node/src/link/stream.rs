//! A stream of a circuit as tokio reads and writes it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use onionring_proto::relay_msg::Connected;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::slots::StreamNo;

/// What serves a stream: a circuit.
pub(super) trait StreamHost: Send + Sync {
    fn poll_read(&self, no: StreamNo, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;
    fn poll_write(&self, no: StreamNo, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>>;
    /// Waits until everything is sent.
    fn poll_flush(&self, no: StreamNo, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends the stream now. Nothing happens to one that has ended.
    fn end(&self, no: StreamNo);
    /// Whether each direction of the stream ends by itself.
    fn has_halves(&self, _no: StreamNo) -> bool {
        false
    }
    /// Ends what we send on a stream that has halves, after all that was written.
    fn finish(&self, _no: StreamNo) {}
    /// The handle is gone.
    fn drop_stream(&self, no: StreamNo);
}

/// A stream; see the [module](super). It keeps its circuit.
///
/// There is no half of a stream in Tor, unless that was agreed on ([`Stream::has_halves`]): END closes both directions. So
/// `shutdown` waits until all that was written is sent, and then ends the stream; what the other side sends after that is
/// lost. Read the answer first. Of a stream with halves it only ends what we send. Dropping it ends the stream at once, and
/// loses what is not sent.
///
/// Errors of reading and writing contain a [`StreamError`](super::StreamError). An orderly end, reason DONE, is the end
/// of the data.
pub struct Stream {
    host: Arc<dyn StreamHost>,
    no: StreamNo,
    connected: Connected,
}

impl Stream {
    pub(super) fn new(host: Arc<dyn StreamHost>, no: StreamNo, connected: Connected) -> Stream {
        Stream { host, no, connected }
    }

    pub(super) fn set_connected(&mut self, connected: Connected) {
        self.connected = connected;
    }

    /// Whether each direction ends by itself, because the hop agreed to that; `false` of a stream that is over.
    pub fn has_halves(&self) -> bool {
        self.host.has_halves(self.no)
    }

    /// Where the stream leads, if the exit has said so.
    pub fn connected(&self) -> &Connected {
        &self.connected
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.host.drop_stream(self.no);
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.host.poll_read(self.no, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.host.poll_write(self.no, cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.host.poll_flush(self.no, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let has_halves = self.host.has_halves(self.no);
        if has_halves {
            self.host.finish(self.no);
        }
        let flushed = self.host.poll_flush(self.no, cx);
        if flushed.is_ready() && !has_halves {
            self.host.end(self.no);
        }
        flushed
    }
}
