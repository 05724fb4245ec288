//! How the system schedules threads beside the cores.

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// From now on the calling thread, and those it starts, have a core's time when that core has nothing to do or has had its share:
/// when they wake they interrupt nobody (`SCHED_BATCH`). Where a processor is idle nothing changes.
pub(crate) fn use_batch_scheduling() {
    /// What the library takes for niceness 0, on its scale of 0 to 99.
    const USUAL: u8 = 48;
    let Ok(usual) = USUAL.try_into() else { return };
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    // On Linux this is about the calling thread alone. Where it is forbidden the thread is merely not polite.
    let niceness = getpriority_process(None);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(usual), policy);
    let _ = niceness.and_then(|niceness| setpriority_process(None, niceness));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_interrupts_nobody_and_is_as_nice_as_before() {
        let thread = std::thread::spawn(|| {
            setpriority_process(None, 3).expect("one may be nicer");
            use_batch_scheduling();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("the thread's figures");
            // See proc(5): niceness is the 19th field, the policy the 41st; the name in parentheses is the second.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            (fields[19 - 3].to_owned(), fields[41 - 3].to_owned())
        });
        assert_eq!(thread.join().expect("it does not panic"), ("3".to_owned(), "3".to_owned()));
    }
}
