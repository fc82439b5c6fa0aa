//! What a hostile relay does on links. Only clients see it: between relays it is the other relay that closes the circuit.

use onionring_node::link::played::{Door, Next, Occasion};
use onionring_proto::cell::{CircId, Command, Framing, LinkVersion, write_variable};

use super::{Act, Manner, noise, on};
use crate::network::Role;

const GUARD: &[Role] = &[Role::Guard];
const V5: Framing = Framing::Negotiated(LinkVersion::V5);

const fn door(name: &'static str, door: fn() -> Door) -> Manner {
    Manner::new(name, GUARD, Act::Door(door))
}

const fn hello(name: &'static str, edit: fn(Vec<Vec<u8>>) -> Vec<Vec<u8>>) -> Manner {
    Manner::new(name, GUARD, Act::Hello(edit))
}

/// The command of a cell of the handshake.
fn command(cell: &[u8]) -> Command {
    // VERSIONS alone has a short circuit ID.
    match cell {
        [0, 0, 7, ..] => Command::VERSIONS,
        _ => Command(cell[4]),
    }
}

/// Without the cells of this command.
fn without(left_out: Command, mut cells: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    cells.retain(|cell| command(cell) != left_out);
    cells
}

/// With something else in place of the cells of this command.
fn instead(of: Command, cells: Vec<Vec<u8>>, change: impl Fn(Vec<u8>) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let change = |cell: Vec<u8>| if command(&cell) == of { change(cell) } else { vec![cell] };
    cells.into_iter().flat_map(change).collect()
}

fn variable(command: Command, body: &[u8]) -> Vec<u8> {
    let mut cell = Vec::new();
    write_variable(V5, CircId::LINK, command, body, &mut cell);
    cell
}

/// A variable-length cell that announces the most a length field can hold.
fn oversized() -> Vec<u8> {
    let mut cell = vec![0, 0, 0, 0, Command::VPADDING.0, 0xff, 0xff];
    cell.resize(7 + 0xffff, 0);
    cell
}

