// What padding and slicing need to know, and the part of y that a thread makes.

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    in_c: u32,
    out_h: u32,
    out_w: u32,
    out_c: u32,
    before_h: u32,
    before_w: u32,
    before_c: u32,
    step_h: u32,
    step_w: u32,
    step_c: u32,
    value: f32,
}

// A channel of up to four neighbouring pixels of a row of y: they share the divisions that find them.
struct Strip {
    n: u32,
    p: u32,
    q: u32,
    c: u32,
}

fn strip_of(i: u32) -> Strip {
    let strips = (params.out_w + 3u) / 4u;
    let strip = i / params.out_c;
    let row = strip / strips;
    let n = row / params.out_h;
    return Strip(n, row - n * params.out_h, (strip - row * strips) * 4u, i - strip * params.out_c);
}
