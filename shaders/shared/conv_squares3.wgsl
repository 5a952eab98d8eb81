// Squares of four by four pixels of a convolution on subgroups of exactly eight lanes. The kernel says what the
// `Sums` of a row of outputs are, what the weights of a `Tap`, and how `add_tap` adds the one to the other.

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

// The sums of the four rows of a square.
struct Rows {
    r0: Sums,
    r1: Sums,
    r2: Sums,
    r3: Sums,
}

// What a tap meets of a row of x, for four pixels.
struct Met {
    x0: vec4<f32>,
    x1: vec4<f32>,
    x2: vec4<f32>,
    x3: vec4<f32>,
}

// The four rows with one tap more.
fn add_rows(before: Rows, met0: Met, met1: Met, met2: Met, met3: Met, tap: Tap) -> Rows {
    return Rows(
        add_tap(before.r0, met0, tap),
        add_tap(before.r1, met1, tap),
        add_tap(before.r2, met2, tap),
        add_tap(before.r3, met3, tap),
    );
}
