//! A BLAS that is linked wrongly is found before the first result: this program brings a gemm that
//! leaves zeros, as some links have done for products of 8 and more.

#![cfg(all(feature = "blas", target_os = "linux"))]
#![allow(unsafe_code, reason = "stands in for a C function")]

use gemmprop::{Bias, Error, Mlp};
use ndarray::Array2;

/// Leaves C unchanged; the arguments do not matter.
#[unsafe(no_mangle)]
extern "C" fn cblas_sgemm() {}

#[test]
fn a_gemm_that_computes_nothing_is_refused() {
    let mlp = Mlp::<f64>::he(&[3, 2], Bias::Input, 1).unwrap();
    for _ in 0..2 {
        let error = mlp.predict(Array2::zeros((4, 3)).view()).unwrap_err();
        assert!(matches!(error, Error::BlasWrong { product: "gemm NN", .. }), "{error}");
        assert!(error.to_string().contains("found another result of gemm NN"), "{error}");
    }
}
