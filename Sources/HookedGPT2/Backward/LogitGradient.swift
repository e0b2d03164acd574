public import Tensors

/// The derivative of a number by the logits of one run: where a backward pass starts.
public struct LogitGradient: Sendable {
  /// The positions whose logits the number reads, ascending.
  public let positions: [Int]
  /// The tokens whose logits it reads; nil means the whole vocabulary.
  public let tokens: [Int]?
  /// The derivatives, shape `[positions, tokens]` or `[positions, d_vocab]`.
  public let values: Tensor

  /// Derivatives by some tokens' logits at some positions.
  ///
  /// A token may occur twice: its derivatives add up.
  ///
  /// - Precondition: `values` has a row for each position and a column for each token; positions
  ///   ascend.
  public init(at positions: [Int], tokens: [Int]?, _ values: Tensor) {
    precondition(
      values.rank == 2 && values.shape[0] == positions.count
        && tokens.map { $0.count == values.shape[1] } != false,
      "LogitGradient: values \(values.shape) for \(positions.count) positions and "
        + "\(tokens.map { "\($0.count)" } ?? "all") tokens")
    precondition(
      zip(positions, positions.dropFirst()).allSatisfy { $0 < $1 },
      "LogitGradient: positions \(positions) do not ascend")
    self.positions = positions
    self.tokens = tokens
    self.values = values
  }
}
