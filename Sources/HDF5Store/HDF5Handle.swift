import CHDF5

/// One HDF5 identifier (file, group, dataset, type, …), released when the last reference goes.
///
/// Handles live and die while the library's lock is held.
final class HDF5Handle {
  let id: hid_t
  private var isOpen = true

  /// The handle of an identifier that HDF5 has just returned; negative ones are failures.
  init?(_ id: hid_t) {
    guard id >= 0 else { return nil }
    self.id = id
  }

  deinit { _ = close() }

  /// Releases the identifier now; false if HDF5 refuses, as it does when buffered bytes of a file
  /// cannot be written any more. H5Idec_ref serves every kind of identifier.
  func close() -> Bool {
    guard isOpen else { return true }
    isOpen = false
    return H5Idec_ref(id) >= 0
  }
}
