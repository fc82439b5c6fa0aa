use super::*;
use crate::netdoc::routerdesc::split_documents;
use crate::netdoc::testdata;

fn descriptors() -> Vec<RouterDesc> {
    split_documents(testdata::DESCRIPTORS).map(|d| RouterDesc::parse(d).unwrap()).collect()
}

#[test]
fn real_extra_infos_go_with_their_descriptors() {
    let mut n = 0;
    for text in split_documents(testdata::EXTRA_INFOS) {
        let extra = ExtraInfo::parse(text).unwrap();
        for descriptor in descriptors() {
            let want =
                if descriptor.identity == extra.identity { Ok(()) } else { Err(ExtraInfoMismatch::Keys) };
            assert_eq!(extra.check_with(&descriptor), want);
        }
        n += 1;
    }
    assert_eq!(n, 7);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let text = split_documents(testdata::EXTRA_INFOS).next().unwrap();
    let extra = ExtraInfo::parse(text).unwrap();
    let descriptor = descriptors().into_iter().find(|d| d.identity == extra.identity).unwrap();
    let with = |change: &dyn Fn(&mut RouterDesc)| {
        let mut changed = descriptor.clone();
        change(&mut changed);
        extra.check_with(&changed)
    };
    assert_eq!(with(&|d| d.published.0 += 1), Err(ExtraInfoMismatch::Published));
    assert_eq!(with(&|d| d.signing_cert[0] ^= 1), Err(ExtraInfoMismatch::Keys));
    assert_eq!(with(&|d| d.extra_info = None), Err(ExtraInfoMismatch::Digest));
    assert_eq!(with(&|d| d.extra_info.as_mut().unwrap().sha1.0[0] ^= 1), Err(ExtraInfoMismatch::Digest));
    assert_eq!(
        with(&|d| d.extra_info.as_mut().unwrap().sha256 = Some([0; 32])),
        Err(ExtraInfoMismatch::Digest)
    );
    assert_eq!(with(&|d| d.extra_info.as_mut().unwrap().sha256 = None), Ok(()));
    let mut forged = extra.clone();
    forged.rsa_signature[5] ^= 1;
    assert_eq!(forged.check_with(&descriptor), Err(ExtraInfoMismatch::Signature));
}

#[test]
fn changes_and_oversize_are_refused() {
    let text = split_documents(testdata::EXTRA_INFOS).next().unwrap();
    let changed = text.replacen("published 2026", "published 2025", 1);
    assert_eq!(ExtraInfo::parse(&changed).unwrap_err().fault, Fault::BadSignature(signed::ED_SIGNATURE));
    let long = format!("{text}{}", "x\n".repeat(EXTRA_INFO / 2));
    assert!(matches!(ExtraInfo::parse(&long).unwrap_err().fault, Fault::TooLarge { .. }));
}
