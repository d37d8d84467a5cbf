// Trials: the index is JSON, compressed.
const WHOLE = [1, 2, 5].flatMap(digit => [1, 10, 100, 1000].map(power => digit * power)).sort((a, b) => a - b); // no loop is numbered 1.2
const NEAR = 60; // curves in one plot; more cannot be told apart
const LEGEND = 12; // curves with a legend; the names of more are shown one by one, below the pointer
const LIST = 200; // rows shown at first
const RESULTS = ["status", "loops", "bounty", "test"]; // of a trial; what else is listed tells it from others
const curvesOf = index => ({ lkg: [`${index.kept}, validation accuracy (%)`, 100],
  accuracy: [`Validation accuracy of each ${index.loop.toLowerCase()} (%)`, 100], loss: ["Validation loss", 1], train_loss: ["Training loss", 1] });
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}
const show = (value, name = "") => /^(bounty|test)$|\(%\)$/.test(name) && typeof value === "number" ? value.toFixed(2) : value === null || value === undefined ? "n/a" : typeof value === "object" ? JSON.stringify(value) : String(value);

function trialPages(index) {
  const CURVES = curvesOf(index), size = index.rows.id.length, all = [...Array(size).keys()], dialog = $("#trial-dialog");
  const value = (at, name) => index.rows[name]?.[at] ?? null;
  const nameOf = at => value(at, "id");
  const colour = (at, count) => `hsl(${Math.round(360 * at / Math.max(count, 1))} 70% ${isDark() ? 62 : 42}%)`;
  let chosen = [], selected = null, plot = null;
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
      const button = make("button", `Show all ${counted(ordered.length, "row")}`, { type: "button" });
      button.addEventListener("click", () => fill(ordered, Infinity));
      last.append(button); more.append(last); table.tBodies[0].append(more);
    };
    fill(trials);
    sortable([...row.cells], trials, (at, column) => value(at, index.listed[column]) ?? "", fill);
    return fill;
  }

  // A number says nothing without its name: `temperature 0.1`.
  const named = (name, text) => text === "" || isNaN(text) ? text : `${(index.headings[name] || name).toLowerCase()} ${text}`;

  // What tells trials from each other: the listed names that each tell some apart, else the ends of their ids, or the ids.
  function labelsOf(trials) {
    const kinds = way => new Set(trials.map(way)).size;
    const label = names => at => names.map(name => named(name, show(value(at, name)))).join(", ");
    const names = index.listed.filter(name => !RESULTS.includes(name) && !name.endsWith("(%)"))
      .reduce((taken, name) => kinds(label([...taken, name])) > kinds(label(taken)) ? [...taken, name] : taken, []);
    const ways = [label(names.length ? names : ["seed"]), at => nameOf(at).split("/").slice(-2).join("/"), nameOf];
    return trials.map(ways.find(way => kinds(way) === trials.length));
  }

  function drawCurves() {
    plot?.destroy();
    plot = null;
    const kind = $("#curve-kind").value, [title, scale] = CURVES[kind] || ["", 1];
    const drawn = chosen.filter(at => index.curves[kind]?.[at]), stride = Math.max(drawn.length / NEAR, 1);
    const shown = drawn.filter((at, place) => at === selected || place % stride < 1); // spread over all of them
    $(".curves").hidden = !shown.length;
    if (!shown.length) return;
    const legend = shown.length <= LEGEND, colours = new Map(shown.map((at, place) => [at, colour(place, shown.length)]));
    const place = shown.indexOf(selected);
    shown.sort((a, b) => (a === selected) - (b === selected)); // above the others, of which some may be equal
    const labels = labelsOf(shown), thick = shown.length > 1 ? shown.indexOf(selected) : -1;
    $("#curve-note").textContent = [
      shown.length < drawn.length ? `${shown.length} of ${grouped(drawn.length)} curves are drawn, at even distances in the list.` : "",
      drawn.length < chosen.length ? `${counted(chosen.length - drawn.length, "trial")} without a curve.` : "",
      thick < 0 ? "" : "The thick curve is that of the selected trial.",
      legend ? "" : "Point at a curve to see its trial."].filter(Boolean).join(" ");
    $("#curve-name").textContent = "";
    const longest = Math.max(...shown.map(at => index.curves[kind][at].length));
    const lines = shown.map(at => Array.from({ length: longest }, (_, loop) => {
      const found = index.curves[kind][at][loop];
      return found === undefined || found === null ? null : found / scale;
    }));
    const around = (_, low, high) => { // percentages end at 100, and neither they nor losses are negative
      if (low === null) return [0, 1];
      const room = 0.06 * (high - low) || 0.1 * high || 1;
      return [Math.max(low - room, 0), scale === 100 ? Math.min(high + room, 100) : high + room];
    };
    const ink = getComputedStyle(document.body).color, line = isDark() ? "#30363d" : "#e5e8eb";
    const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line } };
    const wide = Math.max(260, $("#plot").clientWidth);
    plot = new uPlot({
      width: wide, height: 360, scales: { x: { time: false, ...(longest === 1 && { range: [0.5, 1.5] }) }, y: { range: around } }, cursor: { focus: { prox: 24 } }, focus: { alpha: 0.25 },
      legend: { show: legend },
      hooks: { setSeries: [(_, place) => { if (!legend) $("#curve-name").textContent = place ? labels[place - 1] : ""; }] },
      series: [{ label: index.loop }, ...shown.map((at, place) => ({
        label: labels[place], stroke: colours.get(at), width: place === thick ? 3 : 1.4, points: { show: longest === 1 },
        value: (_, number) => number === null ? "" : number.toPrecision(4) }))],
      axes: [{ ...axis, label: index.loop, incrs: WHOLE }, { ...axis, label: title, size: 64 }],
    }, [Array.from({ length: longest }, (_, loop) => loop + 1), ...lines], $("#plot"));
    const names = $$(".u-series", $("#plot")); // the legend keeps the order of the list
    if (legend && thick >= 0) names[place + 1].before(names[thick + 1]);
  }

  function copied(text) {
    const line = make("div", "", { class: "command" }), button = make("button", "Copy", { type: "button" });
    const code = make("code"); // a line may end between words alone: an option in two parts is typed wrongly
    code.append(...text.split(" ").flatMap((word, at) => [at ? " " : "", make("span", word, { class: "word" })]));
    line.append(code, button);
    button.addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
      catch { getSelection().selectAllChildren(line.firstChild); }
    });
    return line;
  }

  function details(at, line) {
    selected = at;
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

  function open(title, trials) {
    chosen = trials;
    $("#dialog-title").textContent = `${title} (${counted(trials.length, "trial")})`;
    const kinds = Object.keys(CURVES).filter(kind => trials.some(at => index.curves[kind]?.[at]));
    const before = $("#curve-kind").value;
    $("#curve-kind").replaceChildren(...kinds.map(kind => make("option", CURVES[kind][0], { value: kind })));
    if (kinds.includes(before)) $("#curve-kind").value = before;
    listInto($("#cell-trials"), trials, (at, line) => { details(at, line); drawCurves(); });
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    details(trials.find(at => kinds.some(kind => index.curves[kind][at])) ?? trials[0]);
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
    const needs = table.dataset.needs;
    const fits = (at, arm) => (!needs || value(at, needs) !== null) && Object.entries(arm).every(([name, found]) => String(value(at, name)) === found);
    const textOf = arm => [...new Set([...selects.filter(Boolean), ...Object.keys(arm)])].filter(name => arm[name]).map(name => named(name, arm[name])).join(", ");
    // Of two arms those trials whose partner is there: of the same seed, and of the same architecture where both have it.
    const pairs = (one, other) => {
      const mine = all.filter(at => fits(at, one)), theirs = all.filter(at => fits(at, other));
      const archs = new Set(mine.map(at => value(at, "arch"))), shared = theirs.some(at => archs.has(value(at, "arch")));
      const key = at => `${shared ? value(at, "arch") : ""} ${value(at, "seed")}`;
      const keys = [mine, theirs].map(arm => new Set(arm.map(key))), chosen = new Set([...mine, ...theirs]);
      return all.filter(at => chosen.has(at) && keys.every(each => each.has(key(at))));
    };
    const openCell = cell => {
      const [one, other] = wanted(cell), trials = other ? pairs(one, other) : all.filter(at => fits(at, one));
      const minus = Object.entries(other || {}).filter(([name, found]) => one[name] !== found).map(([name, found]) => named(name, found)).join(", ");
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
    count.textContent = `${grouped(listed.length)} of ${counted(size, "trial")}`;
    listInto($("#trial-table"), listed, openOne);
  });
  $("#plot-trials").addEventListener("click", () => { if (listed.length) open(input.value || "All trials", listed); });
  document.body.dataset.trials = size;
}
if ($("#trial-data")) unpacked(JSON.parse($("#trial-data").textContent)).then(trialPages, error => {
  $("#trials").replaceChildren(make("p", `This browser cannot show the trials: ${error.message}`));
});
