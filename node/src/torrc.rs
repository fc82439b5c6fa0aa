//! Reading torrc files from disk, with what they `%include`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onionring_proto::torrc::lines::{self, Line};
use onionring_proto::torrc::{Item, Origin, Problem};

use crate::limits::{INCLUDE_DEPTH, INCLUDED_FILES, TORRC_BYTES};

#[cfg(test)]
mod tests;

/// Reads the file and what it includes. What is wrong is left out and reported; a file that cannot be read is a
/// problem like any other.
pub fn read(path: &Path, problems: &mut Vec<Problem>) -> Vec<Item> {
    let mut reader = Reader { open: Vec::new(), included: 0, items: Vec::new(), problems };
    reader.file(path, &Origin::Default);
    reader.items
}

/// Takes the text of a file that was read elsewhere, such as standard input. Includes work.
pub fn read_text(text: &[u8], name: &str, problems: &mut Vec<Problem>) -> Vec<Item> {
    let mut reader = Reader { open: Vec::new(), included: 0, items: Vec::new(), problems };
    reader.text(text, &name.into());
    reader.items
}

struct Reader<'a> {
    /// The files being read, outermost first, by canonical name.
    open: Vec<PathBuf>,
    included: usize,
    items: Vec<Item>,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, origin: &Origin, what: String, remedy: &str) {
        self.problems.push(Problem {
            origin: origin.clone(),
            option: String::new(),
            value: None,
            what,
            remedy: remedy.to_owned(),
        });
    }

    fn file(&mut self, path: &Path, from: &Origin) {
        let name = path.display();
        let (canonical, text) = match read_bounded(path) {
            Ok(read) => read,
            Err(error) => {
                let what = format!("cannot read {name}: {error}");
                return self.problem(from, what, "check the path and who may read it");
            }
        };
        if self.open.contains(&canonical) {
            return self.problem(from, format!("{name} includes itself"), "remove this %include");
        }
        if self.open.len() > INCLUDE_DEPTH {
            let what = format!("{name} is the {}th file nested in another", self.open.len());
            return self.problem(from, what, "include it from a file further out");
        }
        self.open.push(canonical);
        self.text(&text, &name.to_string().into());
        self.open.pop();
    }

    fn text(&mut self, text: &[u8], name: &Arc<str>) {
        for line in lines::parse(text, name, self.problems) {
            match line {
                Line::Item(item) => self.items.push(item),
                Line::Include { origin, pattern } => self.include(&origin, &pattern),
            }
        }
    }

    fn include(&mut self, origin: &Origin, pattern: &str) {
        let files = match expand(pattern) {
            Ok(files) => files,
            Err(error) => {
                let what = format!("cannot include \"{}\": {error}", pattern.escape_debug());
                return self.problem(origin, what, "name a file, a directory or a pattern with * and ?");
            }
        };
        for file in files {
            // One message is enough: the count stays above the limit for all that follow.
            self.included += 1;
            if self.included == INCLUDED_FILES + 1 {
                let what = format!("more than {INCLUDED_FILES} files are included");
                self.problem(origin, what, "look for files that include each other many times over");
            }
            if self.included <= INCLUDED_FILES {
                self.file(&file, origin);
            }
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<(PathBuf, Vec<u8>)> {
    let canonical = path.canonicalize()?;
    let mut text = Vec::new();
    File::open(path)?.take(TORRC_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > TORRC_BYTES {
        return Err(io::Error::other(format!("it is longer than {TORRC_BYTES} bytes")));
    }
    Ok((canonical, text))
}

/// The files that an `%include` means, in the order in which they are read: what a pattern matches, sorted; of a
/// directory, the plain files whose names do not start with a dot, sorted. Only `*` and `?` make a pattern, as in C tor.
fn expand(pattern: &str) -> io::Result<Vec<PathBuf>> {
    let places = if pattern.contains(['*', '?']) {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let literal_brackets = pattern.replace('[', "[[]");
        let found = glob::glob_with(&literal_brackets, options).map_err(io::Error::other)?;
        let mut places = found.collect::<Result<Vec<_>, _>>().map_err(io::Error::from)?;
        places.sort();
        places
    } else {
        vec![PathBuf::from(pattern)]
    };
    let mut files = Vec::new();
    for place in places {
        if !fs::metadata(&place)?.is_dir() {
            files.push(place);
            continue;
        }
        let mut entries = fs::read_dir(&place)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".");
        let plain = entries.into_iter().filter(|entry| !hidden(entry)).map(|entry| entry.path());
        files.extend(plain.filter(|path| path.is_file()));
    }
    Ok(files)
}
