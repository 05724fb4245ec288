//! The shapes that groups of one shard have.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::pending::PendingNumbers;
use super::super::slab::{Number, Slab};
use super::super::tables::{Map, NO_SHAPE_ID};
use super::Shape;

/// About how many pending numbers of forgotten shapes are written to the text at once.
const WRITTEN_NUMBERS_MAX: usize = 4096;

/// The group has no shape.
pub(in super::super) const NO_SHAPE: Number = Number::MAX;

/// The shapes of groups, with the numbers of their families on this shard. The numbers stay the same while a group has the shape, because
/// the group has the families.
#[derive(Debug, Default)]
pub(in super::super) struct LocalShapes {
    shapes: Slab<LocalShape>,
    by_id: Map<u64, Number>,
}

/// A shape that groups have.
#[derive(Debug)]
pub(in super::super) struct LocalShape {
    /// `None` once the table has forgotten it, so that the memory of shapes is bounded. Groups that still refer to it have no shape.
    shape: Option<Arc<Shape>>,
    id: u64,
    /// The numbers of its families.
    families: Arc<[Number]>,
    /// For each line, the index of its number in a body, in the order of the families' numbers.
    line_order: Box<[u32]>,
    groups: u32,
    pending: PendingNumbers,
}

/// The pending numbers of a shape, with its number and the numbers of its families.
pub(in super::super) type Taken = (Number, Arc<Shape>, Arc<[Number]>, PendingNumbers);

impl LocalShapes {
    /// The families of a shape, if this is its number.
    pub fn families_of(&self, number: Number, shape: &Arc<Shape>) -> Option<&[Number]> {
        let local = self.shapes.get(number)?;
        local.shape.as_ref().is_some_and(|known| Arc::ptr_eq(known, shape)).then_some(&*local.families)
    }

    /// The shape with this number, and its families.
    pub fn get(&self, number: Number) -> Option<(&Arc<Shape>, &[Number])> {
        let LocalShape { shape, families, .. } = self.shapes.get(number)?;
        Some((shape.as_ref()?, families))
    }

    /// Whether groups have the shape.
    pub fn is_known(&self, shape: &Shape) -> bool {
        self.by_id.contains_key(&shape.id)
    }

    /// Counts a group that has a shape. `number_of` knows the numbers of its families.
    pub fn acquire(
        &mut self,
        shape: &Arc<Shape>,
        number_of: impl Fn(&str) -> Option<Number>,
    ) -> Option<Number> {
        if let Some(known) = self.by_id.get(&shape.id) {
            self.shapes[*known].groups += 1;
            return Some(*known);
        }
        let families: Option<Arc<[Number]>> =
            shape.families().iter().map(|family| number_of(&family.name)).collect();
        let families = families?;
        let local = LocalShape {
            shape: Some(shape.clone()),
            id: shape.id,
            line_order: line_order(shape, &families),
            families,
            groups: 1,
            pending: PendingNumbers::default(),
        };
        let number = self.shapes.insert(local);
        self.by_id.insert(shape.id, number);
        Some(number)
    }

    /// Counts a group that has the shape with this number no longer.
    pub fn release(&mut self, number: Number) {
        if number == NO_SHAPE {
            return;
        }
        let local = &mut self.shapes[number];
        local.groups -= 1;
        if local.groups == 0 {
            let id = local.id;
            self.shapes.remove(number);
            // A push that was under way when the table forgot the shape may have added it a second time.
            if self.by_id.get(&id) == Some(&number) {
                self.by_id.remove(&id);
            }
        }
    }

    /// The [`Shape::id`] of the shape with this number, or [`NO_SHAPE_ID`]. Its lower part: a process makes fewer shapes than there are.
    pub fn id_of(&self, number: Number) -> u32 {
        self.shapes.get(number).map_or(NO_SHAPE_ID, |local| local.id as u32)
    }

    /// For each line of the shape with this number, the index of its number in a body, in the order of the families' numbers.
    pub fn line_order(&self, number: Number) -> &[u32] {
        self.shapes.get(number).map_or(&[], |local| &local.line_order)
    }

    /// The pending numbers of the groups with the shape that has this number.
    pub fn pending_of(&mut self, number: Number) -> &mut PendingNumbers {
        &mut self.shapes[number].pending
    }

    /// The same with the shape and its families.
    pub fn pending_at(&self, number: Number) -> Option<(&Arc<Shape>, &[Number], &PendingNumbers)> {
        let (shape, families) = self.get(number)?;
        Some((shape, families, &self.shapes[number].pending))
    }

    /// Takes all pending numbers, in the order of the shapes' numbers.
    pub fn take_pending(&mut self) -> Vec<Taken> {
        let mut taken = Vec::new();
        for number in self.by_id.values().copied() {
            let LocalShape { shape, families, pending, .. } = &mut self.shapes[number];
            if let Some(shape) = shape.as_ref().filter(|_| !pending.is_empty()) {
                taken.push((number, shape.clone(), families.clone(), std::mem::take(pending)));
            }
        }
        taken.sort_unstable_by_key(|(number, ..)| *number);
        taken
    }

    /// Drops the shapes that the table has forgotten. Called before each new one, so that a shard has hardly more shapes than the table.
    /// Pending numbers need their shape: returns groups that have some, for the caller to write them, so that the next call drops their
    /// shapes.
    pub fn forget_evicted(&mut self) -> Vec<Number> {
        let is_evicted = |shape: &Arc<Shape>| shape.is_evicted.load(Ordering::Relaxed);
        let mut pending = Vec::new();
        let mut numbers = 0;
        let Self { shapes, by_id } = self;
        by_id.retain(|_, number| {
            let local = &mut shapes[*number];
            let Some(shape) = local.shape.as_ref().filter(|shape| is_evicted(shape)) else { return true };
            if !local.pending.is_empty() {
                let left = WRITTEN_NUMBERS_MAX.saturating_sub(numbers).div_ceil(shape.numbers_len());
                let groups = pending.len();
                pending.extend(local.pending.groups().take(left));
                numbers += (pending.len() - groups) * shape.numbers_len();
                return true;
            }
            local.shape = None;
            local.families = Arc::default();
            local.line_order = Box::default();
            false
        });
        pending
    }
}

fn line_order(shape: &Shape, families: &[Number]) -> Box<[u32]> {
    let mut indexes: Vec<usize> = (0..families.len()).collect();
    indexes.sort_unstable_by_key(|index| families[*index]);
    indexes.into_iter().flat_map(|index| shape.lines(index)).map(|(.., number)| number as u32).collect()
}
