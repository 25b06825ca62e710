//! The binary under the names of Mosquitto's programs.

use std::process::Command;

use crate::bench::{Broker, PANTALA, Program, start};

#[test]
fn under_mosquittos_names_it_does_what_they_do() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&Program::pantala("broker"), folder.path(), "allow_anonymous true");
    let port = broker.address.port().to_string();
    let run = |name: &str, arguments: &[&str]| {
        let link = folder.path().join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(PANTALA, &link).unwrap();
        }
        let mut command = Command::new(link);
        command.args(["-h", "127.0.0.1", "-p", &port]).args(arguments).env("XDG_CONFIG_HOME", "/nonexistent");
        start(command, folder.path(), b"", None).end()
    };
    run("mosquitto_pub", &["-t", "n", "-r", "-q", "1", "-m", "x"]).is("", 0);
    run("mosquitto_sub", &["-t", "n", "-C", "1", "-v"]).is("n x\n", 0);
    run("mosquitto_sub", &["-t", "nothing", "-W", "1"]).is("", 27);
    run("mosquitto_rr", &["-t", "ask", "-e", "ask", "-m", "echo"]).is("echo\n", 0);
}
