//! Shared by the experiments: the data, training until a loss is reached, and the measures of the
//! minimum found.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use gemmprop::BatchEnd;
use gemmprop::curvature::sharpness::{Landscape, adaptive_operator, operator};
use gemmprop::data::{Images, idx_folder};
use gemmprop::{
    Bias, Dataset, LearningRate, Loss, Mlp, Model, Observer, Optimizer, Parameters, Record, Scalar,
    SoftmaxCrossEntropy, Trainer, TrainingSettings, TwiceDifferentiable,
    curvature::{Hessian, lanczos},
};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, ArrayViewMut1, Axis, s};
use serde::{Deserialize, Serialize};

use report::progress::Progress;

/// The small network of most experiments, with a bias on every layer.
pub(crate) const WIDTHS: [usize; 4] = [64, 32, 32, 10];

pub(crate) fn network(seed: u64) -> Mlp<f64> {
    Mlp::he(&WIDTHS, Bias::EveryLayer, seed).expect("valid widths")
}

/// Images and labels.
#[derive(Debug, Clone)]
pub(crate) struct Set<F> {
    pub(crate) x: Array2<F>,
    pub(crate) labels: Array1<usize>,
}

impl<F: Scalar> Set<F> {
    pub(crate) fn first(&self, n: usize) -> Self {
        Self { x: self.x.slice(s![..n, ..]).to_owned(), labels: self.labels.slice(s![..n]).to_owned() }
    }

    pub(crate) fn rest(&self, n: usize) -> Self {
        Self { x: self.x.slice(s![n.., ..]).to_owned(), labels: self.labels.slice(s![n..]).to_owned() }
    }

    pub(crate) fn one_hot(&self) -> Array2<F> {
        Array2::from_shape_fn((self.labels.len(), 10), |(i, k)| if self.labels[i] == k { F::ONE } else { F::ZERO })
    }

    pub(crate) fn rows(&self) -> ArrayView2<'_, usize> {
        self.labels.view().insert_axis(Axis(1))
    }

    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }
}

/// The digits that the crate `smartcore` ships, pixels from 0 to 1: 1437 to train on and 360 to
/// test on, in the order of the file. The last ones are by other writers.
pub(crate) fn digits() -> (Set<f64>, Set<f64>) {
    let set = smartcore::dataset::digits::load_dataset();
    let x = Array2::from_shape_vec((set.num_samples, set.num_features), set.data).expect("a full table");
    let all =
        Set { x: x.mapv(|x| f64::from(x) / 16.0), labels: set.target.iter().map(|&label| label as usize).collect() };
    (all.first(1437), all.rest(1437))
}

/// MNIST's digits from a folder, averaged over squares of 2 × 2 pixels: the first 2000 to train on,
/// and as a test set the first 8000 of `t10k-*`, or the next 8000 of the only pair of files.
pub(crate) fn pooled_mnist(folder: &Path) -> Result<(Set<f64>, Set<f64>), Box<dyn Error>> {
    const SIDE: usize = 28;
    let pooled = |images: &Images<f32>| {
        let mut x = Array2::zeros((images.x.nrows(), SIDE * SIDE / 4));
        for ((i, pixel), value) in images.x.indexed_iter() {
            x[(i, pixel / SIDE / 2 * (SIDE / 2) + pixel % SIDE / 2)] += f64::from(*value) / 4.0;
        }
        Set { x, labels: images.labels.clone() }
    };
    let found = idx_folder::<f32>(folder)?;
    let all: Vec<_> = std::iter::once(&found.train).chain(&found.test).collect();
    let (samples, pixels) = (all.iter().map(|images| images.x.nrows()).min().unwrap_or(0), SIDE * SIDE);
    let needed = if all.len() == 1 { 10_000 } else { 8000 };
    if samples < needed || all.iter().any(|images| images.x.ncols() != pixels) {
        let text = format!("{needed} images or more of {SIDE} × {SIDE} pixels expected, {samples} found");
        return Err(format!("{}: {text}", folder.display()).into());
    }
    let train = pooled(all[0]);
    let test = all.get(1).map_or_else(|| train.rest(2000), |images| pooled(images));
    Ok((train.first(2000), test.first(8000)))
}

/// Mean ℓ.
pub(crate) fn mean_loss<F: Scalar, L: Loss<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: ArrayView2<L::Target>,
    loss: &L,
) -> f64 {
    let y_hat = mlp.predict(x).expect("finite data");
    let mut d = vec![F::ZERO; mlp.outputs()];
    let sum: f64 = (y_hat.outer_iter().zip(y.outer_iter()))
        .map(|(y_hat, y)| {
            let (y_hat, y) = (y_hat.to_slice().expect("whole rows"), y.to_slice().expect("whole rows"));
            loss.value_and_derivative(y_hat, y, &mut d).to_f64()
        })
        .sum();
    sum / x.nrows() as f64
}

