//! What the program takes for data: tables, arrays and pipes; what it makes of their columns and
//! targets, and what it refuses, with the row.

use std::fs;
use std::process::{Command, Stdio};

use ndarray::{Array1, Array2, Axis};
use ndarray_npy::write_npy;

use super::{FLOWERS, Folder, table};

/// The offset is such that all sums are whole numbers below 2^53, and so exact: the standardised
/// numbers have the same bits.
#[test]
fn an_offset_of_a_column_changes_nothing() {
    const OFFSET: i64 = 1_700_000_000;
    let folder = Folder::new();
    for (name, x, y) in [("plain", 0, 0), ("x", OFFSET, 0), ("y", 0, OFFSET), ("both", OFFSET, OFFSET)] {
        let row = |i: i64| format!("{},{}", x + i, y + 3 * (i - 20).abs());
        folder.write(&format!("{name}.csv"), table("x,y", (0..64).map(row)));
        folder.fine(&format!("train --csv {name}.csv --target y --loss squared --epochs 30 --checkpoint {name}"));
        assert_eq!(folder.model(name), folder.model("plain"), "{name}");
    }
    let predicted = |run: &str| {
        let run = folder.fine(&format!("predict --checkpoint {run} --csv {run}.csv"));
        run.stdout.lines().skip(1).map(|line| line.parse().unwrap()).collect::<Vec<f64>>()
    };
    let plain = predicted("plain");
    assert_eq!(predicted("x"), plain);
    for (both, plain) in predicted("both").iter().zip(&plain) {
        // The mean is added with one rounding, to numbers below 2^31.
        let rounding = f64::from(1_u32 << 31) * f64::EPSILON;
        assert!((both - OFFSET as f64 - plain).abs() <= rounding, "{both} {plain}");
    }
}

