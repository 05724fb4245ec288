//! Turns: how the tasks of a core share it with each other and with the driver.
//!
//! monoio runs tasks until none is ready. Only then it parks, and only a park looks for expired timers and (with io_uring) for wakes from
//! other threads. A task that wakes itself while it runs goes to the *front* of the queue, so it runs again before all others. One busy
//! upload could therefore keep a core from everything else. So each task takes a turn before it is polled:
//!
//! * A task that was polled several times in a row waits until the others had their turn.
//! * If the driver has not parked for some milliseconds, *every* task waits. The queue runs empty, the driver parks without blocking, and
//!   the tasks continue in their order.
//!
//! A waiting task is woken by the core's gatekeeper, a task that is queued behind those that are ready now. Tasks that have just run are
//! woken last. So one whose polls take longer than those milliseconds does not run again before the others had a turn.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use monoio::time::Instant;
use pin_project_lite::pin_project;

/// How often in a row a task may be polled while other tasks may be ready.
const CONSECUTIVE_POLLS_MAX: u32 = 2;
/// How long a core may run tasks without a park of the driver.
const PARK_INTERVAL: Duration = Duration::from_millis(2);
/// How many polls share one look at the clock. A poll that does much takes about a millisecond.
const POLLS_PER_CHECK: u32 = 4;

thread_local! {
    static CORE: Core = const { Core::new() };
}

/// What the tasks of a core share.
struct Core {
    /// Polls of tasks, wrapping.
    polls: Cell<u32>,
    /// A time before which the driver has parked.
    parked: Cell<Option<Instant>>,
    /// Whether every task waits for a park.
    gate_closed: Cell<bool>,
    waiting: RefCell<Waiting>,
    /// `None` if no runtime runs on this thread.
    gatekeeper: RefCell<Option<Waker>>,
}

/// Tasks that wait for the gatekeeper.
struct Waiting {
    /// They were about to run when the gate was closed.
    stopped: Vec<Waker>,
    /// They have just run, or wait for others.
    resting: Vec<Waker>,
}

pin_project! {
    /// A task whose polls take turns with those of other tasks.
    pub(super) struct TakingTurns<F> {
        #[pin]
        future: F,
        last_poll: u32,
        consecutive_polls: u32,
    }
}

/// Resets the thread's state when its runtime ends.
pub(super) struct Gate(());

impl<F> TakingTurns<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future, last_poll: 0, consecutive_polls: 0 }
    }
}

impl<F: Future> Future for TakingTurns<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        ready!(CORE.with(|core| core.take_turn(this.last_poll, this.consecutive_polls, context)));
        this.future.poll(context)
    }
}

/// How often tasks were polled on this thread, wrapping.
pub(super) fn poll_number() -> u32 {
    CORE.with(|core| core.polls.get())
}

/// Waits until every task that is ready now had its turn.
pub(super) async fn wait_for_others() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        CORE.with(|core| core.rest(context));
        Poll::Pending
    })
    .await;
}

impl Gate {
    /// Starts the gatekeeper of the current runtime.
    #[expect(clippy::disallowed_methods, reason = "the gatekeeper itself takes no turns")]
    pub(super) fn start() -> Gate {
        monoio::spawn(keep_gate());
        Gate(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        CORE.with(|core| {
            core.gate_closed.set(false);
            core.parked.set(None);
            // Dropping a waker may drop its task, which may refer to the core.
            let gatekeeper = core.gatekeeper.take();
            let waiting = core.waiting.replace(Waiting::NONE);
            drop((gatekeeper, waiting));
        });
    }
}

async fn keep_gate() {
    loop {
        poll_fn(|context| CORE.with(|core| core.poll_anyone_waits(context))).await;
        if CORE.with(|core| core.gate_closed.get()) {
            // Nothing else is ready soon, so the driver parks, but does not block because this timer has expired.
            parked_since(now_minus(Duration::from_millis(1))).await;
            CORE.with(|core| {
                core.parked.set(Some(Instant::now()));
                core.gate_closed.set(false);
            });
        }
        CORE.with(Core::wake_waiting);
    }
}

/// Completes when the driver has parked after `time`; at once, if it already has. The driver knows the time of its last park in whole
/// milliseconds, and a timer that expired before that does not wait.
async fn parked_since(time: Instant) {
    monoio::time::sleep_until(time).await;
}

fn now_minus(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(duration).unwrap_or(now)
}

impl Core {
    const fn new() -> Core {
        Core {
            polls: Cell::new(0),
            parked: Cell::new(None),
            gate_closed: Cell::new(false),
            waiting: RefCell::new(Waiting::NONE),
            gatekeeper: RefCell::new(None),
        }
    }

