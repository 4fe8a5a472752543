//! Loops of fused multiply-adds at the speed of the CPU's instruction for them.
//!
//! A program for x86-64 may run on a CPU without that instruction, so the compiler turns each
//! `mul_add` into a call of a function. Here such a loop is compiled a second time, with the
//! instruction, and runs that way on a CPU that has it, as those since Haswell (2013) and Zen
//! (2017) do. The bits are the same, since both round a b + c once. Other architectures need no
//! second copy: aarch64 always has the instruction.

#![allow(unsafe_code)]

/// Returns `work(arguments)`. For the second copy to exist in full, `work` is `#[inline(always)]`
/// and calls `mul_add` in its own loops.
pub(crate) fn fused<A, R>(work: impl Fn(A) -> R, arguments: A) -> R {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: this CPU has what the function is compiled for.
        return unsafe { with_instruction(work, arguments) };
    }
    work(arguments)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn with_instruction<A, R>(work: impl Fn(A) -> R, arguments: A) -> R {
    work(arguments)
}
