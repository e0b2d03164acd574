/// A quantile of numbers, interpolated linearly between neighbours; those that are NaN do not count, and of
/// none it is NaN.
func quantile(_ values: [Double], _ share: Double) -> Double {
  quantile(ofSorted: values.filter { !$0.isNaN }.sorted(), share)
}

/// A quantile of numbers in order, interpolated linearly between neighbours; NaN of none.
func quantile(ofSorted values: [Double], _ share: Double) -> Double {
  guard let last = values.last else { return .nan }
  let place = share * Double(values.count - 1)
  let below = Int(place)
  // No arithmetic with a neighbour that does not count: it may be infinite.
  if place == Double(below) { return values[below] }
  let above = below + 1 < values.count ? values[below + 1] : last
  return values[below] + (place - Double(below)) * (above - values[below])
}
