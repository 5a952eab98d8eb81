// Squares of four by four pixels of a convolution with a kernel of three by three and stride and dilation 1, on
// subgroups of exactly eight lanes: what a thread loads of x, in_c a multiple of 4. A position of the image serves up
// to three rows of outputs, and the two beside a thread's own four come from the lanes that loaded them.

// The six positions of a row of x that the taps of four pixels meet.
struct Row {
    x0: vec4<f32>,
    x1: vec4<f32>,
    x2: vec4<f32>,
    x3: vec4<f32>,
    x4: vec4<f32>,
    x5: vec4<f32>,
}

// Where the positions of a row lie, the same for all rows and channels.
struct Columns {
    // The inner four: where, and whether that is inside of the image.
    at: vec4<u32>,
    inside: vec4<bool>,
    // The outer two: whether a neighbouring lane has loaded the position, or else whether it has to be loaded.
    given: vec2<bool>,
    outer: vec2<u32>,
    loaded: vec2<bool>,
}

fn columns(square: u32, q: u32, lane: u32) -> Columns {
    let channels = params.in_c / 4u;
    // Which lane is beside which thread is the device's choice, so it is asked.
    let before = subgroupShuffleUp(square, 1u) + 1u == square;
    let after = subgroupShuffleDown(square, 1u) == square + 1u;
    // One before the image wraps to a huge one, so one comparison finds both edges.
    let start = q - params.pad_left;
    let inner = start + vec4<u32>(1u, 2u, 3u, 4u);
    let outer = start + vec2<u32>(0u, 5u);
    let last = params.in_w - 1u;
    let given = vec2<bool>(before & (lane > 0u) & (q > 0u), after & (lane < 7u) & (q + 4u < params.out_w));
    let inside = outer <= vec2<u32>(last);
    return Columns(
        min(inner, vec4<u32>(last)) * channels,
        inner <= vec4<u32>(last),
        given & inside,
        min(outer, vec2<u32>(last)) * channels,
        inside & !given,
    );
}

// Input row i_h of image n, four channels from 4c on.
fn row_at(columns: Columns, n: u32, i_h: u32, c: u32) -> Row {
    let inside = i_h < params.in_h;
    let first = (n * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w * (params.in_c / 4u) + c;
    let own = columns.inside & vec4<bool>(inside);
    let x1 = select(vec4<f32>(), x[first + columns.at.x], own.x);
    let x2 = select(vec4<f32>(), x[first + columns.at.y], own.y);
    let x3 = select(vec4<f32>(), x[first + columns.at.z], own.z);
    let x4 = select(vec4<f32>(), x[first + columns.at.w], own.w);
    var x0 = select(vec4<f32>(), subgroupShuffleUp(x4, 1u), columns.given.x);
    var x5 = select(vec4<f32>(), subgroupShuffleDown(x1, 1u), columns.given.y);
    if columns.loaded.x & inside {
        x0 = x[first + columns.outer.x];
    }
    if columns.loaded.y & inside {
        x5 = x[first + columns.outer.y];
    }
    return Row(x0, x1, x2, x3, x4, x5);
}

// Where a thread works.
struct Square {
    // Which of all; threads without work repeat the last one and store nothing, since every lane takes part in the
    // broadcasts.
    number: u32,
    stores: bool,
    n: u32,
    // Its first row and column.
    p: u32,
    q: u32,
}

// Workgroups that all squares take.
fn square_groups() -> u32 {
    let squares = params.batch * ((params.out_h + 3u) / 4u) * ((params.out_w + 3u) / 4u);
    return (squares + WORKGROUP - 1u) / WORKGROUP;
}

fn square_at(position: u32) -> Square {
    let across = (params.out_w + 3u) / 4u;
    let down = (params.out_h + 3u) / 4u;
    let squares = params.batch * down * across;
    let number = min(position, squares - 1u);
    let n = number / across / down;
    return Square(number, position < squares, n, number / across % down * 4u, number % across * 4u);
}
