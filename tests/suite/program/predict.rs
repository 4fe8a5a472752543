//! The command `predict`.

use std::fs;
use std::process::Stdio;

use super::{FLOWERS, Folder, newest, number_after, older};

#[test]
fn rows_without_a_known_answer_are_predicted_and_not_scored() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("train --csv flowers.csv --target species --checkpoint run");
    let all = folder.fine("predict --checkpoint run --csv flowers.csv");
    let text = fs::read_to_string(folder.path("flowers.csv")).unwrap();
    // Every lily without its name, every second aster as something else.
    let some = text.replace("lily", "").replacen("aster", "oak", 15);
    fs::write(folder.path("some.csv"), some).unwrap();
    let run = folder.fine("predict --checkpoint run --csv some.csv");
    assert_eq!(run.stdout, all.stdout);
    assert!(run.stderr.starts_with("accuracy ") && run.stderr.contains("of 45 samples; of 90"), "{}", run.stderr);
    assert!(number_after(&run.stderr, "accuracy ") > 0.9, "{}", run.stderr);
    let none = text.replace("lily", "").replace("aster", "").replace("rose", "fir");
    fs::write(folder.path("none.csv"), none).unwrap();
    let run = folder.fine("predict --checkpoint run --csv none.csv");
    assert_eq!(run.stdout, all.stdout);
    assert!(run.stderr.starts_with("0 of 90 samples scored"), "{}", run.stderr);

    fs::write(folder.path("numbers.csv"), "x,y\n1,1.5\n2,2.5\n3,3.5\n").unwrap();
    folder.fine("train --csv numbers.csv --target y --epochs 1 --loss squared --checkpoint numbers");
    fs::write(folder.path("gap.csv"), "x,y\n1,1.5\n2,\n3,3.5\n").unwrap();
    let run = folder.fine("predict --checkpoint numbers --csv gap.csv");
    assert!(run.stderr.starts_with("RMSE ") && run.stderr.contains("of 2 samples; of 3"), "{}", run.stderr);
    let refused = r#"gap.csv:3: column "y": expected a number, found """#;
    folder.refused("train --csv gap.csv --resume --checkpoint numbers --epochs 2", 1, refused);
}

#[test]
fn whoever_reads_only_the_first_lines_is_no_error() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 30_000);
    folder.fine("train --csv flowers.csv --target species --epochs 1 --widths 4 --checkpoint run");
    let mut child = folder.command("predict --checkpoint run --csv flowers.csv");
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.starts_with("accuracy ") && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn prediction_takes_no_older_checkpoint_unless_it_is_named() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("train --csv flowers.csv --target species --epochs 3 --checkpoint run");
    let file = newest(&folder.path("run"));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let first = folder.path("run").join(format!("step-{:012}.safetensors", 1));
    let run = folder.run("predict --checkpoint run --csv flowers.csv");
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    let names = |text: &str| run.stderr.contains(text);
    assert!(names(file.file_name().unwrap().to_str().unwrap()) && names("expected"), "{}", run.stderr);
    let cure = format!("--checkpoint {}", first.canonicalize().unwrap().display());
    assert!(names(&cure) || names(&format!("--checkpoint {}", first.display())), "{}", run.stderr);
    let run = folder.fine(&format!("predict --csv flowers.csv --checkpoint {}", first.display()));
    assert_eq!(run.stdout.lines().count(), 91);
    folder.refused(&format!("predict --csv flowers.csv --checkpoint {}", file.display()), 1, "expected ");
}

#[test]
fn a_run_of_an_older_version_still_predicts() {
    let folder = Folder::new();
    let model = older(&folder, "run", "Squared", &[], 0.75, true);
    folder.write("a.csv", "b,a\n2,1\n8,3\n9.5,-4\n");
    let y_hat = model.predict(ndarray::array![[1.0, 2.0], [3.0, 8.0], [-4.0, 9.5]].view()).unwrap();
    let predicted = folder.fine("predict --checkpoint run --csv a.csv").stdout;
    let expected = y_hat.iter().map(|&y| f64::from(y) * 2.0 + 5.0);
    assert!(predicted.lines().skip(1).map(|line| line.parse::<f64>().unwrap() as f32).eq(expected.map(|y| y as f32)));
}

#[test]
fn of_equal_outputs_the_first_is_the_class() {
    let folder = Folder::new();
    let model = older(&folder, "equal", "Softmax", &["a", "b", "c"], 0.5, false);
    folder.write("a.csv", "a,b\n1,2\n-3,4\n");
    assert_eq!(model.classify(ndarray::array![[1.0, 2.0], [-3.0, 4.0]].view()).unwrap(), ndarray::array![0, 0]);
    let predicted = folder.fine("predict --checkpoint equal --csv a.csv").stdout;
    assert!(predicted.lines().skip(1).all(|line| line.starts_with("a,0.333")), "{predicted}");
}

#[test]
fn outputs_that_are_not_finite_are_refused_with_their_row() {
    let folder = Folder::new();
    older(&folder, "huge", "Softmax", &["a", "b", "c"], f32::MAX, false);
    folder.write("a.csv", "a,b\n0.1,0.2\n\n0.1,-0.2\n30,5\n");
    let run = folder.run("predict --checkpoint huge --csv a.csv");
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.contains("error: a.csv:5: "), "{}", run.stderr);
}
