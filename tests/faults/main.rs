//! What saving and reading do when the system fails them: each call of the C library fails in turn,
//! alone or with all that follow it; the disk is full after any number of bytes; the process ends
//! at any call, or within one; the power fails; and processes compete for one folder. The last good
//! state, or the new one, or an error comes out, and never other numbers.
//!
//! A process that ends at a call leaves on the disk what it leaves if this call and all later ones
//! have no effect, so that is how it is tested here. `killed` kills processes in earnest.

#![cfg(all(feature = "files", target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code, reason = "stands in for functions of the C library")]

mod calls;
mod disk;
#[path = "../../src/bin/gemmprop/output.rs"]
#[allow(dead_code, reason = "the program uses all of it")]
mod output;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gemmprop::checkpoint::{CheckpointError, Checkpoints, Fault, Notes};
use gemmprop::{Bias, Dataset, Mlp, Model, Optimizer, SoftmaxCrossEntropy, Trainer, TrainingSettings, data};
use ndarray::{Array1, Array2};

use calls::{Change, Faults, with};

type Run = Trainer<f64, SoftmaxCrossEntropy>;

/// Errors of a disk that is ill, full, somebody else's, read-only; of a process or system with too
/// many open files; and of a call that a signal ended, which is to be made again.
const ERRORS: [i32; 6] = [libc::EIO, libc::ENOSPC, libc::EACCES, libc::EROFS, libc::EMFILE, libc::EINTR];

/// A run, at each step from 0, and the bytes of its checkpoint.
struct States(Vec<(Run, Vec<u8>)>);

impl States {
    fn new() -> Self {
        let x = Array2::from_shape_fn((12, 3), |(i, j)| ((i * 7 + j * 5) % 11) as f64 / 5.0 - 1.0);
        let y = Array1::from_shape_fn(12, |i| i % 2);
        let state = |steps: usize| {
            let mlp = Mlp::he(&[3, 4, 2], Bias::EveryLayer, 1).unwrap();
            let training = TrainingSettings { optimizer: Optimizer::adam(), batch: 12, ..TrainingSettings::default() };
            let mut run = Trainer::new(mlp, SoftmaxCrossEntropy, training).unwrap();
            for _ in 0..steps {
                run.step(Dataset::new(x.view(), y.view())).unwrap();
            }
            let folder = tempfile::tempdir().unwrap();
            let path = Checkpoints::create(folder.path()).unwrap().save(&run, &Notes::new()).unwrap();
            let bytes = fs::read(path).unwrap();
            (run, bytes)
        };
        Self((0..6).map(state).collect())
    }

    fn run(&self, step: usize) -> &Run {
        &self.0[step].0
    }

    fn bytes(&self, step: usize) -> &[u8] {
        &self.0[step].1
    }

    /// A folder that has the checkpoints of steps 1 and 2.
    fn folder(&self) -> (tempfile::TempDir, Checkpoints) {
        let folder = tempfile::tempdir().unwrap();
        for step in [1, 2] {
            fs::write(folder.path().join(name(step)), self.bytes(step)).unwrap();
        }
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        (folder, checkpoints)
    }

    fn save(&self, checkpoints: &Checkpoints, step: usize) -> Result<PathBuf, CheckpointError> {
        checkpoints.save(self.run(step), &Notes::new())
    }

    /// The step of the newest checkpoint, all of which must be whole and have the numbers of their
    /// steps. Reads as another process does.
    fn newest(&self, folder: &Path) -> usize {
        for step in steps(folder) {
            assert!(fs::read(folder.join(name(step))).unwrap() == self.bytes(step), "step {step}");
        }
        let saved = Checkpoints::open(folder).unwrap().read().unwrap();
        assert!(saved.damaged.is_empty(), "{:?}", saved.damaged);
        let run = saved.value.trainer::<f64, _>(SoftmaxCrossEntropy).unwrap();
        let step = run.steps() as usize;
        assert!(run.model() == self.run(step).model() && saved.path.ends_with(name(step)));
        step
    }
}

