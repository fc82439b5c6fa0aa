//! The last question on a circuit that was used and carried nothing: whether its guard has changed cells on the way, or
//! whatever was asked for did not answer (C tor 0.4.9's `pathbias_send_usable_probe`).
//!
//! It asks for an address that no exit lets out to, drawn at random; the refusal must name it. It is asked at the end of a
//! circuit's life, so that nobody can tell such circuits from others while they are in use.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use onionring_node::link::StreamError;
use onionring_proto::relay_msg::{Begin, BeginFlags, Host};
use rand::RngExt as _;
use tracing::debug;

use super::build::Built;
use crate::guards::Step;
use crate::limits;

/// The port that is asked for.
const PORT: u16 = 25;

/// Has the exit of a circuit asked, if there is doubt. The circuit stands until it has answered.
pub(super) fn clear_doubt(circuit: &Arc<Built>) {
    if circuit.is_in_doubt() {
        tokio::spawn(ask(circuit.clone()));
    }
}

async fn ask(circuit: Arc<Built>) {
    let address = IpAddr::from(Ipv4Addr::from_bits(rand::rng().random_range(1..1 << 24)));
    let begin = Begin { host: Host::Addr(address), port: PORT, flags: BeginFlags::default() };
    let Some(last) = circuit.circuit.hops().checked_sub(1) else { return };
    let answer = circuit.circuit.begin(last, &begin, limits::PROBE_TIME).await;
    if answer.is_err_and(|error| matches!(error, StreamError::Forbidden(echo) if echo == address)) {
        debug!("a circuit that carried nothing was good all the same");
        circuit.note(Step::Answered);
    }
}