/// The share of samples whose class is not the label.
pub(crate) fn error_rate<F: Scalar>(mlp: &Mlp<F>, set: &Set<F>) -> f64 {
    let classes = mlp.classify(set.x.view()).expect("finite data");
    classes.iter().zip(&set.labels).filter(|(class, label)| class != label).count() as f64 / set.len() as f64
}

/// How a network is trained.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipe {
    pub(crate) eta: f64,
    pub(crate) batch: usize,
    pub(crate) seed: u64,
    /// SAM's ρ.
    pub(crate) rho: Option<f64>,
    pub(crate) optimizer: Optimizer,
}

impl Recipe {
    pub(crate) fn sgd(eta: f64, batch: usize, seed: u64) -> Self {
        Self { eta, batch, seed, rho: None, optimizer: Optimizer::Sgd }
    }
}

/// When to stop: at this mean loss over the whole training set, or after this number of steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop {
    pub(crate) loss: f64,
    pub(crate) steps: u64,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Reached,
    OutOfSteps,
    Diverged,
}

/// A run that can be continued.
#[derive(Debug)]
pub(crate) struct Run<F, L: Loss<F>>
where
    F: Scalar,
{
    trainer: Trainer<F, L>,
    loss: L,
    /// Steps from one look at the whole training set to the next, far from the loss asked for and
    /// near it.
    every: [u64; 2],
}

impl<F: Scalar, L: Loss<F> + Clone> Run<F, L> {
    pub(crate) fn new(mlp: Mlp<F>, loss: L, recipe: &Recipe, samples: usize) -> Self {
        let training = TrainingSettings {
            optimizer: recipe.optimizer,
            learning_rate: LearningRate::constant(recipe.eta),
            epochs: usize::MAX / 2,
            batch: recipe.batch,
            // A full batch has no order.
            shuffle: recipe.batch < samples,
            seed: recipe.seed,
            sam: recipe.rho,
            ..TrainingSettings::default()
        };
        let trainer = Trainer::new(mlp, loss.clone(), training).expect("valid settings");
        // Near it, ten times an epoch.
        let tenth = samples.div_ceil(recipe.batch).div_ceil(10) as u64;
        let every = [tenth.max(10), tenth];
        Self { trainer, loss, every }
    }

    pub(crate) fn mlp(&self) -> &Mlp<F> {
        &self.trainer.model().mlp
    }

    pub(crate) fn steps(&self) -> u64 {
        self.trainer.steps()
    }

    /// Trains on. A loss above 100 (it starts between 0.5 and 3) counts as divergence.
    pub(crate) fn until(&mut self, x: ArrayView2<F>, y: ArrayView2<L::Target>, stop: &Stop) -> End {
        let mut near = false;
        while self.steps() < stop.steps {
            let left = self.every[usize::from(near)].min(stop.steps - self.steps());
            let mut pause = Pause { left, sum: 0.0, batches: 0 };
            if self.trainer.fit(Dataset::new(x, y), None, &mut pause).is_err() {
                return End::Diverged;
            }
            let recent = pause.sum / pause.batches as f64;
            if recent.is_nan() || recent > 100.0 {
                return End::Diverged;
            }
            // The mean over the last batches decides nothing: it only says when to look.
            near = recent < 1.5 * stop.loss;
            if recent < 3.0 * stop.loss && mean_loss(self.mlp(), x, y, &self.loss) <= stop.loss {
                return End::Reached;
            }
        }
        End::OutOfSteps
    }
}

/// Stops after this number of batches.
struct Pause {
    left: u64,
    sum: f64,
    batches: u64,
}

