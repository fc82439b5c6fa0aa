//! Damaged documents, made from good ones by a seeded generator: the same seed makes the same damage.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// What is put in the place of characters.
const CHARACTERS: &[u8] = b"0123456789abcdefABCDEFxyz =,:.-/*$~+\t\n#@_";
/// What is put in the place of numbers: the bounds of the types that documents use, and what lies beyond.
const NUMBERS: [&str; 12] = [
    "0",
    "1",
    "-1",
    "+1",
    "007",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "18446744073709551616",
];
/// Words that mean something somewhere.
const WORDS: [&str; 10] =
    ["x", "opt", "Unmeasured=1", "Foo=1", "Link=0", "accept", "1-65535", "sha1", "2026-01-02", "="];

/// A source of damage.
pub struct Mutator(ChaCha20Rng);

impl Mutator {
    /// A source of its own for each seed.
    pub fn new(seed: u64) -> Mutator {
        Mutator(ChaCha20Rng::seed_from_u64(seed))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("documents are small");
        usize::try_from(self.0.next_u64() % bound).expect("it is below a usize")
    }

    fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// The text with one thing wrong; now and then with two.
    pub fn mutate(&mut self, text: &str) -> String {
        let once = self.mutate_once(text);
        if self.below(8) == 0 { self.mutate_once(&once) } else { once }
    }

    fn mutate_once(&mut self, text: &str) -> String {
        let mut items: Vec<String> = items(text).into_iter().map(str::to_owned).collect();
        if items.is_empty() {
            return text.to_owned();
        }
        let at = self.below(items.len());
        match self.below(12) {
            0 => _ = items.remove(at),
            1 => items.insert(at, items[at].clone()),
            2 => {
                let other = self.below(items.len());
                items.swap(at, other);
            }
            3 => items.insert(at, "x-unknown 1 2 3\n".into()),
            4 => items.insert(at, "\n".into()),
            5 => items[at] = self.lose_a_line(&items[at]),
            6 => items[at] = self.flip_anywhere(&items[at]),
            _ => items[at] = self.change_line(&items[at]),
        }
        items.concat()
    }

    /// Takes one line out of an item with an object.
    fn lose_a_line(&mut self, item: &str) -> String {
        let mut lines: Vec<&str> = item.split_inclusive('\n').collect();
        lines.remove(self.below(lines.len()));
        lines.concat()
    }

    fn flip_anywhere(&mut self, item: &str) -> String {
        let at = self.below(item.len());
        self.flip(item, at)
    }

    fn flip(&mut self, text: &str, at: usize) -> String {
        let start = text.floor_char_boundary(at);
        let end = text.ceil_char_boundary(start + 1);
        let new = char::from(*self.one_of(CHARACTERS));
        format!("{}{new}{}", &text[..start], &text[end..])
    }

    /// Changes the keyword's own line: words, numbers, blanks.
    fn change_line(&mut self, item: &str) -> String {
        let (line, object) = item.split_once('\n').unwrap_or((item, ""));
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let at = self.below(words.len());
        match self.below(10) {
            0 => words.push((*self.one_of(&WORDS)).into()),
            1 => _ = words.pop(),
            2 => words.insert(at, (*self.one_of(&WORDS)).into()),
            3 => _ = words.remove(at),
            4 => words[at] = (*self.one_of(&NUMBERS)).into(),
            5 => words[at] = self.change_number(&words[at]),
            6 => words.insert(at, String::new()),
            7 => words[at] = format!("\t{}", words[at]),
            8 => words.insert(at, words[at].clone()),
            _ if line.is_empty() => {}
            _ => {
                let at = self.below(line.len());
                words = vec![self.flip(line, at)];
            }
        }
        format!("{}\n{object}", words.join(" "))
    }

    /// Puts another number for the last run of digits in a word.
    fn change_number(&mut self, word: &str) -> String {
        let Some(end) = word.rfind(|c: char| c.is_ascii_digit()).map(|at| at + 1) else {
            return word.to_owned();
        };
        let start =
            word[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| word.ceil_char_boundary(at + 1));
        format!("{}{}{}", &word[..start], self.one_of(&NUMBERS), &word[end..])
    }
}

/// A document's lines, each with the object that follows it.
pub fn items(text: &str) -> Vec<&str> {
    let mut items = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut in_object = false;
    for line in text.split_inclusive('\n') {
        let begins = line.starts_with("-----BEGIN ");
        if !in_object && !begins && at > start {
            items.push(&text[start..at]);
            start = at;
        }
        in_object = (in_object || begins) && !line.starts_with("-----END ");
        at += line.len();
    }
    if at > start {
        items.push(&text[start..]);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a 1\nb\n-----BEGIN X-----\nAAAA\n-----END X-----\nc 2 3\n";

    #[test]
    fn items_keep_their_objects() {
        assert_eq!(items(TEXT), ["a 1\n", "b\n-----BEGIN X-----\nAAAA\n-----END X-----\n", "c 2 3\n"]);
        assert_eq!(items("").len(), 0);
    }

    #[test]
    fn the_same_seed_makes_the_same_damage() {
        let damage = |seed| (0..50).map(|_| Mutator::new(seed).mutate(TEXT)).collect::<Vec<_>>();
        assert_eq!(damage(1), damage(1));
        assert_ne!(damage(1), damage(2));
        let mut mutator = Mutator::new(3);
        let changed = (0..200).filter(|_| mutator.mutate(TEXT) != TEXT).count();
        assert!(changed > 180, "{changed}");
    }
}
