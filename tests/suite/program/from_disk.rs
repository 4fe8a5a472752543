//! Data that are read a part at a time: the bits are those of data in memory, and the memory that
//! the program takes does not grow with the file.

use std::fs;

use ndarray::{Array1, Array2, Axis, ShapeBuilder};
use ndarray_npy::write_npy;

use super::{Folder, idx_images};

/// Samples, their classes and numbers for them.
fn arrays(folder: &Folder) {
    let x = Array2::from_shape_fn((500, 3), |(i, j)| 100.0 * j as f32 + ((i * (7 * j + 3)) % 101) as f32 / 8.0);
    let classes: Array1<i64> = (0..500).map(|i| if i % 5 == 0 { 7 } else { [3, 30][i % 2] }).collect();
    write_npy(folder.path("y.npy"), &x.map_axis(Axis(1), |x| f64::from(x[0] - x[2]))).unwrap();
    write_npy(folder.path("two.npy"), &classes.mapv(|class| class == 7)).unwrap();
    write_npy(folder.path("classes.npy"), &classes).unwrap();
    write_npy(folder.path("x.npy"), &x).unwrap();
}

/// The history, but for the seconds, which are last.
fn history(folder: &Folder, name: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.path(name)).unwrap();
    text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect()
}

/// What differs is a single line.
const READ: &str =
    "x.npy: read a part at a time, since the samples would take 23.4 KiB in memory, more than 1000 B (--memory); ";

