//! Secrets that a person types.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// The most bytes of what is typed: what a password can have in a packet.
const SECRET_BYTES_MAX: usize = 65_535;

/// Asks on the terminal, and shows nothing of what is typed. Where standard input is no terminal its next line is read.
///
/// # Errors
/// When the terminal cannot be read, or the person gives up by Ctrl-C (`Interrupted`) or Ctrl-D (`UnexpectedEof`).
pub fn read_secret(prompt: &str) -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return read_line(&mut stdin.lock());
    }
    let terminal = File::options().read(true).write(true).open("/dev/tty")?;
    let quiet = Quiet::new(&terminal)?;
    (&terminal).write_all(prompt.as_bytes())?;
    let secret = read_typed(&mut &terminal);
    (&terminal).write_all(b"\n")?;
    drop(quiet);
    secret
}

/// Reads byte by byte, so that what stands behind the line is left to the next who reads.
fn read_line(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while let Some(byte) = next_byte(input)? {
        match byte {
            b'\n' => {
                line.pop_if(|last| *last == b'\r');
                return Ok(line);
            }
            byte => push(&mut line, byte)?,
        }
    }
    if line.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(line) }
}

/// Reads keys of a terminal that does nothing by itself: neither echo nor editing nor signals, so that whatever happens the
/// terminal is put back.
fn read_typed(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    while let Some(byte) = next_byte(input)? {
        match byte {
            b'\n' | b'\r' => return Ok(line),
            // Ctrl-C, Ctrl-\.
            3 | 0x1c => return Err(io::ErrorKind::Interrupted.into()),
            // Ctrl-D.
            4 => return Err(io::ErrorKind::UnexpectedEof.into()),
            // Backspace takes a character, which may have several bytes.
            8 | 0x7f => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            0x15 => line.clear(),
            byte => push(&mut line, byte)?,
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Without a buffer: what is not wanted here is for others.
fn next_byte(input: &mut impl Read) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn push(line: &mut Vec<u8>, byte: u8) -> io::Result<()> {
    if line.len() == SECRET_BYTES_MAX {
        return Err(io::Error::other("it is longer than 65535 bytes"));
    }
    line.push(byte);
    Ok(())
}

/// A terminal that shows nothing, until this is dropped.
struct Quiet<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> Quiet<'t> {
    fn new(terminal: &'t File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no putting back.
        let _gone = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_can_be_corrected_and_given_up() {
        let typed = |keys: &[u8]| read_typed(&mut &*keys).map_err(|error| error.kind());
        assert_eq!(typed(b"sec\x7fcret\r"), Ok(b"secret".to_vec()));
        assert_eq!(typed("é\u{8}x\n".as_bytes()), Ok(b"x".to_vec()));
        assert_eq!(typed(b"wrong\x15right\n"), Ok(b"right".to_vec()));
        assert_eq!(typed(b"sec\x03"), Err(io::ErrorKind::Interrupted));
        assert_eq!(typed(b"\x04"), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(typed(b"unfinished"), Err(io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn lines_of_a_pipe_are_read_one_by_one() {
        let mut input = &b"first\r\nsecond"[..];
        assert_eq!(read_line(&mut input).expect("a line"), b"first");
        assert_eq!(read_line(&mut input).expect("a line"), b"second");
        assert_eq!(read_line(&mut input).map_err(|error| error.kind()), Err(io::ErrorKind::UnexpectedEof));
    }
}
