// Thumbnails of many heat maps, one of them large: a layer's attention patterns. Pointing at a token
// shows what it attends to, or what attends to it.

/** Whether a map is of tokens attending to tokens. */
const isPattern = (panel) => panel.kind === "cells"
  && panel.x !== undefined && axisOf(panel.x).labels.length === axisOf(panel.y).labels.length
  && /key/i.test(axisOf(panel.x).title) && /query/i.test(axisOf(panel.y).title);

/** A pattern's panel whose cells above the diagonal, which no token can attend to, have no value. */
function masked(panel) {
  if (!isPattern(panel)) return panel;
  const values = numbers(panel.values);
  const count = axisOf(panel.x).labels.length;
  const above = (i) => i % count > Math.floor(i / count);
  if (values.some((value, i) => above(i) && value !== 0 && !Number.isNaN(value))) return panel;
  const kept = values.map((value, i) => (above(i) ? NaN : value));
  return { ...panel, values: { ...panel.values, decoded: kept } };
}

/** Draws the thumbnails in `box`; `memory` keeps which is large from one drawing to the next. */
function drawThumbnails(box, panels, options, memory) {
  const viewer = d3.select(box).append("div").attr("class", "viewer");
  const thumbs = viewer.append("div").attr("class", "thumbs").attr("role", "group")
    .attr("aria-label", `${options.label}: choose one to see it large`);
  const large = viewer.append("div").attr("class", "large").node();
  const colour = colouring(options.scale);
  const models = new Set(panels.map((panel) => panel.model));
  const nameOf = (panel) => (models.size > 1 && panel.model
    ? `${panel.title} ${panel.model}` : panel.title);
  const all = panels.map(masked);
  const chosen = Math.max(0, all.findIndex((panel) => nameOf(panel) === memory.focus));

  // Each model begins a row of its own.
  let grid = null;
  let model;
  all.forEach((panel, p) => {
    if (grid === null || panel.model !== model) {
      model = panel.model;
      if (models.size > 1 && model) thumbs.append("p").attr("class", "of").text(model);
      grid = thumbs.append("div").attr("class", "grid")
        .style("grid-template-columns", `repeat(${options.columns}, minmax(0, 72px))`);
    }
    const button = grid.append("button").attr("type", "button").attr("class", "thumb")
      .attr("aria-pressed", p === chosen).on("click", () => focus(p));
    const [columns, rows] = [axisOf(panel.x).labels.length, axisOf(panel.y).labels.length];
    const canvas = button.append("canvas").attr("width", Math.max(1, columns))
      .attr("height", Math.max(1, rows)).attr("aria-hidden", "true").node();
    if (columns * rows > 0) {
      const context = canvas.getContext("2d");
      const image = context.createImageData(columns, rows);
      numbers(panel.values).forEach((value, i) => image.data.set([...colour(value), 255], 4 * i));
      context.putImageData(image, 0, 0);
    }
    button.append("span").text(panel.title);
  });

  // Maps without a finite number have no scale.
  if (options.scale) {
    drawColourBar(thumbs.append("div").attr("class", "legend").node(), options.scale);
  }

  function focus(p) {
    memory.focus = nameOf(all[p]);
    thumbs.selectAll(".thumb").attr("aria-pressed", (_, i) => i === p);
    large.replaceChildren();
    const panel = all[p];
    d3.select(large).append("p").attr("class", "of").text(nameOf(panel));
    const pattern = isPattern(panel);
    const width = large.clientWidth || options.width;
    const count = Math.max(1, axisOf(panel.x).labels.length);
    const words = pattern ? drawTokens(large, panel, colour, options, memory) : null;
    const holder = document.createElement("div");
    holder.className = "scroll";
    large.prepend(large.firstChild, holder);
    const map = drawCells(holder, panel, {
      ...options, share: width, width, square: pattern, cellMost: clamp(380 / count, 2, 26),
      label: `${options.label}, ${nameOf(panel)}`,
      onCell: (row, column) => words?.point(row, column),
    });
    if (words && map) words.onToken = (row, column) => map.highlight(row, column);
  }
  if (all.length > 0) focus(chosen);
}

