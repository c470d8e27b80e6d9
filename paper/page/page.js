// What the sections share: data, numbers in print, charts, sortable tables, the theme.
const data = (name) => JSON.parse(document.getElementById(`${name}-data`).textContent);
const shared = data("shared");
const variants = Object.keys(shared.labels);
const element = (id) => document.getElementById(id);

/** Base64 of little-endian numbers as a typed array. */
function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

/** A number as the paper prints it, a dash where there is none. */
function number(value, digits = 3) {
  return value === null || Number.isNaN(value) ? "–" : value.toFixed(digits).replace("-", "−");
}

function bounds(low, high, digits = 3) {
  const none = low === null || Number.isNaN(low);
  return none ? "no interval" : `${number(low, digits)} to ${number(high, digits)}`;
}

/** An HTML element: its tag, properties, and children or texts. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Fill a select with [value, text] pairs. */
function choices(id, pairs, chosen) {
  const select = element(id);
  for (const [value, text] of pairs) {
    select.append(make("option", { value, selected: String(value) === String(chosen) }, text));
  }
  return select;
}
const variantChoices = () => variants.map((name) => [name, shared.labels[name]]);

/** Call a function now and whenever one of the controls changes. */
function follow(controls, draw) {
  for (const control of controls) control.addEventListener("input", draw);
  draw();
}

/** Colour and dashes of each variant, the same in every chart. */
const HUES = 7;
const DASHES = [[1, 0], [6, 2], [2, 2], [7, 2, 2, 2], [10, 3], [5, 2, 1, 2, 1, 2], [3, 2]];
const colours = {
  domain: variants.map((name) => shared.labels[name]),
  range: variants.map((_, i) => `var(--c${i % HUES})`),
};
const dashes = {
  domain: colours.domain,
  range: variants.map((_, i) => DASHES[(i + Math.floor(i / HUES)) % DASHES.length]),
};

const CONFIG = {
  background: "transparent",
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: "var(--ink)", titleColor: "var(--ink)", gridColor: "var(--band)", labelFontSize: 12, labelFlush: false,
    domainColor: "var(--soft)", tickColor: "var(--soft)", titleFontSize: 12, titleFontWeight: 500, aria: false,
  },
  axisY: { labelLimit: 170 },
  legend: {
    labelColor: "var(--ink)", labelFontSize: 12, orient: "bottom", columns: 2, title: null,
    symbolType: "stroke", symbolStrokeWidth: 2.5, symbolSize: 500, symbolOpacity: 1, labelLimit: 220, aria: false,
  },
};

const loaded = new Promise((done) => { addEventListener("DOMContentLoaded", () => done()); });
const charts = {};

/** Draw a Vega-Lite chart into an element, after what was there; `description` is for screen readers. */
function chart(id, description, spec) {
  const whole = {
    width: "container", height: 280, autosize: { type: "fit-x", contains: "padding" }, config: CONFIG, description, ...spec,
  };
  charts[id] = (charts[id] ?? loaded).then((earlier) => {
    earlier?.finalize();
    return vegaEmbed(element(id), whole, { renderer: "svg", actions: false });
  });
}

// Without a format, Vega-Lite 6.4 looks for a text in the cell around a point and not in its row.
const reached = (told) => ({ format: "", formatType: "number", ...told });

/** Rows of points at a pointer's reach: their mark shows and tells only what is nearest. */
const nearest = (tooltip, encoding = {}) => ({
  params: [{ name: "near", select: { type: "point", nearest: true, on: "pointermove", clear: "pointerout" } }],
  mark: { type: "point", filled: true, size: 70, clip: true, aria: false },
  encoding: { opacity: { condition: { param: "near", empty: false, value: 1 }, value: 0 }, tooltip: tooltip.map(reached), ...encoding },
});

/** Let the buttons in a table's head sort an array of rows, then draw it again. */
function sortable(table, rows, keys, draw) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const key = keys[column];
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === null || y === null) return (x === null) - (y === null); // what is undefined comes last
        return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
      });
      draw();
    });
  });
}

/** Copy a text; where the browser does not allow it, mark it instead. */
async function copy(button, source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Marked: press Ctrl+C";
  }
}

addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement;
  const button = element("theme");
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  name();
});