#[test]
fn a_run_from_disk_has_the_bits_of_one_in_memory() {
    let folder = Folder::new();
    arrays(&folder);
    let settings = [
        "classes.npy --validation 0.2 --class-weight balanced --shuffle-block 4 --optimizer momentum",
        "two.npy --loss logistic --no-shuffle --standardize=no --early-stopping 1",
        "y.npy --shuffle-block 1 --validation 0.5",
        "y.npy --schedule plateau:0.5,1",
    ];
    for (i, settings) in settings.into_iter().enumerate() {
        let train = format!("train --data x.npy --targets {settings} --widths 8 --epochs 3 --batch 16");
        let run = |name: &str, more: &str| {
            let files = format!("--checkpoint {name}{i} --history {name}{i}.csv");
            folder.fine(&format!("{train} {more} {files}")).stderr
        };
        let (in_memory, from_disk) = (run("memory", "--memory 1GB"), run("disk", "--memory 1kB"));
        let order = ["shuffled in blocks of 4, 64", "in the order of the file", "shuffled in blocks of 1, 64", ""][i];
        let said = from_disk.lines().find(|line| line.starts_with(READ)).unwrap_or_else(|| panic!("{from_disk}"));
        assert!(said[READ.len()..].starts_with(order), "{said}");
        assert!(!in_memory.contains("a part at a time"), "{in_memory}");
        assert_eq!(folder.model(&format!("disk{i}")), folder.model(&format!("memory{i}")), "{settings}");
        // With the scales and the checksum of the numbers.
        assert_eq!(folder.task(&format!("disk{i}")), folder.task(&format!("memory{i}")), "{settings}");
        assert_eq!(history(&folder, &format!("disk{i}.csv")), history(&folder, &format!("memory{i}.csv")));
        // But for what it took, the rest of the output is the same.
        let samples = |text: &str| text.lines().find(|line| line.contains("samples to train on")).unwrap().to_owned();
        assert_eq!(samples(&from_disk), samples(&in_memory));
    }
    // A block of 1 MiB is longer than these data.
    let run = folder.fine("train --data x.npy --targets y.npy --epochs 1 --memory 1kB");
    assert!(
        run.stderr.contains("shuffled in blocks of 87381, 64 blocks at a time (--shuffle-block)"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_run_goes_on_from_disk_as_in_memory() {
    let folder = Folder::new();
    arrays(&folder);
    let train = "train --data x.npy --targets classes.npy --validation 0.2 --shuffle-block 4 --widths 8";
    folder.fine(&format!("{train} --epochs 4 --checkpoint whole"));
    for (first, second) in [("1kB", "1GB"), ("1GB", "1kB"), ("1kB", "1kB")] {
        folder.fine(&format!("{train} --epochs 2 --memory {first} --checkpoint run"));
        let resume = "train --data x.npy --targets classes.npy --resume --checkpoint run --epochs 4";
        let run = folder.fine(&format!("{resume} --memory {second}"));
        assert!(!run.stderr.contains("warning"), "{}", run.stderr);
        assert_eq!(run.stderr.contains("shuffled in blocks of 4"), second == "1kB", "{}", run.stderr);
        assert_eq!(folder.model("run"), folder.model("whole"), "{first} {second}");
        fs::remove_dir_all(folder.path("run")).unwrap();
    }
    // In an order of all samples at once.
    let train = "train --data x.npy --targets y.npy --widths 8";
    folder.fine(&format!("{train} --epochs 2 --checkpoint run"));
    let run = folder.fine("train --data x.npy --targets y.npy --resume --checkpoint run --epochs 3 --memory 1kB");
    assert!(run.stderr.contains("; shuffled all at once"), "{}", run.stderr);
    folder.fine(&format!("{train} --epochs 3 --checkpoint three"));
    assert_eq!(folder.model("run"), folder.model("three"));
}

#[test]
fn images_are_trained_on_from_disk() {
    let folder = Folder::new();
    idx_images(&folder, "train", 200);
    idx_images(&folder, "t10k", 40);
    let train = "train --idx . --epochs 2 --widths 8 --shuffle-block 10";
    for (name, memory) in [("memory", "1GB"), ("disk", "2kB")] {
        let run = folder.fine(&format!("{train} --memory {memory} --checkpoint {name} --history {name}.csv"));
        assert_eq!(run.stderr.contains(".: read a part at a time"), name == "disk", "{}", run.stderr);
        assert!(run.stderr.contains("200 samples to train on, 40 to validate with"), "{}", run.stderr);
    }
    assert_eq!(folder.model("disk"), folder.model("memory"));
    assert_eq!(
        (folder.task("disk"), history(&folder, "disk.csv")),
        (folder.task("memory"), history(&folder, "memory.csv"))
    );
    let refused =
        ".: the test images, which validate, would take 640 B in memory, more than 500 B (--memory); --validation";
    folder.refused(&format!("{train} --memory 500B"), 1, refused);
    folder.fine(&format!("{train} --memory 500B --validation 0.2"));
}

#[test]
fn what_cannot_be_read_in_parts_is_read_all_at_once_or_refused() {
    let folder = Folder::new();
    arrays(&folder);
    let mut x: Array2<f32> = gemmprop::data::npy(folder.path("x.npy")).unwrap();
    let mut columns = Array2::zeros(x.dim().f());
    columns.assign(&x);
    write_npy(folder.path("columns.npy"), &columns).unwrap();
    let train = "--targets y.npy --epochs 1 --memory 1kB --checkpoint";
    let run = folder.fine(&format!("train --data columns.npy {train} columns"));
    let warning = "warning: columns.npy: order: expected samples in rows, to read some of them, found columns";
    assert!(run.stderr.contains(warning) && run.stderr.contains("all of it is read into memory"), "{}", run.stderr);
    // As those in rows: a block of 1 MiB has all of them.
    folder.fine(&format!("train --data x.npy {train} rows"));
    assert_eq!(folder.model("columns"), folder.model("rows"));

    // What is wrong with them is said as it is of data in memory, before anything is learned.
    x[(377, 1)] = f32::NAN;
    write_npy(folder.path("bad.npy"), &x).unwrap();
    for more in ["", "--validation 0.9", "--standardize=no"] {
        let line = format!("train --data bad.npy --targets y.npy --memory 1kB {more}");
        folder.refused(&line, 1, "error: bad.npy[377, 1]: expected a finite number, found NaN");
    }
    let bytes = fs::read(folder.path("x.npy")).unwrap();
    folder.write("short.npy", &bytes[..bytes.len() - 8]);
    let short = format!("short.npy: expected {} bytes, found {}", bytes.len(), bytes.len() - 8);
    folder.refused("train --data short.npy --targets y.npy --memory 1kB", 1, &short);
    folder.flowers("flowers.csv", &super::FLOWERS, 30);
    folder.refused("train --csv flowers.csv --target species --memory 1GB", 2, "cannot be used with");
    folder.refused("train --data x.npy --targets y.npy --no-shuffle --shuffle-block 3", 2, "cannot be used with");
    folder.refused("train --data x.npy --targets y.npy --memory much", 2, "--memory <SIZE>");
}

/// Rows enough for three parts.
#[cfg(unix)]
#[test]
fn predictions_of_a_file_are_those_of_a_pipe_and_of_the_network() {
    use std::process::Command;

    const ROWS: usize = 40_000;
    let folder = Folder::new();
    let x = Array2::from_shape_fn((ROWS, 2), |(i, j)| ((i * (j + 2)) % 997) as f32 / 500.0 - 1.0);
    write_npy(folder.path("x.npy"), &x).unwrap();
    write_npy(folder.path("y.npy"), &x.map_axis(Axis(1), |x| x[0] * x[1])).unwrap();
    write_npy(folder.path("classes.npy"), &x.map_axis(Axis(1), |x| i64::from(x[0] > x[1]))).unwrap();
    let train = "train --data x.npy --epochs 1 --batch 512 --widths 8 --standardize=no";
    folder.fine(&format!("{train} --targets y.npy --checkpoint numbers"));
    folder.fine(&format!("{train} --targets classes.npy --checkpoint classes"));
    let predict = |data: &str, more: &str| {
        let mut command = folder.command(&format!("predict --data {data} {more}"));
        let output = command.env("GEMMPROP_PRODUCTS", "native").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(Command::new("mkfifo").arg(folder.path("fifo")).status().unwrap().success());
    for name in ["numbers", "classes"] {
        for format in ["", "--json", "--output z.npy", "--output z.csv"] {
            let more = format!("--checkpoint {name} {format}");
            let written = || fs::read(folder.path(format.split(' ').nth(1).unwrap_or("x.npy"))).unwrap();
            let from_file = (predict("x.npy", &more), written());
            let (from, to) = (folder.path("x.npy"), folder.path("fifo"));
            let pipe = std::thread::spawn(move || fs::write(to, fs::read(from).unwrap()).unwrap());
            assert_eq!((predict("fifo", &more), written()), from_file, "{more}");
            pipe.join().unwrap();
        }
    }
    let model = folder.model("numbers").mlp.with_products(gemmprop::Products::Native).unwrap();
    predict("x.npy", "--checkpoint numbers --output z.npy");
    assert_eq!(predict("x.npy", "--checkpoint numbers").lines().count(), ROWS + 1, "one line of names");
    let found: Array2<f64> = gemmprop::data::npy(folder.path("z.npy")).unwrap();
    assert_eq!(found, model.predict(&x).unwrap().mapv(f64::from));

    // In the third part.
    let mut bad = x;
    bad[(ROWS - 1, 1)] = f32::INFINITY;
    write_npy(folder.path("bad.npy"), &bad).unwrap();
    let refused = format!("error: bad.npy[{}, 1]: expected a finite number, found inf", ROWS - 1);
    folder.refused("predict --data bad.npy --checkpoint numbers --output new.csv", 1, &refused);
    folder.refused("evaluate --data bad.npy --targets y.npy --checkpoint numbers", 1, &refused);
    let left = fs::read_dir(folder.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| name != "new.csv" && !name.to_string_lossy().ends_with(".partial")));
}

/// The files take no room on the disk. In memory they take 1.2 GB, four times the limit. That is
/// one of the address space, of which the program and its libraries take the most, and the arenas
/// that glibc reserves for threads would take more. The native engine computes, since OpenBLAS
/// tries for ever to get memory that the system refuses.
#[cfg(target_os = "linux")]
#[test]
fn files_larger_than_the_memory_are_trained_on_and_predicted() {
    use std::process::Command;

    let folder = Folder::new();
    let (rows, columns) = (150_000, 2_000);
    for (name, shape, numbers) in [("x", (rows, columns), rows * columns), ("y", (rows, 1), rows)] {
        let file = fs::File::create(folder.path(&format!("{name}.npy"))).unwrap();
        ndarray_npy::write_zeroed_npy::<f32, _>(&file, shape).unwrap();
        assert!(file.metadata().unwrap().len() > 4 * numbers as u64);
    }
    let within = |line: &str| {
        let program = folder.command(line);
        let mut command = Command::new("sh");
        command.current_dir(folder.path("")).args(["-c", r#"ulimit -v 300000; exec timeout 300 "$0" "$@""#]);
        command.env("OPENBLAS_NUM_THREADS", "1").env("RAYON_NUM_THREADS", "2");
        command.env("MALLOC_ARENA_MAX", "1").env("GEMMPROP_PRODUCTS", "native");
        let output = command.arg(program.get_program()).args(program.get_args()).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let train = "train --data x.npy --targets y.npy --widths none --standardize=no --epochs 1 --batch 500";
    let (fine, stderr) = within(&format!("{train} --memory 100MB --checkpoint run"));
    assert!(fine && stderr.contains("; shuffled in blocks of 131, 64 blocks"), "{stderr}");
    let (fine, stderr) = within(&format!("{train} --memory 100GB"));
    assert!(!fine, "the limit is none: {stderr}");
    for line in [
        "predict --data x.npy --checkpoint run --output z.npy",
        "evaluate --data x.npy --targets y.npy --checkpoint run",
    ] {
        let (fine, stderr) = within(line);
        assert!(fine, "{line}: {stderr}");
    }
    assert_eq!(fs::metadata(folder.path("z.npy")).unwrap().len(), 128 + 8 * rows as u64);
}
