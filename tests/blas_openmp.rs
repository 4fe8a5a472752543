//! An OpenMP build of OpenBLAS is refused, since it may use more than one thread unasked. This
//! program defines an `openblas_get_parallel` that answers as such a build does.

#![cfg(all(any(feature = "openblas-system", feature = "openblas-static"), target_os = "linux"))]
#![allow(unsafe_code, reason = "stands in for a C function")]

use gemmprop::{Bias, Error, Mlp, Sgd, SquaredError};
use ndarray::{Array1, Array2};

#[unsafe(no_mangle)]
extern "C" fn openblas_get_parallel() -> i32 {
    2
}

#[test]
fn an_openmp_build_is_refused_by_every_call_that_computes() {
    if std::env::var("OMP_NUM_THREADS").is_ok_and(|n| n.trim() == "1") {
        return;
    }
    let mut mlp = Mlp::<f32>::he(&[3, 2, 1], Bias::Input, 1).unwrap();
    let (before, x, y) = (mlp.clone(), Array2::zeros((4, 3)), Array1::zeros(4));
    let errors = [
        mlp.predict(x.view()).unwrap_err(),
        Sgd::new(2, 0.1, 1).unwrap().train(&mut mlp, x.view(), y.view(), &SquaredError, 1).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::BlasThreads { .. }), "{error}");
        assert!(error.to_string().contains("OMP_NUM_THREADS=1"), "{error}");
    }
    assert_eq!(mlp, before);
}
