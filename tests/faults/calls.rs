//! The calls of the C library by which files are read and written, replaced by ones that can fail.
//!
//! The linker takes the functions of a program before those of a shared library, so what this
//! program exports under their names is what the standard library calls. They hand everything on,
//! except on a thread that runs inside [`with`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What goes wrong while the work of [`with`] is done. Calls that can fail are counted from 0.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// The first call that fails without an effect, and with which error.
    pub(crate) fails: Option<(usize, c_int)>,
    /// Whether the next call fails too.
    pub(crate) also_next: bool,
    /// Whether all later calls fail in the same way. What is then on the disk is what a process
    /// leaves that ends before this call.
    pub(crate) for_good: bool,
    /// The number of bytes that can be written before the disk is full.
    pub(crate) room: Option<usize>,
    /// With `room`: nothing has an effect any more once it is used up, as if the process had ended
    /// within the call.
    pub(crate) ends_when_full: bool,
}

/// What has changed on the disk. Only calls that succeeded are here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// A file was opened for writing: made, or made empty.
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    /// A file or directory was synced.
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    MakeDirectory(PathBuf),
}

/// What was called.
#[derive(Debug, Default)]
pub(crate) struct Record {
    faults: Faults,
    /// The names of the functions, in order.
    pub(crate) calls: Vec<&'static str>,
    /// How many of them failed because of the faults.
    pub(crate) failed: usize,
    pub(crate) changes: Vec<Change>,
    open: BTreeMap<c_int, PathBuf>,
    /// Whether a write has found no room.
    full: bool,
}

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

/// Does the work with these faults on this thread. Nothing is synced in earnest, since no test cuts
/// the power.
pub(crate) fn with<R>(faults: Faults, work: impl FnOnce() -> R) -> (R, Record) {
    RECORD.set(Some(Record { faults, ..Record::default() }));
    let result = work();
    (result, RECORD.take().expect("nobody else takes it"))
}

fn set_errno(error: c_int) {
    // SAFETY: the pointer is to this thread's errno.
    unsafe { *libc::__errno_location() = error };
}

/// Counts a call. False if it is to fail, with errno set.
fn goes_through(name: &'static str) -> bool {
    RECORD.with_borrow_mut(|record| {
        let Some(record) = record else { return true };
        let at = record.calls.len();
        record.calls.push(name);
        let over = record.faults.ends_when_full && record.full;
        let error = match record.faults.fails {
            Some((from, error))
                if at == from || record.faults.also_next && at == from + 1 || record.faults.for_good && at > from =>
            {
                Some(error)
            }
            _ => over.then_some(libc::EIO),
        };
        if let Some(error) = error {
            record.failed += 1;
            set_errno(error);
        }
        error.is_none()
    })
}

/// Notes something, where calls are recorded.
fn note(what: impl FnOnce(&mut Record)) {
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            what(record);
        }
    });
}

fn path(text: *const c_char) -> PathBuf {
    // SAFETY: the C library is called with text that ends with 0.
    Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes())).to_owned()
}

/// The C library's own function.
macro_rules! real {
    ($name:ident, $type:ty) => {{
        let name = concat!(stringify!($name), "\0");
        // SAFETY: the name ends with 0, and the next definition after this program's is that of the
        // C library, which has this type.
        unsafe {
            let found = libc::dlsym(libc::RTLD_NEXT, name.as_ptr().cast());
            assert!(!found.is_null());
            std::mem::transmute::<*mut c_void, $type>(found)
        }
    }};
}

