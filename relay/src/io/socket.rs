//! A connected socket, waited for in whichever way suits the shard at the time.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead as _, AsyncWrite as _};
use glommio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, sendmsg, shutdown};

use super::ready::{Ready, Watch};

/// A connected socket of one task. Both its directions belong to that task.
pub struct Socket {
    /// First, so that it is dropped before the socket.
    watch: Option<Watch>,
    stream: TcpStream,
}

impl Socket {
    /// Of a stream that nobody waits for yet; `ready` is that of its shard, if there is one.
    pub(super) fn new(stream: TcpStream, ready: Option<&Rc<Ready>>) -> Self {
        Socket { watch: ready.and_then(|ready| ready.watch(&stream)), stream }
    }

    /// For which only glommio waits.
    #[cfg(test)]
    pub fn plain(stream: TcpStream) -> Self {
        Socket::new(stream, None)
    }

    /// Reads what there is; 0 when the peer has closed its side. If there is nothing, has the task woken when there is.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let Some(watch) = self.listen(cx) else { return Pin::new(&mut self.stream).poll_read(cx, buf) };
        if !watch.is_readable() {
            watch.rely();
            return Poll::Pending;
        }
        match retry(|| recv(self.stream.as_raw_fd(), buf, MsgFlags::MSG_DONTWAIT)) {
            Err(Errno::EAGAIN) => {
                watch.is_empty();
                watch.rely();
                Poll::Pending
            }
            result => Poll::Ready(result.map_err(Into::into)),
        }
    }

    /// Writes what there is room for. If there is none, has the task woken when there is.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let fd = self.stream.as_raw_fd();
        let result = retry(|| match bufs {
            // Cheaper than a list of one.
            [buf] => send(fd, buf, flags),
            _ => sendmsg::<()>(fd, bufs, &[], flags, None),
        });
        match result {
            Err(Errno::EAGAIN) => {}
            result => return Poll::Ready(result.map_err(Into::into)),
        }
        if let Some(watch) = self.listen(cx) {
            watch.is_full();
            watch.rely();
            return Poll::Pending;
        }
        let buf = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    /// Tells the peer that nothing more comes, after all that was written; it may go on sending.
    pub fn finish(&self) -> io::Result<()> {
        Ok(shutdown(self.stream.as_raw_fd(), Shutdown::Write)?)
    }

    /// Has the watch wake the task, and returns it if the shard looks, so that it will.
    fn listen(&self, cx: &Context<'_>) -> Option<&Watch> {
        let watch = self.watch.as_ref()?;
        watch.listen(cx);
        watch.is_on().then_some(watch)
    }

    /// The socket as a TLS session wants it: what cannot be written now is `WouldBlock`, and the task is woken when it
    /// can.
    pub(super) fn writer<'a, 'b>(&'a mut self, cx: &'a mut Context<'b>) -> SocketWriter<'a, 'b> {
        SocketWriter { socket: self, cx }
    }
}

/// Does again what a signal has interrupted.
fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// See [`Socket::writer`].
pub(super) struct SocketWriter<'a, 'b> {
    socket: &'a mut Socket,
    cx: &'a mut Context<'b>,
}

impl io::Write for SocketWriter<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// Several records in one call: what the network does for each costs more than the call.
    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.socket.poll_write(self.cx, bufs) {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
