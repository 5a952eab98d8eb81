// Four slices of the sum, for which a block has four times the threads.
const SLICES = 4u;
const UNITS = 4u;
const AHEAD = true;
