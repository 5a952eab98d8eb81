//! The inner loop of every convolution on the CPU: a tile of sums that stays in registers.

use pulp::Simd;

/// Vectors side by side in a wide tile.
pub(super) const WIDE: usize = 2;

/// Columns of a tile.
pub(super) const fn columns<S: Simd, const V: usize>() -> usize {
    V * S::F32_LANES
}

/// Rows of the largest tile of `V` vectors that the registers hold, beside `V` vectors of the right
/// matrix and one value of the left.
pub(super) const fn most_rows<S: Simd, const V: usize>() -> usize {
    // 32 registers: 16 sums, enough to cover the latency of a multiply-add. 16 registers: 12 sums.
    let sums = if S::REGISTER_COUNT >= 32 { 16 } else { 12 };
    sums / V
}

/// A sum of products of `len` terms: `left[row * left_row + k * left_step] * right[k * right_step + column]`.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub left: *const f32,
    pub left_row: usize,
    pub left_step: usize,
    pub right: *const f32,
    pub right_step: usize,
    pub len: usize,
}

pub(super) type Sums<S, const P: usize, const V: usize> = [[<S as Simd>::f32s; V]; P];

pub(super) fn zeros<S: Simd, const P: usize, const V: usize>(simd: S) -> Sums<S, P, V> {
    [[simd.splat_f32s(0.0); V]; P]
}

/// Adds a product of `P` rows and `V` vectors of columns to the sums.
///
/// # Safety
/// Every element that [`Product`] names has to be readable, for `P` rows and `columns::<S, V>()` columns.
#[inline(always)]
pub(super) unsafe fn add_product<S: Simd, const P: usize, const V: usize>(
    simd: S,
    mut sums: Sums<S, P, V>,
    product: Product,
) -> Sums<S, P, V> {
    let Product { mut left, left_row, left_step, mut right, right_step, len } = product;
    for _ in 0..len {
        // SAFETY: the caller vouches for the elements.
        unsafe {
            let right_now: [S::f32s; V] = load(right);
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = simd.splat_f32s(*left.add(row * left_row));
                for (sum, right) in sums.iter_mut().zip(right_now) {
                    *sum = simd.mul_add_e_f32s(value, right, *sum);
                }
            }
        }
        left = left.wrapping_add(left_step);
        right = right.wrapping_add(right_step);
    }
    sums
}

/// Reads `V` vectors.
///
/// # Safety
/// `from` has to be readable for so many elements.
#[inline(always)]
pub(super) unsafe fn load<T: Copy, const V: usize>(from: *const f32) -> [T; V] {
    // SAFETY: the caller vouches for the elements; vectors of f32 may hold any bits.
    unsafe { from.cast::<[T; V]>().read_unaligned() }
}

/// Writes `V` vectors.
///
/// # Safety
/// `to` has to be writable for so many elements.
#[inline(always)]
pub(super) unsafe fn store<T: Copy, const V: usize>(to: *mut f32, values: [T; V]) {
    // SAFETY: the caller vouches for the elements.
    unsafe { to.cast::<[T; V]>().write_unaligned(values) }
}

/// Calls `$body` with `$rows` as a constant: the number of rows of a tile, from 1 to 16.
macro_rules! with_rows {
    ($count:expr, $rows:ident => $body:expr) => {{
        macro_rules! arm {
            ($n:literal) => {{
                const $rows: usize = $n;
                $body
            }};
        }
        match $count {
            1 => arm!(1),
            2 => arm!(2),
            3 => arm!(3),
            4 => arm!(4),
            5 => arm!(5),
            6 => arm!(6),
            7 => arm!(7),
            8 => arm!(8),
            9 => arm!(9),
            10 => arm!(10),
            11 => arm!(11),
            12 => arm!(12),
            13 => arm!(13),
            14 => arm!(14),
            15 => arm!(15),
            _ => arm!(16),
        }
    }};
}
pub(super) use with_rows;
