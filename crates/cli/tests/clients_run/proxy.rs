//! `--proxy`: through a SOCKS5 proxy, which is the only way to the broker.

use crate::bench::{Broker, Program, pantala};
use crate::socks::{Asked, SocksServer};

#[test]
fn all_programs_go_through_the_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&Program::pantala("broker"), folder.path(), "allow_anonymous true");
    for (credentials, user) in [(None, ""), (Some(("me", "p@ss")), "me:p%40ss@")] {
        let proxy = SocksServer::start(Some(broker.address), credentials);
        let url = format!("socks5h://{user}{}", proxy.address);
        // A name that nobody but the proxy could find.
        let address = ["-h", "broker.invalid", "-p", "1884", "--proxy", &url];
        let run = |program: &str, arguments: &[&str]| {
            pantala(folder.path(), program, &[&address[..], arguments].concat(), b"")
        };
        run("pub", &["-t", "a", "-q", "1", "-r", "-m", "x"]).is("", 0);
        run("sub", &["-t", "a", "-C", "1"]).is("x\n", 0);
        run("rr", &["-t", "b", "-e", "b", "-m", "y"]).is("y\n", 0);
        assert_eq!(proxy.asked(), vec![Asked::Name("broker.invalid".to_owned(), 1884); 3]);
    }
    let proxy = SocksServer::start(Some(broker.address), Some(("me", "right")));
    let port = broker.address.port().to_string();
    let url = format!("socks5h://me:wrong@{}", proxy.address);
    let refused = pantala(folder.path(), "pub", &["-p", &port, "--proxy", &url, "-t", "a", "-m", "z"], b"");
    refused.is("", 1);
    assert!(refused.stderr.contains("refuses the user name or the password"), "{}", refused.stderr);
    assert_eq!(proxy.asked(), []);
}
