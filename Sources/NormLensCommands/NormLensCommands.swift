// NormLensCommands
