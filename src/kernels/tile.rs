//! The tile: a few rows and vectors of C, kept in registers while A and B stream by.
//!
//! ```text
//! for each k:                          b[v] = B[k, columns of vector v]      one load for each v
//!     for each row i of the tile:      a = A[i, k] in all lanes              one broadcast
//!         for each vector v:           acc[i][v] = fma(a, b[v], acc[i][v])
//! ```
//!
//! Each accumulator holds as many chains as it has lanes, so what a number comes to does not depend
//! on the shape of the tile. The shape decides the speed. rows × vectors accumulators, none of
//! which waits for another, have to cover the latency of an FMA: 4 cycles, in each of which 2 can
//! begin, so that 8 are the least. They have to fit into the registers beside b and a. And the
//! loads of each k, of which 2 begin in a cycle as well, have to be fewer than its FMAs.

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

    /// The largest number of rows of a tile with 1, 2, 4, … vectors beside each other.
    const MOST_ROWS: &[usize];

    /// The number of vectors beside each other, a power of 2, that a tile of so many rows has at
    /// best, if `left` vectors are left of C. It may be more than `left` as far as the last panel
    /// is padded.
    fn vectors(rows: usize, left: usize) -> usize;
    /// [`strip`], compiled for the extension and for this number of vectors.
    unsafe fn strip<const ALONG_COLUMNS: bool>(vectors: usize, rows: usize, operands: &Operands<F>);

    /// +0 in all lanes.
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

/// What a strip reads and writes, and then, what its tile at hand does: pointers to the first
/// numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands<F> {
    /// The number of k.
    pub(crate) depth: usize,
    pub(crate) a: *const F,
    /// Numbers from one panel of A to the next.
    pub(crate) a_stride: usize,
    pub(crate) b: *const F,
    /// Numbers from one panel of B to the next.
    pub(crate) b_stride: usize,
    pub(crate) c: *mut F,
    /// Numbers from one panel of C to the next.
    pub(crate) c_stride: usize,
    pub(crate) start: TileStart<F>,
    pub(crate) end: TileEnd<F>,
    /// A and B of the strip that comes next: while a tile is multiplied, the lines of later ones
    /// are asked for, since the caches' own guess is often too late, and far too late beside other
    /// programs.
    pub(crate) next_a: *const F,
    pub(crate) next_b: *const F,
    /// Lines of the next B that are asked for with each line of k, until all have been.
    pub(crate) ahead_b: usize,
    /// Lines of the next B that are still to be asked for.
    pub(crate) next_b_lines: usize,
}

/// How many lines ahead those of C are asked for where it is large and read before it is written.
const AHEAD_C: usize = 16;

impl<F: Number> Operands<F> {
    /// Moves on by a number of rows, which are so many numbers of A.
    #[inline(always)]
    fn advance(&mut self, rows: usize, of_a: usize) {
        let lines = rows * F::LINE;
        self.a = self.a.wrapping_add(of_a);
        self.c = self.c.wrapping_add(lines);
        let asked = self.ahead_b * (self.depth / F::LINE);
        self.next_b = self.next_b.wrapping_add(asked * F::LINE);
        self.next_b_lines = self.next_b_lines.saturating_sub(asked);
        if self.next_b_lines == 0 {
            self.ahead_b = 0;
        }
        if let TileStart::Rows(bias) = &mut self.start {
            *bias = bias.wrapping_add(rows);
        }
        if let TileEnd::Mask(z, _) = &mut self.end {
            *z = z.wrapping_add(lines);
        }
    }
}

/// Asks for the cache line at `a`, which need not be there. Does nothing where stable Rust has no
/// way to ask.
#[inline(always)]
fn prefetch<F>(a: *const F) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless, and every x86-64 CPU has the instruction.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(a.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = a;
}

/// The distance of vector v from the first one of its row, with so many numbers from one panel to
/// the next.
#[inline(always)]
fn offset<F: Number, E: Extension<F>>(v: usize, stride: usize) -> usize {
    let in_line = F::LINE / E::WIDTH;
    v / in_line * stride + v % in_line * E::WIDTH
}

/// Multiplies a strip of C: all rows, some vectors beside each other, and tile after tile.
///
/// # Safety
/// The CPU has the extension; the operands cover the rows, vectors and k.
#[inline(always)]
pub(crate) unsafe fn strip<F, E, const VECTORS: usize, const ALONG_COLUMNS: bool>(rows: usize, operands: &Operands<F>)
where
    F: Number,
    E: Extension<F>,
{
    // A copy can stay in registers.
    let mut o = *operands;
    // SAFETY: the caller's.
    unsafe {
        if !ALONG_COLUMNS {
            return tiles::<F, E, VECTORS, ALONG_COLUMNS>(&mut o, Heights::of::<F, E, VECTORS>(rows));
        }
        // A tile stays within a line of A.
        let whole = Heights::of::<F, E, VECTORS>(F::LINE);
        let mut line = o.a;
        for first in (0..rows).step_by(F::LINE) {
            let left = rows - first;
            let heights = if left >= F::LINE { whole } else { Heights::of::<F, E, VECTORS>(left) };
            o.a = line;
            tiles::<F, E, VECTORS, ALONG_COLUMNS>(&mut o, heights);
            line = line.wrapping_add(o.a_stride);
        }
    }
}

/// Rows shared out evenly over tiles, so that none is low.
#[derive(Clone, Copy)]
struct Heights {
    tiles: u32,
    low: u32,
    /// So many of the tiles, the first ones, have a row more.
    higher: u32,
}

