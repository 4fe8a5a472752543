//! NEON: 32 registers of 4 `f32` or 2 `f64`, four of which make a line.

#![allow(unsafe_code)]

use std::arch::aarch64::*;

use crate::kernels::tile::extension;

/// See the head of this file.
pub(crate) struct Neon;

/// The vectors of a tile: a line, two for fewer than 4 rows, which would not cover the latency
/// otherwise, and less where the last panel has few columns.
fn vectors(rows: usize, left: usize) -> usize {
    match (rows, left) {
        (_, 1 | 2) => left,
        (1..=3, 7..) => 8,
        _ => 4,
    }
}

/// Rows × vectors accumulators: at most 24 of the 32 registers.
const MOST_ROWS: [usize; 4] = [12, 12, 6, 3];

extension!(Neon, "neon", 4 f32: float32x4_t, vdupq_n_f32 vld1q_f32 vst1q_f32
    mul_add_f32 vmulq_f32 vaddq_f32 relu_f32 masked_f32 transpose_f32,
    vectors MOST_ROWS);
extension!(Neon, "neon", 2 f64: float64x2_t, vdupq_n_f64 vld1q_f64 vst1q_f64
    mul_add_f64 vmulq_f64 vaddq_f64 relu_f64 masked_f64 transpose_f64,
    vectors MOST_ROWS);

#[inline]
#[target_feature(enable = "neon")]
fn mul_add_f32(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    vfmaq_f32(c, a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn mul_add_f64(a: float64x2_t, b: float64x2_t, c: float64x2_t) -> float64x2_t {
    vfmaq_f64(c, a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn relu_f32(u: float32x4_t) -> float32x4_t {
    let is_off = vcleq_f32(u, vdupq_n_f32(0.0));
    vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(u), is_off))
}

#[inline]
#[target_feature(enable = "neon")]
fn relu_f64(u: float64x2_t) -> float64x2_t {
    let is_off = vcleq_f64(u, vdupq_n_f64(0.0));
    vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(u), is_off))
}

#[inline]
#[target_feature(enable = "neon")]
fn masked_f32(a: float32x4_t, z: float32x4_t) -> float32x4_t {
    let is_on = vcgtq_f32(z, vdupq_n_f32(0.0));
    vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), is_on))
}

#[inline]
#[target_feature(enable = "neon")]
fn masked_f64(a: float64x2_t, z: float64x2_t) -> float64x2_t {
    let is_on = vcgtq_f64(z, vdupq_n_f64(0.0));
    vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(a), is_on))
}

/// 16 lines of 16 numbers, as squares of 4.
#[target_feature(enable = "neon")]
unsafe fn transpose_f32(from: *const f32, to: *mut f32) {
    for row in (0..16).step_by(4) {
        for column in (0..16).step_by(4) {
            // SAFETY: both have 16 lines of 16 numbers.
            unsafe {
                let square = transposed_4(std::array::from_fn(|i| vld1q_f32(from.add((row + i) * 16 + column))));
                for (i, line) in square.into_iter().enumerate() {
                    vst1q_f32(to.add((column + i) * 16 + row), line);
                }
            }
        }
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn transposed_4(r: [float32x4_t; 4]) -> [float32x4_t; 4] {
    let pairs = |i: usize| (vtrn1q_f32(r[i], r[i + 1]), vtrn2q_f32(r[i], r[i + 1]));
    let ((a0, a1), (b0, b1)) = (pairs(0), pairs(2));
    let wide = |r| vreinterpretq_f64_f32(r);
    let low = |a, b| vreinterpretq_f32_f64(vtrn1q_f64(wide(a), wide(b)));
    let high = |a, b| vreinterpretq_f32_f64(vtrn2q_f64(wide(a), wide(b)));
    [low(a0, b0), low(a1, b1), high(a0, b0), high(a1, b1)]
}

/// 8 lines of 8 numbers, as squares of 2.
#[target_feature(enable = "neon")]
unsafe fn transpose_f64(from: *const f64, to: *mut f64) {
    for row in (0..8).step_by(2) {
        for column in (0..8).step_by(2) {
            // SAFETY: both have 8 lines of 8 numbers.
            unsafe {
                let first = vld1q_f64(from.add(row * 8 + column));
                let second = vld1q_f64(from.add((row + 1) * 8 + column));
                vst1q_f64(to.add(column * 8 + row), vtrn1q_f64(first, second));
                vst1q_f64(to.add((column + 1) * 8 + row), vtrn2q_f64(first, second));
            }
        }
    }
}
