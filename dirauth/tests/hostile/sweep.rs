//! Documents with one thing wrong, line by line.

/// More than any line may have, and less than an upload.
const OVERSIZED: usize = 64 << 10;
/// Numbers that no field has.
const NUMBERS: [&str; 4] = ["-1", "2147483648", "99999999999999999999999999", "0x10"];

/// A document and what was done to it.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub what: String,
    pub text: String,
}

/// Every line missing, doubled, garbage, without its arguments, oversized, and with each number of it out of range.
pub fn mutants(text: &str) -> Vec<Mutant> {
    let lines: Vec<&str> = text.lines().collect();
    let mut mutants = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let mut with = |what: &str, instead: &[String]| {
            let before = lines[..n].iter().map(|line| (*line).to_owned());
            let after = lines[n + 1..].iter().map(|line| (*line).to_owned());
            let all: Vec<String> = before.chain(instead.iter().cloned()).chain(after).collect();
            let text = all.join("\n") + "\n";
            mutants.push(Mutant { what: format!("line {}, `{line}`, {what}", n + 1), text });
        };
        let keyword = line.split(' ').next().unwrap_or_default();
        with("missing", &[]);
        with("doubled", &[(*line).to_owned(), (*line).to_owned()]);
        with("garbage", &["\u{1}\u{7f} \u{fffd}=;\t".to_owned()]);
        with("without arguments", &[keyword.to_owned()]);
        with("oversized", &[format!("{line} {}", "x".repeat(OVERSIZED))]);
        for number in NUMBERS {
            if let Some(changed) = with_number(line, number) {
                with(&format!("with {number}"), &[changed]);
            }
        }
    }
    mutants
}

/// The line with the first number in it replaced by another.
fn with_number(line: &str, number: &str) -> Option<String> {
    // Not in keywords, and not in what is base64 or hexadecimal.
    let (keyword, arguments) = line.split_once(' ')?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    let mut at = 0;
    for piece in arguments.split_inclusive(|c: char| !is_part(c)) {
        let word = piece.trim_end_matches(|c: char| !is_part(c));
        if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) {
            let (before, after) = (&arguments[..at], &arguments[at + word.len()..]);
            return Some(format!("{keyword} {before}{number}{after}"));
        }
        at += piece.len();
    }
    None
}
