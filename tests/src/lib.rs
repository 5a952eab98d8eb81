//! What the tests share: a comparer that cannot pass by accident, devices, reference values, and
//! the catalogue of cases that every operation is held to.

pub mod cases;
pub mod compare;
pub mod fuzz;
pub mod golden;
pub mod gpu;
pub mod layout;
pub mod noise;
pub mod run;
pub mod shared;

pub use cases::{Case, Input};
pub use compare::{Failures, Tolerance, assert_close, compare};
pub use golden::Golden;
pub use gpu::gpu;
