// Drawings of single panels: heat maps, bars, curves, points; legends and colour bars. Each is an SVG
// element, one stop of the tab key, read cell by cell with the arrow keys.

const ruler = document.createElement("canvas").getContext("2d");
ruler.font = "11px system-ui, sans-serif";
const textWidth = (text) => ruler.measureText(text).width;

const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

/** Whether all labels of an axis are whole numbers, of which some may be left out. */
const isCounted = (labels) => labels.length > 12 && labels.every((text) => /^\d+$/.test(text));

/** Every how many-th label has room: of numbers 2, 5, 10, … */
function thinned(labels, room, longest, isTurned) {
  const least = Math.ceil((isTurned ? 12 : longest + 8) / room);
  if (!isCounted(labels)) return Math.max(1, isTurned || least > 1 ? least : 1);
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= least);
}

/** Text in at most two lines of a width. */
function inLines(text, width) {
  if (textWidth(text) <= width) return text ? [text] : [];
  const words = text.split(" ");
  let first = words.shift();
  while (words.length > 0 && textWidth(`${first} ${words[0]}`) <= width) first += ` ${words.shift()}`;
  return [cut(first, width), ...(words.length > 0 ? [cut(words.join(" "), width)] : [])];
}

/** Text cut to a width; the tip has all of it. */
function cut(text, width) {
  if (textWidth(text) <= width) return text;
  const letters = [...text];
  while (letters.length > 1 && textWidth(letters.join("") + "…") > width) letters.pop();
  return letters.join("") + "…";
}

// MARK: What is pointed at

const tip = {
  element: document.getElementById("tip"),
  live: document.getElementById("live"),
  owner: null,

  /** Says something beside a point of the window. */
  show(owner, lines, x, y, aloud) {
    const { element } = this;
    this.owner = owner;
    element.replaceChildren(...lines.map((line) => {
      const row = document.createElement("div");
      row.dir = "auto";
      row.textContent = line;
      return row;
    }));
    element.hidden = false;
    const { width, height } = element.getBoundingClientRect();
    const edge = document.documentElement.clientWidth;
    element.style.left = `${clamp(x + 14, 4, Math.max(4, edge - width - 4))}px`;
    element.style.top = `${y + 18 + height > innerHeight ? Math.max(4, y - height - 12) : y + 18}px`;
    if (aloud) this.live.textContent = lines.join("; ");
  },

  hide(owner) {
    if (this.owner !== owner) return;
    this.element.hidden = true;
    this.owner = null;
  },
};
addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hide(tip.owner);
});
addEventListener("scroll", () => tip.hide(tip.owner), { capture: true, passive: true });

/**
 * Makes an SVG element explorable: `at(x, y)` finds the place under a point of the drawing, `move`
 * steps from a place by a key, `mark` shows a place (or none), `say` has its words and `spot` its
 * point.
 */
function explorable(svg, { label, at, move, mark, say, spot }) {
  const node = svg.node();
  let place = null;
  const choose = (next, aloud, point) => {
    place = next;
    mark(next);
    if (next === null) return tip.hide(node);
    const box = node.getBoundingClientRect();
    const [x, y] = point ?? spot(next).map((v, i) => v + (i === 0 ? box.left : box.top));
    tip.show(node, say(next), x, y, aloud);
  };
  svg.attr("tabindex", 0).attr("role", "application").attr("aria-label",
    `${label}. Arrow keys read the values.`);
  svg.on("pointermove.explore pointerdown.explore", () => {
    const { clientX, clientY } = d3.event;
    const box = node.getBoundingClientRect();
    const next = at(clientX - box.left, clientY - box.top);
    choose(next, false, [clientX, clientY]);
  });
  svg.on("pointerleave.explore", () => choose(null));
  svg.on("blur.explore", () => choose(null));
  svg.on("keydown.explore", () => {
    const { key, altKey, ctrlKey, metaKey } = d3.event;
    if (altKey || ctrlKey || metaKey) return;
    const next = move(place, key);
    if (next === undefined) return;
    d3.event.preventDefault();
    choose(next, true);
  });
}

/** Steps along a line of places. */
function step(place, key, count) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: -1, ArrowDown: 1 };
  if (count === 0) return undefined;
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  if (!(key in steps)) return undefined;
  return place === null ? 0 : clamp(place + steps[key], 0, count - 1);
}

function newDrawing(box, width, height) {
  return d3.select(box).append("svg").attr("class", "drawing")
    .attr("width", Math.ceil(width)).attr("height", Math.ceil(height))
    .attr("viewBox", `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`);
}

// MARK: Heat maps

/** More cells than this are one image instead of one shape each. */
const shapeLimit = 3000;

