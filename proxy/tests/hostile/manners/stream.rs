//! What a hostile exit does to streams and questions.

use std::net::Ipv4Addr;

use onionring_node::link::played::{Next, Occasion, Served};
use onionring_proto::cell::{CircId, Command};
use onionring_proto::relay_msg::{Connected, RelayCmd, StreamId};

use super::{EXIT, Manner, is, message, noise, on};

/// A client asks for a stream: what is done instead of opening it.
fn begin(occasion: &Occasion<'_>, act: impl FnOnce(CircId, StreamId)) -> Option<Next> {
    on_message(occasion, RelayCmd::BEGIN, act)
}

/// The same of a question.
fn resolve(occasion: &Occasion<'_>, act: impl FnOnce(CircId, StreamId)) -> Option<Next> {
    on_message(occasion, RelayCmd::RESOLVE, act)
}

fn on_message(occasion: &Occasion<'_>, cmd: RelayCmd, act: impl FnOnce(CircId, StreamId)) -> Option<Next> {
    match occasion {
        Occasion::Message { id, msg } if is(occasion, cmd) => {
            act(*id, msg.stream);
            Some(Next::Done)
        }
        _ => None,
    }
}

/// A stream leads to the server: what is done after the client has heard so.
fn connected(
    occasion: &Occasion<'_>,
    served: &mut Served,
    act: impl FnOnce(&mut Served, CircId, StreamId),
) -> Option<Next> {
    match occasion {
        Occasion::Connected { id, stream } => {
            served.say(*id, RelayCmd::CONNECTED, *stream, &[]);
            act(served, *id, *stream);
            Some(Next::Done)
        }
        _ => None,
    }
}

const fn ends<const REASON: u8>() -> Manner {
    on("END instead of CONNECTED", EXIT, |occasion, served| {
        begin(occasion, |id, stream| served.say(id, RelayCmd::END, stream, &[REASON]))
    })
}

/// Says something on the stream instead of CONNECTED.
const fn says<const CMD: u8>(name: &'static str) -> Manner {
    on(name, EXIT, |occasion, served| {
        begin(occasion, |id, stream| served.say(id, RelayCmd(CMD), stream, &noise::<60>()))
    })
}

/// Says something on a stream that is open.
const fn says_later<const CMD: u8>(name: &'static str) -> Manner {
    on(name, EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| {
            served.say(id, RelayCmd(CMD), stream, &noise::<60>())
        })
    })
}

/// Answers a question with this type and this length, of which there are so many bytes.
const fn answers<const KIND: u8, const LEN: u8, const BYTES: usize>(name: &'static str) -> Manner {
    on(name, EXIT, |occasion, served| {
        resolve(occasion, |id, stream| {
            let data = [&[KIND, LEN][..], &[7; BYTES], &[0, 0, 0, 60]].concat();
            served.say(id, RelayCmd::RESOLVED, stream, &data);
        })
    })
    .of_names()
}

