//! The allocator: the C library's, with buffers of some KiB aligned to cache lines.
//!
//! A TLS session copies each record from its buffer, behind the record's header of 5 bytes, into a block of its own.
//! The C library aligns to 16 bytes, and blocks of one size that lie side by side are 16 bytes more than a number of
//! pages apart; so the copy often goes to an address 11 bytes further on in its page than where it comes from. On AMD's
//! processors since Zen 3 `rep movsb`, with which glibc before 2.40 copies 2 KiB and more, is thirty times as slow if
//! the destination is 1 to 15 bytes ahead, modulo the page: 4.6 µs for a record, 0.3 s of CPU time per GiB. With both
//! blocks on cache lines that distance is never met.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::RangeInclusive;
use std::ptr;

/// Sizes that are aligned to [`CACHE_LINE`], in bytes: what `rep movsb` is used for, up to where the C library would map
/// pages for each block.
const BUFFERS: RangeInclusive<usize> = 2 * 1024..=128 * 1024;

const CACHE_LINE: usize = 64;

/// See the module.
pub struct LineAligned;

fn raised(layout: Layout) -> Layout {
    match BUFFERS.contains(&layout.size()) {
        true => layout.align_to(CACHE_LINE).unwrap_or(layout),
        false => layout,
    }
}

// SAFETY: every call goes to `System` with a layout that depends on the caller's layout alone, so that a block is given
// back with the layout it was made with; that layout has the caller's size, and at least the caller's alignment.
unsafe impl GlobalAlloc for LineAligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller's.
        unsafe { System.alloc(raised(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller's.
        unsafe { System.alloc_zeroed(raised(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block was made with this layout.
        unsafe { System.dealloc(block, raised(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller vouches that this size and alignment make a layout.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if raised(layout).align() == raised(new).align() {
            // SAFETY: the block was made with this layout, and its successor will be taken for one of the new layout.
            return unsafe { System.realloc(block, raised(layout), size) };
        }
        // SAFETY: the new block is another one, and both have at least the lesser of the two sizes.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_their_bytes_whatever_becomes_of_their_size() {
        let sizes =
            [1, 100, 2_047, 2_048, 5_000, 16_384, 131_072, 131_073, 300_000, 131_072, 4_096, 17, 2_048];
        for align in [1, 16, 64, 256] {
            let mut layout = Layout::from_size_align(sizes[0], align).unwrap();
            // SAFETY: sizes are not zero, and every block is used within its size, and given back once.
            unsafe {
                let mut block = LineAligned.alloc_zeroed(layout);
                let mut written = 0_u8;
                for size in sizes {
                    block = LineAligned.realloc(block, layout, size);
                    assert_eq!(*block, written);
                    assert_eq!(block.addr() % align, 0);
                    assert!(!BUFFERS.contains(&size) || block.addr().is_multiple_of(CACHE_LINE));
                    layout = Layout::from_size_align(size, align).unwrap();
                    written += 1;
                    block.write_bytes(written, size);
                }
                assert_eq!(*block.add(layout.size() - 1), written);
                LineAligned.dealloc(block, layout);
                let block = LineAligned.alloc_zeroed(layout);
                assert!((0..layout.size()).all(|i| *block.add(i) == 0));
                LineAligned.dealloc(block, layout);
            }
        }
    }
}
