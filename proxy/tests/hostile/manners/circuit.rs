//! What a hostile relay does to circuits, whichever hop it is.

use onionring_node::link::played::{Next, Occasion, Served};
use onionring_proto::cell::{BODY_LEN, Body, CircId, Command};
use onionring_proto::relay_msg::{Extended2, MAX_DATA_LEN, RelayCmd, StreamId};

use super::{ALL, MIDWAY, Manner, message, noise, on};

/// Somebody asks for a circuit: what is done instead of answering.
fn create(occasion: &Occasion<'_>, act: impl FnOnce(CircId, Command, &Body)) -> Option<Next> {
    match occasion {
        Occasion::Cell { id, command: command @ (Command::CREATE2 | Command::CREATE_FAST), body } => {
            act(*id, *command, body);
            Some(Next::Done)
        }
        _ => None,
    }
}

/// The honest answer, changed.
fn answer(
    occasion: &Occasion<'_>,
    served: &mut Served,
    act: impl FnOnce(&mut Served, CircId, Command, Body),
) -> Option<Next> {
    create(occasion, |id, command, body| {
        let (answer, reply) = served.answer(id, command, body).expect("the client is honest");
        act(served, id, answer, reply);
    })
}

/// A circuit is there: what is done besides.
fn created(occasion: &Occasion<'_>, act: impl FnOnce(CircId)) -> Option<Next> {
    match occasion {
        Occasion::Created { id } => {
            act(*id);
            Some(Next::Honest)
        }
        _ => None,
    }
}

/// A message goes past, on to another relay: what is done besides.
fn passing(occasion: &Occasion<'_>, act: impl FnOnce(CircId)) -> Option<Next> {
    match occasion {
        Occasion::Outbound { id } => {
            act(*id);
            Some(Next::Honest)
        }
        _ => None,
    }
}

/// The client wants another hop: what is done instead.
fn extend(occasion: &Occasion<'_>, act: impl FnOnce(CircId)) -> Option<Next> {
    match occasion {
        Occasion::Message { id, msg } if msg.cmd == RelayCmd::EXTEND2 => {
            act(*id);
            Some(Next::Done)
        }
        _ => None,
    }
}

/// The next relay has answered: what the client hears of it.
fn extended(occasion: &Occasion<'_>, act: impl FnOnce(CircId, Vec<u8>)) -> Option<Next> {
    match occasion {
        Occasion::Extended { id, hdata } => {
            let mut data = Vec::new();
            Extended2 { hdata }.write(&mut data);
            act(*id, data);
            Some(Next::Done)
        }
        _ => None,
    }
}

const fn destroys<const REASON: u8>() -> Manner {
    on("DESTROY instead of CREATED2", ALL, |occasion, served| {
        create(occasion, |id, _, _| served.cell(id, Command::DESTROY, &[REASON]))
    })
    .stays()
}

const fn destroys_later<const REASON: u8>() -> Manner {
    on("DESTROY after CREATED2", ALL, |occasion, served| {
        created(occasion, |id| served.cell(id, Command::DESTROY, &[REASON]))
    })
    .stays()
}

/// Says something on the circuit as soon as it is there, in a message of the circuit or of a stream.
const fn says<const CMD: u8, const STREAM: u16>(name: &'static str) -> Manner {
    on(name, ALL, |occasion, served| {
        created(occasion, |id| served.say(id, RelayCmd(CMD), StreamId(STREAM), &noise::<100>()))
    })
    .stays()
}

/// The same in a cell of another kind than RELAY, in plain.
const fn sends<const COMMAND: u8>(name: &'static str) -> Manner {
    on(name, ALL, |occasion, served| {
        created(occasion, |id| served.cell(id, Command(COMMAND), &noise::<BODY_LEN>()))
    })
    .stays()
}

