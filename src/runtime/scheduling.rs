//! Scheduling of the threads that are not cores.

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// Switches the calling thread, and the threads that it starts, to `SCHED_BATCH`: when they wake, they do not preempt a core. On an idle
/// processor nothing changes. If it is not permitted, the thread keeps its policy.
pub(crate) fn use_batch_scheduling() {
    /// Niceness 0 on the library's scale from 0 to 99.
    const NORMAL: u8 = 48;
    let Ok(normal) = NORMAL.try_into() else { return };
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    // On Linux these calls apply to the calling thread only.
    let niceness = getpriority_process(None);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(normal), policy);
    let _ = niceness.and_then(|niceness| setpriority_process(None, niceness));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_scheduling_keeps_the_niceness() {
        let thread = std::thread::spawn(|| {
            setpriority_process(None, 3).expect("lowering the priority is permitted");
            use_batch_scheduling();
            let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("/proc is readable");
            // See proc(5): niceness is field 19 and the policy field 41; field 2 is the name in parentheses.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            (fields[19 - 3].to_owned(), fields[41 - 3].to_owned())
        });
        assert_eq!(thread.join().expect("the thread does not panic"), ("3".to_owned(), "3".to_owned()));
    }
}
