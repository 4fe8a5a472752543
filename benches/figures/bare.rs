//! What a step is measured against: its bare BLAS calls, with nothing between them, and the
//! machine's peak of multiply–adds.

#![allow(unsafe_code, reason = "calls C, and the vector instructions whose speed is asked for")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use cblas_sys::{
    CBLAS_LAYOUT, CBLAS_TRANSPOSE, cblas_dgemm, cblas_dgemv, cblas_dger, cblas_sgemm, cblas_sgemv, cblas_sger,
};
use gemmprop::Scalar;

const ROWS: CBLAS_LAYOUT = CBLAS_LAYOUT::CblasRowMajor;
const N: CBLAS_TRANSPOSE = CBLAS_TRANSPOSE::CblasNoTrans;
const T: CBLAS_TRANSPOSE = CBLAS_TRANSPOSE::CblasTrans;

unsafe extern "C" {
    fn openblas_set_num_threads(threads: i32);
    fn openblas_get_num_threads() -> i32;
}

/// Runs `work` with this number of BLAS threads, and restores the number.
pub(crate) fn with_blas_threads<R>(threads: i32, work: impl FnOnce() -> R) -> R {
    // SAFETY: both take and give numbers.
    let before = unsafe { openblas_get_num_threads() };
    // SAFETY: as above.
    unsafe { openblas_set_num_threads(threads) };
    let result = work();
    // SAFETY: as above.
    unsafe { openblas_set_num_threads(before) };
    result
}

/// The buffers of a step: z and δ of all layers, (batch, d), and w, (d above, d).
pub(crate) struct Bare<F> {
    widths: Vec<usize>,
    batch: usize,
    z: Vec<Vec<F>>,
    delta: Vec<Vec<F>>,
    w: Vec<Vec<F>>,
}

/// A number type, its BLAS calls, and its widest vectors.
pub(crate) trait BareScalar: Scalar {
    const DTYPE: &'static str;
    /// The calls of a forward pass: Z wᵀ, or w z for one sample.
    fn forward(bare: &mut Bare<Self>);
    /// The calls of one step: forward, backward Δ w, and w ← w + a Δᵀ Z, the shapes and transposes
    /// of the engine's. A product with a vector is a gemv, the update of one sample a ger.
    fn step(bare: &mut Bare<Self>);
    /// GFLOP/s of as many threads that do nothing but multiply and add in registers, in the widest
    /// vectors of the CPU, which are those of the native kernels; a multiply–add counts 2.
    fn peak_gflops(threads: usize) -> f64;
}

impl<F: Scalar> Bare<F> {
    pub(crate) fn new(widths: &[usize], batch: usize) -> Self {
        let numbers = |len: usize, size: f64| {
            (0..len).map(|i| F::from_f64(size * ((i * 7919 % 1000) as f64 / 500.0 - 1.0))).collect::<Vec<F>>()
        };
        Self {
            widths: widths.to_vec(),
            batch,
            z: widths.iter().map(|d| numbers(d * batch, 1.0)).collect(),
            delta: widths.iter().map(|d| numbers(d * batch, 1.0)).collect(),
            // As small as keeps the activations of the next calls where they are.
            w: widths.windows(2).map(|d| numbers(d[0] * d[1], (3.0 / d[0] as f64).sqrt())).collect(),
        }
    }
}

