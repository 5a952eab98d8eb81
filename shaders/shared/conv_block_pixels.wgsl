// A block whose rows are pixels and whose columns are channels. The sum runs over units: a tap of the kernel and
// four channels. A workgroup has SLICES times 64 threads: thread 64 * slice + lane adds up every SLICES-th unit for
// the results of its lane. AHEAD, what the workgroup needs next is on its way while it computes: that takes registers,
// and pays where few workgroups share a processor.
//
// The kernel says what its matrices are, of which there is one for each of its `phases`: `phase_of` describes one,
// `pixels`, `columns`, `depth`, `taps` and `units` count, `place` finds the pixel of a row, `load_x` and
// `load_weight` fetch, `by_column` arranges what `load_weight` fetched, `start` begins a sum and `store_at` takes it.

// UNITS units of each pixel of the block, and the weights of their channels.
var<workgroup> xs: array<vec4<f32>, UNITS * BLOCK_ROWS>;
var<workgroup> ws: array<vec4<f32>, UNITS * BLOCK_COLUMNS>;

// `r` and `s` count the taps that this workgroup meets, `c` channels in fours.
struct Unit {
    r: u32,
    s: u32,
    c: u32,
}

// The unit `by` units on.
fn advance(unit: Unit, by: u32, phase: Phase) -> Unit {
    var after = unit;
    after.c += by;
    while after.c >= depth() {
        after.c -= depth();
        after.s++;
        if after.s == taps(phase) {
            after.s = 0u;
            after.r++;
        }
    }
    return after;
}

// What a thread fetches: pixels 64 apart of one unit, where there is one slice of the other one, too, and weights.
struct Fetched {
    a0: vec4<f32>,
    a1: vec4<f32>,
    a2: vec4<f32>,
    a3: vec4<f32>,
    b0: vec4<f32>,
    b1: vec4<f32>,
    b2: vec4<f32>,
    b3: vec4<f32>,
    w0: vec4<f32>,
    w1: vec4<f32>,
}

// The units that a thread fetches: `other` for one slice alone.
struct Next {
    own: Unit,
    other: Unit,
    weights: Unit,
}

// The pixels that a thread fetches: every 64th of the block.
struct Places {
    p0: Place,
    p1: Place,
    p2: Place,
    p3: Place,
}

fn fetch(phase: Phase, places: Places, next: Next, first_o: u32, local: u32) -> Fetched {
    var f = Fetched();
    f.a0 = load_x(phase, places.p0, next.own);
    if BLOCK_ROWS > 64u {
        f.a1 = load_x(phase, places.p1, next.own);
    }
    if BLOCK_ROWS > 128u {
        f.a2 = load_x(phase, places.p2, next.own);
        f.a3 = load_x(phase, places.p3, next.own);
    }
    if SLICES == 1u {
        f.b0 = load_x(phase, places.p0, next.other);
        if BLOCK_ROWS > 64u {
            f.b1 = load_x(phase, places.p1, next.other);
        }
        if BLOCK_ROWS > 128u {
            f.b2 = load_x(phase, places.p2, next.other);
            f.b3 = load_x(phase, places.p3, next.other);
        }
    }
    let e = local % BLOCK_COLUMNS;
    let o = first_o + e % COLUMNS_BY_FOUR;
    if local < UNITS * BLOCK_COLUMNS && o < columns() / 4u {
        f.w0 = load_weight(phase, next.weights, e / COLUMNS_BY_FOUR, o);
        if UNITS * BLOCK_COLUMNS > 64u * SLICES {
            f.w1 = load_weight(phase, next.other, e / COLUMNS_BY_FOUR, o);
        }
    }
    return f;
}

