// What a thread of conv_squares3.wgsl loads of x, in_c a multiple of 4, and how it sums that, where the kernel is
// three by three, the stride 2 and the dilation 1. A row of x serves up to two rows of outputs, and the first of nine
// positions comes from the lane that loaded it.

// The nine positions of a row of x that the taps of four pixels meet.
struct Row {
    x0: vec4<f32>,
    x1: vec4<f32>,
    x2: vec4<f32>,
    x3: vec4<f32>,
    x4: vec4<f32>,
    x5: vec4<f32>,
    x6: vec4<f32>,
    x7: vec4<f32>,
    x8: vec4<f32>,
}

// Where the positions of a row lie, the same for all rows and channels.
struct Columns {
    // The last eight: where, and whether that is inside of the image.
    near: vec4<u32>,
    far: vec4<u32>,
    near_inside: vec4<bool>,
    far_inside: vec4<bool>,
    // The first: whether the lane before has loaded it, or else whether it has to be loaded.
    given: bool,
    outer: u32,
    loaded: bool,
}

fn columns(square: u32, q: u32, lane: u32) -> Columns {
    let channels = params.in_c / 4u;
    // Which lane is beside which thread is the device's choice, so it is asked.
    let before = subgroupShuffleUp(square, 1u) + 1u == square;
    // One before the image wraps to a huge one, so one comparison finds both edges.
    let start = 2u * q - params.pad_left;
    let near = start + vec4<u32>(1u, 2u, 3u, 4u);
    let far = start + vec4<u32>(5u, 6u, 7u, 8u);
    let last = params.in_w - 1u;
    let given = before & (lane > 0u) & (q > 0u);
    let inside = start <= last;
    return Columns(
        min(near, vec4<u32>(last)) * channels,
        min(far, vec4<u32>(last)) * channels,
        near <= vec4<u32>(last),
        far <= vec4<u32>(last),
        given & inside,
        min(start, last) * channels,
        inside & !given,
    );
}

// Input row i_h of image n, four channels from 4c on.
fn row_at(columns: Columns, n: u32, i_h: u32, c: u32) -> Row {
    let inside = i_h < params.in_h;
    let first = (n * params.in_h + min(i_h, params.in_h - 1u)) * params.in_w * (params.in_c / 4u) + c;
    let near = columns.near_inside & vec4<bool>(inside);
    let far = columns.far_inside & vec4<bool>(inside);
    let x1 = select(vec4<f32>(), x_at(first + columns.near.x), near.x);
    let x2 = select(vec4<f32>(), x_at(first + columns.near.y), near.y);
    let x3 = select(vec4<f32>(), x_at(first + columns.near.z), near.z);
    let x4 = select(vec4<f32>(), x_at(first + columns.near.w), near.w);
    let x5 = select(vec4<f32>(), x_at(first + columns.far.x), far.x);
    let x6 = select(vec4<f32>(), x_at(first + columns.far.y), far.y);
    let x7 = select(vec4<f32>(), x_at(first + columns.far.z), far.z);
    let x8 = select(vec4<f32>(), x_at(first + columns.far.w), far.w);
    var x0 = select(vec4<f32>(), subgroupShuffleUp(x8, 1u), columns.given);
    if columns.loaded & inside {
        x0 = x_at(first + columns.outer);
    }
    return Row(x0, x1, x2, x3, x4, x5, x6, x7, x8);
}

// What a tap in the left column of the kernel, the middle or the right meets of a row.
fn left(row: Row) -> Met {
    return Met(row.x0, row.x2, row.x4, row.x6);
}

fn middle(row: Row) -> Met {
    return Met(row.x1, row.x3, row.x5, row.x7);
}

fn right(row: Row) -> Met {
    return Met(row.x2, row.x4, row.x6, row.x8);
}

// Sums that begin as `none`. The weights of this lane begin at `own`, those of the next four input channels are `four`
// on, and those of the next tap in_c / 4 times that. All rows of x come before the first weights, of which few live at
// once then.
fn sums_of(square: Square, lane: u32, own: u32, four: u32, none: Sums) -> Rows {
    let channels = params.in_c / 4u;
    let columns = columns(square.number, square.q, lane);
    let i_h = 2u * square.p - params.pad_top;
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
        let row6 = row_at(columns, square.n, i_h + 6u, c);
        let row7 = row_at(columns, square.n, i_h + 7u, c);
        let row8 = row_at(columns, square.n, i_h + 8u, c);
        sums = add_rows(sums, left(row0), left(row2), left(row4), left(row6), tap_at(weights));
        sums = add_rows(sums, middle(row0), middle(row2), middle(row4), middle(row6), tap_at(weights + tap));
        sums = add_rows(sums, right(row0), right(row2), right(row4), right(row6), tap_at(weights + 2u * tap));
        sums = add_rows(sums, left(row1), left(row3), left(row5), left(row7), tap_at(weights + 3u * tap));
        sums = add_rows(sums, middle(row1), middle(row3), middle(row5), middle(row7), tap_at(weights + 4u * tap));
        sums = add_rows(sums, right(row1), right(row3), right(row5), right(row7), tap_at(weights + 5u * tap));
        sums = add_rows(sums, left(row2), left(row4), left(row6), left(row8), tap_at(weights + 6u * tap));
        sums = add_rows(sums, middle(row2), middle(row4), middle(row6), middle(row8), tap_at(weights + 7u * tap));
        sums = add_rows(sums, right(row2), right(row4), right(row6), right(row8), tap_at(weights + 8u * tap));
    }
    return sums;
}
