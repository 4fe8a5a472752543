//! AVX2 and FMA: 16 registers of 8 `f32` or 4 `f64`, two of which make a line.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::kernels::tile::extension;

/// See the head of this file.
pub(crate) struct Avx2;

/// The vectors of a tile: a line for 4 rows or more, and several panels for fewer rows, which would
/// not cover the latency otherwise.
fn vectors(rows: usize, left: usize) -> usize {
    match (rows, left) {
        (_, 1) => 1,
        (1, 8..) => 8,
        (1..=3, 4..) => 4,
        _ => 2,
    }
}

/// Rows × vectors accumulators; the vectors of b or, if there are fewer rows, those of a; and one
/// of the other are at most 16 registers.
const MOST_ROWS: [usize; 4] = [12, 6, 3, 1];

extension!(Avx2, "avx2,fma", 8 f32: __m256, _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps
    _mm256_fmadd_ps _mm256_mul_ps _mm256_add_ps relu_f32 masked_f32 transpose_f32,
    vectors MOST_ROWS);
extension!(Avx2, "avx2,fma", 4 f64: __m256d, _mm256_set1_pd _mm256_loadu_pd _mm256_storeu_pd
    _mm256_fmadd_pd _mm256_mul_pd _mm256_add_pd relu_f64 masked_f64 transpose_f64,
    vectors MOST_ROWS);

#[inline]
#[target_feature(enable = "avx2,fma")]
fn relu_f32(u: __m256) -> __m256 {
    _mm256_and_ps(u, _mm256_cmp_ps::<_CMP_NLE_UQ>(u, _mm256_setzero_ps()))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn relu_f64(u: __m256d) -> __m256d {
    _mm256_and_pd(u, _mm256_cmp_pd::<_CMP_NLE_UQ>(u, _mm256_setzero_pd()))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn masked_f32(a: __m256, z: __m256) -> __m256 {
    _mm256_and_ps(a, _mm256_cmp_ps::<_CMP_GT_OQ>(z, _mm256_setzero_ps()))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn masked_f64(a: __m256d, z: __m256d) -> __m256d {
    _mm256_and_pd(a, _mm256_cmp_pd::<_CMP_GT_OQ>(z, _mm256_setzero_pd()))
}

/// 16 lines of 16 numbers, as four squares of 8.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn transpose_f32(from: *const f32, to: *mut f32) {
    for (row, column) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        // SAFETY: both have 16 lines of 16 numbers.
        unsafe {
            let square = transposed_8(std::array::from_fn(|i| _mm256_loadu_ps(from.add((row + i) * 16 + column))));
            for (i, line) in square.into_iter().enumerate() {
                _mm256_storeu_ps(to.add((column + i) * 16 + row), line);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn transposed_8(r: [__m256; 8]) -> [__m256; 8] {
    // Pairs of rows, then fours, then both halves.
    let pairs = |i: usize| (_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i], r[i + 1]));
    let fours = |a, b| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xEE>(a, b));
    let ((a0, a1), (b0, b1), (c0, c1), (d0, d1)) = (pairs(0), pairs(2), pairs(4), pairs(6));
    let ((e0, e1), (e2, e3), (f0, f1), (f2, f3)) = (fours(a0, b0), fours(a1, b1), fours(c0, d0), fours(c1, d1));
    let low = |a, b| _mm256_permute2f128_ps::<0x20>(a, b);
    let high = |a, b| _mm256_permute2f128_ps::<0x31>(a, b);
    [low(e0, f0), low(e1, f1), low(e2, f2), low(e3, f3), high(e0, f0), high(e1, f1), high(e2, f2), high(e3, f3)]
}

/// 8 lines of 8 numbers, as four squares of 4.
#[target_feature(enable = "avx2,fma")]
pub(crate) unsafe fn transpose_f64(from: *const f64, to: *mut f64) {
    for (row, column) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
        // SAFETY: both have 8 lines of 8 numbers.
        unsafe {
            let square = transposed_4(std::array::from_fn(|i| _mm256_loadu_pd(from.add((row + i) * 8 + column))));
            for (i, line) in square.into_iter().enumerate() {
                _mm256_storeu_pd(to.add((column + i) * 8 + row), line);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn transposed_4(r: [__m256d; 4]) -> [__m256d; 4] {
    let pairs = |i: usize| (_mm256_unpacklo_pd(r[i], r[i + 1]), _mm256_unpackhi_pd(r[i], r[i + 1]));
    let ((a0, a1), (b0, b1)) = (pairs(0), pairs(2));
    let low = |a, b| _mm256_permute2f128_pd::<0x20>(a, b);
    let high = |a, b| _mm256_permute2f128_pd::<0x31>(a, b);
    [low(a0, b0), low(a1, b1), high(a0, b0), high(a1, b1)]
}