    /// Ready if the task may be polled, otherwise the task waits.
    fn take_turn(&self, last: &mut u32, consecutive: &mut u32, context: &Context<'_>) -> Poll<()> {
        let poll = self.polls.get().wrapping_add(1);
        self.polls.set(poll);
        *consecutive = if last.wrapping_add(1) == poll { *consecutive + 1 } else { 0 };
        *last = poll;
        if !self.gate_closed.get() && poll.is_multiple_of(POLLS_PER_CHECK) && self.is_park_overdue() {
            self.gate_closed.set(true);
        }
        if self.gate_closed.get() || *consecutive >= CONSECUTIVE_POLLS_MAX {
            if std::mem::take(consecutive) > 0 {
                self.rest(context);
            } else {
                self.stop(context);
            }
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    fn is_park_overdue(&self) -> bool {
        let now = Instant::now();
        if self.parked.get().is_some_and(|parked| now.duration_since(parked) < PARK_INTERVAL) {
            return false;
        }
        if self.gatekeeper.borrow().is_none() {
            return false;
        }
        let parked = pin!(parked_since(now_minus(PARK_INTERVAL)));
        if parked.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return true;
        }
        self.parked.set(Some(now));
        false
    }

    /// For a task that has not had its turn.
    fn stop(&self, context: &Context<'_>) {
        self.wait(context, |waiting| &mut waiting.stopped);
    }

    /// For a task that waits until the others had their turn.
    fn rest(&self, context: &Context<'_>) {
        self.wait(context, |waiting| &mut waiting.resting);
    }

    fn wait(&self, context: &Context<'_>, list: impl FnOnce(&mut Waiting) -> &mut Vec<Waker>) {
        match &*self.gatekeeper.borrow() {
            Some(gatekeeper) => {
                let mut waiting = self.waiting.borrow_mut();
                if waiting.is_empty() {
                    gatekeeper.wake_by_ref();
                }
                list(&mut waiting).push(context.waker().clone());
            }
            None => context.waker().wake_by_ref(),
        }
    }

    /// For the gatekeeper: ready when a task waits.
    fn poll_anyone_waits(&self, context: &Context<'_>) -> Poll<()> {
        let mut gatekeeper = self.gatekeeper.borrow_mut();
        if gatekeeper.is_none() {
            *gatekeeper = Some(context.waker().clone());
        }
        if self.waiting.borrow().is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn wake_waiting(&self) {
        let Waiting { mut stopped, mut resting } = self.waiting.replace(Waiting::NONE);
        for waker in stopped.drain(..).chain(resting.drain(..)) {
            waker.wake();
        }
        // Waking only queues the tasks, so nobody waits again yet. The memory is kept.
        self.waiting.replace(Waiting { stopped, resting });
    }
}

impl Waiting {
    const NONE: Waiting = Waiting { stopped: Vec::new(), resting: Vec::new() };

    fn is_empty(&self) -> bool {
        self.stopped.is_empty() && self.resting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::rc::Rc;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::time::{Duration, Instant};

    use futures_channel::oneshot;

    use crate::runtime::tcp::{AcceptStop, Listener};
    use crate::runtime::threads::{CoreIndex, DriverChoice, run_on_cores};
    use crate::runtime::{sleep, spawn, yield_now};

    /// Ends the tests below if everything else starves.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Runs `make` on a core on which a task wakes itself all the time. Returns whether it completed before the task gave up.
    fn completes_beside_a_busy_task<F>(
        choice: DriverChoice,
        make: impl Fn() -> F + Send + Clone + 'static,
    ) -> bool
    where
        F: Future<Output = ()> + 'static,
    {
        let completed = Arc::new(AtomicUsize::new(0));
        let shared = completed.clone();
        run_on_cores(1, choice, move |CoreIndex(_)| {
            let (make, completed) = (make.clone(), shared.clone());
            async move {
                let done = Rc::new(Cell::new(false));
                let busy = spawn({
                    let done = done.clone();
                    let started = Instant::now();
                    poll_fn(move |context| {
                        if done.get() {
                            return Poll::Ready(true);
                        }
                        if started.elapsed() > PATIENCE {
                            return Poll::Ready(false);
                        }
                        context.waker().wake_by_ref();
                        Poll::Pending
                    })
                });
                // The busy task is running before the other begins.
                yield_now().await;
                spawn(async move {
                    make().await;
                    done.set(true);
                });
                completed.fetch_add(usize::from(busy.await), Ordering::Relaxed);
            }
        })
        .expect("epoll works everywhere");
        completed.load(Ordering::Relaxed) == 1
    }

    #[test]
    fn a_wake_from_another_thread_reaches_a_busy_core() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            assert!(completes_beside_a_busy_task(choice, || async {
                for _ in 0..10 {
                    let (tx, rx) = oneshot::channel();
                    let thread = std::thread::spawn(move || tx.send(()));
                    rx.await.expect("the thread sends");
                    thread.join().expect("the thread does not panic").expect("the receiver waits");
                }
            }));
        }
    }

    #[test]
    fn timers_expire_on_a_busy_core() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            assert!(completes_beside_a_busy_task(choice, || async {
                for _ in 0..10 {
                    sleep(Duration::from_millis(1)).await;
                }
            }));
        }
    }

