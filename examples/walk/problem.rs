//! What is learned on the page: XOR, small enough to follow every number, and two spirals.

use std::f64::consts::PI;

use ndarray::{Array1, Array2, array};

/// Samples, a network and how it is trained.
pub(crate) struct Problem {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// Input and output included.
    pub(crate) widths: &'static [usize],
    pub(crate) seed: u64,
    pub(crate) eta: f64,
    pub(crate) batch: usize,
    /// The training steps at which the page can stop.
    pub(crate) stops: &'static [usize],
    pub(crate) x: Array2<f32>,
    /// 0 or 1 for each row of x.
    pub(crate) y: Array1<f32>,
    /// The square that is mapped: both coordinates from the first to the second.
    pub(crate) extent: [f32; 2],
}

pub(crate) fn xor() -> Problem {
    Problem {
        name: "xor",
        title: "XOR",
        widths: &[2, 3, 3, 1],
        seed: 31,
        eta: 0.1,
        batch: 4,
        stops: &[0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 27, 36, 48, 64, 85, 110, 150, 200],
        x: array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]],
        y: array![0.0, 1.0, 1.0, 0.0],
        extent: [-0.5, 1.5],
    }
}

pub(crate) fn spirals() -> Problem {
    const ARM: usize = 40;
    let x = Array2::from_shape_fn((2 * ARM, 2), |(row, axis)| {
        let (along, arm) = ((row / 2) as f64 / (ARM - 1) as f64, row % 2);
        let (radius, angle) = (0.12 + 0.83 * along, PI * (2.8 * along + arm as f64));
        // The sine of a C library may differ in its last bit from one system to the next.
        (radius * if axis == 0 { libm::cos(angle) } else { libm::sin(angle) }) as f32
    });
    Problem {
        name: "spirals",
        title: "Two spirals",
        widths: &[2, 8, 8, 1],
        seed: 18,
        eta: 0.1,
        batch: 4,
        stops: &[
            0, 1, 2, 3, 10, 30, 100, 300, 700, 1000, 1300, 1600, 1900, 2200, 2500, 2800, 3100, 3400, 3700, 4000, 4500,
            5000, 6000,
        ],
        y: Array1::from_shape_fn(2 * ARM, |row| (row % 2) as f32),
        x,
        extent: [-1.2, 1.2],
    }
}
