//! The list.

use onionring_proto::netdoc::text;

use super::When::{Only, Seen};
use super::{Difference, Side};
use crate::Kind;

const RELAY_DOCUMENTS: &[Kind] = &[Kind::Descriptor, Kind::ExtraInfo];
const TIMES: &[&str] =
    &["published", "valid-after", "fresh-until", "valid-until", "dir-key-published", "dir-key-expires"];

const PROTOCOLS: &[&str] = &[
    "recommended-client-protocols",
    "recommended-relay-protocols",
    "required-client-protocols",
    "required-relay-protocols",
];

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    // How lines are read.
    Difference {
        kinds: &[],
        when: &[
            Only(Side::Ours, &[], &["Keyword cannot be empty"]),
            Seen(|_, text| text.lines().any(|line| line.trim_start().starts_with("opt "))),
        ],
        why: "blank lines, blanks before keywords and `opt` are stepped over; Arti has none of that any more",
    },
    Difference {
        kinds: &[],
        when: &[Only(Side::Ours, &[], &["incorrectly formatted delimiter lines"])],
        why: "a line with a dash in front that opens no object is an unknown line; to Arti it is a broken object",
    },
    Difference {
        kinds: &[],
        when: &[Only(Side::Ours, &[], &["Keyword longer than 255 bytes"])],
        why: "a keyword may be as long as a line; Arti has a bound for it",
    },
    Difference {
        kinds: &[],
        when: &[Seen(|d, _| d.only(Side::Arti) && TIMES.contains(&d.keyword()) && is_before_1970(d.line()))],
        why: "time begins in 1970; Arti knows what was before",
    },
    Difference {
        kinds: &[],
        when: &[
            Seen(|d, _| d.only(Side::Ours) && TIMES.contains(&d.keyword()) && d.line().contains("  ")),
            Seen(|d, _| d.only(Side::Ours) && d.line().contains('\t')),
            Seen(|d, text| d.value().is_some_and(is_of_a_list) && text.contains(" \t")),
        ],
        why: "arguments may stand apart by several blanks and tabs; in times and in lists Arti takes one blank only",
    },
    Difference {
        kinds: &[Kind::Descriptor, Kind::ExtraInfo, Kind::Microdesc, Kind::Consensus],
        when: &[Only(Side::Arti, &[], &["takes no more than 0 arguments"])],
        why: "lines that have no arguments must have none; Arti passes over what stands on some of them",
    },
    Difference {
        kinds: &[Kind::AuthCert, Kind::Descriptor, Kind::ExtraInfo, Kind::Consensus],
        when: &[Only(Side::Ours, &[], &["invalid base64"])],
        why: "any number of `=` may end base64; Arti wants as many as there should be",
    },
    Difference {
        kinds: &[Kind::AuthCert, Kind::Descriptor, Kind::ExtraInfo],
        when: &[Seen(|d, text| {
            let behind = text.split_once("-----END SIGNATURE-----\n").map(|(_, behind)| behind);
            d.only(Side::Arti) && behind.is_some_and(|behind| !behind.is_empty())
        })],
        why: "a document ends in its signature; Arti steps over whatever follows",
    },
    // Descriptors and extra-infos.
    Difference {
        kinds: RELAY_DOCUMENTS,
        when: &[Only(
            Side::Arti,
            &["router", "extra-info", "router-sig-ed25519", "router-signature"],
            &["at its place"],
        )],
        why: "what is signed starts and ends at words and blanks that stand literally there; Arti takes tabs too",
    },
    Difference {
        kinds: RELAY_DOCUMENTS,
        when: &[Only(Side::Arti, &[], &["\"identity-ed25519\" is not at its place"])],
        why: "identity-ed25519 is the second line (dir-spec 2.1.1); Arti takes it anywhere",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[Only(Side::Arti, &["onion-key", "onion-key-crosscert"], &[])],
        why: "a TAP key must be right if it is there; Arti does not look at it",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[Only(Side::Arti, &["bandwidth"], &["bad value"]), Only(Side::Arti, &["router"], &["ORPort"])],
        why: "rates are from 1 to 2^31-1, and there is an ORPort, as authorities have it; Arti takes all numbers",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[Only(Side::Arti, &["fingerprint"], &["the fingerprint is not that"])],
        why: "the whole line is the fingerprint; Arti looks at ten groups and ignores what follows",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[Only(Side::Arti, &["router"], &["\"accept or reject\" is missing"])],
        why: "authorities refuse a descriptor without a policy; Arti does not",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[Only(Side::Ours, &["proto"], &["protocols"])],
        why: "a descriptor is kept without its protocols, and left out of votes then; Arti refuses it",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[
            Only(Side::Ours, &["platform"], &["platform"]),
            Seen(|d, text| d.value() == Some("platform") && text.lines().any(is_odd_platform)),
        ],
        why: "the platform is any text; Arti reads Tor's version in it and drops what it does not understand",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[
            Only(Side::Ours, &["family"], &["argument 0"]),
            Only(Side::Arti, &["family"], &["family member"]),
        ],
        why: "family members are nicknames or `$` and a fingerprint; Arti takes fingerprints only, also bare ones",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[Only(Side::Ours, &["or-address"], &["argument 0"])],
        why: "an or-address that cannot be read is passed over, as authorities do; Arti refuses it",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[
            Only(Side::Ours, &["router"], &["socksport"]),
            Only(Side::Ours, &["hibernating"], &["argument 0"]),
            Only(Side::Ours, &["overload-general"], &[]),
        ],
        why: "the SOCKS port and overload are not read, and whatever is not 0 means hibernating; Arti reads all of it",
    },
    Difference {
        kinds: &[Kind::Descriptor],
        when: &[
            Only(Side::Ours, &["accept", "reject"], &["accept/reject"]),
            Only(Side::Arti, &["accept", "reject"], &["policy line"]),
        ],
        why: "rules may leave out ports and have netmasks and `private`, and ports are digits only; Arti knows none of \
              the first, and takes a plus sign",
    },
    // Summaries of policies, in three kinds.
    Difference {
        kinds: &[],
        when: &[
            Only(Side::Ours, &["p", "p6", "ipv6-policy"], &["ranges"]),
            Only(Side::Arti, &["p", "p6", "ipv6-policy"], &["bad value \"accept ", "bad value \"reject "]),
            Seen(|d, text| {
                d.value().is_some_and(|field| field.ends_with("policy")) && text.lines().any(is_odd_summary)
            }),
        ],
        why: "a summary's entries have no order, those without a digit in front are passed over, and nothing follows \
              them; Arti wants them rising and reads the first word",
    },
    // Microdescriptors.
    Difference {
        kinds: &[Kind::Microdesc],
        when: &[Only(Side::Ours, &["id"], &["argument alg"]), Only(Side::Ours, &[], &["missing item id"])],
        why: "an Ed25519 identity may be missing, and other kinds of identities are passed over; Arti wants just that",
    },
    Difference {
        kinds: &[Kind::Microdesc],
        when: &[Only(Side::Arti, &["onion-key"], &["bits"])],
        why: "a TAP key has 1024 bits; Arti takes other lengths",
    },
    Difference {
        kinds: &[Kind::Microdesc],
        when: &[
            Only(Side::Ours, &["family", "family-ids"], &["argument 0"]),
            Seen(|d, text| d.value() == Some("family") && text.lines().any(has_named_member)),
        ],
        why: "what is unknown in families is passed over; Arti refuses it, but for bad names behind fingerprints",
    },
    // The consensus.
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Seen(|d, _| d.leaves_out_what_arti_refuses())],
        why: "a bad entry is left out, with the rest kept; Arti refuses the consensus",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Seen(|d, text| d.leaves_out_what_arti_reads() && text.lines().any(is_odd_entry))],
        why: "an entry is left out, too, if its publication time is none, or more follows its policy; Arti reads neither",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Ours, &["known-flags", "s"], &["flags"])],
        why: "flags have no order; Arti wants them rising",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[
            Only(Side::Ours, &["w"], &["parameters"]),
            Only(Side::Ours, &[], &["information in `w`"]),
            Seen(|d, text| {
                d.value().is_some_and(|field| field.ends_with("unmeasured"))
                    && text.lines().any(is_odd_weight)
            }),
        ],
        why: "what is unknown in `w` is passed over, and `Unmeasured=1` is meant literally; Arti wants numbers, in any form",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[
            Only(Side::Ours, PROTOCOLS, &["protocols"]),
            Seen(|d, text| {
                d.value().is_some_and(|field| field.ends_with("protocols")) && text.lines().any(has_version_0)
            }),
        ],
        why: "versions of protocols begin at 0; Arti refuses 0, and passes it over in entries",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Ours, &["m"], &["repeated"]), Only(Side::Ours, &[], &["missing item m"])],
        why: "of several microdescriptors the first counts, and an entry may have none; Arti wants one",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Ours, &["a"], &["argument 0"])],
        why: "a further address that cannot be read is passed over; Arti refuses it",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Arti, &["valid-until"], &["not in order"])],
        why: "the times of a lifetime are in order; Arti's new parser does not look",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Ours, &["dir-source"], &["nickname", "hostname"])],
        why: "an authority's name and host name are not looked at; Arti checks their letters",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Ours, &[], &["missing item directory-footer", "missing item params"])],
        why: "the footer's first line and the parameters may be missing (dir-spec 3.4.1); Arti wants them",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Arti, &["vote-digest"], &["bad value"])],
        why: "votes are named by SHA-1; Arti takes digests of any length",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Seen(|d, text| {
            d.value().is_some_and(|field| field.ends_with("version")) && text.lines().any(is_odd_version)
        })],
        why: "a version is any text; Arti reads the number of a Tor and writes it in its own way",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Arti, &[], &["\"voting-delay\" is missing"])],
        why: "a consensus says how votes are timed; Arti does not need it",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[
            Only(Side::Ours, &["directory-signature"], &["key_ids"]),
            Seen(|d, text| {
                d.value().is_some_and(|field| field == "signers" || field == "verified")
                    && text.lines().any(is_signature_of_unknown_digest)
            }),
        ],
        why: "the first of three arguments is a digest's name, known or not; Arti takes hex for an identity there",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Arti, &["directory-signature", "opt"], &["at its place"])],
        why: "a consensus ends in signatures, the first of which begins literally; Arti steps over whatever else there is",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Arti, &["directory-signature"], &["has no dir-source"])],
        why: "who signs has voted; Arti counts signatures without looking at the voters",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Arti, &["params", "bandwidth-weights"], &["consensus parameter"])],
        why: "a parameter stands once; to Arti the last one counts",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Only(Side::Arti, &["r"], &["ascending order"])],
        why: "entries are sorted; Arti's new parser leaves that to be checked later",
    },
    Difference {
        kinds: &[Kind::Consensus],
        when: &[Seen(|d, text| {
            let footer = text.split_once("\ndirectory-footer").map(|(_, footer)| footer);
            d.value().is_some() && footer.is_some_and(|footer| footer.contains("\nr "))
        })],
        why: "what stands between footer and signatures is signed too; Arti's signed part ends at a stray entry",
    },
];

