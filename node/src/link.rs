//! Links and circuits driven on tokio: what `onionring_proto` decides, carried out over sockets.
//!
//! Here are no decisions of the protocol, only the carrying: [`Dialer`] and [`LinkAcceptor`] make a [`Link`], one
//! connection with a task of its own that reads, writes and hands cells to their circuits; [`Link::create`] makes a
//! [`Circuit`], which is extended hop by hop and opens [`Stream`]s, tokio's `AsyncRead` and `AsyncWrite`. Circuits that
//! others build to us are answered by a [`Service`], which hands over their requests to the directory.
//!
//! **Who waits for whom.** There are no channels but the bounded one into which a service puts requests. Handles change
//! a circuit under its lock and tell the link's task that there is something to send; the task makes cells from circuits
//! only while the socket takes them, so what waits for a slow link stays where the protocol bounds it: in the buffers
//! of streams, which then take no more. In the other direction the windows of streams bound what is not read yet. No
//! lock is held while another is taken, nor across an `await`.
//!
//! **Who keeps whom.** A circuit lives until its last handle is dropped, the [`Circuit`] or one of its streams; a link
//! as long as its handle or a circuit that we built on it. What is dropped is closed in order: END, DESTROY, TLS.

mod accept;
mod circuit;
mod connect;
mod connection;
mod error;
#[cfg(any(test, feature = "testdata"))]
pub mod played;
mod responder;
mod shared;
mod slots;
mod stream;
mod task;
#[cfg(test)]
mod tests;

pub use accept::{LinkAcceptor, Side};
pub use circuit::{Answer, Asked, Circuit};
pub use connect::{ConnectError, Dialer};
pub use connection::Times;
pub use error::{CircuitError, LinkFailure, Step, StreamError};
pub use responder::{DirRequest, Service};
pub use shared::Link;
pub use stream::Stream;