impl Heights {
    #[inline(always)]
    fn of<F: Number, E: Extension<F>, const VECTORS: usize>(rows: usize) -> Self {
        // 32-bit divisions are several times faster, and this one is by a constant.
        let (rows, most) = (rows as u32, const { E::MOST_ROWS[VECTORS.ilog2() as usize] as u32 });
        let tiles = rows.div_ceil(most);
        if tiles <= 1 {
            Self { tiles, low: rows, higher: 0 }
        } else {
            Self { tiles, low: rows / tiles, higher: rows % tiles }
        }
    }
}

/// Multiplies tiles of these heights and moves the operands on behind them.
#[inline(always)]
unsafe fn tiles<F, E, const VECTORS: usize, const ALONG_COLUMNS: bool>(o: &mut Operands<F>, heights: Heights)
where
    F: Number,
    E: Extension<F>,
{
    /// The tile of one of these heights, as far as the extension has it.
    macro_rules! tile_of {
        ($height:expr, $next_a:expr; $($rows:literal)+) => {
            match $height {
                $($rows if const { $rows <= E::MOST_ROWS[VECTORS.ilog2() as usize] } => {
                    tile::<F, E, $rows, VECTORS, ALONG_COLUMNS>(o, $next_a)
                })+
                height => unreachable!("a tile of {height} rows and {VECTORS} vectors"),
            }
        };
    }
    for tile in 0..heights.tiles {
        let height = (heights.low + u32::from(tile < heights.higher)) as usize;
        let after = o.a.wrapping_add(height * F::LINE);
        let next_a = if tile + 1 < heights.tiles { after } else { o.next_a };
        // SAFETY: the caller's.
        unsafe { tile_of!(height, next_a; 12 11 10 9 8 7 6 5 4 3 2 1) };
        o.advance(height, if ALONG_COLUMNS { height } else { height * F::LINE });
    }
}

/// Multiplies a tile of ROWS × VECTORS. A is read along its rows, a line of k at a time; or along
/// its columns, where the rows of the tile are neighbours in one line for each k.
///
/// # Safety
/// The CPU has the extension; the operands cover the tile's rows, vectors and k.
#[inline(always)]
unsafe fn tile<F, E, const ROWS: usize, const VECTORS: usize, const ALONG_COLUMNS: bool>(
    o: &Operands<F>,
    mut next_a: *const F,
) where
    F: Number,
    E: Extension<F>,
{
    // SAFETY: the caller's.
    unsafe {
        let mut acc = start::<F, E, ROWS, VECTORS>(o);
        let (mut a, mut b, mut next_b) = (o.a, o.b, o.next_b);
        let (a_row, a_k) = if ALONG_COLUMNS { (1, F::LINE) } else { (F::LINE, 1) };
        if ALONG_COLUMNS {
            (0..ROWS).for_each(|i| prefetch(o.c.wrapping_add((AHEAD_C + i) * F::LINE)));
        }
        // A line of k at a time, unrolled.
        for _ in 0..o.depth / F::LINE {
            if !ALONG_COLUMNS {
                // The rows of the next tile.
                (0..ROWS).for_each(|i| prefetch(next_a.wrapping_add(i * F::LINE)));
                next_a = next_a.wrapping_add(o.a_stride);
            }
            (0..o.ahead_b).for_each(|i| prefetch(next_b.wrapping_add(i * F::LINE)));
            for k in 0..F::LINE {
                step::<F, E, ROWS, VECTORS>(&mut acc, a.add(k * a_k), a_row, b.add(k * F::LINE), o.b_stride);
            }
            a = a.wrapping_add(if ALONG_COLUMNS { F::LINE * F::LINE } else { o.a_stride });
            b = b.wrapping_add(F::LINE * F::LINE);
            next_b = next_b.wrapping_add(o.ahead_b * F::LINE);
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
/// `$splat`, which puts a number in all lanes, to `$transpose` have the meaning and the order of
/// the trait's; `$most_rows` is for 1, 2, 4 and 8 vectors.
macro_rules! extension {
    ($extension:ident, $features:literal, $width:literal $f:ty: $vector:ty, $splat:ident $load:ident $store:ident
        $mul_add:ident $mul:ident $add:ident $relu:ident $masked:ident $transpose:ident,
        $vectors:ident $most_rows:expr) => {
        const _: () = {
            use crate::kernels::number::Number;
            use crate::kernels::tile::{Extension, Operands, strip};

            #[target_feature(enable = $features)]
            unsafe fn compiled<const VECTORS: usize, const ALONG_COLUMNS: bool>(rows: usize, o: &Operands<$f>) {
                // SAFETY: the caller's, with the extension enabled.
                unsafe { strip::<$f, $extension, VECTORS, ALONG_COLUMNS>(rows, o) }
            }

            impl Extension<$f> for $extension {
                type Vector = $vector;
                const WIDTH: usize = $width;
                const MOST_ROWS: &[usize] = &$most_rows;

                fn vectors(rows: usize, left: usize) -> usize {
                    $vectors(rows, left)
                }

                #[inline(always)]
                unsafe fn strip<const ALONG_COLUMNS: bool>(vectors: usize, rows: usize, o: &Operands<$f>) {
                    // SAFETY: the caller's.
                    unsafe {
                        match vectors {
                            1 => compiled::<1, ALONG_COLUMNS>(rows, o),
                            2 => compiled::<2, ALONG_COLUMNS>(rows, o),
                            4 => compiled::<4, ALONG_COLUMNS>(rows, o),
                            8 => compiled::<8, ALONG_COLUMNS>(rows, o),
                            _ => unreachable!("a tile of {vectors} vectors"),
                        }
                    }
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

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use extension;
