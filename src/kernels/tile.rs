//! The tile: a few rows and vectors of C, kept in registers while A and B stream by.
//!
//! ```text
//! for each k:                          b[v] = B[k, columns of vector v]      one load for each v
//!     for each row i of the tile:      a = A[i, k] in all lanes              one broadcast
//!         for each vector v:           acc[i][v] = fma(a, b[v], acc[i][v])
//! ```
//!
//! Each accumulator holds as many chains as it has lanes, so what a number comes to does not depend
//! on the shape of the tile. The shape decides the speed: rows × vectors independent chains have to
//! cover the latency of an FMA (4 cycles, 2 a cycle), and fit into the registers beside b and a.

#![allow(unsafe_code)]

use crate::kernels::number::Number;

/// A vector extension of a CPU: how registers of numbers are loaded, multiplied and stored.
///
/// # Safety
/// All functions require a CPU with the extension. Pointers must be valid for what is said of each.
pub(crate) trait Extension<F: Number>: 'static {
    /// A register.
    type Vector: Copy;
    /// How many numbers it holds: a line is a whole number of vectors.
    const WIDTH: usize;

    /// The number of vectors beside each other that a tile of so many rows has at best, if `left`
    /// vectors are left of C. It may be more than `left` as far as the last panel is padded.
    fn vectors(rows: usize, left: usize) -> usize;
    /// The largest number of rows of a tile with so many vectors beside each other.
    fn most_rows(vectors: usize) -> usize;
    /// Multiplies a tile of one of the shapes above: [`tile`], compiled for the extension.
    unsafe fn tile<const ALONG_COLUMNS: bool>(rows: usize, vectors: usize, operands: &Operands<F>);

    /// All lanes 0.
    unsafe fn zero() -> Self::Vector;
    /// The number at `a` in all lanes.
    unsafe fn broadcast(a: *const F) -> Self::Vector;
    /// The numbers from `a` on.
    unsafe fn load(a: *const F) -> Self::Vector;
    /// Writes the lanes to `a` and behind.
    unsafe fn store(a: *mut F, v: Self::Vector);
    /// a b + c, rounded once.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// +0 where u ≤ 0, and u elsewhere: NaN stays.
    unsafe fn relu(u: Self::Vector) -> Self::Vector;
    /// a where z > 0, and +0 elsewhere.
    unsafe fn masked(a: Self::Vector, z: Self::Vector) -> Self::Vector;
    /// Transposes a square of LINE lines.
    unsafe fn transpose(from: *const F::Line, to: *mut F::Line);
}

/// Where the chains of a tile start.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TileStart<F> {
    Zero,
    /// At what C holds.
    C,
    /// At one number for each row.
    Rows(*const F),
    /// At a line of numbers for each panel.
    Columns(*const F),
}

/// What becomes of the sums.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TileEnd<F> {
    /// C = sum
    Store,
    /// C = ReLU(sum)
    Relu,
    /// C = sum where the number at the same place of Z is positive, else 0. With the numbers from
    /// one panel of Z to the next.
    Mask(*const F, usize),
    /// C = β C + sum
    AddTo(F),
    /// C = C + sum
    Add,
}

/// What a tile reads and writes: pointers to its first numbers.
#[derive(Debug)]
pub(crate) struct Operands<F> {
    /// The number of k.
    pub(crate) depth: usize,
    pub(crate) a: *const F,
    /// Numbers from one panel of A to the next. (Along its columns a tile stays in one panel.)
    pub(crate) a_stride: usize,
    pub(crate) b: *const F,
    /// Numbers from one panel of B to the next.
    pub(crate) b_stride: usize,
    pub(crate) c: *mut F,
    /// Numbers from one panel of C to the next.
    pub(crate) c_stride: usize,
    pub(crate) start: TileStart<F>,
    pub(crate) end: TileEnd<F>,
}

impl<F: Number> Operands<F> {
    /// Moves on by a number of rows, which are so many numbers of A.
    #[inline(always)]
    pub(crate) fn advance(&mut self, rows: usize, of_a: usize) {
        let lines = rows * F::LINE;
        self.a = self.a.wrapping_add(of_a);
        self.c = self.c.wrapping_add(lines);
        if let TileStart::Rows(bias) = &mut self.start {
            *bias = bias.wrapping_add(rows);
        }
        if let TileEnd::Mask(z, _) = &mut self.end {
            *z = z.wrapping_add(lines);
        }
    }
}

/// The distance of vector v from the first one of its row, with so many numbers from one panel to
/// the next.
#[inline(always)]
fn offset<F: Number, E: Extension<F>>(v: usize, stride: usize) -> usize {
    let in_line = F::LINE / E::WIDTH;
    v / in_line * stride + v % in_line * E::WIDTH
}