fn put(f: Fetched, slice: u32, lane: u32, local: u32) {
    let own = slice * BLOCK_ROWS + lane;
    xs[own] = f.a0;
    if BLOCK_ROWS > 64u {
        xs[own + 64u] = f.a1;
    }
    if BLOCK_ROWS > 128u {
        xs[own + 128u] = f.a2;
        xs[own + 192u] = f.a3;
    }
    if SLICES == 1u {
        xs[BLOCK_ROWS + lane] = f.b0;
        if BLOCK_ROWS > 64u {
            xs[BLOCK_ROWS + lane + 64u] = f.b1;
        }
        if BLOCK_ROWS > 128u {
            xs[BLOCK_ROWS + lane + 128u] = f.b2;
            xs[BLOCK_ROWS + lane + 192u] = f.b3;
        }
    }
    if local < UNITS * BLOCK_COLUMNS {
        ws[local] = f.w0;
        if UNITS * BLOCK_COLUMNS > 64u * SLICES {
            ws[local + BLOCK_COLUMNS] = f.w1;
        }
    }
}

// Four steps of the sum: `a` is four channels of a pixel.
fn accumulate(a: vec4<f32>, w: mat4x4<f32>, sum: vec4<f32>) -> vec4<f32> {
    let half = fma(vec4<f32>(a.y), w[1], fma(vec4<f32>(a.x), w[0], sum));
    return fma(vec4<f32>(a.w), w[3], fma(vec4<f32>(a.z), w[2], half));
}

// `row` and `column` are the thread's first ones.
fn add_unit(before: Sums, unit: u32, row: u32, column: u32) -> Sums {
    var sums = before;
    let b = unit * BLOCK_COLUMNS + column;
    let w0 = by_column(
        ws[b],
        ws[b + COLUMNS_BY_FOUR],
        ws[b + 2u * COLUMNS_BY_FOUR],
        ws[b + 3u * COLUMNS_BY_FOUR],
    );
    let w1 = by_column(
        ws[b + ACROSS],
        ws[b + ACROSS + COLUMNS_BY_FOUR],
        ws[b + ACROSS + 2u * COLUMNS_BY_FOUR],
        ws[b + ACROSS + 3u * COLUMNS_BY_FOUR],
    );
    let a = unit * BLOCK_ROWS + row;
    let x0 = xs[a];
    sums.s00 = accumulate(x0, w0, sums.s00);
    sums.s01 = accumulate(x0, w1, sums.s01);
    let x1 = xs[a + DOWN];
    sums.s10 = accumulate(x1, w0, sums.s10);
    sums.s11 = accumulate(x1, w1, sums.s11);
    let x2 = xs[a + 2u * DOWN];
    sums.s20 = accumulate(x2, w0, sums.s20);
    sums.s21 = accumulate(x2, w1, sums.s21);
    let x3 = xs[a + 3u * DOWN];
    sums.s30 = accumulate(x3, w0, sums.s30);
    sums.s31 = accumulate(x3, w1, sums.s31);
    let x4 = xs[a + 4u * DOWN];
    sums.s40 = accumulate(x4, w0, sums.s40);
    sums.s41 = accumulate(x4, w1, sums.s41);
    let x5 = xs[a + 5u * DOWN];
    sums.s50 = accumulate(x5, w0, sums.s50);
    sums.s51 = accumulate(x5, w1, sums.s51);
    let x6 = xs[a + 6u * DOWN];
    sums.s60 = accumulate(x6, w0, sums.s60);
    sums.s61 = accumulate(x6, w1, sums.s61);
    let x7 = xs[a + 7u * DOWN];
    sums.s70 = accumulate(x7, w0, sums.s70);
    sums.s71 = accumulate(x7, w1, sums.s71);
    return sums;
}

// Stores one vector of each lane, added up across the slices. One slice of the threads does it: `owner`, so that
// they take turns.
fn finish_vector(phase: Phase, sum: vec4<f32>, owner: u32, slice: u32, lane: u32, row: u32, o: u32) {
    var total = sum;
    if SLICES > 1u {
        workgroupBarrier();
        xs[slice * 64u + lane] = sum;
        workgroupBarrier();
        total = (xs[lane] + xs[64u + lane]) + (xs[128u + lane] + xs[192u + lane]);
    }
    if slice == owner % SLICES && o < columns() / 4u {
        store_at(phase, row, o, total);
    }
}

