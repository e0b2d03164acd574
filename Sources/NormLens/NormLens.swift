// What a study imports: models, analyses, results and their text and files.
@_exported public import Analyses
@_exported public import HDF5Store
@_exported public import HookedGPT2
@_exported public import Reporting
@_exported public import Results
@_exported public import Tensors

/// The version of the library, stored with every result.
public let normLensVersion = "0.1.0"