fn name(step: usize) -> String {
    format!("step-{step:012}.safetensors")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn steps(folder: &Path) -> BTreeSet<usize> {
    let number = |name: &String| name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok();
    names(folder).iter().filter_map(number).collect()
}

/// The error of the system within another.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let source = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    source.or_else(|| errno(error.source()?))
}

/// All single faults of some work, and all from which on everything fails.
fn each_fault(mut work: impl FnMut(Faults) -> calls::Record) {
    for error in ERRORS {
        for for_good in [false, true] {
            // No call is made again for ever.
            if for_good && error == libc::EINTR {
                continue;
            }
            for at in 0.. {
                let record = work(Faults { fails: Some((at, error)), for_good, ..Faults::default() });
                if record.failed == 0 {
                    assert!(at > 0 && record.calls.len() == at);
                    break;
                }
            }
        }
    }
}

#[test]
fn each_call_by_which_a_save_reaches_the_system_is_seen() {
    let states = States::new();
    let (folder, checkpoints) = states.folder();
    let (path, record) = with(Faults::default(), || states.save(&checkpoints, 3).unwrap());
    let (lock, writing) = (folder.path().join(".lock"), folder.path().join(".writing"));
    assert!(lock.exists());
    for call in ["open", "write", "read", "fsync", "rename", "unlink", "flock", "opendir", "readdir"] {
        assert!(record.calls.contains(&call), "{call} in {:?}", record.calls);
    }
    let expected = [
        Change::Create(writing.clone()),
        Change::Write(writing.clone(), states.bytes(3).to_vec()),
        Change::Sync(writing.clone()),
        Change::Rename(writing, path),
        Change::Sync(folder.path().to_owned()),
        Change::Remove(folder.path().join(name(1))),
    ];
    assert!(record.changes == expected, "{:?}", record.changes);
}

/// After each fault, the earlier checkpoints have their bytes; the newest is the one before or the
/// one that was to be written; and once the fault is gone, the next try writes it.
#[test]
fn each_call_of_a_save_fails_in_turn() {
    let states = States::new();
    each_fault(|faults| {
        let (folder, checkpoints) = states.folder();
        let (saved, record) = with(faults, || states.save(&checkpoints, 3));
        let about = format!("{faults:?}: {:?}, {saved:?}", record.calls);
        let newest = states.newest(folder.path());
        match &saved {
            Ok(path) => {
                assert!(path.ends_with(name(3)) && newest == 3, "{about}");
                assert!(record.changes.contains(&Change::Sync(folder.path().to_owned())), "{about}");
                let second = Checkpoints::open(folder.path()).unwrap().lock();
                assert!(matches!(second, Err(CheckpointError::InUse { .. })), "{about}: no lock, {second:?}");
            }
            Err(error) => {
                let (_, error_of_faults) = faults.fails.unwrap();
                assert_eq!(errno(error), Some(error_of_faults), "{about}");
                assert!(steps(folder.path()).is_superset(&[1, 2].into()), "{about}");
                assert!(error.to_string().starts_with(&folder.path().display().to_string()), "{about}");
            }
        }
        assert!(steps(folder.path()).contains(&2), "{about}");
        let left = names(folder.path()).contains(".writing");
        assert!(!left || faults.for_good, "{about}: an unfinished file is left");

        // A later process, if everything failed; the same, if one call did.
        let checkpoints = if faults.for_good {
            drop(checkpoints);
            Checkpoints::open(folder.path()).unwrap()
        } else {
            checkpoints
        };
        states.save(&checkpoints, 3).unwrap();
        assert_eq!(states.newest(folder.path()), 3, "{about}");
        assert_eq!(names(folder.path()), [".lock".into(), name(2), name(3)].into(), "{about}");
        record
    });
}

