// Analyses
