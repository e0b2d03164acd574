/// A picture as plain data: what is drawn from which numbers on which scale, and what is written
/// beside it; no pixels, no fonts.
///
/// ``PictureBook`` makes pictures from a result, ``SVGPicture`` and the report's page draw them, and
/// `normlens show` draws their cells in the terminal: the numbers and scales are chosen once.
public struct Picture: Sendable, Equatable {
  /// A file's stem: the group's path and the variable, `dla-contribution`; unique in a result.
  public var name: String
  /// The path of the group that the numbers stand in: `patch/activation`.
  public var group: String
  /// The names of the group's variables that are drawn.
  public var variables: [String]
  /// The ``name`` of the picture of the models themselves, for a picture of their differences.
  public var differenceOf: String?
  /// What is drawn, in a few words.
  public var title: String
  /// What a reader must know to read it, a line each: model, normalization and gauge; direction,
  /// sign convention and units; what was left out.
  public var facts: [String]
  /// How the panels stand.
  public var layout: Layout
  /// The choices between which a reader may switch, at least one: prompts, or their mean.
  public var views: [View]
  /// Whether this is one of the pictures that people look for first.
  public var isMain: Bool

  /// A picture.
  ///
  /// - Precondition: there is at least one view.
  public init(
    name: String, group: String, variables: [String] = [], differenceOf: String? = nil,
    title: String, facts: [String],
    layout: Layout = .row, views: [View], isMain: Bool = false
  ) {
    precondition(!views.isEmpty, "Picture '\(name)': no view")
    self.name = name
    self.group = group
    self.variables = variables
    self.differenceOf = differenceOf
    self.title = title
    self.facts = facts
    self.layout = layout
    self.views = views
    self.isMain = isMain
  }

  /// How panels stand beside each other.
  public enum Layout: Sendable, Equatable {
    /// Beside each other, wrapped where the width ends.
    case row
    /// Small ones in rows of `columns`: a layer's heads. A page shows one of them large.
    case thumbnails(columns: Int)
  }

  /// One choice: a prompt, or the mean over prompts.
  public struct View: Sendable, Equatable {
    /// What a list to choose from says: `mean over 48 prompts`, `prompt 3`.
    public var choice: String
    /// The prompt's text, where the view is of one.
    public var prompt: String?
    /// The facets.
    public var panels: [Panel]
    /// The scale of colours that the cells of all panels share, as do the views of single prompts
    /// among each other; nil where none has cells.
    public var scale: ColourScale?

    /// A view.
    public init(
      choice: String, prompt: String? = nil, panels: [Panel], scale: ColourScale? = nil
    ) {
      self.choice = choice
      self.prompt = prompt
      self.panels = panels
      self.scale = scale
    }
  }

  /// A facet.
  public struct Panel: Sendable, Equatable {
    /// What sets it apart from its neighbours: `attn_out`, `mini-lnfree`, `L2H5`; may be empty.
    public var title: String
    /// The model, or the pair of models (`mini-lnfree - mini`), that it belongs to, where the result
    /// has several and the panel is of one.
    public var model: String?
    /// What is drawn in it.
    public var drawing: Drawing

    /// A facet.
    public init(_ title: String, model: String? = nil, _ drawing: Drawing) {
      self.title = title
      self.model = model
      self.drawing = drawing
    }
  }

  /// What is drawn in a panel.
  public enum Drawing: Sendable, Equatable {
    /// A heat map.
    case cells(Cells)
    /// Bars from zero.
    case bars(Bars)
    /// Curves with or without intervals.
    case curves(Curves)
    /// Points in the plane, or in strips.
    case points(Points)
    /// Numbers and words in rows.
    case table(Table)
    /// Why there is nothing to draw: `no value: all 60 cells are NaN`.
    case note(String)
  }

  /// An axis with something at each place: layers, tokens, components.
  public struct Axis: Sendable, Equatable {
    /// The axis' name for people: `layer`, `position`.
    public var title: String
    /// What stands at each place; token text is spelled out (`·the`, `\n`).
    public var labels: [String]

    /// An axis.
    public init(_ title: String, _ labels: [String]) {
      self.title = title
      self.labels = labels
    }
  }

  /// A heat map: `values` row by row, NaN where nothing was computed.
  public struct Cells: Sendable, Equatable {
    /// What stands along the rows' cells.
    public var x: Axis
    /// What stands before the rows, the first on top.
    public var y: Axis
    /// One value a cell, `[y, x]`.
    public var values: [Double]
    /// Text to be written in the cells, `[y, x]`: the lens' tokens.
    public var texts: [String]?

