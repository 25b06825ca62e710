//! Secrets that a person types.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

/// The most bytes of what is typed: what a password can have in a packet.
const SECRET_BYTES_MAX: usize = 65_535;

const TERMINAL: &str = "/dev/tty";
/// What a shell makes of the end by a signal: this and its number.
const EXIT_SIGNAL: i32 = 128;

/// Asks on the terminal, and shows nothing of what is typed. Where standard input is no terminal its next line is read. Blocks; a
/// signal that is to end the process meanwhile puts the terminal back and ends it, with the status that a shell would show.
///
/// # Errors
/// When the terminal cannot be read, or the person gives up by Ctrl-C (`Interrupted`) or Ctrl-D (`UnexpectedEof`).
pub fn read_secret(prompt: &str) -> io::Result<Vec<u8>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let _asking = Asking::new(None);
        return read_line(&mut stdin.lock());
    }
    let terminal = File::options().read(true).write(true).open(TERMINAL)?;
    let _asking = Asking::new(Some(tcgetattr(&terminal)?));
    let quiet = Quiet::new(&terminal)?;
    (&terminal).write_all(prompt.as_bytes())?;
    let secret = read_typed(&mut &terminal);
    (&terminal).write_all(b"\n")?;
    drop(quiet);
    secret
}

/// From here on signals are somebody else's, but while a secret is asked for.
pub fn leave_signals_to_others() {
    OTHERS_LISTEN.store(true, Ordering::Relaxed);
}

static OTHERS_LISTEN: AtomicBool = AtomicBool::new(false);
/// What is asked for now, if anything: with how the terminal was before, if there is one.
static ASKED: Mutex<Option<Option<Termios>>> = Mutex::new(None);

fn asked() -> MutexGuard<'static, Option<Option<Termios>>> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While a secret is asked for.
struct Asking;

impl Asking {
    fn new(before: Option<Termios>) -> Self {
        static LISTENING: Once = Once::new();
        *asked() = Some(before);
        LISTENING.call_once(|| {
            let (ready, listening) = std::sync::mpsc::channel();
            // Without a thread a signal does what it does by itself.
            let spawned = std::thread::Builder::new().name("signals".to_owned()).spawn(|| end_at_signals(ready));
            // From here on, not some time later: an end of the thread ends the waiting too.
            drop(spawned.map(|_| listening.recv()));
        });
        Self
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        *asked() = None;
    }
}

/// Ends the process at a signal while a secret is asked for, and as long as nobody else listens: who reads keys is blocked, and
/// would leave a terminal that shows nothing.
fn end_at_signals(ready: std::sync::mpsc::Sender<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    drop(runtime.block_on(async {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        drop(ready);
        loop {
            let kind = tokio::select! {
                _ = hangup.recv() => SignalKind::hangup(),
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
            };
            let asked = asked();
            if let Some(before) = &*asked {
                if let Some(before) = before
                    && let Ok(mut terminal) = File::options().read(true).write(true).open(TERMINAL)
                {
                    // A terminal that is gone needs no putting back.
                    let _gone = tcsetattr(&terminal, OptionalActions::Flush, before);
                    drop(terminal.write_all(b"\n"));
                }
            } else if OTHERS_LISTEN.load(Ordering::Relaxed) && kind != SignalKind::hangup() {
                continue;
            }
            std::process::exit(EXIT_SIGNAL + kind.as_raw_value());
        }
        #[allow(unreachable_code, reason = "the type of the errors above")]
        io::Result::Ok(())
    }));
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
