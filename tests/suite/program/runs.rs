//! How runs of `train` end, by signals and errors too, what they keep, and how they are resumed.

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use gemmprop::{Model, SquaredError, checkpoint::Checkpoints, data};

use super::{FLOWERS, Folder, newest, table};

/// A run that takes some seconds.
#[cfg(unix)]
const LONG: &str = "train --csv flowers.csv --target species --validation 0.2 --epochs 300 --batch 8 --schedule cosine --seed 5 \
                    --early-stopping 300";

#[cfg(unix)]
#[test]
fn a_run_that_is_stopped_again_and_again_ends_with_the_bits_of_one_that_is_not() {
    use std::io::{BufRead, BufReader, Read};

    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 600);
    folder.fine(&format!("{LONG} --checkpoint whole --history whole.csv"));
    let begin = format!("{LONG} --checkpoint stopped --history stopped.csv");
    let mut line = begin.clone();
    let (mut stops, mut too_late) = (0, 0);
    loop {
        let mut child = folder.command(&line).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        // Reads up to the first report of an epoch.
        let mut text = String::new();
        while !text.lines().last().is_some_and(|line| line.starts_with("epoch ")) {
            if stderr.read_line(&mut text).unwrap() == 0 {
                break;
            }
        }
        if stops < 3 {
            let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
            assert!(kill.success());
        }
        stderr.read_to_string(&mut text).unwrap();
        let code = child.wait().unwrap().code();
        if code == Some(0) && stops == 3 {
            break;
        }
        if code == Some(0) {
            // On a machine that was busy elsewhere, it had come to its end before the signal.
            too_late += 1;
            assert!(too_late < 20, "stopped {stops} times, then at its end before the signal, {too_late} times over");
            fs::remove_dir_all(folder.path("stopped")).unwrap();
            fs::remove_file(folder.path("stopped.csv")).unwrap();
            (stops, line) = (0, begin.clone());
            continue;
        }
        assert_eq!(code, Some(130), "{text}");
        assert!(text.contains("stopped by Ctrl-C") && text.contains("checkpoint in "), "{text}");
        assert!(folder.path("stopped.csv").exists());
        stops += 1;
        line = "train --csv flowers.csv --resume --checkpoint stopped --history stopped.csv".to_owned();
    }
    assert_eq!(folder.model("stopped"), folder.model("whole"));
    let losses = |name| {
        let text = fs::read_to_string(folder.path(name)).unwrap();
        // Everything but the time, which is last.
        text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(losses("stopped.csv"), losses("whole.csv"));
    let predictions = |name| folder.fine(&format!("predict --checkpoint {name} --csv flowers.csv")).stdout;
    assert_eq!(predictions("stopped"), predictions("whole"));
}

/// Before the second save, which is due after 10 s.
#[cfg(unix)]
#[test]
fn a_run_that_is_killed_at_once_can_be_resumed_and_ends_with_the_same_bits() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 600);
    folder.fine(&format!("{LONG} --checkpoint whole"));
    let first = folder.path("killed").join(format!("step-{:012}.safetensors", 1));
    loop {
        let mut child = folder.command(&format!("{LONG} --checkpoint killed")).stderr(Stdio::null()).spawn().unwrap();
        while !first.exists() {
            assert_eq!(child.try_wait().unwrap(), None, "it has ended before its first checkpoint");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        if newest(&folder.path("killed")) == first {
            break;
        }
        // On a machine that was busy elsewhere, it had come to its end.
        fs::remove_dir_all(folder.path("killed")).unwrap();
    }
    folder.fine("train --csv flowers.csv --resume --checkpoint killed");
    assert_eq!(folder.model("killed"), folder.model("whole"));
}

#[test]
fn a_run_that_has_stopped_early_is_over_until_it_gets_more_epochs() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    let train = "train --csv flowers.csv --target species --validation 0.3 --rate 0.03 --early-stopping 2 --epochs 400";
    let run = folder.fine(&format!("{train} --checkpoint run"));
    assert!(run.stderr.contains("then nothing had got better"), "{}", run.stderr);
    let (model, file) = (folder.model("run"), newest(&folder.path("run")));
    let run = folder.fine("train --csv flowers.csv --resume --checkpoint run");
    assert!(run.stderr.contains("nothing to do, nothing had got better"), "{}", run.stderr);
    assert_eq!((folder.model("run"), newest(&folder.path("run"))), (model, file.clone()));
    folder.fine("train --csv flowers.csv --resume --checkpoint run --epochs 401");
    assert!(newest(&folder.path("run")) > file);
}

