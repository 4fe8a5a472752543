//! Files with anything in them: no panic, no memory for what a file only claims, no endless loop,
//! and from a checkpoint its own numbers or none.
//!
//! The inputs are the seeds of `fuzz/`, changed at random: the n-th input of a format is always the
//! same. 1,000 of each format are read, or as many as the environment variable `INPUTS` says.
//! `docs/trust.md` has the results of long runs.

#![cfg(feature = "files")]
#![allow(unsafe_code, reason = "a counting allocator is unsafe to write")]

#[path = "fuzz/formats.rs"]
mod formats;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gemmprop::{Generator, Model};
use rand::{RngExt, SeedableRng};

use formats::{FILE, FORMATS, Format};

struct Counting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(allocated: usize, freed: usize) {
    LARGEST.set(LARGEST.get().max(allocated));
    LIVE.set(LIVE.get() + allocated as isize - freed as isize);
    MOST.set(MOST.get().max(LIVE.get()));
}

// SAFETY: hands everything on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Buffers of readers, inflate's tables, messages, and the small networks of `formats`.
const FIXED: usize = 1 << 17;
/// Bytes of memory for a byte of a file: at most this in one allocation.
const LARGEST_PER_BYTE: usize = 16;
/// And at most this at a time.
const MOST_PER_BYTE: usize = 64;
/// Deflate makes at most 1032 bytes of one, so a compressed file may hold as much more.
const INFLATED: usize = 1032;

/// What the formats have in their texts. Numbers among them are where types and checks end.
fn words(format: &str) -> &'static [&'static [u8]] {
    match format {
        "npy" | "npz" => &[
            b"<f4",
            b">f8",
            b"|u1",
            b"<i8",
            b"<f2",
            b"|b1",
            b"True",
            b"False",
            b"()",
            b"(0,)",
            b"(3, 2)",
            b"[",
            b"(",
            b"18446744073709551615",
            b"4294967296",
            b"'shape': ",
            b"'descr': ",
            b"L, ",
            b"-1",
            b"PK\x03\x04",
            b"PK\x01\x02",
            b"PK\x05\x06",
            b"PK\x06\x06",
            b"PK\x06\x07",
            b"\x93NUMPY\x02\x00",
            b"x.npy",
            b"y.npy",
        ],
        "csv" => &[
            b"\"",
            b"\"\"",
            b",",
            b"\r\n",
            b"\r",
            b"\n\n",
            b"\xef\xbb\xbf",
            b"1e999",
            b"nan",
            b"-inf",
            b"0x10",
            b"1e-400",
            b" ",
            b"\t",
            b"class",
            b"a",
            b";",
            b"\0",
            b"\xff\xfe",
            b"99999999999999999999999999999999999999999",
        ],
        "idx" => {
            &[b"\0\0\x08\x01", b"\0\0\x08\x03", b"\0\0\x0d\x02", b"\x1f\x8b\x08\0", b"\xff\xff\xff\xff", b"\0\0\0\0"]
        }
        _ => &[
            b"\"F32\"",
            b"\"F64\"",
            b"\"I64\"",
            b"\"BOOL\"",
            b"[0,8]",
            b"data_offsets",
            b"__metadata__",
            b"null",
            b"true",
            b"18446744073709551615",
            b"9007199254740993",
            b"1e308",
            b"5e-324",
            b"-0.0",
            b"\"inf\"",
            b"0.weight",
            b"2.bias",
            b"moment1.",
            b"best.",
            b"history.",
            b"standardizer.mean",
            b"\"adam\"",
            b"\"native\"",
            b"\"auto\"",
            b"[[[[[[[[",
            b"{\"a\":",
            b"\\u0000",
            b"\\ud800",
            b"4294967296",
            b"-1",
            b"1e-9",
            b"0",
        ],
    }
}

/// A seed, changed in one to eight places, or in rare cases bytes without any seed.
fn input(format: &str, seeds: &[(PathBuf, Vec<u8>)], generator: &mut Generator) -> Vec<u8> {
    let mut any = |range: std::ops::Range<usize>| generator.random_range(range);
    if any(0..200) == 0 {
        return (0..any(0..300)).map(|_| any(0..256) as u8).collect();
    }
    let mut bytes = seeds[any(0..seeds.len())].1.clone();
    for _ in 0..1 << any(0..4).min(any(0..4)) {
        let length = bytes.len();
        let at = any(0..length + 1);
        // Headers are short, and most of what is decided is decided there.
        let at = if any(0..2) == 0 { at.min(any(0..400)) } else { at };
        let end = (at + any(0..17)).min(length);
        match any(0..14) {
            0 | 1 if at < length => bytes[at] ^= 1 << any(0..8),
            2 if at < length => bytes[at] = any(0..256) as u8,
            3 if at < length => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'-', b'"', b','][any(0..10)],
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..end)),
            6 => {
                let piece = bytes[at..end].to_vec();
                let to = any(0..length + 1);
                drop(bytes.splice(to..to, piece));
            }
            7 => {
                let other = &seeds[any(0..seeds.len())].1;
                let from = any(0..other.len() + 1);
                let piece = other[from..(from + any(0..65)).min(other.len())].to_vec();
                drop(bytes.splice(at..end, piece));
            }
            8 => drop(bytes.splice(at..end, (0..any(0..9)).map(|_| any(0..256) as u8).collect::<Vec<_>>())),
            9 => {
                let number = [0_u64, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 53, u64::MAX >> 1, u64::MAX]
                    [any(0..10)]
                .wrapping_sub(any(0..3) as u64);
                let bytes_of = if any(0..2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let part = 1 << any(0..4);
                let part = if any(0..2) == 0 { &bytes_of[..part] } else { &bytes_of[8 - part..] };
                bytes.iter_mut().skip(at).zip(part).for_each(|(byte, &new)| *byte = new);
            }
            // Another digit in place of one.
            10 => {
                let digits: Vec<usize> = (0..length).filter(|&i| bytes[i].is_ascii_digit()).collect();
                if !digits.is_empty() {
                    bytes[digits[any(0..digits.len())]] = b"0123456789-.e"[any(0..13)];
                }
            }
            11 | 12 => {
                let words = words(format);
                let word = words[any(0..words.len())];
                let end = if any(0..2) == 0 { at } else { (at + word.len()).min(length) };
                drop(bytes.splice(at..end, word.iter().copied()));
            }
            _ => {
                let piece = bytes[at..end].to_vec();
                // Rarely, a file is long.
                let times = if any(0..20) == 0 { 2_000 } else { 40 };
                (0..any(0..times)).for_each(|_| drop(bytes.splice(at..at, piece.iter().copied())));
            }
        }
    }
    bytes
}

