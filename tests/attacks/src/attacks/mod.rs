//! All attacks, by what they exhaust. A new attack is a function and a row in one of these files.

mod churn;
mod formats;
mod http2;
mod memory;
mod protocol;
mod slots;
mod time;
mod tls;

use crate::attack::Attack;

/// The attacks of the table in `docs/benchmarks.md`, in its order.
const TABLE: [&str; 26] = [
    "gzip-bombs",
    "short-zstd",
    "snappy-bombs",
    "announced-bodies",
    "url-labels",
    "api-unread",
    "scrapers-unread",
    "scrapers-leave",
    "new-label-names",
    "release",
    "many-families",
    "long-name",
    "selectors",
    "label-name-sets",
    "two-sets",
    "api-of-large-group",
    "page-of-large-group",
    "post-into-large-group",
    "uploads",
    "one-core",
    "idle-connections",
    "many-connections",
    "few-descriptors",
    "resets",
    "many-groups-above-limit",
    "unread-log",
];

/// The attacks of [`TABLE`].
pub fn table() -> impl Iterator<Item = &'static Attack> {
    TABLE.into_iter().filter_map(|name| all().find(|attack| attack.name == name))
}

/// All attacks.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    [
        memory::ATTACKS,
        time::ATTACKS,
        slots::ATTACKS,
        churn::ATTACKS,
        formats::ATTACKS,
        protocol::ATTACKS,
        tls::ATTACKS,
        http2::ATTACKS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_those_of_the_table_exist() {
        let names: BTreeSet<&str> = all().map(|attack| attack.name).collect();
        assert_eq!(names.len(), all().count());
        assert_eq!(table().map(|attack| attack.name).collect::<Vec<_>>(), TABLE);
    }
}
