// dx[n,i,j,c] = sum of dy / (the divisor of the window) over the windows that hold position (i, j).
//
// | binding | name | access | elements |
// |---|---|---|---|
// | 0 | dy | read | batch * out_h * out_w * channels |
// | 1 | dx | read_write | batch * in_h * in_w * channels |
// | 2 | params | uniform | |
//
// Elements and channels are counted in T: one channel, or four.
//
// Dispatch: one thread for each channel of 4 neighbouring pixels of a row of dx.

@group(0) @binding(0) var<storage, read> dy: array<T>;
@group(0) @binding(1) var<storage, read_write> dx: array<T>;
@group(0) @binding(2) var<uniform> params: Params;

// The rows, or columns, of window `p` that its average divides by.
fn window_rows(p: u32) -> u32 {
    return divisor(
        p * params.stride_h,
        params.in_h,
        params.pad_top,
        params.pad_bottom,
        params.kernel_h,
        params.dilation_h,
        params.include_pad,
    );
}

fn window_columns(q: u32) -> u32 {
    return divisor(
        q * params.stride_w,
        params.in_w,
        params.pad_left,
        params.pad_right,
        params.kernel_w,
        params.dilation_w,
        params.include_pad,
    );
}

// The part of the gradient of pixel column `j` that the windows of one row `p` of them pass on.
fn from_row(row: u32, rows: u32, j: u32, c: u32) -> T {
    let columns = windows(j + params.pad_left, params.stride_w, params.kernel_w, params.dilation_w, params.out_w);
    var sum = T();
    for (var q = columns.x; q < columns.y; q++) {
        if (j + params.pad_left - q * params.stride_w) % params.dilation_w == 0u {
            sum += dy[(row + q) * params.channels + c] / f32(max(rows * window_columns(q), 1u));
        }
    }
    return sum;
}

// The first window that reaches the padded position `at`, and the one after the last.
fn windows(at: u32, stride: u32, size: u32, dilation: u32, count: u32) -> vec2<u32> {
    let reach = (size - 1u) * dilation;
    let first = select((at - reach + stride - 1u) / stride, 0u, at < reach);
    return vec2<u32>(first, min(at / stride + 1u, count));
}

fn store(row: u32, j: u32, c: u32, sum: T) {
    if j < params.in_w {
        dx[(row * params.in_w + j) * params.channels + c] = sum;
    }
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    let strips = (params.in_w + 3u) / 4u;
    let strip = i / params.channels;
    let c = i - strip * params.channels;
    let row = strip / strips;
    let first = (strip - row * strips) * 4u;
    let n = row / params.in_h;
    if n >= params.batch {
        return;
    }
    let i_h = row - n * params.in_h;

    let windows_h = windows(i_h + params.pad_top, params.stride_h, params.kernel_h, params.dilation_h, params.out_h);
    var sum0 = T();
    var sum1 = T();
    var sum2 = T();
    var sum3 = T();
    for (var p = windows_h.x; p < windows_h.y; p++) {
        if (i_h + params.pad_top - p * params.stride_h) % params.dilation_h != 0u {
            continue;
        }
        let window_row = (n * params.out_h + p) * params.out_w;
        let rows = window_rows(p);
        sum0 += from_row(window_row, rows, first, c);
        sum1 += from_row(window_row, rows, first + 1u, c);
        sum2 += from_row(window_row, rows, first + 2u, c);
        sum3 += from_row(window_row, rows, first + 3u, c);
    }
    store(row, first, c, sum0);
    store(row, first + 1u, c, sum1);
    store(row, first + 2u, c, sum2);
    store(row, first + 3u, c, sum3);
}