/// A later checkpoint would be taken for the newest, so nothing is saved before it, also if it
/// cannot be read just now.
#[test]
fn no_save_goes_behind_a_later_checkpoint_that_cannot_be_read() {
    let states = States::new();
    each_fault(|faults| {
        let (folder, checkpoints) = states.folder();
        let (saved, record) = with(faults, || states.save(&checkpoints, 1));
        let error = saved.expect_err("there is a later one");
        let of_fault = errno(&error).is_some_and(|error| faults.fails.is_some_and(|(_, of_fault)| error == of_fault));
        assert!(of_fault || matches!(error, CheckpointError::Mismatch { .. }), "{faults:?}: {error:?}");
        assert_eq!(names(folder.path()).iter().filter(|name| name.starts_with("step")).count(), 2);
        assert_eq!(states.newest(folder.path()), 2);
        record
    });
}

#[test]
fn a_disk_that_is_full_after_any_number_of_bytes() {
    let states = States::new();
    let length = states.bytes(3).len();
    for ends_when_full in [false, true] {
        for room in (0..length).step_by(61).chain([length - 1, length]) {
            let (folder, checkpoints) = states.folder();
            let faults = Faults { room: Some(room), ends_when_full, ..Faults::default() };
            let (saved, record) = with(faults, || states.save(&checkpoints, 3));
            assert_eq!(saved.is_err(), record.failed > 0);
            assert!(saved.is_err() || room == length, "{room} of {length} bytes");
            let newest = states.newest(folder.path());
            assert_eq!(newest, if saved.is_ok() { 3 } else { 2 });
            let left = names(folder.path()).contains(".writing");
            // A process that has ended removes nothing; otherwise its space is free again.
            assert_eq!(left, ends_when_full && saved.is_err(), "{room} of {length} bytes");
            if let Err(error) = &saved
                && !ends_when_full
            {
                assert_eq!(errno(error), Some(libc::ENOSPC));
            }
            drop(checkpoints);
            let checkpoints = Checkpoints::open(folder.path()).unwrap();
            states.save(&checkpoints, 4).unwrap();
            assert_eq!(states.newest(folder.path()), 4);
            assert!(!names(folder.path()).contains(".writing"));
        }
    }
}

/// Checks all states that the disk can be in when power fails after `from` of these changes or
/// more: after how many, and the newest checkpoint, if there is one. Returns the number of states.
fn after_power_failures(
    states: &States,
    root: &Path,
    folder: &Path,
    changes: &[Change],
    from: usize,
    mut check: impl FnMut(usize, Option<usize>),
) -> usize {
    let mut disk = disk::Disk::default();
    let mut count = 0;
    for made in 0..=changes.len() {
        if made > 0 {
            disk.apply(&changes[made - 1]);
        }
        let trees = if made < from { BTreeSet::new() } else { disk.after_a_power_failure() };
        for tree in trees {
            let place = tempfile::tempdir().unwrap();
            disk::lay(&tree, root, place.path());
            let folder = place.path().join(folder.strip_prefix(root).unwrap());
            check(made, (folder.is_dir() && !steps(&folder).is_empty()).then(|| states.newest(&folder)));
            count += 1;
        }
    }
    count
}