/**
 * A heat map. `options`: `scale`, `width` that is there, `share` of it for this panel, `label` for
 * the keyboard, `square` cells, `cellMost` their largest side, `onCell(row, column)`.
 */
function drawCells(box, panel, options) {
  const [x, y] = [axisOf(panel.x), axisOf(panel.y)];
  const [columns, rows] = [x.labels.length, y.labels.length];
  const values = numbers(panel.values);
  if (values.length === 0) return drawNote(box, "nothing to draw: an axis has no places");
  const colour = colouring(options.scale);
  const words = panel.texts;

  const longest = Math.min(84, d3.max(x.labels, textWidth));
  const firstLabel = Math.min(84, textWidth(x.labels[0]));
  let left = 22 + Math.min(120, d3.max(y.labels, textWidth));
  const widthBeside = (edge) => {
    const room = (options.share - edge - 12) / columns;
    const width = words ? clamp(room, 42, Math.max(42, d3.max(words, textWidth) + 14))
      : clamp(room, columns > 60 ? 1 : columns > 24 ? 9 : 11, options.cellMost ?? 30);
    return Math.max(width, 24 / columns);
  };
  let cellWidth = widthBeside(left);
  const isTurned = longest > cellWidth - 4 && !isCounted(x.labels);
  if (isTurned) {
    // A turned label reaches to the left of its cell.
    left = Math.max(left, firstLabel * 0.71 - cellWidth / 2 + 10);
    cellWidth = widthBeside(left);
  }
  let cellHeight = words ? 20 : rows <= 16 ? 20 : rows <= 40 ? 13 : Math.max(1, 420 / rows);
  if (options.square) cellHeight = cellWidth;
  // The axis' title stands in the middle, where the first label does not reach.
  const others = isTurned ? Math.min(84, d3.max([0, ...x.labels.slice(1).map(textWidth)])) : 0;
  const titlePlace = isTurned ? others * 0.71 + 30 : 32;
  const bottom = Math.max(titlePlace + 6, isTurned ? firstLabel * 0.71 + 18 : 0);
  const [plotWidth, plotHeight] = [columns * cellWidth, rows * cellHeight];
  const right = isTurned ? 10 : 6;
  const svg = newDrawing(box, left + plotWidth + right, 4 + plotHeight + bottom);
  const plot = svg.append("g").attr("transform", `translate(${left},4)`);

  if (values.length > shapeLimit) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [columns, rows];
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    values.forEach((value, i) => image.data.set([...colour(value), 255], 4 * i));
    context.putImageData(image, 0, 0);
    plot.append("image").attr("href", canvas.toDataURL()).attr("width", plotWidth)
      .attr("height", plotHeight).attr("preserveAspectRatio", "none")
      .style("image-rendering", "pixelated");
  } else {
    const gap = Math.min(cellWidth, cellHeight) > 9 ? 1 : 0;
    plot.append("g").attr("shape-rendering", gap ? null : "crispEdges").selectAll("rect")
      .data(values).enter().append("rect")
      .attr("x", (_, i) => (i % columns) * cellWidth)
      .attr("y", (_, i) => Math.floor(i / columns) * cellHeight)
      .attr("width", cellWidth - gap).attr("height", cellHeight - gap)
      .attr("fill", (value) => rgb(colour(value)));
  }
  if (words) {
    plot.append("g").attr("text-anchor", "middle").attr("class", "mono").selectAll("text")
      .data(words).enter().append("text")
      .attr("x", (_, i) => (i % columns + 0.5) * cellWidth - 0.5)
      .attr("y", (_, i) => (Math.floor(i / columns) + 0.5) * cellHeight + 3.5)
      .attr("font-size", 10)
      .style("fill", (_, i) => inkOn(colour(values[i])))
      .text((text) => cut(text, cellWidth - 4));
  }
  const frame = plot.append("rect").attr("class", "frame").attr("width", plotWidth)
    .attr("height", plotHeight);

  // Labels, as many as have room.
  const everyRow = Math.ceil(12 / cellHeight);
  plot.append("g").attr("text-anchor", "end").selectAll("text")
    .data(y.labels.map((text, i) => ({ text, i })).filter(({ i }) => i % everyRow === 0))
    .enter().append("text").attr("x", -5).attr("y", ({ i }) => (i + 0.5) * cellHeight + 3.5)
    .text(({ text }) => cut(text, 120));
  const everyColumn = thinned(x.labels, cellWidth, longest, isTurned);
  const under = plot.append("g").selectAll("text")
    .data(x.labels.map((text, i) => ({ text, i })).filter(({ i }) => i % everyColumn === 0))
    .enter().append("text").text(({ text }) => cut(text, 84));
  if (isTurned) {
    under.attr("text-anchor", "end").attr("transform", ({ i }) =>
      `translate(${(i + 0.5) * cellWidth + 3},${plotHeight + 11}) rotate(-45)`);
  } else {
    under.attr("text-anchor", "middle").attr("x", ({ i }) => (i + 0.5) * cellWidth)
      .attr("y", plotHeight + 14);
  }
  plot.append("text").attr("class", "soft").attr("text-anchor", "middle")
    .attr("x", plotWidth / 2 + (isTurned ? 12 : 0)).attr("y", plotHeight + titlePlace).text(x.title);
  svg.append("text").attr("class", "soft").attr("text-anchor", "middle")
    .attr("transform", `translate(10,${4 + plotHeight / 2}) rotate(-90)`)
    .text(textWidth(y.title) > plotHeight + 20 ? "" : y.title);

  const [band, halo, ring] = ["band", "halo", "ring"].map((name) => plot.append("rect")
    .attr("class", name).attr("width", 0).attr("height", 0).attr("visibility", "hidden"));
  const unit = unitOf(options.scale);
  explorable(svg, {
    label: options.label,
    at: (px, py) => {
      const column = Math.floor((px - left) / cellWidth);
      const row = Math.floor((py - 4) / cellHeight);
      return column >= 0 && column < columns && row >= 0 && row < rows
        ? row * columns + column : null;
    },
    move: (cell, key) => {
      const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
      if (cell === null) return key in steps || key === "Home" ? 0 : undefined;
      const [row, column] = [Math.floor(cell / columns), cell % columns];
      if (key === "Home") return row * columns;
      if (key === "End") return row * columns + columns - 1;
      if (!(key in steps)) return undefined;
      return clamp(row + steps[key][0], 0, rows - 1) * columns
        + clamp(column + steps[key][1], 0, columns - 1);
    },
    mark: (cell) => {
      for (const shape of [halo, ring]) {
        shape.attr("visibility", cell === null ? "hidden" : "visible");
        if (cell === null) continue;
        shape.attr("x", (cell % columns) * cellWidth - 1)
          .attr("y", Math.floor(cell / columns) * cellHeight - 1)
          .attr("width", cellWidth + 1).attr("height", cellHeight + 1);
      }
      options.onCell?.(cell === null ? null : Math.floor(cell / columns), cell % columns);
    },
    say: (cell) => {
      const where = `${placeName(y, Math.floor(cell / columns))}, ${placeName(x, cell % columns)}`;
      const value = withUnit(shown(values[cell], options.scale?.signed), unit);
      return words ? [`${where}: ${words[cell]}`, value] : [`${where}: ${value}`];
    },
    spot: (cell) => [
      left + (cell % columns + 0.5) * cellWidth, 4 + (Math.floor(cell / columns) + 0.5) * cellHeight,
    ],
  });
  return {
    /** Marks a row or a column; none where `row` and `column` are null. */
    highlight(row, column) {
      const isNone = row === null && column === null;
      band.attr("visibility", isNone ? "hidden" : "visible");
      if (isNone) return;
      band.attr("x", column === null ? 0 : column * cellWidth)
        .attr("y", row === null ? 0 : row * cellHeight)
        .attr("width", column === null ? plotWidth : cellWidth)
        .attr("height", row === null ? plotHeight : cellHeight);
    },
    frame,
  };
}

