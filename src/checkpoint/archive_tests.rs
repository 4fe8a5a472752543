//! Whatever is done to the files, the newest whole one is read back, and damage is reported.

use std::env;
use std::error::Error;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::checkpoint::format::{CHECKSUM, Dtype, Tensor};
use crate::checkpoint::lock::LOCK;

fn tensor(dtype: Dtype, shape: &[usize], bytes: impl IntoIterator<Item = u8>) -> Tensor {
    Tensor { dtype, shape: shape.to_vec(), bytes: bytes.into_iter().collect() }
}

/// Small, and with what is awkward: no elements, an odd number of f32 beside f64, a NaN's payload,
/// −0, names to be escaped.
fn sample(step: u64) -> Contents {
    let f64s = [f64::from_bits(0x7ff0_dead_beef_0001), -0.0, step as f64, f64::INFINITY];
    let f32s = [f32::from_bits(0xffc1_2345), f32::MIN_POSITIVE / 2.0, step as f32];
    let tensors = [
        ("w[0]", tensor(Dtype::F32, &[3, 1], f32s.iter().flat_map(|a| a.to_le_bytes()))),
        ("moment \"é\"\n", tensor(Dtype::F64, &[2, 2], f64s.iter().flat_map(|a| a.to_le_bytes()))),
        ("none", tensor(Dtype::F64, &[3, 0, 2], [])),
        ("scalar", tensor(Dtype::F32, &[], 1_f32.to_le_bytes())),
    ];
    let facts = [("step", step.to_string()), ("", String::new()), ("{\"é\"}", "\\\0\"".into())];
    Contents {
        tensors: tensors.map(|(name, tensor)| (name.into(), tensor)).into(),
        facts: facts.map(|(key, value)| (key.into(), value)).into(),
    }
}

fn stored(steps: &[u64]) -> (TempDir, Archive) {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Archive::create(directory.path()).unwrap();
    for &step in steps {
        assert_eq!(checkpoints.write(step, &sample(step)).unwrap(), checkpoints.directory().join(name(step)));
    }
    (directory, checkpoints)
}

fn files(checkpoints: &Archive) -> Vec<String> {
    let entries = fs::read_dir(checkpoints.directory()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != LOCK);
    names.sort();
    names
}

/// What stands in the newest whole file, and the names of the damaged ones before it.
fn newest(checkpoints: &Archive) -> (u64, Vec<String>) {
    let Newest { contents, path, damaged } = checkpoints.newest().unwrap();
    let step = contents.facts["step"].parse().unwrap();
    assert_eq!((contents, path), (sample(step), checkpoints.directory().join(name(step))));
    let names = damaged.iter().map(|d| d.path.file_name().unwrap().to_str().unwrap().to_owned());
    (step, names.collect())
}

#[test]
fn what_was_written_is_read() {
    let (_guard, checkpoints) = stored(&[7]);
    assert_eq!(newest(&checkpoints), (7, vec![]));
    assert_eq!(read(&checkpoints.directory().join("step-000000000007.safetensors")).unwrap(), sample(7));
    assert_eq!(newest(&Archive::open(checkpoints.directory()).unwrap()), (7, vec![]));
    // Nothing at all is something that can be stored.
    let path = checkpoints.write(u64::MAX, &Contents::default()).unwrap();
    assert_eq!(read(&path).unwrap(), Contents::default());
    assert_eq!(checkpoints.newest().unwrap().path, path);
}

#[test]
fn any_reader_of_safetensors_understands_it() {
    let bytes = encode(&sample(3)).unwrap();
    assert_eq!(bytes, encode(&sample(3)).unwrap());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let wanted = sample(3).tensors;
    assert_eq!(file.len(), wanted.len());
    for (name, tensor) in wanted {
        let view = file.tensor(&name).unwrap();
        assert_eq!((view.dtype(), view.shape(), view.data()), (tensor.dtype, &*tensor.shape, &*tensor.bytes));
        assert_eq!((view.data().as_ptr() as usize - bytes.as_ptr() as usize) % (tensor.dtype.bitsize() / 8), 0);
    }
}

/// The contents, if they pass for whole.
fn decoded(bytes: &[u8]) -> Option<Contents> {
    Some(decode(bytes).ok()?.into_contents())
}

