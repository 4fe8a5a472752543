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

/// Rows × vectors accumulators: at most 24 of the 32 registers. With one vector there could be more
/// rows, but that would not save loads: each row has one FMA for its number of A.
const MOST_ROWS: [usize; 4] = [12, 12, 3, 1];

extension!(Avx512, "avx512f", 16 f32: __m512, _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps
    _mm512_fmadd_ps _mm512_mul_ps _mm512_add_ps relu_f32 masked_f32 transpose_f32,
    vectors MOST_ROWS);
extension!(Avx512, "avx512f", 8 f64: __m512d, _mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd
    _mm512_fmadd_pd _mm512_mul_pd _mm512_add_pd relu_f64 masked_f64 transpose_f64,
    vectors MOST_ROWS);

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