pub static STREAM: &[Manner] = &[
    on("no CONNECTED", EXIT, |occasion, _| begin(occasion, |_, _| ())).alone(),
    on("CONNECTED twice", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| served.say(id, RelayCmd::CONNECTED, stream, &[]))
    }),
    on("CONNECTED that is cut", EXIT, |occasion, served| {
        begin(occasion, |id, stream| served.say(id, RelayCmd::CONNECTED, stream, &[1, 2, 3]))
    }),
    on("CONNECTED with more than belongs there", EXIT, |occasion, served| match occasion {
        Occasion::Connected { id, stream } => {
            served.say(*id, RelayCmd::CONNECTED, *stream, &[1; 400]);
            Some(Next::Done)
        }
        _ => None,
    }),
    on("CONNECTED to this host", EXIT, |occasion, served| match occasion {
        Occasion::Connected { id, stream } => {
            let mut data = Vec::new();
            Connected { addr: Some((Ipv4Addr::LOCALHOST.into(), 60)) }.write(&mut data);
            served.say(*id, RelayCmd::CONNECTED, *stream, &data);
            Some(Next::Done)
        }
        _ => None,
    }),
    on("DATA before CONNECTED", EXIT, |occasion, served| {
        begin(occasion, |id, stream| served.say(id, RelayCmd::DATA, stream, b"early"))
    }),
    on("DATA of another stream", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| {
            served.say(id, RelayCmd::DATA, StreamId(stream.0 ^ 1), b"whose is it?");
        })
    }),
    on("more DATA than the window", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| {
            (0..3000).for_each(|_| served.say(id, RelayCmd::DATA, stream, &[0; 498]));
        })
    }),
    on("empty DATA without end", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| {
            (0..3000).for_each(|_| served.say(id, RelayCmd::DATA, stream, &[]));
        })
    }),
    on("empty DATA, a little of it", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| {
            (0..40).for_each(|_| served.say(id, RelayCmd::DATA, stream, &[]));
        })
    }),
    on("DATA longer than the cell", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| {
            served.say_raw(id, Command::RELAY, message(RelayCmd::DATA.0, 0, stream, 499));
        })
    }),
    ends::<0>(),
    ends::<1>(),
    ends::<2>(),
    ends::<3>(),
    ends::<4>().alone(),
    ends::<5>(),
    ends::<6>(),
    ends::<7>(),
    ends::<8>(),
    ends::<9>().alone(),
    ends::<10>(),
    ends::<11>().alone(),
    ends::<12>(),
    ends::<13>(),
    ends::<14>(),
    ends::<99>(),
    ends::<255>(),
    on("END without a reason", EXIT, |occasion, served| {
        begin(occasion, |id, stream| served.say(id, RelayCmd::END, stream, &[]))
    }),
    on("END by policy, with an address", EXIT, |occasion, served| {
        begin(occasion, |id, stream| served.say(id, RelayCmd::END, stream, &[4, 127, 0, 0, 1, 0, 0, 0, 60]))
    })
    .alone(),
    on("END by policy, with an IPv6 address and no end of time", EXIT, |occasion, served| {
        begin(occasion, |id, stream| served.say(id, RelayCmd::END, stream, &[&[4][..], &[0xff; 20]].concat()))
    })
    .alone(),
    on("END by policy, with an address that is cut", EXIT, |occasion, served| {
        begin(occasion, |id, stream| served.say(id, RelayCmd::END, stream, &[4, 192, 0]))
    })
    .alone(),
    on("END after CONNECTED", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| served.say(id, RelayCmd::END, stream, &[6]))
    }),
    on("END twice", EXIT, |occasion, served| {
        begin(occasion, |id, stream| {
            served.say(id, RelayCmd::END, stream, &[6]);
            served.say(id, RelayCmd::END, stream, &[6]);
        })
    }),
    on("DATA after END", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, stream| {
            served.say(id, RelayCmd::DATA, stream, b"\0\x01");
            served.say(id, RelayCmd::END, stream, &[6]);
            served.say(id, RelayCmd::DATA, stream, b"late");
        })
    }),
    on("CONNECTED after END", EXIT, |occasion, served| {
        begin(occasion, |id, stream| {
            served.say(id, RelayCmd::END, stream, &[1]);
            served.say(id, RelayCmd::CONNECTED, stream, &[]);
        })
    }),
    on("DESTROY of a circuit with an open stream", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, _| served.cell(id, Command::DESTROY, &[1]))
    }),
    on("TRUNCATED of a circuit with an open stream", EXIT, |occasion, served| {
        connected(occasion, served, |served, id, _| {
            served.say(id, RelayCmd::TRUNCATED, StreamId::CIRCUIT, &[8]);
        })
    }),
    says::<0>("message 0 of a stream"),
    says::<1>("BEGIN for BEGIN"),
    says::<5>("SENDME before CONNECTED"),
    says::<9>("TRUNCATED of a stream"),
    says::<12>("RESOLVED for BEGIN"),
    says::<14>("EXTEND2 of a stream"),
    says::<34>("INTRODUCE1 of a stream"),
    says::<37>("RENDEZVOUS2 of a stream"),
    says::<43>("XOFF before CONNECTED"),
    says::<200>("message 200 of a stream"),
    says_later::<1>("BEGIN on an open stream"),
    says_later::<5>("SENDME that nobody expects on an open stream"),
    says_later::<12>("RESOLVED on an open stream"),
    says_later::<15>("EXTENDED2 on an open stream"),
    says_later::<43>("XOFF on an open stream"),
    says_later::<44>("XON on an open stream"),
    says_later::<255>("message 255 on an open stream"),
    on("no answer to a question", EXIT, |occasion, _| resolve(occasion, |_, _| ())).of_names().alone(),
    on("END for a question", EXIT, |occasion, served| {
        resolve(occasion, |id, stream| served.say(id, RelayCmd::END, stream, &[2]))
    })
    .of_names(),
    on("CONNECTED for a question", EXIT, |occasion, served| {
        resolve(occasion, |id, stream| served.say(id, RelayCmd::CONNECTED, stream, &[]))
    })
    .of_names(),
    on("DATA for a question", EXIT, |occasion, served| {
        resolve(occasion, |id, stream| served.say(id, RelayCmd::DATA, stream, b"guess"))
    })
    .of_names(),
    on("RESOLVED without answers", EXIT, |occasion, served| {
        resolve(occasion, |id, stream| served.say(id, RelayCmd::RESOLVED, stream, &[]))
    })
    .of_names(),
    on("RESOLVED of garbage", EXIT, |occasion, served| {
        resolve(occasion, |id, stream| served.say(id, RelayCmd::RESOLVED, stream, &noise::<498>()))
    })
    .of_names(),
    on("RESOLVED twice", EXIT, |occasion, served| {
        resolve(occasion, |id, stream| {
            for _ in 0..2 {
                served.say(id, RelayCmd::RESOLVED, stream, &[4, 4, 192, 0, 2, 1, 0, 0, 0, 60]);
            }
        })
    })
    .of_names(),
    on("RESOLVED to this host", EXIT, |occasion, served| {
        resolve(occasion, |id, stream| {
            served.say(id, RelayCmd::RESOLVED, stream, &[4, 4, 127, 0, 0, 1, 0, 0, 0, 60]);
        })
    })
    .of_names(),
    answers::<4, 4, 2>("RESOLVED that is cut"),
    answers::<4, 5, 5>("RESOLVED to an address of five bytes"),
    answers::<6, 4, 4>("RESOLVED to an IPv6 address of four bytes"),
    answers::<0, 20, 20>("RESOLVED to a name of control characters"),
    answers::<0, 0, 0>("RESOLVED to no name"),
    answers::<0xf0, 0, 0>("RESOLVED: not now"),
    answers::<0xf1, 0, 0>("RESOLVED: never"),
    answers::<99, 255, 255>("RESOLVED to something unknown"),
];
