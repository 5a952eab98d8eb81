// Random numbers that are a pure function of a key and a counter: the twin of
// runtime/src/random.rs, bit for bit up to roundings of `random_normal`.
//
// Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

// 1 <= bits <= 31.
fn rotate_left(word: u32, bits: u32) -> u32 {
    return (word << bits) | (word >> (32u - bits));
}

fn threefry_round(state: vec2<u32>, bits: u32) -> vec2<u32> {
    let x = state.x + state.y;
    return vec2<u32>(x, rotate_left(state.y, bits) ^ x);
}

// Four rounds with the first half of the rotations.
fn threefry_even(state: vec2<u32>) -> vec2<u32> {
    return threefry_round(threefry_round(threefry_round(threefry_round(state, 13u), 15u), 26u), 6u);
}

// Four rounds with the second half of the rotations.
fn threefry_odd(state: vec2<u32>) -> vec2<u32> {
    return threefry_round(threefry_round(threefry_round(threefry_round(state, 17u), 29u), 16u), 24u);
}

fn threefry(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
    let k0 = key.x;
    let k1 = key.y;
    let k2 = 0x1BD11BDAu ^ key.x ^ key.y;
    var state = counter + key;
    state = threefry_even(state) + vec2<u32>(k1, k2 + 1u);
    state = threefry_odd(state) + vec2<u32>(k2, k0 + 2u);
    state = threefry_even(state) + vec2<u32>(k0, k1 + 3u);
    state = threefry_odd(state) + vec2<u32>(k1, k2 + 4u);
    return threefry_even(state) + vec2<u32>(k2, k0 + 5u);
}

// A multiple of 2^-24 in [0, 1).
fn unit(word: u32) -> f32 {
    return f32(word >> 8u) * (1.0 / 16777216.0);
}

// Uniform in [0, 1), for element `position` of image `index`.
fn random_uniform(key: vec2<u32>, index: u32, position: u32) -> f32 {
    return unit(threefry(key, vec2<u32>(index, position)).x);
}

// The natural logarithm of a normal number, to three units in the last place: a device's own may be off by 2^-21.
fn logarithm(v: f32) -> f32 {
    let bits = bitcast<u32>(v);
    var exponent = i32(bits >> 23u) - 127;
    var m = bitcast<f32>((bits & 0x007fffffu) | 0x3f800000u);
    if m > 1.41421356 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = 1.0 + z * (0.33333333 + z * (0.2 + z * (0.14285714 + z * 0.11111111)));
    return f32(exponent) * 0.69314718 + 2.0 * s * series;
}

// The sine of `turns` of a circle within a quarter of one, to 2^-22: a device's own may be off by 2^-11.
fn sine_of_turns(turns: f32) -> f32 {
    let z = turns * turns;
    let series = 6.283185 + z * (-41.34166 + z * (81.601265 + z * (-76.55503 + z * 39.572231)));
    return turns * series;
}

// Standard normal (Box-Muller), for element `position` of image `index`.
fn random_normal(key: vec2<u32>, index: u32, position: u32) -> f32 {
    let words = threefry(key, vec2<u32>(index, position));
    // 1 - u lies in (0, 1]. A logarithm of 1 that is rounded above 0 must not reach the root.
    let radius = sqrt(max(-2.0 * logarithm(1.0 - unit(words.x)), 0.0));
    // cos(2 pi u) = sin(2 pi (|u - 1/2| - 1/4)).
    return radius * sine_of_turns(abs(unit(words.y) - 0.5) - 0.25);
}