    #[test]
    fn io_completes_on_a_busy_core() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            assert!(completes_beside_a_busy_task(choice, || async {
                let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
                listener.set_nonblocking(monoio::utils::is_legacy()).expect("the listener is bound");
                let address = listener.local_addr().expect("the listener is bound");
                let client = std::thread::spawn(move || {
                    TcpStream::connect(address).and_then(|mut stream| stream.write_all(b"x"))
                });
                let listener =
                    Listener::new(listener, &AcceptStop::default()).expect("the listener is registered");
                listener.accept().await.expect("the client connects");
                client.join().expect("the thread does not panic").expect("the listener accepts");
            }));
        }
    }

    #[test]
    fn a_task_with_long_polls_lets_others_run() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            run_on_cores(1, choice, |CoreIndex(_)| async {
                const LONG_POLLS: usize = 40;
                const OTHERS: usize = 50;
                let done = Rc::new(Cell::new(false));
                let mut left = LONG_POLLS;
                // It waits first, before the others.
                let long = spawn({
                    let done = done.clone();
                    poll_fn(move |context| {
                        let started = Instant::now();
                        while started.elapsed() < 2 * super::PARK_INTERVAL {}
                        left -= 1;
                        if left == 0 {
                            done.set(true);
                            return Poll::Ready(());
                        }
                        context.waker().wake_by_ref();
                        Poll::Pending
                    })
                });
                let others: Vec<_> = (0..OTHERS)
                    .map(|_| {
                        let (done, mut polls) = (done.clone(), 0);
                        spawn(poll_fn(move |context| {
                            if done.get() {
                                return Poll::Ready(polls);
                            }
                            polls += 1;
                            context.waker().wake_by_ref();
                            Poll::Pending
                        }))
                    })
                    .collect();
                long.await;
                for other in others {
                    let polls = other.await;
                    // Everybody has about one turn between two turns of that task.
                    assert!(polls >= LONG_POLLS / 4, "{polls}");
                }
            })
            .expect("epoll works everywhere");
        }
    }

    #[test]
    fn tasks_that_wake_themselves_take_turns() {
        for choice in [DriverChoice::Auto, DriverChoice::Epoll] {
            run_on_cores(1, choice, |CoreIndex(_)| async {
                const TASKS: usize = 3;
                const POLLS: usize = 1_000;
                // Which task was polled, in order.
                let polled = Rc::new(Cell::new(Vec::new()));
                let tasks: Vec<_> = (0..TASKS)
                    .map(|task| {
                        let polled = polled.clone();
                        let mut left = POLLS;
                        spawn(poll_fn(move |context| {
                            let mut list = polled.take();
                            list.push(task);
                            polled.set(list);
                            left -= 1;
                            if left == 0 {
                                return Poll::Ready(());
                            }
                            context.waker().wake_by_ref();
                            Poll::Pending
                        }))
                    })
                    .collect();
                for task in tasks {
                    task.await;
                }
                let polled = polled.take();
                assert_eq!(polled.len(), TASKS * POLLS);
                // While all are busy, each is polled within a few turns of the others.
                let longest = super::CONSECUTIVE_POLLS_MAX as usize * TASKS + TASKS;
                for polls in polled[..POLLS].windows(longest) {
                    assert!((0..TASKS).all(|task| polls.contains(&task)), "{polls:?}");
                }
            })
            .expect("epoll works everywhere");
        }
    }
}