/** The colours with the values at their ends. */
function drawColourBar(box, scale) {
  const [width, height] = [240, 10];
  const unit = unitOf(scale);
  const svg = newDrawing(box, width + 90, height + 22).attr("role", "img");
  const stops = scale.signed ? page.colours.signed : page.colours.unsigned;
  const id = `stops-${drawColourBar.count = (drawColourBar.count ?? 0) + 1}`;
  svg.append("defs").append("linearGradient").attr("id", id).selectAll("stop").data(stops)
    .enter().append("stop").attr("offset", (_, i) => `${(100 * i) / (stops.length - 1)}%`)
    .attr("stop-color", (stop) => stop);
  const bar = svg.append("g").attr("transform", "translate(45,1)");
  bar.append("rect").attr("width", width).attr("height", height).attr("fill", `url(#${id})`)
    .attr("class", "bar");
  bar.append("rect").attr("width", width).attr("height", height).attr("class", "frame");
  const ends = scale.signed
    ? [[0, scale.low], [0.5, (scale.low + scale.high) / 2], [1, scale.high]]
    : [[0, scale.low], [1, scale.high]];
  const words = ends.map(([share, value], i) => {
    const text = shown(value, scale.signed);
    const isBeyond = scale.clipped && (i === ends.length - 1 || (scale.signed && i === 0));
    return [share, isBeyond ? `${i === 0 ? "≤" : "≥"} ${text}` : text, i === ends.length - 1];
  });
  bar.selectAll("text").data(words).enter().append("text").attr("x", ([share]) => share * width)
    .attr("y", height + 13).attr("text-anchor", "middle")
    .text(([, text, isLast]) => (isLast ? withUnit(text, unit) : text));
  svg.attr("aria-label", `Colours from ${words.map(([, text]) => text).join(" to ")} ${unit}`);
}

