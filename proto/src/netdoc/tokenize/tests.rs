use proptest::prelude::*;

use super::*;
use crate::netdoc::testdata;

fn items(text: &str) -> Result<Vec<Item<'_>>, DocError> {
    Tokenizer::new(text).collect()
}

#[test]
fn items_arguments_objects_and_offsets() {
    let text =
        "first \t a  b\tc\n\n  \nopt second\n-----BEGIN X Y-----\nAAEC\nAw==\n-----END X Y-----\nthird";
    let got = items(text).unwrap();
    assert_eq!(got.len(), 3);
    assert_eq!(got[0].keyword, "first");
    assert_eq!(got[0].rest, "a  b\tc");
    assert_eq!(got[0].args().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(&text[got[0].start..got[0].line_end], "first \t a  b\tc\n");
    assert_eq!(got[1].keyword, "second");
    assert_eq!(got[1].line, 4);
    assert_eq!(got[1].object.unwrap().label, "X Y");
    assert_eq!(got[1].object.unwrap().decode(), Some(vec![0, 1, 2, 3]));
    assert_eq!(&text[got[1].line_end..got[1].end], "-----BEGIN X Y-----\nAAEC\nAw==\n-----END X Y-----\n");
    assert_eq!((got[2].keyword, got[2].line, got[2].end), ("third", 9, text.len()));
    assert_eq!(items("").unwrap(), []);
}

#[test]
fn faults_name_their_line() {
    for (text, line, fault) in [
        ("a\nb\rc\n", 2, Fault::ControlCharacter(b'\r')),
        ("a\0", 1, Fault::ControlCharacter(0)),
        ("-----BEGIN X-----\n-----END X-----\n", 1, Fault::StrayObject),
        ("a\n-----BEGIN X-----\nAAAA\n", 2, Fault::BadObject("X".into())),
        ("a\n-----BEGIN X-----\n-----END Y-----\n", 2, Fault::BadObject("X".into())),
        ("a\n-----BEGIN X----\n-----END X----\n", 2, Fault::BadObject("X".into())),
        ("a\n-----BEGIN X-----\n-----BEGIN X-----\n-----END X-----\n", 2, Fault::BadObject("X".into())),
    ] {
        assert_eq!(items(text), Err(fault.at(line)), "{text:?}");
    }
}

#[test]
fn long_lines_and_objects_are_refused() {
    let line = format!("a {}\n", "x".repeat(NETDOC_LINE - 2));
    assert!(items(&line).is_ok());
    let line = format!("a {}\n", "x".repeat(NETDOC_LINE));
    assert!(matches!(items(&line), Err(DocError { line: 1, fault: Fault::LineTooLong(_) })));
    let body = "AAAA\n".repeat(NETDOC_OBJECT / 5 + 1);
    let object = format!("a\n-----BEGIN X-----\n{body}-----END X-----\n");
    assert!(matches!(items(&object), Err(DocError { line: 2, fault: Fault::ObjectTooLong(_) })));
}

#[test]
fn text_must_be_utf8_without_bom() {
    use crate::netdoc::text_of;
    assert_eq!(text_of(b"a\nb\xff\n"), Err(Fault::NotUtf8.at(2)));
    assert_eq!(text_of(b"\xef\xbb\xbfa\n"), Err(Fault::ByteOrderMark.at(1)));
    assert_eq!(text_of("a ü\n".as_bytes()), Ok("a ü\n"));
}

#[test]
fn items_cover_a_real_document_without_gaps() {
    for text in [testdata::CONSENSUS_NS, testdata::CERTS, testdata::MICRODESCS, testdata::EXTRA_INFOS] {
        let got = items(text).unwrap();
        assert_eq!(got[0].start, 0);
        assert!(got.windows(2).all(|w| w[0].end == w[1].start));
        assert_eq!(got.last().unwrap().end, text.len());
    }
}

proptest! {
    #[test]
    fn never_panics_and_offsets_are_in_order(text in "([a-z ]{0,9}|-----(BEGIN|END) X-----|\n|\r|ü|-----|\0){0,40}") {
        let mut end = 0;
        for item in Tokenizer::new(&text).flatten() {
            prop_assert!(end <= item.start && item.start < item.line_end && item.line_end <= item.end);
            prop_assert!(text.is_char_boundary(item.start) && text.is_char_boundary(item.end));
            end = item.end;
            let _ = item.object.map(|o| o.decode());
        }
    }

    #[test]
    fn never_panics_on_anything(text in any::<String>()) {
        let _ = items(&text);
    }
}
