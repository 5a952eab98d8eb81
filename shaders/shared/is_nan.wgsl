// Whether a value is not a number, by its bits: compilers may assume that a value equals itself.
fn is_nan(v: f32) -> bool {
    return (bitcast<u32>(v) & 0x7fffffffu) > 0x7f800000u;
}

