//! Asking a person at the terminal.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// Asks for a secret, which is not shown, on the terminal of this process wherever its standard streams go. The line is
/// without its end.
pub fn ask_secret(question: &str) -> io::Result<Zeroizing<String>> {
    let mut terminal = File::options().read(true).write(true).open("/dev/tty")?;
    terminal.write_all(question.as_bytes())?;
    let mut answer = Zeroizing::new(String::with_capacity(1024));
    {
        let _hidden = Hidden::start(&terminal)?;
        BufReader::new(&terminal).read_line(&mut answer)?;
    }
    terminal.write_all(b"\n")?;
    let len = answer.trim_end_matches(['\r', '\n']).len();
    answer.truncate(len);
    Ok(answer)
}

/// While it lives, the terminal does not show what is typed.
struct Hidden<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Hidden<'a> {
    fn start(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes -= LocalModes::ECHO;
        tcsetattr(terminal, OptionalActions::Flush, &hidden)?;
        Ok(Hidden { terminal, before })
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