/// In C, the mode is an optional argument, which callers pass as they pass one that is not.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(name: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    if !goes_through("open") {
        return -1;
    }
    let real = real!(open64, unsafe extern "C" fn(*const c_char, c_int, c_uint) -> c_int);
    // SAFETY: the caller's promises are the C library's.
    let fd = unsafe { real(name, flags, mode) };
    if fd >= 0 {
        note(|record| {
            record.open.insert(fd, path(name));
            if flags & libc::O_TRUNC != 0 || flags & libc::O_EXCL != 0 {
                record.changes.push(Change::Create(path(name)));
            }
        });
    }
    fd
}

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    note(|record| drop(record.open.remove(&fd)));
    let real = real!(close, unsafe extern "C" fn(c_int) -> c_int);
    // SAFETY: as above.
    unsafe { real(fd) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize {
    if !goes_through("write") {
        return -1;
    }
    let mut room = count;
    note(|record| room = record.faults.room.unwrap_or(count).min(count));
    if room == 0 && count > 0 {
        note(|record| {
            record.failed += 1;
            record.full = true;
        });
        set_errno(libc::ENOSPC);
        return -1;
    }
    let real = real!(write, unsafe extern "C" fn(c_int, *const c_void, usize) -> isize);
    // SAFETY: as above, with as many bytes or fewer.
    let written = unsafe { real(fd, bytes, room) };
    if written > 0 {
        note(|record| {
            record.faults.room = record.faults.room.map(|room| room - written as usize);
            // SAFETY: the caller has them.
            let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), written as usize) };
            if let Some(path) = record.open.get(&fd) {
                record.changes.push(Change::Write(path.clone(), bytes.to_vec()));
            }
        });
    }
    written
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, bytes: *mut c_void, count: usize) -> isize {
    if !goes_through("read") {
        return -1;
    }
    let real = real!(read, unsafe extern "C" fn(c_int, *mut c_void, usize) -> isize);
    // SAFETY: as above.
    unsafe { real(fd, bytes, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    if !goes_through("fsync") {
        return -1;
    }
    note(|record| record.changes.extend(record.open.get(&fd).cloned().map(Change::Sync)));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    if !goes_through("rename") {
        return -1;
    }
    let real = real!(rename, unsafe extern "C" fn(*const c_char, *const c_char) -> c_int);
    // SAFETY: as above.
    let result = unsafe { real(from, to) };
    if result == 0 {
        note(|record| {
            let (from, to) = (path(from), path(to));
            record.open.values_mut().filter(|open| **open == from).for_each(|open| open.clone_from(&to));
            record.changes.push(Change::Rename(from, to));
        });
    }
    result
}

/// A function of a path alone, and what it changes.
macro_rules! of_a_path {
    ($name:ident $(($mode:ident: $type:ty))? => $change:expr) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(name: *const c_char $(, $mode: $type)?) -> c_int {
            if !goes_through(stringify!($name)) {
                return -1;
            }
            let real = real!($name, unsafe extern "C" fn(*const c_char $(, $type)?) -> c_int);
            // SAFETY: as above.
            let result = unsafe { real(name $(, $mode)?) };
            if result == 0 {
                note(|record| record.changes.push($change(path(name))));
            }
            result
        }
    };
}
of_a_path!(unlink => Change::Remove);
of_a_path!(mkdir(mode: libc::mode_t) => Change::MakeDirectory);

#[unsafe(no_mangle)]
unsafe extern "C" fn flock(fd: c_int, operation: c_int) -> c_int {
    if !goes_through("flock") {
        return -1;
    }
    let real = real!(flock, unsafe extern "C" fn(c_int, c_int) -> c_int);
    // SAFETY: as above.
    unsafe { real(fd, operation) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn opendir(name: *const c_char) -> *mut libc::DIR {
    if !goes_through("opendir") {
        return std::ptr::null_mut();
    }
    let real = real!(opendir, unsafe extern "C" fn(*const c_char) -> *mut libc::DIR);
    // SAFETY: as above.
    unsafe { real(name) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn readdir64(directory: *mut libc::DIR) -> *mut libc::dirent64 {
    if !goes_through("readdir") {
        return std::ptr::null_mut();
    }
    let real = real!(readdir64, unsafe extern "C" fn(*mut libc::DIR) -> *mut libc::dirent64);
    // SAFETY: as above.
    unsafe { real(directory) }
}
