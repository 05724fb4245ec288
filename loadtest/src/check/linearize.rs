//! Decides whether the history of one group is linearizable: whether its requests can be put in one order that agrees
//! with time and with everything that was seen.
//!
//! It follows all ways at once: a set of *ways*, each a possible state of the group and which of the requests under way have
//! already taken effect. When a request returns it must have taken effect, so every way is led on through all orders
//! of the requests under way until it has (Lowe's just-in-time linearization). A history is wrong when no way is left.
//!
//! What keeps the set small: every push is unique, and one that nobody ever saw is like any other one that nobody saw
//! (`UNSEEN`); of requests under way with the same effect the one that returns first is taken first; a sight that
//! fits takes effect at once, because it changes nothing. Should the set grow beyond its bound all the same, nothing is decided about that stretch: it goes on from
//! a state of which it knows nothing (`ANY`).

use std::collections::HashSet;

use crate::history::{ABSENT, NEVER};

/// A version that no scrape showed.
const UNSEEN: u64 = u64::MAX;
/// Nothing is known about a slot: whatever is seen fits, if it was pushed before.
const ANY: u64 = u64::MAX - 1;
/// More requests than this under way at a time are not followed.
const UNDER_WAY_MAX: usize = 128;

/// What a request does to a group, or a scrape sees of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A push: its families by slot. It replaces all, or only those.
    Set {
        /// PUT.
        replace: bool,
        /// Which push.
        version: u64,
        /// Which slots it brings, and what is seen there afterwards.
        slots: Vec<(usize, u64)>,
    },
    /// The group is forgotten.
    Delete,
    /// A refusal: the group is there, its content stays, its failure time is new.
    Fail,
    /// It was seen like this; `None`: it was not there.
    See(Option<Sight>),
    /// The process was killed: what no answer had confirmed may be gone.
    Crash,
}

/// A group as a scrape showed it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sight {
    /// By slot; [`ABSENT`] where there is none.
    pub slots: Vec<u64>,
    /// Bits of the push time.
    pub pushed: u64,
    /// Bits of the failure time.
    pub failed: u64,
}

/// One thing that happened, somewhere between `start` and `end`.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Not before.
    pub start: u64,
    /// Not after; [`NEVER`] if nobody knows.
    pub end: u64,
    /// What it does.
    pub effect: Effect,
    /// It may also not have happened.
    pub optional: bool,
    /// An answer confirmed it, so it outlives a crash.
    pub confirmed: bool,
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains it.
    Fine {
        /// Stretches that were too much at once to be decided.
        undecided: usize,
    },
    /// There is none: the action at this index could not have come back like this.
    Wrong {
        /// Index of the action.
        action: usize,
    },
}

/// What is known before the first action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// The group is not there.
    Nothing,
    /// Nothing is known; pushes that begin up to this time may have happened.
    Unknown(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Moment {
    /// Never.
    Zero,
    /// It was seen.
    At(u64),
    /// A request changed it, nobody has seen to what; not before this.
    After(u64),
    Any,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct State {
    /// `None`: nobody knows.
    there: Option<bool>,
    pushed: Moment,
    failed: Moment,
    slots: Box<[u64]>,
}

/// A possible present.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Way {
    state: State,
    /// Which of the actions under way have taken effect, by place.
    done: u128,
    /// States to which a crash could lead back.
    undo: Vec<State>,
}

/// Decides one history. `bound` is the most ways that are followed at a time.
pub fn decide(slots: usize, actions: &[Action], beginning: Beginning, bound: usize) -> Verdict {
    Engine::new(slots, actions, beginning, bound).run()
}

struct Engine<'a> {
    actions: &'a [Action],
    /// Pushes that some sight shows.
    seen: HashSet<u64>,
    /// When pushes began that are among the actions.
    began: std::collections::HashMap<u64, u64>,
    unknown_until: u64,
    bound: usize,
    slots: usize,
    crashes: bool,
    ways: Vec<Way>,
    /// Which action holds a place in `Way::done`.
    places: [Option<usize>; UNDER_WAY_MAX],
    undecided: usize,
    /// Actions that were under way when the thread was lost.
    let_go: HashSet<usize>,
}

impl<'a> Engine<'a> {
    fn new(slots: usize, actions: &'a [Action], beginning: Beginning, bound: usize) -> Self {
        let sights = actions.iter().filter_map(|action| match &action.effect {
            Effect::See(Some(sight)) => Some(&sight.slots),
            _ => None,
        });
        let began = actions.iter().flat_map(|action| match &action.effect {
            Effect::Set { slots, .. } => slots.iter().map(|(_, shown)| (*shown, action.start)).collect(),
            _ => Vec::new(),
        });
        let (state, unknown_until) = match beginning {
            Beginning::Nothing => (State::nothing(slots), 0),
            Beginning::Unknown(time) => (State::unknown(slots), time),
        };
        Self {
            seen: sights.flatten().copied().collect(),
            began: began.collect(),
            actions,
            unknown_until,
            bound,
            slots,
            crashes: actions.iter().any(|action| action.effect == Effect::Crash),
            ways: vec![Way::new(state)],
            places: [None; UNDER_WAY_MAX],
            undecided: 0,
            let_go: HashSet::new(),
        }
    }