/// The first checkpoint, two more, one of the same step again, and one by a later process, in a
/// folder that is made with two above it.
#[test]
fn a_power_failure_at_any_moment_leaves_the_last_save_that_has_returned_or_a_newer() {
    let states = States::new();
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("a/b/c");
    let mut changes = Vec::new();
    // The newest checkpoint that was saved, and after how many changes.
    let mut saved = Vec::new();
    for process in [&[0_usize, 1, 3, 3][..], &[4]] {
        let create = || if process[0] == 0 { Checkpoints::create(&folder) } else { Checkpoints::open(&folder) };
        let (checkpoints, record) = with(Faults::default(), create);
        let checkpoints = checkpoints.unwrap();
        changes.extend(record.changes);
        for &step in process {
            let (path, record) = with(Faults::default(), || states.save(&checkpoints, step));
            path.unwrap();
            changes.extend(record.changes);
            saved.push((changes.len(), step));
        }
    }
    let count = after_power_failures(&states, root.path(), &folder, &changes, 0, |made, newest| {
        let least = saved.iter().rev().find(|(after, _)| *after <= made).map(|&(_, step)| step);
        let most = saved.iter().find(|(after, _)| *after > made).map_or(4, |&(_, step)| step);
        assert!(newest >= least && newest <= Some(most), "{newest:?} after {:?}", &changes[..made]);
    });
    assert!(count > 100, "{count} states");
}

/// Whatever failed when a folder was made: once a save has returned, a power failure does not undo
/// it, and no other process has the folder.
#[test]
fn each_call_that_makes_a_folder_fails_in_turn() {
    let states = States::new();
    each_fault(|faults| {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        let (made, mut record) = with(faults, || Checkpoints::create(&folder));
        let about = format!("{faults:?}: {:?}, {made:?}", record.calls);
        let mut changes = std::mem::take(&mut record.changes);
        let checkpoints = match made {
            Ok(checkpoints) => checkpoints,
            Err(error) => {
                assert_eq!(errno(&error), faults.fails.map(|(_, error)| error), "{about}");
                let (made, record) = with(Faults::default(), || Checkpoints::create(&folder));
                changes.extend(record.changes);
                made.unwrap()
            }
        };
        let (saved, second) = with(Faults::default(), || states.save(&checkpoints, 1));
        saved.unwrap();
        changes.extend(second.changes);
        let second = Checkpoints::open(&folder).unwrap().lock();
        assert!(matches!(second, Err(CheckpointError::InUse { .. })), "{about}: no lock, {second:?}");
        // A parent that may not be opened cannot be synced, which is no error.
        let synced = !matches!(faults.fails, Some((_, libc::EACCES | libc::EROFS)));
        after_power_failures(&states, root.path(), &folder, &changes, changes.len(), |_, newest| {
            assert!(!synced || newest == Some(1), "{about}: {newest:?} after {changes:?}");
        });
        record
    });
}

/// A folder in which nothing can be written is read from, and a save there is an error.
#[test]
fn a_read_only_folder_is_read() {
    let states = States::new();
    for error in [libc::EROFS, libc::EACCES] {
        let (folder, _) = states.folder();
        // The first call of a lock opens its file.
        let faults = Faults { fails: Some((0, error)), for_good: true, ..Faults::default() };
        let checkpoints = Checkpoints::open(folder.path()).unwrap();
        let (locked, record) = with(faults, || checkpoints.lock());
        assert!(locked.is_ok() && record.failed > 0, "{locked:?}");
        assert_eq!(states.newest(folder.path()), 2);
        let (saved, _) = with(faults, || states.save(&checkpoints, 3));
        assert_eq!(errno(&saved.unwrap_err()), Some(error));
        assert_eq!(states.newest(folder.path()), 2);
    }
}

/// Whoever may write into a folder but not open its lock does not write beside the one who holds
/// it.
#[test]
fn no_save_goes_without_the_lock_of_another() {
    let states = States::new();
    let (folder, first) = states.folder();
    first.lock().unwrap();
    let before = names(folder.path());
    let second = Checkpoints::open(folder.path()).unwrap();
    let (saved, record) = with(Faults::default(), || states.save(&second, 3));
    assert!(matches!(saved, Err(CheckpointError::InUse { .. })), "{saved:?}");
    assert_eq!(record.calls, ["open", "flock"]);
    // Its file is of another user, who lets nobody read it.
    let (saved, _) = with_two_refusals(|| states.save(&second, 3));
    assert_eq!(errno(&saved.unwrap_err()), Some(libc::EACCES));
    assert_eq!(names(folder.path()), before);
}