// MARK: Frames of bars, curves and points

/** Names with their colours in lines of a width; returns the height. */
function drawLegend(svg, names, left, width) {
  const items = names.filter(({ name }) => name);
  if (items.length < 2) return 0;
  let [x, line] = [0, 0];
  for (const { name, colour } of items) {
    const text = cut(name, width - 20);
    const size = textWidth(text) + 30;
    if (x > 0 && x + size > width) [x, line] = [0, line + 1];
    const item = svg.append("g").attr("transform", `translate(${left + x},${line * 16 + 2})`);
    item.append("rect").attr("width", 10).attr("height", 10).attr("y", 1).attr("fill", colour);
    item.append("text").attr("x", 14).attr("y", 10).text(text);
    x += size;
  }
  return (line + 1) * 16 + 6;
}

/** Numbers along an axis as its step needs them. */
function tickWords(scale, ticks) {
  const format = scale.base ? (value) => shown(value) : scale.tickFormat(ticks);
  return (value) => String(format(value)).replace("-", "−");
}

/** Where an axis has numbers. */
function ticksOf(scale, ticks) {
  if (!scale.base) return scale.ticks(ticks);
  const [low, high] = scale.domain();
  const decades = Math.log10(high / low);
  // A logarithmic axis over little more than a decade has too few powers of ten to name.
  if (decades < 1.5) return d3.scaleLinear().domain([low, high]).ticks(4).filter((v) => v > 0);
  const kept = decades < 3 ? /^[125]/ : /^1/;
  return scale.ticks(4).filter((v) => kept.test(v.toExponential(1)));
}

/**
 * The frame of a chart with a numeric y axis: its SVG, the plot's group and sizes. `y` is the scale
 * without a range; `xLabels` are the words under the plot, if it has words there.
 */
function chartFrame(box, options, { names, y, yTitle, xTitle, xLabels }) {
  const { width } = options;
  let left = 16 + d3.max([20, ...ticksOf(y, 5).map(tickWords(y, 5)).map(textWidth)]);
  const longest = xLabels?.length ? Math.min(84, d3.max(xLabels, textWidth)) : 0;
  const room = () => (width - left - 14) / Math.max(1, xLabels?.length ?? 1);
  const isTurned = xLabels ? longest + 6 > room() && !isCounted(xLabels) : false;
  if (isTurned) {
    // A turned label reaches to the left of its place.
    left = Math.max(left, Math.min(84, textWidth(xLabels[0])) * 0.71 - room() / 2 + 6);
  }
  const plotWidth = width - left - 14;
  const svg = newDrawing(box, width, 10);
  const legend = drawLegend(svg, names, left, width - left - 8);
  const [yLines, xLines] = [inLines(yTitle, width - 8), inLines(xTitle, width - 8)];
  const labels = isTurned ? longest * 0.71 + 12 : 23;
  const plotHeight = options.height ?? 220;
  const top = legend + 11 + 14 * yLines.length;
  const height = top + plotHeight + labels + 14 * xLines.length + 4;
  svg.attr("height", Math.ceil(height))
    .attr("viewBox", `0 0 ${Math.ceil(width)} ${Math.ceil(height)}`);
  yLines.forEach((line, i) => {
    svg.append("text").attr("class", "soft").attr("x", 4).attr("y", legend + 11 + 14 * i).text(line);
  });
  xLines.forEach((line, i) => {
    // Centred under the plot where it fits there.
    const isLong = textWidth(line) > plotWidth;
    svg.append("text").attr("class", "soft").attr("text-anchor", isLong ? "end" : "middle")
      .attr("x", isLong ? width - 4 : left + plotWidth / 2)
      .attr("y", top + plotHeight + labels + 10 + 14 * i).text(line);
  });
  const plot = svg.append("g").attr("transform", `translate(${left},${top})`);
  return { svg, plot, left, top, plotWidth, plotHeight, isTurned, longest };
}

function drawYAxis(plot, y, plotWidth) {
  const axis = d3.axisLeft(y).tickValues(ticksOf(y, 5)).tickFormat(tickWords(y, 5)).tickSizeOuter(0)
    .tickSize(4);
  plot.append("g").attr("class", "axis").call(axis).selectAll("line").clone()
    .attr("class", "grid").attr("x1", 0).attr("x2", plotWidth);
  plot.selectAll(".domain").remove();
}

