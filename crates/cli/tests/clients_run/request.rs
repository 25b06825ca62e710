//! `rr`.

use crate::bench::with_each_suite;
use crate::relay::SUBACK;

#[test]
fn a_response_is_printed() {
    with_each_suite("a_response_is_printed", |suite| {
        for (version, asked) in [("5", "ask 1 re question\n"), ("311", "ask 1  question\n")] {
            for (flags, expected) in
                [(&[][..], "answer\n"), (&["-v"], "re answer\n"), (&["-F", "%t %q %l"], "re 1 6\n")]
            {
                let responder = suite.subscribed(&["-V", "5", "-q", "1", "-t", "ask", "-C", "1", "-F", "%t %q %R %p"]);
                let arguments = ["-V", version, "-q", "1", "-t", "ask", "-e", "re", "-m", "question", "-W", "20"];
                let request = suite.request(&[&arguments, flags].concat());
                request.wait_for_packet(SUBACK);
                responder.end().is(asked, 0);
                suite.published(&["-t", "re", "-q", "1", "-m", "answer"]);
                request.end().is(expected, 0);
            }
        }
    });
}

#[test]
fn no_response_is_a_timeout() {
    with_each_suite("no_response_is_a_timeout", |suite| {
        suite.request(&["-t", "ask", "-e", "re", "-m", "x", "-W", "1"]).end().is("", 27);
    });
}

#[test]
fn what_a_request_lacks_is_an_error() {
    with_each_suite("what_a_request_lacks_is_an_error", |suite| {
        for arguments in [
            &["-t", "ask", "-m", "x"][..],
            &["-e", "re", "-m", "x"],
            &["-t", "ask", "-e", "re"],
            &["-t", "ask/+", "-e", "re", "-m", "x"],
        ] {
            let printed = suite.request(arguments).end();
            assert_eq!(printed.status, Some(1), "{arguments:?} {printed:?}");
        }
    });
}
