//! AVX-512F: 32 registers of 16 `f32` or 8 `f64`, each of which is a line.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use crate::kernels::avx2::{transpose_f32, transpose_f64};
use crate::kernels::tile::extension;

/// See the head of this file.
pub(crate) struct Avx512;

/// The vectors of a tile: two panels, and more of them for fewer than 4 rows, which would not cover
/// the latency otherwise.
fn vectors(rows: usize, left: usize) -> usize {
    match (rows, left) {
        (_, 1) => 1,
        (1, 8..) => 8,
        (1..=3, 4..) => 4,
        _ => 2,
    }
}

/// Rows × vectors accumulators: at most 24 of the 32 registers. A lower tile beside the last panel
/// would not read fewer numbers for each FMA, but more than 12 rows of it would not either.
fn most_rows(vectors: usize) -> usize {
    match vectors {
        1 | 2 => 12,
        4 => 3,
        _ => 1,
    }
}

extension!(Avx512, "avx512f", 16 f32: __m512, _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps
    _mm512_fmadd_ps _mm512_mul_ps _mm512_add_ps relu_f32 masked_f32 transpose_f32,
    vectors most_rows { 1: 1 2 3 4 5 6 7 8 9 10 11 12; 2: 1 2 3 4 5 6 7 8 9 10 11 12; 4: 1 2 3; 8: 1; });
extension!(Avx512, "avx512f", 8 f64: __m512d, _mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd
    _mm512_fmadd_pd _mm512_mul_pd _mm512_add_pd relu_f64 masked_f64 transpose_f64,
    vectors most_rows { 1: 1 2 3 4 5 6 7 8 9 10 11 12; 2: 1 2 3 4 5 6 7 8 9 10 11 12; 4: 1 2 3; 8: 1; });

#[inline]
#[target_feature(enable = "avx512f")]
fn relu_f32(u: __m512) -> __m512 {
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(u, _mm512_setzero_ps()), u)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn relu_f64(u: __m512d) -> __m512d {
    _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_NLE_UQ>(u, _mm512_setzero_pd()), u)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn masked_f32(a: __m512, z: __m512) -> __m512 {
    _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(z, _mm512_setzero_ps()), a)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn masked_f64(a: __m512d, z: __m512d) -> __m512d {
    _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(z, _mm512_setzero_pd()), a)
}