#[test]
fn every_byte_flipped_in_every_way_is_noticed_or_harmless() {
    let whole = encode(&sample(2)).unwrap();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let text = whole[..header].trim_ascii_end().len();
    let mut bytes = whole.clone();
    for i in 0..bytes.len() {
        for flip in 1..=u8::MAX {
            bytes[i] ^= flip;
            if let Some(contents) = decoded(&bytes) {
                assert_eq!(contents, sample(2), "byte {i} flipped by {flip:#x}");
                assert!((text..header).contains(&i), "only white space is harmless: byte {i} flipped by {flip:#x}");
            }
            bytes[i] ^= flip;
        }
    }
    for length in 0..whole.len() {
        assert!(matches!(decode(&whole[..length]), Err(Fault::Length { found, .. }) if found == length as u64));
    }
    bytes.push(0);
    assert!(matches!(decode(&bytes), Err(Fault::Length { .. })));
}

#[test]
fn a_damaged_newest_falls_back_and_is_told() {
    let (_guard, checkpoints) = stored(&[1, 2]);
    let path = checkpoints.directory().join(name(2));
    let whole = fs::read(&path).unwrap();
    let fell_back = (1, vec![name(2)]);
    for i in 0..whole.len() {
        fs::write(&path, &whole[..i]).unwrap();
        assert_eq!(newest(&checkpoints), fell_back, "cut to {i} bytes");
        let mut bytes = whole.clone();
        bytes[i] ^= 1;
        let harmless = decoded(&bytes).is_some();
        fs::write(&path, bytes).unwrap();
        assert_eq!(newest(&checkpoints), if harmless { (2, vec![]) } else { fell_back.clone() }, "byte {i}");
    }

    let mut bytes = whole;
    *bytes.last_mut().unwrap() ^= 0x80;
    fs::write(&path, bytes).unwrap();
    let damaged = checkpoints.newest().unwrap().damaged;
    let [Damaged { fault: Fault::Checksum { expected, found }, .. }] = &damaged[..] else { panic!("{damaged:?}") };
    let text = format!("{}: expected the checksum {expected}, found {found}", path.display());
    assert_eq!(damaged[0].to_string(), text);
    assert!(matches!(read(&path), Err(CheckpointError::Damaged(d)) if d.to_string() == text));
    // A directory in a file's place cannot be read.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(&checkpoints.newest().unwrap().damaged[..], [Damaged { fault: Fault::Io(_), .. }]));
}

proptest! {
    #[test]
    fn no_bytes_panic(header: Vec<u8>, rest: Vec<u8>) {
        prop_assert!(decode(&rest).is_err());
        let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &rest].concat();
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn no_header_panics(n in any::<[usize; 4]>(), small in 0..40_usize, key in "step|__metadata__|checksum|", rest: Vec<u8>) {
        for [a, b, c, d] in [n, n.map(|n| n % 5 * 8), [small, 1, 0, small * 4]] {
            let header = format!(
                r#"{{"{key}":{{"dtype":"F32","shape":[{a},{b}],"data_offsets":[{c},{d}]}},"__metadata__":{{"checksum":"0"}}}}"#
            );
            let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &rest].concat();
            prop_assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn many_changes_at_once_are_noticed(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9)) {
        let mut bytes = encode(&sample(2)).unwrap();
        for (index, byte) in changes {
            let i = index.index(bytes.len());
            bytes[i] = byte;
        }
        prop_assert!(decoded(&bytes).is_none_or(|contents| contents == sample(2)));
    }
}

