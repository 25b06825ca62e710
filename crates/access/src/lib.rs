//! Who may publish, receive and subscribe.
//!
//! [`Rules`] are what was written about everybody in one security domain, compiled; [`Rights`] are what one client may do
//! by them, made when it connects and again when the rules change.
//!
//! The crate reads no file and no clock and draws no random number: the same rules and the same client give the same
//! rights.
//!
//! ```
//! use pantala_access::{Rights, Rules, Subject};
//!
//! let rules = Rules::nothing();
//! let rights = rules.rights(&Subject { client_id: "kitchen", ..Subject::default() });
//! assert!(!rights.may_publish("lamp/1") && !rights.is_everything());
//! assert!(Rights::everything().may_subscribe("lamp/+", None));
//! ```

mod rights;
mod rules;
mod subject;

pub use rights::Rights;
pub use rules::Rules;
pub use subject::{Grants, Subject};
