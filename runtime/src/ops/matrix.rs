//! Matrix products on the CPU, by the `gemm` crate.

/// A matrix inside a slice: element (i, j) is at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub column: usize,
}

/// `out = a b`, or `out += a b` when `accumulate`; a is m x k, b is k x n, and row i of `out`
/// starts at `i * out_row`. One thread: callers divide the work.
pub(super) fn multiply(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    out_row: usize,
    accumulate: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    let last =
        |rows: usize, columns: usize, row: usize, column: usize| (rows - 1) * row + (columns - 1) * column;
    assert!(k > 0, "an inner dimension of zero");
    assert!(last(m, k, a.row, a.column) < a.data.len(), "left matrix out of bounds");
    assert!(last(k, n, b.row, b.column) < b.data.len(), "right matrix out of bounds");
    assert!(n <= out_row || m == 1, "rows of the result overlap");
    assert!(last(m, n, out_row, 1) < out.len(), "result out of bounds");
    let scale = if accumulate { 1.0 } else { 0.0 };
    // SAFETY: the assertions above keep every element that gemm touches inside its slice, the rows
    // of the result do not overlap, and `out` is borrowed mutably, so it aliases neither input.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_row as isize,
            accumulate,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            scale,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
