//! Tests of tiles and of their guards.

use super::*;
use ndarray::{Array1, Array2, array};

fn rows(rows: Range<usize>) -> Tile {
    Tile { arrays: 0..2, rows, columns: None }
}

fn table(tiles: Vec<Tile>) -> TileTable {
    TileTable::new(vec![(3, 2), (3, 1), (3, 2)], tiles)
}

fn arrays() -> [Array2<f64>; 3] {
    [Array2::zeros((3, 2)), Array2::zeros((3, 1)), array![[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]]
}

#[test]
fn tiles_of_rows_write_their_own() {
    let (table, mut arrays) = (table(vec![rows(0..1), rows(1..3)]), arrays());
    let shared = SharedTiles::new(&mut arrays, &table);
    let (mut first, mut second) = (shared.claim(0), shared.claim(1));
    first.write(0).fill(1.0);
    second.write(0).fill(2.0);
    let ([from], mut to) = second.read_and_write([0], 1);
    assert_eq!(from, array![[2.0, 2.0], [2.0, 2.0]]);
    to.column_mut(0).assign(&from.column(1));
    let ([from], mut to) = first.read_and_write([2], 1);
    to.column_mut(0).assign(&from.column(1));
    drop((first, second));
    assert_eq!(arrays[0], array![[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]);
    assert_eq!(arrays[1], array![[1.0], [2.0], [2.0]]);
}

#[test]
fn tiles_of_columns_write_their_own() {
    let tile = |columns| Tile { arrays: 0..1, rows: 1..3, columns: Some(columns) };
    let (table, mut arrays) = (table(vec![tile(0..1), tile(1..2)]), arrays());
    let shared = SharedTiles::new(&mut arrays, &table);
    let (mut first, mut second) = (shared.claim(0), shared.claim(1));
    let ([from], mut to) = first.read_and_write([2], 0);
    assert_eq!(from, array![[2.0, 3.0], [4.0, 5.0]]);
    to.column_mut(0).assign(&from.column(1));
    second.write(0).fill(8.0);
    drop((first, second));
    assert_eq!(arrays[0], array![[0.0, 0.0], [3.0, 8.0], [5.0, 8.0]]);
}

#[test]
fn one_dimensional_arrays_have_rows_too() {
    let table = TileTable::new(vec![(6, 1)], vec![Tile { arrays: 0..1, rows: 2..5, columns: None }]);
    let mut arrays = [Array1::<f32>::zeros(6)];
    SharedTiles::new(&mut arrays, &table).claim(0).write(0).fill(1.0);
    assert_eq!(arrays[0], array![0.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
}

#[test]
#[should_panic(expected = "claimed already")]
fn a_tile_has_one_writer() {
    let (table, mut arrays) = (table(vec![rows(0..3)]), arrays());
    let shared = SharedTiles::new(&mut arrays, &table);
    let _first = shared.claim(0);
    shared.claim(0);
}

#[test]
#[should_panic(expected = "are being written")]
fn rows_that_other_tiles_write_are_not_read() {
    let tile = |columns| Tile { arrays: 0..1, rows: 0..3, columns: Some(columns) };
    let table =
        TileTable::new(vec![(3, 2), (3, 2)], vec![tile(0..1), Tile { arrays: 1..2, rows: 0..3, columns: None }]);
    let mut arrays = [Array2::<f64>::zeros((3, 2)), Array2::zeros((3, 2))];
    SharedTiles::new(&mut arrays, &table).claim(1).read_and_write([0], 1);
}

#[test]
#[should_panic(expected = "rows 0..3 of array 1, which has 2")]
fn rows_that_an_array_does_not_have_are_not_read() {
    let table = TileTable::new(vec![(3, 2), (2, 2)], vec![Tile { arrays: 0..1, rows: 0..3, columns: None }]);
    let mut arrays = [Array2::<f64>::zeros((3, 2)), Array2::zeros((2, 2))];
    SharedTiles::new(&mut arrays, &table).claim(0).read_and_write([1], 0);
}

#[test]
#[should_panic(expected = "overlap")]
fn overlapping_tiles_are_refused() {
    table(vec![rows(0..2), rows(1..3)]);
}

#[test]
#[should_panic(expected = "of an array of shape (3, 2)")]
fn tiles_beyond_an_array_are_refused() {
    table(vec![rows(0..4)]);
}

#[test]
#[should_panic(expected = "an array of shape [2, 2]")]
fn arrays_of_other_shapes_are_refused() {
    let (table, mut arrays) = (table(vec![rows(0..3)]), arrays());
    arrays[2] = Array2::zeros((2, 2));
    SharedTiles::new(&mut arrays, &table);
}
