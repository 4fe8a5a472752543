//! Training to a loss that is really equal: the last step is shortened so that the mean loss over
//! the whole training set is the one asked for, to nine digits.
//!
//! A run that stops at the first look below a loss undershoots it, and the more the smaller its
//! batches are. Here the loss is evaluated at the end of each epoch. When it is at or below the
//! target, the steps since the last time it was above are made again, evaluated one by one. The
//! first that ends at or below the target is the last step: θ ← θ − s η g with the s in (0, 1] at
//! which L(θ) is the target, found by bisection. The network that is measured and tested is that
//! one, so nothing is interpolated afterwards, and no point is one that SGD would not have passed.

use gemmprop::{Dataset, LearningRate, Mlp, SoftmaxCrossEntropy, Trainer, TrainingSettings};
use ndarray::Axis;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::run::{End, Recipe, Set, Stop, Trained, mean_loss};

/// How far the loss at the stop may be from the one asked for, in units of it.
const EQUAL: f64 = 1e-9;

/// Trains to the loss of `stop`, exactly; after `stop.steps` steps the run is over. Plain descent
/// and SAM only: θ and the order of the samples are all the state there is.
pub(crate) fn train(mlp: Mlp<f64>, recipe: &Recipe, set: &Set<f64>, stop: &Stop) -> Trained {
    let loss = |mlp: &Mlp<f64>| mean_loss(mlp, set.x.view(), set.rows(), &SoftmaxCrossEntropy);
    let mut order: Vec<usize> = (0..set.len()).collect();
    let mut generator = ChaCha8Rng::seed_from_u64(recipe.seed);
    // Other numbers than those of the initial weights, which come from the same seed.
    generator.set_stream(1);
    let mut trainer = trainer(mlp, recipe);
    // Where the loss was last seen above the target, and the batches since.
    let (mut above, mut since) = (trainer.model().mlp.clone(), Vec::new());
    let mut steps = 0;
    while steps < stop.steps {
        order.shuffle(&mut generator);
        let mut sum = 0.0;
        for rows in order.chunks(recipe.batch) {
            match step(&mut trainer, set, rows) {
                Some(batch_loss) => sum += batch_loss * rows.len() as f64,
                None => return Trained { mlp: None, steps, end: End::Diverged },
            }
            since.push(rows.to_vec());
            steps += 1;
        }
        let mean = sum / set.len() as f64;
        // It starts at 2 or 3.
        if mean.is_nan() || mean > 100.0 {
            return Trained { mlp: None, steps, end: End::Diverged };
        }
        // The mean over the epoch decides nothing: it only says when to look.
        if mean >= 3.0 * stop.loss {
            continue;
        }
        if loss(&trainer.model().mlp) <= stop.loss {
            let (mlp, made) = last_steps(above, recipe, set, &since, stop.loss, loss);
            return Trained { mlp: Some(mlp), steps: steps - (since.len() - made) as u64, end: End::Reached };
        }
        above.clone_from(&trainer.model().mlp);
        since.clear();
    }
    Trained { mlp: Some(trainer.into_model().mlp), steps, end: End::OutOfSteps }
}

fn trainer(mlp: Mlp<f64>, recipe: &Recipe) -> Trainer<f64, SoftmaxCrossEntropy> {
    let training = TrainingSettings {
        optimizer: recipe.optimizer,
        learning_rate: LearningRate::constant(recipe.eta),
        sam: recipe.rho,
        ..TrainingSettings::default()
    };
    Trainer::new(mlp, SoftmaxCrossEntropy, training).expect("valid settings")
}

/// The mean loss of the batch before the step; none if the step overflows.
fn step(trainer: &mut Trainer<f64, SoftmaxCrossEntropy>, set: &Set<f64>, rows: &[usize]) -> Option<f64> {
    let (x, y) = (set.x.select(Axis(0), rows), set.labels.select(Axis(0), rows));
    trainer.step(Dataset::new(x.view(), y.view())).ok()
}

/// Makes the steps again, up to the first that ends at or below the target, and shortens it. The
/// network, and the number of steps.
fn last_steps(
    above: Mlp<f64>,
    recipe: &Recipe,
    set: &Set<f64>,
    batches: &[Vec<usize>],
    target: f64,
    loss: impl Fn(&Mlp<f64>) -> f64,
) -> (Mlp<f64>, usize) {
    let mut trainer = trainer(above, recipe);
    for (made, rows) in (1..).zip(batches) {
        let before = trainer.model().mlp.clone();
        step(&mut trainer, set, rows).expect("the step that was made before");
        if loss(&trainer.model().mlp) <= target {
            return (shortened(&before, &trainer.model().mlp, target, loss), made);
        }
    }
    unreachable!("the same steps end at the same loss")
}

/// The network between `from`, above the target, and `to`, not above it, whose loss is the target.
fn shortened(from: &Mlp<f64>, to: &Mlp<f64>, target: f64, loss: impl Fn(&Mlp<f64>) -> f64) -> Mlp<f64> {
    let (mut low, mut high, mut s) = (0.0, 1.0, 1.0);
    let mut mlp = to.clone();
    // After 53 halvings s has no more bits.
    for _ in 0..53 {
        let found = loss(&mlp);
        if (found - target).abs() <= EQUAL * target {
            break;
        }
        *(if found > target { &mut low } else { &mut high }) = s;
        s = 0.5 * (low + high);
        let ends = from.parameters().iter().zip(to.parameters().iter());
        mlp.parameters_mut().iter_mut().zip(ends).for_each(|(p, (a, b))| *p = a + s * (b - a));
    }
    mlp
}