#[test]
fn lengths_beyond_all_memory_are_refused() {
    // Nine tensors of an eighth of the address space each, less a byte.
    let size = usize::MAX / 8;
    let mut header: Vec<_> = (0..8)
        .map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{},{}]}}"#, i * size, (i + 1) * size))
        .collect();
    header.push(format!(r#""8":{{"dtype":"U8","shape":[7],"data_offsets":[{},{}]}}"#, 8 * size, 8 * size + 7));
    let header = format!("{{{}}}", header.join(","));
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    assert!(matches!(decode(&bytes), Err(Fault::Length { expected: u64::MAX, .. })), "{:?}", decode(&bytes));
    assert!(matches!(decode(&[0xff; 64]), Err(Fault::Format { .. })));
    assert!(matches!(decode(b"\x02\0\0\0\0\0\0\0{}"), Err(Fault::Foreign)));
    let ours = br#"{"__metadata__":{"gemmprop":"0"}}"#;
    let ours = [&(ours.len() as u64).to_le_bytes()[..], ours].concat();
    assert!(matches!(decode(&ours), Err(Fault::Format { found }) if found == "no checksum"));
}

#[test]
fn the_two_newest_are_kept() {
    let (_guard, checkpoints) = stored(&[1]);
    assert_eq!(files(&checkpoints), [name(1)]);
    fs::write(checkpoints.directory().join("step-3.safetensors"), "not ours").unwrap();
    for step in [2, 10, 10, 999_999_999_999, 1_000_000_000_000] {
        checkpoints.write(step, &sample(step)).unwrap();
        assert_eq!(newest(&checkpoints), (step, vec![]));
    }
    assert_eq!(
        files(&checkpoints),
        ["step-1000000000000.safetensors", "step-3.safetensors", "step-999999999999.safetensors"]
    );
}

#[test]
fn damaged_files_do_not_count_as_kept() {
    let (_guard, checkpoints) = stored(&[1, 2]);
    for later in [2, 8, 9] {
        fs::write(checkpoints.directory().join(name(later)), "").unwrap();
    }
    assert_eq!(newest(&checkpoints), (1, [9, 8, 2].map(name).to_vec()));
    checkpoints.write(3, &sample(3)).unwrap();
    assert_eq!(files(&checkpoints), [1, 2, 3, 8, 9].map(name));
    checkpoints.write(4, &sample(4)).unwrap();
    assert_eq!(files(&checkpoints), [3, 4, 8, 9].map(name));
    assert_eq!(newest(&checkpoints), (4, [9, 8].map(name).to_vec()));
    // In time it takes their places.
    checkpoints.write(8, &sample(8)).unwrap();
    checkpoints.write(10, &sample(10)).unwrap();
    assert_eq!(files(&checkpoints), [8, 9, 10].map(name));
}

#[test]
fn a_later_step_is_not_gone_behind() {
    let (_guard, checkpoints) = stored(&[5, 6]);
    let error = checkpoints.write(4, &sample(4)).unwrap_err();
    assert!(matches!(&error, CheckpointError::Mismatch { what, .. } if what.contains(&name(6))), "{error}");
    assert_eq!(files(&checkpoints), [5, 6].map(name));
}

#[test]
fn what_a_killed_writer_left_is_ignored_and_overwritten() {
    let (guard, checkpoints) = stored(&[]);
    drop(checkpoints);
    let writing = guard.path().join(WRITING);
    fs::write(&writing, vec![1; 10_000]).unwrap();
    assert!(
        matches!(Archive::open(guard.path()), Err(CheckpointError::NoneWhole { damaged, .. }) if damaged.is_empty())
    );
    let checkpoints = Archive::create(guard.path()).unwrap();
    assert!(!writing.exists());
    checkpoints.write(1, &sample(1)).unwrap();
    assert!(!writing.exists());
    drop(checkpoints);
    fs::write(&writing, "half").unwrap();
    let checkpoints = Archive::open(guard.path()).unwrap();
    assert_eq!(newest(&checkpoints), (1, vec![]));
    assert!(writing.exists());
    checkpoints.lock().unwrap();
    assert!(!writing.exists());
}

#[test]
fn one_run_at_a_time_writes() {
    let in_use = |error: CheckpointError, directory: &Path| match &error {
        CheckpointError::InUse { directory: found } => {
            let text = "expected no run that writes here, found one; wait for its end or choose another directory";
            assert_eq!(error.to_string(), format!("{}: {text}", found.display()));
            found == directory
        }
        _ => panic!("{error}"),
    };
    // From the beginning, before there is a file.
    let (guard, first) = stored(&[]);
    assert!(in_use(Archive::create(guard.path()).unwrap_err(), guard.path()));
    first.write(1, &sample(1)).unwrap();
    assert!(in_use(Archive::create(guard.path()).unwrap_err(), guard.path()));
    let second = Archive::open(guard.path()).unwrap();
    assert!(in_use(second.lock().unwrap_err(), guard.path()));
    assert!(in_use(second.write(2, &sample(2)).unwrap_err(), guard.path()));
    assert_eq!(files(&first), [name(1)]);
    // Readers need no lock, and who has it may ask again.
    assert_eq!(newest(&second), (1, vec![]));
    first.lock().unwrap();
    // A clone is the same writer, for as long as one of them lives.
    let clone = first.clone();
    drop(first);
    assert!(in_use(second.lock().unwrap_err(), guard.path()));
    clone.write(2, &sample(2)).unwrap();
    drop(clone);
    second.write(3, &sample(3)).unwrap();
    assert!(in_use(Archive::open(guard.path()).unwrap().lock().unwrap_err(), guard.path()));
    drop(second);
    assert!(matches!(Archive::create(guard.path()), Err(CheckpointError::Used { .. })));
    Archive::open(guard.path()).unwrap().lock().unwrap();
}

#[test]
fn a_file_that_cannot_be_removed_makes_no_save_fail() {
    let (guard, checkpoints) = stored(&[1, 2]);
    let stubborn = guard.path().join(name(1));
    fs::remove_file(&stubborn).unwrap();
    fs::create_dir(&stubborn).unwrap();
    checkpoints.write(3, &sample(3)).unwrap();
    checkpoints.write(4, &sample(4)).unwrap();
    assert_eq!(files(&checkpoints), [1, 3, 4].map(name));
    assert_eq!(newest(&checkpoints), (4, vec![]));
    // Once it can be removed, it is.
    fs::remove_dir(&stubborn).unwrap();
    fs::write(&stubborn, "").unwrap();
    checkpoints.write(5, &sample(5)).unwrap();
    assert_eq!(files(&checkpoints), [4, 5].map(name));
}

/// What is listed may be gone when it is opened, and is not damaged then.
#[test]
fn who_reads_beside_a_writer_always_finds_a_whole_file() {
    let (guard, checkpoints) = stored(&[1]);
    let reader = Archive::open(guard.path()).unwrap();
    std::thread::scope(|scope| {
        let writer =
            scope.spawn(move || (2..400).for_each(|step| drop(checkpoints.write(step, &sample(step)).unwrap())));
        while !writer.is_finished() {
            assert_eq!(newest(&reader).1, [""; 0]);
        }
    });
}

#[test]
fn a_sound_file_of_another_program_is_told_from_a_damaged_one() {
    let (guard, checkpoints) = stored(&[1]);
    let numbers = [1.0_f32, 2.0].map(f32::to_le_bytes).concat();
    let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![2], &numbers).unwrap();
    for facts in [None, Some([("format".to_owned(), "pt".to_owned())].into())] {
        let theirs = safetensors::serialize([("weight", view.clone())], facts).unwrap();
        let path = guard.path().join(name(2));
        fs::write(&path, theirs).unwrap();
        let error = read(&path).unwrap_err();
        assert!(matches!(&error, CheckpointError::Foreign { path: found } if *found == path), "{error:?}");
        let text = "expected a checkpoint of this crate, found a safetensors file that another program wrote";
        assert_eq!(error.to_string(), format!("{}: {text}", path.display()));
        assert!(matches!(&checkpoints.newest().unwrap().damaged[..], [Damaged { fault: Fault::Foreign, .. }]));
    }
}

