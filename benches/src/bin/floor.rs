//! The yardstick: the least that forwarding cells costs on this machine.
//!
//! One thread reads TLS from a blocking socket, takes one layer of AES-CTR off every cell, and writes TLS to another
//! blocking socket. No circuits, queues, schedules or fairness: what a relay needs beyond this figure is its own doing.
//! A second thread is the source and a third the sink; only the forwarder's CPU time counts.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use aes::Aes128;
use clap::Parser;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit as _, StreamCipher as _};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike as _};
use onionring_node::tls::{Acceptor, Connector, TlsStream, TlsVersions};
use onionring_proto::link::x509::TlsLeaf;
use onionring_proto::time::Unix;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;

/// Bytes of a cell of link protocol 4 and later: circuit ID, command, body.
const CELL_LEN: usize = 514;
const HEADER_LEN: usize = 5;

/// Bytes asked of the socket at a time.
const READ_LEN: usize = 64 * 1024;
/// Room before what is read, for the beginnings of a record and of a cell.
const LEAD: usize = 32 * 1024;
/// Cells that fill a TLS record.
const CELLS_PER_RECORD: usize = 16 * 1024 / CELL_LEN;

/// The least that forwarding cells costs on this machine: TLS in, one layer of AES-CTR, TLS out, blocking sockets.
#[derive(Debug, Parser)]
struct Arguments {
    /// MiB to forward in a round
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    size: u64,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Version of TLS on both sides
    #[arg(long, value_name = "VERSION", default_value = "1.3", value_parser = ["1.2", "1.3"])]
    tls: String,
}

/// One end of a connection after its TLS handshake.
struct Link {
    socket: TcpStream,
    tls: TlsStream,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let versions = if arguments.tls == "1.2" { TlsVersions::Tls12 } else { TlsVersions::Tls13 };
    let mut figures: Vec<[f64; 2]> =
        (0..arguments.rounds).map(|_| round(arguments.size << 20, versions)).collect::<io::Result<_>>()?;
    for [user, system] in &figures {
        println!("{:.3} CPU s/GiB ({user:.3} user, {system:.3} system)", user + system);
    }
    figures.sort_by(|a, b| (a[0] + a[1]).total_cmp(&(b[0] + b[1])));
    if let Some([user, system]) = figures.get(figures.len() / 2) {
        println!("median {:.3} CPU s/GiB", user + system);
    }
    Ok(())
}

/// Forwards `bytes`, and returns the forwarder's user and system seconds for each GiB.
fn round(bytes: u64, versions: TlsVersions) -> io::Result<[f64; 2]> {
    let cells = bytes / CELL_LEN as u64;
    let (source, inward) = connect(versions)?;
    let (outward, sink) = connect(versions)?;
    let sending = thread::spawn(move || send(source, cells));
    let receiving = thread::spawn(move || receive(sink, cells));
    let forwarding = thread::spawn(move || forward(inward, outward));
    let join = |thread: thread::JoinHandle<io::Result<()>>| thread.join().expect("a thread of the benchmark");
    join(sending)?;
    join(receiving)?;
    let used = forwarding.join().expect("the forwarder")?;
    let gib = (cells * CELL_LEN as u64) as f64 / f64::from(1 << 30);
    Ok(used.map(|time| time.as_secs_f64() / gib))
}

/// A connection over loopback: the initiator's end, and the responder's.
fn connect(versions: TlsVersions) -> io::Result<(Link, Link)> {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let leaf = TlsLeaf::generate(Unix(1_800_000_000), rng).map_err(io::Error::other)?;
    let acceptor = Acceptor::new(&leaf, versions).map_err(io::Error::other)?;
    let connector = Connector::new(versions).map_err(io::Error::other)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let (accepted, _) = listener.accept()?;
    let mut initiator = Link { socket, tls: connector.connect(rng).map_err(io::Error::other)? };
    let mut responder = Link { socket: accepted, tls: acceptor.accept().map_err(io::Error::other)? };
    while initiator.tls.is_handshaking() || responder.tls.is_handshaking() {
        for [from, to] in [[0, 1], [1, 0]] {
            let ends = [&mut initiator, &mut responder];
            if ends[from].tls.wants_transmit() {
                ends[from].flush()?;
                ends[to].read(&mut [0; READ_LEN], &mut Vec::new())?;
            }
        }
    }
    Ok((initiator, responder))
}

impl Link {
    /// Reads once, and appends the plaintext. `false` at the end.
    fn read(&mut self, buffer: &mut [u8], plaintext: &mut Vec<u8>) -> io::Result<bool> {
        let len = self.socket.read(buffer)?;
        self.tls.open(&buffer[..len], plaintext).map_err(io::Error::other)?;
        Ok(len > 0)
    }

    fn write(&mut self, plaintext: &[u8]) -> io::Result<()> {
        self.tls.seal(plaintext).map_err(io::Error::other)?;
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_transmit() {
            self.tls.transmit(&mut self.socket)?;
        }
        self.socket.flush()
    }
}

fn send(mut to: Link, mut cells: u64) -> io::Result<()> {
    let record = [0x5a; CELLS_PER_RECORD * CELL_LEN];
    while cells > 0 {
        let now = cells.min(CELLS_PER_RECORD as u64);
        to.write(&record[..now as usize * CELL_LEN])?;
        cells -= now;
    }
    Ok(())
}

fn receive(mut from: Link, cells: u64) -> io::Result<()> {
    let mut buffer = vec![0; READ_LEN];
    let mut plaintext = Vec::new();
    let mut left = cells * CELL_LEN as u64;
    while left > 0 {
        plaintext.clear();
        if !from.read(&mut buffer, &mut plaintext)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= plaintext.len() as u64;
    }
    Ok(())
}

/// Forwards until the source is done, and returns the thread's user and system time. Records are opened where they lie, and
/// what came in one read goes out in one write.
fn forward(mut from: Link, mut to: Link) -> io::Result<[Duration; 2]> {
    let mut layer = Ctr128BE::<Aes128>::new(&[7; 16].into(), &[0; 16].into());
    let mut buffer = vec![0; LEAD + READ_LEN];
    let mut held = Vec::with_capacity(CELL_LEN);
    let before = thread_times()?;
    loop {
        let len = from.socket.read(&mut buffer[LEAD..])?;
        if len == 0 {
            break;
        }
        let record = LEAD - from.tls.partial().len();
        buffer[record..LEAD].copy_from_slice(from.tls.partial());
        let start = record - held.len();
        buffer[start..record].copy_from_slice(&held);
        let (opened, result) = from.tls.open_in_place(&mut buffer[record..LEAD + len]);
        result.map_err(io::Error::other)?;
        let plaintext = &mut buffer[start..record + opened];
        let (whole, rest) = plaintext.split_at_mut(plaintext.len() / CELL_LEN * CELL_LEN);
        for cell in whole.chunks_exact_mut(CELL_LEN) {
            layer.apply_keystream(&mut cell[HEADER_LEN..]);
        }
        for record in whole.chunks(CELLS_PER_RECORD * CELL_LEN) {
            to.tls.seal(record).map_err(io::Error::other)?;
        }
        to.flush()?;
        held.clear();
        held.extend_from_slice(rest);
    }
    let after = thread_times()?;
    Ok([after[0] - before[0], after[1] - before[1]])
}

/// User and system time of this thread.
fn thread_times() -> io::Result<[Duration; 2]> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    let duration = |time: TimeVal| Duration::from_micros(time.num_microseconds().unsigned_abs());
    Ok([duration(usage.user_time()), duration(usage.system_time())])
}
