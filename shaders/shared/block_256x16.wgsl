// A workgroup's block of the result: rows (pixels, or elements of the kernel) by output channels.
const BLOCK_ROWS = 256u;
const BLOCK_COLUMNS = 16u;
