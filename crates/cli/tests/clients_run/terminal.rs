//! What a hostile payload does to a terminal: nothing. What is piped is as it was sent.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::bench::{Broker, Program, pantala, start};

const HOSTILE: &[u8] = b"\x1b[2J\x1b]0;title\x07\rback\x08\x9b31m\xc2\x9b\x7f\x00\xe2\x80\xae\ttab";
const ESCAPED: &str = r"\x1b[2J\x1b]0;title\x07\rback\x08\x9b31m\u009b\x7f\x00\u202e";

/// A terminal: the end of who looks at it, and the end of who runs in it.
fn terminal() -> (File, OwnedFd) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let path = ptsname(&controller, Vec::new()).unwrap();
    let terminal = rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (File::from(controller), terminal)
}

/// Waits until this text was shown; all that was shown.
fn shown_up_to(mut controller: &File, text: &str) -> Vec<u8> {
    let mut shown = Vec::new();
    let mut bytes = [0; 4096];
    while !String::from_utf8_lossy(&shown).contains(text) {
        let count = controller.read(&mut bytes).unwrap();
        shown.extend_from_slice(&bytes[..count]);
    }
    shown
}

/// What the command writes to a terminal that is its standard output.
fn on_a_terminal(mut command: Command) -> Vec<u8> {
    let (mut controller, terminal) = terminal();
    let mut child = command.stdin(Stdio::null()).stdout(terminal).stderr(Stdio::null()).spawn().unwrap();
    // Nobody but the child is to have it open.
    drop(command);
    let mut shown = Vec::new();
    let mut bytes = [0; 4096];
    // The end is EIO: the last who had the terminal open has closed it.
    while let Ok(count @ 1..) = controller.read(&mut bytes) {
        shown.extend_from_slice(&bytes[..count]);
    }
    assert!(child.wait().unwrap().success());
    shown
}

#[test]
fn a_hostile_message_is_escaped_on_a_terminal_and_raw_in_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&Program::pantala("broker"), folder.path(), "allow_anonymous true");
    let port = broker.address.port().to_string();
    let topic_name = "t/\u{1b}[31m";
    let arguments = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-r", "-t", topic_name, "-s"];
    pantala(folder.path(), "pub", &arguments, HOSTILE).is("", 0);

    let command = |program: &str, flags: &[&str]| {
        let mut command = Program::pantala(program).command();
        command.args(["-h", "127.0.0.1", "-p", &port, "-W", "20"]).args(flags);
        command
    };
    // The terminal itself puts a carriage return before a line feed.
    let shown =
        |program: &str, flags: &[&str]| String::from_utf8_lossy(&on_a_terminal(command(program, flags))).into_owned();
    assert_eq!(shown("sub", &["-t", "t/#", "-C", "1"]), format!("{ESCAPED}\ttab\r\n"));
    assert_eq!(shown("sub", &["-t", "t/#", "-C", "1", "-v"]), format!("t/\\x1b[31m {ESCAPED}\ttab\r\n"));
    assert_eq!(shown("sub", &["-t", "t/#", "-C", "1", "-F", "%t %p"]), format!("t/\\x1b[31m {ESCAPED}\ttab\r\n"));
    let response = shown("rr", &["-t", "ask", "-e", topic_name, "-m", "x"]);
    assert_eq!(response, format!("{ESCAPED}\ttab\r\n"));
    // On a screen with a line for each topic a message has no say in where it is: its own bytes hold no orders.
    let watched = shown("sub", &["-t", "t/#", "-C", "1", "-v", "-w"]);
    assert!(watched.contains(&format!("t/\\x1b[31m {ESCAPED}\\ttab")), "{watched:?}");
    // Nor do the lines of packets.
    let told = shown("sub", &["-t", "t/#", "-C", "1", "-d"]);
    assert!(told.contains("received PUBLISH (d0, q0, r1, m0, 't/\\x1b[31m', ... "), "{told:?}");
    assert!(!told.contains('\u{1b}'), "{told:?}");

    // In a pipe, and where it is asked for.
    let piped = start(command("sub", &["-t", "t/#", "-C", "1"]), folder.path(), b"", None).end();
    piped.is([HOSTILE, b"\n"].concat(), 0);
    let raw = on_a_terminal(command("sub", &["-t", "t/#", "-C", "1", "--raw"]));
    assert_eq!(raw, [HOSTILE, b"\r\n"].concat());
}

/// Long lines went on to end at the edge of the screen, in the shell too.
#[test]
fn a_screen_is_left_to_the_shell_however_the_program_ends() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&Program::pantala("broker"), folder.path(), "allow_anonymous true");
    let port = broker.address.port().to_string();
    pantala(folder.path(), "pub", &["-p", &port, "-t", "t", "-q", "1", "-r", "-m", "x"], b"").is("", 0);
    for signal in [Some(Signal::INT), Some(Signal::TERM), None] {
        let (mut controller, terminal) = terminal();
        let mut command = Program::pantala("sub").command();
        command.args(["-p", &port, "-t", "t", "-w"]).args(if signal.is_some() { &[][..] } else { &["-W", "1"] });
        let mut child = command.stdin(Stdio::null()).stdout(terminal).stderr(Stdio::null()).spawn().unwrap();
        drop(command);
        let mut shown = shown_up_to(&controller, "\x1b[1;1Hx");
        if let Some(signal) = signal {
            kill_process(Pid::from_child(&child), signal).unwrap();
        }
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = controller.read(&mut bytes) {
            shown.extend_from_slice(&bytes[..count]);
        }
        assert_eq!(child.wait().unwrap().code(), Some(if signal.is_some() { 0 } else { 27 }));
        assert!(String::from_utf8_lossy(&shown).contains("\x1b[?7h"), "{signal:?}");
    }
}

/// The signal was heeded when the password had been typed, and until then nothing that was typed was shown.
#[test]
fn a_prompt_is_ended_by_a_signal_and_the_terminal_put_back() {
    for arguments in [&["pub", "-t", "t", "-m", "x", "-u", "me", "--pw-prompt"][..], &["passwd", "-c", "-", "me"]] {
        for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let (controller, terminal) = terminal();
            // A terminal of its own, which the program opens by its name.
            let mut command = Command::new("setsid");
            command.args(["-c", crate::bench::PANTALA]).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
            let kept = terminal.try_clone().unwrap();
            let mut child = command.stdin(terminal).spawn().unwrap();
            shown_up_to(&controller, "Password: ");
            assert!(!tcgetattr(&kept).unwrap().local_modes.contains(LocalModes::ECHO));
            kill_process(Pid::from_child(&child), signal).unwrap();
            let ended = crate::bench::wait_for("the end of a prompt", || child.try_wait().unwrap());
            assert_eq!(ended.code(), Some(status), "{arguments:?}");
            assert!(tcgetattr(&kept).unwrap().local_modes.contains(LocalModes::ECHO), "{arguments:?}");
        }
    }
}
