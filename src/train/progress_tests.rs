//! The state of the bar and its text.

use std::ops::ControlFlow;
use std::thread::sleep;
use std::time::Duration;

use indicatif::{InMemoryTerm, ProgressDrawTarget};

use super::{ProgressBar, SizedBar};
use crate::train::observer::{BatchEnd, Observer};

fn tell(bar: &mut ProgressBar, epoch: usize, batch: usize, loss: f64) {
    let batch = BatchEnd { epoch, epochs: 10, batch, batches: 50, samples: 8, loss, learning_rate: 0.1 };
    assert_eq!(Observer::<f32>::batch(bar, &batch), ControlFlow::Continue(()));
}

#[test]
fn a_resumed_run_begins_where_it_was_and_counts_its_own_batches() {
    let mut bar = ProgressBar::new();
    tell(&mut bar, 9, 48, 1.0);
    sleep(Duration::from_millis(20));
    tell(&mut bar, 9, 49, 3.0);
    let SizedBar { bar: drawn, length } = bar.bar.as_ref().unwrap();
    assert_eq!((drawn.position(), *length), (449, 500));
    // One batch in 20 ms or more, and not 449.
    assert!(drawn.per_sec() < 100.0, "{}", drawn.per_sec());
    assert_eq!(bar.seen.lock().unwrap().loss_sum, 32.0);
    tell(&mut bar, 10, 1, 5.0);
    let seen = bar.seen.lock().unwrap();
    assert_eq!((seen.loss_sum, seen.samples, seen.all_samples, seen.all_batches), (40.0, 8, 16, 2));
}

#[test]
fn epochs_beyond_the_plan_make_it_longer() {
    let mut bar = ProgressBar::new();
    tell(&mut bar, 10, 50, 1.0);
    tell(&mut bar, 11, 1, 1.0);
    let drawn = &bar.bar.as_ref().unwrap().bar;
    assert_eq!((drawn.position(), drawn.length()), (501, Some(550)));
}

#[test]
fn the_terminal_shows_epoch_losses_speed_and_time() {
    let terminal = InMemoryTerm::new(4, 120);
    let mut bar = ProgressBar::new();
    tell(&mut bar, 9, 48, 1.0);
    let shown = |bar: &ProgressBar| {
        bar.bar.as_ref().unwrap().bar.force_draw();
        terminal.contents()
    };
    let drawn = &bar.bar.as_ref().unwrap().bar;
    drawn.set_draw_target(ProgressDrawTarget::term_like_with_hz(Box::new(terminal.clone()), 250));
    sleep(Duration::from_millis(20));
    bar.seen.lock().unwrap().validation_loss = Some(0.5);
    tell(&mut bar, 9, 49, 3.0);
    let line = shown(&bar);
    assert!(line.starts_with("epoch 9/10  loss 2.0000  validation 0.5000  "), "{line}");
    let after = |text: &str| line.split(text).next().unwrap().rsplit("  ").next().unwrap().to_owned();
    let speed: f64 = after(" samples/s").replace(',', "").parse().unwrap();
    // 8 samples in 20 ms or more.
    assert!((1.0..=400.0).contains(&speed), "{line}");
    assert!(line.contains(" 90% ETA "), "{line}");
    bar.bar.as_ref().unwrap().bar.abandon();
    let line = shown(&bar);
    assert!(line.contains(" 90% in ") && !line.contains("ETA"), "{line}");
}