fn has_named_member(line: &str) -> bool {
    line.starts_with("family ") && line.contains(['=', '~'])
}

fn is_before_1970(line: &str) -> bool {
    let year = line.split([' ', '-']).filter_map(|word| word.parse::<u16>().ok()).next();
    year.is_some_and(|year| year < 1970)
}

fn is_of_a_list(field: &str) -> bool {
    let lists = ["params ", "bandwidth-weights "];
    let values = ["bandwidth", "unmeasured", "guard fraction"];
    lists.iter().any(|list| field.starts_with(list)) || values.iter().any(|value| field.ends_with(value))
}

/// Other than `v Tor 0.4.9.11` with numbers that fit a byte.
fn is_odd_version(line: &str) -> bool {
    let number = |text: &str| text.parse().is_ok_and(|n: u8| n.to_string() == text);
    line.strip_prefix("v ").is_some_and(|version| {
        let numbers = version.strip_prefix("Tor ").unwrap_or_default().split('.');
        numbers.clone().count() != 4 || !numbers.clone().all(number)
    })
}

fn is_signature_of_unknown_digest(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    words.next() == Some("directory-signature")
        && !words.next().is_some_and(|word| matches!(word, "sha1" | "sha256"))
        && words.count() > 1
}

/// `Unmeasured` with something else than 0 or 1.
fn is_odd_weight(line: &str) -> bool {
    line.starts_with("w ") && line.split("Unmeasured=").skip(1).any(|rest| !matches!(rest, "0" | "1"))
}

