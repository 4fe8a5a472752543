//! Training on samples in files: writes data that are sorted by class, the worst order there is,
//! as two `.npy` files, and trains on them without reading them into memory. It shows what the
//! length of shuffled blocks does to the loss, and what reading costs beside data in memory.

// Printing is the purpose of this program.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use gemmprop::data::{FileSource, RowsFile, npy, npy_labels};
use gemmprop::{Bias, Dataset, LearningRate, Mlp, SoftmaxCrossEntropy, Trainer, TrainingSettings};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CLASSES: usize = 10;
const BATCH: usize = 128;
/// Epochs that are timed, from files and in memory.
const EPOCHS: usize = 15;

/// Begins a `.npy` file.
fn npy_file(path: &Path, dtype: &str, shape: &str) -> io::Result<BufWriter<File>> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(header.len() as u16).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    Ok(file)
}

/// Writes samples around a centre for each class, class after class.
fn write(folder: &Path, samples: usize, inputs: usize) -> io::Result<()> {
    let mut generator = ChaCha8Rng::seed_from_u64(1);
    let mut number = || generator.random_range(-1.0..1.0_f32);
    let centres: Vec<f32> = (0..CLASSES * inputs).map(|_| 0.2 * number()).collect();
    let mut x = npy_file(&folder.join("x.npy"), "<f4", &format!("({samples}, {inputs})"))?;
    let mut labels = npy_file(&folder.join("labels.npy"), "|u1", &format!("({samples},)"))?;
    for i in 0..samples {
        let class = i * CLASSES / samples;
        for centre in &centres[class * inputs..][..inputs] {
            x.write_all(&(centre + number()).to_le_bytes())?;
        }
        labels.write_all(&[class as u8])?;
    }
    x.flush()?;
    labels.flush()
}

fn trainer(widths: &[usize], training: &TrainingSettings) -> gemmprop::Result<Trainer<f32, SoftmaxCrossEntropy>> {
    Trainer::new(Mlp::he(widths, Bias::EveryLayer, 1)?, SoftmaxCrossEntropy, training.clone())
}

fn open(folder: &Path) -> Result<FileSource, gemmprop::data::ReadError> {
    FileSource::new(RowsFile::open(folder.join("x.npy"))?, RowsFile::open(folder.join("labels.npy"))?)
}

/// The loss over all data after two epochs, for blocks of several lengths.
fn block_lengths(folder: &Path) -> Result<(), Box<dyn Error>> {
    let samples = 64_000;
    write(folder, samples, 20)?;
    let data = open(folder)?;
    let (x, labels) = (npy::<f32>(folder.join("x.npy"))?, npy_labels(folder.join("labels.npy"))?);
    println!("{samples} samples of {CLASSES} classes, sorted by class; 20-32-{CLASSES}, batch {BATCH}, two epochs");
    println!("{:>24}  mean loss over all data, seeds 0 to 4", "shuffled in blocks of");
    let blocks = [Some(1), Some(8), Some(64), Some(512), None];
    let named = blocks.map(|block| (block.map_or("all".to_owned(), |block| block.to_string()), true, block));
    for (name, shuffle, shuffle_block) in named.into_iter().chain([("not at all".to_owned(), false, None)]) {
        print!("{name:>24} ");
        for seed in 0..5 {
            let learning_rate = LearningRate::constant(0.1);
            let training = TrainingSettings {
                epochs: 2,
                batch: BATCH,
                learning_rate,
                shuffle,
                shuffle_block,
                seed,
                ..TrainingSettings::default()
            };
            let mut trainer = trainer(&[20, 32, CLASSES], &training)?;
            trainer.fit_source(&data, None, ())?;
            print!(" {:.4}", trainer.model().evaluate(Dataset::new(&x, &labels), &SoftmaxCrossEntropy)?);
        }
        println!();
    }
    Ok(())
}

/// The time of epochs from files and in memory, in turns, and that their bits are equal.
fn cost_of_reading(folder: &Path) -> Result<(), Box<dyn Error>> {
    let samples = 100 * BATCH;
    let widths = [784, 512, 512, CLASSES];
    write(folder, samples, widths[0])?;
    let data = open(folder)?;
    let (x, labels) = (npy::<f32>(folder.join("x.npy"))?, npy_labels(folder.join("labels.npy"))?);
    let training = TrainingSettings { epochs: 1, batch: BATCH, shuffle_block: Some(64), ..TrainingSettings::default() };
    let (mut in_memory, mut from_files) = (trainer(&widths, &training)?, trainer(&widths, &training)?);
    let mut seconds = [vec![], vec![]];
    for _ in 0..EPOCHS {
        let start = Instant::now();
        in_memory.partial_fit(Dataset::new(&x, &labels), None, ())?;
        seconds[0].push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        from_files.partial_fit_source(&data, None, ())?;
        seconds[1].push(start.elapsed().as_secs_f64());
    }
    let [memory, files] = seconds.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[EPOCHS / 2]
    });
    assert_eq!(in_memory.model().mlp.parameters(), from_files.model().mlp.parameters(), "the same bits");
    println!("\n784-512-512-{CLASSES}, batch {BATCH}: an epoch of {samples} samples, medians of {EPOCHS} in turns,");
    println!("in memory {memory:.3} s, from files {files:.3} s: {:.2} of the speed, the same bits", memory / files);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("gemmprop-from-disk-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let done = block_lengths(&folder).and_then(|()| cost_of_reading(&folder));
    std::fs::remove_dir_all(&folder)?;
    done
}
