//! Counts what a thread allocates.

#![expect(unsafe_code, reason = "an allocator that counts is the only way to see what allocations come to")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The most bytes that this thread had at once during `work`, beyond what it had before.
pub(crate) fn peak(work: impl FnOnce()) -> usize {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    PEAK.get().saturating_sub(before)
}

fn taken(size: usize) {
    let live = LIVE.get().wrapping_add(size);
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

fn given_back(size: usize) {
    // What another thread allocated was never counted here.
    LIVE.set(LIVE.get().saturating_sub(size));
}

// SAFETY: every call is passed on to the system's allocator as it came. The counters are plain cells of the thread
// that need no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller keeps the promises that `System` asks for, here and below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: see above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        given_back(layout.size());
        // SAFETY: see above.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        given_back(layout.size());
        taken(size);
        // SAFETY: see above.
        unsafe { System.realloc(place, layout, size) }
    }
}