#[test]
fn classes_are_those_that_occur_and_many_whole_numbers_are_none() {
    let folder = Folder::new();
    let x: Array2<f64> = (0..60).map(|i| f64::from(i % 3)).collect::<Array1<_>>().insert_axis(Axis(1));
    write_npy(folder.path("x.npy"), &x).unwrap();
    let targets = |name: &str, y: &dyn Fn(i64) -> i64| {
        let y: Array1<i64> = (0..60).map(y).collect();
        write_npy(folder.path(&format!("{name}.npy")), &y).unwrap();
        folder.write(&format!("{name}.csv"), table("x,y", (0..60).map(|i| format!("{},{}", i % 3, y[i as usize]))));
    };
    targets("far", &|i| [-1, 3, 1_000_000_000_000][i as usize % 3]);
    targets("prices", &|i| 100_000 + 997 * i);
    targets("ids", &|i| i / 2);
    targets("grades", &|i| i % 20);
    // One rule for both formats.
    for (name, loss, network) in [
        ("far", "softmax, as WHAT 3 classes", "1-128-64-3"),
        ("prices", "squared, as WHAT whole numbers of 60 values in 60 rows", "1-128-64-1"),
        ("ids", "squared, as WHAT whole numbers of 30 values in 60 rows", "1-128-64-1"),
        ("grades", "softmax, as WHAT 20 classes", "1-128-64-20"),
    ] {
        for (data, what) in [
            (format!("train --csv {name}.csv --target y"), r#""y" has"#),
            (format!("train --data x.npy --targets {name}.npy"), "the targets are"),
        ] {
            let run = folder.fine(&format!("{data} --epochs 1"));
            let loss = format!("loss: {};", loss.replace("WHAT", what));
            assert!(
                run.stderr.contains(&loss) && run.stderr.contains(&format!("network {network}\n")),
                "{}",
                run.stderr
            );
        }
    }
    // The classes come back as they were.
    folder.fine("train --data x.npy --targets far.npy --rate 0.01 --checkpoint far");
    let run = folder.fine("predict --checkpoint far --data x.npy");
    assert!(
        run.stdout.starts_with("class,probability\n-1,") && run.stdout.contains("\n1000000000000,"),
        "{}",
        run.stdout
    );
    folder.fine("predict --checkpoint far --data x.npy --output y.npy");
    assert_eq!(fs::read(folder.path("y.npy")).unwrap(), fs::read(folder.path("far.npy")).unwrap());
    // A resumed run accepts its own classes and no others.
    let resume = "train --data x.npy --resume --checkpoint far --epochs 201 --targets";
    folder.fine(&format!("{resume} far.npy"));
    folder.refused(&format!("{resume} grades.npy"), 1, r#"grades.npy[0]: expected a known class, found 0"#);
}

#[test]
fn a_column_that_may_be_numbers_or_classes_is_refused_with_the_cure() {
    let folder = Folder::new();
    let refused = |texts: &[&str], text: &str| {
        folder.write("a.csv", table("x,t", texts.iter().enumerate().map(|(i, text)| format!("{i},\"{text}\""))));
        folder.refused("train --csv a.csv --target t", 1, text);
        if !texts.contains(&"") {
            let run = folder.fine("train --csv a.csv --target t --loss softmax --epochs 1");
            assert!(!run.stderr.contains("loss: "), "{}", run.stderr);
        }
    };
    let cure = "or --loss softmax takes all texts of the column as classes";
    refused(
        &["0.5", "1.5", "NA"],
        r#"a.csv:4: column "t": expected a number, as it is a column of numbers, found "NA""#,
    );
    refused(&["0.5", "1.5", "NA"], cure);
    refused(&["1", "2", "1", "2", "nan"], r#"a.csv:6: column "t": expected a number"#);
    refused(&["1", "", "1", "2", "1", "2"], r#"a.csv:3: column "t": expected a number"#);
    refused(&["1", "2", "1", "2", "inf"], r#"found "inf""#);
    refused(&["0,5", "1,5", "2,5"], r#"a.csv:2: column "t": expected a number with a decimal point"#);
    refused(&["7", "1,5", "7", "1,5"], r#"a.csv:3: column "t": expected a number with a decimal point"#);
    refused(&["1.5", "2.5", "many", "many"], r#"a.csv:4: column "t""#);
    let names = r#"a.csv: column "t": expected classes, of 2 rows or more on average, found 3 texts in 3 rows"#;
    refused(&["Ann", "Bob", "Eve"], names);
    refused(&["Ann", "Bob", "Eve"], "--loss softmax takes them all the same");

    // Clearly classes.
    let grades = ["1", "2", "3a", "3b"].repeat(2);
    folder.write("a.csv", table("x,t", grades.iter().enumerate().map(|(i, text)| format!("{i},{text}"))));
    let run = folder.fine("train --csv a.csv --target t --epochs 1");
    assert!(run.stderr.contains(r#"softmax, as "t" has 4 classes"#), "{}", run.stderr);
    folder.write("a.csv", "x,t\n1,a\n2,a\n3,a\n");
    folder.refused("train --csv a.csv --target t", 1, r#"a.csv: column "t": expected 2 classes or more, found 1: "a""#);
}

/// A class that two samples have, for the first seeds: sometimes both validate.
/// From 2^53 on, two whole numbers may be one in double precision.
#[test]
fn labels_that_double_precision_cannot_tell_apart_are_refused() {
    let folder = Folder::new();
    write_npy(folder.path("x.npy"), &Array2::<f64>::from_shape_fn((40, 1), |(i, _)| i as f64)).unwrap();
    let y: Array1<i64> = (0..40).map(|i| [1 << 53, (1 << 53) + 1, 1, 2][i % 4]).collect();
    write_npy(folder.path("y.npy"), &y).unwrap();
    let run = folder.run("train --data x.npy --targets y.npy --loss softmax --epochs 1");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("y.npy"), "{}", run.stderr);
}

#[cfg(unix)]
#[test]
fn each_input_is_opened_once_and_may_be_a_pipe() {
    use std::io::Write as _;

    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let text = fs::read(folder.path("flowers.csv")).unwrap();
    let piped = |line: &str| {
        let mut child = folder.command(line);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&text).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    folder.fine("train --csv flowers.csv --target species --validation 0.2 --epochs 2 --checkpoint file");
    piped("train --csv /dev/stdin --target species --validation 0.2 --epochs 2 --checkpoint pipe");
    assert_eq!(folder.model("pipe"), folder.model("file"));
    piped("train --csv /dev/stdin --resume --epochs 3 --checkpoint pipe");
    let predicted = folder.fine("predict --csv flowers.csv --checkpoint pipe").stdout;
    assert_eq!(piped("predict --csv /dev/stdin --checkpoint pipe"), predicted);

    // Named pipes, for arrays.
    let x = Array2::from_shape_fn((60, 2), |(i, j)| (i * (j + 1) % 7) as f64);
    write_npy(folder.path("x.npy"), &x).unwrap();
    write_npy(folder.path("y.npy"), &(0..60).map(|i| i % 3).collect::<Array1<i64>>()).unwrap();
    let fifos = |line: &str, names: &[&str]| {
        let writers: Vec<_> = names
            .iter()
            .map(|name| {
                let (file, fifo) = (folder.path(&format!("{name}.npy")), folder.path(&format!("{name}.fifo")));
                _ = fs::remove_file(&fifo);
                assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
                std::thread::spawn(move || fs::write(fifo, fs::read(file).unwrap()).unwrap())
            })
            .collect();
        let run = folder.fine(line);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        run
    };
    let run = fifos("train --data x.fifo --targets y.fifo --epochs 2 --checkpoint fifo", &["x", "y"]);
    assert!(run.stderr.contains("as the targets are 3 classes"), "{}", run.stderr);
    fifos("predict --data x.fifo --checkpoint fifo --output z.npy", &["x"]);
}

#[test]
fn what_is_wrong_with_data_is_said_with_the_row_of_the_file() {
    let folder = Folder::new();
    let mut x = Array2::from_shape_fn((40, 3), |(i, j)| (i * (j + 1) % 7) as f64);
    let y = Array1::from_shape_fn(40, |i| i as f64 + 0.5);
    write_npy(folder.path("x.npy"), &x).unwrap();
    write_npy(folder.path("y.npy"), &y).unwrap();
    folder.fine("train --data x.npy --targets y.npy --epochs 1 --checkpoint run");
    write_npy(folder.path("narrow.npy"), &x.slice(ndarray::s![.., ..2]).to_owned()).unwrap();
    let narrow = "narrow.npy: expected 3 columns, as the run has learned from, found 2 columns";
    folder.refused("predict --checkpoint run --data narrow.npy", 1, narrow);
    folder.refused("train --data narrow.npy --targets y.npy --resume --checkpoint run --epochs 2", 1, narrow);
    for found in [f64::NAN, f64::INFINITY] {
        let mut y = y.clone();
        y[23] = found;
        write_npy(folder.path("bad.npy"), &y).unwrap();
        // Whatever the shuffle of the division.
        let train = "train --data x.npy --targets bad.npy --validation 0.3";
        folder.refused(train, 1, &format!("error: bad.npy[23]: expected a finite number, found {found}"));
        x[(17, 1)] = found;
        write_npy(folder.path("bad.npy"), &x).unwrap();
        let text = format!("error: bad.npy[17, 1]: expected a finite number, found {found}");
        folder.refused("train --data bad.npy --targets y.npy --validation 0.3", 1, &text);
        folder.refused("predict --checkpoint run --data bad.npy", 1, &text);
    }
    write_npy(folder.path("half.npy"), &y).unwrap();
    let class = "half.npy[0]: expected a class, found 0.5";
    folder.refused("train --data x.npy --targets half.npy --loss softmax", 1, class);
    folder
        .write("a.csv", table("a,b,y", (0..40).map(|i| format!("{i},{},{i}.5", if i == 31 { "1e300" } else { "1" }))));
    let huge = r#"a.csv:33: column "b": expected a number that the network's f32 can hold, found 1e300"#;
    folder.refused("train --csv a.csv --target y --standardize=no --validation 0.4", 1, huge);
    folder.write("a.csv", table("a,y", (0..40).map(|i| format!("{i},{}", if i == 31 { "1e300" } else { "1.5" }))));
    let huge = r#"a.csv:33: column "y": expected a number that the network's f32 can hold, found "1e300""#;
    folder.refused("train --csv a.csv --target y --standardize=no --validation 0.4", 1, huge);
}

#[cfg(target_os = "linux")]
#[test]
fn paths_need_not_be_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let name = |ending: &str| OsStr::from_bytes(&[b"\xff.", ending.as_bytes()].concat()).to_owned();
    fs::rename(folder.path("flowers.csv"), folder.0.path().join(name("csv"))).unwrap();
    let fine = |line: &str, paths: &[(&str, &str)]| {
        let mut command = folder.command(line);
        paths.iter().for_each(|&(flag, ending)| {
            command.arg(flag).arg(name(ending));
        });
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let files = [("--csv", "csv"), ("--history", "json"), ("--plot", "svg"), ("--checkpoint", "run")];
    fine("train --target species --epochs 1", &files);
    fine("predict", &[("--csv", "csv"), ("--checkpoint", "run"), ("--output", "npy")]);
    for ending in ["json", "svg", "npy"] {
        assert!(folder.0.path().join(name(ending)).exists(), "{ending}");
    }
}

#[test]
fn a_column_is_left_out_if_asked_for_and_an_index_has_to_be() {
    let folder = Folder::new();
    let rows = |columns: &str| table(columns, (0..20).map(|i| format!("{i},no. {i},{},{}.5", i % 5, i % 7)));
    folder.write("named.csv", rows("index,name,x,y"));
    folder.write("first.csv", rows(",name,x,y"));
    folder.write("second.csv", rows("Unnamed: 0,name,x,y"));
    let name = r#"named.csv:2: column "name": expected a number, found "no. 0"; --drop "name" leaves the column out"#;
    folder.refused("train --csv named.csv --target y", 1, name);
    folder.refused("train --csv first.csv --target y --drop name", 1, r#"--drop """#);
    folder.refused("train --csv second.csv --target y --drop name", 1, r#"--drop "Unnamed: 0" leaves it out"#);
    folder.refused("train --csv named.csv --target y --drop color", 1, r#"expected "color""#);
    folder.refused("train --csv named.csv --target y --drop name --resume --checkpoint run", 2, "cannot be used with");
    for (file, index) in [("named.csv", "index"), ("first.csv", ""), ("second.csv", "Unnamed: 0")] {
        let mut command = folder.command("train --target y --drop name --epochs 1 --csv");
        let output = command.arg(file).args(["--checkpoint", file.trim_end_matches(".csv"), "--drop", index]).output();
        let output = output.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains("network 1-128-64-1"), "{stderr}");
    }
    // The run knows which columns it has learned from, and which it has left out.
    let named = folder.fine("predict --checkpoint named --csv named.csv").stdout;
    folder.refused("predict --checkpoint named --csv first.csv", 1, r#"found ""; --drop """#);
    let first = folder.command("predict --checkpoint named --csv first.csv").args(["--drop", ""]).output().unwrap();
    assert_eq!(String::from_utf8(first.stdout).unwrap(), named);
    folder.refused("predict --checkpoint named --csv named.csv --drop x", 1, r#"--drop "x": expected a column that"#);
    folder.write("alone.csv", "y\n1.5\n2.5\n");
    folder.refused("train --csv alone.csv --target y", 1, "alone.csv: columns: expected ");
}

#[test]
fn a_table_is_read_as_people_have_it() {
    let folder = Folder::new();
    let rows: Vec<[String; 3]> =
        (0..30).map(|i| [format!("{}", i % 7), format!("{}.5", i % 5), format!("no; {}, or\t{0}", i % 2)]).collect();
    let file = |name: &str, separator: &str, end: &str, head: &str| {
        let line =
            |fields: &[String]| fields.iter().map(|field| format!("\"{field}\"")).collect::<Vec<_>>().join(separator);
        let names = ["a", "b; of, all", "t"].map(str::to_owned);
        let lines: Vec<String> = [names].iter().chain(&rows).map(|row| line(row)).collect();
        folder.write(name, format!("{head}{}{end}", lines.join(end)));
        folder.fine(&format!("train --csv {name} --target t --epochs 2 --checkpoint {name}.run"));
        folder.model(&format!("{name}.run"))
    };
    let plain = file("plain.csv", ",", "\n", "");
    assert_eq!(file("semicolons.csv", ";", "\r\n", "\u{feff}"), plain);
    assert_eq!(file("tabs.csv", "\t", "\n", ""), plain);
    assert_eq!(file("excel.csv", ";", "\r\n", "\u{feff}sep=;\r\n"), plain);
    folder.write("pipes.csv", "a|t\n1|x\n2|y\n1|x\n2|y\n");
    let pipes = r#"pipes.csv: column: expected "t", found "a|t"; --separator tells what separates the fields"#;
    folder.refused("train --csv pipes.csv --target t --epochs 1", 1, pipes);
    folder.fine("train --csv pipes.csv --separator | --target t --epochs 1 --checkpoint pipes");
    folder.refused("predict --csv pipes.csv --separator tab --checkpoint pipes", 1, r#"expected "a", found "a|t""#);
    folder.refused("train --csv pipes.csv --separator || --target t", 2, "expected one ASCII character, or tab");
}

#[test]
fn texts_and_missing_values_become_what_was_chosen_and_it_is_remembered() {
    let folder = Folder::new();
    // Of 4 numbers, whose mean is 3; texts a, b with the shares 3/4 and 1/4.
    folder.write("raw.csv", "n,kind,t\n1,a,x\n,b,y\n5,a,x\n2,a,y\nNA,,x\n4,,y\n");
    folder.write("hand.csv", "n,kind=a,kind=b,t\n1,1,0,x\n3,0,1,y\n5,1,0,x\n2,1,0,y\n3,0.75,0.25,x\n4,0.75,0.25,y\n");
    let train = "--target t --epochs 3 --standardize=no --checkpoint";
    let run = folder.fine(&format!("train --csv raw.csv --one-hot kind --missing mean {train} raw"));
    assert!(run.stderr.contains("network 3-128-64-2"), "{}", run.stderr);
    folder.fine(&format!("train --csv hand.csv {train} hand"));
    assert_eq!(folder.model("raw"), folder.model("hand"));
    let predicted = |run: &str| folder.fine(&format!("predict --checkpoint {run} --csv {run}.csv")).stdout;
    assert_eq!(predicted("raw"), predicted("hand"));
    let run = folder.fine("train --csv raw.csv --resume --checkpoint raw --epochs 4");
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    // Columns that are 1 or 0 keep that, others are scaled.
    folder.fine("train --csv raw.csv --one-hot kind --missing mean --target t --epochs 1 --checkpoint scaled");
    let scales = folder.task("scaled")["inputs"].clone();
    assert_eq!((&scales[1], &scales[2]), (&serde_json::json!([0.0, 1.0]), &serde_json::json!([0.0, 1.0])));
    assert_eq!(scales[0][0].as_f64(), Some(3.0));

    folder.write("other.csv", "kind,n\na,1\nc,2\n");
    let other = r#"other.csv:3: column "kind": expected one of the 2 texts that are known, found "c""#;
    folder.refused("predict --checkpoint raw --csv other.csv", 1, other);
    let missing = r#"raw.csv:3: column "n": expected a number, found ""; --missing mean"#;
    folder.refused(&format!("train --csv raw.csv --one-hot kind {train} none"), 1, missing);
    let texts =
        r#"raw.csv:2: column "kind": expected a number, found "a"; --drop "kind" leaves the column out, and --one-hot"#;
    folder.refused(&format!("train --csv raw.csv --missing mean {train} none2"), 1, texts);
    folder.write("whole.csv", "n,kind,t\n1,a,x\n2,b,y\n5,a,x\n2,a,y\n");
    folder.fine(&format!("train --csv whole.csv --one-hot kind {train} whole"));
    folder.refused(
        "predict --checkpoint whole --csv raw.csv",
        1,
        r#"raw.csv:3: column "n": expected a number, found """#,
    );
    folder.write("empty.csv", "n,m,t\n1,,x\n2,,y\n1,,x\n2,,y\n");
    let empty = r#"empty.csv: column "m": expected a number in a row that is trained on, found none; --drop "m""#;
    folder.refused(&format!("train --csv empty.csv --missing mean {train} none3"), 1, empty);
    folder.refused(&format!("train --csv raw.csv --one-hot color {train} none4"), 1, r#"expected "color""#);
    folder.refused(&format!("train --csv raw.csv --one-hot t {train} none5"), 1, r#"--one-hot "t": expected an input"#);
}
