//! An Authentication Method without secrets: whoever says a word is the user of that name.

use pantala_broker::SecurityId;
use pantala_broker::authentication::{Exchange, Failure, Method, Step};

/// See the module.
pub struct Word;

impl Word {
    pub const NAME: &'static str = "WORD";
}

impl Method for Word {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn begin(&self, _security: SecurityId, _server_nonce: [u8; 18]) -> Box<dyn Exchange> {
        Box::new(Said)
    }
}

struct Said;

impl Exchange for Said {
    fn step(&mut self, client_data: &[u8]) -> Step {
        match std::str::from_utf8(client_data) {
            Ok("") => Step::Continue(b"?".to_vec()),
            Ok("wrong") | Err(_) => Step::Failure(Failure::Credentials),
            Ok(user_name) => Step::Success { data: Vec::new(), user_name: user_name.to_owned() },
        }
    }

    /// Who it is and the proof are one word.
    fn user_name(&self) -> Option<&str> {
        None
    }
}
