//! What one core can ask of another core's shards.

use std::sync::Arc;

use futures_channel::oneshot;

use crate::runtime::permits::Permit;
use crate::shard::key::GroupingKey;
use crate::shard::list::{GroupQuery, Listed};
use crate::shard::push::Push;
use crate::shard::shapes::ShapedPush;
use crate::shard::{
    Counts, DuplicateCheck, FamilyName, FamilySnapshot, FamilyView, GroupSlice, LargeGroup, SeriesLookup,
};
use crate::storage::completion::{CommandResult, CommitFailed};
use crate::storage::store::Batch;

/// A command to the task that owns a shard. Each result goes back through the command's own channel.
#[derive(Debug)]
pub(crate) enum ShardCommand {
    /// Applies a push.
    ///
    /// The sender keeps its clone of the push until the result arrives, so that the core which allocated the push also frees it:
    /// freeing each other's memory made cores wait for the allocator's locks.
    Push(Arc<Push>, Permit, oneshot::Sender<CommandResult>),
    /// The same for a push of a known shape.
    ShapedPush(Arc<ShapedPush>, Permit, oneshot::Sender<CommandResult>),
    /// Deletes a group.
    Delete(GroupingKey, Permit, oneshot::Sender<CommandResult>),
    /// Deletes groups, given by the texts of their keys, of which each was last pushed at this time (in Unix seconds). A group that was
    /// pushed since then stays. Returns how many were deleted.
    DeleteListed(Vec<(Arc<str>, f64)>, oneshot::Sender<Result<usize, CommitFailed>>),
    /// Deletes all groups.
    Wipe(oneshot::Sender<Result<(), CommitFailed>>),
    /// Completes changes of this core that the storage engine has committed, or failed to commit.
    Complete(Batch, Result<(), CommitFailed>),
    /// Takes a snapshot of each shard of the core for a scrape.
    Snapshot(oneshot::Sender<(Vec<Vec<FamilySnapshot>>, Counts)>),
    /// Copies some groups, starting at a position; the result names the position to continue from.
    CopyGroups(u32, oneshot::Sender<GroupSlice>),
    /// Lists some families of a large group, starting at a family number.
    ListFamilies(Arc<LargeGroup>, u32, oneshot::Sender<Vec<FamilyName>>),
    /// Copies some families of a large group; the result may be shorter than the list.
    CopyFamilies(Arc<LargeGroup>, Vec<FamilyName>, oneshot::Sender<Vec<Option<FamilyView>>>),
    /// Searches some groups, starting at a position, for those on a page of the groups API.
    ListGroups(Arc<GroupQuery>, u32, oneshot::Sender<Listed>),
    /// Checks whether groups of this core already hold any of these series.
    FindDuplicates(Arc<[SeriesLookup]>, oneshot::Sender<DuplicateCheck>),
}