@compute @workgroup_size(64u * SLICES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let blocks_across = (columns() + BLOCK_COLUMNS - 1u) / BLOCK_COLUMNS;
    let blocks_down = (pixels() + BLOCK_ROWS - 1u) / BLOCK_ROWS;
    let index = workgroup_index(group, groups);
    if index >= blocks_across * blocks_down * phases() {
        return;
    }
    let phase = phase_of(index / (blocks_across * blocks_down));
    // Neighbouring workgroups read the same pixels.
    let first_o = index % blocks_across * COLUMNS_BY_FOUR;
    let first_row = index / blocks_across % blocks_down * BLOCK_ROWS;
    let lane = local % 64u;
    let slice = local / 64u;
    let places = Places(
        place(phase, first_row + lane),
        place(phase, first_row + lane + 64u),
        place(phase, first_row + lane + 128u),
        place(phase, first_row + lane + 192u),
    );

    let row = lane / ACROSS;
    let column = lane % ACROSS;
    let o = first_o + column;
    var b0 = vec4<f32>();
    var b1 = vec4<f32>();
    if slice == 0u {
        // Columns past the last begin as the last one, and are not stored.
        b0 = start(min(o, columns() / 4u - 1u));
        b1 = start(min(o + ACROSS, columns() / 4u - 1u));
    }
    var sums = Sums(b0, b1, b0, b1, b0, b1, b0, b1, b0, b1, b0, b1, b0, b1, b0, b1);

    let begin = Unit(0u, 0u, 0u);
    var next = Next(advance(begin, slice, phase), begin, begin);
    if SLICES == 1u {
        next.other = advance(begin, 1u, phase);
    }
    if BLOCK_COLUMNS < 64u * SLICES {
        next.weights = advance(begin, local / BLOCK_COLUMNS % UNITS, phase);
    }
    var fetched = Fetched();
    if AHEAD {
        fetched = fetch(phase, places, next, first_o, local);
    }
    for (var unit = 0u; unit < units(phase); unit += UNITS) {
        if !AHEAD {
            fetched = fetch(phase, places, next, first_o, local);
        }
        workgroupBarrier();
        put(fetched, slice, lane, local);
        workgroupBarrier();
        next.own = advance(next.own, UNITS, phase);
        if SLICES == 1u {
            next.other = advance(next.other, UNITS, phase);
        }
        if BLOCK_COLUMNS < 64u * SLICES {
            next.weights = advance(next.weights, UNITS, phase);
        } else {
            next.weights = next.own;
        }
        if AHEAD {
            // Past the last unit there is nothing to fetch, which the kernel knows.
            fetched = fetch(phase, places, next, first_o, local);
        }
        sums = add_unit(sums, slice, row, column);
        if SLICES == 1u {
            sums = add_unit(sums, 1u, row, column);
        }
    }

    let first = first_row + row;
    finish_vector(phase, sums.s00, 0u, slice, lane, first, o);
    finish_vector(phase, sums.s01, 1u, slice, lane, first, o + ACROSS);
    finish_vector(phase, sums.s10, 2u, slice, lane, first + DOWN, o);
    finish_vector(phase, sums.s11, 3u, slice, lane, first + DOWN, o + ACROSS);
    finish_vector(phase, sums.s20, 0u, slice, lane, first + 2u * DOWN, o);
    finish_vector(phase, sums.s21, 1u, slice, lane, first + 2u * DOWN, o + ACROSS);
    finish_vector(phase, sums.s30, 2u, slice, lane, first + 3u * DOWN, o);
    finish_vector(phase, sums.s31, 3u, slice, lane, first + 3u * DOWN, o + ACROSS);
    finish_vector(phase, sums.s40, 0u, slice, lane, first + 4u * DOWN, o);
    finish_vector(phase, sums.s41, 1u, slice, lane, first + 4u * DOWN, o + ACROSS);
    finish_vector(phase, sums.s50, 2u, slice, lane, first + 5u * DOWN, o);
    finish_vector(phase, sums.s51, 3u, slice, lane, first + 5u * DOWN, o + ACROSS);
    finish_vector(phase, sums.s60, 0u, slice, lane, first + 6u * DOWN, o);
    finish_vector(phase, sums.s61, 1u, slice, lane, first + 6u * DOWN, o + ACROSS);
    finish_vector(phase, sums.s70, 2u, slice, lane, first + 7u * DOWN, o);
    finish_vector(phase, sums.s71, 3u, slice, lane, first + 7u * DOWN, o + ACROSS);
}
