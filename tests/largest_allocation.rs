//! What a file claims is not allocated: the largest allocation while it is read is bounded by the
//! bytes that are there.

#![cfg(feature = "files")]
#![allow(
    unsafe_code,
    reason = "a watching allocator is unsafe to write; the crate's own unsafe stands in few files of src/"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use gemmprop::{Model, checkpoint::Checkpoints, data};

struct Watching;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands everything on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(size));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// A `.npy` file of version 1 that claims this shape and ends there.
fn npy(dtype: &str, shape: &str) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &[0; 40]].concat()
}

/// The end of a zip directory with these numbers of files on this disk and in total, and the
/// directory at `offset`.
fn zip_end(here: u16, all: u16, offset: u32) -> Vec<u8> {
    let counts = [[0, 0], [0, 0], here.to_le_bytes(), all.to_le_bytes()].concat();
    [&b"PK\x05\x06"[..], &counts, &[0; 4], &offset.to_le_bytes(), &[0; 2]].concat()
}

#[test]
fn no_claim_of_a_file_is_allocated() {
    // Buffers of readers; names and comments of a file in a zip directory, which are at most as
    // long.
    const FIXED: usize = 1 << 17;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("step-000000000001.safetensors");
    let entry = [&b"PK\x01\x02"[..], &[0; 42]].concat();
    let header = br#"{"0.weight":{"dtype":"F64","shape":[1000000,1000000],"data_offsets":[0,8000000000000]}}"#;
    let files = [
        zip_end(u16::MAX, 0, u32::MAX - 1),
        zip_end(60_000, 0, 70_000),
        [&[0; 147][..], &zip_end(u16::MAX, 0, 1 << 30)].concat(),
        [entry.clone(), zip_end(u16::MAX - 1, u16::MAX - 1, 0)].concat(),
        [entry, zip_end(u16::MAX, u16::MAX, 0)].concat(),
        npy("<f8", "(1000000000000,)"),
        npy("|u1", "(1000000, 1000000)"),
        b"\0\0\x08\x03\x7f\xff\xff\xff\0\0\0\x01\0\0\0\x01".to_vec(),
        [&u64::to_le_bytes(90_000_000)[..], b"{}"].concat(),
        [&(header.len() as u64).to_le_bytes()[..], header].concat(),
    ];
    type Read = fn(&Path) -> bool;
    let readers: [Read; 9] = [
        |path| data::npz::<f32>(path, "x").is_err(),
        |path| data::npy::<f64>(path).is_err(),
        |path| data::npy_labels(path).is_err(),
        |path| data::npy_any(path).is_err(),
        |path| data::idx_images::<f32>(path).is_err(),
        |path| data::idx_labels(path).is_err(),
        |path| data::csv_classes::<f64>(path, "y").is_err(),
        |path| Model::<f64>::load(path).is_err(),
        |path| Checkpoints::open(path.parent().unwrap()).unwrap().read().is_err(),
    ];
    for (i, bytes) in files.iter().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        for (j, read) in readers.iter().enumerate() {
            LARGEST.set(0);
            assert!(read(&path), "file {i}, reader {j}");
            let (largest, bound) = (LARGEST.get(), FIXED + 16 * bytes.len());
            assert!(largest <= bound, "file {i} of {} bytes, reader {j}: {largest} bytes", bytes.len());
        }
    }
}