pub static LINK: &[Manner] = &[
    door("accepts and says nothing", || Door::Bytes(Vec::new())).alone(),
    door("closes at once", || Door::Closed),
    door("garbage instead of TLS", || Door::Bytes(noise::<4096>().to_vec())),
    door("another protocol", || Door::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec())),
    door("a TLS record of the greatest length, and half of it", || {
        Door::Bytes([&[22, 3, 3, 0xff, 0xff][..], &[0; 30_000]].concat())
    }),
    door("nothing inside TLS", || Door::Tls(Vec::new())).alone(),
    door("garbage inside TLS", || Door::Tls(noise::<20_000>().to_vec())),
    door("zeros inside TLS", || Door::Tls(vec![0; 20_000])),
    door("no common link version", || Door::Tls(vec![0, 0, 7, 0, 4, 0, 99, 0, 100])),
    door("VERSIONS of an odd length", || Door::Tls(vec![0, 0, 7, 0, 3, 0, 4, 0])),
    door("no link version at all", || Door::Tls(vec![0, 0, 7, 0, 0])),
    door("padding before VERSIONS without end", || {
        Door::Tls(
            [0, 0, Command::VPADDING.0, 0, 100].into_iter().chain([0; 100]).collect::<Vec<u8>>().repeat(2000),
        )
    }),
    Manner::new("the identity of another relay", GUARD, Act::OtherIdentity),
    hello("no CERTS", |cells| without(Command::CERTS, cells)),
    hello("no NETINFO", |cells| without(Command::NETINFO, cells)).alone(),
    hello("no AUTH_CHALLENGE, which only relays need", |cells| without(Command::AUTH_CHALLENGE, cells)),
    hello("VERSIONS twice", |cells| {
        instead(Command::VERSIONS, cells, |cell| vec![cell, variable(Command::VERSIONS, &[0, 4, 0, 5])])
    }),
    hello("CERTS twice", |cells| instead(Command::CERTS, cells, |cell| vec![cell.clone(), cell])),
    hello("NETINFO before CERTS", |mut cells| {
        cells.swap(1, 3);
        cells
    }),
    hello("CERTS cut", |cells| {
        instead(Command::CERTS, cells, |cell| vec![variable(Command::CERTS, &cell[7..cell.len() - 40])])
    }),
    hello("CERTS of none", |cells| instead(Command::CERTS, cells, |_| vec![variable(Command::CERTS, &[0])])),
    hello("CERTS of garbage", |cells| {
        instead(Command::CERTS, cells, |_| vec![variable(Command::CERTS, &noise::<700>())])
    }),
    hello("certificates with a bit flipped", |cells| {
        instead(Command::CERTS, cells, |mut cell| {
            let middle = cell.len() / 2;
            cell[middle] ^= 1;
            vec![cell]
        })
    }),
    hello("NETINFO of garbage", |cells| {
        instead(Command::NETINFO, cells, |mut cell| {
            cell[5..].copy_from_slice(&[0xff; 509]);
            vec![cell]
        })
    }),
    hello("an oversized cell in the handshake", |cells| {
        instead(Command::CERTS, cells, |cell| vec![oversized(), cell])
    }),
    hello("a handshake without end", |cells| {
        instead(Command::CERTS, cells, |_| vec![variable(Command(200), &[0; 1000]); 1000])
    }),
    hello("a circuit ID in the handshake", |cells| {
        instead(Command::CERTS, cells, |mut cell| {
            cell[0] = 0x80;
            vec![cell]
        })
    }),
    on("an oversized cell on an open link", GUARD, |occasion, served| match occasion {
        Occasion::Opened => {
            served.bytes(&oversized());
            Some(Next::Honest)
        }
        _ => None,
    })
    .stays(),
    on("the link dies in the middle of a cell", GUARD, |occasion, served| match occasion {
        Occasion::Cell { id, .. } => {
            served.bytes(&id.0.to_be_bytes());
            served.bytes(&[Command::CREATED2.0, 0, 64]);
            served.close();
            Some(Next::Done)
        }
        _ => None,
    }),
    on("garbage cells on an open link", GUARD, |occasion, served| match occasion {
        Occasion::Cell { .. } => {
            served.bytes(&noise::<5140>());
            Some(Next::Done)
        }
        _ => None,
    }),
    on("cells for circuits that are not there", GUARD, |occasion, served| match occasion {
        Occasion::Cell { id, command: Command::CREATE2 | Command::CREATE_FAST, .. } => {
            for command in [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 100].map(Command) {
                served.cell(CircId(id.0 ^ 0x0100), command, &noise::<509>());
            }
            Some(Next::Honest)
        }
        _ => None,
    }),
    on("requests for circuits, of a client", GUARD, |occasion, served| match occasion {
        Occasion::Opened => {
            for id in 1..2000 {
                let command = if id % 2 == 0 { Command::CREATE2 } else { Command::CREATE_FAST };
                served.cell(CircId(id), command, &noise::<509>());
            }
            Some(Next::Honest)
        }
        _ => None,
    }),
    on("the handshake again on an open link", GUARD, |occasion, served| match occasion {
        Occasion::Cell { command: Command::CREATE2 | Command::CREATE_FAST, .. } => {
            served.bytes(&variable(Command::VERSIONS, &[0, 3, 0, 4]));
            served.bytes(&variable(Command::CERTS, &[0]));
            served.bytes(&variable(Command::AUTH_CHALLENGE, &[0; 36]));
            served.cell(CircId::LINK, Command::NETINFO, &[0; 12]);
            Some(Next::Honest)
        }
        _ => None,
    })
    .stays(),
    on("reads nothing once the link is open", GUARD, |occasion, served| match occasion {
        Occasion::Opened => {
            served.deafen();
            Some(Next::Done)
        }
        _ => None,
    })
    .alone(),
    on("padding without end", GUARD, |occasion, served| match occasion {
        Occasion::Opened => {
            for _ in 0..1000 {
                served.cell(CircId::LINK, Command::PADDING, &[]);
                served.bytes(&variable(Command::VPADDING, &[0; 300]));
            }
            Some(Next::Honest)
        }
        _ => None,
    }),
];