/// Multiplies a tile of ROWS × VECTORS. A is read along its rows, a line of k at a time; or along
/// its columns, where the rows of the tile are neighbours in one line for each k.
///
/// # Safety
/// The CPU has the extension; the operands cover the tile's rows, vectors and k.
#[inline(always)]
pub(crate) unsafe fn tile<F, E, const ROWS: usize, const VECTORS: usize, const ALONG_COLUMNS: bool>(o: &Operands<F>)
where
    F: Number,
    E: Extension<F>,
{
    // SAFETY: the caller's.
    unsafe {
        let mut acc = start::<F, E, ROWS, VECTORS>(o);
        let (mut a, mut b) = (o.a, o.b);
        let (a_row, a_k) = if ALONG_COLUMNS { (1, F::LINE) } else { (F::LINE, 1) };
        // A line of k at a time, unrolled.
        for _ in 0..o.depth / F::LINE {
            for k in 0..F::LINE {
                step::<F, E, ROWS, VECTORS>(&mut acc, a.add(k * a_k), a_row, b.add(k * F::LINE), o.b_stride);
            }
            a = a.wrapping_add(if ALONG_COLUMNS { F::LINE * F::LINE } else { o.a_stride });
            b = b.wrapping_add(F::LINE * F::LINE);
        }
        for k in 0..o.depth % F::LINE {
            step::<F, E, ROWS, VECTORS>(&mut acc, a.add(k * a_k), a_row, b.add(k * F::LINE), o.b_stride);
        }
        end::<F, E, ROWS, VECTORS>(o, acc);
    }
}

/// One k of a tile.
#[inline(always)]
unsafe fn step<F: Number, E: Extension<F>, const ROWS: usize, const VECTORS: usize>(
    acc: &mut [[E::Vector; VECTORS]; ROWS],
    a: *const F,
    a_row: usize,
    b: *const F,
    b_stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut b_k = [E::zero(); VECTORS];
        for (v, b_k) in b_k.iter_mut().enumerate() {
            *b_k = E::load(b.add(offset::<F, E>(v, b_stride)));
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let a = E::broadcast(a.add(i * a_row));
            for (acc, b) in acc.iter_mut().zip(b_k) {
                *acc = E::mul_add(a, b, *acc);
            }
        }
    }
}

#[inline(always)]
unsafe fn start<F: Number, E: Extension<F>, const ROWS: usize, const VECTORS: usize>(
    o: &Operands<F>,
) -> [[E::Vector; VECTORS]; ROWS] {
    // SAFETY: the caller's.
    unsafe {
        let mut acc = [[E::zero(); VECTORS]; ROWS];
        match o.start {
            TileStart::Zero => {}
            TileStart::C => {
                for (i, acc) in acc.iter_mut().enumerate() {
                    for (v, acc) in acc.iter_mut().enumerate() {
                        *acc = E::load(o.c.add(i * F::LINE + offset::<F, E>(v, o.c_stride)));
                    }
                }
            }
            TileStart::Rows(bias) => {
                for (i, acc) in acc.iter_mut().enumerate() {
                    *acc = [E::broadcast(bias.add(i)); VECTORS];
                }
            }
            TileStart::Columns(bias) => {
                for acc in &mut acc {
                    for (v, acc) in acc.iter_mut().enumerate() {
                        *acc = E::load(bias.add(offset::<F, E>(v, F::LINE)));
                    }
                }
            }
        }
        acc
    }
}

#[inline(always)]
unsafe fn end<F: Number, E: Extension<F>, const ROWS: usize, const VECTORS: usize>(
    o: &Operands<F>,
    acc: [[E::Vector; VECTORS]; ROWS],
) {
    // SAFETY: the caller's.
    unsafe {
        match o.end {
            TileEnd::Store => write::<F, E, ROWS, VECTORS>(o, acc, |sum, _, _, _| sum),
            TileEnd::Relu => write::<F, E, ROWS, VECTORS>(o, acc, |sum, _, _, _| E::relu(sum)),
            TileEnd::Mask(z, stride) => write::<F, E, ROWS, VECTORS>(o, acc, |sum, _, i, v| {
                E::masked(sum, E::load(z.add(i * F::LINE + offset::<F, E>(v, stride))))
            }),
            TileEnd::AddTo(beta) => {
                let beta = E::broadcast(&raw const beta);
                write::<F, E, ROWS, VECTORS>(o, acc, |sum, c, _, _| E::add(E::mul(beta, E::load(c)), sum));
            }
            TileEnd::Add => write::<F, E, ROWS, VECTORS>(o, acc, |sum, c, _, _| E::add(E::load(c), sum)),
        }
    }
}

