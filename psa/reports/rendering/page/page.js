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
function matcher(text, names) {
  const parts = text.split(";").map(part => part.trim()).filter(Boolean).map(part => {
    const found = COMPARISON.exec(part);
    const column = found && names.findIndex(name => name.toLowerCase().startsWith(found[1].toLowerCase()));
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
    count.textContent = input.value ? `${shown} of ${rows.length} rows` : `${rows.length} rows`;
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

// Trials: the index is JSON, compressed.
const WHOLE = [1, 2, 5].flatMap(digit => [1, 10, 100, 1000].map(power => digit * power)).sort((a, b) => a - b); // no loop is numbered 1.2
const NEAR = 60; // curves in one plot; more cannot be told apart
const LIST = 200; // rows shown at first
const curvesOf = index => ({ lkg: [`${index.kept}, validation accuracy (%)`, 100],
  accuracy: [`Validation accuracy of each ${index.loop.toLowerCase()} (%)`, 100], loss: ["Validation loss", 1], train_loss: ["Training loss", 1] });
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}
const show = (value, name = "") => /^(bounty|test)$/.test(name) && typeof value === "number" ? value.toFixed(2) : value === null || value === undefined ? "n/a" : typeof value === "object" ? JSON.stringify(value) : String(value);

function trialPages(index) {
  const CURVES = curvesOf(index), size = index.rows.id.length, all = [...Array(size).keys()], dialog = $("#trial-dialog");
  const value = (at, name) => index.rows[name]?.[at] ?? null;
  const nameOf = at => value(at, "id");
  const colour = (at, count) => `hsl(${Math.round(360 * at / Math.max(count, 1))} 70% ${isDark() ? 62 : 42}%)`;
  let chosen = [], plot = null;
  // a column is of numbers if any trial has one: a trial that is missing has none, and may be the first
  const numbers = new Set(index.listed.filter(name => index.rows[name]?.some(each => typeof each === "number")));
  const kindOf = name => numbers.has(name) ? "" : "text";

  function cell(at, name) { // a short text in one line: rows of three lines show a third of the trials
    const text = show(value(at, name), name), kind = kindOf(name);
    const brief = kind && text.length <= 24 ? " brief" : "", missing = value(at, name) === null ? " missing" : "";
    return make("td", text, { class: kind + brief + missing });
  }

  function listInto(table, trials, open) {
    const row = make("tr");
    for (const name of index.listed) {
      const head = make("th", "", { scope: "col", class: kindOf(name) });
      head.append(make("button", index.headings[name] || name, { type: "button" }));
      row.append(head);
    }
    table.tHead.replaceChildren(row);
    const width = name => Math.max(...(index.headings[name] || name).split(" ").map(word => word.length),
      ...all.map(at => Math.min(show(value(at, name), name).length, 24))) + 2;
    table.style.setProperty("--letters", index.listed.map(width).reduce((sum, each) => sum + each, 0));
    const fill = (ordered, most = LIST) => {
      table.tBodies[0].replaceChildren(...ordered.slice(0, most).map(at => {
        const line = make("tr", "", { tabindex: 0, "data-trial": at });
        for (const name of index.listed) line.append(cell(at, name));
        line.addEventListener("click", () => open(at, line));
        line.addEventListener("keydown", event => { if (event.key === "Enter") open(at, line); });
        return line;
      }));
      if (ordered.length <= most) return;
      const more = make("tr"), last = make("td", "", { colspan: index.listed.length, class: "text" });
      const button = make("button", `Show all ${ordered.length} rows`, { type: "button" });
      button.addEventListener("click", () => fill(ordered, Infinity));
      last.append(button); more.append(last); table.tBodies[0].append(more);
    };
    fill(trials);
    sortable([...row.cells], trials, (at, column) => value(at, index.listed[column]) ?? "", fill);
    return fill;
  }

  function drawCurves() {
    plot?.destroy();
    plot = null;
    const kind = $("#curve-kind").value, [title, scale] = CURVES[kind] || ["", 1];
    const shown = chosen.filter(at => index.curves[kind]?.[at]).slice(0, NEAR);
    $(".curves").hidden = !shown.length;
    if (!shown.length) return;
    const longest = Math.max(...shown.map(at => index.curves[kind][at].length));
    const lines = shown.map(at => Array.from({ length: longest }, (_, loop) => {
      const found = index.curves[kind][at][loop];
      return found === undefined || found === null ? null : found / scale;
    }));
    const ink = getComputedStyle(document.body).color, line = isDark() ? "#30363d" : "#e5e8eb";
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
    const wide = Math.max(260, $("#plot").clientWidth);
    plot = new uPlot({
      width: wide, height: 360, scales: { x: { time: false } }, cursor: { focus: { prox: 24 } }, focus: { alpha: 0.25 },
      legend: { show: shown.length <= 12 },
      series: [{ label: index.loop }, ...shown.map((at, place) => ({
        label: nameOf(at).split("/").slice(-2).join("/"), stroke: colour(place, shown.length), width: 1.4, points: { show: longest === 1 },
        value: (_, number) => number === null ? "" : number.toPrecision(4) }))],
      axes: [{ ...axis, label: index.loop, incrs: WHOLE }, { ...axis, label: title, size: 64 }],
    }, [Array.from({ length: longest }, (_, loop) => loop + 1), ...lines], $("#plot"));
  }

  function copied(text) {
    const line = make("div", "", { class: "command" }), button = make("button", "Copy", { type: "button" });
    line.append(make("code", text), button);
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(line.firstChild); }
    });
    return line;
  }

  function details(at, line) {
    $$("#cell-trials tr.chosen").forEach(each => each.classList.remove("chosen"));
    (line || $(`#cell-trials tr[data-trial="${at}"]`))?.classList.add("chosen");
    const facts = make("dl"), settings = { ...index.spec.common };
    for (const [key, values] of Object.entries(index.spec.varied)) settings[key] = values[at];
    for (const [key, found] of Object.entries(settings)) {
      const pair = make("div");
      pair.append(make("dt", key), make("dd", show(found)));
      facts.append(pair);
    }
    const parts = [make("h3", nameOf(at))];
    parts.push(make("p", value(at, "record") ? `Record, in the results folder: ${value(at, "record")}` : `No record: ${value(at, "status")}.`));
    if (index.commands[at]) parts.push(make("p", "Train it again, beside the stored one. The two records must be equal:"), copied(index.commands[at]));
    if (value(at, "record")) parts.push(make("h4", "Settings"), facts);
    $("#trial-details").replaceChildren(...parts);
  }

  function open(title, trials, focused = trials[0]) {
    chosen = trials;
    $("#dialog-title").textContent = `${title} (${trials.length} ${trials.length === 1 ? "trial" : "trials"})`;
    const kinds = Object.keys(CURVES).filter(kind => trials.some(at => index.curves[kind]?.[at]));
    const before = $("#curve-kind").value;
    $("#curve-kind").replaceChildren(...kinds.map(kind => make("option", CURVES[kind][0], { value: kind })));
    if (kinds.includes(before)) $("#curve-kind").value = before;
    listInto($("#cell-trials"), trials, details);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    details(focused);
    drawCurves();
  }
  $("#curve-kind").addEventListener("change", drawCurves);
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { plot?.destroy(); plot = null; });
  addEventListener("resize", () => { if (dialog.open) drawCurves(); });

  // The cells of a table: those that stand for trials can be selected, by mouse or by arrow keys and Enter.
  for (const table of $$("table.opens")) {
    const heads = [...table.tHead.rows[0].cells];
    const selects = heads.map(head => head.dataset.selects || ""), fixed = heads.map(head => JSON.parse(head.dataset.fixed || "{}"));
    const own = (row, column) => {
      const found = { ...fixed[column] };
      selects.forEach((name, at) => { if (name && row.cells[at].dataset.key !== "") found[name] ??= row.cells[at].dataset.key; });
      return found;
    };
    const wanted = cell => { // what a cell selects: of a difference the arm of the row, and the arm that is subtracted
      const row = cell.parentNode, one = own(row, cell.cellIndex), other = { ...one, ...JSON.parse(row.dataset.other || "{}") };
      return { both: [one, other], other: [other] }[heads[cell.cellIndex].dataset.side] || [one];
    };
    const fits = (at, arm) => Object.entries(arm).every(([name, found]) => String(value(at, name)) === found);
    const textOf = arm => [...new Set([...selects.filter(Boolean), ...Object.keys(arm)])].map(name => arm[name]).filter(Boolean).join(", ");
    const openCell = cell => {
      const [one, other] = wanted(cell), trials = all.filter(at => fits(at, one) || (other && fits(at, other)));
      const minus = Object.entries(other || {}).filter(([name, found]) => one[name] !== found).map(([, found]) => found).join(", ");
      if (trials.length) open(minus ? `${textOf(one)} minus ${minus}` : textOf(one), trials);
    };
    const cells = $$("tbody td", table).filter(cell => Object.keys(wanted(cell)[0]).length);
    cells.forEach((cell, at) => { cell.classList.add("open"); cell.tabIndex = at ? -1 : 0; });
    table.addEventListener("click", event => { const cell = event.target.closest("td.open"); if (cell) openCell(cell); });
    table.addEventListener("keydown", event => {
      const cell = event.target.closest("td.open");
      if (!cell) return;
      if (event.key === "Enter") { event.preventDefault(); return openCell(cell); }
      const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] || [0, 0];
      if (!down && !right) return;
      const rows = [...table.tBodies[0].rows].filter(row => !row.hidden);
      const next = rows[rows.indexOf(cell.parentNode) + down]?.cells[cell.cellIndex + right];
      if (!next?.classList.contains("open")) return;
      event.preventDefault();
      cell.tabIndex = -1; next.tabIndex = 0; next.focus();
    });
  }

  // The list of all trials.
  let listed = all;
  const openOne = at => open(nameOf(at), [at]);
  listInto($("#trial-table"), all, openOne);
  const input = $("#trial-filter"), names = index.listed.map(name => index.headings[name] || name), count = input.nextElementSibling;
  const texts = all.map(at => `${nameOf(at)} ${index.listed.map(name => show(value(at, name))).join(" ")}`.toLowerCase());
  input.addEventListener("input", () => {
    const match = matcher(input.value, names);
    listed = all.filter(at => match(texts[at], index.listed.map(name => value(at, name) ?? "")));
    count.textContent = `${listed.length} of ${size} trials`;
    if (listed.length) listInto($("#trial-table"), listed, openOne); else $("#trial-table").tBodies[0].replaceChildren();
  });
  $("#plot-trials").addEventListener("click", () => { if (listed.length) open(input.value || "All trials", listed); });
  document.body.dataset.trials = size;
}
if ($("#trial-data")) unpacked(JSON.parse($("#trial-data").textContent)).then(trialPages, error => {
  $("#trials").replaceChildren(make("p", `This browser cannot show the trials: ${error.message}`));
});
