// Where the parts of a sum lie, and what their sum is multiplied by.

struct Params {
    parts: u32,
    stride: u32,
    offset: u32,
    len: u32,
    factor: f32,
}