/// Writes `value(sum, where it goes, row, vector)`.
#[inline(always)]
unsafe fn write<F: Number, E: Extension<F>, const ROWS: usize, const VECTORS: usize>(
    o: &Operands<F>,
    acc: [[E::Vector; VECTORS]; ROWS],
    value: impl Fn(E::Vector, *const F, usize, usize) -> E::Vector,
) {
    for (i, acc) in acc.into_iter().enumerate() {
        for (v, sum) in acc.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe {
                let c = o.c.add(i * F::LINE + offset::<F, E>(v, o.c_stride));
                E::store(c, value(sum, c, i, v));
            }
        }
    }
}

/// Implements [`Extension`] for a number type by functions of one kind of vector. Those from
/// `$splat`, which puts a number in all lanes, to `$transpose` have the meaning and the order of the
/// trait's; `$vectors` and `$most_rows` choose among `$shapes`, which are as in [`tiles!`].
macro_rules! extension {
    ($extension:ident, $features:literal, $width:literal $f:ty: $vector:ty, $splat:ident $load:ident $store:ident
        $mul_add:ident $mul:ident $add:ident $relu:ident $masked:ident $transpose:ident,
        $vectors:ident $most_rows:ident { $($shapes:tt)+ }) => {
        const _: () = {
            use crate::kernels::number::Number;
            use crate::kernels::tile::{Extension, Operands, tile, tiles};

            #[target_feature(enable = $features)]
            unsafe fn compiled<const ROWS: usize, const VECTORS: usize, const ALONG_COLUMNS: bool>(o: &Operands<$f>) {
                // SAFETY: the caller's, with the extension enabled.
                unsafe { tile::<$f, $extension, ROWS, VECTORS, ALONG_COLUMNS>(o) }
            }

            impl Extension<$f> for $extension {
                type Vector = $vector;
                const WIDTH: usize = $width;

                fn vectors(rows: usize, left: usize) -> usize {
                    $vectors(rows, left)
                }

                fn most_rows(vectors: usize) -> usize {
                    $most_rows(vectors)
                }

                #[inline(always)]
                unsafe fn tile<const ALONG_COLUMNS: bool>(rows: usize, vectors: usize, o: &Operands<$f>) {
                    // SAFETY: the caller's.
                    unsafe { tiles!(compiled, ALONG_COLUMNS, (rows, vectors, o); $($shapes)+) }
                }

                #[inline(always)]
                unsafe fn zero() -> $vector {
                    // SAFETY: the trait's.
                    unsafe { $splat(0.0) }
                }
                #[inline(always)]
                unsafe fn broadcast(a: *const $f) -> $vector {
                    // SAFETY: the trait's.
                    unsafe { $splat(*a) }
                }
                #[inline(always)]
                unsafe fn load(a: *const $f) -> $vector {
                    // SAFETY: the trait's.
                    unsafe { $load(a) }
                }
                #[inline(always)]
                unsafe fn store(a: *mut $f, v: $vector) {
                    // SAFETY: the trait's.
                    unsafe { $store(a, v) }
                }
                #[inline(always)]
                unsafe fn mul_add(a: $vector, b: $vector, c: $vector) -> $vector {
                    // SAFETY: the trait's.
                    unsafe { $mul_add(a, b, c) }
                }
                #[inline(always)]
                unsafe fn mul(a: $vector, b: $vector) -> $vector {
                    // SAFETY: the trait's.
                    unsafe { $mul(a, b) }
                }
                #[inline(always)]
                unsafe fn add(a: $vector, b: $vector) -> $vector {
                    // SAFETY: the trait's.
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn relu(u: $vector) -> $vector {
                    // SAFETY: the trait's.
                    unsafe { $relu(u) }
                }
                #[inline(always)]
                unsafe fn masked(a: $vector, z: $vector) -> $vector {
                    // SAFETY: the trait's.
                    unsafe { $masked(a, z) }
                }
                #[inline(always)]
                unsafe fn transpose(from: *const <$f as Number>::Line, to: *mut <$f as Number>::Line) {
                    // SAFETY: the trait's.
                    unsafe { $transpose(from.cast(), to.cast()) }
                }
            }
        };
    };
}

/// The `match` from the shape of a tile to its function: `tiles!(function, ALONG_COLUMNS, (rows,
/// vectors, operands); 2: 1 2 3; …)` has tiles with 2 vectors beside each other of 1, 2 or 3 rows.
macro_rules! tiles {
    ($tile:ident, $along:ident, ($rows:expr, $shape:expr, $operands:expr); $($vectors:literal: $($height:literal)+;)+) => {
        match ($shape, $rows) {
            $($(($vectors, $height) => $tile::<$height, $vectors, $along>($operands),)+)+
            (vectors, rows) => unreachable!("a tile of {rows} rows and {vectors} vectors"),
        }
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use {extension, tiles};