    fn run(mut self) -> Verdict {
        // At the same time, what begins comes before what ends: that allows more orders, never fewer.
        let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(self.actions.len() * 2);
        for (at, action) in self.actions.iter().enumerate() {
            events.push((action.start, false, at));
            if action.end != NEVER {
                events.push((action.end, true, at));
            }
        }
        events.sort_unstable();
        for (time, returns, at) in events {
            if self.actions[at].effect == Effect::Crash {
                if returns {
                    self.crash();
                }
                continue;
            }
            let fine = if returns { self.returns(at) } else { self.begins(at) };
            match fine {
                Ok(()) => {}
                Err(Trouble::NoWay) => return Verdict::Wrong { action: at },
                Err(Trouble::TooMuch) => self.lose_thread(time),
            }
        }
        Verdict::Fine { undecided: self.undecided }
    }

    fn begins(&mut self, at: usize) -> Result<(), Trouble> {
        let Some(place) = self.places.iter().position(Option::is_none) else { return Err(Trouble::TooMuch) };
        self.places[place] = Some(at);
        let mut ways = std::mem::take(&mut self.ways);
        for way in &mut ways {
            self.take_fitting_sights(way);
        }
        self.ways = ways;
        Ok(())
    }

    fn returns(&mut self, at: usize) -> Result<(), Trouble> {
        let Some(place) = self.places.iter().position(|held| *held == Some(at)) else { return Ok(()) };
        let bit = 1_u128 << place;
        let may_miss = self.actions[at].optional || self.let_go.contains(&at);
        let mut work = std::mem::take(&mut self.ways);
        let mut known: HashSet<Way> = work.iter().cloned().collect();
        let mut kept: HashSet<Way> = HashSet::new();
        while let Some(way) = work.pop() {
            if way.done & bit != 0 || may_miss {
                let mut kept_way = way.clone();
                kept_way.done &= !bit;
                kept.insert(kept_way);
                if way.done & bit != 0 {
                    continue;
                }
            }
            for next in self.steps(&way) {
                if !known.contains(&next) {
                    known.insert(next.clone());
                    work.push(next);
                }
            }
            if known.len() > self.bound {
                return Err(Trouble::TooMuch);
            }
        }
        self.places[place] = None;
        self.ways = kept.into_iter().collect();
        if self.ways.is_empty() { Err(Trouble::NoWay) } else { Ok(()) }
    }

    /// Where a way can go by one of the actions under way.
    fn steps(&self, way: &Way) -> Vec<Way> {
        let waiting: Vec<usize> = (0..UNDER_WAY_MAX)
            .filter(|place| self.places[*place].is_some() && way.done & (1 << place) == 0)
            .collect();
        let mut next = Vec::new();
        for place in &waiting {
            let at = self.places[*place].expect("it is taken");
            let action = &self.actions[at];
            let sooner = |other: &usize| {
                let other = self.places[*other].expect("it is taken");
                other != at && (self.actions[other].end, other) < (action.end, at) && self.same(other, at)
            };
            if waiting.iter().any(sooner) {
                continue;
            }
            let mut new = way.clone();
            if !self.apply(&action.effect, &mut new.state) {
                continue;
            }
            new.done |= 1 << place;
            if self.crashes && !matches!(action.effect, Effect::See(_)) {
                if action.confirmed {
                    new.undo.clear();
                } else if let Err(place) = new.undo.binary_search(&way.state) {
                    // In order, so that it does not matter how it came about.
                    new.undo.insert(place, way.state.clone());
                }
            }
            self.take_fitting_sights(&mut new);
            next.push(new);
        }
        next
    }

    /// Whether two actions can stand for each other.
    fn same(&self, a: usize, b: usize) -> bool {
        let (left, right) = (&self.actions[a], &self.actions[b]);
        let may_miss = |at: usize, action: &Action| action.optional || self.let_go.contains(&at);
        let effects = match (&left.effect, &right.effect) {
            (Effect::Delete, Effect::Delete) | (Effect::Fail, Effect::Fail) => true,
            (Effect::Set { replace: a, slots: left, .. }, Effect::Set { replace: b, slots: right, .. }) => {
                let unseen =
                    |slots: &[(usize, u64)]| slots.iter().all(|(_, shown)| !self.seen.contains(shown));
                let alike = left.iter().map(|(slot, _)| slot).eq(right.iter().map(|(slot, _)| slot));
                a == b && alike && unseen(left) && unseen(right)
            }
            _ => false,
        };
        effects && left.confirmed == right.confirmed && may_miss(a, left) == may_miss(b, right)
    }

