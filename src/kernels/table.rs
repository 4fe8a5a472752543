//! The kernels of each vector extension, and the choice of one.
//!
//! The best that the CPU has is chosen at the first call. The environment variable
//! `GEMMPROP_KERNELS` (`portable`, `avx2`, `avx512`, `neon`) asks for another one, for tests: the
//! bits are the same. A name that this CPU does not have is refused with a panic.

#![allow(unsafe_code)]

use std::sync::LazyLock;

use crate::kernels::number::Number;
use crate::kernels::panels::{PanelsMut, PanelsRef};
use crate::kernels::portable;
use crate::kernels::product::Product;

/// The kernels of a vector extension for a number type.
///
/// All of them need a CPU with the extension, which [`HasKernels::kernels`] has made sure of.
#[derive(Debug)]
pub struct Table<F: Number> {
    pub(crate) name: &'static str,
    pub(crate) product: unsafe fn(&mut Product<F>),
    pub(crate) transpose: unsafe fn(PanelsRef<F>, PanelsMut<F>),
    pub(crate) bias_sums: unsafe fn(PanelsRef<F>, &mut [F::Line]),
    pub(crate) squares: unsafe fn(PanelsRef<F>) -> f64,
}

impl<F: Number> Table<F> {
    /// See [`Product`].
    #[inline]
    pub(crate) fn product(&self, mut product: Product<F>) {
        // SAFETY: a table that can be had is one that the CPU can run.
        unsafe { (self.product)(&mut product) }
    }

    /// `to` = `from`ᵀ, with the padding.
    #[inline]
    pub(crate) fn transpose(&self, from: PanelsRef<F>, to: PanelsMut<F>) {
        // SAFETY: as above.
        unsafe { (self.transpose)(from, to) }
    }

    /// `sums` = the sums of the columns.
    #[inline]
    pub(crate) fn bias_sums(&self, columns: PanelsRef<F>, sums: &mut [F::Line]) {
        // SAFETY: as above.
        unsafe { (self.bias_sums)(columns, sums) }
    }

    /// Σ a², to serve for bounds.
    #[inline]
    pub(crate) fn squares(&self, of: PanelsRef<F>) -> f64 {
        // SAFETY: as above.
        unsafe { (self.squares)(of) }
    }
}

/// A number type with kernels.
pub trait HasKernels: Number {
    /// The kernels that this CPU runs.
    fn kernels() -> &'static Table<Self>;
}

/// The vector extensions, each better than the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Choice {
    /// All that this CPU has, with the names of the environment variable.
    fn available() -> Vec<(&'static str, Self)> {
        let mut available = vec![("portable", Self::Portable)];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            available.push(("avx2", Self::Avx2));
        }
        available
    }

    fn best() -> Self {
        let available = Self::available();
        match std::env::var("GEMMPROP_KERNELS") {
            Err(_) => available[available.len() - 1].1,
            Ok(asked) => match available.iter().find(|(name, _)| *name == asked) {
                Some((_, choice)) => *choice,
                None => {
                    let names: Vec<_> = available.iter().map(|(name, _)| *name).collect();
                    panic!("GEMMPROP_KERNELS={asked}: this CPU has {}", names.join(", "))
                }
            },
        }
    }
}

/// The extension that this process computes with.
static CHOICE: LazyLock<Choice> = LazyLock::new(Choice::best);

macro_rules! has_kernels {
    ($f:ty, $table:ident) => {
        impl HasKernels for $f {
            fn kernels() -> &'static Table<$f> {
                static PORTABLE: Table<$f> = portable::table();
                match *CHOICE {
                    Choice::Portable => &PORTABLE,
                    #[cfg(target_arch = "x86_64")]
                    Choice::Avx2 => &crate::kernels::avx2::$table,
                }
            }
        }
    };
}

has_kernels!(f32, TABLE_F32);
has_kernels!(f64, TABLE_F64);

/// Makes the tables of an extension: its functions, compiled for its features.
macro_rules! table {
    ($extension:ident, $name:literal, $features:literal, $($table:ident: $f:ty),+) => {
        $(
            pub(crate) static $table: crate::kernels::table::Table<$f> = {
                #[target_feature(enable = $features)]
                unsafe fn product(product: &mut crate::kernels::product::Product<$f>) {
                    // SAFETY: the caller's, with the extension enabled.
                    unsafe { crate::kernels::product::run::<$f, $extension>(product) }
                }
                #[target_feature(enable = $features)]
                unsafe fn transpose(
                    from: crate::kernels::panels::PanelsRef<$f>,
                    to: crate::kernels::panels::PanelsMut<$f>,
                ) {
                    // SAFETY: as above.
                    unsafe { crate::kernels::product::transpose::<$f, $extension>(from, to) }
                }
                #[target_feature(enable = $features)]
                unsafe fn bias_sums(
                    columns: crate::kernels::panels::PanelsRef<$f>,
                    sums: &mut [<$f as crate::kernels::number::Number>::Line],
                ) {
                    // SAFETY: as above.
                    unsafe { crate::kernels::sums::bias_sums::<$f, $extension>(columns, sums) }
                }
                #[target_feature(enable = $features)]
                unsafe fn squares(of: crate::kernels::panels::PanelsRef<$f>) -> f64 {
                    // SAFETY: as above.
                    unsafe { crate::kernels::sums::squares::<$f, $extension>(of) }
                }
                crate::kernels::table::Table { name: $name, product, transpose, bias_sums, squares }
            };
        )+
    };
}

#[cfg(target_arch = "x86_64")]
pub(crate) use table;