function xAxis(x, plotWidth) {
  const ticks = Math.round(clamp(plotWidth / 60, 2, 8));
  return d3.axisBottom(x).ticks(ticks).tickSizeOuter(0).tickFormat(tickWords(x, ticks));
}

/** The finite numbers along y of a panel's parts. */
function heights(panel) {
  if (panel.kind === "points") {
    return panel.clouds.flatMap((cloud) => Array.from(numbers(cloud.y)).filter(Number.isFinite));
  }
  return panel.series.flatMap((series) => [series.values, series.low, series.high]
    .flatMap((stored) => (stored ? Array.from(numbers(stored)) : [])))
    .filter((v) => Number.isFinite(v) && (!panel.log || v > 0));
}

const hasHeights = (panel) => ["bars", "curves", "points"].includes(panel.kind);

/** Whether two panels measure the same, so that their heights can be compared. */
const areAlike = (a, b) => a.kind === b.kind && a.y === b.y && a.log === b.log
  && (a.kind !== "points" || (a.x === b.x && Boolean(a.strips) === Boolean(b.strips)));

/** The lines at the left and under a plot. */
function drawFrame(plot, { plotWidth, plotHeight }) {
  plot.selectAll(".domain").remove();
  plot.append("path").attr("class", "frame").attr("d", `M0.5,0V${plotHeight + 0.5}H${plotWidth}`);
}

/** Words under the plot, as many as have room. */
function drawXLabels(plot, labels, centre, frame) {
  const room = frame.plotWidth / Math.max(1, labels.length);
  const every = thinned(labels, room, isCounted(labels) ? frame.longest : 0, frame.isTurned);
  const texts = plot.append("g").selectAll("text")
    .data(labels.map((text, i) => ({ text, i })).filter(({ i }) => i % every === 0))
    .enter().append("text").text(({ text }) => cut(text, 84));
  if (frame.isTurned) {
    texts.attr("text-anchor", "end").attr("transform", ({ i }) =>
      `translate(${centre(i) + 3},${frame.plotHeight + 11}) rotate(-45)`);
  } else {
    // The last one may not reach beyond the drawing.
    const isBeyond = ({ text, i }) => centre(i) + textWidth(cut(text, 84)) / 2 > frame.plotWidth + 12;
    texts.attr("text-anchor", (label) => (isBeyond(label) ? "end" : "middle"))
      .attr("x", (label) => (isBeyond(label) ? frame.plotWidth + 12 : centre(label.i)))
      .attr("y", frame.plotHeight + 15);
  }
}

/** What sets series or clouds apart by colour: their names, or their models where names are alike. */
function partKeys(panels) {
  const lists = panels.map(partsOf).filter(Boolean);
  const byName = lists.every((parts) => new Set(parts.map(({ name }) => name)).size === parts.length);
  const keyOf = (part) => (byName ? part.name : `${part.name}\u0000${part.model ?? ""}`);
  return { keyOf, keys: [...new Set(d3.merge(lists).map(keyOf))] };
}

/** The colours of a panel's parts, the same for the same part in all panels of a picture. */
function partColours(parts, { keyOf, keys }) {
  const { series } = page.colours;
  return parts.map((part) => series[keys.indexOf(keyOf(part)) % series.length]);
}

const partName = (part) => part.name || part.model || "";

function seriesLines(panel, place) {
  return panel.series.map((series) => {
    const value = shown(numbers(series.values)[place]);
    const name = partName(series);
    const interval = series.low
      ? ` [${shown(numbers(series.low)[place])}, ${shown(numbers(series.high)[place])}]` : "";
    return `${name ? `${name}: ` : ""}${value}${interval}`;
  });
}

