// NormLens