    /// A sight that fits without deciding anything takes effect at once.
    fn take_fitting_sights(&self, way: &mut Way) {
        for (place, at) in self.places.iter().enumerate() {
            let Some(at) = at else { continue };
            if way.done & (1 << place) == 0
                && let Effect::See(sight) = &self.actions[*at].effect
                && way.state.shows(sight.as_ref())
            {
                way.done |= 1 << place;
            }
        }
    }

    /// Lets an action take effect; false if it cannot.
    fn apply(&self, effect: &Effect, state: &mut State) -> bool {
        match effect {
            Effect::Set { replace, slots, .. } => {
                if *replace {
                    state.slots.fill(ABSENT);
                }
                for (slot, shown) in slots {
                    state.slots[*slot] = if self.seen.contains(shown) { *shown } else { UNSEEN };
                }
                state.pushed = state.pushed.later();
                state.there = match state.there {
                    // Whether the group is new, and its failure time with it, is not known.
                    None => {
                        state.failed = Moment::Any;
                        Some(true)
                    }
                    Some(_) => Some(true),
                };
            }
            Effect::Delete => *state = State::nothing(self.slots),
            Effect::Fail => {
                state.failed = state.failed.later();
                state.there = Some(true);
            }
            Effect::See(None) => {
                if state.there == Some(true) {
                    return false;
                }
                *state = State::nothing(self.slots);
            }
            Effect::See(Some(sight)) => return self.see(sight, state),
            Effect::Crash => {}
        }
        true
    }

    fn see(&self, sight: &Sight, state: &mut State) -> bool {
        if state.there == Some(false) {
            return false;
        }
        for (known, shown) in state.slots.iter_mut().zip(&sight.slots) {
            let fits = match *known {
                ANY => {
                    *shown == ABSENT || self.began.get(shown).is_none_or(|start| *start <= self.unknown_until)
                }
                known => known == *shown,
            };
            if !fits {
                return false;
            }
            *known = *shown;
        }
        state.there = Some(true);
        state.pushed.fix(sight.pushed) && state.failed.fix(sight.failed)
    }

    fn crash(&mut self) {
        // Nothing was under way any more; what never came back is over now.
        self.places = [None; UNDER_WAY_MAX];
        let mut after = HashSet::new();
        for way in self.ways.drain(..) {
            for state in way.undo.into_iter().chain([way.state]) {
                after.insert(Way { state, done: 0, undo: Vec::new() });
            }
        }
        self.ways = after.into_iter().collect();
    }

    fn lose_thread(&mut self, time: u64) {
        self.undecided += 1;
        self.unknown_until = time;
        self.let_go.extend(self.places.iter().flatten().copied());
        self.ways = vec![Way::new(State::unknown(self.slots))];
        // Those of which nobody knows when they end would stay for ever.
        for place in &mut self.places {
            if place.is_some_and(|at| self.actions[at].end == NEVER || self.actions[at].end <= time) {
                *place = None;
            }
        }
    }
}

enum Trouble {
    NoWay,
    TooMuch,
}

impl Way {
    /// A state to begin with. If it is not known, it is not known either to what a crash would lead back.
    fn new(state: State) -> Self {
        let undo = if state.there.is_none() { vec![state.clone()] } else { Vec::new() };
        Self { state, done: 0, undo }
    }
}

impl Moment {
    fn later(self) -> Self {
        match self {
            Self::Zero | Self::Any => Self::After(0),
            Self::At(time) | Self::After(time) => Self::After(time),
        }
    }

    /// Takes in what was seen; false if it cannot be.
    fn fix(&mut self, shown: u64) -> bool {
        let fits = match *self {
            Self::Zero => shown == 0,
            Self::At(time) => shown == time,
            Self::After(time) => shown != 0 && shown >= time,
            Self::Any => true,
        };
        if shown == 0 {
            *self = Self::Zero;
        } else {
            *self = Self::At(shown);
        }
        fits
    }

    fn shows(self, shown: u64) -> bool {
        match self {
            Self::Zero => shown == 0,
            Self::At(time) => shown == time,
            Self::After(_) | Self::Any => false,
        }
    }
}

impl State {
    fn nothing(slots: usize) -> Self {
        Self {
            there: Some(false),
            pushed: Moment::Zero,
            failed: Moment::Zero,
            slots: vec![ABSENT; slots].into(),
        }
    }

    fn unknown(slots: usize) -> Self {
        Self { there: None, pushed: Moment::Any, failed: Moment::Any, slots: vec![ANY; slots].into() }
    }

    /// Whether it is exactly this, and certainly so.
    fn shows(&self, sight: Option<&Sight>) -> bool {
        match sight {
            None => self.there == Some(false),
            Some(sight) => {
                self.there == Some(true)
                    && *self.slots == *sight.slots
                    && self.pushed.shows(sight.pushed)
                    && self.failed.shows(sight.failed)
            }
        }
    }
}
