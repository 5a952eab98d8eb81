//! The inner loop of every convolution on the CPU: a tile of sums that stays in registers.

use std::ops::Range;

use pulp::Simd;

/// Vectors side by side in a wide tile.
pub(super) const WIDE: usize = 2;

/// Columns of the widest tile there is: vectors have at most 16 lanes.
pub(super) const WIDEST: usize = WIDE * 16;

/// Columns of a tile.
pub(super) const fn columns<S: Simd, const V: usize>() -> usize {
    assert!(V * S::F32_LANES <= WIDEST, "a tile is wider than any");
    V * S::F32_LANES
}

/// Rows of the largest tile of `V` vectors: its sums, `V` vectors of the right matrix and one value of the left are in
/// vector registers, and a pointer for each row in the others.
pub(super) const fn most_rows<S: Simd, const V: usize>() -> usize {
    // 32 registers: 16 sums, enough to cover the latency of a multiply-add. 16 registers: 12 sums.
    let sums = if S::REGISTER_COUNT >= 32 { 16 } else { 12 };
    if sums / V < MOST_ROWS { sums / V } else { MOST_ROWS }
}

/// Pointers that the general registers hold, beside that of the right matrix and a counter.
const MOST_ROWS: usize = 8;

/// `count` things in as few parts of at most `most` as they need, as equal as can be.
pub(super) fn parts(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = count.div_ceil(most);
    (0..parts).map(move |i| i * count / parts..(i + 1) * count / parts)
}

pub(super) type Sums<S, const P: usize, const V: usize> = [[<S as Simd>::f32s; V]; P];

pub(super) fn zeros<S: Simd, const P: usize, const V: usize>(simd: S) -> Sums<S, P, V> {
    [[simd.splat_f32s(0.0); V]; P]
}

/// Adds to each row the sum over k < `len` of `left[row][k] * right[k]`, where `right` has `V` vectors for each k.
///
/// # Safety
/// `len` elements have to be readable from every `left`, and `len * columns::<S, V>()` from `right`.
#[inline(always)]
pub(super) unsafe fn add_products<S: Simd, const P: usize, const V: usize>(
    simd: S,
    mut sums: Sums<S, P, V>,
    left: [*const f32; P],
    right: *const f32,
    len: usize,
) -> Sums<S, P, V> {
    const AT_ONCE: usize = 4;
    let whole = len / AT_ONCE * AT_ONCE;
    for k in (0..whole).step_by(AT_ONCE) {
        for i in 0..AT_ONCE {
            // SAFETY: the caller vouches for the elements.
            unsafe { add_product(simd, &mut sums, left, right, k + i) };
        }
    }
    for k in whole..len {
        // SAFETY: as above.
        unsafe { add_product(simd, &mut sums, left, right, k) };
    }
    sums
}

/// Adds `left[row][k] * right[k]` to each row.
///
/// # Safety
/// The element `k` has to be readable from every `left`, and `V` vectors from `right`, `k` times as many further on.
#[inline(always)]
unsafe fn add_product<S: Simd, const P: usize, const V: usize>(
    simd: S,
    sums: &mut Sums<S, P, V>,
    left: [*const f32; P],
    right: *const f32,
    k: usize,
) {
    // SAFETY: the caller vouches for the elements.
    unsafe {
        let right: [S::f32s; V] = load(right.add(k * columns::<S, V>()));
        for (sums, left) in sums.iter_mut().zip(left) {
            let value = simd.splat_f32s(*left.add(k));
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum = simd.mul_add_e_f32s(value, right, *sum);
            }
        }
    }
}

/// Adds to each row the sum over the offsets k of `left[k + row] * right[k]`, where `right` has `V` vectors for each.
///
/// # Safety
/// `P` elements have to be readable from `left` and each of the offsets, and for each `columns::<S, V>()` from `right`.
#[inline(always)]
pub(super) unsafe fn add_outer_products<S: Simd, const P: usize, const V: usize>(
    simd: S,
    mut sums: Sums<S, P, V>,
    left: *const f32,
    offsets: impl Iterator<Item = isize>,
    mut right: *const f32,
) -> Sums<S, P, V> {
    for offset in offsets {
        let left = left.wrapping_offset(offset);
        // SAFETY: the caller vouches for the elements.
        unsafe {
            let right: [S::f32s; V] = load(right);
            for (row, sums) in sums.iter_mut().enumerate() {
                let value = simd.splat_f32s(*left.add(row));
                for (sum, right) in sums.iter_mut().zip(right) {
                    *sum = simd.mul_add_e_f32s(value, right, *sum);
                }
            }
        }
        right = right.wrapping_add(columns::<S, V>());
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

/// A pointer that tasks share: each writes elements that no other touches.
#[derive(Clone, Copy)]
pub(super) struct Output(pub *mut f32);

// SAFETY: tasks write disjoint elements, and the slice outlives them all.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

/// Calls `$body` with `$rows` as a constant: the number of rows of a tile, from 1 to 8.
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
            _ => arm!(8),
        }
    }};
}
pub(super) use with_rows;
