//! Our own programs: the protocols that they offer, and WebSocket through TLS.

use std::process::{Command, Output, Stdio};

use crate::client::TlsBroker;

/// Runs a program to its end, with the authority of the broker.
fn run(running: &TlsBroker, program: &str, arguments: &[&str]) -> Output {
    run_trusting("ca.pem", running, program, arguments)
}

fn run_trusting(authority: &str, running: &TlsBroker, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pantala"));
    command.arg(program).args(arguments).args(["--cafile", authority]);
    command.current_dir(running.broker.folder.path(".")).env("XDG_CONFIG_HOME", "/nonexistent");
    command.stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn is(output: &Output, stdout: &str) {
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), stdout);
}

/// The broker takes nobody who offers protocols, and not its own.
#[test]
fn the_protocol_of_tls_alpn_is_offered() {
    let running = TlsBroker::start("", "");
    let port = running.tls.port().to_string();
    let address = ["-h", "localhost", "-p", &port];
    let publish = |flags: &[&str]| {
        run(&running, "pub", &[&address[..], &["-t", "t", "-q", "1", "-r", "-m", "x"], flags].concat())
    };
    is(&publish(&["--tls-alpn", "mqtt"]), "");
    is(&publish(&[]), "");
    let refused = publish(&["--tls-alpn", "x-other"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    running.broker.wait_for_log("none of the client's ALPN protocols is one of this listener (tls_alpn)");
    is(&run(&running, "sub", &[&address[..], &["-t", "t", "-C", "1", "--tls-alpn", "mqtt"]].concat()), "x\n");
}

#[test]
fn web_socket_through_tls() {
    let running = TlsBroker::start("protocol = \"websocket\"", "");
    let port = running.tls.port().to_string();
    let large = "z".repeat(200_000);
    std::fs::write(running.broker.folder.path("large"), &large).unwrap();
    for version in ["311", "5"] {
        let url = format!("wss://localhost:{port}/w");
        let address = ["-V", version, "-L", &url];
        is(&run(&running, "pub", &[&address[..], &["-q", "2", "-r", "-f", "large"]].concat()), "");
        is(&run(&running, "sub", &[&address[..], &["-C", "1", "-N"]].concat()), &large);
        let response = run(
            &running,
            "rr",
            &["-V", version, "-h", "localhost", "-p", &port, "--ws", "-t", "a", "-e", "a", "-m", "y"],
        );
        is(&response, "y\n");
    }
    // Who does not trust the broker does not talk to it.
    let refused = run_trusting("broker.crt", &running, "pub", &["-L", &format!("wss://localhost:{port}/w"), "-m", "x"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("Error: TLS with localhost: "), "{refused:?}");
}
