public import Tensors

/// A step of the model with parameters.
public enum ParameterStep: Hashable, Sendable {
  /// Gain and bias of the norm before attention; without norms there is no such step.
  case ln1(Int)
  /// `W_QKV`, `b_QKV`: the output is q, k, v side by side, `[pos, 3·d_model]`.
  case qkv(Int)
  /// `W_O`, `b_O`.
  case attnOut(Int)
  /// Gain and bias of the norm before the MLP.
  case ln2(Int)
  /// `W_in`, `b_in`.
  case mlpIn(Int)
  /// `W_out`, `b_out`.
  case mlpOut(Int)
  /// Gain and bias of the final norm.
  case lnFinal
}

/// What looks at a backward pass while it goes down through the layers.
///
/// Gradients are handed over one run and one site at a time and are not kept: memory is that of one
/// layer, whatever is looked at.
public protocol BackwardVisitor {
  /// Whether the gradient at a hook is wanted; what nobody wants and nothing depends on is not
  /// computed.
  func wants(_ name: HookName) -> Bool
  /// Takes the gradient at a hook, in the reverse order of the forward pass.
  ///
  /// - Parameters:
  ///   - run: the index of the run.
  ///   - gradient: shape as the site's, from the pass' first position of this run on:
  ///     `[pos − first, …]`, `[head, query_pos − first, key_pos]`.
  mutating func visit(_ name: HookName, run: Int, _ gradient: Tensor) throws

  /// Whether what makes up the derivatives of a step's parameters is wanted.
  func wants(_ step: ParameterStep) -> Bool
  /// Takes a step's input and the gradient at its output: for `y = x·W + b` the derivatives are
  /// `dW = xᵀ·g`, `db = Σ g` over rows; for a norm, whose `input` is the normalised stream before its
  /// gain, `dgain = Σ input ⊙ g`, `dbias = Σ g`.
  ///
  /// - Parameters:
  ///   - input: `[pos − first, width]`; called as a function because a step whose bias alone is asked
  ///     for need not make it.
  ///   - gradient: `[pos − first, width of the output]`.
  mutating func visit(
    _ step: ParameterStep, run: Int, input: () throws -> Tensor, gradient: Tensor) throws
}

extension BackwardVisitor {
  /// No parameters.
  public func wants(_ step: ParameterStep) -> Bool { false }
  /// No parameters.
  public mutating func visit(
    _ step: ParameterStep, run: Int, input: () throws -> Tensor, gradient: Tensor
  ) throws {}
}
