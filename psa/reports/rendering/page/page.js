"use strict";
document.body.classList.remove("plain"); // controls that need this script are hidden without it
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, text = "", attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};
const grouped = number => number.toLocaleString("en");
const counted = (number, noun) => `${grouped(number)} ${noun}${number === 1 ? "" : "s"}`;

// Colours: those of the system until the reader chooses others.
const isDark = () => document.documentElement.dataset.theme
  ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const showTheme = () => {
  $("#theme").setAttribute("aria-pressed", isDark());
  $("#theme").textContent = isDark() ? "Light colours" : "Dark colours";
};
$("#theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
});
showTheme();

// Contents: open beside the page, closed in the bar of a narrow screen; the section in view is marked.
const narrow = matchMedia("(max-width: 60rem)"), menu = $("#menu");
const fold = () => { menu.open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
const links = new Map($$("nav a").map(link => [link.hash.slice(1), link]));
$("nav").addEventListener("click", event => { if (narrow.matches && event.target.closest("a")) menu.open = false; });
const seen = new Set();
const observer = new IntersectionObserver(entries => {
  for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target);
  const current = $$("main > section, #top, #origin").find(each => seen.has(each));
  for (const link of links.values()) link.removeAttribute("aria-current");
  if (current) links.get(current.id)?.setAttribute("aria-current", "true");
}, { rootMargin: "-10% 0px -55% 0px" });
$$("main > section, #top, #origin").forEach(each => observer.observe(each));

// The page holds its pictures as WebP. A saved one is PNG with the same pixels, which every program reads.
const asPng = async image => {
  if (image.src.startsWith("data:image/png")) return image.src; // too long for WebP, and for the canvas of some browsers
  const canvas = document.createElement("canvas");
  await image.decode();
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
  return URL.createObjectURL(await new Promise(resolve => canvas.toBlob(resolve, "image/png")));
};
const save = async figure => {
  const link = make("a", "", { href: await asPng($("img", figure)), download: `${figure.id}.png` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // some browsers read the address after click() returns
};
$$("button.png").forEach(button => button.addEventListener("click", () => save(button.closest("figure"))));

// Filter: every word must occur in a row; "Column > 90" compares the numbers of a column.
const COMPARISON = /^(.+?)\s*(<=|>=|<|>|=)\s*(-?[\d.,]+)$/;
const TESTS = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };
// The column of a name, else the first one that begins with it: "p" is p, not Pairs.
const columnOf = (name, names) => names.includes(name) ? names.indexOf(name) : names.findIndex(each => each.startsWith(name));
function matcher(text, names) {
  const parts = text.split(";").map(part => part.trim()).filter(Boolean).map(part => {
    const found = COMPARISON.exec(part);
    const column = found && columnOf(found[1].toLowerCase(), names.map(name => name.toLowerCase()));
    if (found && column >= 0) {
      const limit = Number(found[3].replaceAll(",", "")), test = TESTS[found[2]];
      return (words, keys) => keys[column] !== "" && keys[column] !== null && test(Number(keys[column]), limit);
    }
    const wanted = part.toLowerCase().split(/\s+/);
    return words => wanted.every(word => words.includes(word));
  });
  return (words, keys) => parts.every(part => part(words, keys));
}

// A click on a heading sorts by that column: numbers by value, texts by alphabet, missing last; the third click undoes it.
function sortable(heads, rows, key, show) {
  heads.forEach((head, column) => $("button", head).addEventListener("click", () => {
    const next = { ascending: "descending", descending: "none" }[head.getAttribute("aria-sort")] || "ascending";
    heads.forEach(each => each.removeAttribute("aria-sort"));
    const ordered = [...rows];
    if (next !== "none") {
      head.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const numeric = ordered.every(row => key(row, column) === "" || !isNaN(key(row, column)));
      ordered.sort((a, b) => {
        const x = key(a, column), y = key(b, column);
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (numeric ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
      });
    }
    show(ordered);
  }));
}
for (const table of $$("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0], rows = [...body.rows];
  sortable(heads, rows, (row, column) => row.cells[column].dataset.key, ordered => body.append(...ordered));
  const input = $("input[type=search]", table.closest(".table"));
  if (!input) continue;
  const names = heads.map(head => head.textContent), count = input.nextElementSibling;
  const printed = $(".printed", table.closest(".table"));
  const apply = () => {
    const match = matcher(input.value, names);
    for (const row of rows) row.hidden = !match(row.textContent.toLowerCase(), [...row.cells].map(cell => cell.dataset.key));
    const shown = rows.filter(row => !row.hidden).length;
    count.textContent = input.value ? `${grouped(shown)} of ${counted(rows.length, "row")}` : counted(rows.length, "row");
    if (!printed) return;
    $(".of", printed).textContent = shown;
    printed.hidden = shown <= Number($(".first", printed).textContent);
  };
  input.addEventListener("input", apply);
}
addEventListener("keydown", event => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName) || $("dialog[open]")) return;
  const next = $$("input[type=search]").find(input => input.getBoundingClientRect().bottom > 0);
  if (next) { event.preventDefault(); next.focus(); }
});