fn seeds(format: &str) -> Vec<(PathBuf, Vec<u8>)> {
    // A forged checkpoint is a checkpoint first.
    let name = if format == "forged" { "checkpoint" } else { format };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds").join(name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    if name == "checkpoint" {
        paths.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/checkpoint/format-1.safetensors"));
    }
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The numbers of a checkpoint, if it is one.
fn numbers(path: &Path) -> Option<Vec<u64>> {
    let double =
        Model::<f64>::load(path).ok().map(|model| model.mlp.parameters().iter().map(|p| p.to_bits()).collect());
    double.or_else(|| {
        let single = Model::<f32>::load(path).ok()?;
        Some(single.mlp.parameters().iter().map(|p| u64::from(p.to_bits())).collect())
    })
}

/// Ends the program if an input takes more than a minute of a machine that does nothing else. Ticks
/// are counted, so that a process that is stopped does not count them.
fn watch(name: &'static str, at: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let (mut last, mut ticks) = (u64::MAX, 0);
        while Arc::strong_count(&at) > 1 {
            std::thread::sleep(Duration::from_millis(250));
            let now = at.load(Ordering::Relaxed);
            ticks = if now == last { ticks + 1 } else { 0 };
            last = now;
            if ticks > 240 {
                eprintln!("{name}: input {now} takes more than a minute");
                std::process::abort();
            }
        }
    });
}

fn fuzz(name: &'static str) {
    let &Format { name, read } = FORMATS.iter().find(|format| format.name == name).unwrap();
    let inputs: u64 = std::env::var("INPUTS").map_or(1_000, |inputs| inputs.parse().expect("INPUTS: a number"));
    let seeds = seeds(name);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    let mut known = Vec::new();
    for (seed, bytes) in &seeds {
        fs::write(&path, bytes).unwrap();
        assert!(read(&path, bytes), "{} is not accepted", seed.display());
        fs::write(&path, bytes).unwrap();
        known.extend(numbers(&path));
    }
    let at = Arc::new(AtomicU64::new(0));
    watch(name, at.clone());
    let (mut accepted, mut largest, mut most) = (0_u64, 0_f64, 0_f64);
    for i in 0..inputs {
        at.store(i, Ordering::Relaxed);
        let mut generator = Generator::seed_from_u64(i);
        let bytes = input(name, &seeds, &mut generator);
        fs::write(&path, &bytes).unwrap();
        LARGEST.set(0);
        MOST.set(LIVE.get());
        let live = LIVE.get();
        let read = catch_unwind(AssertUnwindSafe(|| read(&path, &bytes)));
        let (one, all) = (LARGEST.get(), (MOST.get() - live) as usize);
        let compressed = match name {
            "npz" => INFLATED,
            "idx" if bytes.starts_with(b"\x1f\x8b") => INFLATED,
            _ => 1,
        };
        let bounds = [LARGEST_PER_BYTE, MOST_PER_BYTE].map(|times| FIXED + times * bytes.len() * compressed);
        let refused = match &read {
            Err(_) => "panics".to_owned(),
            _ if one > bounds[0] => format!("allocates {one} bytes at once"),
            _ if all > bounds[1] => format!("allocates {all} bytes"),
            Ok(true) if name == "checkpoint" && numbers(&path).is_none_or(|numbers| !known.contains(&numbers)) => {
                "gives other numbers".to_owned()
            }
            Ok(_) => String::new(),
        };
        if !refused.is_empty() {
            let kept = std::env::temp_dir().join(format!("gemmprop-{name}-{i}"));
            fs::write(&kept, &bytes).unwrap();
            panic!("{name}: input {i} of {} bytes, kept as {}: {refused}", bytes.len(), kept.display());
        }
        accepted += u64::from(read.unwrap());
        let per_byte = |found: usize| found.saturating_sub(FIXED) as f64 / (bytes.len().max(1) * compressed) as f64;
        (largest, most) = (largest.max(per_byte(one)), most.max(per_byte(all)));
    }
    assert!(accepted > 0 && accepted < inputs, "{name}: {accepted} of {inputs} are accepted");
    println!("{name}: {inputs} inputs, {accepted} accepted; beyond {FIXED} bytes: {largest:.1} and {most:.1} per byte");
}

macro_rules! fuzz {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        #[test]
        fn every_format_is_read() {
            assert!(FORMATS.iter().map(|format| format.name).eq([$(stringify!($name)),*]));
        }
    };
}
fuzz!(npy npz csv idx checkpoint forged settings);
