// HookedGPT2
