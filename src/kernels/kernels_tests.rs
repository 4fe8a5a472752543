//! Tests of the kernels of every vector extension that this CPU has, against loops over single
//! numbers: bit for bit.

use proptest::prelude::{ProptestConfig, proptest};

use crate::kernels::number::Number;
use crate::kernels::operands::{ADD_DEPTH, End, Left, Product, Right, Start};
use crate::kernels::panels::{Panels, PanelsMut, PanelsRef, numbers, numbers_mut, panels_of};
use crate::kernels::sums::BIAS_BLOCK;
use crate::kernels::table::{Table, all_f32, all_f64, choose};

type Tables<F> = [&'static Table<F>];

/// Numbers of (−1, 1), among which zeros of both signs.
struct Source(u64);

impl Source {
    fn next<F: Number>(&mut self) -> F {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = (self.0 >> 33) as f64 / f64::from(1 << 30) - 1.0;
        match self.0 >> 61 {
            0 => F::rounded(0.0),
            1 => F::rounded(-0.0),
            _ => F::rounded(random),
        }
    }

    fn numbers<F: Number>(&mut self, len: usize) -> Vec<F> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// Bits, and one number for all NaN, whose bits differ between CPUs.
fn bits<F: Number>(a: F) -> u64 {
    let a = a.widened();
    if a.is_nan() { f64::NAN.to_bits() } else { a.to_bits() }
}

fn all_bits<F: Number>(panels: &Panels<F>) -> Vec<u64> {
    let view = panels.view();
    (0..view.panels()).flat_map(|panel| numbers::<F>(view.panel(panel))).map(|a| bits(*a)).collect()
}

/// A matrix that is stored row by row.
struct Dense<F> {
    rows: usize,
    columns: usize,
    numbers: Vec<F>,
}

impl<F: Number> Dense<F> {
    fn random(rows: usize, columns: usize, source: &mut Source) -> Self {
        Self { rows, columns, numbers: source.numbers(rows * columns) }
    }

    fn at(&self, row: usize, column: usize) -> F {
        self.numbers[row * self.columns + column]
    }

    fn transposed(&self) -> Self {
        let numbers = (0..self.columns).flat_map(|column| (0..self.rows).map(move |row| self.at(row, column)));
        Self { rows: self.columns, columns: self.rows, numbers: numbers.collect() }
    }
}

/// A matrix as a part of a larger one in panels, in which no other number is zero by itself: there
/// are a panel before it and one behind, and rows above and below.
#[derive(Clone)]
struct Part<F: Number> {
    whole: Panels<F>,
    rows: usize,
    panels: usize,
}

const ROWS_ABOVE: usize = 3;

impl<F: Number> Part<F> {
    fn of(matrix: &Dense<F>, source: &mut Source) -> Self {
        let panels = panels_of::<F>(matrix.columns);
        let mut whole = Panels::zeros(matrix.rows + ROWS_ABOVE + 2, (panels + 2) * F::LINE);
        for panel in 0..panels + 2 {
            numbers_mut::<F>(whole.view_mut().panel(panel)).iter_mut().for_each(|a| *a = source.next());
        }
        let mut part = Self { whole, rows: matrix.rows, panels };
        part.write(|mut view| {
            for column in 0..matrix.columns {
                let lines = numbers_mut::<F>(view.panel(column / F::LINE));
                (0..matrix.rows).for_each(|row| lines[row * F::LINE + column % F::LINE] = matrix.at(row, column));
            }
        });
        part
    }

    fn view(&self) -> PanelsRef<'_, F> {
        self.whole.view().part(1..1 + self.panels, ROWS_ABOVE..ROWS_ABOVE + self.rows)
    }

    fn write(&mut self, write: impl FnOnce(PanelsMut<'_, F>)) {
        let mut whole = self.whole.view_mut();
        write(whole.part(1..1 + self.panels, ROWS_ABOVE..ROWS_ABOVE + self.rows));
    }
}

fn relu<F: Number>(u: F) -> F {
    if u <= F::NOUGHT { F::NOUGHT } else { u }
}

/// The operands of C = A B. B, C and Z have as many columns as the panels, with numbers in the
/// padding.
struct Operands<F: Number> {
    a: Dense<F>,
    b: Dense<F>,
    c: Dense<F>,
    z: Dense<F>,
    of_rows: Vec<F>,
    of_columns: Vec<F::Line>,
}

impl<F: Number> Operands<F> {
    /// A has a NaN in its last row but two and an infinity in its last row but one; Z has a NaN.
    fn random(rows: usize, columns: usize, depth: usize, source: &mut Source) -> Self {
        let padded = columns.next_multiple_of(F::LINE);
        let mut matrix = |rows, columns| Dense::random(rows, columns, source);
        let (mut a, b, c, mut z) =
            (matrix(rows, depth), matrix(depth, padded), matrix(rows, padded), matrix(rows, padded));
        if rows > 2 {
            a.numbers[(rows - 3) * depth + depth / 2] = F::rounded(f64::NAN);
            a.numbers[(rows - 2) * depth + depth / 3] = F::rounded(f64::INFINITY);
        }
        z.numbers[columns / 2] = F::rounded(f64::NAN);
        let mut of_columns = vec![F::ZEROS; padded / F::LINE];
        numbers_mut::<F>(&mut of_columns).iter_mut().for_each(|a| *a = source.next());
        Self { a, b, c, z, of_rows: source.numbers(rows), of_columns }
    }

    /// The chains from a start, row by row.
    fn sums(&self, start: Start<F>) -> Vec<F> {
        let mut sums = Vec::with_capacity(self.c.numbers.len());
        for row in 0..self.c.rows {
            for column in 0..self.c.columns {
                let mut sum = match start {
                    Start::Zero => F::NOUGHT,
                    Start::Rows(bias) => bias[row],
                    Start::Columns(bias) => numbers::<F>(bias)[column],
                    Start::C => self.c.at(row, column),
                };
                for k in 0..self.a.columns {
                    sum = self.a.at(row, k).fused(self.b.at(k, column), sum);
                }
                sums.push(sum);
            }
        }
        sums
    }

    /// What the product must be.
    fn expected(&self, sums: &[F], end: End<F>) -> Vec<F> {
        let value = |((sum, c), z): ((&F, &F), &F)| match end {
            End::Store => *sum,
            End::Relu => relu(*sum),
            End::Mask(_) if *z > F::NOUGHT => *sum,
            End::Mask(_) => F::NOUGHT,
            End::AddTo(beta) if beta == F::UNIT => *c + *sum,
            End::AddTo(beta) => beta * *c + *sum,
        };
        sums.iter().zip(&self.c.numbers).zip(&self.z.numbers).map(value).collect()
    }
}

/// Fails unless C's numbers are those `expected`, and all around it as before. Padding may be
/// either.
fn assert_written<F: Number>(c: &Part<F>, before: &Part<F>, columns: usize, expected: &[F], what: impl Fn() -> String) {
    let (now, then) = (c.whole.view(), before.whole.view());
    for panel in 0..now.panels() {
        let (now, then) = (numbers::<F>(now.panel(panel)), numbers::<F>(then.panel(panel)));
        for (i, (now, then)) in now.iter().zip(then).enumerate() {
            let (row, column) = ((i / F::LINE).wrapping_sub(ROWS_ABOVE), (panel.wrapping_sub(1), i % F::LINE));
            let is_inside = column.0 < c.panels && row < c.rows;
            let column = column.0.wrapping_mul(F::LINE) + column.1;
            let due = if is_inside { expected[row * c.panels * F::LINE + column] } else { *then };
            let is_kept_padding = is_inside && column >= columns && bits(*now) == bits(*then);
            let is_right = bits(*now) == bits(due) || is_kept_padding;
            assert!(is_right, "{}: row {row}, column {column}: {now:?} for {due:?}, was {then:?}", what());
        }
    }
}

/// Checks every way that the operands lie, every start and every end, with each of the tables.
fn check_products<F: Number>(tables: &Tables<F>, rows: usize, columns: usize, depth: usize) {
    let mut source = Source((rows << 40 | columns << 20 | depth) as u64);
    let o = Operands::<F>::random(rows, columns, depth, &mut source);
    let mut part = |matrix: &Dense<F>| Part::of(matrix, &mut source);
    let (a, a_columns, b) = (part(&o.a), part(&o.a.transposed()), part(&o.b));
    let (b_rows, before, z) = (part(&o.b.transposed()), part(&o.c), part(&o.z));
    for start in [Start::Zero, Start::Rows(&o.of_rows), Start::Columns(&o.of_columns), Start::C] {
        let sums = o.sums(start);
        for end in [End::Store, End::Relu, End::Mask(z.view()), End::AddTo(F::rounded(0.75)), End::AddTo(F::UNIT)] {
            let adds = matches!(end, End::AddTo(_));
            if adds && (!matches!(start, Start::Zero) || depth > ADD_DEPTH) {
                continue;
            }
            let expected = o.expected(&sums, end);
            for table in tables {
                for (a, b) in [
                    (Left::Rows(a.view()), Right::Panels(b.view())),
                    (Left::Columns(a_columns.view()), Right::Panels(b.view())),
                    (Left::Rows(a.view()), Right::Transposed(b_rows.view())),
                ] {
                    if adds && matches!(b, Right::Transposed(_)) {
                        continue;
                    }
                    let mut c = before.clone();
                    c.write(|c| table.product(Product { a, b, c, columns, depth, start, end }));
                    let name = table.name;
                    assert_written(&c, &before, columns, &expected, || {
                        format!("{name}: {rows} × {depth} × {columns}, {a:?}, {b:?}, {start:?}, {end:?}")
                    });
                }
            }
        }
    }
}

const ODD: [usize; 15] = [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 45, 46, 129, 257, 600];

/// Every pair of such rows and columns for which there is a depth that does not take long, and some
/// shapes that take several blocks of the depth, of the rows, or of both.
fn check_odd_shapes<F: Number>(tables: &Tables<F>) {
    for (i, &rows) in ODD.iter().enumerate() {
        for (j, &columns) in ODD.iter().enumerate() {
            let mut depths = ODD.iter().cycle().skip(7 * i + 4 * j).take(ODD.len());
            if let Some(&depth) = depths.find(|depth| rows * columns * **depth <= 20_000) {
                check_products(tables, rows, columns, depth);
            }
        }
    }
    for (rows, columns, depth) in [(257, 3, 600), (600, 1, 257), (7, 17, 600), (3, 45, 600), (13, 5, 5000)] {
        check_products(tables, rows, columns, depth);
    }
}

#[test]
fn products_of_odd_shapes_are_chains_in_single_precision() {
    check_odd_shapes(&all_f32());
}

#[test]
fn products_of_odd_shapes_are_chains_in_double_precision() {
    check_odd_shapes(&all_f64());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn products_of_any_shape_are_chains(rows in 1..60_usize, columns in 1..60_usize, depth in 1..80_usize) {
        check_products(&all_f32(), rows, columns, depth);
        check_products(&all_f64(), rows, columns, depth);
    }
}

fn check_transposes<F: Number>(tables: &Tables<F>, panels: usize, squares: usize) {
    let mut source = Source(1);
    let matrix = Dense::random(squares * F::LINE, panels * F::LINE, &mut source);
    let from = Part::<F>::of(&matrix, &mut source);
    let transposed = matrix.transposed();
    let before = Part::of(&Dense::random(transposed.rows, transposed.columns, &mut source), &mut source);
    for table in tables {
        let mut to = before.clone();
        to.write(|to| table.transpose(from.view(), to));
        assert_written(&to, &before, transposed.columns, &transposed.numbers, || format!("{}: Aᵀ", table.name));
    }
}

#[test]
fn transposes_are_exact() {
    for (panels, squares) in [(1, 1), (1, 3), (3, 2)] {
        check_transposes(&all_f32(), panels, squares);
        check_transposes(&all_f64(), panels, squares);
    }
}

fn check_bias_sums<F: Number>(tables: &Tables<F>, rows: usize) {
    let mut source = Source(rows as u64);
    let mut matrix = Dense::<F>::random(rows, 3 * F::LINE, &mut source);
    matrix.numbers[rows / 2 * matrix.columns] = F::rounded(f64::NAN);
    matrix.numbers[1] = F::rounded(f64::INFINITY);
    let part = Part::of(&matrix, &mut source);
    for table in tables {
        let mut sums = vec![F::ZEROS; 3];
        numbers_mut::<F>(&mut sums).iter_mut().for_each(|sum| *sum = source.next());
        table.bias_sums(part.view(), &mut sums);
        for (column, sum) in numbers::<F>(&sums).iter().enumerate() {
            let column: Vec<F> = (0..rows).map(|row| matrix.at(row, column)).collect();
            let of_blocks = column.chunks(BIAS_BLOCK).map(|block| block.iter().fold(F::NOUGHT, |sum, a| sum + *a));
            // One block alone is exact in double precision, too.
            let due = F::rounded(of_blocks.fold(0.0, |sum, of_block| sum + of_block.widened()));
            assert_eq!(bits(*sum), bits(due), "{}: Σ of {rows} rows: {sum:?} for {due:?}", table.name);
        }
    }
}

#[test]
fn sums_of_biases_are_those_of_blocks() {
    for rows in [1, 2, 3, 63, 64, 65, 128, 129, 1000] {
        check_bias_sums(&all_f32(), rows);
        check_bias_sums(&all_f64(), rows);
    }
}

/// With whole numbers, each sum is exact in whatever order it is made.
fn check_squares<F: Number>(tables: &Tables<F>, largest: f64) {
    let mut source = Source(1);
    let mut matrix = Dense::<F>::random(37, 3 * F::LINE, &mut source);
    let mut due = 0.0;
    for (i, a) in matrix.numbers.iter_mut().enumerate() {
        let whole = (i % 13) as f64 - 6.0;
        *a = F::rounded(whole);
        due += whole * whole;
    }
    let part = Part::of(&matrix, &mut source);
    matrix.numbers[100] = F::rounded(largest);
    let large = Part::of(&matrix, &mut source);
    for table in tables {
        assert_eq!(table.squares(part.view()), due, "{}", table.name);
        assert_eq!(table.squares(large.view()), f64::INFINITY, "{}", table.name);
    }
}

#[test]
fn squares_are_summed() {
    check_squares(&all_f32(), f64::from(f32::MAX));
    check_squares(&all_f64(), f64::MAX);
}

fn bits_of_a_product<F: Number>(table: &Table<F>) -> Vec<u64> {
    let mut source = Source(1);
    let mut part = |rows, columns| Part::<F>::of(&Dense::random(rows, columns, &mut source), &mut source);
    let (a, b, mut c) = (part(23, 100), part(100, 4 * F::LINE), part(23, 4 * F::LINE));
    let (a, b, columns) = (Left::Rows(a.view()), Right::Panels(b.view()), 4 * F::LINE);
    c.write(|c| table.product(Product { a, b, c, columns, depth: 100, start: Start::Zero, end: End::Relu }));
    all_bits(&c.whole)
}

#[test]
fn all_extensions_give_the_same_bits() {
    let (single, double) = (all_f32(), all_f64());
    assert!(single.iter().all(|table| bits_of_a_product(table) == bits_of_a_product(single[0])));
    assert!(double.iter().all(|table| bits_of_a_product(table) == bits_of_a_product(double[0])));
}

#[test]
fn the_best_extension_is_chosen_or_the_one_asked_for() {
    let all = all_f32();
    assert_eq!(choose(&all, None).name, all[all.len() - 1].name);
    for table in &all {
        assert_eq!(choose(&all, Some(table.name)).name, table.name);
    }
    // What the features of the CPU say about it.
    #[cfg(target_arch = "x86_64")]
    assert_eq!(all.len() > 1, is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"));
    #[cfg(target_arch = "aarch64")]
    assert_eq!(all[all.len() - 1].name, "neon");
}

#[test]
#[should_panic(expected = "GEMMPROP_KERNELS=sse: this CPU has portable")]
fn an_extension_that_the_cpu_lacks_is_refused() {
    choose(&all_f32(), Some("sse"));
}