/// Decimals so near to the middle of two f32 that they round to one as they are, and to the other
/// by way of f64.
#[test]
fn a_resumed_run_reads_the_same_numbers() {
    let folder = Folder::new();
    let mut text = "a,b,y\n".to_owned();
    for row in 0..64 {
        // 1 + 2^-24, and a little.
        let middle = "1.00000005960464477539062500000001";
        writeln!(text, "{middle},{row},{}{middle}", ["", "-"][row % 2]).unwrap();
    }
    fs::write(folder.path("a.csv"), text).unwrap();
    let train = "train --csv a.csv --target y --standardize=no --optimizer sgd --rate 0.0001";
    folder.fine(&format!("{train} --epochs 4 --checkpoint whole"));
    folder.fine(&format!("{train} --epochs 2 --checkpoint run"));
    let run = folder.fine("train --csv a.csv --resume --checkpoint run --epochs 4");
    assert_eq!(folder.model("run"), folder.model("whole"));
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

/// The other data have the same number of rows and columns, so that nothing else would show the
/// difference.
#[test]
fn a_run_that_is_resumed_with_other_samples_says_so() {
    let folder = Folder::new();
    let text: String = (0..64).map(|row| format!("{row},{}\n", row % 7)).collect();
    fs::write(folder.path("a.csv"), format!("x,y\n{text}")).unwrap();
    folder.fine("train --csv a.csv --target y --loss squared --epochs 2 --checkpoint run");
    let other = "warning: these are not the samples that the run began with";
    for (changed, epochs) in [("63,0", 3), ("63.5,0", 4), ("63,0.5", 5)] {
        fs::write(folder.path("a.csv"), format!("x,y\n{}", text.replace("63,0", changed))).unwrap();
        let run = folder.fine(&format!("train --csv a.csv --resume --checkpoint run --epochs {epochs}"));
        assert_eq!(run.stderr.contains(other), changed != "63,0", "{}", run.stderr);
    }
}

#[test]
fn a_run_that_diverges_leaves_its_last_good_parameters_and_its_history() {
    let folder = Folder::new();
    let mut text = "x,y\n".to_owned();
    (0..32).for_each(|x| writeln!(text, "{x},{}", f64::from(x) * 1.5 + f64::from(x % 5) + 0.25).unwrap());
    fs::write(folder.path("a.csv"), text).unwrap();
    // One step an epoch.
    let train = "train --csv a.csv --target y --widths none --optimizer sgd --rate 3 --epochs 5000";
    let line = format!("{train} --checkpoint run --history h.csv --plot c.svg");
    folder.refused(&line, 1, "a smaller --rate may help");
    let epochs = fs::read_to_string(folder.path("h.csv")).unwrap().lines().count() - 1;
    assert!(epochs > 10, "{epochs}");
    assert!(folder.path("c.svg").exists());
    let saved = Checkpoints::open(folder.path("run")).unwrap().resume::<f32, _>(SquaredError).unwrap();
    assert_eq!(saved.value.steps(), epochs as u64);
    let theta = saved.value.model().mlp.parameters();
    assert!(theta.w().iter().flatten().chain(theta.c().iter().flatten()).all(|w| w.is_finite()));
    // At once: no epoch, and a header all the same.
    let train =
        "train --csv a.csv --target y --optimizer sgd --rate 1e30 --batch 8 --checkpoint none --history none.csv";
    folder.refused(train, 1, "a smaller --rate may help");
    let history = fs::read_to_string(folder.path("none.csv")).unwrap();
    assert!(history.starts_with("epoch,steps,loss,") && history.lines().count() == 1, "{history}");
}

/// A rate that has become 0 ends a run, and the state of the run is saved.
#[test]
fn a_run_that_an_error_ends_keeps_what_it_has() {
    let folder = Folder::new();
    folder.write("a.csv", table("x,t", (0..40).map(|i| format!("{i},{}", ["a", "b"][i % 2]))));
    let run = folder.run(
        "train --csv a.csv --target t --widths none --schedule step:1,0.1 --epochs 60 --history h.csv --plot p.svg --checkpoint run",
    );
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("learning_rate: "), "{}", run.stderr);
    let epochs = fs::read_to_string(folder.path("h.csv")).unwrap().lines().count() - 1;
    assert!((30..60).contains(&epochs) && folder.path("p.svg").exists(), "{epochs}");
    // Two steps an epoch, and all of them are in the checkpoint.
    let newest = fs::read_dir(folder.path("run")).unwrap().map(|entry| entry.unwrap().file_name()).max().unwrap();
    assert_eq!(newest.to_str(), Some(format!("step-{:012}.safetensors", 2 * epochs).as_str()));
}

