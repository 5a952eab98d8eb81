// A thread goes through the whole sum of its results, two units at a time.
const SLICES = 1u;
const UNITS = 2u;
const AHEAD = false;
