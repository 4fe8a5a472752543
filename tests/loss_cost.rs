//! A loss that says what it costs is shared between threads where the layers alone would not be.
//! This runs in a process of its own, in which no other test has taken the helpers.

use std::collections::HashSet;
use std::sync::Mutex;
use std::thread::ThreadId;
use std::time::Duration;

use gemmprop::{Bias, Loss, Mlp, Products, Sgd, SquaredError, set_threads};
use ndarray::Array2;

/// The squared error, which takes a millisecond and says so, and records the threads that call it.
#[derive(Default)]
struct Costly(Mutex<HashSet<ThreadId>>);

impl Loss<f32> for Costly {
    type Target = f32;

    fn value_and_derivative(&self, y_hat: &[f32], y: &[f32], d: &mut [f32]) -> f32 {
        std::thread::sleep(Duration::from_millis(1));
        self.0.lock().unwrap().insert(std::thread::current().id());
        SquaredError.value_and_derivative(y_hat, y, d)
    }

    fn cost(&self) -> usize {
        1_000_000
    }
}

/// The layers alone are too little work for a helper. The loss is behind a pointer.
#[test]
fn a_costly_loss_is_shared_under_a_small_network() {
    let (x, y) = (Array2::from_elem((64, 4), 0.5_f32), Array2::zeros((64, 1)));
    let here = HashSet::from([std::thread::current().id()]);
    let products = if cfg!(feature = "blas") { vec![Products::Native, Products::Blas] } else { vec![Products::Native] };
    for products in products {
        let mut mlp = Mlp::he(&[4, 8, 1], Bias::Input, 1).unwrap().with_products(products).unwrap();
        let mut asked = |loss: &Costly| {
            Sgd::new(64, 0.1, 1).unwrap().step(&mut mlp, &x, &y, &loss).unwrap();
            std::mem::take(&mut *loss.0.lock().unwrap())
        };
        set_threads(Some(1));
        assert_eq!(asked(&Costly::default()), here, "{products:?}");
        set_threads(Some(2));
        // A machine with other work may be late to wake a helper.
        let has_help = (0..50).any(|_| asked(&Costly::default()).len() == 2);
        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(has_help, cores > 1, "{products:?}");
    }
}