function drawBars(box, panel, options) {
  const x = axisOf(panel.x);
  const colours = partColours(panel.series, options.parts);
  if (heights(panel).length === 0) return drawNote(box, "no value: every bar is NaN");
  const all = d3.merge((options.alike ?? [panel]).map(heights));
  const y = d3.scaleLinear().domain(d3.extent([0, ...all])).nice(5);
  const frame = chartFrame(box, options, {
    names: panel.series.map((s, i) => ({ name: partName(s), colour: colours[i] })),
    y, yTitle: panel.y, xTitle: x.title, xLabels: x.labels,
  });
  const { svg, plot, plotWidth, plotHeight, left, top } = frame;
  y.range([plotHeight, 0]);
  const bands = d3.scaleBand().domain(d3.range(x.labels.length)).range([0, plotWidth])
    .paddingInner(x.labels.length > 80 ? 0 : 0.2).paddingOuter(0.1);
  const inner = d3.scaleBand().domain(d3.range(panel.series.length)).range([0, bands.bandwidth()]);
  const band = plot.append("rect").attr("class", "band").attr("height", plotHeight)
    .attr("width", bands.step()).attr("visibility", "hidden");
  drawYAxis(plot, y, plotWidth);
  panel.series.forEach((series, s) => {
    const group = plot.append("g").attr("fill", colours[s]);
    const whiskers = plot.append("g").attr("class", "zero");
    numbers(series.values).forEach((value, i) => {
      if (!Number.isFinite(value)) return;
      group.append("rect").attr("class", "bar").attr("x", bands(i) + inner(s))
        .attr("y", Math.min(y(0), y(value)))
        .attr("width", Math.max(0.5, inner.bandwidth() - (panel.series.length > 1 ? 0.5 : 0)))
        .attr("height", Math.max(0.5, Math.abs(y(value) - y(0))));
      if (!series.low) return;
      const [low, high] = [numbers(series.low)[i], numbers(series.high)[i]];
      const middle = bands(i) + inner(s) + inner.bandwidth() / 2;
      if (Number.isFinite(low) && Number.isFinite(high)) {
        whiskers.append("path").attr("d", `M${middle},${y(low)}V${y(high)}`);
      }
    });
  });
  plot.append("path").attr("class", "frame").attr("d", `M0.5,0V${plotHeight}`);
  plot.append("line").attr("class", "zero").attr("x2", plotWidth).attr("y1", y(0)).attr("y2", y(0));
  const centre = (i) => bands(i) + bands.bandwidth() / 2;
  drawXLabels(plot, x.labels, centre, frame);
  explorable(svg, {
    label: options.label,
    at: (px, py) => {
      const place = Math.floor((px - left - bands(0) + (bands.step() - bands.bandwidth()) / 2)
        / bands.step());
      return px >= left && py >= top && py <= top + plotHeight && place >= 0
        && place < x.labels.length ? place : null;
    },
    move: (place, key) => step(place, key, x.labels.length),
    mark: (place) => {
      band.attr("visibility", place === null ? "hidden" : "visible");
      if (place !== null) band.attr("x", centre(place) - bands.step() / 2);
    },
    say: (place) => {
      const lines = seriesLines(panel, place);
      const where = placeName(x, place);
      return lines.length === 1 ? [`${where}: ${lines[0]}`] : [where, ...lines];
    },
    spot: (place) => [left + centre(place), top + 20],
  });
}