macro_rules! bare_scalar {
    (
        $f:ident, $dtype:literal, $gemm:ident, $gemv:ident, $ger:ident,
        $set512:ident, $fma512:ident, $set256:ident, $fma256:ident
    ) => {
        impl BareScalar for $f {
            const DTYPE: &'static str = $dtype;

            fn forward(bare: &mut Bare<$f>) {
                let (batch, layers) = (bare.batch as i32, bare.widths.len() - 1);
                let d = |t: usize| bare.widths[t] as i32;
                for t in 0..layers {
                    let (z, w, u) = (bare.z[t].as_ptr(), bare.w[t].as_ptr(), bare.z[t + 1].as_mut_ptr());
                    // SAFETY: each matrix has the rows and columns that `new` gave it, lying row by
                    // row without gaps.
                    unsafe {
                        if batch == 1 {
                            $gemv(ROWS, N, d(t + 1), d(t), 1.0, w, d(t), z, 1, 0.0, u, 1);
                        } else if d(t + 1) == 1 {
                            $gemv(ROWS, N, batch, d(t), 1.0, z, d(t), w, 1, 0.0, u, 1);
                        } else {
                            $gemm(ROWS, N, T, batch, d(t + 1), d(t), 1.0, z, d(t), w, d(t), 0.0, u, d(t + 1));
                        }
                    }
                }
            }

            fn step(bare: &mut Bare<$f>) {
                Self::forward(bare);
                let (batch, layers) = (bare.batch as i32, bare.widths.len() - 1);
                let d = |t: usize| bare.widths[t] as i32;
                for t in (1..layers).rev() {
                    let (above, w) = (bare.delta[t + 1].as_ptr(), bare.w[t].as_ptr());
                    let delta = bare.delta[t].as_mut_ptr();
                    // SAFETY: as above.
                    unsafe {
                        if batch == 1 {
                            $gemv(ROWS, T, d(t + 1), d(t), 1.0, w, d(t), above, 1, 0.0, delta, 1);
                        } else {
                            $gemm(ROWS, N, N, batch, d(t), d(t + 1), 1.0, above, d(t + 1), w, d(t), 0.0, delta, d(t));
                        }
                    }
                }
                // So small that the weights stay what they are.
                let a = -1e-30;
                for t in 0..layers {
                    let (delta, z, w) = (bare.delta[t + 1].as_ptr(), bare.z[t].as_ptr(), bare.w[t].as_mut_ptr());
                    // SAFETY: as above.
                    unsafe {
                        if batch == 1 {
                            $ger(ROWS, d(t + 1), d(t), a, delta, 1, z, 1, w, d(t));
                        } else if d(t + 1) == 1 {
                            $gemv(ROWS, T, batch, d(t), a, z, d(t), delta, 1, 1.0, w, 1);
                        } else {
                            $gemm(ROWS, T, N, d(t + 1), d(t), batch, a, delta, d(t + 1), z, d(t), 1.0, w, d(t));
                        }
                    }
                }
            }

            fn peak_gflops(threads: usize) -> f64 {
                #[cfg(target_arch = "x86_64")]
                {
                    use std::arch::x86_64::*;
                    #[target_feature(enable = "avx512f")]
                    fn avx512(rounds: usize) {
                        let (a, b) = ($set512(0.5), $set512(0.25));
                        let mut sums = [$set512(1.0); CHAINS];
                        for _ in 0..rounds {
                            for sum in &mut sums {
                                *sum = $fma512(*sum, a, b);
                            }
                        }
                        black_box(sums);
                    }
                    #[target_feature(enable = "avx2,fma")]
                    fn avx2(rounds: usize) {
                        let (a, b) = ($set256(0.5), $set256(0.25));
                        let mut sums = [$set256(1.0); CHAINS];
                        for _ in 0..rounds {
                            for sum in &mut sums {
                                *sum = $fma256(*sum, a, b);
                            }
                        }
                        black_box(sums);
                    }
                    if std::arch::is_x86_feature_detected!("avx512f") {
                        // SAFETY: the machine has AVX-512.
                        return gflops(threads, 64 / size_of::<$f>(), |rounds| unsafe { avx512(rounds) });
                    }
                    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                        // SAFETY: the machine has AVX2 and FMA.
                        return gflops(threads, 32 / size_of::<$f>(), |rounds| unsafe { avx2(rounds) });
                    }
                }
                // Elsewhere what the compiler makes of it, with vectors of 16 bytes.
                const LANES: usize = 16 / size_of::<$f>();
                gflops(threads, LANES, |rounds| {
                    let mut sums = [[1.0; LANES]; CHAINS];
                    for _ in 0..rounds {
                        for sum in sums.iter_mut().flatten() {
                            *sum = $f::mul_add(*sum, 0.5, 0.25);
                        }
                    }
                    black_box(sums);
                })
            }
        }
    };
}

bare_scalar!(
    f32,
    "f32",
    cblas_sgemm,
    cblas_sgemv,
    cblas_sger,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps
);
bare_scalar!(
    f64,
    "f64",
    cblas_dgemm,
    cblas_dgemv,
    cblas_dger,
    _mm512_set1_pd,
    _mm512_fmadd_pd,
    _mm256_set1_pd,
    _mm256_fmadd_pd
);

/// Independent multiply–adds under way at once: more than latency × units of any core today, and
/// fewer than registers.
const CHAINS: usize = 12;

/// The best of some measurements: a peak is what nothing else disturbed.
fn gflops(threads: usize, lanes: usize, work: impl Fn(usize) + Sync) -> f64 {
    let rounds = 1_000_000;
    let barrier = Barrier::new(threads);
    let on_a_thread = || {
        // A virtual machine's second core takes milliseconds to wake up.
        work(rounds);
        let time = |_| {
            barrier.wait();
            let start = Instant::now();
            work(rounds);
            start.elapsed().as_secs_f64()
        };
        (0..5).map(time).collect::<Vec<_>>()
    };
    let of_threads = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(on_a_thread)).collect();
        running.into_iter().map(|thread| thread.join().expect("it only computes")).collect::<Vec<_>>()
    });
    // All threads took part in a measurement, which the slowest ended.
    let slowest = |i: usize| of_threads.iter().map(|seconds| seconds[i]).fold(0.0, f64::max);
    let best = (0..5).map(slowest).fold(f64::INFINITY, f64::min);
    (2 * rounds * CHAINS * lanes * threads) as f64 / best / 1e9
}
