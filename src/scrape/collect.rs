//! Collecting: a consistent snapshot of all cores.

use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::try_join_all;

use crate::cores::command::ShardCommand;
use crate::cores::mailbox::Mailboxes;
use crate::shard::registry::Registry;
use crate::shard::{Counts, FamilySnapshot};

/// The snapshots of all cores, by core.
pub(crate) struct Snapshots {
    /// The families of each core, sorted by name.
    pub families: Vec<Vec<FamilySnapshot>>,
    pub counts: Vec<Counts>,
}

/// Takes a snapshot of every core. Returns `None` if the gateway is shutting down.
pub(crate) async fn collect(registry: &Arc<Registry>, mailboxes: &Mailboxes) -> Option<Snapshots> {
    // Until it is dropped, names that cores release stay reserved, even if the client disconnects.
    let _collection = registry.begin_collection();
    let requested = (0..mailboxes.cores()).map(|core| {
        let (tx, rx) = oneshot::channel();
        mailboxes.send(core, ShardCommand::Snapshot(tx));
        rx
    });
    let snapshots = try_join_all(requested).await.ok()?;
    let (families, counts) = snapshots.into_iter().unzip();
    Some(Snapshots { families, counts })
}
