//! Which subscriptions a Topic Name reaches, which Retained Messages a Topic Filter reaches, and whose turn it is in a
//! Shared Subscription.
//!
//! The router knows Topic Names, Topic Filters and small values the caller attaches to them. It knows no clients, no
//! packets and no permissions, and it does not check its input: Topic Names and Topic Filters arrive here valid
//! (well-formed UTF-8, wildcards only where they may stand), and `$share/{ShareName}/` has been cut off.
//!
//! ```
//! use pantala_router::{FilterTree, Inserted};
//!
//! let mut subscriptions: FilterTree<u32, u8> = FilterTree::new(0x5eed);
//! assert_eq!(subscriptions.insert("site/+/temperature", 7, 1), Inserted::New { first: true });
//! assert_eq!(subscriptions.insert("site/#", 8, 2), Inserted::New { first: true });
//!
//! let mut receivers = Vec::new();
//! subscriptions.matches("site/north/temperature", |entries| receivers.extend_from_slice(entries));
//! receivers.sort_unstable();
//! assert_eq!(receivers, [(7, 1), (8, 2)]);
//! ```
//!
//! Every structure is keyed by a seed from its caller, as the router owns no source of randomness. Take the seed from
//! the operating system: Topic Names come from strangers, and only a secret seed keeps them from choosing names that
//! collide.
//!
//! All walks are loops, none recurses: the depth of a Topic Filter costs memory, never stack.

mod entries;
mod filter_tree;
mod retained;
mod seed;
mod shared;
mod slab;
mod topic;

pub use filter_tree::{FilterTree, Inserted, Removed};
pub use retained::{Cursor, RetainedIndex, Scan};
pub use shared::SharedGroup;
pub use topic::topic_matches;