pub static CIRCUIT: &[Manner] = &[
    on("CREATED2 with a wrong proof", ALL, |occasion, served| {
        answer(occasion, served, |served, id, command, mut reply| {
            reply[38] ^= 1;
            served.cell(id, command, &reply);
        })
    }),
    on("CREATED2 of garbage", ALL, |occasion, served| {
        answer(occasion, served, |served, id, command, mut reply| {
            reply[2..66].copy_from_slice(&noise::<64>());
            served.cell(id, command, &reply);
        })
    }),
    on("CREATED2 of zeros", ALL, |occasion, served| {
        answer(occasion, served, |served, id, command, _| served.cell(id, command, &[0, 64]))
    }),
    on("CREATED2 that is cut", ALL, |occasion, served| {
        answer(occasion, served, |served, id, command, mut reply| {
            reply[1] = 40;
            served.cell(id, command, &reply[..20]);
        })
    }),
    on("CREATED2 longer than a cell", ALL, |occasion, served| {
        create(occasion, |id, _, _| served.cell(id, Command::CREATED2, &[0xff; BODY_LEN]))
    }),
    on("CREATED_FAST for CREATE2, and the other way round", ALL, |occasion, served| {
        answer(occasion, served, |served, id, command, reply| {
            let other = if command == Command::CREATED2 { Command::CREATED_FAST } else { Command::CREATED2 };
            served.cell(id, other, &reply);
        })
    }),
    on("CREATED, which is dead", ALL, |occasion, served| {
        answer(occasion, served, |served, id, _, reply| served.cell(id, Command::CREATED, &reply))
    }),
    on("never an answer to CREATE2", ALL, |occasion, _| create(occasion, |_, _, _| ())).alone(),
    destroys::<0>(),
    destroys::<1>(),
    destroys::<2>(),
    destroys::<3>(),
    destroys::<4>(),
    destroys::<5>(),
    destroys::<6>(),
    destroys::<7>(),
    destroys::<8>(),
    destroys::<9>(),
    destroys::<10>(),
    destroys::<11>(),
    destroys::<12>(),
    destroys::<255>(),
    destroys_later::<0>(),
    destroys_later::<1>(),
    destroys_later::<255>(),
    on("CREATED2 twice", ALL, |occasion, served| {
        answer(occasion, served, |served, id, command, reply| {
            served.cell(id, command, &reply);
            served.cell(id, command, &reply);
        })
    }),
    on("RELAY before CREATED2", ALL, |occasion, served| match occasion {
        Occasion::Cell { id, command: Command::CREATE2 | Command::CREATE_FAST, .. } => {
            served.cell(*id, Command::RELAY, &noise::<BODY_LEN>());
            Some(Next::Honest)
        }
        _ => None,
    }),
    on("a relay cell that nobody recognises", ALL, |occasion, served| {
        created(occasion, |id| served.cell(id, Command::RELAY, &noise::<BODY_LEN>()))
    })
    .stays(),
    on("relay cells that nobody recognises, while others pass", MIDWAY, |occasion, served| {
        passing(occasion, |id| served.cell(id, Command::RELAY, &noise::<BODY_LEN>()))
    })
    .stays(),
    sends::<0>("PADDING on a circuit"),
    sends::<1>("CREATE on a circuit of the client's"),
    sends::<5>("CREATE_FAST on a circuit of the client's"),
    sends::<10>("CREATE2 on a circuit of the client's"),
    sends::<8>("NETINFO on a circuit"),
    sends::<13>("an unknown cell on a circuit"),
    sends::<127>("another unknown cell on a circuit"),
    on("RELAY_EARLY towards the client", ALL, |occasion, served| {
        created(occasion, |id| {
            served.say_raw(id, Command::RELAY_EARLY, message(RelayCmd::DROP.0, 0, StreamId::CIRCUIT, 0));
        })
    })
    .stays(),
    on("a length field beyond the cell", ALL, |occasion, served| {
        created(occasion, |id| {
            let most = MAX_DATA_LEN as u16;
            served.say_raw(id, Command::RELAY, message(RelayCmd::DROP.0, 0, StreamId::CIRCUIT, most + 1));
        })
    })
    .stays(),
    on("a length field of all ones", ALL, |occasion, served| {
        created(occasion, |id| {
            served.say_raw(id, Command::RELAY, message(RelayCmd::DATA.0, 0, StreamId(1), 0xffff));
        })
    })
    .stays(),
    on("padding messages without end", ALL, |occasion, served| {
        created(occasion, |id| {
            (0..500).for_each(|_| served.say(id, RelayCmd::DROP, StreamId::CIRCUIT, &noise::<100>()));
        })
    }),
    on("never an answer to EXTEND2", MIDWAY, |occasion, _| extend(occasion, |_| ())).stays().alone(),
    on("reads nothing once a circuit is there", MIDWAY, |occasion, served| {
        created(occasion, |_| served.deafen())
    })
    .stays()
    .alone(),
    on("EXTENDED2 of garbage", MIDWAY, |occasion, served| {
        extend(occasion, |id| {
            let data = [&[0, 64][..], &noise::<64>()].concat();
            served.say(id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &data);
        })
    })
    .stays(),
    on("EXTENDED2 that is cut", MIDWAY, |occasion, served| {
        extended(occasion, |id, data| served.say(id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &data[..30]))
    })
    .stays(),
    on("EXTENDED2 that is empty", MIDWAY, |occasion, served| {
        extended(occasion, |id, _| served.say(id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &[]))
    })
    .stays(),
    on("EXTENDED2 twice", MIDWAY, |occasion, served| {
        extended(occasion, |id, data| {
            served.say(id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &data);
            served.say(id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &data);
        })
    }),
    on("EXTENDED2 of a stream", MIDWAY, |occasion, served| {
        extended(occasion, |id, data| served.say(id, RelayCmd::EXTENDED2, StreamId(1), &data))
    }),
    on("EXTENDED for EXTEND2", MIDWAY, |occasion, served| {
        extended(occasion, |id, data| served.say(id, RelayCmd::EXTENDED, StreamId::CIRCUIT, &data))
    }),
    on("EXTENDED2 of the wrong hop", MIDWAY, |occasion, served| {
        passing(occasion, |id| {
            let data = [&[0, 64][..], &noise::<64>()].concat();
            served.say(id, RelayCmd::EXTENDED2, StreamId::CIRCUIT, &data);
        })
    }),
    says::<15, 0>("EXTENDED2 that nobody asked for"),
    on("TRUNCATED instead of EXTENDED2", MIDWAY, |occasion, served| {
        extend(occasion, |id| served.say(id, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[6]))
    })
    .stays(),
    on("TRUNCATED while cells pass", MIDWAY, |occasion, served| {
        passing(occasion, |id| served.say(id, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[8]))
    })
    .stays(),
    on("TRUNCATED without a reason", MIDWAY, |occasion, served| {
        passing(occasion, |id| served.say(id, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[]))
    })
    .stays(),
    says::<9, 0>("TRUNCATED that nobody asked for"),
    says::<9, 1>("TRUNCATED of a stream"),
    on("a circuit SENDME that nobody expects", ALL, |occasion, served| {
        created(occasion, |id| served.say(id, RelayCmd::SENDME, StreamId::CIRCUIT, &[0; 0]))
    })
    .stays(),
    on("circuit SENDMEs with wrong tags", ALL, |occasion, served| {
        created(occasion, |id| {
            let data = [&[1, 0, 20][..], &noise::<20>()].concat();
            (0..20).for_each(|_| served.say(id, RelayCmd::SENDME, StreamId::CIRCUIT, &data));
        })
    })
    .stays(),
    on("a circuit SENDME of an unknown version", ALL, |occasion, served| {
        created(occasion, |id| served.say(id, RelayCmd::SENDME, StreamId::CIRCUIT, &[99, 0, 20, 0]))
    })
    .stays(),
    on("a circuit SENDME that is cut", ALL, |occasion, served| {
        created(occasion, |id| served.say(id, RelayCmd::SENDME, StreamId::CIRCUIT, &[1, 0, 20, 7]))
    })
    .stays(),
    says::<1, 1>("BEGIN for the client"),
    says::<2, 0>("DATA of the circuit"),
    says::<2, 7>("DATA of a stream that is not there"),
    says::<3, 7>("END of a stream that is not there"),
    says::<4, 7>("CONNECTED of a stream that is not there"),
    says::<5, 7>("SENDME of a stream that is not there"),
    says::<12, 7>("RESOLVED of a stream that is not there"),
    says::<6, 0>("EXTEND for the client"),
    says::<8, 0>("TRUNCATE for the client"),
    says::<11, 7>("RESOLVE for the client"),
    says::<13, 7>("BEGIN_DIR for the client"),
    says::<14, 0>("EXTEND2 for the client"),
    says::<19, 0>("CONFLUX_LINK"),
    says::<32, 0>("ESTABLISH_INTRO"),
    says::<35, 0>("INTRODUCE2"),
    says::<36, 0>("RENDEZVOUS1"),
    says::<37, 0>("RENDEZVOUS2"),
    says::<39, 0>("RENDEZVOUS_ESTABLISHED"),
    says::<41, 0>("PADDING_NEGOTIATE"),
    says::<42, 0>("PADDING_NEGOTIATED"),
    says::<43, 7>("XOFF of a stream that is not there"),
    says::<44, 7>("XON of a stream that is not there"),
    says::<0, 0>("message 0"),
    says::<255, 0>("message 255"),
    says::<255, 7>("message 255 of a stream that is not there"),
];