#[test]
fn directories_are_used_once() {
    let (guard, _) = stored(&[4]);
    let error = Archive::create(guard.path()).unwrap_err();
    assert!(matches!(&error, CheckpointError::Used { found, .. } if found.ends_with(name(4))));
    assert!(error.to_string().ends_with("; resume from them or choose another directory"), "{error}");

    let new = guard.path().join("a/b");
    let absent = Archive::open(&new).unwrap_err();
    assert!(
        matches!(absent, CheckpointError::Io { path, source } if path == new && source.kind() == io::ErrorKind::NotFound)
    );
    let checkpoints = Archive::create(&new).unwrap();
    let text = format!("{}: expected a whole checkpoint, found none", new.display());
    assert_eq!(Archive::open(&new).unwrap_err().to_string(), text);
    assert_eq!(checkpoints.newest().unwrap_err().to_string(), text);
    let file = guard.path().join(name(4));
    assert!(matches!(Archive::create(&file), Err(CheckpointError::Io { path, .. }) if path == file));
    assert!(matches!(Archive::create(Path::new("")), Err(CheckpointError::Io { .. })));
}

#[test]
fn with_none_whole_all_are_told() {
    let (guard, checkpoints) = stored(&[1, 2]);
    fs::write(guard.path().join(name(1)), "").unwrap();
    fs::write(guard.path().join(name(2)), [b' '; 20]).unwrap();
    let error = checkpoints.newest().unwrap_err();
    let CheckpointError::NoneWhole { damaged, .. } = &error else { panic!("{error}") };
    let told = damaged.iter().map(|damaged| damaged.path.clone());
    assert!(told.eq([2, 1].map(|step| guard.path().join(name(step)))), "{error}");
    assert!(damaged.iter().all(|damaged| error.to_string().contains(&damaged.to_string())));
}