#[test]
fn more_epochs_go_on_from_a_run_that_was_done_and_from_the_one_before_a_damaged_file() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 90);
    folder.fine("train --csv flowers.csv --target species --epochs 4 --checkpoint whole");
    folder.fine("train --csv flowers.csv --target species --epochs 2 --checkpoint run");
    let more = "train --csv flowers.csv --resume --checkpoint run --epochs 4";
    folder.fine(more);
    assert_eq!(folder.model("run"), folder.model("whole"));
    assert!(folder.fine(more).stderr.contains("nothing to do, 4 epochs were done before"));

    let file = newest(&folder.path("run"));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let run = folder.fine(more);
    let name = file.file_name().unwrap().to_str().unwrap();
    let warning = run.stderr.lines().find(|line| line.starts_with("warning: ")).unwrap();
    assert!(warning.contains(name) && warning.contains("instead"), "{warning}");
    assert_eq!(folder.model("run"), folder.model("whole"));
}

/// A run that takes long enough for all that is done to it meanwhile.
#[cfg(unix)]
struct Running {
    child: std::process::Child,
    stderr: std::io::BufReader<std::process::ChildStderr>,
    text: String,
}

#[cfg(unix)]
impl Running {
    const LINE: &str = "train --csv flowers.csv --target species --validation 0.2 --epochs 10000000 --batch 8 --rate 0.03 --seed 5 --standardize=no";

    fn new(folder: &Folder, more: &str) -> Self {
        Self::of(folder.command(&format!("{} {more}", Self::LINE)))
    }

    fn of(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, text: String::new() }
    }

    /// Reads until a line contains this text.
    fn says(&mut self, text: &str) -> &str {
        use std::io::BufRead;

        loop {
            let start = self.text.len();
            assert!(self.stderr.read_line(&mut self.text).unwrap() > 0, "{text}: {}", self.text);
            if self.text[start..].contains(text) {
                return &self.text[start..];
            }
        }
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The exit code and the complete output.
    fn ends(mut self) -> (Option<i32>, String) {
        use std::io::Read;

        self.stderr.read_to_string(&mut self.text).unwrap();
        (self.child.wait().unwrap().code(), self.text)
    }
}

#[cfg(unix)]
#[test]
fn signals_stop_a_run_and_its_best_network_predicts() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 60);
    // If SIGHUP, number 1, is ignored where the tests were started, the program ignores it too, and
    // there is nothing to test. Others may be ignored beside it, as in the background of a script.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let nohup = mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|ignored| ignored & 1 == 1));
    let all = [("-INT", 130, "Ctrl-C"), ("-TERM", 143, "SIGTERM"), ("-HUP", 129, "SIGHUP")];
    for (signal, code, name) in all.into_iter().filter(|(signal, ..)| !(nohup && *signal == "-HUP")) {
        let files = format!("--checkpoint run{signal} --history h{signal}.csv --plot c{signal}.svg");
        let mut run = Running::new(&folder, &format!("--early-stopping 10000000 {files}"));
        run.says("epoch 1/");
        run.signal(signal);
        let (ended, text) = run.ends();
        assert_eq!(ended, Some(code), "{text}");
        let (summary, best) = text.rsplit_once("; predict takes the network of the best epoch, ").unwrap();
        assert!(summary.contains(&format!("stopped by {name} after ")), "{text}");
        // The best epoch by the history.
        let history = fs::read_to_string(folder.path(&format!("h{signal}.csv"))).unwrap();
        let loss = |line: &str| line.split(',').nth(3).unwrap().parse::<f64>().unwrap();
        let least = history.lines().enumerate().skip(1).min_by(|a, b| loss(a.1).total_cmp(&loss(b.1))).unwrap();
        assert_eq!(best.trim(), least.0.to_string());
        assert!(folder.path(&format!("c{signal}.svg")).exists());

        // Its network.
        let stored = Checkpoints::open(folder.path(&format!("run{signal}"))).unwrap().read().unwrap().value;
        let network: Model<f32> = stored.best_model().unwrap().unwrap();
        let table = data::csv_classes::<f32>(folder.path("flowers.csv"), "species").unwrap();
        let classes = network.classify(table.x.view()).unwrap();
        let run = folder.fine(&format!("predict --checkpoint run{signal} --csv flowers.csv"));
        let predicted = run.stdout.lines().skip(1).map(|line| line.split_once(',').unwrap().0);
        assert!(predicted.eq(classes.iter().map(|&class| table.y.names[class].as_str())));
        let differs = stored.model::<f32>().unwrap() != network;
        assert_eq!(run.stderr.contains("predicting with the network of its best epoch"), differs, "{}", run.stderr);
    }
}

