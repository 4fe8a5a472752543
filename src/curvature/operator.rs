//! Symmetric operators of which only the products with vectors are known.

use ndarray::{ArrayView1, ArrayViewMut1};

use crate::error::Error;

/// A symmetric operator A of which the products with vectors are known.
pub trait Operator {
    /// The error of a failed product, which is passed on to the caller.
    type Error: From<Error>;

    /// The order n of A: the length of its vectors.
    fn order(&self) -> usize;

    /// `av` = A v. Both have [`order`](Self::order) numbers; `av` holds zeros before.
    ///
    /// # Errors
    /// The error of the operator, if the product fails.
    fn apply(&mut self, v: ArrayView1<f64>, av: ArrayViewMut1<f64>) -> Result<(), Self::Error>;

    /// Products are good to about this times ‖A‖: the machine epsilon of the numbers that they are
    /// computed in.
    fn epsilon(&self) -> f64 {
        f64::EPSILON
    }
}

/// An operator of this order whose products a function writes into its second argument, which holds
/// zeros.
pub fn from_fn<A, E>(order: usize, apply: A) -> FromFn<A>
where
    A: FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), E>,
{
    FromFn { order, apply }
}

/// See [`from_fn`].
#[derive(Debug, Clone)]
pub struct FromFn<A> {
    order: usize,
    apply: A,
}

impl<A, E: From<Error>> Operator for FromFn<A>
where
    A: FnMut(ArrayView1<f64>, ArrayViewMut1<f64>) -> Result<(), E>,
{
    type Error = E;

    fn order(&self) -> usize {
        self.order
    }

    fn apply(&mut self, v: ArrayView1<f64>, av: ArrayViewMut1<f64>) -> Result<(), E> {
        (self.apply)(v, av)
    }
}
