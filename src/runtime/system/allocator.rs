//! The C library's allocator. Other C libraries than glibc return memory when it is freed, so there is nothing to do.

/// Lets blocks of at least this many bytes return to the operating system as soon as they are freed, and the free end of each part of
/// the heap once it has as many. Otherwise glibc raises both limits, to 32 and 64 MiB, when large blocks are freed.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the call of the C library has no safe wrapper")]
pub(crate) fn set_return_bytes(bytes: std::ffi::c_int) {
    for limit in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: the function may be called by any thread at any time. It rejects values that it does not support.
        unsafe { libc::mallopt(limit, bytes) };
    }
}

/// Returns all whole pages of freed memory to the operating system. Holds the lock of one part of the heap after the other meanwhile.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the call of the C library has no safe wrapper")]
pub(crate) fn trim() {
    // SAFETY: the function may be called by any thread at any time. It touches only memory that is free.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn set_return_bytes(_bytes: std::ffi::c_int) {}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn trim() {}
