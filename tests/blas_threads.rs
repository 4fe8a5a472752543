//! The host program's number of BLAS threads is what it was, after calls that compute, that fail,
//! and that overlap.

#![cfg(any(feature = "openblas-system", feature = "openblas-static"))]
#![allow(unsafe_code, reason = "asks the C library what a host program would ask")]

use gemmprop::{Bias, Error, Mlp, Sgd, SquaredError, rungs::batched};
use ndarray::{Array1, Array2};

unsafe extern "C" {
    fn openblas_set_num_threads(threads: i32);
    fn openblas_get_num_threads() -> i32;
}

fn blas_threads() -> i32 {
    // SAFETY: reads a number.
    unsafe { openblas_get_num_threads() }
}

/// One test, since the number is a global of the process.
#[test]
fn the_hosts_number_of_blas_threads_is_put_back() {
    let (x, y) = (Array2::from_elem((40, 30), 0.5_f32), Array1::from_elem(40, 1.0_f32));
    let network = || Mlp::<f32>::he(&[30, 20, 1], Bias::Input, 1).unwrap();
    let train = || {
        Sgd::new(8, 0.01, 1).unwrap().train(&mut network(), x.view(), y.view(), &SquaredError, 20).unwrap();
    };
    for threads in [1, 2, 3] {
        // SAFETY: takes a number.
        unsafe { openblas_set_num_threads(threads) };
        // OpenBLAS keeps to its own limit, which may be lower.
        let set = blas_threads();
        let mut mlp = network();
        train();
        assert_eq!(blas_threads(), set, "train");
        Sgd::new(8, 0.01, 1).unwrap().step(&mut mlp, x.view(), y.view(), &SquaredError).unwrap();
        assert_eq!(blas_threads(), set, "step");
        mlp.predict(x.view()).unwrap();
        batched::forward(&mlp, x.view()).unwrap();
        assert_eq!(blas_threads(), set, "predict, forward");
        let error = Sgd::new(8, 1e30, 1).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 20).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }));
        assert_eq!(blas_threads(), set, "after an error");
        std::thread::scope(|scope| (0..4).for_each(|_| _ = scope.spawn(train)));
        assert_eq!(blas_threads(), set, "after calls that overlapped");
    }
}
