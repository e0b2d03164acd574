// The page: summary, contents, a section for each result, a figure for each picture, and the
// switches of models, views and theme.

const make = (parent, tag, attributes = {}, text = undefined) => {
  const element = d3.select(parent).append(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.attr(name, value);
  }
  if (text !== undefined) element.text(text);
  return element.node();
};

/** All figures: `{ element, draw(), choose(model) }`. */
const figures = [];

/** A row of radio buttons; `change` is called with the value chosen. */
function segments(parent, title, options, chosen, change) {
  const field = make(parent, "fieldset", { class: "segments" });
  make(field, "legend", { class: "unseen" }, title);
  const name = `segments-${(segments.count = (segments.count ?? 0) + 1)}`;
  const inputs = new Map();
  for (const [value, text] of options) {
    const label = make(field, "label");
    const input = make(label, "input", { type: "radio", name, value });
    input.checked = value === chosen;
    input.addEventListener("change", () => change(value));
    make(label, "span", { dir: "auto" }, text);
    inputs.set(value, input);
  }
  return {
    has: (value) => inputs.has(value),
    set: (value) => { if (inputs.has(value)) inputs.get(value).checked = true; },
  };
}

function save(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  [link.href, link.download] = [url, name];
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// MARK: A figure

/** The choices of models: `all`, each model as `model:NAME`, `difference`. */
const modelChoice = (name) => `model:${name}`;

function addFigure(parent, source, picture, difference, id) {
  const article = make(parent, "article", { class: "figure", id, tabindex: -1 });
  article.dataset.source = source.name;
  make(article, "h4", { dir: "auto" }, picture.title);
  const bar = make(article, "div", { class: "bar" });
  const facts = make(article, "ul", { class: "facts" });
  const drawing = make(article, "div", { class: "drawings" });
  const foot = make(article, "div", { class: "foot" });
  const numbersBox = make(article, "div", { class: "numbers", id: `${id}-numbers`, hidden: "" });
  const state = { view: picture.views[0].choice, model: "all", width: 0, isDrawn: false };
  const memory = {};

  const models = modelsOf(picture);
  const options = [
    ...(models.length > 1 ? [["all", "all"]] : []),
    ...(models.length > 1 || (models.length === 1 && difference)
      ? models.map((name) => [modelChoice(name), name]) : []),
    ...(difference ? [["difference", "difference"]] : []),
  ];
  if (options.length > 0 && options[0][0] !== "all") options.unshift(["all", "all"]);
  const modelSwitch = options.length > 1
    ? segments(bar, "Model", options, "all", (value) => { state.model = value; draw(); }) : null;

  const shownPicture = () => (state.model === "difference" && difference ? difference : picture);
  const viewOf = (of) => of.views.find((view) => view.choice === state.view) ?? of.views[0];
  const shownPanels = () => panelsOf(viewOf(shownPicture()),
    state.model.startsWith("model:") ? state.model.slice(6) : null);

  let viewSelect = null;
  if (picture.views.length > 1) {
    const label = make(bar, "label", { class: "view" });
    make(label, "span", {}, "View ");
    viewSelect = make(label, "select");
    for (const view of picture.views) {
      make(viewSelect, "option", { value: view.choice },
        view.prompt ? `${view.choice}: ${view.prompt}`.slice(0, 90) : view.choice);
    }
    viewSelect.addEventListener("change", () => { state.view = viewSelect.value; draw(); });
  }

  const button = (text, label, action) => {
    const node = make(foot, "button", { type: "button", "aria-label": `${label}: ${picture.title}` },
      text);
    node.addEventListener("click", action);
    return node;
  };
  // Tables are their own numbers, and what has none cannot be saved.
  const kinds = new Set(picture.views.flatMap(({ panels }) => panels.map(({ kind }) => kind)));
  const isDrawing = ["cells", "bars", "curves", "points"].some((kind) => kinds.has(kind));
  if (isDrawing) {
    const toggle = button("Numbers", "Numbers of", () => {
      numbersBox.hidden = !numbersBox.hidden;
      toggle.setAttribute("aria-expanded", String(!numbersBox.hidden));
      if (!numbersBox.hidden) drawNumbers();
    });
    toggle.setAttribute("aria-expanded", "false");
    toggle.setAttribute("aria-controls", numbersBox.id);
  }
  const fileName = () => shownPicture().name.replace(/[^\w.-]+/g, "-");
  if (isDrawing || kinds.has("table")) {
    button("CSV", "Download numbers as CSV", () => {
      const rows = shownPicture().views.flatMap((view) => rowsOf(view, view.panels, exact));
      save(`${fileName()}.csv`, "text/csv;charset=utf-8", csvText(rows));
    });
  }
  if (isDrawing) {
    button("SVG", "Download as SVG", () => {
      if (!state.isDrawn) draw();
      save(`${fileName()}.svg`, "image/svg+xml", svgText(article, drawing, shownPicture()));
    });
  }

  function drawNumbers() {
    numbersBox.replaceChildren();
    const view = viewOf(shownPicture());
    const panels = shownPanels();
    const tables = panels.filter((panel) => panel.kind === "table");
    for (const panel of tables) {
      drawTable(numbersBox, panel.columns, panel.rows, { caption: panel.title || picture.title });
    }
    const rest = panels.filter((panel) => panel.kind !== "table");
    const rows = rowsOf(view, rest, exact);
    if (rows.length === 0) return;
    // What is the same in every row is not said in every row.
    const columns = columnsOf(rows).filter((column) => !column.endsWith("_index")
      && (new Set(rows.map((row) => row[column])).size > 1
        || ["row", "column", "value"].includes(column)));
    drawTable(numbersBox, columns, rows.map((row) => columns.map((c) => String(row[c] ?? ""))),
      { caption: `Numbers of ${picture.title}` });
  }

  function draw() {
    const now = shownPicture();
    const isDifference = now === difference;
    const panels = shownPanels();
    const width = Math.max(200, drawing.clientWidth);
    Object.assign(state, { width, isDrawn: true });
    article.dataset.model = state.model;
    article.dataset.view = viewOf(now).choice;
    article.dataset.name = now.name;
    article.dataset.drawn = "";
    const lines = [...now.facts];
    const view = viewOf(now);
    const { scale } = view;
    if (isDifference && scale) {
      lines.unshift("differences on a scale of their own: "
        + `${scale.signed ? "±" : "up to "}${withUnit(shown(scale.high), unitOf(scale))}`);
    }
    facts.replaceChildren(...lines.map((line) => {
      const item = document.createElement("li");
      item.dir = "auto";
      item.textContent = line;
      return item;
    }));
    drawing.replaceChildren();
    if (view.prompt) make(drawing, "p", { class: "prompt", dir: "auto" }, view.prompt);
    if (panels.length === 0) drawNote(drawing, "nothing here for this model");
    const cells = panels.filter((panel) => panel.kind === "cells");
    if (now.columns && cells.length > 1 && cells.length === panels.length) {
      drawThumbnails(drawing, panels, {
        scale, width, columns: now.columns, label: now.title,
      }, memory);
    } else {
      drawRow(panels, now, scale, width);
      if (scale && cells.length > 0) {
        drawColourBar(make(drawing, "div", { class: "legend" }), scale);
      }
    }
    if (!numbersBox.hidden) drawNumbers();
    if (!document.documentElement.dataset.firstPicture) {
      document.documentElement.dataset.firstPicture = String(Math.round(performance.now()));
    }
  }

  function drawRow(panels, now, scale, width) {
    const row = make(drawing, "div", { class: "panels" });
    // Words in cells need room: such a map has a row of its own.
    const hasWords = panels.some((panel) => panel.texts);
    const facets = hasWords ? 1 : Math.min(panels.length, width > 860 ? 3 : width > 560 ? 2 : 1);
    // Colours and heights are those of all models, whichever are shown.
    const whole = viewOf(now).panels;
    const parts = partKeys(now.views.flatMap((view) => view.panels));
    for (const panel of panels) {
      const facet = make(row, "div", { class: `panel ${panel.kind}` });
      const words = [...new Set([panel.title, panel.model && !panel.title.includes(panel.model)
        ? panel.model : ""])].filter(Boolean).join(" · ");
      if (words) make(facet, "p", { class: "of", dir: "auto" }, words);
      const holder = make(facet, "div", { class: panel.kind === "table" ? "" : "scroll" });
      const share = Math.floor((width - (facets - 1) * 20) / facets);
      const chartWidth = panels.length === 1 ? Math.min(width, 760) : Math.max(240, share);
      drawPanel(holder, panel, {
        scale, share, width: panel.kind === "cells" ? width : Math.min(width, chartWidth),
        height: panels.length > 3 ? 160 : 220, parts,
        alike: hasHeights(panel) ? whole.filter((other) => areAlike(panel, other)) : undefined,
        label: [now.title, words].filter(Boolean).join(", "),
      });
    }
  }

  figures.push({
    element: article,
    get isDrawn() { return state.isDrawn; },
    draw,
    resize: () => {
      if (state.isDrawn && drawing.clientWidth && drawing.clientWidth !== state.width) draw();
    },
    choose: (value) => {
      if (!modelSwitch) return;
      // A model that the picture does not have leaves it as it was made.
      state.model = modelSwitch.has(value) ? value : "all";
      modelSwitch.set(state.model);
      if (state.isDrawn) draw();
    },
  });
  return article;
}

/** What a figure shows as one SVG document in the colours of the light theme. */
function svgText(article, drawing, picture) {
  const origin = drawing.getBoundingClientRect();
  const space = "http://www.w3.org/2000/svg";
  const out = document.createElementNS(space, "svg");
  const lines = [picture.title, ...article.querySelectorAll(".facts li")]
    .map((line) => (typeof line === "string" ? line : line.textContent));
  const head = 18 + 14 * (lines.length - 1) + 8;
  const parts = drawing.querySelectorAll(
    "svg.drawing, p.of, p.note, p.prompt, .thumb canvas, .thumb span");
  let [width, height] = [320, head];
  for (const part of parts) {
    const box = part.getBoundingClientRect();
    const [x, y] = [Math.max(0, box.left - origin.left), box.top - origin.top + head];
    if (part.localName === "svg") {
      const copy = part.cloneNode(true);
      for (const name of ["tabindex", "role", "aria-label"]) copy.removeAttribute(name);
      for (const mark of copy.querySelectorAll('[visibility="hidden"]')) mark.remove();
      copy.setAttribute("x", x);
      copy.setAttribute("y", y);
      out.append(copy);
      width = Math.max(width, x + Number(part.getAttribute("width")));
      height = Math.max(height, y + Number(part.getAttribute("height")));
    } else if (part.localName === "canvas") {
      const image = document.createElementNS(space, "image");
      for (const [name, value] of [["x", x], ["y", y], ["width", box.width], ["height", box.height],
        ["href", part.toDataURL()], ["style", "image-rendering: pixelated"]]) {
        image.setAttribute(name, value);
      }
      out.append(image);
    } else {
      const edge = parseFloat(getComputedStyle(part).paddingLeft);
      const isMiddle = part.localName === "span";
      inLines(part.textContent, Math.max(40, box.width - edge)).forEach((line, i) => {
        const text = document.createElementNS(space, "text");
        text.setAttribute("x", isMiddle ? x + box.width / 2 : x + edge);
        text.setAttribute("y", y + 11 + 15 * i);
        if (isMiddle) text.setAttribute("text-anchor", "middle");
        if (part.className === "of") text.setAttribute("style", "font-weight: 600");
        text.textContent = line;
        out.append(text);
        height = Math.max(height, y + 18 + 15 * i);
      });
    }
  }
  lines.forEach((line, i) => {
    const text = document.createElementNS(space, "text");
    if (i === 0) text.setAttribute("class", "title");
    text.setAttribute("y", 14 + (i === 0 ? 0 : 4 + 14 * i));
    text.textContent = line;
    out.append(text);
    width = Math.max(width, textWidth(line) * (i === 0 ? 1.3 : 1.05));
  });
  out.setAttribute("xmlns", space);
  out.setAttribute("class", "drawing");
  out.setAttribute("viewBox", `-8 -4 ${Math.ceil(width) + 16} ${Math.ceil(height) + 12}`);
  out.setAttribute("width", Math.ceil(width) + 16);
  out.setAttribute("height", Math.ceil(height) + 12);
  // Programs that draw SVG know no variables: their values of the light theme stand in for them.
  const root = getComputedStyle(document.documentElement);
  const rules = document.getElementById("drawing-style").textContent
    .replace(/var\((--[\w-]+)\)/g, (_, name) => root.getPropertyValue(name).trim()
      .replace(/^light-dark\(\s*([^,]+),.*$/s, "$1"));
  const style = document.createElementNS(space, "style");
  style.textContent = rules;
  const ground = document.createElementNS(space, "rect");
  for (const [name, value] of [["x", -8], ["y", -4], ["width", "100%"], ["height", "100%"],
    ["fill", "#fff"]]) ground.setAttribute(name, value);
  out.prepend(style, ground);
  return new XMLSerializer().serializeToString(out);
}

// MARK: The summary

function copyButton(parent, code) {
  const button = make(parent, "button", { type: "button", class: "copy", "aria-label": "Copy the command line" },
    "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

/** Where a list goes: long ones are folded. */
function folded(parent, count, what) {
  if (count <= 6) return parent;
  const details = make(parent, "details");
  make(details, "summary", {}, `${count} ${what}`);
  return details;
}

function addSummary(parent) {
  const section = make(parent, "section", { class: "summary", id: "summary" });
  make(section, "h2", {}, "Summary");
  for (const note of page.notes) make(section, "p", { class: "warning", dir: "auto" }, note);

  const models = new Map();
  for (const source of page.sources) {
    for (const model of source.models) models.set(model.join("\u0000"), model);
  }
  if (models.size > 0) {
    make(section, "h3", {}, models.size === 1 ? "Model" : "Models");
    drawTable(section, ["model", "normalization", "weight processing", "SHA-256 of the weights"],
      [...models.values()].map(([name, normalization, processing, weights]) =>
        [name, normalization, processing, weights.slice(0, 12)]), { caption: "Models" });
  }

  const sets = new Map();
  for (const source of page.sources) {
    if (!source.prompts) continue;
    const key = JSON.stringify(source.prompts);
    sets.set(key, { ...source.prompts, names: [...(sets.get(key)?.names ?? []), source.name] });
  }
  if (sets.size > 0) {
    make(section, "h3", {}, "Prompts");
    const list = make(folded(section, sets.size, "sets of prompts"), "ul", { class: "prompts" });
    for (const { count, first, names } of sets.values()) {
      const item = make(list, "li");
      make(item, "span", {}, `${count} ${count === 1 ? "prompt" : "prompts"} in ${names.join(", ")}`);
      if (first.length === 0) continue;
      const inner = make(item, "ul");
      for (const text of first) {
        make(inner, "li", { dir: "auto" }, text.length > 160 ? text.slice(0, 160) + "…" : text);
      }
      if (count > first.length) make(inner, "li", { class: "soft" }, `and ${count - first.length} more`);
    }
  }

  make(section, "h3", {}, page.sources.length === 1 ? "Result" : "Results");
  // What all results have in common is said once.
  const known = page.sources.filter(({ facts }) => facts.length > 0);
  const shared = new Map((known[0]?.facts ?? []).filter(([name, value]) =>
    known.length > 1 && known.every(({ facts }) => facts.some(([n, v]) => n === name && v === value))));
  addFacts(section, [...shared], "settings");
  const results = folded(section, page.sources.length, "results with command lines and checksums");
  for (const source of page.sources) {
    const box = make(results, "div", { class: "result" });
    make(make(box, "p", { class: "of", dir: "auto" }), "a", { href: `#${source.id}` }, source.name);
    for (const command of source.commands) {
      const line = make(box, "div", { class: "command" });
      const code = make(line, "code", { dir: "auto" }, command);
      copyButton(line, code);
    }
    const own = source.facts.filter(([name]) => !shared.has(name));
    addFacts(box, [...own, ...(source.sha256 ? [["SHA-256", source.sha256]] : [])]);
    if (source.facts.length === 0 && source.commands.length === 0) {
      make(box, "p", { class: "note" }, "The file does not say where its numbers come from.");
    }
  }
}

/** Names with their values on few lines. */
function addFacts(parent, facts, kind) {
  if (facts.length === 0) return;
  const list = make(parent, "dl", { class: kind });
  for (const [name, value] of facts) {
    const pair = make(list, "div");
    make(pair, "dt", {}, name.replaceAll("_", " "));
    make(pair, "dd", { dir: "auto" }, value);
  }
}

// MARK: Sections

function addSource(parent, source) {
  const section = make(parent, "section", { id: source.id });
  make(section, "h2", { dir: "auto" }, source.title || source.name);
  make(section, "p", { class: "file", dir: "auto" }, source.name);
  const contents = [];
  const hasMain = source.groups.some(({ pictures }) => pictures.some((picture) => picture.main));
  if (source.groups.length === 0) {
    make(section, "p", { class: "note" }, "This result holds no numbers to draw.");
  }
  const all = source.groups.flatMap(({ pictures }) => pictures);
  const names = new Set(all.map(({ name }) => name));
  const differences = new Map(all.filter(({ differenceOf }) => names.has(differenceOf))
    .map((picture) => [picture.differenceOf, picture]));
  let number = 0;
  for (const { path, pictures } of source.groups) {
    // Differences stand behind the pictures of the models.
    const own = pictures.filter((p) => differences.get(p.differenceOf) !== p);
    if (own.length === 0) continue;
    const group = make(section, "section", { class: "group", id: `${source.id}-${contents.length}` });
    make(group, "h3", { dir: "auto" }, path);
    const main = own.filter((picture) => picture.main);
    const first = hasMain ? main : own.slice(0, 1);
    const rest = own.filter((picture) => !first.includes(picture));
    const entry = { path, id: group.id, figures: [] };
    const add = (box, picture) => {
      const id = `${source.id}-p${number++}`;
      addFigure(box, source, picture, differences.get(picture.name), id);
      return { id, title: picture.title };
    };
    for (const picture of first) entry.figures.push(add(group, picture));
    if (rest.length > 0) {
      const more = make(group, "details", { class: "more" });
      make(more, "summary", {}, `${rest.length} ${first.length > 0 ? "more " : ""}`
        + (rest.length === 1 ? "picture" : "pictures"));
      // Made when opened: a page of hundreds of pictures opens as fast as one of ten.
      more.addEventListener("toggle", () => {
        if (!more.open || more.dataset.filled) return;
        more.dataset.filled = "";
        const before = figures.length;
        for (const picture of rest) add(more, picture);
        for (const figure of figures.slice(before)) {
          figure.choose(globalModel);
          observer.observe(figure.element);
        }
      });
    }
    contents.push(entry);
  }
  return contents;
}

let globalModel = "all";

function addSwitches(parent) {
  const models = new Set();
  let hasDifference = false;
  for (const source of page.sources) {
    for (const { pictures } of source.groups) {
      for (const picture of pictures) {
        if (picture.differenceOf) hasDifference = true;
        else modelsOf(picture).forEach((name) => models.add(name));
      }
    }
  }
  if (models.size > 1 || hasDifference) {
    const options = [["all", "all models"], ...[...models].map((name) => [modelChoice(name), name])];
    if (hasDifference) options.push(["difference", "difference"]);
    segments(parent, "Model of all pictures", options, "all", (value) => {
      globalModel = value;
      for (const figure of figures) figure.choose(value);
    });
  }
  const themes = [["auto", "light dark"], ["light", "light"], ["dark", "dark"]];
  let theme = 0;
  const button = make(parent, "button", { type: "button", id: "theme" }, "Theme: auto");
  button.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    document.documentElement.style.colorScheme = themes[theme][1];
    button.textContent = `Theme: ${themes[theme][0]}`;
  });
}

function addContents(parent, entries) {
  const details = make(parent, "details");
  make(details, "summary", {}, "Contents");
  const wide = matchMedia("(min-width: 1080px)");
  const follow = () => { details.open = wide.matches; };
  follow();
  wide.addEventListener("change", follow);
  const list = make(details, "ul");
  make(make(list, "li"), "a", { href: "#summary" }, "Summary");
  for (const { source, contents } of entries) {
    const item = make(list, "li");
    make(item, "a", { href: `#${source.id}`, dir: "auto" }, source.title || source.name);
    if (contents.length === 0) continue;
    const groups = make(item, "ul");
    for (const { path, id, figures: shownFigures } of contents) {
      const group = make(groups, "li");
      make(group, "a", { href: `#${id}`, dir: "auto" }, path);
      if (shownFigures.length === 0) continue;
      const pictures = make(group, "ul");
      for (const figure of shownFigures) {
        make(make(pictures, "li"), "a", { href: `#${figure.id}`, dir: "auto" }, figure.title);
      }
    }
  }
  list.addEventListener("click", (event) => {
    if (event.target.localName === "a" && !wide.matches) details.open = false;
  });
}

const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    const figure = figures.find(({ element }) => element === target);
    if (figure && !figure.isDrawn) figure.draw();
  }
}, { rootMargin: "300px" });

{
  const main = document.getElementById("main");
  page.sources.forEach((source, i) => { source.id = `r${i}`; });
  addSwitches(document.getElementById("switches"));
  addSummary(main);
  const entries = page.sources.map((source) => ({ source, contents: addSource(main, source) }));
  addContents(document.getElementById("contents"), entries);
  for (const { element } of figures) observer.observe(element);
  // The first at once; the others when they come into view or when there is nothing else to do, so
  // that a link within the page ends where it points.
  figures[0]?.draw();
  const whenIdle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
  const open = figures.slice(1);
  const drawNext = () => {
    const figure = open.shift();
    if (!figure) return;
    if (!figure.isDrawn && figure.element.checkVisibility()) figure.draw();
    whenIdle(drawNext);
  };
  whenIdle(drawNext);

  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => { for (const figure of figures) figure.resize(); });
  });
  addEventListener("beforeprint", () => {
    for (const figure of figures) {
      if (!figure.isDrawn && figure.element.checkVisibility()) figure.draw();
    }
  });
}
