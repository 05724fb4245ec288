//! Slots: the right to receive one of a limited number of long responses, such as scrapes.
//!
//! A response keeps its slot until the kernel has accepted its last byte. A client that does not read could therefore keep a slot
//! for as long as the response may take. So when slots are needed, the response that has been stalled for the longest time loses
//! its slot, and its connection is reset; and clients of one network can have only a part of all slots.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::runtime::permits::Permits;
use crate::runtime::sleep;

/// A response that has been stalled for this long can lose its slot.
const STALL_MIN: Duration = Duration::from_secs(1);
/// How long a request waits for a slot, in steps; long enough for a stall to be noticed.
const WAIT_STEP: Duration = Duration::from_millis(100);
const WAIT_STEPS: usize = 25;
/// The stall of a response that is not stalled.
const NEVER: u64 = u64::MAX;

/// A limited number of slots. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max: usize,
    /// How many of them clients of one network can have.
    network_max: usize,
    start: Instant,
    taken: Mutex<Vec<Arc<Taken>>>,
    evicted: AtomicU64,
    /// Requests that wait for a slot, at most as many as there are slots.
    waiting: Permits,
}

/// A slot that is in use.
#[derive(Debug)]
struct Taken {
    network: IpAddr,
    /// Milliseconds from the start until the client was first seen to read nothing, or [`NEVER`].
    stalled_millis: AtomicU64,
    is_evicted: AtomicBool,
}

/// One of the slots; returned on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    taken: Arc<Taken>,
}

/// What a response holds beside its slot.
pub(crate) trait Held: Send + Sync + 'static {
    /// Whether the memory that it holds still fits into the limits. Called from time to time while the client reads; if it does not
    /// fit, the response ends.
    fn fits(&self) -> bool {
        true
    }
}

/// What a response holds until the kernel has its last byte. The handler adds it to the extensions of the response.
#[derive(Clone)]
pub(crate) struct ResponseGuard {
    slot: Arc<Slot>,
    held: Arc<dyn Held>,
}

