// What padding and slicing need to know.

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