    /// A heat map.
    ///
    /// - Precondition: there is one value for each cell.
    public init(x: Axis, y: Axis, values: [Double], texts: [String]? = nil) {
      let count = x.labels.count * y.labels.count
      precondition(
        values.count == count && texts?.count ?? count == count,
        "Picture.Cells: \(values.count) values, \(y.labels.count) × \(x.labels.count) cells")
      self.x = x
      self.y = y
      self.values = values
      self.texts = texts
    }
  }

  /// Values at the places of an axis, of one model or measure, with or without intervals.
  public struct Series: Sendable, Equatable {
    /// What a legend says; empty where there is only one.
    public var name: String
    /// The model or pair that it belongs to, where the result has several.
    public var model: String?
    /// One value a place; NaN leaves a gap.
    public var values: [Double]
    /// The interval's ends, one a place each.
    public var interval: Interval?

    /// A series.
    public init(
      _ name: String, model: String? = nil, _ values: [Double], interval: Interval? = nil
    ) {
      self.name = name
      self.model = model
      self.values = values
      self.interval = interval
    }
  }

  /// The ends of intervals around a series' values.
  public struct Interval: Sendable, Equatable {
    /// The lower ends.
    public var low: [Double]
    /// The upper ends.
    public var high: [Double]
    /// What they are: `95 % interval`, `quartiles`.
    public var meaning: String

    /// Intervals.
    public init(low: [Double], high: [Double], meaning: String) {
      self.low = low
      self.high = high
      self.meaning = meaning
    }
  }

  /// Bars from zero, one group for each place of the axis and in it one for each series.
  public struct Bars: Sendable, Equatable {
    /// What stands under the bars, in its own order (the stream's).
    public var x: Axis
    /// What the bars' height is, with its unit.
    public var y: String
    /// One or more series.
    public var series: [Series]

    /// Bars.
    public init(x: Axis, y: String, series: [Series]) {
      self.x = x
      self.y = y
      self.series = series
    }
  }

  /// Curves over an axis.
  public struct Curves: Sendable, Equatable {
    /// What stands along the curves; the places are numbered evenly unless `positions` are given.
    public var x: Axis
    /// Where the places lie, for an axis of real numbers (λ, position).
    public var positions: [Double]?
    /// What the curves' height is, with its unit.
    public var y: String
    /// The curves.
    public var series: [Series]
    /// Whether the height is logarithmic; every value is then positive or NaN.
    public var isLogarithmic: Bool

    /// Curves.
    public init(
      x: Axis, positions: [Double]? = nil, y: String, series: [Series],
      isLogarithmic: Bool = false
    ) {
      self.x = x
      self.positions = positions
      self.y = y
      self.series = series
      self.isLogarithmic = isLogarithmic
    }
  }

  /// Points in the plane, or in strips side by side.
  public struct Points: Sendable, Equatable {
    /// What lies along x, with its unit.
    public var x: String
    /// What lies along y, with its unit.
    public var y: String
    /// The names of strips: x is then a strip's number, with the point's shift inside the strip
    /// (−0.4 … 0.4) added; nil for points in the plane.
    public var strips: [String]?
    /// Points of one kind each.
    public var clouds: [Cloud]
    /// Whether the line y = x is drawn and both axes have one range.
    public var hasIdentityLine: Bool

    /// Points of one kind: a site, a layer, a model.
    public struct Cloud: Sendable, Equatable {
      /// What a legend says; empty where there is only one.
      public var name: String
      /// The model or pair that it belongs to, where the result has several.
      public var model: String?
      /// The points' places.
      public var x: [Double]
      /// The points' places.
      public var y: [Double]
      /// What is said of a point on hover, one each, or none.
      public var labels: [String]

      /// Points.
      ///
      /// - Precondition: there are as many x as y, and as many labels or none.
      public init(
        _ name: String, model: String? = nil, x: [Double], y: [Double], labels: [String] = []
      ) {
        precondition(
          x.count == y.count && (labels.isEmpty || labels.count == x.count),
          "Picture.Points: \(x.count) x, \(y.count) y, \(labels.count) labels")
        self.name = name
        self.model = model
        self.x = x
        self.y = y
        self.labels = labels
      }
    }

    /// Points.
    public init(
      x: String, y: String, strips: [String]? = nil, clouds: [Cloud],
      hasIdentityLine: Bool = false
    ) {
      self.x = x
      self.y = y
      self.strips = strips
      self.clouds = clouds
      self.hasIdentityLine = hasIdentityLine
    }
  }

  /// Numbers and words in rows; numbers are written as `compact` writes them.
  public struct Table: Sendable, Equatable {
    /// The columns' names.
    public var columns: [String]
    /// The rows, each with a text for every column.
    public var rows: [[String]]

    /// A table.
    public init(columns: [String], rows: [[String]]) {
      self.columns = columns
      self.rows = rows
    }
  }
}
