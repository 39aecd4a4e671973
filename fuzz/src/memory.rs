//! A watch on memory. libFuzzer's own -malloc_limit_mb needs a sanitizer, which the stable toolchain lacks; this
//! one counts what the allocator is asked for. And a stack for signal handlers, without which libFuzzer could not
//! keep the input that overflows the stack.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// The most that one input may have allocated at any time; the largest lawful thing is a qcow2 L1 table of 32 MiB.
const LIMIT: usize = 96 << 20;

struct Watched;

static WATCHING: AtomicBool = AtomicBool::new(false);
static HELD: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn take(size: usize) {
    // What was allocated before the watch began may be freed within it: the count goes below zero and wraps.
    let held = HELD.fetch_add(size, Relaxed).wrapping_add(size);
    if WATCHING.load(Relaxed) && held > LIMIT && held < usize::MAX / 2 {
        WATCHING.store(false, Relaxed);
        panic!("one input holds {held} bytes, {size} of them asked for last");
    }
}

fn give(size: usize) {
    HELD.fetch_sub(size, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        give(layout.size());
        take(size);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs something that may not hold more than [`LIMIT`].
pub(crate) fn watch(work: impl FnOnce()) {
    HELD.store(0, Relaxed);
    WATCHING.store(true, Relaxed);
    work();
    WATCHING.store(false, Relaxed);
}

/// Gives signal handlers a stack of their own.
pub(crate) fn prepare_stack() {
    let stack = Box::leak(vec![0u8; 64 << 10].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the memory is never freed.
    let result = unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
    assert_eq!(result, 0, "sigaltstack failed");
}