#[test]
fn a_failed_write_leaves_the_others() {
    let (guard, checkpoints) = stored(&[1, 2]);
    let writing = guard.path().join(".writing");
    let fails = |wanted: &Path, kind: Option<io::ErrorKind>| {
        let error = checkpoints.write(3, &sample(3)).unwrap_err();
        assert!(error.to_string().starts_with(&wanted.display().to_string()) && error.source().is_some(), "{error}");
        let CheckpointError::Io { path, source } = error else { panic!("{error}") };
        assert!(path == wanted && kind.is_none_or(|kind| source.kind() == kind), "{source}");
    };
    fs::create_dir(&writing).unwrap();
    fails(&writing, None);
    fs::remove_dir(&writing).unwrap();
    assert_eq!(newest(&checkpoints), (2, vec![]));

    // A disk that is full.
    if cfg!(target_os = "linux") && Path::new("/dev/full").exists() {
        #[cfg(unix)]
        std::os::unix::fs::symlink("/dev/full", &writing).unwrap();
        fails(&writing, Some(io::ErrorKind::StorageFull));
        assert_eq!(files(&checkpoints), [1, 2].map(name));
    }

    let place = guard.path().join(name(3));
    fs::create_dir(&place).unwrap();
    fails(&place, None);
    fs::remove_dir(&place).unwrap();
    assert_eq!(files(&checkpoints), [1, 2].map(name));

    fs::remove_dir_all(guard.path()).unwrap();
    fails(guard.path(), Some(io::ErrorKind::NotFound));
    assert!(!guard.path().exists());
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let (_guard, checkpoints) = stored(&[1, 2]);
    let mut wrong: [Contents; 4] = std::array::from_fn(|_| sample(3));
    wrong[0].tensors.get_mut("w[0]").unwrap().shape = vec![2, 2];
    wrong[1].tensors.get_mut("w[0]").unwrap().shape = vec![usize::MAX, 2];
    wrong[2].tensors.insert("__metadata__".into(), tensor(Dtype::F32, &[0], []));
    wrong[3].facts.insert(CHECKSUM.into(), "0".into());
    for contents in wrong {
        assert!(matches!(checkpoints.write(3, &contents), Err(CheckpointError::Damaged(_))));
        assert_eq!(files(&checkpoints), [1, 2].map(name));
    }
}

const KILLED: &str = "GEMMPROP_TEST_KILLED_WRITER";

/// Large enough that most kills hit the writing.
fn large(step: u64) -> Contents {
    let mut contents = sample(step);
    contents.tensors.insert("large".into(), tensor(Dtype::F64, &[1 << 18], (0..1 << 21).map(|i| (i ^ step) as u8)));
    contents
}

#[test]
fn a_writer_is_killed() {
    // The child, which starts with a directory in its environment: it writes until it is killed.
    if let Some(directory) = env::var_os(KILLED) {
        let checkpoints = Archive::open(Path::new(&directory)).unwrap();
        let from: u64 = checkpoints.newest().unwrap().contents.facts["step"].parse().unwrap();
        // Not for ever, should the parent be killed itself.
        for step in from + 1..from + 1000 {
            checkpoints.write(step, &large(step)).unwrap();
        }
        return;
    }
    let (_, module) = module_path!().split_once("::").unwrap();
    let this = format!("{module}::a_writer_is_killed");
    let (guard, first) = stored(&[]);
    let mut last = 1;
    first.write(last, &large(last)).unwrap();
    drop(first);
    let checkpoints = Archive::open(guard.path()).unwrap();
    for round in 0..8_u32 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &this, "--nocapture"])
            .env(KILLED, guard.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Once it writes, at another moment each time.
        while !checkpoints.numbered().unwrap().keys().any(|&step| step > last) {
            assert!(child.try_wait().unwrap().is_none(), "the child writes until it is killed");
        }
        assert!(matches!(checkpoints.lock(), Err(CheckpointError::InUse { .. })), "the lock is the child's");
        std::thread::sleep(std::time::Duration::from_micros(1700) * round);
        child.kill().unwrap();
        child.wait().unwrap();
        let Newest { contents, path, damaged } = checkpoints.newest().unwrap();
        let step: u64 = contents.facts["step"].parse().unwrap();
        assert!(step > last && path.ends_with(name(step)) && damaged.is_empty());
        assert!(contents == large(step));
        last = step;
    }
}
