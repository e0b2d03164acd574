import Foundation
import Results

extension PicturePage {
  /// LayerNorm geometry: the half-plane of a stream's parts along and across the ones vector,
  /// strips of every token, and the ellipsoid's axes.
  mutating func geometry() {
    guard analysis == "ln_geometry" else { return }
    if !isDifference {
      let norms = context.group[dimension: "ln"]?.count ?? 0
      let tokens = (variable("norm")?.values.count ?? 0) / Swift.max(1, norms)
      let chosen = leftOut(norms, limits.series, "norms")
      add(
        "half_plane", "The stream before each norm: along and across the ones vector",
        facts: [
          "a point a token, position 0 left out; what lies along the ones vector is removed by the norm's centring"
        ] + chosen + pointLimit(tokens, pointsOfNorm), panels: halfPlane())
      for name in ["mean_share", "angle_to_ones", "angle_total"] {
        strips(name)
      }
      add(
        "semi_axes", "Semi-axes of the ellipsoid of each norm's outputs",
        facts: ["largest first; a semi-axis of 0 is not drawn"] + chosen,
        panels: semiAxes(), showing: ["semi_axis"])
    }
  }

  /// How many points a norm has in the half-plane.
  private var pointsOfNorm: Int { limits.points / Swift.max(1, limits.series) }

  /// |x|·cos and |x|·sin of the angle to the ones vector, a cloud for each of a few norms.
  private func halfPlane() -> [Picture.Panel] {
    guard let pair = numbers(["norm", "angle_to_ones"]), let norms = pair[0][axis: "ln"],
      let places = pair[0][axis: "pos"], places.count > 1
    else { return [] }
    let models = pair[0][axis: "model"]
    return (0..<(models?.count ?? 1)).map { index in
      let model = models?.label(at: index)
      let clouds = evenly(Array(0..<norms.count), limits.series).map { norm in
        let cut = pair.map { numbers in
          (models == nil ? numbers : numbers.at("model", index)).at("ln", norm)
        }
        let all = cut[0].values.indices.filter {
          $0 % places.count > 0 && cut[0].values[$0].isFinite && cut[1].values[$0].isFinite
        }
        let chosen = evenly(all, pointsOfNorm)
        let lengths = chosen.map { cut[0].values[$0] }
        let angles = chosen.map { cut[1].values[$0] * .pi / 180 }
        return Picture.Points.Cloud(
          norms.label(at: norm), model: model,
          x: zip(lengths, angles).map { Self.single($0 * cos($1)) },
          y: zip(lengths, angles).map { Self.single($0 * sin($1)) },
          labels: chosen.map { "prompt \($0 / places.count), position \($0 % places.count)" })
      }
      return Picture.Panel(
        model ?? "", model: model,
        clouds.allSatisfy { $0.x.isEmpty }
          ? .note("no value: no token but the first")
          : .points(
            Picture.Points(
              x: "along the ones vector", y: "across it", clouds: clouds)))
    }
  }

  /// A number as precise as the numbers that it comes of.
  private static func single(_ value: Double) -> Double { Double(Float(value)) }

  /// The most strips beside each other.
  private static let stripLimit = 25

  /// Every token's value at each norm, position 0 apart.
  private mutating func strips(_ name: String) {
    guard let variable = variable(name), let all = numbers([name])?.first,
      let norms = all[axis: "ln"], let places = all[axis: "pos"]
    else { return }
    let models = all[axis: "model"]
    let shownNorms = evenly(Array(0..<norms.count), Self.stripLimit)
    let pointsOfStrip = limits.points / Swift.max(1, shownNorms.count)
    let panels = (0..<(models?.count ?? 1)).map { index in
      let model = models?.label(at: index)
      let ofModel = models == nil ? all : all.at("model", index)
      var first = Picture.Points.Cloud("position 0", model: model, x: [], y: [])
      var rest = Picture.Points.Cloud("other positions", model: model, x: [], y: [])
      for (strip, norm) in shownNorms.enumerated() {
        let values = ofModel.at("ln", norm).values
        let known = values.indices.filter { values[$0].isFinite }
        for (count, cell) in evenly(known, pointsOfStrip).enumerated() {
          // Shifts by the golden ratio lie evenly, and are the same each time.
          let shift = (Double(count) * 0.618033988749895).truncatingRemainder(dividingBy: 1)
          let isFirst = cell % places.count == 0
          let x = Self.single(Double(strip) + (isFirst ? 0 : (shift - 0.5) * 0.6))
          let label = "prompt \(cell / places.count), position \(cell % places.count)"
          if isFirst {
            first.x.append(x)
            first.y.append(values[cell])
            first.labels.append(label)
          } else {
            rest.x.append(x)
            rest.y.append(values[cell])
            rest.labels.append(label)
          }
        }
      }
      let clouds = [rest, first].filter { !$0.x.isEmpty }
      let unit = variable.units == "1" ? "" : " [\(PictureContext.unit(variable.units))]"
      return Picture.Panel(
        model ?? "", model: model,
        clouds.isEmpty
          ? .note("no value: all \(all.values.count) cells are NaN")
          : .points(
            Picture.Points(
              x: "norm", y: variable.longName + unit,
              strips: shownNorms.map { norms.label(at: $0) }, clouds: clouds)))
    }
    let cells = all.values.count / Swift.max(1, norms.count)
    let limited = leftOut(norms.count, Self.stripLimit, "norms") + pointLimit(cells, pointsOfStrip)
    add(
      "\(name)_strips", Self.title(PictureContext.name(of: variable).title) + ", token by token",
      facts: context.facts(of: variable) + limited, panels: panels)
  }

  /// A curve for each of a few norms, on a logarithmic height.
  private func semiAxes() -> [Picture.Panel] {
    guard let all = numbers(["semi_axis"])?.first, let norms = all[axis: "ln"],
      let ranks = all[axis: "rank"]
    else { return [] }
    let models = all[axis: "model"]
    return (0..<(models?.count ?? 1)).map { index in
      let model = models?.label(at: index)
      let ofModel = models == nil ? all : all.at("model", index)
      let series = evenly(Array(0..<norms.count), limits.series).map { norm in
        Picture.Series(
          norms.label(at: norm), model: model,
          ofModel.at("ln", norm).values.map { $0 > 0 ? $0 : .nan })
      }.filter { $0.values.contains { !$0.isNaN } }
      return Picture.Panel(
        model ?? "", model: model,
        series.isEmpty
          ? .note("no value: the model has no gain, or every cell is NaN")
          : .curves(
            Picture.Curves(
              x: Picture.Axis("rank", (0..<ranks.count).map { ranks.label(at: $0) }),
              y: "semi-axis", series: series, isLogarithmic: true)))
    }
  }
}
