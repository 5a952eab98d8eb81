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
// Dispatch: one thread for each element of dx.

@group(0) @binding(0) var<storage, read> dy: array<T>;
@group(0) @binding(1) var<storage, read_write> dx: array<T>;
@group(0) @binding(2) var<uniform> params: Params;

// What the average of window (p, q) divides by.
fn window_divisor(p: u32, q: u32) -> f32 {
    let rows = divisor(
        p * params.stride_h,
        params.in_h,
        params.pad_top,
        params.pad_bottom,
        params.kernel_h,
        params.dilation_h,
        params.include_pad,
    );
    let columns = divisor(
        q * params.stride_w,
        params.in_w,
        params.pad_left,
        params.pad_right,
        params.kernel_w,
        params.dilation_w,
        params.include_pad,
    );
    return f32(max(rows * columns, 1u));
}

// The first window that reaches the padded position `at`, and the one after the last.
fn windows(at: u32, stride: u32, size: u32, dilation: u32, count: u32) -> vec2<u32> {
    let reach = (size - 1u) * dilation;
    let first = select((at - reach + stride - 1u) / stride, 0u, at < reach);
    return vec2<u32>(first, min(at / stride + 1u, count));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = thread_index(group, groups, local);
    if i >= params.batch * params.in_h * params.in_w * params.channels {
        return;
    }
    let c = i % params.channels;
    let j = i / params.channels % params.in_w;
    let row = i / params.channels / params.in_w;
    let i_h = row % params.in_h;
    let n = row / params.in_h;

    let windows_h = windows(i_h + params.pad_top, params.stride_h, params.kernel_h, params.dilation_h, params.out_h);
    let windows_w = windows(j + params.pad_left, params.stride_w, params.kernel_w, params.dilation_w, params.out_w);
    var sum = T();
    for (var p = windows_h.x; p < windows_h.y; p++) {
        if (i_h + params.pad_top - p * params.stride_h) % params.dilation_h != 0u {
            continue;
        }
        for (var q = windows_w.x; q < windows_w.y; q++) {
            if (j + params.pad_left - q * params.stride_w) % params.dilation_w != 0u {
                continue;
            }
            let at = ((n * params.out_h + p) * params.out_w + q) * params.channels + c;
            sum += dy[at] / window_divisor(p, q);
        }
    }
    dx[i] = sum;
}
