//! Training on samples in a file takes memory for a few batches, and not for the file.

// Reads what Linux says of the process.
#![cfg(all(feature = "files", target_os = "linux"))]

use std::fs::{self, File};
use std::io::Write;

use gemmprop::data::{FileSource, RowsFile};
use gemmprop::{Bias, LearningRate, Mlp, SquaredError, Trainer, TrainingSettings};

/// A file of zeros with as many bytes as its header says, which takes no room on the disk.
fn sparse_npy(path: &std::path::Path, rows: usize, columns: usize) {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    let mut file = File::create(path).unwrap();
    file.write_all(b"\x93NUMPY\x01\x00").unwrap();
    file.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(10 + header.len() as u64 + 4 * (rows * columns) as u64).unwrap();
}

/// The largest resident memory of this process so far, in MiB.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<usize>().unwrap() / 1024
}

#[test]
fn data_larger_than_the_memory_of_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (rows, columns) = (80_000, 2_000);
    let file = |name: &str, columns| {
        sparse_npy(&folder.path().join(name), rows, columns);
        RowsFile::open(folder.path().join(name)).unwrap()
    };
    let data = FileSource::new(file("x.npy", columns), file("y.npy", 1)).unwrap();
    let learning_rate = LearningRate::constant(0.01);
    let training = TrainingSettings { epochs: 1, batch: 100, learning_rate, ..TrainingSettings::default() };
    for (shuffle_block, standardize) in [(None, false), (Some(50), true)] {
        let training = TrainingSettings { shuffle_block, standardize, ..training.clone() };
        let mlp = Mlp::<f32>::he(&[columns, 1], Bias::None, 1).unwrap();
        let mut trainer = Trainer::new(mlp, SquaredError, training).unwrap();
        let before = peak();
        trainer.fit_source(&data, None, ()).unwrap();
        // The file has 610 MiB. Two chunks of 16 MiB, the order of the epoch and what is read at
        // once take 36; the rest is for the allocator, and for threads.
        let grown = peak() - before;
        assert!(grown < 610 / 8, "{grown} MiB");
    }
}