/// Other than `platform Tor 0.4.9.11 on Linux` with any system.
fn is_odd_platform(line: &str) -> bool {
    line.strip_prefix("platform ").is_some_and(|platform| {
        let (version, system) = platform.split_once(" on ").unwrap_or((platform, ""));
        system.is_empty() || is_odd_version(&format!("v {version}"))
    })
}

/// Other than a keyword, `accept` or `reject`, and a rising list of ports.
fn is_odd_summary(line: &str) -> bool {
    let mut words = line.split(' ');
    let is_summary = words.next().is_some_and(|keyword| matches!(keyword, "p" | "p6" | "ipv6-policy"));
    let (action, list) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let rises = |list: &str| {
        let ports: Option<Vec<u16>> = list.split([',', '-']).map(|port| port.parse().ok()).collect();
        !list.contains('+') && ports.is_some_and(|ports| ports.is_sorted())
    };
    is_summary && (!matches!(action, "accept" | "reject") || !rises(list) || words.next().is_some())
}

/// An entry's `r` without a time, or its odd `p`.
fn is_odd_entry(line: &str) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let has_time = words.windows(2).any(|pair| text::time(pair[0], pair[1]).is_some());
    (words.first() == Some(&"r") && !has_time) || is_odd_summary(line)
}

fn has_version_0(line: &str) -> bool {
    line.starts_with("pr ") && line.split(['=', ',', '-', ' ']).any(|version| version == "0")
}
