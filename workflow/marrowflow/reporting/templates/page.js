"use strict";
// Tables sort and can be copied, the contents fold on a phone, and folded parts are opened for printing.
// Without this script the page is all there. Nothing is fetched, stored or sent.

const MISSING = new Set(["", "missing", "undefined", "–", "—", "not done"]);
const BY_NAME = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const NUMBER = /^([<≤>≥~≈]?)\s*([-+]?)(∞|\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(e[-+]?\d+)?(?=$|[\s%()[\]/:;,])/i;
const wordsOf = (node) => node.textContent.replace(/\s+/g, " ").trim();

// The number that a cell starts with ("0.91 (0.80 to 0.97)", "12 (30%)"); null if it is missing, NaN if it is words.
function valueOf(words) {
  if (MISSING.has(words) || words.startsWith("no interval")) return null;
  const found = NUMBER.exec(words.replace(/−/g, "-"));
  if (!found) return NaN;
  const [, bound, sign, digits, exponent] = found;
  const size = digits === "∞" ? Infinity : Number(digits.replace(/,/g, "") + (exponent || ""));
  const value = sign === "-" ? -size : size;
  return bound === "<" ? value - Math.abs(value) * 1e-9 : bound === ">" ? value + Math.abs(value) * 1e-9 : value;
}

// How two cells of a column compare, both present: by number where every cell of the column has one, else by name.
function order(values) {
  const numbers = values.every(({ value }) => !Number.isNaN(value));
  return (a, b) => (numbers ? a.value - b.value || 0 : BY_NAME.compare(a.words, b.words));
}

function sortable(table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  if (rows.length < 2) return;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[head.getAttribute("aria-sort")];
      const way = next === undefined ? "ascending" : next;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      if (way) head.setAttribute("aria-sort", way);
      const cells = rows.map((row) => {
        const words = wordsOf(row.cells[column]);
        return { row, words, value: valueOf(words) };
      });
      const [present, absent] = [cells.filter((c) => c.value !== null), cells.filter((c) => c.value === null)];
      const compare = order(present);
      if (way) present.sort((a, b) => (way === "ascending" ? compare(a, b) : compare(b, a)));
      body.append(...(way ? [...present, ...absent] : cells).map((cell) => cell.row));
    });
  });
}

// Title, header, rows as they stand and notes, with tabs between the cells.
function asText(figure) {
  const rows = [...figure.querySelectorAll("tr")].map((row) => [...row.cells].map(wordsOf).join("\t"));
  const notes = [...figure.querySelectorAll(".footnote")].map(wordsOf);
  return [wordsOf(figure.querySelector("figcaption")), ...rows, ...notes].join("\n") + "\n";
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Some browsers give a page from a disk no clipboard.
    const area = document.createElement("textarea");
    const focused = document.activeElement;
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused.focus();
  }
}

function copyable(figure) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", "Copy table: " + wordsOf(figure.querySelector("figcaption")));
  button.addEventListener("click", async () => {
    await copy(asText(figure));
    button.textContent = "Copied";
    document.querySelector("[role=status]").textContent = "Table copied";
    setTimeout(() => {
      button.textContent = "Copy";
      document.querySelector("[role=status]").textContent = "";
    }, 2000);
  });
  figure.querySelector(".scroll").after(button);
}

document.querySelectorAll("figure.table").forEach((figure) => {
  sortable(figure.querySelector("table"));
  copyable(figure);
});

const narrow = matchMedia("(max-width: 600px)");
if (narrow.matches) document.querySelector("nav details").open = false;

// Browsers without ::details-content print only what is open.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("main details:not([open])")];
  opened.forEach((part) => (part.open = true));
});
addEventListener("afterprint", () => opened.forEach((part) => (part.open = false)));
