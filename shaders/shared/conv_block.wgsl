// A convolution as a product of matrices, in blocks of 4096 results for a workgroup of 64 threads. Both
// factors of eight steps of the sum lie in workgroup memory; a thread has 8 rows and 8 columns of the block
// in sixteen vectors, each value that it reads there goes into 8 multiply-adds.

// Threads along the columns and along the rows of a block. A thread's rows, or columns in fours, are so many
// apart: neighbouring threads then read neighbouring values.
const ACROSS = BLOCK_COLUMNS / 8u;
const DOWN = BLOCK_ROWS / 8u;
const COLUMNS_BY_FOUR = BLOCK_COLUMNS / 4u;

struct Sums {
    s00: vec4<f32>,
    s01: vec4<f32>,
    s10: vec4<f32>,
    s11: vec4<f32>,
    s20: vec4<f32>,
    s21: vec4<f32>,
    s30: vec4<f32>,
    s31: vec4<f32>,
    s40: vec4<f32>,
    s41: vec4<f32>,
    s50: vec4<f32>,
    s51: vec4<f32>,
    s60: vec4<f32>,
    s61: vec4<f32>,
    s70: vec4<f32>,
    s71: vec4<f32>,
}
