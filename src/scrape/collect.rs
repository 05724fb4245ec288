//! Collecting: a consistent snapshot of all cores.

use std::sync::Arc;

use futures_channel::oneshot;
use futures_util::future::try_join_all;

use crate::cores::command::ShardCommand;
use crate::cores::mailbox::Mailboxes;
use crate::cores::slices::drop_in_slices;
use crate::runtime::spawn;
use crate::shard::registry::Registry;
use crate::shard::{Counts, FamilySnapshot};

/// The snapshots of all cores.
pub(crate) struct Snapshots {
    /// The families of each shard, sorted by name.
    pub families: Vec<Vec<FamilySnapshot>>,
    /// By core.
    pub counts: Vec<Counts>,
}

/// Takes a snapshot of every core. Returns `None` if the gateway is shutting down.
pub(crate) async fn collect(registry: &Arc<Registry>, mailboxes: &Mailboxes) -> Option<Snapshots> {
    // Until it is dropped, names that cores release stay reserved, even if the client disconnects.
    let collection = registry.begin_collection();
    let requested: Vec<_> = (0..mailboxes.cores())
        .map(|core| {
            let (tx, rx) = oneshot::channel();
            mailboxes.send(core, ShardCommand::Snapshot(tx));
            rx
        })
        .collect();
    let (tx, rx) = oneshot::channel();
    // In a task of its own: if the client disconnects, large snapshots are still dropped in slices.
    spawn(async move {
        let Ok(snapshots) = try_join_all(requested).await else { return };
        drop(collection);
        let (families, counts): (Vec<_>, _) = snapshots.into_iter().unzip();
        let families = families.into_iter().flatten().collect();
        if let Err(Snapshots { families, .. }) = tx.send(Snapshots { families, counts }) {
            for snapshot in families {
                drop_in_slices(snapshot).await;
            }
        }
    });
    rx.await.ok()
}