function drawCurves(box, panel, options) {
  const x = axisOf(panel.x);
  const count = x.labels.length;
  const positions = panel.positions ? Array.from(numbers(panel.positions)) : d3.range(count);
  const colours = partColours(panel.series, options.parts);
  const inside = (v) => Number.isFinite(v) && (!panel.log || v > 0);
  if (heights(panel).length === 0) {
    return drawNote(box, "no value: every point of the curves is NaN");
  }
  const all = d3.merge((options.alike ?? [panel]).map(heights));
  if (panel.reference !== null && inside(panel.reference)) all.push(panel.reference);
  let [low, high] = d3.extent(all);
  if (low === high) [low, high] = panel.log ? [low / 2, high * 2] : [low - 1, high + 1];
  const y = panel.log ? d3.scaleLog().domain([low / 1.1, high * 1.1])
    : d3.scaleLinear().domain([low, high]).nice(5);
  const frame = chartFrame(box, options, {
    names: panel.series.map((s, i) => ({ name: partName(s), colour: colours[i] })),
    y, yTitle: panel.y + (panel.log ? " (logarithmic)" : ""), xTitle: x.title,
    xLabels: panel.positions ? null : x.labels,
  });
  const { svg, plot, plotWidth, plotHeight, left, top } = frame;
  const across = d3.scaleLinear().domain(d3.extent(positions))
    .range(count > 1 ? [8, plotWidth - 8] : [plotWidth / 2, plotWidth / 2]);
  y.range([plotHeight, 0]);
  drawYAxis(plot, y, plotWidth);
  if (panel.positions) {
    plot.append("g").attr("class", "axis").attr("transform", `translate(0,${plotHeight})`)
      .call(xAxis(across, plotWidth));
  } else {
    drawXLabels(plot, x.labels, (i) => across(positions[i]), frame);
  }
  drawFrame(plot, frame);
  if (panel.reference !== null) {
    plot.append("line").attr("class", "reference").attr("x2", plotWidth)
      .attr("y1", y(panel.reference)).attr("y2", y(panel.reference));
  }
  if (!panel.log && low < 0 && high > 0) {
    plot.append("line").attr("class", "zero").attr("x2", plotWidth).attr("y1", y(0))
      .attr("y2", y(0));
  }
  panel.series.forEach((series, s) => {
    const values = numbers(series.values);
    const places = d3.range(count);
    if (series.low) {
      const [lows, highs] = [numbers(series.low), numbers(series.high)];
      const floor = y.domain()[0];
      plot.append("path").attr("fill", colours[s]).attr("fill-opacity", 0.18).attr("d", d3.area()
        .defined((i) => Number.isFinite(lows[i]) && inside(highs[i]))
        .x((i) => across(positions[i])).y0((i) => y(panel.log ? Math.max(floor, lows[i]) : lows[i]))
        .y1((i) => y(highs[i]))(places));
    }
    plot.append("path").attr("class", "curve").attr("fill", "none").attr("stroke", colours[s])
      .attr("stroke-width", 1.8).attr("d", d3.line().defined((i) => inside(values[i]))
        .x((i) => across(positions[i])).y((i) => y(values[i]))(places));
    // Points on short curves; on long ones only where a point has no neighbour to be joined to.
    plot.append("g").attr("fill", colours[s]).selectAll("circle")
      .data(places.filter((i) => inside(values[i])
        && (count <= 40 || (!inside(values[i - 1] ?? NaN) && !inside(values[i + 1] ?? NaN)))))
      .enter().append("circle").attr("r", 2.4).attr("cx", (i) => across(positions[i]))
      .attr("cy", (i) => y(values[i]));
  });
  const guide = plot.append("line").attr("class", "guide").attr("y2", plotHeight)
    .attr("visibility", "hidden");
  const meaning = panel.series.find((series) => series.meaning)?.meaning;
  explorable(svg, {
    label: options.label,
    at: (px, py) => (px >= left - 6 && px <= left + plotWidth + 6 && py >= top
      && py <= top + plotHeight
      ? d3.scan(positions, (a, b) => Math.abs(across(a) + left - px) - Math.abs(across(b) + left - px))
      : null),
    move: (place, key) => step(place, key, count),
    mark: (place) => {
      guide.attr("visibility", place === null ? "hidden" : "visible");
      if (place !== null) {
        guide.attr("x1", across(positions[place])).attr("x2", across(positions[place]));
      }
    },
    say: (place) => {
      const lines = seriesLines(panel, place);
      const where = placeName(x, place);
      const said = lines.length === 1 ? [`${where}: ${lines[0]}`] : [where, ...lines];
      return meaning ? [...said, `[${meaning}]`] : said;
    },
    spot: (place) => [left + across(positions[place]), top + 20],
  });
}

