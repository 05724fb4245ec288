//! All attacks, by what they exhaust. A new attack is a function and a row in one of these files.

mod churn;
mod formats;
mod memory;
mod protocol;
mod slots;
mod time;

use crate::attack::Attack;

/// All attacks.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    [memory::ATTACKS, time::ATTACKS, slots::ATTACKS, churn::ATTACKS, formats::ATTACKS, protocol::ATTACKS]
        .into_iter()
        .flatten()
}