impl Slots {
    /// `None` means no limit; slots are counted all the same.
    pub(crate) fn new(max: Option<usize>) -> Self {
        let max = max.unwrap_or(usize::MAX);
        // One client behind a proxy must not be limited much, and a quarter is enough for others to get through.
        let network_max = max - max / 4;
        let shared = Shared {
            max,
            network_max,
            start: Instant::now(),
            taken: Mutex::default(),
            evicted: AtomicU64::new(0),
            waiting: Permits::new(Some(max)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A slot for a response to this client. Waits a little if all slots that it could have are taken; `None` if they stay taken, or
    /// if too many requests wait already.
    pub(crate) async fn acquire(&self, peer: IpAddr) -> Option<Slot> {
        if let Some(slot) = self.acquire_at(peer, self.shared.millis()) {
            return Some(slot);
        }
        let _waiting = self.shared.waiting.try_acquire()?;
        for _ in 0..WAIT_STEPS {
            sleep(WAIT_STEP).await;
            if let Some(slot) = self.acquire_at(peer, self.shared.millis()) {
                return Some(slot);
            }
        }
        None
    }

    /// How many slots are taken.
    pub(crate) fn in_use(&self) -> usize {
        self.shared.lock().len()
    }

    /// How many responses have lost their slot since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.shared.evicted.load(Ordering::Relaxed)
    }

    /// Never waits.
    fn acquire_at(&self, peer: IpAddr, now_millis: u64) -> Option<Slot> {
        let network = network_of(peer);
        let mut taken = self.shared.lock();
        let of_network = taken.iter().filter(|other| other.network == network).count();
        let is_network_full = of_network >= self.shared.network_max;
        if is_network_full || taken.len() >= self.shared.max {
            let candidates = taken.iter().enumerate().filter(|(_, other)| {
                let stalled = other.stalled_millis.load(Ordering::Relaxed);
                (!is_network_full || other.network == network)
                    && now_millis.saturating_sub(STALL_MIN.as_millis() as u64) >= stalled
            });
            let (at, _) = candidates.min_by_key(|(_, other)| other.stalled_millis.load(Ordering::Relaxed))?;
            taken.swap_remove(at).is_evicted.store(true, Ordering::Relaxed);
            self.shared.evicted.fetch_add(1, Ordering::Relaxed);
        }
        let slot = Arc::new(Taken {
            network,
            stalled_millis: AtomicU64::new(NEVER),
            is_evicted: AtomicBool::new(false),
        });
        taken.push(slot.clone());
        Some(Slot { shared: self.shared.clone(), taken: slot })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Taken>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1)
    }
}

impl Slot {
    /// Records whether the client reads the response.
    fn set_stalled(&self, is_stalled: bool) {
        let stalled = &self.taken.stalled_millis;
        if !is_stalled {
            stalled.store(NEVER, Ordering::Relaxed);
        } else if stalled.load(Ordering::Relaxed) == NEVER {
            stalled.store(self.shared.millis(), Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.shared.lock();
        // An evicted slot is not in the list.
        if let Some(at) = taken.iter().position(|other| Arc::ptr_eq(other, &self.taken)) {
            taken.swap_remove(at);
        }
    }
}

impl ResponseGuard {
    /// Keeps the slot, and something else, until the response is sent or abandoned.
    pub(crate) fn new(slot: Slot, held: Arc<dyn Held>) -> Self {
        Self { slot: Arc::new(slot), held }
    }

    pub(super) fn set_stalled(&self, is_stalled: bool) {
        self.slot.set_stalled(is_stalled);
    }

    /// Whether the response may continue: no other response has got its slot, and what it holds fits.
    pub(super) fn may_continue(&self) -> bool {
        !self.slot.taken.is_evicted.load(Ordering::Relaxed) && self.held.fits()
    }
}

/// The network that counts as one client: the address, or the first 64 bits of an IPv6 address, which any host can vary.
pub(crate) fn network_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL_MILLIS: u64 = STALL_MIN.as_millis() as u64;

    fn peer(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Stalled since the start.
    fn stall(slot: &Slot, millis: u64) {
        slot.taken.stalled_millis.store(millis, Ordering::Relaxed);
    }

    #[test]
    fn slots_are_limited_and_returned_on_drop() {
        let slots = Slots::new(Some(1));
        let slot = slots.acquire_at(peer("10.0.0.1"), 0);
        assert!(slot.is_some() && slots.acquire_at(peer("10.0.0.2"), u64::MAX - 1).is_none());
        drop(slot);
        assert_eq!(slots.in_use(), 0);
        let unlimited = Slots::new(None);
        let many: Vec<_> = (0..1_000).map(|_| unlimited.acquire_at(peer("10.0.0.1"), 0)).collect();
        assert!(many.iter().all(Option::is_some) && unlimited.in_use() == 1_000);
    }

    #[test]
    fn one_network_leaves_slots_for_others() {
        let slots = Slots::new(Some(8));
        // Addresses of one /64, and an IPv4 address in both notations.
        for (addresses, count) in [(["2001:db8::1", "2001:db8::2"], 6), (["10.0.0.1", "::ffff:10.0.0.1"], 2)]
        {
            let all = addresses.iter().cycle().take(9);
            let taken: Vec<_> = all.map_while(|address| slots.acquire_at(peer(address), 0)).collect();
            assert_eq!(taken.len(), count);
            std::mem::forget(taken);
        }
    }

    #[test]
    fn the_longest_stalled_response_loses_its_slot() {
        let slots = Slots::new(Some(4));
        let of = |address| slots.acquire_at(peer(address), 0).expect("a free slot");
        let held = [of("10.0.0.1"), of("10.0.0.1"), of("10.0.0.2"), of("10.0.0.2")];
        stall(&held[1], 500);
        stall(&held[2], 400);
        let evicted = || held.each_ref().map(|slot| slot.taken.is_evicted.load(Ordering::Relaxed));

        assert!(slots.acquire_at(peer("10.0.0.3"), 399 + STALL_MILLIS).is_none(), "not stalled for long");
        let third = slots.acquire_at(peer("10.0.0.3"), 400 + STALL_MILLIS);
        assert!(third.is_some());
        assert_eq!(evicted(), [false, false, true, false]);
        let fourth = slots.acquire_at(peer("10.0.0.3"), 500 + STALL_MILLIS);
        assert!(fourth.is_some());
        assert_eq!(evicted(), [false, true, true, false]);
        assert!(slots.acquire_at(peer("10.0.0.3"), u64::MAX - 1).is_none(), "active responses keep theirs");
        drop(held);
        assert_eq!((slots.in_use(), slots.evicted()), (2, 2));
    }

    #[test]
    fn a_network_at_its_share_replaces_only_its_own_responses() {
        let slots = Slots::new(Some(4));
        let other = slots.acquire_at(peer("10.0.0.2"), 0).expect("a free slot");
        stall(&other, 0);
        let own: Vec<_> = (0..3).filter_map(|_| slots.acquire_at(peer("10.0.0.1"), 0)).collect();
        assert_eq!(own.len(), 3);
        assert!(slots.acquire_at(peer("10.0.0.1"), u64::MAX - 1).is_none());
        stall(&own[1], 10);
        assert!(slots.acquire_at(peer("10.0.0.1"), 10 + STALL_MILLIS).is_some());
        assert!(own[1].taken.is_evicted.load(Ordering::Relaxed));
        assert!(!other.taken.is_evicted.load(Ordering::Relaxed));
    }
}