/// The lock's file can be opened neither for writing nor for reading; everything else can be done.
fn with_two_refusals<R>(work: impl FnOnce() -> R) -> (R, calls::Record) {
    with(Faults { fails: Some((0, libc::EACCES)), also_next: true, ..Faults::default() }, work)
}

/// A read gives the newest state, or an older one if it names what it could not read, or an error.
/// A model is never of an older one.
#[test]
fn each_call_of_a_read_fails_in_turn() {
    let states = States::new();
    let (folder, checkpoints) = states.folder();
    each_fault(|faults| {
        let (model, record) = with(faults, || Checkpoints::open(folder.path())?.model::<f64>());
        match model {
            Ok(saved) => assert!(saved.value == *states.run(2).model() && saved.damaged.is_empty()),
            Err(error) => assert_eq!(told(&error), faults.fails.map(|(_, error)| error), "{error:?}"),
        }
        record
    });
    each_fault(|faults| {
        let (saved, record) = with(faults, || checkpoints.read());
        match saved {
            Ok(saved) => {
                let run = saved.value.trainer::<f64, _>(SoftmaxCrossEntropy).unwrap();
                let step = run.steps() as usize;
                assert!(run.model() == states.run(step).model() && saved.damaged.len() == 2 - step);
                let told = saved.damaged.iter().map(|damaged| of_fault(&damaged.fault));
                assert!(told.eq(vec![faults.fails.map(|(_, error)| error); 2 - step]), "{:?}", saved.damaged);
            }
            Err(error) => assert_eq!(told(&error), faults.fails.map(|(_, error)| error), "{error:?}"),
        }
        record
    });
    let path = folder.path().join(name(2));
    each_fault(|faults| {
        let (model, record) = with(faults, || Model::<f64>::load(&path));
        match model {
            Ok(model) => assert!(model == *states.run(2).model()),
            Err(error) => assert_eq!(errno(&error), faults.fails.map(|(_, error)| error), "{error:?}"),
        }
        record
    });
}

fn of_fault(fault: &Fault) -> Option<i32> {
    if let Fault::Io(error) = fault { error.raw_os_error() } else { None }
}

/// The system's error, also where it is that of a checkpoint which could not be read.
fn told(error: &CheckpointError) -> Option<i32> {
    match error {
        CheckpointError::NewestDamaged { damaged, .. } | CheckpointError::NoneWhole { damaged, .. } => {
            damaged.iter().find_map(|damaged| of_fault(&damaged.fault))
        }
        error => errno(error),
    }
}

/// Whatever becomes of one byte or of the end of the newest checkpoint, a run resumes from it or
/// from the one before, which is said, and a model is that of the newest or none.
#[test]
fn every_byte_of_a_checkpoint_flipped_and_every_cut_gives_no_other_numbers() {
    let states = States::new();
    let (folder, checkpoints) = states.folder();
    let path = folder.path().join(name(2));
    let whole = states.bytes(2);
    let flipped = (0..whole.len()).map(|i| {
        let mut bytes = whole.to_vec();
        // Another bit from byte to byte; all of them are flipped in the tests of the format.
        bytes[i] ^= 1 << (i % 8);
        bytes
    });
    let mut harmless = 0;
    for bytes in flipped.chain((0..whole.len()).map(|end| whole[..end].to_vec())) {
        fs::write(&path, &bytes).unwrap();
        let saved = checkpoints.read().unwrap();
        let run = saved.value.trainer::<f64, _>(SoftmaxCrossEntropy).unwrap();
        let step = run.steps() as usize;
        assert!(run.model() == states.run(step).model() && saved.damaged.len() == 2 - step);
        let model = checkpoints.model::<f64>();
        assert!(model.map_or(step == 1, |model| step == 2 && model.value == *states.run(2).model()));
        harmless += usize::from(step == 2);
    }
    // The header is filled up with blanks.
    assert!(harmless < 8, "{harmless} changes are harmless");
}

