// Attributes are ordered dictionaries: whoever imports `Results` may write their literals and look
// into them without a dependency of its own.
@_exported public import OrderedCollections
