//! Tiles of matrices in panels and their guards. `ci/sanitize` runs these tests under Miri and
//! under the thread sanitizer.

use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::Array2;

use crate::kernels::number::Number;
use crate::kernels::panels::{Panels, numbers, numbers_mut};
use crate::parallel::fork_join::{End, ForkJoin};
use crate::parallel::panel_set::{PanelSet, Region, RegionTable};

const LINE: usize = f64::LINE;

/// Matrix 0 with numbers in it, and two of the same shape: 3 panels of 2 lines' rows.
fn set() -> PanelSet<f64> {
    let (rows, columns) = (2 * LINE, 3 * LINE);
    let numbers = Array2::from_shape_fn((rows, columns), |(i, j)| (i * columns + j) as f64);
    PanelSet::new(vec![Panels::of(numbers.view()), Panels::zeros(rows, columns), Panels::zeros(rows, columns)])
}

fn region(matrix: usize, panel: usize, half: usize) -> Region {
    Region { matrix, panels: panel..panel + 1, rows: half * LINE..(half + 1) * LINE }
}

/// Tiles of half a panel each of the matrices 1 and 2.
fn table(set: &PanelSet<f64>) -> RegionTable {
    RegionTable::new(
        set,
        (0..6).map(|tile| vec![region(1, tile / 2, tile % 2), region(2, tile / 2, tile % 2)]).collect(),
    )
}

/// Phases as a step has them: a tile reads what no tile writes and what it has written itself, and
/// writes its own regions.
#[test]
fn threads_write_their_regions_and_read_what_none_writes() {
    let mut set = set();
    let table = table(&set);
    let fork_join = ForkJoin::default();
    let rounds = if cfg!(miri) { 5 } else { 500 };
    let open = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while open.load(Ordering::Relaxed) {
                fork_join.help(End::Back);
                std::thread::yield_now();
            }
        });
        for round in 1..=rounds {
            let shared = set.share(&table);
            let work = |tile: usize| {
                let mut guard = shared.claim(tile);
                let (panel, half) = (tile / 2, tile % 2);
                let from = guard.read(0).part(panel..panel + 1, half * LINE..(half + 1) * LINE);
                let mut doubled = guard.write(1);
                let to = numbers_mut::<f64>(doubled.panel(0)).iter_mut();
                to.zip(numbers::<f64>(from.panel(0))).for_each(|(to, from)| *to = 2.0 * from);
                let ([doubled], mut sums) = guard.read_and_write([region(1, panel, half)], 2);
                let to = numbers_mut::<f64>(sums.panel(0)).iter_mut();
                to.zip(numbers::<f64>(doubled.panel(0))).for_each(|(to, from)| *to += from);
            };
            fork_join.run(table.len(), &work, || (), |_| std::thread::yield_now());
            for panel in 0..3 {
                let (numbers_of, sums) = (set.get(0).panel(panel), set.get(2).panel(panel));
                let pairs = numbers::<f64>(numbers_of).iter().zip(numbers::<f64>(sums));
                assert!(pairs.clone().count() == 2 * LINE * LINE, "panel {panel}");
                pairs.for_each(|(number, sum)| assert_eq!(2.0 * f64::from(round) * number, *sum, "panel {panel}"));
            }
        }
        open.store(false, Ordering::Relaxed);
    });
}

#[test]
#[should_panic(expected = "overlap")]
fn regions_of_two_tiles_that_overlap_are_refused() {
    let set = set();
    let half = Region { rows: LINE - 1..LINE + 1, ..region(1, 0, 0) };
    RegionTable::new(&set, vec![vec![region(1, 0, 0)], vec![half]]);
}

#[test]
#[should_panic(expected = "of a matrix with 3 panels of 16 rows")]
fn a_region_beyond_its_matrix_is_refused() {
    RegionTable::new(&set(), vec![vec![region(1, 3, 0)]]);
}

#[test]
#[should_panic(expected = "two regions of one matrix")]
fn a_tile_has_one_region_of_a_matrix() {
    RegionTable::new(&set(), vec![vec![region(1, 0, 0), region(1, 1, 0)]]);
}

#[test]
#[should_panic(expected = "the set of a region table")]
fn a_table_of_another_set_is_refused() {
    let table = table(&set());
    set().share(&table);
}

#[test]
#[should_panic(expected = "tile 2 is claimed already")]
fn a_tile_has_one_holder() {
    let mut set = set();
    let table = table(&set);
    let shared = set.share(&table);
    drop(shared.claim(2));
    let _first = shared.claim(2);
    shared.claim(2);
}

#[test]
#[should_panic(expected = "matrix 1 is being written")]
fn a_matrix_that_tiles_write_is_not_read_as_a_whole() {
    let mut set = set();
    let table = table(&set);
    set.share(&table).claim(0).read(1);
}

#[test]
#[should_panic(expected = "reaches beyond the tile's")]
fn what_another_tile_writes_is_not_read() {
    let mut set = set();
    let table = table(&set);
    set.share(&table).claim(0).read_and_write([region(1, 0, 1)], 2);
}

#[test]
#[should_panic(expected = "read and written at once")]
fn a_region_is_not_read_and_written_at_once() {
    let mut set = set();
    let table = table(&set);
    set.share(&table).claim(0).read_and_write([region(1, 0, 0)], 1);
}

#[test]
#[should_panic(expected = "to be written at once")]
fn a_region_is_not_written_twice_at_once() {
    let mut set = set();
    let table = table(&set);
    set.share(&table).claim(0).write_all([1, 1]);
}

#[test]
#[should_panic(expected = "does not belong to")]
fn a_matrix_that_the_tile_does_not_have_is_not_written() {
    let mut set = set();
    let table = table(&set);
    set.share(&table).claim(0).write(0);
}