/// A signal that nohup has set to be ignored stays ignored.
#[cfg(target_os = "linux")]
#[test]
fn a_hangup_that_is_ignored_stops_nothing() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 60);
    let program = folder.command("");
    let mut command = Command::new("sh");
    command.current_dir(folder.0.path()).args(["-c", r#"trap "" HUP; exec "$0" "$@""#]);
    let mut run = Running::of({
        command.arg(program.get_program()).args(Running::LINE.split_whitespace()).stdin(Stdio::null());
        command
    });
    run.says("epoch 1/");
    run.signal("-HUP");
    run.says("epoch ");
    run.says("epoch ");
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(143));
}

#[cfg(unix)]
#[test]
fn one_run_at_a_time_has_a_folder_and_prediction_goes_on_beside_it() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 60);
    let mut run = Running::new(&folder, "--checkpoint run");
    run.says("epoch 1/");
    // The refusal comes at once: the data do not even exist.
    for line in
        ["train --csv none.csv --target species --checkpoint run", "train --csv none.csv --resume --checkpoint run"]
    {
        folder.refused(line, 1, "expected no run that writes here");
    }
    assert!(folder.path("run/.lock").exists());
    folder.fine("predict --checkpoint run --csv flowers.csv");
    run.signal("-TERM");
    assert_eq!(run.ends().0, Some(143));
    folder.fine("train --csv flowers.csv --resume --checkpoint run --epochs 1");
}

/// A folder in the place of the file that is written first makes each try fail, root's too.
#[cfg(unix)]
#[test]
fn a_state_that_cannot_be_kept_is_said_and_tried_again_and_the_run_goes_on() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 60);
    let mut run = Running::new(&folder, "--checkpoint run --history h.csv --plot c.svg");
    run.says("epoch 1/");
    let first = folder.path("run").join(format!("step-{:012}.safetensors", 1));
    assert!(first.exists());
    fs::create_dir(folder.path("run/.writing")).unwrap();
    let warning = run.says("warning: ");
    assert!(warning.contains("the run goes on and tries to keep its state again"), "{warning}");
    fs::remove_dir(folder.path("run/.writing")).unwrap();
    run.says("checkpoints can be written again");
    assert!(newest(&folder.path("run")) > first);
    fs::create_dir(folder.path("run/.writing")).unwrap();
    run.signal("-INT");
    let (code, text) = run.ends();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("stopped by Ctrl-C after"), "{text}");
    assert!(text.lines().last().unwrap().starts_with("error: the run's last state could not be kept: "), "{text}");
    assert!(folder.path("h.csv").exists() && folder.path("c.svg").exists());

    // Where none has been written, nothing would be lost.
    fs::create_dir_all(folder.path("new/.writing")).unwrap();
    folder.refused("train --csv flowers.csv --target species --checkpoint new", 1, ".writing");
}

#[test]
fn a_refused_run_leaves_no_folder() {
    let folder = Folder::new();
    folder.flowers("flowers.csv", &FLOWERS, 30);
    fs::create_dir_all(folder.path("there/already")).unwrap();
    fs::create_dir(folder.path("other")).unwrap();
    folder.write("other/file", "");
    let names = |path: &str| {
        let mut names: Vec<_> =
            fs::read_dir(folder.path(path)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names("");
    // Refused where the data are read, and by the first step.
    for (line, code) in [("--target color", "expected \"color\""), ("--target species --rate 1e-60", "learning_rate")] {
        for checkpoint in ["run", "new/folder/run", "there/already", "there/new", "other"] {
            folder.refused(&format!("train --csv flowers.csv {line} --checkpoint {checkpoint}"), 1, code);
        }
        assert_eq!(names(""), before);
        assert_eq!((names("there"), names("there/already").len()), (vec!["already".into()], 0));
        assert_eq!(names("other"), ["file"]);
    }
    // Of folders within each other, the outer one can be made and the inner one cannot.
    let inner = "x".repeat(300);
    folder.refused(&format!("train --csv flowers.csv --target species --checkpoint new/{inner}"), 1, "new/xxx");
    assert_eq!(names(""), before);
    // What was made before the refusal came stays.
    folder.fine("train --csv flowers.csv --target species --epochs 1 --checkpoint run");
    let kept = names("run");
    folder.refused("train --csv flowers.csv --target color --checkpoint run", 1, "--resume continues the run");
    assert_eq!(names("run"), kept);
}
