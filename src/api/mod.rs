//! Requests → what is asked of the shards; what became of it → answers. Does no IO and knows no runtime.
//!
//! * [`route`] — paths and methods.
//! * [`group`] — push paths → grouping keys.
//! * [`push`] — bodies → pushes, outcomes → answers.
//! * [`negotiate`] — which form of the exposition a client asks for.
//! * [`scrape`] — merging what cores hand over.
//! * [`translate`] — the same in protobuf, or with names escaped.
//! * [`groups`] — the JSON API; [`list`] — pages of groups in it.
//! * [`page`] — the web page.
//! * [`storage`] — what a client hears while the store cannot do its work.
//! * [`answers`], [`body`] — headers, status codes, and what is sent.

pub mod answers;
pub mod body;
pub mod group;
pub mod groups;
pub mod list;
pub mod negotiate;
pub mod page;
pub mod push;
pub mod route;
pub mod scrape;
pub mod storage;
mod time;
pub mod translate;