/// A reader of data whose file cannot be read to its end returns an error, and not the part that it
/// has; a call that a signal ended is made again.
#[test]
fn each_call_of_a_reader_of_data_fails_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (3000, 2), }\n";
    let numbers = (0..6000).flat_map(|i| f64::from(i).to_le_bytes());
    let npy: Vec<u8> = b"\x93NUMPY\x01\x00".iter().copied().chain((header.len() as u16).to_le_bytes()).collect();
    fs::write(path("x.npy"), npy.into_iter().chain(header.bytes()).chain(numbers).collect::<Vec<_>>()).unwrap();
    ndarray_npy::NpzWriter::new_compressed(fs::File::create(path("x.npz")).unwrap())
        .add_array("x", &Array2::from_shape_fn((3000, 2), |(i, j)| (i * j) as f64))
        .unwrap();
    let rows: String = (0..3000).map(|i| format!("{i},{}\n", i % 3)).collect();
    fs::write(path("x.csv"), format!("a,y\n{rows}")).unwrap();
    let idx = [&[0, 0, 8, 2, 0, 0, 0x20, 0, 0, 0, 0, 2][..], &[7; 0x4000]].concat();
    fs::create_dir(path("idx")).unwrap();
    fs::write(path("idx/images-idx3-ubyte"), &idx).unwrap();
    fs::write(path("idx/labels-idx1-ubyte"), [&[0, 0, 8, 1, 0, 0, 0x20, 0][..], &[1; 0x2000]].concat()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    io::Write::write_all(&mut gzip, &idx).unwrap();
    fs::write(path("x.gz"), gzip.finish().unwrap()).unwrap();

    type Read<'a> = Box<dyn Fn() -> Result<Vec<f64>, data::ReadError> + 'a>;
    let floats = |x: Array2<f64>| x.into_iter().collect::<Vec<_>>();
    let labels = |y: Array1<usize>| y.into_iter().map(|y| y as f64).collect::<Vec<_>>();
    let readers: [Read; 7] = [
        Box::new(|| Ok(floats(data::npy(path("x.npy"))?))),
        Box::new(|| Ok(floats(data::npz(path("x.npz"), "x")?))),
        Box::new(|| Ok(floats(data::csv_numbers(path("x.csv"), "y")?.x))),
        Box::new(|| Ok(labels(data::csv_classes::<f64>(path("x.csv"), "y")?.y.labels))),
        Box::new(|| Ok(floats(data::idx_images(path("idx/images-idx3-ubyte"))?))),
        Box::new(|| Ok(floats(data::idx_images(path("x.gz"))?))),
        Box::new(|| data::idx_folder(path("idx")).map(|read| floats(read.train.x))),
    ];
    for (i, read) in readers.iter().enumerate() {
        let expected = read().unwrap();
        each_fault(|faults| {
            let (result, record) = with(faults, read);
            let (_, error) = faults.fails.unwrap();
            match result {
                Ok(numbers) => {
                    assert!(numbers == expected && (record.failed == 0 || error == libc::EINTR), "reader {i}");
                }
                Err(data::ReadError::Io { source, .. }) => {
                    // No signal ends the listing of a folder.
                    let lists = record.calls.last().is_some_and(|call| call.ends_with("dir"));
                    assert!(error != libc::EINTR || lists, "reader {i}: {faults:?}, {:?}", record.calls);
                    assert_eq!(source.raw_os_error(), Some(error), "reader {i}");
                }
                Err(other) => panic!("reader {i}: {faults:?}: {other}"),
            }
            record
        });
    }
}

