"use strict";
// The page's data: numbers, words, colours, and the numbers of a picture as rows.

const page = JSON.parse(document.getElementById("data").textContent);

/** The numbers of a stored array, decoded once: Float32Array or Float64Array. */
function numbers(stored) {
  if (!stored.decoded) {
    const bytes = Uint8Array.from(atob(stored.f4 ?? stored.f8), (c) => c.charCodeAt(0));
    stored.decoded = stored.f4 === undefined
      ? new Float64Array(bytes.buffer) : new Float32Array(bytes.buffer);
  }
  return stored.decoded;
}

/** A number for people: four significant digits, five from a thousand on. */
function shown(value, signed = false) {
  if (Number.isNaN(value)) return "no value";
  const size = Math.abs(value);
  const short = Number.isInteger(value) && size < 1e6
    ? size : +size.toPrecision(size >= 1000 ? 5 : 4);
  const sign = value < 0 ? "−" : signed && value > 0 ? "+" : "";
  return sign + String(short).replace("e-", "e−").replace("Infinity", "∞");
}

/** A number in the fewest digits that give the same number again. */
function exact(value, isSingle) {
  if (Number.isNaN(value)) return "NaN";
  if (isSingle) {
    for (let digits = 6; digits <= 9; digits++) {
      const short = Number(value.toPrecision(digits));
      if (Math.fround(short) === value) return String(short);
    }
  }
  return String(value);
}

function unitOf(scale) {
  return scale && scale.unit && scale.unit !== "1" ? scale.unit : "";
}

function withUnit(text, unit) {
  return unit && text !== "no value" ? `${text} ${unit}` : text;
}

/** What stands at a place of an axis: a bare number gets the axis' name. */
function placeName(axis, place) {
  const label = axis.labels[place];
  return /^[\d.+−-]+$/.test(label) ? `${axis.title} ${label}` : label;
}

const hexParts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

/** From a value to its colour's red, green and blue: even mixtures of the two nearest stops. */
function colouring(scale) {
  const stops = (scale?.signed ? page.colours.signed : page.colours.unsigned).map(hexParts);
  const missing = hexParts(page.colours.missing);
  const { low = 0, high = 0, signed = false } = scale ?? {};
  return (value) => {
    if (Number.isNaN(value)) return missing;
    const share = high > low
      ? Math.min(1, Math.max(0, (value - low) / (high - low))) : signed ? 0.5 : 0;
    const place = share * (stops.length - 1);
    const below = Math.min(stops.length - 2, Math.floor(place));
    return stops[below].map(
      (part, i) => Math.round(part + (stops[below + 1][i] - part) * (place - below)));
  };
}

const rgb = (parts) => `rgb(${parts[0]},${parts[1]},${parts[2]})`;

/** Black or white, whichever is read better on a colour. */
function inkOn([red, green, blue]) {
  const linear = (part) => {
    const c = part / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  };
  const light = 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  return light > 0.179 ? "#000" : "#fff";
}

// MARK: Panels

const axisOf = (number) => page.axes[number];

/** A panel's series or clouds, if it has such parts. */
const partsOf = (panel) => panel.series ?? panel.clouds;

/** The models that a picture's panels and their parts belong to, in order. */
function modelsOf(picture) {
  const found = new Set();
  for (const view of picture.views) {
    for (const panel of view.panels) {
      if (panel.model) found.add(panel.model);
      for (const part of partsOf(panel) ?? []) if (part.model) found.add(part.model);
    }
  }
  return [...found];
}

/** A view's panels with what belongs to one model, and what belongs to none. */
function panelsOf(view, model) {
  if (!model) return view.panels;
  return view.panels.flatMap((panel) => {
    if (panel.model && panel.model !== model) return [];
    const parts = partsOf(panel);
    if (!parts) return [panel];
    const kept = parts.filter((part) => !part.model || part.model === model);
    if (kept.length === 0 && parts.length > 0) return [];
    return [{ ...panel, [panel.series ? "series" : "clouds"]: kept }];
  });
}

/** Rows of numbers, tidy: one value a row. `write` says how a number is written. */
function panelRows(panel, write) {
  switch (panel.kind) {
    case "cells": {
      const [x, y, values] = [axisOf(panel.x), axisOf(panel.y), numbers(panel.values)];
      const isSingle = panel.values.f4 !== undefined;
      return Array.from(values, (value, cell) => {
        const [row, column] = [Math.floor(cell / x.labels.length), cell % x.labels.length];
        return {
          row_index: row, row: y.labels[row], column_index: column, column: x.labels[column],
          value: write(value, isSingle), ...(panel.texts ? { text: panel.texts[cell] } : {}),
        };
      });
    }
    case "bars":
    case "curves": {
      const x = axisOf(panel.x);
      const positions = panel.positions && numbers(panel.positions);
      return panel.series.flatMap((series) => {
        const values = numbers(series.values);
        const isSingle = series.values.f4 !== undefined;
        return x.labels.map((label, place) => ({
          model: series.model ?? panel.model ?? "", series: series.name,
          column_index: place, column: label,
          ...(positions ? { x: write(positions[place], panel.positions.f4 !== undefined) } : {}),
          value: write(values[place], isSingle),
          ...(series.low ? {
            low: write(numbers(series.low)[place], series.low.f4 !== undefined),
            high: write(numbers(series.high)[place], series.high.f4 !== undefined),
          } : {}),
        }));
      });
    }
    case "points":
      return panel.clouds.flatMap((cloud) => {
        const [x, y] = [numbers(cloud.x), numbers(cloud.y)];
        return Array.from(x, (value, i) => ({
          model: cloud.model ?? panel.model ?? "", series: cloud.name,
          label: cloud.labels[i] ?? "",
          ...(panel.strips ? { column: panel.strips[Math.round(value)] ?? "" }
            : { x: write(value, cloud.x.f4 !== undefined) }),
          value: write(y[i], cloud.y.f4 !== undefined),
        }));
      });
    case "table":
      return panel.rows.map((row) => Object.fromEntries(panel.columns.map((c, i) => [c, row[i]])));
    default:
      return [];
  }
}

/** The columns that any of the rows has, in a fixed order, tables' own columns last. */
function columnsOf(rows) {
  const order = [
    "view", "panel", "model", "series", "label", "row_index", "row", "column_index", "column", "x",
    "value", "low", "high", "text",
  ];
  const found = new Set(rows.flatMap((row) => Object.keys(row)));
  return [...order.filter((c) => found.has(c)), ...[...found].filter((c) => !order.includes(c))];
}

/** The rows of several panels, with what sets them apart in front. */
function rowsOf(view, panels, write) {
  return panels.flatMap((panel) => panelRows(panel, write).map(
    (row) => ({ view: view.choice, panel: panel.title, model: panel.model ?? "", ...row })));
}

function csvText(rows) {
  const columns = columnsOf(rows);
  const field = (value) => {
    const text = String(value ?? "");
    return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns, ...rows.map((row) => columns.map((c) => row[c]))]
    .map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}
