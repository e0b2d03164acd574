// Tables that sort by any column.

/** More rows than this are not put into the page; the CSV has all. */
const rowLimit = 500;

/** A cell's number, if it is one. */
function numberIn(text) {
  const plain = String(text).trim().replaceAll("−", "-").replace(/%$/, "");
  if (plain === "–" || plain === "NaN" || plain === "no value" || plain === "") return NaN;
  if (/^[+-]?(∞|Infinity)$/.test(plain)) return plain.startsWith("-") ? -Infinity : Infinity;
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain) ? Number(plain) : null;
}

/** A table of texts; clicking a heading sorts by it, clicking again turns the order. */
function drawTable(box, columns, rows, { caption }) {
  const table = d3.select(box).append("div").attr("class", "scroll").attr("tabindex", 0)
    .attr("role", "region").attr("aria-label", caption).append("table");
  const body = () => table.select("tbody");
  let sorted = { column: null, ascending: true };
  const isNumeric = columns.map((_, c) => rows.length > 0
    && rows.every((row) => numberIn(row[c]) !== null)
    && rows.some((row) => !Number.isNaN(numberIn(row[c]))));

  function fill(order) {
    body().selectAll("tr").data(order.slice(0, rowLimit)).join("tr").selectAll("td")
      .data((row) => row).join("td").attr("class", (_, c) => (isNumeric[c] ? "number" : null))
      .attr("dir", (_, c) => (isNumeric[c] ? null : "auto")).text((text) => text);
  }

  function sort(column) {
    // Numbers begin with the largest, words with a.
    const ascending = sorted.column === column ? !sorted.ascending : !isNumeric[column];
    sorted = { column, ascending };
    const sign = ascending ? 1 : -1;
    const order = [...rows].sort((a, b) => {
      if (!isNumeric[column]) {
        return sign * String(a[column]).localeCompare(String(b[column]), "en", { numeric: true });
      }
      const [u, v] = [numberIn(a[column]), numberIn(b[column])];
      // What has no value stands last in both orders.
      if (Number.isNaN(u) || Number.isNaN(v)) return Number.isNaN(u) - Number.isNaN(v);
      return u === v ? 0 : sign * (u - v);
    });
    fill(order);
    table.selectAll("th").attr("aria-sort",
      (_, c) => (c === column ? (ascending ? "ascending" : "descending") : null));
  }

  table.append("caption").attr("class", "unseen").text(caption);
  table.append("thead").append("tr").selectAll("th").data(columns).enter().append("th")
    .attr("scope", "col").attr("class", (_, c) => (isNumeric[c] ? "number" : null))
    .append("button").attr("type", "button").text((name) => name || "\u00a0")
    .on("click", (_, c) => sort(c));
  table.append("tbody");
  fill(rows);
  if (rows.length > rowLimit) {
    d3.select(box).append("p").attr("class", "note")
      .text(`The first ${rowLimit} of ${rows.length.toLocaleString("en")} rows in this order; the CSV has all.`);
  }
}