/// The program's history, curve and predictions: the file of before or the new one, on the disk
/// before it has its name, and nothing beside it.
#[test]
fn each_call_that_writes_a_file_of_the_program_fails_in_turn() {
    each_fault(|faults| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.csv");
        fs::write(&path, "before").unwrap();
        let (written, record) = with(faults, || output::replace(&path, b"after"));
        let expected = if written.is_ok() { "after" } else { "before" };
        assert_eq!(fs::read_to_string(&path).unwrap(), expected, "{faults:?}: {written:?}");
        if let Err(error) = &written {
            assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        } else {
            assert!(matches!(&record.changes[..], [Change::Create(_), Change::Write(..), Change::Sync(_)]));
        }
        // A process that has ended removes nothing.
        assert!(faults.for_good || names(folder.path()) == ["history.csv".to_owned()].into(), "{faults:?}");
        record
    });
}

const FOLDER: &str = "GEMMPROP_FAULTS_FOLDER";
const NUMBER: &str = "GEMMPROP_FAULTS_NUMBER";

/// One of the processes that compete. It ends when its standard input does.
#[test]
#[ignore = "the other test runs it in processes of its own"]
fn compete_for_a_folder() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let number: u64 = std::env::var(NUMBER).unwrap().parse().unwrap();
    let new = |seed| {
        let mlp = Mlp::<f64>::he(&[3, 4, 2], Bias::EveryLayer, seed).unwrap();
        Trainer::new(mlp, SoftmaxCrossEntropy, TrainingSettings { batch: 2, ..TrainingSettings::default() }).unwrap()
    };
    let mut run = new(number);
    fs::write(folder.with_extension(format!("ready{number}")), "").unwrap();
    while !folder.with_extension("go").exists() {
        std::hint::spin_loop();
    }
    match Checkpoints::create(&folder) {
        Ok(checkpoints) => {
            let (x, y) = (Array2::from_shape_fn((2, 3), |(i, j)| (i + j) as f64), Array1::from(vec![0, 1]));
            for _ in 0..20 {
                checkpoints.save(&run, &Notes::from([("by".into(), number.to_string())])).unwrap();
                run.step(Dataset::new(x.view(), y.view())).unwrap();
            }
            fs::write(folder.with_extension(format!("won{number}")), "").unwrap();
            // Until the parent has seen who has it.
            io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
        }
        Err(CheckpointError::InUse { .. } | CheckpointError::Used { .. }) => {
            fs::write(folder.with_extension(format!("lost{number}")), "").unwrap();
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn of_processes_that_compete_for_a_folder_one_has_it() {
    const PROCESSES: usize = 3;
    for _ in 0..5 {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run");
        let begin = |number: usize| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "compete_for_a_folder", "--ignored"])
                .envs([(FOLDER, folder.clone().into_os_string()), (NUMBER, number.to_string().into())])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut children: Vec<Child> = (0..PROCESSES).map(begin).collect();
        let said = |what: &str| (0..PROCESSES).filter(|i| folder.with_extension(format!("{what}{i}")).exists()).count();
        let wait = |what: &[&str], children: &mut [Child]| {
            while what.iter().map(|what| said(what)).sum::<usize>() < PROCESSES {
                let failed = children.iter_mut().any(|child| child.try_wait().unwrap().is_some_and(|s| !s.success()));
                assert!(!failed, "a process has failed");
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        };
        wait(&["ready"], &mut children);
        fs::write(folder.with_extension("go"), "").unwrap();
        wait(&["won", "lost"], &mut children);
        assert_eq!((said("won"), said("lost")), (1, PROCESSES - 1));
        let winner = (0..PROCESSES).find(|i| folder.with_extension(format!("won{i}")).exists()).unwrap();
        let checkpoints = Checkpoints::open(&folder).unwrap();
        assert!(matches!(checkpoints.lock(), Err(CheckpointError::InUse { .. })));
        let saved = checkpoints.read().unwrap();
        assert!(saved.damaged.is_empty() && saved.notes["by"] == winner.to_string());
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        checkpoints.lock().unwrap();
    }
}
