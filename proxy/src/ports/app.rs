//! The connection to an application.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::limits;

/// An application, over TCP or a socket file.
#[derive(Debug)]
pub enum App {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a socket file.
    Unix(UnixStream),
}

impl App {
    /// Sends `last` and ends the connection such that the application gets to see it: what it still sends is read and
    /// dropped for a while, because closing on unread bytes would throw away what is on its way to it.
    pub async fn dismiss(&mut self, last: &[u8]) {
        let goodbye = async {
            self.write_all(last).await?;
            self.shutdown().await?;
            let mut dropped = [0; 1024];
            let mut left = limits::GOODBYE_BYTES;
            while left > 0 {
                match self.read(&mut dropped).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            io::Result::Ok(())
        };
        // An application that is gone needs no goodbye.
        let _ = timeout(limits::GOODBYE_TIME, goodbye).await;
    }
}

/// Does the same with either.
macro_rules! either {
    ($app:expr, $io:ident => $do:expr) => {
        match $app.get_mut() {
            App::Tcp(stream) => {
                let $io = Pin::new(stream);
                $do
            }
            App::Unix(stream) => {
                let $io = Pin::new(stream);
                $do
            }
        }
    };
}

impl AsyncRead for App {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for App {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, io => io.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, io => io.poll_shutdown(cx))
    }
}