/**
 * The prompt's tokens as buttons, coloured by how much one of them attends to each. Scores and
 * effects of patching have a sign and are no attention: their words are of keys and queries.
 */
function drawTokens(box, panel, colour, options, memory) {
  const [keys, queries] = [axisOf(panel.x).labels, axisOf(panel.y).labels];
  const isSigned = options.scale?.signed ?? false;
  const values = numbers(panel.values);
  const count = keys.length;
  const area = d3.select(box).append("div").attr("class", "attended");
  const handle = { onToken: null, point: null };
  memory.direction ??= "to";
  let current = memory.token === undefined ? count - 1 : Math.min(memory.token, count - 1);

  const choice = area.append("fieldset").attr("class", "segments");
  choice.append("legend").attr("class", "unseen").text("Direction");
  const name = `direction-${(drawTokens.count = (drawTokens.count ?? 0) + 1)}`;
  for (const [value, text] of isSigned ? [["to", "keys of a query"], ["from", "queries of a key"]]
    : [["to", "token attends to"], ["from", "attended to by"]]) {
    const label = choice.append("label");
    label.append("input").attr("type", "radio").attr("name", name).attr("value", value)
      .property("checked", memory.direction === value)
      .on("change", () => { memory.direction = value; show(current, true); });
    label.append("span").text(text);
  }
  const line = area.append("p").attr("class", "tokens").attr("dir", "auto");
  const buttons = line.selectAll("button").data(keys).enter().append("button")
    .attr("type", "button").text((text) => text)
    .on("mouseenter focus click", (_, i) => show(i, true))
    .on("mouseleave blur", () => handle.onToken?.(null, null))
    .on("keydown", function (_, i) {
      const next = step(i, d3.event.key, count);
      if (next === undefined) return;
      d3.event.preventDefault();
      buttons.nodes()[next].focus();
    });
  const summary = area.append("p").attr("class", "note").attr("aria-live", "polite");

  function show(token, isMarked) {
    current = token;
    memory.token = token;
    const isTo = memory.direction === "to";
    const weight = (other) => values[isTo ? token * count + other : other * count + token];
    buttons.attr("tabindex", (_, i) => (i === token ? 0 : -1))
      .attr("aria-current", (_, i) => (i === token ? "true" : null))
      .style("background-color", (_, i) => (Number.isNaN(weight(i)) ? null : rgb(colour(weight(i)))))
      .style("color", (_, i) => (Number.isNaN(weight(i)) ? null : inkOn(colour(weight(i)))))
      .classed("none", (_, i) => Number.isNaN(weight(i)));
    const order = d3.range(count).filter((i) => !Number.isNaN(weight(i)))
      .sort((a, b) => weight(b) - weight(a));
    const named = (places) => places
      .map((i) => `${(isTo ? keys : queries)[i]} ${shown(weight(i), isSigned)}`).join(", ");
    if (order.length === 0) {
      summary.text(`${(isTo ? queries : keys)[token]}: no value`);
    } else if (isSigned) {
      const lowest = order.slice(3).slice(-3).reverse();
      summary.text(`${isTo ? `query ${queries[token]}` : `key ${keys[token]}`}: highest `
        + named(order.slice(0, 3)) + (lowest.length > 0 ? `; lowest ${named(lowest)}` : ""));
    } else {
      const strongest = named(order.slice(0, 3));
      summary.text(isTo ? `${queries[token]} attends most to ${strongest}`
        : `${keys[token]} is attended to most by ${strongest}`);
    }
    if (isMarked) handle.onToken?.(isTo ? token : null, isTo ? null : token);
  }
  handle.point = (row, column) => {
    if (row === null) return;
    const token = memory.direction === "to" ? row : column;
    if (token !== current) show(token, false);
  };
  show(current, false);
  return handle;
}
