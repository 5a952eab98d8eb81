// What a thread of conv_squares3.wgsl loads of x, in_c a multiple of 4, and how it sums that, where the kernel is
// three by three and stride and dilation are 1. A position of the image serves up to three rows of outputs, and the
// two beside a thread's own four come from the lanes that loaded them.

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
    let x1 = select(vec4<f32>(), x_at(first + columns.at.x), own.x);
    let x2 = select(vec4<f32>(), x_at(first + columns.at.y), own.y);
    let x3 = select(vec4<f32>(), x_at(first + columns.at.z), own.z);
    let x4 = select(vec4<f32>(), x_at(first + columns.at.w), own.w);
    var x0 = select(vec4<f32>(), subgroupShuffleUp(x4, 1u), columns.given.x);
    var x5 = select(vec4<f32>(), subgroupShuffleDown(x1, 1u), columns.given.y);
    if columns.loaded.x & inside {
        x0 = x_at(first + columns.outer.x);
    }
    if columns.loaded.y & inside {
        x5 = x_at(first + columns.outer.y);
    }
    return Row(x0, x1, x2, x3, x4, x5);
}

// What a tap in the left column of the kernel, the middle or the right meets of a row.
fn left(row: Row) -> Met {
    return Met(row.x0, row.x1, row.x2, row.x3);
}

fn middle(row: Row) -> Met {
    return Met(row.x1, row.x2, row.x3, row.x4);
}

fn right(row: Row) -> Met {
    return Met(row.x2, row.x3, row.x4, row.x5);
}

// Sums that begin as `none`. The weights of this lane begin at `own`, those of the next four input channels are `four`
// on, and those of the next tap in_c / 4 times that. All rows of x come before the first weights, of which few live at
// once then.
fn sums_of(square: Square, lane: u32, own: u32, four: u32, none: Sums) -> Rows {
    let channels = params.in_c / 4u;
    let columns = columns(square.number, square.q, lane);
    let i_h = square.p - params.pad_top;
    let tap = channels * four;
    var sums = Rows(none, none, none, none);
    for (var c = 0u; c < channels; c++) {
        let weights = own + c * four;
        let row0 = row_at(columns, square.n, i_h, c);
        let row1 = row_at(columns, square.n, i_h + 1u, c);
        let row2 = row_at(columns, square.n, i_h + 2u, c);
        let row3 = row_at(columns, square.n, i_h + 3u, c);
        let row4 = row_at(columns, square.n, i_h + 4u, c);
        let row5 = row_at(columns, square.n, i_h + 5u, c);
        sums = add_rows(sums, left(row0), left(row1), left(row2), left(row3), tap_at(weights));
        sums = add_rows(sums, middle(row0), middle(row1), middle(row2), middle(row3), tap_at(weights + tap));
        sums = add_rows(sums, right(row0), right(row1), right(row2), right(row3), tap_at(weights + 2u * tap));
        sums = add_rows(sums, left(row1), left(row2), left(row3), left(row4), tap_at(weights + 3u * tap));
        sums = add_rows(sums, middle(row1), middle(row2), middle(row3), middle(row4), tap_at(weights + 4u * tap));
        sums = add_rows(sums, right(row1), right(row2), right(row3), right(row4), tap_at(weights + 5u * tap));
        sums = add_rows(sums, left(row2), left(row3), left(row4), left(row5), tap_at(weights + 6u * tap));
        sums = add_rows(sums, middle(row2), middle(row3), middle(row4), middle(row5), tap_at(weights + 7u * tap));
        sums = add_rows(sums, right(row2), right(row3), right(row4), right(row5), tap_at(weights + 8u * tap));
    }
    return sums;
}