impl<F: Scalar> Observer<F> for Pause {
    fn batch(&mut self, batch: &BatchEnd) -> ControlFlow<()> {
        self.left -= 1;
        self.sum += batch.loss;
        self.batches += 1;
        if self.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn epoch(&mut self, _record: &Record, _model: &Model<F>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// A trained network with cross-entropy, and what has been measured of it; the rows of most tables.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    /// Empty in tables from before there was a choice, which are of the digits.
    #[serde(default)]
    pub(crate) data: String,
    /// Which series of runs.
    pub(crate) control: String,
    pub(crate) eta: f64,
    pub(crate) batch: usize,
    pub(crate) seed: u64,
    pub(crate) rho: f64,
    pub(crate) steps: u64,
    pub(crate) epochs: f64,
    /// Whether the run reached the target loss.
    pub(crate) reached: bool,
    pub(crate) train_loss: Option<f64>,
    pub(crate) train_error: Option<f64>,
    pub(crate) test_loss: Option<f64>,
    pub(crate) test_error: Option<f64>,
    pub(crate) lambda_max: Option<f64>,
    pub(crate) trace: Option<f64>,
    pub(crate) trace_error: Option<f64>,
    pub(crate) adaptive_lambda_max: Option<f64>,
    pub(crate) phi: Option<f64>,
    pub(crate) asam: Option<f64>,
    /// s = √λmax((1/n) Σ H_i² − H²)
    pub(crate) non_uniformity: Option<f64>,
    /// (1 − ηa)² + η² (n − B)/(B (n − 1)) s² with a = λmax(H)
    pub(crate) stability: Option<f64>,
    pub(crate) seconds: f64,
}

/// A series of runs: a name, how to train, when to stop, and whether s is to be measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) data: &'static str,
    pub(crate) control: &'static str,
    pub(crate) recipe: Recipe,
    pub(crate) stop: Stop,
    pub(crate) non_uniformity: bool,
}

/// A network that has been trained, unless training diverged.
#[derive(Debug)]
pub(crate) struct Trained {
    pub(crate) mlp: Option<Mlp<f64>>,
    pub(crate) steps: u64,
    pub(crate) end: End,
}

/// Trains to the first look at or below the loss, and measures.
pub(crate) fn measured(train: &Set<f64>, test: &Set<f64>, job: &Job) -> Row {
    let start = Instant::now();
    let mut run = Run::new(network(job.recipe.seed), SoftmaxCrossEntropy, &job.recipe, train.len());
    let end = run.until(train.x.view(), train.rows(), &job.stop);
    let mlp = (end != End::Diverged).then(|| run.mlp().clone());
    row(&Trained { mlp, steps: run.steps(), end }, train, test, job, start)
}

/// What is known of a trained network, with its measures.
pub(crate) fn row(trained: &Trained, train: &Set<f64>, test: &Set<f64>, job: &Job, start: Instant) -> Row {
    let Recipe { eta, batch, seed, rho, .. } = job.recipe;
    let mut row = Row {
        data: job.data.to_owned(),
        control: job.control.to_owned(),
        eta,
        batch,
        seed,
        rho: rho.unwrap_or(0.0),
        steps: trained.steps,
        epochs: trained.steps as f64 / train.len().div_ceil(batch) as f64,
        reached: trained.end == End::Reached,
        ..Row::default()
    };
    if let Some(mlp) = &trained.mlp {
        measure(&mut row, mlp, train, test, job.non_uniformity);
    }
    row.seconds = start.elapsed().as_secs_f64();
    row
}

fn measure(row: &mut Row, mlp: &Mlp<f64>, train: &Set<f64>, test: &Set<f64>, with_non_uniformity: bool) {
    let loss = SoftmaxCrossEntropy;
    row.train_loss = Some(mean_loss(mlp, train.x.view(), train.rows(), &loss));
    row.train_error = Some(error_rate(mlp, train));
    row.test_loss = Some(mean_loss(mlp, test.x.view(), test.rows(), &loss));
    row.test_error = Some(error_rate(mlp, test));
    let sharp = sharpness(mlp, train.x.view(), train.rows(), &loss);
    row.lambda_max = Some(sharp.lambda_max);
    row.trace = Some(sharp.trace.value);
    row.trace_error = Some(sharp.trace.standard_error);
    row.adaptive_lambda_max = Some(sharp.adaptive);
    row.phi = Some(sharp.phi);
    row.asam = Some(sharp.asam);
    if with_non_uniformity {
        let s = non_uniformity(mlp, train.x.view(), train.rows(), &loss);
        let (n, b) = (train.len() as f64, row.batch as f64);
        row.non_uniformity = Some(s);
        row.stability =
            Some((1.0 - row.eta * sharp.lambda_max).powi(2) + (row.eta * s).powi(2) * (n - b) / (b * (n - 1.0)));
    }
}

/// The work of all jobs, two and more at a time where there are cores; the results in the order of
/// the jobs.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    name: &str,
    jobs: &[T],
    text: impl Fn(&T) -> String + Sync,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    let progress = Progress::new(name, jobs.len());
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((i, job)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, jobs.get(i)?)))
                {
                    progress.begin(text(job));
                    let result = work(job);
                    done.lock().expect("no panic").push((i, result));
                    progress.end();
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic");
    done.sort_by_key(|&(i, _)| i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Steps of the search for φ and for the ASAM-type maximum: the paper of the former makes 10.
pub(crate) const ITERATIONS: usize = 10;
/// ε of φ in most experiments, and ρ of the ASAM-type maximum.
pub(crate) const EPSILON: f64 = 1e-3;
pub(crate) const RHO: f64 = 0.5;

/// Probes of the trace.
const PROBES: usize = 50;

/// All measures of the sharpness of the mean loss over some data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sharpness {
    pub(crate) lambda_max: f64,
    pub(crate) trace: lanczos::Estimate,
    /// λmax(|D| H |D|)
    pub(crate) adaptive: f64,
    /// Keskar's φ at ε = 10⁻³, in percent.
    pub(crate) phi: f64,
    /// max L(θ + δ) − L(θ) over ‖δ ⊘ |θ|‖₂ ≤ 0.5
    pub(crate) asam: f64,
}

pub(crate) fn sharpness<F: Scalar, L: TwiceDifferentiable<F>>(
    mlp: &Mlp<F>,
    x: ArrayView2<F>,
    y: ArrayView2<L::Target>,
    loss: &L,
) -> Sharpness {
    let data = Dataset::new(x, y);
    let mut hessian = Hessian::new(mlp, data, loss).expect("valid data");
    let lambda_max = top(&mut operator(&mut hessian));
    let adaptive = top(&mut adaptive_operator(&mut hessian));
    let trace = lanczos::trace(&mut operator(&mut hessian), PROBES, 1).expect("a finite Hessian");
    let mut landscape = Landscape::new(mlp, data, loss).expect("valid data");
    let phi = landscape.box_sharpness(EPSILON, ITERATIONS).expect("a valid ε");
    let asam = landscape.adaptive_sharpness(RHO, ITERATIONS).expect("a valid ρ");
    Sharpness { lambda_max, trace, adaptive, phi, asam }
}

/// λmax(H) alone.
pub(crate) fn lambda_max<L: TwiceDifferentiable<f64>>(
    mlp: &Mlp<f64>,
    x: ArrayView2<f64>,
    y: ArrayView2<L::Target>,
    loss: &L,
) -> f64 {
    let mut hessian = Hessian::new(mlp, Dataset::new(x, y), loss).expect("valid data");
    top(&mut operator(&mut hessian))
}

/// The largest eigenvalue to five digits.
fn top(operator: &mut impl lanczos::Operator<Error = gemmprop::Error>) -> f64 {
    let options = lanczos::Options { smallest: 0, tolerance: 1e-5, ..lanczos::Options::default() };
    let found = lanczos::extremes(operator, &options).expect("a finite Hessian");
    assert!(found.converged, "λmax is known only to {:e}", found.largest[0].error);
    found.largest[0].value
}

/// s of Wu, Ma and E 2018: √λmax((1/n) Σ H_i² − H²), with the Hessian H_i of each of the n samples.
fn non_uniformity<L: TwiceDifferentiable<f64>>(
    mlp: &Mlp<f64>,
    x: ArrayView2<f64>,
    y: ArrayView2<L::Target>,
    loss: &L,
) -> f64 {
    let mut whole = Hessian::new(mlp, Dataset::new(x, y), loss).expect("valid data");
    let sample = |i: usize| Dataset::new(x.slice(s![i..=i, ..]), y.slice(s![i..=i, ..]));
    let one = |i: usize| Hessian::new(mlp, sample(i), loss).expect("valid data");
    let mut each: Vec<_> = (0..x.nrows()).map(one).collect();
    let zeros = mlp.zero_gradient();
    let (mut v, mut hv, mut hhv) = (zeros.clone(), zeros.clone(), zeros);
    let apply = |from: ArrayView1<f64>, mut to: ArrayViewMut1<f64>| {
        v.iter_mut().zip(from).for_each(|(v, &from)| *v = from);
        let mut add = |a: f64, hhv: &Parameters<f64>| to.iter_mut().zip(hhv.iter()).for_each(|(to, h)| *to += a * h);
        for hessian in &mut each {
            hessian.apply(&v, &mut hv)?;
            hessian.apply(&hv, &mut hhv)?;
            add(1.0 / x.nrows() as f64, &hhv);
        }
        whole.apply(&v, &mut hv)?;
        whole.apply(&hv, &mut hhv)?;
        add(-1.0, &hhv);
        Ok(())
    };
    top(&mut lanczos::from_fn(mlp.parameters().count(), apply)).max(0.0).sqrt()
}

pub(crate) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = values.into_iter().fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count)
}
