use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A cell that owns its bytes, so that framed cells can be compared with written ones.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    circ_id: CircId,
    command: Command,
    body: Vec<u8>,
}

impl From<Frame<'_>> for Owned {
    fn from(frame: Frame<'_>) -> Owned {
        match frame {
            Frame::Fixed { circ_id, command, body } => Owned { circ_id, command, body: body.to_vec() },
            Frame::Variable { circ_id, command, body } => Owned { circ_id, command, body: body.to_vec() },
        }
    }
}

fn write(version: LinkVersion, cell: &Owned, out: &mut Vec<u8>) {
    match <&Body>::try_from(&cell.body[..]) {
        Ok(body) if !cell.command.is_variable() => {
            write_fixed(version, cell.circ_id, cell.command, body, out);
        }
        _ => write_variable(version.into(), cell.circ_id, cell.command, &cell.body, out),
    }
}

fn any_version() -> impl Strategy<Value = LinkVersion> {
    prop::sample::select(&LinkVersion::ALL[..])
}

fn any_cell(version: LinkVersion) -> impl Strategy<Value = Owned> {
    let max_id = if version == LinkVersion::V3 { 0xffff } else { u32::MAX };
    (0..=max_id, any::<u8>()).prop_flat_map(|(id, command)| {
        let command = Command(command);
        let length = if command.is_variable() { 0..=600 } else { BODY_LEN..=BODY_LEN };
        vec(any::<u8>(), length).prop_map(move |body| Owned { circ_id: CircId(id), command, body })
    })
}

proptest! {
    #[test]
    fn cells_survive_any_split_of_the_stream(
        (version, cells) in any_version().prop_flat_map(|v| (Just(v), vec(any_cell(v), 0..6))),
        cuts in vec(1usize..700, 1..20),
    ) {
        let mut wire = Vec::new();
        for cell in &cells {
            write(version, cell, &mut wire);
        }
        let (mut buf, mut got) = (Vec::new(), Vec::new());
        let mut cuts = cuts.iter().cycle();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            buf.extend_from_slice(piece);
            rest = later;
            while let Some((used, frame)) = next_frame(version.into(), &mut buf).unwrap() {
                got.push(Owned::from(frame));
                buf.drain(..used);
            }
        }
        prop_assert!(buf.is_empty());
        prop_assert_eq!(got, cells);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut bytes in vec(any::<u8>(), 0..1200),
        version in prop::option::of(any_version()),
    ) {
        let framing = version.map_or(Framing::Initial, Framing::from);
        let length = bytes.len();
        if let Ok(Some((used, _))) = next_frame(framing, &mut bytes) {
            prop_assert!(used <= length);
        }
    }

    #[test]
    fn destroy_reasons_round_trip(byte: u8) {
        prop_assert_eq!(DestroyReason::from_wire(byte).to_wire(), byte);
    }
}

#[test]
fn fixed_cells_are_512_bytes_on_v3_and_514_from_v4() {
    for (version, length) in [(LinkVersion::V3, 512), (LinkVersion::V4, 514), (LinkVersion::V5, 514)] {
        let mut wire = Vec::new();
        write_destroy(version, CircId(0x8001), DestroyReason::Finished, &mut wire);
        assert_eq!(wire.len(), length);
        assert_eq!(version.cell_len(), length);
        assert_eq!(next_frame(version.into(), &mut wire[..length - 1]), Ok(None));
        let (used, frame) = next_frame(version.into(), &mut wire).unwrap().unwrap();
        let Frame::Fixed { circ_id, command, body } = frame else { panic!("DESTROY is a fixed cell") };
        assert_eq!((used, circ_id, command, body[0]), (length, CircId(0x8001), Command::DESTROY, 9));
        assert!(body[1..].iter().all(|&b| b == 0));
    }
}

#[test]
fn a_variable_cell_over_the_limit_fails_at_its_header() {
    let mut header = hex::decode("0000000081ffff").unwrap();
    assert_eq!(
        next_frame(LinkVersion::V4.into(), &mut header),
        Err(FrameError::TooLong { command: Command::CERTS, length: 0xffff })
    );
    assert_eq!(next_frame(LinkVersion::V4.into(), &mut header[..6]), Ok(None));

    let mut largest = Vec::new();
    let body = vec![7; limits::VARIABLE_CELL_BODY];
    write_variable(LinkVersion::V4.into(), CircId::LINK, Command::VPADDING, &body, &mut largest);
    let (used, _) = next_frame(LinkVersion::V4.into(), &mut largest).unwrap().unwrap();
    assert_eq!(used, 7 + limits::VARIABLE_CELL_BODY);
}

#[test]
fn before_versions_only_three_commands_pass() {
    for byte in 0..=u8::MAX {
        let command = Command(byte);
        let mut header = [0, 0, byte, 0, 0];
        let framed = next_frame(Framing::Initial, &mut header);
        if matches!(command, Command::VERSIONS | Command::VPADDING | Command::AUTHORIZE) {
            assert_eq!(framed.unwrap().unwrap().0, 5);
        } else {
            assert_eq!(framed, Err(FrameError::BeforeVersions(command)));
        }
    }
}