function drawPoints(box, panel, options) {
  const colours = partColours(panel.clouds, options.parts);
  const points = panel.clouds.flatMap((cloud, c) => {
    const [xs, ys] = [numbers(cloud.x), numbers(cloud.y)];
    return Array.from(xs, (x, i) => ({ x, y: ys[i], c, label: cloud.labels[i] ?? "" }))
      .filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y));
  });
  if (points.length === 0) return drawNote(box, "no value: every point is NaN");
  const alike = options.alike ?? [panel];
  const widths = alike.flatMap(({ clouds }) => clouds.flatMap(({ x }) => Array.from(numbers(x))))
    .filter(Number.isFinite);
  let [xEnds, yEnds] = [d3.extent(widths), d3.extent(d3.merge(alike.map(heights)))];
  const wide = ([low, high]) => (low === high ? [low - 0.5, high + 0.5] : [low, high]);
  if (panel.identity) xEnds = yEnds = d3.extent([...xEnds, ...yEnds]);
  const isSquare = panel.identity && !panel.strips;
  const size = isSquare ? { ...options, width: Math.min(options.width, 440) } : { ...options };
  if (isSquare) size.height = Math.max(160, size.width - 66);
  if (panel.equal) {
    const ratio = (wide(yEnds)[1] - wide(yEnds)[0]) / (wide(xEnds)[1] - wide(xEnds)[0]);
    size.height = (size.width - 82) * ratio;
    if (size.height > 420) {
      size.width = 420 / ratio + 82;
      if (size.width < 260) size.width = Math.min(260, options.width);
      size.height = 420;
    }
    size.height = Math.max(120, size.height);
  }
  const y = d3.scaleLinear().domain(wide(yEnds));
  if (panel.strips) y.nice(5);
  const frame = chartFrame(box, size, {
    names: panel.clouds.map((cloud, i) => ({ name: partName(cloud), colour: colours[i] })),
    y, yTitle: panel.y, xTitle: panel.x, xLabels: panel.strips,
  });
  const { svg, plot, plotWidth, plotHeight, left, top } = frame;
  let x = d3.scaleLinear().domain(wide(xEnds)).range([8, plotWidth - 8]);
  y.range([plotHeight - 6, 6]);
  if (panel.strips) {
    x = d3.scaleLinear().domain([-0.5, panel.strips.length - 0.5]).range([0, plotWidth]);
  } else if (panel.equal) {
    // A unit is as long along x as along y: the looser axis gets the wider range.
    const spans = [[x, plotWidth - 16], [y, plotHeight - 12]].map(([scale, length]) => {
      const [low, high] = scale.domain();
      return (high - low) / length;
    });
    const unit = Math.max(...spans);
    for (const [scale, length] of [[x, plotWidth - 16], [y, plotHeight - 12]]) {
      const middle = (scale.domain()[0] + scale.domain()[1]) / 2;
      scale.domain([middle - (unit * length) / 2, middle + (unit * length) / 2]);
    }
  }
  drawYAxis(plot, y, plotWidth);
  if (panel.strips) {
    drawXLabels(plot, panel.strips, (i) => x(i), frame);
  } else {
    plot.append("g").attr("class", "axis").attr("transform", `translate(0,${plotHeight})`)
      .call(xAxis(x, plotWidth))
      .selectAll(".tick line").clone().attr("class", "grid").attr("y1", -plotHeight).attr("y2", 0);
  }
  drawFrame(plot, frame);
  for (const [scale, length, isX] of [[x, plotHeight, true], [y, plotWidth, false]]) {
    const [low, high] = scale.domain();
    if (low < 0 && high > 0 && !(isX && panel.strips)) {
      const at = Math.round(scale(0)) + 0.5;
      plot.append("path").attr("class", "frame")
        .attr("d", isX ? `M${at},0V${length}` : `M0,${at}H${length}`);
    }
  }
  if (panel.identity) {
    const [low, high] = x.domain();
    plot.append("line").attr("class", "reference").attr("x1", x(low)).attr("y1", y(low))
      .attr("x2", x(high)).attr("y2", y(high));
  }
  const radius = points.length > 400 ? 2 : 3;
  if (points.length > shapeLimit) {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [2 * plotWidth, 2 * plotHeight];
    const context = canvas.getContext("2d");
    context.scale(2, 2);
    context.globalAlpha = 0.6;
    for (const point of points) {
      context.fillStyle = colours[point.c];
      context.beginPath();
      context.arc(x(point.x), y(point.y), radius, 0, 2 * Math.PI);
      context.fill();
    }
    plot.append("image").attr("href", canvas.toDataURL()).attr("width", plotWidth)
      .attr("height", plotHeight);
  } else {
    plot.append("g").attr("fill-opacity", 0.7).selectAll("circle").data(points).enter()
      .append("circle").attr("r", radius).attr("cx", (p) => x(p.x)).attr("cy", (p) => y(p.y))
      .attr("fill", (p) => colours[p.c]);
  }
  const tree = d3.quadtree().x((p) => x(points[p].x)).y((p) => y(points[p].y))
    .addAll(d3.range(points.length));
  const ring = plot.append("circle").attr("class", "ring").attr("r", radius + 2.5)
    .attr("visibility", "hidden");
  explorable(svg, {
    label: options.label,
    at: (px, py) => tree.find(px - left, py - top, 18) ?? null,
    move: (place, key) => step(place, key, points.length),
    mark: (place) => {
      ring.attr("visibility", place === null ? "hidden" : "visible");
      if (place !== null) ring.attr("cx", x(points[place].x)).attr("cy", y(points[place].y));
    },
    say: (place) => {
      const point = points[place];
      const name = [partName(panel.clouds[point.c]), point.label].filter(Boolean).join(" ");
      const where = panel.strips
        ? [panel.strips[Math.round(point.x)], `${panel.y}: ${shown(point.y)}`]
        : [`${panel.x}: ${shown(point.x)}`, `${panel.y}: ${shown(point.y)}`];
      return name ? [name, ...where] : where;
    },
    spot: (place) => [left + x(points[place].x), top + y(points[place].y)],
  });
}

function drawNote(box, text) {
  d3.select(box).append("p").attr("class", "note").text(text);
}

/** One panel, whatever it holds. */
function drawPanel(box, panel, options) {
  switch (panel.kind) {
    case "cells": return drawCells(box, panel, options);
    case "bars": return drawBars(box, panel, options);
    case "curves": return drawCurves(box, panel, options);
    case "points": return drawPoints(box, panel, options);
    case "table": return drawTable(box, panel.columns, panel.rows, { caption: options.label });
    default: return drawNote(box, panel.text);
  }
}
