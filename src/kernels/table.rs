//! The kernels of each vector extension, and the choice of one.
//!
//! The best that the CPU has is chosen at the first call. The environment variable
//! `GEMMPROP_KERNELS` (`portable`, `avx2`, `avx512`, `neon`) asks for another one, for tests: the
//! bits are the same. A name that this CPU does not have is refused with a panic.

#![allow(unsafe_code)]

use std::sync::LazyLock;

use crate::kernels::number::Number;
use crate::kernels::operands::Product;
use crate::kernels::panels::{PanelsMut, PanelsRef};
use crate::kernels::portable::Portable;
use crate::kernels::product;
use crate::kernels::sums;

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

/// The vector extension whose kernels the native engine runs on this CPU: `avx512`, `avx2`, `neon`
/// or `portable`. For captions and bug reports.
#[must_use]
pub fn native_kernels() -> &'static str {
    f32::kernels().name
}

/// A number type with kernels.
pub trait HasKernels: Number {
    /// The kernels that this CPU runs.
    fn kernels() -> &'static Table<Self>;
}

/// The best of these, or the one that is asked for.
pub(crate) fn choose<F: Number>(all: &[&'static Table<F>], asked: Option<&str>) -> &'static Table<F> {
    match asked {
        None => all[all.len() - 1],
        Some(asked) => match all.iter().find(|table| table.name == asked) {
            Some(table) => table,
            None => {
                let names: Vec<_> = all.iter().map(|table| table.name).collect();
                panic!("GEMMPROP_KERNELS={asked}: this CPU has {}", names.join(", "))
            }
        },
    }
}

/// The name of the kernels for any CPU.
pub(crate) const PORTABLE: &str = "portable";

/// The kernels for any CPU and any number type.
pub(crate) const fn portable<F: Number>() -> Table<F> {
    Table {
        name: PORTABLE,
        product: product::run::<F, Portable>,
        transpose: product::transpose::<F, Portable>,
        bias_sums: sums::bias_sums::<F, Portable>,
        squares: sums::squares::<F, Portable>,
    }
}

/// The table of an extension: its functions, compiled for its features.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! table {
    ($extension:path, $name:literal, $features:literal, $f:ty) => {{
        #[target_feature(enable = $features)]
        unsafe fn product(product: &mut Product<$f>) {
            // SAFETY: the caller's, with the extension enabled.
            unsafe { product::run::<$f, $extension>(product) }
        }
        #[target_feature(enable = $features)]
        unsafe fn transpose(from: PanelsRef<$f>, to: PanelsMut<$f>) {
            // SAFETY: as above.
            unsafe { product::transpose::<$f, $extension>(from, to) }
        }
        #[target_feature(enable = $features)]
        unsafe fn bias_sums(columns: PanelsRef<$f>, sums: &mut [<$f as Number>::Line]) {
            // SAFETY: as above.
            unsafe { sums::bias_sums::<$f, $extension>(columns, sums) }
        }
        #[target_feature(enable = $features)]
        unsafe fn squares(of: PanelsRef<$f>) -> f64 {
            // SAFETY: as above.
            unsafe { sums::squares::<$f, $extension>(of) }
        }
        static TABLE: Table<$f> = Table { name: $name, product, transpose, bias_sums, squares };
        &TABLE
    }};
}

macro_rules! has_kernels {
    ($f:ty, $all:ident) => {
        /// All that this CPU runs, each better than the ones before it.
        pub(crate) fn $all() -> Vec<&'static Table<$f>> {
            static PORTABLE: Table<$f> = portable();
            let mut all = vec![&PORTABLE];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                all.push(table!(crate::kernels::avx2::Avx2, "avx2", "avx2,fma", $f));
                if is_x86_feature_detected!("avx512f") {
                    all.push(table!(crate::kernels::avx512::Avx512, "avx512", "avx512f", $f));
                }
            }
            #[cfg(target_arch = "aarch64")]
            if std::arch::is_aarch64_feature_detected!("neon") {
                all.push(table!(crate::kernels::neon::Neon, "neon", "neon", $f));
            }
            all
        }

        impl HasKernels for $f {
            #[inline]
            fn kernels() -> &'static Table<$f> {
                static CHOSEN: LazyLock<&Table<$f>> =
                    LazyLock::new(|| choose(&$all(), std::env::var("GEMMPROP_KERNELS").ok().as_deref()));
                *CHOSEN
            }
        }
    };
}

has_kernels!(f32, all_f32);
has_kernels!(f64, all_f64);
